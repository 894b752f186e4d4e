"""The states of sequences that go on: moved event by event, and put away as plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates, length_buckets
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.encoders.llm import LLMEncoder
from tsllm.adapters.events.encoders.prompted import EventStream
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.datasets.events import EventTable
from tsllm.events.batching import keep_last, last_times
from tsllm.events.prompttpp.parameters import is_endless
from tsllm.events.sampling import copies_of

if TYPE_CHECKING:
    from tsllm.events.prompttpp.model import PromptTPPCore

#: More new events of a sequence than this are encoded together, not stepped through.
MOST_STEPS = 32
#: Of those, an endless encoder takes in so many at a time.
EVENTS_AT_ONCE = 4096
#: Sequences of an endless encoder whose first states are computed at once.
ROWS_AT_ONCE = 16
#: Events of an endless stream that are kept, in contexts: futures are sampled from them.
KEPT_CONTEXTS = 4


class RunningState(NamedTuple):
    """What is known of one sequence after its last event."""

    stream: EventStream
    """What the model's `step` goes on from; one row."""
    hidden: Tensor
    """(1, 1, hidden), what the decoder reads."""
    time: float
    """Of the last event, or of the window's start, on the history's clock; NaN: neither."""
    events: int
    """How many events the state has read since it was made."""


class RunningStates:
    """The states of an estimator's history; a value, which `after` leaves as it is.

    With the encoder "aaren" every sequence has its state from the beginning: it remembers events
    that the history no longer holds. With the others a sequence gets one at its first update, and
    it is made anew where it would hold more events than the model reads at once.
    """

    def __init__(self, states: Mapping[Hashable, RunningState]) -> None:
        self.states = dict(states)

    @classmethod
    def begin(cls, estimator: PromptTPPCore, table: EventTable) -> RunningStates:
        """Make the states after the events of a table, where they are needed from the start."""
        if not is_endless(estimator):
            return cls({})
        states = {}
        rows, last = estimator._windows(table), last_times(table)
        for indices in length_buckets(rows.lengths, batch_size=ROWS_AT_ONCE):
            batch = rows.gather(indices).to(estimator._device())
            stream, after = estimator.model_.init_state(batch)
            for row, index in enumerate(indices.tolist()):
                states[table.ids[index]] = RunningState(
                    _row_of(stream, row),
                    after.hidden[row : row + 1].clone(),
                    float(last[index]),
                    len(table.times[index]),
                )
        return cls({name: states[name] for name in table.ids})

    def after(self, estimator: PromptTPPCore, new: EventTable) -> RunningStates:
        """Move over new events, which the estimator's history holds already."""
        history = estimator.history_
        if estimator.decoder == "attnhp":
            return self  # its intensities need all events, not a state
        place, last = {name: i for i, name in enumerate(history.ids)}, last_times(history)
        codes = estimator._windows(new).codes
        states = dict(self.states)
        for number, name in enumerate(new.ids):
            times = history.clock.to_number(new.clock.to_stamp(new.times[number]))
            known = states.get(name)
            count = len(times)
            if not count and known is not None:
                continue
            endless = is_endless(estimator)
            if known is None or (not endless and self._full(estimator, known, count)):
                source = new.select([name]) if endless else history.select([name])
                batch = estimator._windows(source).gather([0]).to(estimator._device())
                stream, now = estimator.model_.init_state(batch)
                events = int(batch.lengths)
                states[name] = RunningState(stream, now.hidden, float(last[place[name]]), events)
                continue
            states[name] = _step(estimator, known, times, codes[number])
        return RunningStates(states)

    def latest(self, estimator: PromptTPPCore) -> tuple[EventDecoder, EventStates] | None:
        """Give the states of the history's sequences, in its order; None where there are none."""
        history = estimator.history_
        if not any(name in self.states for name in history.ids):
            return None
        hidden = {name: self.states[name].hidden for name in history.ids if name in self.states}
        missing = [name for name in history.ids if name not in hidden]
        if missing:
            rows = estimator._windows(history.select(missing))
            for indices in length_buckets(rows.lengths, batch_size=estimator._rows_at_once):
                batch = rows.gather(indices).to(estimator._device())
                with torch.no_grad():
                    found = estimator._encode(batch)[1].at(batch.lengths).hidden
                for row, index in enumerate(indices.tolist()):
                    hidden[missing[index]] = found[row : row + 1]
        device = estimator._device()
        stacked = torch.cat([hidden[name].to(device) for name in history.ids])
        return estimator.model_.decoder, EventStates(stacked)

    def tensors(self) -> dict[str, Tensor]:
        """Write everything as tensors, numbered by sequence."""
        written: dict[str, Tensor] = {}
        for number, state in enumerate(self.states.values()):
            for path, tensor in _numbered_tensors((state.stream, state.hidden)):
                written[f"{number}.{path}"] = tensor
            written[f"{number}.time"] = torch.tensor(state.time, dtype=torch.float64)
            written[f"{number}.events"] = torch.tensor(state.events)
        return written

    def cpu(self) -> RunningStates:
        """Copy all tensors to the CPU; `after` and `latest` bring them where the model is."""
        return RunningStates(
            {
                name: RunningState(*_map_tensors(tuple(state), lambda tensor: tensor.cpu()))
                for name, state in self.states.items()
            }
        )

    @classmethod
    def from_tensors(
        cls, estimator: PromptTPPCore, names: list[Hashable], tensors: Mapping[str, Tensor]
    ) -> RunningStates:
        """Read what `tensors` wrote, for the sequences of these names."""
        empty = _empty_batch(estimator)
        stream, now = estimator.model_.init_state(empty)
        states = {}
        for number, name in enumerate(names):
            paths = iter([path for path, _ in _numbered_tensors((stream, now.hidden))])

            def read(old: Tensor, paths: Iterator[str] = paths, number: int = number) -> Tensor:
                found = tensors[f"{number}.{next(paths)}"]
                if found.shape != old.shape or found.dtype != old.dtype:
                    raise ValueError(f"a running state of shape {tuple(found.shape)}")
                return found.to(old.device)

            own, hidden = _map_tensors((stream, now.hidden), read)
            time, events = float(tensors[f"{number}.time"]), int(tensors[f"{number}.events"])
            states[name] = RunningState(own, hidden, time, events)
        return cls(states)

    @staticmethod
    def _full(estimator: PromptTPPCore, known: RunningState, count: int) -> bool:
        return count > MOST_STEPS or known.events + count > estimator.context_length_


