"""Errors of windows, kept as sums, so that any set of windows can be averaged exactly."""

from collections.abc import Sequence

import numpy as np

from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout
from tsllm.metrics import (
    absolute_errors,
    covered,
    equally_spaced,
    pinball_losses,
    seasonal_scale,
    squared_errors,
    symmetric_percentage_errors,
)

POINT_METRICS = ("mse", "mae", "mase", "smape")
QUANTILE_METRICS = ("wql", "crps", "coverage", "width")
#: All metrics; see `tsllm.metrics` for their definitions.
METRICS = POINT_METRICS + QUANTILE_METRICS


class Scorer:
    """Compute the errors of windows.

    Parameters
    ----------
    holdout : Holdout
        The series: the training part sets the units, all steps before the test part MASE's scale.
    horizons : sequence of int
        Ascending.
    metrics : sequence of str or None
        None: all that the quantile levels allow.
    levels : sequence of float
        Quantile levels of the forecasts, ascending; empty for point forecasts only.
    scaled : bool
        Whether to divide mse, mae, crps and width by the standard deviation of their variable in
        the training part.

    Attributes
    ----------
    metrics : tuple of str
    """

    def __init__(
        self,
        holdout: Holdout,
        horizons: Sequence[int],
        metrics: Sequence[str] | None,
        levels: Sequence[float],
        scaled: bool,
    ) -> None:
        self.metrics = _choose_metrics(metrics, levels)
        self.levels = tuple(levels)
        self._horizons = np.array(horizons)
        shape = (len(holdout.contexts), holdout.n_variables)
        self._unit = np.ones(shape)  # (series, variables)
        self._mase_scale = np.empty(shape)
        for i, context in enumerate(holdout.contexts):
            if scaled:
                self._unit[i] = _deviation(context.values[: holdout.train_ends[i]])
            self._mase_scale[i] = seasonal_scale(
                context.values[: holdout.borders[i]], holdout.season
            )

    def score(
        self, series: np.ndarray, actual: np.ndarray, forecast: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score windows of one length.

        Parameters
        ----------
        series : int array (windows,)
        actual : array (windows, steps, variables)
        forecast : array (windows, steps, variables, 1 or 1 + levels)

        Returns
        -------
        totals : array (2, metrics, windows, horizons, variables)
            Sums of errors over the steps up to each horizon, then sums of their weights; a metric
            is their ratio. Horizons beyond the steps have weight 0.
        steps : array (2, metrics, steps, variables)
            The same sums over the windows, step by step.
        """
        elements = self._elements(
            series, actual, forecast
        )  # (2, metrics, windows, steps, variables)
        running = elements.cumsum(axis=-2)
        totals = np.zeros((*elements.shape[:3], len(self._horizons), elements.shape[-1]))
        inside = self._horizons <= actual.shape[1]
        totals[..., inside, :] = running[..., self._horizons[inside] - 1, :]
        return totals, elements.sum(axis=2)

    def _elements(self, series: np.ndarray, actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
        """Compute the error and the weight of every value, for every metric."""
        point, spread = forecast[..., 0], forecast[..., 1:]
        observed = ~np.isnan(actual)
        unit = self._unit[series][:, None]  # (windows, 1, variables)
        mase_scale = self._mase_scale[series][:, None]
        out = np.zeros((2, len(self.metrics), *actual.shape))
        pinball = None
        if spread.shape[-1]:
            # twice the mean over the levels, for wql and crps
            pinball = 2 * pinball_losses(actual, spread, self.levels).mean(axis=-1)
        for row, metric in enumerate(self.metrics):
            weight = observed.astype(float)
            if metric in QUANTILE_METRICS and pinball is None:
                continue  # no weight: the metric is NaN
            if metric == "mse":
                errors = squared_errors(actual, point) / unit**2
            elif metric == "mae":
                errors = absolute_errors(actual, point) / unit
            elif metric == "mase":
                has_scale = mase_scale > 0
                errors = absolute_errors(actual, point) / np.where(has_scale, mase_scale, 1.0)
                weight = weight * has_scale
            elif metric == "smape":
                errors = symmetric_percentage_errors(actual, point)
            elif metric == "wql":
                errors, weight = pinball, np.where(observed, np.abs(actual), 0.0)
            elif metric == "crps":
                errors = pinball / unit
            elif metric == "coverage":
                errors = covered(actual, spread[..., 0], spread[..., -1])
            else:
                errors = (spread[..., -1] - spread[..., 0]) / unit
            counted = observed if metric == "wql" else weight > 0
            out[0, row] = np.where(counted, errors, 0.0)
            out[1, row] = weight
        return out


def average(metric: str, totals: np.ndarray) -> float:
    """Average a metric over windows, from errors and weights ``(2, windows, variables)``.

    The weighted quantile loss is computed for each variable and then averaged, so that the variable
    with the largest numbers does not dominate.
    """
    errors, weights = totals.sum(axis=1)  # (variables,)
    return float(weighted_mean(metric, errors, weights))


def weighted_mean(metric: str, errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute a metric (...) from sums of errors and of weights (..., variables); see `average`.

    NaN where nothing has a weight.
    """
    if metric != "wql":
        errors, weights = errors.sum(axis=-1, keepdims=True), weights.sum(axis=-1, keepdims=True)
    known = weights > 0
    ratios = np.divide(errors, weights, out=np.zeros_like(errors), where=known)
    count = known.sum(axis=-1)
    total = ratios.sum(axis=-1)
    out: np.ndarray = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return out


def _choose_metrics(metrics: Sequence[str] | None, levels: Sequence[float]) -> tuple[str, ...]:
    """Return the requested metrics, or all that the levels allow."""
    if any(not 0 < level < 1 for level in levels) or list(levels) != sorted(set(levels)):
        raise DataError(
            f"quantiles must be rising levels strictly between 0 and 1, found {tuple(levels)!r}"
        )
    possible = list(POINT_METRICS)
    if levels:
        possible += ["wql"]
        possible += ["crps"] if equally_spaced(levels) else []
        possible += ["coverage", "width"] if len(levels) > 1 else []
    if metrics is None:
        return tuple(possible)
    if len(metrics) == 0:
        raise DataError("metrics is empty: pass at least one, or None for all")
    for metric in metrics:
        if metric not in METRICS:
            raise DataError(f"metrics must be among {', '.join(METRICS)}, found {metric!r}")
        if metric not in possible:
            raise DataError(
                f"the metric {metric!r} cannot be computed from quantiles={tuple(levels)!r}: wql "
                "needs one, coverage and width need two, crps needs equally spaced ones"
            )
    return tuple(metrics)


def _deviation(values: np.ndarray) -> np.ndarray:
    """Compute each variable's standard deviation, as StandardScaler does: (variables,)."""
    observed = ~np.isnan(values)
    count = np.maximum(observed.sum(axis=0), 1)
    mean = np.where(observed, values, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(observed, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return np.where(spread > 0, spread, 1.0)
