"""pandas in and out: checked series from sktime's containers, dated and labelled forecasts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from tsllm.context import Context
from tsllm.datasets.checks import check_times, check_values, series_name
from tsllm.datasets.frequency import future_times
from tsllm.errors import DataError, InSampleError, NotEnoughDataError


@dataclass(frozen=True)
class Layout:
    """What must be remembered of ``y`` to give forecasts back in its form.

    Attributes
    ----------
    columns : pandas Index
        The variables.
    index_names : tuple
        Of the levels of the index, the time last.
    """

    columns: pd.Index
    index_names: tuple[Hashable, ...]

    @property
    def is_panel(self) -> bool:
        """Whether the rows carry instance levels before the time."""
        return len(self.index_names) > 1


def split_series(
    y: pd.Series | pd.DataFrame, *, freq: str | None = None, at_least: int = 1
) -> list[Context]:
    """Cut sktime's ``y`` into one checked context per series, in order of first appearance.

    Parameters
    ----------
    y : Series, or DataFrame with a plain time index, or with a MultiIndex whose last level is time
    freq : str, optional
        The frequency, where the index does not tell it.
    at_least : int
        Fewest steps a series may have.

    Raises
    ------
    DataError
        Naming the series, the row and the remedy: text, infinities, unsorted or repeated stamps,
        gaps, and series of different frequencies.
    NotEnoughDataError
        A series has fewer than ``at_least`` steps.
    """
    frame = y.to_frame() if isinstance(y, pd.Series) else y
    contexts = [
        _checked(frame.iloc[rows], times, series_id, freq, at_least)
        for series_id, rows, times in instances(frame.index)
    ]
    if not contexts:
        raise NotEnoughDataError("y holds no rows: pass at least two steps of a series")
    _check_one_frequency(contexts)
    return contexts


def layout_of(y: pd.DataFrame) -> Layout:
    """Remember the columns and the names of the index levels."""
    return Layout(columns=y.columns, index_names=tuple(y.index.names))


def frequency_of(contexts: Sequence[Context]) -> str | None:
    """Name the frequency that all contexts share; None for integer steps."""
    freq = getattr(contexts[0].times, "freq", None)
    return None if freq is None else getattr(freq, "freqstr", str(freq))


def span_of(contexts: Sequence[Context]) -> dict[str, Any]:
    """Tell how much data contexts are: series, steps in all, first and last stamp as text."""
    return {
        "series": len(contexts),
        "steps": sum(len(context) for context in contexts),
        "first": str(min(context.times[0] for context in contexts)),
        "last": str(max(context.times[-1] for context in contexts)),
    }


def instances(index: pd.Index) -> list[tuple[Hashable, np.ndarray | slice, pd.Index]]:
    """List (series id, row positions, stamps) in order of first appearance."""
    if not isinstance(index, pd.MultiIndex):
        return [(None, slice(None), index)]
    ids = index.droplevel(-1)
    codes, unique = pd.factorize(ids)
    order = np.argsort(codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(len(unique) + 1))
    stamps = index.get_level_values(-1)
    return [
        (unique[i], order[borders[i] : borders[i + 1]], stamps[order[borders[i] : borders[i + 1]]])
        for i in range(len(unique))
    ]


def relative_steps(fh: ForecastingHorizon, context: Context) -> np.ndarray:
    """Give the horizon as steps after the context's last stamp, one being the next.

    Raises
    ------
    InSampleError
        A step lies at or before the last stamp.
    """
    if fh.is_relative:
        steps = np.asarray(fh.to_numpy())
    else:
        last = context.times[-1:]
        if isinstance(context.times, pd.DatetimeIndex) and context.times.freq is not None:
            last = pd.DatetimeIndex(last, freq=context.times.freq)
        steps = np.asarray(fh.to_relative(last).to_numpy())
    steps = steps.astype(int)
    if int(steps.min()) < 1:
        raise InSampleError(
            f"fh asks for an in-sample forecast of {series_name(context.series_id)}, which ends at "
            f"{context.times[-1]}: every step must lie after it"
        )
    return steps


def forecast_frame(
    values: np.ndarray, steps: Sequence[np.ndarray], contexts: Sequence[Context], layout: Layout
) -> pd.DataFrame:
    """Date and label forecasts.

    Parameters
    ----------
    values : array (series, horizon, columns)
    steps : one int array per series
        Which steps of the horizon to keep, one being the first.
    contexts : one per series, in the same order
    layout : Layout
        Of the ``y`` that was fitted.

    Returns
    -------
    DataFrame with one row per series and step, indexed as ``y`` was.
    """
    picked = np.concatenate([row[keep - 1] for row, keep in zip(values, steps)])
    index = _dated_index(steps, contexts, layout)
    return pd.DataFrame(picked, index=index)


def stamps_after(context: Context, horizon: int, *, freq: str | None = None) -> pd.Index:
    """Give the stamps of the ``horizon`` steps after a context.

    ``freq`` serves where the context's own stamps carry no frequency.
    """
    return future_times(context.times[-1], getattr(context.times, "freq", None) or freq, horizon)


def _dated_index(
    steps: Sequence[np.ndarray], contexts: Sequence[Context], layout: Layout
) -> pd.Index:
    """Give the stamps of every series' own steps after its own end."""
    stamps = [
        stamps_after(context, int(keep.max()))[keep - 1] for keep, context in zip(steps, contexts)
    ]
    if not layout.is_panel:
        return stamps[0].rename(layout.index_names[0])
    keys = [
        context.series_id if isinstance(context.series_id, tuple) else (context.series_id,)
        for context in contexts
    ]
    rows = [(*key, stamp) for key, dates in zip(keys, stamps) for stamp in dates]
    index = pd.MultiIndex.from_tuples(rows, names=layout.index_names)
    time = stamps[0].append(stamps[1:]) if len(stamps) > 1 else stamps[0]
    if isinstance(time, pd.DatetimeIndex | pd.PeriodIndex):
        # from_tuples loses the unit of the stamps
        arrays = [index.get_level_values(level) for level in range(index.nlevels - 1)]
        index = pd.MultiIndex.from_arrays([*arrays, time], names=layout.index_names)
    return index


def _checked(
    rows: pd.DataFrame, times: pd.Index, series_id: Hashable, freq: str | None, at_least: int
) -> Context:
    """Check one series."""
    values = check_values(rows, series=series_id, times=times)
    if len(values) < at_least:
        raise NotEnoughDataError(
            f"{series_name(series_id)} has {len(values)} step{'s' * (len(values) != 1)} and at "
            f"least {at_least} are needed: drop it, or pass more of its history"
        )
    return Context(
        values, times=check_times(times, series=series_id, freq=freq), series_id=series_id
    )


def _check_one_frequency(contexts: Sequence[Context]) -> None:
    """One model serves one frequency."""
    first = contexts[0]
    for context in contexts[1:]:
        ours, theirs = _kind_of_steps(first), _kind_of_steps(context)
        if ours != theirs:
            raise DataError(
                f"the panel mixes frequencies: {series_name(first.series_id)} has {ours}, "
                f"{series_name(context.series_id)} has {theirs}; fit one model per frequency, or "
                "resample them to one"
            )


def _kind_of_steps(context: Context) -> str:
    """Name the frequency, or what takes its place."""
    return frequency_of([context]) or "integer steps"
