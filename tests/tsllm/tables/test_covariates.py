"""Covariates in long frames: `tsllm.forecast`, forecasts of saved models, and backtests."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from covariate_frames import covariate_frames
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import SMALL
from tsllm.batch.sizing import measure_batch_size
from tsllm.datasets import read_long
from tsllm.errors import DataError
from tsllm.tables.covariates import read_future
from tsllm.tables.forecast import fit_long, make_forecaster, predict_long, predict_stored

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
DATA, FUTURE = covariate_frames()
KNOWN = FUTURE.drop(columns="value")
TRUTH = FUTURE.groupby("series_id", sort=False).head(5)["value"].to_numpy()
OPTIONS = {"quantiles": [0.1, 0.9], "method": "autotimes", **SMALL["autotimes"]}


def fitted(**parameters):
    frame = read_long(DATA, covariates=["warm", "sky"])
    model = make_forecaster("autotimes", **SMALL["autotimes"], **parameters)
    return fit_long(model, frame, 5, covariates=["warm", "sky"]), frame


def test_one_line_from_tables_to_forecasts(tmp_path):
    table = tsllm.forecast(DATA, 5, covariates=["warm", "sky"], future=KNOWN, **OPTIONS)
    plain = tsllm.forecast(DATA.drop(columns=["warm", "sky"]), 5, **OPTIONS)
    assert table.columns.tolist() == plain.columns.tolist()
    assert np.abs(table["forecast"] - TRUTH).mean() < 0.5 * np.abs(plain["forecast"] - TRUTH).mean()
    DATA.to_csv(tmp_path / "data.csv", index=False)
    FUTURE.iloc[::-1].to_parquet(tmp_path / "future.parquet")
    files = tsllm.forecast(
        tmp_path / "data.csv",
        5,
        covariates=["warm", "sky"],
        future=tmp_path / "future.parquet",
        sort=True,
        **OPTIONS,
    )
    assert_allclose(files["forecast"], table["forecast"])


def test_past_covariates_need_no_second_table():
    table = tsllm.forecast(DATA, 3, past_covariates=["warm", "sky"], **OPTIONS)
    assert np.isfinite(table["forecast"]).all()
    both = tsllm.forecast(
        DATA, 3, covariates="warm", past_covariates=["sky"], future=KNOWN, **OPTIONS
    )
    assert np.abs(both["forecast"] - table["forecast"]).max() > 0.5


def test_long_and_stored_forecasts_are_those_of_predict():
    model, frame = fitted()
    future = read_future(FUTURE, model)
    X = future.set_index(["series_id", "timestamp"])
    expected = model.predict(X=X)["value"].to_numpy()
    for table in (
        predict_long(model, frame, 5, future=future),
        predict_stored(model, 5, future=future),
    ):
        assert_allclose(table["forecast"], expected, rtol=1e-6)
    one = predict_stored(model, 5, future=future, series=["a"])
    assert_allclose(one["forecast"], expected[5:], rtol=1e-6)


def test_categories_that_look_like_numbers_stay_categories(tmp_path):
    named = DATA.assign(sky=DATA["sky"].map({"sun": "0", "rain": "1"}))
    frame = read_long(named, covariates=["sky"], target_cols="value")
    model = make_forecaster("autotimes", **SMALL["autotimes"])
    fit_long(model, frame, 5, covariates=["sky"])
    known = KNOWN.assign(sky=KNOWN["sky"].map({"sun": 0, "rain": 1}))
    known.to_csv(tmp_path / "future.csv", index=False)
    future = read_future(tmp_path / "future.csv", model)
    assert set(future["sky"]) == {"0", "1"}
    assert np.isfinite(predict_long(model, frame, 5, future=future)["forecast"]).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: tsllm.forecast(DATA, 5, covariates=["warm", "sky"], **OPTIONS),
            r"the future of the covariates warm, sky is missing: give it as future= \(--future\)",
        ),
        (
            lambda: tsllm.forecast(DATA, 20, covariates=["warm", "sky"], future=KNOWN, **OPTIONS),
            r"future \(future=, --future\) has no row of series 'b' at 2024-04-12",
        ),
        (
            lambda: tsllm.forecast(
                DATA[["series_id", "timestamp", "value"]], 5, future=KNOWN, **OPTIONS
            ),
            r"the model reads none: leave future \(--future\) out",
        ),
        (
            lambda: predict_long(fitted()[0], read_long(DATA[DATA.columns[:3]]), 5),
            "the data have no column 'warm', a covariate that the model was fitted with",
        ),
        (
            lambda: read_future(KNOWN.drop(columns="sky"), fitted()[0]),
            "covariates='sky' is no column",
        ),
    ],
)
def test_futures_that_do_not_fit(call, told):
    with pytest.raises(DataError, match=told):
        call()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "the future of the covariates warm, sky is missing: give it"),
        ({"covariates": "sky", "past_covariates": ["warm"]}, "covariates sky is missing: give it"),
        ({"future": KNOWN.drop(columns="sky")}, "covariates='sky' is no column"),
        (
            {"future": KNOWN, "horizon": 20},
            r"^the future \(future=, --future\) has no row of series 'b' at 2024-04-12 .*"
            r"must hold the 20 steps to forecast, 2024-03-31 .* to 2024-04-19 .*, of each series$",
        ),
        (
            {"future": KNOWN[KNOWN["series_id"] == "b"]},
            r"the future \(future=, --future\) holds no row of series 'a': pass its covariates",
        ),
        (
            {"future": KNOWN.assign(warm="hot")},
            r"the future \(future=, --future\): series 'b', row 0, column 'warm' holds 'hot'",
        ),
        (
            {"future": KNOWN.assign(sky="hail")},
            r"column 'sky' of the future \(future=, --future\) holds 'hail'",
        ),
        ({"past_covariates": ["warm", "sky"], "future": KNOWN}, "the model reads none"),
    ],
)
def test_what_is_wrong_with_the_future_is_said_before_the_training(monkeypatch, options, told):
    monkeypatch.setattr("tsllm.tables.forecast.fit_long", lambda *_, **__: pytest.fail("trained"))
    asked = {"horizon": 5, "covariates": ["warm", "sky"], **OPTIONS, **options}
    with pytest.raises(DataError, match=told):
        tsllm.forecast(DATA, **asked)


def test_the_batch_size_is_measured_with_covariates():
    model, frame = fitted()
    before = model.batch_size
    assert measure_batch_size(model, frame, 2) >= 16
    assert model.batch_size == before


# ---------------------------------------------------------------- backtests


def test_a_backtest_shows_what_x_is_worth():
    small = make_forecaster("autotimes", **SMALL["autotimes"])
    y, X = DATA[DATA.columns[:3]], DATA.drop(columns="value")
    report = tsllm.backtest({"model": small}, y, horizons=3, X=X, baselines=["seasonal_naive"])
    scores = report.table.set_index("method")["mae"]
    assert scores.index.tolist() == ["model", "model, no X", "seasonal_naive"]
    assert scores["model"] < 0.5 * scores["model, no X"]
    plain = tsllm.backtest({"model": small}, y, horizons=3, baselines=[]).table["mae"]
    assert_array_equal(plain, scores["model, no X"])


def test_a_backtest_shows_no_future_of_past_covariates():
    small = make_forecaster("autotimes", **SMALL["autotimes"], past_covariates=["warm", "sky"])
    y, X = DATA[DATA.columns[:3]], DATA.drop(columns="value")
    last = X.groupby("series_id", sort=False).cumcount() >= 80
    spoilt = X.assign(warm=X["warm"].where(~last, 1e6))
    scores = [
        tsllm.backtest(
            {"model": small}, y, horizons=10, X=x, baselines=[], test_size=10, quantiles=[]
        ).table["mae"]
        for x in (X, spoilt)
    ]
    assert_array_equal(scores[0], scores[1])


def test_a_backtest_of_one_series_with_a_future_of_its_own():
    one = DATA[DATA["series_id"] == "b"].set_index("timestamp")
    small = make_forecaster("autotimes", **SMALL["autotimes"])
    report = tsllm.backtest(
        {"model": small}, one["value"], X=one[["warm", "sky"]], horizons=2, baselines=[], refit=5
    )
    scores = report.table.set_index("method")["mae"]
    assert scores["model"] < 0.5 * scores["model, no X"]
    assert report.settings["covariates"] == ["warm", "sky"]
    with pytest.raises(DataError, match="X has no row of the series at 2024-01-01"):
        tsllm.backtest(
            {"model": small}, one["value"], X=one[["warm"]][5:], horizons=2, baselines=[]
        )


def test_unknown_columns_are_named():
    with pytest.raises(DataError, match="covariates='rain' is no column"):
        tsllm.forecast(DATA, 2, covariates=["rain"], **OPTIONS)
    assert isinstance(KNOWN, pd.DataFrame)


def test_zone_and_format_apply_to_the_future_too(tmp_path):
    data = DATA.assign(timestamp=DATA["timestamp"].dt.strftime("%d.%m.%Y"))
    data.to_csv(tmp_path / "data.csv", index=False)
    known = KNOWN.assign(timestamp=KNOWN["timestamp"].dt.strftime("%d.%m.%Y"))
    how = {"covariates": ["warm", "sky"], "tz": "Europe/Berlin", "format": "%d.%m.%Y"}
    table = tsllm.forecast(tmp_path / "data.csv", 3, future=known, **how, **OPTIONS)
    plain = tsllm.forecast(DATA, 3, covariates=["warm", "sky"], future=KNOWN, **OPTIONS)
    assert table["timestamp"].tolist() == list(plain["timestamp"].dt.tz_localize("Europe/Berlin"))
    # dates need no format
    dated = tsllm.forecast(tmp_path / "data.csv", 3, future=KNOWN, **how, **OPTIONS)
    pd.testing.assert_frame_equal(dated, table)


@pytest.mark.parametrize("number", [int, float])
def test_ids_of_the_future_that_were_read_as_numbers(number):
    def named(table, names):
        return table.assign(series_id=table["series_id"].map(names))

    data = named(DATA, {"a": "0001", "b": "0002"})
    known = named(KNOWN, {"a": number(1), "b": number(2)})
    told = r"the same number; read the ids as text \(dtype=str\)"
    with pytest.raises(DataError, match=told):
        tsllm.forecast(data, 5, covariates=["warm", "sky"], future=known, **OPTIONS)


@pytest.mark.parametrize("kind", [bool, "boolean", pd.ArrowDtype(pa.bool_())])
def test_truth_values_of_the_future_where_the_history_has_numbers(kind):
    data, known = (one.assign(sky=(one["sky"] == "sun").astype(int)) for one in (DATA, KNOWN))
    how = {"covariates": ["warm", "sky"], **OPTIONS}
    table = tsllm.forecast(data, 3, future=known.astype({"sky": kind}), **how)
    pd.testing.assert_frame_equal(table, tsllm.forecast(data, 3, future=known, **how))


@pytest.mark.parametrize("kind", ["order", "boolean", "object", "arrow", "csv", "Decimal"])
def test_kinds_and_orders_of_covariates_that_mean_the_same(tmp_path, kind):
    sunny = {"sky": lambda table: table["sky"] == "sun"}
    data, known = DATA.assign(**sunny), KNOWN.assign(**sunny)
    how = {"covariates": ["warm", "sky"], **OPTIONS}
    expected = tsllm.forecast(data, 3, future=known, **how)
    other = {
        "order": lambda: known[known.columns[::-1]].assign(more=1),
        "boolean": lambda: known.astype({"sky": "boolean"}),
        "object": lambda: known.astype({"sky": object}),
        "arrow": lambda: known.astype({"sky": pd.ArrowDtype(pa.bool_())}),
        "csv": lambda: known.to_csv(tmp_path / "known.csv", index=False) or tmp_path / "known.csv",
        "Decimal": lambda: known.assign(warm=known["warm"].map(Decimal)),
    }[kind]()
    pd.testing.assert_frame_equal(tsllm.forecast(data, 3, future=other, **how), expected)
