"""Synthetic series of many kinds: sums and products of trends, seasons, walks, cycles and noise.

Each series has a short and a long season that the model is told, as a user's frequency tells it.
They are in the series in most cases only, and some series have cycles that nobody announces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter

#: Short season, long season, and how often they are drawn in series of up to 200, of up to 400 and
#: of more steps: long seasons are learnt from long series.
SEASONS = (
    ((1, 0), (0.24, 0.20, 0.05)),  # yearly values
    ((4, 0), (0.14, 0.10, 0.03)),
    ((12, 0), (0.27, 0.20, 0.08)),
    ((52, 0), (0.08, 0.07, 0.12)),
    ((7, 0), (0.07, 0.06, 0.06)),
    ((7, 365), (0.04, 0.08, 0.15)),
    ((5, 0), (0.03, 0.03, 0.03)),
    ((24, 168), (0.08, 0.17, 0.33)),
    ((24, 0), (0.02, 0.02, 0.03)),
    ((48, 336), (0.01, 0.03, 0.06)),
    ((96, 672), (0.00, 0.02, 0.04)),
    ((0, 0), (0.02, 0.02, 0.02)),  # any short season
)


class Batch(NamedTuple):
    """Series of one length."""

    values: np.ndarray
    """(series, steps) float64."""
    seasons: np.ndarray
    """(series, 2) int64: the steps of the short and of the long season; 0 for none."""


def draw(rng: np.random.Generator, count: int, steps: int) -> Batch:
    """Draw series of one length."""
    column = 0 if steps <= 200 else 1 if steps <= 400 else 2
    shares = [share[column] for _, share in SEASONS]
    picked = rng.choice(len(SEASONS), size=count, p=shares)
    values, seasons = np.empty((count, steps)), np.zeros((count, 2), dtype=np.int64)
    for row, kind in enumerate(picked):
        short, long = SEASONS[kind][0]
        if short == 0:
            short = int(rng.integers(2, 60))
        seasons[row] = short if short > 1 else 0, long
        values[row] = _series(rng, steps, short, long)
    return Batch(values, seasons)


def _series(rng: np.random.Generator, steps: int, short: int, long: int) -> np.ndarray:
    """Draw one series."""
    t = np.arange(steps)
    parts = [_trend(rng, steps, short)]
    seasonal = np.zeros(steps)
    if short > 1 and rng.random() < 0.85:
        seasonal += _season(rng, t, short)
    if long and rng.random() < 0.75:
        kind = rng.random()
        if long % short == 0 and kind < 0.7:  # days of the week
            days = rng.normal(0, 1, long // short)
            if rng.random() < 0.6:
                days = np.where(np.arange(long // short) < 2, rng.normal(0, 1.5), 0.2 * days)
            days = np.roll(days, rng.integers(long // short))[t // short % (long // short)]
            if kind < 0.35:
                seasonal *= 1 + 0.4 * np.tanh(days)
            seasonal += np.exp(rng.normal(-0.7, 0.7)) * days
        else:
            seasonal += np.exp(rng.normal(-0.3, 0.7)) * _season(rng, t, long, smooth=True)
    if seasonal.any():
        parts.append(np.exp(rng.normal(0.2, 0.9)) * seasonal)
    if rng.random() < (0.35 if short == 1 else 0.2):
        parts.append(np.exp(rng.normal(0, 0.8)) * _cycle(rng, steps))
    if rng.random() < 0.2:
        parts.append(np.exp(rng.normal(-0.5, 0.8)) * _smooth(rng, t))
    signal = np.sum(parts, axis=0)
    spread = np.std(signal[: max(32, steps // 4)]) + 1e-3
    strength = spread * np.exp(rng.normal(-1.2, 1.0))
    noise = _noise(rng, steps)
    return _observe(rng, signal, strength * noise, spread, short)


def _trend(rng: np.random.Generator, steps: int, short: int) -> np.ndarray:
    """Draw the slow part of a series, with a spread near 1 over some tens of steps."""
    t = np.arange(steps)
    pace = np.exp(rng.uniform(np.log(15), np.log(max(40, 1.5 * steps))))  # steps of one unit
    kind = rng.choice(8, p=[0.14, 0.14, 0.08, 0.1, 0.2, 0.12, 0.14, 0.08])
    if kind == 0:
        return np.zeros(steps)
    if kind == 1:
        return rng.normal() * t / pace
    if kind == 2:  # damped
        damping = 1 - 1 / rng.uniform(5, 200)
        return rng.normal(0, 2) * (1 - damping**t) * rng.choice([1, 3])
    if kind == 3:  # pieces
        breaks = rng.integers(1, max(2, min(6, steps // 20 + 2)))
        slope = np.zeros(steps)
        for begin in np.r_[0, rng.integers(0, steps, breaks)]:
            slope[begin:] = rng.normal() / pace
        return np.cumsum(slope)
    if kind == 4:  # a walk, with or without drift
        drift = rng.normal(0, 0.5) / np.sqrt(pace) if rng.random() < 0.6 else 0.0
        shocks = _shocks(rng, steps) / np.sqrt(pace)
        return np.cumsum(shocks + drift)
    if kind == 5:  # the slope walks
        shocks = rng.normal(0, 1, steps) * np.exp(rng.normal(-1.5, 0.8)) / pace
        damping = rng.choice([1.0, 0.98, 0.9, 0.8])
        slope = rng.normal(0, 1) / pace + lfilter([1.0], [1.0, -damping], shocks)
        return np.cumsum(slope)
    if kind == 6:  # reverts to a mean
        persistence = 1 - 1 / np.exp(rng.uniform(np.log(1.5), np.log(200)))
        shocks = _shocks(rng, steps + 200) * np.sqrt(1 - persistence**2)
        return lfilter([1.0], [1.0, -persistence], shocks)[200:]
    saturation = rng.uniform(0, steps)
    return rng.normal(0, 2) / (1 + np.exp(-(t - saturation) / pace * 3))


def _shocks(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw independent shocks of spread 1: normal, heavy-tailed or rare."""
    kind = rng.random()
    if kind < 0.65:
        return rng.normal(0, 1, steps)
    if kind < 0.85:
        return rng.standard_t(4, steps) / np.sqrt(2)
    share = rng.uniform(0.02, 0.3)
    return rng.normal(0, 1, steps) * (rng.random(steps) < share) / np.sqrt(share)


