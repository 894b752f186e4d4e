"""What an event forecaster knows of its training events: time scale, typical times, type counts."""

from typing import Any

import numpy as np

from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events.batching import EventWindows, inter_event_times


def time_scale_of(table: EventTable, estimator: str) -> float:
    """Return the mean inter-event time; ``estimator`` is the name for the message."""
    times = inter_event_times(table)
    if not len(times):
        raise NotEnoughDataError(
            f"{estimator} learns from the gaps between events, and no sequence has "
            "two events or one event and a known window start"
        )
    if not times.mean() > 0:
        raise DataError(
            "all events happen at one time, so there is no time scale to learn: pass "
            'ties="jitter" with their resolution, or finer times'
        )
    return float(times.mean())


def shortest_time(table: EventTable) -> float:
    """Return the shortest inter-event time above 0."""
    times = inter_event_times(table)
    return float(times[times > 0].min())


def statistics_of(table: EventTable, classes: np.ndarray, resolution: float) -> dict[str, Any]:
    """Compute the statistics of the naive guesses: inter-event times, types, transitions."""
    times = inter_event_times(table)
    codes = EventWindows(table, classes, 1.0, resolution=resolution).codes
    k = len(classes)
    transitions = np.zeros((k, k), dtype=np.int64)
    for one in codes:
        np.add.at(transitions, (one[:-1], one[1:]), 1)
    return {
        "mean_inter_event_time_": float(times.mean()),
        "median_inter_event_time_": float(np.median(times)),
        "type_counts_": np.bincount(np.concatenate(codes), minlength=k),
        "transition_counts_": transitions,
    }
