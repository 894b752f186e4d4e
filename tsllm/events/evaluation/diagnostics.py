"""Goodness of fit of event models: time rescaling, independence, calibration of the types.

A right model turns the gaps between events into independent exponential residuals with mean 1, of
all events together and of each type, and its type probabilities are the shares that are seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

ALL_TYPES = "all types"


@dataclass(frozen=True)
class EventDiagnostics:
    """Tests of whether a model could have made the events.

    Attributes
    ----------
    table : DataFrame
        One row for all events and one for the events of each type: how many ``events``, their mean
        residual (``mean``, 1 where the model is right), the Kolmogorov-Smirnov distance ``ks`` of
        the residuals from the exponential and its ``p_value``, the autocorrelation ``lag1`` of
        neighbouring residuals and its ``lag1_p_value``. The residuals of a wrong model can have the
        right distribution and hang together: look at both.
    calibration : DataFrame
        Of each type, in bins of equal size: the mean ``predicted`` probability that an event is of
        the type (given its time), the share ``observed`` and the number of ``events``.
    type_p_value : float
        That the types are calibrated: a chi-squared test over the bins of each type, the smallest
        p-value multiplied by the number of types. 1 where there is one type only.
    residuals : dict of array
        The residuals behind each row of ``table``.
    """

    table: pd.DataFrame
    calibration: pd.DataFrame
    type_p_value: float
    residuals: dict[str, np.ndarray]

    @property
    def pit(self) -> np.ndarray:
        """Probabilities, given by the model, of an event as early as the one that came; uniform."""
        return -np.expm1(-self.residuals[ALL_TYPES])

    @property
    def calibration_error(self) -> float:
        """Mean distance between predicted and observed shares, over all bins by their events."""
        bins = self.calibration
        return float(
            np.average((bins["predicted"] - bins["observed"]).abs(), weights=bins["events"])
        )

    def __str__(self) -> str:
        table = self.table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")
        error, p_value = self.calibration_error, self.type_p_value
        return f"{table}\ntypes: calibration error {error:.4g}, p-value {p_value:.4g}"

    __repr__ = __str__

    def plot(self, axes: Any = None) -> Any:
        """Draw the residuals' quantiles against the exponential's, and the histogram of `pit`."""
        from tsllm.events.plotting import plot_residuals

        return plot_residuals(self, axes=axes)

    def to_dict(self) -> dict[str, Any]:
        """Give the tests as plain values, for JSON; what is not known is None."""
        rows = {
            str(name): {key: None if np.isnan(v) else float(v) for key, v in row.items()}
            for name, row in self.table.iterrows()
        }
        return {
            "table": rows,
            "calibration": self.calibration.to_dict("records"),
            "calibration_error": self.calibration_error,
            "type_p_value": self.type_p_value,
        }


def diagnose(
    codes: np.ndarray, increments: np.ndarray, probabilities: np.ndarray, classes: np.ndarray
) -> EventDiagnostics:
    """Test the residuals of a model and its type probabilities.

    Time that ends without an event is not dropped, which would favour short gaps: what the model
    expected in it counts towards the next residual, in the next sequence.

    Parameters
    ----------
    codes : int array (n,)
        The class code of the event that ends each interval, -1 where none does; sequence after
        sequence, in order of time.
    increments : array (n, types)
        Expected events of each type in the interval.
    probabilities : array (n, types)
        Of each type, given that an event comes at the interval's end.
    classes : array of str (types,)

    Returns
    -------
    EventDiagnostics

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> codes, share = rng.integers(2, size=500), np.full((500, 2), 0.5)
    >>> found = diagnose(codes, share * rng.exponential(size=(500, 1)), share, ["a", "b"])
    >>> bool((found.table["p_value"] > 0.001).all()), found.type_p_value > 0.001
    (True, True)
    """
    residuals = {ALL_TYPES: _chain(increments.sum(1), codes >= 0)}
    for code, name in enumerate(classes):
        residuals[str(name)] = _chain(increments[:, code], codes == code)
    table = pd.DataFrame.from_dict(
        {name: _test(values) for name, values in residuals.items()},
        orient="index",
        columns=["events", "mean", "ks", "p_value", "lag1", "lag1_p_value"],
    ).astype({"events": int})
    seen = codes >= 0
    calibration, p_value = _calibrate(codes[seen], probabilities[seen], classes)
    return EventDiagnostics(table, calibration, p_value, residuals)


def _chain(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Add up the increments from each event to the next, whatever lies between."""
    return np.diff(np.concatenate([[0.0], np.cumsum(values)[observed]]))


def _test(residuals: np.ndarray) -> list[float]:
    """Test residuals: how many, mean, distance from the exponential and p, correlation and p."""
    n = len(residuals)
    if n < 3:
        return [n, np.mean(residuals) if n else np.nan, *[np.nan] * 4]
    distance = stats.kstest(residuals, "expon")
    # Ranks, so that a few long gaps do not rule the correlation.
    ranks = stats.rankdata(residuals)
    lag1 = float(np.corrcoef(ranks[:-1], ranks[1:])[0, 1]) if np.ptp(ranks) > 0 else np.nan
    p_lag = 2 * stats.norm.sf(abs(lag1) * np.sqrt(n - 1))
    return [n, residuals.mean(), distance.statistic, distance.pvalue, lag1, p_lag]


def _calibrate(
    codes: np.ndarray, probabilities: np.ndarray, classes: np.ndarray
) -> tuple[pd.DataFrame, float]:
    """Compare predicted and observed shares in bins of each type (Hosmer and Lemeshow's test)."""
    columns = ["type", "predicted", "observed", "events"]
    rows: list[list[Any]] = []
    p_values = []
    for code, name in enumerate(classes):
        predicted = probabilities[:, code]
        order = np.argsort(predicted, kind="stable")
        bins = np.array_split(order, min(10, max(1, len(order) // 50)))
        chi2 = 0.0
        for part in bins:
            if not len(part):
                continue
            share = predicted[part]
            hits = codes[part] == code
            rows.append([name, share.mean(), hits.mean(), len(part)])
            spread = (share * (1 - share)).sum()
            gap = hits.sum() - share.sum()
            # Certain and right adds nothing; certain and wrong is ruled out.
            chi2 += gap**2 / spread if spread > 0 else (0.0 if abs(gap) < 1e-9 else np.inf)
        p_values.append(float(stats.chi2.sf(chi2, len(bins))))
    p_value = min(1.0, len(classes) * min(p_values)) if len(classes) > 1 else 1.0
    return pd.DataFrame(rows, columns=columns), p_value
