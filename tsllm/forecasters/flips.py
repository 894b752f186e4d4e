"""Whether series rise and fall alike, so that they may be turned upside down."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tsllm.context import Context

#: The rarer of the two directions takes at least so large a share of the windows. Chosen on what
#: lies before the test parts of nine sets (benchmarks/flips.py).
RARER_SHARE = 1 / 3


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
        if len(seen) < context_length + target_length:
            continue
        windows = sliding_window_view(seen, context_length + target_length, axis=0)
        # Counted back from the end: (windows, variables, context + target)
        windows = windows[::-1][::target_length]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing observed in a part of one
            before = np.nanmean(windows[..., :context_length], axis=-1)  # (windows, variables)
            after = np.nanmean(windows[..., context_length:], axis=-1)
        rises += int((after > before).sum())
        falls += int((after < before).sum())
    return rises + falls > 1 and min(rises, falls) >= RARER_SHARE * (rises + falls)
