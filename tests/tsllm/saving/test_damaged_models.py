"""Saved models that somebody has tampered with: our own message, and nothing else.

`test_directory.py` damages files one by one; here whoever changes them also writes the
checksums anew, as an attacker would.
"""

import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from long_frames import fit_tiny, long_frame

import tsllm
from tsllm.backbone.loading import load_backbone, restricted_backbones
from tsllm.errors import DataError, ModelFormatError, TsllmError
from tsllm.saving.api import _checksum

#: What a value may be replaced with.
_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, -(2**63), 10**30, 1e308, -1.5, "", "cpu", "../../etc/passwd", "os"]),
    st.text(max_size=8),
    st.sampled_from(
        [
            [],
            {},
            [[]],
            {"$type": "numpy", "dtype": "object", "value": 1},
            {"$type": "index", "dtype": "object", "values": [1], "name": None},
            {
                "$type": "times",
                "values": [0],
                "dtype": "datetime64[ns, ../../etc/passwd]",
                "freq": None,
                "name": None,
            },
            {"$type": "stamp", "index": {"$type": "range", "bounds": [0, 0, 1], "name": None}},
            {"$type": "array", "name": "no such tensor"},
            {"$type": "state dict", "name": "state.fitted.calibration"},
            {"$type": "table"},
        ]
    ),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The files of a model, in memory."""
    folder = tsllm.save(fit_tiny(long_frame(3)), tmp_path_factory.mktemp("model") / "model")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tampered") / "model"


def _write(folder, files):
    """Write files into an empty folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _load(folder, files):
    """Write files and load them; give the forecaster, or None where it was refused."""
    _write(folder, files)
    try:
        return tsllm.load(folder)
    except TsllmError as error:
        assert str(error)
        return None


def _signed(config, files):
    """Write config.json so that every checksum is right."""
    for name in ("model.safetensors", "context.parquet"):
        if isinstance(config.get("files"), dict) and isinstance(config["files"].get(name), dict):
            content = files[name]
            config["files"][name]["bytes"] = len(content)
            config["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()
    config["checksum"] = _checksum(config)
    return files | {"config.json": json.dumps(config).encode()}


def _places(value, path=()):
    """List the paths to all values of a document."""
    yield path
    if isinstance(value, dict | list):
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            yield from _places(child, (*path, key))


bounded = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@bounded
@given(data=st.data())
def test_any_value_of_the_configuration_may_be_another(saved, folder, data):
    config = json.loads(saved["config.json"])
    paths = [path for path in _places(config) if path and path[0] not in ("checksum", "format")]
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=2)):
        parent = config
        try:
            for key in path[:-1]:
                parent = parent[key]
            if data.draw(st.booleans(), label="remove"):
                del parent[path[-1]]
            else:
                parent[path[-1]] = copy.deepcopy(data.draw(_ODD))
        except (TypeError, LookupError):
            continue  # an earlier change took the place away
    loaded = _load(folder, _signed(config, saved))
    if loaded is not None:  # what is loaded can be used, or says why not
        with contextlib.suppress(TsllmError):
            assert np.isfinite(loaded.predict([1])).all(axis=None)


@bounded
@given(
    name=st.sampled_from(["model.safetensors", "context.parquet"]),
    place=st.floats(0, 1, exclude_max=True),
    content=st.binary(max_size=6),
    cut=st.booleans(),
)
def test_any_byte_may_be_another(saved, folder, name, place, content, cut):
    before = saved[name]
    at = int(place * len(before))
    after = before[:at] + content + (b"" if cut else before[at + len(content) :])
    config = json.loads(saved["config.json"])
    _load(folder, _signed(config, saved | {name: after}))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(content=st.binary(max_size=200))
def test_any_configuration_may_be_garbage(saved, folder, content):
    assert _load(folder, saved | {"config.json": content}) is None


@pytest.mark.parametrize("value", [[], {}, None, 3, "os.system"])
def test_a_class_that_is_not_known_is_refused(saved, folder, value):
    config = json.loads(saved["config.json"]) | {"class": value}
    assert _load(folder, _signed(config, saved)) is None


