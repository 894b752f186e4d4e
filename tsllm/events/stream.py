"""A stream of events: one at a time, with the next event and the intensity after any of them."""

from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventStates
from tsllm.arguments import checked_levels, shown
from tsllm.datasets.events import EventTable
from tsllm.datasets.events.names import whole_name
from tsllm.datasets.events.table import EventColumns, sequence_name
from tsllm.errors import DataError, DataTypeError, ModelFormatError
from tsllm.events.arguments import read_times
from tsllm.events.encoding import Origin, forecast_origin
from tsllm.events.predicting import predict_next_event, prediction_frame
from tsllm.events.tensor_trees import join_trees, map_tensors, tensors_of
from tsllm.saving.streams import SavedStream


class EventStream(SavedStream):
    """Event sequences that a fitted model follows, in constant time and memory for each event.

    `HawkesForecaster.stream` and `PromptTPP.stream` open one. The model stays as it is. After any
    sequence of calls the predictions are those of the model's ``update`` with the same events,
    followed by ``predict``. It takes one thread at a time.

    Attributes
    ----------
    sequences : list
        The names of the sequences, in the order of the predictions.
    classes : list of str
        The event types that the model knows.
    made_of : str or None
        A note of the model that it was opened from, which is saved with it.

    See Also
    --------
    tsllm.save : Save a stream to a directory; `tsllm.load` opens it again.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsllm import HawkesForecaster
    >>> events = pd.DataFrame({"time": [1.0, 2.0, 4.0, 4.5, 7.0], "type": list("abaab")})
    >>> stream = HawkesForecaster().fit(events).stream()
    >>> stream.observe(7.5, "a").observe(9.0, "b").predict()["step"].tolist()
    [1]
    >>> stream.intensity(10.0).columns.tolist()
    ['a', 'b']
    """

    _forecaster: Any  # an EventForecaster; its module imports this one

    def __init__(self, forecaster: Any) -> None:
        # The forecaster is a copy that nobody else has; its states move here.
        history, self._decoder = forecaster.history_, forecaster._decoder()
        self._forecaster = forecaster
        self.made_of: str | None = None
        self._clock, self._columns = history.clock, history.names
        self._ids: list[Hashable] = list(history.ids)
        self._remember_names()
        self._codes = {name: code for code, name in enumerate(forecaster.classes_)}
        self._codes_alike = {whole_name(name): code for name, code in self._codes.items()}
        self._starts = history.starts.copy()
        self._ends = history.ends.copy()
        # of the last event; NaN before the first
        ends = [times[-1] if len(times) else np.nan for times in history.times]
        self._last = np.array(ends, dtype=np.float64)
        if len(history):
            self._states, self._hidden = forecaster._stream_states(None)
        forecaster._forget_history()

    # ------------------------------------------------------------------ what it holds

    @property
    def sequences(self) -> list[Hashable]:
        """Return the names of the sequences."""
        return list(self._ids)

    @property
    def classes(self) -> list[str]:
        """Return the event types that the model knows."""
        return list(self._codes)

    @property
    def column_names(self) -> EventColumns:
        """Return the names of the columns of a table of these events."""
        return self._columns

    @property
    def nbytes(self) -> int:
        """Return the bytes of what it keeps of the sequences."""
        if not self._ids:
            return 0
        tensors = [*tensors_of(self._states), self._hidden]
        return sum(one.nbytes for one in tensors) + 3 * self._last.nbytes

    def __repr__(self) -> str:
        return f"EventStream({type(self._forecaster).__name__}, {len(self._ids)} sequences)"

    # ------------------------------------------------------------------ observing

    def observe(self, time: Any, type: Any, *, sequence: Any = None) -> "EventStream":
        """Read an event, or several in the order of their times; a mistake changes nothing.

        Parameters
        ----------
        time : number or stamp, or sequence of them
            The time of each event, later than the last one of its sequence.
        type : str or number, or sequence of them
            The type of each event; ``0`` and ``0.0`` are the type ``"0"``.
        sequence : name, list of names or None, default=None
            The sequence of each event; a new name begins a sequence. Numbers name sequences as
            in `tsllm.datasets.read_events`: ``1`` is ``"1"``. None: the only one.

        Returns
        -------
        self

        Raises
        ------
        DataError
            One sentence that names the sequence, the time and the remedy: a time that does not
            come after the last one of its sequence, or an unknown type.
        """
        times, codes, names = self._read(time, type, sequence)
        # the events of one sequence are taken one after the other, those of several together
        turns: np.ndarray = np.zeros(len(names), dtype=np.int64)
        if len(names) > 1:
            codes_of_names = pd.Series(pd.factorize(_as_array(names))[0])
            turns = codes_of_names.groupby(codes_of_names).cumcount().to_numpy(np.int64)
        self._check_order(times, names, turns)
        for number in range(int(turns.max(initial=-1)) + 1):
            mine = np.flatnonzero(turns == number)
            known = np.array([self._is_begun(names[place]) for place in mine])
            for place in mine[~known]:
                self._begin(names[place], times[place], int(codes[place]))
            if known.any():
                some = mine[known]
                places = np.array([self._places[names[place]] for place in some])
                self._move(places, times[some], codes[some])
        return self

    def _read(self, time: Any, type: Any, sequence: Any) -> tuple[np.ndarray, np.ndarray, list]:
        """Read events as times on the clock, codes of types, and names of sequences."""
        times = np.atleast_1d(read_times(self._clock, time, "time"))
        types = [type] if isinstance(type, str) or not hasattr(type, "__len__") else list(type)
        if sequence is None:
            if len(self._ids) != 1:
                raise DataError(
                    f"the stream has {len(self._ids):,} sequences: name that of each event as "
                    "sequence"
                )
            names = self._ids * len(times)
        elif isinstance(sequence, list | np.ndarray | pd.Index):
            names = [self._name(one) for one in sequence]
        else:
            names = [self._name(sequence)]
        if not len(times) == len(types) == len(names):
            raise DataError(
                f"time has {len(times)} entries, type {len(types)} and sequence {len(names)}: pass "
                "one of each for each event"
            )
        if times.ndim > 1:
            raise DataError(f"time must be one number or stamp for each event, found {shown(time)}")
        if not np.isfinite(times).all():
            raise DataError("time has missing or infinite entries: give each event its time")
        codes = np.array([self._code(one) for one in types], dtype=np.int64)
        if (codes < 0).any():
            place = int((codes < 0).argmax())
            known = ", ".join(map(str, self.classes[:10]))
            raise DataError(
                f"{sequence_name(names[place])} has an event of the type {shown(types[place])}, "
                f"which was not seen in training (known: {known}"
                f"{', ...' * (len(self._codes) > 10)}); leave such events out, or fit with them"
            )
        return times, codes, names

    def _remember_names(self) -> None:
        """Index the sequences by their names; the sequence 1 may be called 1.0."""
        self._places = {name: place for place, name in enumerate(self._ids)}
        self._alike = {whole_name(str(name)): name for name in self._ids}

    def _name(self, given: Any) -> Hashable:
        """Return a sequence's name as `read_events` reads it: text, whole numbers without .0."""
        if isinstance(given, str) and given in self._places:
            return given
        if isinstance(given, tuple) and given in self._places:
            return given
        is_number = isinstance(given, Real) and not isinstance(given, bool | np.bool_)
        if not ((isinstance(given, str) and given.strip()) or (is_number and given == given)):
            raise DataError(f"sequence must be a name, a text or a number, found {shown(given)}")
        name = str(given)
        found: Hashable = self._alike.get(whole_name(name))
        if found is None:
            found = name if isinstance(given, str) else whole_name(name)
        return found

    def _code(self, given: Any) -> int:
        """Return the code of a type, as text or a number; -1 where it is not known."""
        if isinstance(given, str) and given in self._codes:
            return self._codes[given]
        if not isinstance(given, str | Real) or isinstance(given, bool | np.bool_):
            return -1
        return self._codes_alike.get(whole_name(str(given)), -1)

    def _check_order(self, times: np.ndarray, names: Sequence, turns: np.ndarray) -> None:
        """Check that each event comes after the one before it in its sequence."""
        before: dict[Hashable, float] = {}
        for time, name in zip(times.tolist(), names):
            place = self._places.get(name)
            last = before.get(name, np.nan if place is None else self._reached(place))
            if time < last or (time == last and not self._may_tie(name, before)):
                raise DataError(
                    f"{sequence_name(name)} has reached {self._clock.to_stamp(last)}, and an event "
                    f"at {self._clock.to_stamp(time)} does not come after it: a stream reads the "
                    "events of a sequence in order, and each once"
                )
            before[name] = time

    def _may_tie(self, name: Hashable, before: Mapping[Hashable, float]) -> bool:
        """Return whether an event may be at the time of the one before: within one call only."""
        return name in before and self._forecaster.resolution_ > 0

    def _reached(self, place: int) -> float:
        """Return the time until which a sequence is known; NaN before its start."""
        known = [one[place] for one in (self._last, self._starts, self._ends)]
        return max((one for one in known if not np.isnan(one)), default=np.nan)

    def _is_begun(self, name: Hashable) -> bool:
        """Return whether a sequence has an event or a known start."""
        place = self._places.get(name)
        return place is not None and not np.isnan(self._reached(place))

    def _begin(self, name: Hashable, time: float, code: int) -> None:
        """Begin a sequence with its first event."""
        forecaster = self._forecaster
        table = EventTable(
            (name,),
            (np.array([time]),),
            (np.array([forecaster.classes_[code]], dtype=object),),
            starts=np.full(1, np.nan),
            ends=np.full(1, np.nan),
            clock=self._clock,
            names=self._columns,
        )
        states, hidden = forecaster._stream_states(table)
        if name in self._places:  # it had neither an event nor a known start
            self._write(np.array([self._places[name]]), states, hidden)
            self._last[self._places[name]] = time
            return
        if self._ids:
            self._states = join_trees(self._states, states)
            self._hidden = torch.cat([self._hidden, hidden])
        else:
            self._states, self._hidden = states, hidden
        self._places[name] = len(self._ids)
        self._alike[whole_name(str(name))] = name
        self._ids.append(name)
        self._last = np.append(self._last, time)
        self._starts, self._ends = np.append(self._starts, np.nan), np.append(self._ends, np.nan)

    def _move(self, places: np.ndarray, times: np.ndarray, codes: np.ndarray) -> None:
        """Move the states of some sequences over an event each."""
        forecaster, device = self._forecaster, self._hidden.device
        before = np.where(np.isnan(self._last[places]), self._starts[places], self._last[places])
        gaps = np.maximum(times - before, forecaster.resolution_) / forecaster.time_scale_
        gaps = np.where(np.isnan(gaps), 1.0, gaps)  # before a first event, with no known start
        everything = len(places) == len(self._ids) and bool((np.diff(places) == 1).all())
        rows = torch.from_numpy(places).to(device)
        states = self._states
        if not everything:
            states = map_tensors(states, lambda tensor: tensor[rows])
        scaled = torch.as_tensor(gaps, dtype=forecaster._dtype, device=device)
        kinds = torch.from_numpy(codes).to(device)
        with torch.no_grad():
            states, now = forecaster._step(self._decoder, states, kinds, scaled)
        if everything:
            self._states, self._hidden = states, now.hidden
        else:
            self._write(places, states, now.hidden)
        self._last[places] = times
        self._ends[places] = np.nan

    def _write(self, places: np.ndarray, states: Any, hidden: Tensor) -> None:
        """Write the states of some sequences into those of all."""
        rows = torch.from_numpy(places).to(self._hidden.device)
        for tensor, new in zip(tensors_of(self._states), tensors_of(states)):
            tensor[rows] = new
        self._hidden[rows] = hidden

    # ------------------------------------------------------------------ predicting

    def predict(
        self,
        levels: Sequence[float] = (0.1, 0.9),
        *,
        now: Any = None,
        sequences: Sequence[Hashable] | None = None,
    ) -> pd.DataFrame:
        """Predict the next event of each sequence.

        Parameters
        ----------
        levels : sequence of float, default=(0.1, 0.9)
            Probability levels of the quantile columns.
        now : time, mapping of sequences to times, or None, default=None
            The time until which no further event has come. None: the last event.
        sequences : list or None, default=None
            The sequences to predict. None: all.

        Returns
        -------
        DataFrame
            The first step of the model's ``predict``.
        """
        levels = checked_levels(levels, "levels")
        origin, states = self._origin(sequences, now)
        model = self._forecaster._fitted()
        found = predict_next_event(model, origin, levels, (self._decoder, states))
        return prediction_frame(model, origin, [found], levels)

    def intensity(self, time: Any, *, sequences: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Compute the intensity of each type at a time, given no event since the last one.

        Parameters
        ----------
        time : time, or mapping of sequences to times
            Not before the last event of a sequence.
        sequences : list or None, default=None
            The sequences to compute it for. None: all.

        Returns
        -------
        DataFrame
            One row per sequence, named by the index, and one column per type: the expected number
            of events per unit of the user's time.
        """
        origin, states = self._origin(sequences, time)
        model, decoder = self._forecaster._fitted(), self._decoder
        nodes = torch.as_tensor(origin.elapsed, device=model.device).to(model.dtype)
        with torch.no_grad():
            rates = decoder.log_intensities(states, nodes[:, None, None]).exp()[:, 0, 0]
        values = rates.double().cpu().numpy() / model.time_scale
        return pd.DataFrame(values, index=origin.sequences, columns=list(model.classes))

    def _origin(self, sequences: Sequence[Hashable] | None, now: Any) -> tuple[Origin, EventStates]:
        """Return the time from which some sequences are predicted, and their states."""
        if sequences is None:
            sequences = self._ids
        elif not isinstance(sequences, list | tuple | np.ndarray | pd.Index):
            raise DataTypeError(f"sequences must be a list of names, found {shown(sequences)}")
        sequences = [self._name(name) for name in sequences]
        unknown = [name for name in sequences if name not in self._places]
        if unknown:
            raise DataError(
                f"{sequence_name(unknown[0])} is not in the stream: its first event begins it"
            )
        if not len(sequences):
            raise DataError("there is no sequence to predict: observe an event first")
        places = np.array([self._places[name] for name in sequences])
        nothing = (np.empty(0),) * len(places)
        last = np.where(np.isnan(self._last), self._starts, self._last)[places]
        ends = self._ends[places]
        table = EventTable(
            tuple(sequences),
            nothing,
            (np.empty(0, dtype=object),) * len(places),
            starts=last,
            ends=np.where(ends > last, ends, np.nan),  # a window that ends at the last event
            clock=self._clock,
            names=self._columns,
        )
        origin = forecast_origin(table, now, self._forecaster.time_scale_)
        rows = torch.from_numpy(places).to(self._hidden.device)
        mine = map_tensors(self._states, lambda tensor: tensor[rows])
        with torch.no_grad():
            return origin, self._forecaster._decoder_states(mine, self._hidden[rows])

    # ------------------------------------------------------------------ saving

    def _read_so_far(self) -> dict[str, Any]:
        tensors = [*tensors_of(self._states), self._hidden] if self._ids else []
        return {
            "ids": list(self._ids),
            "last": self._last,
            "starts": self._starts,
            "ends": self._ends,
            "states": {str(number): one.cpu() for number, one in enumerate(tensors)},
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        saved, number = state["states"], len(state["ids"])
        if number:
            # one sequence shows the shapes
            self._begin("one", 0.0, 0)
            wanted = [*tensors_of(self._states), self._hidden]
            found = [saved.get(str(place)) for place in range(len(wanted))]
            for one, other in zip(wanted, found):
                shape = (number, *one.shape[1:])
                if other is None or other.dtype != one.dtype or tuple(other.shape) != shape:
                    raise ModelFormatError(
                        "the saved stream has states that are not those of its model: save it again"
                    )
            moved = iter([one.to(self._hidden.device) for one in found])
            self._states = map_tensors(self._states, lambda _: next(moved))
            self._hidden = next(moved)
        self._ids = list(state["ids"])
        self._remember_names()
        self._last, self._starts, self._ends = (state[name] for name in ("last", "starts", "ends"))
        if {len(self._places), *map(len, (self._last, self._starts, self._ends))} != {number}:
            raise ModelFormatError(
                f"the saved stream has {number} sequences, and parts of another size: save it again"
            )

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        """Return what the card of the saved stream says."""
        facts: dict[str, Any] = self._forecaster._card_facts(with_context)
        return facts | {
            "kind": f"A stream of events in {len(self._ids)} sequences",
            "usage": "model.observe(time, type).predict()",
        }


def _as_array(names: Sequence[Hashable]) -> np.ndarray:
    """Return names as an array of objects, tuples too."""
    found = np.empty(len(names), dtype=object)
    found[:] = names
    return found
