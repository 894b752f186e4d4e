"""The distribution of the next event: means, quantiles, type probabilities and draws.

Everything is conditional on the time ``waited`` since the last event without a new one. Times are
scaled, and count from the last event.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.decoders.closed_form import LogNormalMixtureDecoder
from tsllm.adapters.events.survival_table import SurvivalTable


class NextEvent(NamedTuple):
    """Time and type of the next event; ``(batch, positions, ...)`` if asked for all positions."""

    mean: Tensor
    """(batch,), given that an event comes (before the horizon, where there is one)."""
    median: Tensor
    """(batch,), given the same."""
    quantiles: Tensor
    """(batch, levels), of the time of the next event; inf where none has come by then."""
    type_probabilities: Tensor
    """(batch, types), given that an event comes."""
    no_event: Tensor
    """(batch,), probability that no event comes, ever or before the horizon."""


@torch.no_grad()
def next_event(
    decoder: EventDecoder,
    states: EventStates,
    *,
    waited: Tensor,
    levels: Sequence[float] = (),
    horizon_max: Tensor | float | None = None,
) -> NextEvent:
    """Compute the distribution of the next event.

    In closed form for the log-normal mixture, from a `SurvivalTable` for intensities. Given that an
    event comes, the mean minimises the expected squared error, the median the absolute error.

    Parameters
    ----------
    decoder : EventDecoder
        The decoder of the states.
    states : EventStates
        ``(batch, positions, ...)``.
    waited : Tensor
        Scaled time since the last event without a new one: ``(batch, positions)``, or ``(batch,)``
        for states of one position; the results then have no axis of positions.
    levels : sequence of float, default=()
        Probability levels of the quantiles, each between 0 and 1.
    horizon_max : Tensor or float or None, default=None
        Elapsed time after which events do not count; one for all, or as ``waited``.

    Returns
    -------
    NextEvent
        In float64.

    Raises
    ------
    ValueError
        For a level outside (0, 1), a negative ``waited``, or a horizon that is not after it.

    Examples
    --------
    >>> from tsllm.adapters.events.hawkes import HawkesProcess
    >>> process = HawkesProcess(1, mu=[0.5], alpha=[[0.0]])  # a constant rate of 0.5
    >>> start = EventStates(process.init_state(1)[:, None])
    >>> later = next_event(process, start, waited=torch.tensor([3.0]), levels=[0.9])
    >>> round(later.mean.item(), 6), round(later.quantiles.item(), 6)
    (5.0, 7.60517)
    """
    wait, squeeze = _wait(states, waited)
    for level in levels:
        if not 0 < level < 1:
            raise ValueError(f"levels must lie between 0 and 1, got {level}")
    end = None if horizon_max is None else _horizon(horizon_max, wait, squeeze)
    asked = torch.tensor(levels, dtype=torch.float64, device=wait.device)
    if isinstance(decoder, LogNormalMixtureDecoder):
        result = _from_mixture(decoder, states, wait, asked, end)
    else:
        table = SurvivalTable.build(decoder, states, wait, end)
        times = table.elapsed_at(_goals(asked, table.never))
        result = NextEvent(
            table.mean(), times[..., 0], times[..., 1:], table.type_probabilities(), table.never
        )
    if end is not None:  # a median by bisection may exceed it by a rounding error
        result = result._replace(median=torch.minimum(result.median, end))
    return NextEvent(*(part[:, 0] for part in result)) if squeeze else result


@torch.no_grad()
def sample_next(
    decoder: EventDecoder, states: EventStates, *, waited: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw the next event of each sequence, exactly, by inverting the compensator.

    Parameters
    ----------
    decoder : EventDecoder
        The decoder of the states.
    states : EventStates
        Of one position.
    waited : Tensor
        ``(batch,)``, scaled time since the last event without a new one.
    uniforms : Tensor
        ``(batch, 2)`` float64, independent and uniform on [0, 1): one for the time and one for the
        type. The draw depends on no other random number and not on the batch.

    Returns
    -------
    elapsed : Tensor
        ``(batch,)`` float64, at least ``waited``; inf where no event ever comes.
    types : Tensor
        ``(batch,)`` int64; -1 where no event ever comes.
    """
    wait, _ = _wait(states, waited)
    if tuple(uniforms.shape) != (len(wait), 2):
        raise ValueError(f"uniforms must be ({len(wait)}, 2), got {tuple(uniforms.shape)}")
    goal = torch.log1p(-uniforms[:, :1, None])  # minus an exponential number
    elapsed = decoder.elapsed_at(states, wait, goal)[:, 0, 0]
    return elapsed, _draw_types(decoder, states, elapsed, uniforms[:, 1])


