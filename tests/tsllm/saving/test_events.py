"""Event forecasters that are saved in one process and used in another, and damaged files.

Run as a script, this file is the other process.
"""

import hashlib
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from small_events import TINY, halves, small_estimators, small_prompttpp, stream

import tsllm
from tsllm.errors import BackboneMismatchError, DataError, ModelFormatError
from tsllm.events import NaiveEventForecaster

#: One of each kind of model; all have learnt two slices, where they can.
NAMES = [
    "hawkes",
    "naive",
    "zero shot",
    "attention shared",
    "attention heads",
    "llm-full lora",
    "attention attnhp",
    "aaren lognormal_mixture",
    "llm exponential",
    "llm-full rmtpp",
]


def stamped(events):
    """The same events at timestamps with a time zone."""
    frame = events.to_frame()[["sequence_id", "time", "type"]]
    origin = pd.Timestamp("2024-03-30", tz="Europe/Berlin")
    return frame.assign(time=origin + pd.to_timedelta(frame["time"], unit="h"))


def learnt(name):
    """A model that has been fitted, has learnt a slice and has been updated."""
    first, second = halves()
    model = small_estimators()[name].set_params(time_unit="h")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(stamped(first))
        if hasattr(model, "partial_fit"):
            model.partial_fit(stamped(second))
    later = stamped(stream(seed=5)).assign(sequence_id="later")
    # The running states of the other encoders are made anew: the same, to rounding.
    exact = not name.startswith(("attention", "llm"))
    return model.update(later.head(4)) if exact else model


def exercise(model):
    """Do everything that a fitted event forecaster can do, and tell what came out."""
    events = stamped(stream(seed=7))
    more = stamped(stream(seed=5)).assign(sequence_id="later").iloc[4:6]
    told = {
        "parameters": {k: v for k, v in model.get_params().items() if k != "embedding_store"},
        "predict": model.predict(n_steps=2, n_paths=4),
        "quantiles": model.predict_quantiles(levels=(0.2, 0.8)),
        "score": model.score(events),
        "sample": model.sample(2, n_events=2),
        "history": model.history_.to_frame(),
        "windows": model.history_.windows(),
    }
    if hasattr(model, "retrieve"):
        told["retrieve"] = model.retrieve()
        told["slots"] = pd.DataFrame(model.slot_history_)
        told["summary"] = model.summary()
    told["after an update"] = model.update(more).predict()
    return told


