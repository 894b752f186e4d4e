"""Effects of texts on the same step and on the steps ahead, from reduced vectors of texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsllm.errors import ModelFormatError
from tsllm.saving.fields import check_fields
from tsllm.text import TextEncoder, TextReduction, TextVectors

#: Steps ahead that are fitted; the weights of the steps between them are interpolated.
MOST_FITTED_STEPS = 12
#: The texts of a column that a regression reads, in this order, with factors of their features: the
#: text of the step, the mean of the texts from the first step ahead to the step, the last text
#: before the first step. A larger factor is a smaller penalty.
KNOWN_ROLES = {"step": 1.0, "path": 0.3**-0.5, "last": 10**-0.5}
PAST_ROLES = {"last": 1.0, "recent": 1.0}
#: Past texts whose mean is one of the features of a column whose future is not known.
RECENT = 4
#: Most features of a text, and the fewest rows with a text for each.
MOST_FEATURES, ROWS_OF_A_FEATURE = 256, 8


@dataclass(frozen=True)
class TextWindow:
    """The past of a series and the texts around its end, to forecast from."""

    #: (time, variables)
    past: np.ndarray
    #: (variables,): the unit of the effects on this series, and its usual level.
    scale: np.ndarray
    level: np.ndarray
    #: For each column, the texts (steps,) of at most `RECENT` steps up to the last one.
    recent: Sequence[np.ndarray]
    #: For each column whose future is known, the texts of the steps ahead.
    future: Sequence[np.ndarray]


@dataclass
class TextEffects:
    """Effects of texts, beyond what a series' own lags tell.

    Where the text of a step moves only this step, as a promotion does, its effect is subtracted
    from the series that a model reads and added to its forecasts (``now``). Where texts tell where
    the series goes, the text of a step, of the steps before it and of the last known steps enter
    one regression for each step ahead, beside the series' own lags. The effect is the difference to
    the regression on own lags alone. A step ahead reads no text of a later step.
    """

    encoder: TextEncoder
    #: One per column, those whose future is known first.
    reductions: list[TextReduction]
    #: The number of columns whose future is known.
    n_known: int
    #: Past steps whose mean a forecast reads, and the number of lags that it reads.
    window: int
    own_lags: int
    #: (features of a step's texts, variables): the effects on the same step, or 0.
    now: np.ndarray
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
        return bool(self.weights.any() or self.now.any())

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
        arrays = effects.now, effects.weights, effects.own_weights
        wanted = (
            (sum(one.size + 1 for one in effects.reductions[: effects.n_known]), variables),
            (len(steps), width, variables),
            (horizon, effects.own_lags + 1, variables),
        )
        fits = tuple(one.shape for one in arrays) == wanted and all(
            (one.mean.shape, one.components.shape) == ((encoder.width,), (encoder.width, one.size))
            for one in effects.reductions
        )
        fits = fits and effects.levels.shape == (2, variables) and effects.window >= 1
        if not fits or not np.array_equal(steps, fitted_steps(horizon)):
            raise ModelFormatError(
                "the saved model's effects of texts do not fit its reductions: fit and save "
                "the model again"
            )
        if not all(np.isfinite(one).all() for one in arrays):
            raise ModelFormatError(
                "the saved model has effects of texts that are NaN or infinite, so that every "
                "forecast would be NaN: fit and save the model again"
            )
        return effects

    def now_effects(self, texts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Compute the effects on the same steps, in units of the scale: (time, variables) each.

        ``texts`` has an array (time,) for each series and column whose future is known.
        """
        if not self.now.any() or not texts:
            return [np.zeros(self.now.shape[1:]) for _ in texts]
        lengths = [len(columns[0]) for columns in texts]
        total = np.zeros((sum(lengths), self.now.shape[1]))
        for number, weights in enumerate(self._now_parts()):
            vectors = self.encoder.encode([text for columns in texts for text in columns[number]])
            table = distinct_features(vectors, self.reductions[number])
            total += (table @ weights)[vectors.numbers + 1]
        return np.split(total, np.cumsum(lengths)[:-1])

    def _now_parts(self) -> list[np.ndarray]:
        """Split the weights of the same step by column."""
        widths = [one.size + 1 for one in self.reductions[: self.n_known]]
        return np.split(self.now, np.cumsum(widths)[:-1]) if widths else []

    def shares(
        self, windows: Sequence[TextWindow], horizon: int, *, explaining: bool = False
    ) -> np.ndarray:
        """Compute the effect of each column: (windows, horizon, variables, columns + 1).

        The last share is what the texts take from the series' own lags. Beyond the fitted horizon
        the weights of its last step hold. ``explaining`` adds the effects on the same step, which
        are no part of forecasts of residuals, and compares each text with a missing one.
        """
        variables = len(self.explained)
        shares = np.zeros((len(windows), horizon, variables, len(self.reductions) + 1))
        if not self.used:
            return shares
        steps = np.minimum(np.arange(horizon), len(self.own_weights) - 1)
        whole = self.weights_at(steps + 1)  # (horizon, features, variables)
        columns = [
            self._features(number, windows, against_none=explaining)
            for number in range(len(self.reductions))
        ]
        now = self._now_parts()
        for row, window in enumerate(windows):
            measured = zip(window.past.T, window.scale, window.level, self.levels.T)
            own = np.stack([self.own_of(*one) for one in measured], axis=1)  # (lags + 1, variables)
            scale = window.scale
            first = 0
            for number, column in enumerate(columns):
                recent, future = next(column)
                features = self._roles(number, recent, future, horizon)  # (horizon, features)
                last = first + features.shape[1]
                effect = np.einsum("hf,hfv->hv", features, whole[:, first:last])
                if explaining and number < self.n_known:
                    effect = effect + future @ now[number]
                shares[row, ..., number] = effect * scale
                first = last
            shares[row, ..., -1] = np.einsum("hlv,lv->hv", self.own_weights[steps], own) * scale
        return shares

    def shares_of_texts(self, window: TextWindow, horizon: int) -> list[np.ndarray]:
        """Compute the effect of each text of a window: (horizon, texts, variables) a column.

        The texts of a column are its recent ones and then, where known, those of the steps ahead.
        They sum up to the share of the column in an explanation, and a missing text has none.
        """
        steps = np.minimum(np.arange(horizon), len(self.own_weights) - 1)
        whole, now, found = self.weights_at(steps + 1), self._now_parts(), []
        first = 0
        for number, reduction in enumerate(self.reductions):
            recent, future = next(self._features(number, [window], against_none=True))
            past, width = len(recent), reduction.size + 1
            shares = np.zeros((horizon, past + len(future), whole.shape[2]))
            for role, factor in roles_of(number, self.n_known).items():
                weights = factor * whole[:, first : first + width]  # (horizon, width, variables)
                first += width
                if role == "last" and past:
                    shares[:, past - 1] += np.einsum("f,hfv->hv", recent[-1], weights)
                elif role == "recent" and past:
                    shares[:, :past] += np.einsum("tf,hfv->htv", recent, weights) / past
                elif role == "step":
                    each = np.arange(horizon)
                    shares[each, past + each] += np.einsum("hf,hfv->hv", future, weights)
                elif role == "path":
                    all_of = np.einsum("tf,hfv->htv", future, weights)  # (horizon, texts, v)
                    so_far = np.tri(horizon) / np.arange(1, horizon + 1)[:, None]
                    shares[:, past:] += all_of * so_far[..., None]
            if number < self.n_known:
                each = np.arange(horizon)
                shares[each, past + each] += future @ now[number]
            found.append(shares * window.scale)
        return found

    def effects(self, windows: Sequence[TextWindow], horizon: int) -> np.ndarray:
        """Compute the effects on steps ahead, to forecasts of residuals: (windows, horizon, v)."""
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
        self, past: np.ndarray, scale: float, level: float, bounds: np.ndarray
    ) -> np.ndarray:
        """Return what is read of a series' past (time,) beside texts: (own lags + 1,).

        The last steps are relative to the mean of the window, and unobserved ones count as it. The
        mean is relative to the usual level of the series, and within the bounds of training.
        """
        past = past[-self.window :]
        seen = np.isfinite(past)
        own = np.zeros(self.own_lags + 1)
        if not seen.any() or scale <= 0:
            return own
        mean = past[seen].mean()
        near = np.where(seen, (past - mean) / scale, 0.0)[-self.own_lags :]
        own[self.own_lags - len(near) : -1] = near
        own[-1] = np.clip((mean - level) / scale, *bounds)
        return own

    def _blocks(self) -> list[TextReduction]:
        """List the reduction of each block of features, role by role."""
        return [
            reduction
            for number, reduction in enumerate(self.reductions)
            for _ in roles_of(number, self.n_known)
        ]

    def _features(
        self, number: int, windows: Sequence[TextWindow], *, against_none: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the features of each window's recent and future texts of a column.

        The texts of all windows are embedded together. ``against_none`` subtracts the features of a
        missing text: the regressions have a weight of it, which says nothing about any text.
        """
        texts: list[str | None] = []
        for window in windows:
            texts.extend(window.recent[number])
            texts.extend(window.future[number] if number < self.n_known else ())
        vectors = self.encoder.encode(texts)
        table = distinct_features(vectors, self.reductions[number])
        if against_none:
            table -= table[0].copy()
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


def learn_reduction(vectors: TextVectors) -> TextReduction:
    """Learn the reduction of a column's training texts to as many features as its rows allow."""
    most = min(MOST_FEATURES, int(vectors.present.sum()) // ROWS_OF_A_FEATURE)
    return TextReduction.learn(vectors, most)


def distinct_features(vectors: TextVectors, reduction: TextReduction) -> np.ndarray:
    """Compute the features of distinct texts: (1 + texts, size + 1).

    The first row is that of a missing text, and the last feature marks it. The row of a text is one
    more than its number: rows of a long table share few texts.
    """
    distinct = replace(vectors, numbers=np.arange(-1, vectors.vectors.shape[0]))
    return np.concatenate([reduction.features(distinct), ~distinct.present[:, None]], axis=1)
