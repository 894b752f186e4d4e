"""How texts are cut into batches, and how their embeddings come out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsllm.embeddings import encoding
from tsllm.embeddings.encoding import AUTO_TOKENS, embed_texts, length_batches


@given(
    st.lists(st.integers(1, 600), max_size=200),
    st.one_of(st.just("auto"), st.integers(1, 50)),
)
def test_batches_hold_each_text_once_and_hardly_any_padding(lengths, batch_size):
    lengths = np.array(lengths, dtype=int)
    batches = list(length_batches(lengths, batch_size))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    for batch in batches:
        room = lengths[batch].max() * len(batch)
        assert room - lengths[batch].sum() <= 0.05 * room + 1e-9
        if batch_size == "auto":
            assert len(batch) == 1 or room <= AUTO_TOKENS["cpu"]
        else:
            assert len(batch) <= batch_size


def test_prompts_of_like_length_fill_their_batches():
    lengths = np.random.default_rng(0).normal(277, 12, 2048).astype(int)
    batches = list(length_batches(lengths, 16))
    assert len(batches) <= 1.1 * 2048 / 16


@pytest.mark.parametrize("rows", [1, 5, 10**6])
def test_embeddings_are_handed_over_as_they_come(tiny_backbone, monkeypatch, rows):
    monkeypatch.setattr(encoding, "HAND_OVER_ROWS", rows)
    monkeypatch.setattr(encoding, "SHARD", 7)
    texts = [f"{'a' * (number % 5)} {number}" for number in range(30)]
    got, sizes = {}, []

    def deliver(numbers, vectors):
        sizes.append(len(numbers))
        got.update(zip(numbers, vectors))

    embed_texts(texts, tiny_backbone, deliver, batch_size=2)
    expected = tiny_backbone.last_token(texts).numpy()
    np.testing.assert_allclose(np.stack([got[i] for i in range(30)]), expected, atol=1e-5)
    assert sum(sizes) == 30
    assert max(sizes) < rows + 2


def test_what_others_computed_meanwhile_is_left_out(tiny_backbone, monkeypatch):
    monkeypatch.setattr(encoding, "SHARD", 10)
    got = []
    embed_texts(
        [f"text {number}" for number in range(30)],
        tiny_backbone,
        lambda numbers, vectors: got.extend(numbers),
        is_done=lambda numbers: [number % 2 == 0 for number in numbers],
    )
    assert sorted(got) == list(range(1, 30, 2))
