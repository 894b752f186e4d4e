"""Text columns of X with every forecaster: what they do, what they read, what they refuse."""

import copy
import functools
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import panel, small
from tsllm import AutoForecaster, Context, DLinearForecaster
from tsllm.embeddings import EmbeddingStore
from tsllm.errors import (
    BackboneMismatchError,
    BackboneNotFoundError,
    DataError,
    ModelFormatError,
)
from tsllm.text import TextEncoder

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ", "ignore:The intervals ")
STEPS, SHOWN, HORIZON = 160, 140, 6
BERT = "random:bert?hidden=16&layers=1&heads=2&positions=64"
SALE, STRIKE = "A big sale today. Everything is cheap.", "Strike! All shops are closed."
NEWS = np.array([SALE, STRIKE, None], dtype=object)
METHODS = ["aaren", "auto", "autotimes", "dlinear", "s2ip", "timecma"]


def with_news(*, seed=0, names=("a", "b")):
    """A panel that its news move: (y, X), X reaching further than fits read it."""
    rng = np.random.default_rng(seed)
    y = panel([STEPS] * len(names), names)
    kinds = rng.integers(0, 3, len(y))
    X = pd.DataFrame({"news": NEWS[kinds], "warm": rng.normal(size=len(y))}, index=y.index)
    y["value"] += np.array([6.0, -9.0, 0.0])[kinds] + 2 * X["warm"]
    return y, X


def shown(frame):
    return frame[frame.groupby(level=0, sort=False).cumcount() < SHOWN]


def ahead(frame, steps=HORIZON):
    place = frame.groupby(level=0, sort=False).cumcount()
    return frame[(place >= SHOWN) & (place < SHOWN + steps)]


Y, X = with_news()


def make(method, **parameters):
    if method == "dlinear":
        small_ones = {"context_length": 24, "max_steps": 20, "random_state": 0}
        return DLinearForecaster(**(small_ones | parameters))
    if method == "auto":
        parameters = {"candidates": ["seasonal_naive", "theta"]} | parameters
    return small(method, **parameters)


