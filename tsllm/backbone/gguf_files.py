"""GGUF files: their facts, and their weights under the names and shapes of transformers."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast

from tsllm.backbone.architectures import empty_model
from tsllm.backbone.gguf_tokenizers import read_tokenizer
from tsllm.errors import DataError

_PLAIN = ("F32", "F16", "BF16")
#: The head of the language model, which tsllm does not use, and factors that the config holds.
_LEFT_OUT = ("output.weight", "rope_freqs.weight")


class _Layout(NamedTuple):
    """The names of one architecture's weights in transformers, by their names in GGUF files."""

    layers: str  # what transformers calls the list of layers
    outside: Mapping[str, str]
    inside: Mapping[str, str]


_LLAMA = _Layout(
    "layers",
    {"token_embd": "embed_tokens", "output_norm": "norm"},
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
)
_GPT2 = _Layout(
    "h",
    {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f"},
    {
        "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
)
#: By the name in the files, which is also the model type of transformers. Mistral is "llama" there.
LAYOUTS = {"gpt2": _GPT2, "llama": _LLAMA, "qwen2": _LLAMA, "qwen3": _LLAMA}


class GgufFile:
    """One GGUF file, with its metadata read and its weights still on disk.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    facts : dict
        The metadata.
    quantisation : str or None
        The quantised types, the one of most weights first; None where no weight is quantised.

    Raises
    ------
    DataError
        The file is no GGUF file or damaged, is one of several parts, or has an architecture that
        tsllm does not run.
    ImportError
        The package ``gguf`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise ImportError(
                f"{path.name} is a GGUF file, which needs the package gguf: pip install "
                "'tsllm[gguf]'"
            ) from error
        self.path = path
        try:
            reader = GGUFReader(path)
            self.facts = {name: field.contents() for name, field in reader.fields.items()}
        # What the reader raises depends on the byte that is wrong.
        except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
            raise DataError(
                f"{path} is no complete GGUF file ({error}): copy or download it again"
            ) from error
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        with self._usable("metadata that make no model"):
            self._check()
        self.quantisation = self._quantisation()

    @property
    def name(self) -> str:
        """Return the model's name in the metadata, else the file's."""
        return str(self.facts.get("general.name", self.path.stem))

    @property
    def licence(self) -> str | None:
        """Return the licence in the metadata."""
        licence = self.facts.get("general.license")
        return None if licence is None else str(licence)

    @property
    def dtype(self) -> torch.dtype:
        """Return the type to which the weights are unpacked.

        The rounding of quantised weights to bfloat16 is small beside that of the quantisation, and
        it takes half the disk.
        """
        kinds = {tensor.tensor_type.name for tensor in self._tensors.values()}
        if self.quantisation is not None or "BF16" in kinds:
            return torch.bfloat16
        return torch.float16 if "F16" in kinds else torch.float32

    def config(self) -> PretrainedConfig:
        """Build transformers' config."""
        architecture = self.facts["general.architecture"]
        with self._usable("metadata that make no model"):
            entries = _gpt2_entries(self) if architecture == "gpt2" else _llama_entries(self)
            entries["tie_word_embeddings"] = not self.has("output.weight")
            config = AutoConfig.for_model(architecture, **entries)
            empty_model(config)
        return config

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Build the tokenizer."""
        with self._usable("a tokenizer that cannot be built"):
            return read_tokenizer(self.facts, str(self.path))

    def weights(self, config: PretrainedConfig) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each weight under transformers' name, unpacked, one at a time.

        Raises
        ------
        DataError
            A weight is missing, unknown, of another shape, or of a type that cannot be unpacked.
        """
        from gguf.quants import dequantize

        expected = {name: one.shape for name, one in empty_model(config).state_dict().items()}
        names = self._names()
        missing = sorted(set(expected) - set(names.values()))
        if missing:
            raise DataError(f"{self.path} lacks {len(missing)} weights, among them {missing[0]!r}")
        for name, renamed in names.items():
            tensor = self._tensors[name]
            with self._usable(f"a weight {name} that cannot be unpacked"):
                try:
                    values = dequantize(tensor.data, tensor.tensor_type)
                except NotImplementedError as error:
                    raise DataError(
                        f"{self.path} holds weights of type {tensor.tensor_type.name}, which the "
                        "installed package gguf does not unpack: update it, or use a file of "
                        "another type"
                    ) from error
                values = self._undo_layout(name, values, config)
            if renamed not in expected or tuple(values.shape) != tuple(expected[renamed]):
                shape = tuple(expected.get(renamed, ()))
                raise DataError(
                    f"{self.path}: {name} has the shape {tuple(values.shape)}, and its metadata "
                    f"describe {shape or 'a model without it'}"
                )
            if not values.flags.writeable:  # unquantised ones are a view of the file
                values = values.copy()
            yield renamed, torch.from_numpy(values).to(self.dtype)

    def number(self, key: str, default: float | None = None) -> Any:
        """Return one number of the architecture's metadata."""
        name = f"{self.facts['general.architecture']}.{key}"
        value = self.facts.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            what = "is missing" if value is None else f"is {value!r} and not one number"
            raise DataError(f"{self.path}: {name} {what}, and tsllm needs it to build the model")
        return value

    def rows(self, name: str) -> int:
        """Return the number of rows of a weight."""
        if name not in self._tensors:
            raise DataError(f"{self.path} lacks the weight {name}")
        return int(self._tensors[name].shape[-1])

    def has(self, name: str) -> bool:
        """Return True where the file holds a weight."""
        return name in self._tensors

    def values(self, name: str) -> np.ndarray:
        """Return an unquantised weight."""
        return np.asarray(self._tensors[name].data)

    @contextmanager
    def _usable(self, what: str) -> Iterator[None]:
        """Name the file in the errors of the libraries, which raise many classes."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # the library tokenizers raises no narrower class
            raise DataError(
                f"{self.path} has {what} ({' '.join(str(error).split())[:200]}): copy or download "
                "it again"
            ) from error

    def _check(self) -> None:
        """Refuse the files that hold no whole model of a known architecture."""
        parts = self.facts.get("split.count", 0)
        if parts > 1:
            raise DataError(
                f"{self.path} is one of {parts} parts of a model: merge them first (llama.cpp's "
                "llama-gguf-split --merge), and give the merged file"
            )
        kind = self.facts.get("general.type", "model")
        if kind != "model":
            raise DataError(f"{self.path} holds no model but a {kind!r}: give the model's own file")
        architecture = self.facts.get("general.architecture")
        if architecture not in LAYOUTS:
            raise DataError(
                f"{self.path} holds a {architecture!r} model; tsllm reads GGUF files of "
                f"{', '.join(LAYOUTS)} (Mistral is 'llama' in them): use the directory of the "
                "unquantised model"
            )

    def _quantisation(self) -> str | None:
        """Name the quantised types, the one of most weights first."""
        counts: dict[str, int] = {}
        for tensor in self._tensors.values():
            kind = tensor.tensor_type.name
            if kind not in _PLAIN:
                counts[kind] = counts.get(kind, 0) + int(tensor.n_elements)
        return ", ".join(sorted(counts, key=lambda kind: -counts[kind])) or None

    def _names(self) -> dict[str, str]:
        """Return transformers' names of the weights."""
        layout = LAYOUTS[self.facts["general.architecture"]]
        names = {}
        for name in self._tensors:
            if name in _LEFT_OUT:
                continue
            stem, _, ending = name.rpartition(".")
            block = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
            found = layout.outside.get(stem) if block is None else layout.inside.get(block[2])
            layer = "" if block is None else f"{layout.layers}.{block[1]}."
            if found is None:
                raise DataError(
                    f"{self.path} holds the weight {name}, which a "
                    f"{self.facts['general.architecture']} model of transformers does not have: "
                    "use the directory of the unquantised model"
                )
            names[name] = f"{layer}{found}.{ending}"
        return names

    def _undo_layout(self, name: str, values: np.ndarray, config: PretrainedConfig) -> np.ndarray:
        """Undo how llama.cpp arranges some weights."""
        architecture = self.facts["general.architecture"]
        if architecture == "gpt2" and values.ndim == 2 and name.startswith("blk."):
            return values.T  # GPT-2 of transformers stores its matrices transposed
        heads = {
            "attn_q": getattr(config, "num_attention_heads", 0),
            "attn_k": getattr(config, "num_key_value_heads", 0),
        }.get(name.split(".")[-2])
        if architecture == "llama" and heads:
            # Both halves of a head's rotation lie side by side there, and one after the other here.
            apart = values.reshape(heads, -1, 2, *values.shape[1:])
            return apart.swapaxes(1, 2).reshape(values.shape)
        return values


def _llama_entries(file: GgufFile) -> dict[str, Any]:
    """Return the config's entries of Llama, Qwen2 and Qwen3."""
    hidden, heads = file.number("embedding_length"), file.number("attention.head_count")
    width = file.number("attention.key_length", hidden // heads)
    rotated = file.number("rope.dimension_count", width)
    if rotated != width:
        raise DataError(
            f"{file.path} rotates {rotated} of the {width} numbers of each head, which tsllm does "
            "not run: use the directory of the unquantised model"
        )
    biased = file.has("blk.0.attn_q.bias")
    entries = {
        "vocab_size": file.rows("token_embd.weight"),
        "hidden_size": hidden,
        "intermediate_size": file.number("feed_forward_length"),
        "num_hidden_layers": file.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.number("attention.head_count_kv", heads),
        "head_dim": width,
        "max_position_embeddings": file.number("context_length"),
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rotation(file, width),
    }
    if file.facts["general.architecture"] != "qwen2":  # which always has biases
        entries["attention_bias"] = biased
    return entries | _token_numbers(file)


def _gpt2_entries(file: GgufFile) -> dict[str, Any]:
    """Return the config's entries of GPT-2."""
    return {
        "vocab_size": file.rows("token_embd.weight"),
        "n_positions": file.rows("position_embd.weight"),
        "n_embd": file.number("embedding_length"),
        "n_layer": file.number("block_count"),
        "n_head": file.number("attention.head_count"),
        "n_inner": file.number("feed_forward_length"),
        "layer_norm_epsilon": file.number("attention.layer_norm_epsilon"),
        **_token_numbers(file),
    }


def _token_numbers(file: GgufFile) -> dict[str, Any]:
    """Return the numbers of the special tokens."""
    return {
        f"{role}_token_id": file.facts.get(f"tokenizer.ggml.{key}_token_id")
        for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }


def _rotation(file: GgufFile, width: int) -> dict[str, Any]:
    """Return the parameters of the rotary positions."""
    base = float(file.number("rope.freq_base", 10_000.0))
    architecture = file.facts["general.architecture"]
    scaling = file.facts.get(f"{architecture}.rope.scaling.type", "none")
    if file.has("rope_freqs.weight"):
        return _llama3_rotation(file, base, width)
    if scaling == "linear":
        factor = float(file.number("rope.scaling.factor"))
        return {"rope_type": "linear", "rope_theta": base, "factor": factor}
    if scaling != "none":
        raise DataError(
            f"{file.path} scales its positions by {scaling!r}, which tsllm does not read from GGUF "
            "files: use the directory of the unquantised model"
        )
    return {"rope_type": "default", "rope_theta": base}


def _llama3_rotation(file: GgufFile, base: float, width: int) -> dict[str, Any]:
    """Return the parameters of Llama 3.1 and later, whose factors the file holds one by one."""
    factors = file.values("rope_freqs.weight").reshape(-1)
    factor, low, high, original = float(factors.max()), 1.0, 4.0, 8192
    waves = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    smooth = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-3):
        raise DataError(
            f"{file.path} scales its positions by factors that are not those of Llama 3: use the "
            "directory of the unquantised model"
        )
    return {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
