"""Frequencies and time stamps in words, for texts that a language model reads."""

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsllm.errors import DataError

# One step of each frequency, by pandas' name without its anchor ("W-SAT" -> "W").
_UNITS = {"D": "day", "B": "business day", "C": "business day", "W": "week"}
_UNITS |= {"bh": "business hour", "cbh": "business hour"}
_UNITS |= dict.fromkeys(["MS", "ME", "BMS", "BME", "CBMS", "CBME", "WOM", "LWOM"], "month")
_UNITS |= dict.fromkeys(["SMS", "SME"], "half month")
_UNITS |= dict.fromkeys(["QS", "QE", "BQS", "BQE"], "quarter")
_UNITS |= dict.fromkeys(["HYS", "HYE", "BHYS", "BHYE"], "half year")
_UNITS |= dict.fromkeys(["YS", "YE", "BYS", "BYE"], "year")
_UNITS |= {"RE": "fiscal year", "REQ": "fiscal quarter"}

# Fixed durations, the longest first.
_TICKS = {
    "day": pd.Timedelta(days=1),
    "hour": pd.Timedelta(hours=1),
    "minute": pd.Timedelta(minutes=1),
    "second": pd.Timedelta(seconds=1),
    "millisecond": pd.Timedelta(milliseconds=1),
    "microsecond": pd.Timedelta(microseconds=1),
    "nanosecond": pd.Timedelta(1, unit="ns"),
}
#: Format of the time of day, by the unit of which steps are multiples.
_TIMES_OF_DAY = {"day": "", "hour": " %H:%M", "minute": " %H:%M"}
#: Decimal places of a second.
_DIGITS = {"second": 0, "millisecond": 3, "microsecond": 6, "nanosecond": 9}


def frequency_in_words(freq: str | pd.offsets.BaseOffset | None) -> str:
    """Write a frequency in words, as they follow "every"; "step" if it is None or has no name.

    Anchors are left out ("W-SAT" is a week). Fixed durations are written in the largest unit of
    which they are a multiple.

    Examples
    --------
    >>> [frequency_in_words(freq) for freq in ("h", "15min", "W-MON", "2QS", "B", None)]
    ['hour', '15 minutes', 'week', '2 quarters', 'business day', 'step']
    """
    if freq is None:
        return "step"
    offset = _parse(freq)
    if isinstance(offset, pd.offsets.Tick):
        step = pd.Timedelta(offset)
        unit = _unit_of(step)
        return _counted(step // _TICKS[unit], unit)
    return _counted(offset.n, _UNITS.get(_base_name(offset), "step"))


def stamps_in_words(times: pd.Index, freq: str | pd.offsets.BaseOffset | None = None) -> list[str]:
    """Write dates, periods or integer steps as text, with the time of day that the frequency needs.

    Dates are ``dd/mm/yyyy``. ``hh:mm`` follows if steps are shorter than a day, and seconds and
    their fractions if they are shorter than a minute. Stamps with a time zone are in local time; a
    time of day is followed by its offset from UTC, so that the hour that a daylight saving change
    repeats has two names. A period is named by its start. ``freq`` counts where ``times.freq`` is
    None; if both are None, dates and times are written.

    Examples
    --------
    >>> stamps_in_words(pd.date_range("2024-03-31 01:00", periods=2, freq="h", tz="Europe/Berlin"))
    ['31/03/2024 01:00 +0100', '31/03/2024 03:00 +0200']
    >>> stamps_in_words(pd.period_range("2024-03", periods=2, freq="M"))
    ['01/03/2024', '01/04/2024']
    >>> stamps_in_words(pd.RangeIndex(2))
    ['step 0', 'step 1']
    """
    if isinstance(times, pd.PeriodIndex):
        freq, times = times.freq, times.to_timestamp(how="start")
    if not isinstance(times, pd.DatetimeIndex):
        return [f"step {step}" for step in times]
    unit = _unit_of_stamps(times.freq if times.freq is not None else freq)
    if unit in _TIMES_OF_DAY:
        time_of_day = _TIMES_OF_DAY[unit]
        zone = " %z" if time_of_day and times.tz is not None else ""
        return times.strftime(f"%d/%m/%Y{time_of_day}{zone}").tolist()
    texts = times.strftime("%d/%m/%Y %H:%M:%S").tolist()
    if digits := _DIGITS[unit]:
        parts = np.asarray(times.microsecond) * 1000 + np.asarray(times.nanosecond)
        texts = [f"{text}.{part:09d}"[: len(text) + 1 + digits] for text, part in zip(texts, parts)]
    if times.tz is None:
        return texts
    return [f"{text} {zone}" for text, zone in zip(texts, times.strftime("%z"))]


def _counted(count: int, unit: str) -> str:
    """Write a count and its unit; a count of one is left out."""
    return unit if count == 1 else f"{count} {unit}s"


def _unit_of(step: pd.Timedelta) -> str:
    """Find the largest unit of which a duration is a multiple."""
    zero = pd.Timedelta(0)
    return next(unit for unit, length in _TICKS.items() if step % length == zero)


def _unit_of_stamps(freq: str | pd.offsets.BaseOffset | None) -> str:
    """Find the unit down to which stamps of a frequency differ."""
    if freq is None:
        return "minute"
    offset = _parse(freq)
    if isinstance(offset, pd.offsets.Tick):
        return _unit_of(pd.Timedelta(offset))
    return "minute" if _base_name(offset) in ("bh", "cbh") else "day"


def _base_name(offset: pd.offsets.BaseOffset) -> str:
    """Return pandas' name of an offset without count and anchor; empty if it has none."""
    try:
        return offset.rule_code.split("-")[0]
    except NotImplementedError:
        return ""


def _parse(freq: str | pd.offsets.BaseOffset) -> pd.offsets.BaseOffset:
    """Parse the name of a frequency of stamps or of periods."""
    for is_period in (False, True):
        try:
            return to_offset(freq, is_period=is_period)
        except (ValueError, TypeError):
            continue
    raise DataError(
        f"freq={freq!r} is not a frequency; pass a pandas one, for example 'h', '15min', 'D', "
        "'W-SUN', 'MS' or 'ME'"
    )
