"""The running states of the series that an Aaren forecaster follows, and their reader."""

import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.aaren.model import AarenModel
from tsllm.adapters.aaren.state import AarenStream
from tsllm.backbone.devices import memory_errors_explained
from tsllm.backbone.forks import limit_threads_after_fork
from tsllm.backbone.stopping import check_time
from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError, ModelFormatError
from tsllm.forecasters.forecasting import Prediction, Reader, with_faint_spreads
from tsllm.forecasters.state import FittedState, ModelShape

#: ``memory="full"`` warns of a stream of more than this number of training contexts.
FULL_MEMORY_FACTOR = 4
#: Series of a stream that are moved over a complete patch at once.
ROWS_AT_ONCE = 4096
#: Values that are read at once where a stream opens.
VALUES_AT_ONCE = 2**18


@dataclass(frozen=True)
class Memory:
    """The running state of one series, in constant size; variables are rows."""

    start: AarenStream  # everything before the kept rows; corrected rows are read again from it
    now: AarenStream  # everything
    version: int  # number of trainings of the weights that made it

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tensors."""
        return self.start.nbytes + self.now.nbytes


def weights_version(state: FittedState) -> int:
    """Return the number of the weights: every training makes new ones."""
    return len(state.trained_on)


def follow(
    state: FittedState,
    contexts: Sequence[Context],
    known: Mapping[Hashable, Context],
    memories: Mapping[Hashable, Memory],
    *,
    keep: int,
    batch_size: int,
) -> dict[Hashable, Memory]:
    """Advance the memories of series.

    Rows that were read before are skipped. Corrected rows are read anew from the state before the
    kept rows. After a training all kept rows are read anew, and what lay before is forgotten.
    ``contexts`` hold the kept rows of each series and the new ones after them, a new series whole;
    ``known`` holds the rows kept so far, and the last ``keep`` rows are kept from now on. The given
    memories do not change.
    """
    version = weights_version(state)
    model = exact_model(state)
    old = [memories.get(context.series_id) for context in contexts]
    old = [m if m is not None and m.version == version else None for m in old]
    empty = model.empty_stream(state.shape.n_variables).to("cpu")
    leaving = [max(0, len(context) - keep) for context in contexts]
    starts = _advance_all(
        state,
        [empty if memory is None else memory.start for memory in old],
        [context.values[:rows] for context, rows in zip(contexts, leaving)],
        batch_size,
    )
    streams, fresh = [], []
    for context, memory, start, rows in zip(contexts, old, starts, leaving):
        before = known.get(context.series_id)
        if memory is None or before is None or not _begins_with(context, before):
            streams.append(start)
            fresh.append(context.values[rows:])
        else:
            streams.append(memory.now)
            fresh.append(context.values[len(before) :])
    nows = _advance_all(state, streams, fresh, batch_size)
    return {
        context.series_id: Memory(start, now, version)
        for context, start, now in zip(contexts, starts, nows)
    }


@dataclass(frozen=True)
class StreamReader(Reader):
    """Forecasts from running states: of the followed series, or of contexts that it encodes."""

    state: FittedState
    batch_size: int  # rows that are advanced or forecast at once
    #: Of the followed series; None encodes.
    memories: "Mapping[Hashable, Memory] | RunningRows | PastRows | None" = None

    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Forecast after the running state of each context."""
        batch_of = self._states_of(contexts)
        rows = self.memories if isinstance(self.memories, RunningRows | PastRows) else None
        model = exact_model(self.state) if rows is None else rows.model
        variables = self.state.shape.n_variables
        values, scales = [], []
        for some in _batches(range(len(contexts)), self.batch_size, variables):
            batch = batch_of(some).to(self.state.device)
            with (
                torch.inference_mode(),
                memory_errors_explained(self.state.device, "forecasting", self.batch_size),
            ):
                spread, seen = model.statistics(batch)  # (series * variables,)
                self._check_seen(seen.cpu().numpy(), [contexts[i] for i in some])
                # (rows, horizon, 1 + levels)
                out = model.forecast(batch, horizon, before_step=check_time).cpu().numpy()
            shape = (len(some), variables, *out.shape[1:])
            values.append(np.moveaxis(out.reshape(shape), 1, 2))
            scale = spread.cpu().numpy().reshape(len(some), variables)
            scales.append(with_faint_spreads(scale, [contexts[i] for i in some]))
        return np.concatenate(values), np.concatenate(scales)

    def _check_seen(self, seen: np.ndarray, contexts: Sequence[Context]) -> None:
        """Check that each variable of series, (series * variables,), has an observed value."""
        if seen.all():
            return
        row, variable = divmod(int(seen.argmin()), self.state.shape.n_variables)
        context = contexts[row]
        raise DataError(
            f"{series_name(context.series_id)} has no observed value"
            f"{context.in_column(variable)}: drop it, or pass more of its history"
        )

    def _states_of(self, contexts: Sequence[Context]) -> Callable[[Sequence[int]], AarenStream]:
        """Return a function from positions of contexts to their states, as one batch."""
        memories = self.memories
        if isinstance(memories, PastRows):
            return memories.select
        if isinstance(memories, RunningRows):
            rows, ids = memories, [context.series_id for context in contexts]
            return lambda some: rows.of([ids[i] for i in some])
        if memories is None:
            streams = self.encode(contexts)
        else:
            streams = [memories[context.series_id].now for context in contexts]
        return lambda some: AarenStream.cat([streams[i] for i in some])

    def encode(self, contexts: Sequence[Context]) -> list[AarenStream]:
        """Read contexts from their first step to their last, one stream each.

        Contexts that share their memory and their first step, such as the pasts of one series at
        several origins, are read as one stream: the time is linear in its length. Streams are on
        the CPU, with a row for each variable and reading direction.
        """
        empty = exact_model(self.state).empty_stream(self.state.shape.n_variables).to("cpu")
        streams: list[AarenStream | None] = [None] * len(contexts)
        chains: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for i, context in enumerate(contexts):
            place = context.values.__array_interface__["data"][0], context.values.strides
            chains.setdefault(place, []).append(i)
        # Link by link, so that the chains of several series share a batch.
        waiting = [sorted(chain, key=lambda i: len(contexts[i])) for chain in chains.values()]
        ends = [(empty, 0) for _ in waiting]
        for link in range(max(map(len, waiting))):
            going = [k for k, chain in enumerate(waiting) if link < len(chain)]
            links = [waiting[k][link] for k in going]
            advanced = _advance_all(
                self.state,
                [ends[k][0] for k in going],
                [contexts[i].values[ends[k][1] :] for k, i in zip(going, links)],
                self.batch_size,
            )
            for k, i, stream in zip(going, links, advanced):
                streams[i] = stream
                ends[k] = stream, len(contexts[i])
        return [stream for stream in streams if stream is not None]


