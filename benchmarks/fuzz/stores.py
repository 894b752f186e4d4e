"""The store of embeddings: files that are cut, damaged, foreign or in the way."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.cases import Attack, Case, check
from fuzz.commands import run
from fuzz.shared import TINY, full_disk
from tsllm.backbone import Backbone, load_backbone
from tsllm.embeddings import EmbeddingStore, open_store
from tsllm.errors import EmbeddingStoreError

TEXTS = [f"{'word ' * (number % 5)}{number}" for number in range(120)]


@functools.cache
def _backbone() -> Backbone:
    return load_backbone(TINY, device="cpu")


@functools.cache
def _content() -> bytes:
    """Return the file of a store that holds the texts."""
    with tempfile.TemporaryDirectory() as name:
        EmbeddingStore(name).encode(TEXTS, _backbone())
        return (Path(name) / "data.mdb").read_bytes()


@functools.cache
def _vectors() -> np.ndarray:
    """Return the embeddings of the texts."""
    with tempfile.TemporaryDirectory() as name:
        found: np.ndarray = EmbeddingStore(name).encode(TEXTS, _backbone()).numpy()
        return found


def _store(case: Case, content: bytes) -> Path:
    """Write a store's file to a folder that this process has never opened."""
    folder = case.folder / "store"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(content)
    return folder


def _check_vectors(found: Any) -> None:
    worst = float(np.abs(np.asarray(found) - _vectors()).max())
    check(worst < 1e-4, f"an embedding is wrong by {worst}")


def _read_it(case: Case, folder: Path) -> None:
    """Use a store in one of the ways in which it is used."""
    use = case.pick("use", ["encode", "encode", "verify", "stats", "prune", "export", "command"])
    store = EmbeddingStore(folder)
    if use == "encode":
        _check_vectors(store.encode(TEXTS, _backbone()))
        _check_vectors(store.encode(TEXTS, _backbone()))
    elif use == "verify":
        counts = store.verify()
        found = EmbeddingStore(folder)
        if counts["damaged"] == 0 and counts["vectors"] == len(TEXTS):
            _check_vectors(found.encode(TEXTS, _backbone()))
    elif use == "stats":
        store.stats()
    elif use == "prune":
        store.prune()
        check(store.verify()["damaged"] == 0, "damaged embeddings after a prune")
        _check_vectors(store.encode(TEXTS, _backbone()))
    elif use == "export":
        store.export(case.folder / "other")
        _check_vectors(EmbeddingStore(case.folder / "other").encode(TEXTS, _backbone()))
    else:
        word = case.pick("command", ["stats", "verify", "prune"])
        run(case, "store", word, str(folder))


