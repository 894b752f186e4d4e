"""AutoForecaster: candidates, held-out windows, time limit, and the doors of every forecaster."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import BaseForecaster
from sktime.forecasting.naive import NaiveForecaster

import tsllm
from small_forecasters import TINY, panel, season
from tsllm import AutoForecaster, Context
from tsllm.backbone.stopping import deadline
from tsllm.errors import DataError, NotEnoughDataError, StoppedError
from tsllm.forecasters import statistical
from tsllm.forecasters.candidates import StatisticalCandidate, TrainedCandidate
from tsllm.forecasters.held_out import MAX_ORIGINS, MAX_SCORED_SERIES, choose_origins
from tsllm.metrics import mae

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
QUICK = {"candidates": ["seasonal_naive", "theta", "auto_ets"], "random_state": 0}


def monthly(steps, seed=0):
    index = pd.period_range("2000-01", periods=steps, freq="M")
    return pd.Series(season(steps, seed=seed), index=index, name="sales")


def names(forecaster):
    return [row["candidate"] for row in forecaster.summary()["candidates"]]


# ---------------------------------------------------------------------- candidates


@pytest.mark.parametrize(
    "steps, backbone, expected",
    [
        (20, TINY, ["seasonal_naive", "auto_theta", "auto_ets"]),
        (40, TINY, ["seasonal_naive", "auto_theta", "auto_ets", "dlinear"]),
        (120, None, ["seasonal_naive", "auto_theta", "auto_ets", "dlinear"]),
        (120, TINY, ["seasonal_naive", "auto_theta", "auto_ets", "dlinear", "autotimes"]),
    ],
)
def test_automatic_candidates_follow_the_length_of_the_series(steps, backbone, expected):
    forecaster = AutoForecaster(backbone=backbone, n_origins=2, random_state=0)
    assert names(forecaster.fit(monthly(steps), fh=[1, 2, 3])) == expected
    said = forecaster.summary()["language_model"]
    assert ("joins from 100 on" in said) == (backbone is not None and steps < 100)


def test_the_candidates_that_know_the_series_get_the_weight():
    """A season without noise: the seasonal naive forecast is exact, and Theta is not."""
    index = pd.period_range("2000-01", periods=120, freq="M")
    y = pd.Series(np.tile(np.random.default_rng(1).normal(size=12), 10), index=index)
    forecaster = AutoForecaster(["seasonal_naive", NaiveForecaster("drift")], random_state=0)
    forecaster.fit(y, fh=range(1, 13))
    weights = [row["weight"] for row in forecaster.summary()["candidates"]]
    assert weights[0] > 0.7 and sum(weights) == pytest.approx(1)
    alone = AutoForecaster(["seasonal_naive"]).fit(y, fh=range(1, 13))
    assert alone.predict().to_numpy() == pytest.approx(y[-12:].to_numpy())


@pytest.mark.whole_trainings
def test_the_combination_is_better_than_its_worst_part_and_says_so():
    y = panel([90] * 12, [f"s{i}" for i in range(12)])
    known = y.groupby(level=0).head(78)
    forecaster = AutoForecaster(**QUICK).fit(known, fh=range(1, 13))
    told = forecaster.summary()
    assert told["error"] <= max(row["error"] for row in told["candidates"])
    actual = y.groupby(level=0).tail(12).to_numpy()
    contexts = [Context(rows.to_numpy(), times=None) for _, rows in known.groupby(level=0)]
    assert mae(actual, forecaster.predict().to_numpy()) < max(
        mae(actual.reshape(12, 12), one.forecast(contexts, 12)[..., 0])
        for one in forecaster.fitted_.candidates
    )


@pytest.mark.parametrize("name", ["seasonal_naive", "theta", "auto_theta", "auto_ets"])
def test_a_statistical_candidate_is_the_library_fitted_to_the_context(name):
    y = monthly(60).to_numpy()
    candidate = StatisticalCandidate(name, "ME")
    context = Context(y, series_id="a")
    found = candidate.forecast([context], 14)[0, :, 0]
    if name == "seasonal_naive":
        expected = np.concatenate([y[-12:], y[-12:-10]])
    else:
        expected = statistical.MODELS[name](12).forecast(y=y, h=14)["mean"]
    assert found == pytest.approx(expected)
    candidate.fit([context], 14)  # AutoETS keeps the form that it would choose
    assert candidate.forecast([context], 14)[0, :, 0] == pytest.approx(expected)


def test_any_forecaster_of_sktime_is_a_candidate():
    y = monthly(60)
    drift = NaiveForecaster("drift")
    forecaster = AutoForecaster([drift], n_origins=2).fit(y, fh=[1, 2])
    assert forecaster.predict().to_numpy() == pytest.approx(
        drift.clone().fit(y, fh=[1, 2]).predict().to_numpy()
    )
    assert names(forecaster) == ["NaiveForecaster_0"]


def test_what_the_language_model_added():
    forecaster = AutoForecaster(["seasonal_naive", "autotimes"], backbone=TINY, random_state=0)
    told = forecaster.fit(monthly(80), fh=[1, 2, 3]).summary()
    assert told["backbone"] == TINY and told["backbone_layers"] == 1
    assert told["language_model"].startswith("the language model ")
    assert f"{told['error']:.3f} with it" in told["language_model"]
    alone = AutoForecaster(["seasonal_naive"]).fit(monthly(80), fh=[1, 2, 3]).summary()
    assert alone["language_model"] == "no candidate with a language model took part"


def test_time_limit_leaves_out_what_cannot_be_afforded(monkeypatch):
    for cls in (StatisticalCandidate, TrainedCandidate):
        monkeypatch.setattr(
            cls, "estimate_seconds", lambda self, *_: 1e6 if self.name == "theta" else 0.0
        )
    forecaster = AutoForecaster(["seasonal_naive", "theta", "dlinear"], time_limit=100.0)
    with pytest.warns(UserWarning, match=r"candidate theta is left out: .* 1000000 s"):
        forecaster.fit(monthly(60), fh=[1, 2])
    rows = forecaster.summary()["candidates"]
    assert [row["candidate"] for row in rows if "weight" in row] == ["seasonal_naive", "dlinear"]
    assert rows[-1] == {"candidate": "theta", "note": "left out: time_limit"}


def test_the_estimate_of_a_training_is_of_the_size_of_the_training():
    contexts = [Context(monthly(200).to_numpy())]
    forecaster = tsllm.DLinearForecaster(max_steps=300, random_state=0)
    candidate = TrainedCandidate("dlinear", forecaster)
    assert 0 < candidate.estimate_seconds(contexts, 3, 10) < 60


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"candidates": "thetas"}, "candidates must be 'auto' or a list of names"),
        ({"candidates": []}, "candidates must be 'auto' or a list"),
        ({"candidates": ["thetas"]}, r"candidates\[0\] must be one of seasonal_naive"),
        ({"candidates": ["theta", 3]}, r"candidates\[1\] must be one of .* found 3"),
        ({"candidates": [AutoForecaster()]}, "that is no AutoForecaster"),
        ({"candidates": ["theta", "theta"]}, "candidates names 'theta' twice"),
        ({"n_origins": 0}, "n_origins must be a whole number of at least 1 or 'auto'"),
        ({"time_limit": -1}, "time_limit must be above 0, found -1"),
        ({"backbone_layers": "all"}, "backbone_layers must be a whole number"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(DataError, match=words):
        AutoForecaster(**arguments).fit(monthly(40), fh=[1])


# ---------------------------------------------------------------------- held-out windows


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 40, 132, 950])
@pytest.mark.parametrize("horizon", [1, 6, 48])
def test_origins_lie_in_the_second_half_and_reach_the_end(steps, horizon):
    (origins,) = choose_origins([Context(np.arange(float(steps)))], horizon, "auto")
    assert 1 <= len(origins) <= MAX_ORIGINS
    assert origins.min() >= max(1, steps - steps // 2) and origins.max() < steps
    assert np.all(np.diff(origins) > 0)
    if steps >= 2 * horizon:
        assert origins.max() == steps - horizon


def test_a_large_panel_is_scored_on_some_series():
    contexts = [Context(np.arange(20.0))] * (MAX_SCORED_SERIES + 300)
    origins = choose_origins(contexts, 4, "auto")
    assert sum(map(len, origins)) == MAX_SCORED_SERIES
    assert len(origins[0]) == len(origins[-1]) == 1


def test_no_candidate_is_fitted_on_a_step_of_a_held_out_window(monkeypatch):
    seen = []
    fit = TrainedCandidate.fit
    monkeypatch.setattr(
        TrainedCandidate, "fit", lambda self, c, h: (seen.extend(map(len, c)), fit(self, c, h))
    )
    y = panel([100, 60], ["a", "b"])
    AutoForecaster(["dlinear"], n_origins=3, random_state=0).fit(y, fh=range(1, 11))
    assert seen == [100 - 10 - 10, 60 - 10 - 6]  # the horizon, and a tenth for the origins


def test_future_values_never_change_the_forecast():
    y = monthly(100)
    whole = AutoForecaster(**QUICK).fit(y[:80], fh=[1, 2, 3])
    changed = y.copy()
    changed.iloc[80:] += 100
    again = AutoForecaster(**QUICK).fit(changed[:80], fh=[1, 2, 3])
    assert np.array_equal(whole.predict(), again.predict())


@pytest.mark.parametrize("horizon", [1, 3, 12])
def test_a_series_that_begins_late_is_scored_after_its_beginning(horizon):
    """A table of many series has empty rows where a series had not begun."""
    y = monthly(60)
    y.iloc[:50] = np.nan
    (origins,) = choose_origins([Context(y.to_numpy())], horizon, "auto")
    assert origins.min() >= 55 and origins.max() < 60
    forecaster = AutoForecaster(backbone=None, random_state=0).fit(y, fh=range(1, horizon + 1))
    assert np.isfinite(forecaster.predict()).all()
    assert forecaster.summary()["error"] > 0


def test_origins_of_series_without_two_values():
    never = Context(np.full((9, 2), np.nan))
    once = Context(np.array([np.nan, np.nan, 1.0]))
    half = Context(np.column_stack([np.arange(9.0), np.full(9, np.nan)]))
    for context in (never, once, half):
        (origins,) = choose_origins([context], 3, "auto")
        assert not len(origins)
    y = monthly(30)
    y.iloc[1:] = np.nan
    with pytest.raises(NotEnoughDataError, match="the series has too few observed values"):
        AutoForecaster(**QUICK).fit(y, fh=[1])


def test_one_window_gives_an_interval_around_the_forecast():
    forecaster = AutoForecaster(**QUICK).fit(monthly(3), fh=[1])
    low, high = forecaster.predict_interval(coverage=0.8).to_numpy()[0]
    assert low < forecaster.predict().to_numpy()[0] < high


def test_a_candidate_that_can_read_no_window_is_left_out():
    """DLinear reads the last steps, and b has its values in the first ones."""
    y = pd.DataFrame({"a": season(60), "b": season(60, seed=1)})
    y.loc[5:, "b"] = np.nan
    forecaster = AutoForecaster(["seasonal_naive", "theta", "dlinear"], random_state=0)
    with pytest.warns(UserWarning, match="candidate dlinear is left out: .* before every held-out"):
        forecaster.fit(y, fh=range(1, 7))
    told = forecaster.summary()
    assert told["error"] > 0 and np.isfinite(forecaster.predict()).all(axis=None)
    assert told["candidates"][-1] == {
        "candidate": "dlinear",
        "note": "left out: values are missing",
    }


# ---------------------------------------------------------------------- candidates that fail


class Constant(BaseForecaster):
    """Forecasts one value."""

    def __init__(self, value):
        self.value = value
        super().__init__()

    def _fit(self, y, X, fh):
        if self.value is None:
            raise RuntimeError("broken,\n  in two lines")
        return self

    def _predict(self, fh, X):
        return pd.Series(float(self.value), index=fh.to_absolute_index(self.cutoff))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "value, words",
    [
        (np.nan, "candidate 'Constant_1' forecasts the series with a value that is no finite"),
        (None, r"cannot forecast the series \(RuntimeError: broken, in two lines\): leave it out"),
    ],
)
def test_a_forecaster_that_fails_is_named(value, words):
    with pytest.raises(DataError, match=words):
        AutoForecaster(["theta", Constant(value)]).fit(monthly(40), fh=[1, 2])


def test_a_form_that_does_not_fit_other_values_is_chosen_anew():
    y = np.exp(3 + 0.02 * np.arange(120)) * (1 + 0.3 * np.sin(np.arange(120) * np.pi / 6))
    candidate = StatisticalCandidate("auto_ets", "ME")
    candidate.fit([Context(y, series_id="a")], 3)
    assert candidate.to_state()["forms"][0].startswith("M")  # errors that multiply need values > 0
    below = y - 300
    found = candidate.forecast([Context(below, series_id="a")], 3)
    assert np.array_equal(found, candidate.forecast([Context(below, series_id="other")], 3))


def test_no_form_is_kept_of_a_start_that_does_not_hold_two_seasons():
    candidate = StatisticalCandidate("auto_ets", "ME")
    candidate.fit([Context(season(20), series_id="a"), Context(season(24), series_id="b")], 3)
    assert candidate.to_state()["ids"] == ["b"]
    minutes = StatisticalCandidate("auto_ets", "min")  # no history that is read holds two days
    minutes.fit([Context(season(20), series_id="a")], 3)
    assert minutes.to_state()["ids"] == ["a"]


# ---------------------------------------------------------------------- the doors


@pytest.mark.parametrize("adaptive", [False, True])
def test_save_and_load_agree_also_after_an_update(tmp_path, adaptive):
    y = panel([80, 60, 9], ["a", "b", "short"])
    settings = QUICK | {"candidates": ["seasonal_naive", "auto_ets", "dlinear", "autotimes"]}
    forecaster = AutoForecaster(**settings, backbone=TINY, adaptive=adaptive)
    forecaster.fit(y.groupby(level=0).head(70), fh=range(1, 8))
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    for one in (forecaster, loaded):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one.update(y.loc[["a"]].groupby(level=0).tail(10))
    pd.testing.assert_frame_equal(loaded.predict(), forecaster.predict())
    pd.testing.assert_frame_equal(
        loaded.predict_interval(coverage=0.8), forecaster.predict_interval(coverage=0.8)
    )
    assert loaded.summary()["candidates"] == forecaster.summary()["candidates"]
    assert "Candidates" in (tmp_path / "model" / "card.md").read_text()


def test_a_model_with_a_forecaster_as_candidate_cannot_be_saved(tmp_path):
    forecaster = AutoForecaster([NaiveForecaster()]).fit(monthly(40), fh=[1])
    with pytest.raises(DataError, match="candidates"):
        tsllm.save(forecaster, tmp_path / "model")


def test_pickled_forecasters_forecast_alike():
    candidates = ["seasonal_naive", "auto_ets", "autotimes"]
    forecaster = AutoForecaster(candidates, backbone=TINY, random_state=0)
    forecaster.fit(monthly(60), fh=[1, 2, 3])
    other = pickle.loads(pickle.dumps(forecaster))
    assert np.array_equal(other.predict(), forecaster.predict())


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_forecasts_follow_the_units_of_the_series(factor):
    y = monthly(60)
    one, other = (AutoForecaster(**QUICK).fit(y * f, fh=[1, 2, 3]) for f in (1.0, factor))
    np.testing.assert_allclose(other.predict() / factor, one.predict(), rtol=2e-3)


def test_fitting_leaves_the_global_generators_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    AutoForecaster(random_state=0, backbone=None).fit(monthly(60), fh=[1]).predict()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_an_update_that_is_refused_adds_no_series():
    y = panel([40, 40], ["a", "b"])
    forecaster = AutoForecaster(**QUICK, adaptive=True).fit(y, fh=[1, 2])
    before = forecaster.predict()
    with pytest.raises(NotEnoughDataError, match="series 'c' has no observed value"):
        forecaster.update(panel([3], ["c"]) * np.nan)
    pd.testing.assert_frame_equal(forecaster.predict(), before)


def test_one_series_forecasts_as_it_does_among_others():
    y = panel([80, 60, 50], ["a", "b", "c"])
    forecaster = AutoForecaster(**QUICK).fit(y, fh=range(1, 8))
    contexts = list(forecaster._contexts.values())
    whole = forecaster.forecast(contexts, 9, quantiles=[0.1, 0.9])
    for row, context in enumerate(contexts):
        assert np.array_equal(
            whole[row], forecaster.forecast([context], 9, quantiles=[0.1, 0.9])[0]
        )


def test_pretrained_weights_serve_new_series():
    forecaster = AutoForecaster(**QUICK).pretrain(panel([80, 60], ["a", "b"]), fh=range(1, 5))
    forecaster.fit(panel([50], ["new"]))
    assert forecaster.predict([1, 4]).shape == (2, 1)


def test_one_seed_one_result():
    own = tsllm.DLinearForecaster(max_steps=3)  # without a seed of its own
    settings = {"candidates": ["seasonal_naive", "dlinear", own], "random_state": 3}
    one, two = (AutoForecaster(**settings).fit(monthly(60), fh=[1, 2, 3]) for _ in range(2))
    assert np.array_equal(one.predict(), two.predict())


def test_covariates_reach_every_candidate():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=120, freq="D")
    X = pd.DataFrame(
        {"promotion": rng.integers(0, 2, 127)}, index=index.union(index + pd.Timedelta("7D"))
    )
    y = pd.Series(10 + 5.0 * X["promotion"][:120] + rng.normal(0, 0.1, 120), index=index)
    forecaster = AutoForecaster(**QUICK).fit(y, X=X, fh=range(1, 8))
    expected = 10 + 5.0 * X["promotion"].to_numpy()[120:]
    assert np.abs(forecaster.predict(X=X).to_numpy() - expected).max() < 1


@pytest.mark.whole_trainings
def test_intervals_hold_about_their_level_of_the_values():
    y = panel([100] * 40, [f"s{i:02}" for i in range(40)])
    known, later = y.groupby(level=0).head(90), y.groupby(level=0).tail(10)
    forecaster = AutoForecaster(**QUICK).fit(known, fh=range(1, 11))
    bounds = forecaster.predict_interval(coverage=0.8).to_numpy()
    inside = (bounds[:, 0] <= later["value"]) & (later["value"] <= bounds[:, 1])
    assert 0.7 < inside.mean() < 0.9


def test_a_long_missing_end_is_left_to_the_candidates_that_can_read_it():
    y = monthly(120)
    y.iloc[70:] = np.nan
    forecaster = AutoForecaster(["seasonal_naive", "dlinear"], random_state=0)
    forecaster.fit(y, fh=[1, 2, 3])
    forecaster.fitted_.combination.pooled[:] = 0.5  # no window could be scored by both
    with pytest.warns(UserWarning, match="no observed value in the last .* candidate dlinear"):
        found = forecaster.predict()
    assert np.isfinite(found).all()


def test_a_deadline_stops_the_forecast():
    forecaster = AutoForecaster(**QUICK).fit(monthly(60), fh=[1])
    with deadline(0.0, "too long"), pytest.raises(StoppedError, match="too long"):
        forecaster.predict()


@pytest.mark.parametrize("name", ["seasonal_naive", "theta", "auto_theta", "auto_ets"])
@pytest.mark.parametrize("missing", [1, 3, 15])
def test_a_missing_end_keeps_the_level_and_the_season(name, missing):
    """The forecast is that of the observed part, further ahead."""
    y = monthly(100)
    holed = y.copy()
    holed.iloc[100 - missing :] = np.nan
    candidate = StatisticalCandidate(name, "ME")
    found = candidate.forecast([Context(holed.to_numpy())], 4)
    seen = candidate.forecast([Context(y.to_numpy()[: 100 - missing])], missing + 4)
    assert found[0] == pytest.approx(seen[0, missing:])


def test_a_missing_end_of_a_candidate_of_sktime():
    y = monthly(60)
    y.iloc[57:] = np.nan
    forecaster = AutoForecaster([NaiveForecaster("drift")], n_origins=1).fit(y, fh=[1, 2])
    seen = NaiveForecaster("drift").fit(y[:57], fh=[4, 5]).predict()
    assert forecaster.predict().to_numpy() == pytest.approx(seen.to_numpy())


def test_a_candidate_that_is_exact_gets_all_the_weight():
    y = pd.Series(np.arange(40.0), pd.date_range("2024-01-01", periods=40, freq="D"))
    forecaster = AutoForecaster(backbone=None, random_state=0).fit(y, fh=range(1, 6))
    assert forecaster.predict().to_numpy() == pytest.approx(np.arange(40.0, 45), abs=0.05)


def test_points_lie_within_their_intervals():
    """Forecasts of a series whose slope has changed are too low at each held-out window."""
    rng = np.random.default_rng(0)
    y = monthly(60) + np.maximum(0, np.arange(60) - 25) * 2.0 + rng.normal(0, 0.1, 60)
    forecaster = AutoForecaster(["seasonal_naive"]).fit(y, fh=range(1, 7))
    found = forecaster.predict_interval(coverage=[0.5, 0.9]).to_numpy()
    point = forecaster.predict().to_numpy()[:, None]
    assert (found[:, ::2] <= point).all() and (point <= found[:, 1::2]).all()


@pytest.mark.parametrize("steps", [3, 4, 5, 6])
def test_the_intervals_of_very_short_series_have_a_width_and_a_warning(steps):
    y = pd.Series(season(steps), pd.date_range("2024-01-01", periods=steps, freq="D"))
    forecaster = AutoForecaster(backbone=None, random_state=0).fit(y, fh=[1, 2])
    with pytest.warns(UserWarning, match="only and are a rough guess"):
        found = forecaster.predict_interval(coverage=0.8).to_numpy()
    assert (found[:, 1] - found[:, 0] > 0.05).all()


def test_enough_windows_for_the_levels_asked_for_are_silent():
    forecaster = AutoForecaster(**QUICK).fit(monthly(90), fh=[1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecaster.predict_interval(coverage=0.8)
    with pytest.warns(UserWarning, match="beyond the levels 0.04 and 0.96"):
        forecaster.predict_interval(coverage=0.95)


def test_series_without_a_score_are_saved(tmp_path):
    y = pd.Series(7.0, pd.date_range("2024-01-01", periods=40, freq="D"))
    with pytest.warns(UserWarning, match="never changes"):
        forecaster = AutoForecaster(**QUICK).fit(y, fh=[1, 2])
    assert forecaster.summary()["error"] is None
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert (loaded.predict() == 7.0).all()
    card = (tmp_path / "model" / "card.md").read_text()
    assert "not scored" in card and "1 series with 40 steps" in card


def test_a_statistical_fit_that_fails_is_told(monkeypatch):
    class Broken:
        def forecast(self, y, h, level):
            raise ValueError("did not converge")

    monkeypatch.setitem(statistical.MODELS, "theta", lambda season: Broken())
    contexts = [Context(monthly(60).to_numpy(), series_id=name) for name in "abc"]
    with pytest.warns(UserWarning, match="theta cannot be fitted to series 'a' and 2 other"):
        found = StatisticalCandidate("theta", "ME").forecast(contexts, 3)
    naive = StatisticalCandidate("seasonal_naive", "ME").forecast(contexts, 3)
    assert np.array_equal(found, naive)


def test_plot_history_says_what_to_read_instead():
    with pytest.raises(DataError, match=r"no single training to draw: summary\(\)"):
        AutoForecaster(**QUICK).fit(monthly(30), fh=[1]).plot_history()
