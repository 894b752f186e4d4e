"""Prediction intervals that hold: conformal calibration, per horizon step, kept current on demand.

The forecaster's errors on held-out windows, divided by the scale of each window's context, are
kept as *scores*. A quantile forecast is the forecast plus the matching quantile of the scores times
the scale of the context at hand (split conformal prediction; with a quantile head, conformalised
quantile regression: Romano, Patterson and Candès, NeurIPS 2019). ``adaptive`` calibrations follow
the data: new scores push out the oldest, and the level that is looked up moves against the misses
(adaptive conformal inference: Gibbs and Candès, NeurIPS 2021).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

#: A series with fewer held-out windows than this uses the scores of the whole panel: 39 windows are
#: the fewest for which a 95 % interval has finite ends (rank (n + 1) * 0.975 <= n).
MIN_WINDOWS = 39
#: Scores kept per series, and of the panel as a whole.
MAX_WINDOWS = 256
MAX_POOLED = 2048
#: Step of the adaptive levels (Gibbs and Candès use 0.005 for slow drift; 0.03 recovers from a
#: level shift within some tens of steps).
ADAPTATION_RATE = 0.03
#: The nominal levels whose adapted values are tracked; others are interpolated.
LEVEL_GRID = np.array(
    [0.005, 0.01, 0.025, 0.05, *np.arange(0.1, 0.91, 0.1), 0.95, 0.975, 0.99, 0.995]
)


@dataclass
class Scores:
    """Scaled errors of one series (or of a panel), and the levels adapted to them.

    Attributes
    ----------
    errors : array (windows, horizon, variables, 1 + levels)
        ``(observed - forecast) / scale``, oldest window first, NaN where nothing was observed;
        first the point forecast's, then those of each quantile level of the head.
    adapted : array (grid, horizon, variables) or None
        What each level of ``LEVEL_GRID`` has become; None: the calibration is not adaptive.
    """

    errors: np.ndarray
    adapted: np.ndarray | None = None

    def offsets(self, alphas: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Give the scores' conformal quantiles: ``(alphas, horizon, variables)``."""
        _, horizon, variables, _ = self.errors.shape
        out = np.empty((len(alphas), horizon, variables))
        ordered = None
        for i, alpha in enumerate(alphas):
            if ordered is None or levels:  # a point forecast has the same errors at every level
                ordered = np.sort(blend_levels(self.errors, alpha, levels), axis=0)  # NaN go last
            level = np.broadcast_to(alpha, (horizon, variables))
            if self.adapted is not None:
                level = _interpolate_levels(alpha, self.adapted)  # (horizon, variables)
            out[i] = conformal_quantile(ordered, level)
        return out

    def append(self, errors: np.ndarray, levels: Sequence[float]) -> None:
        """Take in the errors of one forecast, ``(horizon, variables, 1 + levels)``.

        NaN marks the steps that have not been observed yet. Each step's oldest score makes room.
        """
        seen = ~np.isnan(errors[..., 0])  # (horizon, variables)
        if self.adapted is not None:
            current = self.offsets(LEVEL_GRID, levels)  # (grid, horizon, variables)
            for i, alpha in enumerate(LEVEL_GRID):
                below = blend_levels(errors[None], alpha, levels)[0] <= current[i]
                step = ADAPTATION_RATE * (alpha - below)
                self.adapted[i] = np.where(
                    seen, np.clip(self.adapted[i] + step, 0.0, 1.0), self.adapted[i]
                )
            self.adapted = np.maximum.accumulate(self.adapted, axis=0)
        self.errors[:-1, seen] = self.errors[1:, seen]
        self.errors[-1, seen] = errors[seen]


