"""An event encoder with prompts of a pool: states of whole sequences, and of streams that go on.

Each position takes its prompts by what is known of the sequence up to it, and by nothing else: no
later event, no other sequence of the batch, no slice number.
"""

from __future__ import annotations

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
    """What `PromptedEncoder` remembers of streams that go on; a value, which no step changes."""

    encoder: Any
    """The encoder's state."""
    query: QueryState
    """The sums that the next query follows from."""
    first_known: Tensor
    """(batch,) bool: whether the gap before the first event is one."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        nbytes: int = self.encoder.nbytes
        return nbytes + sum(part.nbytes for part in self.query) + self.first_known.nbytes


class PromptedEncoder(nn.Module):
    """Encode events with the prompts that the events themselves retrieve.

    A base without a constructor: a subclass sets the three parts.

    Attributes
    ----------
    encoder : nn.Module
        Reads a batch and the prompts chosen for it: `AttentionEncoder` and its like.
    query : CausalQuery
        What prompts are retrieved by.
    pool : PromptPool
        The prompts.
    """

    encoder: Any
    query: CausalQuery
    pool: PromptPool

    def retrieve(
        self, batch: EventBatch, slots: Sequence[int] | None = None
    ) -> PromptChoice | None:
        """Say which prompts each position takes, of ``slots``; None where there is none."""
        return self.pool.choose(self.query(batch), slots)

    def encode(self, batch: EventBatch, slots: Sequence[int] | None = None) -> EventStates:
        """Give the states at all positions.

        Parameters
        ----------
        batch : EventBatch
        slots : sequence of int or None, default=None
            The prompt slots in question; a slice is trained with its own. None: all.

        Returns
        -------
        EventStates
            ``(batch, events + 1, hidden)``.
        """
        return self._encode(batch, self.retrieve(batch, slots))

    @torch.no_grad()
    def init_state(self, batch: EventBatch) -> tuple[EventStream, EventStates]:
        """Read the histories of streams.

        Parameters
        ----------
        batch : EventBatch
            The events so far; a stream may have none.

        Returns
        -------
        EventStream
            What `step` continues.
        EventStates
            Of one position, the last.
        """
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

        Parameters
        ----------
        stream : EventStream
            It is left as it is.
        types, gaps : Tensor
            ``(batch,)``, scaled gaps; 1 before a first event whose window has no known start.
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
        """Continue streams by many events at once: encoder "aaren" only.

        Parameters
        ----------
        stream : EventStream
            It is left as it is.
        types, gaps : Tensor
            ``(batch, events)``; see `step`.
        mask : Tensor or None, default=None
            Bool, ``(batch, events)``, False for padding on the right. None: there is none.

        Returns
        -------
        EventStream
        EventStates
            Of one position, the last.

        Raises
        ------
        ValueError
            The encoder is another.
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
        """Give the states at all positions, with the prompts chosen."""
        return self._with_head_changes(self.encoder.encode(batch, choice), choice)

    def _with_head_changes(self, states: EventStates, choice: PromptChoice | None) -> EventStates:
        """Apply the low-rank changes of the chosen slots."""
        if choice is None or not self.pool.head_rank:
            return states
        return EventStates(self.pool.change_states(states.hidden, choice), states.memory)
