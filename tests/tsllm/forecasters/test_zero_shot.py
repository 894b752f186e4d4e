"""Forecasts without training: better than simple ones on series never seen in training."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.datasets import load_airline

import tsllm
from tsllm import AutoForecaster, AutoTimesForecaster, Context, ZeroShotForecaster
from tsllm.backbone import DEFAULT_BACKBONE, load_backbone
from tsllm.backbone.export import export_backbone
from tsllm.errors import BackboneMismatchError, DataError, ModelFormatError
from tsllm.forecasters.zero_shot import seasons_of
from tsllm.pretrained import ZERO_SHOT

OTHER = "random:bert?hidden=16&layers=2&heads=2"


@pytest.fixture(scope="module")
def airline():
    return load_airline()


def hours(days, seed=0):
    """Return an hourly load with a day, a weekend and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(24 * days)
    weekend = t // 24 % 7 >= 5
    values = 100 + 20 * np.sin(2 * np.pi * t / 24) * np.where(weekend, 0.4, 1.0) - 15 * weekend
    index = pd.period_range("2024-01-01", freq="h", periods=len(t))
    return pd.Series(values + rng.normal(0, 2, len(t)), index=index)


def seasonal_error(y, cut, season):
    past, ahead = y.iloc[:-cut].to_numpy(), y.iloc[-cut:].to_numpy()
    return np.abs(ahead - np.resize(past[-season:], cut)).mean()


def test_airline_is_forecast_far_better_than_by_the_last_year(airline):
    past, ahead = airline.iloc[:-12], airline.iloc[-12:]
    found = ZeroShotForecaster().fit(past, fh=range(1, 13)).predict()
    assert np.abs(found - ahead).mean() < 0.6 * seasonal_error(airline, 12, 12)


def test_the_weekend_of_hours_is_read_from_the_week():
    y = hours(35)  # it ends with a Sunday: a day ago tells little about Monday
    past, ahead = y.iloc[:-48], y.iloc[-48:]
    found = ZeroShotForecaster().fit(past, fh=range(1, 49)).predict()
    assert np.abs(found - ahead).mean() < 0.5 * seasonal_error(y, 48, 24)


def test_no_weight_changes_and_the_summary_says_so(airline):
    forecaster = ZeroShotForecaster().fit(airline, fh=[1, 2, 3])
    saved, owned = ZERO_SHOT.read(), dict(forecaster.fitted_.model.named_parameters())
    assert saved.keys() == owned.keys()
    assert all(torch.equal(saved[name], owned[name].detach()) for name in saved)
    summary = forecaster.summary()
    assert (summary["stopped"], summary["epochs"], summary["trained_parameters"]) == (
        "not trained",
        0,
        0,
    )


def test_from_pretrained_returns_it(airline):
    forecaster = AutoTimesForecaster.from_pretrained("zero-shot", batch_size=8)
    assert isinstance(forecaster, ZeroShotForecaster)
    expected = ZeroShotForecaster().fit(airline, fh=[1, 5]).predict()
    pd.testing.assert_series_equal(forecaster.fit(airline, fh=[1, 5]).predict(), expected)
    with pytest.raises(DataError, match="zero-shot"):
        AutoTimesForecaster.from_pretrained("chronos")


def test_intervals_cover_what_they_say():
    panel = pd.concat({f"s{i}": hours(21, seed=i) for i in range(12)}, names=["series", "time"])
    past = panel.groupby("series").head(24 * 20).to_frame("load")
    ahead = panel.groupby("series").tail(24).to_numpy()
    found = ZeroShotForecaster().fit(past, fh=range(1, 25)).predict_interval(coverage=0.8)
    inside = (ahead >= found.iloc[:, 0]) & (ahead <= found.iloc[:, 1])
    assert 0.7 < inside.mean() < 0.9


