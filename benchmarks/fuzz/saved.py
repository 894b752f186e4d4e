"""Saved models: directories that are damaged, incomplete, a stranger's, or in the way."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch

import tsllm
from fuzz.cases import Attack, Case, check
from fuzz.shared import (
    NAMES,
    TINY,
    check_same,
    check_values,
    fitted,
    full_disk,
    killed_after,
    new,
    series,
)
from tsllm.events import HawkesForecaster, NaiveEventForecaster

TENSORS, CONFIG, CONTEXT = "model.safetensors", "config.json", "context.parquet"
KINDS = ("one", "two", "panel", "X")


@functools.cache
def _files(method: str, kind: str) -> Mapping[str, bytes]:
    """Return the files of a saved model."""
    with tempfile.TemporaryDirectory() as name:
        folder = tsllm.save(fitted(method, kind), Path(name) / "model")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(folder: Path, files: Mapping[str, bytes], *, sums: bool = False) -> Path:
    """Write the files of a model; ``sums``: with sums that fit, as whoever tampers would."""
    folder.mkdir(exist_ok=True)
    files = dict(files)
    if sums:
        config = json.loads(files[CONFIG])
        for name in (TENSORS, CONTEXT):
            if name in files:
                content = files[name]
                config["files"][name] = {
                    "bytes": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
        config.pop("checksum", None)
        text = json.dumps(config, sort_keys=True).encode()
        files[CONFIG] = json.dumps(
            {**config, "checksum": hashlib.sha256(text).hexdigest()}
        ).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def _use(folder: Path) -> Any:
    """Load a model and forecast with it."""
    model = tsllm.load(folder)
    answer = model.predict(X=None)
    check_values(answer)
    return answer


def same_after_saving(case: Case) -> None:
    """Forecast the same after saving and loading, wherever the directory is moved to."""
    method, kind = case.pick("method", NAMES), case.pick("kind", KINDS[:3])
    model = fitted(method, kind)
    case.expect("answer")
    folder = tsllm.save(model, case.folder / "model")
    moved = folder.rename(
        case.folder / case.pick("name", ["other", "mit leer zeichen", "ünï", ".x"])
    )
    loaded = tsllm.load(moved)
    check_same(loaded.predict(), model.predict(), rtol=1e-6)
    check_same(loaded.predict_quantiles(alpha=[0.1]), model.predict_quantiles(alpha=[0.1]))
    more = series(3, start="2024-03-01")
    if kind == "one":
        check_same(loaded.update(more).predict(), model.update(more).predict(), rtol=1e-6)


def damaged_directories(case: Case) -> None:
    """Refuse a model of which any byte has changed, or a file is missing."""
    method, kind = case.pick("method", NAMES), case.pick("kind", KINDS[:3])
    files = dict(_files(method, kind))
    name = case.pick("file", [TENSORS, CONFIG, CONTEXT])
    content = bytearray(files[name])
    place = case.whole("place", 0, len(content) - 1)
    how = case.pick("damage", ["flip", "cut", "empty", "removed", "zeros", "longer", "of another"])
    if how == "flip":
        content[place] ^= 1 << case.whole("bit", 0, 7)
    elif how == "cut":
        content = content[:place]
    elif how == "empty":
        content = bytearray()
    elif how == "zeros":
        content[place : place + 40] = b"\1" * min(40, len(content) - place)
    elif how == "longer":
        content += b"\0"
    elif how == "of another":
        content = bytearray(_files("dlinear" if method != "dlinear" else "aaren", kind)[name])
    files[name] = bytes(content)
    if how == "removed":
        del files[name]
    if content != _files(method, kind)[name] or how == "removed":
        case.expect("refusal")
    if name == CONFIG and how in ("flip", "of another"):
        case.expect("either")  # white space; the other model's tensors are checked
    answer = _use(_write(case.folder / "model", files))
    if how == "flip":
        check_same(answer, fitted(method, kind).predict(), rtol=1e-6)


def broken_numbers(case: Case) -> None:
    """Refuse a model whose tensors or contexts hold no finite numbers."""
    method, kind = case.pick("method", NAMES), case.pick("kind", KINDS[:3])
    files = dict(_files(method, kind))
    number = case.pick("number", [float("nan"), float("inf"), -float("inf"), 1e38])
    where = case.pick("where", ["all tensors", "one number", "context"])
    if where == "context":
        frame = pd.read_parquet(Path(_write(case.folder / "before", files)) / CONTEXT)
        column = frame.select_dtypes("number").columns[-1]
        if not np.isnan(number):
            frame.loc[len(frame) - 1, column] = number
        else:
            frame[column] = number
        frame.to_parquet(case.folder / "changed.parquet", index=False)
        files[CONTEXT] = (case.folder / "changed.parquet").read_bytes()
    else:
        tensors = safetensors.torch.load(files[TENSORS])
        names = sorted(name for name in tensors if tensors[name].is_floating_point())
        for name in names if where == "all tensors" else [case.pick("tensor", names)]:
            tensor = tensors[name].clone()
            flat = tensor.view(-1)
            flat[:] = number if where == "all tensors" else flat
            if len(flat):
                flat[0] = number
            tensors[name] = tensor
        files[TENSORS] = safetensors.torch.save(tensors)
    if where == "all tensors" and number != 1e38:
        case.expect("refusal")
    _use(_write(case.folder / "model", files, sums=True))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of all values in a document."""
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        found += _places(item, (*path, key))
    return found


