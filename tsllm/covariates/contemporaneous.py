"""Contemporaneous effects of covariates: a basis per column and a ridge regression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import SplineTransformer

from tsllm.saving.fields import read_fields

#: Candidate penalties, besides weights of 0.
PENALTIES = 10.0 ** np.arange(-1, 7)
N_FOLDS = 5

#: Knots of a spline, at quantiles; columns with as few different values get a line only.
N_KNOTS = 5
DEGREE = 3
#: Rows of the regression; of more data, evenly spaced blocks are used.
MAX_ROWS = 200_000
#: Rows of many series whose features are computed at once.
ROWS_AT_ONCE = 2**16
#: Deviations below this share of the level are rounding errors.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Ridge:
    """Weights, and their error on rows that they were not fitted to."""

    #: (features, targets): 0 for a target whose error is lower without weights.
    weights: np.ndarray
    #: (targets,): squared error on the left-out rows.
    left_out: np.ndarray
    #: (targets,): the same with all weights 0.
    without: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Return the explained share of the squares on left-out rows: (targets,)."""
        spread = np.where(self.without > 0, self.without, 1.0)
        return np.maximum(0.0, 1 - self.left_out / spread)


@dataclass
class ColumnBasis:
    """The features of a column: categories, a line, or a line and a cubic spline."""

    #: Categories of the column, with a weight each; 0 for a column of numbers.
    n_categories: int = 0
    #: Of a column of numbers.
    mean: float = 0.0
    deviation: float = 1.0
    #: (knots,): of the spline, in standard units; empty for a line only.
    knots: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        self._spline = None
        if len(self.knots):
            # Outside the training values the line continues and the spline is constant.
            spline = SplineTransformer(
                degree=DEGREE, knots=self.knots[:, None], extrapolation="constant"
            )
            self._spline = spline.fit(self.knots[:, None])

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def width(self) -> int:
        """Return the number of features."""
        if self.n_categories:
            return self.n_categories
        return 1 if self._spline is None else 1 + self._spline.n_features_out_

    def features(self, column: np.ndarray) -> np.ndarray:
        """Compute features (rows, width) of numbers or positions of categories (rows,)."""
        if self.n_categories:
            return np.eye(self.n_categories)[column.astype(int)]
        standard = ((column - self.mean) / self.deviation)[:, None]
        if self._spline is None:
            return standard
        return np.concatenate([standard, self._spline.transform(standard)], axis=1)


