"""Effects of texts: one regression per step ahead on the series' own lags and reduced texts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tsllm.covariates.lagged import MAX_ORIGINS, MIN_ORIGINS
from tsllm.errors import ModelFormatError
from tsllm.saving.fields import check_fields
from tsllm.text import TextEncoder, TextReduction, TextVectors

#: Most features of a text.
MOST_FEATURES = 256
#: Steps ahead that are fitted; the weights of the steps between them are interpolated.
MOST_FITTED_STEPS = 12
#: Steps ahead that the penalty is chosen on.
CHOOSING_STEPS = 3
#: Candidate penalties of the texts, besides weights of 0, as shares of the number of origins.
PENALTIES = 10.0 ** np.arange(-4.0, 1.5, 0.5)
#: The penalty of the series' own lags, as a share of that of the texts.
OWN_PENALTY = 1e-3
N_FOLDS = 5
#: Own lags, where a season has no more steps; and steps of training data for each.
OWN_LAGS, STEPS_OF_A_LAG = 20, 10
#: The texts of a column that a regression reads, in this order, with factors of their features: the
#: text of the step, the mean of the texts from the first step ahead to the step, the last text
#: before the first step. A larger factor is a smaller penalty.
KNOWN_ROLES = {"step": 1.0, "path": 0.3**-0.5, "last": 10**-0.5}
PAST_ROLES = {"last": 1.0, "recent": 1.0}
#: Past texts whose mean is one of the features of a column whose future is not known.
RECENT = 4


@dataclass(frozen=True)
class TextSeries:
    """One series as the regression reads it.

    ``texts`` has an array (time,) of texts for each column, None for no text: first the columns
    whose future is known. With ``origins``, the effects are fitted to the errors of ``forecasts``
    from these positions, of any forecaster; an origin is the position of the first step ahead.
    """

    #: (time, variables): NaN where not observed.
    values: np.ndarray
    #: (variables,): the unit of the effects, 0 for a variable that never changes; and the mean.
    scale: np.ndarray
    level: np.ndarray
    texts: Sequence[np.ndarray]
    #: (origins,): None takes evenly spaced ones.
    origins: np.ndarray | None = None
    #: (origins, horizon, variables): forecasts to correct; None corrects those of own lags.
    forecasts: np.ndarray | None = None


@dataclass(frozen=True)
class TextWindow:
    """The past of a series and the texts around its end, to forecast from."""

    #: (time, variables)
    past: np.ndarray
    #: (variables,): the unit of the effects on this series, and its usual level.
    scale: np.ndarray
    level: np.ndarray
    #: For each column, at most `RECENT` texts up to the last step.
    recent: Sequence[Sequence[str | None]]
    #: For each column whose future is known, the texts of the steps ahead.
    future: Sequence[Sequence[str | None]]


@dataclass
class TextEffects:
    """Effects of texts on the next steps, beyond what a series' own lags tell.

    The text of a step, of the steps before it and of the last known steps enter one regression for
    each step ahead, beside the series' own lags. The effect is the difference to the regression on
    own lags alone; it is added to a forecast that reads the series' past only. A step ahead reads
    no text of a later step.
    """

    encoder: TextEncoder
    #: One per column, those whose future is known first.
    reductions: list[TextReduction]
    #: The number of columns whose future is known.
    n_known: int
    #: Steps whose mean is the level of a series, and its lags.
    window: int
    own_lags: int
    #: (fitted steps,): the steps ahead that were fitted, from 1 to the horizon.
    steps: np.ndarray
    #: (fitted steps, texts' features, variables): 0 for steps without an effect.
    weights: np.ndarray
    #: (horizon, own_lags + 1, variables): what the texts take from the own lags.
    own_weights: np.ndarray
    #: (2, variables): the lowest and highest mean of a window in training, relative to the level.
    levels: np.ndarray
    #: (variables,): the share of the own lags' error that texts explained on left-out origins.
    explained: np.ndarray
    #: True where there were enough origins to learn from.
    learnt: bool = True

    @property
    def used(self) -> bool:
        """Return whether any text has an effect; else none is embedded."""
        return bool(self.weights.any())

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return vars(self) | {
            "encoder": self.encoder.to_state(),
            "reductions": [one.to_state() for one in self.reductions],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], encoder: TextEncoder) -> "TextEffects":
        """Build the effects from the output of `to_state`, with the restored encoder."""
        fields = {
            **state,
            "encoder": encoder,
            "reductions": [TextReduction.from_state(one) for one in state["reductions"]],
        }
        check_fields(cls, fields)
        effects = cls(**fields)
        width = sum(r.size + 1 for r in effects._blocks())
        steps, horizon, variables = effects.steps, len(effects.own_weights), len(effects.explained)
        shapes = effects.weights.shape, effects.own_weights.shape
        wanted = (len(steps), width, variables), (horizon, effects.own_lags + 1, variables)
        if shapes != wanted or not np.array_equal(steps, fitted_steps(horizon)):
            raise ModelFormatError("the saved model's effects of texts do not fit its reductions")
        if not (np.isfinite(effects.weights).all() and np.isfinite(effects.own_weights).all()):
            raise ModelFormatError(
                "the saved model has effects of texts that are NaN or infinite, so that every "
                "forecast would be NaN: fit and save the model again"
            )
        return effects

    def shares(self, windows: Sequence[TextWindow], horizon: int) -> np.ndarray:
        """Compute the effect of each column: (windows, horizon, variables, columns + 1).

        The last share is what the texts take from the series' own lags. Beyond the fitted horizon
        the weights of its last step hold.
        """
        variables = len(self.explained)
        shares = np.zeros((len(windows), horizon, variables, len(self.reductions) + 1))
        if not self.used:
            return shares
        steps = np.minimum(np.arange(horizon), len(self.own_weights) - 1)
        whole = self.weights_at(steps + 1)  # (horizon, features, variables)
        columns = [self._features(number, windows) for number in range(len(self.reductions))]
        for row, window in enumerate(windows):
            own = np.stack(
                [self.own_of(v, past, window) for v, past in enumerate(window.past.T)], axis=1
            )  # (own lags + 1, variables)
            scale = window.scale
            first = 0
            for number, column in enumerate(columns):
                features = self._roles(number, *next(column), horizon)  # (horizon, features)
                last = first + features.shape[1]
                effect = np.einsum("hf,hfv->hv", features, whole[:, first:last])
                shares[row, ..., number] = effect * scale
                first = last
            shares[row, ..., -1] = np.einsum("hlv,lv->hv", self.own_weights[steps], own) * scale
        return shares

    def effects(self, windows: Sequence[TextWindow], horizon: int) -> np.ndarray:
        """Compute the whole effect of the texts: (windows, horizon, variables)."""
        return self.shares(windows, horizon).sum(axis=-1)

    def weights_at(self, ahead: np.ndarray) -> np.ndarray:
        """Interpolate the weights of steps ahead, from 1: (steps, features, variables)."""
        upper = np.searchsorted(self.steps, ahead).clip(1, max(1, len(self.steps) - 1))
        if len(self.steps) == 1:
            return self.weights[np.zeros(len(ahead), dtype=int)]
        before, after = self.steps[upper - 1], self.steps[upper]
        share = ((ahead - before) / (after - before))[:, None, None]
        return (1 - share) * self.weights[upper - 1] + share * self.weights[upper]

    def own_of(
        self, variable: int, past: np.ndarray, series: "TextSeries | TextWindow"
    ) -> np.ndarray:
        """Return what is read of a series' past (time,) beside texts: (own lags + 1,).

        The last steps are relative to the mean of the window, and unobserved ones count as it. The
        mean is relative to the usual level of the series, and no further from it than in training.
        """
        past = past[-self.window :]
        seen = np.isfinite(past)
        scale, own = series.scale[variable], np.zeros(self.own_lags + 1)
        if not seen.any() or scale <= 0:
            return own
        mean = past[seen].mean()
        near = np.where(seen, (past - mean) / scale, 0.0)[-self.own_lags :]
        own[self.own_lags - len(near) : -1] = near
        own[-1] = np.clip((mean - series.level[variable]) / scale, *self.levels[:, variable])
        return own

    def _blocks(self) -> list[TextReduction]:
        """List the reduction of each block of features, role by role."""
        return [
            reduction
            for number, reduction in enumerate(self.reductions)
            for _ in roles_of(number, self.n_known)
        ]

    def _features(
        self, number: int, windows: Sequence[TextWindow]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the features of each window's recent and future texts of a column.

        The texts of all windows are embedded together.
        """
        texts: list[str | None] = []
        for window in windows:
            texts.extend(window.recent[number])
            texts.extend(window.future[number] if number < self.n_known else ())
        vectors = self.encoder.encode(texts)
        table = distinct_features(vectors, self.reductions[number])
        places = vectors.numbers + 1
        first = 0
        for window in windows:
            middle = first + len(window.recent[number])
            last = middle + (len(window.future[number]) if number < self.n_known else 0)
            yield table[places[first:middle]], table[places[middle:last]]
            first = last

    def _roles(
        self, number: int, recent: np.ndarray, future: np.ndarray, horizon: int
    ) -> np.ndarray:
        """Arrange the features of a column as the regression reads them: (horizon, features)."""
        width = self.reductions[number].size + 1
        blank = np.zeros(width)
        found = {
            "last": recent[-1] if len(recent) else blank,
            "recent": recent.mean(axis=0) if len(recent) else blank,
        }
        if number < self.n_known:
            ahead = np.arange(1, horizon + 1)[:, None]
            found |= {"step": future, "path": np.cumsum(future, axis=0) / ahead}
        parts = [
            np.broadcast_to(factor * found[role], (horizon, width))
            for role, factor in roles_of(number, self.n_known).items()
        ]
        return np.concatenate(parts, axis=1)


