"""Covariates beside the values of long tables: carried along, told apart, filled and refused."""

import numpy as np
import pandas as pd
import pytest
from covariate_frames import covariate_frames

from tsllm.datasets import read_long
from tsllm.errors import DataError

DATA, _ = covariate_frames()
BOTH = ["warm", "sky"]


def csv(tmp_path, frame):
    frame.to_csv(tmp_path / "data.csv", index=False)
    return tmp_path / "data.csv"


def test_files_of_text_and_frames_give_the_same(tmp_path):
    table = read_long(csv(tmp_path, DATA), covariates=BOTH)
    assert table.columns.tolist() == ["series_id", "timestamp", "value", "warm", "sky"]
    pd.testing.assert_frame_equal(
        table, read_long(DATA, covariates=BOTH), check_dtype=False, check_exact=True
    )
    assert table["warm"].dtype == float
    assert set(table["sky"]) == {"sun", "rain"}


def test_covariates_stay_with_their_rows(tmp_path):
    jumbled = DATA.sample(frac=1.0, random_state=0)
    table = read_long(csv(tmp_path, jumbled), covariates=BOTH, sort=True)
    expected = read_long(DATA, covariates=BOTH).set_index(["series_id", "timestamp"])
    found = table.set_index(["series_id", "timestamp"]).loc[expected.index]
    assert (found == expected).all(axis=None)


def test_a_table_may_hold_covariates_only():
    table = read_long(DATA, target_cols=[], covariates="sky")
    assert table.columns.tolist() == ["series_id", "timestamp", "sky"]


def test_gaps_are_filled_with_the_values():
    holed = DATA.drop(index=[5, 6])
    filled = read_long(holed, covariates=BOTH, fill="ffill")
    assert filled.loc[5, BOTH].tolist() == filled.loc[4, BOTH].tolist()
    lines = read_long(holed, target_cols="value", covariates="warm", fill="interpolate")
    assert lines["warm"][5] == pytest.approx(DATA["warm"][4] * 2 / 3 + DATA["warm"][7] / 3)
    for word in ("nan", "zero"):  # are for values: each step needs a covariate
        carried = read_long(holed, covariates=BOTH, fill=word)
        assert carried.loc[5, BOTH].tolist() == carried.loc[4, BOTH].tolist()
        assert carried["value"][5] == 0 or (word == "nan" and np.isnan(carried["value"][5]))


def test_each_column_can_be_filled_in_its_own_way():
    days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04", "2024-01-05"])
    sold = pd.DataFrame({"dt": days, "units": [3, 4, 8, 5], "promo": [0, 1, 0, 1], "price": 2.0})
    sold["price"] += np.arange(4)
    names = ["promo", "price"]
    how = {"time_col": "dt", "target_cols": "units", "covariates": names, "freq": "D"}
    own = read_long(sold, fill={"units": "zero", "price": "interpolate"}, **how)
    assert own.loc[2, ["units", *names]].tolist() == [0, 1, 3.5]
    line = read_long(sold, fill="interpolate", **how)
    assert line.loc[2, ["units", *names]].tolist() == [6, 1, 3.5]  # no half a promotion
    assert set(read_long(sold, fill="nan", **how)["promo"]) == {0, 1}


@pytest.mark.parametrize(
    ("fill", "told"),
    [
        ({"sky": "interpolate"}, "fill='interpolate' cannot fill column 'sky', which holds categ"),
        ({"warm": "nan"}, "column 'warm': a covariate needs a value at each step; use 'zero'"),
        ({"wram": "zero"}, "fill names the column 'wram'.*did you mean 'warm'"),
        ({"warm": "zeros"}, "fill={'warm': 'zeros'} is not known"),
        ({}, "fill={} is not known"),
    ],
)
def test_a_fill_that_does_not_suit_a_column_is_refused(fill, told):
    with pytest.raises(DataError, match=told):
        read_long(DATA, covariates=BOTH, target_cols="value", fill=fill)


def test_numbers_are_resampled_with_the_values():
    late = DATA.assign(timestamp=DATA["timestamp"] + pd.Timedelta("5min"))
    twice = pd.concat([DATA, late]).sort_values(["series_id", "timestamp"], kind="stable")
    table = read_long(
        twice, target_cols="value", covariates="warm", freq="D", resample="mean"
    ).set_index(["series_id", "timestamp"])
    expected = DATA.set_index(["series_id", "timestamp"])["warm"].loc[table.index]
    np.testing.assert_allclose(table["warm"], expected)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"covariates": ["wram"]}, "covariates='wram' is no column of .*did you mean 'warm'"),
        ({"covariates": ["warm"], "target_cols": "warm"}, "'warm' of .* is given twice"),
        (
            {"covariates": ["sky"], "target_cols": "value", "freq": "D", "resample": "mean"},
            "holds categories, which resample='mean' cannot average",
        ),
        (
            {"covariates": ["sky"], "target_cols": "value", "categorical": []},
            "series 'b', .*, column 'sky' holds '(sun|rain)', which is no number",
        ),
    ],
)
def test_covariates_that_cannot_be_read(tmp_path, options, told):
    for source in (DATA, csv(tmp_path, DATA)):
        with pytest.raises(DataError, match=told):
            read_long(source, **options)


@pytest.mark.parametrize(
    ("number", "words"), [(np.inf, "holds inf"), (1e150, r"holds a value beyond 1e\+140")]
)
def test_numbers_that_cannot_be_computed_with_are_no_category(tmp_path, number, words):
    data = DATA.assign(warm=DATA["warm"].where(DATA.index != 3, number))
    for source in (data, csv(tmp_path, data)):
        with pytest.raises(DataError, match=f"column 'warm' {words}"):
            read_long(source, covariates=BOTH)
