"""The types around the training loop: batches, loss, settings, state, result."""

from __future__ import annotations

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
    """What a model is trained on in one step: windows of series, or sequences of events."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)
BatchT_co = TypeVar("BatchT_co", bound=Batch, covariant=True)


class TrainingSet(Protocol[BatchT_co]):
    """Examples that batches are made of, such as :class:`tsllm.training.windows.Windows`."""

    def __len__(self) -> int:
        """Count the examples."""
        ...

    def gather(self, indices: Tensor) -> BatchT_co:
        """Put examples, by their numbers (batch,), into one batch on the CPU."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Say, in what JSON can hold, how to tell this set from others; checkpoints keep it."""
        ...


@runtime_checkable
class ChoosesBatches(Protocol):
    """A training set that says which examples share a batch, such as those of similar length."""

    def batches(self, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
        """Split all examples into batches.

        Parameters
        ----------
        batch_size : int
            Examples in a batch at most.
        generator : torch.Generator or None
            What the order of an epoch is drawn from; None where the order does not matter.

        Returns
        -------
        list of Tensor, each (batch,)
            The same number of batches at every call.
        """
        ...


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, as what a mean over any number of batches needs.

    Attributes
    ----------
    total : Tensor, ()
        Sum of the loss over the observed target values, or over the events; the gradient flows
        through it.
    count : Tensor, ()
        Number of observed target values, or of events.
    extras : mapping of str to Tensor, ()
        Further means over the batch, for the history.
    """

    total: Tensor
    count: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes
    ----------
    max_epochs : int
        Passes over the training set.
    max_steps : int, optional
        Optimiser steps at most, whatever `max_epochs` says.
    batch_size : int
        Examples in a step; the last step of an epoch takes what is left.
    learning_rate, final_learning_rate : float
        The cosine schedule falls from the first to the second over all planned steps.
    rate_factors : mapping of str to float
        By the beginning of their names, parameters whose learning rate is so many times that of
        the others, such as ``{"pool.": 10.0}``. The longest beginning that fits counts.
    weight_decay : float
        Above 0, AdamW instead of Adam.
    patience : int
        Epochs without a lower validation loss after which training stops.
    clip_norm : float, optional
        Norm that the gradient of a step is scaled down to; None leaves it.
    seed : int
        Decides the examples' order and what the model draws, such as dropout.
    device : torch.device
        Where to train; the model is moved there.
    autocast : torch.dtype, optional
        Type that the backbone, and only the backbone, computes in. None: its weights' own.
    verbose : int
        From 1 on, a progress bar on stderr.
    checkpoint_dir : Path or None, default=None
        Directory for the latest checkpoint. A training that finds its own checkpoint there
        continues from it; the final weights are, bit for bit, those of an uninterrupted training.
        The checkpoint of another training is an error.
    checkpoint_every : int or None, default=None
        Steps between checkpoints. None writes one at the end of each epoch, and every five minutes
        of a long one. The end of training always writes one.
    identity : mapping of str to JSON values, default={}
        Further facts that tell this training from others, such as an estimator's parameters.
    """

    max_epochs: int = 10
    max_steps: int | None = None
    batch_size: int = 256
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    final_learning_rate: float = 1e-8
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    patience: int = 3
    clip_norm: float | None = 5.0
    seed: int = 0
    device: torch.device = _CPU
    autocast: torch.dtype | None = None
    verbose: int = 0
    checkpoint_dir: Path | None = None
    checkpoint_every: int | None = None
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
    """Where a training stands, as callbacks see it.

    Attributes
    ----------
    model : nn.Module
        The model in training.
    planned_steps : int
        Steps that training takes if nothing stops it.
    step : int
        Steps done.
    learning_rate, loss : float
        Learning rate (without the factors) and mean loss of the latest step.
    history : list of dict
        One entry for each finished epoch, see :class:`TrainingResult`.
    best_epoch : int, optional
        Epoch (from 1) with the lowest validation loss so far.
    best_loss : float, optional
        That loss.
    """

    model: nn.Module
    planned_steps: int
    step: int = 0
    learning_rate: float = math.nan
    loss: float = math.nan
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_loss: float | None = None


@dataclass
class TrainingResult:
    """What happened in training.

    Attributes
    ----------
    history : list of dict
        For each epoch: epoch (from 1), step (steps done), train_loss, validation_loss (None without
        validation), learning_rate (of its last step), seconds, and the means of the loss's extras.
    best_epoch : int
        The epoch whose weights the model has: the one with the lowest validation loss, or the last.
    steps : int
        Steps done.
    seconds : float
        Wall time, that of resumed parts included.
    stopped : str
        What ended training: "max_epochs", "max_steps", "patience" or "callback".
    """

    history: list[dict[str, Any]]
    best_epoch: int
    steps: int
    seconds: float
    stopped: str
