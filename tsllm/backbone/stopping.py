"""Stop a forecast from outside: at a deadline, or because the process ends.

Python cannot end a thread, so a forecast looks up itself, between its batches and steps, whether it
may go on. A server sets the deadline; elsewhere there is none, and a look costs under a
microsecond.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tsllm.errors import StoppedError

#: The moment (of ``time.monotonic``) at which this thread's work stops, and the error's sentence.
_DEADLINE: ContextVar[tuple[float, str] | None] = ContextVar("deadline", default=None)
_asked_to_end: Callable[[], bool] | None = None


@contextmanager
def deadline(seconds: float, sentence: str) -> Iterator[None]:
    """Stop the work of the block after some seconds.

    Parameters
    ----------
    seconds : float
        From now on. An earlier deadline around the block stays.
    sentence : str
        The message of the `StoppedError`.
    """
    moment = (time.monotonic() + seconds, sentence)
    outer = _DEADLINE.get()
    token = _DEADLINE.set(moment if outer is None else min(outer, moment))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def seconds_left() -> float | None:
    """Return the time until the deadline, at least 0; None: there is none."""
    found = _DEADLINE.get()
    return None if found is None else max(0.0, found[0] - time.monotonic())


def check_time() -> None:
    """Raise a `StoppedError` where the work must stop; called between batches and steps."""
    if ends():
        raise StoppedError("this process ends: send the request again")
    found = _DEADLINE.get()
    if found is not None and time.monotonic() >= found[0]:
        raise StoppedError(found[1])


def end_when(asked: Callable[[], bool]) -> None:
    """Set how this process knows that it is asked to end; all its forecasts then stop.

    ``asked`` is called at each look, from any thread.
    """
    global _asked_to_end
    _asked_to_end = asked


def ends() -> bool:
    """Return whether this process is asked to end."""
    return _asked_to_end is not None and _asked_to_end()
