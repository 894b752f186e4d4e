"""The core of every forecaster: any series forecast from their contexts, in one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sktime.forecasting.base import ForecastingHorizon
from torch import Tensor

from tsllm.backbone.devices import memory_errors_explained
from tsllm.context import Context, ContextBatch, batch_contexts
from tsllm.errors import DataError
from tsllm.forecasters.checks import check_future_arrays, check_variables, checked_levels
from tsllm.forecasters.covariates import future_covariates
from tsllm.forecasters.frames import relative_steps
from tsllm.forecasters.state import FittedState


class ForecastsContexts(ABC):
    """The part of a forecaster that turns contexts into forecasts.

    `forecast` is stateless: it reads what `fit` left and writes nothing. The series that were
    fitted are forecast through the same steps, from what is kept of them.
    """

    fitted_: FittedState
    batch_size: int
    _contexts: dict[Hashable, Context]
    check_is_fitted: Callable[[], None]  # sktime's

    def forecast(
        self,
        contexts: Sequence[Context],
        horizon: int,
        *,
        quantiles: Sequence[float] = (),
        future_x: Sequence[np.ndarray | None] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Forecast any series from their contexts, in one batch, without touching this estimator.

        The core under `predict`, the command line and serving. Safe to call from many threads.

        Parameters
        ----------
        contexts : sequence of Context
            One per series, of any lengths and dates.
        horizon : int
            Steps to forecast.
        quantiles : sequence of float
            Levels strictly between 0 and 1.
        future_x : sequence of array (horizon, known covariates), optional
            For a model that was fitted with X: one per series, in the order of X's columns but
            for the past ones. Numbers, and texts for categories; contexts bring ``past_x``.
        seeds : sequence of int, optional
            One per series, for methods that sample. The same seed gives the same forecast.

        Returns
        -------
        array (series, horizon, variables, 1 + quantiles)
            The point forecasts, then the quantiles in the order asked for, in the series' units.

        Raises
        ------
        DataError
            Bad arguments, or a context that the model cannot read.

        Examples
        --------
        >>> import numpy as np
        >>> from tsllm import AutoTimesForecaster, Context
        >>> from sktime.datasets import load_airline
        >>> model = AutoTimesForecaster("random:gpt2?hidden=16&layers=1&heads=2", max_steps=2)
        >>> contexts = [Context(np.arange(30.0)), Context(np.arange(12.0))]
        >>> model.fit(load_airline()).forecast(contexts, 3, quantiles=[0.1, 0.9]).shape
        (2, 3, 1, 3)
        """
        self.check_is_fitted()
        state = self.fitted_
        if not isinstance(horizon, int | np.integer) or horizon < 1:
            raise DataError(
                f"horizon must be a whole number of steps, at least 1, found {horizon!r}"
            )
        quantiles = checked_levels(quantiles)
        check_future_arrays(state.covariates, contexts, future_x, horizon)
        if not contexts:
            return np.empty((0, horizon, state.shape.n_variables, 1 + len(quantiles)))
        check_variables(state, contexts)
        if state.covariates is not None:
            contexts = [self._with_known_scale(context) for context in contexts]

        def run(residuals: Sequence[Context], steps: int) -> tuple[np.ndarray, np.ndarray]:
            return self._run(state, residuals, steps)

        return self._forecast_whole(run, contexts, horizon, quantiles, future_x)

    # ------------------------------------------------------------------ the hooks of a method

    @abstractmethod
    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        """Forecast a batch: (batch, horizon, variables, 1 + levels), in standardised units."""

    def _arrange_context(self, state: FittedState, context: Context) -> Context:
        """Choose the steps of a context that the model reads."""
        return context.tail(state.shape.context_length)

    def _rows_at_once(self, state: FittedState) -> int:
        """Tell how many contexts are forecast in one batch."""
        return max(1, int(self.batch_size) // state.shape.n_variables)

    # ------------------------------------------------------------------ helpers

    def _run(
        self, state: FittedState, contexts: Sequence[Context], horizon: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecast in the series' units, batch by batch.

        Gives (series, horizon, variables, 1 + levels) and each context's scale (series, variables),
        0 where it is constant.
        """
        values, scales = [], []
        rows = self._rows_at_once(state)
        for first in range(0, len(contexts), rows):
            chunk = [self._arrange_context(state, c) for c in contexts[first : first + rows]]
            batch = batch_contexts(chunk, state.shape.context_length)
            with (
                torch.inference_mode(),
                memory_errors_explained(state.device, "forecasting", self.batch_size),
            ):
                out = self._run_model(state, batch.to(state.device), chunk, horizon)
            raw = out.float().cpu().numpy().astype(np.float64)
            # A constant context has nothing to learn from: its forecast is its constant.
            raw = np.where(batch.constant[:, None, :, None], 0.0, raw)
            values.append(raw * batch.scale[:, None, :, None] + batch.location[:, None, :, None])
            scales.append(np.where(batch.constant, 0.0, batch.scale))
        return np.concatenate(values), np.concatenate(scales)

    def _run_known(
        self, contexts: Sequence[Context], horizon: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecast series that this forecaster follows, from what it keeps of them; as `_run`.

        A method that remembers more of a series than its last context reads it here.
        """
        return self._run(self.fitted_, contexts, horizon)

    def _calibrated(
        self,
        values: np.ndarray,
        scales: np.ndarray,
        contexts: Sequence[Context],
        quantiles: Sequence[float],
    ) -> np.ndarray:
        """Give point forecasts and calibrated quantiles: (series, horizon, variables, 1 + q)."""
        point = values[..., :1]  # (series, horizon, variables, 1)
        if not quantiles:
            return point
        calibration = self.fitted_.calibration
        assert calibration is not None  # fit ends with it
        calibration.warn_if_weak(values.shape[1])
        ids = [context.series_id for context in contexts]
        spread = calibration.quantiles(values, scales, ids, quantiles)
        return np.concatenate([point, spread], axis=-1)

    def _forecast_whole(
        self,
        run: Callable[[Sequence[Context], int], tuple[np.ndarray, np.ndarray]],
        contexts: Sequence[Context],
        horizon: int,
        quantiles: Sequence[float],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Let `run` forecast what the covariates leave of the series, and add what they say."""
        state = self.fitted_
        contexts = state.scaled(contexts)
        residuals = state.residuals(contexts)
        values, scales = run(residuals, horizon)
        values = state.with_future_effects(
            state.with_lagged_effects(values, residuals), contexts, futures
        )
        return self._calibrated(values, scales, contexts, quantiles)

    def _forecast_known(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, quantiles: Sequence[float]
    ) -> tuple[np.ndarray, list[np.ndarray], list[Context]]:
        """Forecast every series that was fitted, as far as its own end asks for."""
        contexts = self._known_contexts()
        steps = [relative_steps(fh, context) for context in contexts]
        horizon = max(int(keep.max()) for keep in steps)
        futures = future_covariates(contexts, X, self.fitted_.covariates, steps, horizon)
        return self._forecast_stored(contexts, horizon, quantiles, futures), steps, contexts

    def _with_known_scale(self, context: Context) -> Context:
        """Give a series that this forecaster follows the scale that its effects have there."""
        known = None if context.series_id is None else self._contexts.get(context.series_id)
        if known is None or context.x_scale is not None:
            return context
        return replace(context, x_scale=known.x_scale)

    def _known_contexts(self) -> list[Context]:
        """Give what is kept of every series that was fitted."""
        contexts = list(self._contexts.values())
        if not contexts:
            raise DataError(
                "the model was saved without its context: hand it the recent past of the series "
                "with update(y), or use forecast(contexts, horizon)"
            )
        return contexts

    def _forecast_stored(
        self,
        contexts: Sequence[Context],
        horizon: int,
        quantiles: Sequence[float],
        futures: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Forecast series that this forecaster follows, as `forecast` does any others."""
        levels = checked_levels(quantiles)
        return self._forecast_whole(self._run_known, contexts, horizon, levels, futures)
