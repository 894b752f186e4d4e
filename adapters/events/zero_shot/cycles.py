"""A Poisson process with a cycle, estimated from the events so far by their Fourier sums."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tsllm.adapters.events.zero_shot.history import History, hold, refits

#: Periods that are tried, in scaled time: 24 an octave.
SHORTEST_PERIOD, STEPS, PER_OCTAVE = 3.0, 168, 24
#: What noise adds to the power of a type, and the least share of the base rate that stays.
NOISE, LEAST_RATE = 1.5, 0.05


class Cycle(NamedTuple):
    """Rates of the types that swing with one period and half of it, from each position on."""

    #: (batch, positions, types)
    rate: Tensor
    #: (batch, positions, types, 2): Of the cosine of one and two turns since the position.
    cosine: Tensor
    sine: Tensor
    #: (batch, positions): Angular frequency.
    angular: Tensor


def angular_frequencies(like: Tensor) -> Tensor:
    """Return the frequencies that are tried, the highest first: (frequencies,)."""
    steps = torch.arange(STEPS, dtype=like.dtype, device=like.device)
    return 2 * math.pi / (SHORTEST_PERIOD * 2 ** (steps / PER_OCTAVE))


def cyclic(history: History, rate: Tensor) -> Cycle:
    """Estimate the cycle at every position; ``rate`` (batch, positions, types) is its mean."""
    size, events, n_types = history.kinds.shape
    omega = angular_frequencies(history.gaps)
    counted = history.kinds * history.counted[..., None]
    cosine = history.gaps.new_zeros(size, STEPS, n_types)
    sine, number = torch.zeros_like(cosine), history.gaps.new_zeros(size, 1, n_types)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    begin = 0
    for seen in refits(events):
        if seen:
            new = counted[:, begin:seen]
            angle = history.time[:, begin + 1 : seen + 1, None] * omega  # (batch, events, omega)
            cosine = cosine + angle.cos().mT @ new
            sine = sine + angle.sin().mT @ new
            number = number + new.sum(1, keepdim=True)
            begin = seen
        found.append(_strongest(cosine, sine, number, history.time[:, seen], omega))
    swing = hold([one[0] for one in found], events)  # (batch, positions, types, 2)
    turn = hold([one[1] for one in found], events)
    angular = hold([one[2] for one in found], events)
    orders = torch.arange(1, 3, device=omega.device)
    phase = (angular * history.time)[..., None, None] * orders
    return Cycle(
        rate,
        swing * phase.cos() + turn * phase.sin(),
        turn * phase.cos() - swing * phase.sin(),
        angular,
    )


def _strongest(
    cosine: Tensor, sine: Tensor, number: Tensor, time: Tensor, omega: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the frequency with the most power, and the relative swings at it and its double."""
    turns = omega * time[:, None]  # (batch, omega)
    span = time.clamp_min(1e-6)[:, None] * omega
    # Less what a constant rate would give in a window that holds no whole number of turns.
    cosine = cosine - number * (turns.sin() / span)[..., None]
    sine = sine - number * ((1 - turns.cos()) / span)[..., None]
    power = (cosine.square() + sine.square()) / (number + 1)  # (batch, omega, types)
    total = (power - NOISE).clamp_min(0).sum(-1)
    double = torch.nn.functional.pad(total[:, :-PER_OCTAVE], (PER_OCTAVE, 0))
    score = torch.where(turns >= 2 * math.pi, total + 0.7 * (double - 2).clamp_min(0), 0.0)
    best = score.argmax(1)
    kept = (score.gather(1, best[:, None]) > 0).float()[..., None]
    swings, turned = [], []
    for at in (best, (best - PER_OCTAVE)):
        inside = kept * (at >= 0).float()[:, None, None]
        rows = at.clamp_min(0)[:, None, None].expand(-1, 1, number.shape[-1])
        strength = power.gather(1, rows)
        shrunk = inside * (1 - NOISE / strength.clamp_min(NOISE)) * 2 / (number + 1)
        swings.append((cosine.gather(1, rows) * shrunk)[:, 0])
        turned.append((sine.gather(1, rows) * shrunk)[:, 0])
    swing, turn = torch.stack(swings, -1), torch.stack(turned, -1)  # (batch, types, 2)
    depth = (swing.square() + turn.square()).sqrt().sum(-1, keepdim=True)
    limit = ((1 - LEAST_RATE) / depth.clamp_min(1e-9)).clamp_max(1.0)
    return swing * limit, turn * limit, omega[best]
