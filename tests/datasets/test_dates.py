"""Time columns as people write them: zones, offsets, formats, and what is refused."""

import datetime
import decimal
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from data_files import complaint_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets import long_to_panel, read_long

BERLIN = "Europe/Berlin"
complaint = partial(complaint_of, read_long)


def csv_of(stamps):
    return "timestamp,y\n" + "".join(f"{stamp},{i}\n" for i, stamp in enumerate(stamps))


def times_of(source, **arguments):
    return pd.DatetimeIndex(read_long(source, **arguments)["timestamp"], name=None)


# Time zones


@settings(deadline=None, max_examples=25)
@given(
    freq=st.sampled_from(["h", "15min", "D", "W-SUN", "MS", "ME"]),
    start=st.sampled_from(["2024-03-29", "2024-10-25", "2023-12-31"]),
    zone=st.sampled_from([BERLIN, "America/New_York", "UTC", "Asia/Kolkata"]),
)
def test_what_to_csv_writes_is_read_back_with_the_zone(tmp_path_factory, freq, start, zone):
    times = pd.date_range(start, periods=100, freq=freq, tz=zone)
    frame = pd.DataFrame({"timestamp": times, "y": np.arange(100.0)})
    path = tmp_path_factory.mktemp("zones") / "data.csv"
    frame.to_csv(path, index=False)
    read = read_long(path, tz=zone)
    assert str(read["timestamp"].dt.tz) == zone
    assert list(read["timestamp"]) == list(times)
    assert long_to_panel(read).index.freqstr == times.freqstr


def test_two_offsets_need_the_zone(tmp_path):
    path = write(tmp_path, csv_of(["2024-03-30 00:00:00+01:00", "2024-04-01 00:00:00+02:00"]))
    message = complaint(path)
    assert "line 3" in message and "tz='Europe/Berlin' (--tz" in message
    times = times_of(path, tz=BERLIN, freq="2D")
    assert list(times) == [pd.Timestamp(day, tz=BERLIN) for day in ("2024-03-30", "2024-04-01")]


def test_local_times_get_the_zone(tmp_path):
    stamps = ["2024-06-01 00:00", "2024-06-01 01:00", "2024-06-01 02:00"]
    expected = list(pd.date_range("2024-06-01", periods=3, freq="h", tz=BERLIN))
    assert list(times_of(write(tmp_path, csv_of(stamps)), tz=BERLIN)) == expected
    frame = pd.DataFrame({"timestamp": pd.to_datetime(stamps), "y": [1.0, 2, 3]})
    assert list(times_of(frame, tz=BERLIN)) == expected
    assert list(times_of(frame.assign(timestamp=expected), tz="UTC")) == expected


def test_python_datetimes_of_different_offsets(tmp_path):
    cells = [datetime.datetime(2024, month, 1, tzinfo=ZoneInfo(BERLIN)) for month in (3, 4, 5)]
    cells = [cell.astimezone(datetime.timezone(cell.utcoffset())) for cell in cells]
    frame = pd.DataFrame({"timestamp": pd.Series(cells, dtype=object), "y": [1.0, 2, 3]})
    assert "tz='Europe/Berlin'" in complaint(frame)
    assert long_to_panel(read_long(frame, tz=BERLIN)).index.freqstr == "MS"


@pytest.mark.parametrize("form", ["%Y%m%dT%H%M%S%z", "%Y-%m-%dT%H%z", "%Y-%m-%d %H:%M:%S.%f %z"])
def test_offsets_in_every_form_of_iso(tmp_path, form):
    times = pd.date_range("2024-10-26", periods=48, freq="h", tz=BERLIN)
    path = write(tmp_path, csv_of(times.strftime(form)))
    assert "line 29" in complaint(path)
    assert list(times_of(path, tz=BERLIN)) == list(times)


@pytest.mark.parametrize("stamp", ["2024-03-31 02:30", "2024-10-27 02:30"])
def test_local_times_that_a_clock_change_skips_or_repeats(tmp_path, stamp):
    message = complaint(write(tmp_path, csv_of([stamp])), tz=BERLIN)
    assert f"line 2 has the stamp {stamp}" in message and "with their offset" in message


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (["2024-01-01 00:00:00 UTC", "2024-01-02 00:00:00 UTC"], "2024-01-01T00:00Z"),
        (["2024-01-01 00:00:00.5 UTC", "2024-01-02 00:00:00.5 UTC"], "2024-01-01T00:00:00.5Z"),
        (["2024-01-01T00:00:00Z", "2024-01-02 00:00:00 UTC"], "2024-01-01T00:00Z"),
        (["2024-01-01 00:00:00 GMT", "2024-01-02 00:00 GMT"], "2024-01-01T00:00Z"),
    ],
)
def test_utc_as_bigquery_writes_it(tmp_path, stamps, expected):
    times = times_of(write(tmp_path, csv_of(stamps)), freq="D")
    assert times[0] == pd.Timestamp(expected) and str(times.tz) == "UTC"


def test_days_whose_midnight_is_skipped_need_no_zone():
    hours = pd.date_range("2018-11-02", periods=96, freq="h", tz="America/Sao_Paulo")
    frame = pd.DataFrame({"timestamp": hours, "y": np.arange(96.0)})
    message = complaint(frame, resample="sum", freq="D")
    assert "a clock change of America/Sao_Paulo skips" in message and "without the zone" in message
    frame["timestamp"] = hours.tz_localize(None)
    assert read_long(frame, resample="sum", freq="D")["y"].sum() == frame["y"].sum()


# Formats


