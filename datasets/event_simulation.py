"""Simulated events with what is true of them, and the steps that every simulator takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsllm.datasets.event_faults import sequence_name
from tsllm.datasets.event_table import EventTable
from tsllm.errors import DataError

#: The exact log-likelihood of one sequence: of its times (events,), its types as numbers (events,),
#: and the start and the end of its window.
SequenceScore = Callable[[np.ndarray, np.ndarray, float, float], float]


@dataclass(frozen=True)
class Simulation:
    """Simulated events and what is true of them.

    Parameters
    ----------
    events : EventTable
        The sequences, each with its observation window.
    parameters : dict
        The true parameters, by the names of the simulator's arguments.
    log_likelihood : callable
        Takes an `EventTable` of the same types whose windows are known, and gives the exact
        log-likelihood of each sequence in nats, shape (sequences,), float64. A sequence counts as
        starting afresh at its window's start.
    """

    events: EventTable
    parameters: dict[str, Any]
    log_likelihood: Callable[[EventTable], np.ndarray]


def sequence_generators(
    random_state: int | None, n_sequences: int, t_start: float, t_end: float
) -> list[np.random.Generator]:
    """Give each sequence a random stream of its own; refuse none, and windows of no length.

    More sequences of one seed leave the random numbers of the first ones as they were.
    """
    if n_sequences < 1:
        raise DataError(f"n_sequences={n_sequences} must be at least 1")
    if not (np.isfinite(t_start) and np.isfinite(t_end) and t_start < t_end):
        raise DataError(f"t_end={t_end} must lie after t_start={t_start}, both finite")
    seeds = np.random.SeedSequence(random_state).spawn(n_sequences)
    return [np.random.default_rng(seed) for seed in seeds]


def checked_type_names(type_names: Sequence[str] | None, n_types: int) -> list[str]:
    """Check the names of the types, one each and all different; None numbers them."""
    names = [str(kind) for kind in range(n_types)] if type_names is None else list(type_names)
    if len(names) != n_types or len(set(names)) != n_types:
        raise DataError(f"type_names={names} must be {n_types} different names")
    return names


def simulated_table(
    parts: list[tuple[np.ndarray, np.ndarray]],
    names: list[str],
    start: float,
    end: float,
    prefix: str = "",
) -> EventTable:
    """Lay simulated sequences out as a table, all with one window.

    Parameters
    ----------
    parts : list of (numpy.ndarray, numpy.ndarray)
        Of each sequence its times (events,) and its types as places among the names (events,).
    names : list of str
        The types' names.
    start, end : float
        The window ``(start, end]``.
    prefix : str
        What the ids begin with; numbers from 0 follow.
    """
    labels = np.array(names, dtype=object)
    return EventTable(
        ids=tuple(f"{prefix}{number}" for number in range(len(parts))),
        times=tuple(times for times, _ in parts),
        types=tuple(labels[types] for _, types in parts),
        starts=np.full(len(parts), start),
        ends=np.full(len(parts), end),
    )


def table_scorer(names: list[str], score: SequenceScore) -> Callable[[EventTable], np.ndarray]:
    """Turn the log-likelihood of one sequence into `Simulation.log_likelihood`.

    Parameters
    ----------
    names : list of str
        The types' names; a type's number is its place.
    score : callable
        See `SequenceScore`.
    """
    codes = {name: code for code, name in enumerate(names)}

    def log_likelihood(events: EventTable) -> np.ndarray:
        values = np.empty(len(events))
        for number, types in enumerate(events.types):
            start, end = float(events.starts[number]), float(events.ends[number])
            if np.isnan(start) or np.isnan(end):
                raise DataError(
                    f"{sequence_name(events.ids[number])} has no known window; the exact "
                    "log-likelihood needs its start and end"
                )
            strange = [event for event, name in enumerate(types) if name not in codes]
            if strange:
                raise DataError(
                    f"{events.place(number, strange[0])} has the type {types[strange[0]]!r}, "
                    f"which the simulation does not have; its types are {', '.join(names[:8])}"
                )
            kinds = np.array([codes[name] for name in types], dtype=np.int64)
            values[number] = score(events.times[number], kinds, start, end)
        return values

    return log_likelihood
