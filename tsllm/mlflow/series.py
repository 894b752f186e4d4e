"""Serving of forecasters: the request holds histories, the answer their forecasts.

A request is a table with the columns

- ``series_id``, optional: without it all rows are one series;
- ``timestamp``: as in any long table: dates (year first, with or without a zone), or integers that
  count steps. A model that was fitted in a time zone brings stamps with an offset into it, reads
  the others as its local times, and answers with the offset;
- the value columns that the model was fitted on, by name; null where nothing was observed;
- the covariates that the model was fitted with, by name;
- ``future``, optional: true in the rows after a history that hold the known covariates of the steps
  to forecast.

Each series is forecast from the history in the request; the model need not have seen it. Rows with
only a ``series_id`` ask for the forecast of a series that the model keeps, and the column
``series_id`` without rows asks for all of them; for a model with known covariates these rows hold
their future. Parameters: ``horizon`` (default: the horizon of fitting), ``quantiles`` and
``on_error``: with "skip" bad series are left out and listed in rows with the reason in the column
``error``. Requests in CSV and Parquet have no parameters.

MLflow's server reads requests of any size into memory before the model checks them: put a proxy
with a limit in front of a public server. `tsllm.mlflow.limits.Limits` has the limits of the model.
"""

import datetime
import re
import warnings
import zoneinfo
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.backbone import Backbone
from tsllm.datasets.bad_series import SkippedSeries
from tsllm.datasets.counts import count_step
from tsllm.datasets.frequency import row_number
from tsllm.datasets.long import read_long
from tsllm.datasets.tables import Table
from tsllm.errors import DataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.mlflow.kinds import ServedKind
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.requests import Asked, check_has_rows
from tsllm.tables.covariates import columns_of, columns_to_read, read_future
from tsllm.tables.forecast import (
    DEFAULT_QUANTILES,
    predict_long,
    predict_stored,
    stored_series,
)

#: A day, or a time of that day, without a zone.
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?")
_ID, _TIME, _FUTURE = "series_id", "timestamp", "future"


class ServedSeries(ServedKind):
    """The forecasters of `tsllm.forecasters`."""

    name, models = "series", SeriesForecaster
    default_quantiles = DEFAULT_QUANTILES

    def check_fitted(self, model: SeriesForecaster) -> None:
        """Raise where a model is not fitted, also for a pretrained one."""
        model.check_is_fitted()

    def backbone(self, model: SeriesForecaster) -> Backbone | None:
        """Return the language model, None where there is none."""
        return model.fitted_.backbone

    def columns(self, model: SeriesForecaster) -> list[str]:
        """List the columns of a request."""
        future = [] if _FUTURE in _variables(model) else [_FUTURE]
        return [_ID, _TIME, *_variables(model), *_covariates(model), *future]

    def cell_kinds(self, model: SeriesForecaster) -> dict[str, list[str]]:
        """List the columns of numbers, times and marks."""
        marks = [_FUTURE] if _FUTURE not in _variables(model) else []
        return {"numbers": _numbers(model), "times": [_TIME], "marks": marks}

    def default_horizon(self, model: SeriesForecaster) -> int:
        """Return the horizon of fitting."""
        return model.fitted_.shape.horizon

    def input_example(self, model: SeriesForecaster) -> pd.DataFrame:
        """Build a short history of one series, and the known future of its covariates."""
        shape, covariates = model.fitted_.shape, model.fitted_.covariates
        past = min(shape.context_length, 24)
        known = covariates is not None and bool(covariates.columns.known)
        steps = past + shape.horizon if known else past
        step = 1 if shape.freq is None else count_step(shape.freq)
        if step is not None:
            times: Any = np.arange(steps) * step
        elif _counts_periods(model):
            freq = model.cutoff.freqstr
            times = pd.period_range("2024-01-01", periods=steps, freq=freq).astype(str)
        else:
            times = pd.date_range("2024-01-01", periods=steps, freq=shape.freq).astype(str)
        columns: dict[str, Any] = {_ID: ["a"] * steps, _TIME: times}
        ahead = np.arange(steps) >= past
        for i, name in enumerate(_variables(model)):
            values = np.round(10 + np.sin(np.arange(steps) + i), 3)
            columns[name] = np.where(ahead, np.nan, values)
        if covariates is not None:
            columns |= {name: [value] * steps for name, value in covariates.typical().items()}
            columns[_FUTURE] = ahead
        return pd.DataFrame(columns)

    def predict(
        self, model: SeriesForecaster, request: pd.DataFrame, asked: Asked, limits: Limits
    ) -> pd.DataFrame:
        """Forecast the series of a request; see the head of this file."""
        horizon, quantiles, skipped = asked
        numbers = len(_variables(model)) * (1 + len(quantiles))
        check_has_rows(request, [_TIME, *_variables(model)], _ID)
        request, future = _split_future(model, request, skipped)
        if _brings_history(model, request):
            series = request[_ID].nunique(dropna=False) if _ID in request else 1
            limits.check_answer(series, horizon, numbers)
            table = predict_long(
                model,
                _history(model, request, skipped),
                horizon,
                quantiles=quantiles,
                freq=_asked_frequency(model),
                future=future,
                skipped=skipped,
            )
        else:
            ids = _names(request)
            if ids is None and future is not None and _ID in request:
                ids = list(dict.fromkeys(future[_ID]))
            kept = len(stored_series(model)) if ids is None else len(ids)
            limits.check_answer(kept, horizon, numbers)
            table = predict_stored(
                model, horizon, quantiles=quantiles, series=ids, future=future, skipped=skipped
            )
        if isinstance(table[_TIME].dtype, pd.PeriodDtype):  # JSON has no periods
            table[_TIME] = table[_TIME].astype(str)
        return table


