"""Bases of forecasters that are made of other forecasters, which have the training."""

import time
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsllm.context import Context
from tsllm.covariates import CovariateColumns
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.candidates import (
    Candidate,
    SktimeCandidate,
    TrainedCandidate,
    longest_history,
)
from tsllm.forecasters.frames import frequency_of
from tsllm.forecasters.held_out import HELD_OUT
from tsllm.forecasters.learning import span_of
from tsllm.forecasters.state import FittedState, ModelShape


class OuterForecaster(SeriesForecaster):
    """Base class of forecasters around other forecasters, without a training of their own."""


class ComposedForecaster(OuterForecaster):
    """Base class of forecasters that are made of candidates.

    Their intervals are conformal, on the errors of the whole.
    """

    validation_fraction = HELD_OUT

    def plot_history(self, ax: Any = None) -> Any:
        """Raise an error: there is no single training to draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Not used.

        Raises
        ------
        DataError
            Always.
        """
        raise DataError(
            f"{type(self).__name__} has no single training to draw: summary() tells what was "
            "fitted, and a method that is fitted by itself draws its training"
        )

    @abstractmethod
    def _fit_parts(self, state: FittedState, contexts: Sequence[Context]) -> None:
        """Fit the candidates of a state on whole series, in place, and calibrate the whole."""

    def _train(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        epochs: int | str,
        *,
        recalibrate: bool = True,
        resumable: bool = False,
    ) -> None:
        """Fit the candidates with their own arguments; note the series and the seconds."""
        started = time.perf_counter()
        self._fit_parts(state, contexts)
        state.trained_on = [*state.trained_on, span_of(contexts)]
        state.seconds += time.perf_counter() - started

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        """Choose the sizes: the longest history of a candidate, and by default a season ahead."""
        freq = frequency_of(contexts)
        if horizon is None:
            horizon = int(np.clip(typical_steps(contexts) // 4, 1, max(season_length(freq), 8)))
        return ModelShape(longest_history(contexts), horizon, contexts[0].n_variables, freq)

    def _from_forecaster(
        self,
        name: str,
        forecaster: Any,
        freq: str | None,
        columns: CovariateColumns | None = None,
        **settings: Any,
    ) -> Candidate:
        """Make an unfitted candidate of a forecaster that was passed, with the columns it reads."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # sktime announces defaults
            own = forecaster.clone()
        if own.get_params(deep=False).get("random_state", 0) is None:
            own.set_params(random_state=self._seed())
        if isinstance(own, SeriesForecaster):
            return TrainedCandidate(name, own, columns)
        return SktimeCandidate(name, own, freq, columns, **settings)


def typical_steps(contexts: Sequence[Context]) -> int:
    """Return the steps of a typical series, from its first observed one on."""
    return int(np.median([len(c) - c.mask.any(axis=1).argmax() for c in contexts]))
