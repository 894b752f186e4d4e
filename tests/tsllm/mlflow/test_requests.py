"""Requests: all forms of the same history give the same answer, and bad ones one sentence."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from long_frames import fit_tiny, long_frame

import tsllm
import tsllm.mlflow

#: Asks for all series that the model keeps.
ALL = pd.DataFrame({"series_id": []})

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")

ISO = "%Y-%m-%d %H:%M:%S"
FORMS = {
    "microseconds": lambda f: f,
    "nanoseconds": lambda f: f.assign(timestamp=f["timestamp"].astype("datetime64[ns]")),
    "text": lambda f: f.assign(timestamp=f["timestamp"].dt.strftime(ISO)),
    "objects": lambda f: f.astype(object),
    "float32": lambda f: f.astype({"value": "float32"}),
    "no future": lambda f: f.assign(future=False),
    "future unknown": lambda f: f.assign(future=None),
    "other columns": lambda f: f.assign(colour="red"),
    "odd index": lambda f: f.set_axis(range(7, 7 + len(f))),
    "columns turned": lambda f: f[["value", "timestamp", "series_id"]],
}


@pytest.fixture(scope="module")
def expected(forecaster, frame):
    from tsllm.datasets import read_long
    from tsllm.tables.forecast import predict_long

    return predict_long(forecaster, read_long(frame), 3)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_history_is_understood(served, frame, expected, form):
    answer = served.predict(FORMS[form](frame))
    pd.testing.assert_frame_equal(answer, expected, rtol=1e-4, check_dtype=False)


def test_names_and_values_may_be_whole_numbers(served, frame):
    whole = frame.assign(
        series_id=frame["series_id"].str[1:].astype(int),
        value=frame["value"].round().astype(int),
    )
    answer = served.predict(whole, params={"horizon": 1})
    assert answer["series_id"].tolist() == [str(i) for i in range(8)]
    same = served.predict(whole.astype({"value": float}), params={"horizon": 1})
    assert answer["forecast"].tolist() == same["forecast"].tolist()


def test_stamps_keep_their_zone(served, frame, expected):
    zoned = frame.assign(timestamp=frame["timestamp"].dt.tz_localize("UTC"))
    answer = served.predict(zoned)
    assert answer["timestamp"].dt.tz_localize(None).tolist() == expected["timestamp"].tolist()


def test_a_single_series_needs_no_name(served, frame, expected):
    alone = frame[frame["series_id"] == "s0003"].drop(columns="series_id")
    answer = served.predict(alone, params={"quantiles": []})
    assert list(answer) == ["series_id", "timestamp", "forecast"]
    wanted = expected[expected["series_id"] == "s0003"]["forecast"].tolist()
    assert answer["forecast"].tolist() == pytest.approx(wanted, rel=1e-5)


def test_unseen_series_are_forecast(served):
    unseen = long_frame(12).query("series_id > 's0008'")
    answer = served.predict(unseen, params={"horizon": 7, "quantiles": [0.25]})
    assert answer["series_id"].unique().tolist() == ["s0009", "s0010", "s0011"]
    assert len(answer) == 21 and np.isfinite(answer[["forecast", "q0.25"]]).all().all()


def test_missing_values_are_masked(served, frame):
    holes = frame.assign(value=frame["value"].astype(object).where(frame.index % 9 != 0, None))
    assert np.isfinite(served.predict(holes)["forecast"]).all()


def test_without_history_the_stored_one_is_used(served, expected):
    pd.testing.assert_frame_equal(served.predict(ALL), expected, rtol=1e-5)
    some = served.predict(pd.DataFrame({"series_id": ["s0005", "s0001"]}))
    wanted = expected.set_index("series_id").loc[["s0005", "s0001"]].reset_index()
    pd.testing.assert_frame_equal(some, wanted, rtol=1e-5)


def test_a_payload_gives_what_predict_gives(served, forecaster):
    payload = forecaster.to_payload(2)
    split = payload["dataframe_split"]
    answer = served.predict(
        pd.DataFrame(split["data"], columns=split["columns"]), params=payload["params"]
    )
    own = forecaster.predict(fh=[1, 2])["value"].tolist()
    assert answer["forecast"].tolist() == pytest.approx(own, rel=1e-6)


@pytest.mark.parametrize(
    ("y", "stamp"),
    [
        (pd.Series(range(40), pd.period_range("2020-01", periods=40, freq="M")), "2023-05"),
        (pd.Series(range(40), pd.date_range("2020-01-01", periods=40, freq="MS")), "2023-05-01"),
        (pd.Series(range(40), name="sales"), 40),
        (pd.Series(range(40), pd.RangeIndex(1825, 2025, 5)), 2025),
    ],
    ids=["periods", "month starts", "steps", "every fifth year"],
)
def test_all_kinds_of_time_travel_as_payload(y, stamp, tmp_path):
    y = (y + np.sin(np.arange(40))).astype(float)
    forecaster = tsllm.DLinearForecaster(context_length=12, max_steps=2, random_state=0)
    forecaster.fit(y, fh=[1, 2])
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    payload = forecaster.to_payload(2)
    split = payload["dataframe_split"]
    answer = served.predict(
        pd.DataFrame(split["data"], columns=split["columns"]), params=payload["params"]
    )
    assert answer["forecast"].tolist() == pytest.approx(forecaster.predict().tolist(), rel=1e-6)
    first = answer["timestamp"][0]
    assert (first if isinstance(stamp, int) else str(first)[: len(stamp)]) == stamp
    example = served.metadata.load_input_example(str(tmp_path / "model"))
    assert len(served.predict(example)) == 2


@pytest.mark.parametrize("freq", ["M", "Q", "W-SUN", "Y", "D", "h"])
def test_periods_travel_by_name_or_date_and_nothing_is_guessed(freq, tmp_path):
    y = pd.Series(np.sin(np.arange(40.0)), pd.period_range("1990-03", periods=40, freq=freq))
    forecaster = tsllm.DLinearForecaster(context_length=12, max_steps=2, random_state=0)
    own = forecaster.fit(y, fh=[1, 2]).predict()
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    names = pd.DataFrame({"timestamp": y.index.astype(str), "y": y.to_numpy()})
    for form in (names, names.assign(timestamp=y.index.to_timestamp())):
        answer = served.predict(form, params={"horizon": 2})
        assert answer["timestamp"].tolist() == own.index.astype(str).tolist()
    wrong = [3, "31.12.2024", "2024-13", "x", "", None, True, 2.5, "2024-01-31T00:00+02:00"]
    wrong += [] if freq == "Y" else ["2024"]
    for stamp in wrong:
        with pytest.raises(mlflow.MlflowException, match=r"row 7 has the stamp .*, no period"):
            served.predict(
                names.assign(timestamp=names["timestamp"].where(names.index != 7, stamp))
            )


ZONED = pd.date_range("2024-03-29", periods=40, freq="D", tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("index", "stamps"),
    [
        (ZONED, ["2024-05-08T00:00:00+02:00", "2024-05-09T00:00:00+02:00"]),
        (
            pd.date_range("2024-09-17", periods=40, freq="D", tz="Europe/Berlin"),
            ["2024-10-27T00:00:00+02:00", "2024-10-28T00:00:00+01:00"],
        ),
        (
            pd.date_range("2023-06-25", periods=40, freq="W-SUN", tz="Europe/Berlin"),
            ["2024-03-31T00:00:00+01:00", "2024-04-07T00:00:00+02:00"],
        ),
        (
            pd.date_range("2020-07-01", periods=40, freq="MS", tz="Europe/Berlin"),
            ["2023-11-01T00:00:00+01:00", "2023-12-01T00:00:00+01:00"],
        ),
        (
            pd.date_range("2024-10-25 10:00", periods=40, freq="h", tz="Europe/Berlin"),
            ["2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00"],
        ),
        (
            pd.date_range("2024-10-25 10:00", periods=40, freq="h", tz="UTC"),
            ["2024-10-27T02:00:00+00:00", "2024-10-27T03:00:00+00:00"],
        ),
    ],
    ids=["D in spring", "D in autumn", "W", "MS", "h in autumn", "UTC"],
)
def test_a_model_with_a_time_zone_reads_its_own_payload(index, stamps, tmp_path):
    """The answer carries offsets, across clock changes; a request in UTC is the same one."""
    y = pd.Series(np.sin(np.arange(40.0)), index, name="sales")
    forecaster = tsllm.DLinearForecaster(context_length=36, max_steps=2, random_state=0)
    own = forecaster.fit(y, fh=[1, 2]).predict()
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    payload = json.loads(json.dumps(forecaster.to_payload(2)))
    request = pd.DataFrame(**payload["dataframe_split"])
    assert request["timestamp"].iloc[-1] == index[-1].isoformat()
    for stamp in (str, lambda text: str(pd.Timestamp(text).tz_convert("UTC"))):
        answer = served.predict(request.assign(timestamp=request["timestamp"].map(stamp)))
        assert [one.isoformat() for one in answer["timestamp"]] == stamps
        assert answer["timestamp"].tolist() == own.index.tolist()
        assert answer["forecast"].tolist() == pytest.approx(own.tolist(), rel=1e-6)


BAD = {
    "text": (lambda f: f.assign(value="x"), {}, "no number"),
    "infinite": (lambda f: f.assign(value=np.inf), {}, "inf"),
    "no values": (lambda f: f.drop(columns="value"), {}, "no column 'value'"),
    "no stamps": (lambda f: f.drop(columns="timestamp"), {}, "no column 'timestamp'"),
    "milliseconds": (
        lambda f: f.assign(timestamp=f["timestamp"].astype("int64")),
        {},
        r"integer times, to which freq='D' does not apply; send dates",
    ),
    "day first": (lambda f: f.assign(timestamp="31.12.2024"), {}, "year first"),
    "twice": (lambda f: pd.concat([f, f.tail(1)]), {}, "same stamp"),
    "gap": (lambda f: f.drop(index=5), {}, "send the missing rows"),
    "other frequency": (lambda f: f.iloc[::2], {}, "freq"),
    "empty": (lambda f: pd.DataFrame(), {}, "none of the model's"),
    "no rows": (lambda f: f.head(0), {}, "'timestamp' and no rows"),
    "nothing known": (lambda f: f[["value"]].set_axis(["x"], axis=1), {}, "none of the model's"),
    "unknown name": (lambda f: pd.DataFrame({"series_id": ["x"]}), {}, "no history of series 'x'"),
    "no name": (lambda f: pd.DataFrame({"series_id": [None, "s0001"]}), {}, "row 0"),
    "half": (
        lambda f: pd.concat([f, pd.DataFrame({"series_id": ["s0001"]})], ignore_index=True),
        {},
        "its history, or none",
    ),
    "future": (lambda f: f.assign(future=True), {}, "reads none"),
    "horizon": (lambda f: f, {"horizon": 0}, "at least 1"),
    "long horizon": (lambda f: f, {"horizon": 10**9}, "up to 10,000"),
    "quantile": (lambda f: f, {"quantiles": [1.5]}, "between 0 and 1"),
    "many quantiles": (lambda f: f, {"quantiles": [0.5] * 101}, "101 quantiles .* up to 100"),
    "one quantile": (lambda f: f, {"quantiles": 0.5}, "must be a list"),
    "quantiles as text": (lambda f: f, {"quantiles": ["0.5"]}, "list of numbers, found '0.5'"),
    "half a horizon": (lambda f: f, {"horizon": 2.5}, "whole number"),
    "horizon as text": (lambda f: f, {"horizon": "x" * 10_000}, "whole number.{,150}$"),
    "unknown parameter": (lambda f: f, {"horizn": 3}, "'horizn'.*reads horizon, quantiles"),
    "on_error": (lambda f: f, {"on_error": "ignore"}, "on_error must be 'raise'"),
    "params": (lambda f: f, [3], "must be an object"),
    "no table": (lambda f: "much", {}, "must be a table"),
    "two columns": (lambda f: f[["series_id", "value", "value"]], {}, "two columns 'value'"),
    "a list as name": (
        lambda f: f.assign(series_id=[["a"]] * len(f)),
        {},
        r"row 0, column 'series_id' holds \['a'\]",
    ),
    "a number as name": (lambda f: f.assign(series_id=1.5), {}, "row 0.*holds 1.5"),
    "truth as name": (lambda f: f.assign(series_id=True), {}, "row 0.*holds True"),
    "unordered": (lambda f: f[::-1], {}, "send the rows of each series in the order of time$"),
    "large": (lambda f: f.assign(value=f["value"] * 1e306), {}, "too large|1e"),
    "future as text": (lambda f: f.assign(future="false"), {}, "row 0, column 'future'"),
    "quantile twice": (lambda f: f, {"quantiles": [0.5, 0.5]}, "twice"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_requests_get_one_sentence(served, frame, bad):
    change, params, words = BAD[bad]
    with pytest.raises(mlflow.MlflowException, match=words) as caught:
        served.predict(change(frame), params=params or None)
    assert caught.value.get_http_status_code() == 400
    assert "\n" not in caught.value.message and "--" not in caught.value.message
    caught.value.message = "Failed to predict data 'everything'"  # as MLflow's server does
    assert "everything" not in caught.value.serialize_as_json()


def test_bad_series_can_be_left_out_and_are_listed(served, frame):
    bad = frame.drop(index=5)  # a gap in the first series
    bad.loc[bad["series_id"] == "s0003", "value"] = None
    answer = served.predict(bad, params={"horizon": 2, "on_error": "skip"})
    good = frame[~frame["series_id"].isin(["s0000", "s0003"])]
    expected = served.predict(good, params={"horizon": 2})
    told = answer["error"].notna()
    pd.testing.assert_frame_equal(answer[~told].drop(columns="error"), expected, rtol=1e-5)
    reasons = answer[told].set_index("series_id")["error"]
    assert sorted(reasons.index) == ["s0000", "s0003"]
    assert "send the missing rows" in reasons["s0000"]
    assert all(f"series {name!r}" in reason for name, reason in reasons.items())
    whole = served.predict(frame, params={"on_error": "skip"})
    assert whole["error"].isna().all() and len(whole) == 24
    some = pd.DataFrame({"series_id": ["s0001", "nobody"]})
    stored = served.predict(some, params={"horizon": 1, "on_error": "skip"})
    assert stored["series_id"].tolist() == ["s0001", "nobody"]
    assert "send its history" in stored["error"][1]


def test_a_request_of_bad_series_only_is_refused(served, frame):
    with pytest.raises(mlflow.MlflowException, match="none of the 8 series") as caught:
        served.predict(frame.assign(value=None), params={"on_error": "skip"})
    assert caught.value.get_http_status_code() == 400


def test_too_large_requests_are_refused(forecaster, frame, tmp_path):
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    small = {"max_rows": 100, "max_values": 40}
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"), model_config=small)
    with pytest.raises(mlflow.MlflowException, match=r"this server takes 100"):
        served.predict(frame)
    with pytest.raises(mlflow.MlflowException, match=r"would hold 96 numbers .* sends 40"):
        served.predict(ALL)
    assert len(served.predict(frame.head(80), params={"horizon": 2})) == 4


def test_what_is_not_the_clients_fault_is_500_and_says_nothing_of_the_inside(served, monkeypatch):
    def fail(*arguments, **keywords):
        raise RuntimeError("secret path /etc")

    monkeypatch.setattr("tsllm.mlflow.series.predict_stored", fail)
    with pytest.raises(mlflow.MlflowException) as caught:
        served.predict(ALL)
    assert caught.value.get_http_status_code() == 500
    assert "secret" not in caught.value.message


def test_many_threads_get_their_own_series_answer(saved):
    """8 clients, each request another series; the answers are those that one client alone gets."""
    served = mlflow.pyfunc.load_model(str(saved), model_config={"max_concurrent": 8})
    frame = long_frame(16)
    requests = [part for _, part in frame.groupby("series_id", sort=False)]
    alone = [served.predict(request)["forecast"].to_numpy() for request in requests]
    stored = served.predict(ALL)["forecast"].to_numpy()
    together = threading.Barrier(8)

    def client(number):
        together.wait()
        for i in range(number, 4 * len(requests), 8):
            i %= len(requests)
            answer = served.predict(requests[i])
            assert (answer["series_id"] == f"s{i:04d}").all()
            np.testing.assert_allclose(answer["forecast"], alone[i], rtol=1e-6)
        np.testing.assert_allclose(served.predict(ALL)["forecast"], stored, rtol=1e-6)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))


def test_an_aaren_model_is_served_from_its_state(tmp_path):
    frame = long_frame(3, 60)
    forecaster = fit_aaren(frame)
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    answer = served.predict(ALL, params={"quantiles": []})
    own = forecaster.predict(fh=[1, 2])["value"].tolist()
    assert answer["forecast"].tolist() == pytest.approx(own, rel=1e-6)


def fit_aaren(frame):
    from small_forecasters import small

    return small("aaren").fit(frame.set_index(["series_id", "timestamp"]), fh=[1, 2])


def test_several_variables_are_matched_by_name(tmp_path):
    frame = long_frame(3)
    frame["price"] = frame["value"] ** 2
    forecaster = fit_tiny(frame)
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    answer = served.predict(frame[["price", "series_id", "value", "timestamp"]])
    assert answer["variable"].tolist()[:6] == ["value"] * 3 + ["price"] * 3
    same = served.predict(frame)
    np.testing.assert_allclose(answer["forecast"], same["forecast"])
