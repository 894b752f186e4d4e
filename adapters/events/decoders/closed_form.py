"""Decoders of the next event in closed form: log-normal mixture, RMTPP, exponential relaxation."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.events.batch import EventStates
from tsllm.adapters.events.decoders.base import (
    ClosedDecoder,
    GrowsTypes,
    TypeHeadDecoder,
    grow_linear,
    grow_rows,
    of_type,
)
from tsllm.adapters.events.survival_table import bisect_elapsed

#: Bounds of the log spread of a log-normal component. Below, time stamps of limited resolution make
#: densities unbounded; above, the far tail dominates a component's mean, exp(mu + s²/2).
LOG_SPREAD = (-4.0, math.log(3.0))
#: How much of its own a component's location and spread are of the state. Most of a state's change
#: is common to all components, and what each does alone is learnt more slowly: few events do not
#: show the parameters of every component in every state.
OWN_CHANGE = 0.3
#: Share of a linear layer's usual first weights that a head of the decoder starts with: the first
#: predictions hardly depend on the state.
FIRST_WEIGHTS = 0.1
#: The shortest scaled time of which a logarithm is taken.
SHORTEST = 1e-12


class LogNormalMixtureDecoder(TypeHeadDecoder):
    """A mixture of log-normal times and, independent of the time, a type.

    The intensity-free model of Shchur et al., "Intensity-Free Learning of Temporal Point Processes"
    (ICLR 2020, arXiv 1909.12127, section 3.2). Density, survival, mean and sampling are exact;
    quantiles come from bisection.

    Parameters
    ----------
    hidden : int
        Width of the states.
    n_types : int
        Number of event types.
    components : int, default=16
        Log-normal components.
    type_head : nn.Module or None, default=None
        See `TypeHeadDecoder`.

    Examples
    --------
    >>> decoder = LogNormalMixtureDecoder(8, 3)
    >>> states = EventStates(torch.randn(2, 5, 8))
    >>> decoder.log_density(states, torch.ones(2, 5, 1), torch.zeros(2, 5, dtype=int)).shape
    torch.Size([2, 5, 1])
    """

    def __init__(
        self, hidden: int, n_types: int, components: int = 16, type_head: nn.Module | None = None
    ) -> None:
        super().__init__(hidden, n_types, type_head)
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components = components
        self.time_head = nn.Linear(hidden, 3 * components)
        self.common_head = nn.Linear(hidden, 2, bias=False)
        nn.init.zeros_(self.common_head.weight)
        with torch.no_grad():
            # Logs of scaled inter-event times are mostly below 0, in clustered streams far below.
            self.time_head.weight.mul_(FIRST_WEIGHTS)
            self.time_head.bias.zero_()
            self.time_head.bias[components : 2 * components] = torch.linspace(-5, 1.5, components)

    def mixture(self, states: EventStates) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weights, means and spreads of the log times: each (batch, positions, m)."""
        # (batch, positions, m) for the weights, (batch, positions, 2 m) for locations and spreads.
        weights, own = self.time_head(states.hidden).tensor_split([self.components], -1)
        first = self.time_head.bias[self.components :]
        common = self.common_head(states.hidden).repeat_interleave(self.components, -1)
        means, log_spreads = (first + OWN_CHANGE * (own - first) + common).chunk(2, -1)
        return weights.log_softmax(-1), means, log_spreads.clamp(*LOG_SPREAD).exp()

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute log density less log survival: (batch, positions, nodes, types)."""
        density, survival = self._times(states, elapsed)
        types = self.type_log_probabilities(states)[:, :, None]
        return (density - survival)[..., None] + types

    def log_survival(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log probability of no event up to ``elapsed``: (batch, positions, nodes)."""
        return _mixture_log_survival(self.mixture(states), elapsed)

    def log_density_and_survival(
        self, states: EventStates, elapsed: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `log_density` and `log_survival`, both (batch, positions, nodes)."""
        density, survival = self._times(states, elapsed)
        chosen = of_type(self.type_log_probabilities(states)[:, :, None], types)
        return density + chosen, survival

    def elapsed_at(self, states: EventStates, waited: Tensor, log_survival: Tensor) -> Tensor:
        """Find when the survival falls to a value, by bisection in log time."""
        mixture = tuple(part.detach().double() for part in self.mixture(states))
        return bisect_elapsed(
            lambda elapsed: _mixture_log_survival(mixture, elapsed), waited, log_survival
        )

    def log_partial_moments(
        self, states: EventStates, begin: Tensor, end: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute log P(begin < T <= end) and log E[T; begin < T <= end] of the time T.

        Their difference is the log of the mean, given that the event comes then. ``begin`` and
        ``end`` (None: no end) are (batch, positions), and so are the float64 results.
        """
        log_weights, means, spreads = (part.double() for part in self.mixture(states))
        low = begin.double().clamp_min(SHORTEST).log()[..., None]
        high = torch.full_like(low, torch.inf) if end is None else end.double().log()[..., None]
        log_mass = _log_normal_mass((low - means) / spreads, (high - means) / spreads)
        # The partial mean of a component is its mass with the mean shifted by s².
        shifted = means + spreads.square()
        log_part = _log_normal_mass((low - shifted) / spreads, (high - shifted) / spreads)
        return (
            (log_weights + log_mass).logsumexp(-1),
            (log_weights + means + spreads.square() / 2 + log_part).logsumexp(-1),
        )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Load models of before there was a common change: each component had all of its own."""
        weight = prefix + "common_head.weight"
        if weight not in state_dict and prefix + "time_head.weight" in state_dict:
            own = state_dict[prefix + "time_head.weight"].clone()
            own[self.components :] /= OWN_CHANGE
            state_dict[prefix + "time_head.weight"] = own
            state_dict[weight] = torch.zeros_like(self.common_head.weight)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _times(self, states: EventStates, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log density and log survival of the time: (batch, positions, nodes)."""
        log_weights, means, spreads = (part[:, :, None] for part in self.mixture(states))
        log_time = elapsed.clamp_min(SHORTEST).log()[..., None]
        z = (log_time - means) / spreads  # (batch, positions, nodes, components)
        densities = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - spreads.log() - log_time
        density = (log_weights + densities).logsumexp(-1)
        return density, (log_weights + torch.special.log_ndtr(-z)).logsumexp(-1)


class RMTPPDecoder(TypeHeadDecoder):
    """An intensity that grows or falls exponentially: exp(v·h + w elapsed + b).

    Du et al., "Recurrent Marked Temporal Point Processes" (KDD 2016); the type is
    independent of the time. The rate w is one number for the process. For negative w the intensity
    can be used up before an event comes: `log_never`.

    Parameters
    ----------
    hidden : int
        Width of the states.
    n_types : int
        Number of event types.
    type_head : nn.Module or None, default=None
        See `TypeHeadDecoder`.
    """

    def __init__(self, hidden: int, n_types: int, type_head: nn.Module | None = None) -> None:
        super().__init__(hidden, n_types, type_head)
        self.level_head = nn.Linear(hidden, 1)
        self.rate = nn.Parameter(torch.zeros(()))

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log intensity of each type: (batch, positions, nodes, types)."""
        ground = self.level_head(states.hidden) + self.rate * elapsed
        return ground[..., None] + self.type_log_probabilities(states)[:, :, None]

    def log_survival(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log probability of no event up to ``elapsed``: (batch, positions, nodes)."""
        level = self.level_head(states.hidden).exp()  # (batch, positions, 1)
        return -level * elapsed * mean_exp(self.rate * elapsed)

    def log_never(self, states: EventStates) -> Tensor:
        """Compute the log probability that no event ever comes: above -inf for a negative rate."""
        level = self.level_head(states.hidden)[..., 0]
        if self.rate >= 0:
            return torch.full_like(level, -torch.inf)
        return level.exp() / self.rate

    def elapsed_at(self, states: EventStates, waited: Tensor, log_survival: Tensor) -> Tensor:
        """Find when the survival falls to a value, in closed form; inf where it never does."""
        rate = self.rate.detach().double()
        start = waited.double()[..., None]
        # The time without an event changes only the level of the intensity.
        level = (self.level_head(states.hidden).detach().double() + rate * start).exp()
        x = -log_survival.double() / level  # the time at a constant intensity
        growth = torch.where(rate * x > -1, rate * x, 0.0)
        later = torch.where((rate * x).abs() < 1e-6, x * (1 - rate * x / 2), growth.log1p() / rate)
        return start + torch.where(rate * x > -1, later, torch.inf)


class ExponentialDecoder(ClosedDecoder, GrowsTypes):
    """Intensities that relax exponentially: mu_k + eta_k(h) exp(-beta_k elapsed).

    eta_k is lambda_k(h) - mu_k with a positive intensity lambda_k right after the event: events can
    excite and inhibit, and no intensity is negative. The kernel is that of Hawkes (Biometrika
    1971), with a state that an encoder computes; the integral is closed.

    Parameters
    ----------
    hidden : int
        Width of the states.
    n_types : int
        Number of event types.
    """

    def __init__(self, hidden: int, n_types: int) -> None:
        super().__init__(n_types)
        self.start_head = nn.Linear(hidden, n_types)
        # One event a unit of scaled time over all types; excitation halves after 0.7 units.
        inverse = math.log(math.expm1(1 / n_types))
        self.base = nn.Parameter(torch.full((n_types,), inverse))
        self.decay = nn.Parameter(torch.full((n_types,), math.log(math.e - 1)))
        with torch.no_grad():
            self.start_head.bias.fill_(inverse)

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log intensity of each type: (batch, positions, nodes, types)."""
        start = log_softplus(self.start_head(states.hidden))[:, :, None]
        fallen = functional.softplus(self.decay) * elapsed[..., None].clamp_min(SHORTEST)
        rest = log_softplus(self.base) + (-torch.expm1(-fallen)).log()
        return torch.logaddexp(rest, start - fallen)

    def compensators(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Integrate each type's intensity from 0: (batch, positions, nodes, types)."""
        start = functional.softplus(self.start_head(states.hidden))[:, :, None]
        base, decay = functional.softplus(self.base), functional.softplus(self.decay)
        time = elapsed[..., None]
        faded = time * mean_exp(-decay * time)  # the integral of exp(-decay s)
        return base * (time - faded) + start * faded

    def _grow(self, new: int) -> None:
        grow_linear(self.start_head, new)
        self.base = grow_rows(self.base, self.base.min().expand(new))
        self.decay = grow_rows(self.decay, self.decay.mean().expand(new))


def log_softplus(x: Tensor) -> Tensor:
    """Compute log(log(1 + exp(x))), which for very negative x is x."""
    near = functional.softplus(x.clamp_min(-15)).log()
    return torch.where(x < -15, x - 0.5 * x.clamp_max(-15).exp(), near)


def mean_exp(x: Tensor) -> Tensor:
    """Compute (exp(x) - 1) / x, the mean of exp over 0 to x; by its series near 0."""
    small = x.abs() < 1e-4
    safe = torch.where(small, 1.0, x).clamp_max(80.0)  # an overflow would have a NaN gradient
    return torch.where(small, 1 + x / 2 + x.square() / 6, torch.expm1(safe) / safe)


def _mixture_log_survival(mixture: tuple[Tensor, ...], elapsed: Tensor) -> Tensor:
    """Compute the log survival of a mixture: (batch, positions, nodes)."""
    log_weights, means, spreads = (part[:, :, None] for part in mixture)
    z = (elapsed.clamp_min(SHORTEST).log()[..., None] - means) / spreads
    return (log_weights + torch.special.log_ndtr(-z)).logsumexp(-1)


def _log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """Compute the log of the standard normal's mass between two points, accurate in both tails."""
    # In the upper tail both probabilities are close to 1: its mirror image is the lower tail.
    mirrored = low > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    upto = torch.special.log_ndtr(high)
    return upto + torch.log1p(-(torch.special.log_ndtr(low) - upto).exp())