def tampered_values(case: Case) -> None:
    """Load nothing that is odd: any value of config.json replaced, with sums that fit."""
    method, kind = case.pick("method", NAMES), case.pick("kind", KINDS)
    files = dict(_files(method, kind))
    config = json.loads(files[CONFIG])
    part = case.pick("part", ["parameters", "state", "state", "files", "class"])
    places = [place for place in _places(config) if place[0] == part]
    *path, last = case.pick("place", places)
    odd: dict[str, Any] = {
        "null": None, "true": True, "-1": -1, "0": 0, "2^31": 2**31, "1e30": 10**30, "1e12": 10**12,
        "float": 1.5, "1e308": 1e308, "empty": "", "text": "x", "path": "../../etc/passwd",
        "list": [], "dict": {}, "nested": [[[]]], "array": {"$type": "array", "name": "none"},
        "table": {"$type": "table"}, "NaN": {"$type": "float", "value": "nan"}, "os": "os",
        "many": [1] * 50, "removed": ...,
    }  # fmt: skip
    value = case.pick_named("value", odd)
    holder = config
    for key in path:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    files[CONFIG] = json.dumps(config).encode()
    answer_of = kind != "X"
    folder = _write(case.folder / "model", files, sums=part != "files")
    if answer_of:
        _use(folder)
    else:
        tsllm.load(folder)


def huge_shapes(case: Case) -> None:
    """Refuse a small file that names huge layers, before memory is taken for them."""
    method = case.pick("method", NAMES)
    files = dict(_files(method, "one"))
    config = json.loads(files[CONFIG])
    sizes = ["context_length", "horizon", "hidden", "layers", "heads", "channel", "feedforward",
             "patch_length", "token_length", "pool_size", "prediction_length",
             "kernel_size"]  # fmt: skip
    places = [
        place
        for place in _places(config)
        if place[0] in ("parameters", "state") and place[-1] in sizes
    ]
    path = case.pick("place", places)
    value = case.pick("value", [10**5, 10**7, 10**9, 10**12])
    holder = config
    for key in path[:-1]:
        holder = holder[key]
    if case.pick("all", [True, False]):
        for place in places:
            inner = config
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
    holder[path[-1]] = value
    files[CONFIG] = json.dumps(config).encode()
    _use(_write(case.folder / "model", files, sums=True))


