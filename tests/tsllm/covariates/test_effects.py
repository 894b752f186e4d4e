"""Effects that are put into series are found again, and nothing else is."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge as SklearnRidge

from tsllm import Context
from tsllm.covariates import Covariates, contemporaneous, fit_covariates
from tsllm.covariates.columns import learn_columns
from tsllm.covariates.contemporaneous import PENALTIES, choose_ridge
from tsllm.errors import DataError
from tsllm.saving.typed_json import Blobs, from_json, to_json

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_draws_in_any_order(monkeypatch):
    """Start the generator anew for each test, since several processes share the tests."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def fitted(values, frame, *, past=(), season=12, length=24, horizon=6, fraction=0.1):
    columns = learn_columns(frame, past=past)
    x = columns.read(frame, columns.names)
    context = Context(values, past_x=x)
    covariates = fit_covariates(
        [context],
        columns,
        context_length=length,
        horizon=horizon,
        season=season,
        validation_fraction=fraction,
    )
    return covariates, covariates.scaled([context])[0]


def test_ridge_is_that_of_scikit_learn():
    x, y = RNG.normal(size=(60, 5)), RNG.normal(size=(60, 2))
    y += x @ RNG.normal(size=(5, 2))
    found = choose_ridge(x, y)
    candidates = [SklearnRidge(alpha=a, fit_intercept=False).fit(x, y).coef_.T for a in PENALTIES]
    assert min(np.abs(found.weights - one).max() for one in candidates) < 1e-9
    assert (found.left_out < found.without).all()


def test_what_explains_nothing_has_next_to_no_weight():
    x, y = RNG.normal(size=(200, 40)), RNG.normal(size=(200, 3))
    found = choose_ridge(x, y)
    assert_allclose(found.weights, 0.0, atol=0.01)
    assert_allclose(found.explained, 0.0, atol=0.01)
    # What was worse than nothing is nothing.
    assert ((found.left_out < found.without) == found.weights.any(axis=0)).all()


def test_a_known_effect_is_found_beside_a_trend_and_a_season_that_move_alike():
    steps = np.arange(600)
    season = np.sin(steps * 2 * np.pi / 12)
    # The covariate has the series' season and trend in it, which say nothing of its effect.
    x = season + steps / 500 + RNG.normal(0, 0.5, 600)
    y = 50 + 5 * season + 0.01 * steps + 2 * x
    covariates, context = fitted(y, pd.DataFrame({"x": x}), season=12)
    rest = covariates.residual(context).values[:, 0]
    left = np.polyfit(x, rest - (50 + 5 * season + 0.01 * steps), 1)[0]
    assert abs(left) < 0.2  # of the effect of 2; plainly regressed, x would take the season's 5 too
    assert covariates.known.explained[0] > 0.9


def test_curves_and_categories_are_found():
    sky = RNG.choice(["sun", "rain", "fog"], 800)
    warm = RNG.uniform(-2, 2, 800)
    effect = warm**2 + pd.Series(sky).map({"sun": 0.0, "rain": -3.0, "fog": 1.0}).to_numpy()
    frame = pd.DataFrame({"warm": warm, "sky": pd.Categorical(sky)})
    covariates, context = fitted(effect + 100, frame)
    rest = covariates.residual(context).values[:, 0]
    assert rest.std() < 0.15 * effect.std()


def test_one_effect_serves_series_of_all_sizes():
    frame = pd.DataFrame({"x": RNG.normal(size=300)})
    columns = learn_columns(frame)
    x = columns.read(frame, columns.names)
    noise = RNG.normal(0, 0.1, 300)
    contexts = [
        Context(size * (10 + frame["x"].to_numpy() + noise), past_x=x, series_id=size)
        for size in (1e-3, 1.0, 1e6)
    ]
    covariates = fit_covariates(
        contexts, columns, context_length=24, horizon=6, season=1, validation_fraction=0.1
    )
    for context in contexts:
        rest = covariates.residual(context).values[:, 0] / context.series_id
        assert rest.std() < 0.2


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-3, 1e6), shift=st.floats(-1e6, 1e6), seed=st.integers(0, 100))
def test_residuals_follow_the_units_of_the_series(factor, shift, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=120), "k": rng.choice(["a", "b"], 120)})
    y = frame["x"].to_numpy() + rng.normal(0, 0.2, 120)
    covariates, context = fitted(y, frame)
    moved, other = fitted(factor * y + shift, frame)
    rest = covariates.residual(context).values
    again = (moved.residual(other).values - shift) / factor
    assert_allclose(again, rest, atol=1e-6 * max(1.0, abs(shift) / factor))


