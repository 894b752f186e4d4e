"""Quantiles of the errors of each step of the horizon, where there may be few errors.

The errors of a step are modelled as ``centre + spread * z``. Spreads grow smoothly with the step,
and ``z`` has a similar distribution at each step. A step with many errors has a spread and a
distribution of its own. A step with few errors borrows both, with weights that follow the number of
its errors:

- The spread is drawn towards a power of the step that is fitted to all steps. In a series of a
  panel it is drawn towards the panel's spreads, times a factor. Without a panel, and with hardly
  any errors, it does not fall from one step to the next: a forecast farther ahead is seldom more
  certain.
- The distribution of ``z`` is drawn towards that of the best-scored steps. Levels beyond the
  sample, and the doubt about the spread, follow Student's t distribution.
- The centre is the median of the errors, where they support one. A bias is corrected only as far as
  the older and the newer half of the windows show it alike, and as far as it exceeds its noise.

Split conformal prediction needs exchangeable errors. Errors of windows that overlap are not: they
share innovations, so they count as fewer (`OVERLAP`). Errors of different series are divided by the
scale of their contexts before they are pooled. A variance that changes after the held-out windows
is not foreseen; ``adaptive`` forecasters follow it.

The numbers below were chosen on simulated random walks, autoregressions, seasonal and trending
series with simple forecasts, in panels of 1 and 20 series of 40 to 950 steps.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

#: Errors of h-step forecasts are correlated over up to h steps, because each is a sum of h
#: innovations; h / OVERLAP of them count as one.
OVERLAP = 2.0
#: Fewest degrees of freedom for levels beyond the sample; with fewer, the variance is infinite.
LEAST_DEGREES = 3.0
#: What is borrowed for a step counts as this number of errors.
BORROWED = 10.0
#: With fewer errors of its own, a step's spread is not below that of the step before it.
FEW_ERRORS = 10.0
#: Spreads grow like ``step ** growth``. Before any error is seen the growth is that of a random
#: walk, give or take a deviation.
USUAL_GROWTH = 0.5
GROWTH_DEVIATION = 0.25
#: Where errors are few, spreads are this number of deviations of the growth above the fitted power.
GROWTH_DOUBT = 1.0
#: Medians count as a signal only as far as their squares exceed this multiple of their variance.
NOISE = 6.0
#: Correcting a median adds this variance, divided by the number of errors, in squared spreads.
CENTRE_DOUBT = 3.0
#: Width of the kernel over the logarithm of the step that smooths the medians.
SMOOTHNESS = 0.3
#: Fastest growth: that of an integrated random walk.
MOST_GROWTH = 1.5
#: Most numbers of the distribution that steps share.
MAX_SHARED = 512


@dataclass(frozen=True)
class StepErrors:
    """Centre and spread of the errors of each step; each array is (horizon, variables).

    Attributes
    ----------
    centre : array
        The median error, as far as the errors support that it is not 0.
    spread : array
        The mean distance to the centre, smoothed where a step has few errors; NaN where no step of
        the variable has an error.
    own : array
        The effective number of errors: overlapping ones count as fewer.
    count : array
        This number and what was borrowed from other steps. Levels lie farther out where it is
        small.
    """

    centre: np.ndarray
    spread: np.ndarray
    own: np.ndarray
    count: np.ndarray

    def quantiles(self, ordered: np.ndarray, level: np.ndarray | float) -> np.ndarray:
        """Compute a conformal quantile at each step, of errors in the order of `sorted_errors`."""
        spread = np.where(self.spread > 0, self.spread, 1.0)  # else all errors are the centre
        ordered = (ordered - self.centre) / spread
        return self.quantiles_of_sorted(ordered, self.shared(ordered), np.asarray(level))

    def quantiles_of_sorted(
        self, ordered: np.ndarray, shared: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        """Compute conformal quantiles ([levels,] horizon, variables) of standardised errors."""
        number = (~np.isnan(ordered)).sum(axis=0)
        own = conformal_quantile(ordered, level, np.maximum(1.0, number / self.count))
        number, best = (~np.isnan(shared)).sum(axis=0), np.maximum(self.own.max(axis=0), 1.0)
        borrowed = conformal_quantile(shared, level, np.maximum(1.0, number / best))
        borrowed = (
            borrowed * _small_sample_factor(self.count, level) / _small_sample_factor(best, level)
        )
        weight = self.own / (self.own + BORROWED)
        standard = np.where(self.own > 0, weight * own + (1 - weight) * borrowed, borrowed)
        quantiles: np.ndarray = self.centre + self.spread * standard
        return quantiles

    def shared(self, ordered: np.ndarray) -> np.ndarray:
        """Pool standardised errors of the best-scored steps: sorted, (numbers, 1, variables)."""
        best = self.own >= self.own.max(axis=0) / 2  # (horizon, variables)
        pooled = np.where(best, ordered, np.nan).reshape(-1, ordered.shape[2])
        pooled = np.sort(pooled, axis=0)
        kept = np.full((min(len(pooled), MAX_SHARED), pooled.shape[1]), np.nan)
        numbers = (~np.isnan(pooled)).sum(axis=0)  # (variables,)
        for number in np.unique(numbers).tolist():
            some = np.linspace(0, number - 1, min(number, MAX_SHARED)).round().astype(int)
            alike = numbers == number
            kept[: len(some), alike] = pooled[np.ix_(some, alike)]
        return kept[:, None]


def describe_steps(
    errors: np.ndarray,
    series: np.ndarray,
    spacing: float,
    *,
    panel: StepErrors | None = None,
    correct: bool = True,
    ordered: np.ndarray | None = None,
) -> StepErrors:
    """Estimate centre and spread of the errors at each step.

    Parameters
    ----------
    errors : array (windows, horizon, variables)
        By series, and by time in a series; NaN where not observed.
    series : int array (windows,)
        The number of the series of each window.
    spacing : float
        Steps between neighbouring windows of a series.
    panel : StepErrors or None, default=None
        Of the panel: for steps with few errors, spreads are proportional to the panel's. None: they
        follow a power of the step.
    correct : bool, default=True
        Whether the centre may differ from 0.
    ordered : array (windows, horizon, variables) or None, default=None
        The `sorted_errors`, where the caller has them.
    """
    known = ~np.isnan(errors)
    own = effective_counts(known, series, spacing)  # (horizon, variables)
    centre, doubt = np.zeros(own.shape), np.zeros(own.shape)
    if correct:
        ordered = sorted_errors(errors) if ordered is None else ordered
        centre, doubt = _shrunken_median(errors, ordered, known, series, spacing)
    raw = _mean_of_known(np.abs(errors - centre), known) * np.sqrt(1 + doubt)
    if panel is None:
        usual = _power_law_spread(raw, own)
    else:
        usual = _scaled_panel_spread(panel.spread, raw, own)
    weight = own / (own + BORROWED)
    spread = weight * raw + (1 - weight) * usual
    weak_steps = own < FEW_ERRORS
    rises = panel is None and bool(weak_steps.any())
    for step in range(1, len(spread) if rises else 0):
        weak = weak_steps[step]
        spread[step] = np.where(weak, np.maximum(spread[step], spread[step - 1]), spread[step])
    best = own.max(axis=0)
    count = np.maximum(1.0, own + BORROWED * best / (BORROWED + best))
    return StepErrors(centre, np.where(best > 0, spread, np.nan), own, count)


def effective_counts(
    known: np.ndarray, series: np.ndarray, spacing: float, overlap: float = OVERLAP
) -> np.ndarray:
    """Compute the effective number of errors of each step: (horizon, variables).

    Errors of windows that overlap count as fewer, but each series counts at least once. ``known``
    (windows, horizon, variables) says which errors there are.
    """
    steps = np.arange(1, known.shape[1] + 1)[:, None]
    shared = np.maximum(1.0, steps / overlap / spacing)  # (horizon, 1)
    starts = np.flatnonzero(np.r_[True, np.diff(series) != 0])
    if known.all():  # the same number of each step: (series, 1, 1)
        number = np.diff(np.r_[starts, len(series)])[:, None, None]
        number = np.broadcast_to(number, (len(starts), *known.shape[1:]))
    else:
        number = np.add.reduceat(known.astype(np.int32), starts, axis=0)
    counts: np.ndarray = np.where(number > 0, np.maximum(number / shared, 1.0), 0.0).sum(axis=0)
    return counts


def sorted_errors(errors: np.ndarray) -> np.ndarray:
    """Sort the errors (windows, horizon, variables) of each step, NaN (no error) last."""
    ordered: np.ndarray = np.sort(errors, axis=0)
    return ordered


def _shrunken_median(
    errors: np.ndarray, ordered: np.ndarray, known: np.ndarray, series: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the median error of each step, shrunk by what the errors support.

    The curve of medians over the steps is smoothed. It is multiplied by the share of it that the
    older and the newer half of the windows have in common, and by its signal-to-noise ratio. The
    arguments are those of `describe_steps`, and which errors are known. The second result is the
    variance that the correction adds, in squared spreads. Both are (horizon, variables).
    """
    own = effective_counts(known, series, spacing, overlap=1.0)  # of each error's own innovations
    raw = _mean_of_known(np.abs(errors), known)
    unit = np.where(raw > 0, raw, 1.0)
    newer = _newer_half(series)
    weight = own / np.arange(1, len(own) + 1)[:, None]  # steps that are far ahead are alike
    medians = [_median_of_each_step(sorted_errors(errors[some])) for some in (~newer, newer)]
    halves = [_smoothed(median / unit, own) for median in medians]
    curve = _smoothed(_median_of_each_step(ordered) / unit, own)  # (horizon, variables)
    both = halves[0] * halves[1]
    power = (halves[0] ** 2 + halves[1] ** 2) / 2
    common = _ratio_or_zero((weight * both).sum(axis=0), (weight * power).sum(axis=0))
    around = _mean_of_known(np.abs(errors - curve * unit), known) / unit
    # The variance of the median of n normal errors is pi / 2 * variance / n, and the variance is
    # pi / 2 times the square of the mean distance.
    noise = 2.5 * around**2 / np.maximum(own, 1.0)
    signal = (weight * curve**2).sum(axis=0)
    clear = _ratio_or_zero(signal - NOISE * (weight * noise).sum(axis=0), signal)
    share = np.clip(common, 0, 1) * np.clip(clear, 0, 1)  # (variables,)
    return share * curve * unit, share * CENTRE_DOUBT / np.maximum(own, 1.0)


