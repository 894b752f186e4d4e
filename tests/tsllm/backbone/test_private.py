"""Private shells: what is trained inside the language model, apart from the shared weights."""

import copy
import io
import pickle
import sys

import pytest
import torch
from torch import nn

from tsllm.backbone import autocast_backbone, load_backbone, tuned
from tsllm.backbone.shared import canonical_digest
from tsllm.errors import DataError

ARCHITECTURES = (
    "gpt2", "llama", "opt", "qwen2", "qwen3", "gemma", "mistral", "gpt_neox", "bert",
)  # fmt: skip
LEARNED_POSITIONS = {"wpe": "gpt2", "embed_positions": "opt", "position_embeddings": "bert"}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def backbone(request):
    return load_backbone(
        f"random:{request.param}?hidden=32&layers=2&heads=2&positions=64", device="cpu"
    )


@pytest.fixture(scope="module")
def llama():
    return load_backbone("random:llama?hidden=32&layers=2&heads=2", device="cpu")


def tokens(backbone, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, backbone.hidden_size, generator=generator)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def is_norm(module):
    return type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def digest_now(backbone):
    shared = backbone._shared
    return canonical_digest(shared.plain, shared.config, shared.tokenizer)


def perturb(private, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in private.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


class TestOwnership:
    def test_layer_norms_and_positions(self, backbone):
        private = tuned(backbone, train=["layer_norms", "positions"])
        expected = sum(
            count(module)
            for name, module in backbone._shared.causal.named_modules()
            if is_norm(module) or name.rpartition(".")[2] in LEARNED_POSITIONS
        )
        assert count(private) == expected > 0
        assert list(private.state_dict()) == [name for name, _ in private.named_parameters()]
        positions = tuned(backbone, train=["positions"])
        assert (count(positions) > 0) == (backbone.model_type in LEARNED_POSITIONS.values())

    def test_everything_else_is_the_shared_storage(self, backbone):
        private = tuned(backbone, train=["layer_norms"], lora={"r": 2})
        owned = {parameter.data_ptr() for parameter in private.parameters()}
        shared = {p.data_ptr() for p in backbone._shared.causal.parameters()}
        assert not owned & shared
        inside = {parameter.data_ptr() for parameter in private._shell.parameters()}
        norms = sum(
            len(list(module.parameters()))
            for module in backbone._shared.causal.modules()
            if is_norm(module)
        )
        assert len(inside - owned) == len(shared) - norms
        assert inside - owned <= shared

    @pytest.mark.parametrize("settings", [{"train": ["layer_norms", "positions"]}, {"lora": {}}])
    def test_untrained_it_is_the_backbone(self, backbone, settings):
        private = tuned(backbone, **settings).eval()
        x = tokens(backbone, 2, 5)
        mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
        torch.testing.assert_close(
            private.hidden(x, attention_mask=mask).states,
            backbone.hidden(x, attention_mask=mask).states,
            rtol=0,
            atol=1e-6,
        )

    @pytest.mark.parametrize("settings", [{"train": ["layer_norms", "positions"]}, {"lora": {}}])
    def test_changed_it_stays_causal_and_keeps_its_cache(self, backbone, settings):
        private = tuned(backbone, **settings).eval()
        perturb(private)
        x = tokens(backbone, 2, 6)
        whole = private.hidden(x).states
        assert (whole - backbone.hidden(x).states).abs().amax() > 1e-3
        alone = private.hidden(x, last_only=True).states
        torch.testing.assert_close(alone, whole[:, -1:], rtol=0, atol=1e-5)
        first, past = private.hidden(x[:, :3], use_cache=True)
        second, _ = private.hidden(x[:, 3:], past)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-5)

    def test_training_changes_only_what_is_owned(self, backbone):
        private = tuned(backbone, train=["layer_norms"], lora={"r": 2, "dropout": 0.1})
        before = digest_now(backbone)
        optimizer = torch.optim.Adam(private.parameters(), lr=1e-2)
        x, target = tokens(backbone, 4, 5), tokens(backbone, 4, 5, seed=1)
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = (private.hidden(x).states - target).square().mean()
            loss.backward()
            assert all(parameter.grad is not None for parameter in private.parameters())
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        assert digest_now(backbone) == before
        assert all(p.grad is None for p in backbone._shared.causal.parameters())
        assert not any(p.requires_grad for p in backbone._shared.causal.parameters())

    @pytest.mark.parametrize("settings", [{"train": ["layer_norms", "positions"]}, {"lora": {}}])
    def test_owned_weights_are_float32_in_a_bfloat16_backbone(self, backbone, settings):
        half = load_backbone(backbone.spec, dtype="bfloat16", device="cpu")
        private = tuned(half, **settings).eval()
        x = tokens(backbone, 2, 5).requires_grad_()
        states = private.hidden(x).states
        torch.testing.assert_close(states, half.hidden(x).states, rtol=0.1, atol=0.1)
        states.square().sum().backward()
        for parameter in private.parameters():
            assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert x.grad.isfinite().all()
        assert all(p.dtype == torch.bfloat16 for p in half._shared.plain.parameters())


