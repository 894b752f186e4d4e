"""Tables from CSV, Parquet and JSON lines, with the place of every row in its file."""

import csv
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tsllm.datasets.delimited import Dialect, read_csv
from tsllm.datasets.foreign import plain
from tsllm.datasets.frequency import row_number
from tsllm.datasets.json_lines import read_json_lines
from tsllm.datasets.parquet import Roles, common_schema, find_roles, read_parquet
from tsllm.datasets.parts import KINDS, PartFile, check_there, kind_of, list_parts
from tsllm.errors import DataError

# Text cells that stand for a missing value.
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "null", "NULL", "None"]

_PICKLES = (".pkl", ".pickle", ".pck", ".pcl", ".pkl.gz", ".pickle.gz")


class Table(NamedTuple):
    """A table as read: only its column names and the number of cells in each row are checked."""

    frame: pd.DataFrame
    row: Callable[[int], str]  # the name of the row at a position, for error messages
    source: str  # the name of the table in error messages
    text: bool  # whether every cell is text, as in CSV
    decimal: str = "."  # the decimal sign of numbers in text
    tz: str | None = None  # the time zone of events
    format: str | None = None  # how the times of events are written
    roles: Roles = Roles()


def open_table(
    source: Any,
    freq: str | None = None,
    dialect: Dialect | None = None,
) -> Table:
    """Open a table without interpreting it; see `read_long` for the sources.

    A line of JSON is one row, or one series of GluonTS with ``start`` and ``target``, whose
    frequency is ``freq`` or that of the line. CSV cells are text, written as ``dialect`` says;
    other cells have the types of the file. Error messages name rows of CSV and JSON by line, other
    rows by position from 0.
    """
    if isinstance(source, Table):
        _check_dialect(dialect, source.source, csv=False)
        return _checked(source)
    source = plain(source, "the table")
    if isinstance(source, pd.DataFrame):
        _check_dialect(dialect, "the frame", csv=False)
        return _checked(Table(source, row_number, "the frame", text=False))
    if not isinstance(source, str | Path):
        raise DataError(
            f"source has the type {type(source).__name__}; pass a file's path or a table "
            "of pandas, polars or Arrow (panel_to_long makes one of an sktime panel)"
        )
    if source == "":
        raise DataError("there is no file or directory ''; check the path")
    path = Path(source).expanduser()
    check_there(path)
    try:
        if path.is_dir():
            table = _read_folder(path, freq, dialect)
        else:
            table = _read_file(path, freq, dialect)
    except DataError:
        raise  # also a ValueError, and complete already
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{str(source)!r} cannot be read ({reason}); check that the file is whole and "
            "of the type that its ending says"
        ) from error
    return _checked(table)


