"""The store in memory: each text is computed once, and everybody gets the same vector."""

import copy
import pickle
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.backbone import load_backbone
from tsllm.embeddings import MemoryStore, open_store
from tsllm.errors import DataError


@pytest.fixture
def computed(monkeypatch):
    """Every text that any backbone embeds, in order."""
    texts = []
    from tsllm.backbone import Backbone

    original = Backbone.last_token

    def counting(self, part, **arguments):
        texts.extend(part)
        return original(self, part, **arguments)

    monkeypatch.setattr(Backbone, "last_token", counting)
    return texts


def test_only_what_is_missing_is_computed(tiny_backbone, computed):
    store = MemoryStore()
    first = store.encode(["bb", "a", "bb"], tiny_backbone)
    assert sorted(computed) == ["a", "bb"]
    assert torch.equal(first[0], first[2])
    second = store.encode(["ccc", "a"], tiny_backbone)
    assert sorted(computed) == ["a", "bb", "ccc"]
    assert torch.equal(second[1], first[1])
    assert store.stats() == {"hits": 2, "misses": 3, "bytes": 3 * 32 * 4}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=9), st.integers(1, 4))
def test_rows_follow_the_texts(tiny_backbone, texts, batch_size):
    embeddings = MemoryStore().encode(texts, tiny_backbone, batch_size=batch_size)
    assert embeddings.shape == (len(texts), 32)
    assert embeddings.dtype == torch.float32
    for text, embedding in zip(texts, embeddings, strict=True):
        expected = tiny_backbone.last_token([text])[0]
        torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)


def test_many_texts_take_several_calls_and_keep_what_was_done(tiny_backbone, computed):
    store = MemoryStore()
    texts = [f"text {number:04d}" for number in range(70)]
    with pytest.raises(DataError, match="begins 'long"):
        store.encode([*texts, "long " * 500], tiny_backbone, batch_size=1)
    done = len(computed)
    assert store.stats()["bytes"] > 0
    embeddings = store.encode(texts, tiny_backbone, batch_size=1, progress=False)
    assert len(computed) < done + len(texts)
    torch.testing.assert_close(embeddings, tiny_backbone.last_token(texts), rtol=0, atol=1e-5)


def test_backbones_are_kept_apart(tiny_backbone, computed):
    store = MemoryStore()
    spec = tiny_backbone.spec
    backbones = [
        tiny_backbone,
        load_backbone(spec, layers=1, device="cpu"),
        load_backbone(spec, dtype="bfloat16", device="cpu"),
        load_backbone(spec.replace("seed=0", "seed=1"), device="cpu"),
    ]
    rows = [store.encode(["a"], backbone)[0] for backbone in backbones]
    assert computed == ["a"] * 4
    assert all(not torch.equal(rows[0], row) for row in rows[1:])


def test_results_are_the_callers_own(tiny_backbone):
    store = MemoryStore()
    first = store.encode(["a"], tiny_backbone)
    expected = first.clone()
    first.zero_()
    assert torch.equal(store.encode(["a"], tiny_backbone), expected)


def test_threads_agree(tiny_backbone, monkeypatch):
    from tsllm.backbone import Backbone

    original = Backbone.last_token

    def slow(self, part, **arguments):
        time.sleep(0.02)
        # Rounding of its own for each caller: only the first value may ever be seen.
        return original(self, part, **arguments) + 1e-6 * (threading.get_ident() % 97)

    monkeypatch.setattr(Backbone, "last_token", slow)
    store, results = MemoryStore(), []
    texts = ["a", "bb", "ccc"]
    threads = [
        threading.Thread(target=lambda: results.append(store.encode(texts, tiny_backbone)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(torch.equal(result, results[0]) for result in results)
    assert store.stats()["bytes"] == 3 * 32 * 4


def test_copies_and_pickles(tiny_backbone):
    store = MemoryStore()
    store.encode(["a"], tiny_backbone)
    assert copy.deepcopy(store) is copy.copy(store) is store
    assert pickle.loads(pickle.dumps(store)).stats() == {"hits": 0, "misses": 0, "bytes": 0}


def test_open_store():
    store = MemoryStore()
    assert open_store(store) is store
    assert open_store(None) is open_store(None)
    assert open_store(None) is not store


def test_a_progress_bar_on_stderr(tiny_backbone, capfd):
    MemoryStore().encode(["a"], tiny_backbone)
    assert capfd.readouterr().err == ""
    MemoryStore().encode(["a"], tiny_backbone, progress=True)
    captured = capfd.readouterr()
    assert "embedding texts" in captured.err
    assert captured.out == ""
