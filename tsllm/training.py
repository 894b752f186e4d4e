"""The one training loop: cosine schedule, early stopping, checkpoints, its own random stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from tqdm import tqdm

from tsllm.checkpoints import trainable_state
from tsllm.device_memory import memory_errors_explained
from tsllm.training_contract import (
    Batch,
    BatchT,
    Callback,
    ChoosesBatches,
    Loss,
    TrainingResult,
    TrainingSet,
    TrainingSettings,
    TrainingState,
)
from tsllm.training_run import TrainingRun, cosine_learning_rate
from tsllm.watching import watchers

__all__ = [
    "Batch",
    "Callback",
    "ChoosesBatches",
    "Loss",
    "TrainingResult",
    "TrainingSet",
    "TrainingSettings",
    "TrainingState",
    "cosine_learning_rate",
    "train",
    "trainable_state",
]


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, BatchT], Loss],
    training: TrainingSet[BatchT],
    validation: TrainingSet[BatchT] | None,
    settings: TrainingSettings,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Train a model in place.

    Adam over the parameters that require a gradient, one mean loss over the observed target values
    a step. After each epoch, and after the last step, the loss over the whole validation set is
    computed without dropout and under the same autocast as training (half the time on hardware with
    bfloat16; forecasts are computed without it). The weights with the lowest validation loss are
    restored at the end; without a validation set, or where it holds no observed target, all
    epochs are trained and the last weights kept. The model is left in evaluation mode.

    Torch's global random state is left as it was, and trainings in several threads do not disturb
    each other: each draws what it would draw alone.

    Parameters
    ----------
    model : nn.Module
        Moved to ``settings.device``.
    loss : callable
        Called with the model and a batch on the device.
    training, validation : TrainingSet
        Windows of series, or sequences of events. An epoch goes through them in an order drawn
        anew, in batches that a set may choose itself (:class:`ChoosesBatches`). The validation set
        may be None or empty.
    settings : TrainingSettings
    callbacks : sequence of Callback
        Called in order; all are called even where one of them stops training.

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
        The checkpoint to resume from is missing, damaged, or of another model or other settings.
    DeviceMemoryError
        The device ran out of memory.

    Examples
    --------
    >>> import torch
    >>> from tsllm.training import Loss, TrainingSettings, train
    >>> from tsllm.windows import Windows
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
    callbacks = [*callbacks, *watchers()]
    run = TrainingRun(model, loss, training, validation, settings)
    with memory_errors_explained(settings.device, "training", settings.batch_size):
        run.prepare()
        with tqdm(
            desc="training",
            total=run.state.planned_steps,
            initial=run.state.step,
            unit="step",
            disable=settings.verbose < 1,
        ) as progress:
            while run.stopped is None:
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
