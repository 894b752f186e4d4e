"""The stamps of streams as whole numbers: read, checked against the frequency, and continued."""

import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.datasets.checks import series_name
from tsllm.datasets.dates import text_dates
from tsllm.datasets.frequency import count_steps, frequency_name, future_times, set_frequency
from tsllm.errors import DataError, DataTypeError

#: Most steps that a stream fills in before an observation.
MOST_MISSING = 10_000
# The usual way to write a date, which is read at once.
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
# Further stamps that an index is built of, so that the next ones are slices of it.
_AHEAD = 256
# Frequencies that a stream's stamps have been continued at, kept so as not to ask pandas again.
_MOST_KNOWN = 1024


class StreamClock:
    """The stamps of series of one frequency, as 64-bit numbers.

    Dates are numbers of the index's unit since 1970, periods their ordinals, integers themselves.

    Parameters
    ----------
    times : Index
        Stamps of one of the series, with their frequency.
    freq : str
        The frequency of the series; the step of integers as text.

    Examples
    --------
    >>> clock = StreamClock(pd.date_range("2024-01-01", periods=3, freq="h"), "h")
    >>> last = clock.read(["2024-01-01 02:00"], 1)
    >>> clock.until(last[0] + clock.step, 2)[-1]
    Timestamp('2024-01-01 03:00:00')
    """

    def __init__(self, times: pd.Index, freq: str) -> None:
        self._template: Any = times[:0]  # what it may be called with depends on its kind
        self._freq = freq
        #: The difference of neighbouring stamps; None where it varies, as for months.
        self.step = _fixed_step(times, freq)
        self._next: dict[int, int] = {}
        self._indexes: dict[tuple[int, int], pd.Index] = {}
        self._long: tuple[int, pd.Index] | None = None  # a long index, and its first number

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_next": {}, "_indexes": {}, "_long": None}

    def to_state(self) -> dict[str, Any]:
        """Return the constructor's arguments, for a file."""
        return {"times": self._template, "freq": self._freq}

    # ------------------------------------------------------------------ numbers and stamps

    def numbers(self, times: pd.Index) -> np.ndarray:
        """Return stamps of this kind as numbers."""
        if isinstance(self._template, pd.DatetimeIndex):
            assert isinstance(times, pd.DatetimeIndex)
            return times.as_unit(self._template.unit).asi8
        if isinstance(self._template, pd.PeriodIndex):
            assert isinstance(times, pd.PeriodIndex)
            return times.asi8
        return times.to_numpy(np.int64)

    def read(self, time: Any, count: int) -> np.ndarray:
        """Read a stamp of ``count`` series, or one stamp for each, as numbers (count,)."""
        if isinstance(time, np.ndarray) and time.ndim == 0:
            time = time[()]
        if isinstance(time, str) or not hasattr(time, "__len__"):
            return np.full(count, self._read_one(time), dtype=np.int64)
        if len(time) != count:
            raise DataError(
                f"time holds {len(time)} stamps for {count} series: pass one stamp for all, or one "
                "for each"
            )
        template = self._template
        if isinstance(time, pd.DatetimeIndex) and isinstance(template, pd.DatetimeIndex):
            alike = str(time.tz) == str(template.tz) and time.unit == template.unit
            if alike and not time.hasnans:
                return np.array(time.asi8)
        return np.array([self._read_one(one) for one in time], dtype=np.int64)

    def stamp(self, number: int) -> Any:
        """Return the stamp of a number."""
        return self._index(np.array([number]))[0]

    def until(self, number: int, steps: int) -> pd.Index:
        """Return the last ``steps`` stamps up to a number, with their frequency."""
        key = int(number), steps
        found = self._indexes.get(key)
        if found is None:
            if len(self._indexes) >= 4:
                self._indexes.clear()
            found = self._indexes[key] = self._until(*key)
        return found

    def ahead(self, number: int, steps: int) -> pd.Index:
        """Return the next ``steps`` stamps after a number."""
        return future_times(self._own(number), self._freq, steps)

    # ------------------------------------------------------------------ checks

    def missing_before(
        self, series: Sequence[Any], last: np.ndarray, now: np.ndarray, *, fill: bool
    ) -> np.ndarray | None:
        """Check that stamps continue series; count the steps that are missing before each.

        Parameters
        ----------
        series : sequence
            The names of the series, for messages.
        last, now : int array (series,)
            The last stamp of each series, and the one to observe.
        fill : bool
            Whether steps may be missing.

        Returns
        -------
        int array (series,) or None
            None where nothing is missing.
        """
        wanted = self.after(last)
        if np.array_equal(wanted, now):
            return None
        missing = np.zeros(len(now), dtype=np.int64)
        for place in np.flatnonzero(wanted != now).tolist():
            name = series_name(series[place])
            missing[place] = self._count_missing(name, int(last[place]), int(now[place]), fill)
        return missing

    def _count_missing(self, name: str, last: int, now: int, fill: bool) -> int:
        """Count the steps between the last stamp of a series and a later one."""
        if now == last:
            raise DataError(
                f"{name} has a value at {self.stamp(now)} already: a stream reads each stamp once; "
                "leave it out, or correct past values with update of the forecaster"
            )
        if now < last:
            raise DataError(
                f"{name} is at {self.stamp(last)}, and {self.stamp(now)} lies before it: a stream "
                "reads its stamps in order; leave it out, or correct past values with update of "
                "the forecaster"
            )
        expected = int(self.after(np.array([last]))[0])
        own = None if self.step is not None and (now - last) % self.step else self._own(last)
        steps = -1 if own is None else self._steps_to(own, now)
        if steps < 1:
            raise DataError(
                f"{name} has the stamp {self.stamp(now)}, which is no step of the series (the next "
                f"is {self.stamp(expected)}, its frequency is {frequency_name(self._freq)}): "
                "resample it first"
            )
        if not fill:
            raise DataError(
                f"{name} has a gap: the next stamp is {self.stamp(expected)}, found "
                f"{self.stamp(now)}; observe the steps between as NaN, or open the stream with "
                "fill='nan'"
            )
        if steps - 1 > MOST_MISSING:
            raise DataError(
                f"{name} has a gap of {steps - 1:,} steps before {self.stamp(now)}, and a stream "
                f"fills {MOST_MISSING:,} at most: open a new stream with its recent history"
            )
        return steps - 1

    def _steps_to(self, last: Any, now: int) -> int:
        """Count the steps from a stamp to a later one; -1 where that is no step."""
        return int(count_steps(last, self._freq, self._index(np.array([now])))[0])

    # ------------------------------------------------------------------ parts

    def after(self, last: np.ndarray) -> np.ndarray:
        """Return the numbers of the next steps."""
        if self.step is not None:
            return last + self.step
        known = self._next
        if len(known) > _MOST_KNOWN:
            known.clear()
        for number in set(last.tolist()) - known.keys():
            known[number] = int(self.numbers(self.ahead(number, 1))[0])
        return np.array([known[number] for number in last.tolist()], dtype=np.int64)

    def _own(self, number: int) -> Any:
        """Return a stamp as the functions of frequencies take it."""
        return self.stamp(number) if self._is_dated else int(number)

    @property
    def _is_dated(self) -> bool:
        return isinstance(self._template, pd.DatetimeIndex | pd.PeriodIndex)

    def _until(self, number: int, steps: int) -> pd.Index:
        template = self._template
        if self.step is not None and self._is_dated:
            if self._long is None or not self._reaches(number, steps):
                first = number - self.step * (steps - 1)
                self._long = first, self._dates(first, steps + _AHEAD)
            end = (number - self._long[0]) // self.step + 1
            return self._long[1][end - steps : end]
        if self.step is not None:
            first = number - self.step * (steps - 1)
            return pd.RangeIndex(first, number + self.step, self.step, name=template.name)
        last = self.stamp(number)
        dates = pd.date_range(end=last, periods=steps, freq=template.freq, unit=last.unit)
        return dates.rename(template.name)

    def _reaches(self, number: int, steps: int) -> bool:
        """Return whether the long index holds the last steps up to a number."""
        assert self._long is not None and self.step is not None  # checked by the caller
        end, rest = divmod(number - self._long[0], self.step)
        return rest == 0 and steps <= end + 1 <= len(self._long[1])

    def _dates(self, first: int, steps: int) -> pd.Index:
        """Return so many stamps from a number on, with their frequency."""
        assert self.step is not None  # checked by the caller
        index = self._index(first + self.step * np.arange(steps, dtype=np.int64))
        if isinstance(index, pd.DatetimeIndex) and self._template.freq is not None:
            return set_frequency(index, self._template.freq)
        return index

    def _index(self, numbers: np.ndarray) -> pd.Index:
        """Return numbers as an index without a frequency."""
        template = self._template
        if isinstance(template, pd.DatetimeIndex):
            dates = pd.DatetimeIndex(numbers.view(f"M8[{template.unit}]"), name=template.name)
            return (
                dates if template.tz is None else dates.tz_localize("UTC").tz_convert(template.tz)
            )
        if isinstance(template, pd.PeriodIndex):
            periods: Any = pd.PeriodIndex  # pandas' stubs lack the method
            return periods.from_ordinals(numbers, freq=template.freq, name=template.name)
        return pd.Index(numbers, name=template.name)

    def _read_one(self, time: Any) -> int:
        """Read one stamp as a number."""
        template = self._template
        if isinstance(template, pd.DatetimeIndex):
            return _read_date(time, template)
        if isinstance(template, pd.PeriodIndex):
            return _read_period(time, template)
        if isinstance(time, Integral) and not isinstance(time, bool) and abs(int(time)) < 2**62:
            return int(time)
        raise DataTypeError(
            f"time must be an integer, for the series count their steps; found {shown(time)}"
        )