@pytest.mark.parametrize("depth", [10, 100_000])
def test_a_deep_document_is_refused(saved, folder, depth):
    assert _load(folder, saved | {"config.json": b"[" * depth + b"]" * depth}) is None


def test_a_size_that_no_machine_holds_is_refused_at_once(saved, folder):
    config = json.loads(saved["config.json"])
    shape = config["state"]["fitted"]["shape"]
    for name, value in list(shape.items()):
        if isinstance(value, int):
            changed = copy.deepcopy(config)
            changed["state"]["fitted"]["shape"][name] = 10**12
            finished = threading.Event()

            def attempt(changed=changed, finished=finished):
                _load(folder, _signed(changed, saved))
                finished.set()

            threading.Thread(target=attempt, daemon=True).start()
            assert finished.wait(60), name


def test_tensors_of_other_kinds_are_refused(saved, folder):
    tensors = safetensors.torch.load(saved["model.safetensors"])
    name = next(name for name in tensors if name.startswith("state.fitted.model."))
    for other in (
        torch.zeros(3, 5, 7),
        torch.zeros(0),
        torch.tensor(1.0),
        torch.zeros_like(tensors[name], dtype=torch.int8),
    ):
        changed = safetensors.torch.save({**tensors, name: other})
        config = json.loads(saved["config.json"])
        loaded = _load(folder, _signed(config, saved | {"model.safetensors": changed}))
        assert loaded is None or other.dtype == torch.int8


def _refused(folder, files, words, **options):
    """Load files that must be refused, with words in the message, in little time."""
    _write(folder, files)
    begun = time.monotonic()
    with pytest.raises(TsllmError, match=words):
        tsllm.load(folder, **options)
    assert time.monotonic() - begun < 10


def test_layers_that_the_tensors_do_not_have_are_never_allocated(saved, folder):
    config = json.loads(saved["config.json"])
    config["state"]["fitted"]["shape"]["extra"]["token_length"] = 10**8
    config["state"]["fitted"]["shape"]["context_length"] = 2 * 10**8
    _refused(folder, _signed(config, saved), r"layers that are far larger than the .* numbers")


def test_layers_of_another_method_are_never_allocated(tmp_path):
    series = long_frame(1).set_index("timestamp")["value"].asfreq("D")
    forecaster = tsllm.PatchTSTForecaster(context_length=12, max_steps=2, random_state=0)
    path = tsllm.save(forecaster.fit(series, fh=[1]), tmp_path / "patches")
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    config = json.loads(files["config.json"])
    for name, value in (("hidden", 10**6), ("feedforward", 10**9), ("layers", 10**6)):
        changed = copy.deepcopy(config)
        changed["parameters"][name] = value
        _refused(tmp_path / "changed", _signed(changed, files), "layers that are far larger")


@pytest.mark.parametrize(
    "shape", ["hidden=100000&heads=2", "layers=5000", "vocab=1000000000", "positions=100000000"]
)
def test_a_large_random_backbone_of_a_file_is_never_drawn(folder, shape):
    with restricted_backbones(allow_download=False):
        with pytest.raises(DataError, match=r"pass it as backbone=\.\.\. if this is what you want"):
            load_backbone(f"random:gpt2?{shape}", device="cpu")
        with pytest.raises(DataError, match=r"pass it as backbone=\.\.\. if this is what you want"):
            load_backbone(f"layer:attention?like=random:gpt2?{shape}", device="cpu")
        load_backbone("random:gpt2", device="cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "context.parquet"])
@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "folder"])
def test_files_that_are_no_files_are_refused(saved, folder, name, kind):
    _write(folder, saved)
    path = folder / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        short = Path(tempfile.mkdtemp()) / "s"  # the names of sockets are short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(short))
        short.rename(path)
    with pytest.raises(ModelFormatError, match=f"{name}"):
        tsllm.load(folder)


