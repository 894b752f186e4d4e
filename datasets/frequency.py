"""Frequencies of time stamps: parse, infer, complete and continue them, and find their seasons."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsllm.datasets.counts import count_step
from tsllm.errors import DataError, GapError

#: What to do about missing stamps, in a table.
FILL_REMEDY = (
    "read the data with fill='nan', 'zero' (for counts), 'ffill' or 'interpolate' (--fill on the "
    "command line)"
)
_DAY = pd.Timedelta(days=1)

# Longest grid that is built to look for gaps; a longer one counts as a gap too wide.
_MOST_GRID_STAMPS = 5_000_000

# Steps in a season for frequencies of a day and longer, by pandas' name without its anchor.
_CALENDAR_SEASONS = {"D": 7, "B": 5, "C": 5, "W": 52, "WOM": 12, "LWOM": 12}
_CALENDAR_SEASONS |= dict.fromkeys(["MS", "ME", "BMS", "BME", "CBMS", "CBME"], 12)
_CALENDAR_SEASONS |= dict.fromkeys(["SMS", "SME"], 24)
_CALENDAR_SEASONS |= dict.fromkeys(["QS", "QE", "BQS", "BQE", "REQ"], 4)

# A weekday of the month, such as the third Friday.
_DAYS_OF_MONTHS = (pd.offsets.WeekOfMonth, pd.offsets.LastWeekOfMonth)

# Years and quarters of 52 or 53 whole weeks.
_WEEKS_OF_YEARS = (pd.offsets.FY5253, pd.offsets.FY5253Quarter)

# Former names of pandas, and words, for frequencies of dates.
_FORMER_NAMES = {"M": "ME", "Q": "QE", "A": "YE", "Y": "YE", "BM": "BME", "BQ": "BQE", "BA": "BYE"}
_FORMER_NAMES |= {"BY": "BYE", "CBM": "CBME", "SM": "SME", "AS": "YS", "BAS": "BYS", "H": "h"}
_FORMER_NAMES |= {"T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns", "BH": "bh", "CBH": "cbh"}
_FORMER_NAMES |= {"D": "D", "W": "W", "B": "B", "HOURLY": "h", "DAILY": "D", "WEEKLY": "W"}
_FORMER_NAMES |= {"MONTHLY": "ME", "QUARTERLY": "QE", "YEARLY": "YE", "ANNUAL": "YE"}

# Names that pandas has for periods only, and the frequency of the ends of those periods.
_PERIOD_NAMES = {"M": "ME", "Q": "QE", "Y": "YE"}


def row_number(position: int) -> str:
    """Return the name of a row in error messages: its position, counted from 0."""
    return f"row {position}"


def freq_name(freq: str | pd.offsets.BaseOffset) -> str:
    """Return the name of a frequency for a message."""
    return freq if isinstance(freq, str) else getattr(freq, "freqstr", repr(freq))


def frequency_name(freq: str | None) -> str:
    """Return the name of the frequency of series, which is a step for integer times.

    Examples
    --------
    >>> frequency_name("h"), frequency_name("1"), frequency_name("5"), frequency_name(None)
    ('h', 'integer steps', 'integer steps of 5', 'integer steps')
    """
    step = 1 if freq is None else count_step(freq)
    if step is None:
        return str(freq)
    return "integer steps" if step == 1 else f"integer steps of {step}"


def parse_frequency(freq: str | pd.offsets.BaseOffset) -> pd.offsets.BaseOffset:
    """Convert the name of a frequency, for example ``"h"`` or ``"W-SAT"``, into the pandas offset.

    Raises
    ------
    DataError
        If pandas knows no such frequency, or if it does not step forwards.

    Examples
    --------
    >>> parse_frequency("15min")
    <15 * Minutes>
    """
    try:
        offset = to_offset(freq)
    except (ValueError, TypeError):
        offset = None
    if offset is None and count_step(freq):
        raise DataError(
            f"freq={freq!r} is the step of times that are integers, and these are dates; pass the "
            "frequency of the dates, for example 'h', '15min', 'D', 'W-SUN', 'MS' or 'ME'"
        )
    if offset is None or offset.n <= 0:
        now = None if offset is not None else _successor(freq)
        if now is not None:
            raise DataError(
                f"freq={freq!r} is not a frequency of dates, or no longer one; pass {now}"
            )
        raise DataError(
            f"freq={freq!r} is not a frequency that steps forwards; "
            "pass a pandas one, for example 'h', '15min', 'D', 'W-SUN', 'MS' or 'ME'"
        )
    return offset


def infer_frequency(
    times: pd.DatetimeIndex,
    freq: str | pd.offsets.BaseOffset | None = None,
    *,
    name: str = "the index",
    row: Callable[[int], str] = row_number,
) -> pd.offsets.BaseOffset:
    """Infer the frequency of a strictly increasing date index.

    Hourly and faster steps are equal in absolute time; daily and slower steps are equal on the
    local calendar. A daylight saving change therefore does not break an index with a time zone.

    Parameters
    ----------
    times : pandas.DatetimeIndex
        At least three stamps, if neither they nor ``freq`` have a frequency.
    freq : str, pandas offset or None, default=None
        The frequency that the stamps must have. None uses ``times.freq``, or infers it.
    name : str, default="the index"
        The name of the index in error messages, for example ``"series 'a'"``.
    row : callable, default=row_number
        Returns the name of the row at a position, for error messages.

    Raises
    ------
    DataError
        If stamps are missing (a gap) or irregular, or too few.

    Examples
    --------
    >>> infer_frequency(pd.DatetimeIndex(["2024-01-05", "2024-01-08", "2024-01-09"]))
    <BusinessDay>
    """
    wanted = None if freq is None else parse_frequency(freq)
    own = times.freq
    if isinstance(own, _DAYS_OF_MONTHS) and not _follows(times, own):
        own = None  # pandas did not check it
    if own is not None and own.n > 0 and wanted in (None, own):
        return own
    if wanted is None:
        if len(times) < 3:
            raise DataError(
                f"{name} has {len(times)} stamp{'s' * (len(times) != 1)}, too few to infer their "
                "frequency from; pass it, for example freq='h' (--freq)"
            )
        wanted = _regular_frequency(times)
        if wanted is not None:
            return wanted
        raise _break_of(times, _likely_frequency(times), name, row)
    if _follows(times, wanted):
        return wanted
    raise _break_of(times, wanted, name, row, given=True)


def complete_times(
    times: pd.DatetimeIndex,
    freq: str | pd.offsets.BaseOffset | None = None,
    *,
    name: str = "the index",
    row: Callable[[int], str] = row_number,
) -> pd.DatetimeIndex:
    """Return every stamp from the first to the last, missing ones included, with its frequency set.

    Parameters are those of `infer_frequency`. If ``freq`` is None, the frequency is that of the
    longest run of stamps without a gap.

    Raises
    ------
    DataError
        If a stamp lies off the frequency, or no frequency can be inferred.

    Examples
    --------
    >>> stamps = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01", "2024-05-01"])
    >>> list(complete_times(stamps).month)
    [1, 2, 3, 4, 5]
    """
    offset = parse_frequency(freq) if freq is not None else times.freq
    if offset is None and len(times) >= 3:
        offset = _regular_frequency(times) or _likely_frequency(times)
    if offset is None:
        return set_frequency(times, infer_frequency(times, name=name, row=row))
    grid = _lay_out(times, offset)
    if grid is None or not times.isin(grid).all():
        given = freq is not None
        raise _break_of(times, offset, name, row, given=given)
    return grid


def without_frequency(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the same stamps without a frequency."""
    return pd.DatetimeIndex(times, freq=None)  # type: ignore[arg-type]  # None is what drops it


