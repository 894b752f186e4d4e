"""Draws of the next event by thinning, which `sample_next` is checked against."""

from typing import NamedTuple

import torch


class Thinned(NamedTuple):
    """Draws by thinning, and how good the bounds were."""

    elapsed: torch.Tensor
    """(batch,) float64; inf where none came before ``horizon_max``."""
    types: torch.Tensor
    """(batch,) int64; -1 where none came."""
    violations: int
    """How many candidates met an intensity above its bound, which was raised then. Where there are
    any, other intensities above it may have met no candidate: the draws are late, and more nodes or
    a larger factor are needed."""


@torch.no_grad()
def sample_by_thinning(
    decoder,
    states,
    *,
    waited,
    generators,
    horizon_max,
    block=1.0,
    nodes=16,
    bound_factor=2.0,
):
    """Draw the next event of each sequence by thinning (Lewis and Shedler 1979, Ogata 1981).

    Candidates come at a constant rate above the intensity, block by block of time, and are kept
    with the probability intensity / rate. Thinning needs nothing but intensities, and so it checks
    `sample_next`. The bound of a block is ``bound_factor`` times the largest intensity at ``nodes``
    times of it; each sequence has a generator of its own.
    """
    size = len(waited)
    if len(generators) != size:
        raise ValueError(f"{len(generators)} generators for {size} sequences: give one each")
    if bound_factor < 1:
        raise ValueError(f"bound_factor must be at least 1, got {bound_factor}")
    start = waited.double().clone()  # (batch,), of the current block
    now = start.clone()
    # Candidates are points of a Poisson process in time and height, between two heights: they are
    # kept where they lie below the intensity.
    floor, bound = torch.zeros_like(start), _bounds(decoder, states, start, block, nodes)
    bound = bound * bound_factor
    found = torch.full_like(start, torch.inf)
    active = now < horizon_max
    violations = 0
    while bool(active.any()):
        rows = active.nonzero()[:, 0]
        picked = [generators[row] for row in rows.tolist()]
        uniforms = _uniforms(picked, 2, len(rows))
        low, high = floor[rows], bound[rows]
        candidate = now[rows] - torch.log1p(-uniforms[:, 0]) / (high - low)
        height = low + uniforms[:, 1] * (high - low)
        end = torch.minimum(start[rows] + block, found[rows])
        inside = candidate < end
        here = states.select(rows, torch.zeros_like(rows))
        rate = _total(decoder, here, torch.where(inside, candidate, end)[:, None, None])[:, 0, 0]
        kept = inside & (height < rate)
        above = inside & (rate > high)
        violations += int(above.sum())
        found[rows] = torch.where(kept, candidate, found[rows])
        # Above a bound that was too low, earlier points may lie that were not drawn yet.
        floor[rows] = torch.where(above, high, low)
        bound[rows] = torch.where(above, bound_factor * rate, high)
        now[rows] = torch.where(above, start[rows], torch.where(inside, candidate, end))
        done = (kept & ~above) | (~inside & found[rows].isfinite())
        active[rows] = ~done & (now[rows] < horizon_max)
        moved = rows[~inside & active[rows]]
        if len(moved):
            start[moved], floor[moved] = now[moved], 0.0
            there = states.select(moved, torch.zeros_like(moved))
            bound[moved] = bound_factor * _bounds(decoder, there, start[moved], block, nodes)
    elapsed = torch.where(found < horizon_max, found, torch.inf)
    types = _types_at(decoder, states, elapsed, _uniforms(generators, 1, size)[:, 0])
    return Thinned(elapsed, types, violations)


def _uniforms(generators, count, size):
    if len(generators) != size:
        raise ValueError(f"{len(generators)} generators for {size} sequences: give one each")
    if size == 0:
        return torch.zeros(0, count, dtype=torch.float64)
    return torch.stack(
        [torch.rand(count, generator=one, dtype=torch.float64) for one in generators]
    )


def _types_at(decoder, states, elapsed, uniform):
    """Draw each event's type given its time, (batch,); -1 where there is none."""
    comes = elapsed.isfinite()
    at = torch.where(comes, elapsed, 1.0)[:, None, None].to(states.hidden.dtype)
    edges = decoder.type_log_probabilities(states, at)[:, 0, 0].double().exp().cumsum(-1)
    types = (edges / edges[:, -1:] <= uniform[:, None]).sum(-1)
    return torch.where(comes, types, -1)


def _total(decoder, states, elapsed):
    """Intensity over all types: (batch, positions, nodes) float64."""
    times = elapsed.to(states.hidden.dtype)
    return decoder.log_intensities(states, times).double().logsumexp(-1).exp()


def _bounds(decoder, states, start, block, nodes):
    """Largest intensity at some times of the block that begins at ``start``: (batch,)."""
    steps = torch.linspace(0, block, nodes, dtype=torch.float64, device=start.device)
    return _total(decoder, states, start[:, None, None] + steps).amax(-1)[:, 0]
