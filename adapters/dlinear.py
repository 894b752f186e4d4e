"""DLinear: a moving average splits the window, two linear layers forecast the parts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.layers import (
    MonotoneQuantileHead,
    direct_forecast,
    instance_normalise,
)


class DLinearModel(nn.Module):
    """Forecast with two linear layers, one on the trend and one on what is left.

    Zeng, Chen, Zhang and Xu, "Are Transformers Effective for Time Series Forecasting?" (AAAI 2023,
    arXiv 2205.13504), section 4: the moving average over ``kernel_size`` steps is the trend, each
    part goes through one linear layer over time, and the two forecasts are added. The layers are
    shared by all channels. Unlike the paper's, the window is normalised by its own mean and
    standard deviation first, as PatchTST and the language-model methods do; this makes DLinear
    more accurate where levels drift.

    Parameters
    ----------
    context_length : int
        Steps of history.
    horizon : int
        Steps to forecast.
    kernel_size : int
        Steps of the moving average, odd.
    quantiles : tuple of float
        Levels to forecast; empty for a point forecast.

    Raises
    ------
    ValueError
        When ``kernel_size`` is even or below 1, or the levels are not rising inside (0, 1).

    Examples
    --------
    >>> import torch
    >>> DLinearModel(24, 6)(torch.randn(2, 24, 3)).shape
    torch.Size([2, 6, 3])
    >>> DLinearModel(24, 6, quantiles=(0.1, 0.5, 0.9))(torch.randn(2, 24, 3)).shape
    torch.Size([2, 6, 3, 3])
    """

    def __init__(
        self,
        context_length: int,
        horizon: int,
        *,
        kernel_size: int = 25,
        quantiles: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be an odd number of steps, found {kernel_size}")
        self.context_length = context_length
        self.horizon = horizon
        self.kernel_size = kernel_size
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None
        outputs = horizon * max(1, len(quantiles))
        self.seasonal = nn.Linear(context_length, outputs)
        self.trend = nn.Linear(context_length, outputs)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Forecast the steps after a window.

        Parameters
        ----------
        x : Tensor
            ``(batch, context, channels)``.
        mask : Tensor, optional
            Bool, the shape of ``x``, True where observed; the rest counts as the window's mean.

        Returns
        -------
        Tensor
            ``(batch, horizon, channels)``, or ``(batch, horizon, channels, levels)``.
        """
        normalised, mean, std = instance_normalise(x, mask)
        series = normalised.transpose(1, 2)  # (batch, channels, context)
        trend = moving_average(series, self.kernel_size)
        # (batch, channels, horizon[*levels])
        out = self.seasonal(series - trend) + self.trend(trend)
        return direct_forecast(out, mean, std, self.quantile_head)


def moving_average(series: Tensor, kernel_size: int) -> Tensor:
    """Average each step with its neighbours; the ends are continued with their own values.

    Parameters
    ----------
    series : Tensor
        ``(batch, channels, time)``.
    kernel_size : int
        Steps, odd.

    Returns
    -------
    Tensor
        The shape of ``series``.

    Examples
    --------
    >>> import torch
    >>> moving_average(torch.tensor([[[0.0, 3.0, 6.0]]]), 3).tolist()
    [[[1.0, 3.0, 5.0]]]
    """
    side = kernel_size // 2
    padded = functional.pad(series, (side, side), mode="replicate")
    return functional.avg_pool1d(padded, kernel_size, stride=1)
