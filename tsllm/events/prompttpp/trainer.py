"""Training of PromptTPP's network and prompts on one slice after another."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch, length_buckets
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events.batching import EventWindows, last_times
from tsllm.training.callbacks import Callback
from tsllm.training.checkpoints import digest
from tsllm.training.loop import train
from tsllm.training.settings import Loss, TrainingSettings, TrainingState

#: ``max_epochs="auto"``: this many epochs, or this many steps where the epochs are short.
AUTO_EPOCHS, AUTO_STEPS = 60, 400
#: ``base_update="slow"``: the share of its learning rate that the network keeps.
SLOW = 0.1
#: ``prompt_mode="shared"``: the prompts learn in every second step while the network is trained.
PROMPT_EVERY = 2
CLIP_NORM = 1.0


@dataclass(frozen=True)
class SliceTrainer:
    """A trainer of a model on the slices of a stream.

    Attributes
    ----------
    prompt_mode, base_update, warmup_slices, max_epochs, max_steps, batch_size, learning_rate, \
prompt_learning_rate, weight_decay, patience, validation_fraction, verbose
        The parameters of `PromptTPP` with these names.
    checkpoint_dir : path or None
        As in `PromptTPP`; each slice has a folder of its own in it.
    identity : mapping
        Facts that tell this model's training from others.
    rows : callable
        Make `EventWindows` of a table; takes ``t_start`` too.
    seed : int
    device : torch device
    """

    prompt_mode: str
    base_update: str
    warmup_slices: int
    max_epochs: int | str
    max_steps: int | None
    batch_size: int
    learning_rate: float
    prompt_learning_rate: float
    weight_decay: float
    patience: int
    validation_fraction: float
    verbose: int
    checkpoint_dir: str | Path | None
    identity: Mapping[str, Any]
    rows: Callable[..., EventWindows]
    seed: int
    device: torch.device

    def learn(
        self, model: PromptTPPModel, number: int, table: EventTable, validation: EventTable | None
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Train a model on a slice, in place; ``number`` counts from 0.

        Without ``validation``, the last part of the slice is held out.

        Returns
        -------
        record : dict
            Events, slots, epochs and losses of the slice, as JSON values.
        uses : int array (slots,)
            Positions of the slice that each slot is retrieved at, after training.
        """
        started = time.perf_counter()
        model.to(self.device)
        identity = dict(self.identity)
        if number and self.checkpoint_dir is not None:
            # A model that was loaded may have learnt other slices before.
            identity["initial_weights"] = digest(*_own_parameters(model))
        if validation is None and self.validation_fraction > 0:
            table, validation = _hold_out(table, self.validation_fraction)
        training, held_out = self.rows(table), None
        if validation is not None:
            # Sequences without validation events are not read.
            whole = table.extend(validation).select(validation.ids)
            ends = dict(zip(table.ids, _ends(table)))
            t_start = np.array([ends.get(name, np.nan) for name in whole.ids])
            held_out = self.rows(whole, t_start=t_start)
        batches = list(_batches(training, self.batch_size, self.device))
        if not any(int(batch.events_scored) for batch in batches):
            raise NotEnoughDataError(
                "the slice has no inter-event time to learn from: give sequences of two events at "
                "least, or windows with a known start"
            )
        slots = model.open_slots(model.slice_queries(batches))
        warm = number < self.warmup_slices
        base = warm or self.base_update != "freeze"
        model.train_only(base=base, slots=slots)
        settings = self._settings(training, number, base, bool(slots), identity)
        callbacks = []
        if self.prompt_mode == "shared" and base:
            callbacks.append(_PromptsInSomeSteps(model, slots))
        result = train(model, _make_loss(model, slots), training, held_out, settings, callbacks)
        model.train_only(base=False)
        uses = _count_uses(model, batches)
        best = result.history[result.best_epoch - 1]
        record = {
            "sequences": len(table),
            "events": table.n_events,
            **_span(table),
            "slots": [int(slot) for slot in slots],
            "network_trained": base,
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "steps": result.steps,
            "stopped": result.stopped,
            "train_loss": best["train_loss"],
            "validation_loss": best["validation_loss"],
            "seconds": time.perf_counter() - started,
            "history": result.history,
        }
        return record, uses

    def _settings(
        self,
        training: EventWindows,
        number: int,
        base: bool,
        prompts: bool,
        identity: Mapping[str, Any],
    ) -> TrainingSettings:
        """Make the settings of the training loop."""
        if not base and not prompts:
            raise DataError(
                "prompt_mode='none' with base_update='freeze' leaves nothing to learn after "
                f"warmup_slices={self.warmup_slices}: use base_update='full', or prompts"
            )
        patience, epochs = int(self.patience), self.max_epochs
        if epochs == "auto":
            per_epoch = len(training.batches(self.batch_size, None))
            epochs = max(AUTO_EPOCHS, -(-AUTO_STEPS // per_epoch))
            # An epoch of few steps shows little progress: the patience grows with the epochs.
            patience *= -(-epochs // AUTO_EPOCHS)
        rate, factors = self.prompt_learning_rate, {}
        if base:
            slow = self.base_update == "slow" and number >= self.warmup_slices
            rate = self.learning_rate * (SLOW if slow else 1.0)
            if prompts:
                factors = {"pool.": self.prompt_learning_rate / rate}
        return TrainingSettings(
            max_epochs=int(epochs),
            max_steps=None if self.max_steps is None else int(self.max_steps),
            batch_size=int(self.batch_size),
            learning_rate=rate,
            rate_factors=factors,
            weight_decay=self.weight_decay,
            patience=patience,
            clip_norm=CLIP_NORM,
            # Each slice has a seed of its own.
            seed=int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]),
            device=self.device,
            verbose=int(self.verbose),
            checkpoint_dir=(
                None
                if self.checkpoint_dir is None
                else Path(self.checkpoint_dir).expanduser() / f"slice-{number:03d}"
            ),
            identity=identity,
        )


class _PromptsInSomeSteps(Callback):
    """Train the prompts in every second step only, and the network in all."""

    def __init__(self, model: PromptTPPModel, slots: list[int]) -> None:
        self.model, self.slots = model, slots

    def on_step_begin(self, state: TrainingState) -> None:
        # Before the forward pass that is differentiated: the authors' code does it after.
        some = self.slots if state.step % PROMPT_EVERY == 0 else ()
        self.model.train_only(base=True, slots=some)

    def on_step_end(self, state: TrainingState) -> None:
        self.model.train_only(base=True, slots=self.slots)


def _own_parameters(model: nn.Module) -> list[Tensor]:
    """List the parameters that are saved with a model: all but a language model's."""
    saved = model.state_dict()
    return [value for name, value in model.named_parameters() if name in saved]


def _make_loss(own: PromptTPPModel, slots: list[int]) -> Callable[[nn.Module, EventBatch], Loss]:
    """Make the loss of some slots."""
    return lambda model, batch: Loss(*own.loss(batch, slots))


def _hold_out(table: EventTable, fraction: float) -> tuple[EventTable, EventTable | None]:
    """Split off the last events for early stopping; None where that leaves too few."""
    try:
        training, later = table.split((1 - fraction, fraction), keep_empty=True)
        known = EventWindows(training, table.type_names, 1.0, resolution=1.0)
    except NotEnoughDataError:
        return table, None
    if not len(known) or not any(len(times) > 1 for times in training.times):
        return table, None
    return training, later


def _batches(rows: EventWindows, batch_size: int, device: torch.device) -> Iterator[EventBatch]:
    """Iterate over the rows in batches of similar length."""
    for indices in length_buckets(rows.lengths, batch_size=batch_size):
        yield rows.gather(indices).to(device)


@torch.no_grad()
def _count_uses(model: PromptTPPModel, batches: list[EventBatch]) -> np.ndarray:
    """Count the positions that each slot is retrieved at: (slots,)."""
    counts = np.zeros(len(model.pool), dtype=np.int64)
    for batch in batches:
        choice = model.retrieve(batch)
        if choice is None:
            continue
        real = nn.functional.pad(batch.mask, (1, 0), value=True)  # (batch, positions)
        uses: Tensor = (choice.visible & real[..., None]).sum((0, 1))  # (slots,)
        counts[list(choice.numbers)] += uses.cpu().numpy()
        if model.pool.mode == "shared":
            model.pool.add_usage(choice, real)
    return counts


def _ends(table: EventTable) -> np.ndarray:
    """Find the end of each sequence: its window's end, or its last event."""
    return np.where(np.isnan(table.ends), last_times(table), table.ends)


def _span(table: EventTable) -> dict[str, str]:
    """Write the times of the first and the last event of a table."""
    times = np.concatenate([*table.times, np.empty(0)])
    stamp = table.clock.to_stamp
    return {"first": str(stamp(times.min())), "last": str(stamp(times.max()))}
