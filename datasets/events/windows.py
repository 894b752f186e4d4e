"""Observation windows of sequences, from an argument or from columns of a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets.checks import shown_value
from tsllm.datasets.events.clock import Clock, read_event_times, read_loose_stamps
from tsllm.datasets.events.names import whole_name
from tsllm.datasets.events.table import EventColumns, sequence_name
from tsllm.datasets.foreign import plain
from tsllm.datasets.tables import Table
from tsllm.errors import DataError

_WINDOW_COLUMNS = ("window_start", "window_end")


class Bounds(NamedTuple):
    """The sequences and their windows, in the user's times."""

    ids: list
    starts: Any  # DatetimeIndex or float64
    ends: Any


def read_windows(
    table: Table,
    windows: Any,
    ids: np.ndarray,
    names: EventColumns,
    stamps: pd.DatetimeIndex | np.ndarray,
    place: Callable[[int], str],
    more: Sequence[str] = (),
) -> Bounds:
    """Find the window of each sequence in the argument or in the table; else it is unknown.

    ``more`` names sequences that may have no events.
    """
    order = list(dict.fromkeys([*ids.tolist(), *more]))
    columns = [name for name in _WINDOW_COLUMNS if name in table.frame.columns]
    windows = plain(windows, "windows")
    if windows is None and columns:
        return _window_columns(table, columns, order, ids, stamps, place)
    if windows is None:
        pairs = {}
    elif isinstance(windows, pd.DataFrame):
        pairs = _by_sequence(_window_frame(windows, names), order)
    elif isinstance(windows, Mapping):
        named = ((str(name), _pair(window, repr(name))) for name, window in windows.items())
        pairs = _by_sequence(named, order)
    else:
        pairs = dict.fromkeys(order, _pair(windows, "all sequences"))
    order = list(dict.fromkeys([*order, *pairs]))  # those without events last
    found = [pairs.get(name, (None, None)) for name in order]
    bounds = Bounds(order, *(_like([pair[side] for pair in found], stamps) for side in (0, 1)))
    seen = set(ids.tolist())
    for name, start, end in zip(*bounds, strict=True):
        if name not in seen and (pd.isna(start) or pd.isna(end)):
            raise DataError(
                f"{sequence_name(name)} has no events and no known window; give windows= its "
                "start and end, or leave it out"
            )
    return bounds


def _by_sequence(named: Iterable[tuple[str, tuple]], order: list[str]) -> dict[str, tuple]:
    """Return the window of each sequence; 1.0 names the sequence 1, and no name comes twice."""
    known, pairs = set(order), dict[str, tuple]()
    for name, window in named:
        if name not in known and whole_name(name) in known:
            name = whole_name(name)
        if name in pairs:
            raise DataError(
                f"windows= names {sequence_name(name)} twice; give each sequence one window"
            )
        pairs[name] = window
    return pairs


def _pair(window: Any, whose: str) -> tuple[Any, Any]:
    """Check that a window is a start and an end."""
    listed = isinstance(window, list | tuple | np.ndarray | pd.Index | pd.Series)
    if not listed or len(window) != 2 or any(np.ndim(bound) for bound in window):
        shown = " ".join(shown_value(window).split())[:80]
        raise DataError(f"windows= has {shown} for {whose}; pass (start, end)")
    return tuple(window)


def _window_columns(
    table: Table,
    columns: list[str],
    order: list,
    ids: np.ndarray,
    stamps: pd.DatetimeIndex | np.ndarray,
    place: Callable[[int], str],
) -> Bounds:
    """Read windows from columns of the table and check that each sequence has only one."""
    codes, _ = pd.factorize(ids)
    firsts = np.unique(codes, return_index=True)[1]
    bounds = []
    for name in _WINDOW_COLUMNS:
        if name not in columns:
            bounds.append(_like([None] * len(order), stamps))
            continue
        values = read_event_times(table, name, place, missing=True)
        if isinstance(values, np.ndarray) and np.isnan(values).all():
            values = _like([None] * len(values), stamps)
        if isinstance(values, pd.DatetimeIndex) != isinstance(stamps, pd.DatetimeIndex):
            raise DataError(
                f"column {name!r} of {table.source} is not of the kind that the times "
                "are; write both as numbers or both as timestamps"
            )
        series = pd.Series(values)
        own = series.iloc[firsts[codes]].reset_index(drop=True)
        differs = ~((series == own) | (series.isna() & own.isna())).to_numpy()
        if differs.any():
            bad = int(differs.argmax())
            raise DataError(
                f"{place(bad)} has {series[bad]} in column {name!r}, but the sequence's first row "
                f"has {own[bad]}; give all rows of a sequence the same window"
            )
        bounds.append(values[firsts])
    return Bounds(order, *bounds)


def _window_frame(windows: pd.DataFrame, names: EventColumns) -> list[tuple[str, tuple]]:
    """Read a frame of windows, one row for each sequence."""
    frame = windows if names.id_col in windows.columns else windows.reset_index(names=names.id_col)
    missing = [name for name in _WINDOW_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"windows= has no column {missing[0]!r}; give it {names.id_col!r}, 'window_start' and "
            "'window_end', one row a sequence"
        )
    keys = frame[names.id_col].astype(str)
    values = (frame[name].tolist() for name in _WINDOW_COLUMNS)
    return [(key, (start, end)) for key, start, end in zip(keys, *values, strict=True)]


def _like(cells: list, stamps: pd.DatetimeIndex | np.ndarray) -> Any:
    """Read window bounds as times of the same type as the events'."""
    if not isinstance(stamps, pd.DatetimeIndex):
        return Clock().to_number(cells)
    bounds = read_loose_stamps(cells)
    if bounds.isna().all():
        bounds = bounds.tz_localize(None).tz_localize(stamps.tz)
    if (bounds.tz is None) != (stamps.tz is None):
        raise DataError(
            f"the window bound {bounds.dropna()[0]} and the event time {stamps[0]} differ in "
            "having a time zone; give both one, for example with tz_localize"
        )
    return bounds if stamps.tz is None else bounds.tz_convert(stamps.tz)
