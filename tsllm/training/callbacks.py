"""Callbacks of trainings, also of trainings that an estimator's fit starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tsllm.training.settings import TrainingState

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