def is_csv(source: object) -> bool:
    """Check whether a source of `open_table` is a CSV file, or a folder of them."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source).expanduser()
    if path.is_dir():
        return list_parts(path)[0].kind == "CSV"
    return kind_of(path) == "CSV"


def text_to_numbers(column: pd.Series, decimal: str = ".") -> np.ndarray | int:
    """Read text cells as float64, (rows,), NaN where missing.

    If a cell is not a number, the position of the first such cell is returned instead.

    Examples
    --------
    >>> text_to_numbers(pd.Series(["1.5", " 2", "NA"]))
    array([1.5, 2. , nan])
    >>> text_to_numbers(pd.Series(["1.5", "2,5"]))
    1
    >>> text_to_numbers(pd.Series(["1,5", "2,5"]), decimal=",")
    array([1.5, 2.5])
    """
    cells = pa.compute.utf8_trim_whitespace(pa.array(column, type=pa.string()))
    cells = pa.compute.if_else(missing_text(column), pa.scalar(None, pa.string()), cells)
    if decimal != ".":
        # "1.5" is no number here: with two points, the conversion below refuses it
        cells = pa.compute.replace_substring(cells, ".", "..")
        cells = pa.compute.replace_substring(cells, decimal, ".")
    try:
        return np.array(pa.compute.cast(cells, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return _first_non_number(cells)


def missing_text(column: pd.Series) -> np.ndarray:
    """Find the text cells that stand for a missing value: bool, (rows,)."""
    return column.str.strip().isin(_MISSING).to_numpy(dtype=bool)


def missing_cells(table: Table, column: pd.Series) -> np.ndarray:
    """Find the missing cells of a column, in text also those that stand for one: bool, (rows,)."""
    missing = column.isna().to_numpy(dtype=bool)
    return missing | missing_text(column) if table.text else missing


def check_everywhere(
    table: Table, names: Sequence[str], *, required: Sequence[str | None] = ()
) -> None:
    """Check that every part of a table has some columns; ``required`` ones cannot be left out."""
    for name in names:
        if name in table.roles.lacking:
            raise DataError(
                f"column {name!r} of {table.source} is missing in "
                f"{table.roles.lacking[name]!r}; give it to every part"
                f"{'' if name in required else ', or leave it out'}"
            )


def _checked(table: Table) -> Table:
    """Check that a table has rows and columns with different names, and make the names text."""
    columns = table.frame.columns
    if columns.nlevels > 1:
        raise DataError(
            f"{table.source} has {columns.nlevels} levels of column names, the first "
            f"{columns[0]!r}; give each column one name, for example with "
            "frame.columns = ['_'.join(map(str, name)) for name in frame.columns]"
        )
    names = pd.Index(["" if name is None or name is np.nan else str(name) for name in columns])
    if names.duplicated().any():
        twice = names[names.duplicated()][0]
        raise DataError(f"{table.source} has two columns named {twice!r}; rename or drop one")
    if len(table.frame) == 0:
        raise DataError(f"{table.source} has no rows; pass a table with data")
    return table._replace(frame=table.frame.set_axis(names, axis=1))


def _check_dialect(dialect: Dialect | None, source: str, *, csv: bool) -> None:
    """Check that the arguments for CSV are given for CSV only."""
    if dialect is not None and not csv:
        raise DataError(
            "sep=, decimal= and encoding= (--sep, --decimal, --encoding) are for CSV, and have no "
            f"effect on {source}; leave them out"
        )


def _read_file(path: Path, freq: str | None, dialect: Dialect | None) -> Table:
    """Read a file that is a whole table."""
    kind = kind_of(path)
    if path.name.lower().endswith(_PICKLES):
        raise DataError(
            f"{path.name!r} is a pickle file, and such files are not read, since they can run any "
            "code; open it yourself if you trust it, and pass the table or the lists inside, or "
            "write them as Parquet or JSON"
        )
    if kind is None:
        raise DataError(
            f"{str(path)!r} has an ending that is not known; pass a {', '.join(KINDS)} file or a "
            "directory of them"
        )
    _check_dialect(dialect, repr(path.name), csv=kind == "CSV")
    return _read_part(PartFile(path, path.name, kind), freq, dialect)


def _read_part(
    part: PartFile, freq: str | None, dialect: Dialect | None, *, alone: bool = True
) -> Table:
    """Read one file; ``alone`` says that it is a whole table."""
    source = repr(part.name)
    if part.kind == "JSON lines":
        frame, row = read_json_lines(part.path, source, freq, named=not alone)
        return Table(frame, row, source, text=False)
    if part.kind == "CSV":
        dialect = dialect or Dialect()
        frame, row = read_csv(part.path, source, dialect)
        return Table(frame, row, source, text=True, decimal=dialect.decimal)
    roles = find_roles([(part.name, pq.read_schema(part.path))], [])
    frame = read_parquet(part.path).to_pandas()
    return Table(frame, row_number, source, text=False, roles=roles)


def _read_folder(folder: Path, freq: str | None, dialect: Dialect | None) -> Table:
    """Read the parts of a folder as one table; columns are matched by name."""
    parts = list_parts(folder)
    source, kind = repr(folder.name), parts[0].kind
    _check_dialect(dialect, source, csv=kind == "CSV")
    if kind == "Parquet":
        return _join_parquet(parts, source)
    tables = [_read_part(part, freq, dialect, alone=len(parts) == 1) for part in parts]
    for part, table in zip(parts, tables):
        for name, value in part.keys.items():
            if name in table.frame:
                raise DataError(
                    f"{part.name!r} has a column {name!r}, which the name of its folder gives too; "
                    "drop the column or rename the folder"
                )
            missing = "" if table.text else None
            table.frame[name] = pd.Series(missing if value is None else value, table.frame.index)
    lacking = {
        str(name): part.name
        for table in tables
        for name in table.frame
        for part, other in zip(parts, tables)
        if name not in other.frame
    }
    frame = pd.concat([table.frame for table in tables], ignore_index=True)
    row = _row_of_parts(
        [table.row for table in tables], [len(table.frame) for table in tables], parts
    )
    roles = Roles(tuple(parts[0].keys), None, lacking)
    return Table(frame, row, source, tables[0].text, tables[0].decimal, roles=roles)


def _join_parquet(parts: Sequence[PartFile], source: str) -> Table:
    """Read Parquet parts, with one type for each column."""
    tables, names = [], [part.name for part in parts]
    schemas = []
    for part in parts:
        try:
            schemas.append(pq.read_schema(part.path))
            tables.append(read_parquet(part.path, part.keys))
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{part.name!r} cannot be read ({reason}); check that the file is whole"
            ) from error
    roles = find_roles(list(zip(names, schemas)), list(parts[0].keys))
    columns = list(dict.fromkeys(name for table in tables for name in table.column_names))
    schema = common_schema([table.schema for table in tables], columns, source, names)
    whole = pa.concat_tables(_with_columns(table, schema) for table in tables)
    row = _row_of_parts([row_number] * len(parts), [len(table) for table in tables], parts)
    return Table(whole.to_pandas(), row, source, text=False, roles=roles)


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a table to a schema; a column that it lacks has missing values."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _row_of_parts(
    rows: Sequence[Callable[[int], str]], sizes: Sequence[int], parts: Sequence[PartFile]
) -> Callable[[int], str]:
    """Name the rows of joined parts by their places in the parts."""
    starts = np.cumsum([0, *sizes]).tolist()

    def row(position: int) -> str:
        number = bisect_right(starts, position) - 1
        return f"{rows[number](position - starts[number])} of {parts[number].name}"

    return row


def _first_non_number(cells: Any) -> int:
    """Find the first cell that Arrow does not read as a number; there is one.

    It halves the part that holds the cell, since Arrow does not say where it stopped.
    """
    start, end = 0, len(cells)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            pa.compute.cast(cells.slice(start, middle - start), pa.float64())
            start = middle
        except pa.ArrowInvalid:
            end = middle
    return start
