"""What is estimated at every position: processes, histograms of times, and shares of types."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tsllm.adapters.events.zero_shot.cycles import Cycle, cyclic
from tsllm.adapters.events.zero_shot.excitation import TIES, excited, poisson
from tsllm.adapters.events.zero_shot.history import (
    BIN,
    DECAYS,
    History,
    bins_of,
    centres,
    running,
)

#: Spread of the log-normal of a bin.
BIN_SPREAD = 0.35
#: Weight of the prior of a histogram, in events.
PRIOR_EVENTS = 4.0
#: Width, in log time, within which inter-event times are alike.
ALIKE = 0.5
#: Processes with intensities, then histograms.
PROCESSES = ("poisson", *(f"hawkes, {ties}" for ties in TIES), "cycle")
HISTOGRAMS = ("all times", "times after the last type", "times after times like the last")
#: Guesses of the type of the next event.
GUESSES = ("shares", "after the last type", "after times like the last", "recent", "own", "pairs")
#: The mean and the spread of the log of an exponential time of mean 1.
LOG_MEAN, LOG_SPREAD = -0.5772, 1.2825


@dataclass(frozen=True)
class Estimates:
    """Distributions of the next event at each position, of several models."""

    #: (batch, positions, hawkes, types): Base rates of the Poisson and the Hawkes processes.
    base: Tensor
    #: (batch, positions, hawkes, types, decays)
    risen: Tensor
    cycle: Cycle
    #: (batch, positions, histograms, bins): Log weights.
    bins: Tensor
    #: (batch, positions, guesses, types): Log probabilities.
    types: Tensor
    #: (batch, positions): Mean and spread of the log times.
    middle: Tensor
    spread: Tensor


def estimate(history: History) -> Estimates:
    """Estimate all models at every position of a batch."""
    rate = poisson(history)
    fits = [excited(history, ties) for ties in TIES]
    base = torch.stack([rate, *(one[0] for one in fits)], 2)
    risen = torch.stack([torch.zeros_like(fits[0][1]), *(one[1] for one in fits)], 2)
    log_gaps = history.gaps.log()
    weights = history.counted
    number = history.number
    middle = (running(weights * log_gaps) + LOG_MEAN) / (number + 1)
    squares = running(weights * log_gaps.square()) + LOG_MEAN**2 + 2 * LOG_SPREAD**2
    spread = (squares / (number + 1) - middle.square()).clamp_min(1e-4)
    # One event's prior of the mean, two of the variance.
    spread = (spread * (number + 1) / (number + 2)).sqrt().clamp_min(0.02)
    found = weights[..., None] * bins_of(log_gaps)  # (batch, events, bins)
    whole = _posterior(running(found), _prior_bins(history))
    n_types = history.kinds.shape[-1]
    shares = (history.counts + 1 / n_types) / (history.counts.sum(-1, keepdim=True) + 1)
    by_type, by_gap = _similar(history, log_gaps)
    bins = [whole]
    types = [shares]
    for similar in (by_type, by_gap):
        bins.append(_posterior(similar @ found, whole))
        followers = similar @ history.kinds  # (batch, positions, types)
        types.append((followers + shares) / (followers.sum(-1, keepdim=True) + 1))
    recent = history.after[..., 1] + shares
    types.append(recent / recent.sum(-1, keepdim=True))
    usual = middle.exp()[..., None] * base.new_tensor(DECAYS)  # (batch, positions, decays)
    later = base + torch.einsum("bpekd,bpd->bpek", risen, (-usual).exp())
    types += [one / one.sum(-1, keepdim=True) for one in later[:, :, 2:4].unbind(2)]
    return Estimates(
        base=base,
        risen=risen,
        cycle=cyclic(history, rate),
        bins=torch.stack(bins, 2).clamp_min(1e-9).log(),
        types=torch.stack(types, 2).clamp_min(1e-9).log(),
        middle=middle,
        spread=spread,
    )


def _posterior(counts: Tensor, prior: Tensor) -> Tensor:
    return (counts + PRIOR_EVENTS * prior) / (counts.sum(-1, keepdim=True) + PRIOR_EVENTS)


def _prior_bins(history: History) -> Tensor:
    """Return the bins' masses of an exponential time with the mean so far."""
    mean = (history.time + 1) / (history.number + 1)
    edges = (centres(mean) + BIN / 2).exp()  # the upper edge of each
    below = -torch.expm1(-edges / mean[..., None])
    return torch.diff(below, prepend=torch.zeros_like(below[..., :1])).clamp_min(1e-7)


