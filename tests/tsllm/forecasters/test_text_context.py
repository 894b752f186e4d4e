"""TextContext: effects on a forecaster's errors, the forecaster inside, and the doors."""

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from covariate_frames import batch_forecasts, stacked
from sklearn.linear_model import LinearRegression
from sktime.base import load as sktime_load
from sktime.forecasting.compose import TransformedTargetForecaster, YfromX, make_reduction
from sktime.forecasting.naive import NaiveForecaster
from sktime.forecasting.trend import PolynomialTrendForecaster
from sktime.transformations.series.detrend import Detrender
from sktime.utils._testing.hierarchical import _make_hierarchical

import tsllm
from small_forecasters import TINY
from tsllm import AutoForecaster, AutoTimesForecaster, Context, DLinearForecaster, TextContext
from tsllm.covariates.forecast_errors import (
    ErrorWindows,
    Reference,
    fit_to_errors,
    relative_features,
)
from tsllm.errors import DataError, ModelFormatError
from tsllm.forecasters.held_out import spread_origins

AHEAD = 6
SKY = {"clear": 0.0, "rain": -4.0, "storm": 8.0}
pytestmark = pytest.mark.filterwarnings("ignore:The default of config:FutureWarning")


def weathered(steps, *, seed=0, noise=0.3, sky=SKY, name="sky"):
    """A slow level that the sky of each step moves, and the sky of some steps more."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=steps + AHEAD, freq="D")
    X = pd.DataFrame({name: rng.choice(list(sky), steps + AHEAD)}, index=index)
    level = 50 + np.cumsum(rng.normal(0, 0.05, steps + AHEAD))
    values = level + X[name].map(sky) + rng.normal(0, noise, steps + AHEAD)
    return values.rename("demand"), X


def weathered_panel(ids, steps=120):
    return stacked({name: weathered(steps, seed=seed) for seed, name in enumerate(ids)}, steps)


def forecasters():
    return {
        "name": "seasonal_naive",
        "sktime": NaiveForecaster(),
        "pipeline": TransformedTargetForecaster([Detrender(), NaiveForecaster("mean")]),
        "trained": DLinearForecaster(max_steps=20, random_state=0),
    }


# ---------------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("kind", forecasters())
def test_effects_that_determine_the_errors_are_recovered(kind):
    y, X = weathered(200)
    forecaster = TextContext(forecasters()[kind], n_origins=60, random_state=0)
    forecaster.fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    told = forecaster.summary()
    assert told["error"] < 0.5 * told["error_without"]
    fitted = forecaster.fitted_
    scale = forecaster._contexts[None].x_scale
    known = fitted.covariates.columns.categories[0]
    effects = dict(zip(known, fitted.covariates.known.weights[:, 0] * scale))
    for sky in ("rain", "storm"):
        assert effects[sky] - effects["clear"] == pytest.approx(SKY[sky], abs=0.5)
    assert np.abs(forecaster.predict(X=X) - y[-AHEAD:]).mean() < 1.5


def test_a_forecaster_that_repeats_the_last_step_carries_its_effect():
    y, X = weathered(200, noise=0.01)
    forecaster = TextContext(NaiveForecaster(), n_origins=60).fit(y[:-AHEAD], X=X, fh=[1, 2, 3])
    assert forecaster.fitted_.reference == Reference(1, 1.0)
    seasonal = TextContext("seasonal_naive", n_origins=60).fit(y[:-AHEAD], X=X, fh=[1, 2, 3])
    assert seasonal.fitted_.reference == Reference(7, 1.0)


def test_effects_that_judging_windows_refuse_are_zero():
    rng = np.random.default_rng(1)
    y, X = weathered(150)
    y = pd.Series(50 + np.cumsum(rng.normal(size=len(y))), index=y.index)  # of no weather
    X["sky"] = np.random.default_rng(3).permutation(X["sky"])
    inner = NaiveForecaster("drift")
    forecaster = TextContext(inner, n_origins=40).fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    plain = inner.clone().fit(y[:-AHEAD], fh=range(1, AHEAD + 1))
    assert not forecaster.fitted_.covariates.known.weights.any()
    np.testing.assert_array_equal(forecaster.predict(X=X), plain.predict())
    told = forecaster.summary()
    assert told["error"] == told["error_without"]


@pytest.mark.parametrize("kind", forecasters())
def test_without_covariates_the_forecast_is_the_forecasters_own(kind):
    y, _ = weathered(80)
    whole = TextContext(forecasters()[kind], n_origins=4).fit(y[:-AHEAD], fh=range(1, AHEAD + 1))
    inner = forecasters()[kind]
    if isinstance(inner, str):
        inner = AutoForecaster([inner])
    plain = inner.fit(y[:-AHEAD], fh=range(1, AHEAD + 1)).predict()
    np.testing.assert_array_equal(whole.predict().to_numpy(), plain.to_numpy())


def test_intervals_hold_their_level_and_are_narrower_with_the_effects():
    y, X = weathered_panel([f"s{i}" for i in range(30)])
    later = pd.concat({f"s{i}": weathered(120, seed=i)[0][120:] for i in range(30)})
    with_x = TextContext("seasonal_naive", n_origins=8).fit(y, X=X, fh=range(1, AHEAD + 1))
    without = TextContext("seasonal_naive", n_origins=8).fit(y, fh=range(1, AHEAD + 1))
    bounds = with_x.predict_interval(coverage=0.8, X=X).to_numpy()
    inside = (bounds[:, 0] <= later) & (later <= bounds[:, 1])
    assert 0.7 < inside.mean() < 0.9
    wide = np.diff(without.predict_interval(coverage=0.8).to_numpy(), axis=1).mean()
    assert np.diff(bounds, axis=1).mean() < 0.5 * wide


def test_no_covariate_of_a_later_step_changes_a_forecast():
    y, X = weathered(120)
    forecaster = TextContext(NaiveForecaster(), n_origins=30)
    forecaster.fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    first = forecaster.predict(X=X)
    for step in range(AHEAD):
        changed = X.copy()
        place = len(X) - AHEAD + step
        changed.iloc[place, 0] = "storm" if X.iloc[place, 0] != "storm" else "rain"
        moved = np.asarray(forecaster.predict(X=changed)) != np.asarray(first)
        assert moved.tolist() == [k == step for k in range(AHEAD)]


def test_past_covariates_have_lagged_effects_that_are_judged():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=300, freq="D")
    news = rng.normal(size=300)
    y = pd.Series(10 + 5 * np.roll(news, 1) + rng.normal(0, 0.1, 300), index=index)
    X = pd.DataFrame({"news": news, "noise": rng.normal(size=300)}, index=index)
    forecaster = TextContext("theta", past_covariates=("news",), n_origins=40)
    forecaster.fit(y[:290], X=X, fh=[1])
    told = forecaster.summary()
    assert told["error"] < 0.3 * told["error_without"]
    assert forecaster.fitted_.covariates.past.weights.any()
    useless = TextContext("theta", past_covariates=("noise",), n_origins=40)
    useless.fit(y[:290], X=X[["noise"]], fh=[1])
    assert useless.summary()["error"] == useless.summary()["error_without"]


# ---------------------------------------------------------------------- the forecaster inside


def test_a_forecaster_that_takes_x_reads_the_numbers_and_leaves_the_rest():
    y, X = weathered(150)
    rng = np.random.default_rng(5)
    X["heat"] = rng.normal(size=len(X))
    y = y + 20 * X["heat"]
    inner = YfromX(LinearRegression())
    forecaster = TextContext(inner, n_origins=30).fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    fitted = forecaster.fitted_
    assert fitted.inside == ("heat",)
    names = fitted.covariates.columns.known
    place = sum(basis.width for basis in fitted.covariates.known.bases[: names.index("heat")])
    width = fitted.covariates.known.bases[names.index("heat")].width
    assert not fitted.covariates.known.weights[place : place + width].any()
    assert np.abs(forecaster.predict(X=X) - y[-AHEAD:]).mean() < 2
    with pytest.raises(DataError, match="the future of the covariates sky, heat is missing"):
        forecaster.predict()


def test_a_recursive_forecaster_reads_the_numbers_between_the_steps_of_a_horizon_with_gaps():
    y, X = weathered(80)
    X = pd.DataFrame({"heat": np.random.default_rng(5).normal(size=len(X))}, index=X.index)
    inner = make_reduction(LinearRegression(), window_length=3, strategy="recursive")
    forecaster = TextContext(inner, n_origins=4).fit(y[:-AHEAD] + 20 * X["heat"][:-AHEAD], X=X)
    whole, ahead = forecaster.predict(fh=range(1, AHEAD + 1), X=X), X[-AHEAD:]
    np.testing.assert_array_equal(forecaster.predict(fh=[1, 5], X=X), whole.iloc[[0, 4]])
    shares = forecaster.explain(fh=[1, 5], X=X)
    np.testing.assert_allclose(shares.sum(axis=1), whole.iloc[[0, 4]], rtol=1e-9)
    told = "no row of the series at 2024-03-22 .*all later steps read it, too: X must hold the 5"
    with pytest.raises(DataError, match=told):
        forecaster.predict(fh=[1, 5], X=ahead.iloc[[0, 4]])


def test_a_trained_forecaster_inside_learns_its_numbers_itself():
    y, X = weathered(150)
    heat = pd.Series(np.random.default_rng(5).normal(size=len(X)), index=X.index)
    X, y = X.assign(heat=heat), y + 20 * heat
    inner = DLinearForecaster(max_steps=20, random_state=0)
    fh = range(1, AHEAD + 1)
    forecaster = TextContext(inner, n_origins=30).fit(y[:-AHEAD], X=X, fh=fh)
    assert forecaster.fitted_.inner.state.covariates.columns.names == ("heat",)
    assert np.abs(forecaster.predict(X=X) - y[-AHEAD:]).mean() < 3
    numbers = X[["heat"]]
    alone = TextContext(inner, n_origins=4).fit(y[:-AHEAD], X=numbers, fh=fh)
    plain = inner.clone().fit(y[:-AHEAD], X=numbers, fh=fh)
    np.testing.assert_allclose(alone.predict(X=numbers), plain.predict(X=numbers), rtol=1e-12)
    asked = numbers.iloc[[-AHEAD, -2]]  # a number acts on its own step alone
    np.testing.assert_allclose(
        alone.predict(fh=[1, 5], X=asked), plain.predict(fh=fh, X=numbers).iloc[[0, 4]]
    )


def test_an_auto_forecaster_inside():
    y, X = weathered(80)
    inner = AutoForecaster(["seasonal_naive", "theta"], n_origins=2, random_state=0)
    forecaster = TextContext(inner, n_origins=8).fit(y[:-AHEAD], X=X, fh=[1, 2])
    assert forecaster.summary()["forecaster"] == "AutoForecaster"
    assert np.isfinite(forecaster.predict(X=X)).all()


def test_gaps_are_filled_for_a_forecaster_that_takes_none():
    y, X = weathered(80)
    y = y[:-AHEAD].copy()
    y.iloc[[10, 40, -1]] = np.nan
    forecaster = TextContext(PolynomialTrendForecaster(), n_origins=4).fit(y, X=X, fh=[1, 2])
    assert np.isfinite(forecaster.predict(X=X)).all()


def test_nested_parameters_are_reached():
    forecaster = TextContext(NaiveForecaster("last"))
    assert forecaster.get_params()["forecaster__strategy"] == "last"
    assert forecaster.clone().set_params(forecaster__strategy="mean").forecaster.strategy == "mean"
    assert forecaster.forecaster.strategy == "last"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"forecaster": "thetas"}, "forecaster must be one of seasonal_naive, .* found 'thetas'"),
        ({"forecaster": None}, "forecaster must be one of .* found None"),
        ({"forecaster": TextContext()}, "that is no TextContext"),
        ({"text_backbone": "TF-IDF"}, "did you mean 'tfidf'"),
        ({"n_origins": 0}, "n_origins must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_have_one_sentence(parameters, message):
    with pytest.raises(DataError, match=message):
        TextContext(**parameters).fit(weathered(40)[0])


def test_a_forecaster_that_fails_names_itself_and_the_series():
    class Broken(NaiveForecaster):
        def _predict(self, fh, X):
            raise ValueError("no idea")

    with pytest.raises(DataError, match=r"Broken cannot forecast .* \(ValueError: no idea\): give"):
        TextContext(Broken()).fit(weathered(40)[0], fh=[1])


# ---------------------------------------------------------------------- doors


@pytest.mark.parametrize("kind", forecasters())
def test_contexts_alone_and_together(kind):
    y, X = weathered_panel(["a", "b", "c"], 90)
    forecaster = TextContext(forecasters()[kind], n_origins=8, random_state=0)
    forecaster.fit(y, X=X, fh=range(1, AHEAD + 1))
    contexts = [
        Context(
            y.loc[name].to_numpy(),
            times=y.loc[name].index.to_period("D").to_timestamp(),
            past_x=X.loc[name].to_numpy()[:90],
            series_id=name,
        )
        for name in "abc"
    ]
    contexts = [
        Context(c.values, times=pd.DatetimeIndex(c.times, freq="D"), past_x=c.past_x, series_id=i)
        for i, c in zip("abc", contexts)
    ]
    futures = [X.loc[name].to_numpy()[90:] for name in "abc"]
    whole = forecaster.forecast(contexts, AHEAD, quantiles=[0.1, 0.9], future_x=futures)
    for row, (context, future) in enumerate(zip(contexts, futures)):
        single = forecaster.forecast([context], AHEAD, quantiles=[0.1, 0.9], future_x=[future])
        np.testing.assert_allclose(single[0], whole[row], rtol=1e-6)
    shown = forecaster.predict(X=X).to_numpy().reshape(3, AHEAD)
    np.testing.assert_allclose(whole[..., 0, 0], shown, rtol=1e-6)


def test_an_update_continues_the_series():
    y, X = weathered(120)
    forecaster = TextContext(NaiveForecaster(), n_origins=30).fit(y[:100], X=X, fh=[1, 2])
    forecaster.update(y[100:110], X=X)
    later = TextContext(NaiveForecaster(), n_origins=30).fit(y[:100], X=X, fh=[1, 2])
    context = Context(
        y[:110].to_numpy(),
        times=y.index[:110],
        past_x=X.to_numpy()[:110],
        x_scale=later._contexts[None].x_scale,
    )
    expected = later.forecast([context], 2, future_x=[X.to_numpy()[110:112]])
    np.testing.assert_array_equal(forecaster.predict(X=X), expected[0, :, 0, 0])


def test_a_hierarchy_with_two_variables():
    y = _make_hierarchical((2, 2), n_columns=2, min_timepoints=40, max_timepoints=40)
    rng = np.random.default_rng(0)
    ahead = y.groupby(level=[0, 1]).tail(2)
    later = ahead.index.set_levels(ahead.index.levels[-1] + pd.Timedelta("2D"), level=-1)
    index = y.index.append(later)
    X = pd.DataFrame({"open": rng.choice(["yes", "no"], len(index))}, index=index)
    forecaster = TextContext("seasonal_naive", n_origins=4).fit(y, X=X, fh=[1, 2])
    assert forecaster.predict(X=X).shape == (8, 2)
    assert forecaster.predict_quantiles(alpha=[0.1, 0.5], X=X).shape == (8, 4)


@pytest.mark.parametrize(
    "inner",
    [
        "auto_ets",
        DLinearForecaster(max_steps=3, random_state=0),
        AutoTimesForecaster(TINY, max_steps=2, random_state=0),
        AutoForecaster(["seasonal_naive", "theta"], n_origins=2, random_state=0),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_save_and_load_agree(inner, tmp_path):
    y, X = weathered(90)
    X["heat"] = np.random.default_rng(1).normal(size=len(X))
    forecaster = TextContext(inner, n_origins=8, random_state=0).fit(y[:80], X=X, fh=[1, 2])
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"), device="cpu")
    for one in (forecaster, loaded):
        one.update(y[80:90], X=X)
    np.testing.assert_array_equal(loaded.predict(X=X), forecaster.predict(X=X))
    np.testing.assert_array_equal(
        loaded.predict_interval(X=X, coverage=0.8), forecaster.predict_interval(X=X, coverage=0.8)
    )
    assert loaded.summary()["error"] == forecaster.summary()["error"]
    assert "without" in (tmp_path / "model" / "card.md").read_text()


def test_another_forecaster_of_sktime_is_saved_by_sktime_only(tmp_path):
    y, X = weathered(60)
    forecaster = TextContext(NaiveForecaster(), n_origins=4).fit(y[:-AHEAD], X=X, fh=[1, 2])
    with pytest.raises(DataError, match=r"a NaiveForecaster is no forecaster of tsllm .* sktime's"):
        tsllm.save(forecaster, tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(forecaster)), sktime_load(forecaster.save())):
        np.testing.assert_array_equal(other.predict(X=X), forecaster.predict(X=X))


def test_a_file_cannot_name_another_class(tmp_path):
    from tsllm.saving import api

    y, _ = weathered(60)
    inner = DLinearForecaster(max_steps=2, random_state=0)
    path = tsllm.save(TextContext(inner, n_origins=4).fit(y, fh=[1]), tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    config["forecasters"]["forecaster"]["class"] = "Popen"
    config["checksum"] = api._checksum(config)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFormatError, match="made of a 'Popen'"):
        tsllm.load(path)


def test_batch_jobs_read_the_covariates(tmp_path):
    y, X = weathered_panel(["a", "b", "c"], 60)
    forecaster = TextContext("seasonal_naive", n_origins=4).fit(y, X=X, fh=[1, 2])
    found = batch_forecasts(forecaster, y, X, 2, tmp_path)
    np.testing.assert_allclose(found, forecaster.predict(X=X)["demand"], rtol=1e-6)


# ---------------------------------------------------------------------- parts


def test_windows_are_spread_over_the_history():
    contexts = [Context(np.arange(100.0)), Context(np.arange(5.0)), Context(np.arange(2.0))]
    first, second, third = spread_origins(contexts, 10, 15, first=0.5)
    assert first.tolist() == [50, 60, 70, 80, 90]
    assert second.tolist() == [2, 3, 4]
    assert third.tolist() == [1]
    many = spread_origins([Context(np.arange(30.0))] * 10, 3, 4, first=0.25)
    assert [len(one) for one in many] == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_a_reference_weighs_past_steps():
    past = np.arange(1.0, 7.0)[:, None]
    smoothed = (6 + 0.5 * 5 + 0.25 * 4 + 0.125 * 3 + 0.0625 * 2 + 0.03125) / 1.96875
    assert Reference(1, 0.5).of(past, 2).ravel() == pytest.approx([smoothed, smoothed])
    assert Reference(4, 0.0).of(past, 5).ravel().tolist() == [3.0, 4.0, 3.0, 4.0, 3.0]
    assert Reference(9, 1.0).of(past, 2).ravel().tolist() == [6.0, 6.0]  # no whole season


def test_weights_of_relative_features_are_exact_without_noise():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(60, 2)), rng.normal(size=(80, 2))]
    weights = np.array([[2.0], [-1.0]])
    series, origins = np.repeat([0, 1], 20), np.tile(np.arange(20, 60, 2), 2)
    errors = [
        relative_features(features[s], int(o), 3, Reference(1, 1.0)) @ weights + 5.0
        for s, o in zip(series, origins)
    ]
    windows = ErrorWindows(series, origins, np.stack(errors))
    found = fit_to_errors(features, windows, [Reference(1, 0.0), Reference(1, 1.0)])
    assert found.reference == Reference(1, 1.0)
    np.testing.assert_allclose(found.weights, weights, atol=0.01)
    assert found.explained[0] > 0.99


def test_a_panel_of_short_series_is_judged_by_some_of_them():
    y, X = weathered_panel([f"s{i:02}" for i in range(12)], 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster = TextContext("seasonal_naive", n_origins=1).fit(y, X=X, fh=[1, 2])
    assert forecaster.predict(X=X).shape == (24, 1)
    told = forecaster.summary()
    assert told["windows"] == 3  # a quarter
    assert told["error"] < 0.5 * told["error_without"]


@pytest.mark.parametrize("damaged", [{"period": 0, "rate": 0.5}, {"period": 7, "rate": np.nan}])
def test_a_damaged_reference_is_refused(damaged):
    with pytest.raises(ModelFormatError, match="relative to no past steps"):
        Reference.from_state(damaged)
