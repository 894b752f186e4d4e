"""Conformal calibration: exact ranks, coverage that holds, quantiles that never cross."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tsllm.context import Context
from tsllm.forecasters.learning import calibration_origins
from tsllm.forecasters.state import PendingForecasts
from tsllm.intervals.calibration import (
    LEVEL_GRID,
    MIN_WINDOWS,
    Scores,
    extend_steps,
    make_calibration,
)
from tsllm.intervals.conformal import conformal_quantile


def column(values):
    return np.sort(np.asarray(values, dtype=float))[:, None, None]


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_ranks_are_those_of_split_conformal_prediction(n, level):
    if n == 1:  # its negative is added
        pair = conformal_quantile(column([-1, 1]), np.array([[level]])).item()
        assert conformal_quantile(column([1]), np.array([[level]])).item() == pair
        return
    picked = conformal_quantile(column(range(1, n + 1)), np.array([[level]])).item()
    rank = math.ceil((n + 1) * level - 1e-9)
    if level < 0.5:
        rank = n + 1 - math.ceil((n + 1) * (1 - level) - 1e-9)
    if level == 0.5:
        assert picked == (n + 1) / 2
    elif 1 <= rank <= n:
        assert picked == rank
    else:
        assert picked < 1 if level < 0.5 else picked > n


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=40), st.floats(1, 8))
def test_intervals_widen_with_the_level_and_mirror(values, overlap):
    levels = np.array([0.6, 0.75, 0.9, 0.95, 0.975, 0.995])[:, None, None]
    upper = conformal_quantile(column(values), levels, overlap).ravel()
    assert (np.diff(upper) >= -1e-12).all()
    mirrored = conformal_quantile(-column(values)[::-1], 1 - levels, overlap).ravel()
    np.testing.assert_allclose(mirrored, -upper, atol=1e-9)
    beyond = levels.ravel() * (len(values) + overlap) > len(values) + 1e-6
    if len(set(values)) > 1:
        assert (np.diff(upper)[beyond[:-1]] > 0).all()


@pytest.mark.parametrize("n", [4, 8, 16])
def test_levels_beyond_the_sample_hold_their_share_of_normal_errors(n):
    rng = np.random.default_rng(n)
    errors, fresh = np.sort(rng.normal(size=(n, 1, 4000)), axis=0), rng.normal(size=(1, 4000))
    low, high = (conformal_quantile(errors, np.array(level)) for level in (0.025, 0.975))
    assert 0.94 < ((low <= fresh) & (fresh <= high)).mean() < 0.985


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 5))
def test_missing_errors_change_nothing(values, missing):
    padded = column([*values, *[np.nan] * missing])
    for level in (0.05, 0.3, 0.5, 0.8, 0.99):
        at = np.array([[level]])
        expected = conformal_quantile(column(values), at)
        assert conformal_quantile(padded, at) == pytest.approx(expected, rel=1e-9, abs=1e-9)


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


@settings(deadline=None, max_examples=50)
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
        calibration.warn_if_weak(5, [0.1, 0.9])


def test_good_calibrations_are_silent_and_weak_ones_say_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_calibration({"a": np.ones((50, 3, 1, 1))}, ()).warn_if_weak(3, [0.1, 0.9])
    with pytest.warns(UserWarning, match="5 held-out windows only"):
        make_calibration({"a": np.ones((5, 3, 1, 1))}, ()).warn_if_weak(3, [0.1, 0.9])
    with pytest.warns(UserWarning, match="too few held-out errors from step 9 on"):
        make_calibration({"a": np.ones((40, 12, 1, 1))}, (), spacings={"a": 1.0}).warn_if_weak(
            12, [0.1, 0.9]
        )
    with pytest.warns(UserWarning, match="rest on training windows"):
        make_calibration({"a": np.ones((50, 3, 1, 1))}, (), in_sample=True).warn_if_weak(
            3, [0.1, 0.9]
        )


@given(st.integers(2, 200), st.floats(1, 50), st.floats(0.51, 0.99))
def test_overlapping_windows_count_as_fewer(n, overlap, level):
    ordered = column(range(1, n + 1))
    shared = conformal_quantile(ordered, level, overlap).item()
    assert shared >= conformal_quantile(ordered, level).item()
    # The rank lies where that of n / overlap independent errors does, as a share of the sample.
    wanted = (n / overlap + 1) * level / (n / overlap)
    if wanted <= 1 - 1e-6:
        assert wanted * n - 1e-6 <= shared <= wanted * n + 1
    else:
        assert shared >= n
    mirrored = conformal_quantile(ordered, 1 - level, overlap).item()
    assert mirrored == pytest.approx(n + 1 - shared)


def test_coverage_of_overlapping_windows_is_nominal_on_average():
    # Errors of a random walk's h-step forecasts from neighbouring origins share h - 1 of their
    # h innovations.
    rng = np.random.default_rng(5)
    steps, horizon, repeats = 120, 12, 300
    inside = {1.0: [], math.inf: []}
    for _ in range(repeats):
        walk = rng.normal(size=steps + 4 * horizon).cumsum()
        windows = np.lib.stride_tricks.sliding_window_view(walk, horizon + 1)
        errors = (windows[:, 1:] - windows[:, :1])[..., None, None]  # (windows, horizon, 1, 1)
        for spacing, hits in inside.items():
            calibration = make_calibration({"a": errors[:steps]}, (), spacings={"a": spacing})
            low, high = calibration.quantiles(
                np.zeros((1, horizon, 1, 1)), np.ones((1, 1)), ["a"], [0.1, 0.9]
            )[0, :, 0].T
            fresh = errors[-1, :, 0, 0]
            hits.append((low <= fresh) & (fresh <= high))
    held, naive = (np.mean(inside[spacing], axis=0) for spacing in (1.0, math.inf))
    # 300 repetitions: a standard error of 0.023 at each step, of which the bound is three.
    assert_allclose(held, 0.8, atol=0.07)
    assert naive[-1] < held[-1] - 0.02


def test_adaptive_scores_make_room_and_widen_after_misses():
    scores = Scores(np.random.default_rng(4).normal(size=(60, 2, 1, 1)))
    calibration = make_calibration({"a": scores.errors}, (), spacings={"a": 1.0}, adaptive=True)
    calibration.follow("a")
    calibration.follow("new")
    adaptive = calibration.scores_of("a")
    before = adaptive.offsets(np.array([0.9]), ())[0, :, 0]
    for _ in range(20):
        miss = np.array([8.0, np.nan]).reshape(2, 1, 1)  # only the first step was observed
        adaptive.append(miss, adaptive.offsets(LEVEL_GRID, ()), ())
    after = adaptive.offsets(np.array([0.9]), ())[0, :, 0]
    assert after[0] > before[0] + 1
    assert adaptive.shifts[:, 1].any() == 0  # it only borrows from the first step
    assert adaptive.errors.shape == (60, 2, 1, 1)
    assert (adaptive.errors[-20:, 0] == 8.0).all()
    for other in (calibration.pooled, calibration.scores_of("new")):
        assert other.offsets(np.array([0.9]), ())[0, 0, 0] == before[0]


def test_scores_of_thinned_windows_keep_reaching_back():
    calibration = make_calibration(
        {"a": np.zeros((50, 1, 1, 1))}, (), spacings={"a": 4.0}, adaptive=True
    )
    scores = calibration.scores_of("a")
    for step in range(40):
        scores.append(np.full((1, 1, 1), step), scores.offsets(LEVEL_GRID, ()), ())
    assert scores.errors[-10:].ravel().tolist() == list(range(0, 40, 4))
    assert not scores.errors[:-10].any()


def stream_coverage(level_shift, adaptive, steps=700, horizon=6):
    """Follow a stream of random-walk errors whose mean jumps: (steps, horizon) of hits."""
    rng = np.random.default_rng(6)
    innovations = rng.normal(size=steps + 200 + horizon)
    walk = innovations.cumsum()
    windows = np.lib.stride_tricks.sliding_window_view(walk, horizon + 1)
    errors = (
        windows[:, 1:] - windows[:, :1] + level_shift * (np.arange(len(windows)) >= 500)[:, None]
    )
    calibration = make_calibration(
        {"a": errors[:200, :, None, None]}, (), spacings={"a": 1.0}, adaptive=adaptive
    )
    pending = PendingForecasts("a", horizon)
    hits = []
    for origin in range(200, len(errors)):
        truth = errors[origin]
        low, high = calibration.quantiles(
            np.zeros((1, horizon, 1, 1)), np.ones((1, 1)), ["a"], [0.1, 0.9]
        )[0, :, 0].T
        hits.append((low <= truth) & (truth <= high))
        if adaptive:
            # The forecast is -truth at each step, so that an observation of 0 gives these errors.
            scores = calibration.scores_of("a")
            pending.add(-truth[:, None, None], np.ones(1), scores.offsets(LEVEL_GRID, ()))
            pending.score(np.zeros((1, 1)), calibration)
    return np.array(hits)


@pytest.mark.parametrize("shift", [0.0, 6.0, -15.0])
@pytest.mark.long
def test_adaptive_intervals_keep_coverage_through_a_level_shift(shift):
    hits = stream_coverage(shift, adaptive=True)
    before, learning, after = hits[:300], hits[300:350], hits[350:]
    assert abs(before.mean() - 0.8) < 0.04
    # A horizon passes before the first miss of the last step is known.
    assert learning.mean() > 0.25
    assert abs(after.mean() - 0.8) < 0.04
    assert (abs(after.mean(axis=0) - 0.8) < 0.1).all()
    if shift:
        fixed = stream_coverage(shift, adaptive=False)
        assert fixed[350:].mean() < after.mean() - 0.2


def origins(n_series, steps, season):
    contexts = [Context(np.zeros(steps)) for _ in range(n_series)]
    return calibration_origins(contexts, [steps // 10] * n_series, season)


def test_large_panels_are_calibrated_at_the_hours_that_follow():
    # Nine windows a series are left: too few for scores of its own.
    for own in origins(414, 960, season=24):
        assert own.tolist() == [960 - 96, 960 - 72, 960 - 48, 960 - 24]
    # Without a season, with too short a held-out part, or in small panels they are spread evenly.
    assert len(origins(414, 960, season=1)[0]) == 9
    assert len(origins(414, 300, season=24)[0]) == 9
    single = origins(1, 960, season=24)[0]
    assert single.tolist() == list(range(864, 960))
