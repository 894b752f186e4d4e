"""TextContext: it adds the effects of what a forecaster cannot read to its forecasts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster
from sktime.forecasting.naive import NaiveForecaster
from torch import nn

from tsllm.arguments import shown
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates
from tsllm.covariates.effects import block_length
from tsllm.covariates.forecast_errors import Reference, TextErrorEffects
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError, ModelFormatError
from tsllm.forecasters.candidates import (
    STATISTICAL,
    Candidate,
    StatisticalCandidate,
    TrainedCandidate,
    longest_history,
)
from tsllm.forecasters.composed import ComposedForecaster
from tsllm.forecasters.forecasting import Reader
from tsllm.forecasters.held_out import HeldOut, spread_origins
from tsllm.forecasters.learning_from_errors import ErrorLearner, mean_error
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.forecasters.text_context_state import InnerReader, TextContextState

#: ``n_origins="auto"``: windows of all series together. Each is a fit of a forecaster of sktime, a
#: quick fit of a statistical method, or a forecast of a trained one.
REFITTED_WINDOWS, STATISTICAL_WINDOWS, TRAINED_WINDOWS = 150, 600, 1500
#: The windows begin after this share of a series; a model is trained on the steps before.
FIRST_REFITTED, FIRST_TRAINED = 0.25, 0.5


class TextContext(ComposedForecaster):
    """Keep a forecaster, and add to its forecasts what it cannot read, such as text.

    The forecaster forecasts windows of the past that it was not fitted on. Its errors are regressed
    on the covariates of their steps, relative to those of the past steps that its forecasts carry
    already. Cross-validation chooses the penalty. The last windows judge the effects: where these
    do not lower the error, they are zero, and the forecasts are the forecaster's own. The intervals
    are conformal, on the errors of the whole.

    The arguments that matter most: ``forecaster`` (the one to keep), ``text_covariates`` (the
    columns of texts), ``past_covariates``, ``prediction_length`` (the horizon, if `fit` gets no
    ``fh``) and ``random_state``.

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
        Windows of each series. "auto": of the whole panel 150 for a forecaster of sktime, 600 for
        one that is named and 1,500 for one of tsllm. More windows know the effects better; except
        for the last kind, each is a fit.
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

    In `explain`, ``model`` is the forecast of the forecaster. The share of a column is relative to
    the past steps whose effects this forecast carries, so that a step without text has a share,
    too, where it follows texts.
    """

    _shares_effects: ClassVar[bool] = False
    _free_parameters: ClassVar[frozenset[str]] = frozenset(
        ("batch_size", "freq", "device", "random_state", "verbose", "floor")
    )

    def __init__(
        self,
        forecaster: Any = "auto_ets",
        *,
        prediction_length: int | None = None,
        n_origins: int | str = "auto",
        batch_size: int = 64,
        floor: float | str | None = "auto",
        past_covariates: tuple[str, ...] = (),
        text_covariates: tuple[str, ...] = (),
        text_backbone: str = DEFAULT_BACKBONE,
        embedding_store: Any = None,
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
        return [
            {"forecaster": "seasonal_naive", "n_origins": 4, "random_state": 42},
            {"forecaster": NaiveForecaster(), "n_origins": 2, "random_state": 42},
        ]

    def explain_texts(self, fh: Any = None, X: Any = None) -> pd.DataFrame:
        """Raise an error: the texts act through those that the forecast carries; see `explain`.

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            Not used.
        X : DataFrame or None, default=None
            Not used.

        Raises
        ------
        DataError
            Always.
        """
        raise DataError(
            "TextContext does not split the share of a column into those of its texts: explain() "
            "gives the share of each column"
        )

    # ------------------------------------------------------------------ fitting

    def _learn_effects(
        self, contexts: Sequence[Context], columns: CovariateColumns | None, shape: ModelShape
    ) -> Covariates | None:
        """Name the covariates; `_fit_parts` learns their effects from the forecaster's errors."""
        if columns is None:
            return None
        season = season_length(shape.freq)
        return Covariates(columns, block_length(contexts, 4 * season, season), None, None)

    def _new_state(self, contexts: Sequence[Context], horizon: int | None) -> TextContextState:
        shape = self._choose_shape(contexts, horizon)
        backbone = self._load_backbone()  # a missing one ends the fit at once
        return TextContextState(nn.ModuleDict(), backbone, shape, self.device)

    def _restore_state(self, saved: Mapping[str, Any], backbone: Backbone | None) -> FittedState:
        read = dict(saved)
        inner, inside, facts = (read.pop(name) for name in ("inner", "inside", "facts"))
        reference, texts = Reference.from_state(read.pop("reference")), read.pop("error_texts")
        state = TextContextState.from_state(
            read, lambda shape: nn.ModuleDict(), backbone, self.device, self._restore_encoder
        )
        assert isinstance(state, TextContextState)
        state.inside, state.reference, state.facts = tuple(inside), reference, facts
        known = () if state.covariates is None else state.covariates.columns.known_values
        if not set(state.inside) <= set(known):
            raise ModelFormatError(
                "the saved model's forecaster reads columns that the model does not: save it again"
            )
        if texts is not None:
            encoder = self._restore_encoder(texts["encoder"])
            state.texts = TextErrorEffects.from_state(texts, encoder)
        state.inner = self._candidate(state.shape.freq, state.inside)
        state.inner.restore(inner)
        return state

    def _fit_parts(self, state: FittedState, contexts: Sequence[Context]) -> None:
        """Fit the forecaster, learn the effects from its errors, and calibrate the whole."""
        assert isinstance(state, TextContextState)  # _new_state made it
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
            learner = ErrorLearner.of(state, contexts, windows, self._make_encoder)
            whole, judged = learner.learn(forecasts), learner.judged
            if np.array_equal(whole, forecasts):  # nothing was learnt on any window
                judged = np.ones_like(judged)
        state.facts = {
            "error_without": mean_error(windows, forecasts, judged),
            "error": mean_error(windows, whole, judged),
            "windows": int(judged.sum()),
        }
        ids = [context.series_id for context in contexts]
        state.calibration = windows.some(judged).calibrate(
            whole[judged], ids, history=keep, adaptive=False
        )

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
        if isinstance(trial, StatisticalCandidate):
            most = STATISTICAL_WINDOWS
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

    # ------------------------------------------------------------------ the forecaster inside

    def _columns_inside(self, covariates: Covariates | None) -> tuple[str, ...]:
        """Return the columns that the forecaster reads: numbers whose future is known."""
        given = self.forecaster
        if covariates is None or isinstance(given, str):
            return ()
        if not given.get_tag("capability:exogenous", False):
            return ()
        columns = covariates.columns
        return tuple(name for name in columns.known if name in columns.numbers)

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
        return self._candidate(None, ()).load_backbone()

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
        for name in ("past_covariates", "text_covariates", "static_attributes", "static_text"):
            if getattr(given, name, ()):
                raise DataError(
                    f"{name} of the forecaster inside a TextContext has no effect: leave it out "
                    "there, and name the columns in TextContext"
                )
        if isinstance(given, str) and given not in STATISTICAL:
            raise DataError(
                f"forecaster must be one of {', '.join(STATISTICAL)}, or an sktime forecaster, "
                f"found {given!r}"
            )