@functools.cache
def fitted(method="dlinear", text_backbone="tfidf", past=()):
    forecaster = make(
        method, text_covariates=("news",), text_backbone=text_backbone, past_covariates=past
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return forecaster.fit(shown(Y), X=shown(X), fh=range(1, HORIZON + 1))


# ---------------------------------------------------------------- what they do


@pytest.mark.parametrize("method", METHODS)
def test_texts_of_the_steps_to_come_move_the_forecast(method):
    forecaster = fitted(method)
    calm = ahead(X).assign(news=None)
    difference = (
        forecaster.predict(X=calm.assign(news=SALE))
        - forecaster.predict(X=calm.assign(news=STRIKE))
    )  # fmt: skip
    assert_allclose(difference["value"], 15.0, rtol=0.25)
    assert forecaster.summary()["texts_explain"][0] > 0.5
    without = make(method).fit(shown(Y), X=shown(X)[["warm"]], fh=range(1, HORIZON + 1))
    truth = ahead(Y)["value"]
    error = (forecaster.predict(X=ahead(X))["value"] - truth).abs().mean()
    assert error < 0.7 * (without.predict(X=ahead(X)[["warm"]])["value"] - truth).abs().mean()


@pytest.mark.parametrize("backbone", ["tfidf", BERT])
def test_intervals_are_as_narrow_as_the_texts_make_the_errors(backbone):
    plain = make("dlinear").fit(shown(Y), X=shown(X)[["warm"]], fh=range(1, HORIZON + 1))
    wide = plain.predict_interval(X=ahead(X)[["warm"]], coverage=0.8)
    narrow = fitted("dlinear", backbone).predict_interval(X=ahead(X), coverage=0.8)

    assert width(narrow) < 0.5 * width(wide)


@pytest.mark.parametrize("method", ["dlinear", "auto"])
def test_intervals_hold_as_many_values_as_they_say(method):
    rng = np.random.default_rng(3)
    kinds = rng.integers(0, 3, 400)
    index = pd.date_range("2024-01-01", periods=400, freq="D")
    X = pd.DataFrame({"news": NEWS[kinds]}, index=index)
    y = pd.Series(20 + np.array([6.0, -9.0, 0.0])[kinds] + rng.normal(0, 0.2, 400), index=index)
    settings = {"text_covariates": ("news",), "text_backbone": "tfidf"}
    if method == "auto":
        forecaster = AutoForecaster(["seasonal_naive", "theta"], **settings)
    else:
        forecaster = make("dlinear", **settings | {"max_steps": 200})
    forecaster.fit(y[:300], X=X, fh=range(1, 5))
    contexts = [Context(y[:end], times=index[:end], past_x=X[:end]) for end in range(300, 396)]
    futures = [X[end : end + 4].to_numpy() for end in range(300, 396)]
    found = forecaster.forecast(contexts, 4, quantiles=[0.1, 0.9], future_x=futures)[:, :, 0]
    truth = np.stack([y[end : end + 4] for end in range(300, 396)])
    inside = (found[..., 1] <= truth) & (truth <= found[..., 2])
    assert 0.65 < inside.mean() < 0.95
    assert (found[..., 2] - found[..., 1]).mean() < 4 * 0.2


# ---------------------------------------------------------------- what they read


@pytest.mark.parametrize("method", METHODS)
def test_a_text_changes_no_forecast_of_an_earlier_step(method):
    before = fitted(method).predict(X=ahead(X))
    for step in range(1, HORIZON):
        place = ahead(X).groupby(level=0, sort=False).cumcount()
        other = ahead(X).assign(news=ahead(X)["news"].where(place < step, "Quite another text."))
        after = fitted(method).predict(X=other)
        assert_array_equal(after[(place < step).to_numpy()], before[(place < step).to_numpy()])


def test_a_horizon_with_gaps_reads_the_texts_of_the_steps_between():
    whole = fitted().predict(fh=range(1, HORIZON + 1), X=ahead(X))
    some = fitted().predict(fh=[1, 5], X=ahead(X))
    assert_array_equal(some, whole.groupby(level=0, sort=False).nth([0, 4]))
    told = r"no row of series 'a' at 2024-05-21 .*a text moves all later steps.* the 5 steps"
    with pytest.raises(DataError, match=told):
        fitted().predict(fh=[1, 5], X=ahead(X).groupby(level=0, sort=False).nth([0, 4]))
    fitted().predict(fh=range(1, HORIZON + 1), X=ahead(X))  # sktime keeps the last horizon


def test_past_columns_read_no_text_ahead():
    forecaster = fitted(past=("news", "warm"))
    expected = forecaster.predict()
    shuffled = X.assign(news=np.random.default_rng(1).permutation(X["news"]))
    again = make("dlinear", text_covariates=("news",), text_backbone="tfidf",
                 past_covariates=("news", "warm"))  # fmt: skip
    mixed = X.copy()
    later = ~X.index.isin(shown(X).index)
    mixed.loc[later, "news"] = shuffled.loc[later, "news"]
    assert_array_equal(again.fit(shown(Y), X=mixed, fh=range(1, HORIZON + 1)).predict(), expected)


@pytest.mark.parametrize("backbone", ["tfidf", BERT])
def test_a_batch_is_forecast_as_each_alone(backbone):
    forecaster = fitted("dlinear", backbone)
    contexts = [
        Context(y, times=y.index.droplevel(0), past_x=shown(X).xs(name).to_numpy(), series_id=name)
        for name, y in ((name, shown(Y).xs(name, drop_level=False)) for name in "ab")
    ]
    future = [ahead(X).xs(name).to_numpy() for name in "ab"]
    together = forecaster.forecast(contexts, HORIZON, future_x=future)
    for row, (context, x) in enumerate(zip(contexts, future, strict=True)):
        alone = forecaster.forecast([context], HORIZON, future_x=[x])
        assert_allclose(alone[0], together[row], atol=1e-5 * float(Y["value"].std()))
    assert_allclose(together[..., 0, 0].ravel(), forecaster.predict(X=ahead(X))["value"], rtol=1e-4)


def test_the_texts_of_all_series_are_embedded_together(monkeypatch):
    state, contexts = fitted().fitted_, []
    for name, y in Y.groupby(level=0, sort=False):
        contexts.append(Context(y, times=y.index.droplevel(0), past_x=X.xs(name).to_numpy()))
    calls, encode = [], TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda *own: calls.append(own) or encode(*own))
    assert all(one.x_level is not None for one in state.residuals(contexts))
    assert len(calls) == 1


def test_a_context_without_its_columns_is_refused():
    with pytest.raises(DataError, match=r"comes without its covariates .* fitted with news, warm"):
        fitted().forecast([Context(np.arange(50.0))], 2)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", " \n "])
def test_a_missing_text_is_no_text(missing):
    some = ahead(X).assign(news=pd.Series([missing] * len(ahead(X)), dtype=object).to_numpy())
    expected = fitted().predict(X=ahead(X).assign(news=None))
    assert_array_equal(fitted().predict(X=some), expected)


