"""Event encoders with a pool of prompts: states of whole sequences and of streams.

The prompts of a position depend only on the events up to it: on no later event, no other sequence
of the batch, no slice number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.encoders.aaren import AarenEncoder
from tsllm.adapters.events.prompt_pool import PromptChoice, PromptPool
from tsllm.adapters.events.prompt_query import CausalQuery, QueryState


@dataclass(frozen=True)
class EventStream:
    """The state of streams in `PromptedEncoder`; a value, which no step changes."""

    encoder: Any
    """The encoder's state."""
    query: QueryState
    """The sums from which the next query is computed."""
    first_known: Tensor
    """(batch,) bool: whether the first inter-event time is known."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of the tensors."""
        nbytes: int = self.encoder.nbytes
        return nbytes + sum(part.nbytes for part in self.query) + self.first_known.nbytes


class PromptedEncoder(nn.Module):
    """An event encoder whose prompts are retrieved by the events themselves.

    A base without a constructor: a subclass sets the three parts.

    Attributes
    ----------
    encoder : nn.Module
        Encodes a batch with the prompts chosen for it: `AttentionEncoder` or another.
    query : CausalQuery
        Computes the queries of retrieval.
    pool : PromptPool
        The prompts.
    """

    encoder: Any
    query: CausalQuery
    pool: PromptPool

    def retrieve(
        self, batch: EventBatch, slots: Sequence[int] | None = None
    ) -> PromptChoice | None:
        """Choose the prompts of each position among ``slots`` (None: all); None without any."""
        return self.pool.choose(self.query(batch), slots)

    def encode(self, batch: EventBatch, slots: Sequence[int] | None = None) -> EventStates:
        """Encode all positions, (batch, events + 1, hidden), with prompts among ``slots``.

        A slice is trained with its own slots only. None: all.
        """
        return self._encode(batch, self.retrieve(batch, slots))

    @torch.no_grad()
    def init_state(self, batch: EventBatch) -> tuple[EventStream, EventStates]:
        """Encode the histories of streams, which may be empty; return their last states too."""
        choice = self.retrieve(batch)
        state, states = self.encoder.init_state(batch, choice)
        last = None if choice is None else choice.at(batch.lengths)
        stream = EventStream(state, self.query.state_after(batch), batch.first_known)
        return stream, self._with_head_changes(states, last)

    @torch.no_grad()
    def step(
        self, stream: EventStream, types: Tensor, gaps: Tensor
    ) -> tuple[EventStream, EventStates]:
        """Continue streams by one event each; equals `encode` over all their events.

        ``types`` and ``gaps`` are (batch,), types and scaled inter-event times; the time is 1
        before a first event in a window of unknown start. ``stream`` is not changed.
        """
        known = stream.first_known | (stream.query.counts > 0)
        query_state, query = self.query.extend(
            stream.query, types[:, None], gaps[:, None], known=known[:, None]
        )
        choice = self.pool.choose(query)
        state, states = self.encoder.step(stream.encoder, types, gaps, choice)
        after = EventStream(state, query_state, stream.first_known)
        return after, self._with_head_changes(states, choice)

    @torch.no_grad()
    def extend(
        self, stream: EventStream, types: Tensor, gaps: Tensor, *, mask: Tensor | None = None
    ) -> tuple[EventStream, EventStates]:
        """Continue streams by many events (batch, events) at once: encoder "aaren" only.

        ``mask`` is False for padding on the right. Returns the streams and their last states.
        """
        if not isinstance(self.encoder, AarenEncoder):
            raise ValueError(
                "only the encoder 'aaren' continues a stream by many events at once: make the "
                "state anew with init_state, or take one step an event"
            )
        if mask is None:
            mask = torch.ones_like(types, dtype=torch.bool)
        known = torch.ones_like(mask)
        known[:, 0] = stream.first_known | (stream.query.counts > 0)
        query_state, query = self.query.extend(stream.query, types, gaps, known=known, mask=mask)
        choice = self.pool.choose(query)
        state, hidden = self.encoder.extend(stream.encoder, types, gaps, choice, mask=mask)
        last = mask.sum(1) - 1
        after = EventStream(state, query_state, stream.first_known)
        return after, self._with_head_changes(
            EventStates(hidden).at(last), None if choice is None else choice.at(last)
        )

    def _encode(self, batch: EventBatch, choice: PromptChoice | None) -> EventStates:
        """Encode all positions with the prompts chosen."""
        return self._with_head_changes(self.encoder.encode(batch, choice), choice)

    def _with_head_changes(self, states: EventStates, choice: PromptChoice | None) -> EventStates:
        """Add the low-rank changes of the chosen slots."""
        if choice is None or not self.pool.head_rank:
            return states
        return EventStates(self.pool.change_states(states.hidden, choice), states.memory)
