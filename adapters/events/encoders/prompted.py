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
from tsllm.adapters.events.calendar import CalendarChange
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
    now: Tensor | None = None
    """(batch,) float64, the calendar time of the last event; None without a calendar."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of the tensors."""
        nbytes: int = self.encoder.nbytes
        nbytes += 0 if self.now is None else self.now.nbytes
        return nbytes + sum(part.nbytes for part in self.query) + self.first_known.nbytes


class PromptedEncoder(nn.Module):
    """An event encoder whose prompts are retrieved by the events themselves.

    A base without a constructor: a subclass sets the parts.

    Attributes
    ----------
    encoder : nn.Module
        Encodes a batch with the prompts chosen for it: `AttentionEncoder` or another.
    query : CausalQuery
        Computes the queries of retrieval.
    pool : PromptPool
        The prompts.
    calendar : CalendarChange or None
        The change of the states by the time of day, week and year.
    """

    encoder: Any
    query: CausalQuery
    pool: PromptPool
    calendar: CalendarChange | None

    def retrieve(
        self, batch: EventBatch, slots: Sequence[int] | None = None
    ) -> PromptChoice | None:
        """Choose the prompts of each position among ``slots`` (None: all); None without any."""
        if self.pool.needs_query(slots):
            return self.pool.choose(self.query(batch), slots)
        numbers = range(len(self.pool)) if slots is None else slots
        return self.pool.choose_all(self.query.mean_gaps(batch), numbers) if numbers else None

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
        now = None
        if self.calendar is not None:
            now = self._times(batch).gather(1, batch.lengths[:, None])[:, 0]
        stream = EventStream(state, self.query.state_after(batch), batch.first_known, now)
        return stream, self._changed(
            states, last, None if now is None else now[:, None], stream.query.last_type[:, None]
        )

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
        now = None if stream.now is None else stream.now + gaps.double()
        after = EventStream(state, query_state, stream.first_known, now)
        return after, self._changed(
            states, choice, None if now is None else now[:, None], query_state.last_type[:, None]
        )

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
        now = None
        if stream.now is not None:
            now = stream.now + torch.where(mask, gaps, 0).double().sum(1)
        after = EventStream(state, query_state, stream.first_known, now)
        return after, self._changed(
            EventStates(hidden).at(last),
            None if choice is None else choice.at(last),
            None if now is None else now[:, None],
            query_state.last_type[:, None],
        )

    def _encode(self, batch: EventBatch, choice: PromptChoice | None) -> EventStates:
        """Encode all positions with the prompts chosen."""
        times = None if self.calendar is None else self._times(batch)
        last_types = nn.functional.pad(batch.types, (1, 0), value=-1)
        return self._changed(self.encoder.encode(batch, choice), choice, times, last_types)

    def _changed(
        self,
        states: EventStates,
        choice: PromptChoice | None,
        times: Tensor | None,
        last_types: Tensor,
    ) -> EventStates:
        """Add the changes by the calendar at ``times``, and the low-rank ones of the slots."""
        hidden = states.hidden
        if self.calendar is not None and times is not None:
            hidden = self.calendar(hidden, times)
        if choice is not None and self.pool.head_rank:
            hidden = self.pool.change_states(hidden, choice)
        return EventStates(hidden, states.memory, self.pool.guess_types(choice, last_types))

    @torch.no_grad()
    def type_guess(self, query: QueryState) -> Tensor | None:
        """Compute `EventStates.type_guess` of sequences from the sums of their queries."""
        choice = self.pool.choose(self.query.query_of(query))
        return self.pool.guess_types(choice, query.last_type[:, None])

    def _times(self, batch: EventBatch) -> Tensor:
        """Return the calendar times of the positions, (batch, events + 1) float64."""
        times = batch.times
        if times is None:
            raise ValueError(
                "the model reads the time of day, and the times of these events are numbers: pass "
                "timestamps, as in training"
            )
        return times
