"""The one path of a forecast: prepare contexts, predict batches, add effects, calibrate, floor.

`SeriesForecaster.predict` and `predict_quantiles`, the stateless `forecast`, batch jobs and serving
all take it. Step 2 is a `Reader`: it reads contexts anew, or the running states of followed series.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tsllm.arguments import checked_levels, shown
from tsllm.backbone.devices import memory_errors_explained
from tsllm.backbone.forks import limit_threads_after_fork
from tsllm.backbone.stopping import check_time
from tsllm.context import (
    Context,
    ContextBatch,
    batch_contexts,
    check_contexts,
    column_names,
    faint_spread,
)
from tsllm.datasets.checks import series_name, series_names
from tsllm.errors import DataError, DataTypeError
from tsllm.forecasters.floors import at_or_above
from tsllm.forecasters.parameters import SharedParameters, check_horizon
from tsllm.forecasters.state import FittedState

#: Forecasts (series, horizon, variables, 1 + levels) in the series' units, and the scale of each
#: context (series, variables), 0 where all its values are equal.
Prediction = tuple[np.ndarray, np.ndarray]


class Reader(ABC):
    """The second step of a forecast: it reads contexts and predicts them batch by batch."""

    @abstractmethod
    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Predict the next ``horizon`` steps of each context."""


def with_faint_spreads(scales: np.ndarray, contexts: Sequence[Context]) -> np.ndarray:
    """Return scales (series, variables) with spreads within rounding where they are 0."""
    for row in np.flatnonzero((scales == 0).any(axis=1)).tolist():
        scales[row] = np.where(scales[row] == 0, faint_spread(contexts[row]), scales[row])
    return scales


