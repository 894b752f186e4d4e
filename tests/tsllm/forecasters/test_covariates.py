"""sktime's X with every method: it helps, it is checked, and it survives what models go through."""

import copy
import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sktime.datasets import load_airline

import tsllm
from small_forecasters import METHOD_VARIANTS, panel, season, small
from tsllm import Context
from tsllm.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
STEPS, SHOWN = 140, 120


def with_covariates(*, seed=0, names=("a", "b")):
    """A panel on which X matters: (y, X), X reaching further."""
    rng = np.random.default_rng(seed)
    y = panel([STEPS] * len(names), names)
    X = pd.DataFrame(
        {"warm": rng.normal(size=len(y)), "sky": rng.choice(["sun", "rain"], len(y))},
        index=y.index,
    )
    y["value"] += 5 * X["warm"] + 8.0 * (X["sky"] == "rain")
    return y, X


def shown(frame):
    return frame[frame.groupby(level=0, sort=False).cumcount() < SHOWN]


def rest(frame):
    return frame[frame.groupby(level=0, sort=False).cumcount() >= SHOWN]


Y, X = with_covariates()


@functools.cache
def fitted(method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return small(method).fit(shown(Y), X=X, fh=range(1, 7))


@pytest.fixture(params=["aaren", "autotimes", "s2ip", "timecma"])
def method(request):
    return request.param


# ---------------------------------------------------------------- what it is for


def test_a_forecaster_that_uses_x_beats_itself_without(method):
    plain = small(method).fit(shown(Y), fh=range(1, 7))
    truth = rest(Y).groupby(level=0, sort=False).head(6)["value"]
    with_x = (fitted(method).predict(X=X)["value"] - truth).abs().mean()
    without = (plain.predict()["value"] - truth).abs().mean()
    assert with_x < 0.5 * without


@pytest.mark.parametrize(("method", "parameters"), METHOD_VARIANTS)
def test_a_known_effect_moves_forecasts_and_intervals_alike(method, parameters):
    forecaster = small(method, **parameters).fit(shown(Y), X=X, fh=range(1, 4))
    calm = X.assign(warm=0.0, sky="sun")
    rain = calm.assign(sky="rain")
    moved = forecaster.predict(X=rain) - forecaster.predict(X=calm)
    assert_allclose(moved["value"], 8.0, rtol=0.25)
    dry = forecaster.predict_interval(X=calm, coverage=[0.5, 0.9])
    wet = forecaster.predict_interval(X=rain, coverage=[0.5, 0.9])
    assert_allclose(wet.sub(moved["value"], axis=0), dry, rtol=1e-9)


def test_intervals_are_those_of_the_residuals(method):
    plain = small(method).fit(shown(Y), fh=range(1, 7))
    narrow = fitted(method).predict_interval(X=X, coverage=0.8)
    wide = plain.predict_interval(coverage=0.8)

    def width(frame):
        return (frame.iloc[:, 1] - frame.iloc[:, 0]).mean()

    assert width(narrow) < 0.5 * width(wide)


def test_past_covariates_need_no_future(method):
    rng = np.random.default_rng(1)
    index = pd.date_range("2024-01-01", periods=400, freq="D")
    lead = pd.DataFrame({"order": rng.normal(size=400)}, index=index)
    y = pd.Series(season(400), index=index) + 5 * lead["order"].shift(2).fillna(0)
    settings = {"context_length": 12, "prediction_length": 3, "max_steps": 60}
    ahead = small(method, past_covariates=("order",), **settings).fit(y[:390], X=lead)
    plain = small(method, **settings).fit(y[:390])
    sizes = {}
    for name, forecaster in (("ahead", ahead), ("plain", plain)):
        contexts = [
            Context(
                y[:end],
                times=index[:end],
                past_x=lead[:end].to_numpy() if name == "ahead" else None,
            )
            for end in range(360, 390)
        ]
        forecast = forecaster.forecast(contexts, 2)[:, :, 0, 0]
        truth = np.stack([y[end : end + 2] for end in range(360, 390)])
        sizes[name] = np.abs(forecast - truth).mean()
    assert sizes["ahead"] < 0.75 * sizes["plain"]
    assert np.isfinite(ahead.predict(fh=range(1, 9))).all()  # no X, and beyond what was learnt
    assert ahead.summary()["past_covariates_explain"][0] > 0.3


# ---------------------------------------------------------------- sktime's semantics


def test_columns_of_x_may_stand_in_any_order_and_rows_reach_further(method):
    expected = fitted(method).predict(X=X)
    jumbled = X[["sky", "warm"]]
    assert_array_equal(fitted(method).predict(X=jumbled), expected)
    assert_array_equal(fitted(method).predict(X=rest(X)), expected)
    again = small(method).fit(shown(Y), X=jumbled, fh=range(1, 7))
    assert_allclose(again.predict(X=X), expected, rtol=1e-5)


def test_only_the_steps_asked_for_need_x(method):
    forecaster = fitted(method)
    every = forecaster.predict(fh=range(1, 7), X=X)
    some = rest(X).groupby(level=0, sort=False).nth([1, 4])
    picked = copy.deepcopy(forecaster).predict(fh=[2, 5], X=some)
    assert_array_equal(picked, every.groupby(level=0, sort=False).nth([1, 4]))


@pytest.mark.parametrize("kind", ["periods", "integers"])
def test_x_of_every_kind_of_index(kind):
    y, x = (frame.xs("a") for frame in (Y, X))
    index = {
        "periods": pd.period_range("2024-01", periods=STEPS, freq="M"),
        "integers": pd.RangeIndex(5, 5 + STEPS),
    }[kind]
    y, x = y.set_axis(index), x.set_axis(index)
    forecaster = small("autotimes").fit(y[:SHOWN], X=x[:SHOWN], fh=[1, 2])
    assert forecaster.predict(X=x[SHOWN:]).index.tolist() == index[SHOWN : SHOWN + 2].tolist()


def test_a_series_of_several_variables_has_an_effect_on_each():
    y, x = (frame.xs("a") for frame in (Y, X))
    both = pd.DataFrame({"up": y["value"], "down": -y["value"], "none": season(STEPS)})
    forecaster = small("timecma").fit(both[:SHOWN], X=x, fh=[1, 2])
    moved = forecaster.predict(X=x.assign(sky="rain")) - forecaster.predict(X=x.assign(sky="sun"))
    assert_allclose(moved["up"], 8.0, rtol=0.25)
    assert_allclose(moved["down"], -8.0, rtol=0.25)
    assert_allclose(moved["none"], 0.0, atol=0.2)


def test_forecasts_of_contexts_are_those_of_predict(method):
    forecaster = fitted(method)
    expected = forecaster.predict(fh=range(1, 7), X=X)["value"].to_numpy().reshape(2, 6)
    contexts, futures = [], []
    for name in ("b", "a"):
        contexts.append(
            Context(
                Y.loc[name].to_numpy()[:SHOWN],
                times=Y.loc[name].index[:SHOWN],
                past_x=X.loc[name].to_numpy(object)[:SHOWN],
                series_id=name,
            )
        )
        futures.append(X.loc[name].to_numpy(object)[SHOWN : SHOWN + 6])
    found = forecaster.forecast(contexts, 6, future_x=futures)[:, :, 0, 0]
    assert_allclose(found[::-1], expected, rtol=1e-6)
    unknown = [Context(c.values, times=c.times, past_x=c.past_x) for c in contexts]
    assert_allclose(forecaster.forecast(unknown, 6, future_x=futures)[:, :, 0, 0], found, rtol=0.2)


# ---------------------------------------------------------------- what models go through


def test_saved_and_loaded_it_forecasts_the_same(method, tmp_path):
    loaded = tsllm.load(tsllm.save(fitted(method), tmp_path / "model"))
    assert_array_equal(loaded.predict(X=X), fitted(method).predict(X=X))
    news = Y.groupby(level=0, sort=False).nth(range(SHOWN, SHOWN + 5))
    both = [one.update(news, X=X) for one in (loaded, copy.deepcopy(fitted(method)))]
    assert_array_equal(*[one.predict(X=X).to_numpy() for one in both])
    table = pd.read_parquet(tmp_path / "model" / "context.parquet")
    assert table.columns.tolist()[3:] == ["value", "warm", "sky"]
    assert set(table["sky"]) == {"sun", "rain"}


def test_update_moves_the_context_with_its_covariates(method):
    forecaster = copy.deepcopy(fitted(method))
    for step in range(SHOWN, SHOWN + 4):
        forecaster.update(Y.groupby(level=0, sort=False).nth(step), X=X)
    forecast = forecaster.predict(X=X)
    truth = Y.loc[forecast.index]
    assert (forecast - truth).abs().mean().item() < 2.0
    whole = copy.deepcopy(fitted(method))
    whole.update(Y.groupby(level=0, sort=False).head(SHOWN + 4), X=X)
    assert_allclose(whole.predict(X=X), forecast, rtol=1e-6)


def test_adaptive_intervals_learn_from_the_residuals():
    forecaster = small("autotimes", adaptive=True).fit(shown(Y), X=X, fh=[1, 2])
    for step in range(SHOWN, SHOWN + 6):
        forecaster.update(Y.groupby(level=0, sort=False).nth(step), X=X)
    scores = forecaster.fitted_.calibration.series["a"]
    # Without the effects taken off, errors would be as large as they are: several deviations.
    assert np.nanmax(np.abs(scores.errors[-6:])) < 4


def test_pretrained_with_x_it_reads_x_of_new_series(method):
    y, x = with_covariates(seed=5, names=("c",))
    known = small(method, prediction_length=6).pretrain(shown(Y), X=X)
    forecaster = known.fit(shown(y), X=x)
    forecast = forecaster.predict(fh=range(1, 7), X=x)
    assert (forecast - y.loc[forecast.index]).abs().mean().item() < 2.5
    with pytest.raises(DataError, match="X is missing: the model was fitted with the covariates"):
        small(method, prediction_length=6).pretrain(shown(Y), X=X).fit(shown(y))


def test_training_further_and_cloning_keep_x():
    forecaster = small("autotimes", update_epochs=1).fit(shown(Y), X=X, fh=[1, 2])
    forecaster.update(Y.groupby(level=0, sort=False).head(SHOWN + 8), X=X)
    assert np.isfinite(forecaster.predict(X=X)).all(axis=None)
    again = forecaster.clone().fit(shown(Y), X=X, fh=[1, 2])
    assert again.fitted_.covariates.columns.names == ("warm", "sky")


def test_embedding_ahead_writes_the_prompts_of_the_residuals(tmp_path):
    forecaster = small("timecma", embedding_store=tmp_path / "store", prediction_length=3)
    done = forecaster.embed(shown(Y), X=X)
    assert done["computed"] > 0
    before = forecaster.clone()
    assert before.embed(shown(Y), X=X)["computed"] == 0
    assert before.embed(shown(Y))["computed"] > 0
    forecaster.fit(shown(Y), X=X)
    misses = forecaster.summary()["embedding_store"]["misses"]
    forecaster.predict(fh=[1], X=X)
    assert forecaster.summary()["embedding_store"]["misses"] == misses


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda f: f.predict(), "the future of the covariates warm, sky is missing for series 'a'"),
        (lambda f: f.predict(X=X[["warm"]]), "X has no column 'sky', and the model was fitted"),
        (lambda f: f.predict(X=shown(X)), r"no row of series 'a' at 2024-04-30.*to be forecast"),
        (lambda f: f.predict(X=X.loc[["a"]]), "X holds no row of series 'b'"),
        (
            lambda f: f.predict(X=X.assign(warm=X["warm"].where(shown(X)["warm"].notna()))),
            r"series 'a', 2024-04-30.*, column 'warm' of X has no value",
        ),
        (
            lambda f: f.predict(X=X.assign(sky="hail")),
            r"series 'a', 2024-04-30.*'sky' of X holds 'hail', which was not seen",
        ),
        (lambda f: f.update(Y), "X is missing: the model was fitted with the covariates warm"),
        (
            lambda f: f.forecast([Context(season(20))], 2),
            "comes without its covariates and the model was fitted with warm, sky",
        ),
        (
            lambda f: f.forecast([Context(season(2), past_x=[[0, "sun"]] * 3)], 2),
            "has 2 steps and covariates of 3",
        ),
        (
            lambda f: f.forecast([Context(season(1), past_x=[[0, "sun"]])], 2, future_x=[[[0]]]),
            "has 1 rows and the horizon 2 steps",
        ),
    ],
)
def test_covariates_that_a_model_cannot_use(ask, told):
    forecaster = small("autotimes").fit(shown(Y), X=X, fh=range(1, 7))
    before = forecaster.predict(X=X)
    with pytest.raises(DataError, match=told):
        ask(forecaster)
    assert_array_equal(forecaster.predict(X=X), before)


def test_covariates_where_there_were_none():
    y = load_airline()
    x = pd.DataFrame({"x": 1.0}, index=y.index)
    forecaster = small("autotimes").fit(y)
    for ask in (
        lambda: forecaster.predict(fh=[1], X=x),
        lambda: forecaster.update(y[-3:], X=x),
    ):
        with pytest.raises(DataError, match="fitted without covariates: leave X out"):
            ask()
    with pytest.raises(DataError, match=r"must be a list of text, found 'x': write \['x'\]"):
        small("autotimes", past_covariates="x").fit(y, X=x)
    with pytest.raises(DataError, match="past_covariates names x and there is no X"):
        small("autotimes", past_covariates=("x",)).fit(y)
    with pytest.raises(DataError, match="no row of the series at 1949-01, where y has one"):
        small("autotimes").fit(y, X=x[3:])
    twice = pd.concat([X, X])
    with pytest.raises(DataError, match="X has two rows of series 'a' at 2024-01-01"):
        small("timecma").embed(shown(Y), X=twice)
