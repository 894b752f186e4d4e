"""No score means no interval from it: ends that are not observed, series that hardly change."""

import warnings

import numpy as np
import pandas as pd
import pytest

from small_forecasters import panel, season
from tsllm import AutoForecaster, DLinearForecaster, TimeCMAForecaster
from tsllm.errors import NotEnoughDataError

DAYS = pd.date_range("2024-01-01", periods=80, freq="D")
STEPS = [1, 2, 3]


def dlinear(**parameters):
    return DLinearForecaster(max_steps=4, random_state=0, **parameters)


def widths(forecaster, fh=STEPS, coverage=0.8):
    interval = forecaster.predict_interval(fh=fh, coverage=coverage)
    return interval.xs("upper", axis=1, level=2) - interval.xs("lower", axis=1, level=2)


def with_missing_end(steps):
    y = pd.Series(season(80), index=DAYS)
    y.iloc[len(y) - steps :] = np.nan
    return y


@pytest.mark.filterwarnings("ignore:the intervals")
def test_a_held_out_part_without_observations_is_replaced_by_training_windows(make):
    forecaster = make()
    if not isinstance(forecaster, AutoForecaster):
        forecaster.set_params(context_length=36)  # longer than the held-out part
    if isinstance(forecaster, TimeCMAForecaster):
        forecaster.set_params(backbone=None)  # the prompts of such a context are too long for it
    if isinstance(forecaster, AutoForecaster):  # its windows end with the last observed step
        forecaster.fit(with_missing_end(27), fh=STEPS)
        assert not forecaster.summary()["calibration_in_sample"]
    else:
        with pytest.warns(UserWarning, match="held-out end of the series .* training windows"):
            forecaster.fit(with_missing_end(27), fh=STEPS)
        assert forecaster.summary()["calibration_in_sample"]
    # The noise of the series has a deviation of 0.1, its season one of 0.7.
    assert widths(forecaster).to_numpy().min() > 0.1
    assert forecaster.predict_var(fh=STEPS).to_numpy().min() > 0


@pytest.mark.filterwarnings("ignore:the intervals", "ignore:the held-out end")
@pytest.mark.parametrize("parameters", [{"adaptive": True}, {"loss": "quantile"}])
def test_so_are_those_of_other_intervals(parameters):
    forecaster = dlinear(**parameters).fit(with_missing_end(27), fh=STEPS)
    assert widths(forecaster).to_numpy().min() > 0.1
    later = pd.date_range(DAYS[-1], periods=6, freq="D")[1:]
    forecaster.update(pd.Series(season(5), index=later))
    assert widths(forecaster).to_numpy().min() > 0.1


@pytest.mark.filterwarnings("ignore:the intervals")
def test_a_variable_without_observations_borrows_its_training_windows_only():
    y = pd.DataFrame({"whole": season(80), "ends": with_missing_end(27)}, index=DAYS)
    with pytest.warns(UserWarning, match="no observed change in column 'ends'"):
        forecaster = dlinear().fit(y, fh=STEPS)
    assert widths(forecaster).to_numpy().min() > 0.1
    assert not forecaster.summary()["calibration_in_sample"]
    errors = forecaster.fitted_.calibration.pooled.errors[..., 0]
    seen = np.isfinite(errors[:, 0])  # (windows, variables)
    # The whole variable has its held-out windows, which come last, and the other one older windows.
    assert seen[-26:].all(axis=0).tolist() == [True, False]
    assert seen[:-26].any(axis=0).tolist() == [False, True] and not seen[-26:, 1].any()


@pytest.mark.filterwarnings("ignore:the intervals rest on")
def test_a_series_of_a_panel_borrows_the_errors_of_the_others():
    y = panel([80, 80], ["a", "b"])
    y.iloc[53:80] = np.nan
    with pytest.warns(UserWarning, match="held-out end of series 'a' .* other series"):
        forecaster = dlinear().fit(y, fh=STEPS)
    calibration = forecaster.fitted_.calibration
    assert calibration.scores_of("a") is calibration.pooled
    assert widths(forecaster).loc["a"].to_numpy().min() > 0.1


@pytest.mark.filterwarnings("ignore:the intervals rest on")
def test_steps_that_no_window_scores_are_named():
    forecaster = dlinear().fit(with_missing_end(23), fh=range(1, 7))
    with pytest.warns(UserWarning, match="rest on 3 held-out .* too few .* from step 1 on"):
        wide = widths(forecaster, range(1, 7)).to_numpy().ravel()
    assert (np.diff(wide[2:]) > 0).all()


@pytest.mark.filterwarnings("ignore:the intervals")
@pytest.mark.parametrize("level", [1e12, -3e13])
def test_nearly_constant_values_at_a_large_offset_have_intervals_of_their_size(make, level):
    noise = np.random.default_rng(0).normal(0, 3e-3 * abs(level) / 1e12, 80)
    with pytest.warns(UserWarning, match="the series never changes"):
        forecaster = make().fit(pd.Series(level + noise, index=DAYS), fh=STEPS)
    assert 0.5 < widths(forecaster).to_numpy().min() / noise.std() < 10


def test_a_context_that_is_constant_in_a_series_that_changes_is_named():
    y = pd.Series(season(80), index=DAYS)
    forecaster = dlinear(context_length=12).fit(y, fh=STEPS)
    later = pd.date_range(DAYS[-1], periods=13, freq="D")[1:]
    forecaster.update(pd.Series(4.0, index=later), update_params=False)
    with pytest.warns(UserWarning, match="steps that the model reads of the series are all equal"):
        assert (widths(forecaster).to_numpy() == 0).all()


def test_without_any_score_there_is_no_interval(make):
    forecaster = make().fit(pd.Series([1.0, 2.0], index=DAYS[:2]))
    assert np.isfinite(forecaster.predict(fh=STEPS).to_numpy()).all()
    for call in (forecaster.predict_interval, forecaster.predict_quantiles, forecaster.predict_var):
        with (
            warnings.catch_warnings(),
            pytest.raises(NotEnoughDataError, match=r"no interval for the series.*point forecast"),
        ):
            warnings.simplefilter("ignore")
            call(fh=STEPS)
