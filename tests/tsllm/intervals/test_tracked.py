"""Calibrations of many series in arrays: the scores and offsets of `Scores`, one by one."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tsllm.intervals.calibration import LEVEL_GRID, Calibration, make_calibration
from tsllm.intervals.tracked import TrackedCalibration

HORIZON, VARIABLES = 4, 2
ALPHAS = np.array([0.1, 0.33, 0.5, 0.9])  # one of them is not on the grid


def calibration(levels=(), windows=(60, 60, 44, 7), spacing=1.0):
    """Make a calibration of four series; the last has too few windows for scores of its own."""
    rng = np.random.default_rng(0)
    errors = {}
    for name, number in zip("abcd", windows):
        one = rng.normal(size=(number, HORIZON, VARIABLES, 1 + len(levels)))
        one[-1, 2:] = np.nan
        errors[name] = np.sort(one, axis=-1)
    return make_calibration(errors, levels, spacings=dict.fromkeys(errors, spacing), adaptive=True)


def rounds(count, series, levels):
    """Make the errors of observations of some series, parts of them missing."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        places = rng.permutation(series)[: rng.integers(1, series + 1)]
        errors = rng.normal(size=(len(places), HORIZON, VARIABLES, 1 + len(levels)))
        errors[rng.random(errors.shape[:3]) < 0.2] = np.nan
        yield places, errors


@pytest.mark.parametrize("spacing", [1.0, 3.0])
@pytest.mark.parametrize("levels", [(), (0.1, 0.5, 0.9)])
def test_series_in_arrays_move_as_one_by_one(levels, spacing):
    names = ["d", "a", "x", "c", "b"]
    one_by_one = calibration(levels, spacing=spacing)
    for name in names:
        one_by_one.follow(name)
    tracked = TrackedCalibration(calibration(levels, spacing=spacing))
    tracked.add(names[:2])
    tracked.add(names[2:])
    turns = list(rounds(30, len(names), levels))
    for first in (0, 1, 13, 30):  # so many in one call
        some, turns = turns[:first], turns[first:]
        issued = [tracked.own_grid(places) + tracked.shifts_of(places) for places, _ in some]
        for one, pushed, offsets in zip(some, tracked.push(some), issued):
            tracked.move(one, pushed, offsets)
            for place, errors, bounds in zip(*one, offsets):
                one_by_one.scores_of(names[place]).append(errors, bounds, levels)
        for name in names:
            expected, found = one_by_one.scores_of(name), tracked.scores_of(name)
            assert_allclose(found.errors, expected.errors)
            assert_allclose(found.shifts, expected.shifts, atol=1e-12)
            assert found.turns == expected.turns
        assert_same_forecasts(tracked, one_by_one, names, levels)
    again = Calibration.from_state(tracked.to_state())
    assert_same_forecasts(again, one_by_one, names, levels)
    assert_same_forecasts(pickle.loads(pickle.dumps(tracked)), one_by_one, names, levels)


def assert_same_forecasts(found, expected, names, levels):
    rng = np.random.default_rng(2)
    for horizon in (HORIZON - 1, HORIZON + 2):
        shape = (len(names), horizon, VARIABLES, 1 + len(levels))
        values, scales = np.sort(rng.normal(size=shape)), rng.random((len(names), VARIABLES))
        for alphas in (ALPHAS, LEVEL_GRID[::3]):
            wanted = expected.quantiles(values, scales, names, alphas)
            assert_allclose(found.quantiles(values, scales, names, alphas), wanted, atol=1e-12)
        points = values[..., 0]
        wanted = expected.correct(points, scales, names)
        assert_allclose(found.correct(points, scales, names), wanted, atol=1e-12)


def test_the_calibration_that_it_is_made_of_stays_as_it_is():
    own = calibration()
    before = copy.deepcopy(own).to_state()
    tracked = TrackedCalibration(own)
    tracked.add(["a", "x"])
    one = np.array([0, 1]), np.ones((2, HORIZON, VARIABLES, 1))
    (pushed,) = tracked.push([one])
    tracked.move(one, pushed, np.zeros((2, len(LEVEL_GRID), HORIZON, VARIABLES)))
    assert (tracked.scores_of("a").errors[-1] == 1).all()
    after = own.to_state()
    assert before["series"].keys() == after["series"].keys()
    assert_allclose(after["series"]["a"]["errors"], before["series"]["a"]["errors"])
    assert_allclose(after["pooled"]["shifts"], before["pooled"]["shifts"])