def cut_short(case: Case) -> None:
    """Survive a store whose file is cut at any place."""
    content = _content()
    unit = case.pick("unit", [1, 4096])
    keep = case.whole("keep", 0, len(content) // unit - 1) * unit
    _read_it(case, _store(case, content[:keep]))


def zeroed_pages(case: Case) -> None:
    """Survive a store some of whose pages are zero, as after a power cut."""
    content = bytearray(_content())
    for number in range(case.whole("pages", 1, 3)):
        page = case.whole(f"page {number}", 0, len(content) // 4096 - 1) * 4096
        content[page : page + 4096] = bytes(4096)
    _read_it(case, _store(case, bytes(content)))


def flipped_bits(case: Case) -> None:
    """Never return an embedding of which a bit has changed."""
    content = bytearray(_content())
    for number in range(case.pick("flips", [1, 1, 5, 50])):
        place = int(case.rng.integers(0, len(content)))
        case.drawn["place"] = place if number == 0 else case.drawn["place"]
        content[place] ^= 1 << int(case.rng.integers(8))
    _read_it(case, _store(case, bytes(content)))


def noise(case: Case) -> None:
    """Survive noise in place of a page, or of all."""
    content = bytearray(_content())
    page = case.whole("page", 0, len(content) // 4096 - 1) * 4096
    size = case.pick("size", [16, 64, 4096, len(content)])
    page = page if size < len(content) else 0
    content[page : page + size] = case.rng.bytes(min(size, len(content) - page))
    _read_it(case, _store(case, bytes(content)))


def full_disks(case: Case) -> None:
    """Say that the disk is full, lose nothing that is kept, and go on when there is room."""
    folder = case.folder / "store"
    some = TEXTS[: case.whole("kept", 0, 100)]
    EmbeddingStore(folder).encode(some, _backbone())
    case.expect("either", "disk", "full", "room")
    try:
        with full_disk(case.whole("room", 0, 60_000)):
            EmbeddingStore(folder).encode(TEXTS, _backbone())
    except EmbeddingStoreError:
        _check_vectors(EmbeddingStore(folder).encode(TEXTS, _backbone()))
        raise
    _check_vectors(EmbeddingStore(folder).encode(TEXTS, _backbone()))


def no_stores(case: Case) -> None:
    """Refuse a folder that is no store, and make none of it."""
    folder = case.folder / "store"
    makers: dict[str, Callable[[], Any]] = {
        "missing": lambda: None,
        "empty": folder.mkdir,
        "file": lambda: folder.write_text("x"),
        "other files": lambda: folder.mkdir() or (folder / "a.txt").write_text("x"),
        "fifo": lambda: folder.mkdir() or os.mkfifo(folder / "data.mdb"),
        "folder": lambda: (folder / "data.mdb").mkdir(parents=True),
        "zero": lambda: folder.mkdir() or (folder / "data.mdb").symlink_to("/dev/zero"),
        "loop": lambda: folder.mkdir() or (folder / "data.mdb").symlink_to("data.mdb"),
        "text": lambda: folder.mkdir() or (folder / "data.mdb").write_text("not lmdb" * 2000),
    }
    case.pick_named("kind", makers)()
    before = sorted(case.folder.rglob("*"))
    use = case.pick("use", ["verify", "stats", "prune", "verify command", "stats command",
                            "prune command", "open"])  # fmt: skip
    if use in ("verify", "prune", "verify command", "prune command"):
        case.expect("refusal")
    if use.endswith("command"):
        run(case, "store", use.split()[0], str(folder))
    elif use == "open":
        open_store(folder).stats()
    else:
        getattr(EmbeddingStore(folder), use)()
    check(sorted(case.folder.rglob("*")) == before, "a store was made of it")


def odd_arguments(case: Case) -> None:
    """Refuse arguments of a wrong kind."""
    folder = _store(case, _content())
    calls: dict[str, Callable[[], Any]] = {
        "dtype": lambda: EmbeddingStore(folder, dtype="int8"),
        "path": lambda: EmbeddingStore(5).stats(),
        "negative days": lambda: EmbeddingStore(folder).prune(unused_days=-5),
        "days in words": lambda: EmbeddingStore(folder).prune(unused_days="five"),
        "NaN days": lambda: EmbeddingStore(folder).prune(unused_days=float("nan")),
        "texts": lambda: EmbeddingStore(folder).encode("one text", _backbone()),
        "no texts": lambda: EmbeddingStore(folder).encode([1, 2], _backbone()),
        "None": lambda: EmbeddingStore(folder).encode(None, _backbone()),
        "batch size": lambda: EmbeddingStore(folder).encode(TEXTS, _backbone(), batch_size=0),
        "pooling": lambda: EmbeddingStore(folder).encode(TEXTS, _backbone(), pooling="max"),
        "keys": lambda: EmbeddingStore(folder).read(np.zeros((2, 32), "uint8"), _backbone()),
        "odd keys": lambda: EmbeddingStore(folder).read(np.zeros((2, 3)), _backbone()),
        "backbone": lambda: EmbeddingStore(folder).encode(TEXTS, None),
        "export to itself": lambda: EmbeddingStore(folder).export(folder),
        "empty text": lambda: EmbeddingStore(folder).encode([""], _backbone()),
        "long text": lambda: EmbeddingStore(folder).encode(["word " * 100_000], _backbone()),
        "surrogates": lambda: EmbeddingStore(folder).encode(["\ud800"], _backbone()),
    }
    call = case.pick_named("call", calls)
    if case.drawn["call"] not in ("empty text", "surrogates", "texts", "export to itself"):
        case.expect("refusal")
    call()


def ordinary_use(case: Case) -> None:
    """Return the same embeddings from a full, a partly full and an empty store."""
    dtype = case.pick("dtype", ["float32", "float16"])
    store = EmbeddingStore(case.folder / "store", dtype=dtype)
    case.expect("answer")
    order = case.rng.permutation(len(TEXTS))[: case.whole("first", 1, len(TEXTS))]
    store.encode([TEXTS[number] for number in order], _backbone())
    found = store.encode(TEXTS, _backbone()).numpy()
    worst = float(np.abs(found - _vectors()).max())
    check(worst < (1e-4 if dtype == "float32" else 0.02), f"an embedding is wrong by {worst}")
    check(store.verify() == {"vectors": len(TEXTS), "damaged": 0}, f"{store.verify()}")


ATTACKS: list[Attack] = [
    cut_short,
    zeroed_pages,
    flipped_bits,
    noise,
    full_disks,
    no_stores,
    odd_arguments,
    ordinary_use,
    cut_short,
    flipped_bits,
]
