"""The losses against figures worked out by hand and against plain loops."""

import numpy as np
import pytest
import torch

from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.adapters.losses import elementwise_loss, next_segment_loss

LEVELS = (0.1, 0.5, 0.9)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", [[0.0, 0.25, 9.0], [4.0, 1.0, 0.0625]]),
        ("mae", [[0.0, 0.5, 3.0], [2.0, 1.0, 0.25]]),
        ("huber", [[0.0, 0.125, 2.5], [1.5, 0.5, 0.03125]]),
    ],
)
def test_point_losses_by_hand(name, expected):
    prediction = torch.tensor([[1.0, 2.5, -1.0], [0.0, 5.0, 0.25]])
    target = torch.tensor([[1.0, 2.0, 2.0], [2.0, 4.0, 0.0]])
    assert torch.equal(elementwise_loss(name, prediction, target), torch.tensor(expected))


def test_pinball_by_hand():
    # Errors target - prediction: 2, 1, -1 at levels 0.1, 0.5, 0.9 give 0.2, 0.5, 0.1.
    loss = elementwise_loss(
        "quantile", torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([2.0]), LEVELS
    )
    torch.testing.assert_close(loss, torch.tensor([0.8 / 3]))


def test_pinball_is_least_at_the_quantile():
    sample = torch.linspace(0, 1, 1001)
    grid = torch.linspace(0, 1, 101)
    for level in (0.1, 0.25, 0.9):
        losses = [
            elementwise_loss("quantile", g.expand(1001, 1), sample, (level,)).mean() for g in grid
        ]
        assert grid[int(torch.stack(losses).argmin())].item() == pytest.approx(level, abs=0.011)


@pytest.mark.parametrize(
    ("name", "shape", "levels", "message"),
    [
        ("rmse", (2, 3), (), "must be one of .*'rmse'"),
        ("mse", (2, 3), LEVELS, "only with it"),
        ("quantile", (2, 3, 3), (), "levels go with"),
        ("mse", (2, 1), (), r"\(2, 3\).*got \(2, 1\)"),
        ("quantile", (2, 3), LEVELS, r"\(2, 3, 3\).*got \(2, 3\)"),
        ("quantile", (2, 3, 2), (0.9, 0.1), "strictly increasing"),
    ],
)
def test_what_does_not_fit_is_refused(name, shape, levels, message):
    with pytest.raises(ValueError, match=message):
        elementwise_loss(name, torch.zeros(shape), torch.zeros(2, 3), levels)


def test_next_segment_loss_compares_with_the_series_shifted_by_one_segment():
    model = AutoTimesModel(None, token_length=3, width=8)
    values = torch.randn(4, 9 + 3, 2)
    total, count = next_segment_loss(model, values, loss="mae")
    forecast = model(values[:, :9]).detach()
    plain = sum(
        abs(float(forecast[b, t, c]) - float(values[b, t + 3, c]))
        for b, t, c in np.ndindex(4, 9, 2)
    )
    assert count == 4 * 9 * 2
    assert total.item() == pytest.approx(plain, rel=1e-5)


def test_the_loss_on_the_last_segment_counts_its_targets_only():
    model = AutoTimesModel(None, token_length=3, width=8)
    values, mask = torch.randn(4, 9 + 3, 2), torch.ones(4, 12, 2, dtype=torch.bool)
    mask[0, -1] = False
    total, count = next_segment_loss(model, values, mask=mask, last_only=True)
    forecast = model(values[:, :9], mask=mask[:, :9]).detach()
    errors = (forecast[:, -3:] - values[:, -3:]) ** 2
    assert count == 4 * 3 * 2 - 2
    assert total.item() == pytest.approx(errors[mask[:, -3:]].sum().item(), rel=1e-5)


@pytest.mark.parametrize(("loss", "quantiles"), [("mse", ()), ("huber", ()), ("quantile", LEVELS)])
def test_masked_targets_and_those_of_empty_segments_do_not_count(loss, quantiles):
    model = AutoTimesModel(None, token_length=2, width=8, quantiles=quantiles)
    mask = torch.rand(5, 8 + 2, 3) > 0.4
    mask[0, :4] = False  # two empty segments on the left
    mask[1, :, 2] = False  # a channel without any observation
    values = torch.where(mask, torch.randn(5, 10, 3), torch.nan)
    total, count = next_segment_loss(model, values, mask=mask, loss=loss)
    forecast = model(values[:, :8], mask=mask[:, :8]).detach()
    plain, counted = 0.0, 0
    for b, t, c in np.ndindex(5, 8, 3):
        segment = t // 2 * 2
        if mask[b, t + 2, c] and mask[b, segment : segment + 2, c].any():
            plain += float(
                elementwise_loss(loss, forecast[b, t, c], values[b, t + 2, c], quantiles)
            )
            counted += 1
    assert count == counted
    assert total.item() == pytest.approx(plain, rel=1e-5)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_mask_that_hides_nothing_gives_the_same_loss():
    model = AutoTimesModel(None, token_length=2, width=8)
    values = torch.randn(5, 8, 3)
    without = next_segment_loss(model, values)
    with_mask = next_segment_loss(model, values, mask=torch.ones_like(values).bool())
    assert torch.equal(without[0], with_mask[0])
    assert torch.equal(without[1], with_mask[1])


def test_timestamps_reach_the_model():
    model = AutoTimesModel(None, token_length=2, width=8, mix_timestamps=True)
    values, marks = torch.randn(2, 8, 3), torch.randn(6, 3, 8)
    total, _ = next_segment_loss(model, values, marks)
    expected = elementwise_loss("mse", model(values[:, :6], marks), values[:, 2:]).sum()
    torch.testing.assert_close(total, expected)


def test_the_loss_must_suit_the_model():
    values = torch.randn(2, 8, 1)
    with pytest.raises(ValueError, match="only with it"):
        next_segment_loss(AutoTimesModel(None, 2, width=8, quantiles=LEVELS), values, loss="mse")
    with pytest.raises(ValueError, match="levels go with"):
        next_segment_loss(AutoTimesModel(None, 2, width=8), values, loss="quantile")
