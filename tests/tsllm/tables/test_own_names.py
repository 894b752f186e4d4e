"""Forecasts have the names that the user's table has for the series and the times."""

import numpy as np
import pandas as pd
import pytest

import tsllm
from tsllm.datasets import read_long
from tsllm.datasets.labels import Labels
from tsllm.errors import DataError
from tsllm.tables.covariates import columns_to_read, read_future
from tsllm.tables.forecast import fit_long, make_forecaster, predict_stored

DAYS = pd.date_range("2025-01-01", periods=46, freq="D")
OPTIONS = {"method": "linear", "random_state": 0, "quantiles": [], "covariates": "promo"}
NAMES = {"id_col": "store_sku", "time_col": "dt", "target_cols": "units"}


def rows(days, ids=(7, 8)):
    promo = [int(day.day % 5 == 0) for day in days]
    parts = [pd.DataFrame({"store_sku": one, "dt": days, "promo": promo}) for one in ids]
    return pd.concat(parts, ignore_index=True)


def sales(ids=(7, 8)):
    frame = rows(DAYS[:40], ids)
    return frame.assign(units=10 + 4 * frame["promo"] + np.sin(frame["dt"].dt.dayofweek))


def test_data_and_future_share_the_names_and_forecasts_have_them():
    table = tsllm.forecast(sales(), 3, future=rows(DAYS[40:]), **NAMES, **OPTIONS)
    assert table.columns.tolist() == ["store_sku", "dt", "forecast"]
    known = rows(DAYS[40:43])
    assert table.merge(known, on=["store_sku", "dt"]).shape == (6, 4)  # whole numbers stay such


@pytest.mark.parametrize(
    "ids, kept", [((7, 8), [7, 8]), (("07", "8"), ["07", "8"]), ((7, -(2**62)), [7, -(2**62)])]
)
def test_identifiers_keep_their_kind(ids, kept):
    table = tsllm.forecast(sales(ids), 3, future=rows(DAYS[40:], ids), **NAMES, **OPTIONS)
    assert table["store_sku"].unique().tolist() == kept


@pytest.mark.parametrize("kind", ["object", "category", "Int64", "uint64"])
def test_whole_numbers_of_any_type_stay_such(kind):
    ids = (2**63 + 1, 2**63 + 5) if kind == "uint64" else (7, 2**53 + 1)
    data = sales(ids).astype({"store_sku": kind})
    table = tsllm.forecast(data, 3, future=rows(DAYS[40:], ids), **NAMES, **OPTIONS)
    assert table["store_sku"].unique().tolist() == list(ids)


def test_a_text_with_a_leading_zero_does_not_become_a_number():
    table = pd.DataFrame({"series_id": ["7", "007"], "timestamp": [0, 0]})
    assert Labels("sku", "day", True).restore(table)["sku"].tolist() == ["7", "007"]


def test_a_model_knows_the_names_of_its_tables():
    frame = read_long(sales(), covariates=["promo"], **NAMES)
    model = fit_long(make_forecaster("linear"), frame, 3, covariates=["promo"])
    beside = rows(DAYS[40:]).assign(date="a column that would else be the time")
    future = read_future(beside, model)
    assert future.columns.tolist() == ["series_id", "timestamp", "promo"]
    stored = predict_stored(model, 3, quantiles=[], future=future)
    again = read_long(sales(), **columns_to_read(model))
    pd.testing.assert_frame_equal(again, frame)
    assert len(stored) == 6


@pytest.mark.parametrize("name", ["forecast", "q0.1"])
def test_a_name_of_the_result_is_refused_before_the_training(name):
    data = sales().rename(columns={"store_sku": name})
    options = OPTIONS | {"quantiles": [0.1, 0.9]}
    with pytest.raises(DataError, match=f"column of the series is called '{name}'"):
        tsllm.forecast(data, 3, **NAMES | {"id_col": name}, **options)
