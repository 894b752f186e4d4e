"""Paired differences: exact values, and intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.evaluation.paired import estimate


def sums(errors):
    """Errors (seeds, windows) as sums and weights (seeds, 2, windows, horizons, variables)."""
    errors = np.atleast_2d(errors)
    return np.stack([errors, np.ones_like(errors)], axis=1)[..., None, None]


def compare(ours, others, *, series=None, when=None, horizon=1, **more):
    n = np.atleast_2d(ours).shape[1]
    return estimate(
        "mse",
        sums(ours),
        sums(others),
        series=np.zeros(n, dtype=int) if series is None else series,
        when=np.arange(n) if when is None else when,
        horizon=horizon,
        **more,
    )


def overlapping(rng, windows, horizon, memory=0.5):
    """Mean squared errors of overlapping windows of one autocorrelated error: their mean is 1."""
    steps = windows + horizon - 1
    noise = rng.normal(size=steps + 50) * np.sqrt(1 - memory**2)
    errors = np.zeros(steps + 50)
    for step in range(1, steps + 50):
        errors[step] = memory * errors[step - 1] + noise[step]
    return np.convolve(errors[50:] ** 2, np.ones(horizon) / horizon, "valid")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    windows=st.integers(8, 60),
    seeds=st.sampled_from([(1, 1), (3, 3), (3, 1), (1, 2)]),
    horizon=st.integers(1, 4),
    scale=st.floats(0.01, 100.0),
)
def test_value_mirror_and_units(seed, windows, seeds, horizon, scale):
    rng = np.random.default_rng(seed)
    ours, others = (rng.gamma(2.0, size=(count, windows)) for count in seeds)
    found = compare(ours, others, horizon=horizon)
    assert found.value[0] == pytest.approx(ours.mean() - others.mean())
    assert found.value[1] == pytest.approx(ours.mean() / others.mean() - 1)
    assert found.seeds == max(seeds)
    if found.blocks >= 2:
        assert (found.lower <= found.value).all()
        assert (found.value <= found.upper).all()
    else:
        assert np.isnan([found.lower, found.upper]).all()
    back = compare(others, ours, horizon=horizon)
    assert [back.value[0], back.lower[0], back.upper[0]] == pytest.approx(
        [-found.value[0], -found.upper[0], -found.lower[0]], nan_ok=True
    )
    # in other units the relative difference is the same
    other = compare(scale * ours, scale * others, horizon=horizon)
    for one, two in ((found.value, other.value), (found.lower, other.lower)):
        assert two == pytest.approx(one * [scale, 1], nan_ok=True, rel=1e-6, abs=1e-9)
    # windows may come in any order
    order = rng.permutation(windows)
    shuffled = compare(ours[:, order], others[:, order], when=order, horizon=horizon)
    assert shuffled.upper == pytest.approx(found.upper, nan_ok=True)


def test_equal_methods_have_a_difference_of_exactly_none():
    errors = np.random.default_rng(0).gamma(2.0, size=(3, 40))
    found = compare(errors, errors)
    assert not np.any([found.value, found.lower, found.upper])


@pytest.mark.parametrize(("windows", "horizon"), [(60, 1), (120, 12), (400, 12)])
def test_intervals_hold_a_known_difference_in_about_95_of_100_cases(windows, horizon):
    rng = np.random.default_rng(1)
    truth, held, repeats = 0.05, 0, 300
    for _ in range(repeats):
        errors = overlapping(rng, windows, horizon)
        plus, minus = (overlapping(rng, windows, horizon) for _ in range(2))
        found = compare(errors + 0.3 * (plus - minus) + truth, errors, horizon=horizon)
        held += found.lower[0] <= truth <= found.upper[0]
    assert 0.90 <= held / repeats <= 0.99


def test_intervals_over_seeds_hold_the_mean_over_all_seeds():
    rng = np.random.default_rng(2)
    held, repeats = 0, 300
    for _ in range(repeats):
        windows = overlapping(rng, 80, 4)
        # what a seed changes is the same in all windows
        ours = windows + rng.normal(0, 0.1, size=(3, 1)) + rng.normal(0, 0.1, size=(3, 80))
        others = windows + rng.normal(0, 0.1, size=(3, 1)) + rng.normal(0, 0.1, size=(3, 80))
        found = compare(ours, others, horizon=4)
        held += found.lower[0] <= 0 <= found.upper[0]
    assert 0.90 <= held / repeats <= 0.99
    # the windows alone would never have told that the seeds differ
    alone = compare(ours.mean(axis=0), others.mean(axis=0), horizon=4)
    assert alone.upper[0] - alone.lower[0] < 0.5 * (found.upper[0] - found.lower[0])


def test_series_that_move_together_tell_no_more_than_one():
    rng = np.random.default_rng(3)
    ours, others = rng.gamma(2.0, size=(2, 60))
    alone = compare(ours, others)
    copies = compare(
        np.tile(ours, 5), np.tile(others, 5),
        series=np.repeat(np.arange(5), 60), when=np.tile(np.arange(60), 5),
    )  # fmt: skip
    np.testing.assert_allclose(copies.lower, alone.lower)
    apart = compare(np.tile(ours, 5), np.tile(others, 5))
    assert apart.lower[0] > copies.lower[0]


def test_blocks_span_two_horizons_of_steps_and_many_short_series_are_resampled_whole():
    errors = np.random.default_rng(4).gamma(2.0, size=(2, 80))
    assert compare(*errors, horizon=8).block_length == 16
    assert compare(*errors, horizon=8, when=4 * np.arange(80)).block_length == 9  # the root
    few = compare(*errors, horizon=8, when=np.tile([0, 1], 40), series=np.arange(80) // 2)
    assert (few.unit, few.blocks, few.block_length) == ("series", 40, 1)
    assert np.isfinite(few.lower).all()
