"""Damaged stores: no wrong vector, no process that dies, and a sentence with the remedy."""

import os
import random
import warnings

import lmdb
import numpy as np
import pytest
import torch
from children import child, exit_code
from damaged_stores import flip_a_bit

from tsllm.embeddings import EmbeddingStore, pages
from tsllm.errors import EmbeddingStoreError

TEXTS = [f"text {number}" for number in range(120)]
PAGE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tiny_backbone):
    """A store's bytes and the embeddings of its texts."""
    store = EmbeddingStore(tmp_path_factory.mktemp("sound"))
    for first in range(0, len(TEXTS), 30):  # several commits, so that there are free pages
        store.encode(TEXTS[first : first + 30], tiny_backbone)
    return (store.path / "data.mdb").read_bytes(), store.encode(TEXTS, tiny_backbone)


def with_bytes(store, content):
    """Make a store of these bytes."""
    store.path.mkdir(exist_ok=True)
    (store.path / "data.mdb").write_bytes(content)
    return store


# ---------------------------------------------------------------- single embeddings


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_damaged_embedding_is_computed_again_with_a_warning(
    tmp_path, tiny_backbone, computed, dtype
):
    store = EmbeddingStore(tmp_path, dtype=dtype)
    whole = store.encode(TEXTS, tiny_backbone)
    computed.clear()
    for number in (3, 7):
        flip_a_bit(store, TEXTS[number], tiny_backbone)
    with pytest.warns(UserWarning, match=r"^2 embeddings in the store .* are damaged") as caught:
        again = store.encode(TEXTS, tiny_backbone)
    assert len(caught) == 1
    assert len(computed) == 2
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-5 if dtype == "float32" else 1e-3)
    assert store.verify() == {"vectors": len(TEXTS), "damaged": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(store.encode(TEXTS, tiny_backbone), again)


@pytest.mark.parametrize("at_once", [8192, 50])
def test_fill_computes_damaged_embeddings_again_and_read_refuses_them(
    store, tiny_backbone, computed, monkeypatch, at_once
):
    monkeypatch.setattr("tsllm.embeddings.store.AT_ONCE", at_once)
    keys = store.fill(TEXTS, tiny_backbone)
    whole = store.read(keys, tiny_backbone)
    flip_a_bit(store, TEXTS[77], tiny_backbone)
    with pytest.raises(EmbeddingStoreError, match=r"^1 embeddings are missing or damaged"):
        store.read(keys, tiny_backbone)
    computed.clear()
    with pytest.warns(UserWarning, match=r"1 embeddings .* damaged"):
        assert np.array_equal(store.fill(TEXTS, tiny_backbone), keys)
    assert len(computed) == 1
    torch.testing.assert_close(store.read(keys, tiny_backbone), whole, rtol=0, atol=1e-5)


def test_fill_holds_few_embeddings_at_a_time(store, tiny_backbone, monkeypatch):
    store.fill(TEXTS[:100], tiny_backbone)
    monkeypatch.setattr("tsllm.embeddings.store.AT_ONCE", 50)
    look_up, sizes = EmbeddingStore._look_up, []

    def counted(self, space, keys):
        sizes.append(len(keys))
        return look_up(self, space, keys)

    monkeypatch.setattr(EmbeddingStore, "_look_up", counted)
    keys = store.fill(TEXTS, tiny_backbone)
    assert sizes[:3] == [50, 50, 20] and max(sizes) == 50
    assert store.read(keys, tiny_backbone).shape[0] == store.verify()["vectors"] == len(TEXTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"used": "2', b'"used": "x'),
        (b'"digest"', b'"digesu"'),
        (b'"pooling": "l', b'"pooling": "m'),
    ],
)
def test_a_damaged_entry_of_a_backbone_is_found_and_pruned(
    store, sound, tiny_backbone, computed, old, new
):
    content, whole = sound
    assert old in content
    with_bytes(store, content.replace(old, new))
    assert store.verify() == {"vectors": len(TEXTS), "damaged": len(TEXTS)}
    assert store.stats()["vectors"] == 0
    assert store.prune() == {"damaged": len(TEXTS), "unwanted": 0, "kept": 0}
    torch.testing.assert_close(store.encode(TEXTS, tiny_backbone), whole, rtol=0, atol=1e-5)
    assert store.verify() == {"vectors": len(TEXTS), "damaged": 0}


