"""The base of every forecaster: sktime's contract, above training and one stateless core."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon
from torch import Tensor

from tsllm.context import Context, contexts_from_state, contexts_to_state
from tsllm.embeddings import open_store
from tsllm.errors import DataError, InSampleError
from tsllm.forecasters.checks import (
    brief_horizon,
    check_input,
    check_same_series,
)
from tsllm.forecasters.covariates import future_covariates, join_covariates
from tsllm.forecasters.forecasting import ForecastsContexts
from tsllm.forecasters.frames import (
    Layout,
    forecast_frame,
    frequency_of,
    layout_of,
    relative_steps,
    split_series,
)
from tsllm.forecasters.learning import LearnsFromSeries, embed_ahead, train_state
from tsllm.forecasters.sktime_fields import sktime_from_state, sktime_to_state
from tsllm.forecasters.state import FittedState
from tsllm.forecasters.summary import card_facts, payload, summarise
from tsllm.forecasters.updating import PendingForecasts, extend_context
from tsllm.intervals import LEVEL_GRID


class BaseLLMForecaster(LearnsFromSeries, ForecastsContexts, BaseForecaster):
    """Base class of the forecasters that put a frozen language model to work.

    A method is a subclass with five hooks: `_choose_shape` (sizes from the data), `_build_model`,
    `_target_length` and `_make_loss` (training), and `_run_model` (a batch of standardised contexts
    to forecasts). Everything else is here, in `LearnsFromSeries` and in `ForecastsContexts`:
    checks, panels, training, `pretrain`, `update`, conformal intervals, dates and labels.
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["tsllm developers"],
        "maintainers": ["tsllm developers"],
        "python_dependencies": ["torch", "transformers"],
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": True,
        "capability:update": True,
        "capability:pretrain": True,
        "pretrain:fitted_params": ["pretrained_"],
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "capability:categorical_in_X": True,
        "capability:unequal_length": True,
        "X-y-must-have-same-index": False,  # checked here, in a sentence that says where
        "requires-fh-in-fit": False,
        "y_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
    }
    # The history is ours to keep: only as much of it as a forecast reads.
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}

    _cutoff: Any  # sktime's: an index of one stamp, or None

    def __post_init__(self) -> None:
        # sktime's tests read these even where remember_data is off.
        self._y = None
        self._X = None

    # ------------------------------------------------------------------ sktime's public surface

    def fit(self, y: Any, X: Any = None, fh: Any = None) -> BaseLLMForecaster:  # noqa: D102 (sktime's docstring is inherited)
        check_input(y, freq=self._known_frequency(), at_least=2)
        return super().fit(y, X=X, fh=fh)

    def pretrain(self, y: Any, X: Any = None, fh: Any = None) -> BaseLLMForecaster:  # noqa: D102
        check_input(y, freq=self._known_frequency(), at_least=2)
        return super().pretrain(y, X=X, fh=fh)

    def update(self, y: Any, X: Any = None, update_params: bool = True) -> BaseLLMForecaster:  # noqa: D102
        self.check_is_fitted()
        if y is not None and len(y):
            check_input(y, freq=self._known_frequency(), at_least=1)
        cutoff = self._cutoff
        try:
            return super().update(y, X=X, update_params=update_params)
        except DataError:
            self._cutoff = cutoff  # sktime moves it first
            raise

    def set_params(self, **params: Any) -> BaseLLMForecaster:
        """Set parameters; a pretrained model survives unless one of them decides its tensors.

        Parameters
        ----------
        **params
            Parameters of the estimator.

        Returns
        -------
        self
        """
        if self.state != "new" and not self._architecture & params.keys():
            return self._set_params_at("pretrained", params)
        return super().set_params(**params)

    # ------------------------------------------------------------------ beside fit and predict

    def embed(self, y: Any, fh: Any = None, X: Any = None) -> dict[str, Any]:
        """Embed ahead of time every text that `fit` on these series would embed.

        Nothing is trained and this forecaster is left as it is. What the store holds already is
        left alone, so a call that was interrupted goes on where it was.

        Parameters
        ----------
        y : Series or DataFrame
            As `fit` takes it.
        fh : forecasting horizon, optional
            As `fit` takes it.
        X : DataFrame, optional
            As `fit` takes it.

        Returns
        -------
        dict
            Number of ``texts``, how many were ``computed`` now, ``seconds``, the store's ``path``.

        Raises
        ------
        DataError
            The series or the parameters cannot be used, or the method embeds no text as it is set.
        """
        check_input(y, freq=self._known_frequency(), at_least=2)
        return embed_ahead(self, split_series(y, freq=self.freq, at_least=2), fh, X)

    def summary(self) -> dict[str, Any]:
        """Say what was trained, for how long, and how it went.

        Returns
        -------
        dict
            Parameter counts, sizes, epochs run and best, last losses, wall seconds, device and
            precision, number and origin of calibration windows, the embedding store's counts.
        """
        self.check_is_fitted()
        store = open_store(self.embedding_store)
        return {
            "estimator": type(self).__name__,
            **summarise(self.fitted_),
            "embedding_store": store.stats(),
        }

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the training and validation losses.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes
        """
        from tsllm.plotting.forecasts import plot_history

        self.check_is_fitted()
        return plot_history(self.fitted_.history, best_epoch=self.fitted_.best_epoch, ax=ax)

    def to_payload(
        self, horizon: int, *, y: Any = None, X: Any = None, quantiles: Sequence[float] = ()
    ) -> dict[str, Any]:
        """Write the JSON document that asks a server of this model for a forecast.

        Parameters
        ----------
        horizon : int
            Steps to forecast.
        y : Series or DataFrame, optional
            The histories to forecast, as `fit` takes them. None: those that this forecaster keeps.
        X : DataFrame, optional
            The covariates of ``y`` and of the steps to forecast, as `predict` takes them.
        quantiles : sequence of float
            Levels strictly between 0 and 1.

        Returns
        -------
        dict
            ``dataframe_split`` with the columns ``series_id, timestamp``, the variables, and for a
            model with covariates these and ``future``; and ``params``: what ``json.dumps`` and an
            MLflow scoring server take. Stamps are ISO texts in UTC without a zone (integers where
            the index counts steps), missing values are null.
        """
        self.check_is_fitted()
        covariates = self.fitted_.covariates
        if y is None:
            contexts = list(self._contexts.values())
        else:
            contexts = join_covariates(split_series(y, freq=self.freq), X, covariates)
        steps = [np.arange(1, horizon + 1)] * len(contexts)
        futures = future_covariates(contexts, X, covariates, steps, horizon)
        columns = None if covariates is None else covariates.columns
        return payload(contexts, self._layout.columns, horizon, quantiles, columns, futures)

    # ------------------------------------------------------------------ sktime's private hooks

    def _fit(
        self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon | None
    ) -> BaseLLMForecaster:
        contexts = split_series(y, freq=self.freq, at_least=2)
        self._layout: Layout = layout_of(y)
        horizon = self._asked_horizon(fh, contexts)
        if self._state == "pretrained":
            contexts = join_covariates(contexts, X, self.pretrained_.covariates)
            self.fitted_ = self._adopt(contexts)
        else:
            contexts, columns = self._learn_columns(contexts, X)
            self.fitted_ = self._train_new(contexts, columns, horizon)
        self._contexts: dict[Hashable, Context] = {}
        self._pending: dict[Hashable, PendingForecasts] = {}
        self._remember(self.fitted_.scaled(contexts))
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        values, steps, contexts = self._forecast_known(fh, X, ())
        frame = forecast_frame(values[..., 0], steps, contexts, self._layout)
        frame.columns = self._layout.columns
        return frame

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]
    ) -> pd.DataFrame:
        values, steps, contexts = self._forecast_known(fh, X, alpha)
        spread = values[..., 1:].reshape(*values.shape[:2], -1)  # (series, horizon, variables * q)
        frame = forecast_frame(spread, steps, contexts, self._layout)
        frame.columns = self._get_columns(method="predict_quantiles", alpha=alpha)
        return frame

    def _pretrain(
        self,
        y: pd.DataFrame,
        X: pd.DataFrame | None = None,
        fh: ForecastingHorizon | None = None,
    ) -> BaseLLMForecaster:
        contexts = split_series(y, freq=self.freq, at_least=2)
        horizon = self._asked_horizon(fh, contexts)
        contexts, columns = self._learn_columns(contexts, X)
        self.pretrained_ = self._train_new(contexts, columns, horizon)
        return self

    def _pretrain_update(
        self,
        y: pd.DataFrame,
        X: pd.DataFrame | None = None,
        fh: ForecastingHorizon | None = None,
    ) -> BaseLLMForecaster:
        contexts = split_series(y, freq=self.freq, at_least=2)
        state = self.pretrained_.copy()
        check_same_series(state, contexts)
        contexts = join_covariates(contexts, X, state.covariates)
        train_state(self, state, contexts, self.max_epochs)
        self.pretrained_ = state
        return self

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> BaseLLMForecaster:
        state = self.fitted_
        news = split_series(y, freq=self._known_frequency())
        check_same_series(state, news)
        news = join_covariates(news, X, state.covariates)
        # Merged before anything changes: one series that is refused leaves all as they were.
        merged = [
            extend_context(self._contexts[new.series_id], new)
            if new.series_id in self._contexts
            else new
            for new in news
        ]
        merged = state.scaled(merged)
        for rest in state.residuals(merged) if self._pending else []:
            fresh = _steps_after(self._contexts.get(rest.series_id), rest)
            if rest.series_id in self._pending and fresh:
                assert state.calibration is not None
                self._pending[rest.series_id].score(rest.values[-fresh:], state.calibration)
        if update_params and self.update_epochs > 0:
            state = self.fitted_ = state.copy()
            train_state(self, state, merged, self.update_epochs, recalibrate=False)
        self._remember(merged)
        return self

    def _set_cutoff_from_y(self, y: pd.DataFrame) -> None:
        super()._set_cutoff_from_y(y)
        # sktime loses the frequency of a panel, and needs it to place a horizon.
        cutoff: pd.Index = self._cutoff
        if isinstance(cutoff, pd.DatetimeIndex) and cutoff.freq is None and len(cutoff):
            freq = self._known_frequency() or frequency_of(split_series(y)) or ""
            self._cutoff = pd.DatetimeIndex(cutoff, freq=freq)

    def _check_fh(self, fh: Any, pred_int: bool = False) -> ForecastingHorizon | None:
        try:
            return super()._check_fh(fh, pred_int=pred_int)
        except NotImplementedError:  # sktime's sentence does not say what would be right
            raise InSampleError(
                f"fh={brief_horizon(fh)} asks for an in-sample forecast: every step must lie after "
                f"the last observation ({self._cutoff[0]}); the next step is 1"
            ) from None

    # ------------------------------------------------------------------ saving and loading

    def to_state(self, *, include_context: bool = True) -> dict[str, Any]:
        """Return everything but the parameters as plain values, arrays and one table.

        Parameters
        ----------
        include_context : bool, default=True
            Whether the kept rows of the series, what a method keeps beside them, and the forecasts
            that wait for their observations come along.

        Returns
        -------
        dict
            For `tsllm.save`; see `from_state`.
        """
        fitted: FittedState | None = getattr(self, "fitted_", None)
        pretrained: FittedState | None = getattr(self, "pretrained_", None)
        backbone = (fitted or pretrained).backbone  # type: ignore[union-attr]  # one is there
        layout: Layout | None = getattr(self, "_layout", None)
        state: dict[str, Any] = {
            "backbone": None if backbone is None else backbone.to_state(),
            "pretrained": None if pretrained is None else pretrained.to_state(),
            "fitted_is_pretrained": fitted is pretrained,
            "fitted": None if fitted is None or fitted is pretrained else fitted.to_state(),
            "sktime": sktime_to_state(self),
            "layout": None if layout is None else vars(layout),
            "contexts": None,
            "pending": [],
            "memory": {},
        }
        if fitted is not None and layout is not None and include_context and self._contexts:
            names = () if fitted.covariates is None else fitted.covariates.columns.names
            contexts = list(self._contexts.values())
            state["contexts"] = contexts_to_state(contexts, layout.columns, names)
            state["pending"] = [pending.to_state() for pending in self._pending.values()]
            state["memory"] = self._memory_tensors()
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any], parameters: Mapping[str, Any]) -> Self:
        """Build a forecaster from the output of `to_state`.

        Parameters
        ----------
        state : mapping
            The output of `to_state`.
        parameters : mapping
            The constructor's arguments.

        Returns
        -------
        forecaster

        Raises
        ------
        ModelFormatError
            Tensors that are not the model's.
        BackboneMismatchError
            The backbone found is not the one that the model was trained with.
        BackboneNotFoundError
            No place holds the backbone.
        """
        forecaster = cls(**parameters)
        backbone = None
        if state["backbone"] is not None:
            backbone = forecaster._load_backbone()
            backbone.check_state(state["backbone"])

        def trained(saved: Mapping[str, Any]) -> FittedState:
            return FittedState.from_state(
                saved,
                lambda shape: forecaster._new_model(backbone, shape),
                backbone,
                forecaster.device,
            )

        if state["pretrained"] is not None:
            forecaster.pretrained_ = trained(state["pretrained"])
        if state["fitted_is_pretrained"]:
            forecaster.fitted_ = forecaster.pretrained_
        elif state["fitted"] is not None:
            forecaster.fitted_ = trained(state["fitted"])
        sktime_from_state(forecaster, state["sktime"])
        if state["layout"] is not None:
            forecaster._layout = Layout(**state["layout"])
            kept = state["contexts"]
            contexts = [] if kept is None else contexts_from_state(kept)
            forecaster._contexts = {context.series_id: context for context in contexts}
            pending = map(PendingForecasts.from_state, state["pending"])
            forecaster._pending = {one.series_id: one for one in pending}
            forecaster._restore_memory(state["memory"])
        return forecaster

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        """Return what the card of the saved model says."""
        pretrained = self.state == "pretrained"
        state = self.pretrained_ if pretrained else self.fitted_
        return card_facts(state, self.loss, pretrained=pretrained, with_context=with_context)

    # ------------------------------------------------------------------ what is kept of series

    def _steps_to_keep(self, state: FittedState) -> int | None:
        """How much of each series' past to keep for forecasts; None keeps all."""
        return state.shape.context_length

    def _memory_tensors(self) -> dict[str, Tensor]:
        """Give what a method keeps of the series beside their contexts, for a file."""
        return {}

    def _restore_memory(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `_memory_tensors` gave."""

    def _remember(self, contexts: Sequence[Context]) -> None:
        """Keep as much of each series as forecasts read; start the next adaptive forecast."""
        keep = self._steps_to_keep(self.fitted_)
        for context in contexts:
            self._contexts[context.series_id] = context.tail(keep)
        if not self.adaptive:
            return
        calibration = self.fitted_.calibration
        assert calibration is not None
        residuals = self.fitted_.residuals(contexts)
        values, scales = self._run_known(residuals, calibration.horizon)
        values = self.fitted_.with_lagged_effects(values, residuals)
        for context, forecast, scale in zip(contexts, values, scales):
            calibration.follow(context.series_id)
            pending = self._pending.setdefault(
                context.series_id, PendingForecasts(context.series_id, calibration.horizon)
            )
            scores = calibration.scores_of(context.series_id)
            pending.add(forecast, scale, scores.offsets(LEVEL_GRID, calibration.levels))

    # ------------------------------------------------------------------ frequency and horizon

    def _known_frequency(self) -> str | None:
        """Give the frequency that was set, or else the fitted one."""
        fitted: FittedState | None = getattr(self, "fitted_", None)
        return self.freq or (None if fitted is None else fitted.shape.freq)

    def _asked_horizon(
        self, fh: ForecastingHorizon | None, contexts: Sequence[Context]
    ) -> int | None:
        """Give the farthest step asked for: by prediction_length, else by fh."""
        if self.prediction_length is not None:
            return int(self.prediction_length)
        if fh is None:
            return None
        return max(int(relative_steps(fh, context).max()) for context in contexts)


def _steps_after(known: Context | None, whole: Context) -> int:
    """Count the steps of the extended context that are new."""
    return len(whole) if known is None else int((whole.times > known.times[-1]).sum())
