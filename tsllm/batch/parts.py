"""Parquet parts: the parts of the input, the rows of a block, and the part that a block writes."""

import hashlib
import os
import secrets
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tsllm.datasets import parquet
from tsllm.datasets.parquet import columns_of
from tsllm.datasets.parts import PartFile, keys_of, kind_of, list_parts
from tsllm.datasets.tables import Table
from tsllm.errors import DataError

#: Rows that are read at a time.
ROWS_AT_ONCE = 65_536
#: Columns of regrouped parts: the part and the row in the user's data.
ORIGIN_PART, ORIGIN_ROW = "__tsllm_part", "__tsllm_row"
#: End of the names of unfinished files and directories.
UNFINISHED = ".part"
# Metadata key of a part with the digest of its job.
_JOB = b"tsllm.job"


class Part(NamedTuple):
    """One file of the input.

    ``digest`` is a hash of the file's size and footer, which holds the counts, offsets and extremes
    of all columns. It is quick to read and changes with the data.
    """

    name: str
    rows: int
    digest: str


class Piece(NamedTuple):
    """Rows ``start`` to ``stop`` (excluded) of a part."""

    part: int
    start: int
    stop: int


def find_parts(data: Path) -> tuple[Path, list[Part]]:
    """List the Parquet files of `data`: their folder, and the files that have rows, by name.

    `data` is a Parquet file, or a directory as `tsllm.datasets.parts.list_parts` reads it.
    """
    if not data.exists():
        raise DataError(f"there is no file or directory {str(data)!r}; check the path")
    if data.is_dir():
        folder, files = data, list_parts(data)
    else:
        folder, files = data.parent, [PartFile(data, data.name, kind_of(data) or "CSV")]
    if files[0].kind != "Parquet":
        raise DataError(
            f"{files[0].name!r} is no Parquet file, which forecasting in blocks needs: write it as "
            "Parquet, or give an --out that ends in .csv or .parquet"
        )
    parts = []
    for file in files:
        try:
            rows = pq.read_metadata(file.path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{str(file.path)!r} cannot be read ({_reason(error)}); check that the file is "
                "complete"
            ) from error
        if rows:
            parts.append(Part(file.name, rows, _digest(file.path)))
    if not parts:
        raise DataError(f"{str(data)!r} has no rows; pass a table with data")
    return folder, parts


def rows_of(
    folder: Path,
    part: Part,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read rows `start` to `stop` (excluded) of a part in batches; memory is bounded.

    The names of the part's folders are columns too.
    """
    with pq.ParquetFile(folder / part.name) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = list(accumulate(sizes))
        stop = ends[-1] if stop is None else stop
        groups = [i for i, end in enumerate(ends) if end > start and end - sizes[i] < stop]
        row = ends[groups[0]] - sizes[groups[0]]
        keys = _keys_beside(file.schema_arrow, part)
        wanted = columns_of(file.schema_arrow) if columns is None else columns
        own = [name for name in wanted if name not in keys]
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=own):
            first, last = max(start - row, 0), min(stop - row, len(batch))
            if first < last:
                rows = batch.slice(first, last - first)
                for name in {*own} & {*keys_of(part.name)}:
                    parquet.check_key(rows[name], name, keys_of(part.name)[name], part.name)
                for name, value in keys.items():
                    rows = rows.append_column(name, pa.array([value] * len(rows), pa.string()))
                yield rows if columns is None else rows.select(list(columns))
            row += len(batch)
            if row >= stop:
                return


def read_block(
    folder: Path, parts: Sequence[Part], pieces: Sequence[Piece], columns: Sequence[str]
) -> Table:
    """Read the rows of a block.

    The table knows the place of each row in the user's data, for error messages. `parts` are all
    parts of the input; in a regrouped input the rows have columns with their original places.
    """
    schema = common_schema(folder, [parts[piece.part] for piece in pieces], columns)
    table = pa.concat_tables(
        pa.Table.from_batches([batch]).cast(schema)
        for piece in pieces
        for batch in rows_of(folder, parts[piece.part], columns, piece.start, piece.stop)
    )
    if ORIGIN_PART in columns:
        part, row = table[ORIGIN_PART].to_pylist(), table[ORIGIN_ROW].to_pylist()
        table = table.drop_columns([ORIGIN_PART, ORIGIN_ROW])

        def place(position: int) -> str:
            return f"row {row[position]} of {part[position]}"

    else:
        ends = list(accumulate(piece.stop - piece.start for piece in pieces))

        def place(position: int) -> str:
            i = bisect_right(ends, position)
            before = ends[i - 1] if i else 0
            return f"row {pieces[i].start + position - before} of {parts[pieces[i].part].name}"

    frame = table.to_pandas(ignore_metadata=True)
    return Table(frame, place, repr(folder.name), text=False)


def common_schema(folder: Path, parts: Sequence[Part], columns: Sequence[str]) -> pa.Schema:
    """Return types that fit the columns of all parts; every part must have them."""
    schemas = [_schema(folder, part) for part in parts]
    for part, schema in zip(parts, schemas):
        for name in columns:
            if name not in schema.names:
                raise DataError(
                    f"{part.name!r} has no column {name!r}, which other parts of {folder.name!r} "
                    "have: give it to every part"
                )
    names = [part.name for part in parts]
    return parquet.common_schema(schemas, columns, repr(folder.name), names)


def roles_of(folder: Path, parts: Sequence[Part]) -> parquet.Roles:
    """Find the columns of the parts that are values only where they are named."""
    schemas = [(part.name, pq.read_schema(folder / part.name)) for part in parts]
    return parquet.find_roles(schemas, list(keys_of(parts[0].name)))


def _schema(folder: Path, part: Part) -> pa.Schema:
    """Return the columns of a part, those of its folders included."""
    schema = pq.read_schema(folder / part.name).remove_metadata()
    for name in _keys_beside(schema, part):
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def _keys_beside(schema: pa.Schema, part: Part) -> dict[str, str | None]:
    """Return the columns of a part's folders that its file does not have."""
    return {name: key for name, key in keys_of(part.name).items() if name not in schema.names}


def write_part(frame: pd.DataFrame, path: Path, job: str) -> None:
    """Write the forecasts of a block in one step, with the digest of the job's manifest."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _JOB: job.encode()})
    with whole_file(path) as file:
        pq.write_table(table, file)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is on the disk as a whole."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_written(path: Path, job: str) -> bool:
    """Return True if the part of a block is complete and belongs to this job."""
    if not path.exists():
        return False
    try:
        found = (pq.read_schema(path).metadata or {}).get(_JOB)
    except (OSError, pa.ArrowException):
        return False  # damaged: the block is written again
    if found != job.encode():
        raise DataError(f"{str(path)!r} belongs to another job: give another directory to write to")
    return True


def series_keys(ids: pa.Array) -> np.ndarray:
    """Hash names of series (n,) to uint64, with the same result in every process.

    A collision costs time only: the rows of the two series are kept together.
    """
    return pd.util.hash_array(np.asarray(ids.to_pylist(), dtype=object), categorize=False)


def id_texts(column: pa.Array) -> pa.Array:
    """Return the series' names of some rows as text; a missing name is empty."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pa.compute.fill_null(pa.compute.cast(column, pa.string()), "")


def _digest(path: Path) -> str:
    """Hash the size and the footer of a Parquet file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-min(size, length + 8), os.SEEK_END)
        return hashlib.sha256(str(size).encode() + file.read()).hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