# ---------------------------------------------------------------- the file


def test_a_sound_file_opens(store, sound, tiny_backbone):
    content, whole = sound
    assert torch.equal(with_bytes(store, content).encode(TEXTS, tiny_backbone), whole)


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_cut_short_is_refused(store, sound, tiny_backbone, monkeypatch, whole):
    if not whole:
        monkeypatch.setattr(pages, "READ_WHOLE", 0)
    content, _ = sound
    for size in (1, 100, PAGE, 2 * PAGE, len(content) // 2, len(content) - 1):
        with_bytes(store, content[:size])
        for call in (store.stats, store.verify, lambda: store.encode(TEXTS, tiny_backbone)):
            with pytest.raises(EmbeddingStoreError, match=r"is damaged .*move away"):
                call()


def test_a_file_that_is_cut_while_it_is_open_is_refused(store, sound, tiny_backbone):
    content, whole = sound
    assert torch.equal(with_bytes(store, content).encode(TEXTS, tiny_backbone), whole)
    os.truncate(store.path / "data.mdb", len(content) // 2)
    with pytest.raises(EmbeddingStoreError, match="is damaged"):
        store.encode(TEXTS, tiny_backbone)


@pytest.mark.parametrize("damage", ["cut", "zero page", "random page", "other page", "bits"])
def test_no_damage_ends_a_process_or_gives_a_wrong_vector(store, sound, tiny_backbone, damage):
    content, whole = sound
    chance = random.Random(damage)

    def try_everything():
        warnings.simplefilter("ignore")
        for call in (
            lambda: store.encode(TEXTS, tiny_backbone),
            store.stats,
            store.verify,
            lambda: store.encode([f"new {number}" for number in range(50)], tiny_backbone),
            store.prune,
            lambda: store.export(store.path.with_name("copy")),
            lambda: store.encode(TEXTS, tiny_backbone),
        ):
            try:
                result = call()
            except EmbeddingStoreError:
                continue
            if isinstance(result, torch.Tensor) and len(result) == len(TEXTS):
                torch.testing.assert_close(result, whole, rtol=0, atol=1e-5)

    for _ in range(8):
        changed = bytearray(content)
        at = PAGE * chance.randrange(len(content) // PAGE)
        if damage == "cut":
            changed = changed[: chance.randrange(len(content))]
        elif damage == "zero page":
            changed[at : at + PAGE] = bytes(PAGE)
        elif damage == "random page":
            changed[at : at + PAGE] = chance.randbytes(PAGE)
        elif damage == "other page":
            other = PAGE * chance.randrange(len(content) // PAGE)
            changed[at : at + PAGE] = content[other : other + PAGE]
        else:
            for _ in range(5):  # in the header of a page, or in the meta data of the first ones
                changed[at + chance.randrange(150)] ^= 1 << chance.randrange(8)
        with_bytes(store, changed)
        assert exit_code(child(try_everything)) == 0


def test_flags_that_would_end_the_process_are_refused(store, sound):
    content, _ = sound
    for meta in (0, PAGE):
        changed = bytearray(content)
        changed[meta + 92] ^= 4  # the list of databases as one that allows duplicates
        with pytest.raises(EmbeddingStoreError, match="is damaged"):
            with_bytes(store, changed).stats()


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_regular_file_is_refused(store, tiny_backbone, kind):
    store.path.mkdir()
    file = store.path / "data.mdb"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(EmbeddingStoreError, match="no regular file"):
        store.encode(["up"], tiny_backbone)


def test_a_database_of_another_program_is_refused(store, tiny_backbone):
    store.path.mkdir()
    with lmdb.open(str(store.path)) as other, other.begin(write=True) as transaction:
        transaction.put(b"theirs", b"1")
    for call in (store.verify, store.stats, lambda: store.encode(["up"], tiny_backbone)):
        with pytest.raises(EmbeddingStoreError, match="of another program"):
            call()