class TestCopies:
    @pytest.mark.parametrize(
        "settings",
        [{"train": ["layer_norms"]}, {"lora": {"r": 1}}, {"train": ["layer_norms"], "lora": {}}],
    )
    @pytest.mark.parametrize("through", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
    def test_a_copy_carries_the_owned_weights_and_is_independent(self, llama, settings, through):
        private = tuned(llama, **settings).eval()
        perturb(private)
        next(iter(private.parameters())).requires_grad_(False)
        state = torch.random.get_rng_state()
        other = through(private)
        assert torch.equal(torch.random.get_rng_state(), state)
        x = tokens(llama, 2, 4)
        expected = private.hidden(x).states
        assert torch.equal(other.hidden(x).states, expected)
        assert other.backbone == llama
        assert not other.training
        flags = [parameter.requires_grad for parameter in private.parameters()]
        assert [parameter.requires_grad for parameter in other.parameters()] == flags
        perturb(other, seed=1)
        assert torch.equal(private.hidden(x).states, expected)
        assert not torch.equal(other.hidden(x).states, expected)

    def test_a_pickle_holds_no_frozen_weights(self, llama):
        private = tuned(llama, train=["layer_norms"])
        assert count(private) * 4 < 1000
        assert len(pickle.dumps(private)) < 4000
        buffer = io.BytesIO()
        torch.save(private.state_dict(), buffer)
        assert buffer.tell() < 6000

    def test_inside_a_model_only_owned_weights_are_seen(self, llama):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(3, 2)
                self.plain = llama
                self.private = tuned(llama, lora={"r": 1})

        model = Model()
        names = [name for name, _ in model.named_parameters()]
        assert all(name.startswith(("head.", "private.")) for name in names)
        assert sum("lora_" in name for name in names) == len(names) - 2 > 0
        other = copy.deepcopy(model)
        perturb(model)
        other.load_state_dict(model.state_dict())
        x = tokens(llama, 1, 3)
        model.eval(), other.eval()
        assert torch.equal(model.private.hidden(x).states, other.private.hidden(x).states)

    def test_two_shells_do_not_know_of_each_other(self, llama):
        one, two = tuned(llama, lora={"r": 2}).eval(), tuned(llama, lora={"r": 4}).eval()
        x = tokens(llama, 2, 4)
        base = llama.hidden(x).states
        perturb(one, seed=1)
        assert torch.equal(two.hidden(x).states, base)
        perturb(two, seed=2)
        states = [shell.hidden(x).states for shell in (one, two, llama)]
        assert torch.equal(states[2], base)
        assert not torch.equal(states[0], states[1])


class TestModuleBehaviour:
    def test_the_forward_pass_reads_moved_and_replaced_weights(self, llama):
        private = tuned(llama, train=["layer_norms"])
        perturb(private)
        x = tokens(llama, 1, 4)
        before = private.hidden(x).states
        private.to(torch.bfloat16).to(torch.float32)
        rounded = private.hidden(x).states
        assert not torch.equal(rounded, before)
        torch.testing.assert_close(rounded, before, rtol=0.05, atol=0.05)
        ones = {name: torch.ones_like(value) for name, value in private.state_dict().items()}
        private.load_state_dict(ones, assign=True)
        torch.testing.assert_close(private.hidden(x).states, llama.hidden(x).states)

    def test_only_loras_dropout_follows_the_training_mode(self, llama):
        private = tuned(llama, train=["layer_norms"], lora={"dropout": 0.5})
        perturb(private)
        x = tokens(llama, 1, 4)
        assert private.training
        assert not torch.equal(private.hidden(x).states, private.hidden(x).states)
        training = [module for module in private._shell.modules() if module.training]
        assert training
        assert all(isinstance(module, (nn.Dropout, nn.ModuleDict)) for module in training)
        private.eval()
        assert torch.equal(private.hidden(x).states, private.hidden(x).states)
        assert not any(module.training for module in private._shell.modules())

    def test_under_autocast(self, llama):
        private = tuned(llama, train=["layer_norms"], lora={}).eval()
        x = tokens(llama, 2, 4)
        with autocast_backbone(torch.bfloat16):
            states = private.hidden(x).states
        states.sum().backward()
        assert states.dtype == torch.float32
        assert not torch.equal(states, private.hidden(x).states)
        assert all(parameter.grad.isfinite().all() for parameter in private.parameters())

    def test_sizes_are_the_backbones(self, llama):
        private = tuned(llama, train=["layer_norms"])
        for name in (
            "device", "dtype", "hidden_size", "n_layers", "max_positions", "vocab_size",
            "model_type", "natively_causal", "tokenizer", "word_embeddings",
        ):  # fmt: skip
            assert getattr(private, name) is getattr(llama, name) or (
                getattr(private, name) == getattr(llama, name)
            )
        with pytest.raises(DataError, match="positions"):
            private.hidden(torch.zeros(1, 1025, 32))

    def test_lora_adapts_query_and_value_where_nothing_else_is_asked_for(self, backbone):
        names = {name.split("/")[-4] for name, _ in tuned(backbone, lora={}).named_parameters()}
        fused = {"gpt2": {"c_attn"}, "gpt_neox": {"query_key_value"}, "bert": {"query", "value"}}
        assert names == fused.get(backbone.model_type, {"q_proj", "v_proj"})

    def test_lora_settings(self, llama):
        private = tuned(llama, lora={"r": 3, "target_modules": ["o_proj"], "alpha": 6})
        shapes = {name: tuple(p.shape) for name, p in private.named_parameters()}
        assert shapes == {
            f"layers/{layer}/self_attn/o_proj/lora_{part}/default/weight": shape
            for layer in range(2)
            for part, shape in (("A", (3, 32)), ("B", (32, 3)))
        }
        # W x + (alpha / r) B A x, recomputed on the weights themselves
        perturb(private)
        x = torch.randn(5, 32)
        module = private._shell.layers[1].self_attn.o_proj
        frozen = llama._shared.causal.layers[1].self_attn.o_proj.weight
        a, b = (private.get_parameter(name) for name in list(shapes)[2:])
        torch.testing.assert_close(module(x), x @ frozen.T + 2.0 * (x @ a.T) @ b.T)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"train": "positions"}, "train='positions'"),
            ({"train": ["biases"]}, "layer_norms"),
            ({"lora": {"rank": 3}}, "rank"),
            ({"lora": {"r": 0}}, "'r': 0"),
            ({"lora": {"r": True}}, "'r' must be a whole number"),
            ({"lora": {"alpha": 0}}, "'alpha' must be a number above 0"),
            ({"lora": {"dropout": 1.0}}, "'dropout' must be a number"),
            ({"lora": {"target_modules": []}}, "'target_modules' must be names"),
            ({"lora": 8}, "lora must be a mapping"),
            ({"lora": {"target_modules": ["nothing"]}}, "nothing"),
        ],
    )
    def test_wrong_settings_are_named(self, llama, settings, words):
        with pytest.raises(DataError) as caught:
            tuned(llama, **settings)
        assert words in str(caught.value)

    def test_without_peft(self, llama, monkeypatch):
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ImportError, match="pip install 'peft"):
            tuned(llama, lora={})
        assert count(tuned(llama, train=["layer_norms"])) > 0

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_on_cuda(self, model_type):
        spec = f"random:{model_type}?hidden=32&layers=2&heads=2&positions=64"
        backbone = load_backbone(spec, device="cuda")
        private = tuned(backbone, train=["layer_norms", "positions"], lora={}).eval()
        assert {parameter.device.type for parameter in private.parameters()} == {"cuda"}
        x = tokens(backbone, 2, 5).cuda()
        torch.testing.assert_close(
            private.hidden(x).states, backbone.hidden(x).states, rtol=0.1, atol=0.1
        )
        private.hidden(x).states.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in private.parameters())
        other = copy.deepcopy(private)
        assert torch.equal(other.hidden(x).states, private.hidden(x).states)
