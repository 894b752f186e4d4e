"""The forecasts of many series that wait for their observations, for adaptive streams."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsllm.context import within_rounding
from tsllm.errors import ModelFormatError
from tsllm.forecasters.forecasting import Prediction
from tsllm.forecasters.state import PendingForecasts
from tsllm.intervals.calibration import LEVEL_GRID
from tsllm.intervals.tracked import TrackedCalibration


@dataclass(frozen=True)
class Turn:
    """One observation of some series, and the forecasts after it."""

    places: np.ndarray  # (series,)
    observed: np.ndarray  # (series, variables)
    forecasts: np.ndarray  # (series, horizon, variables, 1 + levels)
    scales: np.ndarray  # (series, variables)
    made: np.ndarray  # (series,), whether there is a forecast


class WaitingForecasts:
    """What `PendingForecasts` holds of one series, for many, in arrays.

    A forecast of a step is kept under the step that it is made for: the slots are the next
    ``horizon`` steps of a series, in a ring. So an observation is compared with one slot.

    Parameters
    ----------
    calibration : TrackedCalibration
        It follows the same series, at the same places.
    """

    def __init__(self, calibration: TrackedCalibration) -> None:
        self._calibration = calibration
        horizon, variables, heads = calibration.pooled.errors.shape[1:]
        ring = (0, horizon, horizon, variables)  # (series, slots, steps ahead, variables)
        self._parts: dict[str, np.ndarray] = {
            "forecasts": np.empty((*ring, heads)),
            # the scale of each forecast; NaN where its errors tell nothing
            "divisors": np.empty(ring),
            "issued": np.empty((*ring[:3], len(LEVEL_GRID), variables), dtype=np.float32),
            "scales": np.empty((0, variables)),  # of the latest forecast
            "turns": np.empty(0, dtype=np.int64),  # the slot of the next step
            "begun": np.empty(0, dtype=bool),  # whether there has been a forecast
            "fresh": np.empty(0, dtype=bool),  # whether there is one after the last step
        }

    def __len__(self) -> int:
        return len(self._parts["turns"])

    @property
    def horizon(self) -> int:
        """Return the steps of the forecasts."""
        return self._parts["forecasts"].shape[2]

    @property
    def nbytes(self) -> int:
        """Return the bytes of the arrays, those of the calibration included."""
        return sum(part.nbytes for part in self._parts.values()) + self._calibration.nbytes

    def add(
        self, series_ids: Sequence[Hashable], pending: Mapping[Hashable, PendingForecasts]
    ) -> np.ndarray:
        """Add series and the forecasts that wait for them; return the places without any."""
        first, count = len(self), len(series_ids)
        self._calibration.add(series_ids)
        for name, part in self._parts.items():
            filling = np.nan if name in ("forecasts", "divisors") else 0
            new = np.full((count, *part.shape[1:]), filling, dtype=part.dtype)
            self._parts[name] = np.concatenate([part, new])
        without = []
        for place, series_id in enumerate(series_ids, first):
            own = pending.get(series_id)
            if own is None or not own.waiting:
                without.append(place)
                continue
            for origin, forecast, scale, issued in own.waiting:
                self._put(place, forecast, scale, np.moveaxis(issued, 0, 1), own.seen - origin)
            origin, _, scale, _ = own.waiting[-1]
            self._parts["scales"][place] = scale
            self._parts["begun"][place] = True
            self._parts["fresh"][place] = origin == own.seen
        return np.array(without, dtype=np.int64)

    def _put(
        self, place: int, forecast: np.ndarray, scale: np.ndarray, issued: np.ndarray, age: int
    ) -> None:
        """Keep the steps of a forecast that were not observed yet; ``age`` of them were."""
        steps = np.arange(age, self.horizon)
        slots = (self._parts["turns"][place] + steps - age) % self.horizon
        self._parts["forecasts"][place, slots, steps] = forecast[steps]
        self._parts["divisors"][place, slots, steps] = _divisors(forecast, scale)
        self._parts["issued"][place, slots, steps] = issued[steps]

    # ------------------------------------------------------------------ forecasts and observations

    def latest(self, places: np.ndarray) -> Prediction | None:
        """Return the forecasts after the last steps of series; None if one of them has none."""
        parts = self._parts
        if not parts["fresh"][places].all():
            return None
        at = self._slots(places, parts["turns"][places])
        return parts["forecasts"][at], parts["scales"][places]

    def issue(self, places: np.ndarray, forecasts: np.ndarray, scales: np.ndarray) -> None:
        """Keep forecasts (series, horizon, ...) that are made after the last steps of series."""
        self._keep(places, forecasts, scales)
        offsets = self._calibration.own_grid(places) + self._calibration.shifts_of(places)
        self._keep_issued(places, self._parts["turns"][places], offsets)

    def follow(self, turns: Sequence[Turn]) -> None:
        """Compare observations, one after the other, with the forecasts that wait for them."""
        parts, calibration = self._parts, self._calibration
        compared = []
        for turn in turns:
            slot = parts["turns"][turn.places]
            begun = parts["begun"][turn.places]
            fresh = None if begun.all() else calibration.own_grid(turn.places[~begun])
            errors = self._errors_of(turn, slot)
            compared.append((slot, begun, fresh, (turn.places[begun], errors[begun])))
        pushed = calibration.push([observed for *_, observed in compared])
        for turn, (slot, begun, fresh, observed), (before, after) in zip(turns, compared, pushed):
            made = turn.made
            # (series, horizon, grid, variables)
            issued = parts["issued"][turn.places[begun], slot[begun]]
            calibration.move(observed, (before, after), np.moveaxis(issued, 2, 1))
            own = after
            if fresh is not None:
                own = np.empty((len(begun), *after.shape[1:]))
                own[begun], own[~begun] = after, fresh
            offsets = own[made] + calibration.shifts_of(turn.places[made])
            self._keep_issued(turn.places[made], (slot[made] + 1) % self.horizon, offsets)

    def _errors_of(self, turn: Turn, slot: np.ndarray) -> np.ndarray:
        """Compute the errors (series, horizon, variables, 1 + levels) of the forecasts of a turn.

        The slots of the observations then take the next forecasts.
        """
        parts, places = self._parts, turn.places
        forecasts, divisors = parts["forecasts"][places, slot], parts["divisors"][places, slot]
        errors = (turn.observed[:, None, :, None] - forecasts) / divisors[..., None]
        parts["forecasts"][places, slot] = parts["divisors"][places, slot] = np.nan
        parts["turns"][places] = (slot + 1) % self.horizon
        parts["fresh"][places] = False
        made = turn.made
        self._keep(places[made], turn.forecasts[made], turn.scales[made])
        return np.asarray(errors)

    def _keep(self, places: np.ndarray, forecasts: np.ndarray, scales: np.ndarray) -> None:
        """Keep forecasts, and the divisors of their errors, in the slots of their steps."""
        parts, (rows, slots, steps) = self._parts, self._slots(places, self._parts["turns"][places])
        parts["forecasts"][rows, slots, steps] = forecasts
        parts["divisors"][rows, slots, steps] = _divisors(forecasts, scales)[:, None]
        parts["scales"][places] = scales
        parts["begun"][places] = parts["fresh"][places] = True

    def _keep_issued(self, places: np.ndarray, slot: np.ndarray, offsets: np.ndarray) -> None:
        """Keep the offsets (series, grid, horizon, variables) of forecasts from a slot on."""
        rows, slots, steps = self._slots(places, slot)
        self._parts["issued"][rows, slots, steps] = np.moveaxis(offsets, 1, 2)

    def _slots(
        self, places: np.ndarray, slot: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the positions of forecasts in the rings, from their first slots on."""
        steps = np.arange(self.horizon)
        return places[:, None], (slot[:, None] + steps) % self.horizon, steps

    # ------------------------------------------------------------------ saving

    def to_state(self) -> dict[str, Any]:
        """Return the arrays by name; the calibration is saved by itself."""
        return dict(self._parts)

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        calibration: TrackedCalibration,
        series_ids: Sequence[Hashable],
    ) -> "WaitingForecasts":
        """Build the forecasts of series from the output of `to_state`."""
        waiting = cls(calibration)
        waiting.add(series_ids, {})
        wanted = {name: (part.shape, part.dtype) for name, part in waiting._parts.items()}
        found = {
            name: (np.shape(part), getattr(part, "dtype", None)) for name, part in state.items()
        }
        if found != wanted:
            raise ModelFormatError(
                "the saved stream has waiting forecasts that are not those of its model: save it "
                "again"
            )
        waiting._parts = dict(state)
        return waiting


def _divisors(forecasts: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return what errors are divided by: ([series,] variables).

    These are the scales, and NaN where a scale is faint: an error of a context that is constant but
    for rounding tells nothing.
    """
    return np.where(within_rounding(scales, forecasts[..., 0, :, 0]), np.nan, scales)
