"""Batch jobs with a column of text: as in one table, and with a moved language model."""

import pandas as pd
import pytest
from texts import promoted

import tsllm
from tsllm import DLinearForecaster
from tsllm.backbone import load_backbone
from tsllm.backbone.export import export_backbone
from tsllm.errors import BackboneMismatchError
from tsllm.tables.forecast import predict_long

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ", "ignore:no window scores")

READER = "random:bert?hidden=16&layers=1&heads=2&seed=3"


def test_a_job_reads_texts_with_a_language_model_in_another_place(tmp_path):
    frame = promoted()
    y = frame.set_index(["series_id", "timestamp"])
    forecaster = DLinearForecaster(
        text_covariates=("news",),
        text_backbone=READER,
        embedding_store=tmp_path / "store",
        max_steps=5,
        random_state=0,
    )
    forecaster.fit(y[["value"]], X=y[["news"]], fh=[1, 2])
    ahead = frame.groupby("series_id").head(2).drop(columns="value")
    ahead["timestamp"] += pd.Timedelta(days=90)
    expected = predict_long(forecaster, frame, 2, future=ahead)
    saved = tsllm.save(forecaster, tmp_path / "model")
    frame.to_parquet(tmp_path / "data.parquet", index=False)
    ahead.to_parquet(tmp_path / "ahead.parquet", index=False)
    export_backbone(load_backbone(READER), tmp_path / "reader")

    def run(name, **more):
        how = {"future": tmp_path / "ahead.parquet", "block_rows": 90, **more}
        tsllm.predict_batch(saved, tmp_path / "data.parquet", tmp_path / name, **how)
        return pd.read_parquet(tmp_path / name)

    pd.testing.assert_frame_equal(run("out"), expected, check_dtype=False, rtol=1e-6)
    moved = run("moved", text_backbone=str(tmp_path / "reader"))
    pd.testing.assert_frame_equal(moved, expected, check_dtype=False, rtol=1e-5)
    with pytest.raises(BackboneMismatchError, match="text_backbone="):
        run("other", text_backbone="random:bert?hidden=16&layers=1&heads=2&seed=4")
