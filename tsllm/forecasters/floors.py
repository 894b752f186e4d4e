"""A floor under forecasts: counts do not fall below zero, and nor do their quantiles."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from tsllm.arguments import shown
from tsllm.context import Context
from tsllm.datasets.checks import LARGEST
from tsllm.errors import DataError

#: Fewest observed values that can show that a series is a count.
LEAST_OBSERVED = 10
#: Zeros that show that a series stops at zero. One may be chance.
LEAST_ZEROS = 2


def check_floor(floor: Any) -> None:
    """Check the argument ``floor``: a number, "auto" or None."""
    number = isinstance(floor, Real) and not isinstance(floor, bool)
    fits = number and -LARGEST <= floor <= LARGEST  # NaN does not
    if not (fits or floor is None or (isinstance(floor, str) and floor == "auto")):
        raise DataError(f"floor must be a number, 'auto' or None, found {shown(floor)}")


def never_negative(values: np.ndarray) -> np.ndarray:
    """Return which variables of a series (time, variables) have no negative value: (variables,)."""
    found: np.ndarray = ~np.any(values < 0, axis=0)  # NaN is not observed
    return found


def stops_at_zero(values: np.ndarray) -> np.ndarray:
    """Return which variables of a series (time, variables) show that they end at zero.

    They have no negative value and at least ten others, which are whole numbers or hold at least
    two zeros. A quantity that may be negative, such as a temperature, seldom meets this by chance:
    it would have to reach zero again and again without crossing it.

    Examples
    --------
    >>> import numpy as np
    >>> steps = np.arange(12.0)
    >>> stops_at_zero(np.stack([steps, steps + 0.5, np.maximum(steps - 4.5, 0), steps - 1], axis=1))
    array([ True, False,  True, False])
    """
    observed = np.isfinite(values)
    enough = observed.sum(axis=0) >= LEAST_OBSERVED
    known = np.where(observed, values, 1.0)  # a whole number above zero
    whole = (known == np.rint(known)).all(axis=0)
    zeros = (known == 0).sum(axis=0) >= LEAST_ZEROS
    found: np.ndarray = never_negative(values) & enough & (whole | zeros)
    return found


def mostly_stop_at_zero(series: Sequence[np.ndarray]) -> np.ndarray:
    """Return which variables stop at zero in more than half of some series: (variables,).

    Series without an observed value do not count.
    """
    shows = np.stack([stops_at_zero(values) for values in series])  # (series, variables)
    counts = np.stack([np.isfinite(values).any(axis=0) for values in series])
    found: np.ndarray = shows.sum(axis=0) * 2 > counts.sum(axis=0)
    return found


def with_known_floors(contexts: Sequence[Context], mostly: np.ndarray | None) -> list[Context]:
    """Record in whole series which variables stop at zero, before their first steps are dropped.

    ``mostly`` are those that do in most series of the fit; see `has_floor`.
    """
    return [
        replace(one, stops_at_zero=has_floor(one.values, one.stops_at_zero, mostly))
        for one in contexts
    ]


def has_floor(
    values: np.ndarray, known: np.ndarray | None, mostly: np.ndarray | None
) -> np.ndarray:
    """Return which variables of a series (time, variables) have the floor zero: (variables,).

    ``known`` is what was recorded of the series. Without it the values decide, and ``mostly`` for a
    series that shows too little. A negative value overrules both.
    """
    if known is not None:
        stops = known
    elif mostly is None:
        stops = stops_at_zero(values)
    else:
        stops = mostly if mostly.all() else mostly | stops_at_zero(values)
    return stops & never_negative(values)


def at_or_above(
    forecasts: np.ndarray,
    histories: Sequence[np.ndarray],
    floor: float | str | None,
    *,
    known: Sequence[np.ndarray | None] | None = None,
    mostly: np.ndarray | None = None,
) -> np.ndarray:
    """Raise forecasts below the floor to it; the others stay as they are.

    A quantile that is raised to a floor that no value falls below keeps its coverage.

    Parameters
    ----------
    forecasts : array (series, horizon, variables, 1 + quantiles)
        Points and quantiles.
    histories : sequence of array (time, variables)
        What is known of each series.
    floor : float, "auto" or None
        "auto": zero, for variables that stop at zero; see `stops_at_zero`. None: no floor.
    known : sequence of array (variables,) or None, default=None
        Which variables of each series stop at zero, where that is known from more than its history.
    mostly : array (variables,) or None, default=None
        Which variables stop at zero in most series of the fit. It decides for a series that shows
        neither this nor a negative value, for example one that has begun lately.

    Returns
    -------
    array (series, horizon, variables, 1 + quantiles)
    """
    if floor is None:
        return forecasts
    if not isinstance(floor, str):
        return np.maximum(forecasts, float(floor))
    below: np.ndarray = np.any(forecasts < 0, axis=(1, 3))  # (series, variables)
    if not below.any():
        return forecasts
    raised = np.zeros_like(below)
    for row in np.flatnonzero(below.any(axis=1)).tolist():
        own = None if known is None else known[row]
        raised[row] = below[row] & has_floor(histories[row], own, mostly)
    return np.where(raised[:, None, :, None], np.maximum(forecasts, 0.0), forecasts)