@pytest.mark.parametrize(
    ("first", "format", "freq"),
    [
        ("31.12.2024", "%d.%m.%Y", "D"),
        ("12/31/2024 11:00:00 PM", "%m/%d/%Y %I:%M:%S %p", "h"),
        ("202412", "%Y%m", "MS"),
        ("20241231", "%Y%m%d", "D"),
        ("2412", "%y%m", "MS"),
        ("2024365", "%Y%j", "D"),
        ("31 Dec 2024", "%d %b %Y", "D"),
    ],
)
def test_a_format_reads_text_and_integers(tmp_path, first, format, freq):
    times = pd.date_range(pd.to_datetime(first, format=format), periods=4, freq=freq)
    texts = times.strftime(format)
    read = times_of(write(tmp_path, csv_of(texts)), format=format)
    assert list(read) == list(times)
    if first.isdigit():
        frame = pd.DataFrame({"timestamp": texts.astype(int), "y": np.arange(4.0)})
        assert list(times_of(frame, format=format)) == list(times)


def test_a_format_with_offsets(tmp_path):
    path = write(tmp_path, csv_of(["01.03.2024 +0100", "01.04.2024 +0200", "01.05.2024 +0200"]))
    assert "--tz" in complaint(path, format="%d.%m.%Y %z")
    times = times_of(path, format="%d.%m.%Y %z", tz=BERLIN)
    assert list(times) == list(pd.date_range("2024-03-01", periods=3, freq="MS", tz=BERLIN))


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        ("2024-W01", ["a week and no date", "2024-01-01"]),
        ("2024Q1", ["a quarter and no date"]),
        ("2024-Q1", ["a quarter and no date"]),
        ("2024-01-01 01:00:00 PM", ["year first", "format='%Y-%m-%d %I:%M:%S %p'"]),
        ("31.12.2024", ["format='%d.%m.%Y'", "--time-format"]),
        ("01/02/2024", ["'%d/%m/%Y' or '%m/%d/%Y'"]),
        ("yesterday", ["no date", "format="]),
    ],
)
def test_other_stamps_name_what_is_read(tmp_path, stamp, words):
    message = complaint(write(tmp_path, csv_of([stamp])))
    assert [word for word in ["line 2", repr(stamp), *words] if word not in message] == [], message


DAYS = pd.date_range("2024-01-01", periods=3, freq="D")


@pytest.mark.parametrize(
    ("stamps", "arguments", "words"),
    [
        (DAYS.astype(str), {"tz": "Europe/Berln"}, ["tz='Europe/Berln'", "'Europe/Berlin'?"]),
        (DAYS.astype(str), {"tz": 5}, ["tz=5", "'UTC'"]),
        (DAYS.astype(str), {"format": "%H:%M"}, ["no year"]),
        (DAYS.astype(str), {"format": "%Y-%m-%d %H %p"}, ["%I"]),
        (DAYS.astype(str), {"format": "%Y-%m-%Q"}, ["cannot be used"]),
        (DAYS.astype(str), {"format": "%d.%m.%Y"}, ["row 0", "'2024-01-01'", "'%d.%m.%Y'"]),
        (DAYS, {"format": "%d.%m.%Y"}, ["no effect", "leave it out"]),
        (list(DAYS.date), {"format": "%d.%m.%Y"}, ["no effect", "leave it out"]),
        (DAYS.to_period("D"), {"tz": BERLIN}, ["no effect", "periods"]),
        ([1, 2, 3], {"tz": BERLIN}, ["no effect", "integers", "format="]),
    ],
)
def test_arguments_that_cannot_be_used(stamps, arguments, words):
    frame = pd.DataFrame({"timestamp": stamps, "y": [1.0, 2, 3]})
    message = complaint(frame, **arguments)
    assert [word for word in words if word not in message] == [], message


# Decimals


@pytest.mark.parametrize("kind", ["objects", "arrow"])
def test_decimals_are_numbers_and_steps(kind):
    steps = [decimal.Decimal(value) for value in ("3", "4", "5")]
    values = [decimal.Decimal("1.5"), None, decimal.Decimal("-2")]
    frame = pd.DataFrame(
        {"timestamp": pd.Series(steps, dtype=object), "y": pd.Series(values, dtype=object)}
    )
    if kind == "arrow":
        numbers = pd.ArrowDtype(pa.decimal128(10, 2))
        frame = frame.astype({"timestamp": pd.ArrowDtype(pa.decimal128(10, 0)), "y": numbers})
    read = read_long(frame)
    assert read["timestamp"].tolist() == [3, 4, 5] and read["timestamp"].dtype == np.int64
    np.testing.assert_array_equal(read["y"], [1.5, np.nan, -2])


def test_decimals_that_are_no_numbers_or_no_steps():
    frame = pd.DataFrame({"timestamp": [1, 2], "y": [decimal.Decimal("Infinity")] * 2})
    assert "row 0, column 'y' holds inf" in complaint(frame)
    frame["y"] = [decimal.Decimal("sNaN")] * 2
    assert "no number" in complaint(frame)
    frame = pd.DataFrame({"timestamp": [decimal.Decimal("1.5")] * 2, "y": [1.0, 2]})
    assert "row 0 has the stamp 1.5 of type Decimal" in complaint(frame)


def test_a_decimal_covariate_is_a_number():
    prices = pd.Series([decimal.Decimal("1.5"), decimal.Decimal("2")], dtype=object)
    frame = pd.DataFrame({"timestamp": [1, 2], "y": [1.0, 2], "price": prices})
    assert read_long(frame, covariates="price")["price"].tolist() == [1.5, 2.0]
