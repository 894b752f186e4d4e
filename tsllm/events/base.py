"""The base of every event forecaster: reading, fitting, keeping the history; the hooks of a method.

What a method has to give
-------------------------
A subclass of `EventForecaster` is a scikit-learn estimator: its constructor stores its arguments
and does nothing else. Among them are the common ones, by these names: ``id_col, time_col, type_col,
time_unit, sort, ties, resolution, random_state``. It gives two methods:

``_fit(table, validation)``
    Learn from an `EventTable`. Before the call the base has set ``classes_``, ``time_scale_``,
    ``n_events_`` and the statistics of the naive guesses; afterwards it sets ``history_``. Store
    what was learnt in attributes that end in an underscore. ``validation`` (None, or later events
    of the same sequences) is for early stopping; who does not stop early learns from
    ``table.extend(validation)``.
``_encode(batch)``
    Turn an `EventBatch` (scaled gaps, class codes, right padding) into ``(decoder, states)``, the
    states at every position. This is the stateless core: it reads fitted attributes and writes
    nothing, draws no random numbers, and gives a row the same states whatever rows stand beside it.
    It is called without gradients, and from many threads at once.

and may override these:

``_context_length()``
    How many last events of a sequence the model reads; None (the default) reads all. Longer
    sequences are scored in overlapping rows and predicted from their last events, and ``history_``
    keeps no more than that.
``_dtype``, ``_device()``, ``_rows_at_once``
    The precision and place of the batches that ``_encode`` wants, and how many rows of one.
``_longest_wait()``
    How far from now on the next event's time can be known, scaled: what comes later is predicted
    as not coming. None (the default): however far.
``_advance(new)``
    Called by `update` with the new events, after ``history_`` holds them: move a running state.
``_latest_states()``
    ``(decoder, states)`` with one position: the state after the last event of each sequence of
    ``history_``, in its order. None (the default) encodes ``history_`` instead.
``_running_tensors()``, ``_restore_running(tensors)``
    What a saved model holds of running states that ``history_`` does not tell, and their return.
    The default: nothing.
``_load_backbone()``
    The language model, for those who save the model and report on it; None (the default): none.
``_fine_tuned()``
    An unfitted estimator like this one, without what keeps it from forgetting, for the comparison
    in `evaluate_stream`. None (the default): there is none.
``_start_paths(batch, copies)``
    `Paths` that append sampled events one at a time, ``copies`` futures of each history; the
    default encodes all anew at each step.

`partial_fit`, where a method has one, begins with ``table = self._read(events)`` and, on the first
call, ``self._begin(table, types)``; it ends with ``self._describe(table)`` and
``self._remember(table)``. Training batches come from ``self._windows(table)``, an `EventWindows`
with ``len()`` and ``gather(indices)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, ModelFormatError, NotEnoughDataError
from tsllm.events.batching import EventWindows, known_gaps, last_events
from tsllm.events.predicting import PredictsEvents
from tsllm.events.scoring import ScoresEvents
from tsllm.saving.damage import load_weights, readable


class EventForecaster(PredictsEvents, ScoresEvents):
    """Base class of the estimators of marked event streams, in the manner of scikit-learn.

    A method is a subclass with two hooks, `_fit` and `_encode`; this module's docstring is their
    contract. Predictions are in `PredictsEvents`, sampled futures in `SimulatesEvents`, likelihoods
    and checks in `ScoresEvents`.

    Attributes
    ----------
    classes_ : array of str (types,)
        The event types, sorted.
    time_scale_ : float
        The mean training gap, in the unit of the table's times; models work in multiples of it.
    resolution_ : float
        The shortest gap, in the table's unit; shorter ones count as so long. 0 unless
        ``ties="batch"``.
    n_events_ : int
        Events that were learnt from.
    history_ : EventTable
        The events that predictions continue where none are passed: those of `fit`, then `update`.
    median_gap_ : float
        Median of the gaps last learnt from, in the table's unit.
    mean_gap_ : float
        Their mean.
    type_counts_ : int array (types,)
        How often each type was seen there.
    transition_counts_ : int array (types, types)
        How often type ``column`` followed type ``row``.
    """

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
        """Learn from event sequences; whatever was learnt before is forgotten.

        Parameters
        ----------
        events : DataFrame, EventTable, or path of a CSV or Parquet file
            One row per event: a sequence, a time and a type, in the columns that the constructor
            names.
        y : ignored
            For scikit-learn's pipelines.
        windows : tuple, DataFrame or mapping, optional
            From when to when each sequence was observed, see `tsllm.datasets.read_events`.
            None takes the columns ``window_start`` and ``window_end`` where there are such; a
            window that is not known leaves the time before the first event and that after the last
            one out of the likelihood.
        validation : as events, optional
            Later events of the same sequences, for the early stopping of methods that stop early.
            The other methods learn from them too.
        types : sequence of str, optional
            Types that can come, beside those of the events: ``classes_`` holds them too.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The events break a rule; the message names the column, the sequence and the row.
        NotEnoughDataError
            There is no gap between two events to learn from.
        """
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
            Events later than those that ``history_`` holds of their sequences, and new sequences.
        windows : optional
            Until when they were observed, as in `fit`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            An event is not later than the last one of its sequence, or of a type that was not seen
            in training.
        """
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        self._windows(table)  # refuses unknown types and ties
        former = self.history_
        self._remember(former.extend(table))
        try:
            self._advance(table)
        except BaseException:
            self.history_ = former
            raise
        return self

    # ------------------------------------------------------------------ saving and loading

    def to_state(self, *, include_context: bool = True) -> dict[str, Any]:
        """Return everything but the parameters as plain values, arrays and one table.

        Parameters
        ----------
        include_context : bool, default=True
            Whether the history and the running states come along.

        Returns
        -------
        dict
            For `tsllm.save`; see `from_state`.
        """
        backbone, model = self._load_backbone(), getattr(self, "model_", None)
        own = ("history_", "model_")
        fitted = [n for n in vars(self) if n.endswith("_") and n[0] != "_" and n not in own]
        return {
            "backbone": None if backbone is None else backbone.to_state(),
            "fitted": {name: getattr(self, name) for name in fitted},
            "model": None if model is None else dict(model.state_dict()),
            "history": self.history_.to_state(events=include_context),
            "running": self._running_tensors() if include_context else {},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], parameters: Mapping[str, Any]) -> Self:
        """Build a forecaster from the output of `to_state`.

        Parameters
        ----------
        state : mapping
            The output of `to_state`.
        parameters : mapping
            The constructor's arguments.

        Returns
        -------
        forecaster

        Raises
        ------
        ModelFormatError
            Tensors that are not the model's, or an attribute that is not one of fitting.
        BackboneMismatchError
            The backbone found is not the one that the model was trained with.
        BackboneNotFoundError
            No place holds the backbone.
        """
        estimator = cls(**parameters)
        for name, value in state["fitted"].items():
            if not name.endswith("_") or name.startswith("_") or hasattr(cls, name):
                raise ModelFormatError(f"the saved model has the attribute {name!r}, which is none")
            setattr(estimator, name, value)
        backbone = estimator._load_backbone()
        if state["backbone"] is not None and backbone is not None:
            backbone.check_state(state["backbone"])
        with readable(holds_data=True):
            if state["model"] is not None:
                model = estimator._build_model()
                load_weights(model, state["model"])
                estimator.model_ = model.eval()
            estimator.history_ = EventTable.from_state(state["history"])
            estimator._restore_running(state["running"])
        return estimator

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        """Return what the card of the saved model says."""
        clock, names = self.history_.clock, list(self.classes_)
        unit = f" {clock.unit}" if clock.is_stamps else ""
        usage = "model.predict()"
        if not with_context:
            usage += "  # pass events: the model was saved without its history"
        return {
            "kind": "A forecaster of events",
            "usage": usage,
            "trained_on": [
                f"{self.n_events_:,} events of {len(names)} types: {', '.join(names[:20])}"
                + (", ..." if len(names) > 20 else ""),
                f"mean inter-event time: {self.time_scale_:.6g}{unit}",
            ],
            "backbone": self._load_backbone(),
            "results": {
                f"Slice {number}": _slice_rows(one)
                for number, one in enumerate(getattr(self, "slices_", []))
            },
        }

    # ------------------------------------------------------------------ what methods build on

    def _begin(self, table: EventTable, types: Any = None) -> None:
        """Set the types and the time scale, before anything is learnt."""
        gaps = known_gaps(table)
        if not len(gaps):
            raise NotEnoughDataError(
                f"{type(self).__name__} learns from the gaps between events, and no sequence has "
                "two events or one event and a known window start"
            )
        if not gaps.mean() > 0:
            raise DataError(
                "all events happen at one time, so there is no time scale to learn: pass "
                'ties="jitter" with their resolution, or finer times'
            )
        named = set() if types is None else {str(name) for name in types}
        self.classes_ = np.array(sorted(named.union(table.type_names)), dtype=object)
        self.time_scale_ = float(gaps.mean())
        self.resolution_ = 0.0
        if self.ties == "batch":
            least = float(gaps[gaps > 0].min())
            self.resolution_ = least if self.resolution is None else float(self.resolution)
        self.n_events_ = int(table.n_events)

    def _describe(self, table: EventTable) -> None:
        """Count what the naive guesses need: gaps, types and which type follows which."""
        gaps = known_gaps(table)
        self.mean_gap_, self.median_gap_ = float(gaps.mean()), float(np.median(gaps))
        codes = EventWindows(
            table, self.classes_, self.time_scale_, resolution=self.resolution_
        ).codes
        k = len(self.classes_)
        self.type_counts_ = np.bincount(np.concatenate(codes), minlength=k)
        self.transition_counts_ = np.zeros((k, k), dtype=np.int64)
        for one in codes:
            np.add.at(self.transition_counts_, (one[:-1], one[1:]), 1)

    def _remember(self, table: EventTable) -> None:
        """Keep the history that predictions continue, no longer than the model reads it."""
        self.history_ = last_events(table, self._context_length())


def _slice_rows(one: Mapping[str, Any]) -> dict[str, object]:
    """Return the rows of a slice's table in a model's card."""
    held_out = one["validation_loss"]
    return {
        "events": f"{one['events']:,} in {one['sequences']:,} sequences",
        "from, to": f"{one['first']}, {one['last']}",
        "prompt slots": ", ".join(map(str, one["slots"])) or "none",
        "network trained": "yes" if one["network_trained"] else "no",
        "best epoch": f"{one['best_epoch']} of {one['epochs']}",
        "training loss": f"{one['train_loss']:.4f} nats an event, in scaled time",
        "validation loss": "none held out" if held_out is None else f"{held_out:.4f}",
        "seconds": round(one["seconds"], 1),
    }
