"""Running states of event sequences: moved event by event, saved as plain tensors."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates, length_buckets
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.encoders.llm import LLMEncoder
from tsllm.adapters.events.encoders.prompted import EventStream
from tsllm.adapters.events.prompt_query import QueryState
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.datasets.events import Clock, EventTable
from tsllm.events.batching import keep_last, last_events, last_times
from tsllm.events.encoding import FittedModel
from tsllm.events.sampling import copies_of
from tsllm.events.tensor_trees import join_trees, map_tensors, tensors_of

#: More new events of a sequence than this are encoded together, not one by one.
MOST_STEPS = 32
#: Events that an endless encoder reads at a time where there are more.
EVENTS_AT_ONCE = 4096
#: Sequences of an endless encoder whose first states are computed at once.
ROWS_AT_ONCE = 16
#: Events of an endless stream that are kept, in contexts: futures are sampled from them.
KEPT_CONTEXTS = 4


class RunningState(NamedTuple):
    """The state of one sequence after its last event."""

    stream: EventStream
    """The input of the model's `step`; one row."""
    hidden: Tensor
    """(1, 1, hidden), the input of the decoder."""
    time: float
    """Of the last event, or of the window's start, on the history's clock; NaN: neither."""
    events: int
    """Number of events that the state has read."""

    def on(self, device: torch.device | str) -> "RunningState":
        """Copy the state to a device."""
        return RunningState(*map_tensors(tuple(self), lambda tensor: tensor.to(device)))

    def to_state(self) -> dict[str, Tensor]:
        """Return the state as tensors, for saving."""
        written = dict(_numbered((self.stream, self.hidden)))
        written["time"] = torch.tensor(self.time, dtype=torch.float64)
        written["events"] = torch.tensor(self.events)
        return written

    def from_state(self, tensors: Mapping[str, Tensor]) -> "RunningState":
        """Read what `to_state` returned; this state has the same shapes.

        Raises
        ------
        ValueError
            A tensor has another shape or type.
        """
        paths = iter([path for path, _ in _numbered((self.stream, self.hidden))])

        def read(old: Tensor) -> Tensor:
            found = tensors[next(paths)]
            if found.shape != old.shape or found.dtype != old.dtype:
                raise ValueError(f"a running state of shape {tuple(found.shape)}")
            return found.to(old.device)

        own, hidden = map_tensors((self.stream, self.hidden), read)
        return RunningState(own, hidden, float(tensors["time"]), int(tensors["events"]))


#: The running states of sequences by their names; never changed in place.
RunningStates = Mapping[Hashable, RunningState]