def test_a_table_that_would_fill_the_memory_is_refused(saved, folder):
    column, buffer = pa.nulls(2 * 10**7), io.BytesIO()
    pq.write_table(pa.table(dict.fromkeys(("a", "b", "c", "d"), column)), buffer)
    files = saved | {"context.parquet": buffer.getvalue()}
    _refused(folder, _signed(json.loads(saved["config.json"]), files), "claims 80,000,000 values")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_their_name(saved, folder, value):
    tensors = safetensors.torch.load(saved["model.safetensors"])
    name = next(name for name in tensors if name.startswith("state.fitted.model."))
    tensors[name].view(-1)[0] = value
    files = saved | {"model.safetensors": safetensors.torch.save(tensors)}
    name = name.removeprefix("state.fitted.model.")
    _refused(folder, _signed(json.loads(saved["config.json"]), files), f"'{name}' .* NaN or inf")


def test_a_context_that_is_infinite_is_refused(saved, folder):
    table = pd.read_parquet(io.BytesIO(saved["context.parquet"]))
    table.iloc[0, -1] = np.inf
    files = saved | {"context.parquet": table.to_parquet(index=False)}
    _refused(folder, _signed(json.loads(saved["config.json"]), files), "infinite")


def test_a_context_without_values_loads_and_says_so_when_it_forecasts(saved, folder):
    table = pd.read_parquet(io.BytesIO(saved["context.parquet"]))
    table.iloc[:, 3] = np.nan
    _write(
        folder,
        _signed(
            json.loads(saved["config.json"]),
            saved | {"context.parquet": table.to_parquet(index=False)},
        ),
    )
    with pytest.raises(DataError, match="no observed value"):
        tsllm.load(folder).predict()


@pytest.mark.parametrize("name", ["embedding_store", "checkpoint_dir"])
def test_places_on_this_machine_are_never_taken_from_a_file(saved, folder, name):
    config = json.loads(saved["config.json"])
    config["parameters"][name] = "/tmp/somewhere"
    _refused(folder, _signed(config, saved), name)


def test_parameters_of_another_kind_are_refused(saved, folder):
    config = json.loads(saved["config.json"])
    config["parameters"]["batch_size"] = "many"
    _refused(folder, _signed(config, saved), "batch_size must be a whole number")


def test_a_backbone_is_downloaded_only_where_that_is_allowed(saved, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("TSLLM_ALLOW_DOWNLOAD", raising=False)
    config = json.loads(saved["config.json"])
    config["parameters"]["backbone"] = "nobody/no-such-model"
    files = _signed(config, saved)
    _refused(folder, files, r"the network \(allow_download=False\).*TSLLM_ALLOW_DOWNLOAD=1")
    _refused(folder, files, r"the network \(HF_HUB_OFFLINE is set\)", allow_download=True)
    monkeypatch.setenv("TSLLM_ALLOW_DOWNLOAD", "1")
    _refused(folder, files, r"the network \(HF_HUB_OFFLINE is set\)")
    monkeypatch.setenv("TSLLM_ALLOW_DOWNLOAD", "0")
    _refused(folder, files, r"the network \(allow_download=False\)")


@pytest.mark.parametrize("place", ["\0", "~nobody-here/model", 3, None])
def test_paths_that_are_none(place):
    with pytest.raises((DataError, ModelFormatError)):
        tsllm.load(place)


def test_a_pickle_is_never_read(saved, folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    buffer = io.BytesIO()
    torch.save({"state": Bomb()}, buffer)
    config = json.loads(saved["config.json"])
    files = saved | {"model.safetensors": buffer.getvalue()}
    assert _load(folder, _signed(config, files)) is None
    frame = pd.DataFrame({"series": [0], "series_id": ["a"], "timestamp": [0]})
    frame["value"] = np.array([1.0])
    files = saved | {"context.parquet": frame.to_parquet()}
    _load(folder, _signed(json.loads(saved["config.json"]), files))
    assert not (tmp_path / "ran").exists()
