"""Losses: elementwise, and AutoTimes' loss of the next segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tsllm.adapters.layers import check_levels, from_segments, to_segments

if TYPE_CHECKING:
    from tsllm.adapters.autotimes import AutoTimesModel

LOSSES = ("mse", "mae", "huber", "quantile")


def elementwise_loss(
    name: str, prediction: Tensor, target: Tensor, levels: Sequence[float] = ()
) -> Tensor:
    """Compute a loss for each element of the target.

    Parameters
    ----------
    name : {"mse", "mae", "huber", "quantile"}
        Squared error, absolute error, Huber loss with threshold 1 (half the squared error below
        it), or pinball loss averaged over the levels.
    prediction : Tensor
        The shape of ``target``; for "quantile" with a last axis over the levels.
    target : Tensor
        Any shape.
    levels : sequence of float, default=()
        Quantile levels of ``prediction``'s last axis; only for "quantile".

    Returns
    -------
    Tensor
        The shape of ``target``.

    Examples
    --------
    >>> elementwise_loss("mse", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor([0., 4.])
    >>> elementwise_loss("quantile", torch.tensor([[1.0, 3.0]]), torch.tensor([2.0]), (0.1, 0.9))
    tensor([0.1000])
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {list(LOSSES)}, got {name!r}")
    if (name == "quantile") != bool(levels):
        raise ValueError(
            f"loss {name!r} with quantile levels {tuple(levels)}: "
            "the levels go with loss='quantile', and only with it"
        )
    expected = (*target.shape, len(levels)) if levels else tuple(target.shape)
    if tuple(prediction.shape) != expected:
        raise ValueError(
            f"loss {name!r}: the prediction must have shape {expected} for a target of shape "
            f"{tuple(target.shape)}, got {tuple(prediction.shape)}"
        )
    if name == "mse":
        return (prediction - target).square()
    if name == "mae":
        return (prediction - target).abs()
    if name == "huber":
        return functional.huber_loss(prediction, target, reduction="none")
    return _pinball(prediction, target, check_levels(levels))


def next_segment_loss(
    model: AutoTimesModel,
    values: Tensor,
    timestamps: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    loss: str = "mse",
    last_only: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute AutoTimes' training loss: next-token prediction at each position.

    The model reads all but the last segment; its output is compared with the series shifted by one
    segment (Liu et al., NeurIPS 2024, arXiv 2402.02370, section 3.2). A target counts when it is
    observed and at least one step of the segment before it is.

    Parameters
    ----------
    model : AutoTimesModel
        The model; its quantile levels are those of the loss.
    values : Tensor
        ``(batch, context + token_length, channels)`` in raw units.
    timestamps : Tensor or None, default=None
        ``(batch * channels, tokens, width)``, those of the context's segments.
    mask : Tensor or None, default=None
        Bool, the shape of ``values``, True where observed. None: everything is observed.
    loss : {"mse", "mae", "huber", "quantile"}, default="mse"
        "quantile" exactly when the model forecasts quantiles.
    last_only : bool, default=False
        Count the targets of the last segment only. The model normalises each window by the
        statistics of its whole context, which contain the other targets.

    Returns
    -------
    total : Tensor
        Scalar, the loss summed over the targets that count.
    count : Tensor
        Scalar int64, their number.

    Examples
    --------
    >>> from tsllm.adapters.autotimes import AutoTimesModel
    >>> total, count = next_segment_loss(
    ...     AutoTimesModel(None, token_length=4, width=8), torch.randn(2, 12 + 4, 3)
    ... )
    >>> count
    tensor(72)
    """
    length = model.token_length
    context, target = values[:, :-length], values[:, length:]  # (batch, context, channels)
    context_mask = None if mask is None else mask[:, :-length]
    forecast = model(context, timestamps, mask=context_mask)  # (batch, context, channels, ...)
    counted = torch.ones_like(target, dtype=torch.bool)
    if mask is not None and context_mask is not None:
        source = to_segments(context_mask, length)  # (batch * channels, tokens, length)
        source = source.any(-1, keepdim=True).expand_as(source)
        counted = from_segments(source, values.shape[2]) & mask[:, length:]
        target = torch.where(counted, target, 0.0)
    if last_only:
        forecast, target = forecast[:, -length:], target[:, -length:]
        counted = counted[:, -length:]
    errors = elementwise_loss(loss, forecast, target, model.quantiles)
    return torch.where(counted, errors, 0.0).sum(), counted.sum()


def _pinball(prediction: Tensor, target: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Average the pinball loss (Koenker and Bassett, Econometrica 1978) over the levels."""
    level = prediction.new_tensor(levels)
    error = target.unsqueeze(-1) - prediction  # (..., levels)
    return torch.maximum(level * error, (level - 1.0) * error).mean(-1)  # (...)
