"""Training of PromptTPP slice by slice."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch, length_buckets
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.datasets.events import EventTable
from tsllm.errors import BackboneMismatchError, DataError, NotEnoughDataError
from tsllm.events.batching import EventWindows, last_times, longest_wait
from tsllm.events.prompttpp.model import PromptTPPCore, embed_classes
from tsllm.events.prompttpp.parameters import (
    FIXED_PARAMETERS,
    check_parameters,
    context_length,
    reads_texts,
)
from tsllm.training.loop import train
from tsllm.training.settings import Loss, TrainingSettings

if TYPE_CHECKING:
    from tsllm.events.prompttpp.model import PromptTPPCore


#: ``max_epochs="auto"``: so many epochs, or so many steps where the epochs are short.
AUTO_EPOCHS, AUTO_STEPS = 60, 400
#: ``base_update="slow"``: the share of its learning rate that the network keeps.
SLOW = 0.1
CLIP_NORM = 1.0


def learn_slice(
    estimator: PromptTPPCore, table: EventTable, validation: EventTable | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Train an estimator's model on a slice, in place.

    Parameters
    ----------
    estimator : PromptTPPCore
        With its model, in the state that the slices before left it in.
    table : EventTable
        The slice.
    validation : EventTable, optional
        Later events of its sequences. None takes its last part.

    Returns
    -------
    record : dict
        What was learnt, as JSON values.
    uses : int array (slots,)
        Positions of the slice that each slot is retrieved at, now that it is learnt.

    Raises
    ------
    DataError
        The settings leave nothing to learn.
    NotEnoughDataError
        There is no interval to learn from.
    """
    started = time.perf_counter()
    model = estimator.model_
    device = estimator._device()
    model.to(device)
    if validation is None and estimator.validation_fraction > 0:
        table, validation = _hold_out(table, estimator.validation_fraction)
    training = model_rows(estimator, table)
    watched = None
    if validation is not None:
        # Sequences that only the training part has would be read for nothing.
        whole = table.extend(validation).select(validation.ids)
        watched = model_rows(estimator, whole, after=table)
    batches = list(_batches(training, estimator.batch_size, device))
    if not any(int(batch.events_scored) for batch in batches):
        raise NotEnoughDataError(
            "the slice has no gap to learn from: give sequences of two events at least, or windows "
            "with a known start"
        )
    slots = model.open_slots(model.slice_queries(batches))
    base = estimator.n_slices_ < estimator.warmup_slices or estimator.base_update != "freeze"
    model.train_only(base=base, slots=slots)
    result = train(
        model,
        _loss(estimator, base, slots),
        training,
        watched,
        _settings(estimator, training, base, bool(slots)),
    )
    model.train_only(base=False)
    uses = _count_uses(model, batches, slots)
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


def model_rows(
    estimator: PromptTPPCore, table: EventTable, *, after: EventTable | None = None
) -> EventWindows:
    """Cut a table into the rows that the model is trained on.

    Parameters
    ----------
    estimator : PromptTPPCore
    table : EventTable
    after : EventTable, optional
        An earlier part of ``table``: what happened in it is history, and not scored.
    """
    t_start = None
    if after is not None:
        ends = dict(zip(after.ids, _ends(after)))
        t_start = np.array([ends.get(name, np.nan) for name in table.ids])
    length = estimator.context_length_
    return EventWindows(
        table,
        estimator.classes_,
        estimator.time_scale_,
        length=length,
        overlap=length // 4,
        t_start=t_start,
        resolution=estimator.resolution_,
    )


def _hold_out(table: EventTable, fraction: float) -> tuple[EventTable, EventTable | None]:
    """Cut the last events off for early stopping; nothing where that leaves too few."""
    try:
        training, later = table.split((1 - fraction, fraction), keep_empty=True)
        known = EventWindows(training, table.type_names, 1.0, resolution=1.0)
    except NotEnoughDataError:
        return table, None
    if not len(known) or not any(len(times) > 1 for times in training.times):
        return table, None
    return training, later


