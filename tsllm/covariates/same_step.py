"""The effect of covariates on the values of their own step: an additive ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import SplineTransformer

from tsllm.covariates.ridge import choose_ridge

#: Knots of a spline, at quantiles, and the fewest different values that one is laid through.
N_KNOTS = 5
DEGREE = 3
#: Rows that the regression reads; of more data evenly spaced blocks are taken.
MAX_ROWS = 200_000


@dataclass
class ColumnBasis:
    """What a column's values become before they are weighted and added up.

    Attributes
    ----------
    levels : int
        Number of categories, each of which has a weight; 0 for a column of numbers.
    mean, deviation : float
        Of a column of numbers.
    knots : array (knots,)
        Of the spline, in standard units; empty where there is only a line.
    """

    levels: int = 0
    mean: float = 0.0
    deviation: float = 1.0
    knots: np.ndarray = None  # type: ignore[assignment]  # filled in where None is given

    def __post_init__(self) -> None:
        if self.knots is None:
            self.knots = np.empty(0)
        self._spline = None
        if len(self.knots):
            # Beyond the values seen the line goes on and the spline stays what it was.
            spline = SplineTransformer(
                degree=DEGREE, knots=self.knots[:, None], extrapolation="constant"
            )
            self._spline = spline.fit(self.knots[:, None])

    @property
    def width(self) -> int:
        """Number of features."""
        if self.levels:
            return self.levels
        return 1 if self._spline is None else 1 + self._spline.n_features_out_

    def features(self, column: np.ndarray) -> np.ndarray:
        """Turn values, or the places of categories, into features (rows, width)."""
        if self.levels:
            return np.eye(self.levels)[column.astype(int)]
        standard = ((column - self.mean) / self.deviation)[:, None]
        if self._spline is None:
            return standard
        return np.concatenate([standard, self._spline.transform(standard)], axis=1)


@dataclass
class SameStepEffects:
    """Additive effects of covariates on the values of the same step.

    Attributes
    ----------
    bases : list of ColumnBasis
        One a column.
    weights : array (features, variables)
        In units of a series' scale.
    explained : array (variables,)
        Share of what varies within blocks that they explained on left-out rows.
    """

    bases: list[ColumnBasis]
    weights: np.ndarray
    explained: np.ndarray

    def effect(self, columns: Sequence[np.ndarray], scale: np.ndarray) -> np.ndarray:
        """Give the effect in a series' units: (rows, variables)."""
        features = np.concatenate(
            [basis.features(column) for basis, column in zip(self.bases, columns)], axis=1
        )
        # No matrix product: how that one rounds depends on the number of rows.
        parts = [(features * weights).sum(axis=1) for weights in self.weights.T]
        return np.stack(parts, axis=1) * scale


@dataclass
class Rows:
    """One series, as the regression reads it.

    Attributes
    ----------
    columns : list of array (time,)
        The covariates, categories as their places.
    values : array (time, variables)
        NaN where not observed.
    scale : array (variables,)
        0 where the series never changes.
    """

    columns: list[np.ndarray]
    values: np.ndarray
    scale: np.ndarray


def fit_same_step(
    series: Sequence[Rows], levels: Sequence[int], *, block: int, season: int
) -> SameStepEffects:
    """Fit the effects on what differs from the same phase of the season within a block.

    Trends, slow levels and the season's pattern, which a forecaster knows from its context, are
    thus not taken for effects of covariates that move alike. Where a block does not hold three
    seasons, only the blocks' levels are taken off. How much the weights are shrunk is chosen on
    left-out stretches, and so is whether there is any effect at all.

    Parameters
    ----------
    series : sequence of Rows
        The parts to learn from.
    levels : sequence of int
        Categories of each column; 0 for numbers.
    block : int
        Steps of a block: about what a forecast reads.
    season : int
        Steps of a season.

    Returns
    -------
    SameStepEffects
    """
    every = -(-sum(len(one.values) for one in series) // MAX_ROWS)
    columns: list[list[np.ndarray]] = [[] for _ in levels]
    values, groups = [], []
    seasonal = season > 1 and block >= 3 * season
    first = 0
    for one in series:
        steps = np.arange(len(one.values))
        blocks = first + steps // block
        first = int(blocks[-1]) + 1
        kept = blocks % every == 0
        for collected, column in zip(columns, one.columns):
            collected.append(column[kept])
        scaled = one.values / np.where(one.scale > 0, one.scale, np.nan)
        values.append(scaled[kept])
        group = blocks * season + steps % season if seasonal else blocks
        groups.append(group[kept])
    joined = [np.concatenate(column) for column in columns]
    bases = [basis_of(column, n) for column, n in zip(joined, levels)]
    features = np.concatenate(
        [basis.features(column) for basis, column in zip(bases, joined)], axis=1
    )
    targets, group = np.concatenate(values), np.concatenate(groups)
    weights = np.zeros((features.shape[1], targets.shape[1]))
    explained = np.zeros(targets.shape[1])
    for variable, target in enumerate(targets.T):
        seen = np.isfinite(target)
        if not seen.any():
            continue
        fitted = choose_ridge(
            _without_means(features[seen], group[seen]),
            _without_means(target[seen, None], group[seen]),
        )
        weights[:, variable] = fitted.weights[:, 0]
        explained[variable] = fitted.explained[0]
    return SameStepEffects(bases, weights, explained)


def basis_of(column: np.ndarray, levels: int) -> ColumnBasis:
    """Choose the features of a column from the values that were seen."""
    if levels:
        return ColumnBasis(levels=levels)
    mean, deviation = float(column.mean()), float(column.std())
    if not deviation > 1e-12 * abs(mean):
        return ColumnBasis(mean=mean)
    standard = (column - mean) / deviation
    knots = np.unique(np.quantile(standard, np.linspace(0, 1, N_KNOTS)))
    if len(np.unique(standard)) <= N_KNOTS:
        knots = knots[:0]
    return ColumnBasis(mean=mean, deviation=deviation, knots=knots)


def scale_of(values: np.ndarray, block: int) -> np.ndarray:
    """Measure how much a series (time, variables) varies within blocks: (variables,)."""
    groups = np.arange(len(values)) // block
    scales = np.zeros(values.shape[1])
    for variable, column in enumerate(values.T):
        seen = np.isfinite(column)
        if seen.any():
            inside = _without_means(column[seen, None], groups[seen])
            deviation = float(np.sqrt((inside**2).mean()))
            level = float(np.abs(column[seen]).max())
            scales[variable] = deviation if deviation > 1e-12 * level else 0.0
    return scales


def _without_means(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Subtract each group's mean from the columns (rows, columns)."""
    _, group = np.unique(groups, return_inverse=True)
    counts = np.bincount(group)
    means = np.stack([np.bincount(group, weights=column) / counts for column in columns.T], axis=1)
    return columns - means[group]
