"""Callbacks for trainings that are started somewhere below, such as by an estimator's fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tsllm.training.settings import Callback

_WATCHERS: ContextVar[tuple[Callback, ...]] = ContextVar("tsllm_training_watchers", default=())


@contextmanager
def watched_by(callback: Callback) -> Iterator[None]:
    """Have a callback called by every training that starts in this block.

    Parameters
    ----------
    callback : Callback

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import DLinearForecaster
    >>> from tsllm.training.loop import Callback
    >>> class Losses(Callback):
    ...     def on_epoch_end(self, state):
    ...         losses.append(state.history[-1]["train_loss"])
    >>> losses = []
    >>> with watched_by(Losses()):
    ...     forecaster = DLinearForecaster(max_epochs=3).fit(load_airline(), fh=[1, 2])
    >>> len(losses) == len(forecaster.fitted_.history)
    True
    """
    token = _WATCHERS.set((*_WATCHERS.get(), callback))
    try:
        yield
    finally:
        _WATCHERS.reset(token)


def watchers() -> tuple[Callback, ...]:
    """Give the callbacks of the blocks that this is called in."""
    return _WATCHERS.get()
