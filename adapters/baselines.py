"""DLinear and PatchTST, the baselines without a language model."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.layers import (
    MonotoneQuantileHead,
    count_patches,
    direct_forecast,
    instance_normalise,
)


class DLinearModel(nn.Module):
    """DLinear: a linear layer on the trend and another on the residual.

    Zeng et al., "Are Transformers Effective for Time Series Forecasting?" (AAAI 2023, arXiv
    2205.13504, section 4). The trend is the moving average over ``kernel_size`` steps; each part
    has one linear layer over time, shared by all channels, and the two forecasts are added. Unlike
    in the paper, the window is first normalised by its own mean and standard deviation, as in
    PatchTST and the language-model methods; this makes DLinear more accurate where levels drift.

    Parameters
    ----------
    context_length : int
        Steps of the context.
    horizon : int
        Steps to forecast.
    kernel_size : int, default=25
        Steps of the moving average, odd.
    quantiles : tuple of float, default=()
        Levels to forecast; empty for a point forecast.

    Raises
    ------
    ValueError
        When ``kernel_size`` is even or below 1, or the levels are not strictly increasing in (0,
        1).

    See Also
    --------
    tsllm.DLinearForecaster : The estimator that trains this model.

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
            ``(batch, context, channels)`` in raw units.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed. Unobserved steps count as the window's
            mean.

        Returns
        -------
        Tensor
            ``(batch, horizon, channels)``, or ``(batch, horizon, channels, levels)``.
        """
        normalised, mean, std = instance_normalise(x, mask)  # (batch, context, channels)
        series = normalised.transpose(1, 2)  # (batch, channels, context)
        trend = moving_average(series, self.kernel_size)  # (batch, channels, context)
        # (batch, channels, horizon [* levels])
        out = self.seasonal(series - trend) + self.trend(trend)
        return direct_forecast(out, mean, std, self.quantile_head)


def moving_average(series: Tensor, kernel_size: int) -> Tensor:
    """Average each step of (batch, channels, time) with its neighbours, end values repeated.

    Examples
    --------
    >>> import torch
    >>> moving_average(torch.tensor([[[0.0, 3.0, 6.0]]]), 3).tolist()
    [[[1.0, 3.0, 5.0]]]
    """
    side = kernel_size // 2
    padded = functional.pad(series, (side, side), mode="replicate")
    return functional.avg_pool1d(padded, kernel_size, stride=1)


class PatchTSTModel(nn.Module):
    """PatchTST: a Transformer encoder over the patches of each channel.

    Nie et al., "A Time Series is Worth 64 Words" (ICLR 2023, arXiv 2211.14730, section 3.1):
    instance normalisation, overlapping patches (the last value is repeated for one stride, so that
    the end is covered), a linear token layer, learnt positions, an encoder shared by all channels,
    and one linear layer from all tokens to the horizon. The encoder normalises with LayerNorm where
    the authors use BatchNorm: a forecast then does not depend on other windows of its batch.

    Parameters
    ----------
    context_length : int
        Steps of the context.
    horizon : int
        Steps to forecast.
    patch_length : int, default=16
        Steps of a patch, at most ``context_length``.
    stride : int, default=8
        Steps between the starts of two patches.
    hidden : int, default=16
        Width of a token, a multiple of ``heads``.
    layers : int, default=3
        Encoder layers.
    heads : int, default=4
        Attention heads.
    feedforward : int, default=128
        Width inside the feed-forward blocks.
    dropout : float, default=0.3
        Dropout of the tokens and inside the encoder.
    quantiles : tuple of float, default=()
        Levels to forecast; empty for a point forecast.

    Raises
    ------
    ValueError
        When a patch does not fit, ``hidden`` is not a multiple of ``heads``, or the levels are not
        strictly increasing in (0, 1).

    See Also
    --------
    tsllm.PatchTSTForecaster : The estimator that trains this model.

    Examples
    --------
    >>> model = PatchTSTModel(48, 12)
    >>> model.n_patches, model(torch.randn(2, 48, 3)).shape
    (6, torch.Size([2, 12, 3]))
    """

    def __init__(
        self,
        context_length: int,
        horizon: int,
        *,
        patch_length: int = 16,
        stride: int = 8,
        hidden: int = 16,
        layers: int = 3,
        heads: int = 4,
        feedforward: int = 128,
        dropout: float = 0.3,
        quantiles: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} must be a multiple of heads={heads}")
        self.context_length = context_length
        self.horizon = horizon
        self.patch_length = patch_length
        self.stride = stride
        self.n_patches = count_patches(context_length, patch_length, stride)
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None
        self.token_layer = nn.Linear(patch_length, hidden)
        self.positions = nn.Parameter(torch.empty(self.n_patches, hidden).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, feedforward, dropout, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(self.n_patches * hidden, horizon * max(1, len(quantiles)))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Forecast the steps after a window; see `DLinearModel.forward`."""
        normalised, mean, std = instance_normalise(x, mask)  # (batch, context, channels)
        patches = self.to_patches(normalised)  # (batch * channels, patches, patch_length)
        tokens = self.token_layer(patches)  # (batch * channels, patches, hidden)
        tokens = self.encoder(self.dropout(tokens + self.positions))
        out = self.head(tokens.flatten(1))  # (batch * channels, horizon [* levels])
        out = out.unflatten(0, (len(x), -1))  # (batch, channels, horizon [* levels])
        return direct_forecast(out, mean, std, self.quantile_head)

    def to_patches(self, x: Tensor) -> Tensor:
        """Cut ``(batch, context, channels)`` into ``(batch * channels, patches, patch_length)``."""
        series = x.transpose(1, 2)  # (batch, channels, context)
        padded = functional.pad(series, (0, self.stride), mode="replicate")
        return padded.unfold(-1, self.patch_length, self.stride).flatten(0, 1)