def check_same(got, expected):
    """Equal in every bit, every label and every dtype."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(got[name], value, check_exact=True)
        else:
            assert got[name] == value, name


def other_process(folder):
    torch.set_num_threads(1)
    told = {place.name: exercise(tsllm.load(place)) for place in sorted(folder.iterdir())}
    (folder.parent / "told.pickle").write_bytes(pickle.dumps(told))


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    """The predictions of the originals and of the other process, and the folder of the models."""
    folder = tmp_path_factory.mktemp("exchanged") / "models"
    said = {}
    for name in NAMES:
        model = learnt(name)
        tsllm.save(model, folder / name)
        said[name] = exercise(model)
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return said, pickle.loads((folder.parent / "told.pickle").read_bytes()), folder


@pytest.fixture(scope="module")
def model():
    return small_prompttpp("aaren").fit(stream())


@pytest.fixture
def saved(model, tmp_path):
    return tsllm.save(model, tmp_path / "model")


@pytest.mark.parametrize("name", NAMES)
def test_another_process_says_the_same(exchanged, name):
    said, told, _ = exchanged
    check_same(told[name], said[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_files_hold_no_backbone_and_can_be_read_by_others(exchanged, name):
    _, _, folder = exchanged
    files = {file.name: file.stat().st_size for file in (folder / name).iterdir()}
    assert files.keys() == {"model.safetensors", "config.json", "context.parquet", "card.md"}
    assert sum(files.values()) < 200_000
    table = pd.read_parquet(folder / name / "context.parquet")
    assert list(table) == ["sequence", "sequence_id", "time", "type", "timestamp"]
    assert set(table["sequence_id"]) >= {"0", "1", "2"}
    card = (folder / name / "card.md").read_text()
    assert "events of 2 types: bark, bite" in card and "h\n" in card
    assert ("Slice 1" in card) == hasattr(small_estimators()[name], "partial_fit")


def test_without_its_history(model, tmp_path):
    path = tsllm.save(model, tmp_path / "model", include_context=False)
    assert not (path / "context.parquet").exists()
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    assert not any(name.startswith("state.running.") for name in tensors)
    assert not any(len(tensor) for name, tensor in tensors.items() if "state.history" in name)
    loaded = tsllm.load(path)
    for predict in (loaded.predict, loaded.predict_proba, loaded.retrieve):
        with pytest.raises(DataError, match=r"saved without its history: .*update\(events\)"):
            predict()
    events = stream()
    assert loaded.score(events) == model.score(events)
    pd.testing.assert_frame_equal(loaded.predict(events), model.predict(events))
    pd.testing.assert_frame_equal(
        loaded.update(events).predict(), model.predict(), check_exact=False, rtol=1e-4
    )


@pytest.mark.parametrize("encoder", ["attention", "llm-full"])
def test_running_states_are_made_anew(tmp_path, encoder):
    events = stream().to_frame()[["sequence_id", "time", "type"]]
    model = small_prompttpp(encoder).fit(events[events["time"] <= 18])
    for low, high in ((18, 21), (21, 24)):
        model.update(events[(events["time"] > low) & (events["time"] <= high)])
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    numbers = list(model.predict().select_dtypes("number"))
    np.testing.assert_allclose(loaded.predict()[numbers], model.predict()[numbers], rtol=1e-4)


def test_learning_goes_on_after_loading(tmp_path):
    first, second = halves()
    model = small_prompttpp().fit(first)
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    assert loaded.partial_fit(second).score(first) == model.partial_fit(second).score(first)


@pytest.mark.parametrize("ids", [("b", "a"), (2, 1)])
def test_ids_and_columns_of_every_kind(tmp_path, ids):
    frame = pd.DataFrame(
        {"who": [ids[0], ids[0], ids[1], ids[1]], "at": [1.0, 2.5, 1.0, 2.0], "what": list("xyxx")}
    )
    model = NaiveEventForecaster(id_col="who", time_col="at", type_col="what").fit(frame)
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    pd.testing.assert_frame_equal(loaded.predict(), model.predict(), check_exact=True)
    assert loaded.history_ == model.history_


def test_sequences_without_events_and_unknown_windows(tmp_path):
    events = stream()
    empty = events.between(None, 0.01, keep_empty=True)
    model = NaiveEventForecaster().fit(events)
    model.history_ = empty
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    assert loaded.history_ == empty and len(loaded.history_) == 3


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        tsllm.save(small_prompttpp(), tmp_path / "model")

    class Own(NaiveEventForecaster):
        pass

    with pytest.raises(DataError, match=r"a Own cannot be saved: save one of .*PromptTPP"):
        tsllm.save(Own().fit(stream()), tmp_path / "model")
    state = np.random.RandomState(0)
    with pytest.raises(DataError, match="random_state cannot be saved"):
        tsllm.save(NaiveEventForecaster(random_state=state).fit(stream()), tmp_path / "model")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- other backbones


@pytest.mark.parametrize("encoder", ["llm", "llm-full"])
def test_the_backbone_must_be_the_same(tmp_path, encoder):
    path = tsllm.save(small_prompttpp(encoder).fit(stream()), tmp_path / "model")
    with pytest.raises(BackboneMismatchError, match="of digest"):
        tsllm.load(path, backbone=f"{TINY}&seed=7")
    same = tsllm.load(path, backbone=f"{TINY}&seed=0")
    assert same.backbone == f"{TINY}&seed=0"
    same.partial_fit(halves()[1])


def test_a_backbone_for_a_model_without_one(saved):
    with pytest.raises(DataError, match="the saved model uses none"):
        tsllm.load(saved, backbone=TINY)
    assert tsllm.load(saved, device="cpu").device == "cpu"


# ---------------------------------------------------------------------- damaged files


def resign(folder, change):
    """Change config.json and sign it again, as somebody with ill intent can."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    config["files"] = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in config["files"]
    }
    rest = {key: value for key, value in config.items() if key != "checksum"}
    config["checksum"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update({"class": "os.system"}),
        lambda c: c["parameters"].update(unknown=1),
        lambda c: c["parameters"].update(encoder="attention"),
        lambda c: c["parameters"].update(hidden=16),
        lambda c: c["parameters"].update(hidden="wide"),
        lambda c: c["state"]["fitted"].pop("classes_"),
        lambda c: c["state"]["fitted"].update(classes_={"$type": "texts", "values": ["bark"]}),
        lambda c: c["state"]["fitted"].update(predict_=1, fit=1),
        lambda c: c["state"]["fitted"].update(seed_={"$type": "array", "name": "nowhere"}),
        lambda c: c["state"]["history"]["clock"].update(unit="fortnight"),
        lambda c: c["state"]["history"].update(ids=["only one"]),
        lambda c: c["state"]["history"].pop("names"),
        lambda c: c["state"].update(history=7),
    ],
)
def test_facts_that_do_not_belong_together(saved, change):
    resign(saved, change)
    with pytest.raises((ModelFormatError, DataError)) as caught:
        tsllm.load(saved)
    assert isinstance(caught.value, ModelFormatError)
    assert "\n" not in str(caught.value)


def test_signing_alone_changes_nothing(model, saved):
    resign(saved, lambda config: None)
    pd.testing.assert_frame_equal(tsllm.load(saved).predict(), model.predict(), check_exact=True)


@pytest.mark.parametrize(
    "part", ["state.model.encoder", "state.model.pool", "state.running.0.", "state.history."]
)
def test_missing_and_misshapen_tensors(saved, part):
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    name = next(name for name in tensors if name.startswith(part))
    for damaged in (
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, name: torch.zeros(2, 3, 5)},
    ):
        safetensors.torch.save_file(damaged, saved / "model.safetensors")
        resign(saved, lambda config: None)
        with pytest.raises(ModelFormatError):
            tsllm.load(saved)


FILES = ["model.safetensors", "context.parquet", "config.json"]


@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_is_found(saved, name, data):
    content = (saved / name).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    changed = content[:at] + bytes([byte]) + content[at + 1 :]
    try:
        for damaged in (changed, content[:at]):
            if name == "config.json" and as_json(damaged) == json.loads(content):
                continue  # a blank in place of another
            (saved / name).write_bytes(damaged)
            with pytest.raises(ModelFormatError):
                tsllm.load(saved)
    finally:
        (saved / name).write_bytes(content)


def as_json(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


if __name__ == "__main__":
    other_process(Path(sys.argv[1]))
