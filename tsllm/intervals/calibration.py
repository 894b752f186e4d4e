"""Conformal prediction intervals for each step of the horizon.

*Scores* are the forecaster's errors on held-out windows, divided by the scale of the context of
each window. A quantile forecast is the forecast plus a quantile of the scores times the scale of
the present context (split conformal prediction; with a quantile head, conformalised quantile
regression: Romano, Patterson and Candès, NeurIPS 2019). Steps with few scores borrow from others:
see `tsllm.intervals.conformal`. The median of the scores, as far as they support it, corrects the
point, so that the point is the median of the intervals.

An ``adaptive`` calibration follows the data. New scores replace the oldest, and the offset of each
level moves against the misses of the intervals that were issued (quantile tracking: Angelopoulos,
Candès and Tibshirani, "Conformal PID control", NeurIPS 2023, section 2.1; after Gibbs and Candès,
NeurIPS 2021). A forecast is compared with the offsets with which it was issued: errors of
overlapping forecasts are similar, so offsets that have just adapted to them would seem too good.
The point moves with the median.

A series with at least ``MIN_WINDOWS`` held-out windows has its own scores, and borrows from those
of the panel. Any other series uses the scores of the whole panel, times its own scale. If the panel
has few windows as well, extreme levels are extrapolated, and a warning names these levels and the
first step that rests on too few scores. If no window could be held out, or none of the held-out
values was observed, training windows are used, and a warning says that the intervals are likely too
narrow. Without any score, a request for an interval raises an error.
"""

import copy
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tsllm.backbone.stopping import check_time
from tsllm.datasets.checks import in_column, series_name
from tsllm.errors import ModelFormatError, NotEnoughDataError
from tsllm.intervals.conformal import FEW_ERRORS, StepErrors, describe_steps, sorted_errors
from tsllm.saving.fields import read_fields

#: A series with fewer held-out windows uses the scores of the panel: 39 windows are the fewest for
#: which a 95 % interval has finite ends (rank (n + 1) * 0.975 <= n).
MIN_WINDOWS = 39
#: Most scores for each series, and for the whole panel.
MAX_WINDOWS = 256
MAX_POOLED = 2048
#: With this number of windows or fewer, every level is a guess.
FEWEST_WINDOWS = 4
#: How far a miss moves an offset, in interquartile ranges of the scores: the rate, but at most the
#: delay divided by the step. The misses of a forecast are known only that many steps later, and
#: larger moves would overshoot.
ADAPTATION_RATE = 0.1
ADAPTATION_DELAY = 1.2
#: Nominal levels whose offsets are tracked; others are interpolated.
LEVEL_GRID = np.array([0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.995])
_LOWER_QUARTILE, MEDIAN, _UPPER_QUARTILE = 4, 5, 6  # positions of 0.25, 0.5 and 0.75


