"""Goodness of fit of event models: time rescaling, independence, calibration of the types.

Under a right model the residuals, of all events together and of each type, are independent and
exponential with mean 1, and the type probabilities equal the observed shares.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tsllm.pages.notebook import piece

ALL_TYPES = "all types"


@dataclass(frozen=True)
class EventDiagnostics:
    """Goodness-of-fit tests of an event model.

    Attributes
    ----------
    table : DataFrame
        One row for all events and one for the events of each type: the number of ``events``, their
        mean residual (``mean``, 1 under a right model), the Kolmogorov-Smirnov distance ``ks`` of
        the residuals from the exponential and its ``p_value``, the autocorrelation ``lag1`` of
        neighbouring residuals and its ``lag1_p_value``. Check both: the residuals of a wrong model
        can have the right distribution and be dependent.
    calibration : DataFrame
        Of each type, in bins of equal size: the mean ``predicted`` probability that an event is of
        the type (given its time), the share ``observed`` and the number of ``events``.
    type_p_value : float
        p-value of the types' calibration: a chi-squared test over the bins of each type, the
        smallest p-value multiplied by the number of types. 1 for a single type.
    residuals : dict of array
        The residuals of each row of ``table``.

    See Also
    --------
    tsllm.events.plotting.plot_residuals : Draw the residuals.
    """

    table: pd.DataFrame
    calibration: pd.DataFrame
    type_p_value: float
    residuals: dict[str, np.ndarray]

    @property
    def pit(self) -> np.ndarray:
        """Compute the probability integral transform of all residuals; uniform if right."""
        return -np.expm1(-self.residuals[ALL_TYPES])

    @property
    def calibration_error(self) -> float:
        """Compute the mean distance of predicted from observed shares, weighted by events."""
        bins = self.calibration
        return float(
            np.average((bins["predicted"] - bins["observed"]).abs(), weights=bins["events"])
        )

    def __str__(self) -> str:
        table = self.table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")
        error, p_value = self.calibration_error, self.type_p_value
        return f"{table}\ntypes: calibration error {error:.4g}, p-value {p_value:.4g}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        error, p_value = self.calibration_error, self.type_p_value
        note = f"types: calibration error {error:.4g}, p-value {p_value:.4g}"
        table = self.table.rename_axis("events of").reset_index()
        return piece(tables={"": table}, notes=[note])

    def to_dict(self) -> dict[str, Any]:
        """Return the tests as plain values, for JSON; NaN becomes None."""
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
    """Compute goodness-of-fit tests of residuals and type probabilities.

    Time that ends without an event is not dropped, which would favour short inter-event times: its
    expected events count towards the next residual, in the next sequence.

    Parameters
    ----------
    codes : int array (n,)
        The class code of the event that ends each interval, -1 where none does; sequence after
        sequence, in order of time.
    increments : float array (n, types)
        Expected events of each type in the interval.
    probabilities : float array (n, types)
        Probability of each type, given an event at the interval's end.
    classes : array of str (types,)

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
    """Sum the increments from each event to the next."""
    return np.diff(np.concatenate([[0.0], np.cumsum(values)[observed]]))


def _test(residuals: np.ndarray) -> list[float]:
    """Test residuals: number, mean, distance from the exponential and p, correlation and p."""
    n = len(residuals)
    if n < 3:
        return [n, np.mean(residuals) if n else np.nan, *[np.nan] * 4]
    distance = stats.kstest(residuals, "expon")
    # Ranks, so that a few long inter-event times do not dominate the correlation.
    ranks = stats.rankdata(residuals)
    early, late = ranks[:-1], ranks[1:]
    known = np.ptp(early) > 0 and np.ptp(late) > 0
    lag1 = float(np.corrcoef(early, late)[0, 1]) if known else np.nan
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
            excess = hits.sum() - share.sum()
            # A certain and right prediction adds 0, a certain and wrong one infinity.
            chi2 += excess**2 / spread if spread > 0 else (0.0 if abs(excess) < 1e-9 else np.inf)
        p_values.append(float(stats.chi2.sf(chi2, len(bins))))
    p_value = min(1.0, len(classes) * min(p_values)) if len(classes) > 1 else 1.0
    return pd.DataFrame(rows, columns=columns), p_value
