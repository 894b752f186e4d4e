"""Forecasting horizons of every kind, as steps after the end of each series.

A horizon is a number of steps, durations, date offsets, dates, periods, or dates as ISO text. The
calendar is pandas' own, at the frequency of the series: a forecast carries exactly the stamps that
were asked for, and a stamp where the series has no step is refused.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from tsllm.arguments import shown
from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.datasets.frequency import (
    count_steps,
    freq_name,
    stamps_around,
    stamps_until,
    without_frequency,
)
from tsllm.errors import DataError, DataTypeError, InSampleError
from tsllm.forecasters.frames import own_frequency
from tsllm.forecasters.parameters import check_horizon

_STAMPS = (pd.Timestamp, datetime.date, np.datetime64)
_DURATIONS = (pd.Timedelta, datetime.timedelta, np.timedelta64)
_KINDS = "pass steps such as [1, 2, 3], durations, dates, periods, or dates as ISO text"


def read_horizon(fh: object, contexts: Sequence[Context]) -> ForecastingHorizon:
    """Read a horizon of any kind and check that every series has its steps.

    Parameters
    ----------
    fh : int, or sequence or index of int, durations, date offsets, dates, periods or text
        One value or several, or sktime's ``ForecastingHorizon``, which stays unchanged. One
        positive integer n stands for the steps 1 to n.
    contexts : sequence of Context
        The ends of the series to forecast; their stamps have a frequency.

    Returns
    -------
    ForecastingHorizon
        Sorted, in steps, durations or stamps. Date offsets are converted to steps, and text to
        stamps of the kind of the series' index.

    Raises
    ------
    InSampleError
        If a step lies at or before the end of a series.
    DataError
        If a value is of another kind, or a series has no step there.

    Examples
    --------
    >>> days = pd.date_range("2024-01-05", periods=5, freq="B")
    >>> read_horizon("2024-01-15", [Context(np.zeros(5), times=days)]).to_pandas()
    DatetimeIndex(['2024-01-15'], dtype='datetime64[us]', freq=None)
    """
    horizon = _read(fh, contexts)
    steps_after(horizon, contexts)
    return horizon


def steps_after(fh: ForecastingHorizon, contexts: Sequence[Context]) -> list[np.ndarray]:
    """Convert a horizon to the increasing steps (steps,) after the end of each series.

    One is the step after the last stamp. Errors are those of `read_horizon`.
    """
    known: dict[tuple[object, object], np.ndarray] = {}
    steps = []
    for context in contexts:
        # most series of a panel end together
        end = context.times[-1], own_frequency(context.times)
        if end not in known:
            known[end] = _steps(fh, context)
            check_horizon(known[end].max())
        steps.append(known[end])
    return steps


# ---------------------------------------------------------------------- kinds of values


def _read(fh: Any, contexts: Sequence[Context]) -> ForecastingHorizon:
    """Convert a horizon of any kind to sktime's, sorted and without repeated values."""
    if isinstance(fh, ForecastingHorizon):
        return _make(fh.to_pandas(), fh.is_relative, contexts)
    if isinstance(fh, bool | np.bool_):
        raise DataTypeError(f"fh={fh!r} is no horizon: {_KINDS}")
    if isinstance(fh, int | np.integer):
        steps = range(1, check_horizon(fh) + 1) if fh > 0 else [int(fh)]
        return _make(pd.Index(steps), True, contexts)
    values = fh if isinstance(fh, pd.Index) else pd.Index(_listed(fh))
    if not len(values):
        raise DataError(f"fh is empty: {_KINDS}")
    if pd.api.types.is_integer_dtype(values.dtype):
        return _make(values, True, contexts)
    if isinstance(values, pd.DatetimeIndex | pd.PeriodIndex):
        return _make(values, False, contexts)
    if isinstance(values, pd.TimedeltaIndex):
        return _make(values, True, contexts)
    cells = values.tolist()
    if all(isinstance(cell, pd.offsets.BaseOffset) for cell in cells):
        return _make(_steps_of_offsets(cells, contexts), True, contexts)
    if all(isinstance(cell, str) for cell in cells):
        return _make(_stamps_of_text(cells, contexts[0]), False, contexts)
    kinds = sorted({type(cell).__name__ for cell in cells})
    raise DataTypeError(f"fh holds {shown(cells[0])} (type {' and '.join(kinds)}): {_KINDS}")


