"""The covariates of a forecaster: subtracted from the series it reads, added to its forecasts."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsllm.context import Context, typical_length
from tsllm.covariates.columns import CovariateColumns
from tsllm.covariates.contemporaneous import (
    CodedSeries,
    ColumnBasis,
    ContemporaneousEffects,
    basis_of,
    fit_contemporaneous,
    scale_of,
)
from tsllm.covariates.lagged import LaggedEffects, fit_lagged
from tsllm.covariates.text_fitting import TextSeries, fit_texts
from tsllm.covariates.texts import RECENT, TextEffects, TextWindow
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError, ModelFormatError
from tsllm.saving.fields import read_fields
from tsllm.text import TextEncoder

#: Seasons in a block of the regression, where the series have as many.
SEASONS_OF_A_BLOCK = 4


@dataclass
class Covariates:
    """The fitted effects of the covariates; immutable after the fit.

    The model forecasts the residual of the contemporaneous effects.
    """

    columns: CovariateColumns
    #: Steps of the blocks that a series' scale is measured in.
    block: int
    #: Of the columns whose future is known; None where there are none.
    known: ContemporaneousEffects | None
    #: Of the other columns.
    past: LaggedEffects | None
    #: Of the columns of text; None where there are none.
    texts: TextEffects | None = None

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return {
            "columns": vars(self.columns),
            "block": self.block,
            "known": None if self.known is None else self.known.to_state(),
            "past": None if self.past is None else self.past.to_state(),
            "texts": None if self.texts is None else self.texts.to_state(),
        }

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        restore_encoder: Callable[[Mapping[str, Any]], TextEncoder] | None = None,
    ) -> "Covariates":
        """Build the covariates from the output of `to_state`.

        ``restore_encoder`` builds the encoder of texts from its own state.
        """
        known, past, texts = state["known"], state["past"], state["texts"]
        effects = (
            None if known is None else ContemporaneousEffects.from_state(known),
            None if past is None else LaggedEffects.from_state(past),
        )
        if any(one is not None and not np.isfinite(one.weights).all() for one in effects):
            raise ModelFormatError(
                "the saved model has effects of covariates that are NaN or infinite, so that "
                "every forecast would be NaN: fit and save the model again"
            )
        columns = read_fields(CovariateColumns, state["columns"])
        if len(columns.categories) != len(columns.names):
            raise ModelFormatError(
                f"the saved model has {len(columns.names)} covariates, and the kinds of "
                f"{len(columns.categories)}: save it again"
            )
        covariates = cls(columns, state["block"], *effects)
        if texts is not None:
            if restore_encoder is None:
                raise ModelFormatError("the saved model reads texts, which its forecaster does not")
            covariates.texts = TextEffects.from_state(texts, restore_encoder(texts["encoder"]))
        return covariates

    def scaled(self, contexts: Sequence[Context]) -> list[Context]:
        """Add the scale of the effects to contexts without one, and the level that texts read."""
        contexts = self.with_scales(contexts)
        if not self.columns.texts:
            return contexts
        unknown = [row for row, context in enumerate(contexts) if context.x_level is None]
        for row in unknown:
            self._check_covariates(contexts[row])
        for row, rest in zip(unknown, self._rest([contexts[row] for row in unknown])):
            contexts[row] = replace(contexts[row], x_level=_mean_of(rest))
        return contexts

    def with_scales(self, contexts: Sequence[Context]) -> list[Context]:
        """Add the scale of the effects to contexts without one."""
        return [
            replace(context, x_scale=scale_of(context.values, self.block))
            if context.x_scale is None
            else context
            for context in contexts
        ]

    def residual(self, context: Context) -> Context:
        """Subtract the effects on the same step from a context, which keeps its covariates."""
        return self.residuals([context])[0]

    def residuals(self, contexts: Sequence[Context]) -> list[Context]:
        """Subtract the effects on the same step from contexts, and embed their texts together."""
        for context in contexts:
            self._check_covariates(context)
        if not self.columns.names:
            return list(contexts)
        contexts = self.with_scales(contexts)
        rests = self._rest(contexts)
        if self.columns.texts:
            contexts = [
                replace(context, x_level=_mean_of(rest)) if context.x_level is None else context
                for context, rest in zip(contexts, rests)
            ]
        if self.known is None and not self._cleans:
            return contexts
        return [context.with_values(rest) for context, rest in zip(contexts, rests)]

    @property
    def _cleans(self) -> bool:
        """Return whether texts have effects on the same step, which the past is cleaned of."""
        return self.texts is not None and bool(self.texts.now.any())

    def _check_covariates(self, context: Context) -> None:
        """Check that a context comes with what the model reads beside the series."""
        missing = [n for n in self.columns.static if n not in (context.static or {})]
        if missing:
            raise DataError(
                f"{series_name(context.series_id)} comes without its attribute {missing[0]!r}, "
                "which the model was fitted with: pass it as a column of X (static of a context)"
            )
        if not self.columns.names:
            return
        if context.past_x is None:
            raise DataError(
                f"{series_name(context.series_id)} comes without its covariates and the model was "
                f"fitted with {', '.join(self.columns.names)}: pass them as X (past_x of a context)"
            )
        if len(context.past_x) != len(context):
            raise DataError(
                f"{series_name(context.series_id)} has {len(context)} steps and covariates of "
                f"{len(context.past_x)}: past_x must have one row a step"
            )

    def future_effects(
        self, contexts: Sequence[Context], futures: Sequence[np.ndarray | None] | None
    ) -> list[np.ndarray]:
        """Compute the effects of known columns on the same steps: (horizon, variables) each.

        ``futures`` are (horizon, known columns) each, or None where all covariates are past ones.
        The contexts have their scales. Their texts are embedded together.
        """
        if futures is None:
            futures = [None] * len(contexts)
        effects = self._known_effects(contexts, futures)
        if self._cleans:
            assert self.texts is not None
            names = self.columns.known, self.columns.known_texts
            texts = [
                self.columns.pick(future, *names, series=context.series_id)
                for context, future in zip(contexts, futures)
                if future is not None  # checked above
            ]
            for row, effect in enumerate(self.texts.now_effects(texts)):
                effects[row] = effects[row] + effect * contexts[row].x_scale
        return effects

    def _known_effects(
        self, contexts: Sequence[Context], futures: Sequence[np.ndarray | None]
    ) -> list[np.ndarray]:
        """Compute the effects of known numbers and categories; check the futures."""
        columns, coded, scales = self.columns, [], []
        for context, future in zip(contexts, futures):
            if not columns.known and future is not None and np.asarray(future).size:
                raise DataError(
                    "future_x was given and every covariate of this model is a past one: leave it "
                    "out"
                )
            if columns.known and future is None:
                raise DataError(missing_future(context, columns))
            if self.known is not None:
                assert context.x_scale is not None and future is not None
                names = columns.known, columns.known_values
                coded.append(columns.pick(future, *names, series=context.series_id))
                scales.append(context.x_scale)
        if self.known is None:
            return [np.zeros((1, context.n_variables)) for context in contexts]
        return self.known.effects(coded, scales)

    def text_effects(
        self,
        contexts: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
        horizon: int,
    ) -> np.ndarray:
        """Compute the effects of texts on steps ahead: (series, horizon, variables).

        The contexts are residuals with their covariates, and ``futures`` their known columns,
        (horizon, known columns) each; None where all covariates are past ones.
        """
        assert self.texts is not None
        return self.texts.effects(self.text_windows(contexts, futures), horizon)

    def text_windows(
        self, contexts: Sequence[Context], futures: Sequence[np.ndarray | None] | None
    ) -> list[TextWindow]:
        """Return what the effects of texts read of residuals and of their known columns."""
        columns, windows = self.columns, []
        for row, context in enumerate(contexts):
            assert context.x_scale is not None and context.x_level is not None  # of a residual
            near = self.coded(context.tail(RECENT), (*columns.known_texts, *columns.past_texts))
            ahead: list[np.ndarray] = []
            if columns.known_texts:
                future = None if futures is None else futures[row]
                if future is None:
                    raise DataError(missing_future(context, columns))
                ahead = columns.pick(
                    future, columns.known, columns.known_texts, series=context.series_id
                )
            windows.append(
                TextWindow(context.values, context.x_scale, context.x_level, near, ahead)
            )
        return windows

    def known_ahead(self, context: Context, origin: int, horizon: int) -> np.ndarray | None:
        """Return the known columns after a position of a context: (horizon, known columns).

        Only `text_effects` reads them, so the result is None where no text is known ahead. Steps
        after the end of the context have None.
        """
        if not self.columns.known_texts:
            return None
        assert context.past_x is not None  # the callers check it
        ahead = np.full((horizon, len(self.columns.known)), None, dtype=object)
        rows = context.past_x[origin : origin + horizon]
        ahead[: len(rows)] = rows[:, self.columns.positions(self.columns.known)]
        return ahead

    def lagged_effects(self, contexts: Sequence[Context], horizon: int) -> np.ndarray:
        """Forecast the residuals from past covariates: (series, horizon, variables).

        The contexts are residuals with their covariates.
        """
        assert self.past is not None
        effects = []
        for one in contexts:
            near = one.tail(self.past.window)
            coded = self.coded(near, self.columns.past_values)
            effects.append(self.past.lagged_effects(near.values, coded, horizon))
        return np.stack(effects)

    def shares(
        self,
        contexts: Sequence[Context],
        residuals: Sequence[Context],
        futures: Sequence[np.ndarray | None] | None,
        horizon: int,
    ) -> dict[str, np.ndarray]:
        """Compute the share of each column in forecasts: (series, horizon, variables) each.

        The contexts have their scales. A missing text has no share. The change that covariates
        make to the weights of a series' own lags is no share either.
        """
        columns = self.columns
        shape = (len(contexts), horizon, contexts[0].n_variables)
        shares = {name: np.zeros(shape) for name in columns.names}
        for row, (context, residual) in enumerate(zip(contexts, residuals)):
            if self.known is not None and futures is not None:
                assert context.x_scale is not None  # the callers measured it
                future = futures[row]
                assert future is not None  # checked where the effects are added
                coded = columns.pick(future, columns.known, columns.known_values)
                found = self.known.shares(coded, context.x_scale)
                for name, share in zip(columns.known_values, found):
                    shares[name][row] = share
            if self.past is not None:
                near = residual.tail(self.past.window)
                coded = self.coded(near, columns.past_values)
                found = self.past.shares(near.values, coded, horizon)
                for name, share in zip(columns.past_values, found):
                    shares[name][row] = share
        if self.texts is not None:
            windows = self.text_windows(residuals, futures)
            of_texts = self.texts.shares(windows, horizon, explaining=True)
            for number, name in enumerate((*columns.known_texts, *columns.past_texts)):
                shares[name] = of_texts[..., number]
        return shares

    def summary(self) -> dict[str, object]:
        """Return the share of the variation that the covariates explained on left-out rows."""
        found: dict[str, object] = {"covariates": list(self.columns.everything)}
        if self.known is not None:
            found["covariates_explain"] = self.known.explained.round(4).tolist()
        if self.past is not None:
            found["past_covariates_explain"] = self.past.explained.round(4).tolist()
        if self.texts is not None:
            found["texts_explain"] = self.texts.explained.round(4).tolist()
            found["text"] = self.texts.encoder.summary()
        return found

    def typical(self) -> dict[str, float | str]:
        """Return a value of each column of X for examples: a mean, or some category."""
        values: dict[str, float | str] = {}
        columns = self.columns
        each = ((columns.known_values, self.known), (columns.past_values, self.past))
        for names, effects in each:
            for name, basis in zip(names, [] if effects is None else effects.bases):
                known = self.columns.categories[self.columns.names.index(name)]
                values[name] = round(basis.mean, 3) if known is None else known[0]
        values |= dict.fromkeys(columns.texts, "A text about this step.")
        return values | dict.fromkeys(columns.static, "unknown")

    def coded(self, context: Context, names: Sequence[str]) -> list[np.ndarray]:
        """Return some of a context's covariates as numbers, an array (time,) each."""
        assert context.past_x is not None  # the callers check it
        columns = self.columns
        return columns.pick(context.past_x, columns.names, names, series=context.series_id)

    def _rest(self, contexts: Sequence[Context]) -> list[np.ndarray]:
        """Subtract the effects on the same step: (time, variables) each."""
        rests = [context.values for context in contexts]
        if self.known is not None:
            coded = [self.coded(context, self.columns.known_values) for context in contexts]
            scales = [context.x_scale for context in contexts]
            effects = self.known.effects(coded, scales)  # type: ignore[arg-type]  # measured before
            rests = [rest - effect for rest, effect in zip(rests, effects)]
        if self._cleans:
            assert self.texts is not None
            texts = [self.coded(context, self.columns.known_texts) for context in contexts]
            for row, effect in enumerate(self.texts.now_effects(texts)):
                rests[row] = rests[row] - effect * contexts[row].x_scale
        return rests


