"""Events in nested lists: records of EasyTPP, lists of its events, and the arrays of tick."""

import gzip
import json
import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets.checks import shown_value
from tsllm.datasets.delimited import open_text
from tsllm.datasets.events.names import whole_name
from tsllm.datasets.strict_json import parse_json
from tsllm.datasets.tables import Table
from tsllm.errors import DataError

#: The fields of EasyTPP: a list for each sequence, or a value for each event.
TIME, TYPE, SINCE_LAST = "time_since_start", "type_event", "time_since_last_event"
#: The endings of files of JSON that hold one list.
JSON_ENDINGS = (".json", ".json.gz")
_WINDOW = ("window_start", "window_end")
_LISTS = (list, tuple, np.ndarray, pd.Series)
_REMEDY = (
    f"pass records with lists {TIME!r} and {TYPE!r} (EasyTPP), a list of such events for each "
    "sequence, or arrays of times for each node (tick)"
)


class Nested(NamedTuple):
    """Sequences from nested lists."""

    #: A row for each event, in the user's columns.
    table: Table
    #: All sequences, also those without events.
    ids: list[str]
    #: The windows that the records state.
    windows: dict[str, tuple[Any, Any]]


class Columns(NamedTuple):
    """The names of the columns that the user chose."""

    id_col: str | None
    time_col: str
    type_col: str


class _Sequence(NamedTuple):
    """The events of one sequence, as the lists hold them."""

    name: str
    times: list
    types: list
    row: Callable[[int], str]  # names an event in messages
    window: tuple[Any, Any] | None = None


def read_json(path: Path) -> Any:
    """Read a file of JSON: one value, or one on each line.

    Raises
    ------
    DataError
        The file is no JSON, gives a key twice, or is nested too deeply.
    """
    source = repr(path.name)
    try:
        with open_text(path) as file:
            text = file.read()
    except UnicodeDecodeError:
        raise DataError(
            f"{source} is no text, so no JSON; a compressed file must be gzip with the ending "
            ".json.gz, and pickle files are not read"
        ) from None
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{source} cannot be read ({error}); check that the file is whole"
        ) from None
    try:
        return _parsed(text, source)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DataError(
                f"{source}, line {error.lineno} is no JSON ({error.msg}); write one list of records"
            ) from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(_parsed(line, f"{source}, line {number}"))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{source}, line {number} is no JSON ({error.msg}); write one list of records, or "
                "one record a line"
            ) from None
    return found


def holds_lists(frame: pd.DataFrame) -> bool:
    """Return whether the rows of a frame are records of EasyTPP, with lists of times."""
    if TIME not in frame.columns:
        return False
    cells = frame[TIME].dropna()
    return len(cells) > 0 and isinstance(cells.iloc[0], _LISTS)


def records_of(table: Table) -> list[dict[str, Any]]:
    """Return the rows of a table of records; a missing cell of a row is a missing field."""
    rows: list[dict[str, Any]] = []
    for record in table.frame.to_dict("records"):
        absent = [k for k, v in record.items() if not isinstance(v, _LISTS) and pd.isna(v)]
        rows.append({str(k): v for k, v in record.items() if k not in absent})
    return rows


def read_nested(
    data: Any, source: str, columns: Columns, place: Callable[[int], str] | None = None
) -> Nested | Table:
    """Read sequences from nested lists; a list of plain rows becomes a `Table` of them.

    Parameters
    ----------
    data : list, tuple or mapping
        Records of EasyTPP (one mapping for each sequence, with lists), lists of events (one list
        for each sequence, with a mapping for each event), one list of such events, an array of
        times for each node (tick, one realisation), or a list of such arrays for each realisation.
    source : str
        The name of the data in messages.
    columns : Columns
        The names that the table's columns get.
    place : callable or None, default=None
        Names a record in messages by its number; None: "record 3".
    """
    if isinstance(data, Mapping):
        data = [_no_splits(data, source)]
    items = list(data)
    if not items:
        raise DataError(f"{source} is empty; {_REMEDY}")
    named = place or (lambda number: f"record {number}")
    first = items[0]
    if isinstance(first, Mapping):
        if TIME not in first or (columns.time_col in first and columns.time_col != TIME):
            return _plain_rows(items, source)
        if isinstance(first[TIME], _LISTS):
            sequences = _records(items, source, columns.id_col, named)
        else:
            sequences = [_events(items, source, "sequence", "")]
    elif isinstance(first, _LISTS):
        sequences = _lists(items, source)
    else:
        raise DataError(f"{source} holds {_short(first)} and no events; {_REMEDY}")
    return _joined(sequences, source, columns)


def _parsed(text: str, source: str) -> Any:
    try:
        return parse_json(text, source)
    except RecursionError:
        raise DataError(f"{source} is nested too deeply; write one list of records") from None


