"""Explanations of forecasts: the share of each covariate and of each text."""

from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.forecasters.forecasting import ForecastingMixin
from tsllm.forecasters.frames import (
    Layout,
    forecast_frame,
    future_covariates,
    stamps_after,
)
from tsllm.forecasters.horizons import horizon_kept, steps_after

#: The name of the model's own forecast in an explanation, and of what the floor adds to a sum.
MODEL, FLOOR = "model", "floor"


class ExplainingMixin(ForecastingMixin, ABC):
    """The part of a forecaster that explains its forecasts by their covariates."""

    _layout: Layout
    _check_fh: Callable[..., Any]  # sktime's, as the next
    _check_X_y: Callable[..., tuple[Any, Any]]  # noqa: N815

    def explain(self, fh: Any = None, X: Any = None) -> pd.DataFrame:
        """Split the forecasts of the fitted series into the shares of the covariates.

        The effects of covariates are added to the forecast of the model, so the split is exact: the
        columns of a variable sum up to its forecast by `predict`.

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame or None, default=None
            In the form of `predict`.

        Returns
        -------
        DataFrame
            A row a forecast step, indexed as the output of `predict`. The column ``model`` is the
            model's own forecast, as it would be without any text. Each further column is the share
            of a column of X, in units of the series. A step without text has no share of a text.
            Where ``floor`` raises a forecast, the column ``floor`` is the share of that.
            Several variables have columns of two levels, (variable, share).

        Raises
        ------
        DataError
            X does not cover the horizon, or one of its columns is called ``model``.

        See Also
        --------
        explain_texts : The share of each text.
        tsllm.plotting.explanations.plot_explanation : A picture of one series.

        Examples
        --------
        >>> import numpy as np, pandas as pd
        >>> from tsllm import DLinearForecaster
        >>> days = pd.period_range("2024-01-01", periods=66, freq="D")
        >>> text = np.where(np.arange(66) % 4 == 0, "Sale today.", None)
        >>> X = pd.DataFrame({"news": text}, index=days)
        >>> y = pd.Series(10.0 + 5 * (text == "Sale today."), index=days)
        >>> model = DLinearForecaster(
        ...     text_covariates=("news",), text_backbone="tfidf", max_steps=2, random_state=0
        ... )
        >>> shares = model.fit(y[:60], X=X[:60], fh=[1, 2]).explain(X=X[60:])
        >>> np.allclose(shares.sum(axis=1), model.predict(X=X[60:]))
        True
        """
        contexts, steps, futures = self._asked(fh, X)
        covariates = self.fitted_.covariates
        taken = () if covariates is None else covariates.columns.names
        _check_free(MODEL, "the model's own forecast", taken)
        horizon = max(int(keep.max()) for keep in steps)
        values = self._forecast_kept(contexts, horizon, (), futures, floored=False)
        raised = (self._floored(values, contexts) - values)[..., 0]
        values = values[..., 0]
        shares: dict[str, np.ndarray] = {}
        if covariates is not None:
            scaled, residuals = self._prepare_contexts(contexts)
            shares = self.fitted_.shares(scaled, residuals, futures, horizon)
        rest = values - sum(shares.values(), np.zeros_like(values))
        if raised.any():
            _check_free(FLOOR, "the share of the floor", taken)
            shares[FLOOR] = raised
        parts = np.stack([rest, *shares.values()], axis=-1)  # (series, horizon, variables, parts)
        names = [MODEL, *shares]
        frame = forecast_frame(parts.reshape(*parts.shape[:2], -1), steps, contexts, self._layout)
        variables = self._layout.columns
        if len(variables) == 1:
            return frame.set_axis(names, axis=1)
        columns = pd.MultiIndex.from_product([variables, names], names=["variable", "share"])
        return frame.set_axis(columns, axis=1)

    def explain_texts(self, fh: Any = None, X: Any = None) -> pd.DataFrame:
        """Split the shares of text columns in `explain` into those of their texts.

        A text may move the step that it stands at and later ones.

        Parameters
        ----------
        fh : forecasting horizon or None, default=None
            In the form of `predict`.
        X : DataFrame or None, default=None
            In the form of `predict`.

        Returns
        -------
        DataFrame
            A row for each forecast step and each text with a share in it: ``series_id`` (None for a
            single series), ``timestamp`` of the step, ``variable``, ``column`` of X, ``written``
            (the stamp of the text), ``text`` and ``share``. The shares of a column and step sum up
            to that of `explain`.

        Raises
        ------
        DataError
            X does not cover the horizon, or the model reads no texts.
        """
        contexts, steps, futures = self._asked(fh, X)
        covariates = self.fitted_.covariates
        if covariates is None or covariates.texts is None:
            raise DataError(
                "the model reads no texts: fit with text_covariates= naming columns of X"
            )
        _, residuals = self._prepare_contexts(contexts)
        names = (*covariates.columns.known_texts, *covariates.columns.past_texts)
        rows: list[tuple[Any, ...]] = []
        windows = covariates.text_windows(residuals, futures)
        horizon = max(int(keep.max()) for keep in steps)
        for context, asked, window in zip(contexts, steps, windows):
            after = stamps_after(context, horizon)
            found = covariates.texts.shares_of_texts(window, horizon)
            for number, (name, shares) in enumerate(zip(names, found)):
                recent = window.recent[number]
                texts = [*recent, *(window.future[number] if number < len(window.future) else ())]
                written = [*context.times[len(context) - len(recent) :], *after]
                for step in (asked - 1).tolist():
                    for text, place in np.argwhere(shares[step] != 0).tolist():
                        variable = self._layout.columns[place]
                        share = shares[step, text, place]
                        rows.append(
                            (context.series_id, after[step], variable, name, written[text],
                             texts[text], share)
                        )  # fmt: skip
        labels = ["series_id", "timestamp", "variable", "column", "written", "text", "share"]
        return pd.DataFrame(rows, columns=labels).astype({"share": np.float64})

    def _asked(
        self, fh: Any, X: Any
    ) -> tuple[list[Context], Sequence[np.ndarray], list[np.ndarray | None] | None]:
        """Read a horizon and X as `predict` does: series, steps of each, known columns."""
        self.check_is_fitted()
        state = self.fitted_
        with horizon_kept(self):
            horizon: ForecastingHorizon = self._check_fh(fh)
            X = self._check_X_y(X=X)[0] if X is not None else None
            contexts = self._kept_contexts()
            steps = steps_after(horizon, contexts)
            last = max(int(keep.max()) for keep in steps)
            futures = future_covariates(
                contexts, X, state.covariates, steps, last, between=state.reads_between
            )
        return contexts, steps, futures


def _check_free(name: str, what: str, taken: Sequence[str]) -> None:
    """Check that no column of X has a name that an explanation uses."""
    if name in taken:
        raise DataError(
            f"X has the column {name!r}, which is the name of {what} in an explanation: give the "
            "column another name, and fit anew"
        )
