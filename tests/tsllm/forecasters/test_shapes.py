"""Shapes of short series are compared on their held-out part; a default training is bounded."""

import numpy as np
import pandas as pd
import pytest
import torch

from small_forecasters import panel
from tsllm import AarenForecaster, AutoTimesForecaster, DLinearForecaster
from tsllm.forecasters import shapes
from tsllm.forecasters.frames import split_series
from tsllm.forecasters.shrinking import SHORT_SERIES
from tsllm.training.windows import DrawnWindows, Windows


def quarters(series=30, steps=26):
    rng = np.random.default_rng(0)
    t = np.arange(steps)
    index = pd.period_range("2000Q1", periods=steps, freq="Q")
    return pd.concat(
        {
            i: pd.Series(100 + 3 * t + rng.normal(0, 8, 4)[t % 4] + rng.normal(0, 1, steps), index)
            for i in range(series)
        },
        names=["id", "time"],
    ).to_frame("value")


Y = quarters()


@pytest.fixture
def tried(monkeypatch):
    """The settings of the trials; eight steps of a token are best."""
    seen = []

    def error(forecaster, contexts, horizon, settings):
        seen.append(settings)
        return 1.0 if settings.get("token_length", settings.get("patch_length")) == 8 else 2.0

    monkeypatch.setattr(shapes, "_error", error)
    return seen


def test_the_shape_with_the_lowest_held_out_error_is_taken(tried):
    forecaster = AutoTimesForecaster(None, max_steps=200, random_state=0)
    shape = forecaster._choose_shape(contexts_of(forecaster, Y), 8)
    assert shape.extra["token_length"] == 8
    assert tried[0]["token_length"] == 4  # the plain rule comes first
    assert len({tuple(sorted(one.items(), key=str)) for one in tried}) == len(tried)
    assert all(one["backbone"] is None for one in tried)


@pytest.mark.parametrize(
    "settings", [{"token_length": 4}, {"context_length": 8}, {"max_steps": 10}], ids=str
)
def test_a_length_that_is_given_or_a_short_training_needs_no_trial(tried, settings):
    forecaster = AutoTimesForecaster(None, **settings)
    forecaster._choose_shape(contexts_of(forecaster, Y), 8)
    assert not tried


def test_long_series_take_the_plain_rule(tried):
    forecaster = AutoTimesForecaster(None)
    forecaster._choose_shape(contexts_of(forecaster, quarters(2, SHORT_SERIES)), 8)
    assert not tried


def test_aaren_compares_half_of_either_length(tried):
    forecaster = AarenForecaster(max_steps=200)
    usual = AarenForecaster(max_steps=1)._choose_shape(contexts_of(forecaster, Y), 4)
    forecaster._choose_shape(contexts_of(forecaster, Y), 4)
    assert {one["patch_length"] for one in tried} <= {
        usual.extra["patch_length"],
        usual.extra["patch_length"] // 2,
    }


def test_a_trial_forecasts_the_whole_horizon_and_equal_seeds_choose_alike():
    contexts = contexts_of(AutoTimesForecaster(None), Y)
    forecaster = AutoTimesForecaster(None, random_state=0)
    settings = {"backbone": None, "token_length": 4, "context_length": 8}
    first = shapes._error(forecaster, contexts, 8, settings)
    assert np.isfinite(first) and first == shapes._error(forecaster, contexts, 8, settings)


def test_one_series_has_too_few_windows_for_a_choice():
    contexts = contexts_of(AutoTimesForecaster(None), Y.loc[[0]])
    settings = {"backbone": None, "token_length": 4, "context_length": 8}
    forecaster = AutoTimesForecaster(None, max_steps=1)
    assert np.isnan(shapes._error(forecaster, contexts, 4, settings))


def contexts_of(forecaster, y):
    return split_series(y, freq=forecaster.freq, at_least=2)


# ---------------------------------------------------------------- the limit of a training


@pytest.mark.parametrize("series", [20, 200])
def test_the_steps_of_a_default_training_do_not_grow_with_the_panel(series, monkeypatch):
    monkeypatch.setattr(DLinearForecaster, "_auto_steps", 10)
    monkeypatch.setattr(DLinearForecaster, "_most_steps", 30)
    y = panel([60] * series, [str(i) for i in range(series)])
    forecaster = DLinearForecaster(batch_size=16, random_state=0).fit(y, fh=[1, 2, 3])
    assert forecaster.fitted_.history[-1]["step"] <= 30


def test_epochs_that_are_given_read_every_window(monkeypatch):
    monkeypatch.setattr(DLinearForecaster, "_most_steps", 10)
    y = panel([60] * 3, ["a", "b", "c"])
    steps = [
        DLinearForecaster(**given, batch_size=1, random_state=0).fit(y, fh=[1]).fitted_.history
        for given in ({"max_epochs": 2}, {"max_epochs": 2, "window_stride": 1})
    ]
    assert steps[0][-1]["step"] == steps[1][-1]["step"] > 10


def test_each_epoch_draws_other_windows_of_all_parts():
    windows = Windows([torch.arange(500.0)[:, None]], context_length=10, target_length=5)
    drawn = DrawnWindows(windows, 50)
    generator = torch.Generator().manual_seed(0)
    epochs = [torch.cat(drawn.batches(16, generator)).sort().values for _ in range(2)]
    assert not torch.equal(*epochs)
    for numbers in epochs:
        assert len(numbers.unique()) == 50
        parts = torch.div(numbers * 50, len(windows), rounding_mode="floor")
        assert (parts - torch.arange(50)).abs().max() <= 1
    assert [len(batch) for batch in drawn.batches(16, None)] == [16, 16, 16, 2]


def test_thinned_windows_with_jitter_hold_every_phase_of_a_season():
    windows = Windows([torch.arange(2415.0)[:, None]], context_length=10, target_length=5)
    phases = {
        jitter: set((windows.thin(100, jitter=jitter).positions()[1] % 24).tolist())
        for jitter in (False, True)
    }
    assert len(phases[False]) <= 2
    assert len(phases[True]) > 20
    assert torch.equal(
        windows.thin(100, jitter=True).positions()[1], windows.thin(100, jitter=True).positions()[1]
    )
