"""Events without training: a network weighs what is estimated from the events so far.

`ZeroShotEventModel` reads a stream and returns, at each position, a mixture of the densities of all
estimated models and of log-normal times that the network sets itself. Its weights are trained once,
on synthetic streams (``benchmarks/zero_shot_events``); the types of a stream have no parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import ClosedDecoder, of_type
from tsllm.adapters.events.zero_shot.cycles import Cycle
from tsllm.adapters.events.zero_shot.estimates import (
    GUESSES,
    HISTOGRAMS,
    PROCESSES,
    Estimates,
    bin_terms,
    estimate,
    log_normal_terms,
    process_terms,
)
from tsllm.adapters.events.zero_shot.features import features
from tsllm.adapters.events.zero_shot.history import (
    BINS,
    DECAYS,
    GAP_LIMITS,
    History,
    read_history,
    running,
)

#: Log-normal times of the network.
COMPONENTS = 8
#: Models whose density is known before the network: all but the network's own.
KNOWN = len(PROCESSES) + len(HISTOGRAMS)
N_HAWKES = len(PROCESSES) - 1


class Mixture(NamedTuple):
    """The distribution of the next event at each position."""

    #: (batch, positions, models): Log weights of `PROCESSES`, `HISTOGRAMS` and the network's times.
    weights: Tensor
    #: (batch, positions, hawkes, types), and (..., types, decays).
    base: Tensor
    risen: Tensor
    cycle: Cycle
    #: (batch, positions, histograms, bins): Log weights.
    bins: Tensor
    #: (batch, positions, components): Log weights, means and spreads of the network's log times.
    shares: Tensor
    means: Tensor
    spreads: Tensor
    #: (batch, positions, types): Log probabilities of the types, for all but the processes.
    types: Tensor


class Weights(NamedTuple):
    """What the network decides at each position."""

    #: (..., models): Log weights.
    weights: Tensor
    #: (..., guesses): Log weights of the guesses of the type.
    guesses: Tensor
    #: (..., components): Log weights, means and spreads of the network's log times.
    shares: Tensor
    means: Tensor
    spreads: Tensor


class ZeroShotEventModel(nn.Module):
    """The distribution of the next event of any stream, from the events so far.

    Parameters
    ----------
    width : int, default=64
        Width of the network.
    blocks : int, default=2
        Residual blocks of it.

    See Also
    --------
    tsllm.adapters.events.decoders.closed_form.LogNormalMixtureDecoder : A decoder to train.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(N_FEATURES))
        self.register_buffer("scale", torch.ones(N_FEATURES))
        self.read = nn.Linear(N_FEATURES, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(blocks)
        )
        outputs = (KNOWN + 1) + len(GUESSES) + 3 * COMPONENTS
        self.last = nn.Linear(width, outputs)
        #: How far the log-likelihood of the events so far counts as evidence.
        self.evidence = nn.Parameter(torch.tensor(0.0))
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()

    def mixture(self, batch: EventBatch, n_types: int) -> Mixture:
        """Compute the distribution at each position of a batch."""
        history = read_history(batch, n_types)
        found = estimate(history)
        gains, guesses = successes(history, found)
        out = self.weigh(
            features(history, found, gains, guesses),
            evidence_of(history, gains),
            found.middle,
            found.spread,
        )
        return Mixture(
            weights=out.weights,
            base=found.base,
            risen=found.risen,
            cycle=found.cycle,
            bins=found.bins,
            shares=out.shares,
            means=out.means,
            spreads=out.spreads,
            types=(out.guesses[..., None] + found.types).logsumexp(2),
        )

    def weigh(self, read: Tensor, evidence: Tensor, middle: Tensor, spread: Tensor) -> Weights:
        """Compute what the network decides, from the features of each position (..., features)."""
        x = self.read(((read - self.centre) / self.scale).clamp(-6, 6))
        for block in self.blocks:
            x = x + block(x)
        logits, guesses, shares, means, spreads = self.last(x).split(
            [KNOWN + 1, len(GUESSES), COMPONENTS, COMPONENTS, COMPONENTS], -1
        )
        proved = functional.softplus(self.evidence) * functional.pad(evidence, (0, 1))
        offsets = torch.linspace(-1.5, 1.5, COMPONENTS, device=x.device)
        return Weights(
            weights=(2 * logits + proved).log_softmax(-1),
            guesses=(2 * guesses).log_softmax(-1),
            shares=shares.log_softmax(-1),
            means=middle[..., None] + spread[..., None] * (offsets + means),
            spreads=(spread[..., None].log() - 0.5 + spreads).clamp(-4.0, 1.5).exp(),
        )

    def encode(self, batch: EventBatch, n_types: int) -> EventStates:
        """Compute the states that `ZeroShotDecoder` reads."""
        return EventStates(_pack(self.mixture(batch, n_types)))


