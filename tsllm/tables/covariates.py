"""Covariates in long frames: beside the values, and in a second frame for the future steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates
from tsllm.datasets.bad_series import SkippedSeries
from tsllm.datasets.covariates import all_covariates
from tsllm.datasets.delimited import dialect_of
from tsllm.datasets.labels import LABELS, Labels, labels_of, labels_of_index
from tsllm.datasets.layout import Columns, find_columns
from tsllm.datasets.long import read_long
from tsllm.datasets.stamps import holds_dates
from tsllm.datasets.tables import is_csv, open_table
from tsllm.errors import DataError, GapError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.frames import (
    frequency_of,
    future_covariates,
    split_series,
)

#: The table of a known future, for error messages.
_AHEAD = "the future (future=, --future)"


def columns_of(estimator: SeriesForecaster) -> CovariateColumns | None:
    """Return the columns of a fitted model's covariates; None where it has none."""
    covariates = estimator.fitted_.covariates
    return None if covariates is None else covariates.columns


def variables_of(estimator: SeriesForecaster) -> list[str]:
    """Return the names of a fitted model's variables."""
    return [str(column) for column in estimator._layout.columns]


def labels_of_model(estimator: SeriesForecaster) -> Labels:
    """Return the names of the columns with the series and the times in the data of the fit."""
    return labels_of_index(estimator._layout.index_names)


def covariates_of(estimator: SeriesForecaster, known: str | Sequence[str]) -> list[str]:
    """List the columns of covariates of an unfitted forecaster, ``known`` first.

    Those that its arguments name need not be among ``known``.
    """
    others = (estimator.past_covariates, estimator.static_attributes)
    return all_covariates(known, *others, texts=estimator.text_covariates)


def columns_to_read(estimator: SeriesForecaster) -> dict[str, Any]:
    """Return the options with which `read_long` reads a fitted model's variables and covariates."""
    labels = labels_of_model(estimator)
    own: dict[str, Any] = {"model": Columns(labels.id, labels.time, variables_of(estimator))}
    columns = columns_of(estimator)
    if columns is None:
        return own
    return own | {
        "covariates": list(columns.everything),
        "categorical": _categorical(columns),
        "text": columns.texts,
    }


def check_future_given(columns: CovariateColumns | None, future: object) -> None:
    """Check that a known future is given where ``columns`` need one, and only there."""
    known = () if columns is None else columns.known
    if future is None and known:
        raise DataError(
            f"the future of the covariates {', '.join(known)} is missing: give it as future= "
            "(--future), a table with the steps to forecast; a model can do without where it is "
            "fitted with them as past_covariates (--past-covariates)"
        )
    if future is not None and not known:
        raise DataError(
            "the future of covariates was given and the model reads none: leave future "
            "(--future) out, or fit with covariates (--covariates)"
        )


def read_future(
    source: Any,
    estimator: SeriesForecaster,
    *,
    freq: str | None = None,
    skipped: SkippedSeries | None = None,
    **reading: Any,
) -> pd.DataFrame | None:
    """Read the known future of a fitted model's covariates.

    ``source`` is in long format, with the columns of the covariates; other columns are ignored. It
    is None for a model that reads none. The frequency of the fitted ``estimator`` is used where
    ``freq`` is None. ``skipped`` collects the series whose future cannot be read; None: they are an
    error. ``reading`` are arguments of `read_long`, such as ``id_col`` and ``tz``. The result has
    ``series_id, timestamp`` and the known covariates.
    """
    columns = columns_of(estimator)
    freq = freq or estimator.fitted_.shape.freq
    labels = labels_of_model(estimator)
    return _read_future(source, columns, labels, freq=freq, skipped=skipped, **reading)


