"""The state of a fitted forecaster: trained model, sizes, calibration, pending forecasts."""

import copy
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tsllm.backbone import Backbone, resolve_device
from tsllm.context import Context, within_rounding
from tsllm.covariates import Covariates
from tsllm.datasets.frequency import frequency_name
from tsllm.errors import DataError, ModelFormatError
from tsllm.forecasters.combining import Combination
from tsllm.forecasters.frames import frequency_of
from tsllm.intervals.calibration import Calibration
from tsllm.saving.allocation import build_model
from tsllm.saving.fields import check_fields, read_fields
from tsllm.text import TextEncoder

#: The forecasts that a shrinkage weighs, in the order of its weights.
SHRUNK = ("model", "last value", "seasonal naive", "seasonal naive with drift")


@dataclass(frozen=True)
class ModelShape:
    """The sizes that a model is built for."""

    #: Steps of history that a forecast reads.
    context_length: int
    #: Steps that the intervals are calibrated for; the default horizon.
    horizon: int
    #: Variables of each series.
    n_variables: int
    #: Frequency of the series; the step of integer times as text, such as "1".
    freq: str | None
    #: Further sizes of the method, as JSON values (for AutoTimes the token length).
    extra: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check sizes that a file names."""
        sizes = [self.context_length, self.horizon, self.n_variables]
        further = [size for size in self.extra.values() if not isinstance(size, str)]
        if not all(isinstance(size, Integral) for size in further) or min(sizes) < 1:
            raise ModelFormatError(f"the saved model has sizes that no model can have: {self}")


@dataclass
class FittedState:
    """A trained model and what a forecast needs beside it.

    A copy or pickle holds the trained tensors and never the frozen backbone's: the backbone is a
    handle that loads its weights again.

    Attributes
    ----------
    model : nn.Module
        The trained model, in evaluation mode.
    backbone : Backbone or None
        The language model that it was built with.
    shape : ModelShape
        The sizes that it was built for.
    requested_device : str
        The device of a model without a language model; others run where the language model is.
    calibration : Calibration or None
        Of its intervals; None before the first training.
    covariates : Covariates or None
        The learnt effects of X; None without X.
    statistics : dict of series id to array (2, variables)
        Mean and deviation of the series trained on, for methods that read them.
    history : list of dict
        One entry an epoch, over all trainings.
    best_epoch, stopped
        Of the latest training: the epoch whose weights were kept, and the reason that it ended.
    seconds : float
        Wall time of all trainings.
    trained_on : list of dict
        One entry a training: the number of series and steps, the first and last stamp, as text.
    columns : Index or None
        The columns of y that it was trained on; None in models of earlier versions.
    shrinkage : Combination or None
        The weights of the model and of simple forecasts; None where the model forecasts alone.
    stops_at_zero : bool array (variables,) or None
        Which variables do not fall below zero in most series; None in models of earlier versions,
        whose forecasts ``floor="auto"`` leaves as they were.
    """

    model: nn.Module
    backbone: Backbone | None
    shape: ModelShape
    requested_device: str
    calibration: Calibration | None = None
    covariates: Covariates | None = None
    statistics: dict[Hashable, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    seconds: float = 0.0
    stopped: str = ""
    trained_on: list[dict[str, Any]] = field(default_factory=list)
    columns: pd.Index | None = None
    shrinkage: Combination | None = None
    stops_at_zero: np.ndarray | None = None

    @property
    def device(self) -> torch.device:
        """Return the device that the model runs on."""
        if self.backbone is not None:
            return self.backbone.device
        return resolve_device(self.requested_device)

    def check_same_series(self, contexts: Sequence[Context]) -> None:
        """Check that series have the variables and the frequency that the model was built for."""
        variables = contexts[0].n_variables
        if variables != self.shape.n_variables:
            raise DataError(
                f"the model was trained on {self.shape.n_variables} variable(s) and y has "
                f"{variables}: pass the same variables, or fit anew"
            )
        ours = frequency_name(self.shape.freq)
        theirs = frequency_name(frequency_of(contexts))
        if ours != theirs:
            raise DataError(
                f"the model was trained on series of frequency {ours} and y has {theirs}: pass "
                "series of that frequency, or fit anew"
            )

    def check_saved(self, columns: int, levels: int, contexts: Sequence[Context]) -> None:
        """Check that the series and the layout of a saved forecaster are those of its model."""
        variables = self.shape.n_variables
        names = () if self.covariates is None else self.covariates.columns.names
        for context in contexts:
            covariates = 0 if context.past_x is None else context.past_x.shape[1]
            if (context.n_variables, covariates) != (variables, len(names)):
                raise ModelFormatError(
                    f"the saved model has {variables} variable(s) and {len(names)} covariate(s), "
                    f"and a series of {context.n_variables} and {covariates}"
                )
        ids = [context.series_id for context in contexts]
        depths = {0 if i is None else len(i) if isinstance(i, tuple) else 1 for i in ids}
        if columns != variables or levels < 1 or depths - {levels - 1}:
            raise ModelFormatError(
                f"the saved model has {variables} variable(s), {columns} column(s) and {levels} "
                "level(s) of its index"
            )

    def scaled(self, contexts: Sequence[Context]) -> list[Context]:
        """Add the scale and the level of the covariates' effects to contexts, before a cut."""
        if self.covariates is None:
            return list(contexts)
        return self.covariates.scaled(contexts)

    def residuals(self, contexts: Sequence[Context]) -> list[Context]:
        """Subtract the effects of the covariates, for the model reads and forecasts residuals."""
        if self.covariates is None:
            return list(contexts)
        return self.covariates.residuals(contexts)

    def with_lagged_effects(self, values: np.ndarray, residuals: Sequence[Context]) -> np.ndarray:
        """Add the effects of past covariates to forecasts of residuals.

        ``values`` are (series, horizon, variables, 1 + levels), before and after.
        """
        if self.covariates is None or self.covariates.past is None:
            return values
        return values + self.covariates.lagged_effects(residuals, values.shape[1])[..., None]

    def with_text_effects(
        self,
        values: np.ndarray,
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Add the effects of texts on steps ahead to forecasts of residuals."""
        if self.covariates is None or self.covariates.texts is None:
            return values
        effects = self.covariates.text_effects(residuals, futures, values.shape[1])
        return values + effects[..., None]

    def known_ahead(self, context: Context, origin: int, horizon: int) -> np.ndarray | None:
        """Return what `with_text_effects` reads after a position of a context."""
        if self.covariates is None:
            return None
        return self.covariates.known_ahead(context, origin, horizon)

    @property
    def reads_between(self) -> bool:
        """Return whether a forecast reads the numbers of the steps between those to forecast."""
        return False  # a number acts on its own step

    def with_future_effects(
        self,
        values: np.ndarray,
        contexts: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Add the effects of known-future covariates to forecasts of residuals."""
        if self.covariates is None:
            return values
        # Without known covariates this only checks that no future was given.
        effects = self.covariates.future_effects(contexts, futures)
        if not self.covariates.columns.known:
            return values
        return values + np.stack(effects)[..., None]

    def shares(
        self,
        contexts: Sequence[Context],
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
        horizon: int,
    ) -> dict[str, np.ndarray]:
        """Compute the share of each column in forecasts; see `Covariates.shares`."""
        assert self.covariates is not None  # the caller checks it
        return self.covariates.shares(contexts, residuals, futures, horizon)

    def summary(self) -> dict[str, Any]:
        """Summarise the training: sizes, losses, time, device; see `SeriesForecaster.summary`."""
        backbone, calibration = self.backbone, self.calibration
        assert calibration is not None  # training ends with it
        last = self.history[-1] if self.history else {}
        # Each training counts its epochs from 1: the latest epoch of that number is meant.
        best = next((h for h in reversed(self.history) if h["epoch"] == self.best_epoch), last)
        return {
            "backbone": None if backbone is None else backbone.spec,
            "backbone_source": None if backbone is None else backbone.source,
            "backbone_quantisation": None if backbone is None else backbone.quantisation,
            "backbone_layers": None if backbone is None else backbone.n_layers,
            "trained_parameters": sum(
                p.numel() for p in self.model.parameters() if p.requires_grad
            ),
            "frozen_parameters": 0 if backbone is None else backbone.parameter_count,
            "context_length": self.shape.context_length,
            "horizon": self.shape.horizon,
            **self.shape.extra,
            "epochs": len(self.history),
            "best_epoch": self.best_epoch,
            "steps": last.get("step", 0),
            "train_loss": best.get("train_loss"),
            "validation_loss": best.get("validation_loss"),
            "stopped": self.stopped,
            "seconds": self.seconds,
            "device": str(self.device),
            "dtype": "float32" if backbone is None else str(backbone.dtype).removeprefix("torch."),
            "calibration_windows": len(calibration.pooled.errors),
            "calibration_in_sample": calibration.in_sample,
            **({} if self.shrinkage is None else {"shrinkage": self._weights()}),
            **({} if self.covariates is None else self.covariates.summary()),
        }

    def _weights(self) -> dict[str, float]:
        """Return the mean weights of the model and of the simple forecasts."""
        assert self.shrinkage is not None  # the caller looked
        return dict(zip(SHRUNK, self.shrinkage.mean_weights().round(3).tolist()))

    def card_facts(self, loss: str, *, pretrained: bool, with_context: bool) -> dict[str, Any]:
        """Return the facts of the training for the card of a saved forecaster.

        ``pretrained``: the forecaster is not fitted to series of its own yet.
        """
        told, last = self.summary(), self.history[-1] if self.history else {}
        known = () if self.covariates is None else self.covariates.columns.known
        usage = "model.predict(fh=[1, 2, 3])"
        if pretrained:
            usage = "model.fit(y).predict(fh=[1, 2, 3])  # fit adopts the pretrained model"
        elif not with_context:
            usage = "model.update(y)  # the model was saved without its last values"
        elif known:
            usage = f"model.predict(fh=[1, 2, 3], X=X)  # X: {', '.join(known)}, of those steps"
        series = [
            f"{span['series']} series with {span['steps']} steps in all, {span['first']} to "
            f"{span['last']}"
            for span in self.trained_on
        ]
        held_out, calibration = told["validation_loss"], self.calibration
        assert calibration is not None  # training ends with it
        windows = "training windows, so likely too narrow" if calibration.in_sample else "windows"
        training: dict[str, Any] = {
            "loss": f"{loss}, on standardised values",
            "best epoch": f"{self.best_epoch} of {last.get('epoch', 0)}",
            "training loss": told["train_loss"],
            "validation loss": "none held out" if held_out is None else held_out,
        }
        if self.stopped == "not trained":
            training = {"training": "none: the method has nothing to train"}
        return {
            "kind": f"A time-series forecaster, {'pretrained' if pretrained else 'fitted'}",
            "usage": usage,
            "trained_on": [
                *series,
                f"frequency: {frequency_name(self.shape.freq)}",
                f"variables: {self.shape.n_variables}",
                f"context: {self.shape.context_length} steps",
            ],
            "backbone": self.backbone,
            "results": {
                "Validation": {
                    **training,
                    "seconds": round(self.seconds, 1),
                    "intervals": f"calibrated for {calibration.horizon} steps on "
                    f"{told['calibration_windows']} {windows}"
                    + (", and adaptive" if calibration.adaptive else ""),
                }
            },
        }

    def copy(self) -> "FittedState":
        """Copy what training changes; frozen tensors stay shared."""
        return copy.deepcopy(self)

    def to_state(self) -> dict[str, Any]:
        """Return everything but the backbone as plain values, arrays and tensors."""
        calibration = self.calibration  # None for a candidate of another forecaster
        rest = ["history", "best_epoch", "seconds", "stopped", "trained_on", "columns"]
        rest += ["stops_at_zero"]
        values = list(self.statistics.values())
        return {
            "model": dict(self.model.state_dict()),
            "shape": vars(self.shape),
            "calibration": None if calibration is None else calibration.to_state(),
            "covariates": None if self.covariates is None else self.covariates.to_state(),
            "shrinkage": None if self.shrinkage is None else self.shrinkage.to_state(),
            "described": list(self.statistics),
            "statistics": np.stack(values) if values else np.empty((0, 2, 0)),  # (series, 2, v)
            **{name: getattr(self, name) for name in rest},
        }

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        build: Callable[[ModelShape], nn.Module],
        backbone: Backbone | None,
        device: str,
        restore_encoder: Callable[[Mapping[str, Any]], TextEncoder] | None = None,
    ) -> "FittedState":
        """Build a trained state from the output of `to_state`.

        ``build`` makes the untrained model of a shape; ``device`` is the one that was asked for;
        ``restore_encoder`` builds the encoder of texts from its own state.
        """
        read = dict(state)
        shape = read_fields(ModelShape, read.pop("shape"))
        shape.check()
        model = build_model(lambda: build(shape), read.pop("model"), backbone)
        covariates, calibration = read.pop("covariates"), read.pop("calibration")
        shrinkage = read.pop("shrinkage")
        statistics = zip(read.pop("described"), read["statistics"], strict=True)
        fields = {
            **read,
            "statistics": dict(statistics),
            "calibration": None if calibration is None else Calibration.from_state(calibration),
            "covariates": None
            if covariates is None
            else Covariates.from_state(covariates, restore_encoder),
            "shrinkage": None
            if shrinkage is None
            else Combination.from_state(shrinkage, len(SHRUNK), shape.n_variables),
        }
        check_fields(cls, fields)
        scores = fields["calibration"]
        if scores is not None and scores.pooled.errors.shape[2] != shape.n_variables:
            raise ModelFormatError(
                f"the saved model has {shape.n_variables} variable(s) and scores of "
                f"{scores.pooled.errors.shape[2]}"
            )
        floors = fields.get("stops_at_zero")
        if floors is not None and np.shape(floors) != (shape.n_variables,):
            raise ModelFormatError(
                f"the saved model has {shape.n_variables} variable(s), and floors of the shape "
                f"{np.shape(floors)}: save it again"
            )
        return cls(model, backbone, shape, device, **fields)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # Tensors are pickled on the CPU, so that a model of a GPU loads where there is none.
        if any(p.device.type != "cpu" for p in self.model.parameters()):
            state["model"] = copy.deepcopy(self.model).cpu()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.model.to(self.device)