def fit_covariates(
    contexts: Sequence[Context],
    columns: CovariateColumns,
    *,
    context_length: int,
    horizon: int,
    season: int,
    validation_fraction: float,
    make_encoder: Callable[[Sequence[str | None]], TextEncoder] | None = None,
) -> Covariates:
    """Fit the effects of covariates on series.

    The last ``validation_fraction`` of each series is left out. Training may hold out more steps of
    a short series, which the effects do read: without them the forecasts are less accurate, and
    their intervals hold hardly more values. ``make_encoder`` makes the encoder of texts from those
    of training.
    """
    block = block_length(contexts, context_length, season)
    covariates = Covariates(columns, block, None, None)
    contexts = covariates.with_scales(contexts)
    learnt = [_training_part(context, validation_fraction) for context in contexts]
    n_categories = [0 if known is None else len(known) for known in columns.categories]
    if columns.known_values:
        series = []
        for one in learnt:
            assert one.x_scale is not None
            coded = covariates.coded(one, columns.known_values)
            series.append(CodedSeries(coded, one.values, one.x_scale))
        covariates.known = fit_contemporaneous(
            series,
            [n_categories[i] for i in columns.positions(columns.known_values)],
            block=block,
            season=season,
        )
    residuals = covariates.residuals(learnt) if columns.past_values or columns.texts else []
    if columns.past_values:
        coded_past = [covariates.coded(one, columns.past_values) for one in learnt]
        bases: list[ColumnBasis] = [
            basis_of(np.concatenate([coded[k] for coded in coded_past]), n_categories[place])
            for k, place in enumerate(columns.positions(columns.past_values))
        ]
        covariates.past = fit_lagged(
            [one.values for one in residuals],
            coded_past,
            bases,
            window=context_length,
            season=season,
            horizon=horizon,
        )
        if not covariates.past.learnt:
            warnings.warn(
                f"the past covariates {', '.join(columns.past_values)} have no effect: the series "
                f"are too short to learn from, for a window of {covariates.past.own_lags} steps "
                f"and a horizon of {horizon}; give longer series, or a shorter horizon",
                stacklevel=2,
            )
    if columns.texts:
        assert make_encoder is not None  # a forecaster that takes texts passes it
        _fit_texts(covariates, residuals, make_encoder, context_length, horizon, season)
    return covariates