def _variables(model: SeriesForecaster) -> list[str]:
    """List the value columns; a Series without a name is called as in `to_payload`."""
    columns = list(model._layout.columns)
    return ["y"] if columns in ([None], [0]) else [str(column) for column in columns]


def _numbers(model: SeriesForecaster) -> list[str]:
    """List the columns of numbers: the values, and the covariates that are no categories."""
    numbers, columns = _variables(model), columns_of(model)
    if columns is not None:
        numbers += columns.numbers
    return numbers


def _covariates(model: SeriesForecaster) -> list[str]:
    """List the columns of covariates."""
    columns = columns_of(model)
    return [] if columns is None else list(columns.everything)


def _split_future(
    model: SeriesForecaster, request: pd.DataFrame, skipped: SkippedSeries | None
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the rows of histories, and the known future of the covariates as `read_future`."""
    if _FUTURE not in request or _FUTURE in _variables(model):
        return request, None
    marked = _marks(request[_FUTURE])
    request = request.drop(columns=_FUTURE)
    if not marked.any():
        return request, None
    columns = columns_of(model)
    if columns is None or not columns.known:
        raise DataError(
            f"row {int(marked.argmax())} holds known-future covariates and the model reads none: "
            "leave rows with future=true out"
        )
    known = list(columns.known)
    for name in (_TIME, *known):
        if name not in request:
            raise DataError(
                f"the request has no column {name!r}: rows with future=true hold {_TIME}, "
                f"{', '.join(known)}, and {_ID} where there are several series"
            )
    rows = _with_periods(model, request[marked])
    future = read_future(
        _as_table(model, rows),
        model,
        id_col=_ID if _named(rows) else None,
        time_col=_TIME,
        freq=_asked_frequency(model),
        tz=_time_zone(model),
        skipped=skipped,
    )
    return request[~marked], future


def _marks(cells: pd.Series) -> pd.Series:
    """Read the marks of rows that lie in the future: true, false or null."""
    for row, cell in enumerate(cells):
        known = pd.api.types.is_scalar(cell) and (pd.isna(cell) or cell in (True, False))
        if not known:
            raise DataError(
                f"row {row}, column {_FUTURE!r} holds {shown(cell)}: send true, false or null"
            )
    return pd.Series([not pd.isna(cell) and bool(cell) for cell in cells], index=cells.index)


def _brings_history(model: SeriesForecaster, request: pd.DataFrame) -> bool:
    """Return True where the rows hold histories, False where they only name series."""
    there = [name for name in (_TIME, *_variables(model)) if name in request]
    filled = request[there].notna().any(axis=1)
    if not len(request) or not filled.any():
        return False
    if not filled.all():
        row = int((~filled).argmax())
        raise DataError(
            f"row {row} holds neither timestamp nor values and others do: give every series its "
            "history, or none"
        )
    missing = [name for name in (_TIME, *_variables(model)) if name not in request]
    if missing:
        raise DataError(
            f"the request has no column {missing[0]!r}: send "
            f"{', '.join([_TIME, *_variables(model)])}, and {_ID} where there are several series"
        )
    return True


def _names(request: pd.DataFrame) -> list[str] | None:
    """List the series that are asked for by name; None: all."""
    if _ID not in request or not len(request):
        return None
    if request[_ID].isna().any():
        row = int(request[_ID].isna().argmax())
        raise DataError(f"row {row} is empty: give it a {_ID}, or a history")
    return list(dict.fromkeys(request[_ID].astype(str)))


def _history(
    model: SeriesForecaster, request: pd.DataFrame, skipped: SkippedSeries | None
) -> pd.DataFrame:
    """Check the histories and convert them to the canonical form."""
    variables = _variables(model)
    request = _with_periods(model, request)
    with warnings.catch_warnings():
        # A warning for training; the client's answer is the constant.
        warnings.filterwarnings("ignore", message="constant:")
        frame = read_long(
            _as_table(model, request),
            id_col=_ID if _named(request) else None,
            time_col=_TIME,
            target_cols=variables,
            freq=_asked_frequency(model),
            tz=_time_zone(model),
            skipped=skipped,
            **columns_to_read(model),
        )
    columns = [str(column) for column in model._layout.columns]
    return frame.rename(columns=dict(zip(variables, columns)))


def _named(request: pd.DataFrame) -> bool:
    """Return True where the rows name their series."""
    return _ID in request and bool(request[_ID].notna().any())


def _with_periods(model: SeriesForecaster, request: pd.DataFrame) -> pd.DataFrame:
    """Convert the stamps to periods where the model was fitted on periods."""
    if not _counts_periods(model):
        return request
    return request.assign(**{_TIME: _periods(request[_TIME], model.cutoff.freqstr)})


def _as_table(model: SeriesForecaster, request: pd.DataFrame) -> Table:
    """Return rows of a request as a table with their numbers in the request."""
    places = request.index.to_numpy()
    frame = _plain(request, [name for name in _numbers(model) if name in request])
    return Table(
        frame.reset_index(drop=True),
        lambda row: row_number(int(places[row])),
        "the request",
        text=False,
    )


def _plain(request: pd.DataFrame, variables: Sequence[str]) -> pd.DataFrame:
    """Convert columns of numbers and nulls, as JSON has them, to floats."""
    numbers = {}
    for name in variables:
        column = request[name]
        if column.dtype == object and all(
            cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool))
            for cell in column
        ):
            numbers[name] = column.astype(float)
    return request.assign(**numbers)


def _asked_frequency(model: SeriesForecaster) -> str | None:
    """Return the frequency that every history must have; periods have their own."""
    return None if _counts_periods(model) else model.fitted_.shape.freq


def _time_zone(model: SeriesForecaster) -> str | None:
    """Return the time zone that histories are brought into; None: they keep their own.

    A zone without a name has one offset, which each request writes itself.
    """
    zone = getattr(model.cutoff, "tz", None)
    return str(zone) if str(zone) in zoneinfo.available_timezones() else None


def _counts_periods(model: SeriesForecaster) -> bool:
    """Return True where the model was fitted on periods; JSON has dates or names instead."""
    return isinstance(model.cutoff, pd.PeriodIndex)


def _periods(stamps: pd.Series, freq: str) -> pd.Series:
    """Convert dates or the names of periods to periods; the index has the numbers of the rows."""
    if isinstance(stamps.dtype, pd.PeriodDtype):
        return stamps
    periods = [
        _period(cell, freq, row_number(int(row)))
        for row, cell in zip(stamps.index, stamps.astype(object))
    ]
    return pd.Series(pd.PeriodIndex(periods, freq=freq), index=stamps.index)


def _period(cell: Any, freq: str, row: str) -> pd.Period:
    """Convert a date, or the name of a period; pandas would read other text as it guesses."""
    text = cell.isoformat() if isinstance(cell, datetime.date) else str(cell).strip()
    try:
        period = pd.Period(text, freq=freq)
    except (ValueError, TypeError, OverflowError):
        period = None
    if not isinstance(period, pd.Period) or not (text == str(period) or _DATE.fullmatch(text)):
        example = pd.Period("2024-01-31", freq=freq)
        raise DataError(
            f"{row} has the stamp {shown(cell)}, no period of the model's frequency {freq}: send "
            f"its name, such as {str(example)!r}, or a date in it, such as '2024-01-31'"
        )
    return period