def test_the_held_out_end_teaches_nothing():
    frame = pd.DataFrame({"x": RNG.normal(size=200)})
    y = frame["x"].to_numpy() + RNG.normal(0, 0.1, 200)
    spoilt = y.copy()
    spoilt[180:] *= -50
    clean = fitted(y, frame)[0]
    other = fitted(spoilt, frame)[0]
    assert_allclose(other.known.bases[0].knots, clean.known.bases[0].knots)
    # The scale of a series is measured on all of it; the weights are in that scale's units.
    ratio = other.known.weights / clean.known.weights
    assert_allclose(ratio, ratio[0, 0], rtol=0.05)


def test_a_leading_covariate_moves_the_steps_that_it_leads_and_no_others():
    x = RNG.normal(size=1500)
    y = np.concatenate([np.zeros(3), x[:-3]]) * 2 + RNG.normal(0, 0.2, 1500)
    covariates, context = fitted(
        y, pd.DataFrame({"x": x}), past=["x"], season=1, length=16, horizon=6
    )
    assert covariates.known is None
    ends = np.arange(1200, 1480, 7)
    pasts = [covariates.residual(context.until(int(end))) for end in ends]
    effects = covariates.lagged_effects(pasts, 8)[..., 0]  # (ends, steps)
    led = np.stack([2 * x[end - 3 : end] for end in ends])
    assert np.corrcoef(effects[:, :3].ravel(), led.ravel())[0, 1] > 0.93
    assert (effects[:, :3] * led).sum() / (led**2).sum() == pytest.approx(1, abs=0.25)
    assert (effects[:, 3:] ** 2).mean() < 0.05 * (led**2).mean()
    assert_array_equal(effects[:, 6:], 0.0)  # beyond the steps that were learnt
    assert covariates.past.explained[0] > 0.3


def test_series_too_short_for_past_covariates_say_so():
    frame = pd.DataFrame({"x": RNG.normal(size=30)})
    with pytest.warns(UserWarning, match="past covariates x have no effect: .* too short"):
        covariates, context = fitted(RNG.normal(size=30), frame, past=["x"], horizon=12)
    assert_array_equal(covariates.lagged_effects([covariates.residual(context)], 12), 0.0)


def test_news_do_not_repeat_what_the_series_tells_itself():
    # An autoregressive series, and a covariate that is its own value.
    y = np.zeros(1200)
    noise = RNG.normal(size=1200)
    for step in range(1, 1200):
        y[step] = 0.9 * y[step - 1] + noise[step]
    covariates, context = fitted(
        y, pd.DataFrame({"x": y}), past=["x"], season=1, length=16, horizon=4
    )
    news = covariates.lagged_effects([covariates.residual(context)], 4)
    assert np.abs(news).max() < 0.1 * y.std()


def test_a_constant_series_and_missing_values_have_effects_that_are_numbers():
    frame = pd.DataFrame({"x": RNG.normal(size=100), "still": 1.0})
    values = np.stack([np.full(100, 7.0), frame["x"] * 2, np.full(100, np.nan)], axis=1)
    values[10:20, 1] = np.nan
    covariates, context = fitted(values, frame)
    rest = covariates.residual(context).values
    assert_array_equal(rest[:, 0], 7.0)
    assert np.nanstd(rest[:, 1]) < 0.5
    assert_array_equal(np.isnan(rest), np.isnan(values))


def test_effects_are_the_same_however_many_rows_are_asked_for():
    frame = pd.DataFrame({"x": RNG.normal(size=300), "k": RNG.choice(list("abc"), 300)})
    covariates, context = fitted(frame["x"].to_numpy(), frame)
    whole = covariates.residual(context).values
    assert_array_equal(covariates.residual(context.tail(7)).values, whole[-7:])


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
def test_effects_are_the_same_for_many_series_at_once(rows_at_once, monkeypatch):
    monkeypatch.setattr(contemporaneous, "ROWS_AT_ONCE", rows_at_once)
    frame = pd.DataFrame({"heat": RNG.normal(size=80), "sky": RNG.choice(["a", "b"], 80)})
    y = 2 * frame["heat"] + (frame["sky"] == "a") + RNG.normal(size=80) / 10
    known = fitted(y.to_numpy(), frame)[0].known
    series = [
        [RNG.normal(size=rows), RNG.integers(0, 2, rows).astype(float)] for rows in (5, 1, 1, 9, 3)
    ]
    scales = list(RNG.random((5, 1)))
    one_by_one = [known.effect(*one) for one in zip(series, scales)]
    for found, expected in zip(known.effects(series, scales), one_by_one, strict=True):
        assert_array_equal(found, expected)


