"""Weights that combine the forecasts of several candidates, from their errors on held-out windows.

The weights of a block of steps are not negative and sum to one. Each point of a grid on the simplex
is scored by the error of that combination on the held-out windows. The weights are the mean of the
points, each weighted by ``exp(-SHARPNESS * windows * excess)``, where the excess is the share by
which its error is above the lowest one (exponential weighting: Yang, "Combining forecasting
procedures", Econometric Theory 2004). They are then shrunk towards equal weights. The shrinkage is
strong where there are few windows, and weak where equal weights had a far larger error.

With few windows, the choice of the single best candidate would follow chance. With many windows,
equal weights would keep a bad candidate.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tsllm.errors import ModelFormatError
from tsllm.metrics import observed_mean

#: How fast the weight of a combination falls with its excess error, for each window.
SHARPNESS = 5.0
#: The weights to shrink to count as this number of windows: equal weights for a panel, the panel's
#: weights for a series.
PRIOR_STRENGTH = 20.0
#: How fast that number falls with the excess error of these weights, for each window.
PRIOR_DECAY = 0.1
#: A block of the horizon has weights of its own where this number of windows scores it.
BLOCK_WINDOWS = 50
#: A series has weights of its own with this number of windows.
SERIES_WINDOWS = 10
#: A smaller weight is set to 0, so that the candidate need not be computed.
LEAST_WEIGHT = 0.02
#: Most points of the grid on the simplex, and most numbers of an array of errors.
MAX_POINTS = 2500
MAX_NUMBERS = 10_000_000


@dataclass
class HeldOutForecasts:
    """The forecasts of every candidate for held-out windows, and what was observed."""

    #: (windows, horizon, variables, candidates)
    forecasts: np.ndarray
    #: (windows, horizon, variables), NaN where not observed
    actual: np.ndarray
    #: (windows, variables): the size of a usual change; 0 where a window is not to be counted
    scale: np.ndarray
    #: (windows,): the number of the series
    series: np.ndarray

    def mean_errors(self, combinations: np.ndarray, first: int, last: int) -> np.ndarray:
        """Compute the mean scaled absolute error of combinations over some steps.

        ``combinations`` are weights (points, candidates). The result (windows, variables, points)
        is NaN where nothing was observed.
        """
        scale = np.where(self.scale > 0, self.scale, np.nan)[:, None]  # (windows, 1, variables)
        actual = self.actual[:, first:last] / scale  # (windows, steps, variables)
        forecasts = self.forecasts[:, first:last] / scale[..., None]
        chunk = max(1, MAX_NUMBERS // (actual[0].size * len(combinations)))
        out = []
        for row in range(0, len(actual), chunk):
            observed = actual[row : row + chunk, ..., None]  # (chunk, steps, variables, 1)
            errors = np.abs(forecasts[row : row + chunk] @ combinations.T - observed)
            out.append(observed_mean(errors, np.broadcast_to(observed, errors.shape), 1))
        return np.concatenate(out)

    def counts(self) -> np.ndarray:
        """Count the windows that score each step: (horizon,)."""
        scored = ~np.isnan(self.actual) & (self.scale > 0)[:, None]
        counts: np.ndarray = scored.any(axis=2).sum(axis=0)
        return counts


@dataclass
class Combination:
    """Weights of candidates by block of the horizon: of the panel, and of single series."""

    #: The first step of each block, from 0.
    blocks: np.ndarray
    #: (blocks, candidates)
    pooled: np.ndarray
    #: By series id: (variables, blocks, candidates).
    series: dict[Hashable, np.ndarray] = field(default_factory=dict)

    def weights(self, series_id: Hashable, horizon: int, variables: int) -> np.ndarray:
        """Return the weights of one series: (horizon, variables, candidates)."""
        blocks = np.searchsorted(self.blocks, np.arange(horizon), side="right") - 1
        own = self.series.get(series_id)
        if own is None:
            return np.repeat(self.pooled[blocks][:, None], variables, axis=1)
        return own.transpose(1, 0, 2)[blocks]

    def combine(self, windows: HeldOutForecasts, series_ids: Sequence[Hashable]) -> np.ndarray:
        """Combine the forecasts of windows: (windows, horizon, variables)."""
        horizon, variables = windows.actual.shape[1:]
        weights = np.stack(
            [self.weights(series_ids[number], horizon, variables) for number in windows.series]
        )
        combined: np.ndarray = (windows.forecasts * weights).sum(axis=-1)
        return combined

    def mean_weights(self) -> np.ndarray:
        """Return the weights averaged over blocks and series: (candidates,)."""
        if not self.series:
            pooled: np.ndarray = self.pooled.mean(axis=0)
            return pooled
        own: np.ndarray = np.mean([w.mean(axis=(0, 1)) for w in self.series.values()], axis=0)
        return own

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return {
            "blocks": self.blocks,
            "pooled": self.pooled,
            "ids": list(self.series),
            "series": np.stack(list(self.series.values())) if self.series else None,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], candidates: int, variables: int) -> "Combination":
        """Build the combination of some candidates from the output of `to_state`."""
        blocks, pooled, series = state["blocks"], state["pooled"], state["series"]
        n_blocks = len(blocks) if isinstance(blocks, np.ndarray) and blocks.ndim == 1 else 0
        own = (len(state["ids"]), variables, n_blocks, candidates)
        if (
            n_blocks == 0
            or blocks.dtype.kind != "i"
            or blocks[0] != 0
            or (np.diff(blocks) <= 0).any()
            or not _are_weights(pooled, (n_blocks, candidates))
            or not (series is None or _are_weights(series, own))
        ):
            raise ModelFormatError(
                f"the saved model's weights do not fit its {candidates} forecasts and {variables} "
                "variables: fit and save it again"
            )
        return cls(blocks, pooled, {} if series is None else dict(zip(state["ids"], series)))


def _are_weights(found: object, shape: tuple[int, ...]) -> bool:
    """Return whether a value is a finite array of a shape."""
    return isinstance(found, np.ndarray) and found.shape == shape and bool(np.isfinite(found).all())


def learn_combination(
    windows: HeldOutForecasts,
    series_ids: Sequence[Hashable],
    *,
    prior: np.ndarray | None = None,
    by_series: bool = True,
    independent: float = 1.0,
) -> Combination:
    """Learn the weights of candidates from held-out windows.

    Parameters
    ----------
    windows : HeldOutForecasts
        The forecasts of all candidates.
    series_ids : sequence of hashable
        The names of the series, by their numbers.
    prior : array (candidates,) or None, default=None
        The weights that few windows shrink to. None: equal weights.
    by_series : bool, default=True
        Whether a series with enough windows gets weights of its own.
    independent : float, default=1.0
        The share of the windows that counts; less than 1 where windows overlap.

    Returns
    -------
    Combination
        The prior where no window can be scored.

    Examples
    --------
    >>> import numpy as np
    >>> actual = np.random.default_rng(0).normal(size=(200, 2, 1))
    >>> forecasts = np.stack([actual, actual + 3.0], axis=-1)  # the first candidate is right
    >>> windows = HeldOutForecasts(forecasts, actual, np.ones((200, 1)), np.zeros(200, dtype=int))
    >>> learn_combination(windows, ["a"]).mean_weights().round(1).tolist()
    [1.0, 0.0]
    """
    grid = simplex_grid(windows.forecasts.shape[-1])
    horizon, variables = windows.actual.shape[1:]
    blocks = _first_steps(windows.counts())
    errors = [
        windows.mean_errors(grid, first, last)
        for first, last in itertools.pairwise([*blocks, horizon])
    ]  # (windows, variables, points) of each block
    pooled = np.stack(
        [_weights(e.reshape(-1, len(grid)), grid, prior, independent) for e in errors]
    )
    own = {}
    for number, series_id in enumerate(series_ids if by_series else ()):
        rows = windows.series == number
        if rows.sum() >= SERIES_WINDOWS and len(series_ids) * variables > 1:
            own[series_id] = np.stack(
                [
                    np.stack(
                        [_weights(e[rows, v], grid, shared) for e, shared in zip(errors, pooled)]
                    )
                    for v in range(variables)
                ]
            )
    return Combination(np.array(blocks), pooled, own)


def simplex_grid(candidates: int) -> np.ndarray:
    """List evenly spaced weights that sum to one: (points, candidates).

    The spacing is a tenth, or as fine as `MAX_POINTS` allow.

    Examples
    --------
    >>> simplex_grid(2)[:3].tolist()
    [[0.0, 1.0], [0.1, 0.9], [0.2, 0.8]]
    """
    for parts in range(10, 0, -1):
        bars = list(itertools.combinations(range(parts + candidates - 1), candidates - 1))
        if len(bars) <= MAX_POINTS or parts == 1:
            break
    edges = np.array(bars, dtype=int).reshape(len(bars), candidates - 1)
    left = np.full((len(bars), 1), -1)
    right = np.full((len(bars), 1), parts + candidates - 1)
    points: np.ndarray = (np.diff(np.concatenate([left, edges, right], axis=1)) - 1) / parts
    return points


def _first_steps(counts: np.ndarray) -> list[int]:
    """Cut the horizon into blocks that enough windows score: their first steps.

    The blocks double in length: errors change fastest at the first steps.
    """
    blocks, length = [0], 1
    while blocks[-1] + 2 * length <= len(counts):
        blocks.append(blocks[-1] + length)
        length *= 2
    return blocks if counts.min() >= BLOCK_WINDOWS else [0]


def _weights(
    errors: np.ndarray,
    grid: np.ndarray,
    prior: np.ndarray | None = None,
    independent: float = 1.0,
) -> np.ndarray:
    """Weigh candidates by the errors (windows, points) of the grid: (candidates,).

    ``prior`` are the weights to shrink to; None: equal weights. ``independent`` is the share of the
    windows that counts.
    """
    if prior is None:
        prior = np.full(grid.shape[1], 1 / grid.shape[1])
    errors = errors[~np.isnan(errors).any(axis=1)]
    count = len(errors) * independent
    loss = errors.mean(axis=0) if len(errors) else np.zeros(len(grid))
    if not loss.min() > 0:  # no window, or a combination without any error
        found = prior if not len(errors) else grid[loss == loss.min()].mean(axis=0)
    else:
        excess = loss / loss.min() - 1
        chance = np.exp(-SHARPNESS * count * excess)
        found = chance @ grid / chance.sum()
    # A prior that is far worse than the best combination is no prior to shrink to.
    worse = _excess(loss, grid, prior)
    strength = PRIOR_STRENGTH / (1 + PRIOR_DECAY * count * worse)
    share = count / (count + strength)
    mixed = share * found + (1 - share) * prior
    kept = np.where(mixed < min(LEAST_WEIGHT, mixed.max()), 0.0, mixed)
    weights: np.ndarray = kept / kept.sum()
    return weights


def _excess(loss: np.ndarray, grid: np.ndarray, prior: np.ndarray) -> float:
    """Return the share by which the error of the prior's nearest point is above the lowest one."""
    nearest = int(np.abs(grid - prior).sum(axis=1).argmin())
    if not loss[nearest] > 0:
        return 0.0
    return float(loss[nearest] / loss.min() - 1) if loss.min() > 0 else np.inf
