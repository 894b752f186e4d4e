"""The spacing of stamps: the frequency that they follow, and where they stop following one."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

_DAY = pd.Timedelta(days=1)

# A gap's grid is only laid out up to this many stamps; beyond it the spacing counts as irregular.
_MOST_GRID_STAMPS = 5_000_000


def regular_frequency(times: pd.DatetimeIndex) -> pd.offsets.BaseOffset | None:
    """Infer the frequency of three stamps or more; None when they follow none."""
    # pandas.infer_freq misses hourly data over a change of the clocks, so equal steps come first.
    local = _local(times)
    if not (np.diff(local.asi8) % _ticks(times, _DAY)).any():
        inferred = pd.infer_freq(local)
        offset = None if inferred is None else to_offset(inferred)
    else:
        steps = np.diff(times.asi8)
        offset = None
        if (steps == steps[0]).all():
            offset = to_offset(pd.Timedelta(int(steps[0]), unit=times.unit))
    return offset if offset is not None and follows(times, offset) else None


def likely_frequency(times: pd.DatetimeIndex) -> pd.offsets.BaseOffset | None:
    """Guess the frequency that broken stamps were meant to have, from their longest even run."""
    local = _local(times)
    steps = np.diff(times.asi8)
    daily = not (np.diff(local.asi8) % _ticks(times, _DAY)).any()
    weekday = local.dayofweek.to_numpy()
    weekends_left_out = weekday.max() < 5 and bool((np.diff(weekday) < 0).any())
    if daily and weekends_left_out and np.median(steps) <= 1.5 * _ticks(times, _DAY):
        return to_offset("B")
    # Calendar steps differ by a few percent (28 to 31 days), a missing stamp by a factor.
    jumps = np.flatnonzero(steps > 1.5 * np.median(steps))
    edges = np.concatenate([[0], jumps + 1, [len(times)]])
    longest = int(np.argmax(np.diff(edges)))
    run = times[edges[longest] : edges[longest + 1]]
    if len(run) >= 3:
        regular = regular_frequency(run)
        if regular is not None:
            return regular
    if daily:
        return None
    values, counts = np.unique(steps, return_counts=True)
    if counts.max() < max(2, len(steps) / 3):
        return None
    return to_offset(pd.Timedelta(int(values[counts.argmax()]), unit=times.unit))


def follows(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> bool:
    """Tell whether the stamps are all the frequency's, from the first to the last."""
    try:
        set_frequency(times, offset)
    except (ValueError, OverflowError):  # a local time that the clocks skip is a ValueError too
        return False
    return True


def set_frequency(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> pd.DatetimeIndex:
    """Give the same stamps with a frequency, which pandas checks; the index stays as is."""
    # pandas refuses another name of the frequency an index has (QS-JAN for QS-OCT): drop that first
    bare = pd.DatetimeIndex(times, freq=None)  # type: ignore[arg-type]  # None is what drops it
    return pd.DatetimeIndex(bare, freq=offset)


def lay_out(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> pd.DatetimeIndex | None:
    """Lay out every stamp of the frequency over the index's span; None where too many."""
    start = times[0]
    try:
        step = (start + offset) - start
        if step <= pd.Timedelta(0) or (times[-1] - start) / step > _MOST_GRID_STAMPS:
            return None
        return pd.date_range(start, times[-1], freq=offset, unit=times.unit)
    except (ValueError, OverflowError):
        return None


def explain_break(
    times: pd.DatetimeIndex,
    offset: pd.offsets.BaseOffset | None,
    name: str,
    row: Callable[[int], str],
    *,
    given: bool = False,
) -> str:
    """Say in one sentence where the stamps leave the frequency, and what to do about it."""
    if offset is None:
        steps = np.diff(_local(times).asi8) / _ticks(times, _DAY)
        remedy = "bring them to one frequency, for example with .resample('h').mean()"
        if steps.min() >= 28 and steps.max() <= 31:
            remedy = "make them months with index.to_period('M')"
        first = int(np.flatnonzero([*np.diff(times.asi8, 2), 1])[0]) + 1
        first = min(first, len(times) - 2)
        return (
            f"{name} has irregular stamps: {row(first)} ({times[first]}) comes "
            f"{times[first] - times[first - 1]} and {row(first + 1)} ({times[first + 1]}) "
            f"{times[first + 1] - times[first]} after the row before; {remedy}"
        )
    freq = f"{'freq=' if given else ''}{offset.freqstr!r}"
    grid = lay_out(times, offset)
    if grid is None:
        far = int(np.diff(times.asi8).argmax())
        return (
            f"{name} has a gap too wide for {freq}: {row(far + 1)} ({times[far + 1]}) comes "
            f"{times[far + 1] - times[far]} after {row(far)}; check those two stamps"
        )
    positions = grid.get_indexer(times)  # (time,), -1 where a stamp lies off the grid
    if (positions < 0).any():
        bad = int(np.flatnonzero(positions < 0)[0])
        found = regular_frequency(times) if given and len(times) >= 3 else None
        remedy = f"bring them to one frequency, for example with .resample({offset.freqstr!r})"
        if found is not None:
            remedy = f"pass the frequency that the stamps have, which is {found.freqstr!r}"
        elif given:
            remedy = "pass the frequency that the stamps have"
        return f"{name} has stamps off {freq}: {row(bad)} is {times[bad]}; {remedy}"
    jumps = np.diff(positions)
    before = int(np.flatnonzero(jumps > 1)[0])
    wider, counts = np.unique(jumps[jumps > 1], return_counts=True)
    if not given and counts.max() >= max(3, len(jumps) / 4):
        return (
            f"{name} mixes frequencies: {counts.max()} of its {len(jumps)} steps are "
            f"{wider[counts.argmax()]} times {freq}, the first after {row(before)} "
            f"({times[before]}); bring them to one frequency, for example with .resample"
        )
    missing = int((jumps - 1).sum())
    lacks = "1 stamp is missing:" if missing == 1 else f"{missing} stamps are missing, first"
    return (
        f"{name} has a gap at {freq}: {lacks} {grid[positions[before] + 1]} after {row(before)} "
        f"({times[before]}); insert the rows with .asfreq({offset.freqstr!r}), or read the data "
        "with fill='nan', 'ffill' or 'interpolate' (--fill on the command line)"
    )


def _local(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Give the stamps as the clocks on the wall showed them."""
    return times if times.tz is None else times.tz_localize(None)


def _ticks(times: pd.DatetimeIndex, delta: pd.Timedelta) -> int:
    """Count the index's time units in a duration of a day or more."""
    return int(delta.as_unit("ns").value // pd.Timedelta(1, unit=times.unit).as_unit("ns").value)
