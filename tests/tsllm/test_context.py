"""Contexts: what is cut from them and put into them stays in step."""

import numpy as np
import pandas as pd
import pytest

from tsllm import Context
from tsllm.context import batch_contexts
from tsllm.errors import DataError

DAYS = pd.date_range("2024-01-01", periods=4, freq="D")


def test_a_part_has_the_stamps_mask_and_covariates_of_its_steps():
    values = np.array([1.0, np.nan, 3.0, 4.0])
    context = Context(values, times=DAYS, past_x=np.arange(4)[:, None], series_id="a")
    for part, rows in ((context.tail(2), slice(2, 4)), (context.until(3), slice(0, 3))):
        np.testing.assert_array_equal(part.values[:, 0], values[rows])
        np.testing.assert_array_equal(part.mask, context.mask[rows])
        np.testing.assert_array_equal(part.past_x[:, 0], np.arange(4)[rows])
        assert part.times.equals(DAYS[rows])
        assert part.series_id == "a"
    assert context.tail(None) is context.tail(9) is context


def test_other_values_bring_their_own_mask():
    context = Context(np.ones(4), times=DAYS, mask=[True, False, True, True], series_id="a")
    other = context.with_values(np.array([[np.nan], [2.0], [3.0], [4.0]]))
    assert other.mask[:, 0].tolist() == [False, True, True, True]
    assert other.series_id == "a"
    assert context.mask[:, 0].tolist() == [True, False, True, True]


def test_what_a_batch_cannot_read_is_named():
    holed = Context(np.array([1.0, np.nan, np.nan]), series_id="a")
    with pytest.raises(DataError, match="series 'a' has no observed value in its last 2 steps"):
        batch_contexts([holed], 2)
    two = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, np.nan]])
    for columns, words in [(None, r"variable 1 \(counted from 0\)"), (("a", "b"), "column 'b'")]:
        with pytest.raises(DataError, match=f"the series has no observed value in {words} in its"):
            batch_contexts([Context(two, columns=columns)], 2)
    with pytest.raises(DataError, match="same number of variables, found 1 and 2"):
        batch_contexts([holed, Context(np.ones((3, 2)))], 3)
