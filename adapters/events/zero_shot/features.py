"""The numbers that the network of zero-shot events reads at each position."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tsllm.adapters.events.zero_shot.estimates import Estimates
from tsllm.adapters.events.zero_shot.history import DECAYS, History, centres, running

#: Inter-event times, and lags of their correlation, that the network reads.
LAST_GAPS, LAGS = 6, 4
#: Events over which the latest success of a model counts.
LATEST = 16
#: Decays of the counts that the regression of the log time reads, as indices of `DECAYS`.
REGRESSED = 4


def features(history: History, found: Estimates, gains: Tensor, guesses: Tensor) -> Tensor:
    """Compute the features of each position, (batch, positions, features).

    Parameters
    ----------
    history : History
        The events and their sums.
    found : Estimates
        The models at each position.
    gains : Tensor
        (batch, events, models): log-likelihoods of each event, of the models before it.
    guesses : Tensor
        (batch, events, guesses): log probabilities of its type.
    """
    number, middle, spread = history.number, found.middle, found.spread
    n_types = history.kinds.shape[-1]
    log_gaps = history.gaps.log()
    position = functional.pad(log_gaps, (1, 0))  # the last log time at each position
    known = functional.pad(history.counted, (1, 0))
    z = known * (position - middle) / spread
    parts = [
        number.log1p() / 5,
        history.time.log1p() / 5,
        middle,
        spread.log(),
        ((history.time + 1) / (number + 1)).log() - middle,
        torch.full_like(number, float(n_types)).log(),
    ]
    parts += [_lagged(z, lag) for lag in range(LAST_GAPS)]
    # z of an event by what was known before it.
    fresh = history.counted * (log_gaps - middle[:, :-1]) / spread[:, :-1]
    fresh = fresh.clamp(-5, 5)
    for lag in range(1, LAGS + 1):
        parts.append(running(fresh * _lagged(fresh, lag)) / (number + 4))
    parts += [running(fresh.pow(3)) / (number + 4) / 3, running(fresh.pow(4)) / (number + 4) / 10]
    recent = _recent_counts(history)
    parts += list(recent.unbind(-1))
    parts += _regression(history, position, known, recent[..., :REGRESSED], middle, spread)
    for scores in (gains, guesses):  # each against the first
        better = history.counted[..., None] * (scores - scores[..., :1])
        sums = running(better.clamp(-10, 10))[..., 1:]
        latest = sums - functional.pad(sums, (0, 0, LATEST, 0))[:, : sums.shape[1]]
        parts += list(torch.asinh(sums).unbind(-1))
        parts += list((sums / (number[..., None] + 8) * 4).unbind(-1))
        parts += list((latest / LATEST * 4).unbind(-1))
    now = (found.base + found.risen.sum(-1)).sum(-1)  # (batch, positions, hawkes)
    level = found.base.sum(-1)
    parts += list((now.log() + middle[..., None]).clamp(-6, 6).unbind(-1))
    parts += list((level.log() + middle[..., None]).clamp(-6, 6).unbind(-1))
    expected = (found.risen.sum(3) / found.base.new_tensor(DECAYS)).sum(-1)
    parts += list(expected.log1p()[..., 1:].unbind(-1))
    share = found.cycle.rate / found.cycle.rate.sum(-1, keepdim=True)
    for turn in (0.0, 0.5, 1.0, 2.0):  # the relative rate at the next times
        orders = torch.arange(1, 3, device=share.device)
        angle = (found.cycle.angular * turn * middle.exp())[..., None, None] * orders
        swing = (found.cycle.cosine * angle.cos() + found.cycle.sine * angle.sin()).sum(-1)
        parts.append((share * swing).sum(-1))
    depth = (found.cycle.cosine.square() + found.cycle.sine.square()).sum(-1).sqrt()
    parts += [(share * depth).sum(-1), found.cycle.angular.log()]
    weights = found.bins.exp()
    mean = (weights * centres(number)).sum(-1)  # (batch, positions, histograms)
    square = (weights * centres(number).square()).sum(-1)
    wide = (square - mean.square()).clamp_min(1e-2).sqrt()
    parts += list(((mean - middle[..., None]) / spread[..., None]).clamp(-4, 4).unbind(-1))
    parts += list((wide.log() - spread.log()[..., None]).unbind(-1))
    entropy = -(found.types.exp() * found.types).sum(-1)
    parts += list(entropy.unbind(-1))
    return torch.stack(parts, -1).clamp(-12, 12)


def _lagged(values: Tensor, lag: int) -> Tensor:
    return functional.pad(values, (lag, 0))[:, : values.shape[1]]


def _recent_counts(history: History) -> Tensor:
    """Compare the decayed counts with those at the mean rate: (batch, positions, decays)."""
    decays = history.gaps.new_tensor(DECAYS)
    rate = ((history.number + 1) / (history.time + 1))[..., None]
    usual = rate * -torch.expm1(-decays * history.time[..., None]) / decays
    return ((history.after.sum(2) + 0.5) / (usual + 0.5)).log()


def _regression(
    history: History,
    position: Tensor,
    known: Tensor,
    recent: Tensor,
    middle: Tensor,
    spread: Tensor,
) -> list[Tensor]:
    """Predict the next log time by the ridge regression on the times and counts so far."""
    log_gaps = history.gaps.log()
    level = known * position
    x = torch.stack([torch.ones_like(level), level, _lagged(level, 1), _lagged(level, 2)], -1)
    x = torch.cat([x, recent], -1)  # (batch, positions, regressors)
    weighted = x[:, :-1] * history.counted[..., None]
    outer = (weighted[..., None] * x[:, :-1, None, :]).flatten(2)
    size = x.shape[-1]
    gram = running(outer).unflatten(2, (size, size))
    cross = running(weighted * log_gaps[..., None])
    ridge = torch.diag(x.new_tensor([0.2] + [2.0] * (size - 1)))
    factor = torch.linalg.cholesky(gram + ridge)
    weights = torch.cholesky_solve(cross[..., None], factor)[..., 0]
    predicted = (x * weights).sum(-1)  # (batch, positions)
    error = history.counted * (log_gaps - predicted[:, :-1])
    squares = (running(error.square().clamp_max(25)) + 4 * spread.square()) / (history.number + 4)
    return [
        ((predicted - middle) / spread).clamp(-4, 4),
        0.5 * squares.log() - spread.log(),
    ]
