"""Training of PromptTPP's network and prompts on one slice after another."""

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events.batching import EventWindows, last_times
from tsllm.events.prompttpp.choosing import Candidate, JoinedRows, Losses, choose, measure
from tsllm.events.prompttpp.memory import SliceMemory
from tsllm.events.prompttpp.type_share import choose_type_shares, count_types
from tsllm.training.callbacks import Callback
from tsllm.training.checkpoints import digest
from tsllm.training.loop import train
from tsllm.training.settings import Loss, TrainingResult, TrainingSettings, TrainingState

#: ``batch_size="auto"``: as many rows as hold about so many events, so that few events make steps
#: enough and a step has few rows of many events.
STEP_EVENTS = 200
#: ``max_epochs="auto"``: this many epochs, but no fewer steps than the first number where the
#: epochs are short, and no more than the second where they are long.
AUTO_EPOCHS, AUTO_STEPS = 15, (150, 3000)
#: Rows that are read at once where nothing is trained.
ROWS_AT_ONCE = 16
#: The calendar's layers, which start at nothing, learn so many times as fast as the network.
CALENDAR_FACTOR = 3.0
#: ``base_update="slow"``: the share of its learning rate that the network keeps.
SLOW = 0.1
#: ``prompt_mode="shared"``: the prompts learn in every second step while the network is trained.
PROMPT_EVERY = 2
CLIP_NORM = 1.0


#: Share of the rows of earlier slices in the training of the network on a later one.
REPLAY = 0.3


class SliceOutcome(NamedTuple):
    """What learning a slice leaves behind."""

    model: PromptTPPModel
    #: Events, slots, what was chosen, epochs and losses of the slice, as JSON values.
    record: dict[str, Any]
    #: (slots,): positions of the slice that each slot is retrieved at, after training.
    uses: np.ndarray
    memory: SliceMemory


class _Slice(NamedTuple):
    """A slice to train on."""

    number: int
    training: Any
    held_out: Any
    #: (n, query size): the queries from which the keys of new slots are computed.
    queries: Tensor
    identity: Mapping[str, Any]
    #: Of the checkpoints' folder.
    variant: str


