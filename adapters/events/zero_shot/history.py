"""Sums over the events so far, at every position of a batch: what all estimates are computed from.

Everything at a position is a function of the events up to it, and of no type by its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from tsllm.adapters.events.batch import EventBatch
from tsllm.adapters.events.hawkes import decayed_sums

#: Decay rates of the excitation, per unit of scaled time.
DECAYS = (0.05, 0.15, 0.45, 1.35, 4.0, 12.0, 36.0)
#: Centres of the histogram of log inter-event times, and the spread of each bin's log-normal.
FIRST_CENTRE, BIN, BINS = -8.0, 0.42, 28
#: The shortest and the longest scaled inter-event time that is read.
GAP_LIMITS = (1e-6, 1e5)
#: Numbers of events at which parameters are estimated again.
REFITS = (
    0, 3, 5, 7, 9, 12, 15, 19, 24, 30, 37, 46, 58, 72, 90, 112, 140, 175, 219, 273, 341, 426, 512,
)  # fmt: skip


@dataclass(frozen=True)
class History:
    """The events of a batch, and running sums; positions are 0, the start, to the last event."""

    #: (batch, events)
    gaps: Tensor
    #: (batch, events, types): 1 at an event's type, 0 for padding.
    kinds: Tensor
    #: (batch, events): 1 for an event that ends a known interval, else 0.
    counted: Tensor
    #: (batch, positions): The time since the start.
    time: Tensor
    #: (batch, positions): The number of intervals that are known.
    number: Tensor
    #: (batch, positions, types): The number of events of each type.
    counts: Tensor
    #: (batch, positions, types, decays): Decayed counts right after the position's event.
    after: Tensor
    #: (batch, events, types, decays): Decayed counts right before each event.
    before: Tensor
    #: (batch, positions, types): 1 at the type of the last event; 0 at the start.
    last: Tensor


def read_history(batch: EventBatch, n_types: int) -> History:
    """Compute the sums of a batch."""
    mask = batch.mask.float()
    counted = mask.clone()
    gaps = torch.where(batch.mask, batch.gaps.float(), 0.0)
    if mask.shape[1]:
        counted[:, 0] *= batch.first_known
        gaps[:, 0] *= batch.first_known
    known = gaps.clamp(0.0, GAP_LIMITS[1])
    kinds = functional.one_hot(batch.types, n_types) * mask[..., None]
    decays = gaps.new_tensor(DECAYS)
    events = mask.shape[1]
    flat = known[..., None, None] * decays  # (batch, events, 1, decays)
    jumps = kinds[..., None].expand(-1, -1, -1, len(DECAYS)).flatten(2)
    fades = flat.expand(-1, -1, n_types, -1).flatten(2)
    after = decayed_sums(jumps, fades) if events else jumps
    after = functional.pad(after.unflatten(2, (n_types, -1)), (0, 0, 0, 0, 1, 0))
    return History(
        gaps=known.clamp_min(GAP_LIMITS[0]),
        kinds=kinds,
        counted=counted,
        time=running(known),
        number=running(counted),
        counts=running(kinds),
        after=after,
        before=after[:, :-1] * (-flat).exp(),
        last=functional.pad(kinds, (0, 0, 1, 0)),
    )


def running(values: Tensor) -> Tensor:
    """Sum over the events up to each position: (batch, events, ...) to (batch, positions, ...)."""
    return functional.pad(values.cumsum(1), (0, 0) * (values.dim() - 2) + (1, 0))


def refits(events: int) -> list[int]:
    """Return the numbers of events, at most ``events``, at which parameters are estimated."""
    return [one for one in REFITS if one <= events]


def hold(values: list[Tensor], events: int) -> Tensor:
    """Keep each estimate until the next: list of (batch, ...) to (batch, positions, ...)."""
    starts = [*refits(events), events + 1]
    repeats = torch.tensor([end - start for start, end in pairwise(starts)])
    return torch.stack(values, 1).repeat_interleave(repeats.to(values[0].device), 1)


def centres(like: Tensor) -> Tensor:
    """Return the centres of the histogram's bins, (bins,)."""
    return FIRST_CENTRE + BIN * torch.arange(BINS, dtype=like.dtype, device=like.device)


def bins_of(log_gaps: Tensor) -> Tensor:
    """Weigh the two nearest bins of each log time: (..., bins)."""
    place = ((log_gaps - FIRST_CENTRE) / BIN).clamp(0, BINS - 1)
    return (1 - (place[..., None] - torch.arange(BINS, device=place.device)).abs()).clamp_min(0)
