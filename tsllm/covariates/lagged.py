"""Lagged effects of covariates whose future is unknown: one regression per step ahead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tsllm.covariates.contemporaneous import ColumnBasis, choose_ridge, features_of, varies
from tsllm.saving.fields import read_fields

#: The largest numbers of lags of the covariates and of the series.
MAX_LAGS, MAX_OWN_LAGS = 24, 48
#: The largest number of evenly spaced origins, and the fewest to learn from.
MAX_ORIGINS, MIN_ORIGINS = 4000, 20


@dataclass
class LaggedEffects:
    """Effects of the covariates' past on the next steps.

    Past covariates enter as lagged regressors on the residuals of the series' own lags. Their
    effect is added to a forecast that reads the series' past only.
    """

    #: One per column.
    bases: list[ColumnBasis]
    #: Steps whose mean and deviation standardise a series.
    window: int
    #: Lags of the series and of the covariates.
    own_lags: int
    lags: int
    #: (variables, own_lags + lags * features, horizon): 0 for steps without an effect.
    weights: np.ndarray
    #: (variables,): Share of the own lags' error that they explained on left-out origins.
    explained: np.ndarray
    #: True where there were enough origins to learn from.
    learnt: bool = True

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return vars(self) | {"bases": [basis.to_state() for basis in self.bases]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the effects from the output of `to_state`."""
        bases = [read_fields(ColumnBasis, basis) for basis in state["bases"]]
        return read_fields(cls, {**state, "bases": bases})

    def lagged_effects(
        self, values: np.ndarray, columns: Sequence[np.ndarray], horizon: int
    ) -> np.ndarray:
        """Forecast the residuals of the next steps from lagged covariates: (horizon, variables).

        ``values`` (time, variables) and ``columns``, each (time,), are the past of one series. The
        effect is 0 beyond the fitted horizon.
        """
        known = min(horizon, self.weights.shape[2])
        effects = np.zeros((horizon, values.shape[1]))
        features = features_of(self.bases, columns)
        for variable, weights in enumerate(self.weights):
            read = self.read(values[:, variable], features)
            if read is not None:
                row, _, deviation = read
                effects[:known, variable] = (row @ weights)[:known] * deviation
        return effects

    def shares(
        self, values: np.ndarray, columns: Sequence[np.ndarray], horizon: int
    ) -> list[np.ndarray]:
        """Compute the share of each column in `lagged_effects`: (horizon, variables) each.

        The rest of the effects is what the covariates take from the series' own lags.
        """
        known = min(horizon, self.weights.shape[2])
        features = features_of(self.bases, columns)
        owner = np.repeat(np.arange(len(self.bases)), [basis.width for basis in self.bases])
        shares = [np.zeros((horizon, values.shape[1])) for _ in self.bases]
        for variable, weights in enumerate(self.weights):
            read = self.read(values[:, variable], features)
            if read is None:
                continue
            row, _, deviation = read
            parts = (row[:, None] * weights)[self.own_lags :]  # (lags * features, horizon)
            for number, share in enumerate(shares):
                mine = np.tile(owner == number, self.lags)
                share[:known, variable] = parts[mine].sum(axis=0)[:known] * deviation
        return shares

    def read(
        self, past: np.ndarray, features: np.ndarray
    ) -> tuple[np.ndarray, float, float] | None:
        """Return the last steps as regressors, and mean and deviation of the window.

        Regressors (own_lags + lags * features,) are relative to the mean. Steps before the series
        and unobserved steps count as the mean. ``past`` is (time,), ``features`` (time, features).
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


def fit_lagged(
    values: Sequence[np.ndarray],
    columns: Sequence[Sequence[np.ndarray]],
    bases: list[ColumnBasis],
    *,
    window: int,
    season: int,
    horizon: int,
) -> LaggedEffects:
    """Fit the effects of the covariates' past on the next ``horizon`` steps.

    ``values`` are the training parts of the series, each (time, variables), and ``columns`` the
    covariates of each. A forecast reads ``window`` steps.
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
        # The model reads the own past, so its contribution is subtracted.
        weights = effects.weights[variable]  # (width, horizon)
        weights[:] = both.weights
        weights[:own_lags] -= alone.weights
        weights[:, both.left_out >= alone.left_out] = 0.0
        gained = np.minimum(both.left_out, alone.left_out).sum()
        effects.explained[variable] = 1 - gained / max(float(alone.left_out.sum()), 1e-300)
    return effects