def _fit_texts(
    covariates: Covariates,
    residuals: Sequence[Context],
    make_encoder: Callable[[Sequence[str | None]], TextEncoder],
    context_length: int,
    horizon: int,
    season: int,
) -> None:
    """Fit the effects of texts on the residuals of the other covariates."""
    columns = covariates.columns
    names = (*columns.known_texts, *columns.past_texts)
    series = []
    for one in residuals:
        assert one.x_scale is not None  # of a residual
        series.append(TextSeries(one.values, one.x_scale, covariates.coded(one, names)))
    covariates.texts = fit_texts(
        series,
        make_encoder([text for one in series for column in one.texts for text in column]),
        n_known=len(columns.known_texts),
        window=context_length,
        horizon=horizon,
        season=season,
        block=covariates.block,
    )
    if not covariates.texts.learnt:
        warnings.warn(
            f"the texts {', '.join(names)} have no effect: the series are too short to learn from, "
            f"for a horizon of {horizon}; give longer series, or a shorter horizon",
            stacklevel=3,
        )


def missing_future(context: Context, columns: CovariateColumns) -> str:
    """Return the error message for a missing future of the covariates."""
    return (
        f"the future of the covariates {', '.join(columns.known)} is missing for "
        f"{series_name(context.series_id)}: pass X for the steps to forecast, or fit with "
        "past_covariates= naming those whose future is not known"
    )


def block_length(contexts: Sequence[Context], context_length: int, season: int) -> int:
    """Choose blocks of about a context, or of some seasons where the series are long enough."""
    typical = typical_length(contexts)
    seasons = SEASONS_OF_A_BLOCK * season
    if season > 1 and seasons <= typical // 2:
        return max(context_length, seasons)
    return max(2, min(context_length, typical))


def _mean_of(values: np.ndarray) -> np.ndarray:
    """Return the mean of each variable, (variables,); 0 without any observation."""
    seen = np.isfinite(values)
    total = np.where(seen, values, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(seen.sum(axis=0), 1))


def _training_part(context: Context, validation_fraction: float) -> Context:
    """Leave out the end of a series, unless it is too short."""
    steps = len(context) - round(validation_fraction * len(context))
    return context.until(steps) if steps >= 2 else context
