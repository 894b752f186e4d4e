"""Sentences with the dates of a segment, for a language model (AutoTimes, section 3.1)."""

import pandas as pd

from tsllm.context import Context
from tsllm.datasets.frequency import future_times


def segment_sentences(times: pd.Index, token: int) -> list[str]:
    """Write the sentence of the segment of ``token`` steps that starts at each step of a series.

    The last segments end with the series.

    Examples
    --------
    >>> segment_sentences(pd.period_range("2000-01", periods=3, freq="M"), 2)[:2]
    ['This is Time Series from 2000-01 to 2000-02', 'This is Time Series from 2000-02 to 2000-03']
    """
    stamps = _stamp_texts(times)
    last = len(stamps) - 1
    return [_sentence(stamps[i], stamps[min(i + token - 1, last)]) for i in range(len(stamps))]


def context_sentences(
    context: Context,
    n_tokens: int,
    *,
    token_length: int,
    context_length: int,
    freq: str | None = None,
) -> list[str]:
    """Write the sentences of the ``n_tokens`` segments of a context and of its forecast.

    If a context is shorter than ``context_length``, the missing steps are at its start. ``freq`` is
    used if its stamps have no frequency.
    """
    padding = context_length - len(context)
    ahead = n_tokens * token_length - context_length
    stamps = _stamp_texts(context.times)
    if ahead > 0:
        known = getattr(context.times, "freq", None) or freq
        stamps += _stamp_texts(future_times(context.times[-1], known, ahead))
    sentences = []
    for k in range(n_tokens):
        first, last = (max(0, k * token_length + step - padding) for step in (0, token_length - 1))
        sentences.append(_sentence(stamps[first], stamps[last]))
    return sentences


def _sentence(first: str, last: str) -> str:
    return f"This is Time Series from {first} to {last}"


def _stamp_texts(times: pd.Index) -> list[str]:
    """Write stamps as text; integers count steps."""
    if isinstance(times, pd.DatetimeIndex):
        return times.strftime("%Y-%m-%d %H:%M:%S").tolist()
    if isinstance(times, pd.PeriodIndex):
        return times.astype(str).tolist()
    return [f"step {i}" for i in times]
