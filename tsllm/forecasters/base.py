"""The bases of the forecasters: sktime's contract, and methods that train one model."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from scipy.stats import norm
from sktime.forecasting.base import ForecastingHorizon
from torch import Tensor

from tsllm.arguments import checked_flag, checked_levels
from tsllm.context import Context, column_names, contexts_from_state, contexts_to_state
from tsllm.datasets.foreign import kind_of
from tsllm.datasets.frequency import parse_frequency, set_frequency, without_frequency
from tsllm.datasets.indexed import index_table
from tsllm.datasets.labels import labels_of_index
from tsllm.errors import DataError
from tsllm.forecasters.checked_calls import CheckedCalls
from tsllm.forecasters.explaining import ExplainingMixin
from tsllm.forecasters.floors import with_known_floors
from tsllm.forecasters.frames import (
    Layout,
    check_input,
    extend_context,
    forecast_frame,
    frequency_of,
    future_covariates,
    join_covariates,
    layout_of,
    request_payload,
    split_series,
)
from tsllm.forecasters.horizons import read_horizon, steps_after
from tsllm.forecasters.inputs import (
    is_table,
    match_columns,
    match_rows,
    read_container,
    read_covariates,
    refused_container,
    times_of,
)
from tsllm.forecasters.learning import FittingMixin, LearningMixin
from tsllm.forecasters.parameters import check_horizon
from tsllm.forecasters.shrinking import history_of
from tsllm.forecasters.sktime_fields import sktime_from_state, sktime_to_state
from tsllm.forecasters.state import FittedState, PendingForecasts
from tsllm.forecasters.streaming import StreamingMixin
from tsllm.intervals.calibration import LEVEL_GRID
from tsllm.pages.notebook import ShownFitted, Summary
from tsllm.saving.fields import read_fields


class SeriesForecaster(FittingMixin, ExplainingMixin, StreamingMixin, ShownFitted, CheckedCalls):
    """Base class of all forecasters: sktime's contract over fitting and the path of a forecast.

    A subclass builds, trains and restores its state (`_new_state`, `_train`, `_restore_state`) and
    reads contexts with it (`_reader`). A method that trains one model subclasses `ModelForecaster`.
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
        "X-y-must-have-same-index": False,  # checked here, with the series and the stamp
        "requires-fh-in-fit": False,
        "y_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
    }
    # sktime keeps no data: this class keeps the part of the history that a forecast reads.
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}

    fitted_: FittedState
    pretrained_: FittedState
    _cutoff: Any  # sktime's: an index of one stamp, or None
    _fh: ForecastingHorizon | None  # sktime's: the latest horizon
    _layout: Layout
    _contexts: dict[Hashable, Context]
    _pending: dict[Hashable, PendingForecasts]

    def __post_init__(self) -> None:
        # sktime's tests read these even where remember_data is off.
        self._y = None
        self._X = None

    # ------------------------------------------------------------------ sktime's public surface

    def fit(self, y: Any, X: Any = None, fh: Any = None) -> "SeriesForecaster":
        """Fit to one series or a panel; a pretrained model is used for them, not trained anew.

        Parameters
        ----------
        y : Series, DataFrame, or table of polars or Arrow
            One series, several variables (one per column), or a panel with the index levels
            (series, time), all in one model. The index is of dates, periods or integers. Tables
            without an index have columns of series and times; forecasts are tables of their kind.
        X : DataFrame, other table or None, default=None
            Covariates, with the index of ``y``; the columns named in ``text_covariates`` hold text.
            Rows after the end of ``y`` are not read.
        fh : int, list, range, index, ForecastingHorizon or None, default=None
            The steps to forecast. None: `predict` names them; models that forecast a horizon at
            once are then built for a season.

        Returns
        -------
        self

        Raises
        ------
        DataError
            One sentence that names the series, the row or the argument, and the remedy.
        """
        kind = kind_of(y)
        y, X, fh = self._check_training(y, X, fh)
        super().fit(y, X=X, fh=fh)
        if kind is not None:  # sktime has dropped that of an earlier fit
            self._kind = kind
        return self

    def pretrain(self, y: Any, X: Any = None, fh: Any = None) -> "SeriesForecaster":
        """Train the model on a panel, for series that `fit` brings later.

        `fit` then uses it, and trains it further for ``update_epochs``.

        Parameters
        ----------
        y : DataFrame
            A panel, in the form of `fit`.
        X : DataFrame or None, default=None
            In the form of `fit`.
        fh : forecasting horizon or None, default=None
            In the form of `fit`.

        Returns
        -------
        self
        """
        y, X, fh = self._check_training(y, X, fh)
        return super().pretrain(y, X=X, fh=fh)

    def update(self, y: Any, X: Any = None, update_params: bool = True) -> "SeriesForecaster":
        """Append new rows to the series; the next forecast starts after them.

        Parameters
        ----------
        y : Series or DataFrame
            The rows after those of `fit`, in its form; series of a panel that are new join it.
        X : DataFrame or None, default=None
            The covariates of these rows.
        update_params : bool, default=True
            Whether to train for ``update_epochs`` (0 by default: nothing is trained).

        Returns
        -------
        self

        Raises
        ------
        DataError
            Rows that do not continue the series; nothing has changed then.
        """
        self.check_is_fitted()
        self._check_parameters()
        update_params = checked_flag("update_params", update_params)
        if y is not None and (not hasattr(y, "__len__") or len(y)):
            y, X = self._read_input(y, X, trains=False)
            check_input(y, freq=self._known_frequency(), at_least=1)
        cutoff = self._cutoff
        try:
            return super().update(y, X=X, update_params=update_params)
        except DataError:
            self._cutoff = cutoff  # sktime moves it first
            raise

    def set_params(self, **params: Any) -> "SeriesForecaster":
        """Set parameters; a pretrained model survives unless one of them decides its tensors.

        Parameters
        ----------
        **params
            Parameters of the estimator.

        Returns
        -------
        self
        """
        if self.state != "new" and params.keys() <= self._free_parameters:
            return self._set_params_at("pretrained", params)
        return super().set_params(**params)

    # ------------------------------------------------------------------ beside fit and predict

    def summary(self) -> dict[str, Any]:
        """Summarise the training: sizes, losses, time, device.

        Returns
        -------
        dict
            Parameter counts, sizes, epochs run and best, last losses, wall seconds, device and
            precision, number and origin of calibration windows, share explained by covariates;
            with a language model the counts of the embedding store, too.
        """
        self.check_is_fitted()
        return Summary({"estimator": type(self).__name__, **self.fitted_.summary()})

    def _fitted_summary(self) -> dict[str, Any] | None:
        # Not `summary`, which opens the embedding store.
        return self.fitted_.summary() if self.is_fitted else None

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the training and validation losses.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes
        """
        from tsllm.plotting.forecasts import draw_losses

        self.check_is_fitted()
        return draw_losses(self.fitted_.history, best_epoch=self.fitted_.best_epoch, ax=ax)

    def to_payload(
        self, horizon: int, *, y: Any = None, X: Any = None, quantiles: Sequence[float] = ()
    ) -> dict[str, Any]:
        """Write the JSON document that requests a forecast from a server of this model.

        Parameters
        ----------
        horizon : int
            Steps to forecast.
        y : Series, DataFrame or None, default=None
            The histories to forecast, in the form of `fit`. None: those that this forecaster keeps.
        X : DataFrame or None, default=None
            The covariates of ``y`` and of the steps to forecast, in the form of `predict`.
        quantiles : sequence of float, default=()
            Levels strictly between 0 and 1.

        Returns
        -------
        dict
            ``dataframe_split`` with the columns ``series_id, timestamp``, the variables, and for a
            model with covariates these and ``future``; and ``params``: the input of ``json.dumps``
            and of an MLflow scoring server. Stamps are ISO texts, with the offset of their time
            zone where they have one (integers for an index that counts steps), missing values are
            null.
        """
        self.check_is_fitted()
        horizon, quantiles = check_horizon(horizon), checked_levels(quantiles)
        covariates = self.fitted_.covariates
        if y is None:
            contexts = list(self._contexts.values())
        else:
            y, X = self._index_tables(y, X, trains=False)
            y = match_columns(read_container(y, "y"), self._layout.columns, other_series=True)
            contexts = join_covariates(split_series(y, freq=self._known_frequency()), X, covariates)
        steps = [np.arange(1, horizon + 1)] * len(contexts)
        futures = future_covariates(contexts, X, covariates, steps, horizon)
        columns = None if covariates is None else covariates.columns
        return request_payload(contexts, self._layout.columns, horizon, quantiles, columns, futures)

    # ------------------------------------------------------------------ sktime's private hooks

    def _check_X_y(  # noqa: N802 (sktime's name)
        self, X: Any = None, y: Any = None, y_inner_mtype: Any = None, multivariate: Any = None
    ) -> tuple[Any, Any]:
        # Every method of sktime passes its data through here; of them, pretrain alone passes types.
        trains = self._state != "fitted" or y_inner_mtype is not None
        if y is not None:
            y, X = self._read_input(y, X, trains=trains)
        elif X is not None:
            X = index_table(X, "X", self._index_names())
            X = read_covariates(X, len(self._layout.index_names), self._known_times())
        try:
            return super()._check_X_y(X, y, y_inner_mtype, multivariate)
        except TypeError as error:  # pages of text that name neither column nor row
            if y is not None:  # update_predict comes here without the checks of update
                check_input(y, freq=self.freq, at_least=1)
            raise refused_container(error, y=y, X=X) from error

    def _check_training(self, y: Any, X: Any, fh: Any) -> tuple[Any, Any, Any]:
        """Check the parameters and read the arguments of `fit` before sktime reads them."""
        self._check_parameters()
        y, X = self._read_input(y, X, trains=True)
        contexts = check_input(y, freq=self.freq, at_least=2)
        if contexts and fh is not None:  # offsets and texts need the ends of all series
            fh = read_horizon(fh, contexts)
        return y, X, fh

    def _read_input(self, y: Any, X: Any, *, trains: bool) -> tuple[Any, Any]:
        """Check the columns, the index and the containers of y and X before sktime reads them."""
        y, X = self._index_tables(y, X, trains=trains)
        y = read_container(y, "y")
        known = getattr(self, "pretrained_", None) if trains else self._layout
        columns = None if known is None else known.columns
        if columns is not None:
            y = match_columns(y, columns, other_series=trains)
        if not trains:
            y = match_rows(y, self._layout.index_names, self._known_times())
        if X is None:
            return y, None
        if is_table(y):
            return y, read_covariates(X, y.index.nlevels, times_of(y.index))
        return y, read_container(X, "X")

    def _index_names(self) -> list[str]:
        """Return the names of the levels of the index of the fit, the times last."""
        names = self._layout.index_names
        if len(names) > 2:
            return [str(name) for name in names]
        labels = labels_of_index(names)
        return [labels.id, labels.time] if len(names) == 2 else [labels.time]

    def _known_times(self) -> pd.Index | None:
        """Return stamps of the series that this forecaster keeps; None if it keeps none."""
        kept = next(iter(self._contexts.values()), None)
        return None if kept is None else kept.times

    def _fit(self, y: pd.DataFrame, X: Any, fh: Any) -> "SeriesForecaster":
        contexts = split_series(y, freq=self.freq, at_least=2)
        self._layout = layout_of(y)
        horizon = self._asked_horizon(fh, contexts)
        if self._state == "pretrained":
            contexts = join_covariates(contexts, X, self.pretrained_.covariates)
            self.fitted_ = self._adopt(self.pretrained_, contexts)
        else:
            contexts, columns = self._learn_columns(contexts, X)
            self.fitted_ = self._train_new(contexts, columns, horizon)
            self.fitted_.columns = y.columns
        self._forget_series()
        contexts = with_known_floors(contexts, self.fitted_.stops_at_zero)
        self._remember(self.fitted_.scaled(contexts))
        return self

    def _predict(self, fh: ForecastingHorizon, X: Any) -> pd.DataFrame:
        return self._predict_frame(fh, X, [])

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: Any, alpha: list[float]
    ) -> pd.DataFrame:
        return self._predict_frame(fh, X, alpha)

    def _predict_var(self, fh: ForecastingHorizon, X: Any = None, cov: bool = False) -> Any:
        # Of the quartiles before the floor: both may lie on it, and a variance of 0 says nothing.
        quartiles = self._predict_frame(fh, X, [0.25, 0.75], floored=False)
        low, high = (quartiles.xs(q, axis=1, level=-1) for q in (0.25, 0.75))
        variance = ((high - low) / (2 * norm.ppf(0.75))) ** 2
        return variance.set_axis(self._get_varnames(), axis=1)

    def _predict_frame(
        self,
        fh: ForecastingHorizon,
        X: pd.DataFrame | None,
        quantiles: list[float],
        *,
        floored: bool = True,
    ) -> pd.DataFrame:
        """Forecast every fitted series: points, or quantiles if there are any."""
        contexts = self._contexts_to_predict(X)
        steps = steps_after(fh, contexts)
        horizon = max(int(keep.max()) for keep in steps)
        state = self.fitted_
        futures = future_covariates(
            contexts, X, state.covariates, steps, horizon, between=state.reads_between
        )
        values = self._forecast_kept(contexts, horizon, quantiles, futures, floored=floored)
        if quantiles:
            columns = self._get_columns(method="predict_quantiles", alpha=quantiles)
            values = values[..., 1:].reshape(*values.shape[:2], -1)  # (series, horizon, columns)
        else:
            columns = self._layout.columns
            values = values[..., 0]
        frame = forecast_frame(values, steps, contexts, self._layout)
        frame.columns = columns
        return frame

    def _contexts_to_predict(self, X: pd.DataFrame | None) -> list[Context]:
        """Return the series that `predict` forecasts."""
        return self._kept_contexts()

    def _pretrain(self, y: pd.DataFrame, X: Any = None, fh: Any = None) -> "SeriesForecaster":
        contexts = split_series(y, freq=self.freq, at_least=2)
        horizon = self._asked_horizon(fh, contexts)
        contexts, columns = self._learn_columns(contexts, X)
        self.pretrained_ = self._train_new(contexts, columns, horizon)
        self.pretrained_.columns = y.columns
        return self

    def _pretrain_update(
        self, y: pd.DataFrame, X: Any = None, fh: Any = None
    ) -> "SeriesForecaster":
        if not hasattr(self, "pretrained_"):  # sktime comes here also after a plain fit
            return self._pretrain(y, X, fh)
        contexts = split_series(y, freq=self.freq, at_least=2)
        state = self.pretrained_.copy()
        state.check_same_series(contexts)
        contexts = join_covariates(contexts, X, state.covariates)
        self._train(state, contexts, self.max_epochs)
        self.pretrained_ = state
        return self

    def _update(
        self, y: pd.DataFrame, X: Any = None, update_params: bool = True
    ) -> "SeriesForecaster":
        state = self.fitted_
        updates = split_series(y, freq=self._known_frequency())
        state.check_same_series(updates)
        updates = join_covariates(updates, X, state.covariates)
        # Merged before anything changes: an error in one series leaves all as they were.
        merged = [
            extend_context(self._contexts[new.series_id], new)
            if new.series_id in self._contexts
            else new
            for new in updates
        ]
        merged = state.scaled(with_known_floors(merged, state.stops_at_zero))
        for residual in state.residuals(merged) if self._pending else []:
            fresh = _count_new_steps(self._contexts.get(residual.series_id), residual)
            if fresh:
                self._score_pending(residual, fresh)
        if update_params and self.update_epochs > 0:
            state = self.fitted_ = state.copy()
            self._train(state, merged, self.update_epochs, recalibrate=False)
        self._remember(merged)
        return self

    def _set_cutoff_from_y(self, y: pd.DataFrame) -> None:
        freq: Any = None
        if isinstance(y.index, pd.DatetimeIndex) and y.index.freq is not None:
            # sktime would give it to a single stamp, which fails for years of 52 or 53 weeks
            freq, y = y.index.freq, y.set_axis(without_frequency(y.index), axis=0)
        super()._set_cutoff_from_y(y)
        # sktime loses the frequency of a panel, and needs it to place a horizon.
        cutoff: pd.Index = self._cutoff
        if isinstance(cutoff, pd.DatetimeIndex) and cutoff.freq is None and len(cutoff):
            freq = freq or self._known_frequency() or frequency_of(split_series(y))
            self._cutoff = set_frequency(cutoff, parse_frequency(freq))

    def _check_fh(self, fh: Any, pred_int: bool = False) -> ForecastingHorizon | None:
        # sktime's own conversion goes through periods, which not every frequency has.
        if fh is None:
            if self._fh is None and self.is_fitted:
                raise DataError("fh is missing: pass the steps to forecast to predict, or to fit")
            return self._fh
        contexts = list(self._contexts.values()) if self.is_fitted else []
        self._fh = read_horizon(fh, contexts or [Context(np.zeros(1), times=self._cutoff)])
        return self._fh

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
            state["contexts"] = contexts_to_state(contexts, list(layout.columns), names)
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
            assert backbone is not None  # the model was trained with one
            backbone.check_state(state["backbone"])

        if state["pretrained"] is not None:
            forecaster.pretrained_ = forecaster._restore_state(state["pretrained"], backbone)
        if state["fitted_is_pretrained"]:
            forecaster.fitted_ = forecaster.pretrained_
        elif state["fitted"] is not None:
            forecaster.fitted_ = forecaster._restore_state(state["fitted"], backbone)
        sktime_from_state(forecaster, state["sktime"])
        if state["layout"] is not None:
            forecaster._layout = layout = read_fields(Layout, state["layout"])
            kept = state["contexts"]
            contexts = [] if kept is None else contexts_from_state(kept)
            fitted = forecaster.fitted_
            fitted.check_saved(len(layout.columns), len(layout.index_names), contexts)
            names = column_names(forecaster._layout.columns)
            contexts = [replace(context, columns=names) for context in contexts]
            forecaster._contexts = {context.series_id: context for context in contexts}
            pending = map(PendingForecasts.from_state, state["pending"])
            forecaster._pending = {one.series_id: one for one in pending}
            forecaster._restore_memory(state["memory"])
        return forecaster

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        """Return what the card of the saved model says."""
        pretrained = self.state == "pretrained"
        state = self.pretrained_ if pretrained else self.fitted_
        return state.card_facts(self.loss, pretrained=pretrained, with_context=with_context)

    # ------------------------------------------------------------------ what is kept of series

    def _steps_to_keep(self, state: FittedState) -> int | None:
        """Return the steps of each series' past to keep for forecasts; None keeps all."""
        if state.shrinkage is not None:
            return history_of(state.shape)
        return state.shape.context_length

    def _memory_tensors(self) -> dict[str, Tensor]:
        """Return what a method keeps of the series beside their contexts, for a file."""
        return {}

    def _restore_memory(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `_memory_tensors` returned."""

    def _remember(self, contexts: Sequence[Context]) -> None:
        """Keep the part of each series that forecasts read; start the next adaptive forecast."""
        before = dict(self._contexts)
        self._keep(contexts)
        if not self.adaptive:
            return
        try:
            self._issue_pending(contexts)
        except DataError:  # a series without a value to forecast from
            self._contexts = before
            raise

    def _keep(self, contexts: Sequence[Context]) -> None:
        """Keep the part of each series that forecasts read."""
        keep = self._steps_to_keep(self.fitted_)
        for context in contexts:
            self._contexts[context.series_id] = context.tail(keep)

    def _score_pending(self, residual: Context, fresh: int) -> None:
        """Compare the last ``fresh`` steps of a series with the forecasts that wait for them."""
        state = self.fitted_
        pending = self._pending.get(residual.series_id)
        if pending is not None:
            assert state.calibration is not None
            pending.add_text_effects(state, residual, fresh)
            pending.score(residual.values[-fresh:], state.calibration)

    def _issue_pending(self, contexts: Sequence[Context]) -> None:
        """Make the forecasts of series that adaptive intervals compare with what comes."""
        calibration = self.fitted_.calibration
        assert calibration is not None
        residuals = self.fitted_.residuals(contexts)
        reader = self._reader(self.fitted_, followed=True)
        values, scales = reader.predict(residuals, calibration.horizon)
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
        """Return the frequency of the parameters, else the fitted one."""
        fitted: FittedState | None = getattr(self, "fitted_", None)
        # models of earlier versions have None for integer steps
        return self.freq or (None if fitted is None else fitted.shape.freq or "1")

    def _asked_horizon(
        self, fh: ForecastingHorizon | None, contexts: Sequence[Context]
    ) -> int | None:
        """Return prediction_length, else the farthest step of fh."""
        farthest = None
        if fh is not None:
            farthest = max(int(steps.max()) for steps in steps_after(fh, contexts))
        return farthest if self.prediction_length is None else int(self.prediction_length)


class ModelForecaster(LearningMixin, SeriesForecaster):
    """Base class of the forecasters that train one model.

    A method is a subclass with five hooks: `_choose_shape` (sizes from the data), `_build_model`,
    `_target_length` and `_make_loss` (training), and `_run_model` (a batch of standardised contexts
    to forecasts). A method with a language model subclasses `LLMForecaster`.
    """


def _count_new_steps(known: Context | None, whole: Context) -> int:
    """Count the steps of an extended context that are new."""
    return len(whole) if known is None else int((whole.times > known.times[-1]).sum())
