"""Checks of what forecasters are handed: series, contexts, levels and horizons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from tsllm.context import Context
from tsllm.covariates import Covariates
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.forecasters.frames import frequency_of, split_series
from tsllm.forecasters.state import FittedState


def check_input(y: Any, *, freq: str | None, at_least: int) -> None:
    """Find what is wrong with pandas input before sktime meets it and says less."""
    if not isinstance(y, pd.Series | pd.DataFrame) or len(y) == 0:
        return
    times = y.index.get_level_values(-1) if isinstance(y.index, pd.MultiIndex) else y.index
    nested = isinstance(y, pd.DataFrame) and len(y) and isinstance(y.iloc[0, 0], pd.Series)
    if nested or not isinstance(times, pd.DatetimeIndex | pd.PeriodIndex | pd.Index):
        return
    split_series(y, freq=freq, at_least=at_least)


def check_variables(state: FittedState, contexts: Sequence[Context]) -> None:
    """Refuse contexts of other variables."""
    for context in contexts:
        if context.n_variables != state.shape.n_variables:
            raise DataError(
                f"the model was fitted on {state.shape.n_variables} variable(s) and a context "
                f"has {context.n_variables}: pass the same variables"
            )


def check_same_series(state: FittedState, contexts: Sequence[Context]) -> None:
    """Refuse series that the model was not built for."""
    variables = contexts[0].n_variables
    if variables != state.shape.n_variables:
        raise DataError(
            f"the model was trained on {state.shape.n_variables} variable(s) and y has "
            f"{variables}: pass the same variables, or fit anew"
        )
    ours = state.shape.freq or "integer steps"
    theirs = frequency_of(contexts) or "integer steps"
    if ours != theirs:
        raise DataError(
            f"the model was trained on series of frequency {ours} and y has {theirs}: pass "
            "series of that frequency, or fit anew"
        )


def check_future_arrays(
    covariates: Covariates | None,
    contexts: Sequence[Context],
    future_x: Sequence[np.ndarray | None] | None,
    horizon: int,
) -> None:
    """Refuse covariates that the model does not read, or that do not cover the horizon."""
    if covariates is None:
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
        if future is not None and len(future) != horizon:
            raise DataError(
                f"the future_x of {series_name(context.series_id)} has {len(future)} rows and the "
                f"horizon {horizon} steps: pass one row a step"
            )


def checked_levels(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Refuse quantile levels outside (0, 1)."""
    levels = tuple(float(q) for q in quantiles)
    bad = [q for q in levels if not 0 < q < 1]
    if bad:
        raise DataError(f"quantiles must lie strictly between 0 and 1, found {bad[0]!r}")
    return levels


def brief_horizon(fh: object) -> str:
    """Write a horizon in a few words."""
    steps = fh.to_pandas() if isinstance(fh, ForecastingHorizon) else np.atleast_1d(np.asarray(fh))
    shown = ", ".join(str(step) for step in steps[:3])
    return f"[{shown}{', ...' * (len(steps) > 3)}]"
