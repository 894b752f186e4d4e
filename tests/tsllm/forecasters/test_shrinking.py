"""Forecasts shrink towards simple ones where held-out windows support it."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import SMALL, small
from tsllm import Context, DLinearForecaster
from tsllm.forecasters.combining import HeldOutForecasts, learn_combination
from tsllm.forecasters.held_out import held_out_origins, independent_windows
from tsllm.forecasters.learning import held_out_steps
from tsllm.forecasters.shrinking import MODEL_ALONE, history_of, simple_forecasts
from tsllm.forecasters.state import SHRUNK

TRAINED = [method for method in SMALL if method != "auto"]


def growing(series=30, steps=26, horizon=4):
    """Draw short quarterly series that grow, and their next steps."""
    rng = np.random.default_rng(0)
    t = np.arange(steps + horizon)
    values = [
        100 + rng.uniform(2, 4) * t + rng.normal(0, 8, 4)[t % 4] + rng.normal(0, 0.5, len(t))
        for _ in range(series)
    ]
    index = pd.period_range("2000Q1", periods=len(t), freq="Q")
    whole = pd.concat(
        {i: pd.Series(v, index=index) for i, v in enumerate(values)}, names=["id", "time"]
    )
    frame = whole.to_frame("value")
    cut = frame.groupby(level=0, group_keys=False)
    return cut.head(steps), cut.tail(horizon).to_numpy().reshape(series, horizon)


Y, ACTUAL = growing()


def contexts_of(y):
    return [
        Context(part["value"].to_numpy(), times=part.index.get_level_values(1), series_id=i)
        for i, part in y.groupby(level=0)
    ]


# ---------------------------------------------------------------- simple forecasts


def test_simple_forecasts_are_those_of_the_textbook():
    values = np.array([1.0, 4.0, 2.0, 6.0, 3.0, 8.0])
    last, season, drift = simple_forecasts([Context(values)], 5, 2)[0, :, 0].T
    assert_array_equal(last, [8, 8, 8, 8, 8])
    assert_array_equal(season, [3, 8, 3, 8, 3])
    change = np.mean(values[2:] - values[:-2])
    assert_allclose(drift, season + change * np.array([1, 1, 2, 2, 3]))


def test_without_a_whole_season_they_repeat_and_continue_the_last_steps():
    last, season, drift = simple_forecasts([Context(np.array([1.0, 3.0, 5.0]))], 2, 12)[0, :, 0].T
    assert last.tolist() == season.tolist() == [5, 5]
    assert drift.tolist() == [7, 9]


def test_gaps_are_filled_and_a_variable_without_values_has_no_forecast():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    out = simple_forecasts([Context(values)], 2, 2)[0]
    assert out[:, 0, 0].tolist() == [3, 3]
    assert out[:, 0, 1].tolist() == [3, 2]
    assert np.isnan(out[:, 1]).all()


# ---------------------------------------------------------------- what is held out


@pytest.mark.parametrize(
    "steps, horizon, fraction, held", [(400, 12, 0.1, 40), (40, 12, 0.1, 12), (16, 12, 0.1, 8)]
)
def test_a_horizon_is_held_out_as_far_as_half_of_the_series_allows(steps, horizon, fraction, held):
    assert held_out_steps(steps, horizon, fraction) == held
    assert held_out_steps(steps, horizon, 0.0) == 0


def test_windows_of_many_series_are_whole_and_those_of_one_overlap():
    series = [Context(np.arange(40.0)) for _ in range(200)]
    many = held_out_origins(series, [12] * 200, 10)
    assert {tuple(origins) for origins in many} == {(30,)}
    (alone,) = held_out_origins(series[:1], [12], 10)
    assert alone[0] == 28 and alone[-1] == 39
    assert independent_windows([alone], 10) == pytest.approx(2.1)
    assert not len(held_out_origins(series[:2], [0, 12], 10)[0])


# ---------------------------------------------------------------- forecasts


def test_untrained_models_are_not_worse_than_the_seasonal_naive_forecast_on_a_panel_with_trend():
    contexts = contexts_of(Y)
    simple = simple_forecasts(contexts, 4, 4)[..., 0, :]  # (series, 4, 3)
    naive = np.abs(simple[..., 1] - ACTUAL).mean()
    errors = []
    for shrinkage in (False, True):
        forecaster = DLinearForecaster(max_steps=2, shrinkage=shrinkage, random_state=0)
        forecaster.fit(Y, fh=range(1, 5))
        points = forecaster._reader(forecaster.fitted_).predict(contexts, 4)[0][..., 0, 0]
        errors.append(np.abs(points - ACTUAL).mean())
    assert errors[1] < 0.5 * naive < errors[0]
    weights = forecaster.summary()["shrinkage"]
    assert weights["seasonal naive with drift"] > 0.5
    assert sum(weights.values()) == pytest.approx(1, abs=0.01)


def test_the_forecast_is_the_weighted_mean_and_quantiles_move_with_it():
    settings = {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9), "max_steps": 2}
    forecaster = DLinearForecaster(**settings, random_state=0).fit(Y, fh=range(1, 5))
    state, contexts = forecaster.fitted_, contexts_of(Y)
    plain, _ = forecaster._model_reader(state).predict(contexts, 4)
    shrunk, _ = forecaster._reader(state).predict(contexts, 4)
    weights = state.shrinkage.weights(None, 4, 1)
    simple = simple_forecasts([c.tail(history_of(state.shape)) for c in contexts], 4, 4)
    parts = np.concatenate([plain[..., :1], simple], axis=-1)
    assert_allclose(shrunk[..., 0], (weights * parts).sum(axis=-1))
    assert_allclose(np.diff(shrunk, axis=-1), np.diff(plain, axis=-1), atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "shrinkage", "learns"),
    [(296, "auto", True), (304, "auto", False), (304, True, True), (296, False, False)],
)
def test_models_of_long_series_are_trusted_as_they_are(steps, shrinkage, learns):
    y, _ = growing(series=12, steps=steps)
    forecaster = DLinearForecaster(max_steps=1, shrinkage=shrinkage, random_state=0)
    forecaster.fit(y, fh=[1, 2, 3, 4])
    assert (forecaster.fitted_.shrinkage is not None) == learns


@pytest.mark.parametrize("method", TRAINED)
def test_shrunken_forecasts_are_the_same_alone_kept_saved_and_updated(method, tmp_path):
    forecaster = small(method).fit(Y, fh=range(1, 5))
    assert forecaster.fitted_.shrinkage is not None
    contexts = contexts_of(Y)
    alone = forecaster.forecast(contexts[:1], 4)
    scale = np.abs(Y.to_numpy()).max()
    assert_allclose(alone[0], forecaster.forecast(contexts, 4)[0], atol=1e-5 * scale)
    kept = forecaster.predict().to_numpy().reshape(ACTUAL.shape)
    assert_allclose(kept, forecaster.forecast(contexts, 4)[..., 0, 0], atol=1e-5 * scale)
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert_array_equal(loaded.predict(), forecaster.predict())
    fewer = Y.groupby(level=0, group_keys=False).head(20)
    later = small(method).fit(fewer, fh=range(1, 5))
    later.update(Y.groupby(level=0, group_keys=False).tail(6), update_params=False)
    assert_allclose(
        later.predict().to_numpy().reshape(ACTUAL.shape),
        later.forecast(contexts, 4)[..., 0, 0],
        atol=1e-5 * scale,
    )


@pytest.mark.parametrize("loss_on", ["all", "last", "auto"])
def test_every_choice_of_the_loss_learns_shrinkage(loss_on):
    forecaster = small("autotimes", backbone=None, loss_on=loss_on).fit(Y, fh=range(1, 5))
    assert forecaster.summary()["shrinkage"]["model"] < 1


def test_intervals_are_calibrated_on_shrunken_forecasts():
    forecaster = DLinearForecaster(max_steps=2, random_state=0).fit(Y, fh=range(1, 5))
    plain = DLinearForecaster(max_steps=2, shrinkage=False, random_state=0).fit(Y, fh=range(1, 5))
    width = [
        np.ptp(one.predict_interval(coverage=0.8).to_numpy(), axis=1).mean()
        for one in (forecaster, plain)
    ]
    assert width[0] < 0.5 * width[1]


def test_few_windows_leave_the_model_nearly_alone_and_many_do_not():
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(400, 1, 1))
    misses = np.stack([rng.normal(size=actual.shape) * size for size in (1, 0.9, 2, 0.3)], axis=-1)
    weights = []
    for count in (2, 400):
        few = HeldOutForecasts(
            (actual[..., None] + misses)[:count],
            actual[:count],
            np.ones((count, 1)),
            np.zeros(count, dtype=int),
        )
        learnt = learn_combination(few, [None], prior=MODEL_ALONE, by_series=False)
        weights.append(learnt.pooled[0])
    assert weights[0][0] > 0.5 and weights[1][3] > 0.5
    half = learn_combination(few, [None], prior=MODEL_ALONE, by_series=False, independent=0.05)
    assert half.pooled[0, 0] > weights[1][0]


def test_a_constant_series_stays_constant():
    y = Y.copy()
    y.loc[3] = 7.1
    with pytest.warns(UserWarning, match="never change"):
        forecaster = DLinearForecaster(max_steps=2, random_state=0).fit(y, fh=range(1, 5))
    assert (forecaster.predict().loc[3].to_numpy() == 7.1).all()


def test_a_shrinkage_weighs_the_model_and_each_simple_forecast():
    simple = simple_forecasts([Context(np.arange(5.0))], 1, 2)
    assert len(SHRUNK) == 1 + simple.shape[-1]
    assert MODEL_ALONE.tolist() == [1, 0, 0, 0]


def test_a_series_that_is_forecast_without_error_has_intervals_of_no_width():
    y = pd.Series(np.arange(30.0), index=pd.period_range("2024-01-01", periods=30, freq="D"))
    forecaster = DLinearForecaster(max_steps=2, random_state=0).fit(y, fh=[1, 2])
    assert forecaster.summary()["shrinkage"]["seasonal naive with drift"] == 1
    spread = forecaster.predict_quantiles(alpha=[0.1, 0.9]).to_numpy()
    assert_allclose(spread, [[30, 30], [31, 31]])