def _listed(fh: Any) -> Any:
    """Return the values of a horizon that is no index; one value is a list of one."""
    single = (str, pd.Period, pd.offsets.BaseOffset, *_STAMPS, *_DURATIONS)
    if isinstance(fh, Mapping) or getattr(fh, "ndim", 1) > 1:
        raise DataTypeError(
            f"fh is of type {type(fh).__name__}, which is no list of steps: {_KINDS}"
        )
    if isinstance(fh, single) or not isinstance(fh, Iterable):
        fh = [fh]
    if isinstance(fh, np.ndarray | pd.Series | range):
        return fh
    return [pd.Timestamp(cell) if isinstance(cell, datetime.date) else cell for cell in fh]


def _make(values: pd.Index, relative: bool, contexts: Sequence[Context]) -> ForecastingHorizon:
    """Make sktime's horizon; it sorts the values."""
    if not len(values):
        raise DataError(f"fh is empty: {_KINDS}")
    check_horizon(len(values))
    if values.hasnans:
        raise DataError("fh holds a missing value: leave it out")
    if not values.is_unique:
        raise DataError(f"fh holds {values[values.duplicated()][0]} twice: keep one of them")
    freq = None
    if not isinstance(values, pd.PeriodIndex):
        # The frequency of the values is no concern: every second day is a horizon of days.
        values = pd.Index(values.to_numpy() if isinstance(values, pd.RangeIndex) else values)
        if isinstance(values, pd.DatetimeIndex):
            values = without_frequency(values)
        if isinstance(values, pd.TimedeltaIndex):
            values = pd.TimedeltaIndex(values.to_numpy())
        freq = getattr(contexts[0].times, "freq", None)
    return ForecastingHorizon(values, is_relative=relative, freq=freq)


def _steps_of_offsets(offsets: list[Any], contexts: Sequence[Context]) -> pd.Index:
    """Convert date offsets to steps, which must be the same for every series."""
    found = None
    for context in contexts:
        last, name = context.times[-1], series_name(context.series_id)
        if isinstance(context.times, pd.DatetimeIndex):
            stamps: pd.Index = pd.DatetimeIndex([_moved(last, by, name) for by in offsets])
        elif isinstance(context.times, pd.PeriodIndex):
            stamps = pd.PeriodIndex([_moved_period(last, by, name) for by in offsets])
        else:
            _refuse_dates("date offsets", name)
        steps = _steps_to(stamps, context)
        if found is not None and not np.array_equal(steps, found[0]):
            raise DataError(
                f"the date offsets of fh are {found[0].tolist()} steps for {found[1]} and "
                f"{steps.tolist()} for {name}: pass steps"
            )
        found = steps, name
    assert found is not None  # there is a series
    return pd.Index(found[0])


def _stamps_of_text(texts: list[str], context: Context) -> pd.Index:
    """Read ISO texts as stamps of the kind of a series' index."""
    times, name = context.times, series_name(context.series_id)
    if isinstance(times, pd.PeriodIndex):
        return pd.PeriodIndex([_period_of_text(text, times, name) for text in texts])
    if not isinstance(times, pd.DatetimeIndex):
        _refuse_dates("text", name)
    return pd.DatetimeIndex([_date_of_text(text, times.tz) for text in texts])


def _date_of_text(text: str, tz: datetime.tzinfo | None) -> pd.Timestamp:
    """Read an ISO date; without a zone it is local time in that of the series."""
    try:
        stamp = pd.to_datetime(text.strip(), format="ISO8601")
        if tz is not None:
            stamp = stamp.tz_localize(tz) if stamp.tz is None else stamp.tz_convert(tz)
    except (ValueError, TypeError):
        zone = (
            "" if tz is None else f", with its offset from UTC where the clock of {tz} repeats it"
        )
        meant = f"write {text.strip()} without quotation marks for a number of steps, or a date as"
        remedy = meant if text.strip().isdecimal() else "write it as"
        raise DataError(
            f"fh holds {text!r}, which is no date: {remedy} 2024-01-31 or 2024-01-31 13:00{zone}"
        ) from None
    return stamp


def _period_of_text(text: str, times: pd.PeriodIndex, name: str) -> pd.Period:
    """Read the name of a period, of another one of the same span, or a date that stands for it."""
    try:
        period = pd.Period(text, freq=times.freqstr)
        if str(period) == text:
            return period
        short = pd.Period(text)
    except ValueError:
        short = None
    if short is not None and short.freqstr[0] in "MQY":
        return _same_span(pd.PeriodIndex([short]), times, name)[0]
    stamp = _date_of_text(text, None)
    return _periods_of_dates(pd.DatetimeIndex([stamp]), times, name)[0]


