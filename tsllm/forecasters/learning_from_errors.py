"""Effects of covariates, learnt from a forecaster's errors and judged on its last ones."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates, fit_covariates
from tsllm.covariates.contemporaneous import ContemporaneousEffects, basis_of, features_of
from tsllm.covariates.forecast_errors import (
    ErrorWindows,
    Reference,
    features_of_windows,
    fit_texts_to_errors,
    fit_to_errors,
    references_of,
)
from tsllm.covariates.lagged import LaggedEffects
from tsllm.covariates.text_fitting import TextSeries, fit_texts
from tsllm.covariates.texts import TextEffects
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.held_out import HeldOut
from tsllm.forecasters.text_context_state import TextContextState
from tsllm.text import TextEncoder

#: The share of the windows of a series, at its end, that the effects are judged on. A series with
#: fewer windows than `FEWEST` is not divided: all of its windows judge, or none.
JUDGED, FEWEST = 0.25, 4
#: The parts of the judged windows whose gains are compared.
PARTS = 5


@dataclass(frozen=True)
class ErrorLearner:
    """Learns the effects of a state's covariates, one kind after the other.

    Each kind is learnt on the errors that the kinds before it leave, on the windows that end before
    the judged ones. Where it lowers the error of the judged windows, it is learnt once more on all
    windows; else it is zero.
    """

    state: TextContextState
    covariates: Covariates
    #: The series with their scale, and each up to its first judged window.
    contexts: Sequence[Context]
    training: Sequence[Context]
    windows: HeldOut
    #: (windows,): masks of the windows that are learnt from, and of those that judge.
    learnt: np.ndarray
    judged: np.ndarray
    make_encoder: Callable[[Sequence[str | None]], TextEncoder]

    @classmethod
    def of(
        cls,
        state: TextContextState,
        contexts: Sequence[Context],
        windows: HeldOut,
        make_encoder: Callable[[Sequence[str | None]], TextEncoder],
    ) -> "ErrorLearner":
        """Divide windows into those to learn from and those that judge."""
        assert state.covariates is not None  # the caller checks it
        places = zip(windows.series.tolist(), windows.origins.tolist())
        pasts = [contexts[number].until(origin) for number, origin in places]
        windows = replace(windows, pasts=pasts)  # with the scale of the whole series
        judged = _last_windows(windows)
        learnt = ~judged & _before(windows, judged)
        ends = _ends(contexts, windows, judged)
        training = [context.until(end) for context, end in zip(contexts, ends)]
        return cls(
            state, state.covariates, contexts, training, windows, learnt, judged, make_encoder
        )

    def learn(self, forecasts: np.ndarray) -> np.ndarray:
        """Learn all effects and return the forecasts of the windows with those of the first fit.

        The forecasts are (windows, horizon, variables).
        """
        columns = self.covariates.columns
        if columns.past_values:
            forecasts = self._learn_past(forecasts)
        if columns.known_values:
            forecasts = self._learn_known(forecasts)
        if not columns.texts:
            return forecasts
        if not (self.learnt.any() and self.judged.any()):
            warnings.warn(
                f"the texts {', '.join(columns.texts)} have no effect: the windows of the series "
                "are too few to learn from; give longer series, a shorter horizon, or more "
                "n_origins",
                stacklevel=2,
            )
            return forecasts
        if columns.past_texts:
            forecasts = self._learn_past_texts(forecasts)
        return self._learn_known_texts(forecasts) if columns.known_texts else forecasts

    # ------------------------------------------------------------------ numbers and categories

    def _learn_past(self, base: np.ndarray) -> np.ndarray:
        """Learn the lagged effects of the columns whose future is not known."""
        columns, shape = self.covariates.columns, self.state.shape
        names = columns.past_values
        places = columns.positions(names)
        past = CovariateColumns(names, tuple(columns.categories[i] for i in places), names)
        effects: LaggedEffects | None = fit_covariates(
            [replace(one, past_x=_columns_of(one, places)) for one in self.training],
            past,
            context_length=shape.context_length,
            horizon=shape.horizon,
            season=season_length(shape.freq),
            validation_fraction=0.0,
        ).past
        assert effects is not None  # of these columns
        self.covariates.past = effects
        whole = base + self.covariates.lagged_effects(self.windows.pasts, shape.horizon)
        lower = self._lower(base, whole)
        effects.weights[~lower] = 0.0
        effects.explained[~lower] = 0.0
        return np.where(lower, whole, base)

    def _learn_known(self, base: np.ndarray) -> np.ndarray:
        """Learn the effects of the columns whose future is known."""
        covariates, variables = self.covariates, base.shape[2]
        names = covariates.columns.known_values
        coded = [covariates.coded(context, names) for context in self.training]
        sizes = [
            len(covariates.columns.categories[i] or ()) for i in covariates.columns.positions(names)
        ]
        bases = [
            basis_of(np.concatenate([one[k] for one in coded]), n) for k, n in enumerate(sizes)
        ]
        widths = [basis.width for basis in bases]
        own = np.repeat([name not in self.state.inside for name in names], widths)
        effects = ContemporaneousEffects(
            bases, np.zeros((len(own), variables)), np.zeros(variables)
        )
        covariates.known = effects
        if not (self.learnt.any() and self.judged.any() and own.any()):
            return base
        features = [
            features_of(bases, covariates.coded(context, names))[:, own]
            for context in self.contexts
        ]
        errors = self._errors(base)
        fit = fit_to_errors(features, errors.some(self.learnt), self._references())
        relative = features_of_windows(features, errors, fit.reference)
        whole = base + self._in_units(np.stack([one @ fit.weights for one in relative]))
        lower = self._lower(base, whole)
        if lower.any():
            self.state.reference = fit.reference
            last = fit_to_errors(features, errors, [fit.reference])
            effects.weights[own] = np.where(lower, last.weights, 0.0)
            effects.explained = np.where(lower, fit.explained, 0.0)
        return np.where(lower, whole, base)

    # ------------------------------------------------------------------ texts

    def _learn_known_texts(self, base: np.ndarray) -> np.ndarray:
        """Learn the effects of texts whose future is known."""
        names = self.covariates.columns.known_texts
        read = [self.covariates.coded(context, names) for context in self.training]
        encoder = self.make_encoder(_all_texts(read))
        errors = self._errors(base)
        found = fit_texts_to_errors(read, encoder, errors.some(self.learnt), self._references())
        read = [self.covariates.coded(context, names) for context in self.contexts]
        relative = features_of_windows(found.table(read), errors, found.reference, found.path)
        whole = base + self._in_units(np.stack([found.effect(one) for one in relative]))
        lower = self._lower(base, whole)
        if lower.any():
            explained = found.explained
            found = fit_texts_to_errors(read, encoder, errors, [found.reference])
            found.explained = explained
        found.weights = np.where(lower, found.weights, 0.0)
        found.explained = np.where(lower, found.explained, 0.0)
        self.state.texts = found
        return np.where(lower, whole, base)

    def _learn_past_texts(self, base: np.ndarray) -> np.ndarray:
        """Learn the effects of texts whose future is not known."""
        covariates = self.covariates
        names = covariates.columns.past_texts
        read = [covariates.coded(context, names) for context in self.training]
        encoder = self.make_encoder(_all_texts(read))
        effects = self._fit_past_texts(self.training, encoder, base, self.learnt)
        covariates.texts = effects
        added = self.state.with_text_effects(np.zeros((*base.shape, 1)), self.windows.pasts, None)
        whole = base + added[..., 0]
        lower = self._lower(base, whole)
        if lower.any():
            explained = effects.explained
            effects = self._fit_past_texts(self.contexts, encoder, base, self.learnt | True)
            effects.explained = explained
        effects.weights[..., ~lower] = 0.0
        effects.own_weights[..., ~lower] = 0.0
        effects.explained[~lower] = 0.0
        covariates.texts = effects
        return np.where(lower, whole, base)

    def _fit_past_texts(
        self,
        contexts: Sequence[Context],
        encoder: TextEncoder,
        forecasts: np.ndarray,
        chosen: np.ndarray,
    ) -> TextEffects:
        """Fit the effects of past texts to the errors on the chosen windows."""
        names, windows, series = self.covariates.columns.past_texts, self.windows, []
        for number, context in enumerate(contexts):
            rows = np.flatnonzero(chosen & (windows.series == number))
            assert context.x_scale is not None  # scaled
            series.append(
                TextSeries(
                    context.values,
                    context.x_scale,
                    self.covariates.coded(context, names),
                    windows.origins[rows],
                    forecasts[rows],
                )
            )
        shape = self.state.shape
        return fit_texts(
            series,
            encoder,
            n_known=0,
            window=shape.context_length,
            horizon=shape.horizon,
            season=season_length(shape.freq),
        )

    # ------------------------------------------------------------------ errors

    def _errors(self, forecasts: np.ndarray) -> ErrorWindows:
        """Return the errors of forecasts in units of the scale of each series."""
        errors = (self.windows.actual - forecasts) / self._scales()
        return ErrorWindows(self.windows.series, self.windows.origins, errors)

    def _in_units(self, effects: np.ndarray) -> np.ndarray:
        """Return effects in the units of each series; 0 for a series that never changes."""
        return effects * np.nan_to_num(self._scales())

    def _scales(self) -> np.ndarray:
        """Return the scale of the effects, (windows, 1, variables); NaN for a constant."""
        scale = np.stack([self.contexts[number].x_scale for number in self.windows.series])
        return np.where(scale > 0, scale, np.nan)[:, None]

    def _references(self) -> list[Reference]:
        """List the references of effects to choose from."""
        shape = self.state.shape
        return references_of(season_length(shape.freq), shape.context_length)

    def _lower(self, without: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Return for which variables effects lower the error of the judged windows.

        They do where the mean gain of some consecutive parts exceeds its standard error.
        """
        before, after = (
            _scaled_errors(self.windows, forecasts, self.judged) for forecasts in (without, whole)
        )
        gains = np.nan_to_num(before - after)  # (windows, variables)
        if len(gains) < 2:
            return np.zeros(gains.shape[1], dtype=bool)
        parts = np.stack([p.mean(axis=0) for p in np.array_split(gains, min(PARTS, len(gains)))])
        doubt = parts.std(axis=0, ddof=1) / np.sqrt(len(parts)) + 1e-9 * np.nanmean(before)
        lower: np.ndarray = parts.mean(axis=0) > doubt
        return lower


