"""What all parts of an event forecaster share: a method's hooks, and tables as it reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.backbone import Backbone
from tsllm.datasets.events import EventTable, read_events
from tsllm.errors import DataError
from tsllm.events.arguments import at_each_sequence
from tsllm.events.batching import EventWindows, last_times


class EventCore(BaseEstimator, ABC):
    """The hooks of a method, documented in `tsllm.events.base`, and what is built on them alone."""

    # The common constructor arguments; a subclass's constructor stores them.
    id_col: str
    time_col: str
    type_col: str
    time_unit: str
    sort: bool
    ties: str
    resolution: float | None
    random_state: int | np.random.RandomState | None

    _dtype: ClassVar[torch.dtype] = torch.float32
    _rows_at_once: int = 64

    # ------------------------------------------------------------------ the hooks of a method

    @abstractmethod
    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        """Learn from a table; ``validation`` is for early stopping."""

    @abstractmethod
    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        """Give the decoder and the states at every position; stateless and thread-safe."""

    def _context_length(self) -> int | None:
        """Tell how many last events the model reads; None: all."""
        return None

    def _device(self) -> torch.device:
        """Tell where `_encode` wants its batches."""
        return torch.device("cpu")

    def _longest_wait(self) -> float | None:
        """Tell how far from now on, in scaled time, the next event can be known; None: however."""
        return None

    def _advance(self, new: EventTable) -> None:
        """Move a running state over new events, which ``history_`` holds already."""

    def _latest_states(self) -> tuple[EventDecoder, EventStates] | None:
        """Give the state after the last event of each sequence of ``history_``; None: encode."""
        return None

    def _running_tensors(self) -> dict[str, torch.Tensor]:
        """Write running states that ``history_`` does not tell, for saving."""
        return {}

    def _restore_running(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Read what `_running_tensors` wrote, after all else; empty where there was none."""

    def _load_backbone(self) -> Backbone | None:
        """Find the language model that the parameters name; None: there is none."""
        return None

    def _fine_tuned(self) -> Self | None:
        """Give an unfitted estimator whose `partial_fit` trains all of it on; None: no such."""
        return None

    # Set in fitting, see `EventForecaster`.
    classes_: np.ndarray
    time_scale_: float
    resolution_: float
    mean_gap_: float
    median_gap_: float
    type_counts_: np.ndarray
    transition_counts_: np.ndarray
    n_events_: int
    history_: EventTable

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")  # what fitting sets last

    # ------------------------------------------------------------------ reading

    def _read(self, events: Any, *, windows: Any = None) -> EventTable:
        """Read what the user passed, with the columns that the constructor names."""
        return read_events(
            events,
            id_col=self.id_col,
            time_col=self.time_col,
            type_col=self.type_col,
            windows=windows,
            sort=self.sort,
            ties=self.ties,
            resolution=self.resolution,
            time_unit=self.time_unit,
            random_state=self._seed(),
        )

    def _windows(self, table: EventTable, t_start: Any = None, t_end: Any = None) -> EventWindows:
        """Cut a table into the rows that the model reads."""
        length = self._context_length()
        return EventWindows(
            table,
            self.classes_,
            self.time_scale_,
            length=length,
            overlap=0 if length is None else length // 2,
            t_start=at_each_sequence(table, t_start, "t_start"),
            t_end=at_each_sequence(table, t_end, "t_end"),
            resolution=self.resolution_,
            dtype=self._dtype,
        )

    def _table(self, history: Any, windows: Any) -> EventTable:
        """Read a history; None is what `fit` and `update` were given."""
        if history is not None:
            return self._read(history, windows=windows)
        if windows is not None:
            raise DataError("windows belongs to a history, and none is passed")
        if not len(self.history_):
            raise DataError(
                "the model was saved without its history: pass a history, or update(events) first"
            )
        return self.history_

    def _known(
        self, history: Any, now: Any, windows: Any
    ) -> tuple[EventTable, np.ndarray, np.ndarray]:
        """Read what is known: the table, each sequence's scaled wait and its last event's time."""
        table = self._table(history, windows)
        base = last_times(table)
        if np.isnan(base).any():
            name = table.ids[int(np.isnan(base).argmax())]
            raise DataError(
                f"sequence {name!r} has no events and no known start, so there is nothing to "
                "predict from: pass windows with its start"
            )
        moments = at_each_sequence(table, now, "now")
        current = np.where(np.isnan(table.ends), base, table.ends)
        if moments is not None:
            current = np.where(np.isnan(moments), current, moments)
        if (current < base).any():
            at = int((current < base).argmax())
            raise DataError(
                f"now={table.clock.to_stamp(current[at])} lies before the last event of sequence "
                f"{table.ids[at]!r}, {table.clock.to_stamp(base[at])}: leave later events out of "
                "the history"
            )
        return table, (current - base) / self.time_scale_, base

    def _seed(self) -> int:
        """Draw the seed of one call from ``random_state``."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
