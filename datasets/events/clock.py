"""The clock of an event table: plain numbers, or timestamps counted from an origin."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from tsllm.datasets.checks import bad_value
from tsllm.datasets.dates import check_format
from tsllm.datasets.stamps import read_stamps
from tsllm.datasets.tables import Table, missing_text, text_to_numbers
from tsllm.errors import DataError

# The beginning of a date; pandas would guess which number of 01/02/2024 is the month.
_YEAR_FIRST = re.compile(r"\s*\d{4}(?!\d{1,3}$)")
# Microseconds in each unit of time.
_UNITS = {
    "us": 1,
    "ms": 1000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "D": 86_400_000_000,
    "W": 604_800_000_000,
}


@dataclass(frozen=True)
class Clock:
    """The relation between the times of an `EventTable` and the user's times.

    Parameters
    ----------
    origin : pandas.Timestamp or None, default=None
        The timestamp of time 0, with the table's time zone, if any. None: the user's times are
        numbers and stay unchanged.
    unit : {"s", "us", "ms", "min", "h", "D", "W"}, default="s"
        The unit of time for timestamps.
    step : {"us", "ns"}, default="us"
        The precision of timestamps that are computed from numbers.

    See Also
    --------
    EventTable : The table whose times it converts.

    Examples
    --------
    >>> clock = Clock(pd.Timestamp("2024-01-31"), unit="h")
    >>> clock.to_number(["2024-01-31 12:00", "2024-02-01 00:30"])
    array([12. , 24.5])
    >>> clock.to_stamp(1.5)
    Timestamp('2024-01-31 01:30:00')
    """

    origin: pd.Timestamp | None = None
    unit: str = "s"
    step: Literal["us", "ns"] = "us"

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise DataError(
                f"time_unit={self.unit!r} is not known; pass one of {', '.join(_UNITS)}"
            )

    @property
    def is_stamps(self) -> bool:
        """Return whether the user's times are timestamps."""
        return self.origin is not None

    def to_number(self, stamps: Any) -> np.ndarray:
        """Convert the user's times to the table's.

        Parameters
        ----------
        stamps : scalar or array-like
            Timestamps (text, datetimes or pandas') or numbers, as in the table. None, NaT and NaN
            are unknown times.

        Returns
        -------
        numpy.ndarray
            float64, of the same shape (a float for a scalar), NaN where unknown.

        Raises
        ------
        DataError
            If numbers are passed for timestamps or the reverse, or if only one of the table and the
            timestamps has a time zone.
        """
        scalar = np.ndim(stamps) == 0
        cells = [stamps] if scalar else stamps
        numbers = self._numbers(cells) if self.origin is None else self._elapsed(cells)
        return numbers[0] if scalar else numbers

    def to_stamp(self, numbers: Any) -> Any:
        """Convert the table's times to the user's.

        Parameters
        ----------
        numbers : scalar or array-like of float
            Times of the table.

        Returns
        -------
        pandas.DatetimeIndex or numpy.ndarray, or one Timestamp or float for a scalar
            NaT where not finite or outside pandas' range of timestamps.
        """
        values = np.atleast_1d(np.asarray(numbers, dtype=np.float64))
        if self.origin is None:
            return float(values[0]) if np.ndim(numbers) == 0 else values
        zone = self.origin.tz
        start = int(_integers(pd.DatetimeIndex([self.origin]), self.step)[0])
        steps = values * self._steps_per_unit()
        known = np.abs(steps) < 2.0**62 - abs(start)  # False for NaN
        whole = np.rint(np.where(known, steps, 0)).astype(np.int64) + start
        stamps = pd.DatetimeIndex(
            np.where(known, whole, np.iinfo(np.int64).min).view(f"M8[{self.step}]")
        )
        stamps = stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone)
        return stamps[0] if np.ndim(numbers) == 0 else stamps

    def calendar_times(self, numbers: Any) -> np.ndarray:
        """Convert the table's times to times of day and week: since a Monday, by the wall clock.

        Parameters
        ----------
        numbers : array-like of float
            Times of the table.

        Returns
        -------
        numpy.ndarray
            float64, in the clock's unit; changes to summer time are followed. NaN where the user's
            times are numbers.

        Examples
        --------
        >>> clock = Clock(pd.Timestamp("2024-01-01", tz="Europe/Berlin"), unit="h")
        >>> clock.calendar_times([0.0, 2184.0]) % 24  # at midnight; on 1 April, in summer time
        array([0., 1.])
        """
        values = np.atleast_1d(np.asarray(numbers, dtype=np.float64))
        if self.origin is None:
            return np.full(len(values), np.nan)
        unit = pd.Timedelta(1, cast(Any, self.unit))
        monday = pd.Timestamp("2001-01-01")
        if self.origin.tz is None:
            return values + float((self.origin - monday) / unit)
        stamps = self.to_stamp(values)
        shift = (stamps.tz_localize(None) - stamps.tz_convert(None)) / unit
        return values + float((self.origin.tz_convert(None) - monday) / unit) + shift.to_numpy()

    def step_of(self, numbers: np.ndarray) -> float:
        """Return the step of the clock that wrote some times: all lie whole steps apart.

        Parameters
        ----------
        numbers : array (times,)
            Times of the table, in any order.

        Returns
        -------
        float
            The longest such step, in the table's unit. The shortest time between two of them where
            numbers have more than nine decimal places; infinite where all are the same.

        Examples
        --------
        >>> Clock().step_of(np.array([0.5, 2.0, 2.0, 2.75]))
        0.25
        >>> clock = Clock(pd.Timestamp("2024-01-31"), unit="h")
        >>> clock.step_of(clock.to_number(["2024-01-31 12:00", "2024-01-31 12:20:00.25"]))
        0.33340277777777777
        """
        between = np.diff(np.unique(numbers))
        if not len(between):
            return np.inf
        if self.is_stamps:
            return _common_step(between, self._steps_per_unit(), 0.5) or float(between.min())
        found = (_common_step(between, 10**places, 1e-3) for places in range(10))
        return next((step for step in found if step), float(between.min()))

    def _steps_per_unit(self) -> int:
        return _UNITS[self.unit] * (1000 if self.step == "ns" else 1)

    def _numbers(self, cells: Any) -> np.ndarray:
        if isinstance(cells, pd.DatetimeIndex):
            raise DataError(
                f"the time {cells[0]} is a timestamp, but this table's times are numbers; pass "
                "numbers on the same axis"
            )
        cells = [np.nan if cell is None or cell is pd.NaT else cell for cell in cells]
        try:
            if any(isinstance(cell, bool | np.bool_) for cell in cells):
                raise TypeError
            return np.array(cells, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"the times {_shown(cells)} are not numbers, but this table's times are; pass "
                "numbers on the same axis"
            ) from None

    def _elapsed(self, cells: Any) -> np.ndarray:
        assert self.origin is not None
        stamps = read_loose_stamps(cells)
        if (stamps.tz is None) != (self.origin.tz is None) and not stamps.isna().all():
            has = "no time zone" if stamps.tz is None else f"the time zone {stamps.tz}"
            own = "none" if self.origin.tz is None else str(self.origin.tz)
            raise DataError(
                f"the time {stamps.dropna()[0]} has {has}, but this table's is {own}; pass stamps "
                "of the same kind, for example with tz_localize"
            )
        start = int(_integers(pd.DatetimeIndex([self.origin]), self.step)[0])
        elapsed = (_integers(stamps, self.step) - start) / self._steps_per_unit()
        return np.where(stamps.isna(), np.nan, elapsed)


