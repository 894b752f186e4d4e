"""Intervals of steps with few errors, and points that agree with their bands."""

import itertools
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_forecasters import season
from tsllm import AutoForecaster, LinearForecaster
from tsllm.forecasters.learning import held_out_steps
from tsllm.intervals.calibration import make_calibration
from tsllm.intervals.conformal import FEW_ERRORS, describe_steps, effective_counts

LEVELS = [0.025, 0.1, 0.5, 0.9, 0.975]


def walk_errors(rng, series, held_out, horizon):
    """Errors of a random walk's forecasts from each held-out origin, and those of the next one."""
    innovations = rng.normal(size=(series, held_out + horizon))
    walks = np.cumsum(np.pad(innovations, ((0, 0), (1, 0))), axis=1)
    past, future = walks[:, : held_out + 1], walks[:, held_out:]
    errors = {}
    for number in range(series):
        table = np.full((held_out, horizon), np.nan)
        for origin in range(held_out):
            seen = past[number, origin + 1 : origin + 1 + horizon] - past[number, origin]
            table[origin, : len(seen)] = seen
        errors[number] = table[..., None, None]
    return errors, future[:, 1:] - future[:, :1]


def first_warned(calibration, horizon):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        calibration.warn_if_weak(horizon, [0.025, 0.975])
    text = " ".join(str(one.message) for one in told)
    if "held-out windows only" in text:
        return 1
    found = re.search(r"from step (\d+) on", text)
    return int(found.group(1)) if found else math.inf