@pytest.mark.parametrize("dtype", [object, "str", "string", "category"])
def test_texts_of_every_dtype_of_pandas(dtype):
    other = X.assign(news=X["news"].astype(dtype))
    forecaster = make("dlinear", text_covariates=("news",), text_backbone="tfidf")
    forecaster.fit(shown(Y), X=shown(other), fh=range(1, HORIZON + 1))
    assert_array_equal(forecaster.predict(X=ahead(other)), fitted().predict(X=ahead(X)))


@pytest.mark.parametrize(
    "text",
    [
        "雨。" * 5000,
        "word " * 2000,
        "x" * 10_000,
        "🎉🎊" * 50,
        "هل تمطر؟ نعم.",
        "Ünïcödé. ñ",
        "\x00\x01",
    ],
)
def test_texts_of_any_length_and_language(text):
    forecaster = fitted("dlinear", BERT)
    forecast = forecaster.predict(X=ahead(X).assign(news=text))
    assert np.isfinite(forecast).all().all()


def test_each_sentence_is_embedded_once(tmp_path):
    store = EmbeddingStore(tmp_path)
    forecaster = make("dlinear", text_covariates=("news",), text_backbone=BERT,
                      embedding_store=store)  # fmt: skip
    forecaster.fit(shown(Y), X=shown(X), fh=range(1, HORIZON + 1)).predict(X=ahead(X))
    assert (store.stats()["misses"], store.stats()["vectors"]) == (4, 4)
    hits = store.stats()["hits"]
    forecaster.predict(X=ahead(X).assign(news="A new text."))
    assert store.stats()["misses"] == 5
    assert store.stats()["hits"] > hits
    assert forecaster.summary()["text"]["pooling"] == "mean"


# ---------------------------------------------------------------- what models go through


@pytest.mark.parametrize("backbone", ["tfidf", BERT])
def test_a_saved_model_forecasts_alike(backbone, tmp_path):
    forecaster = fitted("dlinear", backbone)
    again = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert_array_equal(again.predict(X=ahead(X)), forecaster.predict(X=ahead(X)))


def test_a_missing_text_backbone_is_told_at_load(tmp_path):
    folder = tsllm.save(fitted("dlinear", BERT), tmp_path / "model")
    with pytest.raises(BackboneNotFoundError):
        tsllm.load(folder, text_backbone="no/such-model")
    with pytest.raises(BackboneMismatchError, match="text_backbone"):
        tsllm.load(folder, text_backbone=f"{BERT}&seed=1")
    plain = tsllm.save(make("dlinear").fit(shown(Y), fh=[1]), tmp_path / "plain")
    with pytest.raises(DataError, match=r"text_backbone=.* reads no texts"):
        tsllm.load(plain, text_backbone=BERT)


@pytest.mark.parametrize("adaptive", [False, True])
def test_an_update_reads_the_new_texts(adaptive):
    forecaster = make("dlinear", text_covariates=("news",), text_backbone="tfidf",
                      adaptive=adaptive)  # fmt: skip
    forecaster.fit(shown(Y), X=shown(X), fh=range(1, 4))
    before = forecaster.predict_interval(X=ahead(X), coverage=0.8)
    for step in range(4):
        rows = Y.groupby(level=0, sort=False).cumcount() == SHOWN + step
        forecaster.update(Y[rows], X=X[rows])
    place = X.groupby(level=0, sort=False).cumcount()
    rest = X[place >= SHOWN + 4]
    truth = Y[(place >= SHOWN + 4) & (place < SHOWN + 7)]["value"]
    error = (forecaster.predict(X=rest)["value"] - truth).abs().mean()
    assert error < 2.0
    after = forecaster.predict_interval(X=rest, coverage=0.8)

    assert width(after) < 2 * width(before)  # the texts count among what was forecast


@pytest.mark.parametrize("kind", ["one step", "ahead"])
def test_adaptive_intervals_score_what_was_forecast_with_the_texts(kind):
    y, x = Y, X
    if kind == "ahead":
        rng = np.random.default_rng(0)
        up = rng.integers(0, 2, 2 * STEPS)
        x = X.assign(news=np.array(["It falls.", "It rises."], dtype=object)[up])
        y = Y.assign(value=np.cumsum(2.0 * up - 1 + rng.normal(0, 0.2, 2 * STEPS)))
    forecaster = make("dlinear", text_covariates=("news",), text_backbone="tfidf", adaptive=True)
    forecaster.fit(shown(y), X=shown(x), fh=range(1, 4))
    state = forecaster.fitted_
    for step in range(SHOWN, SHOWN + 3):
        contexts, residuals = forecaster._prepare_contexts(forecaster._kept_contexts())
        values = forecaster._reader(state, followed=True).predict(residuals, 3)[0]
        future = [x.xs(name)[step : step + 3].to_numpy() for name in "ab"]
        whole = forecaster._add_covariate_effects(values, contexts, residuals, future)
        waiting = [forecaster._pending[name].waiting[-1] for name in "ab"]
        rows = y.groupby(level=0, sort=False).cumcount() == step
        forecaster.update(y[rows], X=x[rows])
        same_step = [effect[0, 0] for effect in state.covariates.future_effects(contexts, future)]
        scored = [forecast[0, 0, 0] for _, forecast, *_ in waiting]
        assert_allclose(np.add(scored, same_step), whole[:, 0, 0, 0], rtol=1e-9)


