"""Weights of candidates: exact where the best combination is known, and their invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.errors import ModelFormatError
from tsllm.forecasters.combining import (
    BLOCK_WINDOWS,
    LEAST_WEIGHT,
    Combination,
    HeldOutForecasts,
    learn_combination,
    simplex_grid,
)


def windows(errors, *, series=None, actual=None):
    """Windows whose candidates have these errors, (windows, horizon, variables, candidates)."""
    count, horizon, variables, _ = errors.shape
    actual = np.zeros((count, horizon, variables)) if actual is None else actual
    series = np.zeros(count, dtype=int) if series is None else series
    return HeldOutForecasts(errors + actual[..., None], actual, np.ones((count, variables)), series)


def test_the_grid_is_the_whole_simplex():
    grid = simplex_grid(3)
    assert grid.shape == (66, 3)  # the ways to share ten tenths among three
    assert np.allclose(grid.sum(axis=1), 1) and grid.min() == 0
    assert len({tuple(point.round(6)) for point in grid}) == 66


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 30), st.integers(1, 9), st.integers(1, 2), st.integers(0, 99)
)
def test_weights_are_shares(candidates, count, horizon, variables, seed):
    rng = np.random.default_rng(seed)
    found = windows(
        rng.normal(size=(count, horizon, variables, candidates)), series=np.arange(count) % 2
    )
    combination = learn_combination(found, ["a", "b"])
    for series_id in ("a", "b", "unknown"):
        weights = combination.weights(series_id, horizon + 3, variables)
        assert weights.shape == (horizon + 3, variables, candidates)
        assert np.allclose(weights.sum(axis=-1), 1)
        assert weights.min() >= 0
        assert not ((weights > 0) & (weights < LEAST_WEIGHT)).any()


def test_opposite_errors_cancel():
    """The mean of a forecast that is 1 too high and one that is 1 too low has no error."""
    errors = np.ones((300, 4, 1, 2)) * [1.0, -1.0]
    assert learn_combination(windows(errors), ["a"]).pooled[0] == pytest.approx([0.5, 0.5])


def test_few_windows_are_shrunk_to_equal_weights():
    rng = np.random.default_rng(0)
    weights = []
    for count in (1, 10, 100, 1000):
        errors = rng.normal(size=(count, 3, 1, 2)) * [1.0, 5.0] + [0.0, 3.0]
        weights.append(learn_combination(windows(errors), ["a"]).mean_weights()[0])
    assert 0.5 <= weights[0] < 0.55 and weights == sorted(weights) and weights[-1] > 0.97


def test_blocks_of_the_horizon_have_their_own_weights():
    errors = np.ones((BLOCK_WINDOWS, 8, 1, 2))
    errors[:, :4, :, 1] = 9.0  # the second candidate is bad at the first steps
    errors[:, 4:, :, 0] = 9.0
    combination = learn_combination(windows(errors), ["a"])
    weights = combination.weights("a", 8, 1)[:, 0]
    assert weights[0, 0] > 0.8 and weights[-1, 1] > 0.8
    few = learn_combination(windows(errors[:-1]), ["a"])
    assert len(few.blocks) == 1


def test_a_series_with_enough_windows_has_its_own_weights():
    errors = np.ones((80, 2, 1, 2))
    series = np.repeat([0, 1], 40)
    errors[series == 0, ..., 1] = 5.0
    errors[series == 1, ..., 0] = 5.0
    combination = learn_combination(windows(errors, series=series), ["a", "b"])
    assert combination.weights("a", 2, 1)[0, 0, 0] > 0.7
    assert combination.weights("b", 2, 1)[0, 0, 1] > 0.7
    assert combination.weights("new", 2, 1)[0, 0] == pytest.approx([0.5, 0.5], abs=0.05)


def test_unobserved_and_constant_windows_do_not_count():
    errors = np.ones((30, 2, 1, 2)) * [1.0, 3.0]
    plain = windows(errors[:20])
    actual = np.zeros((30, 2, 1))
    actual[20:25] = np.nan
    more = windows(errors, actual=actual)
    more.scale[25:] = 0.0
    one, other = (learn_combination(w, ["a"]).pooled for w in (plain, more))
    assert one == pytest.approx(other)
    more.scale[:] = 0.0
    assert learn_combination(more, ["a"]).pooled[0] == pytest.approx([0.5, 0.5])


def test_state_is_exact():
    errors = np.random.default_rng(0).normal(size=(30, 4, 2, 3))
    combination = learn_combination(windows(errors, series=np.arange(30) % 2), [("x", 1), "b"])
    again = Combination.from_state(combination.to_state(), 3, 2)
    for series_id in (("x", 1), "b", None):
        assert np.array_equal(again.weights(series_id, 9, 2), combination.weights(series_id, 9, 2))


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": None},
        {"blocks": 3},
        {"blocks": np.array([1])},
        {"blocks": np.array([0, 0])},
        {"blocks": np.array([0.0])},
        {"pooled": None},
        {"pooled": np.ones((1, 2))},
        {"pooled": np.full((1, 3), np.nan)},
        {"series": np.ones((2, 1, 1, 3))},
        {"series": 1.0},
    ],
)
def test_damaged_weights_are_refused(change):
    state = {
        "blocks": np.array([0]),
        "pooled": np.ones((1, 3)) / 3,
        "ids": ["a", "b"],
        "series": np.ones((2, 2, 1, 3)) / 3,
    }
    assert set(Combination.from_state(state, 3, 2).series) == {"a", "b"}
    with pytest.raises(ModelFormatError, match="weights do not fit its 3 forecasts"):
        Combination.from_state(state | change, 3, 2)
