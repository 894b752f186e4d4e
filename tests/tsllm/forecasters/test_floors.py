"""Counts do not fall below zero: which series have the floor, and that nothing else changes."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import tsllm
from small_forecasters import SMALL, small
from tsllm import ColdStart, Context, LinearForecaster, TextContext, backtest
from tsllm.errors import DataError
from tsllm.forecasters.floors import mostly_stop_at_zero, stops_at_zero
from tsllm.saving.api import load, save

LEVELS = [0.02, 0.1, 0.3, 0.5, 0.7, 0.98]
STEPS = [1, 2, 3]


def counts(steps=80, seed=0, rate=0.8):
    index = pd.period_range("2024-01-01", periods=steps, freq="D")
    drawn = np.random.default_rng(seed).poisson(rate, steps)
    return pd.Series(drawn.astype(float), index=index, name="sales")


def falling():
    """Whole numbers that fall towards zero, so that their trend leads below it."""
    steps = np.arange(60)
    index = pd.period_range("2024-01-01", periods=60, freq="D")
    return pd.Series(62.0 - steps + (steps % 3), index=index, name="sales")


def panel(series, names=("a", "b")):
    frames = {name: one.to_frame("sales") for name, one in zip(names, series)}
    return pd.concat(frames, names=["series_id", "timestamp"])


def made(method, **more):
    if method == "text_context":
        return TextContext("theta", n_origins=6, random_state=0, **more)
    if method == "cold_start":
        return ColdStart(small("autotimes", **more), without_text="mean", text_backbone="tfidf")
    if method in ("dlinear", "patchtst"):
        tiny = {"context_length": 12, "max_steps": 2, "random_state": 0}
        return tsllm.forecasters.METHODS[method](**tiny, **more)
    return LinearForecaster(**more) if method == "linear" else small(method, **more)


def quantiles(forecaster):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return forecaster.predict_quantiles(fh=STEPS, alpha=LEVELS)


# ---------------------------------------------------------------- which series


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(3.0, 20.0), True),  # counts without a zero
        (np.append(np.arange(9.0), np.nan), False),  # nine values are too few
        (np.append(np.arange(10.0), np.nan), True),
        (np.linspace(0.1, 9.7, 30), False),  # a temperature that was not negative yet
        (np.maximum(np.linspace(-3, 9.7, 30), 0), True),  # rain: some days have none
        (np.append(np.linspace(0.1, 9.7, 30), 0.0), False),  # one zero is chance
        (np.append(np.arange(30.0), -1.0), False),
        (np.full(20, np.nan), False),
    ],
)
def test_series_that_stop_at_zero(values, expected):
    assert stops_at_zero(values[:, None]).tolist() == [expected]


def test_most_series_decide_for_one_that_shows_nothing():
    long, short, free = np.arange(20.0), np.array([1.5, 2.5]), np.arange(20.0) - 4
    empty = np.full(5, np.nan)
    columns = [one[:, None] for one in (long, long, short, free, empty)]
    assert mostly_stop_at_zero(columns[:3]).tolist() == [True]
    assert mostly_stop_at_zero([columns[0], columns[3], columns[4]]).tolist() == [False]


# ---------------------------------------------------------------- every forecaster


@pytest.mark.parametrize(
    "method", [*SMALL, "linear", "dlinear", "patchtst", "text_context", "cold_start"]
)
def test_no_forecast_of_counts_is_negative_and_others_do_not_change(method, tmp_path):
    names = [f"s{i}" for i in range(8)]
    free = counts(seed=7) - 1.5
    y = panel([*(counts(seed=i) for i in range(7)), free], names)
    forecaster = made(method).fit(y, fh=STEPS)
    found = quantiles(forecaster)
    forecaster.floor = None  # without the resets of set_params
    raw = quantiles(forecaster)
    assert raw.to_numpy()[:-3].min() < 0  # there is something to raise
    below = raw.index.get_level_values(0) != "s7"
    assert_array_equal(found.to_numpy(), np.where(below[:, None], np.maximum(raw, 0), raw))
    assert (np.diff(found.to_numpy(), axis=1) >= 0).all()
    forecaster.floor = "auto"
    folder = save(forecaster, tmp_path / "model")
    assert_array_equal(quantiles(load(folder)), found)


def test_points_intervals_batches_and_requests_have_the_floor():
    y = falling()
    forecaster = LinearForecaster(context_length=10).fit(y, fh=range(1, 31))
    raw = forecaster.clone().set_params(floor=None).fit(y, fh=range(1, 31))
    assert raw.predict().min() < 0 <= forecaster.predict().min()
    assert forecaster.predict_interval(coverage=0.9).to_numpy().min() == 0
    context = Context(y.to_numpy(), times=y.index)
    one = forecaster.forecast([context], 30, quantiles=LEVELS)
    assert one.min() == 0
    both = forecaster.forecast([context, Context(y.to_numpy() - 65)], 30, quantiles=LEVELS)
    np.testing.assert_allclose(both[0], one[0])
    assert both[1].min() < -60
    # Of the distribution, the variance is that before the floor: of a count it may not be zero.
    pd.testing.assert_frame_equal(forecaster.predict_var(), raw.predict_var())


def test_a_number_is_the_floor_of_all_series_and_other_values_are_refused():
    y = panel([counts(seed=1), counts(seed=2) - 3])
    found = quantiles(LinearForecaster(floor=0.25).fit(y, fh=STEPS))
    assert found.to_numpy().min() == 0.25
    for wrong in ("zero", True, np.nan, np.inf):
        with pytest.raises(DataError, match="floor must be a"):
            LinearForecaster(floor=wrong).fit(y, fh=STEPS)


# ---------------------------------------------------------------- what is remembered


def test_a_negative_value_before_the_kept_steps_counts():
    y = counts(120, rate=0.5)
    returned = y.copy()
    returned.iloc[5] = -2.0
    for series, least in ((y, True), (returned, False)):
        forecaster = LinearForecaster(context_length=10).fit(series, fh=STEPS)
        assert len(forecaster._kept_contexts()[0]) < 100
        assert (quantiles(forecaster).to_numpy().min() >= 0) == least


def test_an_update_with_a_negative_value_ends_the_floor_for_good(tmp_path):
    y = counts(300, rate=0.5)
    later = y.iloc[150:].copy()
    later.iloc[0] = -2.0
    forecaster = LinearForecaster(context_length=10).fit(y.iloc[:150], fh=STEPS)
    assert quantiles(forecaster).to_numpy().min() >= 0
    forecaster.update(later)
    assert forecaster._kept_contexts()[0].values.min() >= 0
    assert quantiles(forecaster).to_numpy().min() < 0
    again = load(save(forecaster, tmp_path / "m"))
    assert quantiles(again).to_numpy().min() < 0


def test_a_model_of_an_earlier_version_forecasts_as_before():
    y = counts(120, rate=0.5)
    forecaster = LinearForecaster(context_length=10).fit(y, fh=STEPS)
    state = forecaster.to_state()
    for one in state["contexts"]["series"]:
        del one["stops_at_zero"]
    del state["fitted"]["stops_at_zero"]
    parameters = forecaster.get_params()
    del parameters["floor"]
    old = LinearForecaster.from_state(state, parameters)
    assert quantiles(old).to_numpy().min() < 0
    old.floor = 0
    assert quantiles(old).to_numpy().min() == 0


# ---------------------------------------------------------------- scores and explanations


def test_baselines_of_a_backtest_have_the_floor_and_coverage_stays():
    y = panel([counts(seed=1), counts(seed=2)])
    how = {"horizons": 3, "test_size": 20, "max_windows": 4, "quantiles": (0.1, 0.5, 0.9)}
    report = backtest(LinearForecaster(), y, baselines=["seasonal_naive", "theta"], **how)
    found = report.forecasts
    assert found.groupby("method")["q0.1"].min().tolist() == [0.0, 0.0, 0.0]
    without = backtest(LinearForecaster(floor=None), y, baselines=(), **how)
    raw, floored = (
        one.table.query("method == 'LinearForecaster' and scored_on == 'all'").iloc[0]
        for one in (without, report)
    )
    assert raw["coverage"] == floored["coverage"]
    assert raw["wql"] > floored["wql"] and raw["width"] > floored["width"]


def test_an_explanation_has_the_share_of_the_floor():
    y = falling()
    x = pd.DataFrame({"promo": np.arange(70) % 2}, pd.period_range("2024-01-01", periods=70))
    forecaster = LinearForecaster(context_length=10).fit(y, X=x[:60], fh=range(1, 11))
    raw = forecaster.clone().set_params(floor=None).fit(y, X=x[:60], fh=range(1, 11))
    shares = forecaster.explain(X=x[60:])
    assert shares.columns.tolist() == ["model", "promo", "floor"]
    np.testing.assert_allclose(shares.sum(axis=1), forecaster.predict(X=x[60:]), atol=1e-12)
    assert raw.explain(X=x[60:]).columns.tolist() == ["model", "promo"]
