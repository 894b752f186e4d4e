"""Synthetic event streams: the training data of zero-shot forecasts of events.

`draw` makes streams of one number of events and one number of types, each from a process of its
own: Hawkes with several kernels and cycles, Poisson with cycles, self-correcting, renewal, and
renewal whose times depend on the last type or the last inter-event time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

#: Kinds of processes, and how often each is drawn.
KINDS = (
    ("hawkes", 0.4),
    ("poisson", 0.17),
    ("self-correcting", 0.1),
    ("renewal", 0.17),
    ("dependent renewal", 0.16),
)
#: Exponentials of a Hawkes kernel.
COMPONENTS = 6


class Streams(NamedTuple):
    """Streams of equally many events."""

    #: (streams, events) float64: inter-event times, the first from the window's start.
    gaps: np.ndarray
    #: (streams, events) int64.
    types: np.ndarray
    #: (streams,): The index of each stream's kind in `KINDS`.
    kinds: np.ndarray


def draw(rng: np.random.Generator, count: int, events: int, types: int) -> Streams:
    """Draw streams; their mean inter-event times are of order 1."""
    kinds = rng.choice(len(KINDS), count, p=[share for _, share in KINDS])
    gaps, codes = np.ones((count, events)), np.zeros((count, events), dtype=np.int64)
    makers: tuple[Callable[..., tuple[np.ndarray, np.ndarray]], ...] = (
        hawkes, poisson, self_correcting, renewal, dependent_renewal,
    )  # fmt: skip
    for kind, make in enumerate(makers):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            gaps[rows], codes[rows] = make(rng, len(rows), events, types)
    return Streams(np.maximum(gaps, 1e-9), codes, kinds)


def log_uniform(rng: np.random.Generator, low: float, high: float, size: object) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def shares(rng: np.random.Generator, count: int, types: int) -> np.ndarray:
    """Draw the probabilities of the types, (count, types): some equal, some far from it."""
    raw = rng.gamma(log_uniform(rng, 0.5, 20, (count, 1)), size=(count, types)) + 1e-3
    return raw / raw.sum(1, keepdims=True)


def branching(rng: np.random.Generator, count: int, types: int) -> np.ndarray:
    """Draw branching matrices (count, types, types) with a spectral radius below 1."""
    raw = rng.gamma(0.7, size=(count, types, types)) + 1e-3
    style = rng.integers(0, 4, count)
    eye = np.eye(types)
    raw = np.where((style == 1)[:, None, None], eye + 0.02 * raw, raw)  # each type itself
    ring = np.roll(eye, 1, axis=0)[:, rng.permutation(types)]
    raw = np.where((style == 2)[:, None, None], ring + 0.02 * raw, raw)  # each type another
    raw = np.where((style == 3)[:, None, None], raw * (rng.random(raw.shape) < 0.4) + 1e-4, raw)
    radius = np.abs(np.linalg.eigvals(raw)).max(1)
    return raw * (rng.uniform(0.1, 0.95, count) / radius)[:, None, None]


def kernels(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw decays and weights of exponentials, (count, components) each; weights add up to 1."""
    decay = log_uniform(rng, 0.15, 15, (count, 1)).repeat(COMPONENTS, 1)
    weight = np.zeros((count, COMPONENTS))
    weight[:, 0] = 1
    style = rng.choice(4, count, p=[0.5, 0.15, 0.2, 0.15])
    two = style == 1  # a fast and a slow part
    decay[two, 1] = decay[two, 0] / log_uniform(rng, 3, 30, two.sum())
    weight[two, 1] = rng.uniform(0.2, 0.8, two.sum())
    weight[two, 0] = 1 - weight[two, 1]
    power = style == 2  # a power law, as a sum of exponentials
    steps = np.arange(COMPONENTS)
    fast = log_uniform(rng, 2, 50, (power.sum(), 1))
    decay[power] = fast / 3.0**steps
    tail = decay[power] ** rng.uniform(0.2, 1.2, (power.sum(), 1))
    weight[power] = tail / tail.sum(1, keepdims=True)
    late = style == 3  # rises, then falls
    ratio = rng.uniform(1.5, 4, late.sum())
    decay[late, 1] = decay[late, 0] * ratio
    weight[late, 0], weight[late, 1] = ratio / (ratio - 1), -1 / (ratio - 1)
    return decay, weight


