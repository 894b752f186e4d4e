"""Layers that several methods share, and equivariance to sign flips."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

VARIANCE_FLOOR = 1e-5
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


class Normalised(NamedTuple):
    """A window in normalised space, and the statistics that convert it back to raw units."""

    values: Tensor
    """(batch, time, channels), zero where not observed."""
    mean: Tensor
    """(batch, 1, channels) in raw units; zero for a channel that was never observed."""
    std: Tensor
    """(batch, 1, channels) in raw units, at least sqrt(1e-5)."""


def instance_normalise(x: Tensor, mask: Tensor | None = None) -> Normalised:
    """Normalise each window and channel by its own observed mean and standard deviation.

    The standard deviation is that of the population, ``sqrt(var + 1e-5)``, as in AutoTimes (arXiv
    2402.02370), TimeCMA (arXiv 2406.01638) and S²IP-LLM (arXiv 2403.05798): RevIN without its
    affine part (Kim et al., ICLR 2022, section 3). ``values * std + mean`` inverts it.

    Parameters
    ----------
    x : Tensor
        Windows in raw units, ``(batch, time, channels)``. Values where ``mask`` is False, NaN too,
        have no influence.
    mask : Tensor or None, default=None
        Bool, the shape of ``x``, True where observed. None: everything is observed.

    Returns
    -------
    Normalised
        The normalised windows, their means and their standard deviations.

    Examples
    --------
    >>> x = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    >>> values, mean, std = instance_normalise(x, ~x.isnan())
    >>> values.flatten().round(decimals=3).tolist(), mean.item()
    ([-1.0, 1.0, 0.0], 2.0)
    """
    if mask is None:
        # Sum and divide, not mean(): a mask that hides nothing gives exactly the same result.
        mean = x.sum(1, keepdim=True) / x.shape[1]  # (batch, 1, channels)
        centred = x - mean  # (batch, time, channels)
        variance = centred.square().sum(1, keepdim=True) / x.shape[1]  # (batch, 1, channels)
    else:
        count = mask.sum(1, keepdim=True).clamp_min(1)  # (batch, 1, channels)
        mean = torch.where(mask, x, 0.0).sum(1, keepdim=True) / count
        centred = torch.where(mask, x - mean, 0.0)
        variance = centred.square().sum(1, keepdim=True) / count
    std = torch.sqrt(variance + VARIANCE_FLOOR)
    return Normalised(centred / std, mean, std)


def check_mask(x: Tensor, mask: Tensor | None) -> Tensor | None:
    """Check a mask of ``x``, and return None for a mask that hides nothing."""
    if mask is None:
        return None
    if mask.dtype != torch.bool or mask.shape != x.shape:
        raise ValueError(
            f"mask must be a bool tensor of x's shape {tuple(x.shape)}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return None if bool(mask.all()) else mask


def count_patches(context_length: int, patch_length: int, stride: int) -> int:
    """Count the patches of a context, whose last value is repeated for one more stride.

    Examples
    --------
    >>> count_patches(48, 16, 8)
    6
    """
    if not 1 <= stride <= patch_length <= context_length:
        raise ValueError(
            f"patch_length={patch_length} and stride={stride} must satisfy 1 <= stride <= "
            f"patch_length <= context_length={context_length}"
        )
    return (context_length - patch_length) // stride + 2


def to_segments(x: Tensor, length: int) -> Tensor:
    """Cut (batch, time, channels) into segments, each channel as a sample of its own.

    Returns (batch * channels, segments, length), channels fastest; ``time`` is a multiple of
    ``length``.

    Examples
    --------
    >>> to_segments(torch.arange(8).reshape(1, 4, 2), 2).tolist()
    [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    """
    return x.transpose(1, 2).flatten(0, 1).unflatten(1, (-1, length))


def from_segments(segments: Tensor, channels: int) -> Tensor:
    """Join segments (batch * channels, segments, length, ...) end to end: inverts `to_segments`.

    Returns (batch, segments * length, channels, ...); trailing axes (quantiles) are kept.

    Examples
    --------
    >>> from_segments(torch.tensor([[[0, 2], [4, 6]], [[1, 3], [5, 7]]]), 2).tolist()
    [[[0, 1], [2, 3], [4, 5], [6, 7]]]
    """
    series = segments.flatten(1, 2)  # (batch * channels, time, ...)
    return series.unflatten(0, (-1, channels)).transpose(1, 2)  # (batch, time, channels, ...)


class TokenMLP(nn.Module):
    """The MLP that AutoTimes uses in place of a linear token layer (arXiv 2402.02370, section 3.1).

    Linear, activation and dropout, repeated, and a last Linear. The linear layers are ``layers.0``,
    ``layers.3``, ...: the state-dict keys of the authors' code.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n_layers: int = 2,
        hidden: int = 256,
        dropout: float = 0.1,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if n_layers < 2:
            raise ValueError(
                f"an MLP has at least 2 linear layers, got mlp_layers={n_layers}; "
                "mlp_layers=0 gives a single linear layer"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
        layers: list[nn.Module] = []
        for width in [in_features] + [hidden] * (n_layers - 2):
            layers += [nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        out: Tensor = self.layers(x)
        return out


def build_token_layer(
    in_features: int,
    out_features: int,
    *,
    mlp_layers: int = 0,
    mlp_hidden: int = 256,
    dropout: float = 0.0,
    activation: str = "tanh",
) -> nn.Linear | TokenMLP:
    """Build the layer between segments and tokens: linear, or an MLP of ``mlp_layers`` layers.

    As in the authors' code, where ``mlp_hidden_layers=2`` builds two linear layers around one
    activation.

    Raises
    ------
    ValueError
        For ``mlp_layers`` of 1 or below 0, or an unknown activation.

    Examples
    --------
    >>> build_token_layer(24, 64)
    Linear(in_features=24, out_features=64, bias=True)
    >>> sorted(build_token_layer(24, 64, mlp_layers=2).state_dict())[::2]
    ['layers.0.bias', 'layers.3.bias']
    """
    if mlp_layers == 0:
        return nn.Linear(in_features, out_features)
    return TokenMLP(
        in_features,
        out_features,
        n_layers=mlp_layers,
        hidden=mlp_hidden,
        dropout=dropout,
        activation=activation,
    )


class MonotoneQuantileHead(nn.Module):
    """Convert raw outputs to quantiles that do not cross.

    The level nearest 0.5 is the raw output; each level further out adds a softplus to its inner
    neighbour. The head has no weights: the layer before it has ``steps * levels`` outputs.

    Parameters
    ----------
    levels : sequence of float
        Quantile levels, strictly increasing, each in (0, 1).

    Raises
    ------
    ValueError
        When the levels are not strictly increasing in (0, 1).

    Examples
    --------
    >>> head = MonotoneQuantileHead((0.1, 0.5, 0.9))
    >>> head(torch.zeros(2, 7 * 3)).shape, head.median
    (torch.Size([2, 7, 3]), 1)
    """

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.levels = check_levels(levels)
        self.median = min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - 0.5))
        """Index of the level nearest 0.5; of two equally near, the lower."""

    def forward(self, raw: Tensor) -> Tensor:
        """Map (..., steps * levels) to (..., steps, levels), non-decreasing over levels."""
        raw = raw.unflatten(-1, (-1, len(self.levels)))  # (..., steps, levels)
        middle = raw[..., self.median]  # (..., steps)
        steps = functional.softplus(raw).unbind(-1)  # levels of (..., steps)
        # Added one after the other: rounding of a parallel cumsum could make neighbours cross.
        above = [middle + step for step in accumulate(steps[self.median + 1 :])]
        below = [middle - step for step in accumulate(reversed(steps[: self.median]))]
        return torch.stack([*reversed(below), middle, *above], dim=-1)


def direct_forecast(
    out: Tensor, mean: Tensor, std: Tensor, quantile_head: MonotoneQuantileHead | None
) -> Tensor:
    """Convert the output of a direct multi-step head to a forecast in raw units.

    ``out`` is (batch, channels, horizon [* levels]), ``mean`` and ``std`` are (batch, 1, channels).
    Returns (batch, horizon, channels), with a quantile head (batch, horizon, channels, levels).

    Examples
    --------
    >>> direct_forecast(torch.ones(1, 2, 5), torch.zeros(1, 1, 2), torch.ones(1, 1, 2), None).shape
    torch.Size([1, 5, 2])
    """
    if quantile_head is None:
        return out.transpose(1, 2) * std + mean
    levels: Tensor = quantile_head(out).transpose(1, 2)  # (batch, horizon, channels, levels)
    return levels * std.unsqueeze(-1) + mean.unsqueeze(-1)


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Check that quantile levels increase strictly in (0, 1), and return them as a tuple."""
    checked = tuple(float(level) for level in levels)
    inside = all(0.0 < level < 1.0 for level in checked)
    increasing = all(low < high for low, high in pairwise(checked))
    if not (checked and inside and increasing):
        raise ValueError(
            f"quantiles must be strictly increasing levels between 0 and 1, got {checked}; "
            "sort them and leave duplicates out"
        )
    return checked


def sign_equivariant(
    read: Callable[..., Tensor],
    x: Tensor,
    *companions: Tensor | None,
    training: bool,
    quantiles: bool,
) -> Tensor:
    """Forecast so that the forecast of ``-x`` is minus the forecast of ``x``.

    In training a random half of the samples is read with the opposite sign, as dropout would;
    otherwise each sample is read with both signs, as one batch of twice the size, and the two
    forecasts are averaged.

    Parameters
    ----------
    read : callable
        From contexts and their companions to forecasts in the contexts' units, ``(batch, ...)``.
    x : Tensor
        ``(batch, context, ...)``.
    *companions : Tensor or None
        Inputs that do not change with the sign, as the mask: ``(batch, ...)`` each.
    training : bool
        Whether to draw the signs.
    quantiles : bool
        Whether the forecasts' last axis is over levels, symmetric around 0.5.

    Returns
    -------
    Tensor
        Forecasts as from ``read``, ``(batch, ...)``.

    Examples
    --------
    >>> x = torch.randn(2, 5, 1)
    >>> growing = lambda values: values[:, -1:] + 1
    >>> forecast = sign_equivariant(growing, x, training=False, quantiles=False)
    >>> torch.allclose(forecast, x[:, -1:])
    True
    """
    if not training:
        twice = [None if one is None else torch.cat([one, one]) for one in companions]
        plain, flipped = read(torch.cat([x, -x]), *twice).chunk(2)
        return (plain + flip_sign(flipped, quantiles=quantiles)) / 2
    drawn = torch.rand(len(x), device=x.device) < 0.5  # (batch,), True: the sign stays
    forecast = read(torch.where(_like(drawn, x), x, -x), *companions)
    flipped = flip_sign(forecast, quantiles=quantiles)
    return torch.where(_like(drawn, forecast), forecast, flipped)


def flip_sign(forecast: Tensor, *, quantiles: bool) -> Tensor:
    """Change the sign of forecasts; the lowest quantile (last axis) becomes the highest."""
    return -forecast.flip(-1) if quantiles else -forecast


def check_mirrored(levels: Sequence[float]) -> None:
    """Check that quantile levels are symmetric around 0.5."""
    if not mirrored(levels):
        raise ValueError(
            f"flip_invariance needs quantiles that mirror around 0.5, got {tuple(levels)}"
        )


def mirrored(levels: Sequence[float]) -> bool:
    """Return whether quantile levels are symmetric around 0.5.

    Examples
    --------
    >>> mirrored((0.1, 0.5, 0.9)), mirrored((0.2, 0.5, 0.9))
    (True, False)
    """
    return all(abs(low + high - 1.0) < 1e-9 for low, high in zip(levels, reversed(levels)))


def _like(rows: Tensor, other: Tensor) -> Tensor:
    """Reshape one value a row to broadcast against another tensor."""
    return rows.view(-1, *[1] * (other.ndim - 1))
