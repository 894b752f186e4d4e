"""Events in nested lists: EasyTPP's records, lists of events, and tick's arrays."""

import copy
import gzip
import json
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from data_files import complaint_of

from tsllm.datasets import read_events
from tsllm.events import NaiveEventForecaster

RECORDS = [
    {
        "seq_idx": number,
        "seq_len": 3,
        "dim_process": 3,
        "time_since_start": [0.0, 0.5, 1.5 + number],
        "time_since_last_event": [0.0, 0.5, 1.0 + number],
        "type_event": [0, 2, 1],
    }
    for number in range(3)
]

complaint = partial(complaint_of, read_events)


def as_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sequence_id": np.repeat([0, 1, 2], 3),
            "time": [0.0, 0.5, 1.5, 0.0, 0.5, 2.5, 0.0, 0.5, 3.5],
            "type": [0, 2, 1] * 3,
        }
    )


def changed(**fields):
    """Return the records with other fields in record 1; None leaves one out."""
    records = copy.deepcopy(RECORDS)
    for name, value in fields.items():
        if value is None:
            del records[1][name]
        else:
            records[1][name] = value
    return records


def test_records_hold_the_same_in_every_form(tmp_path):
    expected = read_events(as_frame())
    text = json.dumps(RECORDS)
    lines = "\n".join(map(json.dumps, RECORDS))
    (tmp_path / "list.json").write_text(text)
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "lines.jsonl").write_text(lines)
    (tmp_path / "LIST.JSON.GZ").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "rows.json").write_text(as_frame().to_json(orient="records"))
    pd.DataFrame(RECORDS).to_parquet(tmp_path / "records.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read_events(path) == expected, path.name
    by_event = [
        [
            {"time_since_start": time, "type_event": kind}
            for time, kind in zip(one["time_since_start"], one["type_event"])
        ]
        for one in RECORDS
    ]
    arrays = [{key: np.array(value) for key, value in one.items()} for one in RECORDS]
    for source in (RECORDS, tuple(RECORDS), pd.DataFrame(RECORDS), by_event):
        assert read_events(source) == expected
    assert read_events([{k: v for k, v in one.items() if v.ndim} for one in arrays]) == expected
    assert read_events(RECORDS[1]) == expected.select(["1"])
    named = read_events([{**one, "seq_idx": f"user {one['seq_idx']}"} for one in RECORDS])
    assert named.ids == ("user 0", "user 1", "user 2")


def test_arrays_of_tick_have_a_type_for_each_node():
    one = read_events([np.array([0.1, 0.9]), np.array([0.5]), np.array([])], windows=(0, 1))
    assert one.times[0].tolist() == [0.1, 0.5, 0.9] and one.types[0].tolist() == ["0", "1", "0"]
    many = read_events([[np.array([0.1, 0.9]), np.array([0.5])], [np.array([]), np.array([0.2])]])
    assert many.ids == ("0", "1") and many.types[1].tolist() == ["1"]


def test_a_sequence_without_events_needs_a_window():
    silent = [[np.array([0.1])], [np.array([])]]
    assert read_events(silent, windows=(0.0, 1.0)).ids == ("0", "1")
    assert "sequence '1' has no events and no known window" in complaint(silent)
    own = changed(time_since_start=[], type_event=[], seq_len=0, time_since_last_event=[])
    own[1] |= {"window_start": 0.0, "window_end": 2.0}
    table = read_events(own)
    assert table.ids == ("0", "2", "1") and table.ends[2] == 2.0 and np.isnan(table.ends[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type_event": [0, 1]}, "record 1 has 3 times and 2 types"),
        ({"time_since_last_event": [0.0]}, "3 times and 1 values of 'time_since_last_event'"),
        ({"seq_len": 4}, "3 events and seq_len=4"),
        ({"type_event": [0, 1, 3]}, "event 2 has the type 3, and dim_process=3 allows"),
        ({"type_event": [0, 1, -1]}, "has the type -1"),
        ({"type_event": [0, 0.5, 1]}, "has the type 0.5"),
        ({"type_event": [0, True, 1]}, "has the type True"),
        ({"type_event": [0, None, 1]}, "event 1 of record 1 of the list has no type"),
        ({"dim_process": 2}, "record 1, event 1 has the type 2, and dim_process=2"),
        ({"dim_process": 9}, "record 1 has dim_process=9, and record 0 has 3"),
        ({"dim_process": "3"}, "dim_process='3'"),
        ({"time_since_start": [0.0, 0.5, 0.4]}, "event 2 of record 1 .* is earlier than event 1"),
        ({"time_since_start": [0.0, None, 0.4]}, "event 1 of record 1 has no time"),
        ({"time_since_start": [0.0, "x", 0.4]}, "event 1 of record 1 has the time 'x'"),
        ({"time_since_start": [0.0, float("nan"), 1]}, "has the time nan"),
        ({"time_since_start": [0.0, 1, 10**400]}, "event 2 of record 1 has the time 1000"),
        ({"time_since_start": [0.0, [1], 2]}, r"has the time \[1\]"),
        ({"time_since_start": 3.0}, "record 1 has 3.0 as 'time_since_start'"),
        ({"type_event": None}, "record 1 has no 'type_event'"),
        ({"seq_idx": 2}, "record 1 and record 2 both have seq_idx=2"),
        ({"seq_idx": None}, "differ in 'seq_idx'"),
    ],
)
def test_malformed_records_are_refused_in_one_sentence(fields, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_events(changed(**fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "is empty"),
        ([[], []], "holds no events"),
        ([1, 2], "holds 1 and no events"),
        ({"dim_process": 2, "train": [[]], "dev": [[]]}, r"pass one of them, .*data\['train'\]"),
        ({"a": 1}, "no field 'time_since_start'"),
        ([RECORDS[0], 3], "record 1 is 3"),
        ([np.array([0.5, 0.1])], "node 0 has the time 0.1 at 1, earlier than 0.5"),
        ([[np.array([0.1])], [np.array([0.1]), np.array([])]], "realisation 1 has 2 nodes"),
        ([["a"]], "node 0 is no array of numbers"),
        ([[np.nan]], "node 0 has no finite time"),
        ([[{"type_event": 1}]], "event 0 of sequence 0 has no 'time_since_start'"),
    ],
)
def test_other_lists_are_refused(source, words):
    with pytest.raises(ValueError, match=words):
        read_events(source)
    with pytest.raises(ValueError, match="id_col"):
        read_events(RECORDS, id_col=None)
    with pytest.raises(ValueError, match="no field 'user'"):
        read_events(RECORDS, id_col="user")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.pkl", pickle.dumps(RECORDS), "'train.pkl' is a pickle file"),
        ("train.json", pickle.dumps(RECORDS), "'train.json' is no text"),
        ("cut.json", json.dumps(RECORDS)[:-5].encode(), "'cut.json', line 1 is no JSON"),
        ("cut.json.gz", gzip.compress(b"[]" * 99, mtime=0)[:20], "'cut.json.gz' cannot be read"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("twice.json", b'[{"time": 1, "time": 2}]', "gives 'time' twice"),
        ("number.json", b"3", "holds one value"),
        ("lines.json", b'{"time": 1, "type": 2}\n{"time": }', "line 2 is no JSON"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_events(tmp_path / name)


def test_whole_numbers_with_decimal_places_are_the_same_type(tmp_path):
    path = tmp_path / "types.csv"
    path.write_text("time,type\n1,0\n2,0.0\n3,1\n")
    with pytest.warns(UserWarning, match="0.0 is read as the type '0'"):
        assert read_events(path).types[0].tolist() == ["0", "0", "1"]
    path.write_text("time,type\n1,1.0\n2,1.1\n")  # versions
    assert read_events(path).types[0].tolist() == ["1.0", "1.1"]


def test_models_know_types_and_sequences_in_both_spellings():
    model = NaiveEventForecaster(types="markov").fit(RECORDS)
    floats = pd.DataFrame({"sequence_id": [1.0, 2.0], "time": [9.0, 9.0], "type": [0.0, 1.0]})
    with pytest.warns(UserWarning, match="decimal places"):
        model.update(floats)
    assert model.history_.ids == ("0", "1", "2") and model.history_.n_events == 11
    versions = NaiveEventForecaster().fit(pd.DataFrame({"time": [1, 2], "type": ["1.0", "1.1"]}))
    with pytest.warns(UserWarning, match="decimal places"):
        versions.update(pd.DataFrame({"time": [3], "type": ["1.0"]}))
    assert versions.history_.n_events == 3


def test_a_model_of_records_predicts_records():
    model = NaiveEventForecaster(types="markov").fit(RECORDS)
    table = model.predict(RECORDS[:2])
    assert table.columns[:3].tolist() == ["sequence_id", "step", "time"] and len(table) == 2
    pd.testing.assert_frame_equal(table, model.predict(as_frame()[:6]))
