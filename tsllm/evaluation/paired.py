"""Differences between two methods on the same windows, with intervals over windows and seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from tsllm.errors import DataError
from tsllm.evaluation.scoring import weighted_mean

DRAWS = 1000
#: With fewer blocks than the first number, but at least the second number of series, whole series
#: are resampled.
FEW_BLOCKS, MANY_SERIES = 5, 10


def check_seeds_and_confidence(seeds: Sequence[int], confidence: float) -> None:
    """Check the arguments that set the intervals."""
    if isinstance(seeds, int) or not seeds:
        raise DataError(f"seeds must be at least one whole number in a list, found {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise DataError(f"seeds must differ from each other, found {list(seeds)!r}")
    if not 0 < confidence < 1:
        raise DataError(f"confidence must lie between 0 and 1, found {confidence!r}")


class PairedDifference(NamedTuple):
    """The mean difference of a metric between two methods over the same windows.

    ``difference`` is method a's value less method b's: negative where a has the lower error.
    ``relative`` is the same as a share of b's value. Both have bounds at ``confidence``, which are
    NaN where the windows make less than two blocks. ``horizon`` is a number of steps, or "all": the
    mean over all horizons. ``blocks`` counts the resampled blocks, of the ``unit`` "origins" or
    "series". ``seeds`` counts the trainings; with one, the interval covers the windows only.
    """

    method_a: str
    method_b: str
    metric: str
    horizon: int | str
    difference: float
    lower: float
    upper: float
    confidence: float
    windows: int
    block_length: int
    relative: float = math.nan
    relative_lower: float = math.nan
    relative_upper: float = math.nan
    unit: str = "origins"
    blocks: float = math.nan
    seeds: int = 1


class Estimate(NamedTuple):
    """A difference and a relative difference with bounds, arrays (2,)."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    unit: str
    block_length: int
    blocks: float
    seeds: int

    def between(
        self,
        method_a: str,
        method_b: str,
        metric: str,
        horizon: int | str,
        *,
        confidence: float,
        windows: int,
    ) -> PairedDifference:
        """Return the estimate as the difference between two methods."""
        (difference, relative), (lower, relative_lower), (upper, relative_upper) = (
            pair.tolist() for pair in (self.value, self.lower, self.upper)
        )
        return PairedDifference(
            method_a, method_b, metric, horizon, difference, lower, upper, confidence, windows,
            self.block_length, relative, relative_lower, relative_upper, self.unit, self.blocks,
            self.seeds,
        )  # fmt: skip


