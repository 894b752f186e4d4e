"""Event models behind MLflow: events in, next events out."""

import json

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model

import tsllm.mlflow
from tsllm.events import NaiveEventForecaster
from tsllm.mlflow.serving import RequestError


def events(n=24):
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(1, n + 1) ** 1.1, unit="h")
    names = np.where(np.arange(n) % 2, "a", "b")
    return pd.DataFrame(
        {"sequence_id": names, "time": times, "type": np.resize(["x", "y", "x"], n)}
    )


@pytest.fixture(scope="module")
def model():
    return NaiveEventForecaster(types="markov", random_state=0).fit(events())


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow-events") / "model"
    tsllm.mlflow.save_model(model, str(path))
    return path


@pytest.fixture(scope="module")
def served(saved):
    return mlflow.pyfunc.load_model(str(saved))


def test_a_request_is_predicted_from_its_own_events(model, served):
    history = events(7)
    answer = served.predict(history, params={"horizon": 2, "quantiles": [0.25]})
    expected = model.predict(history, n_steps=2, levels=[0.25])
    pd.testing.assert_frame_equal(answer, expected)
    assert list(answer["step"]) == [1, 2, 1, 2]


def test_json_times_are_read_as_those_of_the_training(model, served):
    history = events(6)
    sent = json.loads(history.assign(time=history["time"].astype(str)).to_json(orient="records"))
    answer = served.predict(pd.DataFrame(sent))
    pd.testing.assert_frame_equal(answer, model.predict(history))


def test_without_events_the_sequences_that_the_model_keeps_continue(model, served):
    everything = served.predict(pd.DataFrame({"sequence_id": []}))
    pd.testing.assert_frame_equal(everything, model.predict())
    one = served.predict(pd.DataFrame({"sequence_id": ["a"]}))
    assert set(one["sequence_id"]) == {"a"}


def test_one_sequence_needs_no_name(served):
    answer = served.predict(events(5).drop(columns="sequence_id"))
    assert len(answer) == 1


def test_silence_until_the_window_ends_moves_the_prediction(served):
    history = events(5).drop(columns="sequence_id")
    last = history["time"].max()
    later = history.assign(window_start=history["time"].min() - pd.Timedelta("1h"))
    later["window_end"] = last + pd.Timedelta("9h")
    assert served.predict(later)["time"][0] > last + pd.Timedelta("9h")


@pytest.mark.parametrize(
    ("request_", "params", "words"),
    [
        (events(4).assign(type="z"), {}, "'z'"),
        (events(4).drop(columns="type"), {}, "no column 'type'"),
        (events(4).iloc[::-1], {}, "later|sort|order"),
        (pd.DataFrame({"sequence_id": ["nobody"]}), {}, "nobody"),
        (events(4), {"horizon": 0}, "n_steps|horizon"),
        (events(4), {"horizon": 10**6}, "10,000"),
        (events(4), {"quantiles": [1.5]}, "1.5"),
    ],
)
def test_bad_requests_end_in_one_sentence(served, request_, params, words):
    with pytest.raises(RequestError, match=words) as caught:
        served.predict(request_, params=params)
    assert "\n" not in str(caught.value)
    assert caught.value.get_http_status_code() == 400


def test_bad_sequences_can_be_left_out(served):
    history = events(7)
    bad = history[history["sequence_id"] == "a"].assign(sequence_id="bad", type="z")
    answer = served.predict(pd.concat([bad, history]), params={"on_error": "skip"})
    expected = served.predict(history)
    pd.testing.assert_frame_equal(answer[:-1].drop(columns="error"), expected, check_dtype=False)
    assert answer.iloc[-1]["sequence_id"] == "bad" and "'z'" in answer.iloc[-1]["error"]


def test_the_input_example_can_be_sent(saved, served):
    example = Model.load(str(saved)).load_input_example(str(saved))
    assert len(served.predict(example)) == 1
