"""The base of event forecasters: reading, fitting, the history, and the methods of all of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.arguments import (
    Limits,
    check_arguments,
    check_choice,
    check_names,
    checked_flag,
    checked_levels,
    document_parameters,
)
from tsllm.backbone import Backbone
from tsllm.backbone.forks import limit_threads_after_fork
from tsllm.datasets.events import EventTable, read_events
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events.arguments import LIMITS, SHARED, checked_count, checked_times, checked_types
from tsllm.events.attributes import COMMON, Attribute, check_attributes
from tsllm.events.batching import last_events
from tsllm.events.encoding import FittedModel, Origin, forecast_origin
from tsllm.events.evaluation.diagnostics import EventDiagnostics, diagnose
from tsllm.events.evaluation.next_event import EventEvaluation, compare_with_guesses
from tsllm.events.predicting import (
    intensity_frame,
    predict_later_events,
    predict_next_event,
    prediction_frame,
)
from tsllm.events.sampling import Paths, ReencodedPaths, copies_of
from tsllm.events.scoring import (
    Measure,
    expected_events,
    interval_frame,
    log_likelihoods,
    measure_intervals,
    predictions,
    residuals_by_type,
    sums_by_sequence,
)
from tsllm.events.simulating import count_events, sample_frame, simulate_sequences
from tsllm.events.statistics import shortest_time, statistics_of, time_scale_of
from tsllm.events.streaming import StreamingMixin
from tsllm.events.summarising import SummaryMixin
from tsllm.events.tables import EventTables
from tsllm.saving.damage import readable


class EventForecaster(EventTables, SummaryMixin, StreamingMixin, BaseEstimator, ABC):
    """Base class of the estimators of marked event streams, with scikit-learn's interface.

    A method implements `_fit` and `_encode`; the other hooks have defaults. Its constructor stores
    its own arguments and passes ``locals()`` on, which holds the arguments of `SHARED`.

    The public methods share these arguments; a time is one for all sequences, or a mapping by
    sequence:

    - ``history``: the events to continue, as in `fit`. None: the events of `fit` and `update`.
    - ``windows``: the start and end of each sequence's observation, as in `fit`.
    - ``now``: the time until which no further event has happened. None: the end of the window
      where it is known, else the time of the last event.
    - ``t_start``: events up to this time are history and not scored.
    - ``t_end``: events after this time are not read.
    - ``levels``: probability levels of the quantile columns.
    - ``n_paths``: the number of futures to sample of each sequence.

    Intervals at an unknown edge of the window are not scored. Times come in the form of the events,
    frames as tables of their kind. A sequence has its own random generator, from ``random_state``.

    Attributes
    ----------
    classes_ : array of str (types,)
        The event types, sorted.
    time_scale_ : float
        The mean inter-event time in training, in the unit of the table's times. Models work in
        multiples of it.
    resolution_ : float
        The shortest inter-event time, in the table's unit; shorter ones are set to it. 0 unless
        ``ties="batch"``.
    n_events_ : int
        Number of training events.
    history_ : EventTable
        The events that predictions continue by default: those of `fit`, then of `update`.
    mean_inter_event_time_, median_inter_event_time_ : float
        Of the last training events, in the table's unit.
    type_counts_ : int array (types,)
        Number of these events of each type.
    transition_counts_ : int array (types, types)
        Number of times that type ``column`` followed type ``row``.
    """

    # The shared constructor arguments.
    id_col: str | None
    time_col: str
    type_col: str
    time_unit: str
    sort: bool
    ties: str
    resolution: float | None
    random_state: int | np.random.RandomState | None

    # The precision of the batches that `_encode` reads, and the rows of one.
    _dtype: ClassVar[torch.dtype] = torch.float32
    _rows_at_once: int = 64
    _attributes: ClassVar[Mapping[str, Attribute]] = COMMON
    _limits: ClassVar[Mapping[str, Limits]] = LIMITS  # of the numbers among the arguments

    classes_: np.ndarray
    time_scale_: float
    resolution_: float
    mean_inter_event_time_: float
    median_inter_event_time_: float
    type_counts_: np.ndarray
    transition_counts_: np.ndarray
    n_events_: int
    history_: EventTable

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        for name in SHARED:
            setattr(self, name, arguments[name])

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            check_names(document_parameters(cls, SHARED))

    # ------------------------------------------------------------------ the hooks of a method

    @abstractmethod
    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        """Learn from a table and set attributes that end in an underscore.

        The base has set ``classes_``, ``time_scale_`` and the statistics; it sets ``history_``
        afterwards. ``validation`` holds later events of the same sequences; a method that does not
        stop early learns from ``table.extend(validation)``.
        """

    @abstractmethod
    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        """Return the decoder and the states at every position of a batch.

        Called without gradients and from several threads at once. It writes nothing and draws no
        random numbers; the states of a row do not depend on the other rows.
        """

    def _context_length(self) -> int | None:
        """Return the number of last events that the model reads and `history_` keeps; None: all."""
        return None

    def _device(self) -> torch.device:
        """Return the device of the batches that `_encode` reads."""
        return torch.device("cpu")

    def _longest_inter_event_time(self) -> float | None:
        """Return the scaled time from now on after which an event counts as none; None: never."""
        return None

    def _latest_states(self) -> tuple[EventDecoder, EventStates] | None:
        """Return decoder and states after the last events of ``history_``; None: encode it."""
        return None

    def _start_paths(self, batch: EventBatch, copies: int) -> Paths:
        """Return paths that continue each history ``copies`` times; see `Paths`."""
        rows = copies_of(len(batch), copies, batch.types.device)
        return ReencodedPaths(self._encode, batch.select(rows), self._context_length())

    def _load_backbone(self) -> Backbone | None:
        """Load the language model that the parameters name; None: there is none."""
        return None

    def _fine_tuned(self) -> Self | None:
        """Return an unfitted copy that `evaluate_stream` trains in all weights; None: no such."""
        return None

    # ------------------------------------------------------------------ learning

    def fit(
        self,
        events: Any,
        y: Any = None,
        *,
        windows: Any = None,
        validation: Any = None,
        types: Any = None,
    ) -> Self:
        """Learn from event sequences; the results of an earlier `fit` are dropped.

        Parameters
        ----------
        events : DataFrame, other table, EventTable, or path of a CSV or Parquet file
            One row per event: a sequence, a time and a type, in the columns that the constructor
            names.
        y : object, default=None
            Ignored; for scikit-learn's pipelines.
        windows : tuple, DataFrame, mapping or None, default=None
            Start and end of each sequence's observation, see `tsllm.datasets.read_events`.
            None reads the columns ``window_start`` and ``window_end`` where they exist. The time
            next to an unknown edge of a window is not part of the likelihood.
        validation : as events, or None, default=None
            Later events of the same sequences, for the early stopping of methods that stop early.
            The other methods learn from them too.
        types : sequence of str or None, default=None
            Further types that may come; ``classes_`` holds them too.

        Returns
        -------
        self

        Raises
        ------
        DataError
            An event is invalid; the message names the column, the sequence and the row.
        NotEnoughDataError
            No inter-event time is known.
        """
        self._check_parameters()
        table = self._read(events, windows=windows)
        held_back = None if validation is None else self._read(validation)
        for name in [n for n in vars(self) if n.endswith("_") and not n.startswith("_")]:
            delattr(self, name)
        whole = table if held_back is None else table.extend(held_back)
        self._begin(whole, types)
        self._describe(whole)
        self._fit(table, held_back)
        self._remember(whole)
        return self

    def update(self, events: Any, *, windows: Any = None) -> Self:
        """Append events to the history that predictions continue; nothing is learnt.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            Events later than those of the same sequences in ``history_``, and new sequences.
        windows : tuple, DataFrame, mapping or None, default=None
            As in `fit`.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        self._fitted().rows(table)  # raises for unknown types and ties
        self._extend_history(table)
        return self

    # ------------------------------------------------------------------ predictions

    def predict(
        self,
        history: Any = None,
        *,
        n_steps: int = 1,
        levels: Sequence[float] = (0.1, 0.9),
        now: Any = None,
        windows: Any = None,
        n_paths: int = 256,
    ) -> pd.DataFrame:
        """Predict the next events of each sequence.

        Parameters
        ----------
        history, now, windows : see `EventForecaster`, default=None
        n_steps : int, default=1
            Number of events ahead. The first is predicted exactly, the others from sampled futures.
        levels : sequence of float, default=(0.1, 0.9)
        n_paths : int, default=256
            For ``n_steps`` above 1.

        Returns
        -------
        DataFrame
            A row per sequence and ``step``. ``time`` is the mean and ``time_median`` the median
            time, both given that the event comes. ``q0.1`` and so on are the times by which it has
            come with this probability. ``type`` is the most probable type and ``probability`` its
            probability. ``no_event`` is the probability that the event does not come; a method
            with a longest predictable time (`PromptTPP`: ``longest_inter_event_time_``) counts
            later events as none. Unknown times are missing (NaT, inf for numbers).

        Examples
        --------
        >>> import pandas as pd
        >>> from tsllm.events import NaiveEventForecaster
        >>> days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])
        >>> events = pd.DataFrame({"time": days, "type": ["on", "off", "on"]})
        >>> model = NaiveEventForecaster(types="markov").fit(events)
        >>> model.predict()[["step", "time", "type"]]
           step                time type
        0     1 2024-01-05 12:00:00  off
        """
        origin, model = self._origin(history, now, windows), self._fitted()
        n_steps, n_paths = checked_count("n_steps", n_steps), checked_count("n_paths", n_paths)
        levels = checked_levels(levels, "levels")
        steps = [predict_next_event(model, origin, levels, self._running_states(history))]
        if n_steps > 1:
            steps += predict_later_events(
                model, origin, levels, n_steps=n_steps, n_paths=n_paths, seed=self._seed()
            )
        return prediction_frame(model, origin, steps, levels)

    def predict_proba(
        self, history: Any = None, *, now: Any = None, windows: Any = None
    ) -> pd.DataFrame:
        """Predict the type of the next event, at whatever time it comes.

        Parameters
        ----------
        history, now, windows : see `EventForecaster`, default=None

        Returns
        -------
        DataFrame
            Probabilities: one row per sequence, named by the index, and one column per type.
        """
        origin = self._origin(history, now, windows)
        found = predict_next_event(self._fitted(), origin, (), self._running_states(history))
        return pd.DataFrame(found.types, index=origin.sequences, columns=list(self.classes_))

    def predict_quantiles(
        self,
        history: Any = None,
        *,
        levels: Sequence[float] = (0.1, 0.5, 0.9),
        now: Any = None,
        windows: Any = None,
    ) -> pd.DataFrame:
        """Predict the times by which the next event has come with given probabilities.

        Parameters
        ----------
        history, now, windows : see `EventForecaster`, default=None
        levels : sequence of float, default=(0.1, 0.5, 0.9)

        Returns
        -------
        DataFrame
            Times: one row per sequence, named by the index, and one column per level (``q0.1``);
            missing (NaT, inf for numbers) where the event comes with less probability.
        """
        origin, levels = self._origin(history, now, windows), checked_levels(levels, "levels")
        found = predict_next_event(self._fitted(), origin, levels, self._running_states(history))
        times = origin.last + found.quantiles.T * self.time_scale_  # (levels, sequences)
        columns = {f"q{q:g}": origin.table.clock.to_stamp(one) for q, one in zip(levels, times)}
        return pd.DataFrame(columns, index=origin.sequences)

    def predict_intensity(
        self,
        times: Any,
        history: Any = None,
        *,
        by_type: bool = True,
        windows: Any = None,
    ) -> pd.DataFrame:
        """Compute the intensity, the expected number of events per unit of time, at given times.

        Each intensity is conditioned on the events strictly before its time.

        Parameters
        ----------
        times : time or sequence of times
            The same for all sequences.
        history, windows : see `EventForecaster`, default=None
        by_type : bool, default=True
            One column per type, else one for all events.

        Returns
        -------
        DataFrame
            One row per sequence and time, which name the index, in events per unit of the user's
            time. NaN before a sequence's window, or its first event where the start is not known.
        """
        table = self._table(history, windows)
        frame = intensity_frame(self._fitted(), table, checked_times(table.clock, times))
        if checked_flag("by_type", by_type):
            return frame
        return pd.DataFrame({"intensity": frame.to_numpy().sum(-1)}, index=frame.index)

    # ------------------------------------------------------------------ futures

    def predict_count(
        self,
        window: Any,
        history: Any = None,
        *,
        levels: Sequence[float] = (0.1, 0.5, 0.9),
        now: Any = None,
        windows: Any = None,
        n_paths: int = 256,
    ) -> pd.DataFrame:
        """Predict the number of events of each type in a window of time.

        Parameters
        ----------
        window : duration, or pair of times
            A duration from ``now`` on (a number; for timestamps a Timedelta, a text like "1D", or a
            number of ``time_unit``), or a pair ``(start, end)`` of times not before ``now``: the
            events in ``(start, end]`` are counted.
        history, now, windows : see `EventForecaster`, default=None
        levels : sequence of float, default=(0.1, 0.5, 0.9)
        n_paths : int, default=256

        Returns
        -------
        DataFrame
            A row per sequence and type, and one of type "all": the ``mean`` count, its quantiles,
            and ``none``, the probability of no event.
        """
        origin, levels = self._origin(history, now, windows), checked_levels(levels, "levels")
        return count_events(self._fitted(), origin, window, levels, n_paths, self._seed())

    def sample(
        self,
        n_paths: int = 1,
        *,
        horizon: Any = None,
        n_events: int | None = None,
        history: Any = None,
        now: Any = None,
        windows: Any = None,
    ) -> pd.DataFrame:
        """Sample futures of the sequences.

        Parameters
        ----------
        n_paths : int, default=1
        horizon : duration or None, default=None
            Length of the futures from ``now`` on, as in `predict_count`.
        n_events : int or None, default=None
            Most events of a future. One of ``horizon`` and ``n_events`` must be given.
        history, now, windows : see `EventForecaster`, default=None

        Returns
        -------
        DataFrame
            One row per event: its sequence, the number of the ``path`` (from 0), its time and type.
        """
        origin = self._origin(history, now, windows)
        return sample_frame(
            self._fitted(), origin, n_paths, self._seed(), horizon=horizon, n_events=n_events
        )

    def simulate(self, n_sequences: int = 1, *, duration: Any, start: Any = None) -> EventTable:
        """Simulate whole sequences without a history.

        Parameters
        ----------
        n_sequences : int, default=1
            Number of sequences.
        duration : duration
            Length of each, as ``window`` in `predict_count`.
        start : time or None, default=None
            Start of each. None: 0, or the start of the training events for timestamps.

        Returns
        -------
        EventTable
            Sequences "0", "1", ...; their windows are known.

        Raises
        ------
        DataError
            All sequences would have more than 5,000,000 events, at the rate of the training.
        """
        check_is_fitted(self)
        size, seed = checked_count("n_sequences", n_sequences), self._seed()
        return simulate_sequences(self._fitted(), self.history_, size, duration, start, seed)

    # ------------------------------------------------------------------ scores

    def score(
        self,
        events: Any,
        y: Any = None,
        *,
        windows: Any = None,
        t_start: Any = None,
        t_end: Any = None,
    ) -> float:
        """Compute the log-likelihood of all scored intervals, divided by the scored events.

        Parameters
        ----------
        events : DataFrame, EventTable or path
        y : object, default=None
            Ignored; for scikit-learn's pipelines.
        windows, t_start, t_end : see `EventForecaster`, default=None

        Returns
        -------
        float
            In nats, of densities per unit of the user's time (``time_unit`` for timestamps).
        """
        _, intervals, (parts,) = self._measure(events, log_likelihoods, windows, t_start, t_end)
        n = int(intervals.observed.sum())
        if n == 0:
            raise NotEnoughDataError(
                "no event is scored: each sequence has too few, or none lies between t_start="
                f"{t_start} and t_end={t_end}; a sequence's first event needs a known window start"
            )
        return float(parts.sum() / n - np.log(self.time_scale_))

    def score_samples(
        self,
        events: Any,
        *,
        by: str = "sequence",
        windows: Any = None,
        t_start: Any = None,
        t_end: Any = None,
    ) -> pd.DataFrame:
        """Compute the log-likelihood of each sequence or each event.

        Parameters
        ----------
        events : DataFrame, EventTable or path
        by : {"sequence", "event"}, default="sequence"
            A row per sequence, or per scored interval.
        windows, t_start, t_end : see `EventForecaster`, default=None

        Returns
        -------
        DataFrame
            By sequence: its id, ``events`` and ``log_likelihood`` (their sum; 0 where nothing is
            scored). By event: its sequence, time, type and ``log_likelihood``; a row without a type
            is the time from a sequence's last event to the end of its window.
        """
        check_choice("by", by, ("sequence", "event"))
        table, intervals, (parts,) = self._measure(events, log_likelihoods, windows, t_start, t_end)
        parts = parts - intervals.observed * np.log(self.time_scale_)
        if by == "sequence":
            return sums_by_sequence(table, intervals, parts)
        return interval_frame(self._fitted(), table, intervals).assign(log_likelihood=parts)

    def residuals(
        self,
        events: Any,
        *,
        by_type: bool = False,
        windows: Any = None,
        t_start: Any = None,
        t_end: Any = None,
    ) -> pd.DataFrame:
        """Compute the expected number of events between one event and the next.

        Under a right model the residuals are independent and exponential with mean 1 (time
        rescaling; Brown et al., Neural Computation 2002).

        Parameters
        ----------
        events : DataFrame, EventTable or path
        by_type : bool, default=False
            Compute the residuals of each type alone, from one event to the next of this type.
        windows, t_start, t_end : see `EventForecaster`, default=None

        Returns
        -------
        DataFrame
            The sequence, time and type of an event, its ``residual``, and ``observed``: False
            where the scored time ends first and the residual is a lower bound.
        """
        table, intervals, (increments, _) = self._measure(
            events, expected_events, windows, t_start, t_end
        )
        frame = interval_frame(self._fitted(), table, intervals)
        if checked_flag("by_type", by_type):
            return residuals_by_type(frame, intervals, increments, self.classes_)
        return frame.assign(residual=increments.sum(1), observed=intervals.observed)

    def diagnostics(
        self, events: Any, *, windows: Any = None, t_start: Any = None, t_end: Any = None
    ) -> EventDiagnostics:
        """Compute goodness-of-fit tests on events.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            Not the training events, on which the tests are too optimistic.
        windows, t_start, t_end : see `EventForecaster`, default=None

        Returns
        -------
        EventDiagnostics
        """
        _, intervals, (increments, probabilities) = self._measure(
            events, expected_events, windows, t_start, t_end
        )
        return diagnose(intervals.code, increments, probabilities, self.classes_)

    def evaluate(
        self, events: Any, *, windows: Any = None, t_start: Any = None, t_end: Any = None
    ) -> EventEvaluation:
        """Predict each event from those before it, and compare with naive guesses.

        Parameters
        ----------
        events : DataFrame, EventTable or path
        windows, t_start, t_end : see `EventForecaster`, default=None

        Returns
        -------
        EventEvaluation
            Log-likelihood, and errors of the next type, the mean and the median of the next time.
        """
        measure = partial(predictions, longest=self._longest_inter_event_time())
        _, intervals, measured = self._measure(events, measure, windows, t_start, t_end)
        return compare_with_guesses(self, intervals, *measured)

    # ------------------------------------------------------------------ saving and loading

    def to_state(self, *, include_context: bool = True) -> dict[str, Any]:
        """Return everything but the parameters, on request without the history, for saving."""
        backbone = self._load_backbone()
        own = ("history_", "model_")
        fitted = [n for n in vars(self) if n.endswith("_") and n[0] != "_" and n not in own]
        return {
            "backbone": None if backbone is None else backbone.to_state(),
            "fitted": {name: getattr(self, name) for name in fitted},
            "history": self.history_.to_state(events=include_context),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], parameters: Mapping[str, Any]) -> Self:
        """Build a forecaster from the output of `to_state` and the constructor's arguments."""
        estimator = cls(**parameters)
        check_attributes(state["fitted"], cls._attributes)
        for name, value in state["fitted"].items():
            setattr(estimator, name, value)
        backbone = estimator._load_backbone()
        if state["backbone"] is not None and backbone is not None:
            backbone.check_state(state["backbone"])
        with readable(holds_data=True):
            estimator.history_ = EventTable.from_state(state["history"])
        return estimator

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        """Return what the card of the saved model says."""
        clock, names = self.history_.clock, list(self.classes_)
        unit = f" {clock.unit}" * clock.is_stamps
        hint = "" if with_context else "  # pass events: the model was saved without its history"
        return {
            "kind": "A forecaster of events",
            "usage": f"model.predict(){hint}",
            "trained_on": [
                f"{self.n_events_:,} events of {len(names)} types: {', '.join(names[:20])}"
                + ", ..." * (len(names) > 20),
                f"mean inter-event time: {self.time_scale_:.6g}{unit}",
            ],
            "backbone": self._load_backbone(),
            "results": {},
        }

    # ------------------------------------------------------------------ what methods build on

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")  # set last in fitting

    def _check_parameters(self) -> None:
        """Check the constructor's arguments."""
        given = self.get_params(deep=False)
        check_arguments(type(self), [*given], given, self._limits)

    def _read(self, events: Any, *, windows: Any = None) -> EventTable:
        """Read events with the columns that the constructor names."""
        shared = {name: getattr(self, name) for name in SHARED} | {"random_state": self._seed()}
        return read_events(events, windows=windows, **shared)

    def _fitted(self) -> FittedModel:
        """Return the fitted model that predictions, futures and scores are computed with."""
        limit_threads_after_fork()
        return FittedModel(
            encode=self._encode,
            start_paths=self._start_paths,
            classes=self.classes_,
            time_scale=self.time_scale_,
            resolution=self.resolution_,
            context_length=self._context_length(),
            longest=self._longest_inter_event_time(),
            device=self._device(),
            dtype=self._dtype,
            rows_at_once=self._rows_at_once,
        )

    def _table(self, history: Any, windows: Any) -> EventTable:
        """Read a history; None is the events of `fit` and `update`."""
        check_is_fitted(self)
        if history is not None:
            return self._read(history, windows=windows)
        if windows is not None:
            raise DataError("windows belongs to a history, and none is passed")
        if not len(self.history_):
            raise DataError(
                "the model was saved without its history: pass a history, or update(events) first"
            )
        return self.history_

    def _origin(self, history: Any, now: Any, windows: Any) -> Origin:
        """Read the history and the time from which its sequences are predicted."""
        return forecast_origin(self._table(history, windows), now, self.time_scale_)

    def _running_states(self, history: Any) -> tuple[EventDecoder, EventStates] | None:
        """Return the running states where the events of `fit` and `update` are continued."""
        return self._latest_states() if history is None else None

    def _measure(
        self, events: Any, measure: Measure, windows: Any, t_start: Any, t_end: Any
    ) -> tuple[EventTable, Any, list[np.ndarray]]:
        """Read events and compute a measure at each scored interval."""
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        return table, *measure_intervals(self._fitted(), table, measure, t_start, t_end)

    def _seed(self) -> int:
        """Draw the seed of one call from ``random_state``."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _begin(self, table: EventTable, types: Any = None) -> None:
        """Set the types and the time scale, before anything is learnt."""
        self.time_scale_ = time_scale_of(table, type(self).__name__)
        named = {str(name) for name in checked_types(types)}
        self.classes_ = np.array(sorted(named.union(table.type_names)), dtype=object)
        self.resolution_ = 0.0
        if self.ties == "batch":
            given = self.resolution
            self.resolution_ = shortest_time(table) if given is None else float(given)
        self.n_events_ = int(table.n_events)

    def _describe(self, table: EventTable) -> None:
        """Compute the statistics of the naive guesses."""
        self.__dict__.update(statistics_of(table, self.classes_, self.resolution_))

    def _remember(self, table: EventTable) -> None:
        """Keep the last events that the model reads as the history of predictions."""
        self.history_ = last_events(table, self._context_length())

    def _extend_history(self, new: EventTable) -> None:
        """Append new events to the history."""
        self._remember(self.history_.extend(new))
