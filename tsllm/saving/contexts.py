"""Contexts as one table of plain columns, for Parquet, and back without losing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.saving.typed_json import from_json, to_json

# The columns that come before the values.
_LABELS = ("series", "series_id", "timestamp")


def context_table(
    contexts: Sequence[Context], columns: pd.Index, covariates: Sequence[str] = ()
) -> pd.DataFrame:
    """Put contexts below each other, one row a step.

    Parameters
    ----------
    contexts : sequence of Context
        At least one.
    columns : pandas Index
        The names of the variables.
    covariates : sequence of str
        The names of the covariates, where there are any.

    Returns
    -------
    DataFrame
        ``series``, the number of the context; ``series_id`` as text, for people; ``timestamp``, in
        UTC where there is a time zone and the start of each period; and one column a variable and
        covariate.
    """
    lengths = [len(context) for context in contexts]
    stamps = [_plain_stamps(context.times) for context in contexts]
    ids = np.array([_text(context.series_id) for context in contexts])
    names = [*map(str, columns), *covariates]
    if len({*names, *_LABELS}) < len(names) + len(_LABELS):
        names = [f"value_{i}" for i in range(len(columns))]
        names += [f"covariate_{i}" for i in range(len(covariates))]
    labels = {
        "series": np.repeat(np.arange(len(contexts)), lengths),
        "series_id": np.repeat(ids, lengths),
        "timestamp": stamps[0].append(stamps[1:]),
    }
    values = np.concatenate([context.values for context in contexts])  # (steps, variables)
    parts = [pd.DataFrame(labels), pd.DataFrame(values)]
    if covariates:
        x = np.concatenate([context.past_x for context in contexts])
        parts.append(pd.DataFrame(x).infer_objects())  # (steps, covariates)
    table = pd.concat(parts, axis=1)
    return table.set_axis([*labels, *names], axis=1)


def context_facts(contexts: Sequence[Context]) -> list[dict[str, Any]]:
    """Write what the table does not tell: each exact series id, and the kind of its stamps.

    Raises
    ------
    DataError
        A series id, a time zone or a frequency that has no exact form in a file.
    """
    return [
        {
            "series_id": to_json(context.series_id, "a series id"),
            # An index without entries still tells unit, zone, frequency and name.
            "times": to_json(context.times[:0], "the time index of y"),
            **({} if context.x_scale is None else {"x_scale": context.x_scale.tolist()}),
            **({} if context.static is None else {"static": context.static}),
        }
        for context in contexts
    ]


def contexts_from(
    facts: Sequence[Mapping[str, Any]], table: pd.DataFrame, n_covariates: int = 0
) -> list[Context]:
    """Cut a table into the contexts that it was made from.

    Parameters
    ----------
    facts : sequence of mapping
        From `context_facts`.
    table : DataFrame
        From `context_table`.
    n_covariates : int
        How many of its last columns are covariates.
    """
    borders = np.searchsorted(table["series"].to_numpy(), np.arange(len(facts) + 1))
    stamps = pd.Index(table["timestamp"])
    last = table.shape[1] - n_covariates
    values = table.iloc[:, len(_LABELS) : last].to_numpy(dtype=np.float64)  # (steps, variables)
    x = table.iloc[:, last:].to_numpy() if n_covariates else None  # (steps, covariates)
    return [
        Context(
            values[first:end].copy(),
            times=_like(from_json(context["times"]), stamps[first:end]),
            past_x=None if x is None else x[first:end].copy(),
            static=context.get("static"),
            series_id=from_json(context["series_id"]),
            x_scale=np.array(context["x_scale"]) if "x_scale" in context else None,
        )
        for context, first, end in zip(facts, borders[:-1], borders[1:])
    ]


def _text(series_id: object) -> str:
    """Write a series id for people."""
    if isinstance(series_id, tuple):
        return "/".join(map(str, series_id))
    return "" if series_id is None else str(series_id)


def _plain_stamps(times: pd.Index) -> pd.Index:
    """Turn stamps into what Parquet holds exactly."""
    if isinstance(times, pd.PeriodIndex):
        return times.to_timestamp()
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        return times.tz_convert("UTC")
    return times


def _like(template: pd.Index, stamps: pd.Index) -> pd.Index:
    """Turn Parquet's stamps into the kind that an empty index shows."""
    if isinstance(template, pd.PeriodIndex):
        return pd.DatetimeIndex(stamps).to_period(template.freqstr).rename(template.name)
    if isinstance(template, pd.DatetimeIndex):
        dates = pd.DatetimeIndex(stamps).as_unit(template.unit).rename(template.name)
        dates = dates if template.tz is None else dates.tz_convert(template.tz)
        return dates if template.freq is None else pd.DatetimeIndex(dates, freq=template.freq)
    if isinstance(template, pd.RangeIndex):
        stop = stamps[-1] + template.step
        return pd.RangeIndex(stamps[0], stop, template.step, name=template.name)
    return pd.Index(stamps.to_numpy(), dtype=template.dtype, name=template.name)