def estimate(
    metric: str,
    ours: np.ndarray,
    others: np.ndarray,
    *,
    series: np.ndarray,
    when: np.ndarray,
    horizon: int,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Compare two methods, with intervals over windows and seeds.

    Neighbouring origins share most of their forecast steps, and all series of one origin share the
    state of the world. So whole blocks of origins are drawn on a circle, each with all its series
    and variables. A block holds two horizons, or the square root of the number of origins where
    that is more; with one horizon, a third of the variance of means over overlapping windows would
    be lost. The squared standard errors of the draws and of the mean over seeds are added.
    Student's t with Satterthwaite's degrees of freedom, from the numbers of blocks and seeds, makes
    the intervals: percentiles of the draws would be too narrow with the few blocks of a test part.

    Parameters
    ----------
    metric : str
    ours, others : arrays (seeds, 2, windows, horizons, variables)
        Sums of errors and of their weights; the metric is the mean over the horizons. A method with
        one seed can be compared with one that has several.
    series, when : int arrays (windows,)
        The number of the series, and the position of the origin on the calendar of all series.
    horizon : int
        Steps of the longest windows.
    confidence : float, default=0.95
    seed : int, default=0
        Of the draws.

    References
    ----------
    H. Künsch (1989), "The jackknife and the bootstrap for general stationary observations".
    D. Politis and J. Romano (1992), "A circular block-resampling procedure for stationary data".
    F. Satterthwaite (1946), "An approximate distribution of estimates of variance components".

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weights = np.ones((1, 1, 200, 1, 1))
    >>> one, other = (
    ...     np.concatenate([rng.normal(mean, 1, weights.shape), weights], axis=1)
    ...     for mean in (6.0, 5.0)
    ... )
    >>> place = {"series": np.zeros(200, int), "when": np.arange(200), "horizon": 1}
    >>> found = estimate("mse", one, other, **place)
    >>> bool(found.lower[0] < 1.0 < found.upper[0]), found.block_length
    (True, 15)
    """
    labels, unit, block = _units(series, when, horizon)
    return estimate_units(
        metric,
        ours,
        others,
        labels=labels,
        unit=unit,
        block=block,
        confidence=confidence,
        seed=seed,
    )


def estimate_units(
    metric: str,
    ours: np.ndarray,
    others: np.ndarray,
    *,
    labels: np.ndarray,
    unit: str,
    block: int,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Compare two methods on items that are resampled in units; see `estimate`.

    ``labels`` has the unit of each item, from 0; consecutive numbers are neighbours in time, and
    ``block`` of them are drawn together. ``unit`` is the name of the units.
    """
    count = int(labels.max()) + 1
    ours, others = _add_up(ours, labels, count), _add_up(others, labels, count)
    pair = np.stack([ours.mean(axis=0), others.mean(axis=0)])  # (2, 2, units, horizons, variables)
    value = _statistics(metric, pair.sum(axis=2))
    n_seeds = max(len(ours), len(others))
    blocks = count / block
    lower = upper = np.full(2, np.nan)
    if blocks >= 2:
        variances = [_window_variance(metric, pair, block, np.random.default_rng(seed))]
        freedoms = [blocks - 1]
        if n_seeds > 1:
            both = np.broadcast_arrays(ours.sum(axis=2), others.sum(axis=2))
            per_seed = _statistics(metric, np.stack(both, axis=1))  # (seeds, 2)
            variances.append(per_seed.var(axis=0, ddof=1) / n_seeds)
            freedoms.append(n_seeds - 1)
        half = _half_widths(np.array(variances), np.array(freedoms), confidence)
        lower, upper = value - half, value + half
    value, lower, upper = (np.array([a[0], np.expm1(a[1])]) for a in (value, lower, upper))
    return Estimate(value, lower, upper, unit, block, blocks, n_seeds)


def _units(series: np.ndarray, when: np.ndarray, horizon: int) -> tuple[np.ndarray, str, int]:
    """Return the unit of each window, the name of the units, and the units of a block."""
    origins, labels = np.unique(when, return_inverse=True)
    spacing = float(np.median(np.diff(origins))) if len(origins) > 1 else 1.0
    block = max(math.ceil(2 * horizon / spacing), math.ceil(math.sqrt(len(origins))))
    own, by_series = np.unique(series, return_inverse=True)
    if len(origins) / block < FEW_BLOCKS and len(own) >= MANY_SERIES:
        return by_series, "series", 1
    return labels, "origins", block


def _add_up(sums: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Sum the windows of each unit: (seeds, 2, units, horizons, variables)."""
    out = np.zeros((count, *sums.shape[:2], *sums.shape[3:]))
    np.add.at(out, labels, np.moveaxis(sums, 2, 0))
    return np.moveaxis(out, 0, 2)


def _statistics(metric: str, sums: np.ndarray) -> np.ndarray:
    """Return difference and log ratio (..., 2) of sums (..., 2, 2, horizons, variables).

    With logarithms no bound of a ratio is negative, and the methods can be exchanged.
    """
    means = weighted_mean(metric, sums[..., 0, :, :], sums[..., 1, :, :]).mean(axis=-1)  # (..., 2)
    one, other = means[..., 0], means[..., 1]
    known = (one > 0) & (other > 0)
    ratio = np.divide(one, other, out=np.full_like(one, np.nan), where=known)
    ratio[(one == 0) & (other == 0)] = 1.0
    return np.stack([one - other, np.log(ratio)], axis=-1)


def _window_variance(
    metric: str, pair: np.ndarray, block: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the variances (2,) of both statistics over draws of blocks."""
    count = pair.shape[2]
    around = np.concatenate([pair, pair[:, :, : block - 1]], axis=2)  # a circle
    running = np.pad(around.cumsum(axis=2), ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
    sums = running[:, :, block:] - running[:, :, :-block]  # (2, 2, units, horizons, variables)
    drawn_blocks = max(1, round(count / block))
    drawn = np.zeros((*sums.shape[:2], DRAWS, *sums.shape[3:]))
    for _ in range(drawn_blocks):
        drawn += sums[:, :, rng.integers(0, count, DRAWS)]
    statistics = _statistics(metric, np.moveaxis(drawn, 2, 0))  # (draws, 2)
    # Blocks vary around their own mean, which costs one degree of freedom.
    few = (count / block) / (count / block - 1)
    known = np.isfinite(statistics)  # draws of missing values only are left out
    variances = [
        own[there].var() if there.any() else np.nan for own, there in zip(statistics.T, known.T)
    ]
    return np.array(variances) * (drawn_blocks * block / count) * few


def _half_widths(variances: np.ndarray, freedoms: np.ndarray, confidence: float) -> np.ndarray:
    """Return half the widths (2,) from variances (sources, 2) and freedoms (sources,)."""
    total = variances.sum(axis=0)
    spread = (variances**2 / freedoms[:, None]).sum(axis=0)
    freedom = np.divide(total**2, spread, out=np.full_like(total, np.inf), where=spread > 0)
    half: np.ndarray = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(total)
    return half
