"""The parameters of PromptTPP held against each other; each refusal is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tsllm.adapters.events.prompttpp import DECODERS, ENCODERS, TEXT_ENCODERS
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.errors import DataError
from tsllm.forecasters.checks import check_whole

if TYPE_CHECKING:
    from tsllm.events.prompttpp.model import PromptTPPCore

PROMPT_MODES = ("allocate", "shared", "none")
BASE_UPDATES = ("freeze", "slow", "full")
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
    "time_features",
    "prompt_mode",
    "prompt_length",
    "max_slots",
    "slots_per_slice",
    "top_slots",
    "min_context",
    "cold_start",
    "when_full",
    "head_rank",
    "matching_coef",
)
#: Those that cannot change once there is a model.
FIXED_PARAMETERS = (*MODEL_PARAMETERS, "lora", "context_length")
#: ``context_length="auto"``.
AUTO_CONTEXT = 128


def check_parameters(estimator: PromptTPPCore) -> None:
    """Refuse parameters that cannot be used, alone or together.

    Raises
    ------
    DataError
        Naming the parameter, its value and what would do.
    """
    for name, known in (
        ("encoder", ENCODERS),
        ("text_encoder", TEXT_ENCODERS),
        ("decoder", DECODERS),
        ("prompt_mode", PROMPT_MODES),
        ("base_update", BASE_UPDATES),
    ):
        _check_choice(name, getattr(estimator, name), known)
    for name in ("warmup_slices", "batch_size", "patience", "prompt_every"):
        check_whole(name, getattr(estimator, name))
    for name in ("max_epochs", "context_length"):
        if getattr(estimator, name) != "auto":
            check_whole(name, getattr(estimator, name), or_auto=True)
    if estimator.max_steps is not None:
        check_whole("max_steps", estimator.max_steps)
    for name in ("learning_rate", "prompt_learning_rate"):
        if not getattr(estimator, name) > 0:
            raise DataError(f"{name} must be above 0, found {getattr(estimator, name)!r}")
    if not 0 <= estimator.validation_fraction < 1:
        raise DataError(
            "validation_fraction must be at least 0 and less than 1, found "
            f"{estimator.validation_fraction!r}"
        )
    encoder, decoder = estimator.encoder, estimator.decoder
    if decoder == "attnhp" and (is_endless(estimator) or encoder == "llm-full"):
        raise DataError(
            "decoder='attnhp' attends to the events anew at every time, which "
            f"{_described(estimator)} cannot: use encoder='attention', or another decoder"
        )
    if estimator.lora is not None and encoder != "llm-full":
        raise DataError(
            f"lora tunes a language model that reads the events, and encoder={encoder!r} has none: "
            "use encoder='llm-full', or leave lora out"
        )
    if not reads_texts(estimator):
        given = {
            "backbone": estimator.backbone is not None,
            "backbone_layers": estimator.backbone_layers is not None,
            "type_text": estimator.type_text != "{name}",
            "text_encoder": estimator.text_encoder != "attention",
        }
        for name in [name for name, there in given.items() if there]:
            raise DataError(
                f"{name} is for the encoders that read the types' texts, and encoder={encoder!r} "
                "does not: use encoder='llm' or 'llm-full', or leave it out"
            )


def backbone_name(estimator: PromptTPPCore) -> str | None:
    """Name the language model; None where there is none."""
    if not reads_texts(estimator):
        return None
    return DEFAULT_BACKBONE if estimator.backbone is None else estimator.backbone


def reads_texts(estimator: PromptTPPCore) -> bool:
    """Tell whether the types are known by their texts."""
    return estimator.encoder in ("llm", "llm-full")


def is_endless(estimator: PromptTPPCore) -> bool:
    """Tell whether the encoder reads streams without end, in a state of constant size."""
    text_encoder = estimator.encoder == "llm" and estimator.text_encoder == "aaren"
    return estimator.encoder == "aaren" or text_encoder


def context_length(estimator: PromptTPPCore, backbone: Backbone | None) -> int:
    """Decide how many events are read at once."""
    most = None
    if estimator.encoder == "llm-full" and backbone is not None and backbone.max_positions:
        # Beside the prompt and the start, two tokens an event; the model refuses less than two.
        most = max(2, (backbone.max_positions - estimator.prompt_length - 1) // 2)
    if estimator.context_length == "auto":
        return AUTO_CONTEXT if most is None else min(AUTO_CONTEXT, most)
    wanted = int(estimator.context_length)
    if most is not None and wanted > most:
        raise DataError(
            f"context_length={wanted} events are more than the {most} that the backbone's "
            "positions hold beside the prompt: use at most so many"
        )
    return wanted


def _described(estimator: PromptTPPCore) -> str:
    if estimator.encoder == "llm":
        return f"text_encoder={estimator.text_encoder!r}"
    return f"encoder={estimator.encoder!r}"


def _check_choice(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise DataError(f"{name} must be one of {', '.join(known)}, found {value!r}")
