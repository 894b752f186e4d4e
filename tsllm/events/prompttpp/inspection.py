"""What a fitted PromptTPP shows: retrieved prompts, numbers of weights, slices learnt."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.backbone import Backbone
from tsllm.datasets.events import EventTable
from tsllm.events.arguments import in_chunks
from tsllm.events.batching import last_events
from tsllm.events.encoding import FittedModel
from tsllm.events.prompttpp.memory import SliceMemory
from tsllm.pages.notebook import Summary


class InspectionMixin:
    """The inspection of a fitted `tsllm.PromptTPP`."""

    # Of the estimator.
    encoder: str
    decoder: str
    model_: PromptTPPModel
    classes_: np.ndarray
    calendar_: dict[str, float]
    slices_: list[dict[str, Any]]
    n_slices_: int
    _memory: SliceMemory | None = None
    n_events_: int
    context_length_: int
    _table: Any
    _fitted: Any
    _load_backbone: Any
    _device: Any

    @torch.no_grad()
    def retrieve(self, history: Any = None, *, windows: Any = None) -> pd.DataFrame:
        """List the prompts that each sequence retrieves after its last event.

        Parameters
        ----------
        history, windows : default=None
            See `EventForecaster`.

        Returns
        -------
        DataFrame
            A row per sequence and slot: the slot's number, the slice that opened it last, its
            ``likeness`` to the sequence (minus the squared distance from the key, in units of the
            queries' scatter; in mode "shared" the cosine), and whether it is ``retrieved``. No rows
            where there are no prompts.
        """
        table: EventTable = self._table(history, windows)
        fitted: FittedModel = self._fitted()
        model, id_col = self.model_, table.names.id_col
        rows = fitted.rows(last_events(table, self.context_length_))
        opened = {slot: n for n, one in enumerate(self.slices_) for slot in one["slots"]}
        ids = table.windows()[id_col]
        frames = []
        for places in in_chunks(len(table), fitted.rows_at_once):
            batch = rows.gather(places).to(fitted.device)
            query = model.query(batch)
            choice = model.pool.choose(query)
            if choice is None:
                break
            slots = choice.numbers
            at = torch.arange(len(batch), device=batch.gaps.device), batch.lengths
            likeness = model.pool.likeness(query.vectors, slots)[at]  # (batch, slots)
            columns = {
                id_col: ids.iloc[places].repeat(len(slots)),
                "slot": np.tile(slots, len(places)),
                "slice": np.tile([opened[slot] for slot in slots], len(places)),
                "likeness": likeness.flatten().cpu().numpy(),
                "retrieved": choice.visible[at].flatten().cpu().numpy(),
            }
            frames.append(pd.DataFrame(columns))
        if not frames:
            return pd.DataFrame(columns=[id_col, "slot", "slice", "likeness", "retrieved"])
        return pd.concat(frames, ignore_index=True)

    def slice_notes(self) -> dict[int, str]:
        """Write what each later slice changed, and the validation losses that chose it.

        Returns
        -------
        dict of int to str
            The end of a sentence for each slice that had a choice, by its number from 0; the losses
            are in ``slices_``.
        """
        check_is_fitted(self)
        notes = {}
        for number, one in enumerate(self.slices_):
            losses = one.get("losses") or {}
            if losses:
                told = "; ".join(
                    f"{name} {found['slice']:.3f}"
                    + ("" if found["earlier"] is None else f" and {found['earlier']:.3f} before")
                    for name, found in losses.items()
                )
                notes[number] = (
                    f"chose {one['chosen']!r} by validation loss, on the slice and on kept events "
                    "of earlier slices (scaled nats an event; a greater change must win by a "
                    f"standard error): {told}"
                )
        return notes

    @property
    def n_parameters(self) -> int:
        """Count the trained weights: the network's and the prompts', not the language model's."""
        check_is_fitted(self)
        return sum(parameter.numel() for parameter in self.model_.parameters())

    def summary(self) -> dict[str, Any]:
        """Summarise the model and its training, for printing and logging.

        Returns
        -------
        dict
            Weights (of the network, of the prompts, of the frozen language model), slices, slots,
            events, what each slice changed (see ``slices_``), epochs and losses of the last slice,
            the calendar's periods, the kept events of earlier slices, seconds of all, device.
        """
        check_is_fitted(self)
        prompts = sum(parameter.numel() for parameter in self.model_.pool.parameters())
        backbone: Backbone | None = self._load_backbone()
        last = self.slices_[-1]
        facts = {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "backbone": None if backbone is None else backbone.spec,
            "backbone_quantisation": None if backbone is None else backbone.quantisation,
            "trained_parameters": self.n_parameters,
            "network_parameters": self.n_parameters - prompts,
            "prompt_parameters": prompts,
            "frozen_parameters": 0 if backbone is None else backbone.parameter_count,
            "types": len(self.classes_),
            "context_length": self.context_length_,
            "slices": self.n_slices_,
            "slots": len(self.model_.pool),
            "events": self.n_events_,
            "changed": [one.get("chosen", "") for one in self.slices_],
            "calendar": [*getattr(self, "calendar_", {})],
            "kept_events": 0 if self._memory is None else self._memory.table.n_events,
            "epochs": last["epochs"],
            "best_epoch": last["best_epoch"],
            "steps": last["steps"],
            "train_loss": last["train_loss"],
            "validation_loss": last["validation_loss"],
            "stopped": last["stopped"],
            "seconds": sum(one["seconds"] for one in self.slices_),
            "device": str(self._device()),
        }
        return Summary(facts)


def slice_rows(one: Mapping[str, Any]) -> dict[str, object]:
    """Return the rows of a slice's table in a model's card."""
    held_out = one["validation_loss"]
    return {
        "events": f"{one['events']:,} in {one['sequences']:,} sequences",
        "from, to": f"{one['first']}, {one['last']}",
        "prompt slots": ", ".join(map(str, one["slots"])) or "none",
        "changed": one.get("chosen", "network" if one["network_trained"] else "slot"),
        "chosen by": "; ".join(
            f"{name} {found['slice']:.4f}" for name, found in (one.get("losses") or {}).items()
        )
        or "nothing to choose",
        "best epoch": f"{one['best_epoch']} of {one['epochs']}",
        "training loss": f"{one['train_loss']:.4f} nats an event, in scaled time",
        "validation loss": "none held out" if held_out is None else f"{held_out:.4f}",
        "seconds": round(one["seconds"], 1),
    }
