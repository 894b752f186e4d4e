"""The base of forecasters that are made of candidates, which are fitted for themselves."""

import warnings
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
from tsllm.forecasters.parameters import DECILES
from tsllm.forecasters.state import ModelShape


class ComposedForecaster(SeriesForecaster):
    """Base class of the forecasters that are made of candidates and have no training of their own.

    Their intervals are conformal, on the errors of the whole.
    """

    # The arguments of one training, which the candidates have.
    context_length = "auto"
    loss = "mse"
    quantiles = DECILES
    update_epochs = 0
    max_epochs = "auto"
    learning_rate = 1e-3
    weight_decay = 0.0
    patience = 3
    validation_fraction = HELD_OUT
    max_steps = None

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
