"""Tables of polars and Arrow at every door: the values are those of pandas, the kind is theirs."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tsllm
from tsllm.datasets import read_events, read_long
from tsllm.errors import DataError, DataTypeError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
DAYS = pd.date_range("2025-01-01", periods=64, freq="D")
OPTIONS = {"method": "linear", "random_state": 0, "covariates": ["promo", "sky"]}
NAMES = {"id_col": "shop", "time_col": "dt", "target_cols": "units"}


class Exporting:
    """A table of a library that is neither pandas, polars nor pyarrow."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def sales(days=DAYS[:60]):
    parts = [
        pd.DataFrame(
            {
                "shop": shop,
                "dt": days,
                "promo": (days.day % 5 == 0).astype(int),
                "sky": np.where(days.day % 2, "sun", "rain"),
            }
        )
        for shop in (3, 4)
    ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(units=10.0 + 4 * frame["promo"] + np.sin(frame["dt"].dt.dayofweek))


def as_polars(frame):
    dated = pl.col("dt").cast(pl.Date)
    return pl.from_pandas(frame).with_columns(dated, pl.col("shop").cast(pl.Int32))


KINDS = {
    "polars": (as_polars, pl.DataFrame),
    "arrow": (pa.Table.from_pandas, pa.Table),
    "other": (lambda frame: Exporting(pa.Table.from_pandas(frame)), pa.Table),
}
kinds = pytest.mark.parametrize(("make", "kind"), KINDS.values(), ids=KINDS)


def same(table, frame):
    """Compare a table with pandas' rows, whatever the types of the dates."""
    found = table.to_pandas()
    assert list(found) == list(frame)
    for name in frame:
        if name == "dt":
            assert pd.to_datetime(found[name]).tolist() == frame[name].tolist()
        elif frame[name].dtype == np.float64:
            np.testing.assert_allclose(found[name], frame[name])
        else:
            assert found[name].tolist() == frame[name].tolist()


@kinds
def test_one_line(make, kind):
    data, future = sales(), sales(DAYS[60:]).drop(columns="units")
    expected = tsllm.forecast(data, 4, future=future, **NAMES, **OPTIONS)
    table = tsllm.forecast(make(data), 4, future=make(future), **NAMES, **OPTIONS)
    assert isinstance(table, kind)
    same(table, expected)
    if kind is pl.DataFrame:  # joins the data again
        assert make(future).join(table, on=["shop", "dt"]).height == len(expected)


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_stamps_have_the_time_zone_that_was_asked_for(make, zone):
    hours = pd.date_range("2025-06-01", periods=60, freq="h", tz=zone)
    data = pd.DataFrame({"hour": hours, "load": np.sin(np.arange(60.0))})
    how = {"method": "linear", "quantiles": [], "tz": "Europe/Berlin"}
    expected = tsllm.forecast(data, 2, **how)["hour"]
    found = tsllm.forecast(make(data), 2, **how).to_pandas()["hour"]
    assert found.dt.tz == expected.dt.tz and found.tolist() == expected.tolist()


@kinds
def test_forecasters(make, kind):
    data, future = sales(), sales(DAYS[60:])
    y, X = data[["shop", "dt", "units"]], data[["shop", "dt", "promo"]]
    ahead = future[["shop", "dt", "promo"]]
    named = {"shop": "series_id"}  # a column of whole numbers is told apart by its name
    y, X, ahead = (one.rename(columns=named) for one in (y, X, ahead))
    index = ["series_id", "dt"]
    plain = tsllm.LinearForecaster().fit(y.set_index(index), X.set_index(index), fh=[1, 2])
    make_own = (lambda one: pl.from_pandas(one)) if kind is pl.DataFrame else make
    own = tsllm.LinearForecaster().fit(make_own(y), make_own(X), fh=[1, 2])
    expected = plain.predict(X=ahead.set_index(index)).reset_index()
    found = own.predict(X=make_own(ahead))
    assert isinstance(found, kind)
    same(found, expected)
    levels = own.predict_quantiles(X=make_own(ahead), alpha=[0.1, 0.9]).to_pandas()
    assert list(levels) == [*index, "units_0.1", "units_0.9"]
    assert list(own.predict_interval(X=make_own(ahead)).to_pandas())[2:] == [
        "units_0.9_lower",
        "units_0.9_upper",
    ]
    later = future.rename(columns=named)
    truth = make_own(later[[*index, "units"]])
    scores = own.score(truth, make_own(ahead), [1, 2, 3, 4])
    assert scores == plain.score(
        later.set_index(index)[["units"]], ahead.set_index(index), [1, 2, 3, 4]
    )
    for model, of in ((plain, lambda one: one.set_index(index)), (own, make_own)):
        model.update(of(later[:2][[*index, "units"]]), of(later[:2][[*index, "promo"]]), False)
    expected = plain.predict([1], X=ahead.set_index(index)).reset_index()
    same(own.predict([1], X=make_own(ahead)), expected)


def test_forecasters_of_one_series_and_fit_predict():
    y = pl.DataFrame({"month": DAYS.to_list(), "gdp": np.sin(np.arange(64.0))})
    model = tsllm.DLinearForecaster(max_steps=2, random_state=0)
    found = model.fit_predict(y, fh=3)
    assert found.columns == ["month", "gdp"] and found.schema["month"] == y.schema["month"]
    assert found["month"].to_list()[0] == datetime.datetime(2025, 3, 6)
    pd.testing.assert_frame_equal(model.predict(fh=3).to_pandas(), found.to_pandas())
    assert model.update_predict_single(y, fh=1).height == 1
    assert isinstance(
        model.clone().fit(y.to_pandas().set_index("month"), fh=1).predict(), pd.DataFrame
    )


def test_a_distribution_has_the_variables_and_not_the_columns_of_times():
    y = pl.from_pandas(sales().query("shop == 3")).select("dt", "units")
    model = tsllm.LinearForecaster().fit(y, fh=[1, 2])
    with pytest.warns(UserWarning, match="skpro"):
        assert model.predict_proba().columns.tolist() == ["units"]


def test_a_loaded_model_answers_in_the_kind_of_its_covariates(tmp_path):
    data = pl.from_pandas(sales().rename(columns={"shop": "series_id"})).drop("sky")
    y, X = data.drop("promo"), data.drop("units")
    model = tsllm.LinearForecaster().fit(y, X, fh=1)
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    ahead = X.with_columns(pl.col("dt") + pl.duration(days=60))
    assert loaded.predict(X=ahead).equals(model.predict(X=ahead))


def test_backtest_and_ablate():
    data = pl.from_pandas(sales()).drop("sky").rename({"shop": "series_id"})
    y, X = data.drop("promo"), data.drop("units")
    how = {"horizons": 2, "test_size": 6}
    options = {"baselines": ["seasonal_naive"], "X": X, **how}
    report = tsllm.backtest({"linear": tsllm.LinearForecaster()}, y, **options)
    index = ["series_id", "dt"]
    plain = {"y": y.to_pandas().set_index(index), "X": X.to_pandas().set_index(index)}
    expected = tsllm.backtest({"linear": tsllm.LinearForecaster()}, **options | plain)
    columns = ["method", "mae"]
    pd.testing.assert_frame_equal(report.table[columns], expected.table[columns])
    model = tsllm.DLinearForecaster(max_steps=2)
    with pytest.raises(DataError, match="language model"):
        tsllm.ablate(model, y, X, **how)  # read, and then refused as for pandas


@kinds
def test_readers(make, kind):
    del kind
    pd.testing.assert_frame_equal(
        read_long(make(sales()), covariates=["promo", "sky"], **NAMES).astype({"timestamp": str}),
        read_long(sales(), covariates=["promo", "sky"], **NAMES).astype({"timestamp": str}),
    )


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas])
def test_events(make):
    rng = np.random.default_rng(0)
    when = DAYS[0] + pd.to_timedelta(rng.exponential(1, 40).cumsum(), unit="h")
    events = pd.DataFrame({"client": 7, "time": when, "type": rng.choice(["buy", "view"], 40)})
    table = make(events)
    assert len(read_events(table, id_col="client").times[0]) == 40
    model = tsllm.NaiveEventForecaster(id_col="client").fit(table)
    plain = tsllm.NaiveEventForecaster(id_col="client").fit(events)
    assert type(model.predict()) is type(table)
    for name in ("predict", "predict_proba", "predict_quantiles"):
        expected = getattr(plain, name)()
        found = getattr(model, name)().to_pandas()
        assert found.shape[0] == len(expected)
        assert found.columns[0] == "client"
    assert type(plain.residuals(table)) is type(table)
    windows = make(
        pd.DataFrame({"client": [7], "window_start": [DAYS[0]], "window_end": [when[-1]]})
    )
    assert isinstance(plain.predict(events, windows=windows), pd.DataFrame)


