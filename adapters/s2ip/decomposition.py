"""Additive decomposition of windows into trend, seasonal component and residual."""

import torch
from torch import Tensor
from torch.nn import functional


def decompose(
    x: Tensor, trend_length: int, seasonal_length: int, mask: Tensor | None = None
) -> Tensor:
    """Split windows into trend, seasonal component and residual (arXiv 2403.05798, section 3.1).

    The trend is a centred moving average; a window of even length ``w`` covers the steps ``t -
    w/2`` to ``t + w/2 - 1``, and steps near the edges have the nearest defined value. The seasonal
    component is the mean of the detrended values at equal positions modulo ``seasonal_length``,
    counted from the window's first step. The three add up to the window. The result equals pandas'
    ``rolling(trend_length, center=True).mean().bfill().ffill()`` and a ``groupby`` of the
    positions.

    Unobserved steps have the value of the nearest observed step in the trend, do not count in the
    seasonal means, and have no residual.

    Parameters
    ----------
    x : Tensor
        ``(samples, time)``. Values where ``mask`` is False have no influence.
    trend_length : int
        Steps of the moving average, from 1 to ``time``.
    seasonal_length : int
        Steps of a season, at least 1.
    mask : Tensor or None, default=None
        Bool, the shape of ``x``, True where observed. None: everything is observed.

    Returns
    -------
    Tensor
        ``(samples, 3, time)``: trend, seasonal component, residual.

    Examples
    --------
    >>> decompose(torch.tensor([[1.0, 3.0, 3.0, 5.0]]), trend_length=2, seasonal_length=2).tolist()
    [[[2.0, 2.0, 3.0, 4.0], [-0.5, 1.0, -0.5, 1.0], [-0.5, 0.0, 0.5, 0.0]]]
    """
    time = x.shape[-1]
    if not 1 <= trend_length <= time:
        raise ValueError(
            f"trend_length={trend_length} must lie between 1 and the window's {time} steps"
        )
    if seasonal_length < 1:
        raise ValueError(f"seasonal_length must be at least 1 step, got {seasonal_length}")
    if mask is not None:
        x = fill_gaps(x, mask)
    middle = functional.avg_pool1d(x, trend_length, stride=1)  # (samples, time - trend_length + 1)
    edges = (trend_length // 2, (trend_length - 1) // 2)
    trend = functional.pad(middle, edges, mode="replicate")  # (samples, time)
    detrended = x - trend
    observed = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    seasonal = _seasonal_means(detrended, observed, seasonal_length)  # (samples, time)
    residual = torch.where(observed, detrended - seasonal, 0.0)
    return torch.stack([trend, seasonal, residual], dim=1)


def fill_gaps(x: Tensor, mask: Tensor) -> Tensor:
    """Fill each unobserved step with the value of the nearest observed one, of two the earlier.

    A sample (time,) without any observation becomes zero.

    Examples
    --------
    >>> x = torch.tensor([[9.0, 1.0, 9.0, 9.0, 9.0, 2.0]])
    >>> fill_gaps(x, torch.tensor([[False, True, False, False, False, True]])).tolist()
    [[1.0, 1.0, 1.0, 1.0, 2.0, 2.0]]
    """
    time = x.shape[-1]
    steps = torch.arange(time, device=x.device).expand_as(x)  # (samples, time)
    before = torch.where(mask, steps, -1).cummax(-1).values  # -1: nothing observed up to here
    after = torch.where(mask, steps, time).flip(-1).cummin(-1).values.flip(-1)  # time: nothing
    later = (before < 0) | ((after < time) & (after - steps < steps - before))
    nearest = torch.where(later, after, before).clamp(0, time - 1)  # (samples, time)
    return torch.where(mask, x, 0.0).gather(-1, nearest)


def _seasonal_means(x: Tensor, observed: Tensor, length: int) -> Tensor:
    """Average observed steps at equal positions modulo `length`, and repeat: (samples, time)."""
    time = x.shape[-1]
    rest = (0, -time % length)
    cycles = functional.pad(torch.where(observed, x, 0.0), rest).unflatten(-1, (-1, length))
    counted = functional.pad(observed, rest).unflatten(-1, (-1, length))
    count = counted.sum(dim=-2).clamp_min(1)  # (samples, length)
    means = cycles.sum(dim=-2) / count  # (samples, length)
    return means.repeat(1, cycles.shape[-2])[:, :time]
