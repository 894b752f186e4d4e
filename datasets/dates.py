"""Dates written as text or numbers: read year first or by a format, in one time zone."""

import re
import zoneinfo
from collections.abc import Callable
from difflib import get_close_matches

import pandas as pd

from tsllm.errors import DataError

_READ = "dates are read year first, such as 2024-01-31, 2024-01-31 13:00 or 2024-01-31T13:00Z"
# Z or an offset after a time of day; the last "-01" of a date is no offset.
_OFFSET = r"[T ]\d{1,2}[\d:.]*\s*(Z|[+-]\d\d:?(?:\d\d)?)$"
_ONE_ZONE = (
    "pass the time zone of the series with tz=, such as tz='Europe/Berlin' (--tz on the command "
    "line), to bring them into it"
)
# Other ways to write a date, and the formats that read them.
_KNOWN_FORMATS = {
    r"\d{4}-\d\d-\d\d \d{1,2}:\d\d:\d\d [AaPp][Mm]": "%Y-%m-%d %I:%M:%S %p",
    r"\d{4}-\d\d-\d\d \d{1,2}:\d\d [AaPp][Mm]": "%Y-%m-%d %I:%M %p",
    r"\d{1,2}\.\d{1,2}\.\d{4}": "%d.%m.%Y",
    r"\d{1,2}\.\d{1,2}\.\d{4} \d\d:\d\d": "%d.%m.%Y %H:%M",
    r"\d{1,2}\.\d{1,2}\.\d{4} \d\d:\d\d:\d\d": "%d.%m.%Y %H:%M:%S",
    r"\d{1,2}/\d{1,2}/\d{4}": "%d/%m/%Y' or '%m/%d/%Y",
    r"\d{1,2}-\d{1,2}-\d{4}": "%d-%m-%Y' or '%m-%d-%Y",
    r"\d{1,2}/\d{1,2}/\d{4} \d\d:\d\d": "%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M",
    r"\d{1,2}/\d{1,2}/\d{4} \d\d:\d\d:\d\d": "%d/%m/%Y %H:%M:%S' or '%m/%d/%Y %H:%M:%S",
    r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AaPp][Mm]": "%m/%d/%Y %I:%M:%S %p",
}
# Spans of time, which are no dates; the date that they begin with is one.
_SPANS = {
    r"\d{4}-?W\d\d?": "a week",
    r"\d{4}[- ]?[Qq][1-4]": "a quarter",
    r"[Qq][1-4][- /]?\d{4}": "a quarter",
}


def check_time_zone(tz: object) -> None:
    """Check that a time zone is known; None is no time zone.

    Raises
    ------
    DataError
        If it is no name of a time zone. The message suggests the closest name.
    """
    if tz is None:
        return
    names = zoneinfo.available_timezones()
    if isinstance(tz, str) and tz in names:
        return
    near = get_close_matches(str(tz), names, n=1)
    remedy = (
        f"did you mean {near[0]!r}?" if near else "pass a name such as 'Europe/Berlin' or 'UTC'"
    )
    raise DataError(f"tz={tz!r} is not the name of a time zone; {remedy}")


def check_format(format: object) -> None:
    """Check that a format describes a date; None is no format.

    Raises
    ------
    DataError
        If it has no year, or if its hours ignore AM and PM.
    """
    if format is None:
        return
    if not isinstance(format, str) or not re.search("%[YyGcx]", format):
        raise DataError(
            f"format={format!r} has no year; pass the codes of strptime, such as '%d.%m.%Y' or "
            "'%Y%m' (--time-format on the command line)"
        )
    if "%p" in format and "%I" not in format:
        raise DataError(
            f"format={format!r} has AM or PM (%p) without the hours that they belong to; write the "
            "hours as %I"
        )


def text_dates(cells: pd.Series) -> pd.DatetimeIndex:
    """Read ISO dates; return NaT for other text, such as dates that start with the day."""
    return _iso_dates(_plain(cells))


def read_dates(
    column: pd.Series,
    place: Callable[[int], str],
    *,
    tz: str | None = None,
    format: str | None = None,
) -> pd.DatetimeIndex:
    """Read text as dates, all with one time zone or all without; see `read_stamps`.

    ``format`` is that of `read_long`; None reads dates year first.
    """
    cells = column.str.strip()
    if format is not None:
        return _by_format(cells, place, tz, format)
    plain = _plain(cells)
    zones = plain.str.extract(_OFFSET, expand=False)
    zones = zones.fillna("").str.replace(":", "").replace({"Z": "+0000"}).str.ljust(5, "0")
    zones = zones.replace({"00000": "no time zone"})
    check_one_zone(zones.tolist(), cells.tolist(), place, tz)
    # dates with different offsets are read in UTC first
    stamps = _iso_dates(plain, utc=tz is not None and _is_zone(zones.iloc[0]))
    unread = stamps.isna()
    if unread.any():
        bad = int(unread.argmax())
        raise DataError(_no_date(place(bad), cells.iloc[bad]))
    return to_zone(stamps, tz, place)


