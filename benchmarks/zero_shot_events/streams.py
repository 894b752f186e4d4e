"""Held-out processes, and the scores of trained and fitted rivals on their streams.

A stream has a history of 40, 90 or 180 events and 100 further events, which are scored. The Hawkes
process is fitted to the history. PromptTPP is trained on 40 other sequences of the process, of
about 100 events each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tsllm.datasets import EventTable
from tsllm.datasets.events import make_hawkes, make_poisson, make_renewal, make_self_correcting
from tsllm.events import HawkesForecaster, NaiveEventForecaster, PromptTPP

HISTORIES = (40, 90, 180)
SCORED = 100
RING = 0.7 * np.roll(np.eye(4), 1, axis=0)


def daily(time: float) -> np.ndarray:
    turn = 2 * np.pi * time / 24
    return 0.5 * (1 + 0.9 * np.sin([turn, turn + 2]))


#: Simulators of processes with about one event a unit of time.
PROCESSES: dict[str, Callable[..., Any]] = {
    "hawkes": lambda **more: make_hawkes([0.4], [[0.6]], [1.2], **more),
    "hawkes, slow": lambda **more: make_hawkes([0.2], [[0.8]], [0.3], **more),
    "hawkes, 2 types": lambda **more: make_hawkes(
        [0.25, 0.15], [[0.2, 0.5], [0.6, 0.1]], [1.0, 3.0], **more
    ),
    "hawkes, 4 types": lambda **more: make_hawkes([0.075] * 4, RING, [2.0] * 4, **more),
    "poisson, 3 types": lambda **more: make_poisson([0.6, 0.3, 0.1], **more),
    "poisson, daily": lambda **more: make_poisson(daily, bound=2.0, **more),
    "self-correcting": lambda **more: make_self_correcting(1.0, 1.0, **more),
    "self-correcting, weak": lambda **more: make_self_correcting(0.4, 0.4, **more),
    "renewal, regular": lambda **more: make_renewal(
        "gamma", cv=0.5, probabilities=(0.7, 0.3), **more
    ),
    "renewal, clustered": lambda **more: make_renewal(
        "lognormal", cv=1.5, probabilities=(0.5, 0.3, 0.2), **more
    ),
}


def head(table: EventTable, number: int, events: int) -> EventTable:
    """Return the first events of one sequence, in a window that ends with the last of them."""
    one = table.select([table.ids[number]])
    return one.between(None, one.times[0][events - 1])


def streams(name: str, seeds: range) -> list[dict[str, Any]]:
    """Draw streams of a process: a history of each length and what follows, and the truth."""
    found = []
    for seed in seeds:
        simulation = PROCESSES[name](t_end=600.0, random_state=1000 + seed)
        for events in HISTORIES:
            history, whole = (head(simulation.events, 0, n) for n in (events, events + SCORED))
            truth = simulation.log_likelihood(whole) - simulation.log_likelihood(history)
            found.append(
                {
                    "process": name, "seed": seed, "events": events, "history": history,
                    "whole": whole, "truth": float(truth[0] / SCORED),
                    "types": [str(k) for k in range(n_types(name))],
                }
            )  # fmt: skip
    return found


def n_types(name: str) -> int:
    return {"hawkes, 2 types": 2, "hawkes, 4 types": 4, "poisson, 3 types": 3, "poisson, daily": 2,
            "renewal, regular": 2, "renewal, clustered": 3}.get(name, 1)  # fmt: skip


def later(model: Any, stream: dict[str, Any]) -> float:
    """Score the events after the history, in nats per event."""
    start = stream["history"].times[0][-1]
    return float(model.score(stream["whole"], t_start=start))


def fitted(stream: dict[str, Any]) -> dict[str, float]:
    """Score the models that are fitted to the history."""
    scores = {"truth": stream["truth"]}
    for name, model in (("hawkes", HawkesForecaster()), ("naive", NaiveEventForecaster())):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(stream["history"], types=stream["types"])
        scores[name] = later(model, stream)
    return scores


def trained(name: str, seed: int = 0, **settings: Any) -> PromptTPP:
    """Train PromptTPP on other sequences of a process."""
    table = PROCESSES[name](t_end=100.0, n_sequences=50, random_state=5000 + seed).events
    ids = table.ids
    model = PromptTPP(random_state=seed, **settings)
    kinds = [str(k) for k in range(n_types(name))]
    return model.fit(table.select(ids[:40]), validation=table.select(ids[40:]), types=kinds)
