"""Candidates: methods that are fitted once and forecast any context.

`AutoForecaster` combines several, and `TextContext` adds to one what it cannot read. A candidate
forecasts points. Its intervals do not count: those of the whole forecast are calibrated.
"""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster

from tsllm.backbone import Backbone
from tsllm.backbone.stopping import check_time
from tsllm.context import Context
from tsllm.covariates import CovariateColumns
from tsllm.datasets.checks import series_name
from tsllm.datasets.frequency import season_length, set_frequency
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.frames import frequency_of, stamps_after
from tsllm.forecasters.state import FittedState
from tsllm.forecasters.statistical import (
    MODELS,
    choose_ets_form,
    fit_and_forecast,
    seasonal_naive,
)

#: The statistical candidates by name.
STATISTICAL = ("seasonal_naive", *MODELS)
#: Steps of history that statistical candidates read: some seasons, within bounds.
HISTORY_SEASONS = 8
HISTORY_BOUNDS = (500, 2000)


class Candidate(ABC):
    """A method that a forecaster combines with others, or adds to."""

    #: Whether a candidate of this kind is fitted to all series, or to each context anew.
    learns: ClassVar[bool] = False

    def __init__(self, name: str, columns: CovariateColumns | None = None) -> None:
        self.name = name
        #: The covariates that it reads itself: columns of numbers, whose future is known.
        self.columns = columns
        #: Whether a frozen language model does a part of the work.
        self.uses_language_model = False
        #: Seconds that fitting took, and the forecasts of the held-out windows.
        self.seconds = 0.0

    @abstractmethod
    def fit(self, contexts: Sequence[Context], horizon: int) -> None:
        """Fit on series; none of their steps is in a held-out window."""

    @abstractmethod
    def forecast(
        self,
        contexts: Sequence[Context],
        horizon: int,
        futures: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Forecast each context: (contexts, horizon, variables).

        A candidate with ``columns`` finds them in ``past_x`` of the contexts and in ``futures``,
        one array (horizon, columns) a context. Others read neither.
        """

    @abstractmethod
    def estimate_seconds(self, contexts: Sequence[Context], horizon: int, windows: int) -> float:
        """Estimate the seconds of `fit` and of forecasting some windows, on a small part."""

    @abstractmethod
    def steps_to_keep(self) -> int:
        """Return the steps of history that a forecast reads."""

    @property
    def trained_parameters(self) -> int:
        """Return the number of trained parameters: 0 for a method without training."""
        return 0

    def load_backbone(self) -> Backbone | None:
        """Load the language model; None for a method without one."""
        return None

    def can_read(self, context: Context) -> bool:
        """Return whether the steps that a forecast reads have values of every variable."""
        return bool(context.tail(self.steps_to_keep()).mask.any(axis=0).all())

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Return what `fit` learnt, as plain values, arrays and tensors."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the output of `to_state`."""


class StatisticalCandidate(Candidate):
    """The seasonal naive, AutoETS, Theta or AutoTheta: fitted to each context anew.

    Gaps are interpolated. Where a model cannot be fitted, the seasonal naive forecast replaces it.
    AutoETS chooses its form once for each series of the fit, since a model of a known form is
    fitted in a tenth of the time. For other series it chooses the form anew.
    """

    def __init__(self, name: str, freq: str | None) -> None:
        super().__init__(name)
        self._season = season_length(freq)
        self._forms: dict[tuple[Hashable, int], str] = {}

    def fit(self, contexts: Sequence[Context], horizon: int) -> None:
        """Choose the form of each series, for AutoETS."""
        if self.name != "auto_ets":
            return
        for context in contexts:
            for variable in range(context.n_variables):
                values = context.tail(self.steps_to_keep()).values[:, variable]
                form = choose_ets_form(values, self._season, self.steps_to_keep())
                if form is not None:
                    self._forms[context.series_id, variable] = form

    def forecast(
        self,
        contexts: Sequence[Context],
        horizon: int,
        futures: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Fit and forecast each variable of each context; warn of fits that failed."""
        out = []
        failed: list[str] = []
        for context in contexts:
            check_time()
            forecast, all_fitted = self._forecast_one(context, horizon)
            out.append(forecast)
            if not all_fitted:
                failed.append(series_name(context.series_id))
        if failed:
            others = f" and {len(failed) - 1} other forecasts" if len(failed) > 1 else ""
            warnings.warn(
                f"{self.name} cannot be fitted to {failed[0]}{others}: the seasonal naive forecast "
                "replaces it",
                stacklevel=2,
            )
        return np.stack(out)

    def estimate_seconds(self, contexts: Sequence[Context], horizon: int, windows: int) -> float:
        """Compute them from the time of the first series: each is fitted, each window forecast."""
        started = time.perf_counter()
        self.forecast(contexts[:1], horizon)  # the first call imports the library
        imported = time.perf_counter()
        self.forecast([replace(contexts[0], series_id=None)], horizon)
        seconds = time.perf_counter() - imported
        fits = len(contexts) if self.name == "auto_ets" else 0
        return imported - started + seconds * (fits + windows)

    def steps_to_keep(self) -> int:
        """Return some seasons of history, within bounds."""
        return _history_of(self._season)

    def to_state(self) -> dict[str, Any]:
        """Return the forms."""
        return {
            "ids": [series_id for series_id, _ in self._forms],
            "variables": [variable for _, variable in self._forms],
            "forms": list(self._forms.values()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the forms."""
        keys = zip(state["ids"], state["variables"])
        self._forms = dict(zip(keys, state["forms"], strict=True))

    def _forecast_one(self, context: Context, horizon: int) -> tuple[np.ndarray, bool]:
        """Forecast one context, (horizon, variables), and return whether every fit succeeded."""
        values = context.tail(self.steps_to_keep()).values
        out = _observed(seasonal_naive(values, horizon, self._season), context)
        if self.name == "seasonal_naive":
            return out, True
        all_fitted = True
        for variable in range(context.n_variables):
            own = values[:, variable]
            form = self._forms.get((context.series_id, variable))
            found = fit_and_forecast(self.name, own, horizon, self._season, form=form)
            if found is None:
                all_fitted = False
            else:
                out[:, variable] = found[:, 0]
        return out, all_fitted


class TrainedCandidate(Candidate):
    """A forecaster of tsllm, trained once on all series."""

    learns = True

    def __init__(
        self, name: str, forecaster: SeriesForecaster, columns: CovariateColumns | None = None
    ) -> None:
        super().__init__(name, columns)
        self._forecaster = forecaster
        self.uses_language_model = getattr(forecaster, "backbone", None) is not None
        self.state: FittedState | None = None

    def fit(self, contexts: Sequence[Context], horizon: int) -> None:
        """Train a new model, or train the one of an earlier fit further."""
        with warnings.catch_warnings():
            # The forecaster around this one warns of constant series.
            warnings.filterwarnings("ignore", message=".* never changes?:")
            if self.state is None:
                self.state = self._forecaster._train_new(
                    contexts, self.columns, horizon, calibrate=False
                )
            else:
                epochs = self._forecaster.max_epochs
                self._forecaster._train(self.state, contexts, epochs, recalibrate=False)
        self._forecaster.fitted_ = self.state

    def forecast(
        self,
        contexts: Sequence[Context],
        horizon: int,
        futures: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Forecast the contexts in batches."""
        assert self.state is not None  # fitted or restored
        if self.columns is None:
            contexts = [replace(context, past_x=None, static=None) for context in contexts]
        reader = self._forecaster._reader(self.state)
        points: np.ndarray = self._forecaster._forecast(reader, contexts, horizon, (), futures)
        return points[..., 0]

    def estimate_seconds(self, contexts: Sequence[Context], horizon: int, windows: int) -> float:
        """Compute them from the time of a few training steps, or of a whole closed form."""
        if "max_steps" not in self._forecaster.get_param_names():
            started = time.perf_counter()
            TrainedCandidate(self.name, self._forecaster.clone()).fit(contexts, horizon)
            return time.perf_counter() - started
        seconds = []
        for steps in (1, 4):
            trial = self._forecaster.clone().set_params(max_steps=steps, checkpoint_dir=None)
            started = time.perf_counter()
            TrainedCandidate(self.name, trial).fit(contexts, horizon)
            seconds.append(time.perf_counter() - started)
        most = self._forecaster.max_steps or self._forecaster._auto_steps
        return seconds[0] + max(0.0, seconds[1] - seconds[0]) / 3 * most

    @property
    def trained_parameters(self) -> int:
        """Return the number of parameters of the trained model; 0 before the fit."""
        if self.state is None:
            return 0
        return sum(p.numel() for p in self.state.model.parameters() if p.requires_grad)

    def load_backbone(self) -> Backbone | None:
        """Load the language model; None for a forecaster without one."""
        return self._forecaster._load_backbone()

    def steps_to_keep(self) -> int:
        """Return the model's context length."""
        assert self.state is not None  # fitted or restored
        return self._forecaster._steps_to_keep(self.state) or self.state.shape.context_length

    def to_state(self) -> dict[str, Any]:
        """Return the trained state."""
        assert self.state is not None  # fitted
        return self.state.to_state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Build the trained model again."""
        self.state = self._forecaster._restore_state(state, self.load_backbone())
        self._forecaster.fitted_ = self.state


class SktimeCandidate(Candidate):
    """An sktime forecaster, fitted to each context anew.

    Steps that are missing at the end are forecast, too. Gaps inside are filled along straight lines
    where the forecaster takes none. ``title`` and ``remedy`` are the forecaster's name and what to
    do, in error messages.
    """

    def __init__(
        self,
        name: str,
        forecaster: BaseForecaster,
        freq: str | None,
        columns: CovariateColumns | None = None,
        *,
        title: str | None = None,
        remedy: str = "leave it out of candidates",
    ) -> None:
        super().__init__(name, columns)
        self._forecaster = forecaster
        self._season = season_length(freq)
        self._title = f"candidate {name!r}" if title is None else title
        self._remedy = remedy

    def fit(self, contexts: Sequence[Context], horizon: int) -> None:
        """Keep nothing: the forecaster is fitted to each context."""

    def forecast(
        self,
        contexts: Sequence[Context],
        horizon: int,
        futures: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Fit a clone to each context and forecast it."""
        out = []
        for number, context in enumerate(contexts):
            check_time()
            future = None if futures is None else futures[number]
            try:
                found = self._forecast_one(context, horizon, future)
            except Exception as error:
                said = " ".join(str(error).split())
                raise DataError(
                    f"{self._title} cannot forecast {series_name(context.series_id)} "
                    f"({type(error).__name__}: {said}): {self._remedy}"
                ) from error
            if not np.isfinite(found).all():
                raise DataError(
                    f"{self._title} forecasts {series_name(context.series_id)} with a "
                    f"value that is no finite number: {self._remedy}"
                )
            out.append(found)
        return np.stack(out)

    def _forecast_one(
        self, context: Context, horizon: int, future: np.ndarray | None
    ) -> np.ndarray:
        """Fit a clone to one context and forecast it: (horizon, variables)."""
        whole = context.tail(self.steps_to_keep())
        seen = np.flatnonzero(whole.mask.any(axis=1))
        missing = len(whole) - 1 - int(seen[-1]) if len(seen) else 0
        past = whole.until(len(whole) - missing)  # few forecasters take missing values at the end
        frame = pd.DataFrame(past.values, index=past.times)
        if not past.mask.all() and not self._forecaster.get_tag("capability:missing_values"):
            frame = frame.interpolate(limit_direction="both")
        steps = list(range(1, missing + horizon + 1))
        X = ahead = None
        if self.columns is not None:
            assert whole.past_x is not None and future is not None  # the caller passes them
            known = np.concatenate([whole.past_x, future]).astype(float)  # (steps, columns)
            times = whole.times.append(stamps_after(whole, horizon))
            if isinstance(whole.times, pd.DatetimeIndex) and whole.times.freq is not None:
                times = set_frequency(pd.DatetimeIndex(times), whole.times.freq)
            rows = pd.DataFrame(known, index=times, columns=list(self.columns.names))
            X, ahead = rows.iloc[: len(past)], rows.iloc[len(past) :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # sktime announces defaults
            fitted = self._forecaster.clone().fit(
                frame if frame.shape[1] > 1 else frame[0], X=X, fh=steps
            )
        found = np.asarray(fitted.predict(X=ahead), dtype=float)
        return found.reshape(-1, context.n_variables)[missing:]

    def estimate_seconds(self, contexts: Sequence[Context], horizon: int, windows: int) -> float:
        """Compute them from the time of the first series."""
        started = time.perf_counter()
        self.forecast(contexts[:1], horizon)
        return (time.perf_counter() - started) * windows

    def steps_to_keep(self) -> int:
        """Return some seasons of history, within bounds."""
        return _history_of(self._season)

    def to_state(self) -> dict[str, Any]:
        """Return nothing: `fit` keeps nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore nothing."""


def longest_history(contexts: Sequence[Context]) -> int:
    """Return the steps of history that statistical candidates read of series like these."""
    return _history_of(season_length(frequency_of(contexts)))


def _history_of(season: int) -> int:
    """Return the steps of some seasons, within bounds."""
    return int(np.clip(HISTORY_SEASONS * season, *HISTORY_BOUNDS))


def _observed(forecast: np.ndarray, context: Context) -> np.ndarray:
    """Check that every variable of a context has an observed value to forecast from."""
    missing = np.flatnonzero(np.isnan(forecast).any(axis=0))
    if len(missing):
        raise NotEnoughDataError(
            f"{series_name(context.series_id)} has no observed value"
            f"{context.in_column(int(missing[0]))} in the history that a forecast reads: drop it, "
            "or pass more of its history"
        )
    return forecast
