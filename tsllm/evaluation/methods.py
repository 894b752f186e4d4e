"""The methods of a backtest: their interface, and how a name or a forecaster becomes one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster

from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.evaluation.boosting import LightGBMMethod
from tsllm.evaluation.external import PACKAGES, FlairMethod, FracastMethod
from tsllm.evaluation.holdout import Holdout
from tsllm.evaluation.statistical import LocalBaseline, SeasonalNaive, SktimeMethod
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.baselines import DLinearForecaster, PatchTSTForecaster
from tsllm.forecasters.frames import join_covariates
from tsllm.forecasters.linear import LinearForecaster
from tsllm.forecasters.statistical import MODELS

#: The baselines that can be asked for by name; those of `PACKAGES` need the extra ``baselines``.
BASELINES = (
    *("seasonal_naive", "auto_ets", "theta", "auto_theta", "linear", "dlinear", "patchtst"),
    *PACKAGES,
)
DEFAULT_BASELINES = ("seasonal_naive", "auto_ets", "theta", "dlinear", "patchtst")


class Method(Protocol):
    """A method in a backtest."""

    #: True where every window costs a fit, or as much as one, so that windows must be few.
    refits_per_window: bool
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
    method: str | Any, holdout: Holdout, *, longest: int, max_history: int | None
) -> Method:
    """Make a method from a baseline's name, a tsllm forecaster or another sktime forecaster."""
    if isinstance(method, str):
        if method not in BASELINES:
            raise DataError(f"baselines must be among {', '.join(BASELINES)}, found {method!r}")
        if method == "seasonal_naive":
            return SeasonalNaive(holdout)
        if method in MODELS:
            return LocalBaseline(method, holdout, max_history)
        if method in _OF_PACKAGES:
            return _OF_PACKAGES[method](holdout)
        return GlobalMethod(_TRAINED[method](random_state=0), holdout, longest)
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

    def __init__(
        self,
        estimator: SeriesForecaster,
        holdout: Holdout,
        longest: int,
        *,
        X: pd.DataFrame | None = None,
    ) -> None:
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
        fitted: SeriesForecaster = estimator.fit(y, X=self._X, fh=steps)
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
        """Return the context length and the backbone of the fitted model."""
        summary = self._fitted.summary()
        return {"context_length": summary["context_length"], "backbone": summary["backbone"]}
