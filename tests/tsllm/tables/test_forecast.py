"""Long frame in, long frame out: labels, dates and values, and what is refused before training."""

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

import tsllm
from small_forecasters import TINY, small, tiny
from tsllm.datasets import read_long
from tsllm.errors import DataError
from tsllm.forecasters import METHODS
from tsllm.tables.forecast import (
    check_request,
    fit_long,
    forecasts_to_long,
    make_forecaster,
    predict_long,
    predict_stored,
)

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def long_frame(lengths, *, variables=("value",), start="2024-01-01", freq="D", seed=0):
    """Series of noise around a week's season, in the order of ``lengths``."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, (name, steps) in enumerate(lengths.items()):
        part = pd.DataFrame({"series_id": name}, index=range(steps))
        part["timestamp"] = pd.date_range(start, periods=steps, freq=freq)
        for variable in variables:
            season = np.sin(np.arange(steps) * 2 * np.pi / 7)
            part[variable] = 10.0 * (number + 1) + season + rng.normal(0, 0.1, steps)
        parts.append(part)
    return read_long(pd.concat(parts, ignore_index=True), target_cols=list(variables))


def forecast(data, horizon, **options):
    settings = {"method": "autotimes", "backbone": TINY, "max_steps": 2, "random_state": 0}
    return tsllm.forecast(data, horizon, **(settings | options))


def test_labels_dates_and_columns_in_the_order_of_the_data():
    frame = long_frame({"z": 40, "a": 45}, variables=("y2", "y1"))
    table = forecast(frame, 3, quantiles=[0.9, 0.05], target_cols=["y2", "y1"])
    assert list(table) == ["series_id", "timestamp", "variable", "forecast", "q0.9", "q0.05"]
    assert table["series_id"].tolist() == ["z"] * 6 + ["a"] * 6
    assert table["variable"].tolist() == (["y2"] * 3 + ["y1"] * 3) * 2
    for name, last in (("z", "2024-02-09"), ("a", "2024-02-14")):
        expected = pd.date_range(last, periods=4, freq="D")[1:].tolist()
        assert table.loc[table["series_id"] == name, "timestamp"].tolist() == expected * 2
    assert (table["q0.05"] <= table["q0.9"]).all()


def test_values_are_the_estimators():
    frame = long_frame({"z": 40, "a": 45}, variables=("y2", "y1"))
    table = forecast(frame, 3, quantiles=[0.1, 0.9], target_cols=["y2", "y1"])
    y = frame.set_index(["series_id", "timestamp"])
    estimator = make_forecaster(
        "autotimes", backbone=TINY, max_steps=2, random_state=0, prediction_length=3
    ).fit(y, fh=[1, 2, 3])
    point = estimator.predict()  # sktime sorts the series
    spread = estimator.predict_quantiles(alpha=[0.1, 0.9])
    for name in ("z", "a"):
        for variable in ("y2", "y1"):
            mine = table[(table["series_id"] == name) & (table["variable"] == variable)]
            np.testing.assert_array_equal(mine["forecast"], point.loc[name, variable])
            for q in (0.1, 0.9):
                np.testing.assert_array_equal(mine[f"q{q}"], spread.loc[name, (variable, q)])


def test_quantiles_do_not_move_the_forecast():
    frame = long_frame({"a": 50})
    several = forecast(frame, 2, quantiles=[0.2, 0.8])
    none = forecast(frame, 2, quantiles=[])
    assert list(none) == ["series_id", "timestamp", "forecast"]
    pd.testing.assert_frame_equal(several[list(none)], none)


def test_files_frames_and_other_layouts_agree(tmp_path):
    frame = long_frame({"a": 50, "b": 40})
    frame.to_parquet(tmp_path / "frame.parquet")
    nixtla = frame.set_axis(["unique_id", "ds", "y"], axis=1)
    nixtla.sample(frac=1, random_state=1).to_csv(tmp_path / "nixtla.csv", index=False)
    first = forecast(frame, 2)
    pd.testing.assert_frame_equal(forecast(tmp_path / "frame.parquet", 2), first)
    shuffled = forecast(tmp_path / "nixtla.csv", 2, sort=True)
    by = ["unique_id", "ds"]  # the columns of the file
    first = first.rename(columns={"series_id": "unique_id", "timestamp": "ds"})
    pd.testing.assert_frame_equal(
        shuffled.sort_values(by, ignore_index=True), first.sort_values(by, ignore_index=True),
        rtol=1e-4,  # the order of the series is also that of the training windows
    )  # fmt: skip


def test_one_series_of_two_steps_with_a_frequency():
    frame = pd.DataFrame({"ds": ["2024-01-05", "2024-01-12"], "y": [1.0, 2.0]})
    table = forecast(frame, 1, freq="W-FRI", quantiles=[])
    assert table.columns.tolist() == ["series_id", "ds", "forecast"]
    assert table["ds"].tolist() == [pd.Timestamp("2024-01-19")]


def test_predict_long_for_series_too_short_to_tell_their_frequency():
    estimator = fit_long(tiny(), long_frame({"a": 60}), 2)
    short = long_frame({"x": 60}).iloc[-2:].reset_index(drop=True)
    table = predict_long(estimator, short, 2, quantiles=[])
    assert table["timestamp"].tolist() == [pd.Timestamp("2024-03-01"), pd.Timestamp("2024-03-02")]


def test_predict_stored_is_predict_long_on_the_fitted_data():
    frame = long_frame({"z": 40, "a": 45}, variables=("u", "v"))
    estimator = fit_long(tiny(), frame, 2)
    pd.testing.assert_frame_equal(
        predict_stored(estimator, 4), predict_long(estimator, frame, 4), check_exact=True
    )


def test_model_fitted_on_a_nameless_series(tmp_path):
    airline = load_airline()
    estimator = tiny().fit(airline, fh=[1, 2])
    stored = predict_stored(estimator, 2)
    assert stored["series_id"].tolist() == ["series", "series"]
    assert stored["timestamp"].astype(str).tolist() == ["1961-01", "1961-02"]
    np.testing.assert_array_equal(stored["forecast"], estimator.predict())
    frame = read_long(pd.DataFrame({"ds": airline.index, "y": airline.to_numpy()}))
    pd.testing.assert_frame_equal(predict_long(estimator, frame, 2), stored, check_exact=True)


def test_model_without_its_context(tmp_path):
    tsllm.save(fit_long(tiny(), long_frame({"a": 40}), 2), tmp_path / "m", include_context=False)
    with pytest.raises(DataError, match="without its context"):
        predict_stored(tsllm.load(tmp_path / "m"), 2)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (long_frame({"a": 40}, freq="h"), "frequency D and y has h"),
        (long_frame({"a": 40}, variables=("u", "w")), "variables u, v and the data have u, w"),
        (long_frame({"a": 40}, variables=("u",)), "variables u, v and the data have u:"),
    ],
)
def test_data_that_are_not_the_models(data, complaint):
    fitted = long_frame({"a": 40}, variables=("u", "v"))
    estimator = fit_long(tiny(), fitted, 2)
    if "frequency" in complaint:
        data = data.assign(u=data["value"], v=data["value"]).drop(columns="value")
    with pytest.raises(DataError, match=complaint):
        predict_long(estimator, data, 2)


@pytest.mark.parametrize(
    ("horizon", "quantiles", "complaint"),
    [
        (0, (), "horizon must be a whole number of steps, at least 1, found 0"),
        (True, (), "found True"),
        ("3", (), "found '3'"),
        (2.0, (), "found 2.0"),
        (1, (0.0, 0.5), "found 0.0"),
        (1, (0.5, 1.0), "found 1.0"),
        (1, ("a",), "found 'a'"),
        (1, (float("nan"),), "found nan"),
        (1, (0.1, 0.5, 0.1), "found 0.1 twice"),
    ],
)
def test_requests_that_are_refused(horizon, quantiles, complaint):
    with pytest.raises(DataError) as refusal:
        check_request(horizon, quantiles)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("method", "parameters", "complaint"),
    [
        ("autotime", {}, f"method must be one of {', '.join(METHODS)}, found 'autotime'"),
        ("autotimes", {"max_step": 2}, "did you mean 'max_steps'?"),
        ("autotimes", {"zzz": 2}, "it has adaptive, backbone"),
        ("autotimes", {"batch_size": "8"}, "batch_size must be a whole number, found '8'"),
        ("autotimes", {"adaptive": 1}, "adaptive must be true or false, found 1"),
        ("autotimes", {"quantiles": [0.1, "b"]}, "quantiles must be a list of numbers"),
    ],
)
def test_forecasters_that_are_refused(method, parameters, complaint):
    with pytest.raises(DataError) as refusal:
        make_forecaster(method, **parameters)
    assert complaint in str(refusal.value)


def test_requests_are_refused_before_the_data_are_read():
    with pytest.raises(DataError, match="horizon"):
        tsllm.forecast("no such file.csv", 0)


@pytest.mark.filterwarnings("default")
def test_a_constant_series_is_named_once():
    frame = long_frame({"a": 40, "b": 40})
    frame.loc[frame["series_id"] == "b", "value"] = 7.0
    with pytest.warns(UserWarning) as caught:
        fit_long(tiny(), read_long(frame))
    assert ["'b'" in str(w.message) for w in caught] == [True]


def test_what_is_stored_of_a_stream_is_forecast_as_predict_does():
    # More rows than the context keeps: what came before is in the state alone.
    days = pd.date_range("2024-01-01", periods=120, freq="D")
    y = pd.Series(np.sin(np.arange(120.0)) + np.arange(120.0) / 50, index=days)
    forecaster = small("aaren").fit(y.iloc[:40])
    for k in range(40, 120, 8):
        forecaster.update(y.iloc[k : k + 8])
    stored = predict_stored(forecaster, 3, quantiles=[0.1, 0.9])
    np.testing.assert_array_equal(stored["forecast"], forecaster.predict(fh=[1, 2, 3]))
    quantiles = forecaster.predict_quantiles(fh=[1, 2, 3], alpha=[0.1, 0.9]).to_numpy()
    np.testing.assert_array_equal(stored[["q0.1", "q0.9"]], quantiles)


def test_forecasts_have_the_time_zone_of_the_series(tmp_path):
    days = pd.date_range("2024-03-01", periods=40, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"timestamp": days, "y": np.sin(np.arange(40.0))})
    frame.to_csv(tmp_path / "data.csv", index=False)  # +01:00, and +02:00 from 31 March on
    with pytest.raises(DataError, match="tz='Europe/Berlin'"):
        forecast(tmp_path / "data.csv", 3)
    table = forecast(tmp_path / "data.csv", 3, tz="Europe/Berlin")
    ahead = pd.date_range(days[-1], periods=4, freq="D")[1:]
    assert table["timestamp"].tolist() == ahead.tolist()
    pd.testing.assert_frame_equal(table, forecast(frame, 3))


def test_the_stamps_of_each_series_follow_its_own_end_and_step():
    ends = {
        "a": ("2024-01-05", "D"),
        "b": ("2024-01-05", "D"),
        "c": ("2024-01-06", "D"),
        "d": ("2024-01-05", "12h"),
    }
    contexts = [
        tsllm.Context(
            np.arange(3.0), times=pd.date_range(end=end, periods=3, freq=freq), series_id=name
        )
        for name, (end, freq) in ends.items()
    ]
    values = np.zeros((4, 2, 1, 1))  # (series, horizon, variables, 1 + quantiles)
    found = forecasts_to_long(values, contexts, list(ends), ["value"], [])
    for name, (end, freq) in ends.items():
        own = found.loc[found["series_id"] == name, "timestamp"].tolist()
        assert own == pd.date_range(end, periods=3, freq=freq)[1:].tolist()
