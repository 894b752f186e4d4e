"""Integer times: constant steps are continued, dates written as integers are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets import read_long
from tsllm.datasets.checks import check_times
from tsllm.datasets.counts import as_counts, check_no_dates, count_step, step_of
from tsllm.errors import DataError

MONTHS = pd.period_range("2019-11", periods=40, freq="M")
DAYS = pd.date_range("2023-12-28", periods=70, freq="D")
WEEKS = pd.date_range("2024-11-04", periods=60, freq="7D")


def integers(stamps, format):
    return [int(text) for text in stamps.strftime(format)]


def row(position):
    return f"row {position}"


@pytest.mark.parametrize(
    ("numbers", "what", "remedy"),
    [
        (range(202401, 202413), "months written YYYYMM", "format='%Y%m'"),
        ([202411, 202412, 202501], "months written YYYYMM", "format='%Y%m'"),
        ([202401, 202404, 202407, 202410], "months written YYYYMM", "format='%Y%m'"),
        (range(202401, 202453), "weeks written YYYYWW", "'%G%V%u'"),
        (range(202420, 202440), "weeks written YYYYWW", "'%G%V%u'"),
        (range(20240101, 20240132), "days written YYYYMMDD", "format='%Y%m%d'"),
        ([20240129, 20240205], "days written YYYYMMDD", "format='%Y%m%d'"),
        (integers(DAYS, "%Y%m%d"), "days written YYYYMMDD", "format='%Y%m%d'"),
        (integers(DAYS, "%y%m%d"), "days written YYMMDD", "format='%y%m%d'"),
        (range(240201, 240230), "days written YYMMDD", "format='%y%m%d'"),
        (integers(DAYS, "%Y%j"), "days of years written YYYYDDD", "format='%Y%j'"),
        (integers(DAYS, "%y%j"), "days of years written YYDDD", "format='%y%j'"),
        (integers(DAYS + pd.Timedelta("5h"), "%Y%m%d%H"), "hours written", "format='%Y%m%d%H'"),
        (integers(DAYS, "%Y%m%d%H%M"), "minutes written", "format='%Y%m%d%H%M'"),
        (integers(DAYS, "%Y%m%d%H%M%S"), "seconds written", "format='%Y%m%d%H%M%S'"),
        (integers(WEEKS, "%G%V"), "weeks written YYYYWW", "date of its Monday"),
        (integers(WEEKS, "%g%V"), "weeks written YYWW", "date of its Monday"),
        (integers(MONTHS, "%Y%m"), "months written YYYYMM", "format='%Y%m'"),
        (integers(MONTHS, "%y%m"), "months written YYMM", "format='%y%m'"),
        (range(9801, 9813), "months written YYMM", "format='%y%m'"),
        ([*range(101, 113), *range(201, 213)], "months written YYMM", "years of four digits"),
        ([20233, 20234, 20241, 20242], "quarters written YYYYQ", "from_fields"),
        (range(20241, 20245), "quarters written YYYYQ", "from_fields"),
    ],
)
def test_integers_that_read_as_dates_are_refused(numbers, what, remedy):
    times = pd.Index(numbers)
    with pytest.raises(DataError) as error:
        check_times(times, series="a")
    message = str(error.value)
    assert message.startswith(f"series 'a' has integer times that read as {what}")
    assert remedy in message
    assert f"row 0: {times[0]}, row {len(times) - 1}: {times[-1]}" in message
    assert "if they count steps, pass freq='" in message and message.endswith("' (--freq)")


@pytest.mark.parametrize(
    "numbers",
    [
        range(12),
        range(1, 13),
        range(101, 113),
        range(2001, 2013),  # years, not the months of 2020
        range(1901, 1913),
        range(1825, 2021, 5),
        range(1790, 2021, 10),
        range(5001, 5301),
        range(5003, 5013),
        range(10_001, 10_201),
        range(100_001, 100_301),
        range(19_723, 19_760),  # days since 1970
        range(1_704_067_200, 1_704_067_200 + 3600 * 50, 3600),
        range(202401, 203001, 100),  # every January
        range(20200101, 20300101, 10_000),
        [7],
    ],
)
def test_counts_stay_counts(numbers):
    times = pd.Index(numbers)
    assert check_times(times) is times
    check_no_dates(times, "the series", row)


@settings(deadline=None, max_examples=200)
@given(
    first=st.integers(-(10**6), 99_999),
    step=st.integers(1, 30),
    rows=st.integers(60, 400),
)
def test_long_counts_are_never_dates(first, step, rows):
    times = pd.Index(range(first, first + step * rows, step))
    assert check_times(times) is times


@pytest.mark.parametrize("numbers", [range(202401, 202413), range(9801, 9813)])
def test_a_stated_step_says_that_they_count(numbers):
    assert len(check_times(pd.Index(numbers), freq="1")) == 12
    with pytest.raises(DataError, match="integer times that read as months"):
        check_times(pd.Index(numbers), freq="MS")  # rather than: freq does not apply
    with pytest.raises(DataError, match="irregular times: row 1"):
        check_times(pd.Index(numbers), freq="5")


@pytest.mark.parametrize("freq", ["0", "-5", "5.0", "", "D", None, True, 1.0])
def test_other_frequencies_state_no_step(freq):
    assert count_step(freq) is None


def test_the_step_stays_when_times_are_cut():
    times = as_counts(pd.Index([1990, 1995, 2000], name="year"))
    assert times[-1:].equals(pd.RangeIndex(2000, 2005, 5))
    assert times.name == "year"
    assert [step_of(part) for part in (times, times[:1], times[:0])] == [5, 5, 5]
    assert as_counts(pd.Index([1990]), "5").step == 5
    assert step_of(pd.Index([1990])) is None


# ---------------------------------------------------------------- long tables


def census(**series):
    parts = [pd.DataFrame({"unique_id": name, "ds": list(years)}) for name, years in series.items()]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(y=np.arange(len(frame)) * 1.0)


def test_a_gap_in_steps_is_named_and_filled():
    frame = census(a=[*range(1900, 1950, 5), *range(1955, 2000, 5)])
    with pytest.raises(DataError, match=r"series 'a' has a gap: 1950 is missing after row 9"):
        read_long(frame)
    filled = read_long(frame, fill="interpolate")
    assert filled["timestamp"].tolist() == list(range(1900, 2000, 5))
    assert filled["y"][10] == 9.5


def test_a_short_series_has_the_step_of_the_others():
    frame = census(a=range(1900, 2000, 5), b=[1990], c=[1980, 1990])
    with pytest.raises(DataError, match=r"series 'c' has a gap: 1985 is missing"):
        read_long(frame)
    filled = read_long(frame, fill="nan")
    assert filled[filled["series_id"] == "c"]["timestamp"].tolist() == [1980, 1985, 1990]
    assert read_long(frame, freq="5", fill="nan").equals(filled)


@pytest.mark.parametrize("fill", [None, "nan"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_months_as_integers_are_not_filled_but_read_by_a_format(tmp_path, fill, ending):
    path = tmp_path / f"months.{ending}"
    frame = pd.DataFrame({"ds": integers(MONTHS, "%Y%m"), "y": np.arange(40.0)})
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    with pytest.raises(DataError, match=r"months written YYYYMM .*--time-format"):
        read_long(path, fill=fill)
    read = read_long(path, fill=fill, format="%Y%m")
    assert read["timestamp"].tolist() == MONTHS.to_timestamp().tolist()
