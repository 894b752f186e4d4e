"""Logging of the parameters, losses and figures of every fit to MLflow."""

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

from tsllm.events import EventForecaster, PromptTPP
from tsllm.forecasters.base import SeriesForecaster
from tsllm.mlflow.flavor import FLAVOR_NAME, log_model
from tsllm.plotting.forecasts import draw_losses, plot_panel
from tsllm.tables.forecast import predict_stored, stored_series
from tsllm.training.callbacks import Callback, training_callbacks
from tsllm.training.settings import TrainingState

# The entries of `summary()` to compare between runs.
_METRICS = (
    "best_epoch",
    "steps",
    "seconds",
    "trained_parameters",
    "frozen_parameters",
    "calibration_windows",
    "events",
    "slices",
    "slots",
)
_FACTS = (
    "backbone",
    "backbone_digest",
    "backbone_quantisation",
    "context_length",
    "horizon",
    "encoder",
    "decoder",
    "device",
    "dtype",
    "stopped",
)
_LONGEST = 500  # characters of a parameter; MLflow refuses very long ones
_DRAWN = 6  # series in the picture of forecasts


@autologging_integration(FLAVOR_NAME)
def autolog(
    log_models: bool = False,
    log_figures: bool = True,
    disable: bool = False,
    silent: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
) -> None:
    """Log every ``fit`` of a forecaster, of series or events, to the active run, or to a new one.

    It logs the parameters; training and validation loss and learning rate of each epoch, as it
    ends; seconds, steps, best epoch and parameter counts; figures of the losses and of the first
    series' forecast. It also logs ``pretrain``, and `PromptTPP`'s ``partial_fit``: the slices of a
    stream that are learnt in one active run follow each other there. In a search over settings,
    each fit is logged to the active run.

    Parameters
    ----------
    log_models : bool, default=False
        Log the fitted model as well.
    log_figures : bool, default=True
        Draw the figures (needs matplotlib, which MLflow installs).
    disable : bool, default=False
        Stop logging.
    silent : bool, default=False
        Suppress messages about the logging.
    exclusive : bool, default=False
        Log only to runs that logging started itself.
    disable_for_unsupported_versions : bool, default=False
        An argument of MLflow, without effect here.
    """
    for kind, method in (
        (SeriesForecaster, "fit"),
        (SeriesForecaster, "pretrain"),
        (EventForecaster, "fit"),
        (PromptTPP, "partial_fit"),
    ):
        safe_patch(FLAVOR_NAME, kind, method, _logged, manage_run=True)


class EpochLogger(Callback):
    """A callback that logs each epoch's losses to a run.

    Parameters
    ----------
    run_id : str or None, default=None
        The run. None: the active one.
    epochs_before : int, default=0
        The number of epochs of earlier trainings of the same model; steps continue after them.
    """

    def __init__(self, run_id: str | None = None, epochs_before: int = 0) -> None:
        self.run_id, self.epochs_before = run_id, epochs_before

    def on_epoch_end(self, state: TrainingState) -> None:
        """Log the losses of the epoch that has ended."""
        epoch = state.history[-1]
        found = {
            name: float(value)
            for name, value in epoch.items()
            if name not in ("epoch", "step") and value is not None
        }
        step = self.epochs_before + epoch["epoch"]
        mlflow.log_metrics(found, step=step, run_id=self.run_id)


def _logged(original: Callable[..., Any], self: Any, *arguments: Any, **keywords: Any) -> Any:
    """Run ``fit``, ``pretrain`` or ``partial_fit`` and log its results."""
    goes_on = original.__name__ == "partial_fit"
    if goes_on and not self.__sklearn_is_fitted__():
        return original(self, *arguments, **keywords)  # it calls `fit`, which is logged
    parameters = {
        name: str(value)[:_LONGEST]
        for name, value in self.get_params(deep=False).items()
        if not hasattr(value, "shape")
    }
    mlflow.log_params({"estimator": type(self).__name__, **parameters})
    before = sum(record["epochs"] for record in self.slices_) if goes_on else 0
    with training_callbacks(EpochLogger(epochs_before=before)):
        fitted = original(self, *arguments, **keywords)
    if isinstance(self, EventForecaster):
        _log_event_model(self)
    elif self.state == "fitted":
        _log_forecaster(self)
    return fitted


def _log_forecaster(forecaster: SeriesForecaster) -> None:
    """Log the results of a fit to series."""
    _log_summary(forecaster.summary())
    if _wants_figures():
        mlflow.log_figure(draw_losses(forecaster.fitted_.history).figure, "losses.png")
        covariates = forecaster.fitted_.covariates
        if covariates is None or not covariates.columns.known:  # their future is not known
            mlflow.log_figure(_forecast_figure(forecaster), "forecast.png")
    _log_model_if_wanted(forecaster)


def _log_event_model(model: EventForecaster) -> None:
    """Log the results of a fit to events; the baselines have no losses."""
    if isinstance(model, PromptTPP):
        _log_summary(model.summary())
        if _wants_figures():
            mlflow.log_figure(draw_losses(model.slices_[-1]["history"]).figure, "losses.png")
    else:
        mlflow.log_metrics({"events": float(model.n_events_)})
    _log_model_if_wanted(model)


def _log_summary(summary: dict[str, Any]) -> None:
    """Log the numbers and facts of a summary."""
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


def _wants_figures() -> bool:
    wanted = get_autologging_config(FLAVOR_NAME, "log_figures", True)
    return bool(wanted and find_spec("matplotlib"))


def _log_model_if_wanted(model: Any) -> None:
    if get_autologging_config(FLAVOR_NAME, "log_models", False):
        log_model(model, name="model")


def _forecast_figure(forecaster: SeriesForecaster) -> Any:
    """Draw the forecasts of the first series that were fitted."""
    names = list(stored_series(forecaster))[:_DRAWN]
    table = predict_stored(forecaster, forecaster.fitted_.shape.horizon, series=names)
    parts = []
    for name, context in zip(names, forecaster._contexts.values()):
        part = pd.DataFrame(context.values, columns=[str(c) for c in forecaster._layout.columns])
        parts.append(part.assign(series_id=name, timestamp=context.times))
    return plot_panel(pd.concat(parts), table)