def test_skipped_series_are_named_where_the_table_has_no_attributes():
    data = pl.from_pandas(sales()).with_columns(
        units=pl.when(pl.col("shop") == 3).then(float("inf")).otherwise(pl.col("units"))
    )
    with pytest.warns(UserWarning, match="left out 1 of 2 series: .*; all of them: '3'"):
        table = tsllm.forecast(data, 2, on_error="skip", **NAMES, method="linear")
    assert table["shop"].unique().to_list() == [4]


@pytest.mark.parametrize(
    ("y", "X", "error", "told"),
    [
        (pl.LazyFrame({"a": [1]}), None, DataError, "y is a lazy table: pass it after collect"),
        (pl.Series([1.0]), None, DataTypeError, "y is of type Series, which is no table"),
        (pl.DataFrame({"v": [1.0, 2.0]}), None, DataError, "y has no time column known by its"),
        (
            pl.DataFrame({"ds": [1, 2], "a": ["x", "x"], "b": ["y", "y"], "v": [1.0, 2.0]}),
            None,
            DataError,
            "y has the columns of text 'a', 'b': call the one that tells series apart 'series_id'",
        ),
        (
            pl.DataFrame({"ds": [1, 2, 3], "v": [1.0, 2.0, 4.0]}),
            pl.DataFrame({"day": [1, 2, 3], "x": [1.0, 2.0, 4.0]}),
            DataError,
            "X has no column 'ds': name its columns of series and times as y's",
        ),
        (
            pd.Series([1.0, 2.0, 4.0]),
            pl.DataFrame({"day": [1, 2, 3], "x": [1.0, 2.0, 4.0]}),
            DataError,
            "the index of y has no names",
        ),
    ],
)
def test_tables_that_cannot_be_read(y, X, error, told):
    with pytest.raises(error, match=told):
        tsllm.LinearForecaster().fit(y, X, fh=1)
