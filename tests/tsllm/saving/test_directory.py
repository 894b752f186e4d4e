"""The files of saved models: written in one step, and not trusted when they are read."""

import hashlib
import json
import os
import resource
import signal
import sys

import pytest
import safetensors.torch
import torch
from children import child, exit_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_series_equal
from sktime.datasets import load_airline

import tsllm
from small_forecasters import SMALL
from tsllm import AutoTimesForecaster
from tsllm.errors import DataError, ModelFormatError, TsllmError
from tsllm.saving.directory import check_target

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def fitted(seed=0):
    small = {**SMALL["autotimes"], "random_state": seed}
    return AutoTimesForecaster(**small).fit(load_airline(), fh=[1, 2, 5])


def check_same_forecasts(one, other):
    """Equal in every bit."""
    assert_series_equal(one.predict(), other.predict(), check_exact=True)


@pytest.fixture(scope="module")
def airline():
    return fitted()


@pytest.fixture
def saved(airline, tmp_path):
    return tsllm.save(airline, tmp_path / "model")


# ---------------------------------------------------------------------- one step on disk


class KilledError(BaseException):
    pass


def test_an_empty_directory_is_filled(airline, tmp_path):
    assert tsllm.save(airline, tmp_path) == tmp_path
    check_same_forecasts(tsllm.load(tmp_path), airline)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"config.json": "{}"}])
def test_what_is_no_model_is_never_replaced(airline, tmp_path, overwrite, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="is not just a saved model"):
        tsllm.save(airline, tmp_path, overwrite=overwrite)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == content


def test_a_file_and_a_model_with_a_note_are_never_replaced(airline, saved):
    note = saved / "note.txt"
    note.write_text("mine")
    for path in (saved, note):
        with pytest.raises(DataError, match="is not just a saved model"):
            tsllm.save(airline, path, overwrite=True)
    assert note.read_text() == "mine"


def test_overwriting_is_asked_for(airline, saved):
    other = fitted(seed=1)
    with pytest.raises(DataError, match="overwrite=True"):
        tsllm.save(other, saved)
    check_same_forecasts(tsllm.load(saved), airline)
    tsllm.save(other, saved, overwrite=True)
    check_same_forecasts(tsllm.load(saved), other)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_killed_at_any_step_leaves_a_whole_model(airline, tmp_path, monkeypatch):
    old, new = airline.predict(), fitted(seed=1)
    steps = [("os", "fsync"), ("shutil", "rmtree"), ("pathlib", "Path.rename")]
    seen = []
    for k in range(100):
        path = tsllm.save(airline, tmp_path / str(k) / "model")
        with monkeypatch.context() as patch:
            left = k

            def kill(real):
                def step(*arguments, **options):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise KilledError
                    return real(*arguments, **options)

                return step

            for module, name in steps:
                owner = sys.modules[module]
                *outer, name = name.split(".")
                for part in outer:
                    owner = getattr(owner, part)
                patch.setattr(owner, name, kill(getattr(owner, name)))
            try:
                tsllm.save(new, path, overwrite=True)
            except KilledError:
                killed = True
            else:
                killed = False
        found = tsllm.load(path).predict()
        assert found.equals(old) or found.equals(new.predict())
        seen.append(found.equals(old))
        # Nothing in the way of the next one.
        tsllm.save(new, path, overwrite=True)
        assert tsllm.load(path).predict().equals(new.predict())
        assert not (path.parent / ".model.previous").exists()
        if not killed:
            break
    assert not killed
    assert seen[0]
    assert not seen[-1]
    assert seen == sorted(seen, reverse=True)


# ---------------------------------------------------------------------- files not to be trusted


