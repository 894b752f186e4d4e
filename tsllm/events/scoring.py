"""Measures of fit: likelihoods, residuals and predictions at every scored interval."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates, length_buckets
from tsllm.adapters.events.decoders.base import EventDecoder, log_likelihood
from tsllm.datasets.events import EventTable
from tsllm.errors import NotEnoughDataError
from tsllm.events.batching import Intervals
from tsllm.events.encoding import FittedModel
from tsllm.events.predicting import predict_at_positions

Measure = Callable[[EventDecoder, EventStates, EventBatch], Sequence[Tensor]]
#: Positions of one batch: memory grows with this times quadrature nodes times types.
POSITIONS_AT_ONCE = 16384


def measure_intervals(
    model: FittedModel, table: EventTable, measure: Measure, t_start: Any, t_end: Any
) -> tuple[Intervals, list[np.ndarray]]:
    """Compute a measure at every scored interval of a table.

    ``measure(decoder, states, batch)`` returns tensors (batch, positions, ...).

    Returns
    -------
    intervals : Intervals
        The n scored intervals, sequence by sequence in order of time.
    values : list of float array (n, ...)
        The measured tensors.
    """
    windows = model.rows(table, t_start, t_end)
    rows, positions, values = [], [], []
    wanted = np.flatnonzero(windows.scored)
    groups = length_buckets(
        windows.lengths[wanted], batch_size=model.rows_at_once, max_tokens=POSITIONS_AT_ONCE
    )
    for group in groups:
        indices = wanted[group.numpy()]
        batch = windows.gather(indices).to(model.device)
        with torch.no_grad():
            decoder, states = model.encode(batch)
            measured = measure(decoder, states, batch)
        scored = batch.scored.cpu()
        row, position = scored.nonzero(as_tuple=True)
        rows.append(indices[row.numpy()])
        positions.append(position.numpy())
        values.append([one.cpu()[scored].double().numpy() for one in measured])
    if not rows:
        raise NotEnoughDataError(
            "nothing can be scored: no sequence has two events or a known window in the time "
            f"between t_start={t_start} and t_end={t_end}"
        )
    intervals = windows.intervals(np.concatenate(rows), np.concatenate(positions))
    order = np.lexsort((intervals.number, intervals.sequence))
    arranged = Intervals(*(one[order] for one in intervals))
    return arranged, [np.concatenate(one)[order] for one in zip(*values)]


def interval_frame(model: FittedModel, table: EventTable, intervals: Intervals) -> pd.DataFrame:
    """Write intervals in the user's names: sequence, time of the end, type of the event."""
    names = table.names
    ids = table.windows()[names.id_col].iloc[intervals.sequence].reset_index(drop=True)
    types = np.array([*model.classes, None], dtype=object)[intervals.code]
    return pd.DataFrame(
        {
            names.id_col: ids,
            names.time_col: table.clock.to_stamp(intervals.end),
            names.type_col: types,
        }
    )


def sums_by_sequence(
    table: EventTable, intervals: Intervals, log_likelihoods: np.ndarray
) -> pd.DataFrame:
    """Count the events and sum the log-likelihoods of each sequence."""
    size = len(table)
    frame = table.windows()[[table.names.id_col]]
    frame["events"] = np.bincount(intervals.sequence[intervals.observed], minlength=size)
    frame["log_likelihood"] = np.bincount(intervals.sequence, log_likelihoods, minlength=size)
    return frame


def residuals_by_type(
    frame: pd.DataFrame, intervals: Intervals, increments: np.ndarray, classes: np.ndarray
) -> pd.DataFrame:
    """Sum the increments (n, types) from one event of a type to the next, in an interval frame."""
    id_col, time_col, type_col = frame.columns
    parts = []
    for code, name in enumerate(classes):
        own = intervals.code == code
        last = np.append(np.diff(intervals.sequence) != 0, True)
        # Each row adds up the increments since the row kept before it, or the sequence's start.
        kept = own | last
        sums = np.diff(np.concatenate([[0.0], increments[:, code].cumsum()[kept]]))
        part = frame.loc[kept, [id_col, time_col]]
        parts.append(part.assign(**{type_col: name}, residual=sums, observed=own[kept]))
    whole = pd.concat(parts) if parts else frame
    order = np.argsort(whole.index.to_numpy(), kind="stable")
    return whole.iloc[order].reset_index(drop=True)


def log_likelihoods(decoder: EventDecoder, states: EventStates, batch: EventBatch) -> tuple[Tensor]:
    """Compute each interval's log-likelihood in scaled time: (batch, positions)."""
    return (log_likelihood(decoder, states, batch),)


def expected_events(
    decoder: EventDecoder, states: EventStates, batch: EventBatch
) -> tuple[Tensor, Tensor]:
    """Compute expected events, and probabilities at the end: (batch, positions, types) each."""
    ends = torch.stack([batch.lower, batch.elapsed], -1)  # (batch, positions, 2)
    lower, upper = decoder.compensators(states, ends).unbind(2)
    types = decoder.type_log_probabilities(states, batch.elapsed[..., None])[:, :, 0].exp()
    return upper - lower, types


def predictions(
    decoder: EventDecoder,
    states: EventStates,
    batch: EventBatch,
    *,
    longest: float | None = None,
) -> tuple[Tensor, ...]:
    """Compute log-likelihood, given part, predicted mean, median and types of each interval."""
    predicted = predict_at_positions(decoder, states, batch, longest)
    return (log_likelihood(decoder, states, batch), batch.lower, *predicted)