def read_future_ahead(
    source: Any,
    estimator: SeriesForecaster,
    frame: pd.DataFrame,
    covariates: Sequence[str],
    horizon: int,
    *,
    freq: str | None = None,
    skipped: SkippedSeries | None = None,
    **reading: Any,
) -> pd.DataFrame | None:
    """Read the known future before the model is trained, so that errors come before the training.

    ``frame`` holds the data to fit on, as `read_long` returns them, and ``covariates`` its columns
    that are covariates. The other arguments and the result are those of `read_future`; ``skipped``
    also collects the series whose future lacks a step.
    """
    if not covariates:
        check_future_given(None, source)
        return None
    y, X = split_frame(frame, covariates)
    contexts, columns = estimator._learn_columns(split_series(y, freq=freq), X)
    freq = freq or frequency_of(contexts)
    bad = None if skipped is None else SkippedSeries()
    future = _read_future(source, columns, labels_of(frame), freq=freq, skipped=bad, **reading)
    if future is None:
        return None
    assert columns is not None  # there are covariates
    # The needed rows do not depend on the effects, which are not fitted yet.
    effects = Covariates(columns, 1, None, None)
    if skipped is None or bad is None:
        _rows_ahead(contexts, future, effects, horizon)
        return future
    named = {str(context.series_id): context for context in contexts}
    skipped.adopt(bad, named)
    rest = [name for name in named if name not in skipped.reasons]
    skipped.keep(rest, lambda some: _rows_ahead([named[n] for n in some], future, effects, horizon))
    return future


def split_frame(
    frame: pd.DataFrame, covariates: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Split a canonical long frame into sktime's ``y`` and ``X``; X is None without covariates.

    The levels of the index have the names of the table that the frame was made of.
    """
    labels = labels_of(frame)
    indexed = frame.set_index(LABELS).rename_axis(index=[labels.id, labels.time])
    if not covariates:
        return indexed, None
    return indexed.drop(columns=list(covariates)), indexed[list(covariates)]


def futures_for(
    estimator: SeriesForecaster,
    contexts: Sequence[Context],
    future: pd.DataFrame | None,
    horizon: int,
) -> list[np.ndarray | None] | None:
    """Select the known future of the covariates of series: (horizon, known columns) each.

    ``future`` is that of `read_future`; the contexts are named by text as in it.
    """
    if future is not None:
        check_future_given(columns_of(estimator), future)
    return _rows_ahead(contexts, future, estimator.fitted_.covariates, horizon)


def _read_future(
    source: Any,
    columns: CovariateColumns | None,
    labels: Labels,
    *,
    freq: str | None,
    skipped: SkippedSeries | None,
    **reading: Any,
) -> pd.DataFrame | None:
    """Read the known future of columns, if there are any. Errors and reasons name the future.

    ``labels`` are those of the data; the future may have them, too.
    """
    check_future_given(columns, source)
    if source is None:
        return None
    assert columns is not None  # checked above
    bad = None if skipped is None else SkippedSeries()
    try:
        return _read_known(source, columns, labels, freq=freq, skipped=bad, **reading)
    except GapError as error:
        nothing = ", without a text where there is none" if columns.texts else ""
        raise GapError(
            f"{_AHEAD}: {error.fact}", f"add a row for each missing step{nothing}"
        ) from error
    except DataError as error:  # its row could be one of the data
        raise type(error)(f"{_AHEAD}: {error}") from error
    finally:
        if skipped is not None and bad is not None:
            skipped.reasons |= {name: f"{_AHEAD}: {why}" for name, why in bad.reasons.items()}


def _read_known(
    source: Any, columns: CovariateColumns, labels: Labels, *, freq: str | None, **reading: Any
) -> pd.DataFrame:
    """Read the known covariates of a long table."""
    model = Columns(labels.id, labels.time, [])
    written = [reading.pop(name, None) for name in ("sep", "decimal", "encoding")]
    table = open_table(source, freq, dialect_of(*written) if is_csv(source) else None)
    if reading.get("format") is not None:
        names = find_columns(
            table, reading.get("id_col"), reading.get("time_col"), [], columns.known, model
        )
        if holds_dates(table.frame[names.time]):
            reading["format"] = None  # it describes the times of the data
    return read_long(
        table,
        target_cols=[],
        freq=freq,
        covariates=list(columns.known),
        categorical=_categorical(columns),
        text=columns.texts,
        model=model,
        **reading,
    )


def _rows_ahead(
    contexts: Sequence[Context],
    future: pd.DataFrame | None,
    covariates: Covariates | None,
    horizon: int,
) -> list[np.ndarray | None] | None:
    """Select the rows of a future for every step of a horizon: (horizon, known columns) each."""
    X = None if future is None else future.set_index(LABELS)
    steps = [np.arange(1, horizon + 1)] * len(contexts)
    return future_covariates(contexts, X, covariates, steps, horizon, argument=_AHEAD)


def _categorical(columns: CovariateColumns) -> list[str]:
    values = [*columns.known_values, *columns.past_values]
    return [*(name for name in values if name not in columns.numbers), *columns.static]
