"""The types around the training loop: batches, loss, settings, state, result."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from tsllm.errors import DataError

_CPU = torch.device("cpu")


class Batch(Protocol):
    """The input of one training step: windows of series, or sequences of events."""

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)
BatchT_co = TypeVar("BatchT_co", bound=Batch, covariant=True)


class TrainingSet(Protocol[BatchT_co]):
    """Examples that form batches, such as :class:`tsllm.training.windows.Windows`."""

    def __len__(self) -> int:
        """Count the examples."""
        ...

    def gather(self, indices: Tensor) -> BatchT_co:
        """Build a batch on the CPU from the numbers of examples, (batch,)."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Return JSON values that identify the set, for checkpoints."""
        ...


@runtime_checkable
class ChoosesBatches(Protocol):
    """A training set that groups its examples into batches, such as those of similar length."""

    def batches(self, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
        """Split all examples into batches, whose number is the same at every call.

        ``generator`` is the source of the order of an epoch; None where the order does not matter.
        """
        ...


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, as a sum and a count."""

    #: Sum of the loss over the observed target values, or over the events; differentiable.
    total: Tensor
    #: Number of observed target values, or of events.
    count: Tensor
    #: Further means over the batch, for the history.
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training."""

    #: Passes over the training set.
    max_epochs: int = 10
    #: Largest number of optimiser steps.
    max_steps: int | None = None
    #: Examples per step; the last step of an epoch may have fewer.
    batch_size: int = 256
    #: Learning rate of the first step.
    learning_rate: float = 5e-4
    #: Above 0, AdamW replaces Adam.
    weight_decay: float = 0.0
    #: Learning rate after all planned steps; the rate falls to it along half a cosine.
    final_learning_rate: float = 1e-8
    #: Factors on the learning rate of the parameters whose names begin with a key, such as
    #: ``{"pool.": 10.0}``. The longest key that fits counts.
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    #: Epochs without a lower validation loss before training stops.
    patience: int = 3
    #: Largest norm of the gradient of a step; None does not clip.
    clip_norm: float | None = 5.0
    #: Update all weights in one kernel on a CPU, which is faster for small networks.
    fused: bool = False
    #: Seed of the examples' order and of the model's draws, such as dropout.
    seed: int = 0
    #: The model is moved there.
    device: torch.device = _CPU
    #: Type that the backbone computes in, and only the backbone. None: the type of its weights.
    autocast: torch.dtype | None = None
    #: What makes the training shorter, for the announcement of a long one.
    shorter: str = "a smaller max_steps or a GPU"
    #: From 1 on, show a progress bar on stderr.
    verbose: int = 0
    #: Directory for the latest checkpoint. A training that finds its own checkpoint there continues
    #: from it; the final weights are, bit for bit, those of an uninterrupted training. The
    #: checkpoint of another training is an error.
    checkpoint_dir: Path | None = None
    #: Steps between checkpoints. None writes one at the end of each epoch, and every five minutes
    #: of a long one. The end of training always writes one.
    checkpoint_every: int | None = None
    #: Further facts that tell this training from others, such as an estimator's parameters.
    identity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_epochs", "max_steps", "batch_size", "patience", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"{name} is {value}; it must be above 0")
        for name, factor in self.rate_factors.items():
            if not factor > 0:
                raise DataError(f"the rate factor of {name!r} is {factor}; it must be above 0")
        for name in ("weight_decay", "final_learning_rate", "seed"):
            value = getattr(self, name)
            if not value >= 0:
                raise DataError(f"{name} is {value}; it must not be negative")


@dataclass
class TrainingState:
    """The state of a training, for callbacks.

    Attributes
    ----------
    model : nn.Module
        The model in training.
    planned_steps : int
        Steps of the training if nothing stops it.
    step : int, default=0
        Number of finished steps.
    learning_rate, loss : float, default=nan
        Learning rate (without factors) and mean loss of the latest step.
    history : list of dict, default=[]
        One entry per finished epoch, see :class:`TrainingResult`.
    best_epoch : int or None, default=None
        Epoch (from 1) with the lowest validation loss so far.
    best_loss : float or None, default=None
        That loss.
    shorter : str, default="a smaller max_steps or a GPU"
        What makes the training shorter.
    """

    model: nn.Module
    planned_steps: int
    step: int = 0
    learning_rate: float = math.nan
    loss: float = math.nan
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_loss: float | None = None
    shorter: str = "a smaller max_steps or a GPU"


@dataclass
class TrainingResult:
    """The outcome of a training.

    Attributes
    ----------
    history : list of dict
        For each epoch: epoch (from 1), step (finished steps), train_loss, validation_loss (None
        without validation), learning_rate (of its last step), seconds, and the means of the loss's
        extras.
    best_epoch : int
        The epoch of the model's weights: that with the lowest validation loss, or the last.
    steps : int
        Number of steps.
    seconds : float
        Wall time, including that before a resume.
    stopped : str
        Cause of the end: "max_epochs", "max_steps", "patience" or "callback".
    """

    history: list[dict[str, Any]]
    best_epoch: int
    steps: int
    seconds: float
    stopped: str
