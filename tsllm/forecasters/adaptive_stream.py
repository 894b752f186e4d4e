"""Adaptive intervals in streams: forecasts made for comparison, many of them at once."""

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsllm.adapters.aaren.state import AarenStream
from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.forecasters.forecasting import Prediction, Reader
from tsllm.forecasters.running_state import PastRows, RunningRows
from tsllm.forecasters.state import PendingForecasts
from tsllm.forecasters.waiting_forecasts import Turn, WaitingForecasts
from tsllm.intervals.tracked import TrackedCalibration

#: Observations that are put off, at most, so that their forecasts are made in one batch.
MOST_PUT_OFF = 32


@dataclass(frozen=True)
class _PutOff:
    """An observation that was not compared yet, and what the forecast after it reads."""

    places: np.ndarray  # (series,)
    observed: np.ndarray  # (series, variables)
    contexts: list[Context]
    states: AarenStream | None  # copies, of a method with running states


class AdaptiveSeries:
    """The part of a stream that keeps adaptive intervals current.

    Each observation needs a forecast, with which the next observations are compared. The result is
    first read by the next call of `forecast`. So observations wait until there are `MOST_PUT_OFF`
    of them, or until `forecast` is called: a batch of forecasts takes little more time than one.

    Parameters
    ----------
    forecaster : SeriesForecaster
        The stream's own. Its calibration is replaced by one that moves many series at once.
    """

    def __init__(self, forecaster: Any) -> None:
        state = copy.copy(forecaster.fitted_)
        state.calibration = TrackedCalibration(state.calibration)
        forecaster.fitted_ = state
        self._forecaster = forecaster
        self._waiting = WaitingForecasts(state.calibration)
        self._put_off: list[_PutOff] = []

    @property
    def nbytes(self) -> int:
        """Return the bytes of the forecasts and their scores."""
        return self._waiting.nbytes

    def add(
        self, contexts: Sequence[Context], pending: Mapping[Hashable, PendingForecasts]
    ) -> None:
        """Add series, and the forecasts that wait for them; make those that are missing."""
        first = len(self._waiting)
        without = self._waiting.add([context.series_id for context in contexts], pending)
        if len(without):
            forecasts, scales, made = self._predict([contexts[place - first] for place in without])
            self._waiting.issue(without[made], forecasts[made], scales[made])

    def observe(
        self,
        places: np.ndarray,
        observed: np.ndarray,
        contexts: list[Context],
        running: RunningRows | None,
    ) -> None:
        """Observe a step of some series, (series, variables), as their models read it.

        The contexts end with it, before the effects of covariates are subtracted.
        """
        rows = len(places) + sum(len(one.places) for one in self._put_off)
        alone = not self._put_off and rows >= MOST_PUT_OFF
        states = None if running is None or alone else running.copy_of(places)
        self._put_off.append(_PutOff(places, observed, contexts, states))
        if rows < MOST_PUT_OFF:
            return
        try:
            self.settle(running)
        except BaseException:  # out of memory or time: it stays put off, while the states move on
            if alone and running is not None and self._put_off:
                self._put_off = [replace(self._put_off[0], states=running.copy_of(places))]
            raise

    def before(self, places: np.ndarray, running: RunningRows | None) -> None:
        """Prepare for a step of some series."""
        rows = sum(len(one.places) for one in self._put_off)
        # This step is slow in any case: compare what waits now, and keep the next steps fast.
        if running is not None and 2 * rows >= MOST_PUT_OFF and running.are_due(places).any():
            self.settle(running)

    def settle(self, running: RunningRows | None) -> None:
        """Make the forecasts that were put off, and compare their observations."""
        if not self._put_off:
            return
        put_off = self._put_off
        contexts = [context for one in put_off for context in one.contexts]
        if running is None or len(put_off) == 1:  # the states are still those after it
            predicted = self._predict(contexts)
        else:
            copies = [one.states for one in put_off if one.states is not None]
            try:
                predicted = self._predict(contexts, PastRows(running.model, running.width, copies))
            finally:
                self._forecaster._read_rows(running)
        borders = np.cumsum([len(one.places) for one in put_off])[:-1]
        parts = zip(*(np.split(part, borders) for part in predicted))
        self._put_off = []
        self._waiting.follow(
            [Turn(one.places, one.observed, *part) for one, part in zip(put_off, parts)]
        )

    def latest(self, places: np.ndarray, horizon: int) -> Reader | None:
        """Return a reader of the forecasts that were made last; None if it has to be another."""
        covariates = self._forecaster.fitted_.covariates
        # The forecasts made for comparison contain the lagged effects, and `forecast` adds them.
        lagged = covariates is not None and covariates.past is not None
        if lagged or self._put_off or horizon > self._waiting.horizon:
            return None
        found = self._waiting.latest(places)
        return None if found is None else _MadeReader(*found)

    def _predict(
        self, contexts: Sequence[Context], past: PastRows | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Forecast contexts: values, scales, and which have a forecast.

        A series without a value in reach has none; the others are found by halving.
        """
        forecaster = self._forecaster
        state = forecaster.fitted_
        if past is not None:
            forecaster._read_rows(past)
        try:
            reader = forecaster._reader(state, followed=True)
            residuals = state.residuals(contexts)
            values, scales = reader.predict(residuals, self._waiting.horizon)
            values = state.with_lagged_effects(values, residuals)
        except DataError:
            if len(contexts) == 1:
                variables, heads = state.shape.n_variables, 1 + len(state.calibration.levels)
                nothing = np.full((1, self._waiting.horizon, variables, heads), np.nan)
                return nothing, np.full((1, variables), np.nan), np.array([False])
            half = len(contexts) // 2
            parts = []
            for some in (range(half), range(half, len(contexts))):
                own = None if past is None else past.part(some)
                parts.append(self._predict([contexts[i] for i in some], own))
            first, second, made = (np.concatenate(part) for part in zip(*parts))
            return first, second, made
        return values, scales, np.ones(len(contexts), dtype=bool)

    # ------------------------------------------------------------------ saving

    def to_state(self) -> dict[str, Any]:
        """Return what waits, as arrays; nothing may be put off."""
        assert not self._put_off
        return self._waiting.to_state()

    def restore(self, state: Mapping[str, Any], series_ids: Sequence[Hashable]) -> None:
        """Restore the output of `to_state`, where there are no series yet."""
        calibration = self._forecaster.fitted_.calibration
        self._waiting = WaitingForecasts.from_state(state, calibration, series_ids)


@dataclass(frozen=True)
class _MadeReader(Reader):
    """Return the forecasts that were made for comparison."""

    values: np.ndarray
    scales: np.ndarray

    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Return the first steps of the forecasts."""
        return self.values[:, :horizon], self.scales
