"""PromptTPP's torch model: built from an estimator, and asked for the prompts that it retrieves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.adapters.event_text import mean_token_embeddings
from tsllm.adapters.prompttpp import PromptTPPModel
from tsllm.backbone import tuned
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import in_chunks
from tsllm.events.histories import last_events
from tsllm.events.prompttpp_parameters import MODEL_PARAMETERS
from tsllm.events.text_types import embed_types, type_texts
from tsllm.randomness import seeded

if TYPE_CHECKING:
    from tsllm.events.prompttpp_core import PromptTPPCore


def build_model(estimator: PromptTPPCore, vectors: Tensor | None = None) -> PromptTPPModel:
    """Build the model of an estimator that knows its types and its scale.

    Parameters
    ----------
    estimator : PromptTPPCore
    vectors : Tensor, (types, width), optional
        What `embed_classes` gives. None: for an encoder that reads texts zeros stand in, until
        weights are loaded.

    Raises
    ------
    DataError
        Sizes that do not go together.
    """
    if vectors is None and estimator.text_width_ is not None:
        vectors = torch.zeros(len(estimator.classes_), estimator.text_width_)
    sizes: dict[str, Any] = {name: getattr(estimator, name) for name in MODEL_PARAMETERS}
    try:
        with seeded(estimator.seed_):
            if estimator.encoder == "llm-full":
                sizes["backbone"] = tuned(estimator._load_backbone(), lora=estimator.lora)
                sizes["max_events"] = estimator.context_length_
            model = PromptTPPModel(
                len(estimator.classes_),
                median_gap=estimator.median_scaled_gap_,
                type_vectors=vectors,
                seed=estimator.seed_,
                **sizes,
            )
    except ValueError as error:
        raise DataError(str(error)) from error
    return model.to(estimator._device()).eval()


def embed_classes(estimator: PromptTPPCore, classes: Any) -> Tensor:
    """Embed the texts of types as the estimator's encoder reads them: (types, width)."""
    backbone = estimator._load_backbone()
    assert backbone is not None  # nobody else reads texts
    if estimator.encoder == "llm":
        return embed_types(classes, estimator.type_text, backbone, estimator.embedding_store)
    return mean_token_embeddings(backbone, type_texts(classes, estimator.type_text))


@torch.no_grad()
def retrieved_slots(estimator: PromptTPPCore, table: EventTable) -> pd.DataFrame:
    """Tell which prompts sequences retrieve after their last event; see `PromptTPP.retrieve`."""
    model, id_col = estimator.model_, table.names.id_col
    rows = estimator._windows(last_events(table, estimator.context_length_))
    opened = {slot: n for n, one in enumerate(estimator.slices_) for slot in one["slots"]}
    ids = table.windows()[id_col]
    frames = []
    for places in in_chunks(len(table), estimator._rows_at_once):
        batch = rows.gather(places).to(estimator._device())
        query = model.query(batch)
        choice = model.pool.choose(query)
        if choice is None:
            break
        slots = choice.numbers
        at = torch.arange(len(batch), device=batch.gaps.device), batch.lengths
        likeness = model.pool.likeness(query.vectors, slots)[at]  # (batch, slots)
        frames.append(
            pd.DataFrame(
                {
                    id_col: ids.iloc[places].repeat(len(slots)),
                    "slot": np.tile(slots, len(places)),
                    "slice": np.tile([opened[slot] for slot in slots], len(places)),
                    "likeness": likeness.flatten().cpu().numpy(),
                    "retrieved": choice.visible[at].flatten().cpu().numpy(),
                }
            )
        )
    if not frames:
        return pd.DataFrame(columns=[id_col, "slot", "slice", "likeness", "retrieved"])
    return pd.concat(frames, ignore_index=True)
