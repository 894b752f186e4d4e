"""In-context forecasting: which past segments the model is shown before the lookback."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.errors import DataError

STRATEGIES = ("earliest", "recent_period", "similar")


def prepend_prompt(
    context: Context,
    in_context: str | np.ndarray | pd.DataFrame,
    *,
    prompt_length: int,
    lookback: int,
    token_length: int,
    season: int,
) -> Context:
    """Put a prompt of earlier steps before the lookback (AutoTimes, §3.3 and appendix).

    Parameters
    ----------
    context : Context
        The whole known past of a series.
    in_context : {"earliest", "recent_period", "similar"} or array (steps, variables)
        ``"earliest"``: the first steps of the series. ``"recent_period"``: the latest steps before
        the lookback that begin in the same phase of the season as it does (simply the latest ones
        where the history holds none such). ``"similar"``: the past
        window that correlates best with the lookback, and what followed it. An array: the last
        steps of that series, brought to the lookback's mean and standard deviation.
    prompt_length, lookback, token_length, season : int
        Steps.

    Returns
    -------
    Context
        At most ``prompt_length + lookback`` steps; where the history is too short for a prompt of
        its own, simply the last steps.
    """
    recent = context.tail(lookback)
    if not isinstance(in_context, str):
        return _with_foreign_prompt(recent, in_context, prompt_length)
    if in_context not in STRATEGIES:
        raise DataError(
            f"in_context must be None, one of {', '.join(STRATEGIES)} or an array of values, "
            f"found {in_context!r}"
        )
    free = len(context) - lookback  # steps before the lookback
    if free <= prompt_length:
        return context.tail(prompt_length + lookback)
    if in_context == "earliest":
        begin = 0
    elif in_context == "recent_period":
        back = -(-prompt_length // season) * season  # whole seasons that hold the prompt
        begin = free - (back if back <= free else prompt_length)
    else:
        begin = _most_similar(context, free, prompt_length, lookback, token_length)
    rows = np.r_[begin : begin + prompt_length, free : len(context)]
    return context.with_values(context.values[rows], times=context.times[rows])


def _most_similar(
    context: Context, free: int, prompt_length: int, lookback: int, token_length: int
) -> int:
    """Find where the past window begins that correlates best with the lookback's end.

    The prompt holds that window and what followed it, so the window leaves room for one token.
    """
    compared = min(lookback, max(token_length, prompt_length - token_length), prompt_length)
    target = context.values[-compared:]  # (compared, variables)
    past = np.lib.stride_tricks.sliding_window_view(
        context.values[: free - prompt_length + compared], compared, axis=0
    )  # (begins, variables, compared)
    similarity = np.zeros(len(past))
    for variable in range(context.n_variables):
        similarity += _correlations(past[:, variable], target[:, variable])
    return int(np.argmax(similarity))


def _correlations(windows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Correlate every row with a target over the steps that both observed; -1 where undefined."""
    both = ~np.isnan(windows) & ~np.isnan(target)  # (windows, steps)
    count = np.maximum(both.sum(axis=1), 1)
    x = np.where(both, windows, 0.0)
    y = np.where(both, target, 0.0)
    mean_x, mean_y = x.sum(axis=1) / count, y.sum(axis=1) / count
    x = np.where(both, x - mean_x[:, None], 0.0)
    y = np.where(both, y - mean_y[:, None], 0.0)
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.where(norm > 0, (x * y).sum(axis=1) / np.where(norm > 0, norm, 1.0), -1.0)


def _with_foreign_prompt(
    recent: Context, prompt: np.ndarray | pd.DataFrame, prompt_length: int
) -> Context:
    """Put another series' steps before the lookback, in the lookback's units."""
    values = np.asarray(prompt, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != recent.n_variables or len(values) < prompt_length:
        raise DataError(
            f"in_context must hold at least {prompt_length} steps of {recent.n_variables} "
            f"variable(s), found an array of shape {values.shape}"
        )
    values = values[-prompt_length:]
    spread = np.nanstd(values, axis=0)
    standard = (values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, 1.0)
    values = standard * np.nanstd(recent.values, axis=0) + np.nanmean(recent.values, axis=0)
    # It has no dates of its own in this series: its stamps are the first one of the lookback.
    return recent.with_values(
        np.concatenate([values, recent.values]),
        times=recent.times[np.r_[np.zeros(prompt_length, dtype=int), : len(recent)]],
    )
