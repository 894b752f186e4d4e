"""Whether series rise and fall alike, so that they may be turned upside down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsllm.adapters.layers import mirrored
from tsllm.context import Context
from tsllm.errors import DataError

#: The rarer of the two directions takes at least so large a share of the windows. Chosen on what
#: lies before the test parts of nine sets (benchmarks/flips.py).
RARER_SHARE = 1 / 3


def choose_flips(
    forecaster: Any, contexts: Sequence[Context], *, context_length: int, target_length: int
) -> bool:
    """Choose whether a forecaster's model is to treat series upside down as it treats them.

    Parameters
    ----------
    forecaster : forecaster
        With ``flip_invariance``, ``loss``, ``quantiles`` and ``validation_fraction``.
    contexts : sequence of Context
        The series that it is fitted on, whole.
    context_length, target_length : int
        Steps of a training window, and of what follows it.

    Raises
    ------
    DataError
        A value that is none of True, False and "auto", or quantile levels that cannot be turned
        over where that is asked for.
    """
    flips = forecaster.flip_invariance
    if flips != "auto" and not isinstance(flips, bool):
        raise DataError(f"flip_invariance must be True, False or 'auto', found {flips!r}")
    possible = forecaster.loss != "quantile" or mirrored(forecaster.quantiles)
    if flips is True and not possible:
        raise DataError(
            "flip_invariance=True needs quantiles that mirror around 0.5, found "
            f"{forecaster.quantiles!r}: complete them, or set flip_invariance=False"
        )
    if flips != "auto":
        return bool(flips)
    return possible and rises_and_falls_alike(
        contexts,
        context_length=context_length,
        target_length=target_length,
        held_out=forecaster.validation_fraction,
    )


def rises_and_falls_alike(
    contexts: Sequence[Context], *, context_length: int, target_length: int, held_out: float
) -> bool:
    """Tell whether what follows a window lies above it about as often as below it.

    A model that treats a series and the same series turned upside down alike cannot know that
    a series only ever grows. On series that rise and fall alike it loses nothing by that, and has
    half as much to learn.

    Parameters
    ----------
    contexts : sequence of Context
        The series; each variable counts as a series of its own.
    context_length, target_length : int
        Steps of a window, and of what follows it. Windows are laid so that these do not overlap.
    held_out : float
        Share of each series, at its end, that is not looked at.

    Returns
    -------
    bool
        False also where the series are too short for two windows.

    Examples
    --------
    >>> import numpy as np
    >>> from tsllm import Context
    >>> sizes = {"context_length": 8, "target_length": 4, "held_out": 0.0}
    >>> steps = np.arange(200.0)
    >>> rises_and_falls_alike([Context(np.sin(steps / 3))], **sizes)
    True
    >>> rises_and_falls_alike([Context(np.sin(steps / 3) + steps)], **sizes)
    False
    """
    rises = falls = 0
    for context in contexts:
        seen = context.values[: round(len(context) * (1 - held_out))]  # (time, variables)
        # From sums up to each step, so that long series of short windows cost no more than others.
        observed = np.isfinite(seen)
        count = np.cumsum(np.pad(observed, ((1, 0), (0, 0))), axis=0)  # (time + 1, variables)
        some = np.where(observed, seen, np.inf).min(axis=0, initial=np.inf)  # (variables,)
        moved = np.where(observed, seen - np.where(np.isfinite(some), some, 0.0), 0.0)
        total = np.cumsum(np.pad(moved, ((1, 0), (0, 0))), axis=0)
        least = 1e-9 * moved.max(axis=0, initial=0.0)  # less than this is rounding, not movement
        ends = np.arange(len(seen), context_length + target_length - 1, -target_length)
        starts = ends - target_length
        with np.errstate(invalid="ignore"):  # nothing observed in a part of one: neither way
            before = _mean(total, count, starts - context_length, starts)  # (windows, variables)
            after = _mean(total, count, starts, ends)
        rises += int((after - before > least).sum())
        falls += int((before - after > least).sum())
    return rises + falls > 1 and min(rises, falls) >= RARER_SHARE * (rises + falls)


def _mean(total: np.ndarray, count: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Average what is observed of some spans, from running sums."""
    return (total[last] - total[first]) / (count[last] - count[first])