def shapes(rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """Draw cycles: style, strength, and angular frequency, (count,) each."""
    style = rng.choice(4, count, p=[0.4, 0.3, 0.15, 0.15])
    return style, rng.uniform(0.3, 1.0, count), 2 * np.pi / log_uniform(rng, 4, 120, count)


def cycle(style: np.ndarray, strength: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Return the relative rate at phases (count, types); its mean over a cycle is about 1."""
    style, strength = style[:, None], strength[:, None]
    wave = np.cos(phase)
    sharp = np.exp(3 * strength * wave) / np.i0(3 * strength)
    double = 1 + strength * (0.6 * wave + 0.4 * np.cos(2 * phase + 1))
    on = np.where(wave > 0.2, 2.2, 0.2)
    return np.choose(style, [1 + strength * wave, sharp, double, on])


def excited(
    rng: np.random.Generator,
    events: int,
    base: np.ndarray,
    alpha: np.ndarray,
    kernel: tuple[np.ndarray, np.ndarray],
    cycles: tuple[np.ndarray, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw by thinning, all streams at once: base rates (count, types), branching matrices."""
    count, types = base.shape
    decay, weight = kernel
    state = np.zeros((count, types, decay.shape[1]))  # excitation by source and component
    jump = weight * decay
    up = np.maximum(jump, 0)
    phase = rng.uniform(0, 2 * np.pi, (count, types))
    style, strength, angular = cycles
    grid = np.linspace(0, 2 * np.pi, 64)
    highest = np.stack([cycle(style, strength, np.full((count, 1), p)) for p in grid]).max(0)
    now, last = np.zeros(count), np.zeros(count)
    gaps, codes = np.ones((count, events)), np.zeros((count, events), dtype=np.int64)
    done = np.zeros(count, dtype=int)
    live = np.arange(count)
    while len(live):
        s = state[live]
        ceiling = 1.05 * base[live] * highest[live]  # the highest rate may lie between the points
        bound = ceiling.sum(1) + np.einsum("bkl,bld,bd->b", alpha[live], s, up[live])
        wait = rng.exponential(size=len(live)) / bound
        now[live] += wait
        s = s * np.exp(-decay[live] * wait[:, None])[:, None]
        turned = phase[live] + (angular[live] * now[live])[:, None]
        rates = base[live] * cycle(style[live], strength[live], turned)
        rates = rates + np.maximum(np.einsum("bkl,bld,bd->bk", alpha[live], s, jump[live]), 0)
        sums = rates.cumsum(1)
        level = rng.random(len(live)) * bound
        hit = level < sums[:, -1]
        kind = (level[:, None] >= sums).sum(1).clip(max=types - 1)
        rows, kind = live[hit], kind[hit]
        s[np.flatnonzero(hit), kind] += 1
        state[live] = s
        gaps[rows, done[rows]] = now[rows] - last[rows]
        codes[rows, done[rows]] = kind
        last[rows] = now[rows]
        done[rows] += 1
        live = live[done[live] < events]
    return gaps, codes


def hawkes(
    rng: np.random.Generator, count: int, events: int, types: int
) -> tuple[np.ndarray, np.ndarray]:
    alpha = branching(rng, count, types)
    share = shares(rng, count, types)
    # Base rates that give a long-run rate of about 1 in all.
    rate = np.linalg.solve(np.eye(types) - alpha, share[..., None])[..., 0].sum(1)
    base = share / rate[:, None]
    style, strength, angular = shapes(rng, count)
    flat = rng.random(count) < 0.8
    cycles = (np.where(flat, 0, style), np.where(flat, 0.0, strength), angular)
    return excited(rng, events, base, alpha, kernels(rng, count), cycles)


def poisson(
    rng: np.random.Generator, count: int, events: int, types: int
) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.zeros((count, types, types))
    style, strength, angular = shapes(rng, count)
    flat = rng.random(count) < 0.2
    strength, style = np.where(flat, 0.0, strength), np.where(flat, 0, style)
    kernel = (np.ones((count, 1)), np.zeros((count, 1)))
    return excited(
        rng, events, shares(rng, count, types), nothing, kernel, (style, strength, angular)
    )


def markov_types(rng: np.random.Generator, count: int, events: int, types: int) -> np.ndarray:
    """Draw types (count, events), independent in half of the streams, else a Markov chain."""
    share = shares(rng, count, types)
    follow = np.stack([shares(rng, count, types) for _ in range(types)], 1)
    free = rng.random(count) < 0.5
    follow = np.where(free[:, None, None], share[:, None], follow).cumsum(-1)
    codes = np.zeros((count, events), dtype=np.int64)
    rows = np.arange(count)
    codes[:, 0] = rng.integers(0, types, count)
    for step in range(1, events):
        level = rng.random(count)[:, None] * follow[rows, codes[:, step - 1], -1:]
        codes[:, step] = (level >= follow[rows, codes[:, step - 1]]).sum(1).clip(max=types - 1)
    return codes


def self_correcting(
    rng: np.random.Generator, count: int, events: int, types: int
) -> tuple[np.ndarray, np.ndarray]:
    alpha = log_uniform(rng, 0.1, 3, count)
    level, gaps = np.zeros(count), np.empty((count, events))
    for step in range(events):
        gaps[:, step] = (
            np.log1p(rng.exponential(size=count) * alpha * np.exp(-level.clip(-50))) / alpha
        )
        level += alpha * (gaps[:, step] - 1)
    return gaps, markov_types(rng, count, events, types)


def waits(
    rng: np.random.Generator, style: np.ndarray, spread: np.ndarray, events: int
) -> np.ndarray:
    """Draw independent times (count, events) of mean about 1: style and spread (count,) each."""
    count, spread = len(style), spread[:, None]
    size = (count, events)
    cv = spread.clip(0.05, 2.5)
    sigma = np.sqrt(np.log1p(cv**2))
    normal = np.exp(sigma * rng.normal(size=size) - sigma**2 / 2)
    gamma = rng.gamma(1 / cv**2, size=size) * cv**2
    weibull = rng.weibull(cv.clip(0.1, 2.0) ** -1.0, size)
    inverse = rng.wald(1.0, cv**-2.0, size)
    few = rng.random(size) < rng.uniform(0.1, 0.9, (count, 1))
    ratio = log_uniform(rng, 3, 100, (count, 1))
    two = np.where(few, 1.0, ratio) * np.exp(0.4 * cv.clip(max=1) * rng.normal(size=size))
    return np.choose(style[:, None], [normal, gamma, weibull, inverse, two / ratio**0.5])


def renewal(
    rng: np.random.Generator, count: int, events: int, types: int
) -> tuple[np.ndarray, np.ndarray]:
    style = rng.choice(5, count, p=[0.25, 0.25, 0.2, 0.15, 0.15])
    gaps = waits(rng, style, log_uniform(rng, 0.1, 2.5, count), events)
    return gaps, markov_types(rng, count, events, types)


def dependent_renewal(
    rng: np.random.Generator, count: int, events: int, types: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw times that depend on the last type, or on the last inter-event times."""
    codes = markov_types(rng, count, events, types)
    style = rng.choice(4, count, p=[0.3, 0.3, 0.2, 0.2])
    gaps = waits(rng, style, log_uniform(rng, 0.1, 1.5, count), events)
    mean = np.exp(rng.normal(size=(count, types)) * rng.uniform(0.2, 1.5, (count, 1)))
    by_type = np.take_along_axis(mean, np.roll(codes, 1, 1), 1)
    memory = rng.uniform(-0.7, 0.95, (count, 1))
    level, log_gaps = np.zeros(count), np.log(gaps.clip(1e-9))
    linked = np.empty_like(gaps)
    for step in range(events):
        level = memory[:, 0] * level + log_gaps[:, step] * np.sqrt(1 - memory[:, 0] ** 2)
        linked[:, step] = level
    chosen = rng.random((count, 1)) < (0.5 if types > 1 else 0.0)
    gaps = np.where(chosen, gaps * by_type, np.exp(linked.clip(-8, 6)))
    return gaps / np.exp(np.log(gaps).mean(1, keepdims=True)), codes