# ---------------------------------------------------------------------- steps of one series


def _steps(fh: ForecastingHorizon, context: Context) -> np.ndarray:
    """Convert a horizon to the steps after one series."""
    values, name = fh.to_pandas(), series_name(context.series_id)
    if isinstance(values, pd.TimedeltaIndex):
        values = _after_durations(values, context, name)
    elif fh.is_relative:
        steps = values.to_numpy(np.int64)
        if steps.min() < 1:
            _refuse_past(values, context)
        return steps
    return _steps_to(values, context)


def _steps_to(stamps: pd.Index, context: Context) -> np.ndarray:
    """Count the steps from the end of a series to stamps of any kind; they must be after it."""
    times, name = context.times, series_name(context.series_id)
    if isinstance(times, pd.DatetimeIndex):
        stamps = _as_dates(stamps, context, name)
    elif isinstance(times, pd.PeriodIndex):
        stamps = _as_periods(stamps, times, name)
    elif not pd.api.types.is_integer_dtype(stamps.dtype):
        _refuse_dates("dates" if isinstance(stamps, pd.DatetimeIndex) else "periods", name)
    if (stamps <= times[-1]).any():
        _refuse_past(stamps, context)
    freq = own_frequency(times)
    steps = count_steps(times[-1], freq, stamps)
    off = steps < 0
    if off.any():
        stamp = stamps[int(off.argmax())]
        before, after = stamps_around(times[-1], freq, stamp)
        grid = "" if freq in (None, "1") else f" at freq={freq_name(freq)!r}"
        raise DataError(
            f"fh asks for {stamp}, where {name} has no step{grid}: its steps around it are "
            f"{before} and {after}"
        )
    if len(np.unique(steps)) < len(steps):
        raise DataError(f"fh asks twice for one step of {name}: keep one of the two")
    return steps


def _as_dates(stamps: pd.Index, context: Context, name: str) -> pd.DatetimeIndex:
    """Convert dates or periods to dates in the time zone of a series."""
    times = context.times
    assert isinstance(times, pd.DatetimeIndex)
    if isinstance(stamps, pd.PeriodIndex):
        return _dates_in_periods(stamps, context, name)
    if not isinstance(stamps, pd.DatetimeIndex):
        raise DataError(
            f"fh holds absolute integers and {name} has dates: pass dates, or steps with "
            "is_relative=True"
        )
    if (stamps.tz is None) != (times.tz is None):
        remedy = "drop it with tz_localize(None)"
        if stamps.tz is None:
            remedy = f"add it with tz_localize({str(times.tz)!r})"
        raise DataError(
            f"fh has the time zone {stamps.tz} and {name} the time zone {times.tz}: {remedy}"
        )
    return stamps if times.tz is None else stamps.tz_convert(times.tz)


def _as_periods(stamps: pd.Index, times: pd.PeriodIndex, name: str) -> pd.PeriodIndex:
    """Convert dates or periods to the periods of a series."""
    if isinstance(stamps, pd.PeriodIndex):
        return stamps if stamps.freq == times.freq else _same_span(stamps, times, name)
    if isinstance(stamps, pd.DatetimeIndex):
        return _periods_of_dates(stamps, times, name)
    raise DataError(
        f"fh holds absolute integers and {name} has periods: pass periods, or steps with "
        "is_relative=True"
    )


def _after_durations(durations: pd.TimedeltaIndex, context: Context, name: str) -> pd.Index:
    """Add durations to the end of a series.

    Steps of an hour are elapsed time. Days and longer steps are counted on the local calendar, as
    in pandas: a day after midnight is midnight, also where the clock changes.
    """
    last = context.times[-1]
    if isinstance(context.times, pd.PeriodIndex):
        try:
            return pd.PeriodIndex([last + duration for duration in durations])
        except (ValueError, TypeError):
            raise DataError(
                f"fh holds durations and {name} has periods of {context.times.freqstr!r}, which "
                "last no whole number of them: pass steps or periods"
            ) from None
    if not isinstance(context.times, pd.DatetimeIndex):
        _refuse_dates("durations", name)
    if isinstance(context.times.freq, pd.offsets.Tick):
        return last + durations
    return pd.DatetimeIndex([_moved(last, duration, name) for duration in durations])


