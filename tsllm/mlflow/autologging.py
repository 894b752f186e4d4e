"""Parameters, losses and figures of every fit, logged to MLflow while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import mlflow
import pandas as pd
from mlflow.utils.autologging_utils import (
    autologging_integration,
    get_autologging_config,
    safe_patch,
)

from tsllm.forecasters.base import BaseLLMForecaster
from tsllm.long_format import predict_stored
from tsllm.mlflow.flavor import FLAVOR_NAME, log_model
from tsllm.plotting import plot_forecast, plot_history
from tsllm.training_contract import Callback, TrainingState
from tsllm.watching import watched_by

# What of `summary()` is worth comparing between runs.
_METRICS = (
    "best_epoch",
    "steps",
    "seconds",
    "trained_parameters",
    "frozen_parameters",
    "calibration_windows",
)
_FACTS = ("backbone", "backbone_digest", "context_length", "horizon", "device", "dtype", "stopped")
_LONGEST = 500  # characters of a parameter; MLflow refuses very long ones


@autologging_integration(FLAVOR_NAME)
def autolog(
    log_models: bool = False,
    log_figures: bool = True,
    disable: bool = False,
    silent: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
) -> None:
    """Log every ``fit`` and ``pretrain`` of a forecaster to the active run, or to a new one.

    Logged: the parameters; training and validation loss and learning rate of each epoch, as it
    ends; seconds, steps, best epoch and parameter counts; the losses and the first series' forecast
    as pictures. In a search over settings each fit goes to the run that is active.

    Parameters
    ----------
    log_models : bool, default=False
        Log the fitted model as well.
    log_figures : bool, default=True
        Draw the pictures (needs matplotlib, which MLflow brings).
    disable : bool, default=False
        Stop logging.
    silent : bool, default=False
        Say nothing about logging itself.
    exclusive : bool, default=False
        Log only to runs that logging started itself.
    disable_for_unsupported_versions : bool, default=False
        Without effect; MLflow's own argument.
    """
    for method in ("fit", "pretrain"):
        safe_patch(FLAVOR_NAME, BaseLLMForecaster, method, _logged, manage_run=True)


class EpochLogger(Callback):
    """Logs each epoch's losses to the active run.

    Parameters
    ----------
    run_id : str, optional
        Of another run than the active one.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id

    def on_epoch_end(self, state: TrainingState) -> None:
        """Log the epoch that has ended."""
        epoch = state.history[-1]
        found = {
            name: float(value)
            for name, value in epoch.items()
            if name not in ("epoch", "step") and value is not None
        }
        mlflow.log_metrics(found, step=epoch["epoch"], run_id=self.run_id)


def _logged(
    original: Callable[..., BaseLLMForecaster],
    self: BaseLLMForecaster,
    *arguments: Any,
    **keywords: Any,
) -> BaseLLMForecaster:
    """Run ``fit`` or ``pretrain`` and log what it does."""
    parameters = {
        name: str(value)[:_LONGEST]
        for name, value in self.get_params(deep=False).items()
        if not hasattr(value, "shape")
    }
    mlflow.log_params({"estimator": type(self).__name__, **parameters})
    with watched_by(EpochLogger()):
        fitted = original(self, *arguments, **keywords)
    if self.state == "fitted":
        _log_outcome(self)
    return fitted


def _log_outcome(forecaster: BaseLLMForecaster) -> None:
    """Log what came of a fit."""
    summary = forecaster.summary()
    numbers = {name: summary.get(name) for name in _METRICS}
    numbers["best_validation_loss"] = summary.get("validation_loss")
    mlflow.log_metrics(
        {
            name: float(value)
            for name, value in numbers.items()
            if value is not None and math.isfinite(value)
        }
    )
    mlflow.set_tags(
        {f"tsllm.{name}": str(summary[name]) for name in _FACTS if summary.get(name) is not None}
    )
    if get_autologging_config(FLAVOR_NAME, "log_figures", True) and find_spec("matplotlib"):
        mlflow.log_figure(plot_history(forecaster.fitted_.history).figure, "losses.png")
        covariates = forecaster.fitted_.covariates
        if covariates is None or not covariates.columns.known:  # else there is no future to draw
            mlflow.log_figure(_forecast_figure(forecaster), "forecast.png")
    if get_autologging_config(FLAVOR_NAME, "log_models", False):
        log_model(forecaster, name="model")


def _forecast_figure(forecaster: BaseLLMForecaster) -> Any:
    """Draw the forecast of the first series that was fitted."""
    table = predict_stored(forecaster, forecaster.fitted_.shape.horizon)
    first = table[table["series_id"] == table["series_id"].iloc[0]]
    context = next(iter(forecaster._contexts.values()))
    history = pd.DataFrame(context.values, columns=[str(c) for c in forecaster._layout.columns])
    history.insert(0, "timestamp", context.times)
    history.insert(0, "series_id", first["series_id"].iloc[0])
    return plot_forecast(history, first).figure