def clock_of(times: Any, starts: Any, ends: Any, unit: str) -> Clock:
    """Build the clock of events and windows; timestamps are counted from the earliest one."""
    if not isinstance(times, pd.DatetimeIndex):
        return Clock(None, unit)
    known = pd.DatetimeIndex(times.append([starts, ends]).dropna())
    fine = bool((_integers(known, "ns") % 1000).any())
    return Clock(known.min(), unit, "ns" if fine else "us")


def read_loose_stamps(cells: Any) -> pd.DatetimeIndex:
    """Read the timestamps of an argument; numbers are an error."""
    if not isinstance(cells, pd.DatetimeIndex):
        cells = [pd.NaT if pd.isna(cell) else cell for cell in cells]
        if any(isinstance(cell, int | float | np.number) for cell in cells):
            raise DataError(
                f"the times {_shown(cells)} are numbers, but this table's times are timestamps; "
                "pass timestamps"
            )
        try:
            if any(isinstance(cell, str) and not _YEAR_FIRST.match(cell) for cell in cells):
                raise ValueError
            cells = pd.DatetimeIndex(pd.to_datetime(cells))
        except (TypeError, ValueError):
            raise DataError(
                f"the times {_shown(cells)} cannot be read as timestamps of one time zone; write "
                "them year first, for example 2024-01-31 13:00"
            ) from None
    return cells


