"""Directories of language models as they lie around: each loads right, or one sentence says why."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from sktime.datasets import load_airline
from transformers import AutoModelForCausalLM

import tsllm
from tsllm import load_backbone
from tsllm.errors import BackboneNotFoundError, DataError

ARCHITECTURES = (
    "gpt2", "llama", "opt", "qwen2", "qwen3", "gemma", "mistral", "gpt_neox", "bert",
)  # fmt: skip
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>model</title></head></html>"


def _header(entries):
    content = json.dumps(entries).encode()
    return len(content).to_bytes(8, "little") + content


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A directory of each architecture, as transformers writes it."""
    root = tmp_path_factory.mktemp("models")
    for name in ARCHITECTURES:
        backbone = load_backbone(f"random:{name}?hidden=16&layers=2&heads=2&seed=3", device="cpu")
        backbone._shared.plain.save_pretrained(root / name)
        backbone.tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(params=ARCHITECTURES)
def directory(request, models, tmp_path):
    """A copy of an architecture's directory, to be broken."""
    return Path(shutil.copytree(models / request.param, tmp_path / request.param))


@pytest.fixture
def gpt2(models, tmp_path):
    return Path(shutil.copytree(models / "gpt2", tmp_path / "gpt2"))


def load(directory, **arguments):
    return load_backbone(str(directory), device="cpu", **arguments)


def refused(directory, error=BackboneNotFoundError, **arguments):
    """Load a directory that cannot be used, and return the message."""
    with pytest.raises(error) as caught:
        load(directory, **arguments)
    message = str(caught.value)
    assert str(directory) in message and "\n" not in message
    assert "spelling" not in message  # the directory is there
    return message


