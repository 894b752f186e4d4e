import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets.frequency import (
    complete_times,
    future_times,
    infer_frequency,
    is_period_frequency,
    parse_frequency,
    season_length,
    set_frequency,
    without_frequency,
)
from tsllm.datasets.long import read_long
from tsllm.errors import DataError

FREQUENCIES = [
    "s",
    "min",
    "15min",
    "30min",
    "h",
    "6h",
    "D",
    "2D",
    "B",
    "W-SUN",
    "W-WED",
    "MS",
    "ME",
    "BMS",
    "BME",
    "2MS",
    "QS",
    "QE",
    "YS",
    "YE",
]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("freq", FREQUENCIES)
def test_inferred_frequency_rebuilds_the_index(freq, unit):
    times = pd.date_range("2021-03-03", periods=30, freq=freq, unit=unit)
    found = infer_frequency(without_frequency(times))
    assert pd.date_range(times[0], periods=30, freq=found, unit=unit).equals(times)


@pytest.mark.parametrize("length", [12, 40])
@pytest.mark.parametrize(
    "freq",
    ["SMS", "SME", "SMS-10", "SME-20", "WOM-3FRI", "RE-N-DEC-MON", "RE-L-JAN-SAT", "2QS", "BQE"],
)
def test_calendars_are_inferred_and_continued(freq, length):
    times = pd.date_range("2010-01-01", periods=length + 30, freq=freq)
    found = infer_frequency(without_frequency(times[:length]))
    assert future_times(times[length - 1], found, 30).equals(times[length:])


@pytest.mark.parametrize("freq", ["LWOM-FRI", "RE-N-DEC-MON", "WOM-3FRI", "BQE-DEC", "SMS"])
def test_one_stamp_takes_every_frequency(freq):
    times = pd.date_range("2010-01-01", periods=3, freq=freq)
    assert set_frequency(without_frequency(times[:1]), times.freq).equals(times[:1])


def test_a_year_of_52_or_53_weeks_that_fits_twice_is_asked_for():
    times = without_frequency(pd.date_range("2010-01-01", periods=40, freq="REQ-L-JAN-SAT-4"))
    with pytest.raises(DataError, match=r"freq='REQ-L-JAN-SAT-4' or freq='REQ-L-OCT-SAT-1'"):
        infer_frequency(times)
    assert infer_frequency(times, "REQ-L-JAN-SAT-4").freqstr == "REQ-L-JAN-SAT-4"


@pytest.mark.parametrize("weeks", [(4, 4, 5), (4, 5, 4), (5, 4, 4), (12, 12, 12, 16)])
def test_months_of_whole_weeks_are_numbered(weeks):
    ends = np.cumsum([0, *weeks * 5]) * 7
    times = pd.Timestamp("2020-02-02") + pd.to_timedelta(ends, unit="D")
    with pytest.raises(DataError, match=r"number (the periods|them) 0, 1, 2, \.\.\., or use the"):
        infer_frequency(pd.DatetimeIndex(times))


def test_yearly_stamps_on_a_weekday_are_not_monthly_ones():
    # pandas takes them for the fourth Saturdays of months, and checks nothing
    times = pd.date_range("2010-01-01", periods=9, freq="RE-L-JAN-SAT")
    wrong = pd.DatetimeIndex(without_frequency(times), freq="infer")
    assert infer_frequency(wrong).freqstr == "RE-L-JAN-SAT"
    with pytest.raises(DataError, match="stamps off freq='WOM-4SAT'"):
        infer_frequency(without_frequency(times), "WOM-4SAT")


@pytest.mark.parametrize("freq", ["15min", "h", "D", "W-SUN", "MS"])
@pytest.mark.parametrize("start", ["2024-03-25", "2024-10-20"])
def test_change_of_the_clocks_is_no_break(freq, start):
    times = pd.date_range(start, periods=800, freq=freq, tz="Europe/Berlin")
    assert infer_frequency(without_frequency(times)) == times.freq


def test_own_frequency_is_taken_and_another_is_refused():
    times = pd.date_range("2024-01-01", periods=5, freq="h")
    assert infer_frequency(times) is times.freq
    with pytest.raises(DataError, match=r"row 1 is 2024-01-01 01:00:00.*which is 'h'"):
        infer_frequency(times, "D", name="series 'a'")


