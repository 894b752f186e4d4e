"""The base of event decoders: densities, survival and the log-likelihood of a batch.

A decoder gives the distribution of the time and the type of the next event. All times are scaled by
the mean inter-event time in training, and ``elapsed`` counts from the last event.
"""

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.quadrature import squared_rule
from tsllm.adapters.events.survival_table import SurvivalTable, bisect_elapsed
from tsllm.adapters.events.type_guess import mix_types


class EventDecoder(nn.Module, ABC):
    """The distribution of the next event from intensities, integrated by quadrature.

    A subclass implements `log_intensities`, and overrides what it has in closed form. The
    quadrature is Gauss-Legendre, dense after the last event (`squared_rule`): deterministic, and
    exact to about 1e-6 where the mean of equally spaced or random points has errors of percents.

    Parameters
    ----------
    n_types : int
        Number of event types.
    quad_nodes : int, default=16
        Points of the quadrature in training.
    score_nodes : int, default=32
        Points in evaluation mode.
    """

    def __init__(self, n_types: int, *, quad_nodes: int = 16, score_nodes: int = 32) -> None:
        super().__init__()
        if n_types < 1:
            raise ValueError(f"n_types must be at least 1, got {n_types}")
        self.n_types = n_types
        self.quad_nodes, self.score_nodes = quad_nodes, score_nodes

    @abstractmethod
    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log intensity of each type, at several times after each position.

        Parameters
        ----------
        states : EventStates
            ``(batch, positions, ...)``.
        elapsed : Tensor
            ``(batch, positions, nodes)``.

        Returns
        -------
        Tensor
            ``(batch, positions, nodes, types)``.
        """

    def compensators(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Integrate each type's intensity from 0 to ``elapsed``: (batch, positions, nodes, types).

        At the intervals between events the sums over types are residuals, exponential with mean 1
        for a true model (time rescaling: Brown et al., Neural Computation 2002, section 2).
        """
        points, weights = squared_rule(elapsed, self._nodes)  # (batch, positions, nodes, points)
        return self._integrate(self.log_intensities(states, points.flatten(2)), weights)

    def log_survival(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log probability of no event up to ``elapsed``: (batch, positions, nodes)."""
        return -self.compensators(states, elapsed).sum(-1)

    def log_density(self, states: EventStates, elapsed: Tensor, types: Tensor) -> Tensor:
        """Compute the log density (batch, positions, nodes) of the next event at ``elapsed``.

        ``types`` (batch, positions) int64 are the types of the events.
        """
        return self.log_density_and_survival(states, elapsed, types)[0]

    def log_density_and_survival(
        self, states: EventStates, elapsed: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `log_density` and `log_survival` at the cost of one of them."""
        points, weights = squared_rule(elapsed, self._nodes)
        # One call for the event times and the nodes of their integrals.
        both = self.log_intensities(states, torch.cat([elapsed, points.flatten(2)], 2))
        at_events, at_points = both.split([elapsed.shape[2], points.flatten(2).shape[2]], 2)
        survival = -self._integrate(at_points, weights).sum(-1)
        return of_type(at_events, types) + survival, survival

    def type_log_probabilities(self, states: EventStates, elapsed: Tensor | None = None) -> Tensor:
        """Compute the log probability of each type of the next event.

        Parameters
        ----------
        states : EventStates
            ``(batch, positions, ...)``.
        elapsed : Tensor or None, default=None
            ``(batch, positions, nodes)``: given that it comes then. None: whenever it comes.

        Returns
        -------
        Tensor
            ``(batch, positions, nodes, types)``, or ``(batch, positions, types)`` for None.
        """
        if elapsed is not None:
            return self.log_intensities(states, elapsed).log_softmax(-1)
        waited = states.hidden.new_zeros(states.hidden.shape[:2])
        return SurvivalTable.build(self, states, waited).type_probabilities().log()

    def log_never(self, states: EventStates) -> Tensor:
        """Return the log probability that no event ever comes, (batch, positions)."""
        return states.hidden.new_full(states.hidden.shape[:2], -torch.inf)

    def expected_events(self, states: EventStates, waited: Tensor, until: Tensor) -> Tensor | None:
        """Compute the expected number of all events to come; None where no formula gives it.

        Parameters
        ----------
        states : EventStates
            ``(rows, 1, ...)``, after the last event.
        waited, until : Tensor
            ``(rows,)``, times since that event: from when and until when events count.

        Returns
        -------
        Tensor or None
            ``(rows,)`` float64; inf beyond all floats.
        """
        return None

    def elapsed_at(self, states: EventStates, waited: Tensor, log_survival: Tensor) -> Tensor:
        """Find when the survival, given the time ``waited``, falls to a value.

        The inverse of `log_survival`: at ``log1p(-level)`` a quantile, at minus an exponential
        random number a draw of the next event's time.

        Parameters
        ----------
        states : EventStates
            ``(batch, positions, ...)``.
        waited : Tensor
            ``(batch, positions)``, the time since the last event without a new one.
        log_survival : Tensor
            ``(batch, positions, levels)``, at most 0, relative to that at ``waited``.

        Returns
        -------
        Tensor
            ``(batch, positions, levels)``, elapsed, at least ``waited``; inf where the survival
            never falls to the value. float64, without gradient.
        """
        return SurvivalTable.build(self, states, waited).elapsed_at(log_survival)

    @property
    def _nodes(self) -> int:
        return self.quad_nodes if self.training else self.score_nodes

    def _integrate(self, log_intensities: Tensor, weights: Tensor) -> Tensor:
        """Sum over the points of each node: (batch, positions, nodes, types)."""
        values = log_intensities.exp().unflatten(2, weights.shape[2:])
        return torch.einsum("bpnq,bpnqk->bpnk", weights, values)


class ClosedDecoder(EventDecoder):
    """A decoder with its survival in closed form."""

    def log_density_and_survival(
        self, states: EventStates, elapsed: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `log_density` and `log_survival`, both (batch, positions, nodes)."""
        survival = self.log_survival(states, elapsed)
        return of_type(self.log_intensities(states, elapsed), types) + survival, survival

    def elapsed_at(self, states: EventStates, waited: Tensor, log_survival: Tensor) -> Tensor:
        """Find when the survival falls to a value, by bisection in log time."""
        return bisect_elapsed(
            lambda elapsed: self.log_survival(states, elapsed), waited, log_survival
        )


class GrowsTypes(ABC):
    """A decoder, beside this, to which types can be added: a subclass implements `_grow`."""

    n_types: int

    def grow_types(self, n_types: int) -> None:
        """Add event types: ``n_types`` in all, the new ones last.

        The parameters of the other types stay; the new ones are as unlikely as the least likely.
        """
        if n_types < self.n_types:
            raise ValueError(f"n_types={n_types} is less than the {self.n_types} there are")
        self._grow(n_types - self.n_types)
        self.n_types = n_types

    @abstractmethod
    def _grow(self, new: int) -> None:
        """Add the parameters of new types."""


class TypeHeadDecoder(ClosedDecoder, GrowsTypes):
    """A decoder whose types are independent of the times: a subclass implements `log_survival`.

    Parameters
    ----------
    hidden : int
        Width of the states.
    n_types : int
        Number of event types.
    type_head : nn.Module or None, default=None
        From states ``(..., hidden)`` to type logits ``(..., types)``, for instance tied to the
        embeddings of the types. None: a linear layer.
    """

    def __init__(self, hidden: int, n_types: int, type_head: nn.Module | None = None) -> None:
        super().__init__(n_types)
        self.type_head = nn.Linear(hidden, n_types) if type_head is None else type_head

    def compensators(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Integrate each type's intensity from 0: (batch, positions, nodes, types)."""
        types = self.type_log_probabilities(states).exp()[:, :, None]
        return -self.log_survival(states, elapsed)[..., None] * types

    @abstractmethod
    def log_survival(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log probability of no event up to ``elapsed``: (batch, positions, nodes)."""

    def type_log_probabilities(self, states: EventStates, elapsed: Tensor | None = None) -> Tensor:
        """Compute the log probability of each type; it does not depend on the time."""
        types: Tensor = self.type_head(states.hidden).log_softmax(-1)  # (batch, positions, types)
        types = mix_types(types, states.type_guess)
        if elapsed is None:
            return types
        return types[:, :, None].expand(*elapsed.shape, -1)

    def _grow(self, new: int) -> None:
        # A head tied to the types' texts grows where the texts are.
        if isinstance(self.type_head, nn.Linear):
            grow_linear(self.type_head, new)


def log_likelihood(decoder: EventDecoder, states: EventStates, batch: EventBatch) -> Tensor:
    """Compute the log-likelihood of each interval, (batch, events + 1), in nats and scaled time.

    The scored intervals of the batch count: the one before the first event, where the window's
    start is known, and the one after the last, where its end is (Daley and Vere-Jones 2003, section
    7.2); the others are 0. In the user's unit of time it is less by log(scale) for each event
    scored.

    Parameters
    ----------
    decoder : EventDecoder
        The decoder of the states.
    states : EventStates
        ``(batch, events + 1, ...)``, of an encoder.
    batch : EventBatch
        ``(batch, events)``.
    """
    # States of padding must not cause infinite gradients.
    hidden = torch.where(batch.scored[..., None], states.hidden, 0.0)
    states = dataclasses.replace(states, hidden=hidden)
    density, survival = decoder.log_density_and_survival(
        states, batch.elapsed[..., None], batch.next_types
    )
    total = torch.where(batch.observed[..., None], density, survival)[..., 0]
    if bool((batch.lower > 0).any()):
        given = batch.lower > 0
        lower = torch.where(given, batch.lower, 1.0)[..., None]
        total = total - torch.where(given, decoder.log_survival(states, lower)[..., 0], 0.0)
    return torch.where(batch.scored, total, 0.0)


def of_type(values: Tensor, types: Tensor) -> Tensor:
    """Select one type a position: (batch, positions, nodes, types) -> (batch, positions, nodes)."""
    index = types[:, :, None, None].expand(*values.shape[:3], 1)
    return values.gather(-1, index)[..., 0]


def grow_linear(head: nn.Linear, new: int) -> None:
    """Add outputs to a linear layer: zero weights, and the smallest of its biases."""
    head.weight = grow_rows(head.weight, head.weight.new_zeros(new, head.in_features))
    head.bias = grow_rows(head.bias, head.bias.detach().min().expand(new))
    head.out_features += new


def grow_rows(parameter: Tensor, rows: Tensor) -> nn.Parameter:
    """Return a parameter with more rows, trained where the old one was."""
    return nn.Parameter(torch.cat([parameter.detach(), rows.detach()]), parameter.requires_grad)