def attributes_and_places(case: Case) -> None:
    """Take no method, store or network address from a stranger's file."""
    method = case.pick("method", ["timecma", "autotimes", "dlinear"])
    files = dict(_files(method, "one"))
    config = json.loads(files[CONFIG])
    kind = case.pick("kind", ["method", "store", "hub", "checkpoint", "class", "dunder"])
    if kind in ("method", "dunder"):
        name = case.pick("name", ["predict", "fit", "forecast", "_predict", "update"])
        name = "__class__" if kind == "dunder" else name
        for place in _places(config["state"]):
            holder: Any = config["state"]
            for key in place[:-1]:
                holder = holder[key]
            if isinstance(holder, dict) and place[-1] in ("attributes", "sktime"):
                inner = holder[place[-1]]
                if isinstance(inner, dict):
                    inner[name] = 5
    elif kind == "store":
        config["parameters"]["embedding_store"] = str(case.folder / "stolen")
    elif kind == "hub":
        config["parameters"]["backbone"] = "stranger/model-of-a-stranger"
    elif kind == "checkpoint":
        config["parameters"]["checkpoint_dir"] = str(case.folder / "written")
    else:
        config["class"] = case.pick(
            "class", ["NaiveForecaster", "os.system", "PromptTPP", "object"]
        )
    files[CONFIG] = json.dumps(config).encode()
    before = sorted(case.folder.iterdir())
    folder = _write(case.folder / "model", files, sums=True)
    model = tsllm.load(folder)
    check(callable(model.predict) and callable(model.fit), "a method is replaced")
    check_values(model.predict())
    made = [path for path in case.folder.iterdir() if path not in before and path != folder]
    check(not made, f"{made} appeared")


def odd_places(case: Case) -> None:
    """Refuse what is no directory of a model, without reading for ever."""
    files = _files("dlinear", "one")
    folder = _write(case.folder / "model", files)
    name = case.pick("file", [CONFIG, TENSORS, CONTEXT])
    how = case.pick("how", ["fifo", "zero", "folder", "loop", "missing folder", "a file", "text",
                            "number", "None", "socket", "big"])  # fmt: skip
    path = folder / name
    makers: dict[str, Callable[[], Any]] = {
        "fifo": lambda: os.mkfifo(path),
        "zero": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path.name),
        "big": lambda: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40),
    }
    if how in makers:
        path.unlink()
        makers[how]()
    given: Any = {
        "missing folder": case.folder / "nope",
        "a file": folder / CONFIG,
        "text": "model",
        "number": 5,
        "None": None,
        "socket": "/proc/self/fd",
    }.get(how, folder)
    case.expect("refusal")
    tsllm.load(given)


def targets_of_save(case: Case) -> None:
    """Write a model whole or not at all, and nothing over what is no model."""
    model = fitted("dlinear")
    target = case.folder / "model"
    kind = case.pick("kind", ["file", "holds files", "below a file", "full", "twice", "long name",
                              "number",
                              "overwrite a folder", "dangling link", "overwrite"])  # fmt: skip
    overwrite = "overwrite" in kind
    given: Any = target
    if kind == "file":
        target.write_text("mine")
    elif kind in ("holds files", "overwrite a folder"):
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif kind == "below a file":
        target.write_text("mine")
        given = target / "model"
    elif kind == "full":
        given = Path("/proc/self/model")
    elif kind in ("twice", "overwrite"):
        tsllm.save(model, target)
    elif kind == "long name":
        given = case.folder / ("x" * 300)
    elif kind == "number":
        given = 5
    else:
        target.symlink_to(case.folder / "nowhere")
    case.expect("either" if kind == "dangling link" else "refusal")
    if kind == "overwrite":
        case.expect("answer")
    try:
        tsllm.save(model, given, overwrite=overwrite)
    except Exception:
        mine = target if kind in ("file", "below a file") else target / "mine.txt"
        if kind in ("file", "below a file", "holds files", "overwrite a folder"):
            check(mine.read_text() == "mine", "a file of the user is gone")
        raise
    check_same(tsllm.load(given).predict(), model.predict(), rtol=1e-6)