def test_one_frequency_has_several_names():
    times = pd.date_range("2024-01-01", periods=5, freq="QS-OCT")
    assert infer_frequency(times, "QS") == parse_frequency("QS-JAN")
    assert times.freqstr == "QS-OCT"


def test_two_stamps_need_a_frequency():
    times = pd.DatetimeIndex(["2024-01-01", "2024-02-01"])
    with pytest.raises(DataError, match=r"2 stamps.*pass it"):
        infer_frequency(times)
    assert infer_frequency(times, "MS") == parse_frequency("MS")


@settings(deadline=None)
@given(
    freq=st.sampled_from(FREQUENCIES),
    length=st.integers(12, 60),
    data=st.data(),
)
def test_a_missing_stamp_is_named_and_completed(freq, length, data):
    whole = pd.date_range("2020-02-03", periods=length, freq=freq)
    # the gap leaves a run of at least half the stamps, from which the frequency can be seen
    missing = data.draw(st.integers(1, length - 2))
    times = without_frequency(whole.delete(missing))
    with pytest.raises(DataError) as error:
        infer_frequency(times, name="series 'x'", row=lambda i: f"line {i + 2}")
    message = str(error.value)
    assert message.startswith("series 'x' has a gap")
    assert f"{whole[missing]} after line {missing + 1} ({whole[missing - 1]})" in message
    assert "fill='nan'" in message
    assert list(complete_times(times)) == list(whole)


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        (["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:07", "2024-01-01 03:00"], "row 2"),
        (["2024-01-15", "2024-02-15", "2024-03-15", "2024-04-15"], r"to_period\('M'\)"),
        (["2024-01-01", "2024-01-02", "2024-05-09", "2025-01-01"], "irregular stamps: row 1"),
    ],
)
def test_irregular_stamps_are_no_gap(times, complaint):
    with pytest.raises(DataError, match=complaint) as error:
        infer_frequency(pd.DatetimeIndex(times))
    assert "gap" not in str(error.value)


@pytest.mark.parametrize(
    ("times", "freq"),
    [
        (["2024-01-01", "2024-01-02", "2024-05-09", "2025-01-01"], "D"),
        (["2024-01-01 00:00", "2024-01-01 00:41", "2024-01-01 03:07", "2024-01-01 03:30"], "h"),
        (["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:07", "2024-01-01 03:00"], "h"),
    ],
)
def test_irregular_stamps_are_cured_by_the_remedy_that_is_named(times, freq):
    stamps = pd.DatetimeIndex(times)
    with pytest.raises(DataError) as error:
        infer_frequency(stamps)
    message = str(error.value)
    assert f"resample='sum' (or 'mean') and freq='{freq}' (--resample, --freq" in message
    assert f"in y with y.resample('{freq}').sum()" in message
    table = pd.DataFrame({"timestamp": stamps, "value": range(4)})
    assert read_long(table, resample="sum", freq=freq, fill="nan")["value"].sum() == 6
    y = pd.Series(range(4), stamps).resample(freq).sum()
    assert (infer_frequency(y.index), y.sum()) == (freq, 6)


def test_stamps_off_the_given_frequency_can_be_brought_to_it():
    stamps = pd.DatetimeIndex(["2024-01-01 10:00", "2024-01-01 17:30", "2024-01-03 09:00"])
    with pytest.raises(DataError, match=r"off freq='D'.*resample='sum' .* freq='D' \(--resample"):
        infer_frequency(stamps, "D")


def test_mixed_frequencies_are_no_gap():
    hours = pd.date_range("2024-01-01", periods=10, freq="h")
    days = pd.date_range("2024-01-02", periods=10, freq="D")
    with pytest.raises(DataError, match=r"mixes frequencies: 9 of its 19 steps are 24 times 'h'"):
        infer_frequency(hours.append(days))


def test_a_stamp_from_another_century_is_a_gap_too_wide():
    times = pd.DatetimeIndex(["1800-01-01", *pd.date_range("2024-01-01", periods=9, freq="s")])
    with pytest.raises(DataError, match=r"too wide for 's'.*check those two stamps"):
        complete_times(times)


