"""Columns of time stamps: dates, periods or integer steps, read strictly."""

import datetime
from collections.abc import Callable

import numpy as np
import pandas as pd

from tsllm.datasets.tables import missing_text
from tsllm.errors import DataError

# Larger integers are dates, not steps: 20240131, or seconds since 1970.
_LARGEST_STEP = 10_000_000

_YEAR_FIRST = "write dates year first, for example 2024-01-31 or 2024-01-31 13:00"
_ONE_ZONE = "write every stamp in one time zone, for example UTC"


def looks_like_dates(column: pd.Series) -> bool:
    """Check whether a column holds dates, by its type or its first text cells."""
    if isinstance(column.dtype, pd.DatetimeTZDtype | pd.PeriodDtype) or column.dtype.kind == "M":
        return True
    cells = [cell for cell in column.head(5) if isinstance(cell, str | datetime.date)]
    if not cells:
        return False
    return all(
        isinstance(cell, datetime.date)
        or (not cell.strip().isdigit() and not pd.isna(_from_text(pd.Series([cell]))[0]))
        for cell in cells
    )


def read_stamps(column: pd.Series, text: bool, place: Callable[[int], str]) -> pd.Index:
    """Read a time column of dates, periods, integers or text with dates, one stamp for each row.

    ``text`` says that the table is a text file, in which digits alone are an integer. ``place``
    names the row at a position in error messages: for missing and unreadable stamps, mixed time
    zones, and integers that are too large to be steps.
    """
    missing = missing_text(column) if text else column.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{place(int(missing.argmax()))} has no stamp in column {column.name!r}; "
            "give it one or drop the row"
        )
    kind = column.dtype
    if isinstance(kind, pd.PeriodDtype):
        return pd.PeriodIndex(column, name=None)
    if isinstance(kind, pd.DatetimeTZDtype) or kind.kind == "M":
        return pd.DatetimeIndex(column, name=None)
    if text and column.str.fullmatch(r"\s*[+-]?\d+\s*").all():
        return _steps(column.astype(np.float64).to_numpy(), column.tolist(), place)
    if pd.api.types.is_integer_dtype(kind):
        return _steps(column.to_numpy(np.int64), column.tolist(), place)
    if pd.api.types.is_string_dtype(kind) and not pd.api.types.is_object_dtype(kind):
        return _dates(column, place)
    cells = column.tolist()
    kinds = (str,) if isinstance(cells[0], str) else (datetime.date, np.datetime64)
    for position, cell in enumerate(cells):
        if not isinstance(cell, kinds):
            raise DataError(
                f"{place(position)} has the stamp {cell!r} of type {type(cell).__name__}; "
                "give dates only, or integers that count steps"
            )
    if kinds == (str,):
        return _dates(column, place)
    zones = [str(getattr(cell, "tzinfo", None)) for cell in cells]
    _check_zones(zones, cells, place)
    return pd.DatetimeIndex(pd.to_datetime(cells))


def _steps(numbers: np.ndarray, cells: list, place: Callable[[int], str]) -> pd.Index:
    """Check that integers are small enough to be steps."""
    large = np.abs(numbers) > _LARGEST_STEP
    if large.any():
        bad = int(large.argmax())
        raise DataError(
            f"{place(bad)} has the stamp {cells[bad]}, too large to count steps; convert it to a "
            "date, for example with pd.to_datetime(..., unit='s') or format='%Y%m%d'"
        )
    return pd.Index(numbers.astype(np.int64))


def _dates(column: pd.Series, place: Callable[[int], str]) -> pd.DatetimeIndex:
    """Read text as dates, year first, all with the same time zone or all without."""
    cells = column.str.strip()
    # an offset follows a time of day only: the last "-01" of a date is not an offset
    zones = cells.str.extract(r":\d\d(?:\.\d+)?\s*(Z|[+-]\d\d:?(?:\d\d)?)$", expand=False)
    zones = zones.fillna("").str.replace(":", "").replace({"Z": "+0000"}).str.ljust(5, "0")
    zones = zones.replace({"00000": "no time zone"})
    _check_zones(zones.tolist(), cells.tolist(), place)
    stamps = _from_text(cells)
    unread = stamps.isna()
    if unread.any():
        bad = int(unread.argmax())
        raise DataError(f"{place(bad)} has the stamp {cells.iloc[bad]!r}, no date; {_YEAR_FIRST}")
    return stamps


def _from_text(cells: pd.Series) -> pd.DatetimeIndex:
    """Parse ISO dates; return NaT for other text, such as dates that start with the day."""
    dated = cells.where(cells.str.match(r"\s*\d{4}(?!\d{1,3}$)"))
    return pd.DatetimeIndex(pd.to_datetime(dated, errors="coerce", format="ISO8601"))


def _check_zones(zones: list[str], cells: list, place: Callable[[int], str]) -> None:
    """Check that all stamps have the time zone of the first."""
    for position, zone in enumerate(zones):
        if zone != zones[0]:
            raise DataError(
                f"{place(position)} has the stamp {str(cells[position])!r} in another time zone "
                f"than the first, {str(cells[0])!r}; {_ONE_ZONE}"
            )