def sign(path, **changes):
    """Change config.json as another version of tsllm would have written it."""
    config = json.loads((path / "config.json").read_text())
    if isinstance(changes.get("state"), dict):
        changes["state"] = config["state"] | changes["state"]
    config |= changes
    del config["checksum"]
    text = json.dumps(config, sort_keys=True)
    config["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "config.json").write_text(json.dumps(config))


def replace_tensors(path, tensors):
    content = safetensors.torch.save(tensors)
    (path / "model.safetensors").write_bytes(content)
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files = json.loads((path / "config.json").read_text())["files"]
    sign(path, files={**files, "model.safetensors": facts})


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_is_a_sentence_and_keeps_the_model(airline, saved, overwrite):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    target = saved if overwrite else saved.with_name("other")

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(DataError, match=r"cannot be written to .* \(File too large\).*kept"):
            tsllm.save(airline, target, overwrite=overwrite)

    assert exit_code(child(work)) == 0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_places_that_cannot_be_written_to_are_found_before_training(airline, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is no directory"):
        check_target(tmp_path / "file" / "model")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(DataError, match=r"cannot be written to .*choose a directory"):
        check_target(tmp_path / "model")


def test_no_directory(tmp_path):
    with pytest.raises(ModelFormatError, match="is no directory"):
        tsllm.load(tmp_path / "nowhere")
    with pytest.raises(ModelFormatError, match=r"has no config\.json"):
        tsllm.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "holds no tsllm model"),
        (b'{"model_type": "gpt2"}', "holds no tsllm model"),
        (b'{"format": "tsllm model", "format_version": 2}', r"version 2 .* pip install --upgrade"),
        (b'{"format": "tsllm model", "format_version": 1}', "is not as it was written"),
    ],
)
def test_config_that_is_none(saved, content, reason):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ModelFormatError, match=reason):
        tsllm.load(saved)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2, "class": "Future", "files": None}, "upgrade"),
        ({"class": "NaiveForecaster", "files": None}, "'NaiveForecaster', which this tsllm"),
        ({"class": "os.system"}, "'os.system', which this tsllm"),
        (
            {"parameters": {"backbone": SMALL["autotimes"]["backbone"], "warp": 9}},
            "parameter 'warp'",
        ),
        ({"state": {"fitted": {}}}, "do not belong together"),
        ({"state": None}, "do not belong together"),
        ({"state": {"sktime": {}}}, "do not belong together"),
        ({"files": {}}, "do not belong together"),
        (
            {"state": {"contexts": [{"series_id": {"$type": "os.system"}}]}},
            "do not belong together",
        ),
    ],
)
def test_config_of_another_version(saved, changes, reason):
    sign(saved, **changes)
    with pytest.raises(ModelFormatError, match=reason):
        tsllm.load(saved)


def test_signing_alone_changes_nothing(airline, saved):
    sign(saved)
    check_same_forecasts(tsllm.load(saved), airline)


@pytest.mark.parametrize("name", ["model.safetensors", "context.parquet"])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelFormatError, match=f"{name} cannot be read"):
        tsllm.load(saved)


def test_tensors_of_another_model(saved):
    # Read, not mapped: the file is written again below.
    tensors = safetensors.torch.load((saved / "model.safetensors").read_bytes())
    name = next(name for name in tensors if ".model." in name and tensors[name].ndim == 2)
    shape = tuple(tensors[name].shape)
    replace_tensors(saved, {**tensors, name: torch.zeros(2, 3)})
    with pytest.raises(ModelFormatError) as caught:
        tsllm.load(saved)
    assert f"should be {shape} and is (2, 3)" in str(caught.value)
    replace_tensors(saved, {key: value for key, value in tensors.items() if key != name})
    with pytest.raises(ModelFormatError, match=r"is absent in model\.safetensors"):
        tsllm.load(saved)
    replace_tensors(saved, {**tensors, "state.fitted.model.more": torch.zeros(1)})
    with pytest.raises(ModelFormatError, match="'more' should be absent"):
        tsllm.load(saved)
    replace_tensors(saved, tensors)
    tsllm.load(saved)


FILES = ["model.safetensors", "context.parquet", "config.json"]
ON_ONE_MODEL = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", FILES)
@ON_ONE_MODEL
@given(data=st.data())
def test_any_changed_byte_is_found(saved, name, data):
    content = (saved / name).read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    damaged = content[:position] + bytes([byte]) + content[position + 1 :]
    try:
        (saved / name).write_bytes(damaged)
        if name == "config.json" and json_equal(damaged, content):
            tsllm.load(saved)  # a blank in place of another
            return
        with pytest.raises(ModelFormatError) as caught:
            tsllm.load(saved)
        assert isinstance(caught.value, TsllmError)
    finally:
        (saved / name).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@ON_ONE_MODEL
@given(data=st.data())
def test_any_truncation_is_found(saved, name, data):
    content = (saved / name).read_bytes()
    try:
        (saved / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(ModelFormatError):
            tsllm.load(saved)
    finally:
        (saved / name).write_bytes(content)


def json_equal(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False
