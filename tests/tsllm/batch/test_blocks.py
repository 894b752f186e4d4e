"""Blocks hold whole series, whatever the parts and row groups they lie in."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.batch import blocks as blocks_module
from tsllm.batch.blocks import plan_blocks
from tsllm.batch.parts import find_parts, read_block, rows_of


def _written(tmp, ids, borders, row_group):
    frame = pd.DataFrame({"id": ids, "row": np.arange(len(ids))})
    edges = sorted({0, *borders, len(ids)})
    for i, (start, stop) in enumerate(pairwise(edges)):
        frame.iloc[start:stop].to_parquet(
            tmp / f"{i:03d}.parquet", index=False, row_group_size=row_group
        )
    return find_parts(tmp)


def _contents(folder, parts, plan):
    """The ids and rows of each block, as they are read."""
    frames = [
        read_block(folder, parts, block.pieces, ["id", "row"]).frame.assign(block=number)
        for number, block in enumerate(plan)
    ]
    return pd.concat(frames, ignore_index=True)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    borders=st.lists(st.integers(1, 60), max_size=4),
    row_group=st.integers(1, 20),
    block_rows=st.integers(1, 40),
)
def test_contiguous_series_are_cut_in_order(
    tmp_path_factory, lengths, borders, row_group, block_rows
):
    ids = [f"s{i}" for i, n in enumerate(lengths) for _ in range(n)]
    borders = [border for border in borders if border < len(ids)]
    folder, parts = _written(tmp_path_factory.mktemp("parts"), ids, borders, row_group)
    plan = plan_blocks(folder, parts, "id", block_rows)
    read = _contents(folder, parts, plan)
    assert read["row"].tolist() == list(range(len(ids)))
    assert read["id"].tolist() == ids
    assert (read.groupby("id")["block"].nunique() == 1).all()
    assert [b.series for b in plan] == read.groupby("block")["id"].nunique().tolist()
    for number, block in enumerate(plan):
        rows = sum(piece.stop - piece.start for piece in block.pieces)
        longest = max(Counter(read["id"][read["block"] == number]).values())
        assert rows <= max(block_rows, longest)


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    borders=st.lists(st.integers(1, 39), max_size=3),
    block_rows=st.integers(1, 30),
)
def test_no_series_is_ever_torn(tmp_path_factory, ids, borders, block_rows):
    borders = sorted({border for border in borders if border < len(ids)})
    folder, parts = _written(tmp_path_factory.mktemp("parts"), ids, borders, 7)
    plan = plan_blocks(folder, parts, "id", block_rows)
    if plan is None:
        # Then a series truly is in two places, or a part mixes more than is read at once.
        runs = [i for n, i in enumerate(ids) if n == 0 or ids[n - 1] != i]
        assert len(runs) > len(set(runs))
        return
    read = _contents(folder, parts, plan)
    assert read["row"].tolist() == list(range(len(ids)))
    assert (read.groupby("id")["block"].nunique() == 1).all()
    assert [b.series for b in plan] == read.groupby("block")["id"].nunique().tolist()


def test_mixed_rows_within_small_parts_are_read_part_by_part(tmp_path):
    ids = ["a", "b", "a", "b", "c", "d", "c", "d"]
    folder, parts = _written(tmp_path, ids, [4], 3)
    plan = plan_blocks(folder, parts, "id", 4)
    assert [block.series for block in plan] == [2, 2]


def test_many_names_are_compared_across_the_memory_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "_AT_ONCE", 3)
    monkeypatch.setattr("tsllm.batch.parts.ROWS_AT_ONCE", 4)
    ids = [f"s{i}" for i in range(30)]
    folder, parts = _written(tmp_path, [*ids, "s0"], [], 100)
    assert plan_blocks(folder, parts, "id", 1) is None  # s0 is in two places, too far apart
    assert [b.series for b in plan_blocks(folder, parts, "id", 8)] == [30]  # read as a whole


def test_ids_of_any_type_are_names(tmp_path):
    for name, ids in {
        "int": [1, 1, 2],
        "category": pd.Categorical(["a", "a", "b"]),
        "missing": ["a", None, "b"],
    }.items():
        (tmp_path / name).mkdir()
        folder, parts = _written(tmp_path / name, ids, [], 2)
        plan = plan_blocks(folder, parts, "id", 1)
        assert sum(block.series for block in plan) == len(pd.unique(pd.Series(ids)))


def test_rows_are_read_across_row_groups(tmp_path):
    folder, parts = _written(tmp_path, ["a"] * 100, [], 7)
    for start, stop in ((0, 100), (5, 6), (6, 8), (13, 99)):
        batches = rows_of(folder, parts[0], ["row"], start, stop)
        rows = [row for batch in batches for row in batch.column(0).to_pylist()]
        assert rows == list(range(start, stop))
