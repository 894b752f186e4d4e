import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets.checks import check_times, check_values, series_name
from tsllm.errors import DataError

HOURS = pd.date_range("2024-01-01", periods=4, freq="h")


def test_series_names():
    assert series_name(None) == "the series"
    assert series_name("a") == "series 'a'"
    assert series_name(np.int64(3)) == "series 3"


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        np.array([1, 2, 3], dtype=np.float32),
        np.array([1, 2, 3], dtype=np.uint8),
        pd.Series([1, 2, 3], dtype="Int64"),
        pd.Series([1, 2, 3], dtype="Float32"),
        pd.Series([1, 2, 3], dtype="double[pyarrow]"),
        pd.Series([1, 2.0, 3], dtype=object),
        pd.DataFrame({"a": [1, 2, 3]}),
    ],
)
def test_numbers_of_every_type_become_float64(values):
    checked = check_values(values)
    assert checked.dtype == np.float64
    assert checked.tolist() == [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    "values",
    [[1.0, None], pd.Series([1, pd.NA], dtype="Int64"), pd.Series([1, None], dtype=object)],
)
def test_missing_values_become_nan(values):
    checked = check_values(values)
    assert checked[0, 0] == 1.0
    assert np.isnan(checked[1, 0])


def test_columns_of_different_types_become_one_table():
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.5, 2.5]})
    np.testing.assert_array_equal(check_values(frame), [[1.0, 0.5], [np.nan, 2.5]])


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ("n/a", "'n/a'"),
        ("12,5", "'12,5'"),
        (True, "True"),
        (1j, "1j"),
        ([1], r"\[1\]"),
        (pd.Timestamp("2024-01-01"), "Timestamp"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_bad_value_is_named_with_series_row_and_column(bad, shown):
    column = pd.Series([1.0, 2.0, None, None], dtype=object)
    column[2] = bad
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": column}).set_axis(HOURS)
    with pytest.raises(DataError) as error:
        check_values(frame, series="north")
    message = str(error.value)
    assert message.startswith("series 'north', row 2 (2024-01-01 02:00:00), column 'b' holds ")
    assert pd.Series([message]).str.contains(f"holds {shown}").all()
    assert "NaN" in message.split(";")[1]


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        pd.Series(["1", "2"]),
        pd.Series(["x", "y"], dtype="category"),
        pd.Series(HOURS),
        pd.Series(HOURS - HOURS[0]),
        np.array([1 + 2j]),
    ],
)
def test_columns_of_other_types_are_refused(values):
    with pytest.raises(DataError, match="row 0"):
        check_values(values)


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="3 dimensions"):
        check_values(np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="no value columns"):
        check_values(pd.DataFrame(index=HOURS))


def test_a_regular_index_gets_its_frequency_and_the_callers_stays_as_it_was():
    bare = pd.DatetimeIndex(HOURS.to_numpy(), name="when")
    checked = check_times(bare)
    assert checked.freq == HOURS.freq
    assert checked.name == "when"
    assert checked.equals(HOURS)
    assert bare.freq is None


@pytest.mark.parametrize(
    "times",
    [
        HOURS,
        pd.date_range("2024-03-30", periods=50, freq="h", tz="Europe/Berlin"),
        pd.period_range("2024-01", periods=4, freq="M"),
        pd.period_range("2024-01", periods=4, freq="2h"),
        pd.RangeIndex(5, 9),
        pd.RangeIndex(0, 10, 2),
        pd.Index([3, 4, 5]),
        pd.Index([0, 7, 14], dtype="int32"),
        pd.Index([4]),
    ],
)
def test_regular_indexes_come_back_as_they_are(times):
    assert check_times(times) is times


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        (HOURS[[0, 2, 1]], r"row 2 \(2024-01-01 01:00:00\) comes after row 1 .*sort_index"),
        (HOURS[::-1], r"row 1 \(2024-01-01 02:00:00\) comes after row 0"),
        (HOURS[[0, 1, 1]], r"2024-01-01 01:00:00 twice, in row 1 and row 2; .*drop_duplicates"),
        (HOURS[[0, 1, 2]].insert(1, pd.NaT), r"row 1 has no stamp"),
        (HOURS[[0]].append(HOURS[[2, 3]]).append(HOURS[-1:] + HOURS.freq), r"gap at 'h'.*01:00:00"),
        (pd.DatetimeIndex(["2024-01-01", "2024-01-02"]), r"too few"),
        (HOURS[:0], "no rows"),
        (pd.PeriodIndex(["2024-01", "2024-02", "2024-04"], freq="M"), r"2024-03 is missing"),
        (pd.PeriodIndex(["2024-01", "2024-01"], freq="M"), r"2024-01 twice"),
        (pd.Index([0, 1, 3, 4]), r"2 is missing after row 1 \(1\)"),
        (pd.Index([0, 2, 4, 7, 10]), r"irregular times: row 3 \(7\)"),
        (pd.Index([2, 1]), "not in time order"),
        (pd.RangeIndex(3, 0, -1), "not in time order"),
        (pd.Index([0.0, 1.0]), "type float64.*to_datetime"),
        (pd.Index(["2024-01-01"]), "to_datetime"),
        (pd.MultiIndex.from_tuples([("a", 1)]), "to_datetime"),
    ],
)  # fmt: skip
def test_broken_indexes_are_refused_with_series_row_and_remedy(times, complaint):
    with pytest.raises(DataError, match=complaint) as error:
        check_times(times, series="a")
    assert "series 'a'" in str(error.value)
    assert ";" in str(error.value)


def test_freq_is_a_demand():
    assert check_times(pd.DatetimeIndex(HOURS[:2]), freq="h").freqstr == "h"
    assert len(check_times(pd.period_range("2024", periods=3, freq="M"), freq="MS")) == 3
    with pytest.raises(DataError, match="stamps off freq='D'"):
        check_times(HOURS, freq="D")
    with pytest.raises(DataError, match=r"periods of 'M', not of freq='D'"):
        check_times(pd.period_range("2024", periods=3, freq="M"), freq="D")
    with pytest.raises(DataError, match=r"integer times.*freq='D'"):
        check_times(pd.RangeIndex(4), freq="D")


def test_a_frequency_that_is_set_makes_the_check_nearly_free():
    times = pd.date_range("2000-01-01", periods=100_000, freq="h")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        check_times(times)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.002


@settings(deadline=None)
@given(
    positions=st.lists(st.integers(0, 40), min_size=1, max_size=20),
    freq=st.sampled_from(["h", "D", "B", "MS", "W-SUN"]),
    tz=st.sampled_from([None, "Europe/Berlin"]),
)
def test_any_choice_of_stamps_is_regular_or_a_data_error(positions, freq, tz):
    times = pd.date_range("2024-03-01", periods=41, freq=freq, tz=tz)[positions]
    try:
        checked = check_times(pd.DatetimeIndex(times.to_list()), series="s")
    except DataError as error:
        assert str(error).startswith("series 's'")
    else:
        assert checked.freq is not None
        steps = np.diff(positions)
        assert len(set(steps.tolist())) == 1
        assert steps[0] > 0
