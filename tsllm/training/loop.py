"""The training loop: batches, early stopping, resume, mixed precision, several devices."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Generic, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tsllm.backbone import autocast_backbone
from tsllm.backbone.devices import memory_errors_explained
from tsllm.backbone.forks import limit_threads_after_fork
from tsllm.errors import DataError, NotEnoughDataError, TrainingDivergedError
from tsllm.training import distributed
from tsllm.training.callbacks import Callback, ExpectedTime, active_callbacks
from tsllm.training.checkpoints import (
    check_same_training,
    collect_tensors,
    held,
    load_checkpoint,
    overwrite,
    save_checkpoint,
    spread_tensors,
    trainable_state,
)
from tsllm.training.randomness import RandomStream
from tsllm.training.settings import (
    BatchT,
    ChoosesBatches,
    Loss,
    TrainingResult,
    TrainingSet,
    TrainingSettings,
    TrainingState,
)


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, BatchT], Loss],
    training: TrainingSet[BatchT],
    validation: TrainingSet[BatchT] | None,
    settings: TrainingSettings,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Train a model in place.

    Adam over the parameters that require a gradient; the loss of a step is the mean over observed
    target values. After each epoch, and after the last step, the loss of the whole validation set
    is computed without dropout, under the autocast of training. The weights with the lowest
    validation loss are restored at the end. Without a validation set, or without observed targets
    in it, all epochs are trained and the last weights kept. The model is left in evaluation mode.

    Torch's global random state is left as it was. Trainings in several threads draw the numbers
    that each would draw alone.

    Parameters
    ----------
    model : nn.Module
        Moved to ``settings.device``.
    loss : callable
        Called with the model and a batch on the device.
    training, validation : TrainingSet
        Windows of series, or sequences of events. Each epoch draws their order anew; a set may
        choose its batches itself (`tsllm.training.settings.ChoosesBatches`). The validation set may
        be None or empty.
    settings : TrainingSettings
    callbacks : sequence of Callback, default=()
        Called in order, all of them even where one stops the training.

    Returns
    -------
    TrainingResult

    Raises
    ------
    TrainingDivergedError
        The loss or its gradient is not finite.
    DataError
        There is nothing to train on, no observed target value, no parameter to train, or a rate
        factor that fits none.
    ModelFormatError
        The checkpoint to continue from is damaged, or of another training.
    DeviceMemoryError
        The device ran out of memory.

    See Also
    --------
    tsllm.training.callbacks.training_callbacks : Call callbacks in trainings that a fit starts.

    Examples
    --------
    >>> import torch
    >>> from tsllm.training.loop import train
    >>> from tsllm.training.settings import Loss, TrainingSettings
    >>> from tsllm.training.windows import Windows
    >>> series = torch.sin(torch.arange(200.0) / 4)[:, None]
    >>> windows = Windows([series], context_length=8, target_length=1)
    >>> def squared_error(model, batch):
    ...     error = (model(batch.values[:, :8, 0]) - batch.values[:, 8:, 0]) ** 2
    ...     observed = batch.mask[:, 8:, 0]
    ...     return Loss((error * observed).sum(), observed.sum())
    >>> model = torch.nn.Linear(8, 1)
    >>> settings = TrainingSettings(max_epochs=20, batch_size=16, learning_rate=0.02)
    >>> result = train(model, squared_error, *windows.split(0.2), settings)
    >>> result.history[-1]["validation_loss"] < 0.01
    True
    """
    limit_threads_after_fork()
    callbacks = [*callbacks, *active_callbacks()]
    if distributed.world().leads:
        callbacks.append(ExpectedTime())
    run = TrainingRun(model, loss, training, validation, settings)
    folder = None if settings.checkpoint_dir is None else Path(settings.checkpoint_dir)
    own = held(folder) if folder is not None and distributed.world().leads else nullcontext()
    with own, memory_errors_explained(settings.device, "training", settings.batch_size):
        run.prepare()
        with tqdm(
            desc="training",
            total=run.state.planned_steps,
            initial=run.state.step,
            unit="step",
            disable=settings.verbose < 1,
        ) as progress:
            while run.stopped is None:
                for callback in callbacks:
                    callback.on_step_begin(run.state)
                run.take_step()
                progress.update()
                wishes = [callback.on_step_end(run.state) for callback in callbacks]
                if run.at_end_of_epoch or any(wishes):
                    run.finish_epoch()
                    wishes += [callback.on_epoch_end(run.state) for callback in callbacks]
                    run.decide(stop=any(wishes))
                    latest = run.state.history[-1]
                    progress.set_postfix(
                        train=latest["train_loss"], validation=latest["validation_loss"]
                    )
                run.save_if_due()
        return run.finish()


