"""Effects of covariates on the errors of a forecaster, from its forecasts of windows of the past.

A forecast without the covariates carries a part of their effects nevertheless: those of the past
steps that it reads. The seasonal naive forecast of a sale that was advertised a week ago is too
high, and a smoothing carries the mean of the recent effects. So the errors are regressed on the
difference of a step's features and a reference: the mean of features of past steps, weighted as
the forecaster may weigh them. Cross-validation chooses the reference with the penalty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tsllm.covariates.contemporaneous import choose_ridge, without_means
from tsllm.saving.fields import read_fields

#: Weights of the latest step among the past ones that a forecaster may carry on; 0: all alike.
RATES = (1.0, 0.5, 0.2, 0.0)
#: The past steps that a reference reads, and the seasons of one that reads the same phase.
REFERENCE_STEPS, REFERENCE_SEASONS = 48, 8


@dataclass(frozen=True)
class Reference:
    """The past steps whose effects a forecast carries already."""

    #: Steps between the past steps that are read: 1, or a season.
    period: int = 1
    #: The weight of the latest of them; each earlier one weighs ``1 - rate`` of the next.
    rate: float = 0.0

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the reference from the output of `to_state`."""
        return read_fields(cls, state)

    @property
    def steps(self) -> int:
        """Return the number of past steps that it reads."""
        return REFERENCE_STEPS if self.period == 1 else REFERENCE_SEASONS * self.period

    def of(self, past: np.ndarray, horizon: int) -> np.ndarray:
        """Compute the reference of each step ahead, (horizon, columns), from rows of the past.

        Examples
        --------
        >>> past = np.array([[1.0], [2.0], [3.0], [6.0]])
        >>> Reference(2, 1.0).of(past, 3).ravel().tolist()
        [3.0, 6.0, 3.0]
        >>> Reference().of(past, 2).ravel().tolist()
        [3.0, 3.0]
        """
        past = past[-self.steps :]
        period = self.period if len(past) >= self.period else 1
        ends = len(past) - period + np.arange(min(period, horizon))  # the latest of each phase
        count = -(-len(past) // period)
        weights = (1 - self.rate) ** np.arange(count)
        total = np.zeros((len(ends), past.shape[1]))
        share = np.zeros((len(ends), 1))
        for back, weight in enumerate(weights.tolist()):
            rows = ends - back * period
            seen = rows >= 0
            total[seen] += weight * past[rows[seen]]
            share[seen] += weight
        phases: np.ndarray = (total / share)[np.arange(horizon) % period]
        return phases


@dataclass(frozen=True)
class ErrorWindows:
    """The errors of a forecaster on windows of some series, in the order of the series."""

    #: (windows,): the number of the series, and the position of the first step of the window.
    series: np.ndarray
    origins: np.ndarray
    #: (windows, horizon, variables): in units of the scale of the series, NaN where not observed.
    errors: np.ndarray

    def some(self, chosen: np.ndarray) -> "ErrorWindows":
        """Return some windows, by a mask or positions."""
        return ErrorWindows(self.series[chosen], self.origins[chosen], self.errors[chosen])


@dataclass(frozen=True)
class ErrorFit:
    """Weights of features, and the reference that they are differences from."""

    #: (features, variables): in units of the scale of a series.
    weights: np.ndarray
    #: (variables,): the share of the errors' variation that they explained on left-out rows.
    explained: np.ndarray
    reference: Reference


def fit_to_errors(
    features: Sequence[np.ndarray],
    windows: ErrorWindows,
    references: Sequence[Reference],
) -> ErrorFit:
    """Fit a regression of errors on the features of their steps, relative to a reference.

    A mean error of a series is no effect of its covariates, so it is subtracted.

    Parameters
    ----------
    features : sequence of array (time, features)
        Of each series.
    windows : ErrorWindows
        With the errors of a forecaster.
    references : sequence of Reference
        To choose from.
    """
    horizon, variables = windows.errors.shape[1:]
    groups = np.repeat(windows.series, horizon)
    targets = windows.errors.reshape(-1, variables)  # (rows, variables)
    best: ErrorFit | None = None
    least = np.inf
    for reference in references:
        rows = np.concatenate(
            [
                relative_features(features[number], int(origin), horizon, reference)
                for number, origin in zip(windows.series.tolist(), windows.origins.tolist())
            ]
        )
        weights = np.zeros((rows.shape[1], variables))
        explained = np.zeros(variables)
        left_out = 0.0
        for variable, target in enumerate(targets.T):
            seen = np.isfinite(target)
            if not seen.any():
                continue
            fit = choose_ridge(
                without_means(rows[seen], groups[seen]),
                without_means(target[seen, None], groups[seen]),
            )
            weights[:, variable] = fit.weights[:, 0]
            explained[variable] = fit.explained[0]
            left_out += float(fit.left_out[0])
        if best is None or left_out < least:
            best, least = ErrorFit(weights, explained, reference), left_out
    assert best is not None  # there is a reference
    return best


def relative_features(
    features: np.ndarray, origin: int, horizon: int, reference: Reference
) -> np.ndarray:
    """Compute features of a window relative to their reference: (horizon, features).

    Steps after the end of the series repeat the last one; they have no error.
    """
    ahead = np.minimum(origin + np.arange(horizon), len(features) - 1)
    past = features[max(0, origin - reference.steps) : origin]
    relative: np.ndarray = features[ahead] - reference.of(past, horizon)
    return relative


def references_of(season: int, steps: int) -> list[Reference]:
    """List the references to choose from, for series of a season and contexts of some steps."""
    found = [Reference(1, rate) for rate in RATES]
    if 1 < season <= steps:
        found += [Reference(season, rate) for rate in RATES if rate != 0.2]
    return found
