"""Streams of events cut into consecutive slices of time."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd

from tsllm.datasets.events.table import EventTable
from tsllm.errors import DataError, NotEnoughDataError


def time_slices(
    events: EventTable, cuts: int | str | Iterable[object], *, keep_empty: bool = False
) -> list[EventTable]:
    """Cut a stream of events into slices of time, for models that learn continually.

    All sequences are cut at the same times. A slice holds the events in ``(start, end]``. Its
    windows start and end at these bounds if a sequence was observed on both sides of them.

    Parameters
    ----------
    events : EventTable
        The stream.
    cuts : int, str or iterable of times
        The number of slices of equal length between the first window start (or event) and the
        last window end (or event); or, for timestamps, a pandas frequency such as ``"1D"``,
        ``"MS"`` or ``"YS"``, with a slice from each tick to the next; or the times between
        slices (one slice more than times).
    keep_empty : bool, default=False
        Keep sequences that were observed in a slice but have no event there.

    Returns
    -------
    list of EventTable
        In order of time, on the stream's clock. Every event is in exactly one slice.

    Raises
    ------
    DataError
        If the cuts do not increase, or if a frequency is given and the times are numbers.
    NotEnoughDataError
        If a slice would have no events. The message names the slice.

    Examples
    --------
    >>> from tsllm.datasets import read_events
    >>> frame = pd.DataFrame({"time": ["2024-01-01 10:00", "2024-01-01 22:00", "2024-01-02 09:00"],
    ...                       "type": ["open", "close", "open"]})
    >>> [slice_.n_events for slice_ in time_slices(read_events(frame), "1D")]
    [2, 1]
    """
    if events.n_events == 0:
        raise NotEnoughDataError("the stream has no events to cut into slices")
    first, last = _span(events)
    if isinstance(cuts, int | np.integer):
        if cuts < 1:
            raise DataError(f"cuts={cuts} slices cannot be made; ask for at least 1")
        bounds = np.linspace(first, last, int(cuts) + 1)[1:-1]
    elif isinstance(cuts, str):
        bounds = _ticks(events, first, last, cuts)
    else:
        bounds = np.atleast_1d(events.clock.to_number(list(cuts)))
    if np.isnan(bounds).any() or (np.diff(bounds) <= 0).any():
        raise DataError(
            f"the cuts {', '.join(map(str, events.clock.to_stamp(bounds)))} do not increase; pass "
            "each time once, in order"
        )
    edges = [None, *bounds, None]
    slices = []
    for number, (start, end) in enumerate(pairwise(edges)):
        part = events.cut(start, end, keep_empty=keep_empty)
        if part.n_events == 0:
            shown = ["the beginning" if start is None else events.clock.to_stamp(start)]
            shown.append("the end" if end is None else events.clock.to_stamp(end))
            raise NotEnoughDataError(
                f"slice {number}, from {shown[0]} to {shown[1]}, has no events; cut elsewhere or "
                "into fewer slices"
            )
        slices.append(part)
    return slices


def _span(events: EventTable) -> tuple[float, float]:
    """Find the first window start or event, and the last window end or event."""
    pooled = np.concatenate(events.times)
    first = np.nanmin([*events.starts, pooled.min()])
    last = np.nanmax([*events.ends, pooled.max()])
    return float(first), float(last)


def _ticks(events: EventTable, first: float, last: float, step: str) -> np.ndarray:
    """Find the ticks of a frequency strictly inside the stream."""
    if not events.clock.is_stamps:
        raise DataError(
            f"cuts={step!r} is a step of the calendar, but the times are numbers; pass a number of "
            "slices or the times to cut at"
        )
    try:
        offset = pd.tseries.frequencies.to_offset(step)
    except ValueError:
        raise DataError(
            f"cuts={step!r} is no step of the calendar; write '1D', '12h', 'W', 'MS' or 'YS'"
        ) from None
    low, high = events.clock.to_stamp(first), events.clock.to_stamp(last)
    ticks = pd.date_range(low.normalize(), high, freq=offset)
    return events.clock.to_number(ticks[(ticks > low) & (ticks < high)])