def test_a_request_to_a_server_carries_the_texts():
    payload = json.loads(json.dumps(fitted().to_payload(2, X=ahead(X))))
    columns = payload["dataframe_split"]["columns"]
    rows = pd.DataFrame(payload["dataframe_split"]["data"], columns=columns)
    sent = rows.loc[rows["future"], "news"]
    expected = ahead(X, 2)["news"]
    assert sent.fillna("none").tolist() == expected.fillna("none").tolist()


def test_sktime_evaluates_with_texts():
    from sktime.forecasting.model_evaluation import evaluate
    from sktime.split import SlidingWindowSplitter

    y, x = Y.xs("a"), X.xs("a")
    forecaster = make("dlinear", text_covariates=("news",), text_backbone="tfidf", max_steps=5)
    cv = SlidingWindowSplitter(fh=[1, 2], window_length=120, step_length=30)
    found = evaluate(forecaster, cv, y, X=x, error_score="raise")
    assert np.isfinite(found["test_MeanAbsolutePercentageError"]).all()


def test_copies_and_clones_keep_the_texts():
    copied = copy.deepcopy(fitted("dlinear", BERT))
    assert_array_equal(copied.predict(X=ahead(X)), fitted("dlinear", BERT).predict(X=ahead(X)))
    assert copied.clone().get_params()["text_covariates"] == ("news",)


# ---------------------------------------------------------------- what they refuse


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3.5, "holds 3.5"),
        (["a", "b"], r"holds \['a', 'b'\]"),
        (b"bytes", "holds b'bytes'"),
        (pd.Timestamp("2024-01-01"), "holds Timestamp"),
        ("half \ud83d", "holds half a character"),
    ],
)
def test_what_is_no_text_is_refused_by_row(value, told):
    news = shown(X)["news"].tolist()
    news[5] = value
    spoilt = shown(X).assign(news=pd.Series(news, index=shown(X).index, dtype=object))
    with pytest.raises(DataError, match=f"series 'a', 2024-01-06.*'news' of X {told}") as refused:
        make("dlinear", text_covariates=("news",)).fit(shown(Y), X=spoilt, fh=[1])
    assert "\n" not in str(refused.value)


def test_a_column_of_numbers_is_no_column_of_texts():
    with pytest.raises(DataError, match=r"column 'warm' of X holds .*text_covariates names this"):
        make("dlinear", text_covariates=("warm",)).fit(shown(Y), X=shown(X)[["warm"]], fh=[1])


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"text_covariates": ("nwes",)}, "did you mean 'news'"),
        ({"text_covariates": "news"}, "text_covariates"),
        ({"text_covariates": ("news",), "text_backbone": 3}, "text_backbone"),
        ({"embedding_store": 3}, "embedding_store must be"),
    ],
)
def test_arguments_that_cannot_be_used(parameters, told):
    with pytest.raises(DataError, match=told):
        make("dlinear", **parameters).fit(shown(Y), X=shown(X), fh=[1])


def test_texts_without_x_or_without_their_future():
    with pytest.raises(DataError, match="text_covariates names news and there is no X"):
        make("dlinear", text_covariates=("news",)).fit(shown(Y), fh=[1])
    with pytest.raises(DataError, match="the future of the covariates news, warm is missing"):
        fitted().predict()


# ---------------------------------------------------------------- explanations


@pytest.mark.parametrize("method", ["dlinear", "auto"])
@pytest.mark.parametrize("past", [(), ("warm",), ("news", "warm")])
def test_an_explanation_sums_up_to_the_forecast(method, past):
    forecaster = fitted(method, "tfidf", past)
    future = ahead(X).drop(columns=list(past))
    future = None if future.shape[1] == 0 else future
    shares = forecaster.explain(X=future)
    assert shares.columns.tolist() == ["model", "news", "warm"]
    forecast = forecaster.predict(X=future)
    assert_allclose(shares.sum(axis=1), forecast["value"], rtol=1e-12)
    assert shares.index.equals(forecast.index)
    texts = forecaster.explain_texts(X=future)
    summed = texts.groupby(["series_id", "timestamp"])["share"].sum()
    assert_allclose(summed.reindex(shares.index).fillna(0.0), shares["news"], atol=1e-9)


