"""Covariates in long frames: beside the values, and in a second frame for the steps to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.covariates import CovariateColumns
from tsllm.datasets.long import read_long
from tsllm.errors import DataError
from tsllm.forecasters.base import BaseLLMForecaster
from tsllm.forecasters.exogenous import future_covariates

_LABELS = ["series_id", "timestamp"]


def columns_to_read(estimator: BaseLLMForecaster) -> dict[str, Any]:
    """Give the options of `read_long` by which data bring a fitted model's covariates."""
    columns = _columns_of(estimator)
    if columns is None:
        return {}
    return {"covariates": list(columns.everything), "categorical": _categorical(columns)}


def read_future(
    source: Any,
    estimator: BaseLLMForecaster,
    *,
    id_col: str | None = None,
    time_col: str | None = None,
    freq: str | None = None,
    sort: bool = False,
) -> pd.DataFrame:
    """Read the known future of a fitted model's covariates.

    Parameters
    ----------
    source : DataFrame, path or Table
        Long format, with the columns of the covariates; others are passed over.
    estimator : BaseLLMForecaster
        Fitted with covariates.
    id_col, time_col, freq, sort
        As for `read_long`. Without ``freq`` it is the model's.

    Returns
    -------
    DataFrame
        ``series_id, timestamp`` and the known covariates.

    Raises
    ------
    DataError
        The model knows no such covariates, or the data cannot be used.
    """
    columns = _columns_of(estimator)
    if columns is None or not columns.known:
        raise DataError(
            "the future of covariates was given and the model reads none: leave future "
            "(--future) out, or fit with covariates (--covariates)"
        )
    return read_long(
        source,
        id_col=id_col,
        time_col=time_col,
        target_cols=[],
        freq=freq or estimator.fitted_.shape.freq,
        sort=sort,
        covariates=list(columns.known),
        categorical=_categorical(columns),
    )


def split_frame(
    frame: pd.DataFrame, covariates: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Take a canonical long frame apart into sktime's ``y`` and ``X``; X is None without any."""
    indexed = frame.set_index(_LABELS)
    if not covariates:
        return indexed, None
    return indexed.drop(columns=list(covariates)), indexed[list(covariates)]


def futures_for(
    estimator: BaseLLMForecaster,
    contexts: Sequence[Context],
    future: pd.DataFrame | None,
    horizon: int,
) -> list[np.ndarray | None] | None:
    """Pick the known future of the covariates of series for every step of a horizon.

    Parameters
    ----------
    estimator : BaseLLMForecaster
    contexts : sequence of Context
        The past of each series; its name as text is that in ``future``.
    future : DataFrame or None
        As `read_future` gives it.
    horizon : int

    Raises
    ------
    DataError
        The future is missing, is not wanted, or lacks a row or a value.
    """
    covariates = estimator.fitted_.covariates
    steps = [np.arange(1, horizon + 1)] * len(contexts)
    X = None if future is None else future.set_index(_LABELS)
    if X is not None and covariates is None:
        raise DataError("the model was fitted without covariates: leave future (--future) out")
    return future_covariates(contexts, X, covariates, steps, horizon)


def _columns_of(estimator: BaseLLMForecaster) -> CovariateColumns | None:
    covariates = estimator.fitted_.covariates
    return None if covariates is None else covariates.columns


def _categorical(columns: CovariateColumns) -> list[str]:
    kinds = zip(columns.names, columns.categories)
    return [*(name for name, known in kinds if known is not None), *columns.static]
