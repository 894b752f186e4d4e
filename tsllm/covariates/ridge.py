"""Ridge regression without intercept, shrunk as far as left-out stretches of the rows want it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Penalties that are tried, beside the weight of nothing.
PENALTIES = 10.0 ** np.arange(-1, 7)
N_FOLDS = 5


@dataclass(frozen=True)
class Ridge:
    """Weights, and what they were worth on rows that they were not fitted to.

    Attributes
    ----------
    weights : array (features, targets)
        0 for a target that is better off without.
    left_out : array (targets,)
        Squared error on the left-out rows.
    without : array (targets,)
        The same without any weights.
    """

    weights: np.ndarray
    left_out: np.ndarray
    without: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Share of the squares that the weights explained on left-out rows: (targets,)."""
        spread = np.where(self.without > 0, self.without, 1.0)
        return np.maximum(0.0, 1 - self.left_out / spread)


def choose_ridge(features: np.ndarray, targets: np.ndarray) -> Ridge:
    """Fit one penalty for all targets, chosen on consecutive stretches of the rows in turn.

    Parameters
    ----------
    features : array (rows, features)
    targets : array (rows, targets)
        The rows in the order of time, series after series.

    Returns
    -------
    Ridge

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
    # Rounding must not make an effect out of nothing.
    useful = errors[best] < without * (1 - 1e-9) if folds > 1 else np.zeros(len(without), bool)
    weights = np.where(useful, _solve(gram, product)[best], 0.0)
    return Ridge(weights, np.where(useful, errors[best], without), without)


def _solve(gram: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Solve the normal equations for every penalty: (penalties, features, targets)."""
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ product  # (features, targets)
    shrunk = rotated / (np.maximum(values, 0)[:, None] + PENALTIES[:, None, None])
    return np.einsum("fg,pgt->pft", vectors, shrunk)
