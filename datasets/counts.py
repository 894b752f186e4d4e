"""Integer times: their constant step, and integers that are in fact dates.

Integers count steps: 0, 1, 2, ..., the years of a census (1990, 1995, ...), or seconds since 1970.
Their step is continued. A frequency of digits, such as ``freq="5"``, states it. Integers such as
202411, 202412, 202501 are dates: a constant step would leave the calendar, so they are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsllm.errors import DataError


@dataclass(frozen=True)
class _Form:
    """A way to write dates as integers: the year, then its parts."""

    unit: str  # of the steps of such dates
    pattern: str
    years: tuple[int, int]  # the first and the last that are taken for years
    remedy: str
    #: Whether all such integers are dates. Others are dates only if the dates are consecutive where
    #: the integers jump, or if the first one begins a year or a month.
    sure: bool = False

    @property
    def digits(self) -> int:
        """Return the number of digits of such integers."""
        return len(self.pattern)

    @property
    def per_year(self) -> int:
        """Return what one year adds to the integer: 100 for months written YYYYMM."""
        return 10 ** (self.digits - self.pattern.count("Y"))


def _read_by(format: str) -> str:
    """Return the remedy for dates that a format reads."""
    return (
        f"read them with format={format!r} (--time-format on the command line), or make them an "
        f"index with pd.to_datetime(times, format={format!r})"
    )


def _mondays_by(format: str) -> str:
    """Return the remedy for weeks, which have no date of their own."""
    return (
        "give each week the date of its Monday, for example with "
        f"pd.to_datetime(times.astype(str) + '1', format={format!r})"
    )


_QUARTERS = "make them pd.PeriodIndex.from_fields(year=times // 10, quarter=times % 10)"
_FOUR, _NEAR, _TWO = (1800, 2199), (1950, 2049), (0, 99)
_FORMS = (
    _Form("seconds", "YYYYMMDDHHMMSS", _FOUR, _read_by("%Y%m%d%H%M%S"), True),
    _Form("minutes", "YYYYMMDDHHMM", _FOUR, _read_by("%Y%m%d%H%M"), True),
    _Form("hours", "YYYYMMDDHH", _FOUR, _read_by("%Y%m%d%H"), True),
    _Form("days", "YYYYMMDD", _FOUR, _read_by("%Y%m%d"), True),
    _Form("days of years", "YYYYDDD", _NEAR, _read_by("%Y%j"), True),
    _Form("months", "YYYYMM", _FOUR, _read_by("%Y%m"), True),
    _Form("weeks", "YYYYWW", (1900, 2099), _mondays_by("%G%V%u"), True),
    _Form("days", "YYMMDD", _TWO, _read_by("%y%m%d")),
    _Form("quarters", "YYYYQ", _FOUR, _QUARTERS),
    _Form("days of years", "YYDDD", _TWO, _read_by("%y%j")),
    _Form("months", "YYMM", _TWO, _read_by("%y%m")),
    _Form("weeks", "YYWW", _TWO, _mondays_by("%y%W%w")),
)


def count_step(freq: object) -> int | None:
    """Return the step of integer times that a frequency states; None if it states none.

    Examples
    --------
    >>> count_step("5"), count_step("D"), count_step(None)
    (5, None, None)
    """
    if isinstance(freq, int) and not isinstance(freq, bool):
        freq = str(freq)
    if isinstance(freq, str) and freq.isascii() and freq.isdigit() and int(freq) > 0:
        return int(freq)
    return None


def step_of(times: pd.Index) -> int | None:
    """Return the step of increasing integer times; None for a single one, which shows none.

    Examples
    --------
    >>> step_of(pd.Index([1990, 1995])), step_of(pd.RangeIndex(0, 5, 5)), step_of(pd.Index([3]))
    (5, 5, None)
    """
    if isinstance(times, pd.RangeIndex):
        return times.step
    if len(times) < 2 or not pd.api.types.is_integer_dtype(times.dtype):
        return None
    return int(times[-1]) - int(times[-2])


def as_counts(times: pd.Index, freq: str | None = None) -> pd.RangeIndex:
    """Return regular integer times as a range, which keeps its step when it is cut.

    Examples
    --------
    >>> as_counts(pd.Index([1990, 1995, 2000]))[-1:]
    RangeIndex(start=2000, stop=2005, step=5)
    """
    if isinstance(times, pd.RangeIndex) and len(times) > 1:
        return times
    step = count_step(freq) or step_of(times) or 1
    first = int(times[0])
    return pd.RangeIndex(first, first + step * len(times), step, name=times.name)


def check_no_dates(times: pd.Index, name: str, row: Callable[[int], str]) -> None:
    """Check that increasing integers are no dates that a constant step would continue wrongly.

    Raises
    ------
    DataError
        If they are. The message says how they read, and how to read them as dates.

    Examples
    --------
    >>> check_no_dates(pd.Index([202411, 202412, 202501]), "series 'a'", str)
    Traceback (most recent call last):
        ...
    tsllm.errors.DataError: series 'a' has integer times that read as months written YYYYMM ...
    """
    form = _form_of(times)
    if form is None:
        return
    last, step = len(times) - 1, int(np.diff(times.to_numpy(np.int64)).min())
    remedy = form.remedy
    if len(str(times[0])) < form.digits:  # strptime would not see the zeros in front
        remedy = "write them with years of four digits"
    raise DataError(
        f"{name} has integer times that read as {form.unit} written {form.pattern} "
        f"({row(0)}: {times[0]}, {row(last)}: {times[last]}), which a constant step does not "
        f"continue; {remedy}; if they count steps, pass freq='{step}' (--freq)"
    )


def _form_of(times: pd.Index) -> _Form | None:
    """Find the form in which integers are dates; None if they are none."""
    if len(times) < 2 or times[0] < 1:
        return None
    low, high = len(str(times[0])), len(str(times[-1]))
    possible = [
        form
        for form in _FORMS
        # integers lose the zeros in front of a year of two digits
        if low == high == form.digits or (form.years == _TWO and 3 <= high <= form.digits)
    ]
    if not possible:
        return None
    numbers = times.to_numpy(np.int64)
    found = [form for form in possible if _reads_as(form, numbers)]
    return next((form for form in found if form.unit == "months"), found[0] if found else None)


def _reads_as(form: _Form, numbers: np.ndarray) -> bool:
    """Check whether integers are dates of a form that their step does not continue."""
    years, rest = np.divmod(numbers, form.per_year)
    if years[0] < form.years[0] or years[-1] > form.years[1] or not rest.min():
        return False
    steps = np.diff(numbers)
    constant = bool((steps == steps[0]).all())
    if constant and steps[0] % form.per_year == 0:
        return False  # whole years: the step is right
    places = _places(form, years, rest)
    if places is None:
        return False
    if form.sure:
        return True
    gaps = np.diff(places)
    if not constant:
        # Dates go on where integers jump, and few are missing.
        regular = bool((gaps > 0).all() and (gaps != steps).any())
        return regular and bool(places[-1] - places[0] < 2 * len(places) * gaps.min())
    plain_years = form.digits == 4 and numbers[0] >= 1500 and numbers[-1] <= 2100
    begins = (
        form.unit != "days of years" and numbers[0] * 10 >= 10**form.digits and rest[0] % 100 == 1
    )
    return bool(steps[0] == 1 and len(numbers) >= 4 and begins and not plain_years)


def _places(form: _Form, years: np.ndarray, rest: np.ndarray) -> np.ndarray | None:
    """Return dates as numbers of steps on the calendar, (times,); None if one is no date."""
    if form.years == _TWO:
        years = np.where(years < 69, 2000, 1900) + years
    if form.unit == "months":
        return None if rest.max() > 12 else 12 * years + rest
    if form.unit == "quarters":
        return None if rest.max() > 4 else 4 * years + rest
    first = (years - 1970).astype("datetime64[Y]").astype("datetime64[D]")  # of January
    if form.unit == "weeks":
        if rest.max() > 53:
            return None
        thursday = first + (3 - (first.astype(np.int64) + 3)) % 7  # of the first ISO week
        return (thursday.astype(np.int64) + 3) // 7 + rest
    if form.unit == "days of years":
        length = ((first.astype("datetime64[Y]") + 1).astype("datetime64[D]") - first).astype(int)
        return None if (rest > length).any() else first.astype(np.int64) + rest
    clock = form.per_year // 10**4  # what follows the day
    date, time = np.divmod(rest, clock)
    months, days = np.divmod(date, 100)
    if months.min() < 1 or months.max() > 12 or days.min() < 1:
        return None
    month = first.astype("datetime64[M]") + (months - 1)
    length = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(int)
    if (days > length).any():
        return None
    place, unit = month.astype("datetime64[D]").astype(np.int64) + days - 1, clock
    for most in (24, 60, 60):
        if unit == 1:
            break
        unit //= 100
        part, time = np.divmod(time, unit)
        if part.max() >= most:
            return None
        place = place * most + part
    return place