def test_the_share_of_the_model_is_its_forecast_without_any_text():
    forecaster = fitted()
    contexts = forecaster._prepare_contexts(forecaster._kept_contexts())[1]
    alone = forecaster._reader(forecaster.fitted_).predict(contexts, HORIZON)[0][..., 0]
    effects = forecaster.fitted_.covariates.texts
    assert effects.now.any()
    windows = forecaster.fitted_.covariates.text_windows(
        contexts, [ahead(X).xs(name).to_numpy() for name in "ab"]
    )
    none = [np.full(HORIZON, None, dtype=object)]
    silent = [
        replace(one, recent=[np.full_like(one.recent[0], None)], future=none) for one in windows
    ]
    now = effects.now_effects([none, none]) * np.stack([one.scale for one in windows])[:, None]
    shares = forecaster.explain(X=ahead(X))
    assert_allclose(
        shares["model"], (alone + now + effects.effects(silent, HORIZON)).ravel(), rtol=1e-9
    )


def test_a_step_without_text_has_no_share_of_a_text():
    texts = fitted().explain_texts(X=ahead(X))
    assert len(texts) and texts["text"].notna().all()


def test_several_variables_are_explained_side_by_side():
    y = pd.concat([Y, 2 * Y.rename(columns={"value": "double"})], axis=1)
    forecaster = make("dlinear", text_covariates=("news",), text_backbone="tfidf")
    forecaster.fit(shown(y), X=shown(X), fh=[1, 3])
    shares = forecaster.explain(X=ahead(X))
    forecast = forecaster.predict(X=ahead(X))
    for variable in ("value", "double"):
        assert_allclose(shares[variable].sum(axis=1), forecast[variable], rtol=1e-12)


def test_a_forecast_without_covariates_is_the_models_own():
    forecaster = make("dlinear").fit(shown(Y), fh=[1, 2])
    shares = forecaster.explain()
    assert shares.columns.tolist() == ["model"]
    assert_array_equal(shares["model"], forecaster.predict()["value"])
    with pytest.raises(DataError, match="the model reads no texts"):
        forecaster.explain_texts()


def test_an_explanation_is_drawn():
    from tsllm.plotting.explanations import plot_explanation

    shares = fitted().explain(X=ahead(X))
    ax = plot_explanation(shares, series_id="b")
    assert ax.get_title() == "b"
    drawn = next(line for line in ax.lines if line.get_label() == "forecast")
    assert_allclose(drawn.get_ydata(), shares.xs("b").sum(axis=1))
    with pytest.raises(DataError, match="series_id='c'"):
        plot_explanation(shares, series_id="c")


def test_the_automatic_forecaster_scores_candidates_after_the_texts():
    names = ["seasonal_naive", "theta"]
    forecaster = AutoForecaster(names, text_covariates=("news",), text_backbone="tfidf")
    forecaster.fit(shown(Y), X=shown(X), fh=range(1, 4))
    plain = AutoForecaster(names).fit(shown(Y), X=shown(X)[["warm"]], fh=range(1, 4))
    narrow = forecaster.predict_interval(X=ahead(X), coverage=0.8)
    wide = plain.predict_interval(X=ahead(X)[["warm"]], coverage=0.8)
    assert width(narrow) < 0.3 * width(wide)


def width(frame):
    return (frame.iloc[:, 1] - frame.iloc[:, 0]).mean()


@pytest.mark.parametrize("change", ["x_scale", "x_level", "kinds", "words"])
def test_damaged_parts_of_a_saved_model_are_refused(change):
    from tsllm.context import contexts_from_state, contexts_to_state
    from tsllm.covariates import Covariates
    from tsllm.text.encoder import restore_encoder

    forecaster = fitted()
    contexts = contexts_to_state(forecaster._kept_contexts(), ["value"], ["news", "warm"])
    covariates = forecaster.fitted_.covariates.to_state()
    with pytest.raises(ModelFormatError, match="the saved model"):
        if change == "kinds":
            columns = {**covariates["columns"], "categories": ()}
            Covariates.from_state({**covariates, "columns": columns})
        elif change == "words":
            encoder = covariates["texts"]["encoder"]
            restore_encoder({**encoder, "idf": encoder["idf"] * 1e300}, "tfidf")
        else:
            contexts["series"][1][change] = np.ones((1, 1))
            contexts_from_state(contexts)
