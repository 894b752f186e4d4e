"""Accuracy of forecasts: point errors, quantile losses and coverage.

All functions read the observed values as ``actual`` of shape ``(..., horizon, variables)``; the
leading axes are windows or series. NaN in ``actual`` means not observed and is excluded. A NaN
forecast of an observed value makes the metric NaN. ``axis`` selects the axes to average over, as in
numpy; None averages over everything.
"""

from collections.abc import Sequence

import numpy as np

from tsllm.errors import DataError

Axis = int | tuple[int, ...] | None


def mse(actual: np.ndarray, forecast: np.ndarray, *, axis: Axis = None) -> np.ndarray:
    """Compute the mean squared error.

    Parameters
    ----------
    actual, forecast : array (..., horizon, variables)
    axis : int, tuple of int or None, default=None
        Axes to average over.

    Returns
    -------
    array, without those axes

    Examples
    --------
    >>> float(mse([[1.0], [np.nan]], [[3.0], [9.0]]))
    4.0
    """
    return observed_mean(squared_errors(actual, forecast), actual, axis)


def mae(actual: np.ndarray, forecast: np.ndarray, *, axis: Axis = None) -> np.ndarray:
    """Compute the mean absolute error; parameters as for `mse`.

    Examples
    --------
    >>> float(mae([[1.0], [2.0]], [[3.0], [2.0]]))
    1.0
    """
    return observed_mean(absolute_errors(actual, forecast), actual, axis)


def mase(
    actual: np.ndarray, forecast: np.ndarray, scale: np.ndarray, *, axis: Axis = None
) -> np.ndarray:
    """Compute the mean absolute scaled error.

    Parameters
    ----------
    actual, forecast : array (..., horizon, variables)
    scale : array (..., variables)
        The `seasonal_scale` of each series before its forecasts. Errors with scale 0 or NaN are
        excluded.
    axis : int, tuple of int or None, default=None
        Axes to average over.

    Returns
    -------
    array, without those axes

    References
    ----------
    R. Hyndman and A. Koehler (2006), "Another look at measures of forecast accuracy".

    Examples
    --------
    >>> scale = seasonal_scale(np.array([[0.0], [2.0], [4.0]]), season=1)
    >>> float(mase([[6.0], [8.0]], [[5.0], [5.0]], scale))
    1.0
    """
    steps = np.expand_dims(np.asarray(scale, dtype=float), -2)  # (..., 1, variables)
    scaled = absolute_errors(actual, forecast) / np.where(steps > 0, steps, np.nan)
    return observed_mean(scaled, np.where(steps > 0, actual, np.nan), axis)


def smape(actual: np.ndarray, forecast: np.ndarray, *, axis: Axis = None) -> np.ndarray:
    """Compute the symmetric mean absolute percentage error of the M4 competition: 0 to 200.

    ``200 * |actual - forecast| / (|actual| + |forecast|)``, 0 where both are 0; parameters as for
    `mse`.

    Examples
    --------
    >>> float(smape([[3.0]], [[1.0]]))
    100.0
    """
    return observed_mean(symmetric_percentage_errors(actual, forecast), actual, axis)


def weighted_quantile_loss(
    actual: np.ndarray,
    quantile_forecasts: np.ndarray,
    levels: Sequence[float],
    *,
    axis: Axis = None,
) -> np.ndarray:
    """Compute the weighted quantile loss: twice the pinball loss over the sum of absolute values.

    The mean over the levels of ``2 * sum(pinball) / sum(|actual|)``, as in GluonTS. With the median
    as its only level it is the normalised deviation ``sum|error| / sum|actual|``.

    Parameters
    ----------
    actual : array (..., horizon, variables)
    quantile_forecasts : array (..., horizon, variables, levels)
    levels : sequence of float
        Strictly between 0 and 1.
    axis : int, tuple of int or None, default=None
        Axes of ``actual`` to sum over; None sums over everything.

    Returns
    -------
    array, without those axes; NaN where all observed values are 0

    Examples
    --------
    >>> float(weighted_quantile_loss([[4.0]], [[[3.0]]], [0.5]))
    0.25
    """
    weight = np.abs(np.asarray(actual, dtype=float))
    loss = 2 * pinball_losses(actual, quantile_forecasts, levels).mean(axis=-1)
    observed = ~np.isnan(weight)
    total = np.where(observed, loss, 0.0).sum(axis=axis)
    return _ratio(total, np.where(observed, weight, 0.0).sum(axis=axis))


