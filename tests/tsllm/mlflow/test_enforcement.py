"""What MLflow's server hands over and writes for our models, in this process."""

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.pyfunc import scoring_server

import tsllm
import tsllm.mlflow
from tsllm.errors import DataError
from tsllm.events import NaiveEventForecaster
from tsllm.mlflow.csv_requests import read_cells, read_csv
from tsllm.mlflow.sentences import for_client
from tsllm.mlflow.serving import RequestError

CSV, JSON = "text/csv", "application/json"
pytestmark = pytest.mark.filterwarnings("ignore:the intervals ", "ignore:.*all equal")


@pytest.fixture
def restored(monkeypatch):
    """Give MLflow its functions back after a test."""
    for name in ("parse_csv_input", "invocations", "predictions_to_json"):
        monkeypatch.setattr(scoring_server, name, getattr(scoring_server, name))


@pytest.fixture
def serve(restored, monkeypatch, tmp_path):
    """Save a model and load it as MLflow's server does; return a function that asks it."""
    monkeypatch.setenv(scoring_server._SERVER_MODEL_PATH, str(tmp_path))

    def load(model, **config):
        tsllm.mlflow.save_model(model, str(tmp_path / "model"))
        served = mlflow.pyfunc.load_model(str(tmp_path / "model"), model_config=config or None)

        def ask(body, content_type=JSON):
            body = body if isinstance(body, str) else json.dumps(body)
            schema = served.metadata.get_input_schema()
            answer = scoring_server.invocations(body.encode(), content_type, served, schema)
            return json.loads(answer.response, parse_constant=pytest.fail)["predictions"]

        ask.served = served
        return ask

    return load


def numbered_events():
    """Events of the sequences 007 and 7 and of the types 01 and 1, at numbers as times."""
    return pd.DataFrame(
        {
            "sequence_id": ["007"] * 5 + ["7"] * 4,
            "time": [0.5, 1.25, 2.0, 4.0, 4.5, 0.25, 1.0, 3.0, 3.5],
            "type": ["01", "1", "01", "01", "1", "01", "1", "01", "1"],
        }
    )


def test_events_in_csv_keep_their_names_and_types(serve):
    events = numbered_events()
    model = NaiveEventForecaster(types="markov", random_state=0).fit(events)
    answer = serve(model)(events.to_csv(index=False), CSV)
    expected = json.loads(model.predict(events).to_json(orient="records"))
    assert [row["sequence_id"] for row in answer] == ["007", "7"]
    assert {row["type"] for row in answer} <= {"01", "1"}
    assert [row["time"] for row in answer] == pytest.approx([row["time"] for row in expected])


@pytest.mark.usefixtures("restored")
def test_the_command_predict_reads_names_in_csv_as_text(saved, frame, tmp_path):
    """``mlflow models predict -t csv`` calls this function."""
    zeros = frame.query("series_id == 's0003'").assign(series_id="007")
    zeros.to_csv(tmp_path / "request.csv", index=False)
    places = str(saved), str(tmp_path / "request.csv"), str(tmp_path / "answer.json")
    scoring_server._predict(*places, "csv")
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert {row["series_id"] for row in answer["predictions"]} == {"007"}


def test_what_is_missing_in_an_answer_is_null(serve, monkeypatch):
    events = numbered_events()
    ask = serve(NaiveEventForecaster(types="markov", random_state=0).fit(events))
    predict = NaiveEventForecaster.predict

    def without_end(self, *arguments, **keywords):
        return predict(self, *arguments, **keywords).assign(time=np.inf, time_median=np.nan)

    monkeypatch.setattr(NaiveEventForecaster, "predict", without_end)
    (row, _) = ask({"dataframe_split": {"columns": ["sequence_id"], "data": []}})
    assert row["time"] is None and row["time_median"] is None and row["step"] == 1


@pytest.mark.parametrize(
    ("index", "next_stamp"),
    [
        (pd.RangeIndex(40), 40),
        (pd.date_range("2024-01-01", periods=40, freq="D"), "2024-02-10T00:00:00"),
        (
            pd.date_range("2024-02-21", periods=40, freq="D", tz="Europe/Berlin"),
            "2024-04-01T00:00:00+02:00",
        ),
    ],
)
def test_left_out_series_stand_in_the_answer_beside_whole_stamps(serve, index, next_stamp):
    y = pd.Series(np.sin(np.arange(40.0)), index, name="v")
    model = tsllm.DLinearForecaster(context_length=12, max_steps=2, random_state=0).fit(y, fh=1)
    ask, body = serve(model), model.to_payload(1)
    rows = body["dataframe_split"]["data"]
    rows += [["bad", stamp, value] for _, stamp, value in (rows[0], rows[1], rows[7])]
    good, bad = ask(body | {"params": {"on_error": "skip", "quantiles": [], "horizon": 1}})
    assert good["timestamp"] == next_stamp and good["error"] is None
    assert bad["series_id"] == "bad" and "series 'bad'" in bad["error"]
    assert bad["timestamp"] is None and bad["forecast"] is None


