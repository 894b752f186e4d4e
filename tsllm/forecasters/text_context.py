"""TextContext: what a forecaster cannot read, added to its forecasts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from sktime.forecasting.base import BaseForecaster
from torch import nn

from tsllm.arguments import shown
from tsllm.backbone import Backbone
from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates, fit_covariates
from tsllm.covariates.contemporaneous import ContemporaneousEffects, basis_of, features_of
from tsllm.covariates.effects import block_length, missing_future
from tsllm.covariates.forecast_errors import (
    ErrorFit,
    ErrorWindows,
    Reference,
    fit_to_errors,
    references_of,
    relative_features,
)
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.candidates import (
    STATISTICAL,
    Candidate,
    StatisticalCandidate,
    TrainedCandidate,
    longest_history,
)
from tsllm.forecasters.composed import ComposedForecaster
from tsllm.forecasters.forecasting import Prediction, Reader
from tsllm.forecasters.held_out import HeldOut, spread_origins, usual_change
from tsllm.forecasters.learning import span_of
from tsllm.forecasters.state import FittedState, ModelShape

#: ``n_origins="auto"``: windows of all series together, where each is a fit and where it is not.
REFITTED_WINDOWS, TRAINED_WINDOWS = 150, 1500
#: The windows begin after this share of a series; a model is trained on the steps before.
FIRST_REFITTED, FIRST_TRAINED = 0.25, 0.5
#: The share of the windows, at the end, that the effects are judged on; fewer windows have none.
JUDGED, FEWEST = 0.25, 4


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
    facts : dict
        The error without and with the effects on the last windows, and their number.
    """

    inner: Candidate | None = None
    inside: tuple[str, ...] = ()
    reference: Reference = field(default_factory=Reference)
    facts: dict[str, Any] = field(default_factory=dict)

    def residuals(self, contexts: Sequence[Context]) -> list[Context]:
        """Check the covariates and return the contexts: the forecaster reads y as it is."""
        if self.covariates is None:
            return list(contexts)
        unread = replace(self.covariates, known=None)
        return [unread.residual(context) for context in contexts]

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
                covariates.coded(past, covariates.columns.known), past.x_scale
            )
            carried.append(self.reference.of(effects, values.shape[1]))
        return values - np.stack(carried)[..., None]

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
            coded = columns.codes(future, columns.known, series=context.series_id)
            places = [columns.known.index(name) for name in self.inside]
            found.append(np.column_stack([coded[place] for place in places]))
        return found

    def summary(self) -> dict[str, Any]:
        """Summarise the forecaster and what was added to it."""
        assert self.inner is not None  # built
        told = super().summary()
        if isinstance(self.inner, TrainedCandidate) and self.inner.state is not None:
            parameters = self.inner.state.model.parameters()
            told["trained_parameters"] = sum(p.numel() for p in parameters)
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