def killed_saves(case: Case) -> None:
    """Keep a whole model, the old or the new, when a save is killed at any time."""
    old, model = fitted("dlinear"), fitted("dlinear").update(series(3, start="2024-03-01"))
    target = case.folder / "model"
    tsllm.save(old, target)
    milliseconds = case.whole("tenths of a millisecond", 1, 150)
    killed_after(milliseconds / 10_000, lambda: tsllm.save(model, target, overwrite=True))
    case.expect("answer")
    found = tsllm.load(target).predict()
    same = [found.index.equals(one.predict().index) for one in (old, model)]
    check(any(same), "neither the old model nor the new one")
    tsllm.save(model, target, overwrite=True)
    check_same(tsllm.load(target).predict(), model.predict(), rtol=1e-6)


def full_disks(case: Case) -> None:
    """Say that the disk is full, and keep the model that is there."""
    old, model = fitted("dlinear"), fitted("dlinear").update(series(3, start="2024-03-01"))
    target = case.folder / "model"
    if case.pick("there", [True, False]):
        tsllm.save(old, target)
    case.expect("either", "disk", "space", "full", "room")
    room = case.whole("room", 0, 20_000)
    try:
        with full_disk(room):
            tsllm.save(model, target, overwrite=True)
    except Exception:
        if case.drawn["there"]:
            check_same(tsllm.load(target).predict(), old.predict(), rtol=1e-6)
        else:
            check(not target.exists(), "half a model is left behind")
        raise
    check_same(tsllm.load(target).predict(), model.predict(), rtol=1e-6)


def event_models(case: Case) -> None:
    """Refuse event models that are damaged or tampered with."""
    days = pd.date_range("2024-01-01", periods=30, freq="D")
    events = pd.DataFrame({"time": days, "type": ["on", "off", "on"] * 10})
    model: Any = {
        "naive": lambda: NaiveEventForecaster(types="markov"),
        "hawkes": lambda: HawkesForecaster(max_steps=3, random_state=0),
    }[case.pick("method", ["naive", "hawkes"])]()
    folder = tsllm.save(model.fit(events), case.folder / "model")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if case.pick("how", ["flip", "tamper"]) == "flip":
        name = case.pick("file", sorted(set(files) - {"card.md"}))
        content = bytearray(files[name])
        content[case.whole("place", 0, len(content) - 1)] ^= 1
        files[name] = bytes(content)
        case.expect("either" if name == CONFIG else "refusal")  # in CONFIG: white space
        folder = _write(folder, files)
    else:
        config = json.loads(files[CONFIG])
        places = [place for place in _places(config) if place[0] in ("parameters", "state")]
        *path, last = case.pick("place", places)
        holder = config
        for key in path:
            holder = holder[key]
        holder[last] = case.pick("value", [None, -1, 10**30, "x", [], {}, 1e308, 10**9])
        files[CONFIG] = json.dumps(config).encode()
        folder = _write(folder, files, sums=True)
    tsllm.load(folder).predict()


def backbones(case: Case) -> None:
    """Find the language model again, or say that it is another or nowhere."""
    method = case.pick("method", ["autotimes", "timecma"])
    model = new(method, backbone=TINY).fit(series(), fh=[1, 2])
    folder = tsllm.save(model, case.folder / "model")
    backbone = case.pick(
        "backbone", [None, TINY, "random:gpt2?hidden=32&layers=1&heads=2", "nowhere/at-all", "", 5,
                     "random:", "random:gpt2?hidden=x", "/etc", "random:gpt2?hidden=1000000"]
    )  # fmt: skip
    case.expect("answer" if backbone in (None, TINY) else "refusal")
    loaded = tsllm.load(folder, backbone=backbone)
    check_same(loaded.predict(), model.predict(), rtol=1e-5)


ATTACKS: list[Attack] = [
    same_after_saving,
    damaged_directories,
    broken_numbers,
    tampered_values,
    tampered_values,
    huge_shapes,
    attributes_and_places,
    odd_places,
    targets_of_save,
    killed_saves,
    full_disks,
    event_models,
    backbones,
    damaged_directories,
    tampered_values,
]