def to_zone(
    times: pd.DatetimeIndex, tz: str | None, place: Callable[[int], str]
) -> pd.DatetimeIndex:
    """Convert stamps to a time zone; those without a zone are its local times.

    ``place`` names the row at a position in error messages: for a local time that a clock change
    skips or repeats. Without ``tz`` the stamps stay as they are.
    """
    if tz is None:
        return times
    if times.tz is not None:
        return times.tz_convert(tz)
    local = times.tz_localize(tz, ambiguous="NaT", nonexistent="NaT")
    lost = local.isna()
    if lost.any():
        bad = int(lost.argmax())
        raise DataError(
            f"{place(bad)} has the stamp {times[bad]}, a local time that a clock change of {tz} "
            "skips or repeats; write the stamps with their offset, such as +02:00, or in UTC"
        )
    return local


def check_one_zone(
    zones: list[str], cells: list, place: Callable[[int], str], tz: str | None = None
) -> None:
    """Check that all stamps have the time zone of the first.

    With ``tz``, zones may differ, but either all stamps have one or none has.
    """
    for position, zone in enumerate(zones):
        if zone == zones[0] or (tz is not None and _is_zone(zone) and _is_zone(zones[0])):
            continue
        remedy = _ONE_ZONE
        if not (_is_zone(zone) and _is_zone(zones[0])):
            remedy = "write every stamp with its offset, such as +02:00 or Z, or none of them"
        raise DataError(
            f"{place(position)} has the stamp {str(cells[position])!r} in another time zone "
            f"than the first, {str(cells[0])!r}; {remedy}"
        )


def _is_zone(name: str) -> bool:
    return name not in ("no time zone", "None")


def _by_format(
    cells: pd.Series, place: Callable[[int], str], tz: str | None, format: str
) -> pd.DatetimeIndex:
    """Read dates by the codes of strptime."""
    aware = "%z" in format and tz is not None
    try:
        stamps = pd.DatetimeIndex(
            pd.to_datetime(cells, format=format, errors="coerce", utc=aware), name=None
        )
    except (ValueError, TypeError) as error:
        if "timezone" in str(error) or "time zone" in str(error):
            raise DataError(
                f"{place(0)} and later rows have different offsets; {_ONE_ZONE}"
            ) from None
        raise DataError(
            f"format={format!r} cannot be used ({' '.join(str(error).split())}); pass the codes of "
            "strptime, such as '%d.%m.%Y' or '%Y%m'"
        ) from None
    unread = stamps.isna()
    if unread.any():
        bad = int(unread.argmax())
        raise DataError(
            f"{place(bad)} has the stamp {cells.iloc[bad]!r}, which is not written as "
            f"format={format!r} says; give the format of all stamps, or repair the row"
        )
    return to_zone(stamps, tz, place)


def _plain(cells: pd.Series) -> pd.Series:
    """Replace UTC or GMT after a time, which BigQuery writes, with Z."""
    return cells.str.replace(r"(:\d\d(?:\.\d+)?)\s+(?:UTC|GMT)\s*$", r"\1Z", regex=True)


def _iso_dates(plain: pd.Series, *, utc: bool = False) -> pd.DatetimeIndex:
    """Read the cells of `_plain` as ISO dates, or return NaT; ``utc`` converts offsets to UTC."""
    dated = plain.where(plain.str.match(r"\s*\d{4}(?!\d{1,3}$)"))
    return pd.DatetimeIndex(
        pd.to_datetime(dated, errors="coerce", format="ISO8601", utc=utc), name=None
    )


def _no_date(place: str, cell: str) -> str:
    """Describe text that is no date, with the remedy."""
    text = " ".join(cell.split())
    for pattern, span in _SPANS.items():
        if re.fullmatch(pattern, text):
            return (
                f"{place} has the stamp {cell!r}, {span} and no date; write the date that it "
                "begins with, such as 2024-01-01"
            )
    known = [form for pattern, form in _KNOWN_FORMATS.items() if re.fullmatch(pattern, text)]
    remedy = f"format='{known[0]}'" if known else "format=, such as format='%d.%m.%Y'"
    return (
        f"{place} has the stamp {cell!r}, no date; {_READ}, and others with {remedy} "
        "(--time-format on the command line)"
    )
