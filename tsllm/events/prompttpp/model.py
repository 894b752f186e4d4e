"""PromptTPP's network as the base of event forecasters uses it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.encoders.llm import mean_token_embeddings
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.backbone import Backbone, load_backbone, resolve_device, tuned
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import in_chunks
from tsllm.events.base import EventForecaster
from tsllm.events.batching import last_events
from tsllm.events.prompttpp.parameters import MODEL_PARAMETERS, backbone_name, is_endless
from tsllm.events.prompttpp.running_states import (
    RunningStates,
    StreamedPaths,
    history_length,
    trim_history,
)
from tsllm.events.prompttpp.text_types import embed_types, type_texts
from tsllm.events.sampling import Paths
from tsllm.training.randomness import seeded


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


class PromptTPPCore(EventForecaster):
    """The model of `PromptTPP` as an event forecaster uses it: encoded, streamed, pickled."""

    # The constructor arguments that the parts read; `PromptTPP` documents and stores them.
    encoder: str
    text_encoder: str
    backbone: str | None
    backbone_layers: int | None
    lora: dict[str, Any] | None
    type_text: str | Mapping[str, str]
    decoder: str
    prompt_mode: str
    prompt_length: int
    base_update: str
    warmup_slices: int
    context_length: int | str
    prompt_every: int
    grow_types: bool
    max_epochs: int | str
    max_steps: int | None
    batch_size: int
    learning_rate: float
    prompt_learning_rate: float
    weight_decay: float
    patience: int
    validation_fraction: float
    embedding_store: Any
    device: str
    dtype: str
    verbose: int

    # Set in fitting. Those that `PromptTPP` does not document say how the model was made, so that
    # it can be built again and is not trained on with other settings.
    model_: PromptTPPModel
    n_slices_: int
    slices_: list[dict[str, Any]]
    prompt_usage_: np.ndarray
    slot_history_: np.ndarray
    longest_wait_: float
    architecture_: dict[str, Any]
    seed_: int
    context_length_: int
    median_scaled_gap_: float
    text_width_: int | None
    backbone_digest_: str | None
    #: The states after the last events of ``history_``; None while they belong to another model.
    _running: RunningStates | None

    # ------------------------------------------------------------------ the hooks of the base

    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        return self.model_.decoder, self.model_.encode(batch)

    def _context_length(self) -> int | None:
        return None if is_endless(self) else self.context_length_

    def _longest_wait(self) -> float | None:
        # Models that were saved by earlier versions do not know it.
        longest = getattr(self, "longest_wait_", None)
        return None if longest is None else longest / self.time_scale_

    def _device(self) -> torch.device:
        backbone = self._load_backbone() if self.encoder == "llm-full" else None
        return resolve_device(self.device) if backbone is None else backbone.device

    def _remember(self, table: EventTable) -> None:
        most = history_length(self)
        if self._running is None:  # after learning
            self.history_ = last_events(table, most)
            self._running = RunningStates.begin(self, table)
        else:
            self.history_ = trim_history(table, most)

    def _advance(self, new: EventTable) -> None:
        assert self._running is not None  # `fit` began it
        self._running = self._running.after(self, new)

    def _latest_states(self) -> tuple[EventDecoder, EventStates] | None:
        return None if self._running is None else self._running.latest(self)

    def _start_paths(self, batch: EventBatch, copies: int) -> Paths:
        if self.decoder == "attnhp":
            return super()._start_paths(batch, copies)
        return StreamedPaths(self.model_, batch, copies)

    def _running_tensors(self) -> dict[str, Tensor]:
        # The states of the others are made anew from the history.
        running = self._running if is_endless(self) else None
        return {} if running is None else running.tensors()

    def _restore_running(self, tensors: Mapping[str, Tensor]) -> None:
        self._running = RunningStates({})
        if tensors:
            self._running = RunningStates.from_tensors(self, list(self.history_.ids), tensors)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if not hasattr(self, "model_"):
            return state
        # Tensors leave on the CPU, so that a model fitted on a GPU opens where there is none. The
        # running states that the history tells are left out: a language model's are large.
        running = self._running
        if running is not None:
            running = running.cpu() if is_endless(self) else RunningStates({})
        model = self.model_
        if any(parameter.device.type != "cpu" for parameter in model.parameters()):
            model = copy.deepcopy(model).cpu()
        return state | {"model_": model, "_running": running}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "model_"):
            self.model_.to(self._device())

    # ------------------------------------------------------------------ the model

    def _build_model(self, vectors: Tensor | None = None) -> PromptTPPModel:
        """Build the model for what is known; the types' vectors may be loaded later."""
        return build_model(self, vectors)

    def _load_backbone(self) -> Backbone | None:
        """Find the language model that the parameters name."""
        name = backbone_name(self)
        if name is None:
            return None
        return load_backbone(
            name, layers=self.backbone_layers, device=self.device, dtype=self.dtype
        )