def read_event_times(
    table: Table, name: str, place: Callable[[int], str], *, missing: bool = False
) -> pd.DatetimeIndex | np.ndarray:
    """Read a column of timestamps or numbers; ``missing`` allows unknown times."""
    column = table.frame[name]
    text = table.text or pd.api.types.is_string_dtype(column.dropna())
    if text and not pd.api.types.is_object_dtype(column):
        column = column.astype(object)
    absent = column.isna().to_numpy()
    if text:
        absent = absent | missing_text(column.where(~absent, ""))
    if absent.any() and not missing:
        raise DataError(
            f"{place(int(absent.argmax()))} has no time in column {name!r}; give it one or drop "
            "the row"
        )
    known = np.flatnonzero(~absent)
    present = column.iloc[known]

    def known_place(position: int) -> str:
        return place(int(known[position]))

    check_format(table.format)
    whole = pd.api.types.is_integer_dtype(present)
    dated = table.format is not None and len(present) > 0 and (text or whole)
    if text:
        present = present.astype(str)
    if text and not dated:
        numbers = text_to_numbers(present, table.decimal)
        if isinstance(numbers, np.ndarray):
            present = pd.Series(numbers, name=name)
        elif numbers > 0 and isinstance(
            text_to_numbers(present.iloc[:1], table.decimal), np.ndarray
        ):
            raise DataError(
                f"{known_place(numbers)} has the time {present.iloc[numbers]!r}, no number as in "
                "the rows before; write all times of the column in one way"
            )
    elif len(present) and isinstance(present.iloc[0], int | float) and present.dtype == object:
        present = present.infer_objects()
    if present.dtype.kind == "m":
        raise DataError(
            f"column {name!r} of {table.source} holds durations; pass points in time, or numbers "
            "with .dt.total_seconds()"
        )
    if isinstance(present.dtype, pd.PeriodDtype):
        raise DataError(
            f"column {name!r} of {table.source} holds periods, not points in time; convert it "
            "with .dt.to_timestamp()"
        )
    numeric = pd.api.types.is_numeric_dtype(present) and not pd.api.types.is_bool_dtype(present)
    if numeric and not dated:
        if table.tz is not None and len(present):
            raise DataError(
                f"tz={table.tz!r} has no effect on column {name!r}, which holds numbers; leave it "
                "out, or pass format= (--time-format) if they are dates"
            )
        bad = bad_value(present)
        if bad is not None:
            raise DataError(
                f"{known_place(bad[0])} has no finite time in column {name!r}; "
                "give it one or drop the row"
            )
        values = np.full(len(column), np.nan)
        values[known] = present.to_numpy(dtype=np.float64)
        return values
    stamps = read_stamps(present, table.text, known_place, tz=table.tz, format=table.format)
    assert isinstance(stamps, pd.DatetimeIndex)  # numbers and periods were handled above
    full = pd.Series(pd.NaT, index=range(len(column)), dtype=stamps.dtype)
    full.iloc[known] = stamps
    return pd.DatetimeIndex(full, name=None)


def _integers(stamps: pd.DatetimeIndex, step: Literal["us", "ns"]) -> np.ndarray:
    return stamps.as_unit(step).asi8


def _shown(cells: Any) -> str:
    shown = ", ".join(map(str, list(cells)[:3]))
    return shown + (", ..." if len(cells) > 3 else "")


def _common_step(between: np.ndarray, scale: int, tolerance: float) -> float | None:
    """Return the longest step that all durations are whole numbers of, on a grid of 1 / scale."""
    counts = between * scale
    whole = np.rint(counts)
    if whole.min() < 1 or whole.max() > 2**53 or np.abs(counts - whole).max() > tolerance:
        return None
    return float(np.gcd.reduce(whole.astype(np.int64)) / scale)
