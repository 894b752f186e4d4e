"""Callbacks of trainings, also of trainings that an estimator's fit starts."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tsllm.training.settings import TrainingState

#: Seconds that are left of a training that is announced.
LONG_TRAINING = 60.0
#: Seconds of training from which the rest is estimated.
MEASURED = 3.0

_CALLBACKS: "ContextVar[tuple[Callback, ...]]" = ContextVar("tsllm_training_callbacks", default=())


class Callback:
    """Base of training callbacks: override what you need.

    A method that returns True stops the training.

    See Also
    --------
    training_callbacks : Call callbacks in every training that a block starts.
    """

    def on_step_begin(self, state: TrainingState) -> None:
        """Run before a step."""

    def on_step_end(self, state: TrainingState) -> bool | None:
        """Run after a step; return True to stop."""
        return None

    def on_epoch_end(self, state: TrainingState) -> bool | None:
        """Run after an epoch's validation, whose entry is ``state.history[-1]``."""
        return None


class ExpectedTime(Callback):
    """Warn once, after the first steps, of a training that will take more than a minute."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._first = 0
        self._told = False

    def on_step_begin(self, state: TrainingState) -> None:
        """Start the clock at the first step."""
        if self._started is None:
            self._started, self._first = time.perf_counter(), state.step

    def on_step_end(self, state: TrainingState) -> bool | None:
        """Estimate the rest from the steps so far."""
        assert self._started is not None  # a step began
        spent = time.perf_counter() - self._started
        if self._told or spent < MEASURED:
            return None
        self._told = True
        left = spent / (state.step - self._first) * (state.planned_steps - state.step)
        if left > LONG_TRAINING:
            warnings.warn(
                f"this training will take up to {_in_words(left)} ({state.planned_steps:,} steps, "
                f"fewer where early stopping ends it): {state.shorter} shorten it",
                stacklevel=2,
            )
        return None


@contextmanager
def training_callbacks(*callbacks: Callback) -> Iterator[None]:
    """Call callbacks in every training that starts in this block.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import DLinearForecaster
    >>> from tsllm.training.callbacks import Callback, training_callbacks
    >>> class Losses(Callback):
    ...     def on_epoch_end(self, state):
    ...         losses.append(state.history[-1]["train_loss"])
    >>> losses = []
    >>> with training_callbacks(Losses()):
    ...     forecaster = DLinearForecaster(max_epochs=3).fit(load_airline(), fh=[1, 2])
    >>> len(losses) == len(forecaster.fitted_.history)
    True
    """
    token = _CALLBACKS.set((*_CALLBACKS.get(), *callbacks))
    try:
        yield
    finally:
        _CALLBACKS.reset(token)


def active_callbacks() -> tuple[Callback, ...]:
    """Return the callbacks of the `training_callbacks` blocks that are open."""
    return _CALLBACKS.get()


def _in_words(seconds: float) -> str:
    """Write a time in minutes or hours."""
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours"
