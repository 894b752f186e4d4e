"""The covariates of a forecaster: subtracted from the series it reads, added to its forecasts."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsllm.context import Context
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
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError, ModelFormatError
from tsllm.saving.fields import read_fields

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

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return {
            "columns": vars(self.columns),
            "block": self.block,
            "known": None if self.known is None else self.known.to_state(),
            "past": None if self.past is None else self.past.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Covariates":
        """Build the covariates from the output of `to_state`."""
        known, past = state["known"], state["past"]
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
        return cls(columns, state["block"], *effects)

    def scaled(self, context: Context) -> Context:
        """Measure the scale of a context's effects, where it is not known."""
        if context.x_scale is not None:
            return context
        return replace(context, x_scale=scale_of(context.values, self.block))

    def residual(self, context: Context) -> Context:
        """Subtract the effects from a context, which keeps its covariates."""
        missing = [n for n in self.columns.static if n not in (context.static or {})]
        if missing:
            raise DataError(
                f"{series_name(context.series_id)} comes without its attribute {missing[0]!r}, "
                "which the model was fitted with: pass it as a column of X (static of a context)"
            )
        if not self.columns.names:
            return context
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
        context = self.scaled(context)
        if self.known is None:
            return context
        coded = self.coded(context, self.columns.known)
        assert context.x_scale is not None
        return context.with_values(context.values - self.known.effect(coded, context.x_scale))

    def future_effect(self, context: Context, future: np.ndarray | None) -> np.ndarray:
        """Compute the effect of known-future covariates: (horizon, variables).

        ``future`` is (horizon, known columns), or None where all covariates are past ones; the
        context has its scale.
        """
        if self.known is None:
            if future is not None and np.asarray(future).size:
                raise DataError(
                    "future_x was given and every covariate of this model is a past one: leave it "
                    "out"
                )
            return np.zeros((1, context.n_variables))
        if future is None:
            raise DataError(missing_future(context, self.columns))
        assert context.x_scale is not None
        coded = self.columns.codes(future, self.columns.known, series=context.series_id)
        return self.known.effect(coded, context.x_scale)

    def lagged_effects(self, contexts: Sequence[Context], horizon: int) -> np.ndarray:
        """Forecast the residuals from past covariates: (series, horizon, variables).

        The contexts are residuals with their covariates.
        """
        assert self.past is not None
        effects = []
        for one in contexts:
            near = one.tail(self.past.window)
            coded = self.coded(near, self.columns.past)
            effects.append(self.past.lagged_effects(near.values, coded, horizon))
        return np.stack(effects)

    def summary(self) -> dict[str, object]:
        """Return the share of the variation that the covariates explained on left-out rows."""
        found: dict[str, object] = {"covariates": list(self.columns.everything)}
        if self.known is not None:
            found["covariates_explain"] = self.known.explained.round(4).tolist()
        if self.past is not None:
            found["past_covariates_explain"] = self.past.explained.round(4).tolist()
        return found

    def typical(self) -> dict[str, float | str]:
        """Return a value of each column of X for examples: a mean, or some category."""
        values: dict[str, float | str] = {}
        for names, effects in ((self.columns.known, self.known), (self.columns.past, self.past)):
            for name, basis in zip(names, [] if effects is None else effects.bases):
                known = self.columns.categories[self.columns.names.index(name)]
                values[name] = round(basis.mean, 3) if known is None else known[0]
        return values | dict.fromkeys(self.columns.static, "unknown")

    def coded(self, context: Context, names: Sequence[str]) -> list[np.ndarray]:
        """Return some of a context's covariates as numbers, an array (time,) each."""
        assert context.past_x is not None  # the callers check it
        codes = self.columns.codes(context.past_x, self.columns.names, series=context.series_id)
        return [codes[i] for i in self.columns.positions(names)]


def fit_covariates(
    contexts: Sequence[Context],
    columns: CovariateColumns,
    *,
    context_length: int,
    horizon: int,
    season: int,
    validation_fraction: float,
) -> Covariates:
    """Fit the effects of covariates on series.

    The last ``validation_fraction`` of each series is left out to calibrate intervals.
    """
    block = block_length(contexts, context_length, season)
    covariates = Covariates(columns, block, None, None)
    contexts = [covariates.scaled(context) for context in contexts]
    learnt = [_training_part(context, validation_fraction) for context in contexts]
    n_categories = [0 if known is None else len(known) for known in columns.categories]
    if columns.known:
        series = []
        for one in learnt:
            assert one.x_scale is not None
            coded = covariates.coded(one, columns.known)
            series.append(CodedSeries(coded, one.values, one.x_scale))
        covariates.known = fit_contemporaneous(
            series,
            [n_categories[i] for i in columns.positions(columns.known)],
            block=block,
            season=season,
        )
    if columns.past:
        residuals = [covariates.residual(one) for one in learnt]
        coded_past = [covariates.coded(one, columns.past) for one in learnt]
        bases: list[ColumnBasis] = [
            basis_of(np.concatenate([coded[k] for coded in coded_past]), n_categories[place])
            for k, place in enumerate(columns.positions(columns.past))
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
                f"the past covariates {', '.join(columns.past)} have no effect: the series are too "
                f"short to learn from, for a window of {covariates.past.own_lags} steps and a "
                f"horizon of {horizon}; give longer series, or a shorter horizon",
                stacklevel=2,
            )
    return covariates


def missing_future(context: Context, columns: CovariateColumns) -> str:
    """Return the error message for a missing future of the covariates."""
    return (
        f"the future of the covariates {', '.join(columns.known)} is missing for "
        f"{series_name(context.series_id)}: pass X for the steps to forecast, or fit with "
        "past_covariates= naming those whose future is not known"
    )


def block_length(contexts: Sequence[Context], context_length: int, season: int) -> int:
    """Choose blocks of about a context, or of some seasons where the series are long enough."""
    typical = int(np.median([len(context) for context in contexts]))
    seasons = SEASONS_OF_A_BLOCK * season
    if season > 1 and seasons <= typical // 2:
        return max(context_length, seasons)
    return max(2, min(context_length, typical))


def _training_part(context: Context, validation_fraction: float) -> Context:
    """Drop the end of a series, unless it is too short."""
    steps = len(context) - round(validation_fraction * len(context))
    return context.until(steps) if steps >= 2 else context
