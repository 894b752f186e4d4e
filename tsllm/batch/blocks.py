"""Blocks of whole series, found in one pass over the column with the series' names."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tsllm.batch.parts import Part, Piece, id_texts, rows_of, series_keys

#: Largest part with mixed series, in multiples of a block's rows.
MIXED_PART = 4
# Names of series in memory at a time.
_AT_ONCE = 1_000_000


class Block(NamedTuple):
    """Rows that hold whole series only."""

    series: int
    pieces: list[Piece]


class _PartSeries(NamedTuple):
    """The series of one part."""

    starts: np.ndarray | None  # first rows of series; None: rows of series are mixed
    keys: np.ndarray  # uint64, one per series that begins in this part
    continues: bool  # the first rows belong to the last series of the previous part
    last: str  # the name in the last row


def plan_blocks(
    folder: Path,
    parts: Sequence[Part],
    id_col: str | None,
    block_rows: int,
    keep: Sequence[tuple[int, int]] = (),
) -> list[Block] | None:
    """Split parts into blocks of whole series, in the order of the rows.

    Needs 16 bytes of memory per series. Each block ends with a series and has about `block_rows`
    rows; with ``id_col=None`` all rows are one series. ``keep`` are blocks that should be blocks
    again: first row and end, counted over all parts. None: the rows of a series are scattered
    over parts, or mixed with those of others in a part that is too large for one block.
    """
    offsets = np.cumsum([0, *(part.rows for part in parts)])  # (parts + 1,)
    if id_col is None:
        return [Block(1, _pieces(0, int(offsets[-1]), offsets))]
    cuts: list[np.ndarray] = []  # rows, counted over all parts, where a block may begin
    series: list[np.ndarray] = []  # number of series that begin there
    keys: list[np.ndarray] = []
    last: str | None = None
    for part, offset in zip(parts, offsets):
        found = _scan(folder, part, id_col, last)
        last = found.last
        keys.append(found.keys)
        if found.starts is None:
            if found.continues or part.rows > MIXED_PART * block_rows:
                return None
            cuts.append(np.array([offset]))
            series.append(np.array([len(found.keys)]))
        else:
            cuts.append(found.starts + offset)
            series.append(np.ones(len(found.starts), np.int64))
    everything = np.concatenate(keys)
    if len(np.unique(everything)) < len(everything):
        return None  # a series begins in two places
    return _cut(np.concatenate(cuts), np.concatenate(series), offsets, block_rows, keep)


def _scan(folder: Path, part: Part, id_col: str, previous: str | None) -> _PartSeries:
    """Find the first row of each series of a part."""
    starts: list[np.ndarray] = []
    keys = np.empty(0, np.uint64)
    waiting: list[np.ndarray] = []
    whole, continues, row, last = True, False, 0, previous
    for batch in rows_of(folder, part, [id_col]):
        ids = id_texts(batch.column(0))
        change = np.ones(len(ids), bool)
        change[0] = ids[0].as_py() != last
        change[1:] = pa.compute.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        if row == 0:
            continues = not change[0]
        begin = np.flatnonzero(change)
        if whole:
            starts.append(begin + row)
        waiting.append(series_keys(ids.take(pa.array(begin))))
        last = ids[-1].as_py()
        row += len(ids)
        if sum(map(len, waiting)) > _AT_ONCE:
            keys, unique = _merged(keys, waiting)
            whole, waiting = whole and unique, []
            starts = starts if whole else []
    keys, unique = _merged(keys, waiting)
    assert last is not None  # parts without rows are left out
    found = np.concatenate(starts) if whole and unique else None
    return _PartSeries(found, keys, continues, last)


def _merged(keys: np.ndarray, more: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
    """Join keys; the second value is True if no key occurs twice."""
    together = np.concatenate([keys, *more])
    unique = np.unique(together)
    return unique, len(unique) == len(together)


def _cut(
    cuts: np.ndarray,
    series: np.ndarray,
    offsets: np.ndarray,
    block_rows: int,
    keep: Sequence[tuple[int, int]],
) -> list[Block]:
    """Fill blocks with as many series as fit; a block to keep begins and ends a block."""
    ends = np.append(cuts[1:], offsets[-1])
    counted = np.cumsum(series)
    possible = {*cuts.tolist(), int(offsets[-1])}
    borders = np.array(sorted({row for span in keep if possible >= {*span} for row in span}))
    blocks = []
    first = 0
    while first < len(cuts):
        limit = cuts[first] + block_rows
        border = int(np.searchsorted(borders, cuts[first], side="right"))
        if border < len(borders):
            limit = min(limit, borders[border])
        # At least one series, even if it does not fit.
        fit = int(np.searchsorted(ends, limit, side="right"))
        after = max(fit, first + 1)
        before = int(counted[first - 1]) if first else 0
        pieces = _pieces(int(cuts[first]), int(ends[after - 1]), offsets)
        blocks.append(Block(int(counted[after - 1]) - before, pieces))
        first = after
    return blocks


def _pieces(start: int, stop: int, offsets: np.ndarray) -> list[Piece]:
    """Turn rows counted over all parts into rows of each part."""
    pieces = []
    part = int(np.searchsorted(offsets, start, side="right")) - 1
    while start < stop:
        end = min(stop, int(offsets[part + 1]))
        pieces.append(Piece(part, start - int(offsets[part]), end - int(offsets[part])))
        start, part = end, part + 1
    return pieces
