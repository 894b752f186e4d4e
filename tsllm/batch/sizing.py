"""How many series to forecast at a time: measured, for it depends on model and machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.errors import DeviceMemoryError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.tables.covariates import columns_of
from tsllm.tables.forecast import contexts_of

_SMALLEST, _LARGEST = 16, 4096
# A larger batch must be this much faster to be worth its memory.
_WORTH = 1.1


def measure_batch_size(
    estimator: SeriesForecaster, frame: pd.DataFrame, horizon: int, *, freq: str | None = None
) -> int:
    """Find the batch size that forecasts the most series a second.

    Doubled from 16 for as long as that is at least 10% faster and fits the device's memory.

    Parameters
    ----------
    estimator : SeriesForecaster
        Fitted; its ``batch_size`` is left as it was.
    frame : DataFrame
        Some of the series, as `read_long` gives them; repeated where a batch needs more.
    horizon : int
        Steps to forecast.
    freq : str, optional
        Frequency of the series, where their stamps do not tell it.

    Returns
    -------
    int
    """
    contexts, _ = contexts_of(estimator, frame, freq)
    contexts = [replace(context, series_id=None) for context in contexts]
    futures = _some_future(estimator, contexts, horizon)
    before, best, rate = estimator.batch_size, _SMALLEST, 0.0
    try:
        size = _SMALLEST
        estimator.batch_size = size
        # What only the first forecast has to do.
        estimator.forecast(contexts[:1], horizon, future_x=futures and futures[:1])
        while size <= _LARGEST:
            estimator.batch_size = size
            rows = [i % len(contexts) for i in range(size)]
            some, known = [contexts[i] for i in rows], futures and [futures[i] for i in rows]
            started = time.perf_counter()
            try:
                estimator.forecast(some, horizon, future_x=known)
            except DeviceMemoryError:
                break
            now = size / (time.perf_counter() - started)
            if now < _WORTH * rate:
                break
            best, rate, size = size, now, size * 2
    finally:
        estimator.batch_size = before
    return best


def _some_future(
    estimator: SeriesForecaster, contexts: Sequence[Context], horizon: int
) -> list[np.ndarray] | None:
    """Let the covariates stay what they are: how fast a forecast is does not depend on them.

    An array (horizon, known columns) a series; None where the model reads no future.
    """
    columns = columns_of(estimator)
    if columns is None or not columns.known:
        return None
    known = columns.positions(columns.known)
    futures = []
    for context in contexts:
        assert context.past_x is not None  # contexts_of has joined them
        futures.append(np.repeat(context.past_x[-1:, known], horizon, axis=0))
    return futures