def crps(
    actual: np.ndarray,
    quantile_forecasts: np.ndarray,
    levels: Sequence[float],
    *,
    axis: Axis = None,
) -> np.ndarray:
    """Compute the continuous ranked probability score as twice the mean pinball loss.

    It has the units of the values; for a forecast of one value it is the absolute error.

    Parameters
    ----------
    actual : array (..., horizon, variables)
    quantile_forecasts : array (..., horizon, variables, levels)
    levels : sequence of float
        Equally spaced, since the score is an integral over all levels.
    axis : int, tuple of int or None, default=None
        Axes of ``actual`` to average over.

    Raises
    ------
    DataError
        The levels are not equally spaced.

    Examples
    --------
    >>> float(crps([[4.0]], [[[3.0, 3.0, 3.0]]], [0.25, 0.5, 0.75]))
    1.0
    """
    if not equally_spaced(levels):
        raise DataError(
            f"crps needs equally spaced quantile levels, found {tuple(levels)}: pass for example "
            "0.1, 0.2, ..., 0.9"
        )
    losses = pinball_losses(actual, quantile_forecasts, levels)
    return observed_mean(2 * losses.mean(axis=-1), actual, axis)


def coverage(
    actual: np.ndarray, lower: np.ndarray, upper: np.ndarray, *, axis: Axis = None
) -> np.ndarray:
    """Compute the share of the observed values between two forecasts, both included.

    Parameters
    ----------
    actual, lower, upper : array (..., horizon, variables)
    axis : int, tuple of int or None, default=None
        Axes to average over.

    Examples
    --------
    >>> float(coverage([[1.0], [5.0]], [[0.0], [0.0]], [[1.0], [4.0]]))
    0.5
    """
    return observed_mean(covered(actual, lower, upper), actual, axis)


def mean_width(
    actual: np.ndarray, lower: np.ndarray, upper: np.ndarray, *, axis: Axis = None
) -> np.ndarray:
    """Compute the mean width of the intervals of observed values; parameters as for `coverage`.

    Examples
    --------
    >>> float(mean_width([[1.0], [np.nan]], [[0.0], [0.0]], [[1.5], [9.0]]))
    1.5
    """
    return observed_mean(np.subtract(upper, lower), actual, axis)


def seasonal_scale(values: np.ndarray, season: int) -> np.ndarray:
    """Compute the mean absolute error of the seasonal naive forecast: the scale of `mase`.

    Parameters
    ----------
    values : array (time, variables)
        The part of the series before its forecasts.
    season : int
        Steps of a season; 1 for none.

    Returns
    -------
    array (variables,)
        NaN where no two values one season apart were observed.

    Examples
    --------
    >>> seasonal_scale(np.array([[1.0], [5.0], [2.0], [9.0]]), season=2).tolist()
    [2.5]
    """
    values = np.asarray(values, dtype=float)
    return observed_mean(
        np.abs(values[season:] - values[:-season]), values[season:] - values[:-season], 0
    )


def squared_errors(actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Compute ``(actual - forecast)²`` of every value."""
    return np.subtract(actual, forecast) ** 2


def absolute_errors(actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Compute ``|actual - forecast|`` of every value."""
    return np.abs(np.subtract(actual, forecast))


def symmetric_percentage_errors(actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Compute ``200 |actual - forecast| / (|actual| + |forecast|)`` of every value, 0 for 0 / 0."""
    sizes = np.abs(actual) + np.abs(forecast)
    errors = absolute_errors(actual, forecast)
    return 200.0 * np.divide(errors, sizes, out=np.zeros_like(errors), where=sizes != 0)


def pinball_losses(
    actual: np.ndarray, quantile_forecasts: np.ndarray, levels: Sequence[float]
) -> np.ndarray:
    """Compute the pinball loss of every value and level: ``(..., horizon, variables, levels)``."""
    errors = np.expand_dims(np.asarray(actual, dtype=float), -1) - quantile_forecasts
    return np.maximum(np.multiply(levels, errors), np.multiply(np.subtract(levels, 1.0), errors))


def covered(actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return 1 for values between their two forecasts, 0 for others, NaN without forecasts."""
    inside = (np.asarray(actual) >= lower) & (np.asarray(actual) <= upper)
    return np.where(np.isnan(lower) | np.isnan(upper), np.nan, inside)


def equally_spaced(levels: Sequence[float]) -> bool:
    """Return whether quantile levels are equally spaced."""
    return bool(np.ptp(np.diff(levels)) < 1e-9) if len(levels) > 1 else True


def observed_mean(errors: np.ndarray, actual: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Average errors where ``actual`` is not NaN; NaN where nothing was observed."""
    observed = ~np.isnan(actual)
    return _ratio(np.where(observed, errors, 0.0).sum(axis=axis), observed.sum(axis=axis))


def _ratio(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Divide; anything over 0 is NaN without a warning."""
    return np.asarray(total) / np.where(np.asarray(weight) > 0, weight, np.nan)
