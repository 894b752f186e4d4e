"""The state of a fitted TextContext: a forecaster, and the effects that are added to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tsllm.context import Context
from tsllm.covariates.effects import missing_future
from tsllm.covariates.forecast_errors import Reference, TextErrorEffects
from tsllm.covariates.texts import RECENT, TextWindow
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.candidates import Candidate, SktimeCandidate
from tsllm.forecasters.forecasting import Prediction, Reader
from tsllm.forecasters.held_out import usual_change
from tsllm.forecasters.state import FittedState


@dataclass
class TextContextState(FittedState):
    """The fitted forecaster, and the effects that are added to its forecasts.

    Attributes
    ----------
    inner : Candidate or None
        The forecaster; None only while a state is built.
    inside : tuple of str
        The columns of X that the forecaster reads itself.
    reference : Reference
        The past steps whose effects its forecasts carry already.
    texts : TextErrorEffects or None
        The effects of the texts of the same step; None without such texts.
    facts : dict
        The error without and with the effects on the last windows, and their number.
    """

    inner: Candidate | None = None
    inside: tuple[str, ...] = ()
    reference: Reference = field(default_factory=Reference)
    texts: TextErrorEffects | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def scaled(self, contexts: Sequence[Context]) -> list[Context]:
        """Add the scale of the effects, and the level of y, which the forecaster reads as it is."""
        if self.covariates is None:
            return list(contexts)
        unread = replace(self.covariates, known=None)
        return unread.scaled(contexts)

    def residuals(self, contexts: Sequence[Context]) -> list[Context]:
        """Check the covariates and return the contexts: the forecaster reads y as it is."""
        if self.covariates is None:
            return list(contexts)
        unread = replace(self.covariates, known=None)
        return unread.residuals(contexts)

    @property
    def reads_between(self) -> bool:
        """Return whether the forecaster inside may read them: one of sktime may be recursive."""
        return bool(self.inside) and isinstance(self.inner, SktimeCandidate)

    def with_future_effects(
        self,
        values: np.ndarray,
        contexts: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Add the effects of the future, less those of the past that the forecasts carry."""
        values = super().with_future_effects(values, contexts, futures)
        covariates = self.covariates
        if covariates is None or covariates.known is None or not covariates.known.weights.any():
            return values
        carried = []
        for context in contexts:
            past = context.tail(self.reference.steps)
            assert past.x_scale is not None  # of the first step of the path
            effects = covariates.known.effect(
                covariates.coded(past, covariates.columns.known_values), past.x_scale
            )
            carried.append(self.reference.of(effects, values.shape[1]))
        return values - np.stack(carried)[..., None]

    def with_text_effects(
        self,
        values: np.ndarray,
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Add the effects of past texts, and those of future texts less what forecasts carry."""
        covariates, horizon = self.covariates, values.shape[1]
        if covariates is None:
            return values
        if covariates.texts is not None:
            effects = covariates.texts.effects(self._past_text_windows(residuals), horizon)
            values = values + effects[..., None]
        if self.texts is None or not self.texts.used:
            return values
        found = []
        for context, relative in zip(residuals, self._relative_texts(residuals, futures, horizon)):
            assert context.x_scale is not None  # of the first step of the path
            found.append(self.texts.effect(relative) * context.x_scale)
        return values + np.stack(found)[..., None]

    def shares(
        self,
        contexts: Sequence[Context],
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
        horizon: int,
    ) -> dict[str, np.ndarray]:
        """Compute the share of each column in forecasts; see `Covariates.shares`."""
        covariates = self.covariates
        assert covariates is not None  # the caller checks it
        columns = covariates.columns
        shares = replace(covariates, texts=None).shares(contexts, residuals, futures, horizon)
        if covariates.known is not None and covariates.known.weights.any():
            for row, context in enumerate(contexts):
                past = context.tail(self.reference.steps)
                assert past.x_scale is not None  # of the first step of the path
                coded = covariates.coded(past, columns.known_values)
                own = covariates.known.shares(coded, past.x_scale)
                for name, share in zip(columns.known_values, own):
                    shares[name][row] -= self.reference.of(share, horizon)
        if covariates.texts is not None:
            windows = self._past_text_windows(residuals)
            found = covariates.texts.shares(windows, horizon, explaining=True)
            for number, name in enumerate(columns.past_texts):
                shares[name] = found[..., number]
        if self.texts is not None and self.texts.used:
            relative = self._relative_texts(residuals, futures, horizon)
            for row, (context, features) in enumerate(zip(residuals, relative)):
                for name, share in zip(columns.known_texts, self.texts.shares(features)):
                    shares[name][row] = share * context.x_scale
        return shares

    def _relative_texts(
        self,
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
        horizon: int,
    ) -> list[np.ndarray]:
        """Compute what the effects of known texts read: (horizon, features) of each context."""
        covariates = self.covariates
        assert covariates is not None and self.texts is not None  # the callers check it
        columns, steps = covariates.columns, self.texts.reference.steps_read
        read: list[list[np.ndarray]] = [[] for _ in columns.known_texts]
        for row, context in enumerate(residuals):
            future = None if futures is None else futures[row]
            if future is None:
                raise DataError(missing_future(context, columns))
            names = columns.known_texts
            ahead = columns.pick(future, columns.known, names, series=context.series_id)
            past = covariates.coded(context.tail(steps), names)
            for texts, *parts in zip(read, past, ahead):
                texts.extend(parts)
        features = self.texts.features([np.concatenate(texts) for texts in read])
        found, first = [], 0
        for context in residuals:
            middle = first + min(steps, len(context))
            own = features[first : middle + horizon]
            found.append(self.texts.relative(own, middle - first, horizon))
            first = middle + horizon
        return found

    def _past_text_windows(self, contexts: Sequence[Context]) -> list[TextWindow]:
        """Return what the effects of texts whose future is not known read of contexts."""
        covariates = self.covariates
        assert covariates is not None  # the caller checks it
        windows = []
        for context in contexts:
            assert context.x_scale is not None and context.x_level is not None  # first step
            near = covariates.coded(context.tail(RECENT), covariates.columns.past_texts)
            windows.append(TextWindow(context.values, context.x_scale, context.x_level, near, []))
        return windows

    def inner_contexts(self, contexts: Sequence[Context]) -> list[Context]:
        """Return the contexts as the forecaster reads them: with its own columns of X only."""
        found = []
        for context in contexts:
            x = None
            if self.inside:
                assert self.covariates is not None  # it has the columns
                x = np.column_stack(self.covariates.coded(context, self.inside))
            found.append(replace(context, past_x=x, static=None))
        return found

    def inner_futures(
        self, contexts: Sequence[Context], futures: Sequence[np.ndarray | None] | None
    ) -> list[np.ndarray | None] | None:
        """Return the forecaster's own columns of known futures, (horizon, known) each."""
        if not self.inside:
            return None
        assert self.covariates is not None  # it has the columns
        columns = self.covariates.columns
        found: list[np.ndarray | None] = []
        for number, context in enumerate(contexts):
            future = None if futures is None else futures[number]
            if future is None:
                raise DataError(missing_future(context, columns))
            coded = columns.pick(future, columns.known, self.inside, series=context.series_id)
            found.append(np.column_stack(coded))
        return found

    def summary(self) -> dict[str, Any]:
        """Summarise the forecaster and what was added to it."""
        assert self.inner is not None  # built
        told = super().summary()
        if self.texts is not None:
            told["texts_explain"] = self.texts.explained.round(4).tolist()
            told["text"] = self.texts.encoder.summary()
        told["trained_parameters"] = self.inner.trained_parameters
        return {**told, "forecaster": self.inner.name, **self.facts}

    def card_facts(self, loss: str, *, pretrained: bool, with_context: bool) -> dict[str, Any]:
        """Return the facts for the card of a saved forecaster."""
        assert self.inner is not None  # built
        facts = super().card_facts(loss, pretrained=pretrained, with_context=with_context)
        facts["results"] = {
            "Mean absolute scaled error on the last windows": {
                "forecaster": self.inner.name,
                "without": self.facts["error_without"],
                "with": self.facts["error"],
                "windows": self.facts["windows"],
                "seconds": round(self.seconds, 1),
            }
        }
        return facts

    def to_state(self) -> dict[str, Any]:
        """Return everything but the backbone as plain values, arrays and tensors."""
        assert self.inner is not None  # built
        return super().to_state() | {
            "inner": self.inner.to_state(),
            "inside": self.inside,
            "reference": self.reference.to_state(),
            "error_texts": None if self.texts is None else self.texts.to_state(),
            "facts": self.facts,
        }


@dataclass(frozen=True)
class InnerReader(Reader):
    """Forecasts contexts with the forecaster inside, which reads its own columns of X."""

    state: TextContextState
    futures: Sequence[np.ndarray | None] | None = None

    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Predict the contexts; their scale is the usual change of their end."""
        state, season = self.state, season_length(self.state.shape.freq)
        assert state.inner is not None  # fitted
        values = state.inner.forecast(
            state.inner_contexts(contexts), horizon, state.inner_futures(contexts, self.futures)
        )
        keep = state.shape.context_length
        scales = np.stack([usual_change(c.tail(keep).values, season) for c in contexts])
        return values[..., None], scales
