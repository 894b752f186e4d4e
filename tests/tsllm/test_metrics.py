"""The metrics against hand-computed values, plain loops and sktime's implementations."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sktime.performance_metrics.forecasting import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_absolute_scaled_error,
    mean_squared_error,
)
from sktime.performance_metrics.forecasting.probabilistic import EmpiricalCoverage, PinballLoss

from tsllm.errors import DataError
from tsllm.metrics import (
    coverage,
    crps,
    mae,
    mase,
    mean_width,
    mse,
    seasonal_scale,
    smape,
    weighted_quantile_loss,
)

ACTUAL = np.array([[[1.0, 10.0], [2.0, np.nan], [4.0, 30.0]]])  # (1 window, 3 steps, 2 variables)
FORECAST = np.array([[[2.0, 7.0], [2.0, 5.0], [1.0, 26.0]]])
GRID = tuple(np.arange(0.1, 0.91, 0.1))
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_draws_in_any_order(monkeypatch):
    """Start the generator anew for each test, since several processes share the tests."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def test_hand_computed_point_errors_leave_out_what_was_not_observed():
    # errors: -1, 3; 0, -; 3, 4
    assert mse(ACTUAL, FORECAST) == (1 + 9 + 0 + 9 + 16) / 5
    assert mae(ACTUAL, FORECAST) == (1 + 3 + 0 + 3 + 4) / 5
    np.testing.assert_array_equal(mae(ACTUAL, FORECAST, axis=1), [[4 / 3, 3.5]])
    expected = 200 * (1 / 3 + 3 / 17 + 0 + 3 / 5 + 4 / 56) / 5
    assert smape(ACTUAL, FORECAST) == pytest.approx(expected, rel=1e-15)


def test_hand_computed_mase():
    history = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, np.nan], [6.0, 8.0]])
    # season 2: |2 - 1|, |6 - 3| and, of the second variable, |8 - 0|
    scale = seasonal_scale(history, season=2)
    np.testing.assert_array_equal(scale, [2.0, 8.0])
    expected = (1 / 2 + 0 / 2 + 3 / 2 + 3 / 8 + 4 / 8) / 5
    assert mase(ACTUAL, FORECAST, scale[None]) == pytest.approx(expected, rel=1e-15)


def test_errors_without_a_scale_are_left_out_of_mase():
    assert mase(ACTUAL, FORECAST, np.array([[2.0, 0.0]])) == (1 + 0 + 3) / 2 / 3
    assert np.isnan(mase(ACTUAL, FORECAST, np.array([[np.nan, 0.0]])))
    assert np.isnan(seasonal_scale(np.ones((3, 1)), season=5)).all()


def test_hand_computed_quantile_losses():
    actual = np.array([[10.0], [20.0]])
    quantiles = np.array([[[8.0, 11.0]], [[21.0, 30.0]]])  # levels .2 and .9
    # pinball: .2 * 2, .1 * 1; .8 * 1, .1 * 10
    per_level = [2 * (0.4 + 0.8) / 30, 2 * (0.1 + 1.0) / 30]
    got = weighted_quantile_loss(actual, quantiles, [0.2, 0.9])
    assert got == pytest.approx(np.mean(per_level), rel=1e-14)
    assert crps(actual, quantiles, [0.2, 0.9]) == pytest.approx(2 * (0.4 + 0.1 + 0.8 + 1) / 4)


def test_hand_computed_coverage_and_width():
    lower, upper = FORECAST - 1, FORECAST + 3
    # inside [forecast - 1, forecast + 3]: 1 in [1, 5], 10 in [6, 10], 2, -, 4 in [0, 4], 30 not
    assert coverage(ACTUAL, lower, upper) == 4 / 5
    assert mean_width(ACTUAL, lower, np.where(np.isnan(ACTUAL), 1e9, upper)) == 4.0


def test_a_forecast_that_is_missing_where_a_value_was_observed_is_not_hidden():
    forecast = FORECAST.copy()
    forecast[0, 1, 1] = np.nan
    assert mse(ACTUAL, forecast) == mse(ACTUAL, FORECAST)  # there was nothing to compare with
    forecast[0, 0, 0] = np.nan
    assert np.isnan(mse(ACTUAL, forecast))
    assert np.isnan(coverage(ACTUAL, forecast, FORECAST))


def test_a_forecast_of_zero_for_zero_has_no_percentage_error():
    assert smape(np.zeros((2, 1)), np.array([[0.0], [1.0]])) == 100.0


