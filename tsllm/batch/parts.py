"""Parquet parts: the parts of the input, and the rows of a block."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tsllm.datasets import parquet
from tsllm.datasets.parquet import columns_of
from tsllm.datasets.parts import PartFile, check_there, keys_of, kind_of, list_parts
from tsllm.datasets.tables import Table
from tsllm.errors import DataError

#: Rows that are read at a time.
ROWS_AT_ONCE = 65_536
#: Columns of regrouped parts: the part and the row in the user's data.
ORIGIN_PART, ORIGIN_ROW = "__tsllm_part", "__tsllm_row"


class Part(NamedTuple):
    """One file of the input; ``digest`` is a hash of its content, empty where none is needed."""

    name: str
    rows: int
    digest: str = ""


#: Size of a file and the time of its last change, in nanoseconds.
Stamp = tuple[int, int]


class Piece(NamedTuple):
    """Rows ``start`` to ``stop`` (excluded) of a part."""

    part: int
    start: int
    stop: int


def find_parts(data: Path) -> tuple[Path, list[Part]]:
    """List the Parquet files of `data`: their folder, and the files that have rows, by name.

    `data` is a Parquet file, or a directory as `tsllm.datasets.parts.list_parts` reads it.
    """
    check_there(data)
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
            parts.append(Part(file.name, rows))
    if not parts:
        raise DataError(f"{str(data)!r} has no rows; pass a table with data")
    return folder, parts


def has_whole_ids(folder: Path, parts: Sequence[Part], id_col: str | None) -> bool:
    """Check that every part names its series by whole numbers."""
    if id_col is None:
        return False
    for part in parts:
        schema = pq.read_schema(folder / part.name)
        if id_col not in schema.names:
            return False
        kind = schema.field(id_col).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not pa.types.is_integer(kind):
            return False
    return True


def hash_parts(folder: Path, parts: Sequence[Part]) -> tuple[list[Part], list[Stamp]]:
    """Return the parts with hashes of their content, and stamps for `check_unchanged`.

    The columns that the names of the folders give are part of the content.
    """
    stamps = stamps_of(folder, parts)
    hashed = []
    for part in parts:
        with reading_explained(part.name), (folder / part.name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        keys = keys_of(part.name)
        if keys:
            digest.update(repr(keys).encode())
        hashed.append(part._replace(digest=digest.hexdigest()))
    check_unchanged(folder, parts, stamps)
    return hashed, stamps


def stamps_of(folder: Path, parts: Sequence[Part]) -> list[Stamp]:
    """Return the size and the time of the last change of each file; see `check_unchanged`."""
    stamps = []
    for part in parts:
        with reading_explained(part.name):
            found = (folder / part.name).stat()
        stamps.append((found.st_size, found.st_mtime_ns))
    return stamps


def check_unchanged(folder: Path, parts: Sequence[Part], stamps: Sequence[Stamp]) -> None:
    """Check that files are as they were, so that no block mixes old and new data."""
    now = stamps_of(folder, parts)
    if now != list(stamps):
        name = folder.name  # parts were added or removed
        if len(now) == len(stamps):
            name = next(p.name for p, a, b in zip(parts, now, stamps) if a != b)
        raise DataError(
            f"{name!r} has changed while the job was running: start the job again when "
            "the data are complete; it forecasts again what reads this part"
        )


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
    with reading_explained(part.name):
        yield from _read_rows(folder, part, columns, start, stop)


def _read_rows(
    folder: Path, part: Part, columns: Sequence[str] | None, start: int, stop: int | None
) -> Iterator[pa.RecordBatch]:
    """Read rows as `rows_of` does, with Arrow's own errors."""
    with pq.ParquetFile(folder / part.name, page_checksum_verification=True) as file:
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
    """Find the columns that are values only if the user names them; see `parquet.find_roles`."""
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


def first_names(names: Sequence[str]) -> str:
    """List the first three names, and the number of the others."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


@contextmanager
def reading_explained(name: str) -> Iterator[None]:
    """Raise errors of reading a file as one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{name!r} cannot be read ({_reason(error)}): check that the file is complete, and "
            "start the job again"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
