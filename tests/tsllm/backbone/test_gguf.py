"""GGUF files: unpacked once, equal to the model that they were made of, or refused by name."""

import errno
import shutil
import sys
import threading
from dataclasses import dataclass

import gguf_models
import pytest
import torch
from sktime.datasets import load_airline

from tsllm import AutoTimesForecaster, load, load_backbone, save
from tsllm.backbone import Backbone, prepared
from tsllm.backbone.export import export_backbone
from tsllm.errors import BackboneMismatchError, BackboneNotFoundError, DataError

TEXTS = ["hello there", "the value is 12.5", " two  spaces", "Ünïcode"]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache of unpacked files for each test."""
    monkeypatch.setenv("TSLLM_BACKBONES", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    """A tiny Llama in four bits."""
    return gguf_models.write(tmp_path / "tiny.gguf", gguf_models.model(), kind="Q4_1")


def read(path, **arguments) -> Backbone:
    return load_backbone(str(path), device="cpu", **arguments)


def inputs(tokens=9):
    return torch.randn(2, tokens, 64, generator=torch.Generator().manual_seed(1))


class TestWeights:
    @pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
    def test_a_plain_file_is_the_model_it_was_made_of(self, tmp_path, architecture):
        module = gguf_models.model(architecture)
        backbone = read(gguf_models.write(tmp_path / "a.gguf", module))
        assert (backbone.n_layers, backbone.hidden_size, backbone.max_positions) == (3, 64, 96)
        assert backbone.quantisation is None
        torch.testing.assert_close(
            backbone.hidden(inputs()).states, gguf_models.states(module, inputs())
        )

    # Not GPT-2 and Qwen3: transformers 5 takes fixed positions and a fixed width of heads there.
    @pytest.mark.parametrize("architecture", ["llama", "qwen2"])
    def test_transformers_reads_the_same(self, tmp_path, architecture):
        path = gguf_models.write(tmp_path / "a.gguf", gguf_models.model(architecture), kind="Q8_0")
        theirs = gguf_models.as_transformers_reads(path).state_dict()
        for name, tensor in read(path)._shared.plain.state_dict().items():
            assert torch.equal(tensor, theirs[name].bfloat16().float()), name

    @pytest.mark.parametrize(("kind", "tolerance"), [("F16", 1e-3), ("Q8_0", 0.02), ("Q4_1", 0.2)])
    def test_rounded_weights_are_close(self, tmp_path, kind, tolerance):
        module = gguf_models.model("llama")
        backbone = read(gguf_models.write(tmp_path / "a.gguf", module, kind=kind))
        assert backbone.quantisation == (None if kind == "F16" else kind)
        expected = gguf_models.states(module, inputs())
        error = (backbone.hidden(inputs()).states - expected).norm() / expected.norm()
        assert 0 < error < tolerance

    def test_only_the_wanted_layers_are_read(self, path):
        whole, cut = read(path), read(path, layers=1)
        assert cut.n_layers == 1 and cut.digest != whole.digest
        assert cut.parameter_count < whole.parameter_count

    def test_the_positions_of_llama_3_are_read(self, tmp_path):
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        module = gguf_models.model("llama", rope_parameters=rope)
        factors = gguf_models.llama3_factors(500_000.0, 16, 8.0)
        path = gguf_models.write(
            tmp_path / "a.gguf", module, extra=[("rope_freqs.weight", factors)]
        )
        torch.testing.assert_close(
            read(path).hidden(inputs(60)).states, gguf_models.states(module, inputs(60))
        )
        odd = gguf_models.write(
            tmp_path / "b.gguf", module, extra=[("rope_freqs.weight", factors**2)]
        )
        with pytest.raises(DataError, match="not those of Llama 3"):
            read(odd)

    def test_weights_of_several_files(self, path, monkeypatch):
        whole = read(path)
        monkeypatch.setattr(prepared, "_SHARD", 10_000)
        shutil.rmtree(prepared.folder())
        again = read(path)
        assert len(list(prepared.folder().glob("*/*.safetensors"))) > 3
        assert again.digest == whole.digest


class TestTokenizer:
    def test_byte_level(self, path):
        backbone = read(path)
        tokenizer = backbone.tokenizer
        for text, tokens in zip(TEXTS, backbone.tokens(TEXTS), strict=True):
            assert tokenizer.decode(tokens) == text
        assert tokenizer.convert_ids_to_tokens(backbone.tokens(["he<eos>"])[0]) == ["he", "<eos>"]

    @pytest.mark.parametrize(
        ("pre", "text", "cut"),
        [
            ("smollm", "a 12", ["a", "Ġ", "1", "2"]),
            ("qwen2", "a 12", ["a", "Ġ", "1", "2"]),
            ("llama-bpe", "a 12", ["<bos>", "a", "Ġ", "12"]),
        ],
    )
    def test_numbers_are_cut_as_the_model_learnt_them(self, tmp_path, pre, text, cut):
        facts = gguf_models.byte_level()
        tokens = facts["tokenizer.ggml.tokens"]
        tokens[tokens.index("he")] = "12"
        facts |= {"tokenizer.ggml.merges": ["1 2"], "tokenizer.ggml.pre": pre}
        path = gguf_models.write(tmp_path / "a.gguf", gguf_models.model(), facts=facts)
        backbone = read(path)
        assert backbone.tokenizer.convert_ids_to_tokens(backbone.tokens([text])[0]) == cut

    def test_sentencepiece(self, tmp_path):
        facts = gguf_models.sentencepiece()
        module = gguf_models.model(vocab_size=len(facts["tokenizer.ggml.tokens"]))
        backbone = read(gguf_models.write(tmp_path / "a.gguf", module, facts=facts))
        found = backbone.tokenizer.convert_ids_to_tokens(backbone.tokens(["up down é"])[0])
        assert found == ["<s>", "▁up", "▁down", "▁", "<0xC3>", "<0xA9>"]


class TestCache:
    def test_a_file_is_unpacked_once(self, path, monkeypatch, tmp_path):
        first = read(path)
        monkeypatch.setattr(prepared, "_unpack", lambda *arguments: pytest.fail("unpacked again"))
        copied = shutil.copy(path, tmp_path / "copy.gguf")
        assert read(copied) == first  # one copy of the weights for one content

    def test_threads_and_processes_wait_for_each_other(self, path, monkeypatch):
        unpacked, unpack = [], prepared._unpack

        def slowly(*arguments):
            unpacked.append(arguments)
            started.wait(5)
            unpack(*arguments)

        started = threading.Event()
        monkeypatch.setattr(prepared, "_unpack", slowly)
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(prepared.prepare(path))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        started.set()
        for thread in threads:
            thread.join(60)
        assert len(unpacked) == 1 and found == [found[0]] * 2

    def test_a_full_disk_leaves_nothing(self, path, monkeypatch, cache):
        def full(*arguments, **named):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(prepared, "save_file", full)
            with pytest.raises(DataError, match=r"No space left.*TSLLM_BACKBONES"):
                read(path)
        assert not [one for one in cache.iterdir() if one.is_dir()]
        stale = cache / f"{prepared._place(prepared.file_sha256(path)).name}.dead.unpacking"
        stale.mkdir()  # of a process that was killed
        assert read(path).n_layers == 3
        assert not stale.exists()

    @pytest.mark.parametrize("name", ["model-00001.safetensors", "origin.json"])
    def test_a_directory_without_some_of_its_files_is_made_anew(self, path, name):
        digest = read(path).digest
        (prepared.prepare(path) / name).unlink()
        assert read(path).digest == digest and (prepared.prepare(path) / name).is_file()

    def test_another_content_at_the_same_path_is_another_model(self, path):
        first = read(path)
        gguf_models.write(path, gguf_models.model(seed=1), kind="Q4_1")
        assert read(path).digest != first.digest


class TestIdentity:
    def fitted(self, spec):
        forecaster = AutoTimesForecaster(
            spec, backbone_layers=1, context_length=24, max_steps=1, random_state=0, device="cpu"
        )
        return forecaster.fit(load_airline(), fh=[1])

    def test_summary_saved_model_and_card_say_that_weights_are_quantised(self, path, tmp_path):
        forecaster = self.fitted(str(path))
        summary = forecaster.summary()
        assert summary["backbone_quantisation"] == "Q4_1"
        assert "tiny.gguf (quantised: Q4_1; sha256" in summary["backbone_source"]
        save(forecaster, tmp_path / "model")
        card = (tmp_path / "model" / "card.md").read_text()
        assert prepared.file_sha256(path) in card and "| quantisation | Q4_1 |" in card
        assert "mit, as its GGUF file says" in card
        moved = shutil.move(path, tmp_path / "moved.gguf")
        restored = load(tmp_path / "model", backbone=str(moved))
        assert restored.predict(fh=[1]).equals(forecaster.predict(fh=[1]))

    def test_other_weights_are_refused_and_told_apart(self, path, tmp_path):
        save(self.fitted(str(path)), tmp_path / "model")
        plain = gguf_models.write(tmp_path / "plain.gguf", gguf_models.model())
        with pytest.raises(
            BackboneMismatchError, match="were quantised as Q4_1, and these are not quantised"
        ):
            load(tmp_path / "model", backbone=str(plain))

    def test_an_exported_backbone_keeps_its_origin(self, path, tmp_path):
        backbone = read(path, layers=2)
        export_backbone(backbone, tmp_path / "exported")
        again = read(tmp_path / "exported")
        assert (again.digest, again.quantisation) == (backbone.digest, "Q4_1")

    def test_random_weights_in_its_shape_are_not_quantised(self, path):
        backbone = load_backbone(f"random:{path}?seed=1", device="cpu")
        assert backbone.quantisation is None and backbone.vocab_size == 260


@dataclass
class Refusal:
    """What is wrong with a file, and the words of the error."""

    words: str
    arguments: dict


REFUSALS = {
    "architecture": Refusal(
        "holds a 'bloom' model; tsllm reads GGUF files of gpt2, llama",
        {"facts": {"general.architecture": "bloom"}},
    ),
    "tokenizer": Refusal("has no tokenizer", {"tokenizer": False}),
    "kind of tokenizer": Refusal(
        "tokenizer of kind 'bert'", {"facts": {"tokenizer.ggml.model": "bert"}}
    ),
    "cut of texts": Refusal("cuts texts as 'dbrx'", {"facts": {"tokenizer.ggml.pre": "dbrx"}}),
    "rows": Refusal(
        "a weight blk.0.attn_q.weight that cannot be unpacked",
        {
            "leave_out": ["blk.0.attn_q.weight"],
            "extra": [("blk.0.attn_q.weight", torch.zeros(63, 64).numpy())],
        },
    ),
    "text for a number": Refusal("metadata that make no model", {"facts": {"split.count": "two"}}),
    "part": Refusal("one of 3 parts", {"facts": {"split.count": 3}}),
    "adapter": Refusal("no model but a 'adapter'", {"facts": {"general.type": "adapter"}}),
    "missing weight": Refusal(
        r"lacks 1 weights, among them 'layers.1.mlp.up_proj.weight'",
        {"leave_out": ["blk.1.ffn_up.weight"]},
    ),
    "unknown weight": Refusal(
        "holds the weight blk.0.ffn_gate_exps.weight",
        {"extra": [("blk.0.ffn_gate_exps.weight", torch.zeros(2, 4).numpy())]},
    ),
    "shape": Refusal("has the shape", {"facts": {"llama.feed_forward_length": 80}}),
    "missing fact": Refusal("block_count is missing", {"facts": {"llama.block_count": None}}),
    "sizes by layer": Refusal(
        "is .* and not one number", {"facts": {"llama.attention.head_count": [4, 4, 4]}}
    ),
    "positions": Refusal(
        "scales its positions by 'yarn'", {"facts": {"llama.rope.scaling.type": "yarn"}}
    ),
    "heads": Refusal("metadata that make no model", {"facts": {"llama.attention.head_count": 0}}),
    "merges": Refusal(
        "a tokenizer that cannot be built", {"facts": {"tokenizer.ggml.merges": ["h nothing"]}}
    ),
    "rotation": Refusal(
        "rotates 8 of the 16 numbers", {"facts": {"llama.rope.dimension_count": 8}}
    ),
}


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSALS)
    def test_a_model_that_does_not_run_is_refused_by_name(self, tmp_path, cache, name):
        refusal = REFUSALS[name]
        path = gguf_models.write(tmp_path / "odd.gguf", gguf_models.model(), **refusal.arguments)
        with pytest.raises(DataError, match=refusal.words) as error:
            read(path)
        assert "odd.gguf" in str(error.value) and "\n" not in str(error.value)
        assert not [one for one in cache.iterdir() if one.is_dir()]

    @pytest.mark.parametrize("size", [0, 3, 40, 2000, -100])
    def test_a_damaged_file(self, path, size):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match=r"no complete GGUF file|lacks|no tokenizer"):
            read(path)

    def test_no_gguf_file_at_all(self, tmp_path):
        (tmp_path / "text.gguf").write_text("hello " * 100)
        with pytest.raises(DataError, match="no complete GGUF file"):
            read(tmp_path / "text.gguf")

    def test_a_file_that_is_not_there_is_no_hub_id(self):
        with pytest.raises(BackboneNotFoundError, match=r"local file models/a\.gguf") as error:
            read("models/a.gguf")
        assert "Hugging Face" not in str(error.value).split("Remedy")[0]

    def test_the_directory_of_a_file(self, path):
        with pytest.raises(BackboneNotFoundError, match=r"give the path of the file, .*tiny\.gguf"):
            read(path.parent)

    def test_without_the_package(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(ImportError, match=r"pip install 'tsllm\[gguf\]'"):
            read(path)
