"""ColdStart: new series, series with few values, what is refused, saving, and sktime's checks."""

import copy
import functools
import os
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sktime.utils.estimator_checks import check_estimator

import tsllm
from small_forecasters import TINY
from tsllm import AutoForecaster, ColdStart, Context, DLinearForecaster, TimeCMAForecaster
from tsllm.errors import (
    BackboneMismatchError,
    DataError,
    DataTypeError,
    NotEnoughDataError,
)

KINDS = {"gloves": (8.0, 0.0), "ice cream": (20.0, np.pi), "umbrella": (50.0, np.pi / 2)}
SIZES = {"small": 1.0, "large": 3.0}
END = pd.Timestamp("2023-12-01")


def product(name, text, *, steps=60, end=END, seed=0, noise=0.03):
    """Return monthly sales whose level and season the description determines."""
    kind, size = next(k for k in KINDS if k in text), next(s for s in SIZES if s in text)
    level, phase = KINDS[kind]
    times = pd.date_range(end=end, periods=steps, freq="MS")
    season = 0.4 * np.sin(2 * np.pi * times.month.to_numpy() / 12 + phase)
    wobble = np.random.default_rng(seed).normal(0, noise, steps)
    own = np.random.default_rng(seed + 1000).normal(0, 0.1)
    sales = level * SIZES[size] * np.exp(season + wobble + own)
    index = pd.MultiIndex.from_product([[name], times], names=["id", "month"])
    return pd.DataFrame({"sales": sales, "description": text}, index=index)


def texts(count):
    return [f"{size} {kind}" for kind in KINDS for size in SIZES] * -(-count // 6)


def panel(count=30, **settings):
    found = texts(count)
    return pd.concat([product(f"p{i}", found[i], seed=i, **settings) for i in range(count)])


def inside(**settings):
    return DLinearForecaster(**{"max_steps": 3, "random_state": 0, "context_length": 24} | settings)


@functools.cache
def fitted(count=30, **settings):
    data = panel(count)
    own = {"static_text": ("description",), "text_backbone": "tfidf"} | settings
    return ColdStart(inside(), **own).fit(data[["sales"]], X=data[["description"]], fh=range(1, 7))


def described(**by_id):
    return pd.DataFrame({"description": by_id.values()}, index=list(by_id))


def ahead(text, **settings):
    return product("new", text, end=END + pd.DateOffset(months=6), **settings)["sales"].tail(6)


# ---------------------------------------------------------------------- what is forecast


@pytest.mark.parametrize("text", ["large gloves", "small ice cream", "large umbrella"])
def test_level_and_season_of_a_new_series_are_those_of_its_description(text):
    new = fitted().new_contexts(described(new=text))
    found = fitted().forecast(new, 6)[0, :, 0, 0]
    np.testing.assert_allclose(found, ahead(text, seed=500, noise=0.0), rtol=0.35)
    # the season, whatever the level
    shape = np.log(found) - np.log(found).mean()
    truth = np.log(ahead(text, noise=0.0))
    np.testing.assert_allclose(shape, truth - truth.mean(), atol=0.1)


def test_the_description_helps_and_observations_help_more():
    told = fitted().summary()["cold_start"]
    (prior,) = told["by_text"]
    assert told["season"] == 12
    assert prior["scale"] == "logarithm"
    assert prior["error_left"]["level"] < 0.1
    assert prior["error_left"]["season"] < 0.1
    errors = []
    for count in (0, 3, 24):
        rows = [product("x", text, seed=700 + i) for i, text in enumerate(texts(12))]
        pasts = [
            Context(
                np.where(np.arange(60) >= 60 - count, row["sales"], np.nan),
                times=pd.date_range(end=END, periods=60, freq="MS"),
                static={"description": row["description"].iloc[0]},
            )
            for row in rows
        ]
        found = fitted().forecast(pasts, 6)[..., 0, 0]
        truth = np.stack([ahead(t, seed=700 + i, noise=0.0) for i, t in enumerate(texts(12))])
        errors.append(np.abs(np.log(found / truth[: len(found)])).mean())
    assert errors[2] < errors[1] < errors[0] < 0.2


def test_a_series_with_three_seasons_is_forecast_by_the_forecaster_inside_alone():
    data = panel()
    alone = inside().fit(data[["sales"]], fh=range(1, 7))
    wanted = alone.predict_quantiles(alpha=[0.1, 0.9])
    found = fitted().predict_quantiles(alpha=[0.1, 0.9])
    pd.testing.assert_frame_equal(found, wanted)


def test_intervals_of_new_series_hold_what_they_promise():
    count = 120
    some = [f"{size} {kind}" for kind in KINDS for size in SIZES] * 20
    new = fitted().new_contexts(described(**{f"n{i}": some[i] for i in range(count)}))
    found = fitted().forecast(new, 6, quantiles=[0.1, 0.9, 0.5])[:, :, 0]
    assert (found[..., 3] == found[..., 0]).all()  # the point is the median
    truth = np.stack([ahead(text, seed=2000 + i) for i, text in enumerate(some)])
    inside_interval = (found[..., 1] <= truth) & (truth <= found[..., 2])
    assert 0.7 <= inside_interval.mean() <= 0.95
    assert (found[..., 1] <= found[..., 0]).all()
    assert (found[..., 0] <= found[..., 2]).all()


def test_intervals_get_narrower_with_observations():
    row = product("x", "large gloves", seed=9)["sales"].to_numpy()
    times = pd.date_range(end=END, periods=60, freq="MS")
    widths = []
    for count in (1, 6, 24):
        past = Context(row[-count:], times=times[-count:], static={"description": "large gloves"})
        found = fitted().forecast([past], 6, quantiles=[0.1, 0.9])[0, :, 0]
        widths.append((found[:, 2] / found[:, 1]).mean())
    new = fitted().new_contexts(described(new="large gloves"))
    none = fitted().forecast(new, 6, quantiles=[0.1, 0.9])[0, :, 0]
    assert (none[:, 2] / none[:, 1]).mean() > widths[0] > widths[2]


def test_one_of_many_series_is_forecast_as_it_is_alone():
    model = fitted()
    row = product("x", "large gloves", seed=9)["sales"].to_numpy()
    times = pd.date_range(end=END, periods=60, freq="MS")
    lengths = [1, 2, 5, 12, 35, 36, 60]
    pasts = [
        Context(row[-n:], times=times[-n:], static={"description": "large gloves"}) for n in lengths
    ]
    pasts += model.new_contexts(described(a="small umbrella", b="a thing of no known kind"))
    together = model.forecast(pasts, 4, quantiles=[0.1, 0.9])
    alone = [model.forecast([past], 4, quantiles=[0.1, 0.9])[0] for past in pasts]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5)


