"""Batch jobs of a model with covariates: each block finds the future of its own series."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from covariate_frames import covariate_frames
from numpy.testing import assert_allclose

import tsllm
from tsllm.batch import future as future_module
from tsllm.batch import predict_batch
from tsllm.datasets import read_long
from tsllm.errors import DataError
from tsllm.tables.covariates import read_future
from tsllm.tables.forecast import predict_long

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
DATA, FUTURE = covariate_frames([f"s{i}" for i in range(9)])
KNOWN = FUTURE.drop(columns="value")


@pytest.fixture
def saved(covariate_model, tmp_path):
    DATA.to_parquet(tmp_path / "data.parquet", index=False)
    return tsllm.save(covariate_model, tmp_path / "model")


def expected(model):
    frame = read_long(DATA, covariates=["warm", "sky"])
    return predict_long(model, frame, 3, future=read_future(FUTURE, model))


@pytest.mark.parametrize("order", ["sorted", "shuffled", "parts", "partitions"])
def test_blocks_give_what_all_at_once_gives(covariate_model, saved, tmp_path, order):
    future = tmp_path / "future.parquet"
    if order == "parts":
        future = tmp_path / "future"
        future.mkdir()
        KNOWN[:40].to_parquet(future / "a.parquet")
        KNOWN[40:].to_parquet(future / "b.parquet")
    elif order == "partitions":
        for name, rows in KNOWN.groupby("series_id"):
            (future.with_suffix("") / f"series_id={name}").mkdir(parents=True)
            part = future.with_suffix("") / f"series_id={name}" / "0.parquet"
            rows.drop(columns="series_id").to_parquet(part)
        future = future.with_suffix("")
    else:
        shuffled = KNOWN.sample(frac=1.0, random_state=0)
        (KNOWN if order == "sorted" else shuffled).to_parquet(future, row_group_size=20)
    result = predict_batch(
        saved,
        tmp_path / "data.parquet",
        tmp_path / "out",
        future=future,
        block_rows=200,
        sort=True,
    )
    assert result.blocks > 2
    table = pd.read_parquet(tmp_path / "out")
    assert_allclose(table["forecast"], expected(covariate_model)["forecast"], rtol=1e-6)


def test_scattered_series_and_names_that_are_numbers(saved, tmp_path):
    data = DATA.assign(series_id=DATA["series_id"].str[1:].astype(int))
    data.sort_values("timestamp").to_parquet(tmp_path / "data.parquet", index=False)
    known = KNOWN.assign(series_id=KNOWN["series_id"].str[1:].astype(int))
    known.to_parquet(tmp_path / "future.parquet")
    predict_batch(
        saved,
        tmp_path / "data.parquet",
        tmp_path / "out",
        future=tmp_path / "future.parquet",
        block_rows=100,
    )
    table = pd.read_parquet(tmp_path / "out")
    assert sorted(table["series_id"].unique()) == list(range(9))
    assert np.isfinite(table["forecast"]).all()


def test_the_footers_of_the_future_are_read_once_for_all_blocks(saved, tmp_path, monkeypatch):
    folder = tmp_path / "future"
    folder.mkdir()
    for name, rows in KNOWN.groupby("series_id"):
        rows.to_parquet(folder / f"{name}.parquet")
    opened = []
    find_parts, read_schema = future_module.find_parts, pq.read_schema
    monkeypatch.setattr(
        future_module, "find_parts", lambda path: opened.append(path) or find_parts(path)
    )
    monkeypatch.setattr(pq, "read_schema", lambda path: opened.append(path) or read_schema(path))
    result = predict_batch(
        saved, tmp_path / "data.parquet", tmp_path / "out", future=folder, block_rows=100
    )
    assert result.blocks == 9
    assert opened.count(folder) == 2  # when the job is planned, and for its blocks
    assert opened.count(folder / "s8.parquet") == 2


def test_what_is_wrong_is_said_before_or_with_the_series(saved, tmp_path):
    def run(out="out", **options):
        return predict_batch(saved, tmp_path / "data.parquet", tmp_path / out, **options)

    future = tmp_path / "future.parquet"
    with pytest.raises(DataError, match=r"the future of the covariates warm, sky is missing: give"):
        run()
    KNOWN.drop(columns="sky").to_parquet(future)
    with pytest.raises(DataError, match=r"'future.parquet' has no column 'sky'"):
        run(future=future)
    KNOWN[KNOWN["series_id"] != "s4"].to_parquet(future)
    with pytest.raises(DataError, match="holds no row of series 's4'"):
        run(future=future)
    KNOWN.to_parquet(future)
    with pytest.warns(
        UserWarning, match="known future of the covariates has changed since the job"
    ):
        run(future=future)
    with pytest.raises(DataError, match="covariates='sky' is no column"):
        DATA.drop(columns="sky").to_parquet(tmp_path / "data.parquet")
        run("third", future=future)