@dataclass
class Calibration:
    """The scores that turn a point forecast into quantiles.

    Parameters
    ----------
    pooled : Scores
        Of all series together, for series with too few held-out windows and for unseen ones.
    series : dict
        Scores of the series that have at least ``MIN_WINDOWS`` held-out windows.
    levels : tuple of float
        Quantile levels of the head; empty for a point head.
    in_sample : bool
        True where no window could be held out, so that the scores are those of training windows
        and the intervals are likely too narrow.
    """

    pooled: Scores
    series: dict[Hashable, Scores] = field(default_factory=dict)
    levels: tuple[float, ...] = ()
    in_sample: bool = False

    @property
    def horizon(self) -> int:
        """Number of calibrated steps."""
        return self.pooled.errors.shape[1]

    @property
    def adaptive(self) -> bool:
        """Whether the scores follow the data in ``update``."""
        return self.pooled.adapted is not None

    def scores_of(self, series_id: Hashable) -> Scores:
        """Give the scores that the intervals of a series are made from."""
        return self.series.get(series_id, self.pooled)

    def follow(self, series_id: Hashable) -> None:
        """Give a series scores of its own, so that following it changes no other's."""
        if series_id not in self.series:
            errors = self.pooled.errors[-MAX_WINDOWS:].copy()
            self.series[series_id] = Scores(errors, copy.deepcopy(self.pooled.adapted))

    def quantiles(
        self,
        forecasts: np.ndarray,
        scales: np.ndarray,
        series_ids: Sequence[Hashable],
        alphas: Sequence[float],
    ) -> np.ndarray:
        """Make quantile forecasts that never cross.

        Parameters
        ----------
        forecasts : array (series, horizon, variables, 1 + levels)
            The model's point forecasts and, with a quantile head, its quantiles.
        scales : array (series, variables)
            The scale of each series' context, in the forecasts' units.
        series_ids : sequence of hashable
            One for each series; unknown ones use the pooled scores.
        alphas : sequence of float
            Levels strictly between 0 and 1.

        Returns
        -------
        array (series, horizon, variables, alphas)
        """
        n_series, horizon, variables, _ = forecasts.shape
        levels = np.asarray(alphas, dtype=float)
        out = np.empty((n_series, horizon, variables, len(levels)))
        offsets: dict[int, np.ndarray] = {}
        for row, series_id in enumerate(series_ids):
            scores = self.scores_of(series_id)
            if id(scores) not in offsets:
                offsets[id(scores)] = extend_steps(scores.offsets(levels, self.levels), horizon)
            for i, alpha in enumerate(levels):
                base = blend_levels(forecasts[row], alpha, self.levels)  # (horizon, variables)
                out[row, ..., i] = base + offsets[id(scores)][i] * scales[row]
        order = np.argsort(levels, kind="stable")
        out[..., order] = np.maximum.accumulate(out[..., order], axis=-1)
        return out

    def warn_if_weak(self, horizon: int) -> None:
        """Say in a warning what makes these intervals less than they should be."""
        windows = int((~np.isnan(self.pooled.errors[:, 0, :, 0])).sum(axis=0).max(initial=0))
        if self.in_sample:
            warnings.warn(
                "the intervals rest on training windows, since no window could be held out, and "
                "are likely too narrow: give longer series, or a validation_fraction above 0",
                stacklevel=3,
            )
        elif windows < MIN_WINDOWS and not self.series:
            warnings.warn(
                f"the intervals rest on {windows} held-out windows only: levels beyond "
                f"{1 / (windows + 1):.2g} and {windows / (windows + 1):.2g} cannot be told apart "
                "and use the most extreme error seen",
                stacklevel=3,
            )
        if horizon > self.horizon:
            warnings.warn(
                f"the intervals are calibrated for {self.horizon} steps and {horizon} are asked "
                "for: beyond them they are widened with the square root of the step; fit with "
                f"prediction_length={horizon} to calibrate them",
                stacklevel=3,
            )


def make_calibration(
    errors: dict[Hashable, np.ndarray],
    levels: tuple[float, ...],
    *,
    adaptive: bool = False,
    in_sample: bool = False,
) -> Calibration:
    """Build a calibration from the scaled errors of each series' held-out windows.

    Parameters
    ----------
    errors : dict of series id to array (windows, horizon, variables, 1 + levels)
        Oldest window first, NaN where nothing was observed.
    levels : tuple of float
        Quantile levels of the head.
    adaptive : bool
        Whether the calibration follows the data.
    in_sample : bool
        Whether the windows were training windows.
    """
    stacked = np.concatenate([e for e in errors.values() if len(e)])
    keep = np.unique(np.linspace(0, len(stacked) - 1, min(len(stacked), MAX_POOLED)).astype(int))
    own = {
        series_id: Scores(e[-MAX_WINDOWS:].copy(), _start_levels(e, adaptive))
        for series_id, e in errors.items()
        if len(e) and (~np.isnan(e[:, 0, :, 0])).sum(axis=0).min() >= MIN_WINDOWS
    }
    pooled = Scores(stacked[keep], _start_levels(stacked, adaptive))
    return Calibration(pooled, own, levels, in_sample)