def _fixed_step(times: Any, freq: str) -> int | None:
    """Return the constant difference of stamps as numbers; None where it varies."""
    offset: Any = getattr(times, "freq", None)
    if isinstance(times, pd.PeriodIndex):
        return int(offset.n)
    if not isinstance(times, pd.DatetimeIndex):
        return times.step if isinstance(times, pd.RangeIndex) else int(freq)
    if isinstance(offset, pd.offsets.Tick):
        return int(pd.Timedelta(offset).as_unit(times.unit).to_timedelta64().astype(np.int64))
    days = {pd.offsets.Day: 1, pd.offsets.Week: 7}.get(type(offset))
    # days of a time zone may have 23 or 25 hours
    if days is None or (times.tz is not None and str(times.tz) != "UTC"):
        return None
    return int(np.timedelta64(days * offset.n, "D").astype(f"m8[{times.unit}]").astype(np.int64))


def _read_date(time: Any, template: pd.DatetimeIndex) -> int:
    """Read a date as a number of the unit of an index."""
    if isinstance(time, Real) or time is None or time is pd.NaT:
        raise DataTypeError(f"time must be a date, found {shown(time)}")
    text = isinstance(time, str)
    if text:
        time = _year_first(time)
    try:
        stamp = time if type(time) is pd.Timestamp else pd.Timestamp(time)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"time must be a date, found {shown(time)}") from None
    if stamp is pd.NaT:
        raise DataError(f"time must be a date, found {shown(time)}")
    if (stamp.tz is None) != (template.tz is None):
        given, own = ("no time zone", template.tz) if stamp.tz is None else (stamp.tz, "none")
        if text:
            remedy = "write it " + ("with its offset, such as" if stamp.tz is None else "without")
            remedy += " 2024-01-31T13:00+02:00" if stamp.tz is None else " an offset"
        else:
            remedy = "make the stamps alike with tz_localize" + "(None)" * (stamp.tz is not None)
        raise DataError(f"time {stamp} has {given} and the series have {own}: {remedy}")
    try:
        exact = stamp.as_unit(template.unit, round_ok=False)
    except (ValueError, OverflowError):
        raise DataError(
            f"time {stamp} is finer than the stamps of the series, which have the unit "
            f"{template.unit!r}: round it to a step of the series"
        ) from None
    return int(exact.asm8.astype(np.int64))


def _year_first(text: str) -> Any:
    """Return a text that pandas reads as a date without guessing; read others year first."""
    if _ISO.fullmatch(text):
        return text
    stamp = text_dates(pd.Series([text]))[0]
    if stamp is pd.NaT:
        raise DataError(
            f"time must be a date, written year first as 2024-01-31, found {shown(text)}"
        )
    return stamp


def _read_period(time: Any, template: Any) -> int:
    """Read a period, or a text that names one, as its ordinal."""
    if isinstance(time, pd.Period) and time.freq == template.freq:
        return int(time.ordinal)
    if isinstance(time, str) and re.match(r"\d{4}", time):  # others may start with the day
        try:
            return int(pd.Period(time, freq=template.freq).ordinal)
        except (ValueError, TypeError):
            pass
    raise DataTypeError(f"time must be a period of {template.freqstr!r}, found {shown(time)}")
