"""Regrouping of scattered series on disk: one pass over the rows, in bounded memory."""

import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsllm.batch.parts import (
    ORIGIN_PART,
    ORIGIN_ROW,
    Part,
    common_schema,
    id_texts,
    rows_of,
    series_keys,
)
from tsllm.batch.writing import UNFINISHED, writing_to
from tsllm.errors import DataError

#: Largest number of files that are open at the same time.
MOST_GROUPS = 256
# Rows in memory before they are written.
_ROWS_IN_MEMORY = 1_000_000


def regroup(
    folder: Path,
    parts: Sequence[Part],
    columns: Sequence[str],
    id_col: str,
    target: Path,
    groups: int,
) -> None:
    """Write the rows to new parts in `target`, so that each part holds whole series.

    The hash of a series' name chooses one of `groups` parts; rows keep their order, and two columns
    hold their original places. The target appears in one step.
    """
    size = sum((folder / part.name).stat().st_size for part in parts)
    free = shutil.disk_usage(target.parent).free
    if free < 1.5 * size:
        raise DataError(
            "the rows of series are scattered over the parts, and regrouping them in "
            f"{str(target.parent)!r} needs {1.5 * size / 1e9:.1f} GB of which {free / 1e9:.1f} are "
            "free: free some space, or sort the data by series"
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with writing_to(target.parent):
        temporary.mkdir()
    writers: dict[int, pq.ParquetWriter] = {}
    try:
        waiting: list[pa.Table] = []
        schema = common_schema(folder, parts, columns)
        for part in parts:
            row = 0
            for batch in rows_of(folder, part, columns):
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
        with writing_to(target.parent):
            for writer in writers.values():
                writer.close()
            if target.exists():
                shutil.rmtree(target)
            temporary.replace(target)
    finally:
        for writer in writers.values():
            with suppress(OSError):  # on a full disk closing fails as well
                writer.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    tables: Sequence[pa.Table],
    id_col: str,
    groups: int,
    folder: Path,
    writers: dict[int, pq.ParquetWriter],
) -> None:
    """Append rows to the files of their groups."""
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
        with writing_to(folder.parent):
            if group not in writers:
                path = folder / f"group-{group:05d}.parquet"
                writers[group] = pq.ParquetWriter(path, table.schema)
            writers[group].write_table(table.slice(first, last - first))
