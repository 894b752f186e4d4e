"""The multivariate Hawkes process with exponential kernels: exact, differentiable, in float64."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import ClosedDecoder
from tsllm.adapters.events.decoders.closed_form import mean_exp

#: A bound that is not reached: where excitation is used up, a Newton step is one decay time long.
NEWTON_STEPS = 200
#: More types make the exponential of a matrix slow.
MOST_TYPES = 256


class HawkesProcess(ClosedDecoder):
    """A multivariate Hawkes process, encoder and decoder at once, with closed integrals.

    Hawkes, "Spectra of some self-exciting and mutually exciting point processes" (Biometrika 1971):
    the intensity of type k is ``mu_k + sum_j alpha[k, k_j] beta_k exp(-beta_k (t -
    t_j))`` over the events j before t. ``alpha[k, l]`` is the mean number of events of type k that
    an event of type l causes, the branching matrix. Nothing is assumed to happen before the
    window's start.

    Parameters
    ----------
    n_types : int
        Number of event types.
    mu : (types,) or None, default=None
        Base rates in events per unit of scaled time, at least 0. None: half an event a unit in all.
    alpha : (types, types) or None, default=None
        Branching matrix, at least 0; zeros stay zero in training. None: each event causes half an
        event in all.
    beta : (types,) or None, default=None
        Decay rates, positive. None: 1.

    See Also
    --------
    tsllm.HawkesForecaster : The estimator that fits this process.

    Examples
    --------
    >>> from tsllm.adapters.events.batch import pad_sequences
    >>> from tsllm.adapters.events.decoders.base import log_likelihood
    >>> process = HawkesProcess(1, mu=[0.4], alpha=[[0.6]], beta=[1.2])
    >>> batch = pad_sequences(
    ...     [[0.5, 0.5, 0.1, 1.9, 4.0]], [[0] * 5], first_known=[True], tails=[3.0],
    ...     dtype=torch.float64,
    ... )
    >>> round(log_likelihood(process, process.encode(batch), batch).sum().item(), 6)
    -9.252111
    """

    def __init__(
        self,
        n_types: int,
        *,
        mu: ArrayLike | None = None,
        alpha: ArrayLike | None = None,
        beta: ArrayLike | None = None,
    ) -> None:
        super().__init__(n_types)
        half = 0.5 / n_types
        mu = np.full(n_types, half) if mu is None else mu
        alpha = np.full((n_types, n_types), half) if alpha is None else alpha
        beta = np.ones(n_types) if beta is None else beta
        self.log_mu = _log_parameter("mu", mu, (n_types,))
        self.log_alpha = _log_parameter("alpha", alpha, (n_types, n_types))
        self.log_beta = _log_parameter("beta", beta, (n_types,))
        if not bool(self.log_beta.isfinite().all()):
            raise ValueError("beta must be positive")

    @property
    def mu(self) -> Tensor:
        """Return the base rates, (types,)."""
        return self.log_mu.exp()

    @property
    def alpha(self) -> Tensor:
        """Return the branching matrix, (types, types): row the effect, column the cause."""
        return self.log_alpha.exp()

    @property
    def beta(self) -> Tensor:
        """Return the decay rates, (types,)."""
        return self.log_beta.exp()

    def encode(self, batch: EventBatch) -> EventStates:
        """Compute the excitation after each event, by a scan over all sequences at once.

        Returns
        -------
        EventStates
            ``hidden`` is ``(batch, events + 1, types)``, the excitation right after each event: the
            part of the intensities above ``mu``.
        """
        jumps = (self.alpha.mT * self.beta)[batch.types]  # (batch, events, types)
        fades = self.beta * batch.gaps[..., None].to(self.beta.dtype)
        before = jumps.new_zeros(len(batch), 1, self.n_types)
        # Padding is on the right: no event follows it.
        return EventStates(torch.cat([before, decayed_sums(jumps, fades)], 1))

    def init_state(self, batch: int) -> Tensor:
        """Create the state before the first event, (batch, types)."""
        return self.log_mu.new_zeros(batch, self.n_types)

    def step(self, state: Tensor, types: Tensor, gaps: Tensor) -> tuple[Tensor, EventStates]:
        """Update the state (batch, types) by one event, in constant time.

        ``types`` and ``gaps`` are (batch,), the event's type and its inter-event time.
        """
        jump = (self.alpha.mT * self.beta)[types]
        state = state * (-self.beta * gaps[:, None].to(state.dtype)).exp() + jump
        return state, EventStates(state[:, None])

    @torch.no_grad()
    def expected_events(self, states: EventStates, waited: Tensor, until: Tensor) -> Tensor | None:
        """Compute the expected number of all events to come; None for very many types.

        The expected excitation x obeys ``x' = (beta alpha - I beta) x + beta alpha mu``, a linear
        equation, which a matrix exponential solves. Where ``alpha`` has a spectral radius of 1 or
        more, the number grows without bound, though it is finite for every time.
        """
        k, mu, beta = self.n_types, self.mu.double(), self.beta.double()
        if k > MOST_TYPES:
            return None
        jumps = beta[:, None] * self.alpha.double()
        # The unknowns are the excitation, the events so far and the number 1.
        system = torch.zeros(k + 2, k + 2, dtype=torch.float64, device=mu.device)
        system[:k, :k] = jumps - beta.diag()
        system[:k, k + 1] = jumps @ mu
        system[k, :k] = 1.0
        system[k, k + 1] = mu.sum()
        faded = states.hidden[:, 0].double() * (-beta * waited[:, None]).exp()  # (rows, types)
        now = torch.cat([faded, faded.new_tensor([[0.0, 1.0]]).expand(len(faded), -1)], 1)
        lengths, kinds = (until - waited).clamp_min(0).double().unique(return_inverse=True)
        found = torch.empty_like(faded[:, 0])
        for kind, length in enumerate(lengths):
            rows = kinds == kind
            found[rows] = now[rows] @ _exponential(system * length)[k]
        return torch.where(found.isfinite(), found, torch.inf)

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Return the log intensity of each type: (batch, positions, nodes, types)."""
        faded = (-self.beta * elapsed[..., None]).exp()
        return (self.mu + states.hidden[:, :, None] * faded).log()

    def compensators(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Integrate each type's intensity from 0: (batch, positions, nodes, types)."""
        time = elapsed[..., None].to(self.beta.dtype)
        return time * (self.mu + states.hidden[:, :, None] * mean_exp(-self.beta * time))

    def log_never(self, states: EventStates) -> Tensor:
        """Return the log probability that no event comes: above -inf if all base rates are 0."""
        if bool((self.mu > 0).any()):
            return super().log_never(states)
        return -(states.hidden / self.beta).sum(-1)

    @torch.no_grad()
    def elapsed_at(self, states: EventStates, waited: Tensor, log_survival: Tensor) -> Tensor:
        """Find when the survival falls to a value, by Newton's method; inf where it never does.

        The compensator is concave, because excitation only decays: each step from the left stays on
        the left and converges quadratically.
        """
        mu, beta, goal = self.mu.double(), self.beta.double(), -log_survival.double()
        start = waited.double()[..., None]  # (batch, positions, 1)
        left = (states.hidden.double() * (-beta * start).exp())[:, :, None]
        never = torch.zeros_like(goal, dtype=torch.bool)
        if not bool((mu > 0).any()):
            never = goal >= (left / beta).sum(-1)
        goal, time = torch.where(never, 0.0, goal), torch.zeros_like(goal)
        for _ in range(NEWTON_STEPS):
            fade = -beta * time[..., None]  # (batch, positions, levels, types)
            passed = (mu * time[..., None] - left / beta * torch.expm1(fade)).sum(-1)
            rate = (mu + left * fade.exp()).sum(-1)
            step = torch.where(goal > passed, (goal - passed) / rate, 0.0)
            time = time + step
            if bool((step <= 1e-15 * time).all()):
                break
        return start + torch.where(never, torch.inf, time)


def decayed_sums(jumps: Tensor, fades: Tensor) -> Tensor:
    """Sum decaying jumps: ``y_i = exp(-fades_i) y_{i-1} + jumps_i``, in log2(events) passes.

    A prefix scan (Blelloch 1990, section 1.4), differentiable, equal to the recursion to rounding.
    All factors are at most 1: nothing overflows.

    Parameters
    ----------
    jumps, fades : Tensor
        ``(batch, events, channels)``; fades at least 0, the first is not used.

    Examples
    --------
    >>> decayed_sums(torch.ones(1, 3, 1), torch.full((1, 3, 1), 0.5).log().neg()).flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    factors, sums = (-fades).exp(), jumps
    reach, events = 1, jumps.shape[1]
    while reach < events:
        # sums_i covers the last `reach` events; adding those before them, decayed, doubles it.
        sums = torch.cat(
            [sums[:, :reach], sums[:, reach:] + factors[:, reach:] * sums[:, :-reach]], 1
        )
        factors = torch.cat([factors[:, :reach], factors[:, reach:] * factors[:, :-reach]], 1)
        reach *= 2
    return sums


def _exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential of a matrix by scaling and squaring; inf or NaN beyond all floats."""
    size = float(matrix.abs().sum(1).max())
    squarings = math.ceil(math.log2(size)) + 1 if size > 0.5 else 0
    part = torch.linalg.matrix_exp(matrix / 2.0**squarings)
    for _ in range(squarings):
        part = part @ part
    return part


def _log_parameter(name: str, value: ArrayLike, shape: tuple[int, ...]) -> nn.Parameter:
    array = torch.as_tensor(np.array(value, dtype=np.float64))
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(array.shape)}")
    if not bool((array >= 0).all()) or not bool(array.isfinite().all()):
        raise ValueError(f"{name} must be finite and not negative, got {array.tolist()}")
    return nn.Parameter(array.log())