def _moved(last: pd.Timestamp, by: Any, name: str) -> pd.Timestamp:
    """Add an offset to a stamp, or a duration on its local calendar."""
    try:
        if isinstance(by, pd.offsets.BaseOffset):
            return last + by
        return (last.tz_localize(None) + by).tz_localize(last.tz)
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"fh asks for {by} after the end of {name} ({last}), which is no stamp: {error}"
        ) from None


def _moved_period(last: pd.Period, by: Any, name: str) -> pd.Period:
    """Add an offset to a period, or to its start where pandas cannot add it to the period."""
    try:
        return last + by
    except (ValueError, TypeError):
        start = _moved(last.start_time, by, name)
        return _periods_of_dates(
            pd.DatetimeIndex([start]), pd.PeriodIndex([last], freq=last.freq), name
        )[0]


def _dates_in_periods(periods: pd.PeriodIndex, context: Context, name: str) -> pd.DatetimeIndex:
    """Return the only step of a series that lies within each period."""
    times = context.times
    assert isinstance(times, pd.DatetimeIndex) and times.freq is not None
    starts, stops = (
        edges.tz_localize(
            times.tz, ambiguous=np.ones(len(edges), bool), nonexistent="shift_forward"
        )
        for edges in (periods.start_time, (periods + 1).start_time)
    )
    if starts.min() <= times[-1]:
        _refuse_past(periods, context)
    grid = stamps_until(times[-1], times.freq, stops.max())
    first, past = grid.searchsorted(starts), grid.searchsorted(stops)
    single = past - first == 1
    if not single.all():
        bad = int((~single).argmax())
        found = "several steps" if past[bad] > first[bad] else "no step"
        raise DataError(
            f"fh asks for the period {periods[bad]}, in which {name} has {found} (freq="
            f"{freq_name(times.freq)!r}): pass dates, or steps"
        )
    return grid[first]


def _same_span(periods: pd.PeriodIndex, times: pd.PeriodIndex, name: str) -> pd.PeriodIndex:
    """Convert periods of another frequency that begin and end as those of a series."""
    own = periods.to_timestamp(how="start").to_period(times.freqstr)
    same = (own.start_time == periods.start_time) & (own.end_time == periods.end_time)
    if not same.all():
        raise DataError(
            f"fh asks for the period {periods[int((~same).argmax())]}, and {name} has periods of "
            f"{times.freqstr!r}: pass periods of that frequency"
        )
    return own


def _periods_of_dates(stamps: pd.DatetimeIndex, times: pd.PeriodIndex, name: str) -> pd.PeriodIndex:
    """Convert dates to the periods that they begin, or end if they are the last day."""
    if stamps.tz is not None:
        raise DataError(
            f"fh has the time zone {stamps.tz} and {name} has periods, which have none: drop it "
            "with tz_localize(None)"
        )
    own = stamps.to_period(times.freqstr)
    same = (own.start_time == stamps) | (own.end_time.normalize() == stamps)
    if not same.all():
        bad = int((~same).argmax())
        raise DataError(
            f"fh asks for {stamps[bad]}, which lies within the period {own[bad]} of {name}: pass "
            "periods, or the dates at which they begin"
        )
    return own


# ---------------------------------------------------------------------- errors


def _refuse_past(asked: pd.Index, context: Context) -> NoReturn:
    """Raise the error about a step at or before the end of a series."""
    first = ", ".join(str(value) for value in asked[:3])
    raise InSampleError(
        f"fh=[{first}{', ...' * (len(asked) > 3)}] asks for an in-sample forecast of "
        f"{series_name(context.series_id)}: every step must lie after the last observation "
        f"({context.times[-1]}); the next step is 1"
    )


def _refuse_dates(what: str, name: str) -> NoReturn:
    """Raise the error about a horizon of dates for a series without dates."""
    raise DataError(
        f"fh holds {what} and {name} counts its steps with integers: pass steps such as [1, 2, 3]"
    )


@contextmanager
def horizon_kept(forecaster: Any) -> Iterator[None]:
    """Restore the horizon of a forecaster if a call is refused: sktime sets it before checks."""
    horizon = getattr(forecaster, "_fh", None)
    try:
        yield
    except Exception:
        forecaster._fh = horizon
        raise