def _similar(history: History, log_gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Weigh the earlier events by how alike those before them and the last event are.

    Two tensors (batch, positions, events): by the type, and by the inter-event time. An event has a
    weight at the positions from itself on.
    """
    events = log_gaps.shape[1]
    # Event i (0-based) ends at position i + 1 and follows position i.
    seen = torch.ones(events + 1, events, device=log_gaps.device).tril(-1)
    state = history.last  # (batch, positions, types)
    by_type = (state @ state[:, :-1].mT) * seen
    last = functional.pad(log_gaps, (1, 0))
    known = functional.pad(history.counted, (1, 0))
    apart = (last[:, :, None] - last[:, None, :-1]) / ALIKE
    by_gap = (-0.5 * apart.square()).exp() * known[:, :, None] * known[:, None, :-1] * seen
    return by_type, by_gap


def process_terms(
    base: Tensor, risen: Tensor, cycle: Cycle, elapsed: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute log intensities and log survivals of `PROCESSES` at (batch, positions, nodes).

    Returns
    -------
    log_intensities : Tensor
        (batch, positions, nodes, processes, types)
    log_survival : Tensor
        (batch, positions, nodes, processes)
    """
    decays = base.new_tensor(DECAYS)
    fade = -decays * elapsed[..., None]  # (batch, positions, nodes, decays)
    rates = base[:, :, None] + torch.einsum("bpekd,bpnd->bpnek", risen, fade.exp())
    integral = base.sum(-1)[:, :, None] * elapsed[..., None] + torch.einsum(
        "bped,bpnd->bpne", risen.sum(3) / decays, -torch.expm1(fade)
    )
    orders = torch.arange(1, 3, device=base.device)
    angular = cycle.angular[..., None, None] * orders  # (batch, positions, 1, 2)
    angle = angular * elapsed[..., None]  # (batch, positions, nodes, 2)
    swing = torch.einsum("bpkh,bpnh->bpnk", cycle.cosine, angle.cos()) + torch.einsum(
        "bpkh,bpnh->bpnk", cycle.sine, angle.sin()
    )
    cyclic_rates = cycle.rate[:, :, None] * (1 + swing).clamp_min(0.02)
    area = torch.einsum("bpkh,bpnh->bpnk", cycle.cosine, angle.sin() / angular) + torch.einsum(
        "bpkh,bpnh->bpnk", cycle.sine, (1 - angle.cos()) / angular
    )
    whole = (cycle.rate[:, :, None] * (elapsed[..., None] + area)).sum(-1, keepdim=True)
    log_intensities = torch.cat([rates, cyclic_rates[:, :, :, None]], 3).clamp_min(1e-12).log()
    return log_intensities, -torch.cat([integral, whole], -1).clamp_min(0)


def log_normal_terms(log_time: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log densities and log survivals of log-normal times, of the broadcast shape."""
    z = (log_time - mean) / spread
    density = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - spread.log() - log_time
    return density, torch.special.log_ndtr(-z)


def bin_terms(log_time: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the log densities and log survivals of the histogram's bins: (..., bins)."""
    spread = torch.full((), BIN_SPREAD, dtype=log_time.dtype, device=log_time.device)
    return log_normal_terms(log_time[..., None], centres(log_time), spread)