def test_a_point_distribution_has_the_absolute_error_as_its_crps():
    actual, forecast = RNG.normal(size=(2, 6, 3)), RNG.normal(size=(2, 6, 3))
    spread = np.repeat(forecast[..., None], 9, axis=-1)
    assert crps(actual, spread, GRID) == pytest.approx(mae(actual, forecast), rel=1e-12)


def test_crps_approaches_the_closed_form_of_the_normal_distribution():
    from statistics import NormalDist

    levels = np.arange(1, 2000) / 2000
    quantiles = np.array([NormalDist().inv_cdf(level) for level in levels])
    z = 0.7
    closed = z * (2 * NormalDist().cdf(z) - 1) + 2 * NormalDist().pdf(z) - 1 / math.sqrt(math.pi)
    assert crps([[z]], quantiles[None, None], levels) == pytest.approx(closed, rel=2e-3)


def test_crps_refuses_levels_that_are_no_grid():
    with pytest.raises(DataError, match=r"crps needs equally spaced.*0\.05"):
        crps([[1.0]], np.zeros((1, 1, 3)), (0.05, 0.5, 0.9))


def test_the_weighted_quantile_loss_of_the_median_is_the_normalised_deviation():
    actual, forecast = RNG.normal(size=(4, 5, 1)), RNG.normal(size=(4, 5, 1))
    expected = np.abs(actual - forecast).sum() / np.abs(actual).sum()
    assert weighted_quantile_loss(actual, forecast[..., None], [0.5]) == pytest.approx(expected)
    assert np.isnan(weighted_quantile_loss(np.zeros((1, 1)), np.ones((1, 1, 1)), [0.5]))


@pytest.mark.parametrize("season", [1, 4])
def test_point_errors_equal_sktimes(season):
    history, actual, forecast = RNG.normal(5, 1, 40), RNG.normal(5, 1, 12), RNG.normal(5, 1, 12)
    ours = {"actual": actual[:, None], "forecast": forecast[:, None]}
    assert mse(**ours) == pytest.approx(mean_squared_error(actual, forecast), rel=1e-12)
    assert mae(**ours) == pytest.approx(mean_absolute_error(actual, forecast), rel=1e-12)
    theirs = mean_absolute_percentage_error(actual, forecast, symmetric=True)
    assert smape(**ours) == pytest.approx(100 * theirs, rel=1e-12)
    theirs = mean_absolute_scaled_error(actual, forecast, y_train=history, sp=season)
    scale = seasonal_scale(history[:, None], season)
    assert mase(**ours, scale=scale) == pytest.approx(theirs, rel=1e-12)


def test_quantile_losses_and_coverage_equal_sktimes():
    actual = RNG.normal(size=12)
    quantiles = np.sort(RNG.normal(size=(12, 9)), axis=1)
    frame = pd.DataFrame(quantiles, columns=pd.MultiIndex.from_product([["y"], GRID]))
    theirs = PinballLoss()(pd.DataFrame({"y": actual}), frame)
    assert crps(actual[:, None], quantiles[:, None], GRID) == pytest.approx(2 * theirs, rel=1e-12)

    columns = pd.MultiIndex.from_product([["y"], [0.8], ["lower", "upper"]])
    interval = pd.DataFrame(quantiles[:, [0, -1]], columns=columns)
    theirs = EmpiricalCoverage()(pd.DataFrame({"y": actual}), interval)
    assert coverage(actual[:, None], quantiles[:, :1], quantiles[:, -1:]) == theirs


@given(
    hnp.arrays(
        float,
        (3, 4, 2),
        elements=st.one_of(st.just(math.nan), st.integers(-9, 9).map(float)),
    ),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=50)
def test_metrics_equal_loops_over_the_observed_values(actual, seed):
    forecast = np.random.default_rng(seed).normal(size=actual.shape)
    seen = [i for i in np.ndindex(actual.shape) if not math.isnan(actual[i])]
    if not seen:
        assert np.isnan(mse(actual, forecast))
        return
    square = sum((actual[i] - forecast[i]) ** 2 for i in seen) / len(seen)
    assert mse(actual, forecast) == pytest.approx(square, rel=1e-12)
    percent = [
        200 * abs(actual[i] - forecast[i]) / (abs(actual[i]) + abs(forecast[i])) for i in seen
    ]
    assert smape(actual, forecast) == pytest.approx(sum(percent) / len(seen), rel=1e-12)
    assert 0 <= smape(actual, forecast) <= 200 + 1e-9
