"""Simulated processes with a known likelihood, and sequences of earthquakes, for `events.py`.

The parameters of `TESTED` are those of the book. Settings of PromptTPP were chosen on `DEVELOPMENT`
with other seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets import (
    EventTable,
    make_hawkes,
    make_poisson,
    make_renewal,
    make_self_correcting,
    read_events,
)
from tsllm.datasets.events import Simulation

#: Events of a simulated sequence, about, and the number of sequences to test on.
EVENTS, TEST_SEQUENCES = 100, 50
#: Days to test the daily cycle on.
TEST_DAYS = 100
#: Shortest and longest sequence of earthquakes.
QUAKES = (16, 60)
#: Lower bounds of the classes of magnitude: seven each.
MAGNITUDES = {
    "usgs": [-np.inf, 0.75, 1.25, 1.75, 2.25, 3.25, 4.5, np.inf],
    "sanjac": [-np.inf, 1.1, 1.2, 1.35, 1.6, 2.0, 2.5, np.inf],
}
FILES = {"usgs": "events_usgs_2015_08.csv.gz", "sanjac": "events_quakes_sanjac.csv.gz"}


class Case(NamedTuple):
    """Events to train on, and events to test on with their true log-likelihood per event."""

    train: EventTable
    test: EventTable
    #: Only later events are scored; None: all.
    t_start: pd.Timestamp | None
    truth: float
    time_unit: str = "s"


#: A function that makes ``n`` sequences with a seed.
Maker = Callable[[int, int], Simulation]


def simulate_power_law(
    mu: float, alpha: float, offset: float, power: float, t_end: float, n: int, seed: int
) -> Simulation:
    """Simulate a Hawkes process whose kernel falls as a power of time (Ogata's thinning).

    An event triggers ``alpha`` others; the time until each has the density
    ``(power - 1) offset**(power - 1) (time + offset)**-power``.
    """

    def kernel(age: np.ndarray) -> np.ndarray:
        density: np.ndarray = (power - 1) / offset * (age / offset + 1) ** -power
        return alpha * density

    def draw(generator: np.random.Generator) -> np.ndarray:
        times = np.empty(0)
        now = 0.0
        while True:
            highest = mu + kernel(now - times).sum()  # until the next event the intensity falls
            now += generator.exponential() / highest
            if now > t_end:
                return times
            if generator.uniform() * highest < mu + kernel(now - times).sum():
                times = np.append(times, now)

    def log_likelihood(table: EventTable) -> np.ndarray:
        found = np.empty(len(table))
        for number, times in enumerate(table.times):
            start, end = table.starts[number], table.ends[number]
            intensity = np.array([mu + kernel(t - times[:i]).sum() for i, t in enumerate(times)])
            caused = alpha * (1 - ((end - times) / offset + 1) ** (1 - power))
            found[number] = np.log(intensity).sum() - mu * (end - start) - caused.sum()
        return found

    seeds = np.random.SeedSequence(seed).spawn(n)
    times = tuple(draw(np.random.default_rng(one)) for one in seeds)
    table = EventTable(
        ids=tuple(map(str, range(n))),
        times=times,
        types=tuple(np.full(len(own), "0", dtype=object) for own in times),
        starts=np.zeros(n),
        ends=np.full(n, t_end),
    )
    parameters = {"mu": mu, "alpha": alpha, "offset": offset, "power": power}
    return Simulation(table, parameters, log_likelihood)


#: The processes of the book: sequences of about 100 events.
TESTED: dict[str, Maker] = {
    "Hawkes": lambda n, seed: make_hawkes(
        [0.2, 0.15], [[0.4, 0.2], [0.1, 0.4]], [2.0, 1.0], t_end=125.0, n_sequences=n,
        random_state=seed,
    ),
    "self-correcting": lambda n, seed: make_self_correcting(
        1.0, 1.0, t_end=100.0, n_sequences=n, random_state=seed
    ),
    "renewal": lambda n, seed: make_renewal(
        "gamma", mean=1.0, cv=0.5, probabilities=(0.5, 0.3, 0.2), t_end=100.0, n_sequences=n,
        random_state=seed,
    ),
    "Hawkes, power law": lambda n, seed: simulate_power_law(
        0.4, 0.5, 0.5, 2.0, 130.0, n, seed
    ),
}  # fmt: skip
#: The processes that settings were chosen on.
DEVELOPMENT: dict[str, Maker] = {
    "Hawkes": lambda n, seed: make_hawkes(
        [0.25, 0.15], [[0.5, 0.05], [0.3, 0.2]], [3.0, 1.5], t_end=120.0, n_sequences=n,
        random_state=seed,
    ),
    "self-correcting": lambda n, seed: make_self_correcting(
        0.5, 0.8, t_end=160.0, n_sequences=n, random_state=seed
    ),
    "renewal": lambda n, seed: make_renewal(
        "gamma", mean=2.0, cv=0.7, probabilities=(0.45, 0.35, 0.2), t_end=200.0, n_sequences=n,
        random_state=seed,
    ),
    "Hawkes, power law": lambda n, seed: simulate_power_law(
        0.35, 0.6, 0.3, 1.8, 115.0, n, seed
    ),
}  # fmt: skip
#: Mean rate an hour, swing and phase of the daily cycle.
CYCLES = {"tested": (0.8, 0.9, 0.0), "development": (0.7, 0.7, 5.0)}


def simulated_case(name: str, events: int, seed: int, development: bool = False) -> Case:
    """Simulate about so many events to train on, and others of the same process to test on."""
    if name == "Poisson, daily cycle":
        kind = "development" if development else "tested"
        return daily_cycle(round(events / (24 * CYCLES[kind][0])), TEST_DAYS, seed, kind)
    make = (DEVELOPMENT if development else TESTED)[name]
    train, test = make(events // EVENTS, seed), make(TEST_SEQUENCES, 1000 + seed)
    truth = float(test.log_likelihood(test.events).sum() / test.events.n_events)
    return Case(train.events, test.events, None, truth)


def daily_cycle(days: int, test_days: int, seed: int, kind: str = "tested") -> Case:
    """Simulate a Poisson process that follows the time of day; test on the last days."""
    level, swing, phase = CYCLES[kind]

    def rate(hour: float) -> float:
        return level * (1 + swing * np.sin(2 * np.pi * (hour - phase) / 24))

    total = days + test_days
    simulated = make_poisson(rate, bound=2 * level, t_end=24.0 * total, random_state=seed)
    start = pd.Timestamp("2024-01-01")
    frame = simulated.events.to_frame()[["time", "type"]]
    frame["time"] = start + pd.to_timedelta(frame["time"], unit="h")
    window = (start, start + pd.Timedelta(days=total))
    whole = read_events(frame, windows=window, time_unit="h")
    cut = start + pd.Timedelta(days=days)
    late = simulated.events.between(24.0 * days, None)
    truth = float(simulated.log_likelihood(late).sum() / late.n_events)
    return Case(whole.between(None, cut), whole, cut, truth, "h")


def quake_sequences(folder: Path, name: str, seed: int) -> tuple[EventTable, EventTable]:
    """Read earthquakes as sequences of 16 to 60 events of seven classes: to train on, to test on.

    Sequences are runs of successive earthquakes, without a window, as in EasyTPP's set. A fifth of
    them, drawn at random, is to test on. Times are in hours.
    """
    frame = pd.read_csv(folder / FILES[name])
    column = "mag" if name == "usgs" else "magnitude"
    frame = frame[frame[column].notna()].assign(time=lambda one: pd.to_datetime(one["time"]))
    frame = frame.sort_values("time").drop_duplicates("time")
    classes = pd.cut(frame[column], MAGNITUDES[name], right=False, labels=False)
    generator = np.random.default_rng(seed)
    lengths = generator.integers(QUAKES[0], QUAKES[1] + 1, len(frame) // QUAKES[0])
    number = np.searchsorted(lengths.cumsum(), np.arange(len(frame)), "right")
    columns = {"sequence_id": number.astype(str), "time": frame["time"], "type": "class "}
    table = pd.DataFrame(columns).assign(type=lambda one: one["type"] + classes.astype(str))
    events = read_events(table, time_unit="h")
    ids = np.array(events.ids, dtype=object)[generator.permutation(len(events))]
    tested = len(ids) // 5
    return events.select(sorted(ids[tested:])), events.select(sorted(ids[:tested]))
