"""Arguments of event forecasters: times, durations, counts and probability levels."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from tsllm.datasets.events import Clock, EventTable
from tsllm.errors import DataError

#: Type and description of the constructor arguments that event forecasters share.
SHARED = {
    "id_col": ("str", "Column of the sequences' names."),
    "time_col": ("str", "Column of the times."),
    "type_col": ("str", "Column of the event types."),
    "time_unit": ("str", "Unit in which timestamps are counted, see `tsllm.datasets.read_events`."),
    "sort": ("bool", "Sort the events of a sequence by time; else unsorted events are an error."),
    "ties": (
        '{"error", "jitter", "batch"}',
        "Treatment of events of a sequence at the same time.",
    ),
    "resolution": ("float or None", "The step of the clock, for ``ties``."),
    "random_state": (
        "int, RandomState or None",
        "Seed of all random draws: futures, and the training of a network.",
    ),
}


def at_each_sequence(table: EventTable, value: Any, name: str) -> np.ndarray | None:
    """Read a time for each sequence: one for all, or a mapping by sequence id.

    Returns
    -------
    float array (sequences,) or None
        In the table's numbers; NaN where the mapping has no entry for a sequence. None stays None.
    """
    if value is None:
        return None
    if isinstance(value, Mapping | pd.Series):
        by_id = dict(value.items())
        unknown = [key for key in by_id if key not in set(table.ids)]
        if unknown:
            raise DataError(f"{name} has a time for {unknown[0]!r}, which is none of the sequences")
        given = [i for i, key in enumerate(table.ids) if key in by_id]
        numbers = np.full(len(table), np.nan)
        if given:
            stamps = [by_id[table.ids[i]] for i in given]
            numbers[given] = np.asarray(table.clock.to_number(stamps), dtype=np.float64)
        return numbers
    number = np.asarray(table.clock.to_number([value]), dtype=np.float64)
    return np.full(len(table), number.item())


def duration_in_numbers(clock: Clock, duration: Any, name: str) -> float:
    """Read a duration as a number in the table's unit; texts and Timedeltas need timestamps.

    Examples
    --------
    >>> duration_in_numbers(Clock(pd.Timestamp("2024-01-01"), "h"), "1D", "horizon")
    24.0
    """
    number: float = np.nan
    if isinstance(duration, int | float | np.number) and not isinstance(duration, bool):
        number = float(duration)
    elif clock.is_stamps:
        with contextlib.suppress(ValueError, TypeError):
            length: Any = pd.Timedelta(duration)
            number = float(length / pd.Timedelta(1, cast(Any, clock.unit)))
    if not 0 < number < np.inf:
        kind = f"a Timedelta or a number of {clock.unit}" if clock.is_stamps else "a number"
        raise DataError(f"{name} must be a positive length of time ({kind}), found {duration!r}")
    return number


def checked_times(clock: Clock, times: Any) -> np.ndarray:
    """Read one time or several as finite numbers: (times,)."""
    listed = [times] if np.ndim(times) == 0 else times
    moments = np.atleast_1d(np.asarray(clock.to_number(listed), dtype=np.float64))
    if not np.isfinite(moments).all():
        raise DataError("times has missing or infinite entries; leave them out")
    return moments


def in_chunks(n: int, size: int) -> list[np.ndarray]:
    """Split 0..n-1 into runs of at most ``size``."""
    return [np.arange(first, min(n, first + size)) for first in range(0, n, size)]


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Check that a value is one of the known ones."""
    if value not in known:
        raise DataError(f"{name} must be one of {', '.join(known)}, found {value!r}")


def checked_count(name: str, value: Any, others: str = "") -> int:
    """Check that a value is a whole number of at least 1; ``others`` is for the message."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise DataError(f"{name} must be a whole number of at least 1{others}, found {value!r}")
    return int(value)


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Check that probability levels lie strictly between 0 and 1."""
    if any(not 0 < level < 1 for level in levels):
        raise DataError(f"levels must lie strictly between 0 and 1, found {list(levels)}")
    return tuple(float(level) for level in levels)
