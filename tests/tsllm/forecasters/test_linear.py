"""The linear forecaster: exact series, panels, gaps, its penalty, and as a candidate."""

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

import tsllm
from tsllm import AutoForecaster, Context, LinearForecaster
from tsllm.adapters.linear import DEFAULT_PENALTY
from tsllm.errors import DataError


def waves(lengths=(160, 153, 140), noise=0.0):
    """Sines of one period around different levels, growing linearly."""
    rng = np.random.default_rng(0)
    frames = {}
    for i, steps in enumerate(lengths):
        t = np.arange(steps)
        values = 50 * (i + 1) + 0.1 * t + (1 + i) * np.sin(2 * np.pi * t / 12 + i)
        index = pd.period_range("2000-01", periods=steps, freq="M")
        frames[f"s{i}"] = pd.DataFrame({"y": values + noise * rng.normal(size=steps)}, index=index)
    return pd.concat(frames, names=["series_id", "timestamp"])


def split(y, steps):
    ids = y.index.get_level_values(0)
    later = y.groupby(ids, sort=False).cumcount(ascending=False) < steps
    return y[~later], y[later]


@pytest.mark.parametrize("horizon", [6, 24])
def test_trends_and_seasons_of_a_panel_are_continued_almost_exactly(horizon):
    train, later = split(waves(), horizon)
    forecast = LinearForecaster(context_length=48).fit(train, fh=range(1, horizon + 1)).predict()
    assert np.abs(forecast - later)["y"].max() < 0.05


def test_the_penalty_is_chosen_by_the_held_out_error():
    clean = LinearForecaster(context_length=24).fit(waves(), fh=range(1, 7)).summary()
    noisy = LinearForecaster(context_length=24).fit(waves(noise=5.0), fh=range(1, 7)).summary()
    assert clean["penalty"] < noisy["penalty"]
    assert clean["validation_loss"] < 0.01 < noisy["validation_loss"]
    assert 0.5 < noisy["train_loss"] / noisy["validation_loss"] < 2


def test_without_a_held_out_part_the_last_windows_choose():
    parameters = {"context_length": 24, "validation_fraction": 0.0}
    found = LinearForecaster(**parameters).fit(waves(), fh=range(1, 7)).summary()
    assert found["penalty"] < 0.1 and found["validation_loss"] < 0.01
    few = LinearForecaster().fit(pd.Series([1.0, 2.0, 4.0]), fh=[1, 2])
    assert few.summary()["penalty"] == DEFAULT_PENALTY


def test_longer_horizons_are_rolled_out():
    y = load_airline()
    forecaster = LinearForecaster(context_length=24, prediction_length=5).fit(y)
    context = Context(y.to_numpy())
    # without the correction by the held-out errors
    long = forecaster._model_reader(forecaster.fitted_).predict([context], 12)[0][0, :, 0, 0]
    values = list(y.to_numpy())
    weight = forecaster.fitted_.model.weight.detach().double().numpy()
    for _ in range(3):
        past = np.array(values[-24:])
        values.extend(weight @ (past - past[-1]) + past[-1])
    np.testing.assert_allclose(long, values[len(y) : len(y) + 12], rtol=1e-5)


def test_nothing_is_random_and_no_step_is_a_parameter():
    y = waves(noise=1.0)
    one, two = (
        LinearForecaster(random_state=seed).fit(y, fh=range(1, 7)).predict() for seed in (0, 1)
    )
    pd.testing.assert_frame_equal(one, two)
    steps = {"max_steps", "max_epochs", "learning_rate", "loss", "checkpoint_dir"}
    assert not steps & set(LinearForecaster.get_param_names())


def test_missing_and_short_pasts_are_forecast():
    y = load_airline().astype(float)
    y.iloc[[5, 70, 140, 143]] = np.nan
    forecaster = LinearForecaster(context_length=24).fit(y, fh=range(1, 7))
    assert np.isfinite(forecaster.predict()).all()
    assert np.isfinite(forecaster.forecast([Context(np.array([1.0, 2.0]))], 6)).all()


def test_constant_series_are_continued():
    y = pd.Series(np.full(60, 3.5))
    with pytest.warns(UserWarning, match="never changes"):
        forecast = LinearForecaster().fit(y, fh=range(1, 7)).predict()
    np.testing.assert_allclose(forecast, 3.5)


def test_intervals_and_update():
    train, later = split(waves(noise=1.0), 12)
    forecaster = LinearForecaster(context_length=24).fit(train, fh=range(1, 7))
    bands = forecaster.predict_interval(coverage=0.8)
    assert (np.diff(bands.to_numpy(), axis=1) > 0).all()
    before = forecaster.fitted_.model.weight.clone()
    forecaster.update(later)
    assert (forecaster.fitted_.model.weight == before).all()  # the past moves on, not the map


def test_it_is_saved_and_loaded(tmp_path):
    forecaster = LinearForecaster(context_length=24).fit(load_airline(), fh=range(1, 7))
    tsllm.save(forecaster, tmp_path / "model")
    loaded = tsllm.load(tmp_path / "model")
    pd.testing.assert_series_equal(loaded.predict(), forecaster.predict())
    assert loaded.summary()["penalty"] == forecaster.summary()["penalty"]


def test_it_is_a_candidate_of_the_automatic_forecaster():
    y = waves(noise=0.5)
    forecaster = AutoForecaster(["seasonal_naive", "linear"], backbone=None, random_state=0)
    forecaster.fit(y, fh=range(1, 7))
    assert [row["candidate"] for row in forecaster.summary()["candidates"]] == [
        "seasonal_naive",
        "linear",
    ]
    limited = AutoForecaster(
        ["seasonal_naive", "linear"], backbone=None, time_limit=600, random_state=0
    )
    pd.testing.assert_frame_equal(limited.fit(y, fh=range(1, 7)).predict(), forecaster.predict())


def test_a_context_with_too_many_equations_is_refused():
    with pytest.raises(DataError, match="context_length must be at most 8,192 steps, found 10,000"):
        LinearForecaster(context_length=10_000).fit(load_airline(), fh=[1])