# Seconds after which an epoch under way is saved.
_SAVE_AFTER = 300
# The settings that determine the weights.
_DECISIVE = (
    "max_epochs",
    "max_steps",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "final_learning_rate",
    "rate_factors",
    "patience",
    "clip_norm",
    "seed",
    "autocast",
)


class TrainingRun(Generic[BatchT]):
    """One training: its state, and the steps that `train` is made of."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, BatchT], Loss],
        training: TrainingSet[BatchT],
        validation: TrainingSet[BatchT] | None,
        settings: TrainingSettings,
    ) -> None:
        if len(training) == 0:
            raise NotEnoughDataError("there is no training window; give longer series")
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise DataError("the model has no parameter to train: all are frozen")
        self.model, self.loss, self.settings = model, loss, settings
        self.training, self.validation = training, validation or None  # empty: none
        self.steps_per_epoch = len(_batches(training, settings.batch_size, torch.Generator()))
        planned = settings.max_epochs * self.steps_per_epoch
        self.limit = "max_epochs"
        if settings.max_steps is not None and settings.max_steps < planned:
            self.limit, planned = "max_steps", settings.max_steps
        self.state = TrainingState(model, planned, shorter=settings.shorter)
        self.sums: dict[str, float] = {}  # over the steps of the epoch under way
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0
        self.stopped: str | None = None

    def prepare(self) -> None:
        """Move everything to the device, and continue from a checkpoint if there is one."""
        settings = self.settings
        self.model.to(settings.device).train()
        distributed.same_weights(self.parameters)
        optimizer = torch.optim.AdamW if settings.weight_decay > 0 else torch.optim.Adam
        self.optimizer = optimizer(
            _groups(self.model, settings.rate_factors),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True if settings.fused and settings.device.type == "cpu" else None,
        )
        self.stream = RandomStream(_derived_seed(settings.seed, 0), settings.device)
        if settings.checkpoint_dir is not None:
            self.identity = self.describe()
            self.resume(Path(settings.checkpoint_dir))
        self.batches = self.new_batches()
        self.clock = self.saved_at = time.perf_counter()

    @property
    def at_end_of_epoch(self) -> bool:
        """Return True if the latest step ends an epoch, or the training."""
        step = self.state.step
        return step % self.steps_per_epoch == 0 or step == self.state.planned_steps

    def new_batches(self) -> list[Tensor]:
        """Draw the batches of an epoch, from the seed and the number of the epoch."""
        epoch = self.state.step // self.steps_per_epoch + 1
        generator = torch.Generator().manual_seed(_derived_seed(self.settings.seed, epoch))
        batches = _batches(self.training, self.settings.batch_size, generator)
        assert len(batches) == self.steps_per_epoch  # see ChoosesBatches
        return batches

    def take_step(self) -> None:
        """Train on the next batch."""
        state = self.state
        indices = self.batches[state.step % self.steps_per_epoch]
        mine, weight = distributed.share(indices)
        batch = self.training.gather(mine).to(self.settings.device)
        state.learning_rate = cosine_learning_rate(self.settings, state.step, state.planned_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * state.learning_rate
        self.optimizer.zero_grad()
        with self.stream.active(), autocast_backbone(self.settings.autocast):
            loss = distributed.weighted(self.loss(self.model, batch), weight)
            (loss.total / distributed.everywhere(loss.count).clamp(min=1)).backward()
        distributed.sum_gradients(self.parameters)
        most = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        norm = nn.utils.clip_grad_norm_(self.parameters, most)
        # Read at once: on a GPU each reading waits for the device.
        total, count, norm_read, *extras = _read(
            loss.total, loss.count, norm, *loss.extras.values()
        )
        total, count, *extras = distributed.sums([total, count, *(count * mean for mean in extras)])
        state.loss = total / max(count, 1.0)
        if not math.isfinite(total + norm_read):
            raise TrainingDivergedError(
                f"the training loss is {state.loss} and its gradient's norm {norm_read} at step "
                f"{state.step + 1}; lower learning_rate ({self.settings.learning_rate}), and check "
                "the data for extreme values"
            )
        self.optimizer.step()
        state.step += 1
        self.add("total", total)
        self.add("count", count)
        for name, extra in zip(loss.extras, extras):
            self.add(f"extra {name}", extra)
        self.tick()

    def finish_epoch(self) -> None:
        """Validate, add the epoch to the history, and keep the weights if they are the best."""
        state, count = self.state, self.sums["count"]
        if count == 0:
            raise NotEnoughDataError(
                "no target of the training windows holds an observed value; give series with fewer "
                "missing values"
            )
        validation_loss = self.validate()
        self.tick()
        extras = {
            name.removeprefix("extra "): total / count
            for name, total in self.sums.items()
            if name.startswith("extra ")
        }
        epoch = len(state.history) + 1
        state.history.append(
            {
                "epoch": epoch,
                "step": state.step,
                "train_loss": self.sums["total"] / count,
                "validation_loss": validation_loss,
                "learning_rate": state.learning_rate,
                "seconds": self.sums["seconds"],
            }
            | extras
        )
        self.sums = {}
        self.batches = self.new_batches()
        if validation_loss is not None and (
            state.best_loss is None or validation_loss < state.best_loss
        ):
            state.best_loss, state.best_epoch = validation_loss, epoch
            self.best = {name: value.clone() for name, value in trainable_state(self.model).items()}

    def validate(self) -> float | None:
        """Compute the mean loss over the validation set; None where nothing is observed."""
        if self.validation is None:
            return None
        total = count = 0.0
        self.model.eval()
        for indices in _batches(self.validation, self.settings.batch_size, None):
            mine, weight = distributed.share(indices)
            batch = self.validation.gather(mine).to(self.settings.device)
            with torch.no_grad(), self.stream.active(), autocast_backbone(self.settings.autocast):
                loss = distributed.weighted(self.loss(self.model, batch), weight)
            batch_total, batch_count = _read(loss.total, loss.count)
            total, count = total + batch_total, count + batch_count
        total, count = distributed.sums([total, count])
        self.model.train()
        if not math.isfinite(total):
            raise TrainingDivergedError(
                f"the validation loss is {total} after step {self.state.step}; lower learning_rate "
                f"({self.settings.learning_rate}), and check the data for extreme values"
            )
        return total / count if count else None

    def decide(self, stop: bool) -> None:
        """Decide whether training has ended, and record the cause."""
        state = self.state
        if stop:
            self.stopped = "callback"
        elif state.step == state.planned_steps:
            self.stopped = self.limit
        elif (
            state.best_epoch is not None
            and len(state.history) - state.best_epoch >= self.settings.patience
        ):
            self.stopped = "patience"

    def finish(self) -> TrainingResult:
        """Restore the best weights and return the result."""
        if self.best:
            overwrite(trainable_state(self.model), self.best)
        self.model.eval()
        self.optimizer.zero_grad()
        state = self.state
        assert self.stopped is not None
        best_epoch = len(state.history) if state.best_epoch is None else state.best_epoch
        return TrainingResult(state.history, best_epoch, state.step, self.seconds, self.stopped)

    def add(self, name: str, value: float) -> None:
        """Add to a sum of the current epoch."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = time.perf_counter()
        self.add("seconds", now - self.clock)
        self.seconds += now - self.clock
        self.clock = now

    def save_if_due(self) -> None:
        """Write a checkpoint if it is time for one."""
        settings, state = self.settings, self.state
        if settings.checkpoint_dir is None or not distributed.world().leads:
            return
        due = state.step % (settings.checkpoint_every or self.steps_per_epoch) == 0
        if settings.checkpoint_every is None:
            due = due or time.perf_counter() - self.saved_at > _SAVE_AFTER
        if not due and self.stopped is None:
            return
        tensors = collect_tensors(self.model, self.best, self.optimizer, self.stream)
        facts = {
            "settings": self.identity,
            "step": state.step,
            "history": state.history,
            "best_epoch": state.best_epoch,
            "best_loss": state.best_loss,
            "sums": self.sums,
            "seconds": self.seconds,
            "stopped": self.stopped,
        }
        save_checkpoint(Path(settings.checkpoint_dir), tensors, facts)
        self.saved_at = time.perf_counter()

    def resume(self, directory: Path) -> None:
        """Continue from the checkpoint that a directory holds, if there is one."""
        checkpoint = load_checkpoint(directory)
        if checkpoint is None:
            return
        tensors, facts = checkpoint
        check_same_training(facts["settings"], self.identity, directory)
        self.best = spread_tensors(tensors, self.model, self.optimizer, self.stream, directory)
        state = self.state
        state.step, state.history = facts["step"], facts["history"]
        state.best_epoch, state.best_loss = facts["best_epoch"], facts["best_loss"]
        self.sums, self.seconds = facts["sums"], facts["seconds"]
        self.stopped = facts["stopped"]

    def describe(self) -> dict[str, Any]:
        """Return the facts that tell this training from others, as JSON values."""
        facts = dict(self.settings.identity)
        facts |= {name: getattr(self.settings, name) for name in _DECISIVE}
        facts["rate_factors"] = dict(self.settings.rate_factors)
        facts["device"] = self.settings.device.type
        for part, examples in (("training", self.training), ("validation", self.validation)):
            if examples is not None:
                described = examples.fingerprint().items()
                facts |= {f"{part}_{name}": value for name, value in described}
        described = json.loads(json.dumps(facts, default=str))
        return cast(dict[str, Any], described)