def set_frequency(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> pd.DatetimeIndex:
    """Return the same stamps with a frequency, which pandas checks; the input stays unchanged."""
    # pandas rejects another name of the frequency of an index (QS-JAN for QS-OCT): drop it first
    bare = without_frequency(times)
    if len(bare) == 1 and isinstance(offset, (*_WEEKS_OF_YEARS, pd.offsets.LastWeekOfMonth)):
        # for one stamp pandas multiplies the frequency by 0, which these do not support
        pair = pd.date_range(bare[0], periods=2, freq=offset, unit=bare.unit, name=bare.name)
        return pd.DatetimeIndex(bare, freq=offset) if pair[0] != bare[0] else pair[:1]
    return pd.DatetimeIndex(bare, freq=offset)


def is_period_frequency(times: pd.PeriodIndex, freq: str | pd.offsets.BaseOffset) -> bool:
    """Check whether a frequency is that of the periods, or of the stamps they start or end at.

    Examples
    --------
    >>> months = pd.period_range("2024-01", periods=3, freq="M")
    >>> [is_period_frequency(months, freq) for freq in ("M", "MS", "QS")]
    [True, True, False]
    """
    if freq in (times.freq, times.freqstr):
        return True
    sample = pd.period_range(times[0], periods=3, freq=times.freq)
    offset = _parse_any(freq)
    starts, ends = sample.to_timestamp(how="start"), sample.to_timestamp(how="end").normalize()
    return _follows(starts, offset) or _follows(ends, offset)


def season_length(freq: str | pd.offsets.BaseOffset | None) -> int:
    """Return the number of steps in the usual season of a frequency.

    The season is a day for steps from a minute to a day, an hour for steps from a second, a
    minute for shorter steps, a week for days, a business week for business days, and a year for
    weeks, months and quarters. 1 means no season, or a season that is not a whole number of
    steps, as for an integer index, whose ``freq`` is None or its step.

    Examples
    --------
    >>> [season_length(freq) for freq in ("h", "15min", "B", "W-SAT", "MS", "2QS", None)]
    [24, 96, 5, 52, 12, 2, 1]
    """
    if freq is None or count_step(freq):
        return 1
    offset = _parse_any(freq)
    step = pd.Timedelta(offset) if isinstance(offset, pd.offsets.Tick) else None
    if step is not None and step < _DAY:
        for shortest, cycle in (("1min", "1D"), ("1s", "1h"), ("0s", "1min")):
            if step >= pd.Timedelta(shortest):
                whole, left = divmod(pd.Timedelta(cycle).value, step.value)
                return int(whole) if left == 0 else 1
    if step is not None:
        days, left = divmod(step.value, _DAY.value)
        base, count = "D", days if left == 0 else 0
    else:
        base, count = offset.rule_code.split("-")[0], offset.n
    if base == "D" and count and count % 7 == 0:
        base, count = "W", count // 7
    season = _CALENDAR_SEASONS.get(base, 1)
    return season // count if count and season % count == 0 else 1


def future_times(
    last: pd.Timestamp | pd.Period | int | np.integer,
    freq: str | pd.offsets.BaseOffset | None,
    horizon: int,
) -> pd.Index:
    """Return the stamps of the next ``horizon`` steps, with their frequency set.

    Parameters
    ----------
    last : pandas.Timestamp, pandas.Period or int
        The stamp of the last step seen. The result has its type, time zone and unit.
    freq : str, pandas offset or None
        The step between stamps. None for periods, which step by their own frequency, and for
        integers that step by 1; ``"5"`` for integers that step by 5.
    horizon : int
        Number of stamps, at least 1.

    Raises
    ------
    DataError
        If ``horizon`` is not a positive integer, a timestamp has no frequency, or ``last`` does
        not lie on the frequency.

    Examples
    --------
    >>> list(future_times(pd.Timestamp("2024-01-31"), "ME", 2).strftime("%Y-%m-%d"))
    ['2024-02-29', '2024-03-31']
    >>> list(future_times(9, None, 3)), list(future_times(2015, "5", 2))
    ([10, 11, 12], [2020, 2025])
    """
    if not isinstance(horizon, int | np.integer) or horizon < 1:
        raise DataError(f"horizon={horizon!r} is no positive integer; pass the steps to forecast")
    if isinstance(last, pd.Period):
        return pd.period_range(last, periods=horizon + 1, freq=last.freq)[1:]
    if isinstance(last, int | np.integer):
        return pd.Index(np.arange(1, horizon + 1, dtype=np.int64) * (count_step(freq) or 1) + last)
    if freq is None:
        raise DataError(f"the stamps after {last} need a frequency; pass it, for example freq='h'")
    offset = parse_frequency(freq)
    with _no_such_stamps(last, offset):
        times = pd.date_range(last, periods=horizon + 1, freq=offset, unit=last.unit)
    if times[0] != last:
        raise DataError(
            f"the last stamp {last} does not lie on freq={freq_name(freq)!r}; "
            "pass the frequency that the stamps have"
        )
    return times[1:]


def stamps_until(
    last: pd.Timestamp, freq: str | pd.offsets.BaseOffset, end: pd.Timestamp
) -> pd.DatetimeIndex:
    """Return the stamps of a frequency from ``last`` to ``end``, both included.

    Raises
    ------
    DataError
        If there are too many, or the clock skips or repeats one of them.

    Examples
    --------
    >>> friday, tuesday = pd.Timestamp("2024-01-05"), pd.Timestamp("2024-01-09")
    >>> [str(day.date()) for day in stamps_until(friday, "B", tuesday)]
    ['2024-01-05', '2024-01-08', '2024-01-09']
    """
    offset = parse_frequency(freq)
    with _no_such_stamps(last, offset):
        if (end - last) / ((last + offset) - last) > _MOST_GRID_STAMPS:
            raise DataError(
                f"{end} lies more than {_MOST_GRID_STAMPS:,} steps of {freq_name(freq)!r} after "
                f"{last}; check it"
            )
        # rounded up to the unit of the series
        end = end.as_unit(last.unit) + pd.Timedelta(1, unit=last.unit)
        return pd.date_range(last, end, freq=offset, unit=last.unit)


def count_steps(
    last: pd.Timestamp | pd.Period | int | np.integer,
    freq: str | pd.offsets.BaseOffset | None,
    stamps: pd.Index,
) -> np.ndarray:
    """Count the steps from ``last`` to later stamps, (stamps,); -1 where a stamp is no step.

    Parameters are those of `future_times`; ``stamps`` are of the kind of ``last``.

    Examples
    --------
    >>> stamps = pd.to_datetime(["2024-03-31", "2024-04-01", "2024-04-30"])
    >>> count_steps(pd.Timestamp("2024-01-31"), "ME", stamps)
    array([ 2, -1,  3])
    """
    if isinstance(last, pd.Timestamp):
        assert freq is not None and isinstance(stamps, pd.DatetimeIndex)
        offset = parse_frequency(freq)
        if not isinstance(offset, pd.offsets.Tick):
            return stamps_until(last, offset, stamps.max()).get_indexer(stamps)
        ahead, step = stamps - last, pd.Timedelta(offset)
        on_grid = ahead % step == pd.Timedelta(0)
        return np.where(on_grid, ahead // step, -1)
    if isinstance(last, pd.Period):
        assert isinstance(stamps, pd.PeriodIndex)
        count, number = stamps.asi8 - last.ordinal, last.freq.n
    else:
        count, number = stamps.to_numpy(np.int64) - last, count_step(freq) or 1
    return np.where(count % number == 0, count // number, -1)


def stamps_around(
    last: pd.Timestamp | pd.Period | int | np.integer,
    freq: str | pd.offsets.BaseOffset | None,
    stamp: Any,
) -> tuple[Any, Any]:
    """Return the steps before and after a later stamp that is no step; see `count_steps`."""
    if isinstance(last, pd.Timestamp):
        assert freq is not None
        offset = parse_frequency(freq)
        if isinstance(offset, pd.offsets.Tick):
            before = last + (stamp - last) // pd.Timedelta(offset) * pd.Timedelta(offset)
        else:
            before = stamps_until(last, offset, stamp)[-1]
        return before, future_times(before, offset, 1)[0]
    if isinstance(last, pd.Period):  # adding 1 adds a whole step
        before = last + (stamp.ordinal - last.ordinal) // last.freq.n
        return before, before + 1
    step = count_step(freq) or 1
    before = last + int(stamp - last) // step * step
    return before, before + step


@contextmanager
def _no_such_stamps(last: pd.Timestamp, offset: pd.offsets.BaseOffset) -> Iterator[None]:
    """Explain pandas' errors about stamps that do not exist, exist twice, or are too far away."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0].split(", try")[0].split(". Try")[0].rstrip(".")
        raise DataError(
            f"the steps after {last} at freq={offset.freqstr!r} have no stamps: {reason}; ask for "
            "fewer steps, or convert the stamps to UTC or to dates without a time zone"
        ) from None


def _successor(freq: object) -> str | None:
    """Return the new names of a former name of pandas, as text to quote; None if it is none."""
    parts = re.fullmatch(r"(\d*)([A-Za-z]+)(-[A-Za-z]+)?", freq) if isinstance(freq, str) else None
    if parts is None:
        return None
    count, name, anchor = parts[1], parts[2], parts[3] or ""
    new = _FORMER_NAMES.get(name) or _FORMER_NAMES.get(name.upper())
    if new is None:
        return None
    end, start = f"{count}{new}{anchor}", f"{count}{new[:-1]}S"
    if not new.endswith("E") or anchor:  # the start of a quarter has another anchor than its end
        return repr(end)
    return f"{end!r} (stamps at the end) or {start!r} (at the start)"


def _regular_frequency(times: pd.DatetimeIndex) -> pd.offsets.BaseOffset | None:
    """Infer the frequency of three stamps or more; return None if they have none."""
    # pandas.infer_freq fails for hourly data over a daylight saving change: check equal steps first
    local = _local(times)
    if not (np.diff(local.asi8) % _ticks(times, _DAY)).any():
        inferred = pd.infer_freq(local)
        offset = None if inferred is None else to_offset(inferred)
        if offset is None or not _follows(local, offset):
            offset = _other_calendar(local)
    else:
        steps = np.diff(times.asi8)
        offset = None
        if (steps == steps[0]).all():
            offset = to_offset(pd.Timedelta(int(steps[0]), unit=times.unit))
    return offset if offset is not None and _follows(times, offset) else None


def _likely_frequency(times: pd.DatetimeIndex) -> pd.offsets.BaseOffset | None:
    """Estimate the intended frequency of irregular stamps from their longest regular run."""
    local = _local(times)
    steps = np.diff(times.asi8)
    daily = not (np.diff(local.asi8) % _ticks(times, _DAY)).any()
    weekday = local.dayofweek.to_numpy()
    weekends_left_out = weekday.max() < 5 and bool((np.diff(weekday) < 0).any())
    if daily and weekends_left_out and np.median(steps) <= 1.5 * _ticks(times, _DAY):
        return to_offset("B")
    # Calendar steps differ by a few percent (28 to 31 days), a missing stamp at least doubles one.
    jumps = np.flatnonzero(steps > 1.5 * np.median(steps))
    edges = np.concatenate([[0], jumps + 1, [len(times)]])
    longest = int(np.argmax(np.diff(edges)))
    run = times[edges[longest] : edges[longest + 1]]
    if len(run) >= 3:
        regular = _regular_frequency(run)
        if regular is not None:
            return regular
    if daily:
        return None
    values, counts = np.unique(steps, return_counts=True)
    if counts.max() < max(2, len(steps) / 3):
        return None
    return to_offset(pd.Timedelta(int(values[counts.argmax()]), unit=times.unit))


def _other_calendar(times: pd.DatetimeIndex) -> pd.offsets.BaseOffset | None:
    """Infer a frequency that pandas knows and does not infer; None if none or several fit."""
    days = np.diff(times.asi8) // _ticks(times, _DAY)
    if 14 < days.mean() < 17 and days.max() < 28:
        fits = _half_months(times)
    else:
        fits = _weeks_of_years(times)
    return fits[0] if len(fits) == 1 else None


def _half_months(times: pd.DatetimeIndex) -> list[pd.offsets.BaseOffset]:
    """Return the frequencies of two stamps a month that stamps have."""
    starts = (times.day == 1).any()
    inner = {int(day) for day in times.day if 1 < day < 28}
    kind = pd.offsets.SemiMonthBegin if starts else pd.offsets.SemiMonthEnd
    fits = [kind(day_of_month=day) for day in inner] if len(inner) == 1 else []
    return [offset for offset in fits if _follows(times, offset)]


def _weeks_of_years(times: pd.DatetimeIndex) -> list[pd.offsets.BaseOffset]:
    """Return the frequencies of years or quarters of 52 or 53 weeks that stamps have.

    Frequencies with the same stamps in the next thirty years count as one.
    """
    days = set((np.diff(times.asi8) // _ticks(times, _DAY)).tolist())
    quarters = days <= {91, 98}
    if not (quarters or days <= {364, 371}):
        return []
    fits: dict[tuple[pd.Timestamp, ...], pd.offsets.BaseOffset] = {}
    months = {int(month) for shift in (-3, 3) for month in (times + shift * _DAY).month}
    for month, variation in product(sorted(months), ("nearest", "last")):
        year: dict[str, Any] = {
            "weekday": times[0].weekday(),
            "startingMonth": month,
            "variation": variation,
        }
        if not any(map(pd.offsets.FY5253(**year).is_on_offset, times[:4])):
            continue
        offsets: list[Any] = [pd.offsets.FY5253(**year)]
        if quarters:
            offsets = [
                pd.offsets.FY5253Quarter(**year, qtr_with_extra_week=quarter)  # type: ignore[call-arg]
                for quarter in (1, 2, 3, 4)
            ]
        for offset in offsets:
            if _follows(times, offset):
                future = pd.date_range(times[-1], periods=120 if quarters else 30, freq=offset)
                fits.setdefault(tuple(future), offset)
    return list(fits.values())


def _follows(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> bool:
    """Check whether the stamps are exactly those of a frequency, from the first to the last."""
    try:
        set_frequency(times, offset)
        if isinstance(offset, _DAYS_OF_MONTHS):
            # pandas takes yearly stamps on a weekday for monthly ones, and checks nothing then
            return pd.date_range(times[0], periods=len(times), freq=offset).equals(times)
    except (ValueError, OverflowError):  # a local time that daylight saving skips is a ValueError
        return False
    return True


def _lay_out(times: pd.DatetimeIndex, offset: pd.offsets.BaseOffset) -> pd.DatetimeIndex | None:
    """Return every stamp of a frequency between the first and the last; None if too many."""
    start = times[0]
    try:
        step = (start + offset) - start
        if step <= pd.Timedelta(0) or (times[-1] - start) / step > _MOST_GRID_STAMPS:
            return None
        return pd.date_range(start, times[-1], freq=offset, unit=times.unit)
    except (ValueError, OverflowError):
        return None


def _break_of(
    times: pd.DatetimeIndex,
    offset: pd.offsets.BaseOffset | None,
    name: str,
    row: Callable[[int], str],
    *,
    given: bool = False,
) -> DataError:
    """Build the error that says where the stamps leave the frequency, and the remedy."""
    if offset is None:
        steps = np.diff(_local(times).asi8) / _ticks(times, _DAY)
        calendars = [repr(fit.freqstr) for fit in _weeks_of_years(_local(times))]
        week = times[-1] - times[0] >= 7 * _DAY
        remedy = _to_one_frequency("D" if week else "h")
        if calendars:
            remedy = (
                "years of 52 and 53 weeks fit in several ways: pass the one that is meant, "
                f"freq={' or freq='.join(calendars[:4])}"
            )
        elif set(steps) <= {28.0, 35.0}:
            remedy = (
                "months of 4 and 5 weeks have no frequency: number the periods 0, 1, 2, ..., or "
                "use the weeks"
            )
        elif set(steps) <= {84.0, 91.0, 98.0, 112.0, 364.0, 371.0}:
            remedy = (
                "periods of whole weeks that are no calendar of pandas have no frequency: number "
                "them 0, 1, 2, ..., or use the weeks"
            )
        elif steps.min() >= 28 and steps.max() <= 31:
            remedy = "make them months with index.to_period('M')"
        first = int(np.flatnonzero([*np.diff(times.asi8, 2), 1])[0]) + 1
        first = min(first, len(times) - 2)
        return DataError(
            f"{name} has irregular stamps: {row(first)} ({times[first]}) comes "
            f"{times[first] - times[first - 1]} and {row(first + 1)} ({times[first + 1]}) "
            f"{times[first + 1] - times[first]} after the row before; {remedy}"
        )
    freq = f"{'freq=' if given else ''}{offset.freqstr!r}"
    grid = _lay_out(times, offset)
    if grid is None and times.tz is not None and _lay_out(_local(times), offset) is not None:
        return DataError(
            f"{name} has a stamp at {freq} that a clock change of {times.tz} skips; give its local "
            "times without the zone, for example with tz_localize(None)"
        )
    if grid is None:
        far = int(np.diff(times.asi8).argmax())
        return DataError(
            f"{name} has a gap too wide for {freq}: {row(far + 1)} ({times[far + 1]}) comes "
            f"{times[far + 1] - times[far]} after {row(far)}; check those two stamps"
        )
    positions = grid.get_indexer(times)  # (time,), -1 where a stamp lies off the grid
    if (positions < 0).any():
        bad = int(np.flatnonzero(positions < 0)[0])
        found = _regular_frequency(times) if given and len(times) >= 3 else None
        remedy = _to_one_frequency(offset.freqstr)
        if found is not None:
            remedy = f"pass the frequency that the stamps have, which is {found.freqstr!r}"
        elif given:
            remedy = f"pass the frequency that the stamps have, or {remedy}"
        return DataError(f"{name} has stamps off {freq}: {row(bad)} is {times[bad]}; {remedy}")
    jumps = np.diff(positions)
    before = int(np.flatnonzero(jumps > 1)[0])
    wider, counts = np.unique(jumps[jumps > 1], return_counts=True)
    if not given and counts.max() >= max(3, len(jumps) / 4):
        most = int(wider[counts.argmax()])
        return DataError(
            f"{name} mixes frequencies: {counts.max()} of its {len(jumps)} steps are "
            f"{most} times {freq}, the first after {row(before)} ({times[before]}); "
            f"{_to_one_frequency((offset * most).freqstr)}"
        )
    missing = int((jumps - 1).sum())
    lacks = "1 stamp is missing:" if missing == 1 else f"{missing} stamps are missing, first"
    return GapError(
        f"{name} has a gap at {freq}: {lacks} {grid[positions[before] + 1]} after {row(before)} "
        f"({times[before]})",
        f"insert the rows of each series with .asfreq({offset.freqstr!r}), or {FILL_REMEDY}",
    )


def _to_one_frequency(freq: str) -> str:
    """Return the remedy for irregular stamps: in a table, on the command line and in ``y``."""
    return (
        "bring them to one frequency, in a table with resample='sum' (or 'mean') and "
        f"freq={freq!r} (--resample, --freq on the command line), in y with "
        f"y.resample({freq!r}).sum()"
    )


def _local(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the stamps in local time, without their time zone."""
    return times if times.tz is None else times.tz_localize(None)


def _ticks(times: pd.DatetimeIndex, delta: pd.Timedelta) -> int:
    """Count the time units of an index in a duration of a day or more."""
    return int(delta.as_unit("ns").value // pd.Timedelta(1, unit=times.unit).as_unit("ns").value)


def _parse_any(freq: str | pd.offsets.BaseOffset) -> pd.offsets.BaseOffset:
    """Parse the name of a frequency of stamps or of periods."""
    return parse_frequency(_PERIOD_NAMES.get(freq, freq) if isinstance(freq, str) else freq)