class TextContext(ComposedForecaster):
    """Keep a forecaster, and add to its forecasts what it cannot read, such as text.

    The forecaster forecasts windows of the past that it was not fitted on. Its errors are regressed
    on the covariates of their steps, relative to those of the past steps that its forecasts carry
    already. Cross-validation chooses the penalty. The last windows judge the effects: where these
    do not lower the error, they are zero, and the forecasts are the forecaster's own. The intervals
    are conformal, on the errors of the whole.

    Parameters
    ----------
    forecaster : name or forecaster, default="auto_ets"
        ``seasonal_naive``, ``theta``, ``auto_theta`` or ``auto_ets``, or any forecaster of sktime
        or tsllm, also a pipeline. One of tsllm is trained twice: on the first half, for its errors
        on the second, and on all steps. Any other is fitted anew at each window and forecast. If it
        takes X, it reads the columns of numbers whose future is known; the other columns, and all
        those that it does not take, have their effects here.
    prediction_length : int or None, default=None
        The steps ahead that the errors are learnt on and that the intervals are calibrated for.
        None: the ``fh`` of `fit`, else a season.
    n_origins : int or "auto", default="auto"
        Windows of each series. "auto": 150 of the whole panel where each is a fit of its own, else
        1,500. More windows know the effects better, and cost a fit each.
    batch_size : int, default=64
        Contexts of a forecast, in batch jobs.

    Attributes
    ----------
    fitted_ : TextContextState
        The fitted forecaster, the effects, the calibration.

    See Also
    --------
    AutoForecaster : Combines several forecasters, and reads text itself.

    Notes
    -----
    `tsllm.save` writes a statistical forecaster and one of tsllm. Another one of sktime has no form
    in a file without pickle: sktime's own ``save`` pickles the whole.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tsllm import TextContext
    >>> from sktime.datasets import load_airline
    >>> y = load_airline()
    >>> stamps = pd.period_range("1949-01", "1961-03", freq="M")
    >>> strike = np.random.default_rng(0).integers(0, 2, len(stamps))
    >>> X = pd.DataFrame({"strike": strike}, index=stamps)
    >>> y = y - 100 * X["strike"].reindex(y.index)
    >>> forecaster = TextContext("seasonal_naive").fit(y, X=X, fh=[1, 2, 3])
    >>> forecaster.predict(X=X).index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    >>> told = forecaster.summary()
    >>> told["error"] < 0.9 * told["error_without"]
    True
    """

    _free_parameters: ClassVar[frozenset[str]] = frozenset(
        ("batch_size", "freq", "device", "random_state", "verbose")
    )
    adaptive = False
    checkpoint_dir = None

    def __init__(
        self,
        forecaster: Any = "auto_ets",
        *,
        prediction_length: int | None = None,
        n_origins: int | str = "auto",
        batch_size: int = 64,
        past_covariates: tuple[str, ...] = (),
        freq: str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.forecaster = forecaster
        self.n_origins = n_origins
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
        from sktime.forecasting.naive import NaiveForecaster

        from tsllm.forecasters.baselines import DLinearForecaster

        return [
            {"forecaster": "seasonal_naive", "n_origins": 4, "random_state": 42},
            {"forecaster": NaiveForecaster(), "n_origins": 2, "random_state": 42},
            {"forecaster": DLinearForecaster(max_steps=1), "n_origins": 4, "random_state": 42},
        ]

    # ------------------------------------------------------------------ fitting

    def _learn_effects(
        self, contexts: Sequence[Context], columns: CovariateColumns | None, shape: ModelShape
    ) -> Covariates | None:
        """Name the covariates; `_train` learns their effects from the errors of the forecaster."""
        if columns is None:
            return None
        season = season_length(shape.freq)
        return Covariates(columns, block_length(contexts, 4 * season, season), None, None)

    def _new_state(self, contexts: Sequence[Context], horizon: int | None) -> TextContextState:
        shape = self._choose_shape(contexts, horizon)
        own = self._candidate(shape.freq, ())
        # A missing language model ends the fit before the forecaster takes its time.
        backbone = own.load_backbone() if isinstance(own, TrainedCandidate) else None
        return TextContextState(nn.ModuleDict(), backbone, shape, self.device)

    def _restore_state(self, saved: Mapping[str, Any], backbone: Backbone | None) -> FittedState:
        read = dict(saved)
        inner, inside, facts = (read.pop(name) for name in ("inner", "inside", "facts"))
        reference = Reference.from_state(read.pop("reference"))
        state = TextContextState.from_state(
            read, lambda shape: nn.ModuleDict(), backbone, self.device
        )
        assert isinstance(state, TextContextState)
        state.inside, state.reference, state.facts = tuple(inside), reference, facts
        state.inner = self._candidate(state.shape.freq, state.inside)
        state.inner.restore(inner)
        return state

    def _train(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        epochs: int | str,
        *,
        recalibrate: bool = True,
        resumable: bool = False,
    ) -> None:
        """Fit the forecaster, learn the effects from its errors, and calibrate the whole."""
        assert isinstance(state, TextContextState)  # _new_state made it
        started = time.perf_counter()
        state.inside = self._columns_inside(state.covariates)
        trial = self._candidate(state.shape.freq, state.inside)
        windows, forecasts = self._forecast_windows(state, trial, contexts)
        state.inner = self._candidate(state.shape.freq, state.inside)
        state.inner.fit(state.inner_contexts(contexts), self._inner_horizon(state.shape.horizon))
        keep = max(longest_history(contexts), state.inner.steps_to_keep())
        state.shape = ModelShape(**vars(state.shape) | {"context_length": keep})
        whole, judged = forecasts, np.ones(len(windows.pasts), dtype=bool)
        if state.covariates is not None:
            contexts = self._scaled(state, contexts)
            whole, judged = self._learn_from_errors(state, contexts, windows, forecasts)
        state.facts = {
            "error_without": _error(windows, forecasts, judged),
            "error": _error(windows, whole, judged),
            "windows": int(judged.sum()),
        }
        ids = [context.series_id for context in contexts]
        state.calibration = windows.some(judged).calibrate(
            whole[judged], ids, history=keep, adaptive=False
        )
        state.trained_on = [*state.trained_on, span_of(contexts)]
        state.seconds += time.perf_counter() - started

    def _scaled(self, state: TextContextState, contexts: Sequence[Context]) -> list[Context]:
        """Add the scale of the effects, in the blocks of the forecaster where it has covariates."""
        assert state.covariates is not None and state.inner is not None
        if isinstance(state.inner, TrainedCandidate) and state.inner.state is not None:
            own = state.inner.state.covariates
            if own is not None:  # both read the scale that a context has
                state.covariates.block = own.block
        return state.scaled(contexts)

    def _forecast_windows(
        self, state: TextContextState, trial: Candidate, contexts: Sequence[Context]
    ) -> tuple[HeldOut, np.ndarray]:
        """Cut windows of the past and forecast them: (windows, horizon, variables)."""
        horizon = state.shape.horizon
        most = TRAINED_WINDOWS if trial.learns else REFITTED_WINDOWS
        if not isinstance(self.n_origins, str):
            most = int(self.n_origins) * len(contexts)
        first = FIRST_TRAINED if trial.learns else FIRST_REFITTED
        origins_of = spread_origins(contexts, horizon, most, first=first)
        before = [
            context.until(int(origins[0])) if len(origins) else context
            for context, origins in zip(contexts, origins_of)
            if len(origins) or trial.learns
        ]
        trial.fit(state.inner_contexts(before), self._inner_horizon(horizon))
        windows = HeldOut.of(
            contexts,
            origins_of,
            horizon=horizon,
            season=season_length(state.shape.freq),
            history=trial.steps_to_keep(),
        )
        futures = None
        if state.inside:
            whole = state.inner_contexts(contexts)
            futures = []
            for number, origin in zip(windows.series.tolist(), windows.origins.tolist()):
                x = whole[number].past_x
                assert x is not None  # the columns inside
                futures.append(x[np.minimum(origin + np.arange(horizon), len(x) - 1)])
        return windows, trial.forecast(state.inner_contexts(windows.pasts), horizon, futures)

    def _learn_from_errors(
        self,
        state: TextContextState,
        contexts: Sequence[Context],
        windows: HeldOut,
        forecasts: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn the effects of a state; return the whole forecasts, and which windows judge them.

        The effects are learnt on the windows before those that judge them, and then once more on
        all.
        """
        covariates = state.covariates
        assert covariates is not None  # the caller checks it
        judged = _last_windows(windows)
        learnt = ~judged & _before(windows, judged)
        ends = _ends(contexts, windows, judged)
        training = [context.until(end) for context, end in zip(contexts, ends)]
        base = forecasts
        if covariates.columns.past:
            covariates.past = self._fit_past(covariates, training, state.shape)
            lagged = covariates.lagged_effects(windows.pasts, state.shape.horizon)
            lower = _lower(windows, base, base + lagged, judged)  # (variables,)
            base = np.where(lower, base + lagged, base)
            covariates.past.weights[~lower] = 0.0
            covariates.past.explained[~lower] = 0.0
        whole = base
        if covariates.columns.known:
            whole = self._fit_known(state, contexts, training, windows, base, learnt, judged)
        if np.array_equal(whole, forecasts):  # every window is one that nothing was learnt on
            judged = np.ones_like(judged)
        return whole, judged

    def _fit_past(
        self, covariates: Covariates, training: Sequence[Context], shape: ModelShape
    ) -> Any:
        """Fit the lagged effects of the columns whose future is not known."""
        columns = covariates.columns
        past = CovariateColumns(
            columns.past,
            tuple(columns.categories[i] for i in columns.positions(columns.past)),
            columns.past,
        )
        only = [
            replace(context, past_x=_columns_of(context, columns.positions(columns.past)))
            for context in training
        ]
        return fit_covariates(
            only,
            past,
            context_length=shape.context_length,
            horizon=shape.horizon,
            season=season_length(shape.freq),
            validation_fraction=0.0,
        ).past

    def _fit_known(
        self,
        state: TextContextState,
        contexts: Sequence[Context],
        training: Sequence[Context],
        windows: HeldOut,
        base: np.ndarray,
        learnt: np.ndarray,
        judged: np.ndarray,
    ) -> np.ndarray:
        """Fit the effects of the columns whose future is known; return the whole forecasts."""
        covariates = state.covariates
        assert covariates is not None  # the caller checks it
        columns = covariates.columns
        coded = [covariates.coded(context, columns.known) for context in training]
        sizes = [len(columns.categories[i] or ()) for i in columns.positions(columns.known)]
        bases = [
            basis_of(np.concatenate([one[k] for one in coded]), n) for k, n in enumerate(sizes)
        ]
        widths = [basis.width for basis in bases]
        own = np.repeat([name not in state.inside for name in columns.known], widths)
        features = [
            features_of(bases, covariates.coded(context, columns.known))[:, own]
            for context in contexts
        ]
        scale = np.stack([contexts[number].x_scale for number in windows.series])
        scale = np.where(scale > 0, scale, np.nan)[:, None]  # (windows, 1, variables)
        errors = ErrorWindows(windows.series, windows.origins, (windows.actual - base) / scale)
        horizon, season = base.shape[1], season_length(state.shape.freq)
        whole = base
        effects = ContemporaneousEffects(
            bases, np.zeros((len(own), base.shape[2])), np.zeros(base.shape[2])
        )
        if learnt.any() and own.any() and judged.any():
            references = references_of(season, state.shape.context_length)
            fit = fit_to_errors(features, errors.some(learnt), references)
            added = _effects(features, errors, fit, horizon) * np.nan_to_num(scale)
            lower = _lower(windows, base, base + added, judged)  # (variables,)
            whole = np.where(lower, base + added, base)
            if lower.any():
                state.reference = fit.reference
                last = fit_to_errors(features, errors, [fit.reference])
                effects.weights[own] = np.where(lower, last.weights, 0.0)
                effects.explained = np.where(lower, fit.explained, 0.0)
        covariates.known = effects
        return whole

    # ------------------------------------------------------------------ the forecaster inside

    def _columns_inside(self, covariates: Covariates | None) -> tuple[str, ...]:
        """Return the columns that the forecaster reads: numbers whose future is known."""
        given = self.forecaster
        if covariates is None or isinstance(given, str):
            return ()
        if not given.get_tag("capability:exogenous", False):
            return ()
        columns = covariates.columns
        kinds = dict(zip(columns.names, columns.categories))
        return tuple(name for name in columns.known if kinds[name] is None)

    def _candidate(self, freq: str | None, inside: Sequence[str]) -> Candidate:
        """Make the unfitted forecaster inside."""
        given = self.forecaster
        if isinstance(given, str):
            return StatisticalCandidate(given, freq)
        name = type(given).__name__
        columns = None
        if inside:
            columns = CovariateColumns(tuple(inside), (None,) * len(inside))
        return self._from_forecaster(
            name,
            given,
            freq,
            columns,
            title=name,
            remedy="give TextContext another forecaster, or series that this one can read",
        )

    def _inner_horizon(self, horizon: int) -> int:
        """Return the steps ahead that the forecaster is fitted for."""
        own = getattr(self.forecaster, "prediction_length", None)
        return horizon if own is None else int(own)

    def _load_backbone(self) -> Backbone | None:
        own = self._candidate(None, ())
        return own.load_backbone() if isinstance(own, TrainedCandidate) else None

    # ------------------------------------------------------------------ forecasting

    def _reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        assert isinstance(state, TextContextState)  # _new_state made it
        return InnerReader(state)

    def _forecast(
        self,
        reader: Reader,
        contexts: Sequence[Context],
        horizon: int,
        quantiles: Sequence[float],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Forecast contexts; the forecaster inside reads its own columns of their futures."""
        assert isinstance(reader, InnerReader)  # _reader made it
        whole = replace(reader, futures=futures)
        return super()._forecast(whole, contexts, horizon, quantiles, futures)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        given = self.forecaster
        if isinstance(given, TextContext) or not isinstance(given, str | BaseForecaster):
            raise DataError(
                f"forecaster must be one of {', '.join(STATISTICAL)}, or an sktime forecaster that "
                f"is no TextContext, found {shown(given)}"
            )
        if isinstance(given, str) and given not in STATISTICAL:
            raise DataError(
                f"forecaster must be one of {', '.join(STATISTICAL)}, or an sktime forecaster, "
                f"found {given!r}"
            )


# ---------------------------------------------------------------------- windows that judge


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


def _effects(
    features: Sequence[np.ndarray], errors: ErrorWindows, fit: ErrorFit, horizon: int
) -> np.ndarray:
    """Compute the effects on windows, in units of the scale: (windows, horizon, variables)."""
    places = zip(errors.series.tolist(), errors.origins.tolist())
    return np.stack(
        [
            relative_features(features[number], origin, horizon, fit.reference) @ fit.weights
            for number, origin in places
        ]
    )


def _scaled_errors(windows: HeldOut, forecasts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Compute the mean absolute scaled errors of some windows: (windows, variables), or NaN."""
    some = windows.some(chosen).with_forecasts(forecasts[chosen][..., None])
    found: np.ndarray = some.mean_errors(np.ones((1, 1)), 0, forecasts.shape[1])[..., 0]
    return found


def _error(windows: HeldOut, forecasts: np.ndarray, chosen: np.ndarray) -> float | None:
    """Compute the mean absolute scaled error of some windows; None without a score."""
    errors = _scaled_errors(windows, forecasts, chosen)
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else None


def _lower(
    windows: HeldOut, without: np.ndarray, whole: np.ndarray, judged: np.ndarray
) -> np.ndarray:
    """Return for which variables, (variables,), the effects lower the error of some windows."""
    sums = [
        np.nansum(_scaled_errors(windows, forecasts, judged), axis=0)
        for forecasts in (without, whole)
    ]
    lower: np.ndarray = sums[1] < sums[0] * (1 - 1e-9)
    return lower
