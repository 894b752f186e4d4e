"""Measurement of the fastest batch size, which depends on model and machine."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.datasets.bad_series import SkippedSeries
from tsllm.errors import DeviceMemoryError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.tables.covariates import columns_of
from tsllm.tables.forecast import contexts_of

_SMALLEST, _LARGEST = 16, 4096
# Least gain in speed that is worth the memory of a larger batch.
_WORTH = 1.1


def measure_batch_size(
    estimator: SeriesForecaster,
    frame: pd.DataFrame,
    horizon: int,
    *,
    freq: str | None = None,
    skipped: SkippedSeries | None = None,
) -> int:
    """Find the batch size that forecasts the most series per second.

    The size is doubled from 16 while that is at least 10% faster and fits into the device's memory.
    The estimator keeps its own ``batch_size``. ``frame`` holds some of the series, in the form of
    `read_long`; they are repeated to fill a batch. The series that ``skipped`` holds, and with it
    all that cannot be forecast, are not measured.
    """
    if skipped is not None:
        frame = _forecastable(estimator, skipped.without(frame), freq)
    contexts, _ = contexts_of(estimator, frame, freq)
    contexts = [replace(context, series_id=None) for context in contexts]
    futures = _some_future(estimator, contexts, horizon)
    before, best, rate = estimator.batch_size, _SMALLEST, 0.0
    try:
        size = _SMALLEST
        estimator.batch_size = size
        # The first forecast has work that later ones do not have.
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


def _forecastable(
    estimator: SeriesForecaster, frame: pd.DataFrame, freq: str | None
) -> pd.DataFrame:
    """Return the first series that can be forecast, as many as the smallest batch."""
    bad = SkippedSeries()

    def check(names: list[str]) -> None:
        contexts, _ = contexts_of(estimator, frame[frame["series_id"].isin(names)], freq)
        estimator.forecast(contexts, 1, future_x=_some_future(estimator, contexts, 1))

    names = frame["series_id"].unique().tolist()
    for first in range(0, len(names), _SMALLEST):
        good = bad.keep(names[first : first + _SMALLEST], check)
        if good:
            return frame[frame["series_id"].isin(good)]
    raise bad.none_left()


def _some_future(
    estimator: SeriesForecaster, contexts: Sequence[Context], horizon: int
) -> list[np.ndarray] | None:
    """Repeat the last covariates as a future, one array (horizon, known columns) per series.

    The speed of a forecast does not depend on their values. None: the model reads no future.
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
