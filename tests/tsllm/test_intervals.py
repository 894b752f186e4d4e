"""Conformal calibration: exact ranks, coverage that holds, quantiles that never cross."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tsllm.intervals import (
    MIN_WINDOWS,
    Scores,
    conformal_quantile,
    extend_steps,
    make_calibration,
)


def column(values):
    return np.sort(np.asarray(values, dtype=float))[:, None, None]


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_ranks_are_those_of_split_conformal_prediction(n, level):
    picked = conformal_quantile(column(range(1, n + 1)), np.array([[level]])).item()
    if level > 0.5:
        assert picked == min(n, math.ceil((n + 1) * level - 1e-9))
    elif level < 0.5:
        assert picked == max(1, n + 1 - math.ceil((n + 1) * (1 - level) - 1e-9))
    else:
        assert picked == (n + 1) / 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 5))
def test_missing_errors_change_nothing(values, missing):
    padded = column([*values, *[np.nan] * missing])
    for level in (0.05, 0.3, 0.5, 0.8, 0.99):
        at = np.array([[level]])
        assert conformal_quantile(padded, at) == conformal_quantile(column(values), at)


def test_a_step_without_any_error_has_no_quantile():
    errors = np.full((4, 2, 1), np.nan)
    errors[:, 0] = 1.0
    assert_array_equal(conformal_quantile(errors, np.array(0.9)).ravel(), [1.0, np.nan])


def test_coverage_of_fresh_errors_is_nominal_on_average():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        errors = rng.standard_t(4, (60, 3, 1, 1))
        calibration = make_calibration({"a": errors}, ())
        low_high = calibration.quantiles(
            np.zeros((1, 3, 1, 1)), np.ones((1, 1)), ["a"], [0.1, 0.9]
        )[0, :, 0]
        fresh = rng.standard_t(4, 3)
        inside.append((low_high[:, 0] <= fresh) & (fresh <= low_high[:, 1]))
    # 400 repetitions: a standard error of 0.02 at each step.
    assert_allclose(np.mean(inside, axis=0), 0.8, atol=0.06)
    assert np.mean(inside) >= 0.78


@given(
    st.integers(0, 2**31),
    st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6, unique=True),
    st.sampled_from([(), (0.1, 0.5, 0.9), (0.5,)]),
    st.booleans(),
)
def test_quantiles_never_cross_and_keep_the_order_asked_for(seed, alphas, levels, adaptive):
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(45, 4, 2, 1 + len(levels)))
    errors[rng.random(errors.shape) < 0.2] = np.nan
    calibration = make_calibration({"a": errors}, levels, adaptive=adaptive)
    forecasts = np.sort(rng.normal(size=(2, 6, 2, 1 + len(levels))), axis=-1)
    given_order = calibration.quantiles(forecasts, np.ones((2, 2)), ["a", "new"], alphas)
    assert np.isfinite(given_order).all()
    assert (np.diff(given_order[..., np.argsort(alphas)], axis=-1) >= 0).all()
    sorted_order = calibration.quantiles(forecasts, np.ones((2, 2)), ["a", "new"], sorted(alphas))
    assert_array_equal(given_order[..., np.argsort(alphas)], sorted_order)


def test_a_series_with_few_windows_borrows_the_panels_scores():
    rng = np.random.default_rng(1)
    long = rng.normal(0, 1.0, (MIN_WINDOWS, 2, 1, 1))
    short = rng.normal(0, 9.0, (MIN_WINDOWS - 1, 2, 1, 1))
    calibration = make_calibration({"long": long, "short": short}, ())
    assert calibration.scores_of("long") is not calibration.pooled
    assert calibration.scores_of("short") is calibration.pooled
    assert calibration.scores_of("never seen") is calibration.pooled
    assert len(calibration.pooled.errors) == 2 * MIN_WINDOWS - 1


def test_intervals_follow_the_scale_of_the_context():
    errors = np.random.default_rng(2).normal(size=(100, 2, 1, 1))
    calibration = make_calibration({"a": errors}, ())
    forecasts = np.full((2, 2, 1, 1), 5.0)
    wide = calibration.quantiles(forecasts, np.array([[1.0], [10.0]]), ["a", "a"], [0.1, 0.9])
    assert_allclose((wide[1] - 5.0), (wide[0] - 5.0) * 10)


def test_conformalised_quantiles_correct_a_biased_head():
    rng = np.random.default_rng(3)
    observed = rng.normal(size=(500, 1, 1, 1))
    # The head claims -0.1, 0, 0.1 for its 10 %, 50 % and 90 % quantiles: far too narrow.
    head = np.array([0.0, -0.1, 0.0, 0.1])
    calibration = make_calibration({"a": observed - head}, (0.1, 0.5, 0.9))
    low, high = calibration.quantiles(
        head[None, None, None], np.ones((1, 1)), ["a"], [0.1, 0.9]
    ).ravel()
    assert_allclose([low, high], np.quantile(observed, [0.1, 0.9]), atol=0.05)
    # Levels outside and between those of the head are calibrated as well.
    low, high = calibration.quantiles(
        head[None, None, None], np.ones((1, 1)), ["a"], [0.02, 0.7]
    ).ravel()
    assert_allclose([low, high], np.quantile(observed, [0.02, 0.7]), atol=0.2)


def test_steps_beyond_the_calibrated_ones_widen_with_the_square_root():
    offsets = np.array([[1.0, 2.0, np.nan]])[:, :, None]
    widened = extend_steps(offsets, 8)[0, :, 0]
    assert_allclose(widened[:2], [1.0, 2.0])
    assert_allclose(widened[2:], 2.0 * np.sqrt(np.arange(3, 9) / 2))
    calibration = make_calibration({"a": np.ones((50, 2, 1, 1))}, ())
    with pytest.warns(UserWarning, match=r"calibrated for 2 steps .* prediction_length=5"):
        calibration.warn_if_weak(5)


def test_good_calibrations_are_silent_and_weak_ones_say_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_calibration({"a": np.ones((50, 3, 1, 1))}, ()).warn_if_weak(3)
    with pytest.warns(UserWarning, match="5 held-out windows only"):
        make_calibration({"a": np.ones((5, 3, 1, 1))}, ()).warn_if_weak(3)
    with pytest.warns(UserWarning, match="rest on training windows"):
        make_calibration({"a": np.ones((50, 3, 1, 1))}, (), in_sample=True).warn_if_weak(3)


def test_adaptive_scores_make_room_and_widen_after_misses():
    scores = Scores(np.random.default_rng(4).normal(size=(60, 2, 1, 1)))
    calibration = make_calibration({"a": scores.errors}, (), adaptive=True)
    calibration.follow("a")
    calibration.follow("new")
    adaptive = calibration.scores_of("a")
    before = adaptive.offsets(np.array([0.9]), ())[0, :, 0]
    for _ in range(20):
        miss = np.array([8.0, np.nan]).reshape(2, 1, 1)  # only the first step was observed
        adaptive.append(miss, ())
    after = adaptive.offsets(np.array([0.9]), ())[0, :, 0]
    assert after[0] > before[0] + 1
    assert after[1] == before[1]
    assert adaptive.errors.shape == (60, 2, 1, 1)
    assert (adaptive.errors[-20:, 0] == 8.0).all()
    for other in (calibration.pooled, calibration.scores_of("new")):
        assert other.offsets(np.array([0.9]), ())[0, 0, 0] == before[0]