def cosine_learning_rate(settings: TrainingSettings, step: int, planned_steps: int) -> float:
    """Compute the learning rate of a step, from 0: half a cosine over the planned steps."""
    fall = settings.learning_rate - settings.final_learning_rate
    share = (1 + math.cos(math.pi * step / planned_steps)) / 2
    return settings.final_learning_rate + fall * share


def _batches(
    examples: TrainingSet[Any], batch_size: int, generator: torch.Generator | None
) -> list[Tensor]:
    """Split examples into batches, in an order from the generator if there is one."""
    if isinstance(examples, ChoosesBatches):
        return examples.batches(batch_size, generator)
    count = len(examples)
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    return list(order.split(batch_size))


def _groups(model: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Group the trained parameters by the factor on their learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    used = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = [beginning for beginning in factors if name.startswith(beginning)]
            longest = max(fitting, key=len, default=None)
            used.add(longest)
            factor = 1.0 if longest is None else factors[longest]
            groups.setdefault(factor, []).append(parameter)
    unused = [beginning for beginning in factors if beginning not in used]
    if unused:
        raise DataError(
            f"rate_factors names {unused[0]!r}, and no parameter in training begins so: leave it "
            "out, or see model.named_parameters()"
        )
    return [{"params": group, "factor": factor} for factor, group in groups.items()]


def _derived_seed(seed: int, purpose: int) -> int:
    """Derive a seed whose draws are independent of those for another purpose."""
    return int(np.random.SeedSequence((seed, purpose)).generate_state(1, np.uint64)[0])


def _read(*scalars: Tensor) -> list[float]:
    """Read several scalars from the device at once."""
    return torch.stack([scalar.detach().double() for scalar in scalars]).tolist()
