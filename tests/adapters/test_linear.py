"""The linear map against plain recomputations, and what its forecasts must be invariant to."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.adapters import linear
from tsllm.adapters.linear import (
    SCALE_FLOOR,
    LinearModel,
    changes_from_last,
    moments,
    regression_rows,
    solve_ridge,
)

CONTEXT, HORIZON = 6, 3


def drawn(batch=50, variables=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CONTEXT + HORIZON, variables, generator=generator)


def rows_in_numpy(values, mask):
    """Each row from its definition, window by window and variable by variable."""
    rows = []
    for window, seen in zip(values.numpy(), mask.numpy()):
        for v in range(window.shape[1]):
            past, kept = window[:CONTEXT, v], seen[:CONTEXT, v]
            if not kept.any():
                continue
            last = past[kept][-1]
            scale = past[kept].std() + SCALE_FLOOR
            inputs = np.where(kept, past - last, 0.0) / scale
            targets = (window[CONTEXT:, v] - last) / scale
            rows.append((inputs, np.where(seen[CONTEXT:, v], targets, 0.0), seen[CONTEXT:, v]))
    return [np.stack(part) for part in zip(*rows)]


def test_rows_are_changes_from_the_last_value_in_units_of_the_window():
    values = drawn()
    mask = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[0] = False  # never observed: no row
    values = torch.where(mask, values, 0.0)
    found = regression_rows(values, mask, CONTEXT)
    for ours, plain in zip(found, rows_in_numpy(values, mask)):
        np.testing.assert_allclose(ours.numpy(), plain, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_map_is_the_mean_of_two_ridge_regressions(penalty):
    values = drawn()
    rows = regression_rows(values, torch.ones_like(values, dtype=torch.bool), CONTEXT)
    x, y = rows.inputs.double().numpy(), rows.targets.double().numpy()
    expected = np.zeros((CONTEXT, HORIZON))
    for length in (CONTEXT, CONTEXT // 2):
        own = x[:, -length:]
        size = (own**2).mean(axis=0).mean() * penalty
        # Ridge as ordinary least squares on rows that pull each weight to zero.
        more = np.sqrt(size * len(own)) * np.eye(length)
        weights = np.linalg.lstsq(
            np.vstack([own, more]), np.vstack([y, np.zeros((length, HORIZON))]), rcond=None
        )[0]
        expected[-length:] += weights / 2
    (found,) = solve_ridge(moments([rows]), [penalty])
    np.testing.assert_allclose(found.numpy(), expected.T, atol=1e-6)


def test_moments_do_not_depend_on_the_batches():
    values = drawn()
    mask = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    whole = moments([regression_rows(values, mask, CONTEXT)])
    parts = moments(regression_rows(v, m, CONTEXT) for v, m in zip(values.split(7), mask.split(7)))
    for one, other in zip(whole, parts):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_missing_targets_do_not_pull_the_map_to_zero(monkeypatch):
    monkeypatch.setattr(linear, "CONTEXT_PARTS", (1,))
    values = drawn(batch=4000, variables=1)
    values[:, CONTEXT:] = (
        2 * values[:, CONTEXT - 1 : CONTEXT] - values[:, CONTEXT - 2 : CONTEXT - 1]
    )
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[::2, CONTEXT:] = False
    found = moments([regression_rows(torch.where(mask, values, 0.0), mask, CONTEXT)])
    (weight,) = solve_ridge(found, [1e-9])
    # last - before = -(before - last)
    expected = torch.zeros(HORIZON, CONTEXT, dtype=torch.float64)
    expected[:, -2] = -1.0
    torch.testing.assert_close(weight, expected, atol=0.1, rtol=0)


@given(
    shift=st.floats(-100, 100),
    scale=st.floats(-100, 100),
    seed=st.integers(0, 100),
)
@settings(max_examples=20, deadline=None)
def test_forecasts_shift_scale_and_flip_with_the_series(shift, scale, seed):
    model = LinearModel(CONTEXT, HORIZON).double()
    with torch.no_grad():
        model.weight.normal_(generator=torch.Generator().manual_seed(seed))
    x = drawn(batch=2, seed=seed)[:, :CONTEXT].double()
    torch.testing.assert_close(model(scale * x + shift), scale * model(x) + shift)


def test_unobserved_steps_have_no_influence():
    model = LinearModel(CONTEXT, HORIZON)
    with torch.no_grad():
        model.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = drawn(batch=3)[:, :CONTEXT]
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, -1], mask[1, 2], mask[2] = False, False, False
    other = torch.where(mask, x, float("nan"))
    torch.testing.assert_close(model(x, mask=mask), model(other, mask=mask))
    changes, last = changes_from_last(x, mask)
    assert torch.equal(last[0, 0], x[0, -2])
    assert not changes[2].any() and not last[2].any()


def test_a_new_map_repeats_the_last_value():
    x = drawn(batch=2)[:, :CONTEXT]
    forecast = LinearModel(CONTEXT, HORIZON)(x)
    torch.testing.assert_close(forecast, x[:, -1:].expand(-1, HORIZON, -1))