def evidence_of(history: History, gains: Tensor) -> Tensor:
    """Sum the log-likelihoods so far, less those of the best model: (batch, positions, models)."""
    sums = running(history.counted[..., None] * gains)
    return (sums - sums.amax(-1, keepdim=True)).clamp_min(-30)


def successes(history: History, found: Estimates) -> tuple[Tensor, Tensor]:
    """Compute log-likelihoods of each event: (batch, events, models), (batch, events, guesses)."""
    cycle = Cycle(*(one[:, :-1] for one in found.cycle))
    gaps = history.gaps[..., None]
    rates, survival = process_terms(found.base[:, :-1], found.risen[:, :-1], cycle, gaps)
    kinds = history.kinds[:, :, None]
    of_kind = (rates[:, :, 0] * kinds).sum(-1) + survival[:, :, 0]  # (batch, events, processes)
    density, _ = bin_terms(history.gaps.log())
    times = (found.bins[:, :-1] + density[:, :, None]).logsumexp(-1)
    guesses = (found.types[:, :-1] * kinds).sum(-1)
    return torch.cat([of_kind, times + guesses[..., :1]], -1), guesses


class ZeroShotDecoder(ClosedDecoder):
    """The density of the mixture of `ZeroShotEventModel`."""

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log intensity of each type: (batch, positions, nodes, types)."""
        densities, survival = self._both(states, elapsed)
        return densities - survival[..., None]

    def log_survival(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log probability of no event up to ``elapsed``: (batch, positions, nodes)."""
        return self._both(states, elapsed)[1]

    def log_density_and_survival(
        self, states: EventStates, elapsed: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `log_density` and `log_survival`, both (batch, positions, nodes)."""
        densities, survival = self._both(states, elapsed)
        return of_type(densities, types), survival

    def _both(self, states: EventStates, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log densities of the types (..., types), and the log survival."""
        mixture = _unpack(states.hidden, self.n_types)
        survival, densities = _terms(mixture, elapsed)
        weights = mixture.weights[:, :, None]
        densities = (weights[..., None] + densities).logsumexp(3)
        return densities, (weights + survival).logsumexp(-1)


def _terms(mixture: Mixture, elapsed: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log survivals (..., models) and log densities (..., models, types) at times."""
    elapsed = elapsed.to(mixture.base.dtype).clamp_min(GAP_LIMITS[0])
    rates, survival = process_terms(mixture.base, mixture.risen, mixture.cycle, elapsed)
    log_time = elapsed.log()
    density, beyond = bin_terms(log_time)  # (batch, positions, nodes, bins)
    bins = mixture.bins[:, :, None]
    times = (bins + density[..., None, :]).logsumexp(-1)
    lasting = (bins + beyond[..., None, :]).logsumexp(-1)
    density, beyond = log_normal_terms(
        log_time[..., None], mixture.means[:, :, None], mixture.spreads[:, :, None]
    )
    shares = mixture.shares[:, :, None]
    times = torch.cat([times, (shares + density).logsumexp(-1, keepdim=True)], -1)
    lasting = torch.cat([lasting, (shares + beyond).logsumexp(-1, keepdim=True)], -1)
    joint = times[..., None] + mixture.types[:, :, None, None]
    both = torch.cat([rates + survival[..., None], joint], 3)
    return torch.cat([survival, lasting], -1), both


def _sizes(n_types: int) -> list[tuple[int, ...]]:
    """Return the shapes, at a position, of a mixture's tensors in their order."""
    k, d = n_types, len(DECAYS)
    return [
        (KNOWN + 1,), (N_HAWKES, k), (N_HAWKES, k, d), (k,), (k, 2), (k, 2), (),
        (len(HISTOGRAMS), BINS), (COMPONENTS,), (COMPONENTS,), (COMPONENTS,), (k,),
    ]  # fmt: skip


def _pack(mixture: Mixture) -> Tensor:
    """Put a mixture in one tensor (batch, positions, width)."""
    tensors = [*mixture[:3], *mixture.cycle, *mixture[4:]]
    rows = mixture.weights.shape[:2]
    return torch.cat([one.reshape(*rows, -1) for one in tensors], -1)


def _unpack(hidden: Tensor, n_types: int) -> Mixture:
    """Read a mixture from `_pack`."""
    sizes = _sizes(n_types)
    lengths = [int(torch.Size(one).numel()) for one in sizes]
    rows = hidden.shape[:2]
    weights, base, risen, rate, cosine, sine, angular, bins, shares, means, spreads, types = (
        one.reshape(*rows, *size)
        for one, size in zip(hidden.split(lengths, -1), sizes, strict=True)
    )
    cycle = Cycle(rate, cosine, sine, angular)
    return Mixture(weights, base, risen, cycle, bins, shares, means, spreads, types)


#: Features of a position.
N_FEATURES = 92