@dataclass
class ContemporaneousEffects:
    """Additive effects of covariates on the values of the same step."""

    #: One per column.
    bases: list[ColumnBasis]
    #: (features, variables): in units of a series' scale.
    weights: np.ndarray
    #: (variables,): share of the variation within blocks that they explained on left-out rows.
    explained: np.ndarray

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return vars(self) | {"bases": [basis.to_state() for basis in self.bases]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the effects from the output of `to_state`."""
        bases = [read_fields(ColumnBasis, basis) for basis in state["bases"]]
        return read_fields(cls, {**state, "bases": bases})

    def effect(self, columns: Sequence[np.ndarray], scale: np.ndarray) -> np.ndarray:
        """Compute the effect in a series' units: (rows, variables).

        The columns are arrays (rows,); the scale of the series is an array (variables,).
        """
        return self._effect(features_of(self.bases, columns), self.weights, scale)

    def effects(
        self, series: Sequence[Sequence[np.ndarray]], scales: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Compute `effect` of many series, of which each may have few rows."""
        found: list[np.ndarray] = []
        ends = np.cumsum([len(columns[0]) for columns in series])
        first = 0
        while first < len(series):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + ROWS_AT_ONCE, side="right")))
            joined = [np.concatenate(column) for column in zip(*series[first:last])]
            unit = self.effect(joined, np.ones(self.weights.shape[1]))
            parts = np.split(unit, ends[first : last - 1] - before)
            with np.errstate(over="ignore"):  # a forecast that is not finite is refused
                found += [part * scale for part, scale in zip(parts, scales[first:last])]
            first = last
        return found

    def shares(self, columns: Sequence[np.ndarray], scale: np.ndarray) -> list[np.ndarray]:
        """Compute the effect of each column in a series' units: (rows, variables) each."""
        borders = np.cumsum([basis.width for basis in self.bases])[:-1]
        parts = np.split(self.weights, borders)
        return [
            self._effect(basis.features(column), weights, scale)
            for basis, column, weights in zip(self.bases, columns, parts)
        ]

    @staticmethod
    def _effect(features: np.ndarray, each: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Weigh features (rows, features): (rows, variables)."""
        # No matrix product, whose rounding depends on the number of rows.
        parts = [(features * weights).sum(axis=1) for weights in each.T]
        with np.errstate(over="ignore"):  # a forecast that is not finite is refused
            return np.stack(parts, axis=1) * scale


@dataclass
class CodedSeries:
    """One series as the regression reads it."""

    #: Each (time,): the covariates as numbers, categories as positions.
    columns: list[np.ndarray]
    #: (time, variables): NaN where not observed.
    values: np.ndarray
    #: (variables,): 0 where the series never changes.
    scale: np.ndarray


def fit_contemporaneous(
    series: Sequence[CodedSeries], n_categories: Sequence[int], *, block: int, season: int
) -> ContemporaneousEffects:
    """Fit the effects on the variation within blocks of the series.

    A forecaster knows trends and slow levels from its context, so effects are not fitted to them.
    The same holds for the seasonal pattern, unless the covariates explain it better than the past
    does (the hours of a working day). So effects are fitted twice: to deviations from the block's
    level, and to deviations from the same phase of the block's other seasons. Those are chosen
    whose residual is forecast best by its own seasons. Cross-validation chooses the penalty, and
    whether there is any effect at all. ``n_categories`` has one number a column, 0 for a column of
    numbers. ``block`` is the steps of a block, about one context; ``season`` those of a season.
    """
    bases = [
        basis_of(np.concatenate([one.columns[k] for one in series]), n)
        for k, n in enumerate(n_categories)
    ]
    table = _stack(series, bases, block)
    seasonal = season > 1 and block >= 3 * season
    groupings = [table.block]
    if seasonal:
        groupings.append(table.block * season + table.step % season)
    candidates = []
    for group in groupings:
        fits = [_fit(table.features, target, group) for target in table.targets.T]
        weights = np.stack([fit.weights[:, 0] for fit in fits], axis=1)
        explained = np.array([fit.explained[0] for fit in fits])
        candidates.append(ContemporaneousEffects(bases, weights, explained))
    if not seasonal:
        return candidates[0]
    errors = np.stack([_seasonal_error(series, one, block, season) for one in candidates])
    best = errors.argmin(axis=0)  # (variables,)
    each = np.arange(len(best))
    return ContemporaneousEffects(
        bases,
        np.stack([one.weights for one in candidates])[best, :, each].T,
        np.stack([one.explained for one in candidates])[best, each],
    )


def choose_ridge(features: np.ndarray, targets: np.ndarray) -> Ridge:
    """Fit a ridge regression with one penalty for all targets, chosen by blocked cross-validation.

    Gram matrices of the folds are computed once for all penalties.

    Parameters
    ----------
    features : array (rows, features)
    targets : array (rows, targets)
        The rows in the order of time, series after series; folds are consecutive rows.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> choose_ridge(x, x @ [[2.0], [0.0]]).weights.round(2).ravel().tolist()
    [2.0, 0.0]
    """
    folds = min(N_FOLDS, len(features))
    parts = list(zip(np.array_split(features, folds), np.array_split(targets, folds)))
    grams = np.stack([x.T @ x for x, _ in parts])  # (folds, features, features)
    products = np.stack([x.T @ y for x, y in parts])  # (folds, features, targets)
    squares = np.stack([(y**2).sum(axis=0) for _, y in parts])  # (folds, targets)
    gram, product, without = grams.sum(axis=0), products.sum(axis=0), squares.sum(axis=0)
    errors = np.zeros((len(PENALTIES), targets.shape[1]))
    for k in range(folds if folds > 1 else 0):
        solved = _solve(gram - grams[k], product - products[k])  # (penalties, features, targets)
        fit = np.einsum("pft,fg,pgt->pt", solved, grams[k], solved, optimize=True)
        errors += squares[k] - 2 * np.einsum("pft,ft->pt", solved, products[k]) + fit
    best = int(errors.sum(axis=1).argmin())
    # Rounding errors must not count as an effect.
    useful = errors[best] < without * (1 - 1e-9) if folds > 1 else np.zeros(len(without), bool)
    weights = np.where(useful, _solve(gram, product)[best], 0.0)
    return Ridge(weights, np.where(useful, errors[best], without), without)


def features_of(bases: Sequence[ColumnBasis], columns: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the features of columns (rows,), side by side: (rows, features)."""
    return np.concatenate([basis.features(column) for basis, column in zip(bases, columns)], axis=1)


def basis_of(column: np.ndarray, n_categories: int) -> ColumnBasis:
    """Choose the basis of a column of numbers, or of positions of ``n_categories`` categories."""
    if n_categories:
        return ColumnBasis(n_categories=n_categories)
    mean, deviation = float(column.mean()), float(column.std())
    if not varies(deviation, mean):
        return ColumnBasis(mean=mean)
    standard = (column - mean) / deviation
    knots = np.unique(np.quantile(standard, np.linspace(0, 1, N_KNOTS)))
    if len(np.unique(standard)) <= N_KNOTS:
        knots = knots[:0]
    return ColumnBasis(mean=mean, deviation=deviation, knots=knots)


def scale_of(values: np.ndarray, block: int) -> np.ndarray:
    """Compute the root mean square deviation from block means: (variables,), 0 for a constant.

    ``values`` are (time, variables), NaN where not observed; a block has ``block`` steps.
    """
    groups = np.arange(len(values)) // block
    scales = np.zeros(values.shape[1])
    for variable, column in enumerate(values.T):
        seen = np.isfinite(column)
        if seen.any():
            inside = without_means(column[seen, None], groups[seen])
            deviation = float(np.sqrt((inside**2).mean()))
            level = float(np.abs(column[seen]).max())
            scales[variable] = deviation if varies(deviation, level) else 0.0
    return scales


def varies(deviation: float, level: float) -> bool:
    """Return whether a deviation exceeds the rounding errors of values of that level."""
    return deviation > ROUNDING * abs(level)


@dataclass
class _Table:
    """The rows of all series, thinned by whole blocks."""

    features: np.ndarray  # (rows, features)
    targets: np.ndarray  # (rows, variables), in units of each series' scale
    block: np.ndarray  # (rows,) the number of each row's block
    step: np.ndarray  # (rows,) its step within its series


def _stack(series: Sequence[CodedSeries], bases: Sequence[ColumnBasis], block: int) -> _Table:
    """Stack the rows of all series."""
    every = -(-sum(len(one.values) for one in series) // MAX_ROWS)
    parts = []
    first = 0
    for one in series:
        steps = np.arange(len(one.values))
        blocks = first + steps // block
        first = int(blocks[-1]) + 1
        kept = blocks % every == 0
        if kept.any():
            columns = [column[kept] for column in one.columns]
            parts.append(
                (features_of(bases, columns), _scaled(one)[kept], blocks[kept], steps[kept])
            )
    return _Table(*(np.concatenate(part) for part in zip(*parts)))


def _fit(features: np.ndarray, target: np.ndarray, group: np.ndarray) -> Ridge:
    """Regress deviations from the groups' means, over the observed rows."""
    seen = np.isfinite(target)
    if not seen.any():
        nothing = np.zeros(1)
        return Ridge(np.zeros((features.shape[1], 1)), nothing, nothing)
    return choose_ridge(
        without_means(features[seen], group[seen]), without_means(target[seen, None], group[seen])
    )


def _seasonal_error(
    series: Sequence[CodedSeries], effects: ContemporaneousEffects, block: int, season: int
) -> np.ndarray:
    """Forecast each residual by the mean of its last seasons: squared error (variables,)."""
    total = 0.0
    for one in series:
        rest = _scaled(one) - effects.effect(one.columns, np.ones(one.values.shape[1]))
        seasons = min(block, len(rest) - 1) // season
        if seasons < 1:
            continue
        first = seasons * season
        steps = np.arange(first, len(rest))
        past = rest[steps[:, None] - season * np.arange(1, seasons + 1)]  # (steps, seasons, vars)
        known = np.isfinite(past)
        mean = np.where(known, past, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        error = np.where(known.any(axis=1), rest[first:] - mean, np.nan)
        total = total + np.nansum(error**2, axis=0)
    return np.broadcast_to(total, series[0].scale.shape)


def _solve(gram: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Solve the normal equations for every penalty: (penalties, features, targets)."""
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ product  # (features, targets)
    shrunk = rotated / (np.maximum(values, 0)[:, None] + PENALTIES[:, None, None])
    return np.einsum("fg,pgt->pft", vectors, shrunk)


def _scaled(one: CodedSeries) -> np.ndarray:
    """Return a series in units of its scale; NaN where it never changes."""
    return one.values / np.where(one.scale > 0, one.scale, np.nan)


def without_means(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Subtract each group's mean from the columns (rows, columns)."""
    _, group = np.unique(groups, return_inverse=True)
    counts = np.bincount(group)
    means = np.stack([np.bincount(group, weights=column) / counts for column in columns.T], axis=1)
    return columns - means[group]