def edit(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def rewrite(directory, change):
    """Change the tensors of a directory's weights."""
    tensors = load_file(directory / WEIGHTS)
    save_file(change(tensors), directory / WEIGHTS, metadata={"format": "pt"})


def split(directory):
    """Write the weights in two files with an index, as large models have them."""
    tensors = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    places = {name: SHARDS[number % 2] for number, name in enumerate(sorted(tensors))}
    for shard in SHARDS:
        part = {name: tensors[name] for name, place in places.items() if place == shard}
        save_file(part, directory / shard, metadata={"format": "pt"})
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


class TestEachArchitecture:
    def test_without_tokenizer_files(self, directory):
        for name in (TOKENIZER, "tokenizer_config.json"):
            (directory / name).unlink()
        for spec in (directory, f"random:{directory}?seed=1"):
            message = refused(spec)
            assert TOKENIZER in message and "copy the tokenizer files" in message

    def test_with_nothing_but_the_tokenizers_settings(self, directory):
        (directory / TOKENIZER).unlink()
        assert TOKENIZER in refused(directory)

    def test_a_tokenizer_that_was_saved_empty(self, directory):
        """What transformers writes after it has read a directory without tokenizer files."""
        written = json.loads((directory / TOKENIZER).read_text())
        written["model"] = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
        (directory / TOKENIZER).write_text(json.dumps(written))
        assert "reads all texts alike" in refused(directory)

    def test_an_adapter_beside_the_model(self, directory):
        edit_with_peft(directory)
        message = refused(directory)
        assert "adapter_config.json" in message and "merge_and_unload" in message
        (directory / "adapter_config.json").unlink()
        assert load(directory).n_layers == 2

    def test_a_vocab_size_that_the_weights_do_not_have(self, directory):
        edit(directory / CONFIG, vocab_size=300)
        message = refused(directory)
        assert "(259, 16)" in message and "(300, 16) (vocab_size=300)" in message
        assert load(f"random:{directory}").vocab_size == 300

    def test_more_tokens_than_word_embeddings(self, directory):
        written = json.loads((directory / TOKENIZER).read_text())
        written["model"]["vocab"] |= {"zz": 259, "zzz": 400}
        (directory / TOKENIZER).write_text(json.dumps(written))
        for spec in (directory, f"random:{directory}"):
            message = refused(spec)
            assert "up to the number 400" in message and "embeddings for 259" in message

    def test_a_special_token_without_a_word_embedding(self, directory):
        """As in checkpoints to which a padding token was added, which no ordinary text contains."""
        written = json.loads((directory / TOKENIZER).read_text())
        added = dict(written["added_tokens"][0], id=259, content="[PAD]", special=True)
        written["added_tokens"].append(added)
        (directory / TOKENIZER).write_text(json.dumps(written))
        backbone = load(directory)
        assert backbone.last_token(["up"]).isfinite().all()
        with pytest.raises(DataError, match=r"'up \[PAD\]' has the token '\[PAD\]', number 259"):
            backbone.tokens(["down", "up [PAD]"])

    def test_fewer_layers_in_the_config_than_in_the_weights(self, directory):
        entries = json.loads((directory / CONFIG).read_text())
        name = "n_layer" if "n_layer" in entries else "num_hidden_layers"
        edit(directory / CONFIG, **{name: 1} | shorter_lists(entries))
        assert "num_hidden_layers=1 and its weights have 2 layers" in refused(directory)

    def test_half_precision_and_shards_are_the_same_model(self, directory):
        rewrite(directory, lambda tensors: {n: t.bfloat16() for n, t in tensors.items()})
        edit(directory / CONFIG, dtype="bfloat16")
        whole = load(directory)
        assert whole.dtype == torch.float32
        digest = whole.digest
        split(directory)
        assert load(directory).digest == digest


class TestWeights:
    @pytest.mark.parametrize(
        "content, words",
        [
            (b"", "is empty"),
            (POINTER, "git lfs pull"),
            (PAGE, "is a web page"),
            (b"PK\x03\x04" + b"0" * 500, "is a pickle"),
            (b"0" * 500, "no safetensors file"),
            (b"\x02\0\0\0\0\0\0\0[]", "no safetensors file"),
            (b'\x0a\0\0\0\0\0\0\0{"a": [1]}', "no safetensors file"),
            (_header({"a": {"dtype": "F32", "data_offsets": [0, "x"]}}), "no safetensors file"),
        ],
    )
    def test_something_else_in_their_place(self, gpt2, content, words):
        (gpt2 / WEIGHTS).write_bytes(content)
        message = refused(gpt2)
        assert WEIGHTS in message and words in message

    def test_cut_short(self, gpt2):
        content = (gpt2 / WEIGHTS).read_bytes()
        (gpt2 / WEIGHTS).write_bytes(content[:-1000])
        assert f"at {len(content) - 1000:,} of {len(content):,} bytes" in refused(gpt2)
        (gpt2 / WEIGHTS).write_bytes(content[:100])
        assert "cut short" in refused(gpt2)

    def test_a_missing_or_damaged_shard(self, gpt2):
        split(gpt2)
        assert load(gpt2).n_layers == 2
        content = (gpt2 / SHARDS[1]).read_bytes()
        (gpt2 / SHARDS[1]).write_bytes(content[:-1])
        assert f"its {SHARDS[1]} is cut short" in refused(gpt2)
        (gpt2 / SHARDS[1]).unlink()
        message = refused(gpt2)
        assert "1 of the 2 files" in message and SHARDS[1] in message

    def test_an_index_that_is_missing_damaged_or_leaves_the_directory(self, gpt2):
        split(gpt2)
        places = json.loads((gpt2 / INDEX).read_text())["weight_map"]
        name = next(iter(places))
        (gpt2 / INDEX).write_text(json.dumps({"weight_map": places | {name: "../x.safetensors"}}))
        assert "'../x.safetensors', which is no file of the directory" in refused(gpt2)
        (gpt2 / INDEX).write_text("{")
        assert f"{INDEX} is damaged" in refused(gpt2)
        (gpt2 / INDEX).write_text("[]")
        assert "no list of files" in refused(gpt2)
        (gpt2 / INDEX).unlink()
        assert f"2 parts of weights, such as {SHARDS[0]}, and no {INDEX}" in refused(gpt2)

    def test_another_name(self, gpt2):
        (gpt2 / WEIGHTS).rename(gpt2 / "gpt2.safetensors")
        assert f"but gpt2.safetensors: give the file the name {WEIGHTS}" in refused(gpt2)
        (gpt2 / "gpt2.safetensors").rename(gpt2 / "gpt2.gguf")
        assert f"the path of the file, {gpt2 / 'gpt2.gguf'}" in refused(gpt2)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
    def test_quantised_without_a_word_in_the_config(self, gpt2, dtype):
        rewrite(gpt2, lambda tensors: {n: t.to(dtype) for n, t in tensors.items()})
        assert "its weights are quantised" in refused(gpt2)

    def test_quantised_by_the_config(self, gpt2):
        edit(gpt2 / CONFIG, quantization_config={"quant_method": "gptq", "bits": 4})
        assert "quantised" in refused(gpt2, DataError)

    def test_nan(self, gpt2):
        def change(tensors):
            tensors["h.1.ln_1.bias"][3] = float("nan")
            return tensors

        rewrite(gpt2, change)
        assert "NaN or infinity in 'h.1.ln_1.bias'" in refused(gpt2)

    def test_large_weights_are_finite(self, gpt2):
        """Their sum is not."""
        rewrite(gpt2, lambda tensors: tensors | {"h.1.ln_1.bias": torch.full((16,), 3e38)})
        assert load(gpt2).n_layers == 2

    @pytest.mark.parametrize("tied", [True, False])
    def test_with_a_head(self, models, tmp_path, tied):
        """A checkpoint of a whole language model, with word embeddings tied to its head or not."""
        whole = AutoModelForCausalLM.from_pretrained(models / "llama", tie_word_embeddings=tied)
        whole.save_pretrained(tmp_path)
        shutil.copy(models / "llama" / TOKENIZER, tmp_path)
        body = load(models / "llama")
        assert torch.equal(load(tmp_path).word_embeddings, body.word_embeddings)


class TestConfig:
    @pytest.mark.parametrize(
        "content, words",
        [
            (b"", "is empty"),
            (POINTER, "git lfs pull"),
            (b'{"model_type": "gp', "damaged, or cut short"),
            (b"\xff\xfe", "damaged, or cut short"),
            (b"[]", "does not say which model"),
            (b'{"hidden_size": 16}', "does not say which model"),
        ],
    )
    def test_something_else_in_its_place(self, gpt2, content, words):
        (gpt2 / CONFIG).write_bytes(content)
        message = refused(gpt2)
        assert CONFIG in message and words in message

    @pytest.mark.parametrize(
        "entries, words",
        [
            ({"n_layer": "two"}, "'n_layer' expected int"),
            ({"activation_function": "nonesuch"}, "nonesuch"),
            ({"dtype": "float17"}, "float17"),
            ({"n_head": 3}, "divisible by num_heads"),
            ({"n_layer": 0}, "num_hidden_layers=0"),
            ({"n_embd": -4}, "hidden_size=-4"),
            ({"n_embd": 32}, "not of one model"),
            ({"n_positions": 12}, "not of one model"),
        ],
    )
    def test_entries_that_cannot_be_used(self, gpt2, entries, words):
        edit(gpt2 / CONFIG, **entries)
        assert words in refused(gpt2)

    @pytest.mark.parametrize("name", ["llama", "bert", "opt"])
    def test_a_padding_token_without_a_word_embedding(self, models, tmp_path, name):
        directory = Path(shutil.copytree(models / name, tmp_path / name))
        edit(directory / CONFIG, pad_token_id=259)
        assert load(directory).digest == load(models / name).digest

    def test_an_architecture_that_nobody_knows(self, gpt2):
        edit(gpt2 / CONFIG, model_type="nonesuch")
        assert "'nonesuch' model, which tsllm does not run" in refused(gpt2, DataError)

    def test_one_of_tsllms_own_models(self, tmp_path):
        forecaster = tsllm.DLinearForecaster(max_steps=1).fit(load_airline(), fh=[1])
        tsllm.save(forecaster, tmp_path / "model")
        assert "tsllm.load" in refused(tmp_path / "model")


class TestOtherDirectories:
    def test_an_adapter_alone(self, gpt2):
        edit_with_peft(gpt2)
        (gpt2 / CONFIG).unlink()
        message = refused(gpt2)
        assert "no config.json" in message and "merge it into its base model" in message

    def test_of_sentence_transformers(self, gpt2, tmp_path):
        shutil.copytree(gpt2, tmp_path / "sentences" / "0_Transformer")
        modules = [
            {"idx": 0, "name": "0", "path": "0_Transformer"},
            {"idx": 1, "path": "1_Pooling"},
        ]
        (tmp_path / "sentences" / "modules.json").write_text(json.dumps(modules))
        inner = tmp_path / "sentences" / "0_Transformer"
        assert f"give {inner}" in refused(tmp_path / "sentences")
        assert load(inner).n_layers == 2

    def test_a_folder_of_the_cache(self, gpt2, tmp_path):
        snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
        shutil.copytree(gpt2, snapshot)
        assert f"give {snapshot}" in refused(tmp_path / "models--a--b")

    def test_one_above(self, gpt2):
        assert f"give a directory inside it that has one ({gpt2})" in refused(gpt2.parent)

    def test_empty(self, tmp_path):
        assert "it is empty" in refused(tmp_path)

    @pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "~no-such-user/model", " "])
    def test_a_name_that_no_directory_can_have(self, name):
        with pytest.raises(BackboneNotFoundError, match="looked at"):
            load(name)

    def test_a_link_that_leads_nowhere(self, gpt2):
        (gpt2 / WEIGHTS).unlink()
        (gpt2 / WEIGHTS).symlink_to(gpt2 / "gone")
        assert f"it has no {WEIGHTS}: copy" in refused(gpt2)

    def test_a_file(self, gpt2):
        with pytest.raises(BackboneNotFoundError, match=f"is a file: give .*{gpt2}"):
            load(gpt2 / WEIGHTS)


