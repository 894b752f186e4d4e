"""Adaptive calibrations of many series at once, in arrays, for streams."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tsllm.backbone.stopping import check_time
from tsllm.intervals.calibration import (
    LEVEL_GRID,
    MAX_WINDOWS,
    MEDIAN,
    Calibration,
    Scores,
    interpolate_levels,
    moved_shifts,
    own_offsets,
    rest_of_shifts,
    turns_of_a_score,
)
from tsllm.intervals.conformal import StepErrors, describe_steps, sorted_errors

#: Scores that are described at once, so that the arrays fit into the cache of a processor.
SCORES_AT_ONCE = 2**18

#: Series, by their places, and the errors (series, horizon, variables, 1 + levels) of the forecasts
#: of one observation of each.
Observed = tuple[np.ndarray, np.ndarray]


class TrackedCalibration(Calibration):
    """A calibration whose series move together, as `Scores.append` moves one.

    It copies what it changes of the calibration that it is made from. Series get places, from 0 on,
    in the order in which they are added.

    Parameters
    ----------
    calibration : Calibration
        An adaptive one.
    """

    def __init__(self, calibration: Calibration) -> None:
        super().__init__(
            calibration.pooled,
            dict(calibration.series),
            calibration.levels,
            calibration.in_sample,
        )
        self._groups: list[ScoreRows] = []
        self._places: dict[Hashable, int] = {}
        # the group of each series, and its row there
        self._group = np.empty(0, dtype=np.int64)
        self._row = np.empty(0, dtype=np.int64)

    def add(self, series_ids: Sequence[Hashable]) -> None:
        """Add series to follow; each begins with its own scores, or with those of the panel."""
        pooled: list[Hashable] = []
        for series_id in series_ids:
            own = self.series.pop(series_id, None)
            if own is None:
                pooled.append(series_id)
            else:
                self._append([series_id], own)
        if pooled:
            shared, numbers = self.pooled, self.pooled.numbers
            recent = Scores(
                shared.errors[-MAX_WINDOWS:],
                shared.spacing,
                shared.shifts,
                numbers=None if numbers is None else numbers[-MAX_WINDOWS:],
                correct=shared.correct,
                panel=self._panel(),
            )
            self._append(pooled, recent)
        order = np.array([self._places[series_id] for series_id in series_ids])
        if (np.diff(order) != 1).any():  # places follow the order of the arguments
            first = int(order.min())
            self._group[first:], self._row[first:] = self._group[order], self._row[order]
            self._places |= {series_id: first + k for k, series_id in enumerate(series_ids)}

    def _append(self, series_ids: Sequence[Hashable], scores: Scores) -> None:
        """Add series that begin with the same scores."""
        group = next((one for one in self._groups if one.is_like(scores)), None)
        if group is None:
            group = ScoreRows(scores, self.levels)
            self._groups.append(group)
        rows = group.add(scores, len(series_ids))
        for series_id in series_ids:
            self._places[series_id] = len(self._places)
        number = self._groups.index(group)
        self._group = np.append(self._group, np.full(len(rows), number))
        self._row = np.append(self._row, rows)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the arrays."""
        return sum(group.nbytes for group in self._groups)

    # ------------------------------------------------------------------ what a forecast reads

    @property
    def has_own_scores(self) -> bool:
        """Return whether a series has scores of its own."""
        return bool(self.series or self._places)

    def scores_of(self, series_id: Hashable) -> Scores:
        """Return the scores of a series, a copy for one that is followed."""
        place = self._places.get(series_id)
        if place is None:
            return super().scores_of(series_id)
        return self._groups[self._group[place]].scores(self._row[place])

    def to_state(self) -> dict[str, Any]:
        """Return the state of a calibration that is not tracked."""
        series = self.series | {series_id: self.scores_of(series_id) for series_id in self._places}
        return Calibration(self.pooled, series, self.levels, self.in_sample).to_state()

    def _corrections(self, series_ids: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
        return self._of_each(series_ids, lambda group, rows: group.corrections(rows))

    def _offsets(
        self, series_ids: Sequence[Hashable], alphas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._of_each(series_ids, lambda group, rows: group.offsets(rows, alphas))

    def _of_each(self, series_ids: Sequence[Hashable], compute: Any) -> tuple[np.ndarray, Any]:
        places = np.array([self._places[series_id] for series_id in series_ids])
        return self._gather(places, compute), np.arange(len(places))

    def own_grid(self, places: np.ndarray) -> np.ndarray:
        """Return the offsets at the tracked levels, without the shifts.

        They are (series, grid, horizon, variables).
        """
        return self._gather(places, lambda group, rows: group.grid[rows])

    # ------------------------------------------------------------------ what observations change

    def push(self, observed: Sequence[Observed]) -> list["Pushed"]:
        """Add the errors of observations, one after the other, to the scores.

        The offsets of all are computed together. `move` moves the shifts then: it needs the offsets
        that forecasts were issued with, also those between these observations.
        """
        if len(self._groups) == 1:
            (group,) = self._groups
            return group.push([(self._row[places], errors) for places, errors in observed])
        parts = []
        for number, group in enumerate(self._groups):
            own = [np.flatnonzero(self._group[places] == number) for places, _ in observed]
            pushed = group.push(
                [
                    (self._row[places[some]], errors[some])
                    for some, (places, errors) in zip(own, observed)
                ]
            )
            parts.append(list(zip(own, pushed)))
        joined = []
        for turn, (places, _) in enumerate(observed):
            shape = (len(places), *self._groups[0].grid.shape[1:])
            whole = np.empty(shape), np.empty(shape)
            for part in parts:
                rows, (before, after) = part[turn]
                whole[0][rows], whole[1][rows] = before, after
            joined.append(whole)
        return joined

    def move(self, observed: Observed, pushed: "Pushed", issued: np.ndarray) -> None:
        """Move the shifts of series against the misses of the intervals that were ``issued``.

        ``issued`` are (series, grid, horizon, variables).
        """
        places, errors = observed
        before, after = pushed
        for number, group in enumerate(self._groups):
            own = slice(None)
            if len(self._groups) > 1:
                own = np.flatnonzero(self._group[places] == number)  # type: ignore[assignment]
            rows = self._row[places[own]]
            shifts = moved_shifts(
                group.shifts[rows], before[own], errors[own], issued[own], self.levels
            )
            group.shifts[rows] = rest_of_shifts(shifts, before[own], after[own])

    def shifts_of(self, places: np.ndarray) -> np.ndarray:
        """Return the shifts of series: (series, grid, horizon, variables)."""
        return self._gather(places, lambda group, rows: group.shifts[rows])

    def _gather(self, places: np.ndarray, compute: Any) -> np.ndarray:
        """Compute an array for some series, group by group, in their order."""
        if len(self._groups) == 1:
            only: np.ndarray = compute(self._groups[0], self._row[places])
            return only
        whole = None
        for number, group in enumerate(self._groups):
            own = np.flatnonzero(self._group[places] == number)
            if len(own):
                part = compute(group, self._row[places[own]])
                whole = np.empty((len(places), *part.shape[1:])) if whole is None else whole
                whole[own] = part
        assert whole is not None  # each series is in a group
        return whole


#: The offsets without shifts before and after an observation: (series, grid, horizon, variables).
Pushed = tuple[np.ndarray, np.ndarray]


class ScoreRows:
    """The scores of series that are alike but for their errors, in arrays with the series in front.

    ``example`` are the scores of one of them, ``levels`` those of the quantile head.
    """

    def __init__(self, example: Scores, levels: Sequence[float]) -> None:
        self._kind, self._levels = example, tuple(levels)
        assert example.shifts is not None  # of an adaptive calibration
        one, grid = example.errors, example.shifts.shape
        self._errors = np.empty((0, *one.shape))  # (series, windows, horizon, variables, 1 + q)
        self.shifts = np.empty((0, *grid))  # (series, grid, horizon, variables)
        self._turns = np.empty(0, dtype=np.int64)
        # of the errors: offsets at the grid, and centre, spread, own and count of each step
        self.grid = np.empty((0, *grid))
        self._steps = np.empty((0, 4, *grid[1:]))

    def is_like(self, scores: Scores) -> bool:
        """Return whether a series of these scores belongs here."""
        kind = self._kind
        return (
            kind.errors.shape == scores.errors.shape
            and kind.spacing == scores.spacing
            and kind.correct == scores.correct
            and kind.panel is scores.panel
            and _are_equal(kind.numbers, scores.numbers)
        )

    def add(self, scores: Scores, count: int) -> np.ndarray:
        """Add so many series that begin with these scores; return their rows."""
        first = len(self._errors)
        steps, grid = self._describe(scores.errors[None])
        parts: list[tuple[str, Any]] = [
            ("_errors", scores.errors),
            ("shifts", scores.shifts),
            ("_turns", np.int64(scores.turns)),
            ("grid", grid[0]),
            ("_steps", steps[0]),
        ]
        for name, part in parts:
            new = np.broadcast_to(part, (count, *np.shape(part)))
            setattr(self, name, np.concatenate([getattr(self, name), new]))
        return np.arange(first, first + count)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the arrays."""
        parts = (self._errors, self.shifts, self._turns, self.grid, self._steps)
        return sum(part.nbytes for part in parts)

    def scores(self, row: int) -> Scores:
        """Return a copy of the scores of a series."""
        kind = self._kind
        return Scores(
            self._errors[row].copy(),
            kind.spacing,
            self.shifts[row].copy(),
            int(self._turns[row]),
            kind.numbers,
            kind.correct,
            kind.panel,
        )

    def corrections(self, rows: np.ndarray) -> np.ndarray:
        """Return what is added to points: (series, horizon, variables)."""
        centre = np.nan_to_num(self._steps[rows, 0])
        corrections: np.ndarray = centre + self.shifts[rows, MEDIAN]
        return corrections

    def offsets(self, rows: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Return the offsets at levels, shifts included: (series, alphas, horizon, variables)."""
        shifts = self.shifts[rows]
        at = [np.flatnonzero(alpha == LEVEL_GRID) for alpha in alphas]
        if all(map(len, at)):  # usual levels are on the grid
            known = np.concatenate(at)
            return np.asarray(self.grid[rows][:, known] + shifts[:, known])
        own = np.empty((len(rows), len(alphas), *shifts.shape[2:]))
        for some in self._chunks(len(rows)):
            part = self._errors[rows[some]]
            steps = _as_steps(self._steps[rows[some]])
            own[some] = _apart(own_offsets(_side_by_side(part), steps, alphas, self._levels), part)
        moved = [interpolate_levels(alpha, np.moveaxis(shifts, 1, 0)) for alpha in alphas]
        return np.asarray(own + np.stack(moved, axis=1))

    def push(self, observed: Sequence[Observed]) -> list[Pushed]:
        """Add errors to the scores; see `TrackedCalibration.push`."""
        every = turns_of_a_score(self._kind.spacing, self._errors.shape[1])
        changed, dues = [], []
        for turn, (rows, errors) in enumerate(observed, 1):
            due = self._turns[rows] % every == 0
            self._turns[rows] += 1
            dues.append(due)
            if due.any():
                last = turn == len(observed)
                changed.append(self._with_errors(rows[due], errors[due], last=last))
        pushed, first = [], 0
        if changed:
            whole = changed[0] if len(changed) == 1 else np.concatenate(changed)
            steps, grid = self._describe(whole)
        for (rows, _), due in zip(observed, dues):
            before = self.grid[rows]
            after = before
            if due.any():
                some = slice(first, first + int(due.sum()))
                first = some.stop
                after = before.copy()
                after[due] = self.grid[rows[due]] = grid[some]
                self._steps[rows[due]] = steps[some]
            pushed.append((before, after))
        return pushed

    def _with_errors(self, rows: np.ndarray, errors: np.ndarray, *, last: bool) -> np.ndarray:
        """Put new errors in place of the oldest, where observed; return all of these series.

        After the ``last`` ones, the result is not to be changed, for it may be what is kept.
        """
        everything = np.array_equal(rows, np.arange(len(self._errors)))
        kept = self._errors if everything else self._errors[rows]
        moved = np.concatenate([kept[:, 1:], errors[:, None]], axis=1)
        seen = ~np.isnan(errors[..., 0])  # (series, horizon, variables)
        if not seen.all():
            moved = np.where(seen[:, None, ..., None], moved, kept)
        if everything and last:
            self._errors = moved
        else:  # a copy, for the next errors change it
            self._errors[rows] = moved
        return moved

    def _describe(self, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Describe the errors of series: steps (series, 4, ...), and offsets at the grid."""
        kind, windows = self._kind, errors.shape[1]
        numbers = np.zeros(windows, dtype=int) if kind.numbers is None else kind.numbers
        steps = np.empty((len(errors), *self._steps.shape[1:]))
        grid = np.empty((len(errors), *self.grid.shape[1:]))
        for some in self._chunks(len(errors)):
            check_time()
            part = errors[some]
            beside = _side_by_side(part)
            panel = None if kind.panel is None else _repeated(kind.panel.steps, len(part))
            points = beside[..., 0]
            ordered = sorted_errors(points)
            found = describe_steps(
                points,
                numbers,
                kind.spacing,
                panel=panel,
                correct=kind.correct,
                ordered=ordered,
            )
            values = np.stack([found.centre, found.spread, found.own, found.count])
            steps[some] = _apart(values, part)
            offsets = own_offsets(beside, found, LEVEL_GRID, self._levels, ordered=ordered)
            grid[some] = _apart(offsets, part)
        return steps, grid

    def _chunks(self, count: int) -> list[slice]:
        size = max(1, SCORES_AT_ONCE // int(np.prod(self._errors.shape[1:])))
        return [slice(first, first + size) for first in range(0, count, size)]


def _are_equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Return whether two arrays are equal, or neither is there."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _side_by_side(errors: np.ndarray) -> np.ndarray:
    """Join series and variables: (windows, horizon, series * variables, 1 + levels).

    What is computed of errors keeps variables apart, so series may take their place.
    """
    whole = np.moveaxis(errors, 0, 2)
    return np.ascontiguousarray(whole).reshape(*whole.shape[:2], -1, whole.shape[-1])


def _apart(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Part series and variables: (kinds, horizon, both) to (series, kinds, horizon, variables)."""
    parted = values.reshape(*values.shape[:2], len(errors), errors.shape[3])
    return np.moveaxis(parted, 2, 0)


def _as_steps(steps: np.ndarray) -> StepErrors:
    """Return descriptions (series, 4, horizon, variables) with series and variables joined."""
    joined = np.moveaxis(steps, 0, 2)
    return StepErrors(*joined.reshape(*joined.shape[:2], -1))


def _repeated(steps: StepErrors, count: int) -> StepErrors:
    """Repeat the description of a panel for so many series."""
    parts = (steps.centre, steps.spread, steps.own, steps.count)
    return StepErrors(*(np.tile(part, (1, count)) for part in parts))
