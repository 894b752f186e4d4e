"""Scattered series brought together on disk: one pass, memory that does not grow with the data."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsllm.batch.parts import (
    ORIGIN_PART,
    ORIGIN_ROW,
    UNFINISHED,
    Part,
    common_schema,
    id_texts,
    rows_of,
    series_keys,
)
from tsllm.errors import DataError

#: Files that are written to at the same time, at most.
MOST_GROUPS = 256
# Rows kept in memory before they are written.
_ROWS_IN_MEMORY = 1_000_000


def regroup(
    folder: Path,
    parts: Sequence[Part],
    columns: Sequence[str],
    id_col: str,
    target: Path,
    groups: int,
) -> None:
    """Write the rows to new parts, so that each holds whole series.

    A series goes where its name's hash says, its rows in the order in which they were. Two columns
    tell where each row was. The target appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Where the parts are.
    parts : sequence of Part
    columns : sequence of str
        The columns to keep, the series' names among them.
    id_col : str
        The column with the series' names.
    target : Path
        The directory to make.
    groups : int
        How many parts to write.

    Raises
    ------
    DataError
        There is not enough room on the disk.
    """
    size = sum((folder / part.name).stat().st_size for part in parts)
    free = shutil.disk_usage(target.parent).free
    if free < 1.5 * size:
        raise DataError(
            f"the rows of series are scattered over the parts, and bringing them together in "
            f"{str(target.parent)!r} needs {1.5 * size / 1e9:.1f} GB of which {free / 1e9:.1f} are "
            "free: make room, or sort the data by series before"
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")
    temporary.mkdir()
    writers: dict[int, pq.ParquetWriter] = {}
    try:
        waiting: list[pa.Table] = []
        schema = common_schema(folder, parts, columns)
        for part in parts:
            row = 0
            for batch in rows_of(folder / part.name, columns):
                origin = pa.array([part.name] * len(batch)).dictionary_encode()
                table = pa.Table.from_batches([batch]).cast(schema)
                table = table.append_column(ORIGIN_PART, origin.dictionary_decode())
                table = table.append_column(ORIGIN_ROW, pa.array(np.arange(row, row + len(batch))))
                row += len(batch)
                waiting.append(table)
                if sum(map(len, waiting)) >= _ROWS_IN_MEMORY:
                    _write(waiting, id_col, groups, temporary, writers)
                    waiting = []
        if waiting:
            _write(waiting, id_col, groups, temporary, writers)
        for writer in writers.values():
            writer.close()
        writers.clear()
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    finally:
        for writer in writers.values():
            writer.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    tables: Sequence[pa.Table],
    id_col: str,
    groups: int,
    folder: Path,
    writers: dict[int, pq.ParquetWriter],
) -> None:
    """Write rows to their groups."""
    table = pa.concat_tables(tables)
    names = pa.concat_arrays([id_texts(chunk) for chunk in table[id_col].chunks])
    names = names.dictionary_encode()
    keys = series_keys(names.dictionary)[names.indices.to_numpy()] % groups  # (rows,)
    order = np.argsort(keys, kind="stable")
    borders = np.searchsorted(keys[order], np.arange(groups + 1))
    table = table.take(pa.array(order))
    for group in range(groups):
        first, last = int(borders[group]), int(borders[group + 1])
        if first == last:
            continue
        if group not in writers:
            path = folder / f"group-{group:05d}.parquet"
            writers[group] = pq.ParquetWriter(path, table.schema)
        writers[group].write_table(table.slice(first, last - first))
