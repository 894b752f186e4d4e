"""Values that JSON has no words for come back as what they were."""

import datetime
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsllm.errors import DataError
from tsllm.saving.typed_json import from_json, to_json

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.just("$type") | st.integers() | st.tuples(st.text(), st.integers())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=10,
)


def through_a_file(value):
    return from_json(json.loads(json.dumps(to_json(value, "it"), allow_nan=False)))


def kinds(value):
    """The types of a value and of all that it holds."""
    if isinstance(value, dict):
        return [(kinds(key), kinds(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    return type(value)


@given(values)
def test_nested_values_come_back_with_their_types(value):
    read = through_a_file(value)
    assert read == value
    assert kinds(read) == kinds(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know(number):
    assert repr(through_a_file([number])) == repr([number])


@pytest.mark.parametrize(
    "value",
    [
        np.int32(4),
        np.float32(0.1),
        np.True_,
        pd.Timestamp("2020-01-01 12:30", tz="Europe/Berlin"),
        pd.Timestamp("2020-10-25 02:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("2020-01-01", tz=datetime.timezone(datetime.timedelta(hours=-3))),
        pd.Timestamp("1677-09-21").as_unit("s"),
        pd.Timestamp(1, unit="ns"),
        pd.Timedelta(hours=3),
        pd.Period("2020-01", "M"),
        pd.Period("2020-01-01 06:00", "6h"),
    ],
)
def test_single_values(value):
    read = through_a_file((value, "a"))[0]
    assert read == value
    assert type(read) is type(value)
    for attribute in ("dtype", "unit", "tz", "freq"):
        assert getattr(read, attribute, None) == getattr(value, attribute, None)


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(3, 9, 2, name="k"),
        pd.Index([1, 2], dtype="int32"),
        pd.Index([1.5, math.nan]),
        pd.Index(["a", "b"], name=("x", 1)),
        pd.Index(["a", 1, ("b", 2.5)], dtype=object, tupleize_cols=False),
        pd.DatetimeIndex(["2020-01-01", "2020-01-05"], name="irregular"),
        pd.date_range("2024-03-28", periods=6, freq="D", tz="Europe/Berlin"),
        pd.date_range("2024-03-30", periods=50, freq="h", tz="Europe/Berlin", unit="s"),
        pd.date_range("2024-01-31", periods=5, freq="ME", unit="ns"),
        pd.date_range("2024-01-31", periods=5, freq="15min")[:0],
        pd.period_range("2024-01", periods=4, freq="W-WED", name="week"),
        pd.period_range("2024-01", periods=4, freq="Q-NOV"),
        pd.timedelta_range("1h", periods=3, freq="2h"),
    ],
)
def test_indexes(index):
    read = through_a_file(index)
    pd.testing.assert_index_equal(read, index, exact=True)
    assert getattr(read, "freq", None) == getattr(index, "freq", None)
    if isinstance(index, pd.RangeIndex):
        assert (read.start, read.stop, read.step) == (index.start, index.stop, index.step)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        pd.NaT,
        datetime.date(2020, 1, 1),
        b"bytes",
        pd.MultiIndex.from_tuples([("a", 1)]),
        pd.DatetimeIndex(["2020-01-01"], freq=pd.DateOffset(months=1)),
        # Written as "C", which says nothing about the holidays.
        pd.DatetimeIndex(
            ["2020-01-01"], freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"])
        ),
        pd.CategoricalIndex(["a"], categories=["b", "a"]),
    ],
)
def test_what_has_no_exact_form_is_refused_by_name(value):
    with pytest.raises(DataError, match="the columns of y cannot be saved"):
        to_json([value], "the columns of y")


@pytest.mark.parametrize("written", [{"$type": "os.system"}, {"$type": "float"}, {"$type": []}])
def test_unknown_kinds_are_refused(written):
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_json(written)
