"""Vectors of texts, reduced to a few features that are learnt from training texts only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_matrix

from tsllm.saving.fields import read_fields
from tsllm.text.encoder import TextVectors

#: Rows that are computed with at once, so that long tables take little memory.
AT_ONCE = 8192
#: Components with less than this share of the first one's variance are rounding errors.
SMALLEST_VARIANCE = 1e-9


@dataclass(frozen=True)
class TextReduction:
    """Principal components of text vectors, in units of the first one's deviation.

    All have one scale, so that a penalty shrinks those of little variance most. The first ones are
    those of the largest variance: a smaller reduction is the beginning of a larger one.

    Examples
    --------
    >>> from tsllm.text import BagOfWords
    >>> bag = BagOfWords.learn(["light rain", "heavy rain", "heavy snow", "light snow"])
    >>> found = bag.encode(["light rain", None, "heavy snow", "heavy rain"])
    >>> reduction = TextReduction.learn(found, 2)
    >>> reduction.features(found).shape, reduction.size
    ((4, 2), 2)
    """

    #: (width,): the mean vector of the training rows.
    mean: np.ndarray
    #: (width, size): components, divided by the first one's deviation on the training rows.
    components: np.ndarray

    @classmethod
    def learn(cls, texts: TextVectors, size: int) -> "TextReduction":
        """Learn components from training rows; fewer than ``size`` where there are no more.

        A text counts as often as it stands in a row. Rows without a text do not count.
        """
        counts = np.bincount(texts.numbers[texts.present], minlength=texts.vectors.shape[0])
        total = max(1, int(counts.sum()))
        width = texts.width
        mean = np.zeros(width)
        square = np.zeros((width, width))
        for first in range(0, len(counts), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            vectors = _float64(texts.vectors[part])
            mean += vectors.T @ counts[part]
            square += vectors.T @ (vectors * counts[part, None])
        mean /= total
        size = min(size, width, max(0, int((counts > 0).sum()) - 1))
        if size == 0:
            return cls(mean, np.empty((width, 0)))
        values, components = eigh(
            square / total - np.outer(mean, mean), subset_by_index=[width - size, width - 1]
        )
        values, components = values[::-1], components[:, ::-1]
        kept = values > SMALLEST_VARIANCE * max(values[0], 0.0)
        components = components[:, kept]
        signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(kept.sum())])
        return cls(mean, components * signs / np.sqrt(values[0]))

    @property
    def size(self) -> int:
        """Return the number of features."""
        return self.components.shape[1]

    def features(self, texts: TextVectors) -> np.ndarray:
        """Compute the features of rows: (rows, size), zeros where there is no text."""
        found = np.zeros((texts.vectors.shape[0] + 1, self.size))  # the last row: no text
        for first in range(0, texts.vectors.shape[0], AT_ONCE):
            vectors = _float64(texts.vectors[first : first + AT_ONCE]) - self.mean
            found[first : first + len(vectors)] = vectors @ self.components
        return found[texts.numbers]

    def to_state(self) -> dict[str, Any]:
        """Return the fields, arrays."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "TextReduction":
        """Build a reduction from the output of `to_state`."""
        return read_fields(cls, state)


def _float64(vectors: np.ndarray | csr_matrix) -> np.ndarray:
    dense = vectors.toarray() if isinstance(vectors, csr_matrix) else vectors
    return dense.astype(np.float64)
