"""The architectures that tsllm runs, and what it has to know about each of them."""

import copy
from typing import Any, NamedTuple

from transformers import PretrainedConfig

from tsllm.errors import DataError


class Architecture(NamedTuple):
    """What the shape of one architecture is called in its config."""

    intermediate: str  # the config's name of the feed-forward width
    kv_heads: bool  # takes fewer key/value heads than heads
    rotary: bool  # positions are rotations, so the head width must be even
    # Its query and value projections, which LoRA adapts (Hu et al. 2021, section 7.1); where an
    # architecture keeps them in one matrix, that matrix.
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    encoder: bool = False  # attends both ways unless told otherwise


# The architectures that the tests hold to causality, to the KV cache and to left padding. Another
# one comes in here together with its name in those tests.
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

# PyTorch's own attention, whatever else is installed: the masks made here are written for it.
ATTENTION = "sdpa"

# The config entries that change what the listed architectures compute from given weights. A list of
# what counts, rather than of what does not, keeps digests the same across transformers' versions,
# which add entries freely.
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


def check_supported(config: PretrainedConfig, name: str) -> Architecture:
    """Give the architecture of a config, or refuse one that tsllm was never tested with."""
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise DataError(
            f"the backbone {name!r} is a {config.model_type!r} model, which tsllm does not run; "
            f"use one of these architectures: {', '.join(sorted(ARCHITECTURES))}."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise DataError(
            f"the backbone {name!r} holds quantised weights, which tsllm does not run; "
            "use the unquantised model."
        )
    return architecture


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
    """Pick the config entries that change what the model computes."""
    # Newer transformers write the key/value heads of an architecture without them as None.
    return {
        name: getattr(config, name)
        for name in _OUTPUT_ENTRIES
        if getattr(config, name, None) is not None
    }
