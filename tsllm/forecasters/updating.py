"""New observations: appended to what is known, and compared with what had been forecast."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.forecasters.frames import stamps_after
from tsllm.intervals import Calibration


def extend_context(known: Context, new: Context) -> Context:
    """Append the new rows to a context; rows that were seen before take their new values.

    sktime's splitters hand over rows again that were seen before, and so do people who correct
    their data. Rows from before the kept context are known already and change nothing.

    Raises
    ------
    DataError
        The new rows do not start at or before the stamp after the last one known, or end before
        the kept context begins.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> known = Context(np.array([1.0, 2.0]), times=pd.RangeIndex(2))
    >>> extend_context(known, Context(np.array([5.0, 3.0]), times=pd.Index([1, 2]))).values.ravel()
    array([1., 5., 3.])
    """
    name = series_name(known.series_id)
    if new.times[-1] < known.times[0]:
        raise DataError(
            f"the update of {name} ends at {new.times[-1]}, before the context that is kept begins "
            f"({known.times[0]}): pass rows after {known.times[-1]}"
        )
    begin = max(0, int(new.times.searchsorted(known.times[0])))
    times, values = new.times[begin:], new.values[begin:]
    expected = stamps_after(known, 1)[0]
    if times[0] > expected:
        raise DataError(
            f"the update of {name} begins at {times[0]} and the series ends at {known.times[-1]}: "
            f"pass the rows from {expected} on, as NaN where nothing was observed"
        )
    if times[0] == expected:
        position = len(known)
    else:
        position = int(known.times.get_indexer(times[:1])[0])
        if position < 0:
            raise DataError(
                f"the update of {name} has the stamp {times[0]}, which lies between the stamps of "
                f"the series (its frequency is {getattr(known.times, 'freqstr', 'one step')}): "
                "resample it first"
            )
    end = position + len(times)  # known rows after the new ones stay
    merged = np.concatenate([known.values[:position], values, known.values[end:]])
    stamps = known.times[:position].append([times, known.times[end:]])
    if isinstance(known.times, pd.DatetimeIndex) and known.times.freq is not None:
        stamps = pd.DatetimeIndex(stamps, freq=known.times.freq)
    past_x = None
    if known.past_x is not None and new.past_x is not None:
        rows = new.past_x[begin:]
        past_x = np.concatenate([known.past_x[:position], rows, known.past_x[end:]])
    return known.with_values(merged, times=stamps, past_x=past_x)


@dataclass
class PendingForecasts:
    """Forecasts of one series that wait for their observations, for adaptive intervals.

    At most ``horizon`` forecasts are kept, one an update, so the memory is constant.
    """

    series_id: Hashable
    horizon: int
    seen: int = 0
    #: Steps seen before it, the forecast, its scale, and the offsets it was issued with.
    waiting: deque[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=deque)

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        origins, *arrays = zip(*self.waiting)
        forecasts, scales, issued = map(np.stack, arrays)
        waiting = {"origins": origins, "forecasts": forecasts, "scales": scales, "issued": issued}
        return vars(self) | {"waiting": waiting}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PendingForecasts:
        """Build the forecasts from the output of `to_state`."""
        waiting = (state["waiting"][name] for name in ("origins", "forecasts", "scales", "issued"))
        return cls(**{**state, "waiting": deque(zip(*waiting))})

    def add(self, forecast: np.ndarray, scale: np.ndarray, issued: np.ndarray) -> None:
        """Remember a forecast that was made after the last step seen.

        Parameters
        ----------
        forecast : array (horizon, variables, 1 + levels)
        scale : array (variables,)
        issued : array (grid, horizon, variables)
            The calibration's offsets at its tracked levels.
        """
        self.waiting.append((self.seen, forecast, scale, issued.astype(np.float32)))
        while len(self.waiting) > self.horizon:
            self.waiting.popleft()

    def score(self, observed: np.ndarray, calibration: Calibration) -> None:
        """Compare new observations (steps, variables) with every forecast that reached them."""
        scores = calibration.scores_of(self.series_id)
        for row in observed:
            _, forecast, _, issued = self.waiting[-1]
            errors = np.full(forecast.shape, np.nan)  # (horizon, variables, 1 + levels)
            bounds = np.full(issued.shape, np.nan)  # (grid, horizon, variables)
            for origin, forecast, scale, issued in self.waiting:
                step = self.seen - origin
                if step < self.horizon:
                    divisor = np.where(scale > 0, scale, np.nan)[:, None]
                    errors[step] = (row[:, None] - forecast[step]) / divisor
                    bounds[:, step] = issued[:, step]
            scores.append(errors, bounds, calibration.levels)
            self.seen += 1