def test_within_one_week_a_gap_is_one_of_days_not_of_business_days():
    with pytest.raises(DataError, match=r"gap at 'D'"):
        infer_frequency(pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05"]))


@pytest.mark.parametrize("freq", ["H", "M", "nonsense", "-1h", "0D", True])
def test_unknown_frequencies_are_refused(freq):
    with pytest.raises(DataError, match="is not a frequency"):
        parse_frequency(freq)


@pytest.mark.parametrize(
    ("freq", "names"),
    [
        ("M", ["'ME'", "'MS'"]), ("2M", ["'2ME'", "'2MS'"]), ("H", ["'h'"]), ("15T", ["'15min'"]),
        ("Q", ["'QE'", "'QS'"]), ("Q-NOV", ["'QE-NOV'"]), ("A", ["'YE'", "'YS'"]),
        ("Y", ["'YE'", "'YS'"]), ("AS-APR", ["'YS-APR'"]), ("BM", ["'BME'", "'BMS'"]),
        ("S", ["'s'"]), ("L", ["'ms'"]), ("SM", ["'SME'", "'SMS'"]), ("monthly", ["'ME'", "'MS'"]),
    ],
)  # fmt: skip
def test_former_names_are_refused_with_the_new_ones(freq, names):
    with pytest.raises(DataError) as error:
        parse_frequency(freq)
    message = str(error.value)
    assert message.startswith(f"freq={freq!r} is not a frequency of dates")
    assert all(name in message for name in names)
    for name in names:
        parse_frequency(name.strip("'"))


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("s", 3600), ("10s", 360), ("min", 1440), ("15min", 96), ("30min", 48), ("h", 24),
        ("2h", 12), ("7h", 1), ("D", 7), ("24h", 7), ("7D", 52), ("2D", 1), ("B", 5),
        ("W-SAT", 52), ("2W", 26), ("MS", 12), ("ME", 12), ("M", 12), ("BMS", 12), ("2MS", 6),
        ("QS", 4), ("QE-NOV", 4), ("Q", 4), ("YS", 1), ("YE", 1), ("36h", 1), (None, 1),
        (pd.offsets.Hour(6), 4),
    ],
)  # fmt: skip
def test_season_length(freq, season):
    assert season_length(freq) == season


@settings(deadline=None)
@given(
    freq=st.sampled_from(FREQUENCIES), horizon=st.integers(1, 50), tz=st.sampled_from([None, "UTC"])
)
def test_future_times_continue_the_index(freq, horizon, tz):
    times = pd.date_range("2024-02-29", periods=10 + horizon, freq=freq, tz=tz)
    future = future_times(times[9], freq, horizon)
    assert future.equals(times[10:])
    assert future.freq == times.freq
    assert future.dtype == times.dtype


def test_future_times_step_over_the_change_of_the_clocks():
    last = pd.Timestamp("2024-03-30 23:00", tz="Europe/Berlin")
    future = future_times(last, "h", 4)
    assert [stamp.hour for stamp in future] == [0, 1, 3, 4]


def test_future_times_of_periods_and_integers():
    assert list(future_times(pd.Period("2024-11", "M"), None, 2).astype(str)) == [
        "2024-12",
        "2025-01",
    ]
    future = future_times(np.int64(4), None, 3)
    assert future.dtype == np.int64
    assert future.tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("last", "freq", "horizon", "complaint"),
    [
        (pd.Timestamp("2024-01-15"), "MS", 3, "does not lie on freq='MS'"),
        (pd.Timestamp("2024-01-15"), None, 3, "need a frequency"),
        (3, None, 0, "horizon=0"),
        (3, None, 1.5, "horizon=1.5"),
    ],
)
def test_future_times_refuses(last, freq, horizon, complaint):
    with pytest.raises(DataError, match=complaint):
        future_times(last, freq, horizon)


@pytest.mark.parametrize(
    ("period", "same", "other"),
    [
        ("M", ["M", "MS", "ME"], ["QS", "2MS", "D"]),
        ("Q-DEC", ["QS", "QE", "Q"], ["MS", "QS-FEB"]),
        ("W-SAT", ["W-SAT"], ["W-MON", "D"]),
        ("h", ["h", "60min"], ["2h"]),
    ],
)
def test_frequencies_of_periods(period, same, other):
    times = pd.period_range("2024-01-01", periods=4, freq=period)
    assert all(is_period_frequency(times, freq) for freq in same)
    assert not any(is_period_frequency(times, freq) for freq in other)