def test_effects_survive_files_bit_for_bit():
    frame = pd.DataFrame({"x": RNG.normal(size=300), "k": RNG.choice(list("abc"), 300)})
    y = np.stack([frame["x"], RNG.normal(size=300)], axis=1)
    covariates, context = fitted(y, frame, past=["k"])
    blobs = Blobs()
    written = json.loads(json.dumps(to_json(covariates.to_state(), "covariates", blobs)))
    again = Covariates.from_state(from_json(written, blobs))
    assert isinstance(again, Covariates)
    rest = covariates.residual(context)
    assert_array_equal(again.residual(context).values, rest.values)
    assert_array_equal(again.lagged_effects([rest], 6), covariates.lagged_effects([rest], 6))
    assert again.columns == covariates.columns


# ---------------------------------------------------------------- columns


def test_numbers_stay_numbers_and_the_rest_become_categories():
    frame = pd.DataFrame(
        {
            "number": [1, 2],
            "truth": [True, False],
            "text": ["b", "a"],
            "kind": pd.Categorical([2, 1]),
            "mixed": pd.Series([1.5, None], dtype=object),
        }
    )
    columns = learn_columns(frame)
    assert columns.categories == (None, ("False", "True"), ("a", "b"), ("1", "2"), None)
    numbers = columns.read(frame, ["number"])
    assert numbers.dtype == float
    assert columns.read(frame, ["number", "truth"]).tolist() == [[1.0, "True"], [2.0, "False"]]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, r"row 1, column 'k' of X has no value"),
        ("z", r"row 1, column 'k' of X holds 'z', which was not seen .* one of 'a', 'b'"),
    ],
)
def test_a_category_that_cannot_be_used(value, told):
    columns = learn_columns(pd.DataFrame({"k": ["a", "b"]}))
    with pytest.raises(DataError, match=told):
        columns.read(pd.DataFrame({"k": ["a", value]}), ["k"])
    with pytest.raises(DataError, match=told.replace("row 1", "series 's', row 1")):
        columns.pick(np.array([["a"], [value]], dtype=object), ["k"], ["k"], series="s")


@pytest.mark.parametrize(
    ("value", "told"), [(np.nan, "has no value"), (np.inf, "holds inf"), ("x", "is no number")]
)
def test_a_number_that_cannot_be_used(value, told):
    columns = learn_columns(pd.DataFrame({"x": [1.0, 2.0]}))
    with pytest.raises(DataError, match=f"row 1, column 'x' of X .*{told}"):
        columns.read(pd.DataFrame({"x": pd.Series([1.0, value])}), ["x"])


def test_columns_that_cannot_be_used():
    with pytest.raises(DataError, match="column 'when' of X holds dates"):
        learn_columns(pd.DataFrame({"when": pd.date_range("2024", periods=2)}))
    listed = pd.DataFrame({"k": ["a", [1]]})
    with pytest.raises(DataError, match=r"row 1, column 'k' of X holds \[1\]: pass numbers"):
        learn_columns(listed).read(listed, ["k"])
    with pytest.raises(DataError, match=r"'tmep', which is no column of X: did you mean 'temp'"):
        learn_columns(pd.DataFrame({"temp": [1.0]}), past=["tmep"])
    with pytest.raises(DataError, match="the column '1' twice"):
        learn_columns(pd.DataFrame([[1.0, 2.0]], columns=[1, "1"]))
    columns = learn_columns(pd.DataFrame({"a": [1.0], "b": [2.0]}))
    with pytest.raises(DataError, match=r"shape \(steps, 2\), the columns a, b, found \(3, 1\)"):
        columns.pick(np.zeros((3, 1)), ["a", "b"], ["a", "b"])
