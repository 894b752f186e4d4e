"""PatchTST against a plain recomputation of its patches and its encoder."""

import math

import numpy as np
import pytest
import torch

from tsllm.adapters.baselines import PatchTSTModel


def small(**changes):
    torch.manual_seed(0)
    settings = {"patch_length": 4, "stride": 2, "hidden": 8, "layers": 2, "heads": 2}
    return PatchTSTModel(14, 3, **{**settings, "feedforward": 12, **changes}).eval()


def plain_norm(x, weight, bias):
    """Layer norm over the last axis, in float64."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def plain_encoder_layer(tokens, w, heads):
    """One post-norm Transformer encoder layer over (patches, hidden), with loops over heads."""
    hidden = tokens.shape[1]
    width = hidden // heads
    q, k, v = np.split(
        tokens @ w["self_attn.in_proj_weight"].T + w["self_attn.in_proj_bias"], 3, axis=1
    )
    mixed = np.zeros_like(tokens)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = q[:, own] @ k[:, own].T / math.sqrt(width)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed[:, own] = scores / scores.sum(axis=1, keepdims=True) @ v[:, own]
    mixed = mixed @ w["self_attn.out_proj.weight"].T + w["self_attn.out_proj.bias"]
    tokens = plain_norm(tokens + mixed, w["norm1.weight"], w["norm1.bias"])
    inner = tokens @ w["linear1.weight"].T + w["linear1.bias"]
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))  # gelu
    inner = inner @ w["linear2.weight"].T + w["linear2.bias"]
    return plain_norm(tokens + inner, w["norm2.weight"], w["norm2.bias"])


def plain_forecast(model, window):
    """Forecast one channel in float64: (horizon,)."""
    weights = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    mean, std = np.mean(window), np.sqrt(np.var(window) + 1e-5)
    normal = [*((np.array(window) - mean) / std), *[(window[-1] - mean) / std] * model.stride]
    starts = range(0, len(normal) - model.patch_length + 1, model.stride)
    patches = np.array([normal[start : start + model.patch_length] for start in starts])
    tokens = patches @ weights["token_layer.weight"].T + weights["token_layer.bias"]
    tokens = tokens + weights["positions"]
    for layer in range(2):
        prefix = f"encoder.layers.{layer}."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        tokens = plain_encoder_layer(tokens, own, heads=2)
    out = weights["head.weight"] @ tokens.ravel() + weights["head.bias"]
    return out * std + mean


@pytest.mark.parametrize("recorded", [True, False], ids=["training-path", "inference-path"])
def test_the_forecast_equals_a_plain_recomputation(recorded):
    model = small()
    x = torch.randn(2, 14, 3) * torch.tensor([1.0, 30.0, 0.1]) + 7
    with torch.set_grad_enabled(recorded):
        out = model(x).detach()
    assert model.n_patches == 7
    for b, c in np.ndindex(2, 3):
        expected = plain_forecast(model, x[b, :, c].double().numpy())
        np.testing.assert_allclose(out[b, :, c], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("context", "patch", "stride"), [(14, 4, 2), (15, 4, 2), (5, 5, 5), (9, 2, 1)]
)
def test_patches_cover_the_series_to_its_end(context, patch, stride):
    model = PatchTSTModel(context, 1, patch_length=patch, stride=stride)
    x = torch.arange(float(context)).reshape(1, context, 1)
    patches = model.to_patches(x)
    assert patches.shape == (1, model.n_patches, patch)
    assert set(patches.flatten().tolist()) == set(range(context))


def test_what_a_masked_step_holds_has_no_influence():
    model = small()
    x = torch.randn(2, 14, 3)
    mask = torch.rand(2, 14, 3) > 0.3
    mask[0, :, 0] = False  # a channel without any observation
    out = model(x, mask=mask)
    assert torch.equal(out, model(torch.where(mask, x, float("nan")), mask=mask))
    assert out.isfinite().all()


def test_a_window_is_forecast_alone_as_among_others():
    model = small()
    x = torch.randn(5, 14, 3)
    together = model(x)
    torch.testing.assert_close(model(x[3:4]), together[3:4])
    torch.testing.assert_close(model(x[..., 1:2])[..., 0], together[..., 1])


def test_quantiles_do_not_cross():
    out = small(quantiles=(0.1, 0.5, 0.9))(torch.randn(4, 14, 2) * 10)
    assert out.shape == (4, 3, 2, 3)
    assert (out.diff(dim=-1) >= 0).all()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="patch_length=16 and stride=2 must satisfy"):
        small(patch_length=16)
    with pytest.raises(ValueError, match="stride=5 must satisfy"):
        small(stride=5)
    with pytest.raises(ValueError, match="hidden=9 must be a multiple of heads=2"):
        small(hidden=9)
