"""Effects of texts: found where they are, nothing by chance, no text of a later step."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tsllm.covariates import text_fitting
from tsllm.covariates.text_fitting import TextSeries, fit_texts
from tsllm.covariates.texts import RECENT, TextEffects, TextWindow, fitted_steps
from tsllm.errors import ModelFormatError
from tsllm.saving.typed_json import Blobs, from_json, to_json
from tsllm.text import make_encoder

STEPS, HORIZON, WINDOW = 400, 4, 12
SALE, QUIET, STRIKE = "A sale today.", "Nothing planned.", "Strike. All closed."
NEWS = np.array([SALE, QUIET, STRIKE, None], dtype=object)
EFFECT = np.array([5.0, 0.0, -8.0, 0.0])


def promoted(seed=0, steps=STEPS):
    """A season and noise, and texts that move the step that they stand at."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, steps)
    y = (
        50
        + 3 * np.sin(np.arange(steps) * 2 * np.pi / 7)
        + EFFECT[kinds]
        + rng.normal(0, 0.3, steps)
    )
    return y, NEWS[kinds]


def drifting(seed=0, steps=900):
    """A random walk whose texts tell in which direction it moves next."""
    rng = np.random.default_rng(seed)
    up = rng.integers(0, 2, steps)
    words = np.array(["It falls.", "It rises."], dtype=object)
    return np.cumsum(2.0 * up - 1 + rng.normal(0, 0.3, steps)), words[up]


def fitted(y, texts, *, n_known=1, block=WINDOW, horizon=HORIZON, **options):
    series = [TextSeries(y[:, None], np.array([y.std()]), [texts])]
    encoder = make_encoder("tfidf", texts.tolist())
    return fit_texts(
        series, encoder, n_known=n_known, window=WINDOW, horizon=horizon, block=block, **options
    )


def window_at(y, texts, origin, horizon=HORIZON):
    near, ahead = texts[origin - RECENT : origin], texts[origin : origin + horizon]
    past = y[:origin, None]
    return TextWindow(past, np.array([y.std()]), np.array([y.mean()]), [near], [ahead])


def test_texts_that_move_one_step_are_effects_on_the_same_step():
    y, texts = promoted()
    effects = fitted(y, texts)
    assert effects.now.any()
    assert effects.explained[0] > 0.9
    (found,) = effects.now_effects([[NEWS]])
    assert_allclose((found[:, 0] - found[1, 0]) * y.std(), EFFECT - EFFECT[1], atol=0.5)