def test_values_below_zero_and_several_variables_are_forecast_as_they_are():
    data = panel()
    data["profit"] = data["sales"] - 40
    model = ColdStart(inside(), static_text=("description",), text_backbone="tfidf")
    model.fit(data[["sales", "profit"]], X=data[["description"]], fh=range(1, 7))
    first, second = model.summary()["cold_start"]["by_text"]
    assert (first["scale"], second["scale"]) == ("logarithm", "as it is")
    assert second["error_left"]["level"] < 0.6  # kinds and sizes multiply, and are added here
    texts = described(low="small gloves", high="large umbrella")
    low, high = model.forecast(model.new_contexts(texts), 6)[..., 1, 0].mean(axis=1)
    assert low < 0 < 50 < high


@pytest.mark.parametrize("noise", [0.0, None])
def test_series_without_noise_and_constant_ones_are_forecast(noise):
    data = panel(12, noise=0.0)
    if noise is None:
        data["sales"] = 7.0
    model = ColdStart(inside(), static_text=("description",), text_backbone="tfidf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constants are told
        model.fit(data[["sales"]], X=data[["description"]], fh=range(1, 7))
    new = model.new_contexts(described(new="large gloves"))
    past = replace(new[0], values=data["sales"].to_numpy()[-3:], times=None, mask=None)
    past = replace(past, times=pd.date_range(end=END, periods=3, freq="MS"))
    found = model.forecast([*new, past], 6, quantiles=[0.1, 0.9])
    assert np.isfinite(found).all()
    if noise is None:
        np.testing.assert_allclose(found, 7.0, atol=1e-6)


def test_a_language_model_reads_descriptions_too(tmp_path):
    model = fitted(text_backbone=TINY, embedding_store=tmp_path)
    assert model.summary()["text"]["embedding_store"]["vectors"] == 6
    new = model.new_contexts(described(new="large gloves"))
    np.testing.assert_allclose(
        model.forecast(new, 6)[0, :, 0, 0], ahead("large gloves", noise=0.0), rtol=0.5
    )


# ---------------------------------------------------------------------- through sktime's methods


def new_rows(**by_id):
    times = pd.date_range(END, periods=7, freq="MS")[1:]
    index = pd.MultiIndex.from_product([list(by_id), times], names=["id", "month"])
    return pd.DataFrame({"description": np.repeat(list(by_id.values()), 6)}, index=index)


def test_predict_forecasts_the_series_that_only_x_has():
    model = fitted()
    X = new_rows(new="large gloves", other="small umbrella")
    found = model.predict(fh=range(1, 7), X=X)
    assert len(found) == 32 * 6
    wanted = model.forecast(model.new_contexts(described(new="large gloves")), 6)[0, :, 0, 0]
    np.testing.assert_array_equal(found.loc["new", "sales"], wanted)
    assert found.loc["new"].index.tolist() == X.loc["new"].index.tolist()
    pd.testing.assert_frame_equal(found.loc[["p0"]], model.predict(fh=range(1, 7)).loc[["p0"]])
    assert model.predict_interval(fh=[1], X=X).loc["other"].notna().all(axis=None)


def test_predict_refuses_another_description_than_update_brought():
    model = fitted()
    X = new_rows(new="large gloves", p3="large umbrella")
    told = "'p3' has 'large umbrella' in column 'description' of X, and the model knows it as 'larg"
    with pytest.raises(DataError, match=told):
        model.predict(fh=[1], X=X)
    X.loc["p3", "description"] = None  # not given, so the known one holds
    assert len(model.predict(fh=[1], X=X)) == 31
    X.loc["p3", "description"] = " large ice cream"
    assert len(model.predict(fh=[1], X=X)) == 31


def test_a_new_series_can_join_in_update():
    model = fitted().clone()
    data = panel()
    model.fit(data[["sales"]], X=data[["description"]], fh=range(1, 4))
    first = product("new", "large gloves", steps=2, seed=50)
    with pytest.raises(DataError, match="X is missing"):
        model.update(first[["sales"]])
    model.update(first[["sales"]], X=first[["description"]])
    found = model.predict().loc["new", "sales"]
    past = Context(
        first["sales"].to_numpy(),
        times=pd.date_range(end=END, periods=2, freq="MS"),
        static={"description": "large gloves"},
    )
    np.testing.assert_allclose(found, model.forecast([past], 3)[0, :, 0, 0])
    other = product("new", "large gloves", steps=1, end=END, seed=50).assign(
        description="small umbrella"
    )
    changed = model.clone().fit(data[["sales"]], X=data[["description"]], fh=range(1, 4))
    changed.update(first[["sales"]], X=first[["description"]])
    changed.update(other[["sales"]], X=other[["description"]])
    now = replace(past, static={"description": "small umbrella"})
    np.testing.assert_allclose(
        changed.predict().loc["new", "sales"],
        changed.forecast([now], 3)[0, :, 0, 0],
        rtol=0.02,
    )
    # series that are known need no description again
    later = product("new", "large gloves", steps=1, end=END + pd.DateOffset(months=1), seed=51)
    model.update(later[["sales"]])
    assert model.predict().loc["new"].index[0] == END + pd.DateOffset(months=2)


def test_new_series_may_begin_after_a_stamp_that_is_given():
    model = fitted()
    later = END + pd.DateOffset(months=12)
    (new,) = model.new_contexts(described(new="large gloves"), after=later)
    assert new.times[0] == later
    found = model.forecast([new], 6)[0, :, 0, 0]
    today = model.forecast(model.new_contexts(described(new="large gloves")), 6)[0, :, 0, 0]
    np.testing.assert_allclose(found, today, rtol=0.1)  # the same months


@pytest.mark.parametrize("method", [TimeCMAForecaster, AutoForecaster])
def test_other_forecasters_may_be_inside(method):
    data = panel(12, steps=48)
    data["colour"] = ["red", "blue"] * 288
    data["colour"] = data.groupby("id")["colour"].transform("first")
    own = {"candidates": ["seasonal_naive"], "backbone": None, "n_origins": 1}
    columns = ["description"]
    if method is TimeCMAForecaster:
        own = {"backbone": TINY, "context_length": 12, "channel": 8, "heads": 2}
        own |= {"decoder_layers": 1, "feedforward": 16, "max_steps": 2}
        own["static_attributes"] = ("colour",)
        columns = ["description", "colour"]
    model = ColdStart(
        method(**own, random_state=0), static_text=("description",), text_backbone="tfidf"
    )
    model.fit(data[["sales"]], X=data[columns], fh=[1, 2, 3])
    texts = described(new="large gloves").assign(colour="red")[columns]
    found = model.forecast(model.new_contexts(texts), 3, quantiles=[0.1, 0.9])
    assert np.isfinite(found).all()
    assert np.isfinite(model.predict()).all(axis=None)


# ---------------------------------------------------------------------- without a description


def test_a_missing_description_is_an_error_or_the_mean_of_the_panel():
    with pytest.raises(DataError, match="'new' needs a description, for fewer than 36 values"):
        fitted().forecast(fitted().new_contexts(described(new=None)), 6)
    short = Context(np.ones(5), times=pd.date_range(end=END, periods=5, freq="MS"))
    with pytest.raises(DataError, match="without_text='mean'"):
        fitted().forecast([short], 6)
    model = fitted(without_text="mean")
    found = model.forecast(model.new_contexts(described(new=" ")), 6, quantiles=[0.1, 0.9])
    mean = np.exp(np.log(panel()["sales"]).groupby("id").mean().mean())
    assert found[0, :, 0, 0].mean() == pytest.approx(mean, rel=0.3)
    told = model.forecast(
        model.new_contexts(described(new="large gloves")), 6, quantiles=[0.1, 0.9]
    )
    width = found[0, :, 0, 2] / found[0, :, 0, 1]
    assert (width > told[0, :, 0, 2] / told[0, :, 0, 1]).all()


def test_a_panel_without_any_description_can_be_asked_for_its_mean():
    data = panel()
    model = ColdStart(inside(), without_text="mean").fit(data[["sales"]], fh=range(1, 7))
    new = model.new_contexts(pd.DataFrame(index=["new"]))
    assert np.isfinite(model.forecast(new, 6)).all()
    plain = ColdStart(inside()).fit(data[["sales"]], fh=range(1, 7))
    with pytest.raises(DataError, match="'new' has no observed value, and the model was fitted"):
        plain.forecast(plain.new_contexts(pd.DataFrame(index=["new"])), 6)


def test_some_series_of_the_panel_may_lack_a_description():
    data = panel()
    data.loc[["p3", "p4"], "description"] = None
    model = ColdStart(inside(), static_text=("description",), text_backbone="tfidf")
    with pytest.raises(DataError, match="series 'p3' has no value in column 'description'"):
        model.fit(data[["sales"]], X=data[["description"]], fh=[1])
    model.set_params(without_text="mean").fit(data[["sales"]], X=data[["description"]], fh=[1])
    assert np.isfinite(model.predict()).all(axis=None)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "settings, columns, message",
    [
        ({"static_text": ("descripton",)}, ["description"], "static_text names 'descripton'"),
        ({"static_text": "description"}, ["description"], r"write \['description'\]"),
        ({"without_text": "mean"}, ["description"], "has the column 'description'"),
        ({"forecaster": "naive"}, ["description"], "forecaster must be one of tsllm"),
        ({"forecaster": ColdStart()}, ["description"], "forecaster must be one of tsllm"),
        ({"without_text": "zero"}, ["description"], "without_text"),
        ({"forecaster": inside(adaptive=True)}, ["description"], "with adaptive"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(settings, columns, message):
    data = panel(10)
    model = ColdStart(**{"forecaster": inside(), "text_backbone": "tfidf"} | settings)
    with pytest.raises(DataError, match=message):
        model.fit(data[["sales"]], X=data[columns], fh=[1])


def test_a_panel_that_is_too_small_or_short_is_refused():
    model = ColdStart(inside(), static_text=("description",), text_backbone="tfidf")
    for data in (panel(7), panel(12, steps=5)):
        with pytest.raises(NotEnoughDataError, match="at least 8 series"):
            model.fit(data[["sales"]], X=data[["description"]], fh=[1])


@pytest.mark.parametrize(
    "descriptions, error, message",
    [
        (["large gloves"], DataTypeError, "descriptions must be a DataFrame"),
        (pd.DataFrame({"text": ["x"]}, index=["new"]), DataError, "have the columns text"),
        (
            pd.DataFrame({"description": ["x", "y"]}, index=["new", "new"]),
            DataError,
            "hold series 'new' twice",
        ),
        (described(new="x", p3="y"), DataError, "series 'p3' is not new: the model keeps its hist"),
        (described(new=b"large"), DataError, r"series 'new', the description .* holds b'large'"),
        (described(new=["large", "ice"]), DataError, r"holds \['large', 'ice'\]: pass text"),
        (described(new=np.ones(2)), DataError, "holds array"),
        (
            pd.DataFrame({"description": ["half \ud83d"]}, index=["new"], dtype=object),
            DataError,
            "holds half a character",
        ),
    ],
)
def test_descriptions_that_cannot_be_read_are_refused(descriptions, error, message):
    with pytest.raises(error, match=message):
        fitted().new_contexts(descriptions)


def test_times_that_do_not_belong_to_the_panel_are_refused():
    static = {"description": "large gloves"}
    with pytest.raises(DataError, match="pass the times of the series"):
        fitted().forecast([Context(np.ones(3), static=static)], 2)
    for after in ("soon", ["2025-12"], pd.NaT):
        with pytest.raises(DataError, match=r"after=.* is no stamp of the kind") as told:
            fitted().new_contexts(described(new="x"), after=after)
        assert "\n" not in str(told.value)


def test_without_descriptions_it_is_the_forecaster_inside():
    data = panel(10)
    X = data[["sales"]].rename(columns={"sales": "price"}) * 2
    ahead = X.loc[["p0"]].tail(2).to_numpy()
    index = pd.MultiIndex.from_product(
        [[f"p{i}" for i in range(10)], pd.date_range(END, periods=3, freq="MS")[1:]]
    )
    later = pd.DataFrame({"price": np.tile(ahead[:, 0], 10)}, index=index.set_names(X.index.names))
    around = ColdStart(inside()).fit(data[["sales"]], X=X, fh=[1, 2])
    alone = inside().fit(data[["sales"]], X=X, fh=[1, 2])
    pd.testing.assert_frame_equal(around.predict(X=later), alone.predict(X=later))
    with pytest.raises(DataError, match="reads descriptions and no other covariates"):
        model = ColdStart(inside(), static_text=("description",), text_backbone="tfidf")
        model.fit(data[["sales"]], X=data[["description"]].join(X), fh=[1])


@pytest.mark.parametrize(
    "check",
    [
        "test_constructor",
        "test_set_params",
        "test_clone",
        "test_random_tags",
        "test_update_with_exogenous_variables",
        "test_hierarchical_with_exogenous",
        "test_doctest_examples",
    ],
)
def test_checks_of_sktime(check):
    check_estimator(ColdStart, tests_to_run=check, raise_exceptions=True, verbose=False)


# ---------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("backbone", ["tfidf", TINY])
@pytest.mark.parametrize("without_text", ["raise", "mean"])
def test_a_saved_model_forecasts_new_series_alike(tmp_path, backbone, without_text):
    own = {"text_backbone": backbone, "without_text": without_text}
    if backbone == TINY:
        own["embedding_store"] = os.environ["TSLLM_STORE"]  # where the loaded model looks, too
    model = fitted(**own)
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    texts = described(a="large gloves", b="small umbrella")
    if without_text == "mean":
        texts.loc["c"] = None
    found = loaded.forecast(loaded.new_contexts(texts), 6, quantiles=[0.1, 0.9])
    wanted = model.forecast(model.new_contexts(texts), 6, quantiles=[0.1, 0.9])
    np.testing.assert_array_equal(found, wanted)
    pd.testing.assert_frame_equal(loaded.predict(), model.predict())
    assert loaded.forecaster.max_steps == 3
    told, before = loaded.summary(), model.summary()
    assert told["cold_start"] == before["cold_start"]
    assert "new series" in (tmp_path / "model" / "card.md").read_text()
    first = product("new", "large gloves", steps=2, seed=50)
    loaded.update(first[["sales"]], X=first[["description"]])
    assert "new" in loaded.predict().index.get_level_values(0)


def test_the_language_model_of_a_saved_model_may_have_moved(tmp_path):
    model = fitted(text_backbone=TINY, embedding_store=tmp_path / "store")
    folder = tsllm.save(model, tmp_path / "model")
    assert tsllm.load(folder, text_backbone=TINY).text_backbone == TINY
    with pytest.raises(BackboneMismatchError):
        tsllm.load(folder, text_backbone=f"{TINY}&seed=5")
    tsllm.save(ColdStart(inside()).fit(panel()[["sales"]], fh=[1]), tmp_path / "other")
    with pytest.raises(DataError, match="reads no texts"):
        tsllm.load(tmp_path / "other", text_backbone=TINY)


def test_copies_and_pickles_forecast_new_series_alike():
    new = fitted().new_contexts(described(a="large gloves"))
    wanted = fitted().forecast(new, 6)
    for again in (copy.deepcopy(fitted()), pickle.loads(pickle.dumps(fitted()))):
        np.testing.assert_array_equal(again.forecast(new, 6), wanted)
