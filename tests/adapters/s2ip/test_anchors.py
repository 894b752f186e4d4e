"""Anchors: what they are made of, what is trained, when they are computed, how they are found."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from tsllm.adapters.s2ip.anchors import ANCHORS, build_anchors, cluster_centres, retrieve

WORDS, POOL, WIDTH = 60, 7, 8


@pytest.fixture
def words():
    return torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(0))


def pool(kind, words, seed=0):
    torch.manual_seed(seed)
    return build_anchors(kind, POOL, WIDTH, words)


def test_prototypes_are_a_linear_layer_over_the_transposed_embeddings(words):
    anchors = pool("prototypes", words)
    published = anchors.linear(words.T).T
    torch.testing.assert_close(anchors(words), published)
    assert [tuple(p.shape) for p in anchors.parameters()] == [(POOL, WORDS), (POOL,)]


def test_free_anchors_start_where_the_prototypes_do(words):
    free, prototypes = pool("free", words), pool("prototypes", words)
    assert torch.equal(free(words), prototypes(words))
    assert [tuple(p.shape) for p in free.parameters()] == [(POOL, WIDTH)]


def test_free_anchors_reach_whatever_prototypes_can_be(words):
    """The mixtures have the rank of the embeddings, so that any matrix is one of them."""
    torch.manual_seed(3)
    target = torch.randn(POOL, WIDTH)
    mixture = torch.linalg.lstsq(words.T, target.T).solution.T  # (pool, words)
    torch.testing.assert_close(mixture @ words, target, atol=1e-4, rtol=1e-4)


def test_clusters_are_frozen_and_saved(words):
    anchors = pool("clusters", words)
    assert list(anchors.parameters()) == []
    assert list(anchors.state_dict()) == ["centres"]
    assert torch.equal(pool("clusters", words, seed=5)(words), anchors(words))


def test_clusters_find_what_lies_together():
    torch.manual_seed(0)
    truth = torch.randn(4, WIDTH) * 20
    points = truth.repeat_interleave(50, dim=0) + torch.randn(200, WIDTH) * 0.1
    centres = cluster_centres(points.bfloat16(), 12)
    assert centres.dtype == torch.float32
    assert torch.cdist(truth, centres).min(dim=1).values.max() < 0.5
    assert torch.cdist(centres, truth).min(dim=1).values.max() < 0.5


def test_a_round_of_clustering_never_makes_them_worse(words):
    def spread(centres):
        return torch.cdist(words, centres).min(dim=1).values.square().sum()

    errors = [float(spread(cluster_centres(words, POOL, iterations=n))) for n in range(8)]
    assert all(later <= earlier + 1e-4 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0]
    # Lloyd's rounds end where every centre is the mean of its words.
    centres = cluster_centres(words, POOL, iterations=50)
    nearest = torch.cdist(words, centres).argmin(dim=1)
    means = torch.stack([words[nearest == k].mean(dim=0) for k in range(POOL)])
    torch.testing.assert_close(centres, means)


def test_as_many_clusters_as_words_are_the_words(words):
    centres = cluster_centres(words, WORDS)
    torch.testing.assert_close(centres[centres[:, 0].argsort()], words[words[:, 0].argsort()])


# When prototypes are computed


def computed(anchors, words):
    """Return the anchors, and whether the vocabulary was read for them."""
    calls = []
    anchors._mix = lambda w: calls.append(1) or type(anchors)._mix(anchors, w)
    try:
        rows = anchors(words)
    finally:
        del anchors._mix
    return rows, bool(calls)


def test_prototypes_are_kept_for_forecasts_and_never_outlive_their_weights(words):
    anchors = pool("prototypes", words).eval()
    others = pool("prototypes", words, seed=1)

    def fresh():
        with torch.no_grad():
            rows, anew = computed(anchors, words)
            torch.testing.assert_close(rows, anchors.linear(words.T).T)
            again, once_more = computed(anchors, words)
        assert again is rows
        assert not once_more
        return anew

    assert fresh()
    assert not fresh()
    with torch.no_grad():
        anchors.linear.weight.add_(1.0)
    assert fresh()
    with torch.no_grad():
        anchors.linear.bias.mul_(2.0)
    assert fresh()
    anchors.load_state_dict(others.state_dict())
    assert fresh()
    anchors.linear.weight = nn.Parameter(anchors.linear.weight.detach() * 3)
    assert fresh()
    anchors.linear.weight.data.mul_(0.5)  # torch does not count this write, but the mode's change
    anchors.train()
    anchors.eval()
    assert fresh()
    anchors.double().float()
    assert fresh()
    optimiser = torch.optim.Adam(anchors.parameters(), lr=0.1)
    anchors(words).sum().backward()
    optimiser.step()
    assert fresh()


def test_prototypes_in_training_carry_gradients_whatever_was_kept(words):
    anchors = pool("prototypes", words).eval()
    with torch.inference_mode():
        anchors(words)
    anchors(words).square().sum().backward()  # in evaluation mode, with gradients on
    assert anchors.linear.weight.grad.abs().sum() > 0
    anchors.train()
    with torch.no_grad():
        _, first = computed(anchors, words)
        _, second = computed(anchors, words)
    assert first
    assert second


def test_kept_prototypes_are_not_pickled_and_a_copy_has_its_own(words):
    anchors = pool("prototypes", words).eval()
    with torch.no_grad():
        kept = anchors(words)
    assert pickle.loads(pickle.dumps(anchors))._kept is None
    twin = copy.deepcopy(anchors)
    with torch.no_grad():
        twin.linear.weight.zero_()
        assert not torch.equal(twin(words), kept)
        assert torch.equal(anchors(words), kept)


# Retrieval


def test_retrieval_equals_a_plain_search():
    torch.manual_seed(0)
    query, anchors = torch.randn(5, WIDTH), torch.randn(POOL, WIDTH) * 10
    found = retrieve(query, anchors, 3)
    for i in range(5):
        cosines = [
            float(query[i] @ row / (query[i].norm() * row.norm())) for row in anchors
        ]  # one by one
        best = np.argsort(cosines)[::-1][:3]
        assert found.indices[i].tolist() == best.tolist()
        np.testing.assert_allclose(found.similarities[i], np.array(cosines)[best], atol=1e-6)
        assert torch.equal(found.anchors[i], anchors[best.copy()])


def test_the_length_of_queries_and_anchors_does_not_matter():
    torch.manual_seed(0)
    query, anchors = torch.randn(5, WIDTH), torch.randn(POOL, WIDTH)
    lengths = torch.rand(POOL, 1) * 1e3 + 1e-3
    found, other = retrieve(query, anchors, 2), retrieve(query * 1e-4, anchors * lengths, 2)
    assert torch.equal(found.indices, other.indices)
    torch.testing.assert_close(found.similarities, other.similarities)


def test_a_query_of_norm_zero_is_like_nothing():
    found = retrieve(torch.zeros(1, WIDTH), torch.randn(POOL, WIDTH), 2)
    assert found.similarities.tolist() == [[0.0, 0.0]]


# What is refused


@pytest.mark.parametrize("kind", sorted(set(ANCHORS) - {"free"}))
def test_anchors_of_words_need_words(kind):
    with pytest.raises(ValueError, match=f"anchors='{kind}' are made of word embeddings"):
        build_anchors(kind, POOL, WIDTH, None)


def test_what_cannot_be_built_is_refused(words):
    with pytest.raises(ValueError, match=r"anchors must be one of .* got 'words'"):
        build_anchors("words", POOL, WIDTH, words)
    with pytest.raises(ValueError, match="pool_size=61 clusters are more than the 60 words"):
        build_anchors("clusters", 61, WIDTH, words)
