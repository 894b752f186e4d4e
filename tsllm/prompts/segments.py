"""The sentences that tell the language model a segment's dates (AutoTimes, section 3.1)."""

from __future__ import annotations

import pandas as pd

from tsllm.context import Context
from tsllm.forecasters.frames import stamps_after
from tsllm.forecasters.state import ModelShape


def segment_sentences(times: pd.Index, token: int) -> list[str]:
    """Write the sentence of the segment that starts at each step of a series.

    Parameters
    ----------
    times : Index
        The stamps of the series.
    token : int
        Steps of a segment; the last segments end with the series.

    Returns
    -------
    list of str
        One per step.

    Examples
    --------
    >>> segment_sentences(pd.period_range("2000-01", periods=3, freq="M"), 2)[:2]
    ['This is Time Series from 2000-01 to 2000-02', 'This is Time Series from 2000-02 to 2000-03']
    """
    stamps = _stamp_texts(times)
    last = len(stamps) - 1
    return [_sentence(stamps[i], stamps[min(i + token - 1, last)]) for i in range(len(stamps))]


def context_sentences(context: Context, shape: ModelShape, n_tokens: int) -> list[str]:
    """Write the sentences of a context's segments and of the forecast ones after it.

    Parameters
    ----------
    context : Context
        At most as long as the model's; what it lacks is at its start.
    shape : ModelShape
        Of the model: lengths of context and token, frequency.
    n_tokens : int
        Segments of the context and of the forecast together.

    Returns
    -------
    list of str
        ``n_tokens`` of them.
    """
    token = shape.extra["token_length"]
    padding = shape.context_length - len(context)
    ahead = n_tokens * token - shape.context_length
    stamps = _stamp_texts(context.times)
    if ahead > 0:
        stamps += _stamp_texts(stamps_after(context, ahead, freq=shape.freq))
    sentences = []
    for k in range(n_tokens):
        first, last = (max(0, k * token + step - padding) for step in (0, token - 1))
        sentences.append(_sentence(stamps[first], stamps[last]))
    return sentences


def _sentence(first: str, last: str) -> str:
    return f"This is Time Series from {first} to {last}"


def _stamp_texts(times: pd.Index) -> list[str]:
    """Write stamps as text; integer indexes count steps."""
    if isinstance(times, pd.DatetimeIndex):
        return times.strftime("%Y-%m-%d %H:%M:%S").tolist()
    if isinstance(times, pd.PeriodIndex):
        return times.astype(str).tolist()
    return [f"step {i}" for i in times]
