"""sktime's public methods that forecast or compare: the first layer of each call.

Arguments are checked, and a refused call changes nothing: the horizon that `fit` or an earlier call
was given stays. y and X may be tables of polars and Arrow, which have no index: they are indexed
when they are read, and the result is a table of the kind of y again.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import pandas as pd
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon
from sktime.split.base import BaseSplitter

from tsllm.arguments import check_known, checked_flag, checked_levels, shown
from tsllm.datasets.foreign import TableKind, kind_of
from tsllm.datasets.indexed import index_table, index_tables
from tsllm.errors import DataError, DataTypeError
from tsllm.forecasters.horizons import horizon_kept

Given = ParamSpec("Given")
Own = TypeVar("Own", bound="CheckedCalls")
Result = TypeVar("Result")
# Whether a method of sktime calls another, which must return pandas' frames. Not an attribute:
# a forecast leaves the forecaster as it was.
_INSIDE: ContextVar[bool] = ContextVar("_INSIDE", default=False)


def forecasting_call(
    method: Callable[Concatenate[Own, Given], Result],
) -> Callable[Concatenate[Own, Given], Result]:
    """Keep the horizon if a call is refused, and convert the result to the kind of y.

    A model that was loaded from a file has no kind: its results are of the kind of the tables of
    the call, else pandas'.
    """

    @wraps(method)
    def call(self: Own, *args: Given.args, **kwargs: Given.kwargs) -> Any:
        outermost = not _INSIDE.get()
        token = _INSIDE.set(True)
        try:
            with horizon_kept(self):
                result: Any = method(self, *args, **kwargs)
        finally:
            _INSIDE.reset(token)
        if not outermost or not isinstance(result, pd.DataFrame | pd.Series):
            return result
        given = map(kind_of, (*args, *kwargs.values()))
        kind = self._kind or next((one for one in given if one is not None), None)
        if kind is None:
            return result
        names = self._index_names()
        return kind.give(result.rename_axis(index=names if len(names) > 1 else names[0]), names)

    return call


class CheckedCalls(BaseForecaster):
    """sktime's base class with methods that check their arguments and read tables."""

    _fh: ForecastingHorizon | None  # sktime's: the latest horizon
    _kind: TableKind | None = None  # of the y of the fit; None for pandas

    @abstractmethod
    def _read_input(self, y: Any, X: Any, *, trains: bool) -> tuple[Any, Any]:
        """Check the columns, the index and the containers of y and X before sktime reads them."""

    @abstractmethod
    def _index_names(self) -> list[str]:
        """Return the names of the levels of the index of the fit, the times last."""

    def _index_tables(self, y: Any, X: Any, *, trains: bool) -> tuple[Any, Any]:
        """Convert tables to sktime's form; after the fit, with the index of the fit."""
        if not trains:
            y = index_table(y, "y", self._index_names())
        return index_tables(y, X)

    def fit_predict(self, y: Any, X: Any = None, fh: Any = None, X_pred: Any = None) -> Any:
        """Fit, and forecast the same series.

        Parameters
        ----------
        y : Series, DataFrame, or table of polars or Arrow
            In the form of `fit`.
        X : DataFrame, other table or None, default=None
            In the form of `fit`; with ``X_pred=None`` it also holds the steps to forecast.
        fh : forecasting horizon or None, default=None
            In the form of `fit`.
        X_pred : DataFrame, other table or None, default=None
            The covariates of the steps to forecast.

        Returns
        -------
        Series or DataFrame
            In the form of ``y``.
        """
        # Not sktime's, which forgets an earlier fit before y is checked.
        return self.fit(y, X, fh).predict(X=X if X_pred is None else X_pred)

    @forecasting_call
    def predict(self, fh: Any = None, X: Any = None) -> Any:
        """Forecast every series of `fit`.

        Parameters
        ----------
        fh : int, list, range, index, ForecastingHorizon or None, default=None
            The steps to forecast, counted from the last row: 1 is the next one. None: those of
            `fit`.
        X : DataFrame or None, default=None
            For a model that was fitted with X: the covariates of the steps to forecast, without
            the ``past_covariates``.

        Returns
        -------
        Series or DataFrame
            In the form of ``y`` in `fit`, or a table of its kind (polars, Arrow).

        See Also
        --------
        forecast : Forecast other series with the same model, from many threads.

        Raises
        ------
        DataError
            One sentence that names the step, the column or the series that is missing.
        """
        return super().predict(fh, X)

    @forecasting_call
    def predict_interval(self, fh: Any = None, X: Any = None, coverage: Any = 0.9) -> pd.DataFrame:
        """Forecast intervals, calibrated on the errors of held-out windows (split conformal).

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame or None, default=None
            In the form of `predict`.
        coverage : float or list of float, default=0.9
            Shares of the values that the intervals should hold, strictly between 0 and 1.

        Returns
        -------
        DataFrame
            A row for each step (and series); columns (variable, coverage, "lower" or "upper").
        """
        levels = _levels_of_call("coverage", coverage)
        return super().predict_interval(fh, X, levels)

    @forecasting_call
    def predict_quantiles(self, fh: Any = None, X: Any = None, alpha: Any = None) -> pd.DataFrame:
        """Forecast quantiles, calibrated as in `predict_interval`.

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame or None, default=None
            In the form of `predict`.
        alpha : float, list of float or None, default=None
            Levels strictly between 0 and 1. None: 0.05 and 0.95.

        Returns
        -------
        DataFrame
            A row for each step (and series); columns (variable, level).
        """
        levels = alpha if alpha is None else _levels_of_call("alpha", alpha)
        return super().predict_quantiles(fh, X, levels)

    @forecasting_call
    def predict_var(self, fh: Any = None, X: Any = None, cov: bool = False) -> pd.DataFrame:
        """Forecast the variance of each step, from the calibrated quartiles before ``floor``.

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame or None, default=None
            In the form of `predict`.
        cov : bool, default=False
            True is an error: each step is forecast by itself.

        Returns
        -------
        DataFrame
            A row for each step (and series), a column for each variable.
        """
        if checked_flag("cov", cov):
            raise DataError(
                "cov=True asks for covariances of steps, and each step is forecast by itself: "
                "leave it out for the variances"
            )
        return super().predict_var(fh, X, cov)

    @forecasting_call
    def predict_proba(self, fh: Any = None, X: Any = None, marginal: bool = True) -> Any:
        """Forecast the distribution of each step, for `skpro`.

        It is normal, with the mean of `predict` and the variance of `predict_var`, and may reach
        below ``floor``; `predict_quantiles` does not.

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame or None, default=None
            In the form of `predict`.
        marginal : bool, default=True
            False is an error: each step is forecast by itself.

        Returns
        -------
        skpro distribution
        """
        if not checked_flag("marginal", marginal):
            raise DataError(
                "marginal=False asks for a joint distribution, and each step is forecast by "
                "itself: leave it out for the distribution of each step"
            )
        return super().predict_proba(fh, X, marginal)

    @forecasting_call
    def predict_residuals(self, y: Any = None, X: Any = None) -> Any:
        """Subtract forecasts from values that came: ``y - predict(y.index)``.

        Parameters
        ----------
        y : Series, DataFrame or None, default=None
            Values after the end of `fit`, in its form. None is an error: no training data are kept.
        X : DataFrame or None, default=None
            In the form of `predict`.

        Returns
        -------
        Series or DataFrame
            In the form of ``y``.
        """
        self.check_is_fitted()
        if y is None:
            raise DataError(
                "y is missing: pass the series to compare the forecast with; a forecaster keeps "
                "no training data"
            )
        y = self._read_input(y, None, trains=False)[0]
        horizon = self._fh
        if isinstance(y, pd.Series | pd.DataFrame):
            self._fh = None  # sktime would convert the stamps of y to steps through periods
        try:
            return super().predict_residuals(y, X)
        finally:
            self._fh = horizon

    @forecasting_call
    def score(self, y: Any, X: Any = None, fh: Any = None) -> float:
        """Compute the mean absolute percentage error of forecasts, as a share; 0 is perfect.

        Parameters
        ----------
        y : Series or DataFrame
            Values after the end of `fit`, in its form.
        X : DataFrame or None, default=None
            In the form of `predict`.
        fh : forecasting horizon or None, default=None
            The steps of ``y``. None: those of `fit`.

        Returns
        -------
        float
        """
        self.check_is_fitted()
        y = self._read_input(y, None, trains=False)[0]
        score: float = super().score(y, X=X, fh=fh)
        return score

    @forecasting_call
    def update_predict(
        self,
        y: Any,
        cv: Any = None,
        X: Any = None,
        update_params: bool = True,
        reset_forecaster: bool = True,
    ) -> Any:
        """Forecast again and again while the series moves on: predict, update, predict, ...

        Parameters
        ----------
        y : Series or DataFrame
            Values after the end of `fit`, in its form.
        cv : splitter of sktime or None, default=None
            The windows that update and the steps to forecast. None: one step after another.
        X : DataFrame or None, default=None
            The covariates of ``y``.
        update_params : bool, default=True
            In the form of `update`.
        reset_forecaster : bool, default=True
            Leave the forecaster as it was before the call.

        Returns
        -------
        Series or DataFrame
            The forecasts; with several for a step, a column for each end of the known past.
        """
        if cv is not None and not isinstance(cv, BaseSplitter):
            raise DataTypeError(
                "cv must be a splitter of sktime.split, such as SlidingWindowSplitter(), or None, "
                f"found {shown(cv)}"
            )
        update_params = checked_flag("update_params", update_params)
        reset_forecaster = checked_flag("reset_forecaster", reset_forecaster)
        return super().update_predict(y, cv, X, update_params, reset_forecaster)

    @forecasting_call
    def update_predict_single(
        self, y: Any = None, fh: Any = None, X: Any = None, update_params: bool = True
    ) -> Any:
        """Append new rows to the series, and forecast the steps after them.

        It calls `update`, then `predict`. If only the forecast is refused, the new rows are kept.

        Parameters
        ----------
        y : Series, DataFrame or other table, default=None
            The rows after those of `fit`, in its form.
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame, other table or None, default=None
            The covariates of ``y`` and of the steps to forecast.
        update_params : bool, default=True
            In the form of `update`.

        Returns
        -------
        Series or DataFrame
            In the form of ``y`` in `fit`.
        """
        # Not sktime's, which moves the end of the known past before it checks the horizon.
        return self.update(y, X, update_params).predict(fh, X)

    def set_params(self, **params: Any) -> Self:  # noqa: D102
        known = self.get_params()
        for name in params:
            own = name.partition("__")[0]
            # sktime finds an argument of a forecaster inside by its last name.
            if own not in known and not any(one.endswith(f"__{own}") for one in known):
                check_known(type(self), own, self.get_param_names())
        return super().set_params(**params)


def _levels_of_call(name: str, levels: Any) -> list[float]:
    """Check the levels that a method of sktime takes: one number, or at least one in a list."""
    found = checked_levels(levels, name, one=True)
    if not found:
        raise DataError(f"{name} is empty: pass a number between 0 and 1, or some")
    if len(set(found)) < len(found):
        twice = next(level for level in found if found.count(level) > 1)
        raise DataError(f"{name} holds {twice} twice: pass each level once")
    return list(found)
