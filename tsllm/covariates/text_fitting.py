"""The fit of the effects of texts: reduction, penalties and acceptance by left-out parts."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tsllm.covariates.contemporaneous import choose_ridge, without_means
from tsllm.covariates.lagged import MAX_ORIGINS, MIN_ORIGINS
from tsllm.covariates.texts import (
    RECENT,
    TextEffects,
    distinct_features,
    fitted_steps,
    learn_reduction,
    roles_of,
)
from tsllm.text import TextEncoder, TextReduction

#: Steps ahead that the penalty is chosen on.
CHOOSING_STEPS = 2
#: Candidate penalties of the texts, as shares of the number of origins.
PENALTIES = 10.0 ** np.arange(-4.0, 1.5, 0.5)
#: The penalty of the series' own lags, as a share of that of the texts.
OWN_PENALTY = 1e-3
N_FOLDS = 5
#: Own lags, where a season has no more steps; and steps of training data for each.
OWN_LAGS, STEPS_OF_A_LAG = 20, 10
#: Rows that the effects on the same step are fitted to; of more data, evenly spaced blocks.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class TextSeries:
    """One series as the regression reads it.

    ``texts`` has an array (time,) of texts for each column, None for no text: first the columns
    whose future is known. With ``origins``, the effects are fitted to the errors of ``forecasts``
    from these positions, of any forecaster; an origin is the position of the first step ahead.
    """

    #: (time, variables): NaN where not observed.
    values: np.ndarray
    #: (variables,): the unit of the effects, 0 for a variable that never changes.
    scale: np.ndarray
    texts: Sequence[np.ndarray]
    #: (origins,): None takes evenly spaced ones.
    origins: np.ndarray | None = None
    #: (origins, horizon, variables): forecasts to correct; None corrects those of own lags.
    forecasts: np.ndarray | None = None


def fit_texts(
    series: Sequence[TextSeries],
    encoder: TextEncoder,
    *,
    n_known: int,
    window: int,
    horizon: int,
    season: int = 1,
    block: int | None = None,
) -> TextEffects:
    """Fit the effects of texts.

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
    block : int or None, default=None
        Steps of the blocks within which effects on the same step are fitted. None fits none.

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
        now=np.zeros((table.now_width, variables)),
        steps=ahead,
        weights=np.zeros((len(ahead), table.width, variables)),
        own_weights=np.zeros((horizon, own_lags + 1, variables)),
        levels=np.array([[-np.inf], [np.inf]]).repeat(variables, axis=1),
        explained=np.zeros(variables),
        learnt=False,
    )
    for variable in range(variables):
        _VariableFit(series, origins, table, effects, variable, horizon).run(block)
    return effects


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
            reductions.append(learn_reduction(vectors))
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

    @property
    def now_width(self) -> int:
        """Return the number of features of the texts of one step."""
        return sum(table.shape[1] for table in self.tables[: self.n_known])

    def now(self, rows: np.ndarray) -> np.ndarray:
        """Compute the features of the texts of some rows: (rows, now_width)."""
        known = zip(self.tables[: self.n_known], self.places)
        return np.concatenate([table[places[rows]] for table, places in known], axis=1)

    def now_effects(self, weights: np.ndarray) -> np.ndarray:
        """Compute the effects (rows,) of the texts of all rows on the same steps."""
        total = np.zeros(len(self.places[0]))
        first = 0
        for table, places in zip(self.tables[: self.n_known], self.places):
            total += (table @ weights[first : first + table.shape[1]])[places]
            first += table.shape[1]
        return total

    def steps(self, chosen: np.ndarray, horizon: int) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Compute the features of some origins for each step ahead, role by role.

        Yields
        ------
        tuple of int and list of array (origins, features)
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
            yield step, parts

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
    own: np.ndarray  # (origins, own_lags + 1)
    targets: np.ndarray  # (origins, horizon)

    def at(self, steps: Collection[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Compute the regressors of some steps ahead: step, (origins, own + texts), (origins,)."""
        for step, texts in self.table.steps(self.rows, max(steps)):
            if step in steps:
                both = np.concatenate([self.own / np.sqrt(OWN_PENALTY), *texts], axis=1)
                yield step, both, self.targets[:, step - 1]


@dataclass(frozen=True)
class _Judged:
    """A penalty, and the squared errors on left-out parts, with the texts and without: (parts,)."""

    penalty: float
    errors: np.ndarray
    alone: np.ndarray

    @property
    def gain(self) -> float:
        """Return the share of the error that texts take away; 0 where it may be chance.

        It counts where its mean over the parts exceeds its standard error.
        """
        gains = self.alone - self.errors
        spread = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
        return float(gains.sum() / self.alone.sum()) if gains.mean() > spread else 0.0


@dataclass(frozen=True)
class _VariableFit:
    """The fit of the effects on one variable, which ``effects`` keeps."""

    series: Sequence[TextSeries]
    origins: Sequence[np.ndarray]
    table: _TextTable
    effects: TextEffects
    variable: int
    horizon: int

    def run(self, block: int | None) -> None:
        """Choose no effect, effects on the steps ahead, or effects on the same step.

        Effects on the same step may have effects on the steps ahead beside them.
        """
        raw = self.regression(np.zeros(self.table.now_width))
        if len(raw.rows) < MIN_ORIGINS:
            return
        self.effects.learnt = True
        judged = self.judge(raw)
        useful = judged.gain > 0
        if block is not None and self.table.n_known:
            now = self.same_step(block, len(self.table.places[0]))
            # The last part of the origins, of which neither regression has seen anything.
            cut = len(raw.rows) - len(raw.rows) // N_FOLDS
            early = self.same_step(block, int(self.table.rows[raw.rows[cut]]) if cut else 0)
            if now.any() and early.any():
                clean = self.regression(now)
                second = self.judge(clean)
                late = self.late_errors
                none = late(raw, None, cut)
                least = late(raw, judged.penalty if useful else None, cut)
                tried = late(self.regression(early), second.penalty if second.gain else None, cut)
                step = _Judged(0.0, tried, none)
                if tried.sum() < least.sum() and step.gain > 0:
                    self.effects.now[:, self.variable] = now
                    self.effects.explained[self.variable] = step.gain
                    if second.gain > 0:
                        self.fit(clean, second.penalty)
                    return
        if useful:
            self.effects.explained[self.variable] = judged.gain
            self.fit(raw, judged.penalty)

    def regression(self, now: np.ndarray) -> _Regression:
        """Read the origins with all targets, after the effects on the same step are subtracted."""
        numbers, rows, targets = [], [], []
        effect = self.table.now_effects(now)
        number, first, variable = -1, 0, self.variable
        free = np.array([-np.inf, np.inf])
        for one, some in zip(self.series, self.origins):
            scale = float(one.scale[variable])
            moved = scale * effect[first : first + len(one.values)]
            first += len(one.values)
            column = one.values[:, variable] - moved
            seen = np.isfinite(column)
            if scale <= 0 or not seen.any():
                number += len(some)
                continue
            level = float(column[seen].mean())
            for place, origin in enumerate(some.tolist()):
                number += 1
                future = column[origin : origin + self.horizon]
                near = column[max(0, origin - self.effects.window) : origin]
                if len(future) < self.horizon or not np.isfinite(future).all():
                    continue
                if not np.isfinite(near).any():
                    continue
                base: Any = np.nanmean(near)
                if one.forecasts is not None:
                    base = one.forecasts[place, :, variable]
                numbers.append(number)
                rows.append(self.effects.own_of(near, scale, level, free))
                targets.append((future - base) / scale)
        if not rows:
            own = np.empty((0, self.effects.own_lags + 1))
            return _Regression(self.table, np.empty(0, int), own, np.empty((0, self.horizon)))
        return _Regression(self.table, np.array(numbers), np.stack(rows), np.stack(targets))

    def same_step(self, block: int, before: int) -> np.ndarray:
        """Fit the effects on the same step to the rows before one: (now_width,).

        They are fitted to deviations from the means of blocks: a model knows the level.
        """
        targets, blocks = [], []
        first = 0
        for one in self.series:
            scale = float(one.scale[self.variable])
            targets.append(one.values[:, self.variable] / (scale if scale > 0 else np.nan))
            blocks.append(first + np.arange(len(one.values)) // block)
            first = int(blocks[-1][-1]) + 1
        target, group = np.concatenate(targets), np.concatenate(blocks)
        rows = np.flatnonzero(np.isfinite(target[:before]))
        if len(rows) < MIN_ORIGINS:
            return np.zeros(self.table.now_width)
        rows = rows[group[rows] % max(1, -(-len(rows) // MOST_ROWS)) == 0]
        features = without_means(self.table.now(rows), group[rows])
        fit = choose_ridge(features, without_means(target[rows, None], group[rows]))
        return fit.weights[:, 0]

    def judge(self, regression: _Regression) -> _Judged:
        """Choose the penalty by blocked cross-validation."""
        penalties = PENALTIES * len(regression.own)
        errors: np.ndarray | float = 0.0
        alone: np.ndarray | float = 0.0
        for step, features, target in regression.at(self.chosen_steps()):
            errors = errors + _left_out(features, target, penalties, gap=step)
            own = features[:, : regression.own.shape[1]]
            alone = alone + _left_out(own, target, penalties[:1], gap=step)[0]
        best = int(np.asarray(errors).sum(axis=1).argmin())
        return _Judged(float(penalties[best]), np.asarray(errors)[best], np.asarray(alone))

    def late_errors(self, regression: _Regression, penalty: float | None, cut: int) -> np.ndarray:
        """Fit to the origins before one, and return the squared errors from it on, in parts.

        Without a penalty, texts have no effect.
        """
        total: np.ndarray | float = 0.0
        width = regression.own.shape[1]
        for step, features, target in regression.at(self.chosen_steps()):
            x = features[:, :width] if penalty is None else features
            shrunk = float(PENALTIES[0]) * len(target) if penalty is None else penalty
            some = slice(0, max(1, cut - step))
            solved = _solve(x[some].T @ x[some], x[some].T @ target[some], shrunk)
            missed = (target[cut:] - x[cut:] @ solved) ** 2
            total = total + np.array([part.sum() for part in np.array_split(missed, N_FOLDS)])
        return np.asarray(total)

    def chosen_steps(self) -> list[int]:
        """List the steps ahead that choices are made on: the last, and others evenly."""
        ahead = self.effects.steps
        places = np.linspace(len(ahead) - 1, 0, CHOOSING_STEPS, endpoint=False).round().astype(int)
        return sorted({int(ahead[place]) for place in places})

    def fit(self, regression: _Regression, penalty: float) -> None:
        """Fit the weights of all steps ahead."""
        effects, variable, own = self.effects, self.variable, regression.own
        lags = own.shape[1]
        effects.levels[:, variable] = own[:, -1].min(), own[:, -1].max()
        for step, features, target in regression.at(effects.steps.tolist()):
            place = int(np.searchsorted(effects.steps, step))
            solved = _solve(features.T @ features, features.T @ target, penalty)
            effects.weights[place, :, variable] = solved[lags:]
        gram = own.T @ own
        for step, parts in self.table.steps(regression.rows, self.horizon):
            weights = effects.weights_at(np.array([step]))[0, :, variable]
            borders = np.cumsum([part.shape[1] for part in parts])[:-1]
            shares = zip(parts, np.split(weights, borders))
            effect = sum((part @ some for part, some in shares), np.zeros(len(own)))
            # The regression on own lags of what texts add: the joint fit takes it from the lags.
            taken = _solve(gram, own.T @ effect, penalty * OWN_PENALTY)
            effects.own_weights[step - 1, :, variable] = -taken


def _origins_of(series: Sequence[TextSeries], own_lags: int, horizon: int) -> list[np.ndarray]:
    """List the origins of each series: its own, or evenly spaced ones."""
    spare = [max(0, len(one.values) - own_lags - horizon + 1) for one in series]
    every = max(1, -(-sum(spare) // MAX_ORIGINS))
    origins = []
    first = 0  # counted over all series, for a panel may have more series than origins are read
    for one, count in zip(series, spare):
        places = np.arange(-first % every, count, every)
        origins.append(own_lags + places if one.origins is None else one.origins)
        first += count
    return origins


def _left_out(
    features: np.ndarray, target: np.ndarray, penalties: np.ndarray, *, gap: int
) -> np.ndarray:
    """Compute the squared error on left-out origins for every penalty: (penalties, folds).

    The ``gap`` origins before and after those that are left out share steps with them, and are left
    out of the fit, too.
    """
    gram, product = features.T @ features, features.T @ target
    folds = np.array_split(np.arange(len(features)), min(N_FOLDS, len(features)))
    errors = np.zeros((len(penalties), len(folds)))
    for k, fold in enumerate(folds):
        near = slice(max(0, int(fold[0]) - gap), int(fold[-1]) + 1 + gap)
        x, y = features[near], target[near]
        rest, some = gram - x.T @ x, product - x.T @ y
        for number, penalty in enumerate(penalties):
            solved = _solve(rest, some, float(penalty))
            errors[number, k] = ((target[fold] - features[fold] @ solved) ** 2).sum()
    return errors


def _solve(gram: np.ndarray, product: np.ndarray, penalty: float) -> np.ndarray:
    """Solve the normal equations of a ridge regression."""
    shifted = gram + 0.0
    shifted.flat[:: len(gram) + 1] += penalty
    solved: np.ndarray = cho_solve(cho_factor(shifted, overwrite_a=True), product)
    return solved
