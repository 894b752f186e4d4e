"""sktime's X in: covariates joined to the series they belong to, and checked step by step."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates
from tsllm.covariates.columns import attribute_text, learn_columns
from tsllm.covariates.effects import missing_future
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.forecasters.frames import instances, stamps_after


def learn_covariates(
    contexts: Sequence[Context],
    X: pd.DataFrame | None,
    past: Sequence[str],
    static: Sequence[str],
) -> tuple[list[Context], CovariateColumns | None]:
    """Join X to the series that a model is fitted on, and tell its columns.

    Parameters
    ----------
    contexts : sequence of Context
    X : DataFrame or None
        Indexed as y was; it may hold more rows and have its columns in any order.
    past : sequence of str
        The columns whose future is not known.
    static : sequence of str
        The columns that are read as text.

    Returns
    -------
    list of Context
        With ``past_x`` and ``static``.
    CovariateColumns or None
        None where there is no X.

    Raises
    ------
    DataError
        X lacks a row of a series, or a value; the message names series, stamp, column and remedy.
    """
    for argument, names in (("past_covariates", past), ("static_attributes", static)):
        if isinstance(names, str):
            raise DataError(
                f"{argument} must be a list of columns, found {names!r}: write [{names!r}]"
            )
    if X is None or X.shape[1] == 0:
        for argument, names in (("past_covariates", past), ("static_attributes", static)):
            if names:
                raise DataError(
                    f"{argument} names {', '.join(names)} and there is no X: pass it, or leave "
                    f"{argument} out"
                )
        return list(contexts), None
    rows = _rows_by_series(X)
    picked = [_positions(rows, context, context.times) for context in contexts]
    columns = learn_columns(X.iloc[np.concatenate(picked)], past=past, static=static)
    return _joined(contexts, X, picked, columns), columns


def join_covariates(
    contexts: Sequence[Context], X: pd.DataFrame | None, covariates: Covariates | None
) -> list[Context]:
    """Join X to series that a fitted model is to read.

    Raises
    ------
    DataError
        There is X and the model was fitted without, or the other way round, or X lacks something.
    """
    if covariates is None:
        if X is not None and X.shape[1]:
            raise DataError(
                f"X was given ({', '.join(map(str, X.columns[:5]))}) and the model was fitted "
                "without covariates: leave X out, or fit anew with X"
            )
        return list(contexts)
    columns = covariates.columns
    if X is None:
        raise DataError(
            f"X is missing: the model was fitted with the covariates "
            f"{', '.join(columns.everything)}, which must come with y"
        )
    X = _named(X, columns.everything)
    rows = _rows_by_series(X)
    picked = [_positions(rows, context, context.times) for context in contexts]
    return _joined(contexts, X, picked, columns)


def future_covariates(
    contexts: Sequence[Context],
    X: pd.DataFrame | None,
    covariates: Covariates | None,
    steps: Sequence[np.ndarray],
    horizon: int,
) -> list[np.ndarray | None] | None:
    """Pick the known future of the covariates for the steps that are asked for.

    Parameters
    ----------
    contexts : sequence of Context
        The past of each series.
    X : DataFrame or None
        Indexed as y was; it must hold the stamps asked for and may hold others.
    covariates : Covariates or None
        Of the model.
    steps : sequence of int arrays
        The steps asked for of each series, one being the first after its context.
    horizon : int
        Steps that the answer holds.

    Returns
    -------
    list of array (horizon, known columns), or None
        None where the model reads no future. Steps that nobody asked for repeat a step that was.

    Raises
    ------
    DataError
        X is missing or not wanted, or lacks a row, a column or a value.
    """
    if covariates is None:
        return None if X is None else [None for _ in join_covariates(contexts, X, None)]
    columns = covariates.columns
    if not columns.known:
        return None
    if X is None:
        raise DataError(missing_future(contexts[0], columns))
    X = _named(X, columns.known)
    rows = _rows_by_series(X)
    picked = [
        _positions(rows, context, stamps_after(context, int(asked.max()))[asked - 1], future=True)
        for context, asked in zip(contexts, steps)
    ]
    futures: list[np.ndarray | None] = []
    for asked, read in zip(steps, _read(X, picked, columns, columns.known, contexts)):
        # Every step, so that the answer has the form of a horizon; unasked ones borrow a row.
        wanted = np.minimum(np.searchsorted(asked, np.arange(1, horizon + 1)), len(asked) - 1)
        futures.append(read[wanted])
    return futures


def _joined(
    contexts: Sequence[Context],
    X: pd.DataFrame,
    picked: Sequence[np.ndarray],
    columns: CovariateColumns,
) -> list[Context]:
    """Give contexts their rows of X."""
    X = X.set_axis([str(name) for name in X.columns], axis=1)
    joined = list(contexts)
    if columns.static:
        joined = [
            replace(context, static=_attributes(X.iloc[rows], columns.static, context))
            for context, rows in zip(joined, picked)
        ]
    if columns.names:
        read = _read(X, picked, columns, columns.names, contexts)
        joined = [replace(context, past_x=x) for context, x in zip(joined, read)]
    return joined


def _attributes(X: pd.DataFrame, names: Sequence[str], context: Context) -> dict[str, object]:
    """Read the attributes of one series, which must not change."""
    attributes: dict[str, object] = {}
    for name in names:
        texts = list(dict.fromkeys(map(attribute_text, X[name].dropna())))
        if len(texts) > 1:
            raise DataError(
                f"{series_name(context.series_id)} has {texts[0]!r} and {texts[1]!r} in column "
                f"{name!r} of X, and a static attribute must not change: leave it out of "
                "static_attributes, which makes a covariate of it"
            )
        if not texts or not texts[0]:
            raise DataError(
                f"{series_name(context.series_id)} has no value in column {name!r} of X: give it "
                "one, such as 'unknown'"
            )
        attributes[name] = texts[0]
    return attributes


def _read(
    X: pd.DataFrame,
    picked: Sequence[np.ndarray],
    columns: CovariateColumns,
    names: Sequence[str],
    contexts: Sequence[Context],
) -> list[np.ndarray]:
    """Check and read the rows of each series, all at once."""
    rows = np.concatenate(picked)
    ends = np.cumsum([len(one) for one in picked])
    stamps = X.index.get_level_values(-1)

    def place(row: int) -> str:
        owner = contexts[int(np.searchsorted(ends, row, side="right"))]
        return f"{series_name(owner.series_id)}, {stamps[rows[row]]}"

    return np.split(columns.read(X.iloc[rows], names, place=place), ends[:-1])


def _named(X: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Give X its names as text, with every column that is needed."""
    X = X.set_axis([str(name) for name in X.columns], axis=1)
    for name in names:
        if name not in X.columns:
            raise DataError(
                f"X has no column {name!r}, and the model was fitted with it: pass the columns "
                f"{', '.join(names)}"
            )
    return X


def _rows_by_series(X: pd.DataFrame) -> dict[Hashable, tuple[np.ndarray, pd.Index]]:
    """Give the positions and stamps of each series' rows of X."""
    everything = np.arange(len(X))
    rows = {}
    for series_id, positions, stamps in instances(X.index):
        if not stamps.is_unique:
            twice = stamps[stamps.duplicated()][0]
            raise DataError(
                f"X has two rows of {series_name(series_id)} at {twice}: keep one of them"
            )
        rows[series_id] = everything[positions], stamps
    return rows


def _positions(
    rows: Mapping[Hashable, tuple[np.ndarray, pd.Index]],
    context: Context,
    stamps: pd.Index,
    *,
    future: bool = False,
) -> np.ndarray:
    """Find the rows of X at a series' stamps."""
    name = series_name(context.series_id)
    if context.series_id not in rows:
        raise DataError(f"X holds no row of {name}: pass its covariates, or leave the series out")
    positions, known = rows[context.series_id]
    found = known.get_indexer(stamps)
    if (found < 0).any():
        stamp = stamps[int((found < 0).argmax())]
        why = "which is to be forecast" if future else "where y has one"
        raise DataError(f"X has no row of {name} at {stamp}, {why}: X must hold every such step")
    return positions[found]
