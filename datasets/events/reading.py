"""Event tables read from files and frames, with all checks."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsllm.datasets.bundled import list_datasets, load_dataset
from tsllm.datasets.delimited import Dialect, dialect_of
from tsllm.datasets.events.clock import Clock, clock_of, read_event_times
from tsllm.datasets.events.names import as_whole_numbers
from tsllm.datasets.events.nested import (
    JSON_ENDINGS,
    TIME,
    Columns,
    Nested,
    holds_lists,
    read_json,
    read_nested,
    records_of,
)
from tsllm.datasets.events.table import EventColumns, EventTable, find_fault, sequence_name
from tsllm.datasets.events.windows import read_windows
from tsllm.datasets.layout import group_rows, read_labels
from tsllm.datasets.parts import check_there
from tsllm.datasets.tables import Table, check_everywhere, open_table
from tsllm.errors import DataError

TIES = ("error", "jitter", "batch")


def read_events(
    source: Any,
    *,
    id_col: str | None = "sequence_id",
    time_col: str = "time",
    type_col: str = "type",
    windows: object = None,
    sort: bool = False,
    ties: str = "error",
    resolution: float | None = None,
    time_unit: str = "s",
    random_state: int | None = None,
    tz: str | None = None,
    format: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> EventTable:
    """Read and check sequences of events from a table.

    Parameters
    ----------
    source : str, pathlib.Path, DataFrame, table of polars or Arrow, list, or EventTable
        A ``.csv``, ``.csv.gz``, ``.parquet``, ``.json``, ``.jsonl``, ``.json.gz`` or ``.jsonl.gz``
        file, a directory of Parquet parts, a table, or the name of a bundled data set of events;
        one row for each event, in any order of sequences. Or a list, also in a file of JSON, with a
        sequence in each place: records of EasyTPP (lists ``time_since_start`` and ``type_event``,
        with ``seq_idx`` as the name, ``dim_process`` and ``window_start``, ``window_end`` if they
        are there), lists of such events, or arrays of times for each node (tick), whose number is
        the type. An `EventTable` is returned as it is.
    id_col : str or None, default="sequence_id"
        The column that names the sequence. If None, or if the default column is missing, all
        rows are one sequence, called "sequence".
    time_col : str, default="time"
        The column of times: numbers of any unit, or timestamps.
    type_col : str, default="type"
        The column of event types; integers and categories become text. In a column of whole
        numbers ``0.0`` is the type ``0``, with a warning.
    windows : (start, end), mapping, pandas.DataFrame or None, default=None
        The observation window ``(start, end]`` of each sequence: one window for all, a mapping
        from sequence to ``(start, end)``, or a frame with the columns ``id_col``,
        ``window_start`` and ``window_end``. A bound of None, NaN or NaT is unknown. None uses
        the columns ``window_start`` and ``window_end``, if any. A sequence that is only in
        ``windows`` has no events.
    sort : bool, default=False
        Sort each sequence by time. False makes unsorted rows an error.
    ties : {"error", "jitter", "batch"}, default="error"
        How to treat events of one sequence at the same time. "jitter" keeps the first and moves
        the others later by random parts of ``resolution``, in the order of their rows and never
        beyond the next event. "batch" keeps them.
    resolution : float or None, default=None
        The step of the clock that caused the ties, in the table's unit of time. None: the longest
        step that all times lie whole numbers of apart, such as a millisecond.
    time_unit : {"s", "us", "ms", "min", "h", "D", "W"}, default="s"
        The unit in which timestamps are counted. Numbers keep their unit.
    random_state : int or None, default=None
        Seed of the jitter.
    tz, format : str or None, default=None
        The time zone of timestamps, and how times in text and integers are written; as for
        `read_long`.
    sep, decimal, encoding : str or None, default=None
        How CSV is written; as for `read_long`.

    Returns
    -------
    EventTable
        Sequences in order of first appearance. Timestamps become float64 counts of ``time_unit``
        since the earliest window start or event; ``table.clock`` converts them back.

    Raises
    ------
    DataError
        If the table is invalid. The message names the sequence, the row (in text files the
        line, counted from 1, else the row, counted from 0) and the remedy.

    Warns
    -----
    UserWarning
        Names of whole numbers have decimal places, which are left out.

    See Also
    --------
    EventTable : The result, and how to cut and split it.
    read_long : Read time series.

    Examples
    --------
    >>> frame = pd.DataFrame({"sequence_id": ["a", "b", "a"], "time": [0.5, 0.7, 2.0],
    ...                       "type": ["view", "view", "buy"]})
    >>> table = read_events(frame, windows=(0.0, 3.0))
    >>> table
    EventTable(2 sequences, 3 events, 2 types, times 0.5 to 2.0)
    >>> table.times[0]
    array([0.5, 2. ])

    The format of EasyTPP:

    >>> read_events([{"time_since_start": [0.0, 0.4], "type_event": [1, 0], "dim_process": 2}])
    EventTable(1 sequence, 2 events, 2 types, times 0.0 to 0.4)
    """
    if ties not in TIES:
        raise DataError(f"ties={ties!r} is not known; pass one of {', '.join(TIES)}")
    if isinstance(source, EventTable):
        written = {"tz": tz, "format": format, "sep": sep, "decimal": decimal, "encoding": encoding}
        given = [name for name, value in written.items() if value is not None]
        if given:
            raise DataError(
                f"{given[0]}= has no effect on an EventTable, whose times are read; leave it out"
            )
        return source
    _check_resolution(resolution, ties)
    opened = _open(source, dialect_of(sep, decimal, encoding), Columns(id_col, time_col, type_col))
    table = opened.table._replace(tz=tz, format=format)
    names = _find_columns(table, id_col, time_col, type_col)
    used = [names.id_col, names.time_col, names.type_col, "window_start", "window_end"]
    check_everywhere(table, used)

    def place(position: int) -> str:
        return f"{sequence_name(ids[position])}, {table.row(position)}"

    def name_place(position: int, name: str) -> str:
        return f"{sequence_name(name)}, {table.row(position)}"

    ids = np.full(len(table.frame), "sequence", dtype=object)
    if names.id_col in table.frame.columns:
        ids = read_labels(table, names.id_col, "sequence", name_place)
        if not table.text:
            ids = as_whole_numbers(ids, table, names.id_col, "sequence")
    types = read_labels(
        table, names.type_col, "type", lambda position, name: place(position), words=True
    )
    types = as_whole_numbers(types, table, names.type_col, "type")
    stamps = read_event_times(table, names.time_col, place)
    if windows is None and opened.windows:
        windows = opened.windows
    bounds = read_windows(table, windows, ids, names, stamps, place, opened.ids)

    clock = clock_of(stamps, bounds.starts, bounds.ends, time_unit)
    times = clock.to_number(stamps)
    codes = pd.Categorical(ids, categories=bounds.ids).codes
    order = group_rows(
        codes, times, clock.to_stamp(times), place, table.row, noun="sequence", sort=sort
    )
    cuts = np.searchsorted(codes[order], np.arange(1, len(bounds.ids)))
    rows = np.split(order, cuts)
    parts = [times[part] for part in rows]
    starts, ends = clock.to_number(bounds.starts), clock.to_number(bounds.ends)
    if ties == "error":
        _check_ties(parts, rows, place, table.row, clock)
    for number, name in enumerate(bounds.ids):
        found = find_fault(parts[number], starts[number], ends[number], clock)
        if found is not None:
            where = sequence_name(name) if found[0] is None else place(rows[number][found[0]])
            raise DataError(f"{where} {found[1]}")
    if ties == "jitter":
        if resolution is None:
            resolution = clock.step_of(times)
        parts = _jitter(parts, ends, bounds.ids, resolution, random_state)
    return EventTable(
        ids=tuple(bounds.ids),
        times=tuple(parts),
        types=tuple(types[part] for part in rows),
        starts=starts,
        ends=ends,
        clock=clock,
        names=names,
    )


def _open(source: Any, dialect: Dialect | None, columns: Columns) -> Nested:
    """Open a table by its path, a bundled data set by its name, or nested lists."""
    if isinstance(source, str) and not Path(source).exists():
        bundled = list_datasets().set_index("name")["kind"]
        if bundled.get(source) == "series":
            raise DataError(
                f"{source!r} holds series, not events; pass "
                f"{' or '.join(repr(name) for name in bundled.index[bundled == 'events'])}, a "
                "file or a frame of events"
            )
        if source in bundled.index:
            source = load_dataset(source)
    nested: Any = None
    if isinstance(source, list | tuple | Mapping):
        nested = read_nested(source, "the list", columns)
    elif isinstance(source, str | Path) and str(source).lower().endswith(JSON_ENDINGS):
        path = Path(source).expanduser()
        check_there(path)
        if path.is_file():
            if dialect is not None:
                raise DataError(
                    "sep=, decimal= and encoding= (--sep, --decimal, --encoding) are for CSV, and "
                    f"have no effect on {path.name!r}; leave them out"
                )
            found = read_json(path)
            if not isinstance(found, list | dict):
                raise DataError(f"{path.name!r} holds one value; write a list of records")
            nested = read_nested(found, repr(path.name), columns)
    if nested is None:
        nested = open_table(source, dialect=dialect)
    if isinstance(nested, Nested):
        return nested
    table = open_table(nested)
    if holds_lists(table.frame) and columns.time_col not in table.frame.columns.drop(TIME):
        lists = read_nested(records_of(table), table.source, columns, table.row)
        assert isinstance(lists, Nested)  # the first record has a list of times
        return lists
    return Nested(table, [], {})


def _find_columns(table: Table, id_col: str | None, time_col: str, type_col: str) -> EventColumns:
    """Check that the columns exist; only the default ``id_col`` may be missing."""
    columns = list(table.frame.columns)
    for argument, name in (("time_col", time_col), ("type_col", type_col), ("id_col", id_col)):
        if name is None or name in columns:
            continue
        others = [column for column in columns if column not in (time_col, type_col)]
        close = get_close_matches(str(name), others, n=1)
        if argument == "id_col" and name == "sequence_id":
            if close:
                raise DataError(
                    f"{table.source} has no column 'sequence_id' but one called {close[0]!r}; pass "
                    f"id_col={close[0]!r} (--id-col) if it tells sequences apart, or id_col=None"
                )
            continue
        hint = f"did you mean {close[0]!r}?" if close else f"its columns are {', '.join(columns)}"
        option = f"--{argument.replace('_', '-')}"
        raise DataError(
            f"{table.source} has no column {name!r}; pass {argument}= ({option}): {hint}"
        )
    chosen = [name for name in (id_col, time_col, type_col) if name is not None]
    if len(set(chosen)) < len(chosen):
        raise DataError(f"the columns {chosen} are not different; give each its own role")
    return EventColumns("sequence_id" if id_col is None else id_col, time_col, type_col)


def _check_resolution(resolution: float | None, ties: str) -> None:
    """Check the step of the clock, which only tied events need."""
    if resolution is None:
        return
    if not isinstance(resolution, Real) or not 0 < resolution < np.inf:
        raise _no_resolution(resolution)
    if ties == "error":
        raise DataError(
            f"resolution={resolution} has no effect where ties are an error; pass ties='jitter' or "
            "'batch' (--ties), or leave it out"
        )


def _no_resolution(resolution: object) -> DataError:
    """Return the error for a step of the clock that is not positive and finite."""
    return DataError(
        f"resolution={resolution} does not say how far to spread tied events; pass the positive "
        "step of the clock that wrote them"
    )


def _check_ties(
    parts: list[np.ndarray],
    rows: list[np.ndarray],
    place: Callable[[int], str],
    row: Callable[[int], str],
    clock: Clock,
) -> None:
    """Check that no sequence has two events at the same time; the error names the first two."""
    tied = [np.diff(times) == 0 for times in parts]
    count = sum(int(one.sum()) for one in tied)
    if not count:
        return
    number = next(number for number, one in enumerate(tied) if one.any())
    bad = int(tied[number].argmax())
    step = clock.step_of(np.concatenate(parts))
    jitter = f"less than the clock's step, {step:g}{f' {clock.unit}' * clock.is_stamps}"
    if not np.isfinite(step):
        jitter = "parts of resolution=, the step of the clock"
    raise DataError(
        f"{place(int(rows[number][bad]))} and {row(int(rows[number][bad + 1]))} have the same time "
        f"{clock.to_stamp(parts[number][bad])}, and {count:,} of {sum(map(len, parts)):,} events "
        f"are tied so: pass ties='jitter' (--ties jitter) to move them later by {jitter}, or "
        "ties='batch' to keep them, or drop them"
    )


def _jitter(
    parts: list[np.ndarray],
    ends: np.ndarray,
    ids: list,
    resolution: float,
    random_state: int | None,
) -> list[np.ndarray]:
    """Move tied events later, with an independent random generator for each sequence."""
    tied = any((np.diff(times) == 0).any() for times in parts)
    if tied and not 0 < resolution < np.inf:
        raise _no_resolution(resolution)
    seeds = np.random.SeedSequence(random_state).spawn(len(parts))
    moved = []
    for times, end, name, seed in zip(parts, ends, ids, seeds, strict=True):
        values, first, counts = np.unique(times, return_index=True, return_counts=True)
        spread = times.copy()
        generator = np.random.default_rng(seed)
        limits = np.append(values[1:], end if not np.isnan(end) else np.inf)
        for tie in np.flatnonzero(counts > 1):
            room = min(resolution, limits[tie] - values[tie])
            later = slice(first[tie] + 1, first[tie] + counts[tie])
            spread[later] += room * np.sort(generator.uniform(0, 1, counts[tie] - 1))
        stuck = np.diff(spread) <= 0
        if stuck.any():
            raise DataError(
                f"{sequence_name(name)} has tied events at {times[int(stuck.argmax())]} with no "
                "room after them; end its window later, or pass a larger resolution"
            )
        moved.append(spread)
    return moved
