"""Tables from CSV, Parquet and JSON lines, with the place of every row in its file."""

import csv
import gzip
import json
import warnings
import zlib
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from tsllm.datasets.checks import check_values
from tsllm.datasets.frequency import future_times, row_number
from tsllm.errors import DataError

# Text cells that stand for a missing value.
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "null", "NULL", "None"]
_ENDINGS = (".csv", ".parquet", ".jsonl")
_GLUONTS_FIELDS = {"item_id", "start", "freq", "target"}


class Table(NamedTuple):
    """A table as read: only its column names and the number of cells in each row are checked."""

    frame: pd.DataFrame
    row: Callable[[int], str]  # the name of the row at a position, for error messages
    source: str  # the name of the table in error messages
    text: bool  # whether every cell is text, as in CSV


def open_table(source: str | Path | pd.DataFrame | Table, freq: str | None = None) -> Table:
    """Open a table without interpreting it; see `read_long` for the sources.

    A line of JSON is one row, or one series of GluonTS with ``start`` and ``target``, whose
    frequency is ``freq`` or that of the line. CSV cells are text; other cells have the types of
    the file. Error messages name rows of CSV and JSON by line, other rows by position from 0.
    """
    if isinstance(source, Table):
        return _checked(source)
    if isinstance(source, pd.DataFrame):
        return _checked(Table(source, row_number, "the frame", text=False))
    if not isinstance(source, str | Path):
        raise DataError(
            f"source has the type {type(source).__name__}; pass a file's path or a DataFrame "
            "(panel_to_long makes one of an sktime panel)"
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"there is no file or directory {str(source)!r}; check the path")
    extension = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if not path.is_dir() and (extension not in _ENDINGS or path.name.endswith(".parquet.gz")):
        raise DataError(
            f"{str(source)!r} has an ending that is not known; "
            "pass a .csv, .csv.gz, .parquet, .jsonl or .jsonl.gz file or a directory of Parquet"
        )
    try:
        if path.is_dir():
            table = _read_parts(path)
        elif extension == ".jsonl":
            table = _read_json_lines(path, freq)
        elif extension == ".csv":
            table = _read_csv(path)
        else:
            table = Table(pd.read_parquet(path), row_number, repr(path.name), text=False)
    except DataError:
        raise  # also a ValueError, and complete already
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{str(source)!r} cannot be read ({reason}); check that the file is whole and "
            "of the type that its ending says"
        ) from error
    return _checked(table)


