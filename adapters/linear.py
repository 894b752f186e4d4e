"""A linear map from a context to the steps after it, with its weights in closed form."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

#: Penalties that are tried; see `solve_ridge`.
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
#: The penalty without windows to choose one on.
DEFAULT_PENALTY = 0.3
#: The maps of the whole context and of its last half are averaged.
CONTEXT_PARTS = (1, 2)
#: Deviation, in units of the series, that is added to that of a window.
SCALE_FLOOR = 0.1


class LinearModel(nn.Module):
    """Forecast the change from the last value as a linear map of the context's changes from it.

    ``forecast = last + weight @ (context - last)``: the map has no intercept, so forecasts shift
    and scale with the series, and flip with its sign. All variables share the map.

    Parameters
    ----------
    context_length : int
        Steps of the context.
    horizon : int
        Steps to forecast.

    Attributes
    ----------
    weight : Parameter, (horizon, context)
        The map; zero, which repeats the last value, until `solve_ridge` computes it.

    See Also
    --------
    tsllm.LinearForecaster : The estimator that computes the map.

    Examples
    --------
    >>> import torch
    >>> model = LinearModel(4, 2)
    >>> model(torch.tensor([[[1.0], [2.0], [3.0], [5.0]]])).flatten().tolist()
    [5.0, 5.0]
    """

    quantile_head = None

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(horizon, context_length))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Forecast the steps after a window.

        Parameters
        ----------
        x : Tensor
            ``(batch, context, variables)``.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed. Unobserved steps count as the last
            observed value.

        Returns
        -------
        Tensor
            ``(batch, horizon, variables)``.
        """
        changes, last = changes_from_last(x, mask)  # (batch, context, variables)
        return torch.einsum("hc,bcv->bhv", self.weight, changes) + last


def changes_from_last(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Subtract the last observed value of each window; unobserved steps become 0.

    ``x`` and the changes are (batch, context, variables), the last values (batch, 1, variables);
    0 where a window has none.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [4.0], [9.0]]])
    >>> changes, last = changes_from_last(x, torch.tensor([[[True], [True], [False]]]))
    >>> changes.flatten().tolist(), last.item()
    ([-3.0, 0.0, 0.0], 4.0)
    """
    if mask is None:
        last = x[:, -1:]
        return x - last, last
    steps = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]  # (context, 1)
    newest = torch.where(mask, steps, 0).amax(dim=1, keepdim=True)  # (batch, 1, variables)
    last = torch.where(newest > 0, x.gather(1, (newest - 1).clamp_min(0)), 0.0)
    return torch.where(mask, x - last, 0.0), last


class Moments(NamedTuple):
    """Mean products of the inputs (context, context), and with the targets (context, horizon)."""

    inputs: Tensor
    cross: Tensor


class Rows(NamedTuple):
    """Windows of one variable as rows of a regression, in units of each window's deviation."""

    inputs: Tensor  # (rows, context)
    targets: Tensor  # (rows, horizon), 0 where not observed
    observed: Tensor  # (rows, horizon), bool


def regression_rows(values: Tensor, mask: Tensor, context_length: int) -> Rows:
    """Compute the rows of windows (batch, context + horizon, variables), one for each variable.

    A window whose context was never observed makes no row.
    """
    context, seen = values[:, :context_length], mask[:, :context_length]
    changes, last = changes_from_last(context, seen)
    count = seen.sum(1, keepdim=True)  # (batch, 1, variables)
    centre = changes.sum(1, keepdim=True) / count.clamp_min(1)
    spread = torch.where(seen, changes - centre, 0.0).square().sum(1, keepdim=True)
    scale = (spread / count.clamp_min(1)).sqrt() + SCALE_FLOOR
    observed = mask[:, context_length:]
    targets = torch.where(observed, (values[:, context_length:] - last) / scale, 0.0)
    kept = (count > 0).transpose(1, 2).flatten()  # (batch * variables,)
    rows = (changes / scale, targets, observed)
    return Rows(*(part.transpose(1, 2).flatten(0, 1)[kept] for part in rows))


def moments(batches: Iterable[Rows]) -> Moments:
    """Average the products of rows, each target step over the rows that observe it."""
    inputs = cross = None
    rows, observed = 0, None
    for batch in batches:
        # float32 products of a batch, float64 sums over batches.
        own = (batch.inputs.T @ batch.inputs).double()
        with_targets = (batch.inputs.T @ batch.targets).double()
        counted = batch.observed.sum(0).double()
        inputs = own if inputs is None else inputs + own
        cross = with_targets if cross is None else cross + with_targets
        observed = counted if observed is None else observed + counted
        rows += len(batch.inputs)
    assert inputs is not None and cross is not None and observed is not None  # a batch at least
    return Moments(inputs / max(1, rows), cross / observed.clamp_min(1))


def solve_ridge(found: Moments, penalties: Sequence[float]) -> list[Tensor]:
    """Compute the ridge regression of each penalty, averaged over the parts of the context.

    A penalty is a multiple of the mean square of the inputs. The moments of a part of the context
    are a corner of the whole, so its map costs little; the average of linear maps is a linear map.

    Returns
    -------
    list of Tensor, each (horizon, context), float64
    """
    context = len(found.inputs)
    lengths = sorted({-(-context // part) for part in CONTEXT_PARTS})
    maps = [found.cross.new_zeros(found.cross.shape) for _ in penalties]
    for length in lengths:
        values, vectors = torch.linalg.eigh(found.inputs[-length:, -length:])
        rotated = vectors.T @ found.cross[-length:]  # (length, horizon)
        size = values.mean().clamp_min(torch.finfo(values.dtype).tiny)
        for own, penalty in zip(maps, penalties):
            shrunk = rotated / (values.clamp_min(0) + penalty * size)[:, None]
            own[-length:] += vectors @ shrunk / len(lengths)
    return [own.T.contiguous() for own in maps]
