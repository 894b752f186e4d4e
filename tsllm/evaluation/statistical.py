"""The statistical methods of a backtest: the seasonal naive, and those fitted at each window."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster

from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout
from tsllm.forecasters.statistical import carried_forward, choose_ets_form, fit_and_forecast


class SeasonalNaive:
    """Repeat the last value observed in the same phase of the season.

    Quantiles are normal around it. Their variance grows by that of one seasonal difference per
    season.

    References
    ----------
    R. Hyndman and G. Athanasopoulos, "Forecasting: Principles and Practice", section 5.5.
    """

    refits_per_window = False
    windows_at_once = 1
    takes_seed = False

    def __init__(self, holdout: Holdout) -> None:
        self._season = holdout.season
        # The value to repeat, from the nearest earlier season that has one, else the last value.
        self._known = [carried_forward(c.values, self._season) for c in holdout.contexts]
        self._values = [context.values for context in holdout.contexts]
        self._deviation: list[np.ndarray] = []

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Measure the deviation of seasonal differences."""
        self._deviation = [
            _naive_deviation(values[:end], self._season) for values, end in zip(self._values, ends)
        ]

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Repeat the last season, or the last value where the series has no whole season yet."""
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
        """Return the season as context length."""
        return {"context_length": self._season, "backbone": None}


class SktimeMethod:
    """An sktime forecaster that is fitted at every window."""

    refits_per_window = True
    windows_at_once = 1
    takes_seed = False

    def __init__(
        self, forecaster: BaseForecaster, holdout: Holdout, max_history: int | None
    ) -> None:
        self._forecaster = forecaster
        self._holdout = holdout
        self._max_history = max_history

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Keep nothing: the forecaster is fitted at each window."""

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
                fit_sktime(
                    self._forecaster.clone(),
                    y if len(columns) > 1 else y[columns[0]],
                    horizon,
                    levels,
                )
            )
        return np.stack(out)

    def describe(self) -> dict[str, Any]:
        """Return the history length."""
        return {"context_length": self._max_history, "backbone": None}


class LocalBaseline:
    """AutoETS, Theta or AutoTheta of statsforecast: a model per variable, fitted at each window.

    Gaps are interpolated, and a past that never changes is forecast by its constant. Models are
    seasonal where the past holds two seasons. Where a fit fails, the seasonal naive forecast
    replaces it, and the report's notes count the failures. ``name`` is a key of `MODELS`.
    Models are fitted on ``max_history`` steps before each origin; None: all. A subclass has another
    model in `_fit_and_forecast`.
    """

    refits_per_window = True
    windows_at_once = 1
    takes_seed = False

    def __init__(self, name: str, holdout: Holdout, max_history: int | None) -> None:
        self._name = name
        self._holdout = holdout
        self._max_history = max_history
        self._seed = 0
        self._fallback = SeasonalNaive(holdout)
        self._fits = self._failures = 0

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit the fallback; the models are fitted at each window."""
        self._fallback.fit(ends, seed)
        self._seed = seed or 0
        self._fits = self._failures = 0

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Fit and forecast each window and variable."""
        out = self._fallback.forecast(series, origins, horizon, levels)
        for row, (i, origin) in enumerate(zip(series, origins)):
            past = self._past(int(i), int(origin))
            for variable in range(past.n_variables):
                forecast = self._forecast_one(int(i), past, variable, horizon, levels)
                if forecast is not None:
                    out[row, :, variable] = forecast
        return out

    def describe(self) -> dict[str, Any]:
        """Return the history length, and a note about failed fits."""
        notes = []
        if self._failures:
            notes = [
                f"{self._name}: {self._failures} of {self._fits} fits failed; the seasonal naive "
                "forecast replaces them"
            ]
        return {"context_length": self._max_history, "backbone": None, "notes": notes}

    def _past(self, series: int, origin: int) -> Context:
        """Return the steps of a series that a model reads before an origin."""
        return self._holdout.contexts[series].until(origin).tail(self._max_history)

    def _forecast_one(
        self, series: int, past: Context, variable: int, horizon: int, levels: Sequence[float]
    ) -> np.ndarray | None:
        """Forecast one variable, (horizon, 1 + levels); None where the fit failed."""
        values = past.values[:, variable]
        if np.isnan(values).all():
            raise DataError(
                f"{series_name(past.series_id)} has no observed value{past.in_column(variable)} "
                "before a test window: pass a longer history, or leave the variable out"
            )
        self._fits += 1
        out = self._fit_and_forecast(series, variable, values, horizon, levels)
        self._failures += out is None
        return out

    def _fit_and_forecast(
        self, series: int, variable: int, values: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray | None:
        """Fit the model to one variable, (time,), and forecast it, (horizon, 1 + levels)."""
        return fit_and_forecast(self._name, values, horizon, self._holdout.season, levels)


class AutoETSMethod(LocalBaseline):
    """AutoETS, whose form is chosen once for each variable and whose parameters at each window.

    The choice of one of some thirty forms by AICc takes most of the time of AutoETS. It is made on
    the steps before the test part. Where this form does not fit a window, it is chosen anew there.
    """

    def __init__(self, holdout: Holdout, max_history: int | None) -> None:
        super().__init__("auto_ets", holdout, max_history)
        self._forms: dict[tuple[int, int], str | None] = {}

    def _fit_and_forecast(
        self, series: int, variable: int, values: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray | None:
        """Fit the form of a variable to a window, and forecast it."""
        form = self._form(series, variable)
        season = self._holdout.season
        return fit_and_forecast(self._name, values, horizon, season, levels, form=form)

    def _form(self, series: int, variable: int) -> str | None:
        """Return the form of a variable; None where it has none that serves all windows."""
        if (series, variable) not in self._forms:
            held = self._holdout
            past = self._past(series, int(held.borders[series])).values[:, variable]
            longest = len(self._past(series, int(held.ends[series])))
            self._forms[series, variable] = choose_ets_form(past, held.season, longest)
        return self._forms[series, variable]


def fit_sktime(
    forecaster: BaseForecaster, y: pd.Series | pd.DataFrame, horizon: int, levels: Sequence[float]
) -> np.ndarray:
    """Fit an sktime forecaster and forecast: (horizon, variables, 1 + levels).

    Forecasters without quantiles return only the points, ``(horizon, variables, 1)``.
    """
    steps = list(range(1, horizon + 1))
    forecaster.fit(y, fh=steps)
    variables = 1 if isinstance(y, pd.Series) else y.shape[1]
    point = np.asarray(forecaster.predict(steps), dtype=float).reshape(horizon, variables, 1)
    if not levels or not forecaster.get_tag("capability:pred_int"):
        return point
    spread = forecaster.predict_quantiles(steps, alpha=list(levels)).to_numpy(dtype=float)
    return np.concatenate([point, spread.reshape(horizon, variables, len(levels))], axis=-1)


def _naive_deviation(values: np.ndarray, season: int) -> np.ndarray:
    """Return the root mean square of seasonal differences, else of steps, else 0: (variables,)."""
    deviation = np.zeros(values.shape[1])
    for lag in (1, season):
        squares = (values[lag:] - values[:-lag]) ** 2
        count = (~np.isnan(squares)).sum(axis=0)
        mean = np.nansum(squares, axis=0) / np.maximum(count, 1)
        deviation = np.where(count > 0, np.sqrt(mean), deviation)
    return deviation