def _from_mixture(
    decoder: LogNormalMixtureDecoder,
    states: EventStates,
    wait: Tensor,
    levels: Tensor,
    end: Tensor | None,
) -> NextEvent:
    """Compute the distribution of a log-normal mixture in closed form."""
    log_comes, log_mean = decoder.log_partial_moments(states, wait, end)
    no_event = torch.zeros_like(wait)
    if end is not None:
        ends = torch.stack([wait, end], -1)
        past, rest = decoder.log_survival(states, ends).double().unbind(-1)
        no_event = (rest - torch.where(wait > 0, past, 0.0)).exp()
    times = decoder.elapsed_at(states, wait, _goals(levels, no_event))
    quantiles = times[..., 1:]
    if end is not None:
        quantiles = torch.where(quantiles > end[..., None], torch.inf, quantiles)
    types = decoder.type_log_probabilities(states).double().exp()
    return NextEvent((log_mean - log_comes).exp(), times[..., 0], quantiles, types, no_event)


def _goals(levels: Tensor, no_event: Tensor) -> Tensor:
    """Compute the log survival at the median and at levels: (batch, positions, 1 + levels)."""
    half = 0.5 * (1 - no_event)[..., None]
    return torch.log1p(-torch.cat([half, levels.expand(*no_event.shape, -1)], -1))


def _horizon(horizon_max: Tensor | float, wait: Tensor, squeeze: bool) -> Tensor:
    """Broadcast the horizon to (batch, positions) float64."""
    end = torch.as_tensor(horizon_max, dtype=torch.float64, device=wait.device)
    end = (end[:, None] if squeeze and end.ndim == 1 else end).expand_as(wait)
    late = wait >= end
    if bool(late.any()):
        raise ValueError(
            f"horizon_max={float(end[late][0])} must be later than waited={float(wait[late][0])}"
        )
    return end


def _wait(states: EventStates, waited: Tensor) -> tuple[Tensor, bool]:
    """Reshape ``waited`` to (batch, positions) float64; also return whether it had no positions."""
    shape = tuple(states.hidden.shape[:2])
    squeeze = waited.ndim == 1
    wait = waited.double()[:, None] if squeeze else waited.double()
    if tuple(wait.shape) != shape:
        raise ValueError(
            f"states are {shape} (batch, positions) and waited is {tuple(waited.shape)}: give "
            "(batch, positions), or (batch,) with states of one position"
        )
    if not bool((wait >= 0).all()):
        raise ValueError(f"waited must not be negative, got {float(wait.min())}")
    return wait, squeeze


def _draw_types(
    decoder: EventDecoder, states: EventStates, elapsed: Tensor, uniform: Tensor
) -> Tensor:
    """Draw each event's type given its time, from one uniform number: (batch,)."""
    comes = elapsed.isfinite()
    at = torch.where(comes, elapsed, 1.0)[:, None, None].to(states.hidden.dtype)
    probabilities = decoder.type_log_probabilities(states, at)[:, 0, 0].double().exp()
    edges = probabilities.cumsum(-1)  # (batch, types)
    edges = edges / edges[:, -1:]
    types = (edges <= uniform.to(edges.device)[:, None]).sum(-1)
    return torch.where(comes, types, -1)
