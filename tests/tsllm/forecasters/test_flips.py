"""Forecasts that turn over with their series: when, and what then holds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sktime.datasets import load_airline

from tsllm import AarenForecaster, AutoTimesForecaster, Context, load, save
from tsllm.errors import DataError
from tsllm.forecasters.parameters import rises_and_falls_alike

SIZES = {"context_length": 8, "target_length": 4, "held_out": 0.0}
TINY = {
    "backbone": "random:gpt2?hidden=16&layers=1&heads=2",
    "context_length": 16,
    "token_length": 4,
    "max_steps": 20,
    "batch_size": 16,
    "learning_rate": 0.01,
    "random_state": 0,
}


AAREN = {
    "backbone": None,
    "context_length": 16,
    "patch_length": 4,
    "hidden": 8,
    "layers": 1,
    "heads": 2,
    "feedforward": 8,
    "prediction_length": 10,
    "max_steps": 20,
    "random_state": 0,
}
MODELS = [
    AutoTimesForecaster(**TINY),
    AutoTimesForecaster(**TINY, loss="quantile", quantiles=(0.1, 0.5, 0.9)),
    AarenForecaster(**AAREN),
    AarenForecaster(**AAREN, memory="reencode"),
    AarenForecaster(**AAREN, loss="quantile", quantiles=(0.1, 0.5, 0.9)),
]


def wave(length=160, trend=0.0):
    steps = np.arange(length)
    values = 10 + np.sin(steps / 2) + trend * steps
    return pd.Series(values, index=pd.period_range("2000-01", periods=length, freq="M"))


def turned(y):
    return 7 - 2 * y  # upside down, and in other units


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_turning_series_over_or_changing_units_changes_no_decision(seed, scale, shift):
    values = np.random.default_rng(seed).normal(size=(60, 2)).cumsum(axis=0)
    decided = rises_and_falls_alike([Context(values)], **SIZES)
    assert decided == rises_and_falls_alike([Context(-values)], **SIZES)
    assert decided == rises_and_falls_alike([Context(values * scale + shift)], **SIZES)


def test_what_is_held_out_is_not_looked_at():
    values = np.concatenate([wave(100).to_numpy(), np.arange(100.0)])
    sizes = SIZES | {"held_out": 0.5}
    assert rises_and_falls_alike([Context(values)], **sizes)
    assert not rises_and_falls_alike([Context(values[::-1].copy())], **sizes)


def test_series_of_a_panel_and_gaps_count_together():
    up, down = np.arange(100.0), np.arange(100.0)[::-1].copy()
    assert not rises_and_falls_alike([Context(up)], **SIZES)
    assert rises_and_falls_alike([Context(up), Context(down)], **SIZES)
    up[::3] = np.nan
    up[40:60] = np.nan
    assert not rises_and_falls_alike([Context(up)], **SIZES)


def test_series_without_windows_or_without_movement_are_not_flipped():
    assert not rises_and_falls_alike([Context(np.arange(11.0))], **SIZES)
    assert not rises_and_falls_alike([Context(np.ones(100))], **SIZES)


def test_rounding_is_no_movement():
    day = np.sin(np.arange(24) / 24 * 2 * np.pi) * 0.1 + 1e6
    sizes = {"context_length": 48, "target_length": 24, "held_out": 0.0}
    assert not rises_and_falls_alike([Context(np.tile(day, 30))], **sizes)
    gap = np.full((720, 1), np.nan)
    repeated = np.tile(day, 30)[:, None]
    assert not rises_and_falls_alike([Context(np.hstack([gap, repeated]))], **sizes)


def test_auto_flips_waves_and_not_what_grows():
    assert AutoTimesForecaster(**TINY).fit(wave()).summary()["flip_invariance"] is True
    assert AutoTimesForecaster(**TINY).fit(wave(trend=0.5)).summary()["flip_invariance"] is False
    assert AutoTimesForecaster(**TINY).fit(load_airline()).summary()["flip_invariance"] is False


@pytest.mark.parametrize("model", MODELS)
def test_forecasts_turn_over_with_the_series(model):
    y = wave()
    model = model.clone().fit(y)
    contexts = [Context(y.to_numpy()), Context(turned(y).to_numpy())]
    upright, over = model.forecast(contexts, 10)[..., 0, 0]
    np.testing.assert_allclose(over, turned(upright), rtol=1e-5)


@pytest.mark.parametrize("model", MODELS[::2])
def test_without_it_forecasts_do_not_turn_over(model):
    y = wave()
    model = model.clone().set_params(flip_invariance=False).fit(y)
    contexts = [Context(y.to_numpy()), Context(turned(y).to_numpy())]
    upright, over = model.forecast(contexts, 10)[..., 0, 0]
    assert np.abs(over - turned(upright)).max() > 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_the_choice_is_saved_with_the_model_and_goes_on_in_updates(model, tmp_path):
    y = wave()
    model = model.clone().fit(y[:150], fh=[1, 2, 3])
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict(), model.predict(), rtol=1e-6)
    updated = loaded.update(y[150:], update_params=False).predict()
    whole = model.forecast([Context(y.to_numpy(), times=y.index)], 3)[0, :, 0, 0]
    np.testing.assert_allclose(updated, whole, rtol=1e-6)


def test_levels_that_do_not_mirror_are_refused_or_left_upright():
    settings = TINY | {"loss": "quantile", "quantiles": (0.2, 0.5, 0.9)}
    with pytest.raises(DataError, match=r"mirror around 0.5, found \(0.2, 0.5"):
        AutoTimesForecaster(**settings, flip_invariance=True).fit(wave())
    assert AutoTimesForecaster(**settings).fit(wave()).summary()["flip_invariance"] is False


def test_other_values_are_refused():
    with pytest.raises(DataError, match="flip_invariance must be True, False or 'auto', found 'ye"):
        AutoTimesForecaster(**TINY, flip_invariance="yes").fit(wave())
