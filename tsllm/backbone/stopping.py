"""Stop a forecast from outside: at a deadline, or because the process ends.

Python cannot end a thread, so a forecast calls `check_time` between its batches and steps. A server
sets the deadline. Elsewhere there is none, and the check takes less than a microsecond.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tsllm.errors import StoppedError

#: The time (of ``time.monotonic``) at which this thread's work stops, and the error's sentence.
_DEADLINE: ContextVar[tuple[float, str] | None] = ContextVar("deadline", default=None)
_asked_to_end: Callable[[], bool] | None = None


@contextmanager
def deadline(seconds: float, sentence: str) -> Iterator[None]:
    """Limit the seconds of the block: `check_time` stops its work after them.

    Parameters
    ----------
    seconds : float
        Counted from now. A deadline of a block around this one stays if it is earlier.
    sentence : str
        The message of the `StoppedError`.

    Examples
    --------
    >>> with deadline(0, "it took too long"):
    ...     check_time()
    Traceback (most recent call last):
        ...
    tsllm.errors.StoppedError: it took too long
    """
    moment = (time.monotonic() + seconds, sentence)
    outer = _DEADLINE.get()
    token = _DEADLINE.set(moment if outer is None else min(outer, moment))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def seconds_left() -> float | None:
    """Return the seconds until the deadline, at least 0, or None if there is no deadline."""
    found = _DEADLINE.get()
    return None if found is None else max(0.0, found[0] - time.monotonic())


def check_time() -> None:
    """Raise a `StoppedError` if the work must stop; call it between batches and steps."""
    if ends():
        raise StoppedError("this process ends: send the request again")
    found = _DEADLINE.get()
    if found is not None and time.monotonic() >= found[0]:
        raise StoppedError(found[1])


def end_when(asked: Callable[[], bool]) -> None:
    """Set the function that tells whether this process is asked to end; its forecasts then stop.

    ``asked`` is called by each `check_time`, from any thread.
    """
    global _asked_to_end
    _asked_to_end = asked


def ends() -> bool:
    """Return whether this process is asked to end."""
    return _asked_to_end is not None and _asked_to_end()
