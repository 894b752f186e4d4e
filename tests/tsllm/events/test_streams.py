"""Streams of events: the predictions of update and predict, event by event."""

import pickle

import numpy as np
import pandas as pd
import pytest

import tsllm
from tsllm.datasets import make_hawkes
from tsllm.errors import DataError
from tsllm.events import HawkesForecaster, NaiveEventForecaster, PromptTPP

MODELS = {
    "hawkes": lambda: HawkesForecaster(),
    "aaren": lambda: PromptTPP("aaren", hidden=8, max_epochs=1, random_state=0),
}


@pytest.fixture(scope="module")
def parts():
    made = make_hawkes(
        [0.3, 0.2], [[0.4, 0.1], [0.2, 0.3]], [1.0, 2.0], t_end=40, n_sequences=3, random_state=0
    )
    early, late = made.events.split((0.7, 0.3))
    return early, late.to_frame().sort_values("time")[["sequence_id", "time", "type"]].head(12)


@pytest.fixture(scope="module", params=MODELS)
def model(request, parts):
    return MODELS[request.param]().fit(parts[0])


def test_each_event_moves_the_prediction_as_update_does(model, parts):
    forecaster, stream = pickle.loads(pickle.dumps(model)), model.stream()
    before = model.predict()
    for number, (name, time, kind) in enumerate(parts[1].itertuples(index=False)):
        forecaster.update(pd.DataFrame({"sequence_id": [name], "time": [time], "type": [kind]}))
        stream.observe(time, kind, sequence=name)
        if number % 4 == 0:
            stream = pickle.loads(pickle.dumps(stream))
            pd.testing.assert_frame_equal(stream.predict(), forecaster.predict(), rtol=1e-5)
    now = parts[1]["time"].max() + 0.5
    found, expected = stream.intensity(now), forecaster.predict_intensity(now).droplevel(1)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)
    pd.testing.assert_frame_equal(stream.predict(now=now), forecaster.predict(now=now), rtol=1e-5)
    pd.testing.assert_frame_equal(model.predict(), before)


def test_many_events_at_once_and_new_sequences(model, parts):
    last = float(max(times[-1] for times in parts[0].times)) + 20
    rows = pd.DataFrame(
        {
            "sequence_id": ["new", "0", "new", "1", "0"],
            "time": [last, last, last + 1, last + 0.5, last + 2],
            "type": list("01101"),
        }
    )
    stream = model.stream().observe(
        rows["time"], list(rows["type"]), sequence=rows["sequence_id"].tolist()
    )
    forecaster = pickle.loads(pickle.dumps(model)).update(rows)
    pd.testing.assert_frame_equal(stream.predict(), forecaster.predict(), rtol=1e-5)
    size = stream.nbytes
    stream.observe(last + np.arange(3, 9), ["0"] * 6, sequence=["0"] * 6)
    assert stream.nbytes == size


def test_numbers_name_sequences_and_types_as_in_update(model):
    rows = pd.DataFrame({"sequence_id": [1, 7], "time": [200.0, 201.0], "type": [1, 0]})
    stream = model.stream().observe([200.0, 201.0], [1, 0.0], sequence=[1.0, 7])
    assert stream.sequences == ["0", "1", "2", "7"]
    stream.observe(202.0, np.int64(1), sequence="7.0")
    forecaster = pickle.loads(pickle.dumps(model)).update(rows)
    forecaster.update(pd.DataFrame({"sequence_id": [7], "time": [202.0], "type": [1]}))
    pd.testing.assert_frame_equal(stream.predict(), forecaster.predict(), rtol=1e-5)
    found = stream.predict(sequences=[7.0])
    pd.testing.assert_frame_equal(found, stream.predict(sequences=["7"]))


def test_a_saved_stream_goes_on(model, tmp_path):
    stream = model.stream().observe(200.0, "1", sequence="0")
    loaded = tsllm.load(tsllm.save(stream, tmp_path / "stream"))
    for one in (stream, loaded):
        one.observe([201.0, 203.0], ["0", "1"], sequence=["0", "2"])
    pd.testing.assert_frame_equal(loaded.predict(), stream.predict())


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ((1.0, "0", "0"), "sequence '0' has reached .*, and an event at 1.0 does not come after"),
        ((99.0, "9", "0"), r"an event of the type '9', which was not seen .*known: 0, 1"),
        ((99.0, "0", None), "the stream has 3 sequences: name that of each event"),
        (("noon", "0", "0"), "time: the times noon are not numbers"),
        ((True, "0", "0"), "time must be numbers"),
        (([99.0, True], ["0", "0"], ["0", "0"]), "time: the times 99.0, True are not numbers"),
        (([[99.0]], "0", "0"), "time must be one number or stamp for each event"),
        ((99.0, ["0"], ["a", "b"]), "time has 1 entries, type 1 and sequence 2"),
        ((99.0, [["0"]], "0"), r"an event of the type \['0'\], which was not seen"),
        ((99.0, True, "0"), "an event of the type True, which was not seen"),
        ((99.0, "0", [["0"]]), r"sequence must be a name, a text or a number, found \['0'\]"),
        ((99.0, "0", [None]), "sequence must be a name, a text or a number, found None"),
        ((99.0, "0", True), "sequence must be a name, a text or a number, found True"),
        ((np.nan, "0", "0"), "time has missing or infinite entries"),
        (([98.0, 97.0], ["0", "0"], ["0", "0"]), "an event at 97.0 does not come after"),
        (([98.0], ["0", "0"], ["0"]), "time has 1 entries, type 2 and sequence 1"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(model, event, message):
    stream = model.stream()
    before = stream.predict()
    time, kind, name = event
    with pytest.raises(DataError, match=message):
        stream.observe(time, kind, sequence=name)
    pd.testing.assert_frame_equal(stream.predict(), before)
    with pytest.raises(DataError, match="'zz' is not in the stream"):
        stream.predict(sequences=["zz"])


def test_models_without_a_state_of_constant_size_have_no_stream(parts):
    with pytest.raises(DataError, match="a NaiveEventForecaster has no stream"):
        NaiveEventForecaster().fit(parts[0]).stream()
    with pytest.raises(DataError, match=r"encoder='attention' has no stream.*encoder='aaren' has"):
        PromptTPP(hidden=8, max_epochs=1, random_state=0).fit(parts[0]).stream()
