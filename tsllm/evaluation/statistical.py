"""The statistical methods of a backtest: the seasonal naive, and those fitted at each window."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster
from sktime.forecasting.ets import AutoETS
from sktime.forecasting.theta import ThetaForecaster
from sktime.transformations.detrend import ConditionalDeseasonalizer

from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout

#: Paths that AutoETS' quantiles are read off.
SIMULATED_PATHS = 500


class SeasonalNaive:
    """Every step repeats the last one observed in its phase of the season.

    Quantiles are normal around it, their variance growing by one seasonal step's each season
    (Hyndman and Athanasopoulos, "Forecasting: principles and practice", section 5.5).
    """

    refits_per_window = False
    takes_seed = False

    def __init__(self, holdout: Holdout) -> None:
        self._season = holdout.season
        # The value to repeat: the step's own, else that of an earlier season, else the last known.
        self._known = [_carried_forward(c.values, self._season) for c in holdout.contexts]
        self._values = [context.values for context in holdout.contexts]
        self._deviation: list[np.ndarray] = []

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Measure how far apart values one season apart lie."""
        self._deviation = [
            _naive_deviation(values[:end], self._season) for values, end in zip(self._values, ends)
        ]

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Look the last season up; where a series has no whole season yet, its last value."""
        ahead = np.arange(horizon)
        source = origins[:, None] - self._season + ahead % self._season  # (windows, horizon)
        source = np.where(source < 0, origins[:, None] - 1, source)
        point = np.stack([self._known[i][rows] for i, rows in zip(series, source)])
        deviation = np.stack([self._deviation[i] for i in series])
        deviation = deviation[:, None]  # (windows, 1, variables)
        deviation = deviation * np.sqrt(ahead // self._season + 1)[:, None]
        scores = np.array([0.0, *(NormalDist().inv_cdf(level) for level in levels)])
        return point[..., None] + deviation[..., None] * scores

    def describe(self) -> dict[str, Any]:
        """It reads one season."""
        return {"context_length": self._season, "backbone": None}


class SktimeMethod:
    """A plain sktime forecaster, fitted anew on the past of every window."""

    refits_per_window = True
    takes_seed = False

    def __init__(
        self, forecaster: BaseForecaster, holdout: Holdout, max_history: int | None
    ) -> None:
        self._forecaster = forecaster
        self._holdout = holdout
        self._max_history = max_history

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Nothing is kept from one window to the next."""

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Fit and forecast window by window."""
        columns = self._holdout.layout.columns
        out = []
        for i, origin in zip(series, origins):
            past = self._holdout.contexts[i].until(int(origin)).tail(self._max_history)
            y = pd.DataFrame(past.values, index=past.times, columns=columns)
            out.append(
                fit_and_forecast(
                    self._forecaster.clone(),
                    y if len(columns) > 1 else y[columns[0]],
                    horizon,
                    levels,
                )
            )
        return np.stack(out)

    def describe(self) -> dict[str, Any]:
        """It reads as much history as it is given."""
        return {"context_length": self._max_history, "backbone": None}


class LocalBaseline:
    """AutoETS, Theta and AutoTheta: a statistical model of each variable, fitted at each window.

    Gaps are interpolated, since these models read none; a past that never changes is forecast as
    its constant; a season is modelled where the past holds two of them. Where a fit fails, the
    seasonal naive forecast stands in for it, and the report's notes count how often.
    """

    refits_per_window = True
    takes_seed = False

    def __init__(self, name: str, holdout: Holdout, max_history: int | None) -> None:
        self._name = name
        self._holdout = holdout
        self._max_history = max_history
        self._stand_in = SeasonalNaive(holdout)
        self._fits = self._failures = 0

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Only the stand-in keeps something."""
        self._stand_in.fit(ends, seed)
        self._fits = self._failures = 0

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Fit and forecast window by window and variable by variable."""
        naive = self._stand_in.forecast(series, origins, horizon, levels)
        out = np.empty_like(naive)  # (windows, horizon, variables, 1 + levels)
        for row, (i, origin) in enumerate(zip(series, origins)):
            past = self._holdout.contexts[i].until(int(origin)).tail(self._max_history)
            for variable in range(past.n_variables):
                forecast = self._forecast_one(past, variable, horizon, levels)
                out[row, :, variable] = naive[row, :, variable] if forecast is None else forecast
        return out

    def describe(self) -> dict[str, Any]:
        """It reads as much history as it is given."""
        notes = []
        if self._failures:
            notes = [
                f"{self._name}: {self._failures} of {self._fits} fits failed; the seasonal naive "
                "forecast stands in for them"
            ]
        return {"context_length": self._max_history, "backbone": None, "notes": notes}

    def _forecast_one(
        self, past: Context, variable: int, horizon: int, levels: Sequence[float]
    ) -> np.ndarray | None:
        """Forecast one variable, (horizon, 1 + levels); None where the fit failed."""
        values = pd.Series(past.values[:, variable]).interpolate(limit_direction="both")
        if values.isna().any():
            raise DataError(
                f"{series_name(past.series_id)} has no observed value of variable {variable} "
                "before a test window: pass a longer history, or leave the variable out"
            )
        if values.nunique() == 1:
            return np.full((horizon, 1 + len(levels)), values.iloc[0])
        season = self._holdout.season
        # statsmodels' starting values need two seasons, and ten steps besides half a season's.
        seasonal = season > 1 and len(values) >= max(2 * season, 10 + 2 * (season // 2))
        self._fits += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sktime's defaults, and of each candidate's fit
            try:
                forecaster = LOCAL_BASELINES[self._name](values, season if seasonal else 1)
                out = fit_and_forecast(forecaster, values, horizon, levels)[:, 0]
            except (ValueError, np.linalg.LinAlgError):
                out = np.array(np.nan)
        if not np.isfinite(out).all():
            self._failures += 1
            return None
        return out


def fit_and_forecast(
    forecaster: BaseForecaster, y: pd.Series | pd.DataFrame, horizon: int, levels: Sequence[float]
) -> np.ndarray:
    """Fit an sktime forecaster and forecast: (horizon, variables, 1 + levels).

    Only the points, ``(horizon, variables, 1)``, where it forecasts no quantiles.
    """
    steps = list(range(1, horizon + 1))
    forecaster.fit(y, fh=steps)
    variables = 1 if isinstance(y, pd.Series) else y.shape[1]
    point = np.asarray(forecaster.predict(steps), dtype=float).reshape(horizon, variables, 1)
    if not levels or not forecaster.get_tag("capability:pred_int"):
        return point
    spread = forecaster.predict_quantiles(steps, alpha=list(levels)).to_numpy(dtype=float)
    return np.concatenate([point, spread.reshape(horizon, variables, len(levels))], axis=-1)


class _SimulatedAutoETS(AutoETS):
    """AutoETS whose quantiles are those of simulated paths.

    sktime 1.2 hands statsmodels 0.15 an argument that it refuses, wherever a model has no closed
    form: all but the additive ones.
    """

    def _predict_quantiles(self, fh: Any, X: Any, alpha: list[float]) -> pd.DataFrame:
        horizon = int(fh.to_relative(self.cutoff).to_numpy().max())
        paths = self._fitted_forecaster.simulate(
            horizon, anchor="end", repetitions=SIMULATED_PATHS, rng=0
        )  # (horizon, paths)
        frame = pd.DataFrame(np.quantile(np.asarray(paths), alpha, axis=1).T)
        frame.columns = self._get_columns(method="predict_quantiles", alpha=alpha)
        frame.index = fh.to_absolute_index(self.cutoff)
        return frame


def _auto_ets(values: pd.Series, season: int) -> BaseForecaster:
    """Automatic exponential smoothing, chosen by AIC."""
    return _SimulatedAutoETS(auto=True, sp=season)


def _theta(values: pd.Series, season: int) -> BaseForecaster:
    """The M4 benchmark: seasonally adjusted where a test finds a season, by ratios if it can."""
    if season == 1:
        return ThetaForecaster(deseasonalize=False)
    model = "multiplicative" if values.min() > 0 else "additive"
    return ThetaForecaster(deseasonalize=ConditionalDeseasonalizer(sp=season, model=model))


def _auto_theta(values: pd.Series, season: int) -> BaseForecaster:
    """The best of four Theta models, from statsforecast."""
    from sktime.forecasting.statsforecast import StatsForecastAutoTheta

    decomposition = "multiplicative" if values.min() > 0 else "additive"
    return StatsForecastAutoTheta(season_length=season, decomposition_type=decomposition)


#: A forecaster of a variable's values and its season, for each of the names of `LocalBaseline`.
LOCAL_BASELINES: dict[str, Callable[[pd.Series, int], BaseForecaster]] = {
    "auto_ets": _auto_ets,
    "theta": _theta,
    "auto_theta": _auto_theta,
}


def _carried_forward(values: np.ndarray, season: int) -> np.ndarray:
    """Fill gaps with the value a season earlier, else with the last value: (time, variables)."""
    frame = pd.DataFrame(values)
    by_phase = frame.groupby(np.arange(len(frame)) % season).ffill()
    return by_phase.ffill().to_numpy()


def _naive_deviation(values: np.ndarray, season: int) -> np.ndarray:
    """Give the root mean square of seasonal differences, else of steps, else 0: (variables,)."""
    deviation = np.zeros(values.shape[1])
    for lag in (1, season):
        squares = (values[lag:] - values[:-lag]) ** 2
        count = (~np.isnan(squares)).sum(axis=0)
        mean = np.nansum(squares, axis=0) / np.maximum(count, 1)
        deviation = np.where(count > 0, np.sqrt(mean), deviation)
    return deviation