def conformal_quantile(ordered: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Give finite-sample quantiles of sorted errors.

    The upper levels use rank ``ceil((n + 1) * level)``, the lower ones mirror them, so that an
    interval between two such quantiles holds its nominal coverage for exchangeable errors. Where
    the rank lies outside the sample the most extreme error is used.

    Parameters
    ----------
    ordered : array (windows, horizon, variables)
        Sorted along the first axis, NaN (no error) last.
    level : array (horizon, variables), or one that broadcasts to it

    Returns
    -------
    array (horizon, variables); NaN where a step has no error at all

    Examples
    --------
    >>> errors = np.arange(1.0, 100.0)[:, None, None]
    >>> conformal_quantile(errors, np.array([[0.9]])).item()
    90.0
    >>> conformal_quantile(errors, np.array([[0.1]])).item()
    10.0
    """
    count = (~np.isnan(ordered)).sum(axis=0)  # (horizon, variables)
    level = np.broadcast_to(level, count.shape)
    # A hair is taken off so that 0.9 * 100 does not round up to rank 91.
    upper = np.ceil((count + 1) * level - 1e-9)
    lower = count + 1 - np.ceil((count + 1) * (1 - level) - 1e-9)
    rank = np.where(level >= 0.5, upper, lower).astype(int)
    most = np.maximum(count, 1)
    picked = _at_rank(ordered, np.clip(rank, 1, most))
    median = (_at_rank(ordered, (most + 1) // 2) + _at_rank(ordered, most // 2 + 1)) / 2
    return np.where(level == 0.5, median, picked)


def extend_steps(offsets: np.ndarray, horizon: int) -> np.ndarray:
    """Stretch ``(alphas, steps, variables)`` to a horizon, filling steps without any score.

    Beyond the last step with scores, errors are taken to grow like a random walk's: with the square
    root of the step.
    """
    n_alphas, _, variables = offsets.shape
    known = ~np.isnan(offsets[0])  # (steps, variables)
    out = np.empty((n_alphas, horizon, variables))
    for v in range(variables):
        positions = np.flatnonzero(known[:, v])
        if len(positions) == 0:
            out[:, :, v] = 0.0
            continue
        # the nearest calibrated step at or before each one; before the first, the first
        at = np.searchsorted(positions, np.arange(horizon), side="right") - 1
        source = positions[np.maximum(at, 0)]  # (horizon,)
        growth = np.sqrt((np.arange(horizon) + 1) / (source + 1))
        out[:, :, v] = offsets[:, source, v] * np.where(source <= np.arange(horizon), growth, 1.0)
    return out


def blend_levels(values: np.ndarray, alpha: float, levels: Sequence[float]) -> np.ndarray:
    """Read level ``alpha`` off a last axis of (point, quantile levels), linearly between levels.

    Without quantile levels this is the point forecast (or its error).
    """
    if not levels:
        return values[..., 0]
    position = float(np.interp(alpha, levels, np.arange(len(levels))))
    low = int(position)
    high = min(low + 1, len(levels) - 1)
    weight = position - low
    return (1 - weight) * values[..., 1 + low] + weight * values[..., 1 + high]


def _start_levels(errors: np.ndarray, adaptive: bool) -> np.ndarray | None:
    if not adaptive:
        return None
    _, horizon, variables, _ = errors.shape
    return np.tile(LEVEL_GRID[:, None, None], (1, horizon, variables))


def _interpolate_levels(alpha: float, adapted: np.ndarray) -> np.ndarray:
    """Read a nominal level's adapted value, ``(horizon, variables)``, off the tracked grid."""
    position = float(np.interp(alpha, LEVEL_GRID, np.arange(len(LEVEL_GRID))))
    low = int(position)
    high = min(low + 1, len(LEVEL_GRID) - 1)
    weight = position - low
    return (1 - weight) * adapted[low] + weight * adapted[high]


def _at_rank(ordered: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Pick the error of a rank, counted from 1: (horizon, variables)."""
    rank = np.minimum(rank, len(ordered))
    return np.take_along_axis(ordered, rank[None] - 1, axis=0)[0]
