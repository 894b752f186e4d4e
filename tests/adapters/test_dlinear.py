"""DLinear against a plain recomputation, and what its forecasts must be invariant to."""

import numpy as np
import pytest
import torch

from tsllm.adapters.baselines import DLinearModel, moving_average


def plain_moving_average(series, kernel):
    """Average with loops; positions outside take the nearest value: a list."""
    side, last = kernel // 2, len(series) - 1
    return [
        sum(series[min(max(t + k, 0), last)] for k in range(-side, side + 1)) / kernel
        for t in range(len(series))
    ]


def plain_forecast(model, window):
    """Forecast one channel in float64: (horizon,)."""
    weights = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    mean, std = np.mean(window), np.sqrt(np.var(window) + 1e-5)
    normal = (np.array(window) - mean) / std
    trend = np.array(plain_moving_average(normal, model.kernel_size))
    out = weights["seasonal.weight"] @ (normal - trend) + weights["seasonal.bias"]
    out += weights["trend.weight"] @ trend + weights["trend.bias"]
    return out * std + mean


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("length", [1, 4, 20])
def test_the_moving_average_equals_a_loop(kernel, length):
    series = torch.randn(2, 3, length, dtype=torch.float64)
    got = moving_average(series, kernel)
    for b, c in np.ndindex(2, 3):
        expected = plain_moving_average(series[b, c].tolist(), kernel)
        np.testing.assert_allclose(got[b, c], expected, rtol=1e-12, atol=1e-12)


def test_the_forecast_equals_a_plain_recomputation():
    torch.manual_seed(0)
    model = DLinearModel(12, 5, kernel_size=5)
    x = torch.randn(3, 12, 2) * torch.tensor([1.0, 30.0]) + 7
    out = model(x)
    for b, c in np.ndindex(3, 2):
        expected = plain_forecast(model, x[b, :, c].double().numpy())
        np.testing.assert_allclose(out[b, :, c].detach(), expected, rtol=1e-4, atol=1e-4)


def test_what_a_masked_step_holds_has_no_influence():
    model = DLinearModel(10, 4)
    x = torch.randn(2, 10, 3)
    mask = torch.rand(2, 10, 3) > 0.3
    mask[0, :, 0] = False  # a channel without any observation
    spoilt = torch.where(mask, x, float("nan"))
    out = model(x, mask=mask)
    assert torch.equal(out, model(spoilt, mask=mask))
    assert out.isfinite().all()


def test_scaling_and_shifting_a_series_scales_and_shifts_its_forecast():
    model = DLinearModel(24, 6)
    x = torch.randn(2, 24, 1)
    torch.testing.assert_close(model(x * 8 + 100), model(x) * 8 + 100, rtol=1e-3, atol=1e-2)


def test_quantiles_do_not_cross_and_channels_do_not_mix():
    model = DLinearModel(16, 5, quantiles=(0.1, 0.5, 0.9))
    x = torch.randn(4, 16, 3) * 10
    out = model(x)
    assert out.shape == (4, 5, 3, 3)
    assert (out.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(model(x[..., 1:2])[:, :, 0], out[:, :, 1])


@pytest.mark.parametrize("kernel", [0, 4])
def test_a_kernel_without_a_middle_is_refused(kernel):
    with pytest.raises(ValueError, match=f"kernel_size must be an odd.*found {kernel}"):
        DLinearModel(8, 2, kernel_size=kernel)
