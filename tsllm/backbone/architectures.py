"""The architectures that tsllm runs, and the facts about each of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from tsllm.errors import DataError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class Architecture(NamedTuple):
    """The names of one architecture's config entries and layers, and its kind."""

    intermediate: str  # the config's name of the feed-forward width
    kv_heads: bool  # takes fewer key/value heads than heads
    rotary: bool  # positions are rotations, so the head width must be even
    # The query and value projections, which LoRA adapts (Hu et al. 2021, section 7.1), or the one
    # matrix that holds them.
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    encoder: bool = False  # attends both ways by default


# The tests check causality, the KV cache and left padding of these architectures. Add a new one
# here and to those tests.
ARCHITECTURES = {
    "gpt2": Architecture("n_inner", kv_heads=False, rotary=False, lora_targets=("c_attn",)),
    "llama": Architecture("intermediate_size", kv_heads=True, rotary=True),
    "opt": Architecture("ffn_dim", kv_heads=False, rotary=False),
    "qwen2": Architecture("intermediate_size", kv_heads=True, rotary=True),
    "qwen3": Architecture("intermediate_size", kv_heads=True, rotary=True),
    "gemma": Architecture("intermediate_size", kv_heads=True, rotary=True),
    "mistral": Architecture("intermediate_size", kv_heads=True, rotary=True),
    "gpt_neox": Architecture(
        "intermediate_size", kv_heads=False, rotary=True, lora_targets=("query_key_value",)
    ),
    "bert": Architecture(
        "intermediate_size",
        kv_heads=False,
        rotary=False,
        lora_targets=("query", "value"),
        encoder=True,
    ),
}

# PyTorch's own attention, also where others are installed: the masks here are written for it.
ATTENTION = "sdpa"

# The config entries that change the output of the listed architectures for given weights. Listing
# these, and not the others, keeps digests the same when transformers adds entries.
_OUTPUT_ENTRIES = (
    "activation_function",
    "alibi",
    "attention_bias",
    "do_layer_norm_before",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "layer_types",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_key_value_heads",
    "position_embedding_type",
    "reorder_and_upcast_attn",
    "rms_norm_eps",
    "rope_parameters",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "sliding_window",
    "use_bidirectional_attention",
    "use_parallel_residual",
    "use_sliding_window",
)


def check_model_type(model_type: str, name: str) -> Architecture:
    """Return the architecture of this name, and raise for one that tsllm is not tested with."""
    architecture = ARCHITECTURES.get(model_type)
    if architecture is None:
        raise DataError(
            f"the backbone {name!r} is a {model_type!r} model, which tsllm does not run; "
            f"use one of these architectures: {', '.join(sorted(ARCHITECTURES))}."
        )
    return architecture


def check_supported(config: PretrainedConfig, name: str) -> Architecture:
    """Return the architecture of a config, and raise for one that tsllm does not run."""
    architecture = check_model_type(config.model_type, name)
    if getattr(config, "quantization_config", None) is not None:
        raise DataError(
            f"the backbone {name!r} holds quantised weights, which tsllm does not run; "
            "use the unquantised model."
        )
    return architecture


def fuse_activations(module: nn.Module) -> None:
    """Replace each GELU of eight operations by torch's own, which computes the same formula.

    Each of the eight operations reads and writes a tensor of the feed-forward width. In GPT-2 they
    take more than a quarter of the time of the matrix products.
    """
    # Imported here: it takes half of the start of a process without a language model.
    from transformers.activations import FastGELUActivation, NewGELUActivation

    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(part, name, nn.GELU(approximate="tanh"))


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """Build the modules of a config without storage for their tensors."""
    # Imported here: it takes half of the start of a process without a language model.
    from transformers import AutoModel

    # BERT's pooler is of no use here and is missing from many checkpoints.
    options = {"add_pooling_layer": False} if ARCHITECTURES[config.model_type].encoder else {}
    with torch.device("meta"):
        model = AutoModel.from_config(
            config, dtype=torch.float32, attn_implementation=ATTENTION, **options
        )
    fuse_activations(model)
    return model


def keep_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """Copy a config so that it describes only the first ``layers`` layers."""
    kept = copy.deepcopy(config)
    kept.num_hidden_layers = layers
    if getattr(kept, "layer_types", None):
        kept.layer_types = kept.layer_types[:layers]
    return kept


def causal_config(config: PretrainedConfig) -> PretrainedConfig:
    """Copy an encoder's config so that each token attends only to itself and earlier ones."""
    causal = copy.deepcopy(config)
    causal.is_decoder = True
    return causal


def output_entries(config: PretrainedConfig) -> dict[str, Any]:
    """Pick the config entries that change the model's output."""
    # Newer transformers write the key/value heads of an architecture without them as None.
    return {
        name: getattr(config, name)
        for name in _OUTPUT_ENTRIES
        if getattr(config, name, None) is not None
    }