@dataclass(frozen=True)
class StreamPredictor:
    """A predictor of sequences that continue, from their running states.

    With an endless encoder every sequence has a state from its first event on, which remembers
    events that the history no longer holds. With the other encoders a sequence gets a state at its
    first update, and a new one where it would hold more events than the model reads at once.
    """

    model: PromptTPPModel
    fitted: FittedModel
    #: Number of events that the model reads at once.
    context_length: int
    #: True for the encoders that read endless streams.
    endless: bool
    #: False for the decoder "attnhp", whose intensities need all events and not a state.
    stepped: bool

    # ------------------------------------------------------------------ the history

    def kept_events(self) -> int:
        """Compute the number of events of a sequence that the history keeps."""
        return self.context_length * (KEPT_CONTEXTS if self.endless else 1)

    def keep(self, table: EventTable) -> EventTable:
        """Keep the last events of each sequence, after learning."""
        return last_events(table, self.kept_events())

    def trim(self, table: EventTable) -> EventTable:
        """Cut too long sequences to half of the events to keep, after an update.

        By halves, so that running states are computed anew rarely.
        """
        most = self.kept_events()
        half = max(1, most // 2)
        return keep_last(table, [n if n <= most else half for n in map(len, table.times)])

    # ------------------------------------------------------------------ running states

    def begin(self, table: EventTable) -> RunningStates:
        """Compute the states after the events of a table, for an endless encoder."""
        if not self.endless:
            return {}
        states = {}
        rows, last = self.fitted.rows(table), last_times(table)
        for indices in length_buckets(rows.lengths, batch_size=ROWS_AT_ONCE):
            batch = rows.gather(indices).to(self.fitted.device)
            stream, after = self.model.init_state(batch)
            for row, index in enumerate(indices.tolist()):
                states[table.ids[index]] = RunningState(
                    map_tensors(stream, partial(_copy_row, row=row)),
                    _copy_row(after.hidden, row),
                    float(last[index]),
                    len(table.times[index]),
                )
        return {name: states[name] for name in table.ids}

    def advance(self, states: RunningStates, history: EventTable, new: EventTable) -> RunningStates:
        """Move the states over new events, which the history holds already."""
        if not self.stepped:
            return states
        place, last = {name: i for i, name in enumerate(history.ids)}, last_times(history)
        codes = self.fitted.rows(new).codes
        moved = dict(states)
        for number, name in enumerate(new.ids):
            times = history.clock.to_number(new.clock.to_stamp(new.times[number]))
            known = moved.get(name)
            count = len(times)
            if not count and known is not None:
                continue
            full = known is not None and not self.endless and self._is_full(known, count)
            # A state without a time knows neither a start nor an event.
            if known is None or full or np.isnan(known.time):
                source = new.select([name]) if self.endless else history.select([name])
                batch = self.fitted.rows(source).gather([0]).to(self.fitted.device)
                stream, now = self.model.init_state(batch)
                events = int(batch.lengths)
                moved[name] = RunningState(stream, now.hidden, float(last[place[name]]), events)
                continue
            moved[name] = self._step(known, times, codes[number])
        return moved

    def latest(
        self, states: RunningStates, history: EventTable
    ) -> tuple[EventDecoder, EventStates] | None:
        """Return decoder and states of the history's sequences; None where there are no states."""
        hidden = {name: states[name].hidden for name in history.ids if name in states}
        if not hidden:
            return None
        queries = {name: states[name].stream.query for name in hidden}
        missing = [name for name in history.ids if name not in hidden]
        device = self.fitted.device
        if missing:
            rows = self.fitted.rows(history.select(missing))
            for indices in length_buckets(rows.lengths, batch_size=self.fitted.rows_at_once):
                batch = rows.gather(indices).to(device)
                with torch.no_grad():
                    now = self.fitted.encode(batch)[1].at(batch.lengths)
                    query = self.model.query.state_after(batch)
                for row, index in enumerate(indices.tolist()):
                    hidden[missing[index]] = now.hidden[row : row + 1]
                    queries[missing[index]] = QueryState(*(part[row : row + 1] for part in query))
        moved = [
            map_tensors((hidden[name], queries[name]), lambda tensor: tensor.to(device))
            for name in history.ids
        ]
        stacked, query = join_trees(*moved)
        # Of all sequences at once: None only where no slot of any of them has a share.
        guess = self.model.type_guess(query)
        return self.model.decoder, EventStates(stacked, type_guess=guess)

    def joined(self, states: RunningStates) -> tuple[EventStream, Tensor]:
        """Return the states of some sequences as one batch: the model's, and the decoder's."""
        moved = [one.on(self.fitted.device) for one in states.values()]
        joined: tuple[EventStream, Tensor] = join_trees(*((m.stream, m.hidden) for m in moved))
        return joined

    def empty_state(self) -> RunningState:
        """Compute the state of a sequence without events."""
        table = EventTable(
            ("empty",),
            (np.empty(0),),
            (np.empty(0, dtype=object),),
            starts=np.zeros(1),
            ends=np.full(1, np.nan),
            clock=Clock(pd.Timestamp(0)),
        )
        batch = self.fitted.rows(table).gather([0]).to(self.fitted.device)
        stream, now = self.model.init_state(batch)
        return RunningState(stream, now.hidden, np.nan, 0)

    def _is_full(self, known: RunningState, count: int) -> bool:
        """Return whether a state has to be computed anew for this many new events."""
        return count > MOST_STEPS or known.events + count > self.context_length

    @torch.no_grad()
    def _step(self, known: RunningState, times: np.ndarray, codes: np.ndarray) -> RunningState:
        """Move a state over new events of its sequence."""
        model, device = self.model, self.fitted.device
        if known.hidden.device.type != device.type:
            known = known.on(device)
        edges = np.concatenate([[known.time], times])
        gaps = np.maximum(np.diff(edges), self.fitted.resolution) / self.fitted.time_scale
        gaps = np.where(np.isnan(gaps), 1.0, gaps)  # before a first event, with no known start
        types = torch.as_tensor(codes, device=device)
        scaled = torch.as_tensor(gaps, dtype=torch.float32, device=device)
        stream, now = known.stream, EventStates(known.hidden)
        if len(times) > MOST_STEPS:  # of an endless encoder
            for part in torch.arange(len(times), device=device).split(EVENTS_AT_ONCE):
                stream, now = model.extend(stream, types[None, part], scaled[None, part])
        else:
            for i in range(len(times)):
                stream, now = model.step(stream, types[i : i + 1], scaled[i : i + 1])
        return RunningState(stream, now.hidden, float(times[-1]), known.events + len(times))


class StreamedPaths:
    """Futures that grow event by event, each from the running state of its history.

    Each history of ``batch`` is read once, for all of its ``copies``.
    """

    def __init__(self, model: PromptTPPModel, batch: EventBatch, copies: int) -> None:
        self._model = model
        self.decoder: EventDecoder = model.decoder
        rows = copies_of(len(batch), copies, batch.types.device)
        if isinstance(model.encoder, LLMEncoder):  # its key-value cache cannot be copied here
            self._stream, self.states = model.init_state(batch.select(rows))
            return
        stream, states = model.init_state(batch)
        self._stream = map_tensors(stream, lambda tensor: tensor[rows])
        guess = states.type_guess
        self.states = EventStates(
            states.hidden[rows], type_guess=None if guess is None else guess[rows]
        )

    def append(self, types: Tensor, gaps: Tensor) -> None:
        """Append an event to each path."""
        self._stream, self.states = self._model.step(self._stream, types, gaps)


def _copy_row(tensor: Tensor, row: int) -> Tensor:
    """Copy one row of a batch."""
    return tensor[row : row + 1].clone()


def _numbered(tree: Any) -> list[tuple[str, Tensor]]:
    """Return the tensors of a tree, numbered in order."""
    return [(str(number), tensor) for number, tensor in enumerate(tensors_of(tree))]