class StreamedPaths:
    """Futures that grow event by event, each from the running state of its history.

    Parameters
    ----------
    model : PromptTPPModel
    batch : EventBatch
        The histories; each is read once, whatever the number of its futures.
    copies : int
        Futures of each history.
    """

    def __init__(self, model: PromptTPPModel, batch: EventBatch, copies: int) -> None:
        self._model = model
        self.decoder: EventDecoder = model.decoder
        rows = copies_of(len(batch), copies, batch.types.device)
        if isinstance(model.encoder, LLMEncoder):  # its key-value cache is not ours to copy
            self._stream, self.states = model.init_state(batch.select(rows))
            return
        stream, states = model.init_state(batch)
        self._stream = _map_tensors(stream, lambda tensor: tensor[rows])
        self.states = EventStates(states.hidden[rows])

    def append(self, types: Tensor, gaps: Tensor) -> None:
        """Append an event to each path."""
        self._stream, self.states = self._model.step(self._stream, types, gaps)


def trim_history(table: EventTable, most: int) -> EventTable:
    """Cut sequences of more than ``most`` events to the last half of so many.

    By halves, so that a running state is made anew once in many events and not at each.
    """
    half = max(1, most // 2)
    return keep_last(table, [n if n <= most else half for n in map(len, table.times)])


def history_length(estimator: PromptTPPCore) -> int:
    """Decide how many events of a sequence are kept."""
    return estimator.context_length_ * (KEPT_CONTEXTS if is_endless(estimator) else 1)


@torch.no_grad()
def _step(
    estimator: PromptTPPCore, known: RunningState, times: np.ndarray, codes: np.ndarray
) -> RunningState:
    """Move a state over new events of its sequence."""
    model, device = estimator.model_, estimator._device()
    if known.hidden.device.type != device.type:
        known = RunningState(*_map_tensors(tuple(known), lambda tensor: tensor.to(device)))
    edges = np.concatenate([[known.time], times])
    gaps = np.maximum(np.diff(edges), estimator.resolution_) / estimator.time_scale_
    gaps = np.where(np.isnan(gaps), 1.0, gaps)  # before a first event, with no known start
    types = torch.as_tensor(codes, device=device)
    scaled = torch.as_tensor(gaps, dtype=torch.float32, device=device)
    stream, now = known.stream, EventStates(known.hidden)
    if len(times) > MOST_STEPS:  # only an endless encoder comes here with so many
        for part in torch.arange(len(times), device=device).split(EVENTS_AT_ONCE):
            stream, now = model.extend(stream, types[None, part], scaled[None, part])
    else:
        for i in range(len(times)):
            stream, now = model.step(stream, types[i : i + 1], scaled[i : i + 1])
    return RunningState(stream, now.hidden, float(times[-1]), known.events + len(times))


def _empty_batch(estimator: PromptTPPCore) -> EventBatch:
    """Make a batch of one sequence without events."""
    table = EventTable(
        ("empty",),
        (np.empty(0),),
        (np.empty(0, dtype=object),),
        starts=np.zeros(1),
        ends=np.full(1, np.nan),
    )
    return estimator._windows(table).gather([0]).to(estimator._device())


def _row_of(tree: Any, row: int) -> Any:
    """Take one row of all tensors, as tensors of their own."""
    return _map_tensors(tree, lambda tensor: tensor[row : row + 1].clone())


def _map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested tuples and dataclasses."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple):
        parts = [_map_tensors(part, change) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if is_dataclass(tree) and not isinstance(tree, type):
        named = {one.name: _map_tensors(getattr(tree, one.name), change) for one in fields(tree)}
        return replace(tree, **named)
    return tree


def _numbered_tensors(tree: Any) -> list[tuple[str, Tensor]]:
    """List the tensors of nested tuples and dataclasses, numbered in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _map_tensors(tree, note)
    return [(str(number), tensor) for number, tensor in enumerate(found)]
