"""Aaren's training loss: what every prefix of a window forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tsllm.adapters.losses import elementwise_loss

if TYPE_CHECKING:
    from tsllm.adapters.aaren_forecast import AarenModel


def prefix_loss(
    model: AarenModel,
    values: Tensor,
    mask: Tensor,
    *,
    loss: str,
    fill: Tensor,
    last_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Compute the loss of the forecasts after all patches of some windows.

    Parameters
    ----------
    model : AarenModel
        The model; its quantile levels are those of the loss.
    values : Tensor
        ``(batch, context + horizon, 1)`` in raw units.
    mask : Tensor
        Bool, the shape of ``values``, True where observed.
    loss : {"mse", "mae", "huber", "quantile"}
        See `elementwise_loss`.
    fill : Tensor
        ``(batch,)``, how many steps of the last patch are seen, at least 1: so forecasts from
        incomplete patches are learnt too. A window of which nothing would be seen keeps the whole
        patch.
    last_weight : float
        What the forecast after the last patch counts; the others count 1.

    Returns
    -------
    total : Tensor
        Scalar, the weighted sum over the targets that are observed, and before which something is.
    count : Tensor
        Scalar, the sum of their weights.

    Examples
    --------
    >>> from tsllm.adapters.aaren_forecast import AarenModel
    >>> values = torch.randn(2, 12 + 6, 1)
    >>> total, count = prefix_loss(
    ...     AarenModel(None, patch_length=4, horizon=6),
    ...     values,
    ...     values.isfinite(),
    ...     loss="mse",
    ...     fill=torch.tensor([4, 2]),
    ... )
    >>> count
    tensor(36.)
    """
    length, horizon = model.patch_length, model.horizon
    context = values.shape[1] - horizon
    tokens = context // length
    steps = torch.arange(context, device=values.device)
    seen = mask[:, :context, 0] & (steps < context - length + fill[:, None])  # (batch, context)
    fill = torch.where(seen.any(1), fill, length)
    forecast = model(values[:, :context], mask=mask[:, :context], fill=fill, prefixes=True)
    forecast = forecast[:, :, :, 0]  # (batch, tokens, horizon[, levels])
    # The step that each prefix ends before, and its forecast begins at.
    ends = torch.arange(1, tokens + 1, device=values.device) * length
    ends = ends.expand(len(values), -1).clone()  # (batch, tokens)
    ends[:, -1] += fill - length
    rows = torch.arange(len(values), device=values.device)[:, None]
    target = values[..., 0].unfold(1, horizon, 1)[rows, ends]  # (batch, tokens, horizon)
    counted = mask[..., 0].unfold(1, horizon, 1)[rows, ends]
    # Where nothing has been observed yet there is nothing to forecast from.
    known = mask[..., 0].cumsum(1)[rows, ends - 1] > 0  # (batch, tokens)
    counted = counted & known[..., None]
    weights = torch.ones(tokens, device=values.device)
    weights[-1] = last_weight
    weighted = torch.where(counted, weights[:, None], 0.0)
    errors = elementwise_loss(loss, forecast, target, model.quantiles)
    return (torch.where(counted, errors, 0.0) * weighted).sum(), weighted.sum()
