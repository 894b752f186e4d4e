"""How well an event forecaster explains events: likelihoods, residuals, errors of prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates, length_buckets
from tsllm.adapters.events.decoders.base import EventDecoder, log_likelihood
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events.batching import Intervals
from tsllm.events.core import EventCore
from tsllm.events.evaluation.diagnostics import EventDiagnostics, diagnose
from tsllm.events.evaluation.next_event import EventEvaluation, compare_with_guesses
from tsllm.events.predicting import predict_at_positions

if TYPE_CHECKING:
    from tsllm.events.evaluation.continual import StreamReport

Measure = Callable[[EventDecoder, EventStates, EventBatch], Sequence[Tensor]]
#: Positions of one batch: memory is this times quadrature nodes times types.
POSITIONS_AT_ONCE = 16384


class ScoresEvents(EventCore):
    """The part of `EventForecaster` that compares a fitted model with events.

    All methods take events as `fit` does, and three arguments that say what is scored:

    - ``windows``: from when to when sequences were observed, as in `fit`;
    - ``t_start``: what happens up to it is history, given and not scored;
    - ``t_end``: what happens after it is not read.

    The latter two are one time for all sequences or a mapping by sequence, in the user's times.
    Intervals next to an edge of the window that is not known are not scored.
    """

    # ------------------------------------------------------------------ likelihood

    def score(
        self,
        events: Any,
        y: Any = None,
        *,
        windows: Any = None,
        t_start: Any = None,
        t_end: Any = None,
    ) -> float:
        """Mean log-likelihood per event: greater is better.

        The sum over all scored intervals, the first and the last of a known window included,
        divided by the number of scored events of all sequences together.

        Parameters
        ----------
        events : DataFrame, EventTable or path
        y : ignored
            For scikit-learn's pipelines.
        windows, t_start, t_end : optional
            What is scored, see `ScoresEvents`.

        Returns
        -------
        float
            In nats, of densities per unit of the user's time (``time_unit`` for timestamps).

        Raises
        ------
        NotEnoughDataError
            No event is scored.

        Examples
        --------
        >>> import pandas as pd
        >>> from tsllm.events import NaiveEventForecaster
        >>> events = pd.DataFrame({"time": [1.0, 2.0, 4.0], "type": ["a", "a", "a"]})
        >>> model = NaiveEventForecaster().fit(events)  # the mean of the gaps is 1.5
        >>> round(model.score(events), 4)
        -1.4055
        """
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        intervals, (parts,) = self._measure(table, _log_likelihoods, t_start, t_end)
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
        """Log-likelihoods of the sequences, or of each event.

        Parameters
        ----------
        events : DataFrame, EventTable or path
        by : {"sequence", "event"}
            A row per sequence, or per scored interval.
        windows, t_start, t_end : optional
            What is scored, see `ScoresEvents`.

        Returns
        -------
        DataFrame
            By sequence: its id, ``events`` and ``log_likelihood`` (their sum; 0 where nothing is
            scored). By event: its sequence, time, type and ``log_likelihood``; a row without a type
            is the time from a sequence's last event to the end of its window.
        """
        check_is_fitted(self)
        if by not in ("sequence", "event"):
            raise DataError(f"by must be 'sequence' or 'event', found {by!r}")
        table = self._read(events, windows=windows)
        intervals, (parts,) = self._measure(table, _log_likelihoods, t_start, t_end)
        parts = parts - intervals.observed * np.log(self.time_scale_)
        if by == "event":
            return self._interval_frame(table, intervals).assign(log_likelihood=parts)
        size = len(table)
        frame = table.windows()[[table.names.id_col]]
        frame["events"] = np.bincount(intervals.sequence[intervals.observed], minlength=size)
        frame["log_likelihood"] = np.bincount(intervals.sequence, parts, minlength=size)
        return frame

    # ------------------------------------------------------------------ goodness of fit

    def residuals(
        self,
        events: Any,
        *,
        by_type: bool = False,
        windows: Any = None,
        t_start: Any = None,
        t_end: Any = None,
    ) -> pd.DataFrame:
        """How many events the model expected between one event and the next.

        Where the model is right these are independent and exponential with mean 1 (time rescaling;
        Brown et al., Neural Computation 2002).

        Parameters
        ----------
        events : DataFrame, EventTable or path
        by_type : bool
            Look at the events of each type alone, between one and the next of the same type.
        windows, t_start, t_end : optional
            What is scored, see `ScoresEvents`.

        Returns
        -------
        DataFrame
            The sequence, time and type of an event, its ``residual``, and ``observed``: False in
            the rows that an end of the scored time cuts short (their residual is at least what
            stands there).
        """
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        intervals, (increments, _) = self._measure(table, _increments, t_start, t_end)
        frame = self._interval_frame(table, intervals)
        if not by_type:
            return frame.assign(residual=increments.sum(1), observed=intervals.observed)
        id_col, time_col, type_col = table.names.id_col, table.names.time_col, table.names.type_col
        parts = []
        for code, name in enumerate(self.classes_):
            own = intervals.code == code
            last = np.append(np.diff(intervals.sequence) != 0, True)
            # Each row adds up the increments since the row kept before it, or the sequence's start.
            kept = own | last
            sums = np.diff(np.concatenate([[0.0], increments[:, code].cumsum()[kept]]))
            part = frame.loc[kept, [id_col, time_col]]
            parts.append(part.assign(**{type_col: name}, residual=sums, observed=own[kept]))
        whole = pd.concat(parts) if parts else frame
        order = np.argsort(whole.index.to_numpy(), kind="stable")
        return whole.iloc[order].reset_index(drop=True)

    def diagnostics(
        self, events: Any, *, windows: Any = None, t_start: Any = None, t_end: Any = None
    ) -> EventDiagnostics:
        """Test whether the model could have made these events.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            Best events that the model was not fitted to: on those it was, the tests are too kind.
        windows, t_start, t_end : optional
            What is scored, see `ScoresEvents`.

        Returns
        -------
        EventDiagnostics
            Kolmogorov-Smirnov tests of the residuals, of all events and of each type, their
            autocorrelation, and the calibration of the type probabilities.
        """
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        intervals, (increments, probabilities) = self._measure(table, _increments, t_start, t_end)
        return diagnose(intervals.code, increments, probabilities, self.classes_)

    def evaluate(
        self, events: Any, *, windows: Any = None, t_start: Any = None, t_end: Any = None
    ) -> EventEvaluation:
        """Predict each event from those before it, and compare with the plainest guesses.

        Parameters
        ----------
        events : DataFrame, EventTable or path
        windows, t_start, t_end : optional
            What is scored, see `ScoresEvents`.

        Returns
        -------
        EventEvaluation
            Log-likelihood, error rate of the next type, root mean squared error of the mean and
            mean absolute error of the median of the next time. Beside the model stand guesses
            learnt from the same data as it: the mean, the median and the last gap, the most
            frequent type and the one that most often follows the last. Read them: they are hard to
            beat, and a model that predicts "at once" can look good in one number.

        Warns
        -----
        UserWarning
            The model's gaps are next to zero.
        """
        check_is_fitted(self)
        table = self._read(events, windows=windows)
        measure = partial(predictions, longest=self._longest_wait())
        intervals, measured = self._measure(table, measure, t_start, t_end)
        return compare_with_guesses(self, intervals, *measured)

    def evaluate_stream(self, slices: Sequence[Any], **options: Any) -> StreamReport:
        """Learn the slices of a stream one after another, and test on all of them each time.

        This estimator is left as it is. See `tsllm.events.evaluation.continual.evaluate_stream`.
        """
        from tsllm.events.evaluation.continual import evaluate_stream  # it imports the estimators

        return evaluate_stream(self, slices, **options)

    # ------------------------------------------------------------------ the core under all of them

    def _measure(
        self, table: EventTable, measure: Measure, t_start: Any, t_end: Any
    ) -> tuple[Intervals, list[np.ndarray]]:
        """Apply a function to the states of all sequences; keep what it says of scored intervals.

        ``measure(decoder, states, batch)`` gives tensors (batch, positions, ...). They come back
        with one row per scored interval, sequence by sequence in order of time.
        """
        windows = self._windows(table, t_start, t_end)
        rows, positions, values = [], [], []
        wanted = np.flatnonzero(windows.scored)
        groups = length_buckets(
            windows.lengths[wanted], batch_size=self._rows_at_once, max_tokens=POSITIONS_AT_ONCE
        )
        for group in groups:
            indices = wanted[group.numpy()]
            batch = windows.gather(indices).to(self._device())
            with torch.no_grad():
                decoder, states = self._encode(batch)
                measured = measure(decoder, states, batch)
            scored = batch.scored.cpu()
            row, position = scored.nonzero(as_tuple=True)
            rows.append(indices[row.numpy()])
            positions.append(position.numpy())
            values.append([one.cpu()[scored].double().numpy() for one in measured])
        if not rows:
            raise NotEnoughDataError(
                "nothing can be scored: no sequence has two events or a known window in the time "
                f"between t_start={t_start} and t_end={t_end}"
            )
        intervals = windows.intervals(np.concatenate(rows), np.concatenate(positions))
        order = np.lexsort((intervals.number, intervals.sequence))
        arranged = Intervals(*(one[order] for one in intervals))
        return arranged, [np.concatenate(one)[order] for one in zip(*values)]

    def _interval_frame(self, table: EventTable, intervals: Intervals) -> pd.DataFrame:
        """Write intervals with the user's names: sequence, time of their end, type of the event."""
        names = table.names
        ids = table.windows()[names.id_col].iloc[intervals.sequence].reset_index(drop=True)
        types = np.array([*self.classes_, None], dtype=object)[intervals.code]
        return pd.DataFrame(
            {
                names.id_col: ids,
                names.time_col: table.clock.to_stamp(intervals.end),
                names.type_col: types,
            }
        )


def _log_likelihoods(
    decoder: EventDecoder, states: EventStates, batch: EventBatch
) -> tuple[Tensor]:
    """Give each interval's log-likelihood in scaled time: (batch, positions)."""
    return (log_likelihood(decoder, states, batch),)


def _increments(
    decoder: EventDecoder, states: EventStates, batch: EventBatch
) -> tuple[Tensor, Tensor]:
    """Give expected events by type, and type probabilities at the end."""
    ends = torch.stack([batch.lower, batch.elapsed], -1)  # (batch, positions, 2)
    lower, upper = decoder.compensators(states, ends).unbind(2)
    types = decoder.type_log_probabilities(states, batch.elapsed[..., None])[:, :, 0].exp()
    return upper - lower, types


def predictions(
    decoder: EventDecoder,
    states: EventStates,
    batch: EventBatch,
    *,
    longest: float | None = None,
) -> tuple[Tensor, ...]:
    """Give log-likelihood, given part, predicted mean, median and types of each interval."""
    predicted = predict_at_positions(decoder, states, batch, longest)
    return (log_likelihood(decoder, states, batch), batch.lower, *predicted)