def test_texts_that_tell_where_a_series_goes_are_effects_on_steps_ahead():
    y, texts = drifting()
    effects = fitted(y[:800], texts[:800])
    assert not effects.now.any()
    ends = np.arange(800, 890)
    windows = [window_at(y, texts, int(end)) for end in ends]
    found = effects.effects(windows, HORIZON)[..., 0]
    moved = np.stack([y[end : end + HORIZON] - y[end - 1] for end in ends])
    assert np.corrcoef(found.ravel(), moved.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("make", [promoted, drifting])
@pytest.mark.parametrize("seed", [1, 2])
def test_shuffled_texts_have_next_to_no_effect(make, seed):
    y, texts = make(seed)
    shuffled = np.random.default_rng(seed).permutation(texts)
    effects = fitted(y, shuffled)
    assert effects.explained[0] < 0.02
    found = effects.effects([window_at(y, shuffled, 300)], HORIZON)
    assert np.abs(found).max() < 0.3 * y.std()


@pytest.mark.parametrize("make", [promoted, drifting])
def test_no_step_reads_a_later_text(make):
    y, texts = make()
    effects = fitted(y, texts)
    assert effects.used
    before = effects.effects([window_at(y, texts, 100)], HORIZON)[0]
    for step in range(1, HORIZON):
        changed = texts.copy()
        changed[100 + step :] = [SALE, "It rises.", STRIKE, None, "?"][step]
        after = effects.effects([window_at(y, changed, 100)], HORIZON)[0]
        assert_array_equal(after[:step], before[:step])


def test_past_columns_read_no_text_ahead():
    y, texts = drifting()
    leading = np.append(texts[1:], None)  # the text of the next step is known now
    effects = fitted(y, leading, n_known=0)
    assert effects.explained[0] > 0.05
    before = effects.effects([window_at(y, leading, 200)], HORIZON)
    changed = leading.copy()
    changed[200:] = np.random.default_rng(0).permutation(leading[200:])
    assert_array_equal(effects.effects([window_at(y, changed, 200)], HORIZON), before)


def test_the_errors_of_any_forecaster_are_corrected():
    y, texts = promoted()
    origins = np.arange(50, STEPS - HORIZON)
    level = np.full((len(origins), HORIZON, 1), y.mean())
    scale = np.array([y.std()])
    one = TextSeries(y[:, None], scale, [texts], origins=origins, forecasts=level)
    encoder = make_encoder("tfidf", texts.tolist())
    effects = fit_texts([one], encoder, n_known=1, window=WINDOW, horizon=HORIZON)
    windows = [window_at(y, texts, int(origin)) for origin in origins]
    actual = np.stack([y[origin : origin + HORIZON] for origin in origins])
    left = actual - level[..., 0] - effects.effects(windows, HORIZON)[..., 0]
    assert (left**2).mean() < 0.4 * ((actual - level[..., 0]) ** 2).mean()


def test_a_batch_is_computed_as_each_alone():
    y, texts = drifting()
    effects = fitted(y, texts)
    windows = [window_at(y, texts, origin) for origin in (3, 60, 300)]
    alone = np.concatenate([effects.effects([one], HORIZON) for one in windows])
    assert_allclose(effects.effects(windows, HORIZON), alone, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(horizon=st.integers(1, 20), origin=st.integers(1, 300))
def test_shares_of_texts_sum_up_to_the_share_of_their_column(horizon, origin):
    effects = EFFECTS
    window = window_at(*DRIFT, max(origin, RECENT), horizon)
    shares = effects.shares([window], horizon, explaining=True)[0]
    (each,) = effects.shares_of_texts(window, horizon)
    assert each.shape == (horizon, RECENT + horizon, 1)
    assert_allclose(each.sum(axis=1), shares[..., 0], atol=1e-9)


DRIFT = drifting()
EFFECTS = fitted(*DRIFT, horizon=15)


def test_units_of_the_series_do_not_matter():
    y, texts = drifting()
    found = fitted(y, texts).effects([window_at(y, texts, 300)], HORIZON)
    other = 1000 * y + 5e4
    again = fitted(other, texts).effects([window_at(other, texts, 300)], HORIZON)
    assert_allclose(again / 1000, found, rtol=1e-5, atol=1e-6)


def test_gaps_short_series_and_constants_have_no_effect():
    y, texts = promoted()
    assert not fitted(np.full(STEPS, 3.0), texts).used
    short = fitted(y[:15], texts[:15])
    assert not short.learnt
    assert not short.effects([window_at(y, texts, 12)], HORIZON).any()
    gappy = y.copy()
    gappy[::9] = np.nan
    spread = np.array([np.nanstd(y)])
    series = [TextSeries(gappy[:, None], spread, [texts])]
    encoder = make_encoder("tfidf", texts.tolist())
    effects = fit_texts(series, encoder, n_known=1, window=WINDOW, horizon=2, block=WINDOW)
    assert effects.now.any()


def test_a_panel_of_many_series_is_read_at_evenly_spaced_origins(monkeypatch):
    monkeypatch.setattr(text_fitting, "MAX_ORIGINS", 50)
    y, texts = promoted()
    scale = np.array([y.std()])
    parts = [TextSeries(y[i : i + 20, None], scale, [texts[i : i + 20]]) for i in range(380)]
    origins = text_fitting._origins_of(parts, 4, HORIZON)
    assert len(origins) == len(parts)
    assert 40 <= sum(map(len, origins)) <= 50
    assert all((some >= 4).all() and (some <= 16).all() for some in origins)


def test_all_texts_missing():
    y, _ = promoted()
    effects = fitted(y, np.full(STEPS, None, dtype=object))
    assert not effects.used
    assert not effects.effects([window_at(y, np.full(STEPS, None, dtype=object), 50)], 3).any()


@pytest.mark.parametrize("horizon", [1, 12, 13, 96, 720])
def test_fitted_steps_reach_from_the_first_to_the_last(horizon):
    steps = fitted_steps(horizon)
    assert (steps[0], steps[-1]) == (1, horizon)
    assert len(steps) <= 12
    assert (np.diff(steps) > 0).all()


def test_weights_between_fitted_steps_are_interpolated():
    effects = EFFECTS
    assert 13 not in effects.steps
    low, high = effects.steps[effects.steps < 13][-1], effects.steps[effects.steps > 13][0]
    ends = effects.weights_at(np.array([low, high]))
    share = (13 - low) / (high - low)
    between = effects.weights_at(np.array([13]))[0]
    assert_allclose(between, (1 - share) * ends[0] + share * ends[1])


@pytest.mark.parametrize("make", [promoted, drifting])
def test_effects_survive_files_bit_for_bit(make):
    y, texts = make()
    effects, blobs = fitted(y, texts), Blobs()
    written = json.loads(json.dumps(to_json(effects.to_state(), "texts", blobs)))
    again = TextEffects.from_state(from_json(written, blobs), effects.encoder)
    windows = [window_at(y, texts, 100, 6)]
    assert_array_equal(again.effects(windows, 6), effects.effects(windows, 6))
    for changed in (
        {"weights": effects.weights[:, :-1]},
        {"levels": effects.levels.T},
        {"levels": effects.levels[0]},
        {"window": 0},
    ):
        with pytest.raises(ModelFormatError, match="do not fit"):
            TextEffects.from_state({**effects.to_state(), **changed}, effects.encoder)
    other = make_encoder("tfidf", ["quite other words", "other words"])
    with pytest.raises(ModelFormatError, match="do not fit"):
        TextEffects.from_state(effects.to_state(), other)
    with pytest.raises(ModelFormatError, match="NaN or infinite"):
        TextEffects.from_state({**effects.to_state(), "now": effects.now * np.nan}, effects.encoder)