class TestTokenizer:
    @pytest.mark.parametrize(
        "content, words",
        [
            (POINTER, "git lfs pull"),
            (PAGE, "is a web page"),
            (b'{"version": "1.0", "trunc', "damaged, or cut short"),
            (b"{}", "its tokenizer cannot be read"),
        ],
    )
    def test_something_else_in_its_place(self, gpt2, content, words):
        (gpt2 / TOKENIZER).write_bytes(content)
        assert words in refused(gpt2)

    def test_vocabulary_without_merges(self, gpt2):
        vocabulary = json.loads((gpt2 / TOKENIZER).read_text())["model"]["vocab"]
        (gpt2 / TOKENIZER).unlink()
        (gpt2 / "tokenizer_config.json").unlink()
        (gpt2 / "vocab.json").write_text(json.dumps(vocabulary))
        assert "lacks merges.txt" in refused(gpt2)
        (gpt2 / "merges.txt").write_text("#version: 0.2\n")
        assert len(load(gpt2).tokens(["up"])[0]) == 2

    def test_sentencepiece_alone(self, models, tmp_path):
        directory = Path(shutil.copytree(models / "llama", tmp_path / "llama"))
        for name in (TOKENIZER, "tokenizer_config.json"):
            (directory / name).unlink()
        (directory / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15")
        message = refused(directory)
        assert "tokenizer.model" in message and "pip install sentencepiece" in message


def edit_with_peft(directory):
    """Write an adapter into a directory, as peft does."""
    backbone = load(directory)
    shell = backbone._shared.new_shell()
    linear = [
        name
        for name, module in shell.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
    ]
    adapted = peft.get_peft_model(shell, peft.LoraConfig(r=1, target_modules=linear[:1]))
    adapted.save_pretrained(directory)


def shorter_lists(entries):
    """Return the per-layer entries of a config for one layer."""
    return {name: entries[name][:1] for name in ("layer_types",) if entries.get(name)}
