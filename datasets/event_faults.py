"""What can be wrong with a sequence of events, said in a sentence that names it.

`EventTable` asks when it is made and extended, `read_events` before that, so that it can name the
row of the file.
"""

import numpy as np

from tsllm.datasets.event_clock import Clock


def sequence_name(sequence_id: object) -> str:
    """Name a sequence in an error message, for example ``"sequence 'a'"``."""
    return f"sequence {sequence_id!r}"


def find_fault(
    times: np.ndarray, start: float, end: float, clock: Clock
) -> tuple[int | None, str] | None:
    """Find what is wrong with a sequence of events and its window ``(start, end]``.

    Parameters
    ----------
    times : numpy.ndarray
        Shape (events,), float64, on the clock.
    start, end : float
        The window's bounds on the clock, NaN where not known.
    clock : Clock
        How times are written in the sentence.

    Returns
    -------
    (int or None, str) or None
        The number of the event that is wrong, None for the window itself, and the rest of a
        sentence that begins with its name. None where nothing is wrong.
    """
    stamp = clock.to_stamp
    if np.isinf(start) or np.isinf(end):
        return None, f"has the window ({start}, {end}]; leave a bound that is not known missing"
    if end <= start:
        return None, (
            f"has a window that ends at {stamp(end)} and starts at {stamp(start)}; give it an end "
            "after its start"
        )
    if not np.isfinite(times).all():
        bad = int((~np.isfinite(times)).argmax())
        return bad, "has no finite time; give it one or drop it"
    if (np.diff(times) < 0).any():
        bad = int((np.diff(times) < 0).argmax()) + 1
        return bad, f"is earlier than the event before it ({stamp(times[bad - 1])}); sort by time"
    if len(times) and times[0] <= start:
        return 0, (
            f"at {stamp(times[0])} is not after its window's start {stamp(start)}, which itself "
            "does not belong to the window; start the window earlier"
        )
    if len(times) and times[-1] > end:
        bad = int(np.searchsorted(times, end, side="right"))
        return bad, (
            f"at {stamp(times[bad])} is after its window's end {stamp(end)}; end the window later"
        )
    return None


def find_fault_in_continuation(
    times: np.ndarray, window: tuple[float, float], new: np.ndarray, opens: float, clock: Clock
) -> str | None:
    """Find why a later part does not go on from a sequence.

    Parameters
    ----------
    times : numpy.ndarray
        Shape (events,), the sequence's events so far.
    window : (float, float)
        The start and the end of its window, NaN where not known.
    new : numpy.ndarray
        Shape (new events,), the later part's events.
    opens : float
        The start of the later part's window, NaN where not known.
    clock : Clock
        Of all these times.

    Returns
    -------
    str or None
        The rest of a sentence that begins with the sequence's name; None where the part goes on.
    """
    edges = [*times[-1:], *window]
    last = max((edge for edge in edges if not np.isnan(edge)), default=-np.inf)
    if (len(new) and new[0] <= last) or opens < last:
        first = opens if opens < last else new[0]
        return (
            f"already holds the time until {clock.to_stamp(last)}, but the new part begins at "
            f"{clock.to_stamp(first)}; pass only what came after, for example with "
            "between(start=...)"
        )
    if opens > last:
        return (
            f"was observed until {clock.to_stamp(last)} and then from {clock.to_stamp(opens)} on, "
            "which leaves a hole; give the later part a window that starts where the earlier ends, "
            "or another id"
        )
    return None
