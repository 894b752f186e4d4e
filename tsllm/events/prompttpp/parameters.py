"""Checks of PromptTPP's parameters, and what follows from them."""

from collections.abc import Mapping
from typing import Any

from tsllm.adapters.events.prompttpp import DECODERS, ENCODERS, TEXT_ENCODERS
from tsllm.arguments import Limits, check_choice
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.errors import DataError
from tsllm.events.arguments import LIMITS
from tsllm.training.checkpoints import check_resumable

PROMPT_MODES = ("allocate", "shared", "none")
BASE_UPDATES = ("auto", "freeze", "slow", "full")
#: The parameters that `PromptTPPModel` takes under the same names.
MODEL_PARAMETERS = (
    "encoder",
    "text_encoder",
    "decoder",
    "hidden",
    "layers",
    "heads",
    "dropout",
    "components",
    "prompt_mode",
    "prompt_length",
    "max_slots",
    "slots_per_slice",
    "top_slots",
    "when_full",
    "head_rank",
)
#: The parameters that cannot change once there is a model.
FIXED_PARAMETERS = (*MODEL_PARAMETERS, "lora", "context_length")
_RATE = Limits(0, 1e30, whole=False, above=True)
_SHARE = Limits(0, 1, whole=False, below=True)
_COUNT = Limits(1, 1_000_000_000)
_SIZE = Limits(1, 65_536)
#: What the numbers among the parameters may be, by name.
PROMPTTPP_LIMITS: dict[str, Limits] = {
    **LIMITS,
    **dict.fromkeys(("hidden", "heads", "components", "prompt_length"), _SIZE),
    **dict.fromkeys(("max_slots", "slots_per_slice", "top_slots"), _SIZE),
    **dict.fromkeys(("layers", "backbone_layers"), Limits(1, 1_000)),
    "head_rank": Limits(0, 65_536),
    "memory_events": Limits(0, 1_000_000),
    "context_length": Limits(1, 100_000, words=("auto",)),
    "max_epochs": Limits(1, 1_000_000_000, words=("auto",)),
    **dict.fromkeys(("warmup_slices", "max_steps", "patience"), _COUNT),
    "batch_size": Limits(1, 1_000_000_000, words=("auto",)),
    **dict.fromkeys(("learning_rate", "prompt_learning_rate"), _RATE),
    "weight_decay": Limits(0, 1_000, whole=False),
    **dict.fromkeys(("dropout", "validation_fraction"), _SHARE),
}
#: ``context_length="auto"``.
AUTO_CONTEXT = 128


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the parameters of PromptTPP, alone and together."""
    for name, known in (
        ("encoder", ENCODERS),
        ("text_encoder", TEXT_ENCODERS),
        ("decoder", DECODERS),
        ("prompt_mode", PROMPT_MODES),
        ("base_update", BASE_UPDATES),
    ):
        check_choice(name, parameters[name], known)
    check_resumable(parameters["checkpoint_dir"], parameters["random_state"])
    encoder, text_encoder = parameters["encoder"], parameters["text_encoder"]
    if parameters["decoder"] == "attnhp" and (
        is_endless(encoder, text_encoder) or encoder == "llm-full"
    ):
        name = "text_encoder" if encoder == "llm" else "encoder"
        raise DataError(
            "decoder='attnhp' attends to the events anew at every time, which "
            f"{name}={parameters[name]!r} cannot: use encoder='attention', or another decoder"
        )
    if parameters["lora"] is not None and encoder != "llm-full":
        raise DataError(
            f"lora tunes a language model that reads the events, and encoder={encoder!r} has none: "
            "use encoder='llm-full', or leave lora out"
        )
    if not reads_texts(encoder):
        given = {
            "backbone": parameters["backbone"] is not None,
            "backbone_layers": parameters["backbone_layers"] is not None,
            "type_text": parameters["type_text"] != "{name}",
            "text_encoder": text_encoder != "attention",
        }
        for name in [name for name, there in given.items() if there]:
            raise DataError(
                f"{name} is for the encoders that read the types' texts, and encoder={encoder!r} "
                "does not: use encoder='llm' or 'llm-full', or leave it out"
            )


def backbone_name(encoder: str, backbone: str | None) -> str | None:
    """Return the name of the language model; None where the encoder has none."""
    if not reads_texts(encoder):
        return None
    return DEFAULT_BACKBONE if backbone is None else backbone


def reads_texts(encoder: str) -> bool:
    """Return whether the encoder reads the types as texts."""
    return encoder in ("llm", "llm-full")


def is_endless(encoder: str, text_encoder: str) -> bool:
    """Return whether the encoder reads endless streams, in a state of constant size."""
    return encoder == "aaren" or (encoder == "llm" and text_encoder == "aaren")


def count_context_events(
    context_length: int | str, encoder: str, prompt_length: int, backbone: Backbone | None
) -> int:
    """Compute the number of events that are read at once, as the backbone's positions allow."""
    most = None
    if encoder == "llm-full" and backbone is not None and backbone.max_positions:
        # Beside the prompt and the start, two tokens an event; the model needs at least two events.
        most = max(2, (backbone.max_positions - prompt_length - 1) // 2)
    if context_length == "auto":
        return AUTO_CONTEXT if most is None else min(AUTO_CONTEXT, most)
    wanted = int(context_length)
    if most is not None and wanted > most:
        raise DataError(
            f"context_length={wanted} events are more than the {most} that the backbone's "
            "positions hold beside the prompt: use at most so many"
        )
    return wanted
