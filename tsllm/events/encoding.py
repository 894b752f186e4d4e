"""The fitted model of an event forecaster, as predictions, futures and scores use it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from tsllm.adapters.events.batch import EventBatch
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import at_each_sequence
from tsllm.events.batching import EventWindows, last_events, last_times
from tsllm.events.sampling import Encode, Paths

#: Longest time after the last event, in the model's units, in which a further unit is not lost.
MAX_SILENCE = 1e9


@dataclass(frozen=True)
class FittedModel:
    """A fitted event model: its encoder and decoder, its units, and the batches that it reads."""

    #: Map an `EventBatch` to ``(decoder, states)``.
    encode: Encode
    #: Map an `EventBatch` and a number of copies to `Paths`.
    start_paths: Callable[[EventBatch, int], Paths]
    #: (types,): The event types.
    classes: np.ndarray
    #: In the unit of the table's times.
    time_scale: float
    resolution: float
    #: Number of last events that the model reads. None: all.
    context_length: int | None
    #: Scaled time from now on within which the next event can be predicted. None: no limit.
    longest: float | None
    #: Device of the batches.
    device: torch.device
    #: Type of the times in the batches.
    dtype: torch.dtype
    #: Rows of a batch.
    rows_at_once: int

    def rows(self, table: EventTable, t_start: Any = None, t_end: Any = None) -> EventWindows:
        """Cut a table into rows of at most ``context_length`` events that overlap by half."""
        length = self.context_length
        return EventWindows(
            table,
            self.classes,
            self.time_scale,
            length=length,
            overlap=0 if length is None else length // 2,
            t_start=at_each_sequence(table, t_start, "t_start"),
            t_end=at_each_sequence(table, t_end, "t_end"),
            resolution=self.resolution,
            dtype=self.dtype,
        )

    def last_rows(self, table: EventTable) -> EventWindows:
        """Make one row of the last events of each sequence."""
        return self.rows(last_events(table, self.context_length))


class Origin(NamedTuple):
    """The sequences that a forecast continues, and the time from which it starts."""

    table: EventTable
    #: (sequences,): Time of the last event, or of the window's start, in the table's numbers.
    last: np.ndarray
    #: (sequences,): Scaled time from there to now, without an event.
    elapsed: np.ndarray

    @property
    def sequences(self) -> pd.Index:
        """Return the sequences' names as an index with the user's name."""
        return pd.Index(self.table.windows()[self.table.names.id_col])


def forecast_origin(table: EventTable, now: Any, time_scale: float) -> Origin:
    """Find the time from which each sequence is predicted; see `EventForecaster` for ``now``."""
    last = last_times(table)
    if np.isnan(last).any():
        name = table.ids[int(np.isnan(last).argmax())]
        raise DataError(
            f"sequence {name!r} has no events and no known start, so there is nothing to "
            "predict from: pass windows with its start"
        )
    current = np.where(np.isnan(table.ends), last, table.ends)
    moments = at_each_sequence(table, now, "now")
    if moments is not None:
        current = np.where(np.isnan(moments), current, moments)
    if (current < last).any():
        at = int((current < last).argmax())
        raise DataError(
            f"now={table.clock.to_stamp(current[at])} lies before the last event of sequence "
            f"{table.ids[at]!r}, {table.clock.to_stamp(last[at])}: leave later events out of "
            "the history"
        )
    elapsed = (current - last) / time_scale
    far = ~(elapsed <= MAX_SILENCE)
    if far.any():
        at = int(far.argmax())
        raise DataError(
            f"now lies {current[at] - last[at]:.3g} after the last event of sequence "
            f"{table.ids[at]!r}, which is beyond all that a model can tell: pass an earlier now, "
            "or a later history"
        )
    return Origin(table, last, elapsed)
