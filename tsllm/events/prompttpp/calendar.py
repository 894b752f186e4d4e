"""The calendar periods that a stream of dated events follows: day, week and year."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.prompttpp.trainer import hold_out

#: The length of each period, and the bins in which its rate is measured.
PERIODS: dict[str, tuple[pd.Timedelta, int]] = {
    "day": (pd.Timedelta(days=1), 24),
    "week": (pd.Timedelta(days=7), 7),
    "year": (pd.Timedelta(days=365.2425), 12),
}
#: ``calendar="auto"``: a period is tried where its rates are worth this many nats an event on
#: later events, this many standard errors, and the stream holds two of it.
WORTH, ERRORS, CYCLES = 0.003, 2.0, 2


def lengths_of(names: Iterable[str], table: EventTable) -> dict[str, float]:
    """Return the lengths of periods in the table's unit."""
    unit = pd.Timedelta(1, table.clock.unit)  # type: ignore[arg-type]
    return {name: float(PERIODS[name][0] / unit) for name in names}


def check_calendar(calendar: object) -> None:
    """Check the parameter ``calendar``."""
    if calendar is None or calendar == "auto":
        return
    known = ", ".join(map(repr, PERIODS))
    if isinstance(calendar, str) or not isinstance(calendar, Iterable):
        raise DataError(f"calendar must be 'auto', None or a list of {known}, found {calendar!r}")
    for name in calendar:
        if name not in PERIODS:
            raise DataError(f"calendar must list periods among {known}, found {name!r}")


def periods_to_try(training: EventTable, later: EventTable | None) -> list[str]:
    """List the periods whose rates, measured in training, help to tell when later events come."""
    if not training.clock.is_stamps or later is None or not later.n_events:
        return []
    times = np.concatenate([*training.times, np.empty(0)])
    span = np.ptp(times) if len(times) else 0.0
    lengths = lengths_of(PERIODS, training)
    return [
        name
        for name, length in lengths.items()
        if span >= CYCLES * length and _is_worth(training, later, length, PERIODS[name][1])
    ]


def _is_worth(training: EventTable, later: EventTable, length: float, bins: int) -> bool:
    """Return whether the rates of a period's bins tell more of later events than one rate."""
    counts, exposure = _profile(training, length, bins)
    rate = (counts + 1) / (exposure + exposure.sum() / max(1.0, counts.sum()))
    later_counts, later_exposure = _profile(later, length, bins)
    share = rate * later_exposure
    if not share.sum() > 0 or not later_exposure.sum() > 0:
        return False
    seen = (later_counts > 0) & (later_exposure > 0)
    ratio = (share / share.sum())[seen] / (later_exposure / later_exposure.sum())[seen]
    gains, weights = np.log(ratio), later_counts[seen] / max(1.0, later_counts[seen].sum())
    mean = float((weights * gains).sum())
    error = float(np.sqrt((weights * (gains - mean) ** 2).sum() / max(1.0, later_counts.sum())))
    return mean > max(WORTH, ERRORS * error)


def _profile(table: EventTable, length: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the events in the bins of a period, and the observed time: both (bins,)."""
    width = length / bins
    counts, exposure = np.zeros(bins), np.zeros(bins)
    for times, start, end in zip(table.times, table.starts, table.ends):
        if not len(times) and (np.isnan(start) or np.isnan(end)):
            continue
        begin = times[0] if np.isnan(start) else start
        until = times[-1] if np.isnan(end) else end
        places = np.floor(table.clock.calendar_times(times) / width).astype(np.int64) % bins
        counts += np.bincount(places, minlength=bins)
        # The time in each bin up to a moment grows by whole periods and a part of one.
        edges = np.arange(bins) * width
        for moment, sign in zip(table.clock.calendar_times([until, begin]), (1, -1)):
            whole, rest = np.divmod(moment, length)
            exposure += sign * (whole * width + np.clip(rest - edges, 0, width))
    return counts, exposure


def calendars_to_try(
    calendar: str | Sequence[str] | None,
    decoder: str,
    table: EventTable,
    validation: EventTable | None,
    fraction: float,
) -> list[tuple[str, ...]]:
    """List the sets of periods of which validation chooses one.

    ``fraction`` is the last part of the table that stands in for ``validation``.
    """
    if calendar is None or (calendar == "auto" and decoder == "attnhp"):
        return [()]
    if calendar != "auto":
        if calendar and not table.clock.is_stamps:
            raise DataError(
                f"calendar={calendar!r} needs timestamps, and the times of these events are "
                "numbers: read them as timestamps, or leave it out"
            )
        return [tuple(calendar)]
    if validation is None and fraction > 0:
        table, validation = hold_out(table, fraction)
    found = periods_to_try(table, validation)
    return [(), tuple(found)] if found else [()]