@dataclass
class Scores:
    """Scaled errors of one series or panel, and the shifts of its offsets."""

    #: (windows, horizon, variables, 1 + levels): ``(observed - forecast) / scale``, oldest window
    #: first, NaN where not observed; of the point forecast, then of each level of the head.
    errors: np.ndarray
    #: Steps between neighbouring windows of a series; infinite if they share nothing.
    spacing: float = math.inf
    #: (grid, horizon, variables) or None: Shift of the scores' quantile at each level of
    #: ``LEVEL_GRID``. None: not adaptive.
    shifts: np.ndarray | None = None
    #: Number of observations so far; every ``spacing``-th of them is added to the scores.
    turns: int = 0
    #: (windows,): The number of the series of each window. None: all are of one series.
    numbers: np.ndarray | None = None
    #: Whether the median of the scores corrects forecasts.
    correct: bool = True
    #: The scores of the panel, from which those of a series borrow.
    panel: "Scores | None" = field(default=None, repr=False)
    _steps: StepErrors | None = field(init=False, default=None, repr=False)
    # The offsets that were asked for last, under their levels; a stream asks again and again.
    _latest: tuple[Any, np.ndarray] | None = field(init=False, default=None, repr=False)
    # The conformal quantiles at LEVEL_GRID, without the shifts.
    _grid: np.ndarray | None = field(init=False, default=None, repr=False)

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays; the panel is saved by itself."""
        saved = ("errors", "spacing", "shifts", "turns", "numbers", "correct")
        return {name: getattr(self, name) for name in saved}

    @property
    def steps(self) -> StepErrors:
        """Return what is known of each step, of the point forecast's errors."""
        if self._steps is None:
            numbers = self.numbers
            if numbers is None:
                numbers = np.zeros(len(self.errors), dtype=int)
            self._steps = describe_steps(
                self.errors[..., 0],
                numbers,
                self.spacing,
                panel=None if self.panel is None else self.panel.steps,
                correct=self.correct,
            )
        return self._steps

    def correction(self) -> np.ndarray:
        """Return what is added to point forecasts, (horizon, variables), in units of the scale."""
        centre = np.nan_to_num(self.steps.centre)
        return centre if self.shifts is None else centre + self.shifts[MEDIAN]

    def offsets(self, alphas: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Compute the conformal quantiles of the scores at levels, shifted if adaptive.

        ``levels`` are those of the quantile head. The result has the shape (alphas, horizon,
        variables), in units of a context's scale.
        """
        asked = (tuple(alphas), tuple(levels))
        latest = self._latest  # one name: another thread may set it
        if latest is not None and latest[0] == asked:
            return latest[1]
        out = self._own_offsets(alphas, levels)
        if self.shifts is not None:
            out = out + np.stack([interpolate_levels(alpha, self.shifts) for alpha in alphas])
        out.setflags(write=False)
        self._latest = asked, out
        return out

    def append(self, errors: np.ndarray, issued: np.ndarray, levels: Sequence[float]) -> None:
        """Add the errors of the forecasts of one observation.

        Parameters
        ----------
        errors : array (horizon, variables, 1 + levels)
            At each step the error of the forecast made that many steps ahead; NaN if there is none.
        issued : array (grid, horizon, variables)
            The offsets with which these forecasts were issued.
        levels : sequence of float
            Quantile levels of the head.
        """
        self._latest = None
        seen = ~np.isnan(errors[..., 0])  # (horizon, variables)
        # neighbouring observations are alike: only every spacing-th is added to the scores
        due = self.turns % turns_of_a_score(self.spacing, len(self.errors)) == 0
        self.turns += 1
        before = None
        if self.shifts is not None:
            before = self._own_grid(levels)
            self.shifts = moved_shifts(self.shifts, before, errors, issued, levels)
        if due:
            self.errors[:-1, seen] = self.errors[1:, seen]
            self.errors[-1, seen] = errors[seen]
            self._steps = self._grid = None
            if self.shifts is not None and before is not None:
                self.shifts = rest_of_shifts(self.shifts, before, self._own_grid(levels))

    def _own_offsets(self, alphas: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Compute the conformal quantiles without their shifts, as `offsets`."""
        if alphas is LEVEL_GRID:
            return self._own_grid(levels)
        return own_offsets(self.errors, self.steps, alphas, levels)

    def _own_grid(self, levels: Sequence[float]) -> np.ndarray:
        """Compute the quantiles at the tracked levels, once for the same errors."""
        if self._grid is None:
            self._grid = own_offsets(self.errors, self.steps, LEVEL_GRID, levels)
        return self._grid


@dataclass
class Calibration:
    """The scores that convert point forecasts to quantiles.

    Parameters
    ----------
    pooled : Scores
        Scores of all series, for new series and those with too few held-out windows.
    series : dict, default=dict()
        Scores of each series with at least ``MIN_WINDOWS`` held-out windows.
    levels : tuple of float, default=()
        Quantile levels of the head; empty for a point head.
    in_sample : bool, default=False
        Whether the scores are those of training windows, because no window could be held out.
        The intervals are then likely too narrow.
    """

    pooled: Scores
    series: dict[Hashable, Scores] = field(default_factory=dict)
    levels: tuple[float, ...] = ()
    in_sample: bool = False

    def __post_init__(self) -> None:
        for scores in self.series.values():
            scores.panel = self._panel()

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        series = {series_id: scores.to_state() for series_id, scores in self.series.items()}
        return vars(self) | {"pooled": self.pooled.to_state(), "series": series}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Calibration":
        """Build the calibration from the output of `to_state`."""
        series = {
            series_id: read_fields(Scores, scores) for series_id, scores in state["series"].items()
        }
        pooled = read_fields(Scores, state["pooled"])
        calibration = read_fields(cls, {**state, "pooled": pooled, "series": series})
        for scores in (pooled, *series.values()):
            own, shared = scores.errors.shape, pooled.errors.shape
            if scores.numbers is not None and scores.numbers.shape != own[:1]:
                raise ModelFormatError(
                    f"the saved model has {own[0]} scores, and the series of "
                    f"{len(scores.numbers)} scores"
                )
            if len(own) != 4 or own[1:] != shared[1:] or own[3] != 1 + len(calibration.levels):
                raise ModelFormatError(
                    f"the saved model's scores have the shape {own}, which is not that of its "
                    f"{len(calibration.levels)} levels"
                )
        return calibration

    @property
    def horizon(self) -> int:
        """Return the number of calibrated steps."""
        return self.pooled.errors.shape[1]

    @property
    def adaptive(self) -> bool:
        """Return whether ``update`` moves the scores."""
        return self.pooled.shifts is not None

    @property
    def has_own_scores(self) -> bool:
        """Return whether a series has scores of its own."""
        return bool(self.series)

    def scores_of(self, series_id: Hashable) -> Scores:
        """Return the scores for the intervals of a series."""
        return self.series.get(series_id, self.pooled)

    def follow(self, series_id: Hashable) -> None:
        """Copy the pooled scores for a series, so that its updates change no other series."""
        if series_id not in self.series:
            errors, numbers = self.pooled.errors[-MAX_WINDOWS:].copy(), self.pooled.numbers
            self.series[series_id] = Scores(
                errors,
                self.pooled.spacing,
                copy.deepcopy(self.pooled.shifts),
                numbers=None if numbers is None else numbers[-MAX_WINDOWS:],
                correct=self.pooled.correct,
                panel=self._panel(),
            )

    def _panel(self) -> Scores | None:
        """Return the scores that a series borrows from; None where they are its own."""
        numbers = self.pooled.numbers
        return None if numbers is None or len(np.unique(numbers)) < 2 else self.pooled

    def correct(
        self, points: np.ndarray, scales: np.ndarray, series_ids: Sequence[Hashable]
    ) -> np.ndarray:
        """Add to point forecasts (series, horizon, variables) their median held-out errors.

        ``scales`` (series, variables) are those of the contexts. An error is added as far as the
        held-out windows support it.
        """
        found, at = self._corrections(series_ids)
        # (distinct, horizon, variables)
        found = extend_steps(found[:, None], points.shape[1])[:, 0]
        corrected: np.ndarray = points + found[at] * scales[:, None]
        return corrected

    def quantiles(
        self,
        forecasts: np.ndarray,
        scales: np.ndarray,
        series_ids: Sequence[Hashable],
        alphas: Sequence[float],
        columns: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Compute quantile forecasts that do not cross.

        Parameters
        ----------
        forecasts : array (series, horizon, variables, 1 + levels)
            The model's point forecasts and, with a quantile head, its quantiles.
        scales : array (series, variables)
            The scale of each series' context, in the units of the forecasts.
        series_ids : sequence of hashable
            One for each series; unknown series use the pooled scores.
        alphas : sequence of float
            Levels strictly between 0 and 1.
        columns : sequence of str or None, default=None
            The names of the variables in error messages.

        Returns
        -------
        array (series, horizon, variables, alphas)
            The quantile forecasts.

        Raises
        ------
        NotEnoughDataError
            No step of a variable has a score.
        """
        horizon = forecasts.shape[1]
        levels = np.asarray(alphas, dtype=float)
        out = np.empty((*forecasts.shape[:-1], len(levels)))
        for i, alpha in enumerate(levels):
            out[..., i] = blend_levels(forecasts, alpha, self.levels)
        found, at = self._offsets(series_ids, levels)
        offsets = extend_steps(found, horizon)  # (distinct, alphas, horizon, variables)
        bare = np.isnan(offsets).any(axis=(1, 2, 3))[at]
        for row in np.flatnonzero(bare).tolist():
            _check_scored(offsets[at[row]], scales[row], series_ids[row], columns)
        # Where all values of a context are equal, the scale is 0 and the offsets may be NaN.
        scale = scales[:, None, :, None]
        width = np.moveaxis(offsets, 1, -1)[at] * scale  # (series, horizon, variables, alphas)
        out += np.where(scale > 0, width, 0.0)
        order = np.argsort(levels, kind="stable")
        out[..., order] = np.maximum.accumulate(out[..., order], axis=-1)
        return out

    def _corrections(self, series_ids: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
        """Compute corrections (distinct, steps, variables), and the one of each series."""
        scores, at = self._distinct(series_ids)
        return np.stack([one.correction() for one in scores]), at

    def _offsets(
        self, series_ids: Sequence[Hashable], alphas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute offsets (distinct, alphas, steps, variables), and those of each series."""
        scores, at = self._distinct(series_ids)
        found = []
        for one in scores:
            check_time()
            found.append(one.offsets(alphas, self.levels))
        return np.stack(found), at

    def _distinct(self, series_ids: Sequence[Hashable]) -> tuple[list[Scores], np.ndarray]:
        """Return the scores that series use, each once, and the position of each series' scores."""
        places: dict[int, int] = {}
        scores: list[Scores] = []
        at = []
        for series_id in series_ids:
            one = self.scores_of(series_id)
            if id(one) not in places:
                places[id(one)] = len(scores)
                scores.append(one)
            at.append(places[id(one)])
        return scores, np.array(at)

    def warn_if_weak(self, horizon: int, alphas: Sequence[float]) -> None:
        """Warn if levels have too few scores, or are asked beyond the calibrated steps."""
        if self.in_sample:
            warnings.warn(
                "the intervals rest on training windows, since no held-out window could be scored, "
                "and are likely too narrow: give longer series that are observed up to their end, "
                "or a validation_fraction above 0",
                stacklevel=3,
            )
        else:
            self._warn_of_few_errors(horizon, alphas)
        if horizon > self.horizon:
            warnings.warn(
                f"the intervals are calibrated for {self.horizon} steps and {horizon} are asked "
                "for: beyond them they are widened with the square root of the step; fit with "
                f"prediction_length={horizon} to calibrate them",
                stacklevel=3,
            )

    def _warn_of_few_errors(self, horizon: int, alphas: Sequence[float]) -> None:
        """Warn if levels are extrapolated, and name the first step with too few errors."""
        steps = self.pooled.steps
        own = np.where(np.isnan(steps.spread), np.inf, steps.own).min(axis=1)  # (steps,)
        windows = int((~np.isnan(self.pooled.errors[:, 0, :, 0])).sum(axis=0).max(initial=0))
        told = []
        if not self.has_own_scores and windows < _windows_for(alphas):
            told.append(
                f"rest on {windows} held-out window{'s' * (windows != 1)} only and "
                + (
                    "are a rough guess"
                    if windows <= FEWEST_WINDOWS
                    else f"beyond the levels {1 / (windows + 1):.2g} and "
                    f"{windows / (windows + 1):.2g} are extrapolated from the errors seen"
                )
            )
        weak = np.flatnonzero(own[:horizon] < FEW_ERRORS)
        if len(weak):
            told.append(
                f"rest on too few held-out errors from step {weak[0] + 1} on: their widths are "
                "those of the steps before, widened"
            )
        if told:
            warnings.warn(
                f"the intervals {', and '.join(told)}; give longer series, a larger "
                "validation_fraction or a shorter prediction_length",
                stacklevel=4,
            )


def _windows_for(alphas: Sequence[float]) -> int:
    """Return the fewest windows with which no level is extrapolated."""
    farthest = max((max(alpha, 1 - alpha) for alpha in alphas), default=0.5)
    return max(FEWEST_WINDOWS + 1, math.ceil(farthest / (1 - farthest) - 1e-9))


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
        Oldest window first, NaN where not observed.
    levels : tuple of float
        Quantile levels of the head.
    spacings : mapping of series id to float or None, default=None
        Steps between neighbouring windows of each series. None: they share nothing.
    adaptive : bool, default=False
        Whether the calibration follows the data.
    in_sample : bool, default=False
        Whether the windows were training windows.

    Returns
    -------
    Calibration
        With the newest ``MAX_WINDOWS`` windows of each series, and ``MAX_POOLED`` evenly spaced
        windows in total.
    """
    spacings = dict.fromkeys(errors, math.inf) if spacings is None else spacings
    used = [series_id for series_id, e in errors.items() if len(e)]
    stacked = np.concatenate([errors[series_id] for series_id in used])
    numbers = np.repeat(np.arange(len(used)), [len(errors[series_id]) for series_id in used])
    keep = np.unique(np.linspace(0, len(stacked) - 1, min(len(stacked), MAX_POOLED)).astype(int))
    own = {
        series_id: Scores(
            e[-MAX_WINDOWS:].copy(),
            spacings[series_id],
            _no_shifts(e, adaptive),
            correct=not in_sample,
        )
        for series_id, e in errors.items()
        if len(e) and (~np.isnan(e[:, 0, :, 0])).sum(axis=0).min() >= MIN_WINDOWS
    }
    spacing = float(np.mean([spacings[series_id] for series_id in used])) * len(stacked) / len(keep)
    pooled = Scores(
        stacked[keep],
        spacing,
        _no_shifts(stacked, adaptive),
        numbers=numbers[keep],
        correct=not in_sample,
    )
    return Calibration(pooled, own, levels, in_sample)


def extend_steps(offsets: np.ndarray, horizon: int) -> np.ndarray:
    """Extend or cut offsets (..., alphas, steps, variables) to a horizon, and fill missing steps.

    Steps without scores are NaN in the input. Beyond the last step with scores, offsets grow with
    the square root of the step, like the errors of a random walk. A variable without scores stays
    NaN.
    """
    steps = offsets.shape[-2]
    known = ~np.isnan(offsets[..., 0, :, :])  # (..., steps, variables)
    if horizon <= steps and known.all():
        return offsets[..., :horizon, :]
    # the nearest calibrated step at or before each one; before the first, the first
    source = np.maximum.accumulate(np.where(known, np.arange(steps)[:, None], -1), axis=-2)
    source = np.where(source < 0, known.argmax(axis=-2)[..., None, :], source)
    source = source[..., np.minimum(np.arange(horizon), steps - 1), :]  # (..., horizon, variables)
    ahead = np.arange(horizon)[:, None]
    growth = np.where(source <= ahead, np.sqrt((ahead + 1) / (source + 1)), 1.0)
    out = np.take_along_axis(offsets, source[..., None, :, :], axis=-2) * growth[..., None, :, :]
    extended: np.ndarray = np.where(known.any(axis=-2)[..., None, None, :], out, np.nan)
    return extended


def own_offsets(
    errors: np.ndarray,
    steps: StepErrors,
    alphas: np.ndarray,
    levels: Sequence[float],
    *,
    ordered: np.ndarray | None = None,
) -> np.ndarray:
    """Compute conformal quantiles (alphas, horizon, variables) of scores.

    ``errors`` are (windows, horizon, variables, 1 + levels), ``steps`` describes them; ``ordered``
    are the sorted errors of the points, where the caller has them.
    """
    if levels:
        blended = (sorted_errors(blend_levels(errors, a, levels)) for a in alphas)
        out = np.stack([steps.quantiles(one, a) for one, a in zip(blended, alphas)])
    else:  # a point forecast has the same errors at every level
        ordered = sorted_errors(errors[..., 0]) if ordered is None else ordered
        out = steps.quantiles(ordered, np.asarray(alphas)[:, None, None])
    # The median is the corrected point.
    middle = np.asarray(alphas)[:, None, None] == 0.5
    offsets: np.ndarray = np.where(middle & ~np.isnan(steps.spread), steps.centre, out)
    return offsets


def turns_of_a_score(spacing: float, windows: int) -> int:
    """Return the number of observations of which one is added to the scores."""
    return max(1, round(min(spacing, windows)))


def moved_shifts(
    shifts: np.ndarray,
    before: np.ndarray,
    errors: np.ndarray,
    issued: np.ndarray,
    levels: Sequence[float],
) -> np.ndarray:
    """Move shifts against the misses of the intervals that were issued for one observation.

    ``shifts``, the offsets ``before`` without shifts, and those that were ``issued`` are ([series,]
    grid, horizon, variables); ``errors`` are ([series,] horizon, variables, 1 + levels).
    """
    spread = before[..., _UPPER_QUARTILE, :, :] - before[..., _LOWER_QUARTILE, :, :]
    steps = np.arange(1, errors.shape[-3] + 1)[:, None]
    rate = np.minimum(ADAPTATION_RATE, ADAPTATION_DELAY / steps)
    if levels:
        reached = np.stack([blend_levels(errors, a, levels) for a in LEVEL_GRID], axis=-3)
    else:
        reached = errors[..., None, :, :, 0]
    below = reached <= issued
    move = (rate * spread)[..., None, :, :] * (LEVEL_GRID[:, None, None] - below)
    seen = ~np.isnan(errors[..., None, :, :, 0])
    moved: np.ndarray = shifts + np.where(seen & ~np.isnan(move), move, 0.0)
    return moved


def rest_of_shifts(shifts: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Subtract from shifts what new scores contain; all are the shape of the shifts."""
    moved = np.nan_to_num(after - before)
    rest = np.maximum(np.abs(shifts) - np.abs(moved), 0.0) * np.sign(shifts)
    left: np.ndarray = np.where(shifts * moved > 0, rest, shifts)
    return left


def blend_levels(values: np.ndarray, alpha: float, levels: Sequence[float]) -> np.ndarray:
    """Interpolate level ``alpha`` in a last axis of (point, quantile levels).

    Outside the increasing levels the nearest one is used. Without levels the point is returned.
    """
    if not levels:
        return values[..., 0]
    low, high, weight = _neighbours(alpha, levels)
    return (1 - weight) * values[..., 1 + low] + weight * values[..., 1 + high]


def _check_scored(
    offsets: np.ndarray, scale: np.ndarray, series_id: Hashable, columns: Sequence[str] | None
) -> None:
    """Check that each variable that changes, of scale (variables,) above 0, has scores."""
    bare = np.isnan(offsets).any(axis=(0, 1)) & (scale > 0)  # (variables,)
    if bare.any():
        where = in_column(int(np.flatnonzero(bare)[0]), len(bare), columns)
        raise NotEnoughDataError(
            f"there is no interval for {series_name(series_id)}: no window of the training data "
            f"has an observed value{where} to score; fit on longer series with fewer missing "
            "values, or ask for the point forecast alone, without quantiles or coverage"
        )


def _no_shifts(errors: np.ndarray, adaptive: bool) -> np.ndarray | None:
    """Build the initial shifts of an adaptive calibration, or None."""
    _, horizon, variables, _ = errors.shape
    return np.zeros((len(LEVEL_GRID), horizon, variables)) if adaptive else None


def interpolate_levels(alpha: float, tracked: np.ndarray) -> np.ndarray:
    """Interpolate the value of a level, ``(horizon, variables)``, in the grid."""
    low, high, weight = _neighbours(alpha, LEVEL_GRID)
    return (1 - weight) * tracked[low] + weight * tracked[high]


def _neighbours(alpha: float, levels: Sequence[float] | np.ndarray) -> tuple[int, int, float]:
    """Find the levels around a level, and the weight of the upper one."""
    position = float(np.interp(alpha, levels, np.arange(len(levels))))
    low = int(position)
    return low, min(low + 1, len(levels) - 1), position - low