def _batches(rows: EventWindows, batch_size: int, device: torch.device) -> Iterator[EventBatch]:
    """Go through rows in batches of like length."""
    for indices in length_buckets(rows.lengths, batch_size=batch_size):
        yield rows.gather(indices).to(device)


def _loss(estimator: PromptTPPCore, base: bool, slots: list[int]) -> Any:
    """Make the loss; prompts of a shared pool learn in every ``prompt_every``-th step only."""
    own, every = estimator.model_, 1
    if estimator.prompt_mode == "shared" and base:
        every = estimator.prompt_every
    step = 0

    def loss(model: nn.Module, batch: EventBatch) -> Loss:
        nonlocal step
        if model.training and every > 1:
            # Before the forward pass that the gradients come from: the authors' code does it after.
            own.train_only(base=base, slots=slots if step % every == 0 else ())
            step += 1
        total, count, extras = own.loss(batch, slots)
        if model.training and every > 1:
            own.train_only(base=base, slots=slots)
        return Loss(total, count, extras)

    return loss


def _settings(
    estimator: PromptTPPCore, training: EventWindows, base: bool, prompts: bool
) -> TrainingSettings:
    """Turn the estimator's parameters into the training loop's settings."""
    if not base and not prompts:
        raise DataError(
            "prompt_mode='none' with base_update='freeze' leaves nothing to learn after "
            f"warmup_slices={estimator.warmup_slices}: use base_update='full', or prompts"
        )
    patience, epochs = int(estimator.patience), estimator.max_epochs
    if epochs == "auto":
        per_epoch = len(training.batches(estimator.batch_size, None))
        epochs = max(AUTO_EPOCHS, -(-AUTO_STEPS // per_epoch))
        # An epoch of few steps says little: where there are more epochs for that, as many more
        # have to pass without progress.
        patience *= -(-epochs // AUTO_EPOCHS)
    rate, factors = estimator.prompt_learning_rate, {}
    if base:
        warm = estimator.n_slices_ < estimator.warmup_slices
        slow = estimator.base_update == "slow" and not warm
        rate = estimator.learning_rate * (SLOW if slow else 1.0)
        if prompts:
            factors = {"pool.": estimator.prompt_learning_rate / rate}
    return TrainingSettings(
        max_epochs=int(epochs),
        max_steps=None if estimator.max_steps is None else int(estimator.max_steps),
        batch_size=int(estimator.batch_size),
        learning_rate=rate,
        rate_factors=factors,
        weight_decay=estimator.weight_decay,
        patience=patience,
        clip_norm=CLIP_NORM,
        seed=_slice_seed(estimator),
        device=estimator._device(),
        verbose=int(estimator.verbose),
    )


def _slice_seed(estimator: PromptTPPCore) -> int:
    """Give the seed of the slice that is learnt now: another for each."""
    seeds = np.random.SeedSequence((estimator.seed_, estimator.n_slices_))
    return int(seeds.generate_state(1)[0])


@torch.no_grad()
def _count_uses(model: PromptTPPModel, batches: list[EventBatch], slots: list[int]) -> np.ndarray:
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
    """Give until when each sequence is known: to its window's end, or its last event."""
    return np.where(np.isnan(table.ends), last_times(table), table.ends)


def _span(table: EventTable) -> dict[str, str]:
    """Say from when to when the events of a table are."""
    times = np.concatenate([*table.times, np.empty(0)])
    stamp = table.clock.to_stamp
    return {"first": str(stamp(times.min())), "last": str(stamp(times.max()))}


class LearnsSlices(PromptTPPCore):
    """The part of `PromptTPP` that learns."""

    def partial_fit(
        self,
        events: Any,
        y: Any = None,
        *,
        types: Any = None,
        windows: Any = None,
        validation: Any = None,
    ) -> Self:
        """Learn the next slice of a stream; nothing earlier is read again.

        On a new estimator this is `fit`.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            The slice, as `fit` takes events.
        y : ignored
            For scikit-learn's pipelines.
        types : sequence of str, optional
            Only at the first call: types that later slices will bring, beside those of this one.
        windows : optional
            See `fit`.
        validation : as events, optional
            Later events of the same sequences, for early stopping. None takes the last
            ``validation_fraction`` of the slice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            As in `fit`; or a new type without ``grow_types=True``, or settings under which nothing
            would be learnt.

        Warns
        -----
        UserWarning
            The pool of prompts is full: what was merged or re-used.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(events, windows=windows, validation=validation, types=types)
        if types is not None:
            raise DataError("types belongs to the first call: use grow_types=True for new ones")
        self._check_goes_on()
        table = self._read(events, windows=windows)
        held_back = None if validation is None else self._read(validation)
        whole = table if held_back is None else table.extend(held_back)
        # A slice that fails to be learnt leaves the estimator as it was.
        former, classes = self.model_, self.classes_
        self.model_ = copy.deepcopy(former)
        try:
            self._meet_types(whole)
            self._learn(table, held_back)
        except BaseException:
            self.model_, self.classes_ = former, classes
            raise
        self.n_events_ += whole.n_events
        self._describe(whole)
        self._remember(whole)
        return self

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        check_parameters(self)
        self._running = None
        self.architecture_ = {name: getattr(self, name) for name in FIXED_PARAMETERS}
        self.seed_ = self._seed()
        self.n_slices_ = 0
        self.slices_ = []
        gaps = np.concatenate([np.diff(times) for times in table.times])
        typical = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else self.time_scale_
        self.median_scaled_gap_ = typical / self.time_scale_
        backbone = self._load_backbone()
        self.context_length_ = context_length(self, backbone)
        self.backbone_digest_ = None if backbone is None else backbone.digest
        self.text_width_, vectors = None, None
        if reads_texts(self):
            vectors = embed_classes(self, self.classes_)
            self.text_width_ = vectors.shape[1]
        self.model_ = self._build_model(vectors)
        self._learn(table, validation)

    def _learn(self, table: EventTable, validation: EventTable | None) -> None:
        """Train on a slice, and note what came of it."""
        record, uses = learn_slice(self, table, validation)
        width = max(self.model_.pool.max_slots if self.prompt_mode == "shared" else 0, len(uses))
        former = getattr(self, "slot_history_", np.zeros((0, 0), dtype=np.int64))
        rows = [np.pad(row, (0, width - len(row))) for row in [*former, uses]]
        self.slot_history_ = np.stack(rows)
        self.prompt_usage_ = np.array(self.model_.pool.usage, dtype=np.int64)
        self.slices_ = [*self.slices_, record]
        shown = [longest_wait(part) for part in (table, validation) if part is not None]
        self.longest_wait_ = max(getattr(self, "longest_wait_", 0.0), *shown)
        self.n_slices_ += 1
        self._running = None  # the states of another model

    def _meet_types(self, table: EventTable) -> None:
        """Make room for types that come up for the first time."""
        new = [name for name in table.type_names if name not in set(self.classes_)]
        if not new or not self.grow_types:
            return  # unknown types are refused where they are read
        vectors = embed_classes(self, new) if self.text_width_ is not None else None
        self.classes_ = np.append(self.classes_, np.array(new, dtype=object))
        self.model_.grow_types(len(self.classes_), vectors)

    def _check_goes_on(self) -> None:
        """Refuse settings that no longer fit the model."""
        check_parameters(self)
        for name, value in self.architecture_.items():
            if getattr(self, name) != value:
                raise DataError(
                    f"{name} was {value!r} when the model was made and is {getattr(self, name)!r} "
                    "now: set it back, or begin anew with fit"
                )
        backbone = self._load_backbone()
        if backbone is not None and backbone.digest != self.backbone_digest_:
            raise BackboneMismatchError(
                f"backbone={self.backbone!r} has other weights than the one that the model was "
                "made with: set it back, or begin anew with fit"
            )

    def _fine_tuned(self) -> Self:
        tuned: Self = clone(self).set_params(prompt_mode="none", base_update="full")
        return tuned
