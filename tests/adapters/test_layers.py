"""The shared layers against plain recomputation, and the invariants that methods rely on."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.adapters.layers import (
    MonotoneQuantileHead,
    TokenMLP,
    build_token_layer,
    check_levels,
    from_segments,
    instance_normalise,
    to_segments,
)

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def plain_normalise(x, mask):
    """Normalise with loops: values, mean, std as float64 arrays."""
    values, means, stds = np.zeros(x.shape), np.zeros(x.shape[::2]), np.zeros(x.shape[::2])
    for b, c in np.ndindex(x.shape[0], x.shape[2]):
        seen = [t for t in range(x.shape[1]) if mask[b, t, c]]
        series = [float(x[b, t, c]) for t in seen]
        mean = sum(series) / len(series) if seen else 0.0
        variance = sum((v - mean) ** 2 for v in series) / len(series) if seen else 0.0
        means[b, c], stds[b, c] = mean, math.sqrt(variance + 1e-5)
        for t in seen:
            values[b, t, c] = (float(x[b, t, c]) - mean) / stds[b, c]
    return values, means[:, None], stds[:, None]


@given(
    SIZES.flatmap(
        lambda s: st.tuples(
            hnp.arrays(np.int64, s, elements=st.integers(-400, 400)), hnp.arrays(bool, s)
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_normalisation_equals_loops_over_the_observed_steps(case):
    x, mask = case[0] / 4, case[1]  # quarters: the mean of a constant is exact
    hidden = np.where(mask, x, np.nan).astype(np.float32)
    result = instance_normalise(torch.tensor(hidden), torch.tensor(mask))
    for got, expected in zip(result, plain_normalise(x, mask), strict=True):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_normalisation_is_undone_by_its_own_statistics():
    x = torch.randn(3, 20, 2) * torch.tensor([1.0, 50.0]) + 7
    values, mean, std = instance_normalise(x)
    torch.testing.assert_close(values * std + mean, x)
    torch.testing.assert_close(std, torch.sqrt(x.var(1, keepdim=True, correction=0) + 1e-5))


def test_a_mask_that_hides_nothing_changes_no_bit():
    x = torch.randn(5, 37, 3) * 10 + 3
    without, with_mask = instance_normalise(x), instance_normalise(x, torch.ones_like(x).bool())
    assert all(torch.equal(a, b) for a, b in zip(without, with_mask, strict=True))


def test_a_channel_without_observations_is_zero():
    x = torch.full((1, 4, 1), float("nan"))
    values, mean, std = instance_normalise(x, torch.zeros(1, 4, 1, dtype=torch.bool))
    assert values.abs().sum() == 0
    assert mean.item() == 0
    assert std.item() == pytest.approx(math.sqrt(1e-5))


def test_missing_values_send_no_nan_to_the_gradient():
    scale = torch.ones(1, 1, 1, requires_grad=True)
    x = torch.tensor([1.0, float("nan"), 4.0]).reshape(1, 3, 1)
    values, _, _ = instance_normalise(x, ~x.isnan())
    (values * scale).sum().backward()
    assert scale.grad is not None
    assert scale.grad.isfinite().all()


@given(SIZES, st.integers(1, 4))
def test_segments_laid_end_to_end_are_the_series(sizes, length):
    batch, tokens, channels = sizes
    x = torch.arange(batch * tokens * length * channels).reshape(batch, tokens * length, channels)
    segments = to_segments(x, length)
    assert segments.shape == (batch * channels, tokens, length)
    assert torch.equal(from_segments(segments, channels), x)
    with_levels = torch.stack([segments, -segments], dim=-1)
    assert torch.equal(from_segments(with_levels, channels), torch.stack([x, -x], dim=-1))


def test_channels_are_fastest_among_the_samples():
    x = torch.randn(3, 8, 2)
    segments = to_segments(x, 4)
    for b, c in np.ndindex(3, 2):
        for n in range(2):
            assert torch.equal(segments[b * 2 + c, n], x[b, 4 * n : 4 * n + 4, c])


@pytest.mark.parametrize(
    ("n_layers", "positions"), [(2, [0, 3]), (3, [0, 3, 6]), (4, [0, 3, 6, 9])]
)
def test_mlp_has_its_linear_layers_at_the_authors_keys(n_layers, positions):
    layer = build_token_layer(5, 7, mlp_layers=n_layers, mlp_hidden=11, dropout=0.5)
    shapes = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    assert sorted(shapes) == sorted(
        f"layers.{i}.{kind}" for i in positions for kind in ("weight", "bias")
    )
    widths = [5] + [11] * (n_layers - 1) + [7]
    for i, position in enumerate(positions):
        assert shapes[f"layers.{position}.weight"] == (widths[i + 1], widths[i])


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("tanh", np.tanh),
        ("relu", lambda v: np.maximum(v, 0)),
        ("gelu", lambda v: v * 0.5 * (1 + np.vectorize(math.erf)(v / math.sqrt(2)))),
    ],
)
def test_mlp_equals_plain_matrix_products(activation, function):
    layer = TokenMLP(3, 2, n_layers=3, hidden=4, dropout=0.9, activation=activation).eval()
    weights = {key: value.double().numpy() for key, value in layer.state_dict().items()}
    x = np.random.default_rng(0).normal(size=(6, 3))
    out = x
    for position in (0, 3):
        out = function(
            out @ weights[f"layers.{position}.weight"].T + weights[f"layers.{position}.bias"]
        )
    out = out @ weights["layers.6.weight"].T + weights["layers.6.bias"]
    np.testing.assert_allclose(layer(torch.tensor(x).float()).detach(), out, atol=1e-5)


def test_dropout_acts_in_training_only():
    layer = build_token_layer(4, 4, mlp_layers=2, dropout=0.5)
    x = torch.randn(8, 4)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("mlp_layers", [-1, 1])
def test_an_mlp_of_one_layer_is_refused(mlp_layers):
    with pytest.raises(ValueError, match=f"mlp_layers={mlp_layers}"):
        build_token_layer(4, 4, mlp_layers=mlp_layers)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'gelu', 'relu', 'tanh'.*'swish'"):
        build_token_layer(4, 4, mlp_layers=2, activation="swish")


@given(
    raw=hnp.arrays(
        np.float32,
        (3, 2 * 9),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    ),
    levels=st.lists(st.floats(0.001, 0.999), min_size=9, max_size=9, unique=True),
    mean=st.floats(-1e6, 1e6),
    std=st.floats(0.003, 1e6),
)
@settings(deadline=None)
def test_quantiles_never_cross_in_any_units(raw, levels, mean, std):
    quantiles = MonotoneQuantileHead(sorted(levels))(torch.tensor(raw))  # (3, 2, 9)
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert ((quantiles * std + mean).diff(dim=-1) >= 0).all()


def test_quantiles_are_softplus_steps_away_from_the_raw_median():
    head = MonotoneQuantileHead(LEVELS)
    raw = torch.randn(4, 6 * 5)
    plain = raw.reshape(4, 6, 5).double().numpy()
    gap = np.log1p(np.exp(plain))
    expected = np.stack(
        [
            plain[..., 2] - gap[..., 1] - gap[..., 0],
            plain[..., 2] - gap[..., 1],
            plain[..., 2],
            plain[..., 2] + gap[..., 3],
            plain[..., 2] + gap[..., 3] + gap[..., 4],
        ],
        axis=-1,
    )
    np.testing.assert_allclose(head(raw).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "median"),
    [((0.5,), 0), ((0.1, 0.5, 0.9), 1), ((0.05, 0.1), 1), ((0.8, 0.9), 0), ((0.4, 0.6), 0)],
)
def test_the_level_nearest_one_half_is_the_median(levels, median):
    head = MonotoneQuantileHead(levels)
    raw = torch.randn(3, 2 * len(levels))
    assert head.median == median
    assert torch.equal(head(raw)[..., median], raw.reshape(3, 2, -1)[..., median])


def test_the_quantile_head_has_nothing_to_save():
    assert not MonotoneQuantileHead(LEVELS).state_dict()


@pytest.mark.parametrize(
    "levels", [(), (0.0, 0.5), (0.5, 1.0), (0.9, 0.1), (0.5, 0.5), (float("nan"),)]
)
def test_levels_out_of_order_or_range_are_refused(levels):
    with pytest.raises(ValueError, match="quantiles must be strictly increasing"):
        check_levels(levels)