@pytest.mark.parametrize(
    ("series", "steps", "horizon"),
    list(itertools.product([1, 20, 200], [40, 115, 950], [6, 18, 48])),
)
def test_no_step_is_narrower_than_its_level_without_a_warning(series, steps, horizon):
    rng = np.random.default_rng([series, steps, horizon])
    origins = int(np.clip(150 // series, 1, 24))
    held_out = held_out_steps(steps, horizon, 0.1, origins)
    hits, repeats = [], {1: 60, 20: 12, 200: 2}[series]
    for _ in range(repeats):
        errors, fresh = walk_errors(rng, series, held_out, horizon)
        calibration = make_calibration(errors, (), spacings=dict.fromkeys(errors, 1.0))
        made = np.zeros((series, horizon, 1, 1))
        spread = calibration.quantiles(made, np.ones((series, 1)), list(errors), LEVELS)[:, :, 0]
        wide, narrow = spread[..., 4] - spread[..., 0], spread[..., 3] - spread[..., 1]
        assert (narrow > 0).all()
        assert (wide > narrow * (1 + 1e-6)).all()
        inside = [(spread[..., i] <= fresh) & (fresh <= spread[..., -1 - i]) for i in (0, 1)]
        hits.append(np.mean(inside, axis=1))  # (2, horizon)
    coverage, error = np.mean(hits, axis=0), np.std(hits, axis=0) / np.sqrt(repeats)
    named = first_warned(calibration, horizon)
    for level, held, doubt in zip((0.95, 0.8), coverage, error):
        low = held + 3 * np.maximum(doubt, 0.01) < level - 0.04
        assert not low[: min(horizon, named - 1)].any()
        assert held.mean() > level - 0.08  # nor far too narrow where it warns


@given(st.integers(1, 30), st.integers(2, 24), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_widths_grow_smoothly_where_errors_are_few(windows, horizon, seed):
    errors, _ = walk_errors(np.random.default_rng(seed), 1, windows, horizon)
    steps = describe_steps(errors[0][..., 0], np.zeros(windows, dtype=int), 1.0)
    few = steps.own[1:, 0] < FEW_ERRORS
    growth = steps.spread[1:, 0] / steps.spread[:-1, 0]
    assert (growth[few] >= 1 - 1e-9).all()
    assert (steps.count >= 1).all()
    calibration = make_calibration(errors, (), spacings={0: 1.0})
    spread = calibration.quantiles(np.zeros((1, horizon, 1, 1)), np.ones((1, 1)), [0], LEVELS)
    assert (np.diff(spread[0, :, 0], axis=-1) >= 0).all()
    assert np.isfinite(spread).all()


def test_a_series_borrows_the_shape_over_steps_from_its_panel():
    rng = np.random.default_rng(0)
    shape = np.array([1.0, 3.0, 1.5, 6.0])  # no power of the step
    panel = {f"s{i}": rng.normal(size=(60, 4)) * shape for i in range(30)}
    panel["large"] = 10 * rng.normal(size=(60, 4)) * shape
    panel["large"][2:, 2:] = np.nan  # its late steps have two errors
    errors = {name: one[..., None, None] for name, one in panel.items()}
    calibration = make_calibration(errors, ())
    found = calibration.scores_of("large").steps.spread[:, 0]
    expected = 10 * shape * np.sqrt(2 / np.pi)
    assert np.allclose(found, expected, rtol=0.35)


def test_overlapping_errors_count_as_fewer_but_each_series_counts():
    known = np.ones((40, 12, 1), dtype=bool)
    one, twenty = np.zeros(40, dtype=int), np.repeat(np.arange(20), 2)
    assert effective_counts(known, one, 1.0, overlap=2.0)[[0, 1, 11], 0].tolist() == [
        40,
        40,
        40 / 6,
    ]
    assert effective_counts(known, twenty, 1.0, overlap=2.0)[[0, 11], 0].tolist() == [40, 20]


@pytest.mark.parametrize(("shift", "least", "most"), [(3.0, 2.5, 3.2), (0.0, -0.15, 0.15)])
def test_a_median_error_corrects_the_point_as_far_as_the_errors_support_it(shift, least, most):
    rng = np.random.default_rng(1)
    errors = {i: rng.normal(size=(40, 4, 1, 1)) + shift for i in range(3)}
    calibration = make_calibration(errors, ())
    points = calibration.correct(np.zeros((1, 6, 1)), np.full((1, 1), 2.0), ["new"]) / 2.0
    assert (least <= points[0, :4]).all()
    assert (points[0, :4] <= most).all()
    in_sample = make_calibration(errors, (), in_sample=True)
    assert not in_sample.correct(np.zeros((1, 4, 1)), np.ones((1, 1)), ["new"]).any()


def test_an_error_that_changes_its_sign_corrects_nothing():
    errors = np.random.default_rng(2).normal(size=(40, 4, 1, 1)) * 0.1
    errors += np.where(np.arange(40) < 20, 1.0, -1.0)[:, None, None, None]
    calibration = make_calibration({"a": errors}, ())
    assert not calibration.correct(np.zeros((1, 4, 1)), np.ones((1, 1)), ["a"]).any()


@given(st.integers(2, 2000), st.integers(1, 400), st.floats(0.01, 0.5), st.integers(1, 24))
def test_the_horizon_is_held_out_as_far_as_the_series_allows_it(steps, horizon, share, origins):
    held = held_out_steps(steps, horizon, share, origins)
    assert held >= min(horizon, steps // 2) or steps - min(horizon, steps // 2) < 2
    assert steps - held >= 2 or held == 0
    assert held <= max(round(share * steps), steps // 2)
    assert held_out_steps(steps, horizon, 0, origins) == 0


FORECASTERS = [
    LinearForecaster(),
    LinearForecaster(adaptive=True),
    AutoForecaster(["seasonal_naive", "theta"], backbone=None, random_state=0),
]


@pytest.mark.filterwarnings("ignore:the intervals")
@pytest.mark.parametrize("forecaster", FORECASTERS, ids=["linear", "adaptive", "auto"])
def test_point_median_and_band_agree(forecaster):
    time = pd.period_range("2000-01", periods=90, freq="M")
    y = pd.Series(season(90) + 0.1 * np.arange(90) ** 1.3, index=time)
    fitted = forecaster.clone().fit(y[:80], fh=range(1, 9))
    for _ in range(2):
        point = fitted.predict()
        quantiles = fitted.predict_quantiles(alpha=LEVELS)
        np.testing.assert_array_equal(point.to_numpy().ravel(), quantiles.to_numpy()[:, 2])
        interval = fitted.predict_interval(coverage=[0.2, 0.8]).to_numpy()
        low, high = interval[:, ::2], interval[:, 1::2]
        assert (low <= point.to_numpy().reshape(-1, 1)).all()
        assert (high >= point.to_numpy().reshape(-1, 1)).all()
        fitted.update(y[80:84], update_params=False)
