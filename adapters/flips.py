"""Forecasts that turn over with their series: f(-x) = -f(x)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def both_ways(
    read: Callable[..., Tensor],
    x: Tensor,
    *companions: Tensor | None,
    training: bool,
    quantiles: bool,
) -> Tensor:
    """Forecast contexts as they are and upside down.

    In training each sample is read one way, drawn by chance, as dropout would; else both ways are
    read, as one batch of twice the size, and averaged, so that the forecast of ``-x`` is minus that
    of ``x``.

    Parameters
    ----------
    read : callable
        From contexts and their companions to forecasts in the contexts' units, ``(batch, ...)``.
    x : Tensor
        ``(batch, context, ...)``.
    *companions : Tensor or None
        What belongs to a context and is the same both ways, as its mask: ``(batch, ...)`` each.
    training : bool
        Whether to draw.
    quantiles : bool
        Whether the forecasts' last axis is over levels, which mirror around 0.5.

    Returns
    -------
    Tensor
        What ``read`` gives, ``(batch, ...)``.

    Examples
    --------
    >>> x = torch.randn(2, 5, 1)
    >>> growing = lambda values: values[:, -1:] + 1
    >>> forecast = both_ways(growing, x, training=False, quantiles=False)
    >>> torch.allclose(forecast, x[:, -1:])
    True
    """
    if not training:
        twice = [None if one is None else torch.cat([one, one]) for one in companions]
        upright, over = read(torch.cat([x, -x]), *twice).chunk(2)
        return (upright + upside_down(over, quantiles=quantiles)) / 2
    drawn = torch.rand(len(x), device=x.device) < 0.5  # (batch,), True: as it is
    forecast = read(torch.where(_like(drawn, x), x, -x), *companions)
    over = upside_down(forecast, quantiles=quantiles)
    return torch.where(_like(drawn, forecast), forecast, over)


def upside_down(forecast: Tensor, *, quantiles: bool) -> Tensor:
    """Turn forecasts over; of quantiles (the last axis), the lowest becomes the highest."""
    return -forecast.flip(-1) if quantiles else -forecast


def check_mirrored(levels: Sequence[float]) -> None:
    """Refuse quantile levels that a forecast turned upside down would not have.

    Raises
    ------
    ValueError
        Where the levels do not mirror around 0.5.
    """
    if not mirrored(levels):
        raise ValueError(
            f"flip_invariance needs quantiles that mirror around 0.5, got {tuple(levels)}"
        )


def mirrored(levels: Sequence[float]) -> bool:
    """Tell whether quantile levels stay the same where a forecast is turned upside down.

    Examples
    --------
    >>> mirrored((0.1, 0.5, 0.9)), mirrored((0.2, 0.5, 0.9))
    (True, False)
    """
    return all(abs(low + high - 1.0) < 1e-9 for low, high in zip(levels, reversed(levels)))


def _like(rows: Tensor, other: Tensor) -> Tensor:
    """Give a value a row the axes of another tensor."""
    return rows.view(-1, *[1] * (other.ndim - 1))