def _season(
    rng: np.random.Generator, t: np.ndarray, period: int, smooth: bool = False
) -> np.ndarray:
    """Draw a season of spread 1 whose profile may change with time."""
    profile = _profile(rng, period, smooth)
    values = profile[t % period]
    kind = rng.random()
    if kind < 0.2:  # from one profile to another
        other = _profile(rng, period, smooth)
        share = np.clip((t - rng.uniform(0, len(t))) / rng.uniform(1, len(t)) + 0.5, 0, 1)
        values = (1 - share) * values + share * other[t % period]
    elif kind < 0.5:  # of changing strength
        walk = np.cumsum(rng.normal(0, 1, len(t))) * rng.uniform(0, 0.7) / np.sqrt(len(t))
        values = values * np.exp(walk)
    elif kind < 0.65:  # a profile that walks
        cycles = t[-1] // period + 1
        change = np.cumsum(rng.normal(0, 1, (cycles, period)), axis=0) * rng.uniform(0.02, 0.3)
        values = values + change.ravel()[: len(t)]
    return values


def _profile(rng: np.random.Generator, period: int, smooth: bool) -> np.ndarray:
    """Draw the values of one season, of mean 0 and spread 1."""
    phase = np.arange(period) / period
    kind = rng.random()
    if smooth or (kind < 0.45 and period > 4):
        harmonics = np.arange(1, int(rng.integers(1, min(6, max(2, period // 2 + 1)))) + 1)
        size = rng.normal(0, 1, len(harmonics)) / harmonics ** rng.uniform(0, 2)
        angles = 2 * np.pi * (harmonics[:, None] * phase + rng.random((len(harmonics), 1)))
        profile = size @ np.sin(angles)
    elif kind < 0.75 or period <= 4:
        profile = rng.normal(0, 1, period)
        if rng.random() < 0.3:
            profile = rng.exponential(1, period) ** rng.uniform(0.5, 2)
    elif kind < 0.9:  # on and off, with soft edges
        begin, width = rng.random(), rng.uniform(0.1, 0.7)
        inside = np.abs((phase - begin + 0.5) % 1 - 0.5) - width / 2
        profile = 1 / (1 + np.exp(np.clip(inside * rng.choice([10, 40, 200]), -50, 50)))
        profile = profile * (1 + 0.3 * rng.normal(0, 1, period) * (rng.random() < 0.5))
    else:  # a few peaks
        profile = np.zeros(period)
        for _ in range(int(rng.integers(1, 4))):
            profile[rng.integers(period)] += rng.normal(1, 1)
    profile = np.roll(profile - profile.mean(), rng.integers(period))
    return profile / (profile.std() + 1e-9) if profile.std() > 1e-6 else profile


def _cycle(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw a cycle of an unannounced period: a second-order autoregression, or a plain sine."""
    period = np.exp(rng.uniform(np.log(3), np.log(80)))
    if rng.random() < 0.3:
        return np.sqrt(2) * np.sin(2 * np.pi * (np.arange(steps) / period + rng.random()))
    radius = 1 - 1 / np.exp(rng.uniform(np.log(4), np.log(300)))
    a, b = 2 * radius * np.cos(2 * np.pi / period), -(radius**2)
    values = lfilter([1.0], [1.0, -a, -b], rng.normal(0, 1, steps + 300))[300:]
    return values / (values.std() + 1e-9)


def _smooth(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Draw a smooth curve: sines of random periods around a length scale."""
    count = int(rng.integers(3, 12))
    scale = np.exp(rng.uniform(np.log(8), np.log(400)))
    frequencies = np.abs(rng.normal(0, 1, count)) / scale
    angles = 2 * np.pi * (frequencies[:, None] * t + rng.random((count, 1)))
    return rng.normal(0, 1, count) @ np.sin(angles) * np.sqrt(2 / count)


def _noise(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw noise of spread near 1."""
    noise = _shocks(rng, steps)
    kind = rng.random()
    if kind < 0.35:  # autocorrelated
        weight = rng.uniform(-0.4, 0.95)
        noise = lfilter([1.0], [1.0, -weight], noise) * np.sqrt(1 - weight**2)
    elif kind < 0.5:  # calm and wild times
        walk = lfilter([1.0], [1.0, -0.97], rng.normal(0, 0.25, steps))
        noise = noise * np.exp(rng.uniform(0.2, 1.0) * walk)
    return noise


def _observe(
    rng: np.random.Generator, signal: np.ndarray, noise: np.ndarray, spread: float, short: int
) -> np.ndarray:
    """Combine signal and noise as a sum, a product or counts, with outliers and steps."""
    steps = len(signal)
    if rng.random() < 0.12:  # level shifts
        for _ in range(int(rng.integers(1, 4))):
            signal = signal + (np.arange(steps) >= rng.integers(steps)) * rng.normal(0, 2) * spread
    kind = rng.random()
    if kind < 0.4:
        values = signal + noise
        if rng.random() < 0.5:
            values = values + spread * rng.uniform(2, 30)
    elif kind < 0.78:  # a product
        depth = np.exp(rng.uniform(np.log(0.02), np.log(1.2))) / max(spread, 0.5)
        log = np.clip(depth * (signal + noise), -12, 12)
        values = np.exp(log - log[:32].mean())
        if rng.random() < 0.2:
            values = values + rng.uniform(0, 3)
    elif kind < 0.9:  # counts
        depth = np.exp(rng.uniform(np.log(0.1), np.log(1.0))) / max(spread, 0.5)
        log = np.clip(depth * (signal + 0.5 * noise), -6, 6)
        level = np.exp(log - log.mean() + rng.normal(1.0, 1.5))
        if rng.random() < 0.4:  # negative binomial
            shape = rng.uniform(0.5, 10)
            level = level * rng.gamma(shape, 1 / shape, steps)
        values = rng.poisson(np.clip(level, 0, 1e6)).astype(float)
    elif kind < 0.95:  # floored, as rain or the power of the sun
        values = np.maximum(signal + noise - np.quantile(signal, rng.uniform(0, 0.6)), 0.0)
    else:  # rounded, as prices of few steps
        grain = spread * rng.uniform(0.1, 1.0)
        values = np.round((signal + 0.5 * noise) / grain) * grain
    if rng.random() < 0.12:  # outliers
        hit = rng.random(steps) < rng.uniform(0.001, 0.03)
        values = values + hit * rng.normal(0, 6, steps) * (np.std(values[:64]) + 1e-9)
    if kind < 0.4 and rng.random() < 0.5:
        values = -values
    scale = np.abs(values).max()
    return values / scale if scale > 0 else values
