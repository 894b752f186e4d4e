"""The distribution of the next event, tabulated from its intensities on a logarithmic grid.

A table holds the intensities at Gauss-Legendre nodes of panels between grid points, and so their
integral as a piecewise polynomial. Means, type probabilities, quantiles and draws are computed from
the table without further evaluations of the decoder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventStates
from tsllm.adapters.events.quadrature import gauss_legendre

#: Panels of a table, and Gauss-Legendre nodes in each.
PANELS, NODES = 48, 6
#: Scaled times, as powers of 2, between which the range of a table is searched; nodes in between.
LADDER, LADDER_NODES = (-20, 31), 2
#: A table ends where the log survival is this, and its first panel where it is -SMALL.
DEEP, SMALL = 36.0, 1e-4


class Intensities(Protocol):
    """The part of an `EventDecoder` that a table is computed from."""

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Return the log intensity of each type, (batch, positions, nodes, types)."""

    def log_survival(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Return the log probability of no event up to a time, (batch, positions, nodes)."""

    def log_never(self, states: EventStates) -> Tensor:
        """Return the log probability that no event ever comes, (batch, positions)."""


@dataclass(frozen=True)
class SurvivalTable:
    """Compensators of the next event from ``waited`` on, tabulated; float64, no gradients.

    Beyond the last grid point, where survival is e⁻³⁶ or the time 10⁹ mean inter-event times,
    intensities count as constant. Survival and density follow from the compensator L as exp(-L) and
    intensity * exp(-L) (Daley and Vere-Jones 2003, section 7.2).
    """

    waited: Tensor
    """(batch, positions), the start of the table."""
    edges: Tensor
    """(batch, positions, panels + 1), time since ``waited``."""
    intensities: Tensor
    """(batch, positions, panels, nodes, types)."""
    compensators: Tensor
    """(batch, positions, panels + 1), over all types, from ``waited`` to each edge."""
    never: Tensor
    """(batch, positions), probability that no event comes (before the horizon)."""
    closed: Tensor
    """(batch, positions) bool, True where no event is possible beyond the last edge."""

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        decoder: Intensities,
        states: EventStates,
        waited: Tensor,
        horizon_max: Tensor | None = None,
    ) -> "SurvivalTable":
        """Compute the table of a decoder at states (batch, positions, ...).

        ``waited`` is (batch, positions), the time since the last event without a new one;
        ``horizon_max`` is the elapsed time at the end of the table, later than ``waited``.
        """
        waited = waited.double()
        shape = waited.shape
        powers = torch.arange(*LADDER, dtype=torch.float64, device=waited.device)
        rungs = torch.cat([powers.new_zeros(1), powers.exp2()]).expand(*shape, -1)
        coarse = _Panels.of(decoder, states, waited, rungs, LADDER_NODES).compensators
        total = coarse[..., -1:]  # (batch, positions, 1)
        # The end: survival is e**-DEEP, or all but a millionth of the intensity is used up.
        last = _first_at_least(coarse, torch.minimum(total * (1 - 1e-6), total.new_tensor(DEEP)))
        first = _first_at_least(coarse, SMALL * total.clamp_max(1.0))
        high, low = rungs.gather(-1, last), rungs.gather(-1, (first - 1).clamp_min(1))
        if horizon_max is not None:
            high = torch.minimum(high, (horizon_max - waited)[..., None])
        low = torch.minimum(low, high / 2)
        steps = torch.linspace(0, 1, PANELS, dtype=torch.float64, device=waited.device)
        grid = low * (high / low) ** steps  # (batch, positions, panels)
        edges = torch.cat([torch.zeros_like(low), grid], -1)
        panels = _Panels.of(decoder, states, waited, edges, NODES)
        never = torch.zeros_like(waited)
        closed = torch.zeros_like(waited, dtype=torch.bool)
        log_never = decoder.log_never(states).double()
        if bool((log_never > -torch.inf).any()):
            past = decoder.log_survival(states, waited[..., None])[..., 0]
            closed = log_never > -torch.inf
            never = (log_never - past).exp()
        if horizon_max is not None:
            cut = horizon_max - waited <= edges[..., -1] * (1 + 1e-9)
            rest = (-panels.compensators[..., -1]).exp()
            never, closed = torch.where(cut, rest, never), closed | cut
        return cls(waited, edges, panels.intensities, panels.compensators, never, closed)

    def mean(self) -> Tensor:
        """Return the mean elapsed time, given that an event comes: (batch, positions)."""
        survival = self._survival() - self.never[..., None, None]
        _, weights = self._rule()
        inside = (survival * weights * self._widths()[..., None]).sum((-2, -1))
        # Beyond the last edge the intensity is constant.
        tail = self._beyond() / self._last().sum(-1).clamp_min(torch.finfo(torch.float64).tiny)
        total = inside + torch.where(self._beyond() > 0, tail, 0.0)
        return self.waited + total / (1 - self.never)

    def type_probabilities(self) -> Tensor:
        """Return the type probabilities, given that an event comes: (batch, positions, types)."""
        _, weights = self._rule()
        density = self.intensities * (self._survival() * weights)[..., None]
        masses = (density * self._widths()[..., None, None]).sum((-3, -2))
        last = self._last()
        share = last / last.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        masses = masses + self._beyond()[..., None] * share
        return masses / masses.sum(-1, keepdim=True)

    def elapsed_at(self, log_survival: Tensor) -> Tensor:
        """Find when the log survival since ``waited`` falls to values (batch, positions, levels).

        Returns elapsed times; inf where it never falls to the value.
        """
        target = -log_survival.double()
        panel = torch.searchsorted(self.compensators, target.contiguous(), right=True) - 1
        panel = panel.clamp(0, PANELS - 1)  # (batch, positions, levels)
        width = self._widths().gather(-1, panel)
        index = panel[..., None].expand(*panel.shape, NODES)
        values = self.intensities.sum(-1).gather(-2, index)  # (batch, positions, levels, nodes)
        rest = (target - self.compensators.gather(-1, panel)) / width
        coefficients = _integrated_basis().to(values.device)  # (nodes, powers)
        polynomial = values @ coefficients  # of the fraction of the panel, powers 1 to nodes
        low, high = torch.zeros_like(rest), torch.ones_like(rest)
        exponents = torch.arange(1, NODES + 1, device=rest.device)
        for _ in range(52):
            middle = (low + high) / 2
            below = (polynomial * middle[..., None] ** exponents).sum(-1) < rest
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        inside = self.edges.gather(-1, panel) + high * width
        end = self.compensators[..., -1:]
        later = self.edges[..., -1:] + (target - end) / self._last().sum(-1, keepdim=True)
        later = torch.where(self.closed[..., None], torch.inf, later)
        return self.waited[..., None] + torch.where(target <= end, inside, later)

    def _survival(self) -> Tensor:
        """Return the survival at the nodes: (batch, positions, panels, nodes)."""
        ground = self.intensities.sum(-1)
        inside = ground @ _partial_integrals().to(ground.device).mT
        inside = inside * self._widths()[..., None]
        return (-(self.compensators[..., :-1, None] + inside)).exp()

    def _beyond(self) -> Tensor:
        """Return the probability of an event beyond the last edge: (batch, positions)."""
        return torch.where(self.closed, 0.0, (-self.compensators[..., -1]).exp())

    def _last(self) -> Tensor:
        """Return the intensities at the end: (batch, positions, types)."""
        return self.intensities[..., -1, -1, :]

    def _widths(self) -> Tensor:
        return self.edges.diff(dim=-1)

    def _rule(self) -> tuple[Tensor, Tensor]:
        points, weights = gauss_legendre(NODES)
        return points.to(self.edges.device), weights.to(self.edges.device)


def bisect_elapsed(
    log_survival: Callable[[Tensor], Tensor], waited: Tensor, target: Tensor
) -> Tensor:
    """Invert a log survival, a function of elapsed times, by bisection in log time.

    ``target`` (batch, positions, levels) is relative to the log survival at ``waited`` (batch,
    positions), where the search starts. Returns elapsed times; inf where it is never reached.
    """
    with torch.no_grad():
        start = waited.double()[..., None]
        goal = target.double() + torch.where(start > 0, log_survival(start).double(), 0.0)
        low = start.clamp_min(1e-12).log().expand_as(goal)
        high = torch.full_like(goal, 60.0)  # e**60 mean inter-event times
        never = log_survival(high.exp()) > goal
        for _ in range(64):
            middle = (low + high) / 2
            above = log_survival(middle.exp()) > goal
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return torch.where(never, torch.inf, torch.maximum(high.exp(), start))


@dataclass(frozen=True)
class _Panels:
    """Intensities at the nodes of panels, and their integrals."""

    intensities: Tensor  # (batch, positions, panels, nodes, types)
    compensators: Tensor  # (batch, positions, panels + 1)

    @classmethod
    def of(
        cls, decoder: Intensities, states: EventStates, waited: Tensor, edges: Tensor, nodes: int
    ) -> "_Panels":
        points, weights = (part.to(edges.device) for part in gauss_legendre(nodes))
        widths = edges.diff(dim=-1)  # (batch, positions, panels)
        times = edges[..., :-1, None] + widths[..., None] * points
        elapsed = (waited[..., None, None] + times).flatten(2)
        elapsed = elapsed.to(torch.promote_types(states.hidden.dtype, torch.float32))
        values = decoder.log_intensities(states, elapsed).double().exp()
        values = values.unflatten(2, times.shape[2:])
        parts = (values.sum(-1) * weights).sum(-1) * widths
        compensators = torch.cat([torch.zeros_like(parts[..., :1]), parts.cumsum(-1)], -1)
        return cls(values, compensators)


def _first_at_least(rising: Tensor, value: Tensor) -> Tensor:
    """Find the index of the first entry that reaches a value: (batch, positions, 1)."""
    found = torch.searchsorted(rising.contiguous(), value.contiguous())
    return found.clamp_max(rising.shape[-1] - 1)


@cache
def _integrated_basis() -> Tensor:
    """Integrate the nodes' Lagrange polynomials from 0 to x: powers 1 to NODES of x, a row each."""
    points = gauss_legendre(NODES)[0].numpy()
    rows = []
    for node in range(NODES):
        roots = np.delete(points, node)
        basis = np.polynomial.Polynomial.fromroots(roots)
        basis = basis / basis(points[node])
        rows.append(basis.integ().coef[1:])
    return torch.from_numpy(np.stack(rows))


@cache
def _partial_integrals() -> Tensor:
    """Compute weights that integrate from a panel's start to each of its nodes: (nodes, nodes)."""
    points = gauss_legendre(NODES)[0]
    exponents = torch.arange(1, NODES + 1)
    return points[:, None] ** exponents @ _integrated_basis().mT
