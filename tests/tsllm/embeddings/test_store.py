"""The store: each text is computed once, ever, and everybody gets the same vector."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from damaged_stores import flip_a_bit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsllm.backbone import Backbone, load_backbone
from tsllm.embeddings import EmbeddingStore, default_path, open_store
from tsllm.errors import DataError, EmbeddingStoreError

# ---------------------------------------------------------------- encoding


def test_only_what_is_missing_is_computed(store, tiny_backbone, computed):
    first = store.encode(["bb", "a", "bb"], tiny_backbone)
    assert len(computed) == 2
    assert torch.equal(first[0], first[2])
    second = store.encode(["ccc", "a"], tiny_backbone)
    assert len(computed) == 3
    assert torch.equal(second[1], first[1])
    stats = store.stats()
    assert (stats["hits"], stats["misses"], stats["vectors"]) == (2, 3, 3)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(st.text(max_size=12), max_size=9),
    batch_size=st.one_of(st.just("auto"), st.integers(1, 4)),
)
def test_rows_follow_the_texts(store, tiny_backbone, texts, batch_size):
    texts = [text + "." for text in texts]  # the empty text has no token
    embeddings = store.encode(texts, tiny_backbone, batch_size=batch_size)
    assert embeddings.shape == (len(texts), 32)
    assert embeddings.dtype == torch.float32
    for text, embedding in zip(texts, embeddings, strict=True):
        expected = tiny_backbone.last_token([text])[0]
        torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "qwen2", "qwen3", "gemma"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_architecture_batch_of_one_equals_batch_of_many(store, architecture, dtype):
    _check_batches(store, architecture, dtype)


@pytest.mark.parametrize("architecture", ["mistral", "gpt_neox", "bert"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_more_architectures(store, architecture, dtype):
    _check_batches(store, architecture, dtype)


def _check_batches(store, architecture, dtype):
    backbone = load_backbone(f"random:{architecture}", dtype=dtype, device="cpu")
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(40)]
    together = store.encode(texts, backbone)
    alone = torch.cat([backbone.last_token([text]) for text in texts])
    # bfloat16 keeps 8 bits: 2^-8 of the largest state, met after each of two layers.
    tolerance = 1e-5 if dtype == "float32" else 0.02 * float(alone.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance)


def test_keys_read_back_what_was_filled(store, tiny_backbone, computed):
    texts = ["up", "down", "up", "sideways"]
    keys = store.fill(texts, tiny_backbone)
    assert keys.shape == (4, 32)
    assert keys.dtype == np.uint8
    assert np.array_equal(keys[0], keys[2])
    done = len(computed)
    assert torch.equal(store.read(keys, tiny_backbone), store.encode(texts, tiny_backbone))
    assert torch.equal(store.read(keys[2:], tiny_backbone), store.encode(texts[2:], tiny_backbone))
    assert len(computed) == done == 3
    assert store.read(keys[:0], tiny_backbone).shape == (0, 32)


def test_keys_of_texts_that_were_pruned_say_so(store, tiny_backbone):
    keys = store.fill(["up"], tiny_backbone)
    store.prune(keep=[])
    with pytest.raises(EmbeddingStoreError, match="missing or damaged"):
        store.read(keys, tiny_backbone)


def test_what_was_computed_before_a_failure_is_kept(store, tiny_backbone, monkeypatch, computed):
    original = Backbone.last_states

    def failing(self, tokens):
        if len(computed) >= 8:
            raise RuntimeError("the machine has had enough")
        return original(self, tokens)

    monkeypatch.setattr(Backbone, "last_states", failing)
    texts = [f"text {number}" for number in range(20)]
    with pytest.raises(RuntimeError, match="had enough"):
        store.encode(texts, tiny_backbone, batch_size=4)
    assert store.stats()["vectors"] == 8
    monkeypatch.setattr(Backbone, "last_states", original)
    embeddings = store.encode(texts, tiny_backbone)
    assert store.stats()["misses"] == 20 + 12
    torch.testing.assert_close(embeddings, tiny_backbone.last_token(texts), rtol=0, atol=1e-5)


def test_a_text_that_is_too_long_is_refused_before_work(store, tiny_backbone, computed):
    texts = [f"text {number}" for number in range(20)]
    with pytest.raises(DataError, match=r"begins 'long.*takes at most"):
        store.encode([*texts, "long " * 5000], tiny_backbone)
    assert not computed


@pytest.mark.parametrize("texts", [["a", 3], ["a", None]])
def test_texts_that_are_none(store, tiny_backbone, texts):
    with pytest.raises(DataError, match="list of str"):
        store.encode(texts, tiny_backbone)


def test_half_a_character_and_no_backbone(store, tiny_backbone):
    with pytest.raises(DataError, match="half a character"):
        store.encode(["a", "\ud800"], tiny_backbone)
    with pytest.raises(DataError, match="backbone must be a loaded Backbone, found None"):
        store.encode(["a"], None)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "many"])
def test_bad_batch_sizes(store, tiny_backbone, batch_size):
    with pytest.raises(DataError, match="batch_size must be 'auto'"):
        store.encode(["a"], tiny_backbone, batch_size=batch_size)


def test_results_are_the_callers_own(store, tiny_backbone):
    first = store.encode(["a"], tiny_backbone)
    expected = first.clone()
    first.zero_()
    assert torch.equal(store.encode(["a"], tiny_backbone), expected)


def test_threads_agree_on_one_value(store, tiny_backbone, monkeypatch):
    original = Backbone.last_states
    together = threading.Barrier(6)

    def slow(self, tokens):
        together.wait()
        # Rounding of its own for each caller: only the first value may ever be seen.
        return original(self, tokens) + 1e-6 * (threading.get_ident() % 97)

    monkeypatch.setattr(Backbone, "last_states", slow)
    results = []
    texts = ["a", "b", "c"]
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
    assert store.stats()["vectors"] == 3


def test_a_progress_bar_on_stderr(store, tiny_backbone, capfd):
    store.encode(["a"], tiny_backbone)
    assert capfd.readouterr().err == ""
    store.encode(["b"], tiny_backbone, progress=True)
    captured = capfd.readouterr()
    assert "embedding texts" in captured.err
    assert captured.out == ""


# ---------------------------------------------------------------- what is kept apart


def test_backbones_and_precisions_are_kept_apart(store, tiny_backbone, computed):
    spec = tiny_backbone.spec
    backbones = [
        tiny_backbone,
        load_backbone(spec, layers=1, device="cpu"),
        load_backbone(spec, dtype="bfloat16", device="cpu"),
        load_backbone(spec.replace("seed=0", "seed=1"), device="cpu"),
    ]
    rows = [store.encode(["a"], backbone)[0] for backbone in backbones]
    assert len(computed) == 4
    assert all(not torch.equal(rows[0], row) for row in rows[1:])
    spaces = store.stats()["spaces"]
    assert sorted(space["compute_dtype"] for space in spaces) == ["bfloat16"] + ["float32"] * 3
    assert len({space["digest"] for space in spaces}) == 3  # bfloat16 has the weights of float32


def test_half_precision_is_kept_apart_and_close(store, tiny_backbone, computed):
    texts = [f"text {number}" for number in range(30)]
    full = store.encode(texts, tiny_backbone)
    half_store = EmbeddingStore(store.path, dtype="float16")
    half = half_store.encode(texts, tiny_backbone)
    assert len(computed) == 60
    assert half.dtype == torch.float32
    assert torch.equal(half, full.half().float())
    assert torch.equal(store.encode(texts, tiny_backbone), full)


def test_what_half_precision_cannot_hold_is_refused(store, tiny_backbone, monkeypatch):
    original = Backbone.last_states
    monkeypatch.setattr(Backbone, "last_states", lambda self, t: original(self, t) * 1e6)
    with pytest.raises(DataError, match=r"'up' is not finite in float16.*float32"):
        EmbeddingStore(store.path, dtype="float16").encode(["up"], tiny_backbone)
    assert store.stats()["vectors"] == 0
    store.encode(["up"], tiny_backbone)  # float32 can


def test_an_unknown_dtype():
    with pytest.raises(DataError, match="use 'float32' or 'float16'"):
        EmbeddingStore(dtype="int8")


def test_a_path_of_another_kind():
    with pytest.raises(DataError, match="path must be that of a folder or None, found 5"):
        EmbeddingStore(5)


# ---------------------------------------------------------------- the store as a whole


def test_a_store_that_is_not_there_holds_nothing(store):
    stats = store.stats()
    assert (stats["vectors"], stats["bytes"], stats["spaces"]) == (0, 0, [])
    for call in (store.verify, store.prune, store.check_exists):
        with pytest.raises(EmbeddingStoreError, match="there is no embedding store"):
            call()
    assert not store.path.exists()


def test_means_and_last_tokens_are_kept_apart(store, tiny_backbone, computed):
    texts = ["one", "a longer text", "one"]
    last = store.encode(texts, tiny_backbone)
    means = store.encode(texts, tiny_backbone, pooling="mean")
    assert store.stats()["vectors"] == 4
    for text, mean in zip(texts, means):  # alone and unpadded
        (tokens,) = tiny_backbone.tokens([text])
        states = [tiny_backbone.last_states([tokens[: n + 1]])[0] for n in range(len(tokens))]
        torch.testing.assert_close(mean, torch.stack(states).mean(0), atol=1e-5, rtol=0)
    assert torch.equal(store.encode(texts, tiny_backbone), last)
    assert torch.equal(store.encode(texts, tiny_backbone, pooling="mean"), means)
    with pytest.raises(DataError, match="pooling='first' is not known"):
        store.encode(texts, tiny_backbone, pooling="first")


def alone(text, backbone, folder):
    """Embed a text by itself, which rounds otherwise than a batch does."""
    return EmbeddingStore(folder / "alone").encode([text], backbone)[0]


def test_verify_finds_and_prune_removes_what_is_damaged(store, tiny_backbone, computed, tmp_path):
    texts = [f"text {number}" for number in range(10)]
    whole = store.encode(texts, tiny_backbone)
    flip_a_bit(store, texts[3], tiny_backbone)
    assert store.verify() == {"vectors": 10, "damaged": 1}
    assert store.prune() == {"damaged": 1, "unwanted": 0, "kept": 9}
    assert store.verify() == {"vectors": 9, "damaged": 0}
    again = store.encode(texts, tiny_backbone)
    assert len(computed) == 11
    whole[3] = alone(texts[3], tiny_backbone, tmp_path)
    assert torch.equal(again, whole)


def test_prune_keeps_the_backbones_that_are_named(store, tiny_backbone):
    other = load_backbone(tiny_backbone.spec, layers=1, device="cpu")
    store.encode(["a", "b"], tiny_backbone)
    store.encode(["a"], other)
    assert store.prune(keep=[other]) == {"damaged": 0, "unwanted": 2, "kept": 1}
    assert [space["vectors"] for space in store.stats()["spaces"]] == [1]
    assert len(store.encode(["a", "b"], tiny_backbone)) == 2  # and they can come back
    assert store.stats()["vectors"] == 3


@pytest.mark.parametrize("days", [-5, float("nan"), "old"])
def test_days_that_are_none(store, tiny_backbone, days):
    store.encode(["a"], tiny_backbone)
    with pytest.raises(DataError, match="unused_days must be a number of at least 0"):
        store.prune(unused_days=days)
    assert store.stats()["vectors"] == 1


def test_prune_by_age(store, tiny_backbone):
    store.encode(["a"], tiny_backbone)
    assert store.prune(unused_days=1)["kept"] == 1
    assert store.prune(unused_days=0) == {"damaged": 0, "unwanted": 1, "kept": 0}


def test_export_copies_what_is_wanted(store, tiny_backbone, tmp_path, computed):
    other = load_backbone(tiny_backbone.spec, layers=1, device="cpu")
    texts = [f"text {number}" for number in range(200)]
    whole = store.encode(texts, tiny_backbone)
    store.encode(texts, other)
    flip_a_bit(store, texts[7], tiny_backbone)
    copied = store.export(tmp_path / "copy", backbones=[tiny_backbone])
    assert copied.verify() == {"vectors": 199, "damaged": 0}
    again = copied.encode(texts, tiny_backbone)
    assert len(computed) == 401
    whole[7] = alone(texts[7], tiny_backbone, tmp_path)
    assert torch.equal(again, whole)
    again = store.export(tmp_path / "copy")  # into a store that holds something
    assert again.stats()["vectors"] == 400
    with pytest.raises(DataError, match="is the store itself"):
        store.export(store.path)


def test_the_map_grows_with_what_is_kept(store, tiny_backbone, monkeypatch):
    from tsllm.embeddings import database

    monkeypatch.setattr(database, "FIRST_MAP", 64 * 1024)
    texts = [f"text {number}" for number in range(600)]
    whole = store.encode(texts, tiny_backbone)
    assert store.stats()["bytes"] > 64 * 1024
    assert torch.equal(store.encode(texts, tiny_backbone), whole)


# ---------------------------------------------------------------- where it is


def test_copies_and_pickles_are_the_same_address(store, tiny_backbone):
    store.encode(["a"], tiny_backbone)
    for other in (copy.deepcopy(store), copy.copy(store), pickle.loads(pickle.dumps(store))):
        assert other == store
        assert hash(other) == hash(store)
        assert other.stats()["vectors"] == 1
    assert len(pickle.dumps(store)) < 500


def test_open_store(store, monkeypatch, tmp_path):
    assert open_store(store) is store
    assert open_store(str(store.path)) == store
    monkeypatch.setenv("TSLLM_STORE", str(tmp_path / "named"))
    assert open_store(None).path == default_path() == tmp_path / "named"
    monkeypatch.delenv("TSLLM_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_path() == tmp_path / "cache" / "tsllm" / "embeddings"


def test_a_folder_that_was_removed_is_a_new_store(store, tiny_backbone, computed):
    import shutil

    store.encode(["a"], tiny_backbone)
    shutil.rmtree(store.path)
    assert store.stats()["vectors"] == 0
    store.encode(["a"], tiny_backbone)
    assert len(computed) == 2


def test_a_forked_child_opens_the_store_anew(store, tiny_backbone):
    whole = store.encode(["a", "b"], tiny_backbone)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if torch.equal(store.encode(["a", "b"], tiny_backbone), whole) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.encode(["c"], tiny_backbone)
    assert store.verify() == {"vectors": 3, "damaged": 0}