def text_to_numbers(column: pd.Series) -> np.ndarray | int:
    """Read text cells as float64, (rows,), NaN where missing.

    If a cell is not a number, the position of the first such cell is returned instead.

    Examples
    --------
    >>> text_to_numbers(pd.Series(["1.5", " 2", "NA"]))
    array([1.5, 2. , nan])
    >>> text_to_numbers(pd.Series(["1.5", "2,5"]))
    1
    """
    cells = pa.compute.utf8_trim_whitespace(pa.array(column, type=pa.string()))
    cells = pa.compute.if_else(missing_text(column), pa.scalar(None, pa.string()), cells)
    try:
        return np.array(pa.compute.cast(cells, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return next(position for position, cell in enumerate(cells) if not _is_number(cell))


def missing_text(column: pd.Series) -> np.ndarray:
    """Find the text cells that stand for a missing value: bool, (rows,)."""
    return column.str.strip().isin(_MISSING).to_numpy(dtype=bool)


def _checked(table: Table) -> Table:
    """Check that a table has rows and that its column names differ."""
    names = table.frame.columns.astype(str)
    if names.duplicated().any():
        twice = names[names.duplicated()][0]
        raise DataError(f"{table.source} has two columns named {twice!r}; rename or drop one")
    if len(table.frame) == 0:
        raise DataError(f"{table.source} has no rows; pass a table with data")
    return table


def _open_text(path: Path) -> TextIO:
    """Open a text file, compressed or not; skip a byte order mark."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_csv(path: Path) -> Table:
    """Read CSV as text and check the number of cells of each row."""
    source = repr(path.name)
    with _open_text(path) as file:
        header = next((record for record in csv.reader(file) if record), None)
    if header is None:
        raise DataError(f"{source} is empty; pass a file with a header line and data")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{source} has two columns named {twice!r}; rename or drop one")
    ragged: list[Any] = []

    def stop(record: Any) -> str:
        ragged.append(record)
        return "error"

    text = dict.fromkeys(header, pa.string())
    try:
        cells = pa.csv.read_csv(
            path,
            # ragged rows have numbers with one thread only
            read_options=pa.csv.ReadOptions(use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=stop),
            convert_options=pa.csv.ConvertOptions(column_types=text, strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        if not ragged:
            raise
        record = ragged[0]
        raise DataError(
            f"{source}, line {_csv_line(path, record.number - 2)} has {record.actual_columns} "
            f"cells where the header has {record.expected_columns}; repair the line, with a comma "
            "between cells and a point in numbers"
        ) from None
    return Table(
        cells.to_pandas(), lambda position: f"line {_csv_line(path, position)}", source, text=True
    )


def _csv_line(path: Path, position: int) -> int:
    """Find the line at which a CSV row starts, counted from 1 with the header."""
    with _open_text(path) as file:
        reader = csv.reader(file)
        start, seen = 1, -2
        for record in reader:
            seen += bool(record)
            if seen == position:
                break
            start = reader.line_num + 1
    return start


def _read_parts(folder: Path) -> Table:
    """Read a directory of Parquet parts as one table."""
    paths = sorted(path for path in folder.glob("*.parquet") if path.name[0] not in "._")
    if not paths:
        raise DataError(
            f"the directory {folder.name!r} holds no .parquet file; pass one with Parquet parts"
        )
    parts = [pd.read_parquet(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if list(part.columns) != list(parts[0].columns):
            raise DataError(
                f"{path.name!r} has the columns {list(part.columns)}, but {paths[0].name!r} has "
                f"{list(parts[0].columns)}; give every part the same"
            )
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()

    def row(position: int) -> str:
        part = bisect_right(starts, position) - 1
        return f"row {position - starts[part]} of {paths[part].name}"

    return Table(pd.concat(parts, ignore_index=True), row, repr(folder.name), text=False)


def _read_json_lines(path: Path, freq: str | None) -> Table:
    """Read JSON lines: one row, or one GluonTS series, on each line."""
    source = repr(path.name)
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    with _open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{source}, line {number} is no JSON ({error.msg}); write one object a line"
                ) from None
            if not isinstance(record, dict):
                raise DataError(f"{source}, line {number} is no JSON object; write one a line")
            records.append(record)
            lines.append(number)
    if records and {"start", "target"} <= records[0].keys():
        return _expand_gluonts(records, lines, source, freq)
    for record, number in zip(records, lines, strict=True):
        different = sorted(record.keys() ^ records[0].keys())
        if different:
            raise DataError(
                f"{source}, lines {lines[0]} and {number} differ in {different[0]!r}; give every "
                "line the same fields, null where a value is missing"
            )
    return Table(pd.DataFrame(records), lambda i: f"line {lines[i]}", source, text=False)


def _expand_gluonts(
    records: list[dict[str, Any]], lines: list[int], source: str, freq: str | None
) -> Table:
    """Convert GluonTS series to rows; warn once about unused fields."""
    frames, places = [], []
    for count, (record, number) in enumerate(zip(records, lines, strict=True)):
        where = f"{source}, line {number}"
        target = record.get("target")
        if not isinstance(target, list) or not target or isinstance(target[0], list):
            raise DataError(f"{where} has no 'target' with one list of numbers; give it one")
        item = record.get("item_id", str(count))
        # GluonTS writes missing values as the text NaN
        numbers = pd.Series([None if value == "NaN" else value for value in target], dtype=object)
        values = check_values(numbers, series=item, row=_step_of(number))
        step = freq or record.get("freq")
        if step is None:
            raise DataError(f"{where} has no 'freq'; pass freq=, for example freq='h'")
        start = pd.to_datetime(str(record.get("start")), errors="coerce", format="ISO8601")
        if not isinstance(start, pd.Timestamp):
            raise DataError(
                f"{where} has the start {record.get('start')!r}; write it year first, for example "
                "2024-01-31 13:00"
            )
        try:
            times = pd.DatetimeIndex([start]).append(future_times(start, step, len(target)))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        frames.append(
            pd.DataFrame(
                {"item_id": item, "timestamp": times[: len(target)], "target": values[:, 0]}
            )
        )
        places += [(number, step_number) for step_number in range(len(target))]
    unused = sorted({key for record in records for key in record} - _GLUONTS_FIELDS)
    if unused:
        warnings.warn(f"{source} has fields that are not used: {', '.join(unused)}", stacklevel=5)
    return Table(
        pd.concat(frames, ignore_index=True),
        lambda i: f"line {places[i][0]}, step {places[i][1]}",
        source,
        text=False,
    )


def _step_of(line: int) -> Callable[[int], str]:
    """Name the steps of a GluonTS series."""
    return lambda step: f"line {line}, step {step}"


def _is_number(cell: Any) -> bool:
    """Check whether Arrow reads a cell as a number."""
    try:
        pa.compute.cast(cell, pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
