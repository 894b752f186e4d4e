"""Futures as an event forecaster sees them: samples, counts, and whole simulated sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from tsllm.adapters.events.batch import EventBatch
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import checked_count, checked_levels, duration_in_numbers, in_chunks
from tsllm.events.batching import last_events
from tsllm.events.core import EventCore
from tsllm.events.sampling import (
    Futures,
    Paths,
    ReencodedPaths,
    copies_of,
    draw_futures,
    sequence_generator,
)

#: Futures that are drawn at once.
PATHS_AT_ONCE = 1024


class SimulatesEvents(EventCore):
    """The part of `EventForecaster` that draws futures.

    What is known is passed as in `PredictsEvents`: ``history``, ``windows``, ``now``. All draws
    come from ``random_state``, with one generator per sequence: a sequence has the same futures
    alone and beside others.
    """

    def _start_paths(self, batch: EventBatch, copies: int) -> Paths:
        """Give paths that continue histories, so many from each; see `Paths`."""
        rows = copies_of(len(batch), copies, batch.types.device)
        return ReencodedPaths(self._encode, batch.select(rows), self._context_length())

    def predict_count(
        self,
        window: Any,
        history: Any = None,
        *,
        levels: Sequence[float] = (0.1, 0.5, 0.9),
        now: Any = None,
        windows: Any = None,
        n_paths: int = 256,
    ) -> pd.DataFrame:
        """Predict how many events of each type come within some time.

        Parameters
        ----------
        window : duration, or pair of times
            A duration from ``now`` on (a number; for timestamps a Timedelta, a text like "1D", or a
            number of ``time_unit``), or a pair ``(start, end)`` of times not before ``now``: the
            events in ``(start, end]`` are counted.
        history, now, windows : optional
            What is known, see `PredictsEvents`.
        levels : sequence of float
            Probability levels of the quantile columns.
        n_paths : int
            Futures to sample of each sequence.

        Returns
        -------
        DataFrame
            A row per sequence and type, and one with the type "all" for all events: the ``mean``
            count, its quantiles and ``none``, the probability of none.

        Raises
        ------
        DataError
            Bad arguments, or a window that begins before ``now``.
        """
        check_is_fitted(self)
        levels = checked_levels(levels)
        table, waited, base = self._known(history, now, windows)
        current = base + waited * self.time_scale_
        if isinstance(window, tuple | list):
            if len(window) != 2:
                raise DataError(
                    f"window must be a duration or a pair (start, end), found {window!r}"
                )
            opens, closes = np.asarray(table.clock.to_number(list(window)), dtype=np.float64)
            if not closes > opens or (opens < current).any():
                raise DataError(
                    f"window={window!r} must start no earlier than now, "
                    f"{table.clock.to_stamp(current.max())}, and end later than it starts"
                )
            start, end = np.full(len(table), opens), np.full(len(table), closes)
        else:
            start, end = current, current + duration_in_numbers(table.clock, window, "window")
        k, names = len(self.classes_), table.names
        opens, until = (start - base) / self.time_scale_, (end - base) / self.time_scale_
        counts = np.empty((len(table), k + 1, checked_count("n_paths", n_paths)), dtype=np.int64)
        for places, futures in self._futures(table, waited, n_paths, until=until):
            inside = np.isfinite(futures.elapsed) & (futures.elapsed > opens[places, None, None])
            for code in range(k):
                counts[places, code] = (inside & (futures.types == code)).sum(-1)
            counts[places, k] = inside.sum(-1)
        ids = table.windows()[names.id_col]
        frame = pd.DataFrame({names.id_col: ids.repeat(k + 1).reset_index(drop=True)})
        frame[names.type_col] = np.tile(np.append(self.classes_, "all"), len(table))
        frame["mean"] = counts.mean(-1).ravel()
        ranks = np.quantile(counts, levels, axis=-1, method="inverted_cdf")
        for level, values in zip(levels, ranks):
            frame[f"q{level:g}"] = values.ravel()
        frame["none"] = (counts == 0).mean(-1).ravel()
        return frame

    def sample(
        self,
        n_paths: int = 1,
        *,
        horizon: Any = None,
        n_events: int | None = None,
        history: Any = None,
        now: Any = None,
        windows: Any = None,
    ) -> pd.DataFrame:
        """Draw futures of the sequences.

        Parameters
        ----------
        n_paths : int
            Futures of each sequence.
        horizon : duration, optional
            How far from ``now`` on, as in `predict_count`.
        n_events : int, optional
            How many events at most. One of the two must be given.
        history, now, windows : optional
            What is known, see `PredictsEvents`.

        Returns
        -------
        DataFrame
            One row per event: its sequence, the number of the ``path`` (from 0), its time and type.
            One ``random_state`` gives the same futures, whatever other sequences stand beside.
        """
        check_is_fitted(self)
        table, waited, base = self._known(history, now, windows)
        until = None
        if horizon is not None:
            until = waited + duration_in_numbers(table.clock, horizon, "horizon") / self.time_scale_
        ids, names, frames = table.windows()[table.names.id_col], table.names, []
        for places, futures in self._futures(
            table, waited, n_paths, n_events=n_events, until=until
        ):
            sequence, path, step = np.isfinite(futures.elapsed).nonzero()
            elapsed = futures.elapsed[sequence, path, step] * self.time_scale_
            frames.append(
                pd.DataFrame(
                    {
                        names.id_col: ids.iloc[places[sequence]].reset_index(drop=True),
                        "path": path,
                        names.time_col: table.clock.to_stamp(base[places[sequence]] + elapsed),
                        names.type_col: self.classes_[futures.types[sequence, path, step]],
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    def simulate(self, n_sequences: int = 1, *, duration: Any, start: Any = None) -> EventTable:
        """Draw whole sequences that begin with nothing.

        Parameters
        ----------
        n_sequences : int
            How many.
        duration : duration
            Length of each, as ``window`` in `predict_count`.
        start : time, optional
            When they begin. None: 0, or the start of the training events for timestamps.

        Returns
        -------
        EventTable
            Sequences "0", "1", ...; their windows are known.
        """
        check_is_fitted(self)
        clock = self.history_.clock
        begins = 0.0 if start is None else float(clock.to_number(start))
        size = checked_count("n_sequences", n_sequences)
        length = duration_in_numbers(clock, duration, "duration")
        empty = EventTable(
            ids=tuple(str(i) for i in range(size)),
            times=tuple(np.empty(0) for _ in range(size)),
            types=tuple(np.empty(0, dtype=object) for _ in range(size)),
            starts=np.full(size, begins),
            ends=np.full(size, np.nan),
            clock=clock,
            names=self.history_.names,
        )
        until = np.full(size, length / self.time_scale_)
        times, types = [], []
        for _, futures in self._futures(empty, np.zeros(size), 1, until=until):
            for elapsed, codes in zip(futures.elapsed[:, 0], futures.types[:, 0]):
                n = int(np.isfinite(elapsed).sum())
                # Rounding must not move an event over the edge of its window.
                times.append(np.minimum(begins + elapsed[:n] * self.time_scale_, begins + length))
                types.append(self.classes_[codes[:n]])
        return EventTable(
            empty.ids,
            tuple(times),
            tuple(types),
            empty.starts,
            empty.starts + length,
            clock,
            empty.names,
        )

    # ------------------------------------------------------------------ below

    def _futures(
        self,
        table: EventTable,
        waited: np.ndarray,
        n_paths: int,
        *,
        n_events: int | None = None,
        until: np.ndarray | None = None,
        longest: float | None = None,
    ) -> Iterator[tuple[np.ndarray, Futures]]:
        """Draw futures of some sequences at a time: (places,), arrays (places, paths, steps).

        A path ends before a wait of more than ``longest``, scaled and from now on.
        """
        n_paths = checked_count("n_paths", n_paths)
        if n_events is None and until is None:
            raise DataError("say how far to sample: pass horizon, n_events, or both")
        if n_events is not None:
            n_events = checked_count("n_events", n_events)
        seed = self._seed()
        histories = self._windows(last_events(table, self._context_length()))
        for places in in_chunks(len(table), max(1, PATHS_AT_ONCE // n_paths)):
            batch = histories.gather(places).to(self._device())
            with torch.no_grad():
                paths = self._start_paths(batch, n_paths)
            drawn = draw_futures(
                paths,
                [sequence_generator(seed, table.ids[place]) for place in places],
                waited[places].repeat(n_paths),
                n_events=n_events,
                until=None if until is None else until[places].repeat(n_paths),
                longest=longest,
            )
            shape = (len(places), n_paths, -1)
            yield places, Futures(*(part.reshape(shape) for part in drawn))