class RunningRows:
    """The running states of many series in one batch, which `observe` moves in place.

    ``streams`` are the states, one for each series of ``ids``, on the CPU.
    """

    def __init__(
        self, state: FittedState, ids: Sequence[Hashable], streams: Sequence[AarenStream]
    ) -> None:
        self._state = state
        self._places = {series_id: place for place, series_id in enumerate(ids)}
        self._batch = AarenStream.cat(streams)  # a copy: nobody else sees it change
        #: The model that moves them.
        self.model = exact_model(state)
        # rows of the batch for each series: variables and reading directions
        self.width = state.shape.n_variables * self.model.ways

    @classmethod
    def read(
        cls, state: FittedState, contexts: Sequence[Context], batch_size: int
    ) -> "RunningRows":
        """Read series, residuals of their covariates, from their first step to their last."""
        order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
        model, variables = exact_model(state), state.shape.n_variables
        parts, first = [], 0
        while first < len(order):
            # series of similar lengths, so that little is padded
            size = max(1, min(ROWS_AT_ONCE, VALUES_AT_ONCE // len(contexts[order[first]])))
            rows = [contexts[i].values for i in order[first : first + size]]
            start = model.empty_stream(len(rows) * variables)
            parts.append(_advance_batch(state, start, rows, batch_size))
            first += size
        read = cls(state, [contexts[i].series_id for i in order], parts)
        if order == list(range(len(order))):
            return read
        places = np.argsort(order)
        return cls(state, [context.series_id for context in contexts], [read.copy_of(places)])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.model = exact_model(self._state)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tensors."""
        return self._batch.nbytes

    @property
    def tokens(self) -> dict[Hashable, int]:
        """Return the complete patches that each series has had."""
        return dict(zip(self._places, self._batch.tokens[:: self.width].tolist()))

    def of(self, ids: Sequence[Hashable]) -> AarenStream:
        """Return the states of some series as one batch, which is not to be changed."""
        places = np.array([self._places[series_id] for series_id in ids])
        self._read_complete(places)
        if np.array_equal(places, np.arange(len(self._places))):
            return self._batch
        return self.copy_of(places)

    def copy_of(self, places: np.ndarray) -> AarenStream:
        """Copy the states of some series as they are now."""
        return _rows_of(self._batch, places, self.width)

    def add(self, others: "RunningRows") -> None:
        """Append the states of further series."""
        for series_id in others._places:
            self._places[series_id] = len(self._places)
        self._batch = AarenStream.cat([self._batch, others._batch])

    def observe(self, places: np.ndarray, values: np.ndarray) -> None:
        """Move the states of some series, by their places, over a step each.

        ``values`` are (series, variables), NaN where not observed. A patch runs through the model
        once, when it is complete and a forecast or the next step needs it.
        """
        self._read_complete(places)
        batch, width, ways = self._batch, self.width, self.model.ways
        rows = places[:, None] * width + np.arange(width)  # (series, width)
        signs = np.where(np.arange(width) % ways == 0, 1.0, -1.0)
        # views: the tensors change with them
        fill, buffer = batch.fill.numpy(), batch.buffer.numpy()
        buffer[rows, fill[rows]] = np.repeat(values, ways, axis=1) * signs
        fill[rows] += 1

    def are_due(self, places: np.ndarray) -> np.ndarray:
        """Return which of some series have a complete patch that the next step moves them over."""
        due: np.ndarray = self._batch.fill.numpy()[places * self.width] == self.model.patch_length
        return due

    def _read_complete(self, places: np.ndarray) -> None:
        """Run the complete patches of some series through the model."""
        due = places[self.are_due(places)]
        device = self._state.device
        for first in range(0, len(due), ROWS_AT_ONCE):
            some = due[first : first + ROWS_AT_ONCE]
            nothing = torch.empty(len(some) * self.width // self.model.ways, 0, device=device)
            moved = self.model.advance(self.copy_of(some).to(device), nothing)
            self._replace(some, moved.to("cpu"))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a file."""
        return self._batch.state_dict()

    @classmethod
    def from_tensors(
        cls, state: FittedState, ids: Sequence[Hashable], tensors: Mapping[str, Tensor]
    ) -> "RunningRows":
        """Read the output of `tensors`."""
        batch = AarenStream.from_state_dict(tensors)
        wanted = exact_model(state).empty_stream(len(ids) * state.shape.n_variables).state_dict()
        found = batch.state_dict()
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in wanted.items()}
        if {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} != shapes:
            raise ModelFormatError(
                "the saved stream has running states that are not those of its model: save it again"
            )
        return cls(state, ids, [batch])

    def _replace(self, places: np.ndarray, moved: AarenStream) -> None:
        """Write the states of some series into the batch."""
        if len(places) == len(self._places) and (np.diff(places) == 1).all():
            self._batch = moved
            return
        rows, new = _row_numbers(places, self.width), moved.state_dict()
        for name, part in self._batch.state_dict().items():
            part[rows] = new[name]


def _rows_of(batch: AarenStream, places: np.ndarray, width: int) -> AarenStream:
    """Copy the states of some series, of so many rows each."""
    rows = _row_numbers(places, width)
    named = batch.state_dict().items()
    return AarenStream.from_state_dict({name: part[rows] for name, part in named})


def _row_numbers(places: np.ndarray, width: int) -> Tensor:
    """Return the rows of some series in a batch."""
    return torch.from_numpy((places[:, None] * width + np.arange(width)).ravel())


class PastRows:
    """Copies of running states, in the order of the contexts that a reader forecasts after them.

    A series may have several, of different times.
    """

    def __init__(self, model: AarenModel, width: int, copies: Sequence[AarenStream]) -> None:
        self.model, self.width = model, width  # rows for each series
        self._batch = AarenStream.cat(copies)

    def part(self, some: Sequence[int]) -> "PastRows":
        """Return the states at these positions."""
        return PastRows(self.model, self.width, [self.select(some)])

    def select(self, some: Sequence[int]) -> AarenStream:
        """Return the states at these positions as one batch."""
        return _rows_of(self._batch, np.asarray(some), self.width)


def warn_of_drift(tokens: Mapping[Hashable, int], shape: ModelShape) -> None:
    """Warn of series much longer than the windows that plain Aaren was trained on.

    ``tokens`` are the complete patches of each series.
    """
    most = FULL_MEMORY_FACTOR * shape.context_length // shape.extra["patch_length"]
    long = [series_id for series_id, number in tokens.items() if number > most]
    if long:
        warnings.warn(
            f"{series_name(long[0])} has more than {FULL_MEMORY_FACTOR} times the "
            f"{shape.context_length} steps of a training window: memory='full' forgets nothing "
            "and drifts; use memory='decay' or 'window', or a longer context_length",
            stacklevel=2,
        )


def memory_tensors(
    memories: Mapping[Hashable, Memory], order: Sequence[Hashable]
) -> dict[str, Tensor]:
    """Return the memories of series as tensors by name, numbered in this order."""
    tensors = {}
    for k, series_id in enumerate(order):
        if series_id in memories:
            memory = memories[series_id]
            tensors[f"{k}.version"] = torch.tensor(memory.version)
            for part, stream in (("start", memory.start), ("now", memory.now)):
                named = stream.state_dict().items()
                tensors |= {f"{k}.{part}.{name}": tensor for name, tensor in named}
    return tensors


def memories_from(
    tensors: Mapping[str, Tensor], order: Sequence[Hashable]
) -> dict[Hashable, Memory]:
    """Rebuild the memories that `memory_tensors` returned."""

    def stream(prefix: str) -> AarenStream:
        parts = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return AarenStream.from_state_dict(parts)

    return {
        series_id: Memory(stream(f"{k}.start."), stream(f"{k}.now."), int(tensors[f"{k}.version"]))
        for k, series_id in enumerate(order)
        if f"{k}.version" in tensors
    }


# The float64 copy of each model, and the state of the weights that it was made from.
_EXACT: weakref.WeakKeyDictionary[AarenModel, tuple[int, AarenModel]] = weakref.WeakKeyDictionary()
_EXACT_LOCK = threading.Lock()


def exact_model(state: FittedState) -> AarenModel:
    """Return the float64 copy of a state's model, made anew when the weights have changed."""
    model = state.model
    assert isinstance(model, AarenModel)  # AarenForecaster builds no other
    changes = sum(parameter._version for parameter in model.parameters())
    with _EXACT_LOCK:
        changes_then, exact = _EXACT.get(model, (None, None))
        if exact is None or changes_then != changes:
            exact = model.exact().eval()
            _EXACT[model] = changes, exact
    return exact


def _advance_all(
    state: FittedState,
    streams: Sequence[AarenStream],
    rows: Sequence[np.ndarray],
    batch_size: int,
) -> list[AarenStream]:
    """Advance streams by their own new rows (steps, variables), in batches."""
    model, variables = exact_model(state), state.shape.n_variables
    advanced = list(streams)
    busy = [i for i, new in enumerate(rows) if len(new)]
    for some in _batches(busy, batch_size, variables):
        batch = AarenStream.cat([streams[i] for i in some])
        batch = _advance_batch(state, batch, [rows[i] for i in some], batch_size)
        for i, part in zip(some, batch.split([variables * model.ways] * len(some))):
            advanced[i] = part
    return advanced


def _advance_batch(
    state: FittedState, batch: AarenStream, rows: Sequence[np.ndarray], batch_size: int
) -> AarenStream:
    """Advance the streams of some series, one batch, by their own new rows (steps, variables)."""
    limit_threads_after_fork()
    check_time()
    device, variables = state.device, state.shape.n_variables
    values = np.full((len(rows), variables, max(map(len, rows))), np.nan)
    for row, new in zip(values, rows):
        row[:, : len(new)] = new.T
    lengths = torch.tensor([len(new) for new in rows]).repeat_interleave(variables)
    with memory_errors_explained(device, "forecasting", batch_size):
        moved = exact_model(state).advance(
            batch.to(device),
            torch.from_numpy(values).flatten(0, 1).to(device),  # (rows, steps)
            lengths.to(device),
        )
    return moved.to("cpu")


def _batches(items: Sequence[int], batch_size: int, variables: int) -> Iterator[list[int]]:
    """Split series into batches of about ``batch_size`` rows."""
    limit_threads_after_fork()
    size = max(1, batch_size // variables)
    for first in range(0, len(items), size):
        check_time()
        yield list(items[first : first + size])


def _begins_with(context: Context, known: Context) -> bool:
    """Return whether no known row was corrected."""
    first = context.values[: len(known)]
    return np.array_equal(first, known.values, equal_nan=True)