@dataclass
class PendingForecasts:
    """Forecasts of one series that wait for their observations, for adaptive intervals.

    At most ``horizon`` forecasts are kept, one an update, so the memory is constant.
    """

    series_id: Hashable
    horizon: int
    seen: int = 0
    #: Steps seen before it, the forecast, its scale, and the offsets it was issued with.
    waiting: deque[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=deque)

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        origins, *arrays = zip(*self.waiting)
        forecasts, scales, issued = map(np.stack, arrays)
        waiting = {"origins": origins, "forecasts": forecasts, "scales": scales, "issued": issued}
        return vars(self) | {"waiting": waiting}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "PendingForecasts":
        """Build the forecasts from the output of `to_state`."""
        waiting = (state["waiting"][name] for name in ("origins", "forecasts", "scales", "issued"))
        return cls(**{**state, "waiting": deque(zip(*waiting))})

    def add(self, forecast: np.ndarray, scale: np.ndarray, issued: np.ndarray) -> None:
        """Add a forecast that was made after the last step seen.

        ``forecast`` is (horizon, variables, 1 + levels), ``scale`` (variables,). ``issued`` (grid,
        horizon, variables) are the calibration's offsets at its tracked levels.
        """
        self.waiting.append((self.seen, forecast, scale, issued.astype(np.float32)))
        while len(self.waiting) > self.horizon:
            self.waiting.popleft()

    def add_text_effects(self, state: FittedState, residual: Context, fresh: int) -> None:
        """Add the effects of texts on the last ``fresh`` steps of a residual, now that it has them.

        A step whose origin lies before the residual is not scored.
        """
        if state.covariates is None or state.covariates.texts is None:
            return
        end = len(residual) - fresh
        for origin, forecast, *_ in self.waiting:
            age = self.seen - origin
            steps = slice(age, age + fresh)
            if age < end:
                past = residual.until(end - age)
                known = state.known_ahead(residual, end - age, self.horizon)
                effect = state.covariates.text_effects([past], [known], self.horizon)[0]
                forecast[steps] += effect[steps, :, None]
            else:
                forecast[steps] = np.nan

    def score(self, observed: np.ndarray, calibration: Calibration) -> None:
        """Compare new observations (steps, variables) with every forecast that reached them."""
        scores = calibration.scores_of(self.series_id)
        for row in observed:
            _, forecast, _, issued = self.waiting[-1]
            errors = np.full(forecast.shape, np.nan)  # (horizon, variables, 1 + levels)
            bounds = np.full(issued.shape, np.nan)  # (grid, horizon, variables)
            for origin, forecast, scale, issued in self.waiting:
                step = self.seen - origin
                if step < self.horizon:
                    # An error of a context that is constant but for rounding tells nothing.
                    clear = ~within_rounding(scale, forecast[0, :, 0])  # (variables,)
                    divisor = np.where(clear, scale, np.nan)[:, None]
                    errors[step] = (row[:, None] - forecast[step]) / divisor
                    bounds[:, step] = issued[:, step]
            scores.append(errors, bounds, calibration.levels)
            self.seen += 1
