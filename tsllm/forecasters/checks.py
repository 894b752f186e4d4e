"""Checks of the series and the parameters that a forecaster is given."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from tsllm.adapters.losses import LOSSES
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


_COMMON = (
    "backbone",
    "backbone_layers",
    "batch_size",
    "context_length",
    "learning_rate",
    "lora",
    "loss",
    "max_epochs",
    "max_steps",
    "patience",
    "prediction_length",
    "quantiles",
    "update_epochs",
    "validation_fraction",
    "weight_decay",
    "window_stride",
)


def check_parameters(estimator: Any) -> None:
    """Check the common constructor arguments of a forecaster.

    Raises
    ------
    DataError
        Naming the first parameter that cannot be used, its value and what would do.
    """
    # Attributes, not get_params(): a method fixes in its class what it has no use for.
    params = {name: getattr(estimator, name) for name in _COMMON}
    check_choice("loss", params["loss"], LOSSES)
    quantiles = params["quantiles"]
    if (
        not quantiles
        or any(not 0 < q < 1 for q in quantiles)
        or list(quantiles) != sorted(set(quantiles))
    ):
        raise DataError(
            f"quantiles must be rising levels strictly between 0 and 1, found {quantiles!r}"
        )
    for name in ("batch_size", "patience", "window_stride"):
        check_whole(name, params[name])
    for name in ("max_steps", "prediction_length", "backbone_layers"):
        if params[name] is not None:
            check_whole(name, params[name])
    for name in ("context_length", "max_epochs"):
        if params[name] != "auto":
            check_whole(name, params[name], or_auto=True)
    check_whole("update_epochs", params["update_epochs"], least=0)
    if not 0 <= params["validation_fraction"] < 1:
        raise DataError(
            "validation_fraction must be at least 0 and less than 1, found "
            f"{params['validation_fraction']!r}"
        )
    if not params["learning_rate"] > 0:
        raise DataError(f"learning_rate must be above 0, found {params['learning_rate']!r}")
    if not params["weight_decay"] >= 0:
        raise DataError(f"weight_decay must not be negative, found {params['weight_decay']!r}")
    if params["backbone"] is None and params["lora"] is not None:
        raise DataError("lora tunes the language model, and backbone=None has none: drop one")


def check_whole(name: str, value: Any, *, least: int = 1, or_auto: bool = False) -> None:
    """Refuse what is not a whole number, or too small a one.

    Raises
    ------
    DataError
        Naming the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        auto = " or 'auto'" if or_auto else ""
        raise DataError(f"{name} must be a whole number of at least {least}{auto}, found {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of the names that an argument knows.

    Raises
    ------
    DataError
        Naming the argument, the names and the value.
    """
    if value not in choices:
        raise DataError(f"{name} must be one of {', '.join(choices)}, found {value!r}")


def check_multiple(estimator: Any, width: str, parts: str) -> None:
    """Refuse a width that does not divide into its parts; both are names of parameters.

    Raises
    ------
    DataError
        Naming both arguments and their values.
    """
    whole, by = getattr(estimator, width), getattr(estimator, parts)
    if whole % by:
        raise DataError(f"{width}={whole} must be a multiple of {parts}={by}")