def _small_sample_factor(count: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Compute the factor on quantiles whose spread is estimated from ``count`` errors.

    It is the ratio of the quantiles of Student's t distribution to those of the normal one, for the
    error of a new observation.
    """
    # At 0.5 both quantiles are 0; their ratio hardly changes below 0.6.
    upper = np.clip(np.maximum(level, 1 - level), 0.6, None)
    degrees = np.maximum(count - 1, LEAST_DEGREES)
    factor: np.ndarray = student_quantile(degrees, upper) / ndtri(upper) * np.sqrt(1 + 1 / count)
    return factor


def student_quantile(degrees: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Compute quantiles of Student's t: ([levels,] horizon, variables).

    Each different number of degrees (horizon, variables) is computed once, and the latest are kept:
    they are slow to compute, and steps, series and observations share them. ``level`` is one
    number, or ([levels,] 1, 1); other shapes are computed one by one.
    """
    level = np.asarray(level, dtype=np.float64)
    if level.ndim and level.shape[-2:] != (1, 1):
        return np.asarray(stdtrit(degrees, level))
    distinct, at = np.unique(degrees, return_inverse=True)
    table = _student_table(distinct.tobytes(), level.tobytes())  # (levels, distinct)
    shape = (1,) * (min(level.ndim, 2) - degrees.ndim) + degrees.shape
    quantiles: np.ndarray = table[:, at].reshape(level.shape[:-2] + shape)
    return quantiles


@lru_cache(maxsize=64)
def _student_table(degrees: bytes, levels: bytes) -> np.ndarray:
    found: np.ndarray = stdtrit(np.frombuffer(degrees), np.frombuffer(levels)[:, None])
    found.setflags(write=False)
    return found


def _newer_half(series: np.ndarray) -> np.ndarray:
    """Return which windows are in the newer half of their series.

    A window that is alone in its series is newer in every second series.
    """
    starts = np.flatnonzero(np.r_[True, np.diff(series) != 0])
    number = np.diff(np.r_[starts, len(series)])
    position = np.arange(len(series)) - np.repeat(starts, number)
    newer = position >= np.repeat((number + 1) // 2, number)
    lone = np.repeat(number == 1, number)
    turn = np.repeat(np.arange(len(starts)) % 2 == 1, number)
    return np.where(lone, turn, newer)


def _median_of_each_step(ordered: np.ndarray) -> np.ndarray:
    """Return the median of the sorted errors of each step, NaN without: (horizon, variables)."""
    if not len(ordered):
        return np.full(ordered.shape[1:], np.nan)
    return _median_of_sorted(ordered, (~np.isnan(ordered)).sum(axis=0))


def _median_of_sorted(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the median of the first ``count`` sorted errors of each step."""
    count = np.maximum(count, 1)
    median: np.ndarray = (
        _at_rank(ordered, (count + 1) // 2) + _at_rank(ordered, count // 2 + 1)
    ) / 2
    return median


def _smoothed(curve: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Average a curve (horizon, variables) over steps at a similar distance; 0 if all is NaN."""
    weight = np.where(np.isnan(curve), 0.0, weight)
    curve = np.nan_to_num(curve)
    log = np.log(np.arange(1, len(curve) + 1))
    kernel = np.exp(-(((log[:, None] - log) / SMOOTHNESS) ** 2) / 2)  # (horizon, horizon)
    near = _ratio_or_zero(kernel @ (weight * curve), kernel @ weight)
    smooth: np.ndarray = (weight * curve + BORROWED * near) / (weight + BORROWED)
    return smooth


def _power_law_spread(raw: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Fit a power of the step to spreads (horizon, variables), weighted by their counts ``own``."""
    log = np.log(np.arange(1.0, len(raw) + 1))[:, None]  # (horizon, 1)
    fit = (own > 0) & (raw > 0)
    # The logarithms of far steps are close, and their errors alike.
    weight = np.where(fit, own / np.exp(log), 0.0)
    size = np.log(np.where(fit, raw, 1.0))
    total = weight.sum(axis=0)
    mean_log, mean_size = (_ratio_or_zero((weight * x).sum(axis=0), total) for x in (log, size))
    away = log - mean_log
    rest = size - mean_size - USUAL_GROWTH * away
    slope = (weight * away * rest).sum(axis=0)
    # The logarithm of the spread of n normal errors has a variance of about 1 / (2 n).
    precision = (weight * away**2).sum(axis=0) + 1 / (2 * GROWTH_DEVIATION**2)
    growth = np.clip(USUAL_GROWTH + slope / precision, 0.0, MOST_GROWTH)
    doubt = np.sqrt(1 / (2 * precision))
    size = mean_size + growth * away + GROWTH_DOUBT * doubt * np.maximum(away, 0.0)
    spread: np.ndarray = np.where(total > 0, np.exp(size), 0.0)
    return spread


def _scaled_panel_spread(panel: np.ndarray, raw: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Multiply the spreads of a panel by the factor that fits them to those of a series."""
    weight = np.where(own > 0, own / np.arange(1, len(raw) + 1)[:, None], 0.0)
    panel = np.nan_to_num(panel)
    times = _ratio_or_zero((weight * raw).sum(axis=0), (weight * panel).sum(axis=0))
    return np.where(panel > 0, panel * times, raw)


def _mean_of_known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Average the known values of windows: (horizon, variables); 0 without one."""
    total = (values if known.all() else np.where(known, values, 0.0)).sum(axis=0)
    mean: np.ndarray = total / np.maximum(known.sum(axis=0), 1)
    return mean


def _ratio_or_zero(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide; 0 where the divisor is 0."""
    ratio: np.ndarray = np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom > 0)
    return ratio


def conformal_quantile(
    ordered: np.ndarray, level: np.ndarray | float, overlap: np.ndarray | float = 1.0
) -> np.ndarray:
    """Compute finite-sample quantiles of sorted errors.

    Upper levels use rank ``ceil((n + 1) * level)`` and lower levels mirror them, so that an
    interval between two such quantiles has its nominal coverage for exchangeable errors. Of
    overlapping errors, ``n`` count as ``n / overlap``, and their ranks are as extreme. A level
    whose rank lies outside the sample is extrapolated from the most extreme error, with the spread
    of the errors and Student's t distribution, so that different levels differ. A single error
    has no spread, so its negative counts as a second error. The result is NaN at a step without
    errors.

    Parameters
    ----------
    ordered : array (windows, horizon, variables)
        Sorted along the first axis, NaN (no error) last.
    level : array (..., horizon, variables), or one that broadcasts to it
        With at most one axis more than the errors of a window.
    overlap : array (horizon, variables), or one that broadcasts to it, default=1.0
        At least 1.

    Examples
    --------
    >>> errors = np.arange(1.0, 100.0)[:, None, None]
    >>> conformal_quantile(errors, np.array([[0.9]])).item()
    90.0
    >>> conformal_quantile(errors, np.array([[0.1]])).item()
    10.0
    >>> conformal_quantile(errors, np.array([[0.9]]), overlap=5.0).item()
    94.0
    """
    ordered, count = _with_mirrored_single(ordered)  # count: (horizon, variables)
    given = np.asarray(level, dtype=np.float64)
    level = np.broadcast_to(given, np.broadcast_shapes(given.shape, count.shape))
    # minus a small number, so that 0.9 * 100 does not round up to rank 91
    upper = np.ceil((count + overlap) * level - 1e-9)
    lower = count + 1 - np.ceil((count + overlap) * (1 - level) - 1e-9)
    rank = np.where(level >= 0.5, upper, lower).astype(int)
    picked = _at_rank(ordered, np.clip(rank, 1, np.maximum(count, 1)))
    middle = level == 0.5
    if middle.any():
        picked = np.where(middle, _median_of_sorted(ordered, count), picked)
    outside = ((rank > count) | (rank < 1)) & (count > 1)
    if outside.any():
        if given.ndim > count.ndim:  # the levels that some step does not reach
            some = outside.any(axis=(-2, -1))
            away = _tail_distance(ordered, given[some], count, overlap)
            picked[some] = np.where(outside[some], picked[some] + away, picked[some])
        else:
            away = _tail_distance(ordered, given, count, overlap)
            picked = np.where(outside, picked + away, picked)
    return picked


def _with_mirrored_single(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add the negative of an error that is the only one of its step; count the errors."""
    count = (~np.isnan(ordered)).sum(axis=0)  # (horizon, variables)
    single = count == 1
    if not single.any():
        return ordered, count
    if len(ordered) == 1:
        ordered = np.concatenate([ordered, np.full_like(ordered, np.nan)])
    size = np.abs(ordered[0])
    pair = np.where(single, np.stack([-size, size]), ordered[:2])
    return np.concatenate([pair, ordered[2:]]), np.where(single, 2, count)


def _tail_distance(
    ordered: np.ndarray, level: np.ndarray, count: np.ndarray, overlap: np.ndarray | float
) -> np.ndarray:
    """Compute how far levels lie beyond the most extreme error: ([levels,] horizon, variables).

    The most extreme of n errors stands for the level n / (n + 1). The distance from there to a
    level is that of Student's t distribution, which is exact for the mean of normal errors.
    """
    add: Any = np.sum if count.min() == len(ordered) else np.nansum
    count = np.maximum(count, 2)
    total = add(ordered, axis=0)
    squares = add((ordered - total / count) ** 2, axis=0)
    spread = np.sqrt(squares / (count - 1) * (1 + overlap / count))
    degrees = np.maximum(count / overlap - 1, LEAST_DEGREES)
    upper = np.where(level >= 0.5, level, 1 - level)
    reached = count / (count + overlap)
    distance = np.maximum(student_quantile(degrees, upper) - stdtrit(degrees, reached), 0.0)
    return np.where(level >= 0.5, 1.0, -1.0) * spread * distance


def _at_rank(ordered: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Select the errors of ranks ([levels,] horizon, variables), counted from 1."""
    rank = np.minimum(rank, len(ordered))
    every = rank.reshape(-1, *ordered.shape[1:])
    return np.take_along_axis(ordered, every - 1, axis=0).reshape(rank.shape)
