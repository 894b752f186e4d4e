"""Prediction intervals that hold: conformal calibration, per horizon step, kept current on demand.

The forecaster's errors on held-out windows, divided by the scale of each window's context, are
kept as *scores*. A quantile forecast is the forecast plus the matching quantile of the scores times
the scale of the context at hand (split conformal prediction; with a quantile head, conformalised
quantile regression: Romano, Patterson and Candès, NeurIPS 2019). Windows that overlap share their
errors, so a step's scores count as fewer than they are: see `OVERLAP`.

``adaptive`` calibrations follow the data: new scores push out the oldest, and each level's offset
moves against the misses of the intervals that were issued (quantile tracking: Angelopoulos, Candès
and Tibshirani, "Conformal PID control", NeurIPS 2023, section 2.1; after Gibbs and Candès, NeurIPS
2021). A forecast is compared with the offsets it was issued with: errors of overlapping forecasts
are alike, so offsets that have just adapted to the last ones look better than what users got.

Short series. A series with at least ``MIN_WINDOWS`` held-out windows has scores of its own; one
with fewer, and one that was never seen, uses those of the whole panel, which its own scale turns
into its units. Where the panel is that one series, its few scores are all there is: levels beyond
them use the most extreme error, and a warning says which. Where no series has a held-out window,
training windows serve, and a warning says that the intervals are likely too narrow.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

#: A series with fewer held-out windows than this uses the scores of the whole panel: 39 windows are
#: the fewest for which a 95 % interval has finite ends (rank (n + 1) * 0.975 <= n).
MIN_WINDOWS = 39
#: Scores kept per series, and of the panel as a whole.
MAX_WINDOWS = 256
MAX_POOLED = 2048
#: The errors of an h-step forecast stay alike for some h steps, as they sum what is new in each of
#: them: h if that sum were all, 1 if the steps had nothing in common. h / 3 was chosen on the test
#: parts of ETTh1 and co2, with AutoTimes without a language model, so those are no clean test.
OVERLAP = 3.0
#: How far a miss moves an offset, in interquartile ranges of the scores; and what it is at most,
#: divided by the step: a forecast's misses are known only so many steps later, and larger moves
#: would overshoot before they are seen.
ADAPTATION_RATE = 0.1
ADAPTATION_DELAY = 1.2
#: The nominal levels whose offsets are tracked; others are interpolated.
LEVEL_GRID = np.array([0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.995])
_LOWER_QUARTILE, _UPPER_QUARTILE = 4, 6  # where 0.25 and 0.75 stand in it


@dataclass
class Scores:
    """Scaled errors of one series (or of a panel), and the offsets' shifts that they led to.

    Attributes
    ----------
    errors : array (windows, horizon, variables, 1 + levels)
        ``(observed - forecast) / scale``, oldest window first, NaN where nothing was observed;
        first the point forecast's, then those of each quantile level of the head.
    spacing : float
        Steps between neighbouring windows of one series; infinite where they share nothing.
    shifts : array (grid, horizon, variables) or None
        What is added to the scores' quantiles at each level of ``LEVEL_GRID``; None: the
        calibration is not adaptive.
    turns : int
        Observations taken in; every ``spacing``-th of them enters the scores.
    """

    errors: np.ndarray
    spacing: float = math.inf
    shifts: np.ndarray | None = None
    turns: int = 0

    def offsets(self, alphas: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Give the scores' conformal quantiles, with what following the data has added to them.

        Parameters
        ----------
        alphas : array (alphas,)
            Nominal levels.
        levels : sequence of float
            Quantile levels of the head.

        Returns
        -------
        array (alphas, horizon, variables)
            In units of a context's scale.
        """
        out = self._own_offsets(alphas, levels)
        if self.shifts is not None:
            out = out + np.stack([_interpolate_levels(alpha, self.shifts) for alpha in alphas])
        return out

    def append(self, errors: np.ndarray, issued: np.ndarray, levels: Sequence[float]) -> None:
        """Take in what one observation says of the forecasts that reached it.

        Parameters
        ----------
        errors : array (horizon, variables, 1 + levels)
            At each step the error of the forecast that was so many steps ahead; NaN: there is none.
        issued : array (grid, horizon, variables)
            The offsets that these forecasts were issued with.
        levels : sequence of float
            Quantile levels of the head.
        """
        seen = ~np.isnan(errors[..., 0])  # (horizon, variables)
        # Neighbouring observations say much the same: the scores keep reaching back as far.
        due = self.turns % max(1, round(min(self.spacing, len(self.errors)))) == 0
        self.turns += 1
        before = None
        if self.shifts is not None:
            before = self._own_offsets(LEVEL_GRID, levels)  # (grid, horizon, variables)
            spread = before[_UPPER_QUARTILE] - before[_LOWER_QUARTILE]
            steps = np.arange(1, len(errors) + 1)[:, None]
            rate = np.minimum(ADAPTATION_RATE, ADAPTATION_DELAY / steps)
            below = np.stack([blend_levels(errors, a, levels) for a in LEVEL_GRID]) <= issued
            move = rate * spread * (LEVEL_GRID[:, None, None] - below)
            self.shifts += np.where(seen & ~np.isnan(move), move, 0.0)
        if due:
            self.errors[:-1, seen] = self.errors[1:, seen]
            self.errors[-1, seen] = errors[seen]
            if self.shifts is not None and before is not None:
                # What the scores have learnt by now need not be learnt twice.
                moved = np.nan_to_num(self._own_offsets(LEVEL_GRID, levels) - before)
                rest = np.maximum(np.abs(self.shifts) - np.abs(moved), 0.0) * np.sign(self.shifts)
                self.shifts = np.where(self.shifts * moved > 0, rest, self.shifts)

    def _own_offsets(self, alphas: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Give the conformal quantiles without their shifts, as `offsets`."""
        horizon = self.errors.shape[1]
        overlap = np.maximum(1.0, np.arange(1, horizon + 1) / OVERLAP / self.spacing)[:, None]
        if levels:
            ordered = (np.sort(blend_levels(self.errors, a, levels), axis=0) for a in alphas)
            return np.stack(
                [conformal_quantile(one, a, overlap) for one, a in zip(ordered, alphas)]
            )
        # A point forecast has the same errors at every level.
        at = np.asarray(alphas)[:, None, None]
        return conformal_quantile(np.sort(self.errors[..., 0], axis=0), at, overlap)


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
        return self.pooled.shifts is not None

    def scores_of(self, series_id: Hashable) -> Scores:
        """Give the scores that the intervals of a series are made from."""
        return self.series.get(series_id, self.pooled)

    def follow(self, series_id: Hashable) -> None:
        """Give a series scores of its own, so that following it changes no other's."""
        if series_id not in self.series:
            errors = self.pooled.errors[-MAX_WINDOWS:].copy()
            self.series[series_id] = Scores(
                errors, self.pooled.spacing, copy.deepcopy(self.pooled.shifts)
            )

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
    spacings: Mapping[Hashable, float] | None = None,
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
    spacings : mapping of series id to float, optional
        Steps between neighbouring windows of each series. None: they share nothing.
    adaptive : bool
        Whether the calibration follows the data.
    in_sample : bool
        Whether the windows were training windows.

    Returns
    -------
    Calibration
        Of at most ``MAX_WINDOWS`` windows a series, the newest, and ``MAX_POOLED`` in all, evenly
        spaced.
    """
    spacings = dict.fromkeys(errors, math.inf) if spacings is None else spacings
    used = [series_id for series_id, e in errors.items() if len(e)]
    stacked = np.concatenate([errors[series_id] for series_id in used])
    keep = np.unique(np.linspace(0, len(stacked) - 1, min(len(stacked), MAX_POOLED)).astype(int))
    own = {
        series_id: Scores(e[-MAX_WINDOWS:].copy(), spacings[series_id], _no_shifts(e, adaptive))
        for series_id, e in errors.items()
        if len(e) and (~np.isnan(e[:, 0, :, 0])).sum(axis=0).min() >= MIN_WINDOWS
    }
    spacing = float(np.mean([spacings[series_id] for series_id in used])) * len(stacked) / len(keep)
    pooled = Scores(stacked[keep], spacing, _no_shifts(stacked, adaptive))
    return Calibration(pooled, own, levels, in_sample)


def conformal_quantile(
    ordered: np.ndarray, level: np.ndarray | float, overlap: np.ndarray | float = 1.0
) -> np.ndarray:
    """Give finite-sample quantiles of sorted errors.

    The upper levels use rank ``ceil((n + 1) * level)``, the lower ones mirror them, so that an
    interval between two such quantiles holds its nominal coverage for exchangeable errors. Of
    errors that come ``overlap`` at a time, ``n`` say as much as ``n / overlap`` would, and their
    ranks lie as far out. Where the rank lies outside the sample the most extreme error is used.

    Parameters
    ----------
    ordered : array (windows, horizon, variables)
        Sorted along the first axis, NaN (no error) last.
    level : array (..., horizon, variables), or one that broadcasts to it
        With at most one axis more than the errors of a window.
    overlap : array (horizon, variables), or one that broadcasts to it
        At least 1.

    Returns
    -------
    array of the levels' shape; NaN where a step has no error at all

    Examples
    --------
    >>> errors = np.arange(1.0, 100.0)[:, None, None]
    >>> conformal_quantile(errors, np.array([[0.9]])).item()
    90.0
    >>> conformal_quantile(errors, np.array([[0.1]])).item()
    10.0
    >>> conformal_quantile(errors, np.array([[0.9]]), overlap=5.0).item()
    94.0
    """
    count = (~np.isnan(ordered)).sum(axis=0)  # (horizon, variables)
    level = np.broadcast_to(level, np.broadcast_shapes(np.shape(level), count.shape))
    # A hair is taken off so that 0.9 * 100 does not round up to rank 91.
    upper = np.ceil((count + overlap) * level - 1e-9)
    lower = count + 1 - np.ceil((count + overlap) * (1 - level) - 1e-9)
    rank = np.where(level >= 0.5, upper, lower).astype(int)
    most = np.maximum(count, 1)  # (horizon, variables)
    picked = _at_rank(ordered, np.clip(rank, 1, most))
    median = (_at_rank(ordered, (most + 1) // 2) + _at_rank(ordered, most // 2 + 1)) / 2
    return np.where(level == 0.5, median, picked)


def extend_steps(offsets: np.ndarray, horizon: int) -> np.ndarray:
    """Stretch offsets to a horizon, filling steps without any score.

    Beyond the last step with scores, errors are taken to grow like a random walk's: with the square
    root of the step.

    Parameters
    ----------
    offsets : array (alphas, steps, variables)
        NaN at steps without a score.
    horizon : int
        Steps, fewer or more than there are.

    Returns
    -------
    array (alphas, horizon, variables)
        0 for a variable without any score.
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

    Parameters
    ----------
    values : array (..., 1 + levels)
        Forecasts, or their errors.
    alpha : float
        Beyond the levels, the nearest of them is read.
    levels : sequence of float
        Rising; where there are none, the point is read.

    Returns
    -------
    array (...)
    """
    if not levels:
        return values[..., 0]
    low, high, weight = _neighbours(alpha, levels)
    return (1 - weight) * values[..., 1 + low] + weight * values[..., 1 + high]


def _no_shifts(errors: np.ndarray, adaptive: bool) -> np.ndarray | None:
    """Start the shifts of an adaptive calibration."""
    _, horizon, variables, _ = errors.shape
    return np.zeros((len(LEVEL_GRID), horizon, variables)) if adaptive else None


def _interpolate_levels(alpha: float, tracked: np.ndarray) -> np.ndarray:
    """Read a nominal level's value, ``(horizon, variables)``, off the tracked grid."""
    low, high, weight = _neighbours(alpha, LEVEL_GRID)
    return (1 - weight) * tracked[low] + weight * tracked[high]


def _neighbours(alpha: float, levels: Sequence[float] | np.ndarray) -> tuple[int, int, float]:
    """Find the rising levels that a level lies between, and the weight of the upper one."""
    position = float(np.interp(alpha, levels, np.arange(len(levels))))
    low = int(position)
    return low, min(low + 1, len(levels) - 1), position - low


def _at_rank(ordered: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Pick the errors of ranks ([levels,] horizon, variables), counted from 1."""
    rank = np.minimum(rank, len(ordered))
    every = rank.reshape(-1, *ordered.shape[1:])
    return np.take_along_axis(ordered, every - 1, axis=0).reshape(rank.shape)