def test_series_of_every_length_and_beyond_one_pass(airline):
    forecaster = ZeroShotForecaster().fit(airline)
    rng = np.random.default_rng(0)
    contexts = [Context(50 + rng.normal(size=n).cumsum()) for n in (1, 2, 5, 17, 1024, 1500)]
    together = forecaster.forecast(contexts, 150, quantiles=[0.1, 0.9])
    assert np.isfinite(together).all()
    assert (together[..., 1] <= together[..., 2]).all()
    for context, row in zip(contexts, together):
        alone = forecaster.forecast([context], 150, quantiles=[0.1, 0.9])
        np.testing.assert_allclose(alone[0], row, rtol=1e-4, atol=1e-3)


def test_more_history_than_it_reads_changes_nothing(airline):
    forecaster = ZeroShotForecaster().fit(airline)
    values = np.random.default_rng(0).normal(size=1600).cumsum()
    long, read = (forecaster.forecast([Context(v)], 8) for v in (values, values[-1024:]))
    np.testing.assert_allclose(long, read, rtol=1e-5, atol=1e-5)


def test_a_saved_model_forecasts_the_same(airline, tmp_path):
    forecaster = ZeroShotForecaster().fit(airline, fh=[1, 2, 3])
    tsllm.save(forecaster, tmp_path / "model")
    pd.testing.assert_series_equal(tsllm.load(tmp_path / "model").predict(), forecaster.predict())
    assert "nothing to train" in (tmp_path / "model" / "card.md").read_text()


def test_the_language_model_may_lie_elsewhere_but_has_the_same_weights(airline, tmp_path):
    forecaster = ZeroShotForecaster().fit(airline, fh=[1, 2, 3])
    tsllm.save(forecaster, tmp_path / "model")
    export_backbone(load_backbone(DEFAULT_BACKBONE, layers=2, device="cpu"), tmp_path / "copy")
    loaded = tsllm.load(tmp_path / "model", backbone=str(tmp_path / "copy"))
    pd.testing.assert_series_equal(loaded.predict(), forecaster.predict())
    with pytest.raises(BackboneMismatchError, match="digest"):
        tsllm.load(tmp_path / "model", backbone=OTHER)
    with pytest.raises(BackboneMismatchError, match="digest"):
        ZeroShotForecaster(OTHER).fit(airline)


def test_as_a_candidate_it_reads_the_language_model_of_the_whole(airline, tmp_path):
    for layers in (1, 3):  # of autotimes: zero_shot reads two
        forecaster = AutoForecaster(
            ["zero_shot", "autotimes"], backbone_layers=layers, random_state=0
        )
        forecaster.fit(airline, fh=[1, 2, 3])
        loaded = tsllm.load(tsllm.save(forecaster, tmp_path / f"model{layers}"))
        pd.testing.assert_series_equal(loaded.predict(), forecaster.predict())
    with pytest.raises(BackboneMismatchError, match="digest"):
        AutoForecaster(["zero_shot"], backbone=OTHER).fit(airline)
    with pytest.raises(DataError, match="backbone=None must be text"):
        AutoForecaster(["zero_shot"], backbone=None).fit(airline)


def test_it_is_a_candidate_of_the_automatic_forecaster(airline):
    forecaster = AutoForecaster(["seasonal_naive", "zero_shot"], random_state=0)
    forecaster.fit(airline, fh=range(1, 13))
    weights = {row["candidate"]: row["weight"] for row in forecaster.summary()["candidates"]}
    assert weights["zero_shot"] > weights["seasonal_naive"]


def test_the_command_says_that_nothing_was_trained(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tsllm.cli", "forecast", "airline"]
    more = ["--horizon", "3", "--method", "zero_shot", "--out", str(tmp_path / "forecast.csv")]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing trained" in done.stderr
    assert len(pd.read_csv(tmp_path / "forecast.csv")) == 3


def test_seasons_of_frequencies():
    assert [seasons_of(freq) for freq in ("30min", "B", "QS", "10min")] == [
        (48, 336),
        (5, 0),
        (4, 0),
        (144, 0),
    ]


def test_damaged_weights_are_refused(monkeypatch):
    damaged = type(ZERO_SHOT)(**vars(ZERO_SHOT) | {"sha256": "0" * 64})
    with pytest.raises(ModelFormatError, match=r"zero_shot\.safetensors.*install tsllm anew"):
        damaged.read()
