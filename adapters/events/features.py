"""Inputs of the event encoders: codes of inter-event times and vectors of types.

Only inter-event times and types are used, never absolute times, and times arrive scaled: neither
moving a sequence in time nor changing the unit of time changes the result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tsllm.adapters.events.batch import EventBatch

#: Shorter scaled inter-event times have the code of this one: log 0 has none.
SHORTEST_GAP = 1e-8


class TimeEncoding(nn.Module):
    """Sines and cosines of an inter-event time and of its logarithm.

    Half of the features are of the time, at geometric frequencies from ``1 / median_gap`` to ``1 /
    (1000 median_gap)``; half of ``log(time / median_gap)``, at 2 to 1/8 radians a unit, because
    inter-event times vary by many orders of magnitude. The layer has no weights.

    Parameters
    ----------
    features : int
        Number of features, a multiple of 4.
    median_gap : float, default=1.0
        The median inter-event time in training, scaled.

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
        """Encode scaled inter-event times of any shape (...): (..., features)."""
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
    """Fixed vectors (types, width) of types, computed from their texts, on a common scale.

    Vectors of a language model share a large mean: the mean over the first types is subtracted, and
    the rest divided by its root mean square.

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
    """One vector an event, of its type and inter-event time, and one for the start of a sequence.

    Parameters
    ----------
    n_types : int
        Number of event types.
    hidden : int
        Width of the vectors.
    time_features : int, default=32
        See `TimeEncoding`.
    median_gap : float, default=1.0
        See `TimeEncoding`.
    type_vectors : Tensor or None, default=None
        ``(types, width)``, vectors of the types' texts. Projections of them replace a learnt
        embedding: a new type is then close to types with a similar text.
    context_features : int, default=0
        Number of static covariates of a sequence, which are added to each of its events.

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
        """Return the vector of each type, (types, hidden)."""
        if self.vectors is None:
            return self.types
        table: Tensor = self.projection(self.vectors.table)
        return table

    def forward(self, batch: EventBatch) -> Tensor:
        """Embed the start and all events: (batch, 1 + events, hidden)."""
        start = self.first(len(batch), batch.context)[:, None]  # (batch, 1, hidden)
        return torch.cat([start, self.token(batch.types, batch.gaps, batch.context)], 1)

    def first(self, batch: int, context: Tensor | None = None) -> Tensor:
        """Embed the start of so many sequences: (batch, hidden)."""
        return add_context(self.context_layer, self.start.expand(batch, -1), context)

    def token(self, types: Tensor, gaps: Tensor, context: Tensor | None = None) -> Tensor:
        """Embed events of types and inter-event times (batch, ...): (batch, ..., hidden)."""
        out = self.type_table()[types] + self.time_layer(self.time_encoding(gaps))
        return add_context(self.context_layer, out, context)

    def grow(self, n_types: int, type_vectors: Tensor | None = None) -> None:
        """Add types, up to ``n_types`` in all; the new ones have ``type_vectors``.

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


def add_context(layer: nn.Linear | None, x: Tensor, context: Tensor | None) -> Tensor:
    """Add the static covariates of sequences (batch, features) to tokens (batch, ..., hidden)."""
    if layer is None:
        return x
    if context is None:
        raise ValueError(
            f"the model reads {layer.in_features} static covariates of each "
            "sequence, and the batch has none: pass them as its context"
        )
    added: Tensor = layer(context)  # (batch, hidden)
    return x + added.reshape(len(added), *[1] * (x.dim() - 2), -1)
