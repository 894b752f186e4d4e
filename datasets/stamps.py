"""Columns of time stamps: dates, periods or integer steps, read strictly."""

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tsllm.datasets.dates import (
    check_format,
    check_one_zone,
    check_time_zone,
    read_dates,
    text_dates,
    to_zone,
)
from tsllm.datasets.tables import missing_text
from tsllm.errors import DataError


def holds_dates(column: pd.Series) -> bool:
    """Check whether a column holds dates or periods, by its type or its first cell."""
    if _is_date_type(column.dtype):
        return True
    return len(column) > 0 and isinstance(column.iloc[0], datetime.date | np.datetime64)


def looks_like_dates(column: pd.Series) -> bool:
    """Check whether a column holds dates, by its type or its first text cells."""
    if _is_date_type(column.dtype):
        return True
    cells = [cell for cell in column.head(5) if isinstance(cell, str | datetime.date)]
    if not cells:
        return False
    return all(
        isinstance(cell, datetime.date)
        or (not cell.strip().isdigit() and not pd.isna(text_dates(pd.Series([cell]))[0]))
        for cell in cells
    )


def read_stamps(
    column: pd.Series,
    text: bool,
    place: Callable[[int], str],
    *,
    tz: str | None = None,
    format: str | None = None,
) -> pd.Index:
    """Read a time column of dates, periods, integers or text with dates, one stamp for each row.

    ``text`` says that the table is a text file, in which digits alone are an integer. ``place``
    names the row at a position in error messages: for missing and unreadable stamps, mixed time
    zones, and integers of more than 64 bits. ``tz`` and ``format`` are those of
    `read_long`.
    """
    check_time_zone(tz)
    check_format(format)
    missing = missing_text(column) if text else column.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{place(int(missing.argmax()))} has no stamp in column {column.name!r}; "
            "give it one or drop the row"
        )
    column = _without_decimals(column, place)
    kind = column.dtype
    digits = text and column.str.fullmatch(r"\s*[+-]?\d+\s*").all()
    whole = not text and pd.api.types.is_integer_dtype(kind)
    if format is not None and (digits or whole):
        return read_dates(column.astype(str), place, tz=tz, format=format)
    if tz is not None and (digits or whole or isinstance(kind, pd.PeriodDtype)):
        found = "periods" if isinstance(kind, pd.PeriodDtype) else "integers"
        raise DataError(
            f"tz={tz!r} has no effect on column {column.name!r}, which holds {found}; leave it out"
            + (", or pass format= (--time-format) if they are dates" if found == "integers" else "")
        )
    if _is_date_type(kind):
        _check_no_format(column, format)
        if isinstance(kind, pd.PeriodDtype):
            return pd.PeriodIndex(column, name=None)
        return to_zone(pd.DatetimeIndex(column, name=None), tz, place)
    if digits:
        return _steps([int(cell) for cell in column], place)
    if whole:
        return _steps(column.tolist(), place)
    if pd.api.types.is_string_dtype(kind) and not pd.api.types.is_object_dtype(kind):
        return read_dates(column, place, tz=tz, format=format)
    cells = column.tolist()
    kinds = (str,) if isinstance(cells[0], str) else (datetime.date, np.datetime64)
    for position, cell in enumerate(cells):
        if not isinstance(cell, kinds):
            raise DataError(
                f"{place(position)} has the stamp {cell!r} of type {type(cell).__name__}; "
                "give dates only, or integers that count steps"
            )
    if kinds == (str,):
        return read_dates(column.astype(str), place, tz=tz, format=format)
    _check_no_format(column, format)
    zones = [str(getattr(cell, "tzinfo", None)) for cell in cells]
    check_one_zone(zones, cells, place, tz)
    aware = tz is not None and zones[0] != "None"
    return to_zone(pd.DatetimeIndex(pd.to_datetime(cells, utc=aware)), tz, place)


def _is_date_type(kind: Any) -> bool:
    """Check whether the dtype of a column holds dates or periods only."""
    return isinstance(kind, pd.DatetimeTZDtype | pd.PeriodDtype) or kind.kind == "M"


def _without_decimals(column: pd.Series, place: Callable[[int], str]) -> pd.Series:
    """Turn times that are whole numbers of type Decimal into integers."""
    kind = column.dtype
    arrow = isinstance(kind, pd.ArrowDtype) and pa.types.is_decimal(kind.pyarrow_dtype)
    loose = pd.api.types.is_object_dtype(kind) and isinstance(column.iloc[0], decimal.Decimal)
    if not (arrow or loose):
        return column
    cells = column.tolist()
    for position, cell in enumerate(cells):
        if not isinstance(cell, decimal.Decimal) or cell != cell.to_integral_value():
            raise DataError(
                f"{place(position)} has the stamp {cell} of type {type(cell).__name__}; give dates "
                "only, or integers that count steps"
            )
    return pd.Series([int(cell) for cell in cells], index=column.index, name=column.name)


def _check_no_format(column: pd.Series, format: str | None) -> None:
    """Check that no format is given for a column that holds dates already."""
    if format is not None:
        raise DataError(
            f"format={format!r} has no effect on column {column.name!r}, which holds dates and no "
            "text; leave it out"
        )


def _steps(numbers: list[int], place: Callable[[int], str]) -> pd.Index:
    """Return integers of 64 bits."""
    bad = next((i for i, number in enumerate(numbers) if abs(number) >= 2**63), None)
    if bad is not None:
        raise DataError(
            f"{place(bad)} has the stamp {numbers[bad]}, too large for an integer of 64 bits; "
            "count steps from 0, or give dates"
        )
    return pd.Index(np.array(numbers, dtype=np.int64))
