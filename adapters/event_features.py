"""What the event encoders read of events: codes of their gaps and types, and the causal query.

Only gaps and types are read, never the absolute time: moving a sequence in time changes nothing,
and gaps arrive scaled, so that changing the unit of time changes nothing either.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tsllm.adapters.event_batch import EventBatch

#: A gap below this (scaled, so this share of the mean gap) has the code of this: log 0 has none.
SHORTEST_GAP = 1e-8
#: Centres of the radial basis functions of the query over the log of the scaled gap, and how many.
LOG_GAP_RANGE, LOG_GAP_BASES = (-7.0, 4.0), 16
#: Query features are summed as whole numbers of this size: exact, in any order and on any device.
QUERY_STEP = 2.0**-24


class TimeEncoding(nn.Module):
    """Sines and cosines of a gap and of its logarithm.

    Half of the features are of the gap, at geometric frequencies from ``1 / median_gap`` to
    ``1 / (1000 median_gap)``; half of ``log(gap / median_gap)``, at 2 down to 1/8 radians a unit,
    for gaps are spread over many orders of magnitude. The layer has no weights.

    Parameters
    ----------
    features : int
        Number of features, a multiple of 4.
    median_gap : float
        The median gap in training, in the scaled unit.

    Raises
    ------
    ValueError
        ``features`` is no multiple of 4, or ``median_gap`` is not positive.

    Examples
    --------
    >>> TimeEncoding(8, median_gap=0.5)(torch.tensor([0.1, 2.0])).shape
    torch.Size([2, 8])
    """

    def __init__(self, features: int, *, median_gap: float = 1.0) -> None:
        super().__init__()
        if features < 4 or features % 4:
            raise ValueError(f"time_features={features} must be a multiple of 4")
        if not (median_gap > 0 and math.isfinite(median_gap)):
            raise ValueError(f"median_gap={median_gap} must be a positive number")
        self.features = features
        self.median: Tensor
        self.register_buffer("median", torch.tensor(float(median_gap)))
        self.gap_rates: Tensor
        self.register_buffer("gap_rates", torch.logspace(0, -3, features // 4), persistent=False)
        self.log_rates: Tensor
        rates = torch.logspace(1, -3, features // 4, base=2.0)
        self.register_buffer("log_rates", rates, persistent=False)

    def forward(self, gaps: Tensor) -> Tensor:
        """Encode scaled gaps of any shape (...): (..., features)."""
        relative = gaps.to(self.median) / self.median
        angles = torch.cat(
            [
                relative[..., None] * self.gap_rates,
                relative.clamp_min(SHORTEST_GAP).log()[..., None] * self.log_rates,
            ],
            -1,
        )  # (..., features / 2)
        return torch.cat([angles.sin(), angles.cos()], -1)


class TypeVectors(nn.Module):
    """Fixed vectors of the types that were computed from their texts, on a common scale.

    Vectors of a language model share a large mean, beside which they hardly differ: the mean over
    the first types is taken off, and the rest divided by its root mean square.

    Parameters
    ----------
    vectors : Tensor
        ``(types, width)``.

    Examples
    --------
    >>> TypeVectors(torch.tensor([[9.0, 1.0], [11.0, 3.0]])).table
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        vectors = vectors.detach().float()
        mean = vectors.mean(0)  # (width,)
        rms = (vectors - mean).square().mean().sqrt()
        self.mean: Tensor
        self.register_buffer("mean", mean)
        self.rms: Tensor
        self.register_buffer("rms", torch.where(rms > 0, rms, 1.0))
        self.table: Tensor
        self.register_buffer("table", (vectors - self.mean) / self.rms)

    def grow(self, vectors: Tensor) -> None:
        """Add types, (new types, width), on the scale of the first ones."""
        new = (vectors.to(self.mean) - self.mean) / self.rms
        self.table = torch.cat([self.table, new])


