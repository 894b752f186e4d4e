"""The methods of a backtest: their interface, and how a name or a forecaster becomes one."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster

from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.evaluation.boosting import LightGBMMethod
from tsllm.evaluation.external import PACKAGES, FlairMethod, FracastMethod
from tsllm.evaluation.holdout import Holdout
from tsllm.evaluation.statistical import (
    AutoETSMethod,
    LocalBaseline,
    SeasonalNaive,
    SktimeMethod,
)
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.baselines import DLinearForecaster, PatchTSTForecaster
from tsllm.forecasters.frames import join_covariates
from tsllm.forecasters.linear import LinearForecaster
from tsllm.forecasters.statistical import MODELS
from tsllm.forecasters.zero_shot import ZeroShotForecaster
from tsllm.training.callbacks import Callback, training_callbacks
from tsllm.training.settings import TrainingState

#: The baselines that can be asked for by name; those of `PACKAGES` need the extra ``baselines``.
BASELINES = (
    *("seasonal_naive", "auto_ets", "theta", "auto_theta"),
    *("zero_shot", "linear", "dlinear", "patchtst"),
    *PACKAGES,
)
DEFAULT_BASELINES = ("seasonal_naive", "auto_ets", "theta", "dlinear", "patchtst")


class Method(Protocol):
    """A method in a backtest."""

    #: True where every window costs a fit, or as much as one, so that windows must be few.
    refits_per_window: bool
    #: Windows that such a method forecasts before its time is looked at.
    windows_at_once: int
    #: True where a seed changes the result.
    takes_seed: bool

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit on the steps of each series before ``ends``, (series,)."""

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast windows: (windows, horizon, variables, 1 + levels), or only the points."""

    def describe(self) -> dict[str, Any]:
        """Return ``context_length`` and ``backbone`` for the table.

        ``pretrained_on`` names other series that the method has learnt from, and ``notes`` are
        sentences for the report.
        """


def make_method(
    method: str | Any,
    holdout: Holdout,
    *,
    longest: int,
    max_history: int | None,
    time_limit: float | None = None,
) -> Method:
    """Make a method from a baseline's name, a tsllm forecaster or another sktime forecaster.

    ``time_limit`` are the seconds that the training of a baseline may take.
    """
    if isinstance(method, str):
        if method not in BASELINES:
            raise DataError(f"baselines must be among {', '.join(BASELINES)}, found {method!r}")
        if method == "seasonal_naive":
            return SeasonalNaive(holdout)
        if method == "auto_ets":
            return AutoETSMethod(holdout, max_history)
        if method in MODELS:
            return LocalBaseline(method, holdout, max_history)
        if method in _OF_PACKAGES:
            return _OF_PACKAGES[method](holdout)
        baseline = _TRAINED[method](random_state=0)
        return GlobalMethod(baseline, holdout, longest, name=method, time_limit=time_limit)
    if isinstance(method, WithoutX):
        return GlobalMethod(method.estimator, holdout, longest)
    if isinstance(method, SeriesForecaster):
        return GlobalMethod(method, holdout, longest, X=holdout.X)
    if isinstance(method, BaseForecaster):
        return SktimeMethod(method, holdout, max_history)
    raise DataError(
        f"estimators must be tsllm or sktime forecasters, found {type(method).__name__}: "
        "pass instances, by name in a dict"
    )


#: The baselines that are forecasters of ours, by name.
_TRAINED: dict[str, Any] = {
    "zero_shot": ZeroShotForecaster,
    "linear": LinearForecaster,
    "dlinear": DLinearForecaster,
    "patchtst": PatchTSTForecaster,
}

#: The baselines of other packages, by name.
_OF_PACKAGES: dict[str, Callable[[Holdout], Method]] = {
    "flair": FlairMethod,
    "fracast": FracastMethod,
    "lightgbm": LightGBMMethod,
}

#: The baselines that are no forecasters of ours.
NAMED = (SeasonalNaive, LocalBaseline, FlairMethod, FracastMethod, LightGBMMethod)


class WithoutX:
    """A tsllm forecaster that does not get the covariates."""

    def __init__(self, estimator: SeriesForecaster) -> None:
        names = ("past_covariates", "static_attributes", "static_text", "text_covariates")
        none: dict[str, Any] = {name: () for name in names if name in estimator.get_params()}
        self.estimator = estimator.clone().set_params(**none)


def with_controls(estimators: Mapping[str, Any], X: pd.DataFrame | None) -> dict[str, Any]:
    """Add, for every estimator with covariates or in-context series, the same one without."""
    out: dict[str, Any] = {}
    for name, estimator in estimators.items():
        out[name] = estimator
        if X is not None and isinstance(estimator, SeriesForecaster):
            out[f"{name}, no X"] = WithoutX(estimator)
        if getattr(estimator, "in_context", None) is not None:
            out[f"{name}, no prompt"] = estimator.clone().set_params(in_context=None)
    return out


class GlobalMethod:
    """A tsllm forecaster: fitted once on all series, it forecasts windows in batches."""

    refits_per_window = False
    windows_at_once = 1

    def __init__(
        self,
        estimator: SeriesForecaster,
        holdout: Holdout,
        longest: int,
        *,
        X: pd.DataFrame | None = None,
        name: str = "",
        time_limit: float | None = None,
    ) -> None:
        self._name, self._time_limit = name, time_limit
        self._notes: list[str] = []
        self.takes_seed = "random_state" in estimator.get_params()
        self._template = estimator
        self._holdout = holdout
        self._longest = longest
        self._X = X
        self._contexts = holdout.contexts
        self._fitted: Any = None

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit a clone; the holdout's validation part becomes its validation part."""
        self._fitted = self._fit_clone(self._holdout.before(ends), seed, {})

    def expected_seconds(self, ends: np.ndarray, seed: int | None) -> float | None:
        """Estimate the longest time of the training from its first steps; None without one."""
        if "max_steps" not in self._template.get_params():
            return None
        watch = _FirstSteps()
        with warnings.catch_warnings(), training_callbacks(watch):
            warnings.simplefilter("ignore")  # `fit` warns again
            with suppress(_Measured):
                self._fit_clone(self._holdout.before(ends), seed, {})
        if watch.seconds is None or self._time_limit is None:
            return watch.seconds
        return min(watch.seconds, self._time_limit)

    def _fit_clone(
        self, y: pd.DataFrame, seed: int | None, parameters: Mapping[str, Any]
    ) -> SeriesForecaster:
        """Fit a clone with other parameters."""
        estimator = self._template.clone()
        known = estimator.get_params()
        params = dict(parameters)
        if "checkpoint_dir" in known:
            params["checkpoint_dir"] = None  # a directory belongs to one of many fits
        held = self._holdout
        if "validation_fraction" in known and (held.train_ends < held.borders).any():
            # One fraction for all series: that of the median series where lengths differ.
            params["validation_fraction"] = float(np.median(1 - held.train_ends / held.borders))
        if seed is not None:
            params["random_state"] = seed
        if params:
            estimator.set_params(**params)
        steps = list(range(1, self._longest + 1))
        limit = _TimeLimit(self._time_limit)
        with training_callbacks(limit):
            fitted: SeriesForecaster = estimator.fit(y, X=self._X, fh=steps)
        self._notes += limit.notes(self._name)
        covariates = fitted.fitted_.covariates
        self._contexts = join_covariates(held.contexts, self._X, covariates)
        return fitted

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast from all steps before each origin."""
        out: np.ndarray = self._fitted.forecast(
            self.contexts(series, origins),
            horizon,
            quantiles=tuple(levels),
            future_x=self.known_future(series, origins, horizon),
        )
        return out

    def contexts(self, series: np.ndarray, origins: np.ndarray) -> list[Context]:
        """Return the steps before each origin, with their covariates."""
        return [self._contexts[i].until(int(o)) for i, o in zip(series, origins)]

    def known_future(
        self, series: np.ndarray, origins: np.ndarray, horizon: int
    ) -> list[np.ndarray] | None:
        """Return the observed future of the covariates, except the past ones."""
        covariates = self._fitted.fitted_.covariates
        if covariates is None or not covariates.columns.known:
            return None
        known = covariates.columns.positions(covariates.columns.known)
        futures = []
        for i, origin in zip(series, origins):
            x = self._contexts[i].past_x
            assert x is not None  # joined in fit
            futures.append(x[origin : origin + horizon][:, known])
        return futures

    def describe(self) -> dict[str, Any]:
        """Return the context length, the backbone and the pretraining of the fitted model."""
        summary = self._fitted.summary()
        pretrained = isinstance(self._template, ZeroShotForecaster)
        return {
            "context_length": summary["context_length"],
            "backbone": summary["backbone"],
            "pretrained_on": "synthetic series" if pretrained else None,
            "notes": list(dict.fromkeys(self._notes)),
        }


class _Measured(Exception):  # noqa: N818 (no error)
    """Ends a training whose first steps were measured."""


class _FirstSteps(Callback):
    """Measures the first steps of a training, and ends it."""

    #: The first step warms up.
    _MOST_STEPS, _MOST_SECONDS = 4, 2.0

    def __init__(self) -> None:
        #: Of the whole training.
        self.seconds: float | None = None
        self._ends: list[float] = []

    def on_step_end(self, state: TrainingState) -> None:
        """Note the time, and end the training where enough is known."""
        self._ends.append(time.perf_counter())
        spent, steps = self._ends[-1] - self._ends[0], len(self._ends) - 1
        known = steps >= self._MOST_STEPS or (steps and spent > self._MOST_SECONDS)
        if known or state.step == state.planned_steps:
            self.seconds = spent / max(1, steps) * state.planned_steps
            raise _Measured


class _TimeLimit(Callback):
    """Ends a training whose time is over."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._started: float | None = None
        self._ended: tuple[int, int] | None = None  # the step, and those planned

    def on_step_begin(self, state: TrainingState) -> None:
        """Start the clock at the first step."""
        if self._started is None:
            self._started = time.perf_counter()

    def on_step_end(self, state: TrainingState) -> bool:
        """Stop where the time is over."""
        assert self._started is not None  # a step began
        if self._seconds is None or time.perf_counter() - self._started <= self._seconds:
            return False
        if state.step < state.planned_steps:
            self._ended = state.step, state.planned_steps
        return True

    def notes(self, name: str) -> list[str]:
        """Return a note about a training that was ended."""
        if self._ended is None:
            return []
        return [
            f"{name}: its time limit of {self._seconds:g} s ended the training at step "
            f"{self._ended[0]} of up to {self._ended[1]}: time_limit= (--time-limit) raises it"
        ]
