"""A store under bad treatment: killed writers, many writers, full disks, folders without rights."""

import os
import pickle
import random
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from children import child, exit_code

from tsllm.backbone import Backbone
from tsllm.embeddings import EmbeddingStore, encoding
from tsllm.errors import EmbeddingStoreError

TEXTS = [f"{'word ' * (number % 5)}{number}" for number in range(240)]


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_writer_that_is_killed_loses_nothing_that_was_kept(
    store, tiny_backbone, monkeypatch, computed, kills
):
    monkeypatch.setattr(encoding, "HAND_OVER_ROWS", 4)
    # More than a writer can do before it is killed.
    texts = [f"{'word ' * (number % 5)}{number}" for number in range(80 * (kills + 1))]
    expected = tiny_backbone.last_token(texts)
    computed.clear()
    counted = Backbone.last_states

    def slow(self, tokens):
        time.sleep(0.01)
        return counted(self, tokens)

    monkeypatch.setattr(Backbone, "last_states", slow)
    chance = random.Random(kills)
    for _ in range(kills):
        process = child(lambda: store.encode(texts, tiny_backbone, batch_size=2))
        time.sleep(chance.uniform(0.0, 0.3))
        os.kill(process, signal.SIGKILL)
        assert exit_code(process) == -signal.SIGKILL
    kept = store.stats()["vectors"]
    assert store.verify() == {"vectors": kept, "damaged": 0}
    embeddings = store.encode(texts, tiny_backbone, batch_size=2)
    assert len(computed) == len(texts) - kept  # what was kept is not computed again
    assert store.verify() == {"vectors": len(texts), "damaged": 0}
    torch.testing.assert_close(embeddings, expected, rtol=0, atol=1e-5)


def test_eight_processes_fill_one_store(store, tiny_backbone, monkeypatch, tmp_path):
    monkeypatch.setattr(encoding, "HAND_OVER_ROWS", 4)
    monkeypatch.setattr(encoding, "SHARD", 16)
    # Small enough to be outgrown while all eight write.
    monkeypatch.setattr("tsllm.embeddings.database.FIRST_MAP", 64 * 1024)
    expected = tiny_backbone.last_token(TEXTS)

    def work(number):
        mine = random.Random(number).sample(range(len(TEXTS)), 120)
        vectors = store.encode([TEXTS[i] for i in mine], tiny_backbone, batch_size=2)
        (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps((mine, vectors.numpy())))

    children = [child(lambda number=number: work(number)) for number in range(8)]
    assert [exit_code(process) for process in children] == [0] * 8
    seen = {}
    for number in range(8):
        mine, vectors = pickle.loads((tmp_path / f"{number}.pkl").read_bytes())
        np.testing.assert_allclose(vectors, expected[mine].numpy(), atol=1e-5)
        for i, vector in zip(mine, vectors):
            assert np.array_equal(seen.setdefault(i, vector), vector)  # one value for all
    assert store.verify() == {"vectors": len(seen), "damaged": 0}


def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(
    store, tiny_backbone, monkeypatch, computed
):
    monkeypatch.setattr(encoding, "HAND_OVER_ROWS", 16)
    texts = [f"text {number}" for number in range(1000)]

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (96 * 1024, 96 * 1024))
        with pytest.raises(EmbeddingStoreError, match=r"the disk is full.*give another folder"):
            store.encode(texts, tiny_backbone, batch_size=16)

    assert exit_code(child(work)) == 0
    kept = store.stats()["vectors"]
    assert kept > 0
    assert store.verify() == {"vectors": kept, "damaged": 0}
    computed.clear()
    store.encode(texts, tiny_backbone)  # with room again, it goes on
    assert len(computed) == len(texts) - kept
    assert store.verify() == {"vectors": len(texts), "damaged": 0}


@pytest.fixture
def open_folder():
    """A folder that any user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody():
    """Drop root's rights, which no folder can refuse."""
    if os.getuid() == 0:
        os.setuid(65534)


def test_a_read_only_store_answers_and_says_what_it_cannot(open_folder, tiny_backbone):
    store = EmbeddingStore(open_folder / "store")
    whole = store.encode(["up", "down"], tiny_backbone)
    for path in (store.path / "data.mdb", store.path / "lock.mdb"):
        path.chmod(0o444)
    store.path.chmod(0o555)

    def work():
        as_nobody()
        assert torch.equal(store.encode(["down", "up"], tiny_backbone), whole.flip(0))
        assert store.verify() == {"vectors": 2, "damaged": 0}
        for call in (
            lambda: store.encode(["new"], tiny_backbone),
            lambda: store.prune(unused_days=0),
            lambda: EmbeddingStore(open_folder / "other").encode(["up"], tiny_backbone),
        ):
            with pytest.raises(EmbeddingStoreError, match=r"cannot be written to.*what it holds"):
                call()

    try:
        assert exit_code(child(work)) == 0
    finally:
        store.path.chmod(0o755)


def test_a_file_that_is_no_store_is_refused(store, tiny_backbone):
    store.path.mkdir()
    (store.path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(EmbeddingStoreError, match=r"not an LMDB data file.*move away"):
        store.encode(["up"], tiny_backbone)
    with pytest.raises(EmbeddingStoreError, match=r"not an LMDB data file.*move away"):
        store.stats()