def fit_texts(
    series: Sequence[TextSeries],
    encoder: TextEncoder,
    *,
    n_known: int,
    window: int,
    horizon: int,
    season: int = 1,
) -> TextEffects:
    """Fit the effects of texts on the next ``horizon`` steps.

    Parameters
    ----------
    series : sequence of TextSeries
        The training parts of the series, with the same columns of texts.
    encoder : TextEncoder
        The vectors of texts.
    n_known : int
        The number of columns whose future is known; they are the first ones.
    window : int
        Steps that a forecast reads.
    horizon : int
        Steps ahead to learn the effects of.
    season : int, default=1
        Steps of a season.

    Returns
    -------
    TextEffects
    """
    variables = series[0].values.shape[1]
    steps = sum(len(one.values) for one in series)
    own_lags = int(np.clip(steps // STEPS_OF_A_LAG, 1, min(window, max(season, OWN_LAGS))))
    origins = _origins_of(series, own_lags, horizon)
    table = _TextTable.of(series, encoder, n_known, origins)
    ahead = fitted_steps(horizon)
    effects = TextEffects(
        encoder,
        table.reductions,
        n_known,
        window,
        own_lags,
        ahead,
        weights=np.zeros((len(ahead), table.width, variables)),
        own_weights=np.zeros((horizon, own_lags + 1, variables)),
        levels=np.array([[-np.inf], [np.inf]]).repeat(variables, axis=1),
        explained=np.zeros(variables),
        learnt=False,
    )
    for variable in range(variables):
        rows, own, targets = _read_series(series, origins, effects, variable, horizon)
        if len(rows) >= MIN_ORIGINS:
            effects.learnt = True
            effects.levels[:, variable] = own[:, -1].min(), own[:, -1].max()
            _fit_variable(effects, variable, _Regression(table, rows, own, targets))
    return effects


def fitted_steps(horizon: int) -> np.ndarray:
    """Return the steps ahead that are fitted: all of a short horizon, else more of the near ones.

    Examples
    --------
    >>> fitted_steps(4).tolist(), fitted_steps(96).tolist()
    ([1, 2, 3, 4], [1, 2, 3, 5, 8, 12, 18, 28, 42, 63, 96])
    """
    if horizon <= MOST_FITTED_STEPS:
        return np.arange(1, horizon + 1)
    return np.unique(np.geomspace(1, horizon, MOST_FITTED_STEPS).round().astype(int))


def roles_of(number: int, n_known: int) -> dict[str, float]:
    """Return the roles of a column's texts, by its number among columns of which some are known."""
    return KNOWN_ROLES if number < n_known else PAST_ROLES


def distinct_features(vectors: TextVectors, reduction: TextReduction) -> np.ndarray:
    """Compute the features of distinct texts: (1 + texts, size + 1).

    The first row is that of a missing text, and the last feature marks it. The row of a text is one
    more than its number: rows of a long table share few texts.
    """
    distinct = replace(vectors, numbers=np.arange(-1, vectors.vectors.shape[0]))
    return np.concatenate([reduction.features(distinct), ~distinct.present[:, None]], axis=1)


@dataclass(frozen=True)
class _TextTable:
    """The features of all training texts, and the rows that hold them.

    Many rows share few texts: the features of a distinct text stand in one row of a table.
    """

    reductions: list[TextReduction]
    n_known: int
    #: For each column (distinct texts + 1, size + 1), and (rows,) the row of the table.
    tables: list[np.ndarray]
    places: list[np.ndarray]
    #: (origins,): the row of each origin, and the first row of its series.
    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(
        cls,
        series: Sequence[TextSeries],
        encoder: TextEncoder,
        n_known: int,
        origins: Sequence[np.ndarray],
    ) -> "_TextTable":
        """Embed and reduce the texts of series."""
        reductions, tables, places = [], [], []
        for number in range(len(series[0].texts)):
            vectors = encoder.encode([text for one in series for text in one.texts[number]])
            reductions.append(TextReduction.learn(vectors, MOST_FEATURES))
            tables.append(distinct_features(vectors, reductions[-1]))
            places.append(vectors.numbers + 1)
        first = np.cumsum([0, *(len(one.values) for one in series)])[:-1]
        rows = np.concatenate([start + some for start, some in zip(first, origins)])
        starts = np.repeat(first, [len(some) for some in origins])
        return cls(reductions, n_known, tables, places, rows, starts)

    @property
    def width(self) -> int:
        """Return the number of features of a regression."""
        widths = [table.shape[1] for table in self.tables]
        return sum(len(roles_of(i, self.n_known)) * width for i, width in enumerate(widths))

    def steps(self, chosen: np.ndarray, horizon: int) -> Iterator[tuple[int, np.ndarray]]:
        """Compute the features of some origins for each step ahead: the step, (origins, width).

        Yields
        ------
        tuple of int and array
        """
        rows, starts = self.rows[chosen], self.starts[chosen]
        found = [self._past(number, rows, starts) for number in range(len(self.tables))]
        for step in range(1, horizon + 1):
            for number in range(self.n_known):
                now = self.tables[number][self.places[number][rows + step - 1]]
                before = found[number].get("path", 0.0) * (step - 1)
                found[number] |= {"step": now, "path": (before + now) / step}
            parts = [
                factor * one[role]
                for number, one in enumerate(found)
                for role, factor in roles_of(number, self.n_known).items()
            ]
            yield step, np.concatenate(parts, axis=1)

    def _past(self, number: int, rows: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the features of the last text before each origin, and of the mean of some."""
        found = []
        for back in range(1, RECENT + 1):
            there = rows - back >= starts  # (origins,)
            one = self.tables[number][self.places[number][np.maximum(rows - back, 0)]]
            found.append(np.where(there[:, None], one, 0.0))
        count = np.clip(rows - starts, 1, RECENT)[:, None]
        return {"last": found[0], "recent": np.sum(found, axis=0) / count}


@dataclass(frozen=True)
class _Regression:
    """The regression of one variable: origins, own lags and targets."""

    table: _TextTable
    rows: np.ndarray  # (origins,) their numbers in the table
    own: np.ndarray  # (origins, own_lags)
    targets: np.ndarray  # (origins, horizon)

    def at(self, steps: Collection[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Compute the regressors of some steps ahead: step, (origins, own + texts), (origins,)."""
        for step, texts in self.table.steps(self.rows, max(steps)):
            if step in steps:
                both = np.concatenate([self.own / np.sqrt(OWN_PENALTY), texts], axis=1)
                yield step, both, self.targets[:, step - 1]


def _origins_of(series: Sequence[TextSeries], own_lags: int, horizon: int) -> list[np.ndarray]:
    """List the origins of each series: its own, or evenly spaced ones."""
    spare = sum(max(0, len(one.values) - own_lags - horizon + 1) for one in series)
    every = max(1, -(-spare // MAX_ORIGINS))
    return [
        np.arange(own_lags, len(one.values) - horizon + 1, every)
        if one.origins is None
        else one.origins
        for one in series
    ]


def _read_series(
    series: Sequence[TextSeries],
    origins: Sequence[np.ndarray],
    effects: TextEffects,
    variable: int,
    horizon: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the origins of a variable with all targets: numbers, own lags, standardised targets."""
    numbers, rows, targets = [], [], []
    number = -1
    for one, some in zip(series, origins):
        column = one.values[:, variable]
        for place, origin in enumerate(some.tolist()):
            number += 1
            future = column[origin : origin + horizon]
            if len(future) < horizon or not np.isfinite(future).all():
                continue
            past, scale = column[:origin], one.scale[variable]
            seen = past[-effects.window :]
            if scale <= 0 or not np.isfinite(seen).any():
                continue
            base = np.nanmean(seen) if one.forecasts is None else one.forecasts[place, :, variable]
            numbers.append(number)
            rows.append(effects.own_of(variable, past, one))
            targets.append((future - base) / scale)
    if not rows:
        return np.empty(0, dtype=int), np.empty((0, effects.own_lags)), np.empty((0, horizon))
    return np.array(numbers), np.stack(rows), np.stack(targets)


def _fit_variable(effects: TextEffects, variable: int, regression: _Regression) -> None:
    """Fit the effects on one variable, in place."""
    ahead, own = effects.steps, regression.own
    chosen = ahead[np.linspace(0, len(ahead) - 1, min(CHOOSING_STEPS, len(ahead))).astype(int)]
    penalties = PENALTIES * len(own)
    errors = np.zeros(len(penalties))
    for step, features, target in regression.at(chosen.tolist()):
        errors += _left_out(features, target, penalties, gap=step)
    penalty = float(penalties[errors.argmin()])
    lags = own.shape[1]
    alone, left = np.zeros(len(ahead)), np.zeros(len(ahead))
    for step, features, target in regression.at(ahead.tolist()):
        place = int(np.searchsorted(ahead, step))
        error = float(_left_out(features, target, np.array([penalty]), gap=step)[0])
        own_penalty = np.array([penalty * OWN_PENALTY])
        alone[place] = left[place] = float(_left_out(own, target, own_penalty, gap=step)[0])
        if error < alone[place] * (1 - 1e-9):  # rounding errors are no effect
            gram = features.T @ features
            solved = _solve(gram, features.T @ target, penalty)
            effects.weights[place, :, variable] = solved[lags:]
            left[place] = error
    effects.explained[variable] = 1 - left.sum() / max(float(alone.sum()), 1e-300)
    if not effects.weights[..., variable].any():
        return
    gram, horizon = own.T @ own, regression.targets.shape[1]
    for step, features, _ in regression.at(range(1, horizon + 1)):
        effect = features[:, lags:] @ effects.weights_at(np.array([step]))[0, :, variable]
        # The regression on own lags of what the texts add: the joint fit takes it from the lags.
        taken = _solve(gram, own.T @ effect, penalty * OWN_PENALTY)
        effects.own_weights[step - 1, :, variable] = -taken


def _left_out(
    features: np.ndarray, target: np.ndarray, penalties: np.ndarray, *, gap: int
) -> np.ndarray:
    """Compute the squared error on left-out origins for every penalty: (penalties,).

    The ``gap`` origins before and after those that are left out share steps with them, and are left
    out of the fit, too.
    """
    gram, product = features.T @ features, features.T @ target
    errors = np.zeros(len(penalties))
    for fold in np.array_split(np.arange(len(features)), min(N_FOLDS, len(features))):
        near = slice(max(0, int(fold[0]) - gap), int(fold[-1]) + 1 + gap)
        x, y = features[near], target[near]
        rest, some = gram - x.T @ x, product - x.T @ y
        for number, penalty in enumerate(penalties):
            solved = _solve(rest, some, float(penalty))
            errors[number] += ((target[fold] - features[fold] @ solved) ** 2).sum()
    return errors


def _solve(gram: np.ndarray, product: np.ndarray, penalty: float) -> np.ndarray:
    """Solve the normal equations of a ridge regression."""
    shifted = gram + 0.0
    shifted.flat[:: len(gram) + 1] += penalty
    solved: np.ndarray = cho_solve(cho_factor(shifted, overwrite_a=True), product)
    return solved
