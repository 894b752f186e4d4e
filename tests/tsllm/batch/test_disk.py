"""A full disk or a closed folder ends a job in one sentence; what is written stays."""

import errno
import os
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from long_frames import write_parts

from tsllm.batch import predict_batch, writing
from tsllm.errors import OutputError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture
def data(frame, tmp_path):
    return write_parts(frame, tmp_path / "data", [333])


def failing(function, number, code):
    """The function, which fails from its nth call on as the system does."""
    calls = []

    def replacement(*arguments, **options):
        calls.append(arguments)
        if len(calls) >= number:
            raise OSError(code, os.strerror(code))
        return function(*arguments, **options)

    return replacement


# A manifest and, for each block, a record and a part are written.
@pytest.mark.parametrize("calls", [1, 2, 5, 6, 7])
def test_a_full_disk_keeps_what_is_written(model, data, tmp_path, monkeypatch, calls):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(writing.os, "fsync", failing(os.fsync, calls, errno.ENOSPC))
        with pytest.raises(OutputError) as caught:
            predict_batch(model, data, out, block_rows=200)
    said = str(caught.value)
    assert said.startswith(f"the disk of '{out}' is full: free some space and start the job again")
    written = (calls - 2) // 2 if calls > 1 else 0
    if calls > 1:
        assert said.endswith(f"which continues: {written} of 8 blocks are written and stay")
    assert not list(out.rglob(".*.part"))
    assert predict_batch(model, data, out, block_rows=200).blocks_before == written
    predict_batch(model, data, tmp_path / "whole", block_rows=200)
    pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(tmp_path / "whole"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_closed_folder_is_named(model, data, tmp_path, monkeypatch, code):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", failing(Path.mkdir, 1, code))
        with pytest.raises(
            OutputError, match=rf"out' cannot be written to \({os.strerror(code)}\)"
        ):
            predict_batch(model, data, out)
    predict_batch(model, data, out, block_rows=200)
    (out / "part-00003.parquet").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(writing.os, "fsync", failing(os.fsync, 1, code))
        with pytest.raises(OutputError, match=r"allow writing there .*: 7 of 8 blocks are written"):
            predict_batch(model, data, out)


def test_a_disk_that_is_full_while_series_are_regrouped(model, frame, tmp_path, monkeypatch):
    data = write_parts(frame.sort_values("timestamp"), tmp_path / "data", [300])
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        write = failing(pq.ParquetWriter.write_table, 3, errno.ENOSPC)
        patched.setattr(pq.ParquetWriter, "write_table", write)
        with pytest.raises(OutputError, match=r"the disk of '.*out' is full: free some space"):
            predict_batch(model, data, out, block_rows=200)
    assert not list(out.glob(".*.part"))
    assert predict_batch(model, data, out, block_rows=200).series == 30