def _no_splits(data: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return one record; the splits of a data set are an error."""
    if TIME in data:
        return data
    splits = [key for key, value in data.items() if isinstance(value, list | tuple)]
    if "dim_process" in data and splits:
        raise DataError(
            f"{source} holds the splits {', '.join(map(repr, splits))} of a data set; pass one of "
            f"them, for example data[{splits[0]!r}]"
        )
    raise DataError(f"{source} has no field {TIME!r}; {_REMEDY}")


def _plain_rows(items: list, source: str) -> Table:
    """Make a table of rows that each hold one event."""
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DataError(f"{source}, record {number} is {_short(item)}, and record 0 has fields")
        different = sorted(map(str, item.keys() ^ items[0].keys()))
        if different:
            raise DataError(
                f"{source}, records 0 and {number} differ in {different[0]!r}; give every record "
                "the same fields, null where a value is missing"
            )
    return Table(pd.DataFrame(items), lambda i: f"record {i}", source, text=False)


def _records(
    items: list, source: str, id_col: str | None, named: Callable[[int], str]
) -> list[_Sequence]:
    """Read EasyTPP's records: a mapping for each sequence."""
    key = "seq_idx" if id_col is None or id_col not in items[0] else id_col
    if id_col not in (None, "sequence_id", key):
        raise DataError(
            f"{source}, {named(0)} has no field {id_col!r}; give it to each record, or leave "
            "id_col (--id-col) out, which takes 'seq_idx'"
        )
    found, dims = [], {}
    for number, item in enumerate(items):
        where = f"{source}, {named(number)}"
        if not isinstance(item, Mapping):
            raise DataError(f"{where} is {_short(item)}, and {named(0)} has fields; {_REMEDY}")
        for field in (TIME, TYPE):
            if field not in item:
                raise DataError(f"{where} has no {field!r}; give each sequence a list of them")
            if not isinstance(item[field], _LISTS):
                raise DataError(f"{where} has {_short(item[field])} as {field!r}; give it a list")
        if (key in item) != (key in items[0]):
            raise DataError(
                f"{where} and {named(0)} differ in {key!r}; give it to each, or to none"
            )
        times, types = _as_list(item[TIME]), _as_list(item[TYPE])
        _check_lengths(item, len(times), len(types), where)
        if "dim_process" in item:
            dims[number] = _check_types(item["dim_process"], types, where)

        def row(event: int, number: int = number) -> str:
            return f"event {event} of {named(number)}"

        _check_times(times, source, row)
        own = [item.get(name) for name in _WINDOW]
        found.append(
            _Sequence(
                whole_name(str(item.get(key, number))),
                times,
                types,
                row,
                None if own == [None, None] else (own[0], own[1]),
            )
        )
    if len(set(dims.values())) > 1:
        other = next(n for n, dim in dims.items() if dim != next(iter(dims.values())))
        raise DataError(
            f"{source}, {named(other)} has dim_process={dims[other]}, and {named(next(iter(dims)))}"
            f" has {next(iter(dims.values()))}; give all sequences the same number of types"
        )
    _check_different([one.name for one in found], source, key, named)
    return found


def _check_lengths(item: Mapping[str, Any], times: int, types: int, where: str) -> None:
    """Check that the lists of a record are of one length."""
    if times != types:
        raise DataError(f"{where} has {times} times and {types} types; give each event both")
    since = item.get(SINCE_LAST)
    if isinstance(since, _LISTS) and len(since) != times:
        raise DataError(
            f"{where} has {times} times and {len(since)} values of {SINCE_LAST!r}; give each event "
            "one, or leave the field out: it is not read"
        )
    stated = item.get("seq_len")
    if stated is not None and stated != times:
        raise DataError(f"{where} has {times} events and seq_len={shown_value(stated)}; correct it")


def _check_types(dim: Any, types: list, where: str) -> int:
    """Check that types are numbers from 0 to less than ``dim_process``."""
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
        raise DataError(f"{where} has dim_process={_short(dim)}; give it the number of types")
    for event, one in enumerate(types):
        if one is not None and not (_is_number(one) and 0 <= one < dim and one == int(one)):
            raise DataError(
                f"{where}, event {event} has the type {_short(one)}, and dim_process={dim} "
                f"allows the whole numbers 0 to {dim - 1}; correct one of the two"
            )
    return int(dim)


def _check_times(times: list, source: str, row: Callable[[int], str]) -> None:
    """Check that numbers stand beside numbers only, and are finite; stamps are read later."""
    if not any(map(_is_number, times)):
        return
    for event, one in enumerate(times):
        try:
            finite = one is None or (_is_number(one) and math.isfinite(one))
        except OverflowError:  # a whole number that no float64 reaches
            finite = False
        if not finite:
            raise DataError(
                f"{source}, {row(event)} has the time {_short(one)}; give each event a finite "
                "number, or drop it"
            )


def _check_different(names: list[str], source: str, key: str, named: Callable[[int], str]) -> None:
    """Check that no two records are one sequence."""
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if name in first:
            raise DataError(
                f"{source}, {named(first[name])} and {named(number)} both have {key}={name}; give "
                "each sequence its own, or leave the field out"
            )
        first[name] = number


def _lists(items: list, source: str) -> list[_Sequence]:
    """Read a list for each sequence, or for each node."""
    for number, item in enumerate(items):
        if not isinstance(item, _LISTS):
            raise DataError(
                f"{source} holds {_short(item)} at {number}, and a list at 0; {_REMEDY}"
            )
    inside = next((one for item in items for one in item), None)
    if inside is None:
        raise DataError(f"{source} holds no events; {_REMEDY}")
    if isinstance(inside, Mapping):
        return [
            _events(_as_list(item), source, str(number), f" of sequence {number}")
            for number, item in enumerate(items)
        ]
    if not isinstance(inside, _LISTS):
        return [_nodes(items, source, "sequence", "")]
    for number, item in enumerate(items):
        if len(item) != len(items[0]):
            raise DataError(
                f"{source}, realisation {number} has {len(item)} nodes, and realisation 0 has "
                f"{len(items[0])}; give each an array for every node, empty where it has no event"
            )
    return [
        _nodes(list(item), source, str(number), f" of realisation {number}")
        for number, item in enumerate(items)
    ]


def _events(items: list, source: str, name: str, where: str) -> _Sequence:
    """Read one sequence, with a mapping for each event."""
    for number, item in enumerate(items):
        for field in (TIME, TYPE):
            if not isinstance(item, Mapping) or field not in item:
                raise DataError(
                    f"{source}, event {number}{where} has no {field!r}; give each event a time and "
                    "a type"
                )

    def row(event: int) -> str:
        return f"event {event}{where}"

    times = [item[TIME] for item in items]
    _check_times(times, source, row)
    return _Sequence(name, times, [item[TYPE] for item in items], row)


def _nodes(items: list, source: str, name: str, where: str) -> _Sequence:
    """Read one realisation of tick: an array of times for each node, whose number is the type."""
    parts = []
    for node, item in enumerate(items):
        place = f"{source}, node {node}{where}"
        if not isinstance(item, _LISTS):
            raise DataError(f"{place} is {_short(item)}; give each node an array of times")
        try:
            times = np.asarray(item, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            times = np.empty((0, 0))
        if times.ndim != 1:
            raise DataError(f"{place} is no array of numbers; give each node an array of times")
        bad = ~np.isfinite(times)
        if bad.any():
            raise DataError(f"{place} has no finite time at {int(bad.argmax())}; drop it")
        if (np.diff(times) < 0).any():
            at = int((np.diff(times) < 0).argmax()) + 1
            raise DataError(
                f"{place} has the time {times[at]:g} at {at}, earlier than {times[at - 1]:g} "
                "before it; sort the times of each node"
            )
        parts.append(times)
    pooled = np.concatenate(parts)
    order = np.argsort(pooled, kind="stable")
    node_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    number_of = np.concatenate([np.arange(len(part)) for part in parts])[order]
    return _Sequence(
        name,
        pooled[order].tolist(),
        node_of.tolist(),
        lambda event: f"time {number_of[event]} of node {node_of[event]}{where}",
    )


def _joined(sequences: Sequence[_Sequence], source: str, columns: Columns) -> Nested:
    """Join the sequences to one table with a row for each event."""
    id_col = columns.id_col
    if id_col is None:
        if len(sequences) > 1:
            raise DataError(
                f"id_col=None says that all events are one sequence, and {source} holds "
                f"{len(sequences)}; leave id_col out"
            )
        id_col = "sequence_id"
    sizes = [len(one.times) for one in sequences]
    if not sum(sizes):
        raise DataError(f"{source} holds no events; pass sequences with events")
    ids = [one.name for one in sequences]
    frame = pd.DataFrame(
        {
            id_col: np.repeat(np.array(ids, dtype=object), sizes),
            columns.time_col: [time for one in sequences for time in one.times],
            columns.type_col: [kind for one in sequences for kind in one.types],
        }
    )
    starts = np.cumsum([0, *sizes]).tolist()

    def row(position: int) -> str:
        number = bisect_right(starts, position) - 1
        return sequences[number].row(position - starts[number])

    windows = {one.name: one.window for one in sequences if one.window is not None}
    return Nested(Table(frame, row, source, text=False), ids, windows)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _as_list(values: Any) -> list:
    if isinstance(values, np.ndarray | pd.Series):
        listed: list = values.tolist()
        return listed
    return list(values)


def _short(value: Any) -> str:
    return " ".join(shown_value(value).split())[:80]
