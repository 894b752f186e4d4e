"""The gaps and waits that a table of events shows: scales, guesses and limits are made of them."""

from __future__ import annotations

import numpy as np

from tsllm.datasets.events import EventTable


def known_gaps(table: EventTable) -> np.ndarray:
    """Collect all gaps between events of a table, and those from known window starts.

    Parameters
    ----------
    table : EventTable

    Returns
    -------
    array
        In the table's unit, sequence after sequence.
    """
    gaps = [np.empty(0)]
    for start, times in zip(table.starts, table.times):
        gaps.append(np.diff(times if np.isnan(start) else np.concatenate([[start], times])))
    return np.concatenate(gaps)


def longest_wait(table: EventTable) -> float:
    """Find the longest time that a table shows without an event.

    Parameters
    ----------
    table : EventTable

    Returns
    -------
    float
        In the table's unit: a gap between events, or what lies between a known edge of a window and
        the events; 0 where there is neither.
    """
    tails = table.ends - last_times(table)
    return float(max(known_gaps(table).max(initial=0.0), np.nanmax([0.0, *tails])))


def last_times(table: EventTable) -> np.ndarray:
    """Give the time of each sequence's last event, or of its window's start where it has none.

    Returns
    -------
    float array (sequences,)
        In the table's numbers; NaN for a sequence without events and without a known start.
    """
    pairs = zip(table.times, table.starts)
    return np.array([times[-1] if len(times) else start for times, start in pairs], np.float64)
