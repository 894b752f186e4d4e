"""Effects of covariates on the errors of a forecaster, from its forecasts of windows of the past.

A forecast without the covariates carries a part of their effects nevertheless: those of the past
steps that it reads. The seasonal naive forecast of a sale that was advertised a week ago is too
high, and a smoothing carries the mean of the recent effects. So the errors are regressed on the
difference of a step's features and a reference: the mean of features of past steps, weighted as
the forecaster may weigh them. Cross-validation chooses the reference with the penalty.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tsllm.covariates.contemporaneous import choose_ridge, without_means
from tsllm.covariates.texts import distinct_features, learn_reduction
from tsllm.errors import ModelFormatError
from tsllm.saving.fields import check_fields, read_fields
from tsllm.text import TextEncoder, TextReduction, TextVectors

#: Weights of the latest step among the past ones that a forecaster may carry on; 0: all alike.
RATES = (1.0, 0.5, 0.2, 0.0)
#: The past steps that a reference reads, and the seasons of one that reads the same phase.
REFERENCE_STEPS, REFERENCE_SEASONS = 48, 8


@dataclass(frozen=True)
class Reference:
    """The past steps whose effects a forecast carries already."""

    #: Steps between the past steps that are read: 1, or a season.
    period: int = 1
    #: The weight of the latest of them; each earlier one weighs ``1 - rate`` of the next.
    rate: float = 0.0

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the reference from the output of `to_state`."""
        reference = read_fields(cls, state)
        if reference.period < 1 or not 0 <= reference.rate <= 1:
            raise ModelFormatError(
                "the saved model's effects are relative to no past steps: fit and save it again"
            )
        return reference

    @property
    def steps(self) -> int:
        """Return the number of past steps that it reads."""
        return REFERENCE_STEPS if self.period == 1 else REFERENCE_SEASONS * self.period

    @property
    def steps_read(self) -> int:
        """Return the number of past steps that features relative to it read."""
        return max(self.steps, REFERENCE_STEPS)

    def of(self, past: np.ndarray, horizon: int) -> np.ndarray:
        """Compute the reference of each step ahead, (horizon, columns), from rows of the past.

        Examples
        --------
        >>> past = np.array([[1.0], [2.0], [3.0], [6.0]])
        >>> Reference(2, 1.0).of(past, 3).ravel().tolist()
        [3.0, 6.0, 3.0]
        >>> Reference().of(past, 2).ravel().tolist()
        [3.0, 3.0]
        """
        past = past[-self.steps :]
        period = self.period if len(past) >= self.period else 1
        ends = len(past) - period + np.arange(min(period, horizon))  # the latest of each phase
        count = -(-len(past) // period)
        weights = (1 - self.rate) ** np.arange(count)
        total = np.zeros((len(ends), past.shape[1]))
        share = np.zeros((len(ends), 1))
        for back, weight in enumerate(weights.tolist()):
            rows = ends - back * period
            seen = rows >= 0
            total[seen] += weight * past[rows[seen]]
            share[seen] += weight
        phases: np.ndarray = (total / share)[np.arange(horizon) % period]
        return phases


@dataclass(frozen=True)
class ErrorWindows:
    """The errors of a forecaster on windows of some series, in the order of the series."""

    #: (windows,): the number of the series, and the position of the first step of the window.
    series: np.ndarray
    origins: np.ndarray
    #: (windows, horizon, variables): in units of the scale of the series, NaN where not observed.
    errors: np.ndarray

    def some(self, chosen: np.ndarray) -> "ErrorWindows":
        """Return some windows, by a mask or positions."""
        return ErrorWindows(self.series[chosen], self.origins[chosen], self.errors[chosen])


@dataclass(frozen=True)
class ErrorFit:
    """Weights of features, and the reference that they are differences from."""

    #: (features, variables): in units of the scale of a series.
    weights: np.ndarray
    #: (variables,): the share of the errors' variation that they explained on left-out rows.
    explained: np.ndarray
    reference: Reference


class FeatureTable(Sequence[np.ndarray]):
    """The features of the texts of series, computed for one series at a time.

    Many rows share few texts, so that the rows of a long panel would take far more memory.
    """

    def __init__(
        self, tables: Sequence[np.ndarray], places: Sequence[Sequence[np.ndarray]]
    ) -> None:
        self._tables = tables  # of each column: (distinct texts, features)
        self._places = places  # of each series and column: (time,) rows of the table

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        own = zip(self._tables, self._places[number])
        return np.concatenate([table[rows] for table, rows in own], axis=1)


@dataclass
class TextErrorEffects:
    """Effects of texts on the errors of the forecasts of their steps."""

    encoder: TextEncoder
    #: One per column.
    reductions: list[TextReduction]
    #: (features, variables): in units of a series' scale.
    weights: np.ndarray
    #: (variables,): share of the errors' variation that they explained on left-out rows.
    explained: np.ndarray
    reference: Reference
    #: The most steps that the texts of a path are added up over.
    path: int

    @property
    def used(self) -> bool:
        """Return whether any text has an effect; else none is embedded."""
        return bool(self.weights.any())

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return vars(self) | {
            "encoder": self.encoder.to_state(),
            "reductions": [one.to_state() for one in self.reductions],
            "reference": self.reference.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], encoder: TextEncoder) -> Self:
        """Build the effects from the output of `to_state`, with the restored encoder."""
        fields = {
            **state,
            "encoder": encoder,
            "reductions": [TextReduction.from_state(one) for one in state["reductions"]],
            "reference": Reference.from_state(state["reference"]),
        }
        check_fields(cls, fields)
        effects = cls(**fields)
        width = 2 * sum(reduction.size + 1 for reduction in effects.reductions)
        fits = effects.weights.shape == (width, len(effects.explained)) and all(
            (one.mean.shape, one.components.shape) == ((encoder.width,), (encoder.width, one.size))
            for one in effects.reductions
        )
        if effects.path < 1 or not fits:
            raise ModelFormatError(
                "the saved model's effects of texts do not fit its reductions: fit and save "
                "the model again"
            )
        if not np.isfinite(effects.weights).all():
            raise ModelFormatError(
                "the saved model has effects of texts that are NaN or infinite, so that every "
                "forecast would be NaN: fit and save the model again"
            )
        return effects

    def features(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the features of texts, each column (rows,): (rows, features)."""
        parts = []
        for texts, reduction in zip(columns, self.reductions):
            vectors = self.encoder.encode(texts.tolist())
            parts.append(distinct_features(vectors, reduction)[vectors.numbers + 1])
        return np.concatenate(parts, axis=1)

    def table(self, series: Sequence[Sequence[np.ndarray]]) -> FeatureTable:
        """Return the features of series, whose columns are texts (time,) each."""
        return _table_of(series, _vectors_of(series, self.encoder), self.reductions)

    def relative(self, features: np.ndarray, origin: int, horizon: int) -> np.ndarray:
        """Compute what the weights read of a window: (horizon, features).

        A text may tell of a level or of a change: beside the features of a step there is their sum
        over the steps ahead up to it.
        """
        return relative_features(features, origin, horizon, self.reference, self.path)

    def effect(self, features: np.ndarray) -> np.ndarray:
        """Compute the effects of features (rows, features), in units of a scale: (rows, variables).

        No matrix product, whose rounding depends on the number of rows.
        """
        return np.stack([(features * weights).sum(axis=1) for weights in self.weights.T], axis=1)

    def shares(self, relative: np.ndarray) -> list[np.ndarray]:
        """Compute the effect of each column, in units of a scale: (rows, variables) each."""
        found = []
        first, half = 0, relative.shape[1] // 2
        for reduction in self.reductions:
            last = first + reduction.size + 1
            own = np.r_[first:last, half + first : half + last]
            found.append(relative[:, own] @ self.weights[own])
            first = last
        return found


def fit_texts_to_errors(
    series: Sequence[Sequence[np.ndarray]],
    encoder: TextEncoder,
    windows: ErrorWindows,
    references: Sequence[Reference],
) -> TextErrorEffects:
    """Fit the effects of texts on errors.

    Parameters
    ----------
    series : sequence of sequence of array (time,)
        The texts of each column of each series; the reductions are learnt from them.
    encoder : TextEncoder
        The vectors of texts.
    windows : ErrorWindows
        With the errors of a forecaster.
    references : sequence of Reference
        To choose from.
    """
    vectors = _vectors_of(series, encoder)
    reductions = [learn_reduction(one) for one in vectors]
    horizon, variables = windows.errors.shape[1:]
    nothing = np.zeros((0, variables)), np.zeros(variables)
    effects = TextErrorEffects(encoder, reductions, *nothing, references[0], horizon)
    features = _table_of(series, vectors, reductions)
    fit = fit_to_errors(features, windows, references, path=horizon)
    effects.weights, effects.explained = fit.weights, fit.explained
    effects.reference = fit.reference
    return effects


def _vectors_of(series: Sequence[Sequence[np.ndarray]], encoder: TextEncoder) -> list[TextVectors]:
    """Embed the texts of each column, of all series together."""
    return [
        encoder.encode([text for one in series for text in one[number]])
        for number in range(len(series[0]))
    ]


def _table_of(
    series: Sequence[Sequence[np.ndarray]],
    vectors: Sequence[TextVectors],
    reductions: Sequence[TextReduction],
) -> FeatureTable:
    """Reduce the vectors of each column, and divide their rows among the series."""
    tables = []
    places: list[list[np.ndarray]] = [[] for _ in series]
    for number, (column, reduction) in enumerate(zip(vectors, reductions)):
        tables.append(distinct_features(column, reduction))
        ends = np.cumsum([len(one[number]) for one in series])[:-1]
        for own, rows in zip(places, np.split(column.numbers + 1, ends)):
            own.append(rows)
    return FeatureTable(tables, places)


def fit_to_errors(
    features: Sequence[np.ndarray],
    windows: ErrorWindows,
    references: Sequence[Reference],
    *,
    path: int = 0,
) -> ErrorFit:
    """Fit a regression of errors on the features of their steps, relative to a reference.

    A mean error of a series is no effect of its covariates, so it is subtracted.

    Parameters
    ----------
    features : sequence of array (time, features)
        Of each series.
    windows : ErrorWindows
        With the errors of a forecaster.
    references : sequence of Reference
        To choose from.
    path : int, default=0
        As for `relative_features`.
    """
    horizon, variables = windows.errors.shape[1:]
    groups = np.repeat(windows.series, horizon)
    targets = windows.errors.reshape(-1, variables)  # (rows, variables)
    best: ErrorFit | None = None
    least = np.inf
    for reference in references:
        rows = np.concatenate(list(features_of_windows(features, windows, reference, path)))
        weights = np.zeros((rows.shape[1], variables))
        explained = np.zeros(variables)
        left_out = 0.0
        for variable, target in enumerate(targets.T):
            seen = np.isfinite(target)
            if not seen.any():
                continue
            fit = choose_ridge(
                without_means(rows[seen], groups[seen]),
                without_means(target[seen, None], groups[seen]),
            )
            weights[:, variable] = fit.weights[:, 0]
            explained[variable] = fit.explained[0]
            left_out += float(fit.left_out[0])
        if best is None or left_out < least:
            best, least = ErrorFit(weights, explained, reference), left_out
    assert best is not None  # there is a reference
    return best


def features_of_windows(
    features: Sequence[np.ndarray], windows: ErrorWindows, reference: Reference, path: int = 0
) -> Iterator[np.ndarray]:
    """Compute the relative features of windows, (horizon, features) each.

    Yields
    ------
    array (horizon, features)
    """
    last, own = -1, np.empty((0, 0))
    for number, origin in zip(windows.series.tolist(), windows.origins.tolist()):
        if number != last:
            last, own = number, features[number]
        yield relative_features(own, origin, windows.errors.shape[1], reference, path)


def relative_features(
    features: np.ndarray, origin: int, horizon: int, reference: Reference, path: int = 0
) -> np.ndarray:
    """Compute features of a window relative to their reference: (horizon, features).

    Steps after the end of the series repeat the last one; they have no error. With ``path`` there
    are twice as many features: those relative to the recent mean, summed over the steps ahead up
    to each, at most ``path`` of them, and divided by ``path``.

    Examples
    --------
    >>> features = np.array([[0.0], [0.0], [1.0], [3.0]])
    >>> relative_features(features, 2, 2, Reference(), path=2).tolist()
    [[1.0, 0.5], [3.0, 2.0]]
    """
    ahead = features[np.minimum(origin + np.arange(horizon), len(features) - 1)]
    past = features[max(0, origin - reference.steps_read) : origin]
    relative: np.ndarray = ahead - reference.of(past, horizon)
    if not path:
        return relative
    total = np.cumsum(ahead - past[-REFERENCE_STEPS:].mean(axis=0), axis=0)
    total[path:] -= total[:-path].copy()
    return np.concatenate([relative, total / path], axis=1)


def references_of(season: int, steps: int) -> list[Reference]:
    """List the references to choose from, for series of a season and contexts of some steps."""
    found = [Reference(1, rate) for rate in RATES]
    if 1 < season <= steps:
        found += [Reference(season, rate) for rate in RATES if rate != 0.2]
    return found
