import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.errors import ModelFormatError
from tsllm.text.panel import (
    Panel,
    PanelProfiles,
    ValueScale,
    learn_priors,
    own_weight,
    panel_form,
)
from tsllm.text.profiles import Profile

QUARTERLY = Profile(4)
HORIZON, ORIGINS = 3, 2
STEPS = QUARTERLY.window + ORIGINS * HORIZON


def a_panel(*, factor=1.0, rows=24, seed=0):
    """Return a panel of quarterly series whose level follows their two-dimensional vectors."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, 2))
    steps = np.arange(1 - STEPS, 1)
    season = 0.2 * np.sin(np.pi / 2 * steps)
    logs = 3 + vectors @ [1.0, 0.3] + rng.normal(0, 0.05, (STEPS, rows)) + season[:, None]
    values = factor * np.exp(logs.T)[..., None]
    usual = np.abs(values[:, 4:] - values[:, :-4]).mean(axis=1)
    return Panel(values, usual, QUARTERLY, HORIZON), vectors


def nothing(rows, origin, count):
    return np.full((len(rows), HORIZON, 1), np.nan)


def profiles(panel, vectors, own=nothing):
    return PanelProfiles(QUARTERLY, learn_priors(panel, vectors, ORIGINS, own), None)


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-3, 1e6))
def test_series_in_other_units_are_forecast_in_these_units(factor):
    panel, vectors = a_panel()
    other, _ = a_panel(factor=factor)
    past = panel.values[0, -2:]
    for seen in (past, np.full((1, 1), np.nan)):
        known = (0, vectors[0], None, 4, (0.1, 0.9))
        found = profiles(panel, vectors).forecast(seen, *known)
        scaled = profiles(other, vectors).forecast(seen * factor, *known)
        np.testing.assert_allclose(scaled, found * factor, rtol=1e-6)


def test_the_vector_tells_the_level_of_a_series_without_values():
    found = profiles(*a_panel())
    prior = found.by_text[0]
    assert prior.scale == ValueScale(0.0)
    assert prior.regression.chosen[0][2] < 0.05
    for vector in np.eye(2):
        made = found.forecast(np.full((1, 1), np.nan), 0, vector, None, 4)[:, 0, 0]
        assert np.log(made).mean() == pytest.approx(3 + vector @ [1.0, 0.3], abs=0.1)


def truth(panel):
    def own(rows, origin, count):
        end = STEPS + origin
        return panel.values[list(rows), end : end + HORIZON]

    return own


def test_the_weight_of_own_forecasts_follows_their_errors():
    panel, vectors = a_panel()
    assert profiles(panel, vectors).by_text[0].half_weight == math.inf
    assert profiles(panel, vectors, truth(panel)).by_text[0].half_weight == 0
    noise = np.random.default_rng(0)

    def poor(rows, origin, count):
        return truth(panel)(rows, origin, count) * noise.lognormal(0, 3, (len(rows), HORIZON, 1))

    assert profiles(panel, vectors, poor).by_text[0].half_weight == math.inf


@given(st.sampled_from([0.0, 0.5, 8.0, math.inf]), st.integers(1, 36))
def test_the_weight_of_an_own_forecast_is_none_without_values_and_whole_with_many(half, enough):
    weights = [own_weight(half, count, enough) for count in range(enough + 1)]
    assert weights[0] == 0
    assert weights[-1] == 1
    assert weights == sorted(weights)


@pytest.mark.parametrize("values", [[1.0, 20.0, 3e5], [0.0, 4.0, 9.0], [-3.0, 0.0, 5.0]])
def test_values_come_back_from_every_scale_that_is_possible(values):
    scales = ValueScale.possible(np.array([*values, np.nan]))
    assert len(scales) == (1 if min(values) < 0 else 2)
    for scale in scales:
        np.testing.assert_allclose(
            scale.backward(scale.forward(np.array(values))), values, atol=1e-9
        )


@pytest.mark.parametrize(
    "rows, seen, season, expected",
    [
        (10, 60, 4, (4, 6, 3)),
        (10, 9, 4, (4, 1, 1)),  # two seasons and a step
        (10, 7, 4, (1, 2, 1)),  # no two seasons
        (10, 5, 4, None),
        (7, 60, 4, None),
    ],
)
def test_a_short_panel_has_a_simpler_form_and_a_small_one_none(rows, seen, season, expected):
    values = np.full((rows, 70, 1), np.nan)
    values[:, -seen:] = 1.0
    found = panel_form(values, season, 6)
    if expected is None:
        assert found is None
    else:
        form, horizon, origins = found
        assert (form.season, horizon, origins) == expected


def test_a_state_restores_the_profiles_and_a_damaged_one_is_refused():
    panel, vectors = a_panel()
    found = profiles(panel, vectors, truth(panel))
    again = PanelProfiles.from_state(found.to_state())
    known = (panel.values[0, -2:], 0, vectors[0], panel.values[0, :4], 4, (0.1, 0.9))
    np.testing.assert_array_equal(again.forecast(*known), found.forecast(*known))
    for name, value in (("covariance", np.full((5, 5), np.nan)), ("counts", [1, 2, 3, 4, 8])):
        state = found.to_state()
        state["by_text"][0] |= {name: value}
        with pytest.raises((ModelFormatError, ValueError)):
            PanelProfiles.from_state(state)


@pytest.mark.parametrize(
    "change",
    [
        {"season": 0},
        {"season": 3},
        {"season": True},
        {"by_text": None},
        {"by_text": []},
        *(
            {"by_text": [change]}
            for change in (
                {"scale": "x"},
                {"scale": np.nan},
                {"scores": [None], "counts": [0]},
                {"scores": [np.zeros(3)], "counts": [0]},
                {"scores": [np.full((9, 2), np.inf)], "counts": [0]},
                {"scores": [np.zeros((9, 2)), np.zeros((9, 3))], "counts": [0, 1]},
                {"counts": ["x"] * 3},
                {"counts": [-1, 1, 2]},
                {"origins": 0},
                {"half_weight": np.nan},
                {"covariance": np.eye(2)},
            )
        ),
    ],
)
def test_damaged_profiles_are_refused(change):
    terms = Profile(4).n_terms
    prior = {
        "scale": None,
        "regression": {
            "centre": np.zeros(2),
            "means": np.zeros(terms + 1),
            "weights": np.zeros((2, terms + 1)),
            "chosen": ((0, np.inf, 1.0),),
        },
        "covariance": np.eye(terms),
        "half_weight": np.inf,
        "scores": [np.zeros((9, 2))] * 3,
        "counts": [0, 1, 2],
        "origins": 1,
        "error": 1.0,
    }
    whole = {"season": 4, "by_text": [prior], "without_text": None}
    assert PanelProfiles.from_state(whole).form.season == 4
    if change.get("by_text"):
        change = {"by_text": [prior | change["by_text"][0]]}
    with pytest.raises(ModelFormatError):
        PanelProfiles.from_state(whole | change)