@dataclass(frozen=True)
class SliceTrainer:
    """A trainer of a model on the slices of a stream.

    Attributes
    ----------
    prompt_mode, base_update, warmup_slices, max_epochs, max_steps, batch_size, learning_rate, \
prompt_learning_rate, weight_decay, patience, validation_fraction, \
memory_events, verbose
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
    batch_size: int | str
    learning_rate: float
    prompt_learning_rate: float
    weight_decay: float
    patience: int
    validation_fraction: float
    memory_events: int
    verbose: int
    checkpoint_dir: str | Path | None
    identity: Mapping[str, Any]
    rows: Callable[..., EventWindows]
    seed: int
    device: torch.device

    def learn(
        self,
        model: PromptTPPModel,
        number: int,
        table: EventTable,
        validation: EventTable | None,
        memory: SliceMemory | None = None,
        *,
        variant: str = "",
    ) -> SliceOutcome:
        """Learn a slice; ``number`` counts from 0.

        Without ``validation``, the last part of the slice is held out. ``model`` is trained in
        place where there is nothing to choose, and stays as it was else. ``variant`` names one of
        several trainings on the slice, for checkpoints.
        """
        started = time.perf_counter()
        model.to(self.device)
        identity = dict(self.identity)
        if number and self.checkpoint_dir is not None:
            # A model that was loaded may have learnt other slices before.
            identity["initial_weights"] = digest(*_own_parameters(model))
        if validation is None and self.validation_fraction > 0:
            table, validation = hold_out(table, self.validation_fraction)
        training, held_out = self.rows(table), None
        if validation is not None:
            # Sequences without validation events are not read.
            whole = table.extend(validation).select(validation.ids)
            ends = dict(zip(table.ids, _ends(table)))
            t_start = np.array([ends.get(name, np.nan) for name in whole.ids])
            held_out = self.rows(whole, t_start=t_start)
        batches = list(self._batches_of(training))
        if not any(int(batch.events_scored) for batch in batches):
            raise NotEnoughDataError(
                "the slice has no inter-event time to learn from: give sequences of two events at "
                "least, or windows with a known start"
            )
        memory = SliceMemory.empty(table) if memory is None else memory
        part = _Slice(number, training, held_out, model.slice_queries(batches), identity, variant)
        candidates: dict[str, Candidate] = {}
        if self._chooses(number, held_out):
            candidates = self._candidates(model, part, memory)
            chosen = choose(candidates, memory.lost)
            one = candidates[chosen]
            for message in one.warnings:
                warnings.warn(message, UserWarning, stacklevel=5)
            model = one.model
        else:
            slots = model.open_slots(part.queries)
            base = number < self.warmup_slices or self.base_update in ("slow", "full")
            chosen = "network" if base else "slot"
            one = Candidate(model, slots, self._train(model, part, base, slots), {})
            if held_out is not None:
                self._choose_types(model, part.training, [held_out], slots)
        if self.base_update == "auto" and self.prompt_mode == "allocate" and self.memory_events:
            before = candidates["nothing"].losses if candidates else {}
            change = {at: found.mean - before[at].mean for at, found in one.losses.items()}
            memory = memory.after({**change, number: 0.0}).add(
                number, training, held_out, self.memory_events, self.seed
            )
        record = {
            "sequences": len(table),
            "events": table.n_events,
            **_span(table),
            "chosen": chosen,
            "losses": {name: _by_age(other.losses, number) for name, other in candidates.items()},
            "slots": [int(slot) for slot in one.slots],
            "network_trained": chosen == "network",
            **self._training_facts(model, training, one, number),
            "seconds": time.perf_counter() - started,
            "history": [] if one.result is None else one.result.history,
        }
        return SliceOutcome(model, record, _count_uses(model, batches), memory)

    def _training_facts(
        self, model: PromptTPPModel, training: EventWindows, one: Candidate, number: int
    ) -> dict[str, Any]:
        """Return epochs and losses of a slice; of no training, the losses of the model as it is."""
        result = one.result
        if result is None:
            return {
                "epochs": 0,
                "best_epoch": 0,
                "steps": 0,
                "stopped": "nothing to learn",
                "train_loss": measure(model, training, ROWS_AT_ONCE, self.device).mean,
                "validation_loss": one.losses[number].mean,
            }
        best = result.history[result.best_epoch - 1]
        return {
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "steps": result.steps,
            "stopped": result.stopped,
            "train_loss": best["train_loss"],
            "validation_loss": best["validation_loss"],
        }

    def _chooses(self, number: int, held_out: EventWindows | None) -> bool:
        """Return whether validation chooses what the slice changes."""
        return (
            self.base_update == "auto"
            and self.prompt_mode == "allocate"
            and number >= self.warmup_slices
            and held_out is not None
            and any(int(batch.events_scored) for batch in self._batches_of(held_out))
        )

    def _candidates(
        self, model: PromptTPPModel, part: _Slice, memory: SliceMemory
    ) -> dict[str, Candidate]:
        """Train what the slice may change, and measure it on all slices."""
        assert part.held_out is not None
        checks = {
            at: self.rows(table, t_start=score_from)
            for at in memory.numbers
            for table, score_from in [memory.select(checks=True, number=at)]
        }
        sets = {**checks, part.number: part.held_out}

        def measured(
            model: PromptTPPModel,
            slots: list[int],
            result: TrainingResult | None,
            said: Sequence[str] = (),
        ) -> Candidate:
            if result is not None and slots:  # others do not serve a new slot
                self._choose_types(model, part.training, [part.held_out], slots)
            elif result is not None:
                self._choose_types(model, part.training, list(sets.values()), None)
            losses = {
                at: measure(model, rows, ROWS_AT_ONCE, self.device) for at, rows in sets.items()
            }
            known = {at: found for at, found in losses.items() if found.events}
            return Candidate(model, slots, result, known, tuple(said))

        found = {"nothing": measured(model, [], None)}
        copied = copy.deepcopy(model)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            slots = copied.open_slots(part.queries)
        # A full pool may train an old slot further: it begins as it is.
        known, rows = model.pool.rows, copied.pool.rows
        new = [at for at in slots if at >= len(known) or not rows[at].equal(known[at])]
        self._warm_start(copied, new, part.held_out)
        result = self._train(copied, part, False, slots)
        found["slot"] = measured(copied, slots, result, [str(one.message) for one in said])
        if checks:
            copied = copy.deepcopy(model)
            table, score_from = memory.select(checks=False)
            replay = self.rows(table, t_start=score_from)
            repeats = max(1, round(REPLAY * len(part.training) / max(1, len(replay))))
            joined = part._replace(
                training=JoinedRows([part.training, replay], [1, repeats]),
                held_out=JoinedRows([part.held_out, *checks.values()], [1] * (1 + len(checks))),
                variant="network",
            )
            result = self._train(copied, joined, True, list(range(len(copied.pool))), every=True)
            found["network"] = measured(copied, [], result)
        return found

    def _warm_start(
        self, model: PromptTPPModel, slots: Sequence[int], held_out: EventWindows
    ) -> None:
        """Let new slots begin as the slot that suits the slice best."""
        others = [slot for slot in range(len(model.pool)) if slot not in slots]
        if others:
            losses = [
                measure(model, held_out, ROWS_AT_ONCE, self.device, [slot]).mean for slot in others
            ]
            model.pool.copy_slot(others[int(np.argmin(losses))], slots)

    def _train(
        self,
        model: PromptTPPModel,
        part: _Slice,
        base: bool,
        slots: list[int],
        *,
        every: bool = False,
    ) -> TrainingResult:
        """Train the network or the slots; ``every``: retrieve among all slots, as predictions."""
        model.train_only(base=base, slots=slots)
        if base:
            for guess in model.pool.guesses:
                guess.share.zero_()  # the network learns to do without
        settings = self._settings(part, base, bool(slots))
        if base and model.calendar is not None:
            factors = {**settings.rate_factors, "calendar.": CALENDAR_FACTOR}
            settings = replace(settings, rate_factors=factors)
        callbacks = []
        if self.prompt_mode == "shared" and base:
            callbacks.append(_PromptsInSomeSteps(model, slots))
        loss = _make_loss(model, None if every else slots)
        result = train(model, loss, part.training, part.held_out, settings, callbacks)
        model.train_only(base=False)
        return result

    def _choose_types(
        self,
        model: PromptTPPModel,
        training: EventWindows,
        sets: Sequence[EventWindows],
        slots: list[int] | None,
    ) -> None:
        """Count the types of a slice, and choose their share on validation data."""
        if model.pool.guesses:
            count_types(model, self._batches_of(training), slots)
            held_out = (batch for rows in sets for batch in self._batches_of(rows))
            choose_type_shares(model, held_out, slots)

    def _batches_of(self, rows: EventWindows | JoinedRows) -> Iterator[EventBatch]:
        """Iterate over the rows in batches of similar length."""
        for indices in rows.batches(ROWS_AT_ONCE, None):
            yield rows.gather(indices).to(self.device)

    def _settings(self, part: _Slice, base: bool, prompts: bool) -> TrainingSettings:
        """Make the settings of the training loop."""
        if not base and not prompts:
            raise DataError(
                "prompt_mode='none' with a frozen network leaves nothing to learn after "
                f"warmup_slices={self.warmup_slices}: use base_update='full', or prompts"
            )
        patience, epochs, batch_size = int(self.patience), self.max_epochs, self.batch_size
        if batch_size == "auto":
            batch_size = max(1, round(STEP_EVENTS / max(1.0, part.training.lengths.mean())))
        if epochs == "auto":
            per_epoch = len(part.training.batches(int(batch_size), torch.Generator()))
            least, most = AUTO_STEPS
            epochs = max(AUTO_EPOCHS, -(-least // per_epoch))
            epochs = min(epochs, max(1, most // per_epoch))
            # An epoch of few steps shows little progress: the patience grows with the epochs.
            patience *= -(-epochs // AUTO_EPOCHS)
        rate, factors = self.prompt_learning_rate, {}
        if base:
            slow = self.base_update == "slow" and part.number >= self.warmup_slices
            rate = self.learning_rate * (SLOW if slow else 1.0)
            # With "auto" prompts that learn beside the network learn as slowly.
            if prompts and self.base_update != "auto":
                factors = {"pool.": self.prompt_learning_rate / rate}
        folder = "-".join([f"slice-{part.number:03d}", *([part.variant] if part.variant else [])])
        return TrainingSettings(
            max_epochs=int(epochs),
            max_steps=None if self.max_steps is None else int(self.max_steps),
            batch_size=int(batch_size),
            learning_rate=rate,
            rate_factors=factors,
            weight_decay=self.weight_decay,
            patience=patience,
            clip_norm=CLIP_NORM,
            fused=True,
            # Each slice has a seed of its own.
            seed=int(np.random.SeedSequence((self.seed, part.number)).generate_state(1)[0]),
            device=self.device,
            verbose=int(self.verbose),
            checkpoint_dir=(
                None
                if self.checkpoint_dir is None
                else Path(self.checkpoint_dir).expanduser() / folder
            ),
            identity=part.identity,
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


def _make_loss(
    own: PromptTPPModel, slots: list[int] | None
) -> Callable[[nn.Module, EventBatch], Loss]:
    """Make the loss of some slots."""
    return lambda model, batch: Loss(*own.loss(batch, slots))


def hold_out(table: EventTable, fraction: float) -> tuple[EventTable, EventTable | None]:
    """Split off the last events for early stopping; None where that leaves too few."""
    try:
        training, later = table.split((1 - fraction, fraction), keep_empty=True)
        known = EventWindows(training, table.type_names, 1.0, resolution=1.0)
    except NotEnoughDataError:
        return table, None
    if not len(known) or not any(len(times) > 1 for times in training.times):
        return table, None
    return training, later


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


def _by_age(losses: Mapping[int, Losses], number: int) -> dict[str, float | None]:
    """Return the mean loss on a slice, and that on earlier ones; None without any."""
    earlier = [found.mean for at, found in losses.items() if at != number]
    return {
        "slice": losses[number].mean,
        "earlier": float(np.mean(earlier)) if earlier else None,
    }
