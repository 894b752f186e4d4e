"""What a fitted forecaster says of itself: summary, history, the request for a server."""

import json

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

from small_forecasters import panel, season, tiny
from tsllm import load_backbone


def test_the_summary_counts_what_is_trained_and_frozen():
    forecaster = tiny(max_steps=None, max_epochs=4, batch_size=16).fit(load_airline())
    summary = forecaster.summary()
    backbone = load_backbone(summary["backbone"])
    assert summary["frozen_parameters"] == backbone.parameter_count
    assert summary["trained_parameters"] == 6 * 16 + 16 + 16 * 6 + 6  # two linear layers
    assert summary["epochs"] == len(forecaster.fitted_.history) <= 4
    assert 1 <= summary["best_epoch"] <= summary["epochs"]
    losses = [h["validation_loss"] for h in forecaster.fitted_.history]
    assert summary["validation_loss"] == min(losses) == losses[summary["best_epoch"] - 1]
    assert summary["seconds"] > 0
    assert summary["calibration_windows"] == 29
    assert not summary["calibration_in_sample"]
    json.dumps(summary)


def test_the_summary_counts_what_the_embedding_store_knew(tmp_path):
    forecaster = tiny(timestamps=True, embedding_store=tmp_path).fit(load_airline())
    before = forecaster.summary()["embedding_store"]
    forecaster.predict(fh=[1])
    forecaster.predict(fh=[1])
    after = forecaster.summary()["embedding_store"]
    assert after["hits"] > before["hits"]
    assert after["misses"] == before["misses"]  # the second half of the context was in training


def test_without_a_backbone_nothing_is_frozen():
    summary = tiny(backbone=None).fit(load_airline()).summary()
    assert summary["frozen_parameters"] == 0
    assert summary["backbone"] is None


def test_plot_history_draws_both_losses():
    pytest.importorskip("matplotlib")
    forecaster = tiny(max_steps=None, max_epochs=3).fit(load_airline())
    axes = forecaster.plot_history()
    train, validation, kept = axes.get_lines()
    history = forecaster.fitted_.history
    assert train.get_ydata().tolist() == [h["train_loss"] for h in history]
    assert validation.get_ydata().tolist() == [h["validation_loss"] for h in history]
    assert kept.get_xdata()[0] == forecaster.fitted_.best_epoch


def test_a_payload_holds_the_histories_as_json():
    y = panel([40, 25], ["b", "a"])
    y.iloc[39, 0] = np.nan
    forecaster = tiny(shrinkage=False).fit(y)
    payload = json.loads(json.dumps(forecaster.to_payload(7, quantiles=[0.1]), allow_nan=False))
    assert payload["params"] == {"horizon": 7, "quantiles": [0.1]}
    frame = pd.DataFrame(**payload["dataframe_split"])
    assert frame.columns.tolist() == ["series_id", "timestamp", "value"]
    assert frame["series_id"].tolist() == ["b"] * 12 + ["a"] * 12  # the context that is kept
    assert frame["timestamp"].iloc[11] == "2024-02-09T00:00:00"
    assert frame["value"].isna().tolist() == [i == 11 for i in range(24)]


def test_a_payload_of_other_series_with_offsets_and_in_steps():
    berlin = pd.date_range("2024-03-31", periods=12, freq="h", tz="Europe/Berlin")
    forecaster = tiny().fit(pd.Series(season(12), index=berlin))
    stamps = [row[1] for row in forecaster.to_payload(1)["dataframe_split"]["data"]]
    assert stamps[:2] == ["2024-03-31T00:00:00+01:00", "2024-03-31T01:00:00+01:00"]
    assert stamps[2] == "2024-03-31T03:00:00+02:00"
    steps = tiny().fit(pd.Series(season(30))).to_payload(1, y=pd.Series([1.0, 2.0]))
    assert steps["dataframe_split"]["data"] == [["series", 0, 1.0], ["series", 1, 2.0]]
    assert steps["dataframe_split"]["columns"] == ["series_id", "timestamp", "y"]
