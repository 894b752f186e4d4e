"""Statistical forecasts of one series: the seasonal naive, AutoETS, Theta and AutoTheta."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

#: The longest season that AutoETS models itself.
MAX_ETS_SEASON = 24


def seasonal_naive(values: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Repeat the last season of a series, or its last value where it has no whole season.

    Parameters
    ----------
    values : array (time, variables)
        NaN where not observed: the value a season earlier replaces it, else the last value.
    horizon : int
        Steps to forecast.
    season : int
        Steps of a season.

    Returns
    -------
    array (horizon, variables)
        NaN for a variable without any observed value.
    """
    known = carried_forward(values, season)
    if len(known) < season:
        return np.repeat(known[-1:], horizon, axis=0)
    whole = known[len(known) - season + np.arange(horizon) % season]
    began = np.isnan(known[-season:]).any(axis=0)  # within the last season
    return np.where(began, known[-1:], whole)


def carried_forward(values: np.ndarray, season: int) -> np.ndarray:
    """Fill gaps with the value a season earlier, else with the last value: (time, variables)."""
    if not np.isnan(values).any():
        return values
    frame = pd.DataFrame(values)
    by_phase = frame.groupby(np.arange(len(frame)) % season).ffill()
    return by_phase.ffill().to_numpy()


def observed_part(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the observed part of one variable, (time,), and the number of steps missing after it.

    Gaps inside are filled along straight lines. Ends are cut off: a value that is repeated to the
    end would be taken for the level of the series, and shift its season.

    Examples
    --------
    >>> observed_part(np.array([np.nan, 1.0, np.nan, 3.0, np.nan]))
    (array([1., 2., 3.]), 1)
    """
    seen = np.flatnonzero(~np.isnan(values))
    if not len(seen):
        return values[:0], len(values)
    inside, missing = values[seen[0] : seen[-1] + 1], len(values) - 1 - int(seen[-1])
    if len(seen) == len(inside):
        return inside, missing  # pandas would take a tenth of the time of a fit
    return pd.Series(inside).interpolate().to_numpy(), missing


def fit_and_forecast(
    name: str,
    values: np.ndarray,
    horizon: int,
    season: int,
    levels: Sequence[float] = (),
    *,
    form: str | None = None,
) -> np.ndarray | None:
    """Fit a statsforecast model to one variable and forecast it.

    Parameters
    ----------
    name : {"auto_ets", "theta", "auto_theta"}
        The model.
    values : array (time,)
        NaN where not observed, with at least one observed value. A constant is forecast by itself.
    horizon : int
        Steps to forecast after ``values``, also where their end is missing.
    season : int
        Steps of a season; the model is seasonal where ``values`` hold two.
    levels : sequence of float, default=()
        Quantile levels strictly between 0 and 1.
    form : str or None, default=None
        For "auto_ets": the form that `choose_ets_form` returned. None: it is chosen here. It is
        chosen here, too, if the given form cannot be fitted.

    Returns
    -------
    array (horizon, 1 + levels) or None
        The points, then the quantiles; None where the fit failed.
    """
    values, missing = observed_part(values)
    if np.ptp(values) == 0:
        return np.full((horizon, 1 + len(levels)), values[0])
    season = usable_season(values, season)
    # Made outside `quietly`: a library that cannot be imported is no failed fit.
    if form is not None:
        out = _forecast_with(_ets_of_form(form)(season), values, missing + horizon, levels)
        if out is not None:
            return out[missing:]
    out = _forecast_with(MODELS[name](season), values, missing + horizon, levels)
    return None if out is None else out[missing:]


def _forecast_with(
    model: Any, values: np.ndarray, steps: int, levels: Sequence[float]
) -> np.ndarray | None:
    """Fit a model of statsforecast and forecast, (steps, 1 + levels); None where that fails."""
    # A quantile is a bound of the central interval with this percentage.
    widths = [round(100 * abs(2 * level - 1), 6) for level in levels]
    found = quietly(lambda: model.forecast(y=values, h=steps, level=sorted(set(widths)) or None))
    if found is None:
        return None
    names = [f"{'lo' if q < 0.5 else 'hi'}-{width}" for q, width in zip(levels, widths)]
    out = np.stack([found[column] for column in ("mean", *names)], axis=1)
    return out if np.isfinite(out).all() else None


def choose_ets_form(values: np.ndarray, season: int, longest: int) -> str | None:
    """Choose the form of exponential smoothing for one variable by AICc.

    A model of a known form is fitted in a tenth of the time.

    Parameters
    ----------
    values : array (time,)
        NaN where not observed.
    season : int
        Steps of a season.
    longest : int
        The most steps of the histories that the form will be fitted to.

    Returns
    -------
    str or None
        Error, trend, season and damping in four letters, such as ``"MAMD"``. None where the form
        cannot be kept: no value is observed, the series is constant, its season is removed by STL,
        no form fits, or a later history may hold the two seasons that ``values`` do not hold.
    """
    values, _ = observed_part(values)
    if not len(values) or np.ptp(values) == 0:
        return None
    usable = usable_season(values, season)
    if usable > MAX_ETS_SEASON or (usable < season and longest >= 2 * season):
        return None
    model = _auto_ets(usable)
    fitted = quietly(lambda: model.fit(values))
    return None if fitted is None else str(fitted.model_["components"])


def usable_season(values: np.ndarray, season: int) -> int:
    """Return the season, or 1 where a series does not hold two seasons."""
    return season if len(values) >= 2 * season else 1


def quietly(compute: Callable[[], Any]) -> Any:
    """Compute without warnings and without a trace in numpy's global generator; None if it fails.

    Each candidate form of a model warns. statsforecast seeds the generator for its sample paths,
    and raises bare exceptions where no form fits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = np.random.get_state()  # noqa: NPY002
        try:
            return compute()
        except Exception:
            return None
        finally:
            np.random.set_state(state)  # noqa: NPY002


# statsforecast takes seconds to import, so it is imported where a model is made.


def _auto_ets(season: int) -> Any:
    """Make exponential smoothing whose form is chosen by AICc.

    It models seasons of up to 24 steps; a longer one is removed by STL first, as R's stlf does.
    """
    from statsforecast.models import MSTL, AutoETS

    if season <= MAX_ETS_SEASON:
        return AutoETS(season_length=season)
    return MSTL(season_length=season, trend_forecaster=AutoETS(season_length=1, model="ZZN"))


def _ets_of_form(form: str) -> Callable[[int], Any]:
    """Return the function that makes exponential smoothing of one form."""

    def make(season: int) -> Any:
        from statsforecast.models import AutoETS

        return AutoETS(season_length=season, model=form[:3], damped=form[3] == "D")

    return make


def _theta(season: int) -> Any:
    """Make the standard Theta model, seasonally adjusted by ratios where a test finds a season."""
    from statsforecast.models import Theta

    return Theta(season_length=season, decomposition_type="multiplicative")


def _auto_theta(season: int) -> Any:
    """Make the best of four Theta models."""
    from statsforecast.models import AutoTheta

    return AutoTheta(season_length=season, decomposition_type="multiplicative")


#: The function that makes a model of a season, by name.
MODELS: dict[str, Callable[[int], Any]] = {
    "auto_ets": _auto_ets,
    "theta": _theta,
    "auto_theta": _auto_theta,
}
