"""What a fitted forecaster keeps: the trained model, its shape, its calibration, its history."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tsllm.backbone import Backbone, resolve_device
from tsllm.context import Context
from tsllm.covariates import Covariates
from tsllm.intervals import Calibration
from tsllm.saving.damage import load_weights


@dataclass(frozen=True)
class ModelShape:
    """The sizes that a model is built for.

    Attributes
    ----------
    context_length : int
        Steps of history that a forecast reads.
    horizon : int
        Steps that the intervals are calibrated for; the default horizon.
    n_variables : int
        Variables of each series.
    freq : str or None
        Frequency of the series; None for integer steps.
    extra : dict
        Further sizes of the method, as JSON values (for AutoTimes the token length).
    """

    context_length: int
    horizon: int
    n_variables: int
    freq: str | None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class FittedState:
    """A trained model and what is needed to forecast with it.

    A copy or pickle holds the trained tensors and never the frozen backbone's: the backbone is a
    handle that finds its weights again.

    Attributes
    ----------
    model : nn.Module
        The trained model, in evaluation mode.
    backbone : Backbone or None
        The language model that it was built with.
    shape : ModelShape
        The sizes that it was built for.
    requested_device : str
        Where it runs when there is no language model; else it runs where that is.
    calibration : Calibration or None
        Of its intervals; None before the first training.
    covariates : Covariates or None
        What was learnt of X; None where there was none.
    statistics : dict of series id to array (2, variables)
        Mean and deviation of the series trained on, for methods that read them.
    history : list of dict
        One entry an epoch, over all trainings.
    best_epoch, stopped
        Of the latest training: the epoch whose weights were kept, and what ended it.
    seconds : float
        Wall time of all trainings.
    trained_on : list of dict
        One entry a training: the number of series and steps, the first and last stamp, as text.
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

    def to_state(self) -> dict[str, Any]:
        """Return everything but the backbone as plain values, arrays and tensors."""
        assert self.calibration is not None  # training ends with it
        rest = ("history", "best_epoch", "seconds", "stopped", "trained_on")
        values = list(self.statistics.values())
        return {
            "model": dict(self.model.state_dict()),
            "shape": vars(self.shape),
            "calibration": self.calibration.to_state(),
            "covariates": None if self.covariates is None else self.covariates.to_state(),
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
    ) -> FittedState:
        """Build a trained state from the output of `to_state`.

        Parameters
        ----------
        state : mapping
            The output of `to_state`.
        build : callable
            Builds the untrained model of a shape.
        backbone : Backbone or None
            The language model that the model was trained with.
        device : str
            The device that was asked for.
        """
        read = dict(state)
        shape = ModelShape(**read.pop("shape"))
        model = build(shape)
        load_weights(model, read.pop("model"))
        covariates = read.pop("covariates")
        statistics = zip(read.pop("described"), read["statistics"], strict=True)
        return cls(
            model.eval(),
            backbone,
            shape,
            device,
            Calibration.from_state(read.pop("calibration")),
            None if covariates is None else Covariates.from_state(covariates),
            **{**read, "statistics": dict(statistics)},
        )

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        if self.backbone is not None:
            return self.backbone.device
        return resolve_device(self.requested_device)

    def scaled(self, contexts: Sequence[Context]) -> list[Context]:
        """Give contexts the scale of the covariates' effects on them, before they are cut."""
        if self.covariates is None:
            return list(contexts)
        return [self.covariates.scaled(context) for context in contexts]

    def residuals(self, contexts: Sequence[Context]) -> list[Context]:
        """Take off what the covariates explain: the model reads and forecasts the rest."""
        if self.covariates is None:
            return list(contexts)
        return [self.covariates.residual(context) for context in contexts]

    def with_lagged_effects(self, values: np.ndarray, residuals: Sequence[Context]) -> np.ndarray:
        """Add what past covariates say of the next steps to forecasts of residuals.

        ``values`` are (series, horizon, variables, 1 + levels), before and after.
        """
        if self.covariates is None or self.covariates.past is None:
            return values
        return values + self.covariates.lagged_effects(residuals, values.shape[1])[..., None]

    def with_future_effects(
        self,
        values: np.ndarray,
        contexts: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Add the effects of known-future covariates to forecasts of residuals."""
        if self.covariates is None:
            return values
        effects = [
            self.covariates.future_effect(context, None if futures is None else futures[row])
            for row, context in enumerate(contexts)
        ]
        if self.covariates.known is None:
            return values
        return values + np.stack(effects)[..., None]

    def copy(self) -> FittedState:
        """Copy everything that training changes; frozen tensors stay shared."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # Tensors leave on the CPU, so that a model fitted on a GPU opens where there is none.
        if any(p.device.type != "cpu" for p in self.model.parameters()):
            state["model"] = copy.deepcopy(self.model).cpu()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.model.to(self.device)