def test_a_request_that_takes_too_long_is_stopped_with_504(serve, forecaster, monkeypatch):
    ask = serve(forecaster, max_seconds=1)
    moments = iter([0.0, *[2.0] * 1_000])
    monkeypatch.setattr("tsllm.backbone.stopping.time.monotonic", lambda: next(moments))
    with pytest.raises(RequestError, match="longer than 1 seconds") as caught:
        ask({"dataframe_split": {"columns": ["series_id"], "data": []}})
    assert caught.value.get_http_status_code() == 504


def test_the_time_of_a_request_ends_before_that_of_the_server(serve, forecaster, monkeypatch):
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "12")
    ask = serve(forecaster)
    moments = iter([0.0, 9.0, 9.0, *[11.0] * 1_000])
    monkeypatch.setattr("tsllm.backbone.stopping.time.monotonic", lambda: next(moments))
    with pytest.raises(RequestError, match="longer than 10 seconds"):
        ask({"dataframe_split": {"columns": ["series_id"], "data": []}})


def test_a_request_waits_for_its_turn_no_longer_than_its_time(serve, forecaster, monkeypatch):
    ask = serve(forecaster, max_concurrent=1, max_seconds=1)
    begun, go_on = threading.Event(), threading.Event()

    def slow(*arguments, **keywords):
        begun.set()
        go_on.wait(30)
        raise DataError("enough")

    monkeypatch.setattr("tsllm.mlflow.series.predict_stored", slow)
    body = {"dataframe_split": {"columns": ["series_id"], "data": []}}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, body)
        begun.wait(30)
        with pytest.raises(RequestError, match="computed other requests") as caught:
            ask(body)
        go_on.set()
        with pytest.raises(RequestError, match="enough"):
            first.result()
    assert caught.value.get_http_status_code() == 503


def test_models_of_other_flavors_keep_mlflows_functions(serve, forecaster, monkeypatch):
    serve(forecaster)
    other = SimpleNamespace(
        loader_module="mlflow.sklearn",
        metadata=SimpleNamespace(get_params_schema=lambda: None),
        predict=lambda data: data["a"].tolist(),
    )
    body = b'{"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}'
    answer = scoring_server.invocations(body, JSON, other, None)
    assert json.loads(answer.response) == {"predictions": [1, 2]}
    with pytest.raises(mlflow.MlflowException) as caught:
        scoring_server.invocations(b"no json", JSON, other, None)
    assert not isinstance(caught.value, RequestError)


def test_a_signature_of_ones_own_is_enforced_in_a_short_sentence(forecaster, frame, tmp_path):
    signature = mlflow.models.infer_signature(frame, params={"horizon": 1})
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"), signature=signature)
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert len(served.predict(frame, params={"horizon": 1})) == 8 * 1
    with pytest.raises(RequestError) as caught:
        served.predict(frame.drop(columns="value"))
    assert len(caught.value.message) < 1_000 and "value" in caught.value.message


def test_a_sentence_for_a_client_keeps_the_names_of_the_request():
    sentence = "series 'pass (--sort) me' has a gap; pass the data to forecast from (--data)"
    assert for_client(sentence) == "series 'pass (--sort) me' has a gap; send its history"
    sentence = (
        "row 2 is off 'D'; bring them to one frequency, in a table with resample='sum' (or 'mean') "
        "and freq='D' (--resample, --freq on the command line), in y with y.resample('D').sum()"
    )
    assert for_client(sentence) == "row 2 is off 'D'; bring them to one frequency"
    assert len(for_client(f"series '{'x' * 10_000}' has a gap; pass more")) < 200


CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1, max_size=8
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=5))
def test_csv_of_any_text_is_read_as_it_was_written(rows):
    written = io.StringIO()
    pd.DataFrame(rows, columns=["name", "other"]).to_csv(written, index=False)
    written.seek(0)
    assert read_csv(written).to_numpy().tolist() == rows


def test_cells_become_what_their_columns_hold():
    text = '\ufeffname,stamp,value,future\n007,3,1.5,TRUE\n"a, b",4,NA,\nNA,,-2e3,0\n'
    frame = read_csv(io.StringIO(text))
    read = read_cells(frame, numbers=["value"], times=["stamp"], marks=["future"])
    assert read["name"].tolist() == ["007", "a, b", "NA"]
    assert read["stamp"].tolist()[:2] == [3, 4] and pd.isna(read["stamp"][2])
    np.testing.assert_array_equal(read["value"], [1.5, np.nan, -2000])
    assert read["future"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n1\n", "line 2 .* has 1 cells where the header has 2"),
        ("a,b\n1,2\n1,2,3\n", "line 3 .* has 3 cells"),
        ('a,b\n1,"2\n', "no CSV"),
        ("a;b\n1;2\n", "semicolons"),
        ("x" * 200_000, "no CSV"),
    ],
)
def test_damaged_csv_is_refused_in_a_sentence(text, words):
    with pytest.raises(DataError, match=words):
        read_csv(io.StringIO(text))
