"""One trainable layer in the place of a language model: causal, cached, each forecaster's own."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import tsllm
from small_forecasters import TINY, panel, small
from tsllm.backbone import PrivateBackbone, load_backbone, tuned
from tsllm.backbone.export import export_backbone
from tsllm.backbone.replacement import ReplacementLayer
from tsllm.errors import DataError

LIKE = "random:gpt2?hidden=16&layers=2&heads=2&positions=8"


@pytest.fixture(params=["attention", "transformer"])
def backbone(request):
    return load_backbone(f"layer:{request.param}?like={LIKE}", device="cpu")


def tokens(*shape, seed=0):
    return torch.randn(*shape, 16, generator=torch.Generator().manual_seed(seed))


class TestTheLayer:
    def test_the_attention_is_torchs_own(self):
        layer = ReplacementLayer(16, 2, feedforward=False)
        x = tokens(3, 7)
        # at position 0 for all nothing is rotated, and torch's layer knows no positions
        states = layer(x, position_ids=torch.zeros(1, 7, dtype=torch.long)).last_hidden_state
        oracle = nn.MultiheadAttention(16, 2, batch_first=True)
        oracle.in_proj_weight, oracle.in_proj_bias = layer.projections.parameters()
        oracle.out_proj = layer.attention_output
        normed = layer.attention_norm(x)
        later = torch.ones(7, 7, dtype=torch.bool).triu(1)
        mixed, _ = oracle(normed, normed, normed, attn_mask=later, need_weights=False)
        torch.testing.assert_close(states, layer.final_norm(x + mixed), rtol=0, atol=1e-5)

    def test_only_the_distance_of_tokens_counts(self):
        layer = ReplacementLayer(
            12, 4, feedforward=True
        )  # three features a head: one is not turned
        x = torch.randn(2, 5, 12)
        near, far = (torch.arange(5)[None] + start for start in (0, 700))
        states = layer(x, position_ids=near).last_hidden_state
        torch.testing.assert_close(
            layer(x, position_ids=far).last_hidden_state, states, rtol=0, atol=1e-4
        )
        apart = layer(x, position_ids=near * 3).last_hidden_state
        assert (apart - states)[:, 1:].abs().amax() > 1e-3

    def test_later_tokens_and_masked_ones_change_nothing(self, backbone):
        shell = tuned(backbone)
        x = tokens(2, 9)  # more than the eight positions of the model whose place it takes
        changed = x.clone()
        changed[:, 5:] = 3.0
        before, after = shell.hidden(x).states, shell.hidden(changed).states
        torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-6)
        assert (after[:, 5:] - before[:, 5:]).abs().amax() > 1e-3
        mask = torch.ones(2, 9, dtype=torch.bool)
        mask[0, :4] = False
        junk = torch.where(mask[..., None], x, torch.nan)
        states = shell.hidden(junk, attention_mask=mask).states
        alone = shell.hidden(x[:1, 4:]).states  # the rotations know only distances
        torch.testing.assert_close(states[:1, 4:], alone, rtol=0, atol=1e-5)
        assert states.isfinite().all()

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("split", [1, 3])
    def test_on_its_cache_it_computes_what_it_does_at_once(self, backbone, masked, split):
        shell = tuned(backbone)
        x = tokens(2, 7)
        mask = torch.ones(2, 7, dtype=torch.bool)
        if masked:
            mask[0, :2] = False
        whole = shell.hidden(x, attention_mask=mask).states
        past, states = None, []
        for first in range(0, 7, split):
            part = slice(first, first + split)
            one, past = shell.hidden(
                x[:, part], past, attention_mask=mask[:, : first + split], use_cache=True
            )
            states.append(one)
        torch.testing.assert_close(torch.cat(states, 1)[mask], whole[mask], rtol=0, atol=1e-5)


class TestTheBackbone:
    def test_words_and_width_are_the_language_models_and_the_layer_is_its_own(self, backbone):
        like = load_backbone(LIKE, device="cpu")
        assert torch.equal(backbone.word_embeddings, like.word_embeddings)
        assert not backbone.word_embeddings.requires_grad
        assert backbone.tokens(["up"]) == like.tokens(["up"])
        assert (backbone.hidden_size, backbone.n_layers, backbone.max_positions) == (16, 1, None)
        assert backbone.parameter_count == like.word_embeddings.numel()
        shell = tuned(backbone)
        assert isinstance(shell, PrivateBackbone)
        attention = 16 * 48 + 48 + 16 * 16 + 16 + 2 * 2 * 16
        feedforward = 16 * 64 + 64 + 64 * 16 + 16 + 2 * 16
        expected = attention + feedforward * ("transformer" in backbone.spec)
        assert sum(p.numel() for p in shell.parameters()) == expected
        assert all(p.requires_grad for p in shell.parameters())

    def test_digests_tell_kinds_and_models_apart(self, backbone):
        again = load_backbone(backbone.spec, device="cpu")
        assert again == backbone
        assert again.digest == backbone.digest
        kinds = {
            load_backbone(f"layer:{kind}?like={like}", device="cpu").digest
            for kind in ("attention", "transformer")
            for like in (LIKE, LIKE + "&seed=1")
        }
        assert len(kinds | {load_backbone(LIKE, device="cpu").digest}) == 5

    @pytest.mark.parametrize("through", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
    def test_a_copy_of_a_shell_carries_its_layer(self, backbone, through):
        shell = tuned(backbone)
        state = torch.random.get_rng_state()
        other = through(shell)
        assert torch.equal(torch.random.get_rng_state(), state)
        x = tokens(2, 4)
        expected = shell.hidden(x).states
        assert torch.equal(other.hidden(x).states, expected)
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
        assert torch.equal(shell.hidden(x).states, expected)
        assert not torch.equal(other.hidden(x).states, expected)

    def test_in_bfloat16_the_layer_stays_float32(self):
        half = load_backbone(f"layer:transformer?like={LIKE}", device="cpu", dtype="bfloat16")
        shell = tuned(half)
        states = shell.hidden(tokens(1, 3)).states
        states.sum().backward()
        assert {p.dtype for p in shell.parameters()} == {states.dtype} == {torch.float32}
        assert half.word_embeddings.dtype == torch.bfloat16

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("layer:mlp?like=gpt2", "'mlp' is no such layer; use 'attention' or 'transformer'"),
            ("layer:attention", "does not say which language model's place"),
            ("layer:attention?seed=0", "does not say which language model's place"),
            (f"layer:attention?like=layer:attention?like={LIKE}", "does not say which"),
            ("layer:attention?like=random:gpt3?hidden=8", "'hidden' is not an entry"),
        ],
    )
    def test_specs_that_are_refused(self, spec, words):
        with pytest.raises(DataError) as caught:
            load_backbone(spec, device="cpu")
        assert words in str(caught.value)

    def test_what_it_cannot_do_is_said(self, backbone, tmp_path):
        with pytest.raises(DataError, match="reads no texts and embeds nothing"):
            backbone.last_token(["up"])
        with pytest.raises(DataError, match=r"use a language model for that, or tuned\(\)"):
            backbone.hidden(tokens(1, 2))
        with pytest.raises(DataError, match=r"trained whole: leave lora out"):
            tuned(backbone, lora={})
        with pytest.raises(DataError, match="cannot be bundled: its layer is saved with the model"):
            export_backbone(backbone, tmp_path)
        with pytest.raises(DataError, match="is one layer; leave layers"):
            load_backbone(backbone.spec, device="cpu", layers=2)


METHODS = {
    "autotimes": {"rollout": "cached"},
    "s2ip": {"dropout": 0.0},
    "aaren": {"soft_prompt_length": 2},
}


@pytest.mark.parametrize("kind", ["attention", "transformer"])
@pytest.mark.parametrize("method", METHODS)
def test_a_forecaster_trains_saves_and_loads_its_layer(method, kind, tmp_path):
    y = panel([40], ["a"])
    spec = f"layer:{kind}?like={TINY}"
    fit = {"backbone": spec, "max_steps": 3, "learning_rate": 0.05, **METHODS[method]}
    forecaster = small(method, **fit).fit(y, fh=range(1, 9))
    layer = {n: p for n, p in forecaster.fitted_.model.named_parameters() if "attention" in n}
    untrained = small(method, **fit)._new_model(
        forecaster.fitted_.backbone, forecaster.fitted_.shape
    )
    first = dict(untrained.named_parameters())
    assert layer
    # the layer starts from the seed and is trained
    assert any(not torch.equal(p, first[n]) for n, p in layer.items())
    again = small(method, **fit).fit(y, fh=range(1, 9))
    np.testing.assert_array_equal(again.predict(), forecaster.predict())
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(), forecaster.predict())
    assert "word embeddings" in (tmp_path / "model" / "card.md").read_text()


def test_methods_that_embed_texts_refuse_it(tmp_path):
    y = panel([40], ["a"])
    spec = f"layer:attention?like={TINY}"
    for method, more in (("timecma", {}), ("autotimes", {"timestamps": True})):
        forecaster = small(method, backbone=spec, embedding_store=tmp_path, **more)
        with pytest.raises(DataError, match="reads no texts"):
            forecaster.fit(y, fh=[1, 2])
