"""Arguments of event forecasters: times, durations, counts and probability levels."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from tsllm.arguments import Limits, shown
from tsllm.datasets.events import Clock, EventTable
from tsllm.errors import DataError

#: A future with more events than this is an explosion and an error.
MOST_EVENTS = 100_000
#: The limits of counts that methods take.
COUNTS = {
    "n_events": Limits(1, MOST_EVENTS),
    "n_paths": Limits(1, 100_000),
    "n_sequences": Limits(1, 1_000_000),
    "n_steps": Limits(1, MOST_EVENTS),
}
#: What the numbers among the shared constructor arguments may be, by name.
LIMITS: dict[str, Limits] = {
    "resolution": Limits(0, 1e15, whole=False, above=True),
    "random_state": Limits(0, 2**32 - 1),
}
#: Type and description of the constructor arguments that event forecasters share.
SHARED = {
    "id_col": ("str or None", "Column of the sequences' names. None: all rows are one sequence."),
    "time_col": ("str", "Column of the times."),
    "type_col": ("str", "Column of the event types."),
    "time_unit": ("str", "Unit in which timestamps are counted, see `tsllm.datasets.read_events`."),
    "sort": ("bool", "Sort the events of a sequence by time; else unsorted events are an error."),
    "ties": (
        '{"error", "jitter", "batch"}',
        'Treatment of events of a sequence at the same time. "jitter" moves the later ones by less '
        "than the step of the clock.",
    ),
    "resolution": (
        "float or None",
        "The step of the clock, for ``ties``. None: found from the times, see "
        "`tsllm.datasets.read_events`.",
    ),
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
            numbers[given] = read_times(table.clock, stamps, name)
        return numbers
    number = read_times(table.clock, value, name)
    if number.ndim:
        raise DataError(
            f"{name} must be one time for all sequences, or a mapping by sequence, found "
            f"{shown(value)}"
        )
    return np.full(len(table), number.item())


def duration_in_numbers(clock: Clock, duration: Any, name: str) -> float:
    """Read a duration as a number in the table's unit; texts and Timedeltas need timestamps.

    Examples
    --------
    >>> duration_in_numbers(Clock(pd.Timestamp("2024-01-01"), "h"), "1D", "horizon")
    24.0
    """
    number: float = np.nan
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if isinstance(duration, int | float | np.number) and not isinstance(duration, bool):
            number = float(duration)
        elif clock.is_stamps:
            length: Any = pd.Timedelta(duration)
            number = float(length / pd.Timedelta(1, cast(Any, clock.unit)))
    if not 0 < number < np.inf:
        kind = f"a Timedelta or a number of {clock.unit}" if clock.is_stamps else "a number"
        raise DataError(
            f"{name} must be a positive length of time ({kind}), found {shown(duration)}"
        )
    return number


def checked_times(clock: Clock, times: Any) -> np.ndarray:
    """Read one time or several as finite numbers: (times,)."""
    moments = np.atleast_1d(read_times(clock, times, "times"))
    if not len(moments):
        raise DataError("times is empty: pass one time, or some")
    if not np.isfinite(moments).all():
        raise DataError("times has missing or infinite entries; leave them out")
    return moments


def read_times(clock: Clock, times: Any, name: str) -> np.ndarray:
    """Read an argument with one time, (), or several, (times,), as numbers; NaN if unknown."""
    listed = isinstance(times, list | tuple | np.ndarray | pd.Index | pd.Series)
    try:
        cells = pd.Index(times) if listed and len(times) else [] if listed else [times]
        if getattr(cells, "ndim", 1) != 1 or isinstance(times, bool | np.bool_):
            raise TypeError
        numbers = np.asarray(clock.to_number(cells), dtype=np.float64)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (TypeError, ValueError, OverflowError):
        kind = "timestamps" if clock.is_stamps else "numbers"
        raise DataError(
            f"{name} must be {kind}, as the events' times, found {shown(times)}"
        ) from None
    return numbers if listed else numbers[0]


def in_chunks(n: int, size: int) -> list[np.ndarray]:
    """Split 0..n-1 into runs of at most ``size``."""
    return [np.arange(first, min(n, first + size)) for first in range(0, n, size)]


def checked_types(types: Any) -> tuple[Any, ...]:
    """Return the names of further types; None: there are none."""
    if types is None:
        return ()
    if isinstance(types, str | bytes | Mapping) or not isinstance(types, Iterable):
        raise DataError(f"types must be a list of names, found {shown(types)}")
    named = tuple(types)
    odd = [one for one in named if not isinstance(one, str | int | np.integer)]
    if odd:
        raise DataError(f"types must be a list of names, found {shown(odd[0])} in it")
    return named


def checked_count(name: str, value: Any) -> int:
    """Return a whole number within the limits of its name in `COUNTS`."""
    COUNTS[name].check(name, value)
    return int(value)