@dataclass(frozen=True)
class ContextReader(Reader):
    """Standardises the end of each context and predicts it in batches, with a method's hooks."""

    state: FittedState
    arrange_context: Callable[[FittedState, Context], Context]
    run_model: Callable[[FittedState, ContextBatch, Sequence[Context], int], Tensor]
    rows: int  # contexts in a batch
    batch_size: int  # the argument, for the message of an out-of-memory error

    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Predict contexts in batches of ``rows``."""
        limit_threads_after_fork()
        state, device = self.state, self.state.device
        values, scales = [], []
        for first in range(0, len(contexts), self.rows):
            check_time()
            chunk = [self.arrange_context(state, c) for c in contexts[first : first + self.rows]]
            batch = batch_contexts(chunk, state.shape.context_length)
            with (
                torch.inference_mode(),
                memory_errors_explained(device, "forecasting", self.batch_size),
            ):
                out = self.run_model(state, batch.to(device), chunk, horizon)
            raw = out.float().cpu().numpy().astype(np.float64)  # (batch, horizon, variables, 1 + q)
            raw = np.where(batch.constant[:, None, :, None], 0.0, raw)  # constants stay constant
            values.append(raw * batch.scale[:, None, :, None] + batch.location[:, None, :, None])
            scales.append(with_faint_spreads(np.where(batch.constant, 0.0, batch.scale), chunk))
        return np.concatenate(values), np.concatenate(scales)


class ForecastingMixin(SharedParameters, ABC):
    """The part of a forecaster that forecasts contexts with its fitted state."""

    fitted_: FittedState
    _contexts: dict[Hashable, Context]  # the kept end of each fitted series
    check_is_fitted: Callable[[], None]  # sktime's

    def forecast(
        self,
        contexts: Sequence[Context],
        horizon: int,
        *,
        quantiles: Sequence[float] = (),
        future_x: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Forecast any series from their contexts, in one batch, without changing the forecaster.

        Safe to call from many threads.

        Parameters
        ----------
        contexts : sequence of Context
            One per series, of any lengths and dates. Variables with names (``columns``) have any
            order, others that of the fit.
        horizon : int
            Steps to forecast.
        quantiles : sequence of float, default=()
            Levels strictly between 0 and 1.
        future_x : sequence of array (horizon, known covariates) or None, default=None
            For a model that was fitted with X: one per series, the columns of X without the past
            ones, in X's order; those of a DataFrame are found by name. Numbers, and texts for
            categories and text covariates. Contexts hold ``past_x``.

        Returns
        -------
        array (series, horizon, variables, 1 + quantiles)
            The point forecasts, then the quantiles in the requested order, in the series' units;
            variables in the order of the fit.

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
        horizon, quantiles = check_horizon(horizon), checked_levels(quantiles)
        _check_kinds(contexts, future_x)
        _check_future_arrays(state, contexts, future_x, horizon)
        if not contexts:
            return np.empty((0, horizon, state.shape.n_variables, 1 + len(quantiles)))
        _check_variables(state, contexts)
        check_contexts(contexts)
        contexts = [self._with_known_facts(_by_name(state, context)) for context in contexts]
        values = self._forecast(self._reader(state), contexts, horizon, quantiles, future_x)
        return self._floored(values, contexts)

    # ------------------------------------------------------------------ the path

    def _forecast(
        self,
        reader: Reader,
        contexts: Sequence[Context],
        horizon: int,
        quantiles: Sequence[float],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Forecast contexts in four steps: (series, horizon, variables, 1 + quantiles)."""
        contexts, residuals = self._prepare_contexts(contexts)
        values, scales = reader.predict(residuals, horizon)
        values = self._add_covariate_effects(values, contexts, residuals, futures)
        values = self._calibrate(values, scales, contexts, quantiles)
        check_finite(values, contexts)
        return values

    def _prepare_contexts(
        self, contexts: Sequence[Context]
    ) -> tuple[Sequence[Context], Sequence[Context]]:
        """Return the contexts with the scale of their covariates' effects, and their residuals."""
        if self.fitted_.covariates is None:
            return contexts, contexts
        contexts = self.fitted_.scaled(contexts)
        return contexts, self.fitted_.residuals(contexts)

    def _add_covariate_effects(
        self,
        values: np.ndarray,
        contexts: Sequence[Context],
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Add the effects of past and known covariates and of texts to forecasts of residuals."""
        if self.fitted_.covariates is None:
            return values
        values = self.fitted_.with_lagged_effects(values, residuals)
        values = self.fitted_.with_text_effects(values, residuals, futures)
        return self.fitted_.with_future_effects(values, contexts, futures)

    def _calibrate(
        self,
        values: np.ndarray,
        scales: np.ndarray,
        contexts: Sequence[Context],
        quantiles: Sequence[float],
    ) -> np.ndarray:
        """Return points and calibrated quantiles: (series, horizon, variables, 1 + quantiles)."""
        calibration = self.fitted_.calibration
        if calibration is None:  # a candidate of another forecaster, which calibrates the whole
            return values[..., :1]
        ids = [context.series_id for context in contexts]
        point = calibration.correct(values[..., 0], scales, ids)[..., None]
        if not quantiles:
            return point
        calibration.warn_if_weak(values.shape[1], quantiles)
        _warn_of_still_contexts(contexts, scales)
        columns = contexts[0].columns
        spread = calibration.quantiles(values, scales, ids, quantiles, columns)
        # The median is the point: a point within all its intervals, and one that a reader expects.
        levels = np.asarray(quantiles)
        spread = np.where(levels <= 0.5, np.minimum(spread, point), spread)
        spread = np.where(levels >= 0.5, np.maximum(spread, point), spread)
        return np.concatenate([point, spread], axis=-1)

    def _floored(self, values: np.ndarray, contexts: Sequence[Context]) -> np.ndarray:
        """Raise forecasts below ``floor`` to it: the fifth step, on the forecast of the whole.

        Forecasters inside another one have none, for their forecasts are parts of a sum.
        """
        mostly = self.fitted_.stops_at_zero
        if self.floor == "auto" and mostly is None:  # a model of an earlier version
            return values
        histories = [context.values for context in contexts]
        known = [context.stops_at_zero for context in contexts]
        return at_or_above(values, histories, self.floor, known=known, mostly=mostly)

    # ------------------------------------------------------------------ the second step

    @abstractmethod
    def _reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        """Return the reader of contexts; ``followed``: of those that this forecaster keeps."""

    def _rows_at_once(self, state: FittedState) -> int:
        """Return the number of contexts in a batch; here each is computed on its own."""
        return 1

    # ------------------------------------------------------------------ series that are kept

    def _forecast_kept(
        self,
        contexts: Sequence[Context],
        horizon: int,
        quantiles: Sequence[float],
        futures: Sequence[np.ndarray | None] | None = None,
        *,
        floored: bool = True,
        reader: Reader | None = None,
    ) -> np.ndarray:
        """Forecast series that this forecaster keeps, as `forecast` forecasts any others.

        ``reader`` reads them; None: the one of the method.
        """
        reader = self._reader(self.fitted_, followed=True) if reader is None else reader
        values = self._forecast(
            reader, contexts, check_horizon(horizon), checked_levels(quantiles), futures
        )
        return self._floored(values, contexts) if floored else values

    def _kept_contexts(self) -> list[Context]:
        """Return the kept end of every fitted series."""
        contexts = list(self._contexts.values())
        if not contexts:
            raise DataError(
                "the model was saved without its context: pass the recent past of the series "
                "with update(y), or use forecast(contexts, horizon)"
            )
        return contexts

    def _with_known_facts(self, context: Context) -> Context:
        """Add what is known of a series that this forecaster keeps.

        These are the scale and level of its covariates' effects, and whether it stops at zero.
        """
        known = None if context.series_id is None else self._contexts.get(context.series_id)
        if known is None:
            return context
        if context.stops_at_zero is None:
            context = replace(context, stops_at_zero=known.stops_at_zero)
        if self.fitted_.covariates is None or context.x_scale is not None:
            return context
        return replace(context, x_scale=known.x_scale, x_level=known.x_level)


# ---------------------------------------------------------------------- checks


def _warn_of_still_contexts(contexts: Sequence[Context], scales: np.ndarray) -> None:
    """Warn once of all series whose intervals have no width, for their context is constant."""
    rows = np.flatnonzero((scales == 0).any(axis=1)).tolist()
    if rows:
        names = series_names([contexts[row].series_id for row in rows])
        warnings.warn(
            f"the steps that the model reads of {names} are all equal: the forecast is their "
            "value, and its interval has no width; a longer context_length may reach steps that "
            "change",
            stacklevel=3,
        )


def _check_kinds(contexts: object, future_x: object) -> None:
    """Check that contexts are contexts, and the arrays of their futures a list."""
    some = contexts if isinstance(contexts, list | tuple) else [contexts]
    wrong = [one for one in some if not isinstance(one, Context)]
    if wrong or some is not contexts:
        raise DataTypeError(
            f"contexts must be a list of tsllm.Context, found {shown((wrong or some)[0])}: write "
            "[Context(values)], or use predict for the series of fit"
        )
    if future_x is not None and not isinstance(future_x, list | tuple | np.ndarray):
        raise DataTypeError(f"future_x must be a list of arrays, found {shown(future_x)}")


def _check_variables(state: FittedState, contexts: Sequence[Context]) -> None:
    """Check that contexts have as many variables as the model."""
    for context in contexts:
        if context.n_variables != state.shape.n_variables:
            raise DataError(
                f"the model was fitted on {state.shape.n_variables} variable(s) and "
                f"{series_name(context.series_id)} has {context.n_variables}: pass the same "
                "variables"
            )


def _by_name(state: FittedState, context: Context) -> Context:
    """Return a context with its variables in the order of the fit, where both have names.

    The name of an only variable does not count: a context may be any series.
    """
    known = None if state.columns is None else column_names(state.columns)
    given = context.columns
    if known is None or given is None or given == known or len(known) == 1:
        return context
    if tuple(map(str, range(len(known)))) in (given, known):  # columns that only count
        return context
    if sorted(given) != sorted(known):
        raise DataError(
            f"{series_name(context.series_id)} has the columns {', '.join(given)} and the model "
            f"was fitted on {', '.join(known)}: pass the columns of the fit, in any order"
        )
    order = [given.index(name) for name in known]
    measured = {
        name: None if value is None else value[order]
        for name, value in (
            ("x_scale", context.x_scale),
            ("x_level", context.x_level),
            ("stops_at_zero", context.stops_at_zero),
        )
    }
    return context.with_values(context.values[:, order], columns=known, **measured)


def check_finite(values: np.ndarray, contexts: Sequence[Context]) -> None:
    """Check that forecasts (series, horizon, variables, 1 + quantiles) are numbers."""
    bad = ~np.isfinite(values).all(axis=(1, 2, 3))
    if bad.any():
        raise DataError(
            f"the forecast of {series_name(contexts[int(bad.argmax())].series_id)} is no finite "
            "number: its values or covariates lie too far from those that the model was fitted on, "
            "or the weights of the model are damaged; rescale the data, or fit anew"
        )


def _check_future_arrays(
    state: FittedState,
    contexts: Sequence[Context],
    future_x: Sequence[np.ndarray | None] | None,
    horizon: int,
) -> None:
    """Check that covariates are those that the model reads and cover the horizon."""
    if state.covariates is None:
        if future_x is not None or any(c.past_x is not None for c in contexts):
            raise DataError(
                "the model was fitted without covariates and reads none: leave future_x and "
                "past_x out, or fit with X"
            )
        return
    if future_x is None:
        return
    if len(future_x) != len(contexts):
        raise DataError(
            f"future_x holds {len(future_x)} arrays for {len(contexts)} contexts: pass one each"
        )
    for context, future in zip(contexts, future_x):
        if future is None:
            continue
        name = series_name(context.series_id)
        if np.ndim(future) != 2:
            raise DataTypeError(
                f"the future_x of {name} must be an array (steps, covariates), found "
                f"{shown(future)}"
            )
        if len(future) != horizon:
            raise DataError(
                f"the future_x of {name} has {len(future)} rows and the horizon {horizon} steps: "
                "pass one row a step"
            )
