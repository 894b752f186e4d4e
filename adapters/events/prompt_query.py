"""The query of prompt retrieval: fixed features of the events so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tsllm.adapters.events.features import SHORTEST_GAP, TypeVectors

if TYPE_CHECKING:
    from tsllm.adapters.events.batch import EventBatch

#: Range and number of the radial basis functions over the log of the scaled inter-event time.
LOG_GAP_RANGE, LOG_GAP_BASES = (-7.0, 4.0), 16
#: Query features are summed as integers in steps of this: exact in any order, on any device.
QUERY_STEP = 2.0**-24


class Query(NamedTuple):
    """A summary of a sequence after each event, by which prompts are retrieved."""

    vectors: Tensor
    """(batch, positions, size) float32: the mean of the features of the events so far."""
    counts: Tensor
    """(batch, positions): the number of those events."""
    mean_gap: Tensor
    """(batch, positions) float32: their mean inter-event time; 1 while none is known."""


class QueryState(NamedTuple):
    """Sums over the events so far, from which the next query is computed."""

    total: Tensor
    """(batch, size) int64, the features in steps of `QUERY_STEP`."""
    counts: Tensor
    """(batch,) events so far."""
    last_type: Tensor
    """(batch,), -1 before the first event."""
    gap_total: Tensor
    """(batch,) float64, the sum of the known inter-event times."""
    gap_count: Tensor
    """(batch,), their number."""


class CausalQuery(nn.Module):
    """The mean, over the events so far, of fixed random features of types and inter-event times.

    A feature vector is the sum of random projections of one-hot(type), one-hot(type before, type)
    and radial basis functions of the log inter-event time. Nothing in it is trained: the keys of a
    prompt pool keep their meaning while the network changes. The query depends on no later event
    and no other sequence, and the sums are of integers: they are bit for bit equal in any batch.

    Parameters
    ----------
    n_types : int
        Number of event types.
    size : int, default=64
        Width of the query.
    seed : int, default=0
        Of the random projections.
    type_vectors : Tensor or None, default=None
        ``(types, width)``, vectors of the types' texts, in place of one-hot vectors: types with
        similar texts then have similar features.

    Examples
    --------
    >>> query = CausalQuery(3, size=8)
    >>> state = query.empty_state(1)
    >>> state, after = query.extend(state, torch.tensor([[1]]), torch.tensor([[0.5]]))
    >>> after.vectors.shape, after.counts.item(), after.mean_gap.item()
    (torch.Size([1, 1, 8]), 1, 0.5)
    """

    def __init__(
        self, n_types: int, *, size: int = 64, seed: int = 0, type_vectors: Tensor | None = None
    ) -> None:
        super().__init__()
        self.size, self.seed = size, seed
        generator = torch.Generator().manual_seed(seed)
        bases = torch.randn(LOG_GAP_BASES, size, generator=generator, dtype=torch.float64)
        self.bases: Tensor
        self.register_buffer("bases", bases / math.sqrt(size), persistent=False)
        self.vectors: TypeVectors | None = None
        self.text_projection: Tensor | None
        self.register_buffer("text_projection", None, persistent=False)
        if type_vectors is not None:
            self.vectors = TypeVectors(type_vectors)
            width = type_vectors.shape[1]
            projection = torch.randn(3, width, size, generator=generator, dtype=torch.float64)
            self.text_projection = projection / math.sqrt(width)
        # The projection of one-hot(before, type) is a product of two vectors of the types: as
        # random as a matrix of types² rows, in less memory.
        self.codes: Tensor
        self.register_buffer("codes", self._codes(0, n_types))  # (types, 3, size)

    def forward(self, batch: EventBatch) -> Query:
        """Compute the query at each position, the start first: positions = 1 + events."""
        start = self.empty_state(len(batch))
        query = self._extend_by(start, batch)[1]
        return Query(*(torch.cat(parts, 1) for parts in zip(self.query_of(start), query)))

    def mean_gaps(self, batch: EventBatch) -> Tensor:
        """Compute the mean inter-event time at each position alone: (batch, positions)."""
        known = batch.mask.clone()
        known[:, :1] &= batch.first_known[:, None]
        total = torch.where(known, batch.gaps, 0).double().cumsum(1)
        count = known.long().cumsum(1)
        return nn.functional.pad(_mean_gap(total, count), (1, 0), value=1.0)

    def empty_state(self, batch: int) -> QueryState:
        """Create the state of sequences without events."""
        zeros = torch.zeros(batch, dtype=torch.long, device=self.codes.device)
        return QueryState(zeros[:, None].repeat(1, self.size), zeros, zeros - 1, zeros * 0.0, zeros)

    def state_after(self, batch: EventBatch) -> QueryState:
        """Compute the state after all events of a batch."""
        return self._extend_by(self.empty_state(len(batch)), batch)[0]

    def extend(
        self,
        state: QueryState,
        types: Tensor,
        gaps: Tensor,
        *,
        known: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[QueryState, Query]:
        """Update the state by events of each sequence.

        Parameters
        ----------
        state : QueryState
            It is not changed.
        types, gaps : Tensor
            ``(batch, events)``, types and scaled inter-event times.
        known : Tensor or None, default=None
            ``(batch, events)`` bool, False where the inter-event time is not known (a first event
            in a window of unknown start). None: all are known.
        mask : Tensor or None, default=None
            ``(batch, events)`` bool, False for padding on the right. None: there is none.

        Returns
        -------
        state : QueryState
            After the last event.
        query : Query
            After each event: positions = events.
        """
        mask = torch.ones_like(types, dtype=torch.bool) if mask is None else mask
        known = mask if known is None else known & mask
        before = torch.cat([state.last_type[:, None], types], 1)  # (batch, 1 + events)
        features = self._features(before[:, :-1], types, gaps, known)
        new = (
            torch.where(mask[..., None], features, 0),
            mask.long(),
            torch.where(known, gaps, 0).double(),
            known.long(),
        )
        old = (state.total, state.counts, state.gap_total, state.gap_count)
        sums = [past[:, None] + part.cumsum(1) for past, part in zip(old, new)]
        total, counts, gap_total, gap_count = (past + part.sum(1) for past, part in zip(old, new))
        last_type = before.gather(1, mask.sum(1)[:, None])[:, 0]
        return QueryState(total, counts, last_type, gap_total, gap_count), _query(*sums)

    def query_of(self, state: QueryState) -> Query:
        """Compute the query of a state: positions = 1."""
        parts = (state.total, state.counts, state.gap_total, state.gap_count)
        return _query(*(part[:, None] for part in parts))

    def grow(self, n_types: int, type_vectors: Tensor | None = None) -> None:
        """Add types; the codes of the other types stay."""
        if self.vectors is not None:
            assert type_vectors is not None
            self.vectors.grow(type_vectors)
        new = self._codes(len(self.codes), n_types).to(self.codes)
        self.codes = torch.cat([self.codes, new])

    def _codes(self, first: int, last: int) -> Tensor:
        """Draw the three vectors of each type: as the type before, as the type after, alone."""
        if self.vectors is not None:
            assert self.text_projection is not None
            table = self.vectors.table[first:last].to(self.text_projection)  # (types, width)
            codes = torch.einsum("kw,pws->kps", table, self.text_projection)
        else:
            signs = []
            for number in range(first, last):
                generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + number)
                signs.append(torch.randint(0, 2, (3, self.size), generator=generator) * 2.0 - 1.0)
            codes = torch.stack(signs).double() if signs else torch.zeros(0, 3, self.size)
        return codes.double() * self.size**-0.25  # a product of two has about unit length

    def _extend_by(self, state: QueryState, batch: EventBatch) -> tuple[QueryState, Query]:
        known = torch.ones_like(batch.mask)
        known[:, :1] = batch.first_known[:, None]
        return self.extend(state, batch.types, batch.gaps, known=known, mask=batch.mask)

    def _features(self, before: Tensor, types: Tensor, gaps: Tensor, known: Tensor) -> Tensor:
        """Compute the features of events as integers: (batch, events, size)."""
        after = self.codes[types]  # (batch, events, 3, size)
        pair = self.codes[before.clamp_min(0)][..., 0, :] * after[..., 1, :]
        features = torch.where((before >= 0)[..., None], pair, 0.0)
        features = features + after[..., 2, :] * self.size**-0.25
        low, high = LOG_GAP_RANGE
        spacing = (high - low) / (LOG_GAP_BASES - 1)
        logs = gaps.double().clamp_min(SHORTEST_GAP).log().clamp(low, high)
        # One basis function after the other: rounding of a matrix product depends on the batch.
        for number in range(LOG_GAP_BASES):
            centre = low + number * spacing
            weight = (-0.5 * ((logs - centre) / spacing).square()).exp()
            features = features + torch.where(known, weight, 0.0)[..., None] * self.bases[number]
        return (features / QUERY_STEP).round().long()


def _query(total: Tensor, counts: Tensor, gap_total: Tensor, gap_count: Tensor) -> Query:
    vectors = total.double() * QUERY_STEP / counts.clamp_min(1)[..., None]
    return Query(vectors.float(), counts, _mean_gap(gap_total, gap_count))


def _mean_gap(total: Tensor, count: Tensor) -> Tensor:
    """Divide sums of inter-event times by their numbers, float32; 1 where there is none."""
    return torch.where(count > 0, total / count.clamp_min(1), 1.0).float()