class EventEmbedding(nn.Module):
    """One vector an event, of its type and the gap before it, and one for the start of a sequence.

    Parameters
    ----------
    n_types : int
        Number of types.
    hidden : int
        Width of the result.
    time_features : int
        See `TimeEncoding`.
    median_gap : float
        See `TimeEncoding`.
    type_vectors : Tensor, optional
        ``(types, width)``, vectors of the types' texts. They are projected in place of a learnt
        embedding, so that a type that was never seen has a place near those that read alike.
    context_features : int
        Number of static covariates of a sequence that are added to each of its events.

    Examples
    --------
    >>> embedding = EventEmbedding(3, 16)
    >>> embedding.token(torch.tensor([0, 2]), torch.tensor([0.5, 1.0])).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        n_types: int,
        hidden: int,
        *,
        time_features: int = 32,
        median_gap: float = 1.0,
        type_vectors: Tensor | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.n_types, self.hidden = n_types, hidden
        self.time_encoding = TimeEncoding(time_features, median_gap=median_gap)
        self.time_layer = nn.Linear(time_features, hidden)
        self.start = nn.Parameter(torch.randn(hidden))
        self.vectors: TypeVectors | None = None
        self.context_layer = (
            nn.Linear(context_features, hidden, bias=False) if context_features else None
        )
        if type_vectors is None:
            self.types = nn.Parameter(torch.randn(n_types, hidden))
        else:
            self.vectors = TypeVectors(type_vectors)
            self.projection = nn.Linear(type_vectors.shape[1], hidden)

    def type_table(self) -> Tensor:
        """Give the vector of each type, (types, hidden)."""
        if self.vectors is None:
            return self.types
        table: Tensor = self.projection(self.vectors.table)
        return table

    def forward(self, batch: EventBatch) -> Tensor:
        """Embed the start and all events: (batch, 1 + events, hidden)."""
        start = self.first(len(batch), batch.context)[:, None]  # (batch, 1, hidden)
        context = None if batch.context is None else batch.context[:, None]
        return torch.cat([start, self.token(batch.types, batch.gaps, context)], 1)

    def first(self, batch: int, context: Tensor | None = None) -> Tensor:
        """Embed the start of so many sequences: (batch, hidden)."""
        return self._with_context(self.start.expand(batch, -1), context)

    def token(self, types: Tensor, gaps: Tensor, context: Tensor | None = None) -> Tensor:
        """Embed events of types and scaled gaps (...): (..., hidden)."""
        out = self.type_table()[types] + self.time_layer(self.time_encoding(gaps))
        return self._with_context(out, context)

    def grow(self, n_types: int, type_vectors: Tensor | None = None) -> None:
        """Make room for more types: ``n_types`` in all, of which the new ones have vectors.

        A new learnt embedding starts as the mean of the others.
        """
        if self.vectors is not None:
            assert type_vectors is not None
            self.vectors.grow(type_vectors)
        else:
            old = self.types.detach()
            new = old.mean(0, keepdim=True).expand(n_types - len(old), -1)
            self.types = nn.Parameter(torch.cat([old, new]), self.types.requires_grad)
        self.n_types = n_types

    def _with_context(self, x: Tensor, context: Tensor | None) -> Tensor:
        if self.context_layer is None:
            return x
        if context is None:
            raise ValueError(
                f"the model reads {self.context_layer.in_features} static covariates of each "
                "sequence, and the batch has none: pass them as its context"
            )
        return x + self.context_layer(context)


class Query(NamedTuple):
    """What is known of a sequence after each of its events, to retrieve prompts by."""

    vectors: Tensor
    """(batch, positions, size) float32: the mean of the features of the events so far."""
    counts: Tensor
    """(batch, positions): how many events those are."""
    mean_gap: Tensor
    """(batch, positions) float32: their mean gap; 1, the mean in training, while none is known."""


class QueryState(NamedTuple):
    """Sums over the events so far, from which the next query follows; each of (batch, ...)."""

    total: Tensor
    """(batch, size) int64, the features in steps of `QUERY_STEP`."""
    counts: Tensor
    """(batch,) events so far."""
    last_type: Tensor
    """(batch,), -1 before the first event."""
    gap_total: Tensor
    """(batch,) float64, the sum of the known gaps."""
    gap_count: Tensor
    """(batch,) how many gaps are known."""


class CausalQuery(nn.Module):
    """The mean, over the events so far, of fixed random features of their types and gaps.

    A feature vector is the sum of random projections of one-hot(type), one-hot(type before, type)
    and radial basis functions of the log gap. Nothing in it is trained, so the keys of a prompt
    pool keep their meaning while the network changes, and nothing after an event or in another
    sequence has a part in it. The sums are of whole numbers, hence the same to the last bit in any
    batch.

    Parameters
    ----------
    n_types : int
        Number of types.
    size : int
        Width of the query.
    seed : int
        Of the random projections.
    type_vectors : Tensor, optional
        ``(types, width)``, vectors of the types' texts, in place of one-hot vectors: types that
        read alike are then alike to the query.

    Examples
    --------
    >>> query = CausalQuery(3, size=8)
    >>> state = query.empty_state(1)
    >>> state, after = query.step(state, torch.tensor([1]), torch.tensor([0.5]))
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
        # The projection of one-hot(before, type) is a product of two vectors of the types:
        # as random as a matrix of types² rows, without holding one.
        self.codes: Tensor
        self.register_buffer("codes", self._codes(0, n_types))  # (types, 3, size)

    def forward(self, batch: EventBatch) -> Query:
        """Give the query at each position, the start first: positions = 1 + events."""
        before = _types_before(batch.types)  # (batch, events)
        known = torch.ones_like(batch.mask)
        known[:, :1] = batch.first_known[:, None]
        features = self._features(before, batch.types, batch.gaps, known)
        features = torch.where(batch.mask[..., None], features, 0)
        total = _from_zero(features.cumsum(1))  # (batch, positions, size)
        counts = _from_zero(batch.mask.long().cumsum(1))  # (batch, positions)
        known = known & batch.mask
        gaps = _from_zero(torch.where(known, batch.gaps, 0).double().cumsum(1))
        return _query(total, counts, gaps, _from_zero(known.long().cumsum(1)))

    def empty_state(self, batch: int) -> QueryState:
        """Make the state of sequences without events."""
        zeros = torch.zeros(batch, dtype=torch.long, device=self.codes.device)
        return QueryState(zeros[:, None].repeat(1, self.size), zeros, zeros - 1, zeros * 0.0, zeros)

    def state_after(self, batch: EventBatch) -> QueryState:
        """Give the state after all events of a batch."""
        known = torch.ones_like(batch.mask)
        known[:, :1] = batch.first_known[:, None]
        known = known & batch.mask
        features = self._features(_types_before(batch.types), batch.types, batch.gaps, known)
        counts = batch.mask.sum(1)  # (batch,)
        last = torch.full_like(counts, -1)
        if batch.types.shape[1]:
            newest = batch.types.gather(1, (counts - 1).clamp_min(0)[:, None])[:, 0]
            last = torch.where(counts > 0, newest, last)
        return QueryState(
            torch.where(batch.mask[..., None], features, 0).sum(1),
            counts,
            last,
            torch.where(known, batch.gaps, 0).double().sum(1),
            known.sum(1),
        )

    def step(
        self, state: QueryState, types: Tensor, gaps: Tensor, known: Tensor | None = None
    ) -> tuple[QueryState, Query]:
        """Take in one event of each sequence.

        Parameters
        ----------
        state : QueryState
            It is left as it is.
        types, gaps : Tensor
            ``(batch,)``, gaps scaled.
        known : Tensor, optional
            ``(batch,)`` bool: whether the gap is one, and not a stand-in before a first event
            whose window has no known start. None: it is.
        """
        if known is None:
            known = torch.ones_like(types, dtype=torch.bool)
        features = self._features(
            state.last_type[:, None], types[:, None], gaps[:, None], known[:, None]
        )
        state = QueryState(
            state.total + features[:, 0],
            state.counts + 1,
            types,
            state.gap_total + torch.where(known, gaps, 0).double(),
            state.gap_count + known,
        )
        return state, self.query_of(state)

    def query_of(self, state: QueryState) -> Query:
        """Give the query of a state: positions = 1."""
        parts = (state.total, state.counts, state.gap_total, state.gap_count)
        return _query(*(part[:, None] for part in parts))

    def grow(self, n_types: int, type_vectors: Tensor | None = None) -> None:
        """Make room for more types; those of the types there are stay."""
        if self.vectors is not None:
            assert type_vectors is not None
            self.vectors.grow(type_vectors)
        new = self._codes(len(self.codes), n_types).to(self.codes)
        self.codes = torch.cat([self.codes, new])

    def _codes(self, first: int, last: int) -> Tensor:
        """Make the three vectors of types: as one before, as one after, alone."""
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

    def _features(self, before: Tensor, types: Tensor, gaps: Tensor, known: Tensor) -> Tensor:
        """Give the features of events (batch, events) as whole numbers: (batch, events, size)."""
        after = self.codes[types]  # (batch, events, 3, size)
        pair = self.codes[before.clamp_min(0)][..., 0, :] * after[..., 1, :]
        features = torch.where((before >= 0)[..., None], pair, 0.0)
        features = features + after[..., 2, :] * self.size**-0.25
        low, high = LOG_GAP_RANGE
        spacing = (high - low) / (LOG_GAP_BASES - 1)
        logs = gaps.double().clamp_min(SHORTEST_GAP).log().clamp(low, high)
        # One basis function after the other: a matrix product rounds differently in other batches.
        for number in range(LOG_GAP_BASES):
            centre = low + number * spacing
            weight = (-0.5 * ((logs - centre) / spacing).square()).exp()
            features = features + torch.where(known, weight, 0.0)[..., None] * self.bases[number]
        return (features / QUERY_STEP).round().long()


def _types_before(types: Tensor) -> Tensor:
    """Give the type before each event, -1 before the first."""
    return torch.cat([torch.full_like(types[:, :1], -1), types[:, :-1]], 1)


def _from_zero(sums: Tensor) -> Tensor:
    """Put the empty sum before the others, along axis 1."""
    return torch.cat([sums.new_zeros(len(sums), 1, *sums.shape[2:]), sums], 1)


def _query(total: Tensor, counts: Tensor, gap_total: Tensor, gap_count: Tensor) -> Query:
    vectors = total.double() * QUERY_STEP / counts.clamp_min(1)[..., None]
    mean_gap = torch.where(gap_count > 0, gap_total / gap_count.clamp_min(1), 1.0)
    return Query(vectors.float(), counts, mean_gap.float())
