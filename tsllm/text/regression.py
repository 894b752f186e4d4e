"""Ridge regression of several quantities on the vectors of texts, chosen by leaving one out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsllm.saving.fields import read_fields

#: Penalties, in shares of the total variance of the vectors; more than the last is infinite.
PENALTIES = 10.0 ** np.arange(-3, 4.01, 0.5)
#: Numbers of principal components.
SIZES = (4, 8, 16, 32, 64, 128, 256)
#: Components whose variance is below this share of the first one's are rounding errors.
LEAST_SHARE = 1e-12
#: A regression must lower the error of the mean by this share, or the mean is used.
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class TextRegression:
    """Quantities of a text: their mean, and what the principal components of its vector add.

    Quantities of one group share a penalty and a number of components. Both are chosen by the
    exact error of leaving one row out; where no choice is better than the mean, the group keeps the
    mean.
    """

    #: (width,): the mean of the vectors.
    centre: np.ndarray
    #: (quantities,): the mean of each quantity.
    means: np.ndarray
    #: (width, quantities)
    weights: np.ndarray
    #: For each group the number of components (0: the mean), the penalty, and the share of the
    #: squared error of the mean that is left when a row is left out.
    chosen: tuple[tuple[int, float, float], ...]

    @classmethod
    def fit(
        cls, vectors: np.ndarray, targets: np.ndarray, groups: Sequence[Sequence[int]]
    ) -> tuple["TextRegression", np.ndarray]:
        """Fit a regression, and predict each row without itself.

        Parameters
        ----------
        vectors : array (rows, width)
            Of the texts. A width of 0 leaves the means.
        targets : array (rows, quantities)
            At least two rows.
        groups : sequence of sequences of int
            The columns of ``targets`` that share a penalty; each belongs to one group.

        Returns
        -------
        TextRegression
        array (rows, quantities)
            Of each row the prediction of the regression on the other rows.
        """
        rows, width = vectors.shape
        vectors = np.asarray(vectors, dtype=np.float64)
        centre, means = vectors.mean(axis=0), targets.mean(axis=0)
        left, spread, right = np.linalg.svd(vectors - centre, full_matrices=False)
        kept = spread**2 > LEAST_SHARE * max(float((spread**2).max(initial=0.0)), 1e-300)
        left, spread, right = left[:, kept], spread[kept], right[kept]
        variance = float((spread**2).sum()) / rows
        around = targets - means  # (rows, quantities)
        weights = np.zeros((width, targets.shape[1]))
        without = np.empty_like(targets, dtype=np.float64)
        chosen = []
        for group in groups:
            own = around[:, group]
            alone = own * rows / (rows - 1)  # the error of the mean of the others
            error = least = float((alone**2).sum())
            best, best_residual = (0, np.inf), alone
            for size in sorted({min(size, len(spread)) for size in SIZES} - {0}):
                for penalty in PENALTIES:
                    residual = _left_out(left, spread, own, size, penalty * variance)
                    found = float((residual**2).sum())
                    if found < min(least, (1 - LEAST_GAIN) * error):
                        least, best, best_residual = found, (size, float(penalty)), residual
            without[:, group] = targets[:, group] - best_residual
            size, penalty = best
            if size:
                shrunk = spread[:size] / (spread[:size] ** 2 + penalty * variance)
                weights[:, group] = right[:size].T @ (shrunk[:, None] * (left[:, :size].T @ own))
            chosen.append((size, penalty, least / error if error > 0 else 1.0))
        return cls(centre, means, weights, tuple(chosen)), without

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Predict the quantities of texts with vectors (rows, width): (rows, quantities)."""
        return self.means + (np.asarray(vectors, dtype=np.float64) - self.centre) @ self.weights

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "TextRegression":
        """Build the regression from the output of `to_state`."""
        return read_fields(cls, state)


def _left_out(
    left: np.ndarray, spread: np.ndarray, around: np.ndarray, size: int, penalty: float
) -> np.ndarray:
    """Compute the errors, (rows, quantities), of predicting each row from the others.

    ``left`` and ``spread`` are of the singular value decomposition of the centred vectors, and
    ``around`` are the centred quantities. The components and the penalty are those of all rows; the
    intercept and the weights are fitted without the row (the formula is exact).
    """
    basis = left[:, :size]
    shares = spread[:size] ** 2 / (spread[:size] ** 2 + penalty)
    fitted = (basis * shares) @ (basis.T @ around)
    leverage = (basis**2 * shares).sum(axis=1) + 1 / len(left)
    return (around - fitted) / np.maximum(1 - leverage, 1e-9)[:, None]
