"""Tiny GGUF files, written with the package gguf."""

import math

import gguf
import numpy as np
import torch
from transformers import AutoModel

from tsllm.backbone.synthetic import byte_tokenizer, random_config, random_model

SHAPE = {"hidden": 64, "layers": 3, "heads": 4, "positions": 96, "vocab": 260, "intermediate": 96}
NORMAL, CONTROL = 1, 3


def model(architecture="llama", seed=0, **entries):
    """Build a random model of transformers."""
    shape = SHAPE | ({} if architecture == "gpt2" else {"kv_heads": 2})
    config = random_config(architecture, shape)
    for name, value in entries.items():
        setattr(config, name, value)
    return random_model(config, seed).eval()


def write(path, module, *, kind="F32", tokenizer=True, facts=None, leave_out=(), extra=()):
    """Write a model as llama.cpp does: its names, its layout and its metadata.

    ``kind`` is the type of the matrices. ``facts`` are added to the metadata, or left out where
    None.
    """
    config = module.config
    architecture = "llama" if config.model_type == "mistral" else config.model_type
    metadata = _facts(config, architecture) | (byte_level() if tokenizer else {}) | (facts or {})
    writer = gguf.GGUFWriter(path, metadata.pop("general.architecture", architecture))
    for name, value in metadata.items():
        if value is not None:
            _add(writer, name, value)
    names = gguf.get_tensor_name_map(_ARCHITECTURES[architecture], config.num_hidden_layers)
    prefix = "transformer." if architecture == "gpt2" else "model."
    for name, tensor in module.state_dict().items():
        stored = names.get_name(prefix + name, try_suffixes=(".weight", ".bias"))
        if stored not in leave_out:
            _tensor(writer, stored, _layout(name, tensor.float().numpy(), config), kind)
    for name, values in extra:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level():
    """Return the metadata of a tokenizer of one token a byte, and one merge."""
    vocabulary = byte_tokenizer().get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.get), "he"]
    kinds = [CONTROL if token.startswith("<") and len(token) > 1 else NORMAL for token in tokens]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": tokens.index("<bos>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<eos>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<pad>"),
    }


def sentencepiece():
    """Return the metadata of a SentencePiece tokenizer with a few words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["▁", "u", "p", "d", "o", "w", "n", "▁u", "▁up", "do", "wn", "down", "▁down"]
    tokens += words
    scores = [0.0] * (len(tokens) - len(words)) + [-float(rank) for rank in range(len(words))]
    kinds = [2, CONTROL, CONTROL, *[6] * 256, *[NORMAL] * len(words)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": None,
    }


def llama3_factors(base, width, factor):
    """Return the factors of each frequency that Llama 3.1 and later files hold."""
    found = []
    for i in range(0, width, 2):
        wave = 2 * math.pi * base ** (i / width)
        if wave < 8192 / 4:
            found.append(1.0)
        elif wave > 8192 / 1:
            found.append(factor)
        else:
            smooth = (8192 / wave - 1) / (4 - 1)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, dtype=np.float32)


def states(module, inputs):
    """Run a model of transformers on embedded tokens."""
    with torch.no_grad():
        return module(inputs_embeds=inputs).last_hidden_state


def as_transformers_reads(path):
    """Return the model that transformers' own reader makes of a file."""
    return AutoModel.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


_ARCHITECTURES = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}


def _facts(config, architecture):
    facts = {
        "general.name": "tiny",
        "general.license": "mit",
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
    }
    if architecture == "gpt2":
        facts |= {
            "feed_forward_length": config.n_inner,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    else:
        facts |= {
            "feed_forward_length": config.intermediate_size,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.freq_base": config.rope_parameters["rope_theta"],
        }
    if architecture == "qwen3":
        facts["attention.key_length"] = config.head_dim
    return {
        name if name.startswith("general.") else f"{architecture}.{name}": value
        for name, value in facts.items()
    }


def _layout(name, values, config):
    """Arrange a weight as llama.cpp does."""
    if config.model_type == "gpt2" and values.ndim == 2 and name.startswith("h."):
        return np.ascontiguousarray(values.T)
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    of = heads.get(name.split(".")[-2])
    if config.model_type in ("llama", "mistral") and of:
        halves = values.reshape(getattr(config, of), 2, -1, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values


def _tensor(writer, name, values, kind):
    if values.ndim == 1:  # llama.cpp keeps norms and biases in float32
        kind = "F32"
    quantised = gguf.GGMLQuantizationType[kind]
    data = gguf.quants.quantize(values, quantised)
    writer.add_tensor(name, data, raw_dtype=quantised)


def _add(writer, name, value):
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    getattr(writer, f"add_{kinds[type(value)]}")(name, value)
