"""Which encoders and decoders `PromptTPPModel` is made of, and which go together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tsllm.adapters.attnhp import AttNHPDecoder, AttNHPEncoder
from tsllm.adapters.event_aaren import AarenEncoder
from tsllm.adapters.event_attention import AttentionEncoder
from tsllm.adapters.event_decoders import (
    ExponentialDecoder,
    LogNormalMixtureDecoder,
    RMTPPDecoder,
)
from tsllm.adapters.event_text import TextTypeHead

ENCODERS = ("attention", "aaren", "llm", "llm-full")
TEXT_ENCODERS = ("attention", "aaren")
DECODERS = ("lognormal_mixture", "rmtpp", "exponential", "attnhp")


def encoder_class(encoder: str, text_encoder: str, decoder: str) -> Any:
    """Say which class encodes."""
    if decoder == "attnhp":
        return AttNHPEncoder
    name = text_encoder if encoder == "llm" else encoder
    return AarenEncoder if name == "aaren" else AttentionEncoder


def build_decoder(
    name: str, hidden: int, n_types: int, components: int, head: TextTypeHead | None
) -> Any:
    """Make the decoder of a name; ``head`` gives type logits where the decoder has them."""
    if name == "lognormal_mixture":
        return LogNormalMixtureDecoder(hidden, n_types, components, type_head=head)
    if name == "rmtpp":
        return RMTPPDecoder(hidden, n_types, type_head=head)
    if name == "exponential":
        return ExponentialDecoder(hidden, n_types)
    return AttNHPDecoder(hidden, n_types)


def check_parts(
    n_types: int,
    encoder: str,
    decoder: str,
    text_encoder: str,
    backbone: object,
    type_vectors: Tensor | None,
    head_rank: int,
) -> None:
    """Refuse names that are unknown and parts that do not go together."""
    for name, value, possible in (
        ("encoder", encoder, ENCODERS),
        ("decoder", decoder, DECODERS),
        ("text_encoder", text_encoder, TEXT_ENCODERS),
    ):
        if value not in possible:
            raise ValueError(f"{name} must be one of {list(possible)}, got {value!r}")
    reads_text = encoder in ("llm", "llm-full")
    if reads_text != (type_vectors is not None):
        raise ValueError(
            f"encoder={encoder!r} {'needs' if reads_text else 'takes no'} type_vectors: they are "
            "the types' texts as 'llm' and 'llm-full' read them"
        )
    if type_vectors is not None and len(type_vectors) != n_types:
        raise ValueError(f"{len(type_vectors)} type_vectors for {n_types} types: give one each")
    if (encoder == "llm-full") != (backbone is not None):
        raise ValueError(
            f"encoder={encoder!r} {'takes no' if backbone is not None else 'needs a'} backbone: "
            "it is what 'llm-full' reads events with"
        )
    if decoder == "attnhp":
        if encoder in ("aaren", "llm-full") or (encoder == "llm" and text_encoder == "aaren"):
            raise ValueError(
                "decoder='attnhp' attends to the events again at every time and has an encoder of "
                "its own: use it with encoder='attention', or take another decoder"
            )
        if head_rank:
            raise ValueError(
                f"head_rank={head_rank} changes the states, which decoder='attnhp' does not read: "
                "use head_rank=0 with it"
            )
