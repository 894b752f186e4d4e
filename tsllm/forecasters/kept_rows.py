"""The last steps of many series in memory of constant size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Least steps by which a buffer is longer than what it keeps; half of that where this is more.
_LEAST_SPARE = 32


class KeptRows:
    """The last ``keep`` steps of each of some series; a new step takes constant time.

    Each series has a buffer that is half as long again. At its end the kept steps move to its
    front, so the steps of a series always lie side by side.

    Parameters
    ----------
    histories : sequence of array (steps, variables)
        The steps of each series so far, numbers or objects.
    keep : int
        Steps to keep.

    Examples
    --------
    >>> rows = KeptRows([np.array([[1.0], [2.0]]), np.array([[3.0]])], keep=2)
    >>> rows.append(np.array([0]), np.array([[4.0]]))
    >>> rows.of(0).ravel().tolist(), rows.of(1).ravel().tolist()
    ([2.0, 4.0], [3.0])
    """

    def __init__(self, histories: Sequence[np.ndarray], keep: int) -> None:
        self.keep = keep
        shape = (0, keep + max(_LEAST_SPARE, keep // 2), histories[0].shape[1])
        self._buffers = np.empty(shape, dtype=histories[0].dtype)
        self._ends = np.empty(0, dtype=np.int64)
        self._counts = np.empty(0, dtype=np.int64)
        self.add(histories)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the buffers."""
        return self._buffers.nbytes + self._ends.nbytes + self._counts.nbytes

    def add(self, histories: Sequence[np.ndarray]) -> None:
        """Add further series."""
        new = np.full((len(histories), *self._buffers.shape[1:]), np.nan, self._buffers.dtype)
        counts = np.array([min(len(one), self.keep) for one in histories], dtype=np.int64)
        for buffer, count, history in zip(new, counts.tolist(), histories):
            buffer[:count] = history[len(history) - count :]
        self._buffers = np.concatenate([self._buffers, new])
        self._ends = np.concatenate([self._ends, counts])
        self._counts = np.concatenate([self._counts, counts])

    def append(self, places: np.ndarray, values: np.ndarray) -> None:
        """Append a step (series, variables) to the series at some places, which differ."""
        ends = self._ends[places]
        full = ends == self._buffers.shape[1]
        if full.any():
            moved, kept = places[full], self.keep - 1
            self._buffers[moved, :kept] = self._buffers[moved, ends[full][0] - kept :]
            ends[full] = kept
        self._buffers[places, ends] = values
        self._ends[places] = ends + 1
        self._counts[places] = np.minimum(self._counts[places] + 1, self.keep)

    def of(self, place: int) -> np.ndarray:
        """Return the kept steps of a series (steps, variables), until the next change."""
        end = self._ends[place]
        return self._buffers[place, end - self._counts[place] : end]

    def to_state(self) -> dict[str, Any]:
        """Return the kept steps of all series, one after the other, and their numbers."""
        steps = [self.of(place) for place in range(len(self))]
        return {"steps": np.concatenate(steps), "counts": self._counts, "keep": self.keep}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "KeptRows":
        """Build the rows from the output of `to_state`."""
        borders = np.cumsum(state["counts"])[:-1]
        return cls(np.split(state["steps"], borders), state["keep"])