def mean_error(windows: HeldOut, forecasts: np.ndarray, chosen: np.ndarray) -> float | None:
    """Compute the mean absolute scaled error of some windows; None without a score."""
    errors = _scaled_errors(windows, forecasts, chosen)
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else None


def _scaled_errors(windows: HeldOut, forecasts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Compute the mean absolute scaled errors of some windows: (windows, variables), or NaN."""
    if not chosen.any():
        return np.full((1, forecasts.shape[2]), np.nan)
    some = windows.some(chosen).with_forecasts(forecasts[chosen][..., None])
    found: np.ndarray = some.mean_errors(np.ones((1, 1)), 0, forecasts.shape[1])[..., 0]
    return found


def _all_texts(series: Sequence[Sequence[np.ndarray]]) -> list[str | None]:
    """List the texts of all columns of all series."""
    return [text for columns in series for column in columns for text in column]


def _last_windows(windows: HeldOut) -> np.ndarray:
    """Choose the windows that judge the effects, a mask; none where there are too few.

    They are the last ones of each series. Of series with few windows, some are judged whole.
    """
    judged = np.zeros(len(windows.pasts), dtype=bool)
    few = 0
    for number in np.unique(windows.series):
        rows = np.flatnonzero(windows.series == number)
        if len(rows) >= FEWEST:
            judged[rows[len(rows) - round(JUDGED * len(rows)) :]] = True
        else:
            few += 1
            judged[rows] = few % round(1 / JUDGED) == 0
    return judged


def _before(windows: HeldOut, judged: np.ndarray) -> np.ndarray:
    """Choose the windows that end before the first judged one of their series: a mask."""
    horizon = windows.actual.shape[1]
    chosen = np.ones(len(judged), dtype=bool)
    for number in np.unique(windows.series[judged]):
        own = windows.series == number
        chosen[own] = windows.origins[own] + horizon <= windows.origins[own & judged].min()
    return chosen


def _ends(contexts: Sequence[Context], windows: HeldOut, judged: np.ndarray) -> list[int]:
    """Return the number of steps of each series before its first judged window."""
    ends = [len(context) for context in contexts]
    for number in np.unique(windows.series[judged]).tolist():
        ends[number] = int(windows.origins[judged & (windows.series == number)].min())
    return ends


def _columns_of(context: Context, positions: Sequence[int]) -> np.ndarray:
    """Return some of a context's covariates."""
    assert context.past_x is not None  # fit joins them
    chosen: np.ndarray = context.past_x[:, list(positions)]
    return chosen
