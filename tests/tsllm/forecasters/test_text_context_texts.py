"""TextContext with columns of text: what is learnt, leakage, missing texts, and the doors."""

import numpy as np
import pandas as pd
import pytest
from covariate_frames import batch_forecasts, stacked
from sktime.forecasting.naive import NaiveForecaster

import tsllm
from tsllm import Context, DLinearForecaster, TextContext
from tsllm.covariates.forecast_errors import Reference, relative_features
from tsllm.errors import DataError

ENCODER = "random:bert?hidden=16&layers=1&heads=2"
AHEAD = 6
EFFECTS = {
    "A storm with heavy rain is coming.": -6.0,
    "Some rain in the evening. Mild wind.": -3.0,
    "Sunny, with a clear sky all day long.": 5.0,
    "Fog until noon, then dry.": 0.0,
    None: 2.0,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:The default of config:FutureWarning"),
    pytest.mark.filterwarnings("ignore:the intervals "),
]


def reported(steps, *, seed=0, noise=0.2, effects=EFFECTS):
    """A slow level that the report of each step moves; the reports of some steps more."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=steps + AHEAD, freq="D")
    numbers = rng.integers(0, len(effects), steps + AHEAD)
    reports = np.array(list(effects), dtype=object)[numbers]
    level = 50 + np.cumsum(rng.normal(0, 0.05, steps + AHEAD))
    values = level + np.array(list(effects.values()))[numbers]
    y = pd.Series(values + rng.normal(0, noise, steps + AHEAD), index=index, name="demand")
    return y, pd.DataFrame({"report": reports}, index=index)


def with_reports(forecaster="seasonal_naive", **parameters):
    settings = {"text_covariates": ("report",), "text_backbone": "tfidf", "n_origins": 60}
    return TextContext(forecaster, **settings | parameters, random_state=0)


def contexts_of(y, X, ends):
    return [
        Context(
            y.to_numpy()[:end],
            times=pd.DatetimeIndex(y.index[:end], freq="D"),
            past_x=X.to_numpy(dtype=object)[:end],
        )
        for end in ends
    ]


# ---------------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("text_backbone", ["tfidf", ENCODER])
@pytest.mark.parametrize("inner", ["seasonal_naive", NaiveForecaster(), "trained"])
def test_texts_that_determine_the_errors_are_recovered(inner, text_backbone, tmp_path):
    y, X = reported(250)
    model = DLinearForecaster(max_steps=20, random_state=0) if inner == "trained" else inner
    forecaster = with_reports(model, text_backbone=text_backbone, embedding_store=tmp_path)
    forecaster.fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    told = forecaster.summary()
    # DLinear carries the effects of past steps in a way of its own
    assert told["error"] < (0.3 if inner != "trained" else 0.6) * told["error_without"]
    assert told["texts_explain"][0] > 0.7
    assert np.abs(forecaster.predict(X=X) - y[-AHEAD:]).mean() < 2.0
    # the effect of a text is that of the step: replacing it moves the step by the difference
    first = forecaster.predict(X=X)
    for text, effect in EFFECTS.items():
        changed = X.copy()
        changed.iloc[-1, 0] = text
        moved = float(np.asarray(forecaster.predict(X=changed) - first)[-1])
        expected = effect - EFFECTS[X.iloc[-1, 0]]
        assert moved == pytest.approx(expected, abs=0.8)


def test_texts_that_tell_of_changes_add_up_over_the_steps():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=306, freq="D")
    rises = rng.integers(0, 2, 306).astype(bool)
    X = pd.DataFrame({"report": np.where(rises, "rising fast", "falling fast")}, index=index)
    y = pd.Series(np.cumsum(np.where(rises, 1.0, -1.0) + rng.normal(0, 0.1, 306)), index=index)
    forecaster = with_reports(NaiveForecaster()).fit(y[:300], X=X, fh=range(1, AHEAD + 1))
    told = forecaster.summary()
    assert told["error"] < 0.2 * told["error_without"]
    assert np.abs(forecaster.predict(X=X) - y[300:]).max() < 1.5


def test_intervals_hold_their_level_on_later_values():
    y, X = reported(700)
    forecaster = with_reports().fit(y[:400], X=X, fh=range(1, AHEAD + 1))
    ends = np.arange(400, 700, 5)
    futures = [X.to_numpy(dtype=object)[end : end + AHEAD] for end in ends]
    found = forecaster.forecast(
        contexts_of(y, X, ends), AHEAD, quantiles=[0.1, 0.9], future_x=futures
    )
    actual = np.stack([y.to_numpy()[end : end + AHEAD] for end in ends])
    inside = (found[..., 0, 1] <= actual) & (actual <= found[..., 0, 2])
    assert 0.74 < inside.mean() < 0.93  # the effects are learnt once more on all windows
    assert np.diff(found[..., 0, 1:]).mean() < 4


def test_texts_without_an_effect_leave_the_forecast_as_it_is():
    y, X = reported(200, seed=1, effects=dict.fromkeys(EFFECTS, 0.0))
    inner = NaiveForecaster(sp=7)
    fh = range(1, AHEAD + 1)
    forecaster = with_reports(inner).fit(y[:-AHEAD], X=X, fh=fh)
    plain = inner.clone().fit(y[:-AHEAD], fh=fh)
    assert not forecaster.fitted_.texts.used
    np.testing.assert_array_equal(forecaster.predict(X=X), plain.predict())
    told = forecaster.summary()
    assert told["error"] == told["error_without"]
    assert told["texts_explain"] == [0.0]


def test_past_texts_have_an_effect_on_the_next_steps():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=400, freq="D")
    warned = rng.integers(0, 2, 400).astype(bool)
    X = pd.DataFrame({"report": np.where(warned, "a warning", "all quiet")}, index=index)
    y = pd.Series(10 + 5.0 * np.roll(warned, 1) + rng.normal(0, 0.1, 400), index=index)
    forecaster = with_reports("theta", past_covariates=("report",), n_origins=100)
    forecaster.fit(y[:390], X=X, fh=[1])
    told = forecaster.summary()
    assert told["error"] < 0.7 * told["error_without"]
    changed = X.copy()
    changed.iloc[390:, 0] = "something else"
    np.testing.assert_array_equal(forecaster.predict(X=changed), forecaster.predict(X=X))


def test_texts_and_numbers_together():
    y, X = reported(250)
    X["heat"] = np.random.default_rng(3).normal(size=len(X))
    y = y + 4 * X["heat"]
    forecaster = with_reports().fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    assert np.abs(forecaster.predict(X=X) - y[-AHEAD:]).mean() < 1.2
    assert forecaster.fitted_.covariates.known.explained[0] > 0.1


def test_an_explanation_sums_up_and_gives_each_column_its_share():
    y, X = reported(250)
    X["heat"] = np.random.default_rng(3).normal(size=len(X))
    y = y + 4 * X["heat"]
    forecaster = with_reports(NaiveForecaster()).fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    shares = forecaster.explain(X=X)
    np.testing.assert_allclose(shares.sum(axis=1), forecaster.predict(X=X), rtol=1e-9)
    plain = NaiveForecaster().fit(y[:-AHEAD], fh=range(1, AHEAD + 1)).predict()
    np.testing.assert_allclose(shares["model"], plain, rtol=1e-9)
    heat = 4 * (X["heat"].to_numpy()[-AHEAD:] - X["heat"].to_numpy()[-AHEAD - 1])
    np.testing.assert_allclose(shares["heat"], heat, atol=1.5)
    X.loc[X.index[-AHEAD:], "report"] = None  # the last report is not carried on
    carried = EFFECTS[None] - EFFECTS[X["report"].iloc[-AHEAD - 1]]
    np.testing.assert_allclose(forecaster.explain(X=X)["report"], carried, atol=1.5)
    with pytest.raises(DataError, match=r"explain\(\) gives the share of each column"):
        forecaster.explain_texts(X=X)


# ---------------------------------------------------------------------- leakage


def test_a_text_changes_its_step_and_later_ones_only():
    y, X = reported(150)
    forecaster = with_reports().fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    first = np.asarray(forecaster.predict(X=X))
    for step in range(AHEAD):
        changed = X.copy()
        changed.iloc[len(X) - AHEAD + step, 0] = "A storm with heavy rain is coming. Rain."
        moved = np.asarray(forecaster.predict(X=changed)) != first
        assert not moved[:step].any()
        assert moved[step]


def test_what_follows_the_judged_windows_is_not_learnt_from():
    y, X = reported(150)
    other = X.copy()
    other.iloc[145:, 0] = "words that stand nowhere else"
    one = with_reports().fit(y[:-AHEAD], X=X, fh=range(1, AHEAD + 1))
    two = with_reports().fit(y[:-AHEAD], X=other, fh=range(1, AHEAD + 1))
    assert one.fitted_.texts.encoder.words == two.fitted_.texts.encoder.words


def test_features_of_a_step_read_no_later_row():
    features = np.random.default_rng(0).normal(size=(80, 3))
    first = relative_features(features, 60, 8, Reference(7, 0.5), 8)
    changed = features.copy()
    changed[64:] += 1.0
    second = relative_features(changed, 60, 8, Reference(7, 0.5), 8)
    np.testing.assert_array_equal(first[:4], second[:4])
    assert (first[4:] != second[4:]).all()


# ---------------------------------------------------------------------- input


def test_missing_and_unknown_texts_are_no_error():
    y, X = reported(120)
    forecaster = with_reports().fit(y[:-AHEAD], X=X, fh=[1, 2, 3])
    ahead = X.copy()
    ahead.iloc[-AHEAD:, 0] = [None, np.nan, "völlig anders 🌧", "", "x" * 10_000, "Rain."]
    assert np.isfinite(forecaster.predict(X=ahead)).all()


def test_texts_ahead_must_be_given():
    y, X = reported(120)
    forecaster = with_reports().fit(y[:-AHEAD], X=X, fh=[1, 2, 3])
    with pytest.raises(DataError, match="the future of the covariates report is missing"):
        forecaster.predict()


def test_a_short_series_learns_nothing_from_its_texts_and_says_so():
    y, X = reported(6)
    with pytest.warns(UserWarning, match="the texts report have no effect"):
        forecaster = with_reports(n_origins=2).fit(y[:-AHEAD], X=X, fh=[1, 2])
    assert np.isfinite(forecaster.predict(X=X)).all()


def test_columns_are_named_once():
    y, X = reported(60)
    inner = DLinearForecaster(text_covariates=("report",))
    with pytest.raises(DataError, match="text_covariates of the forecaster inside a TextContext"):
        with_reports(inner).fit(y, X=X)


# ---------------------------------------------------------------------- doors


@pytest.mark.parametrize("text_backbone", ["tfidf", ENCODER])
def test_one_context_and_many(text_backbone, tmp_path):
    y, X = reported(150)
    forecaster = with_reports(text_backbone=text_backbone, embedding_store=tmp_path)
    forecaster.fit(y[:130], X=X, fh=range(1, AHEAD + 1))
    ends = [60, 130, 20, 3, 144]
    contexts = contexts_of(y, X, ends)
    futures = [X.to_numpy(dtype=object)[end : end + AHEAD] for end in ends]
    whole = forecaster.forecast(contexts, AHEAD, quantiles=[0.2], future_x=futures)
    for row, (context, future) in enumerate(zip(contexts, futures)):
        single = forecaster.forecast([context], AHEAD, quantiles=[0.2], future_x=[future])
        np.testing.assert_allclose(single[0], whole[row], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text_backbone", ["tfidf", ENCODER])
@pytest.mark.parametrize("past", [(), ("report",)])
def test_a_saved_model_forecasts_alike(text_backbone, past, tmp_path):
    y, X = reported(150)
    forecaster = with_reports(
        text_backbone=text_backbone, embedding_store=tmp_path / "store", past_covariates=past
    ).fit(y[:120], X=X, fh=range(1, AHEAD + 1))
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    for one in (forecaster, loaded):
        one.update(y[120:130], X=X)
    np.testing.assert_allclose(loaded.predict(X=X), forecaster.predict(X=X), rtol=1e-9)
    assert loaded.summary()["texts_explain"] == forecaster.summary()["texts_explain"]


def test_a_panel_shares_what_its_texts_tell():
    pairs = {name: reported(60, seed=seed) for seed, name in enumerate("abcd")}
    y, X = stacked(pairs, 60)
    forecaster = with_reports(n_origins=20).fit(y, X=X, fh=range(1, AHEAD + 1))
    later = pd.concat([y[60:] for y, _ in pairs.values()])
    assert np.abs(forecaster.predict(X=X).to_numpy().ravel() - later.to_numpy()).mean() < 1.0


def test_batch_jobs_and_served_models_read_texts(tmp_path):
    y, X = stacked({name: reported(60, seed=seed) for seed, name in enumerate("ab")}, 60)
    forecaster = with_reports(n_origins=20).fit(y, X=X, fh=[1, 2])
    expected = forecaster.predict(X=X)["demand"].to_numpy()
    np.testing.assert_allclose(batch_forecasts(forecaster, y, X, 2, tmp_path), expected, rtol=1e-6)

    mlflow = pytest.importorskip("mlflow")
    from tsllm.mlflow import save_model

    save_model(forecaster, tmp_path / "served")
    served = mlflow.pyfunc.load_model(tmp_path / "served")
    request = forecaster.to_payload(2, X=X)["dataframe_split"]
    rows = pd.DataFrame(request["data"], columns=request["columns"])
    answer = served.predict(rows, params={"horizon": 2})
    np.testing.assert_allclose(answer["forecast"], expected, rtol=1e-6)
