"""Codes of inter-event times and vectors of types."""

import math

import pytest
import torch
from event_models import batch_of, sequences

from tsllm.adapters.events.encoders.llm import (
    EventTokens,
    TextTypeHead,
    mean_token_embeddings,
    word_rms,
)
from tsllm.adapters.events.features import EventEmbedding, TimeEncoding, TypeVectors


def test_gaps_are_encoded_by_frequencies_from_the_median_gap_to_a_thousand_of_them():
    encoding = TimeEncoding(16, median_gap=2.0)
    code = encoding(torch.tensor(6.0))
    rates = [1 / 2 * 1000 ** (-j / 3) for j in range(4)]
    logs = [2.0 ** (1 - 4 * j / 3) for j in range(4)]
    angles = [6.0 * rate for rate in rates] + [math.log(3.0) * rate for rate in logs]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    assert code.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_code_of_a_gap_depends_on_its_ratio_to_the_median_alone():
    gaps = torch.tensor([0.0, 0.01, 1.0, 50.0])
    one, other = TimeEncoding(8, median_gap=1.0), TimeEncoding(8, median_gap=60.0)
    assert torch.allclose(one(gaps), other(gaps * 60), atol=1e-5)
    assert one(gaps).isfinite().all()  # 0 too


def test_an_embedding_is_the_sum_of_type_gap_and_covariates():
    embedding = EventEmbedding(3, 8, time_features=8, context_features=2)
    context = torch.tensor([[1.0, 2.0]])
    token = embedding.token(torch.tensor([1]), torch.tensor([0.5]), context)
    time = embedding.time_layer(embedding.time_encoding(torch.tensor([0.5])))
    assert torch.allclose(token, embedding.types[1] + time + embedding.context_layer(context))
    batch = batch_of([([0.5], [1])])
    with pytest.raises(ValueError, match="reads 2 static covariates"):
        embedding(batch)


def test_a_new_type_starts_as_the_mean_of_the_others():
    embedding = EventEmbedding(3, 8)
    before = embedding.type_table().detach().clone()
    embedding.grow(5)
    after = embedding.type_table().detach()
    assert torch.equal(after[:3], before)
    assert torch.allclose(after[3], before.mean(0))
    assert embedding.types.requires_grad


def test_type_vectors_keep_the_scale_of_the_first_types():
    vectors = TypeVectors(torch.tensor([[9.0, 1.0], [11.0, 3.0]]))
    vectors.grow(torch.tensor([[12.0, 2.0]]))
    assert vectors.table.tolist() == [[-1.0, -1.0], [1.0, 1.0], [2.0, 0.0]]
    lone = TypeVectors(torch.tensor([[9.0, 1.0]]))  # nothing to compare with
    assert lone.table.tolist() == [[0.0, 0.0]]


def test_soft_tokens_are_as_large_as_words(tiny_backbone):
    rms = word_rms(tiny_backbone)
    texts = ["rain", "a long name of several words", "hail"]
    vectors = mean_token_embeddings(tiny_backbone, texts)
    words = tiny_backbone.word_embeddings.float()
    ids = tiny_backbone.tokens(texts[:1], add_special_tokens=False)[0]
    assert torch.allclose(vectors[0], words[ids].mean(0))
    tokens = EventTokens(rms, vectors, time_features=32)
    gaps, types = sequences(1, 200)[0]
    pairs = tokens(torch.tensor(types % 3)[None], torch.tensor(gaps).float()[None], None)
    of_type, of_gap = pairs[0, ::2], pairs[0, 1::2]
    assert of_type.square().mean(-1).sqrt().allclose(torch.tensor(rms))
    assert float(of_gap.detach().square().mean().sqrt()) == pytest.approx(rms, rel=0.3)
    assert torch.equal(of_type[0], tokens.table[types[0] % 3])


def test_type_logits_are_tied_to_texts():
    vectors = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    head = TextTypeHead(8, vectors)
    hidden = torch.randn(2, 5, 8)
    logits = head(hidden)
    assert logits.shape == (2, 5, 3)
    head.grow(vectors[1:2])  # a new type that reads like the second
    grown = head(hidden)
    assert torch.allclose(grown[..., :3], logits, atol=1e-6)
    assert torch.allclose(grown[..., 3], logits[..., 1], atol=1e-6)
