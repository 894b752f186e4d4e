"""What covariates without a known future say about the steps to come: a regression a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tsllm.covariates.contemporaneous import ColumnBasis, choose_ridge, features_of, varies

#: Past steps of the covariates, and of the series itself, that the regression reads.
MAX_LAGS, MAX_OWN_LAGS = 24, 48
#: Origins that it learns from, evenly spaced, and the fewest that it learns anything from.
MAX_ORIGINS, MIN_ORIGINS = 4000, 20


@dataclass
class LaggedEffects:
    """How the last values of covariates move the forecast of each step to come.

    The part that a series' own past tells as well is taken out: what is left is the news that the
    covariates bring, and it is added to a forecast that knows the series' past only.

    Attributes
    ----------
    bases : list of ColumnBasis
        One a column.
    window : int
        Steps by whose mean and deviation a series is standardised.
    own_lags, lags : int
        Last steps read of the series and of the covariates.
    weights : array (variables, own_lags + lags * features, horizon)
        0 for steps that the covariates say nothing about.
    explained : array (variables,)
        Share of the error from the own past that they explained on left-out origins.
    learnt : bool
        Whether there were origins enough to learn from.
    """

    bases: list[ColumnBasis]
    window: int
    own_lags: int
    lags: int
    weights: np.ndarray
    explained: np.ndarray
    learnt: bool = True

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return vars(self) | {"bases": [basis.to_state() for basis in self.bases]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the effects from the output of `to_state`."""
        return cls(**{**state, "bases": [ColumnBasis(**basis) for basis in state["bases"]]})

    def lagged_effects(
        self, values: np.ndarray, columns: Sequence[np.ndarray], horizon: int
    ) -> np.ndarray:
        """Say how far the next steps will lie from what the own past tells: (horizon, variables).

        ``values`` (time, variables) is the past of a series, ``columns`` that of its covariates.
        Nothing is said of steps beyond those that were learnt.
        """
        known = min(horizon, self.weights.shape[2])
        news = np.zeros((horizon, values.shape[1]))
        features = features_of(self.bases, columns)
        for variable, weights in enumerate(self.weights):
            read = self.read(values[:, variable], features)
            if read is not None:
                row, _, deviation = read
                news[:known, variable] = (row @ weights)[:known] * deviation
        return news

    def read(
        self, past: np.ndarray, features: np.ndarray
    ) -> tuple[np.ndarray, float, float] | None:
        """Write the last steps as one row, all relative to the window's mean.

        Steps before the series, and those that were not observed, are at the mean.

        Parameters
        ----------
        past : array (time,)
            One variable, NaN where not observed.
        features : array (time, features)
            Of the covariates at the same steps.

        Returns
        -------
        array (own_lags + lags * features,), mean and deviation of the window
            None where the window does not vary.
        """
        past, features = past[-self.window :], features[-self.window :]
        seen = np.isfinite(past)
        if not seen.any():
            return None
        mean, deviation = float(past[seen].mean()), float(past[seen].std())
        if not varies(deviation, mean):
            return None
        own = np.where(seen, (past - mean) / deviation, 0.0)[-self.own_lags :]
        near = (features - features.mean(axis=0))[-self.lags :]
        row = [
            np.zeros(self.own_lags - len(own)),
            own,
            np.zeros((self.lags - len(near)) * features.shape[1]),
            near.ravel(),
        ]
        return np.concatenate(row), mean, deviation


def fit_leading(
    values: Sequence[np.ndarray],
    columns: Sequence[Sequence[np.ndarray]],
    bases: list[ColumnBasis],
    *,
    window: int,
    season: int,
    horizon: int,
) -> LaggedEffects:
    """Learn what the covariates' past says about the next ``horizon`` steps.

    Parameters
    ----------
    values : sequence of array (time, variables)
        The series, as far as they are learnt from.
    columns : sequence of sequences of array (time,)
        The covariates of each.
    bases : list of ColumnBasis
        Of the columns.
    window : int
        Steps that a forecast reads.
    season : int
        Steps of a season.
    horizon : int
        Steps to come.

    Returns
    -------
    LaggedEffects
    """
    lags = int(np.clip(max(season, 8), 1, min(window, MAX_LAGS)))
    own_lags = min(window, MAX_OWN_LAGS)
    width = own_lags + lags * sum(basis.width for basis in bases)
    variables = values[0].shape[1]
    effects = LaggedEffects(
        bases,
        window,
        own_lags,
        lags,
        weights=np.zeros((variables, width, horizon)),
        explained=np.zeros(variables),
        learnt=False,
    )
    spare = sum(max(0, len(one) - own_lags - horizon + 1) for one in values)
    every = max(1, -(-spare // MAX_ORIGINS))
    for variable in range(variables):
        rows, targets = [], []
        for one, own in zip(values, columns):
            features = features_of(bases, own)
            for origin in range(own_lags, len(one) - horizon + 1, every):
                read = effects.read(one[:origin, variable], features[:origin])
                future = one[origin : origin + horizon, variable]
                if read is not None and np.isfinite(future).all():
                    row, mean, deviation = read
                    rows.append(row)
                    targets.append((future - mean) / deviation)
        if len(rows) < MIN_ORIGINS:
            continue
        effects.learnt = True
        pasts, futures = np.stack(rows), np.stack(targets)  # (origins, width | horizon)
        both = choose_ridge(pasts, futures)
        alone = choose_ridge(pasts[:, :own_lags], futures)
        # What the own past tells by itself is no news: the model has read it.
        weights = effects.weights[variable]  # (width, horizon)
        weights[:] = both.weights
        weights[:own_lags] -= alone.weights
        weights[:, both.left_out >= alone.left_out] = 0.0
        gained = np.minimum(both.left_out, alone.left_out).sum()
        effects.explained[variable] = 1 - gained / max(float(alone.left_out.sum()), 1e-300)
    return effects
