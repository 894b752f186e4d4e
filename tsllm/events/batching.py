"""Batches of event sequences, and the inter-event times that a table shows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, length_buckets, pad_sequences
from tsllm.datasets.events import EventTable
from tsllm.datasets.events.names import whole_name
from tsllm.errors import DataError
from tsllm.training.checkpoints import digest


def inter_event_times(table: EventTable) -> np.ndarray:
    """Compute the times between events, and those from known window starts to first events.

    Returns
    -------
    float array (times,)
        In the table's unit, sequence after sequence.
    """
    found = [np.empty(0)]
    for start, times in zip(table.starts, table.times):
        found.append(np.diff(times if np.isnan(start) else np.concatenate([[start], times])))
    return np.concatenate(found)


def longest_inter_event_time(table: EventTable) -> float:
    """Find the longest time without an event, in the table's unit; 0 where there is none.

    The time from the last event to a known end of the window counts too.
    """
    tails = table.ends - last_times(table)
    return float(max(inter_event_times(table).max(initial=0.0), np.nanmax([0.0, *tails])))


def last_times(table: EventTable) -> np.ndarray:
    """Find the time of each sequence's last event, or of its window's start: (sequences,).

    NaN for a sequence without events and without a known start.
    """
    pairs = zip(table.times, table.starts)
    return np.array([times[-1] if len(times) else start for times, start in pairs], np.float64)


class Intervals(NamedTuple):
    """Intervals between events; all arrays have one entry per interval."""

    #: Index of the sequence in ``table.ids``.
    sequence: np.ndarray
    #: Index of the interval in its sequence: interval i ends in event i, the last one at the
    #: window's end.
    number: np.ndarray
    #: In the table's numbers; ``start`` is the event before, or the window's start.
    start: np.ndarray
    end: np.ndarray
    #: True where the interval ends in an event.
    observed: np.ndarray
    #: The class code of that event, -1 where there is none.
    code: np.ndarray
    #: Length of the interval before, NaN where it is not known or there is none.
    length_before: np.ndarray
    #: The class code of the event before, -1 where there is none.
    code_before: np.ndarray


class Moments(NamedTuple):
    """Queried times of sequences, and the positions before them."""

    #: Indices of the sequence and of the time.
    sequence: np.ndarray
    moment: np.ndarray
    #: Indices of the row and the position in `EventWindows`.
    row: np.ndarray
    position: np.ndarray
    #: Time since that position, in the table's unit.
    elapsed: np.ndarray


class _Row(NamedTuple):
    """A row of `EventWindows`, as `pad_sequences` reads it; scaled times."""

    gaps: np.ndarray
    types: np.ndarray
    known: bool
    tail: float
    score_from: float
    origin: float


class EventWindows:
    """The sequences of a table as rows for a model, in batches.

    A row is a whole sequence, or at most ``length`` events of one. Rows overlap by ``overlap``
    events that are read and not scored, so that every interval of the table is scored exactly
    once. The first row of a sequence reads as much of its history as ``length`` allows. Interval i
    of a sequence of n events ends in event i, interval n at the end of the observation window. The
    intervals next to an unknown edge of a window are not scored.

    Parameters
    ----------
    table : EventTable
    classes : array of str
        The types that the model knows; a type's code is its index.
    time_scale : float
        Inter-event times are divided by it.
    length : int or None, default=None
        Most events of a row. None: whole sequences.
    overlap : int, default=0
        Events that a row shares with the one before, fewer than ``length``.
    t_start, t_end : float array (sequences,) or None, default=None
        Only events in ``(t_start, t_end]`` are scored, in the table's numbers; NaN: no limit.
        Earlier events are history, later events are not read. Neither time makes a sequence
        observed: only its window, or events on both sides, do.
    resolution : float, default=0.0
        The shortest inter-event time, in the table's unit; shorter ones are set to it. 0: events
        at one time are an error.
    dtype : torch dtype, default=torch.float32
        Type of the times in the batches.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsllm.datasets.events import read_events
    >>> table = read_events(pd.DataFrame({"time": [1.0, 3.0, 4.0], "type": ["a", "b", "a"]}))
    >>> rows = EventWindows(table, classes=["a", "b"], time_scale=2.0)
    >>> rows.gather([0]).gaps
    tensor([[1.0000, 1.0000, 0.5000]])
    >>> rows.gather([0]).scored
    tensor([[False,  True,  True, False]])
    """

    def __init__(
        self,
        table: EventTable,
        classes: Sequence[str] | np.ndarray,
        time_scale: float,
        *,
        length: int | None = None,
        overlap: int = 0,
        t_start: np.ndarray | None = None,
        t_end: np.ndarray | None = None,
        resolution: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.table = table if t_end is None else _cut_after(table, t_end)
        self.time_scale = float(time_scale)
        self.classes = list(classes)
        self.codes = _encode_types(self.table, classes)
        if not resolution > 0:
            _check_ties(self.table)
        self._resolution = resolution / self.time_scale
        self._dtype = dtype
        #: Of each sequence: events up to this time are history; -inf: none is.
        self.history_until = np.full(len(table), -np.inf)
        if t_start is not None:
            self.history_until = np.where(np.isnan(t_start), -np.inf, t_start)
        # Interval i of a sequence lies between edges i and i + 1.
        self._edges = [
            np.concatenate([[start], times, [end]])
            for start, times, end in zip(self.table.starts, self.table.times, self.table.ends)
        ]
        rows = self._rows(length, overlap)
        #: Of each row: its sequence, its events ``first:last``, and its first interval to score.
        self.rows = rows
        self.sequence, self.first, self.last, self.score_first = rows
        # Of each row, the wall clock at its start, whatever the table's other sequences are.
        begins = [self._edges[s][at : at + 2] for s, at in zip(self.sequence, self.first)]
        known = [two[0] if not np.isnan(two[0]) else two[1] for two in begins]
        self._begins = table.clock.calendar_times(np.nan_to_num(known))
        self._made: dict[int, _Row] = {}

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def lengths(self) -> np.ndarray:
        """Count the events of each row."""
        return self.last - self.first

    @property
    def scored(self) -> np.ndarray:
        """Count the scored intervals of each row."""
        counts = np.array([len(codes) for codes in self.codes], dtype=np.int64)[self.sequence]
        starts, ends = self.table.starts[self.sequence], self.table.ends[self.sequence]
        edges = [self._edges[s][last] for s, last in zip(self.sequence, self.last)]
        opens = np.maximum(edges, self.history_until[self.sequence])  # of the tail; NaN: not known
        unknown = (self.score_first == 0) & (self.last > 0) & np.isnan(starts)
        return self.last - self.score_first - unknown + ((self.last == counts) & (ends > opens))

    def gather(self, indices: Sequence[int] | np.ndarray | Tensor) -> EventBatch:
        """Make a batch of some rows, padded on the right to the longest of them."""
        parts = [self._row(int(index)) for index in np.asarray(indices, dtype=np.int64)]
        return pad_sequences(
            [part.gaps for part in parts],
            [part.types for part in parts],
            first_known=[part.known for part in parts],
            tails=[part.tail for part in parts],
            score_from=[part.score_from for part in parts],
            origin=[part.origin for part in parts] if self.table.clock.is_stamps else None,
            resolution=self._resolution,
            dtype=self._dtype,
        )

    def _row(self, index: int) -> "_Row":
        """Return a row; a training reads each in every epoch, so they are computed once."""
        if index in self._made:
            return self._made[index]
        sequence, first, last = self.sequence[index], self.first[index], self.last[index]
        edges = self._edges[sequence][first : last + 1]  # (events + 1,)
        gaps = np.diff(edges) / self.time_scale  # (events,)
        known = not np.isnan(edges[0])
        gaps[:1] = gaps[:1] if known else 0.0
        whole = last == len(self.codes[sequence])  # else the tail is the next row's
        # The same sums as in the batch, so that an event at the border is on one side.
        past = self.score_first[index] - first
        given = self.history_until[sequence] - edges[past]
        reach = given / self.time_scale if given > 0 else 0.0
        time = np.concatenate([[0.0], gaps.cumsum()])
        row = self._made[index] = _Row(
            gaps,
            self.codes[sequence][first:last],
            known,
            (self._edges[sequence][-1] - edges[-1]) / self.time_scale if whole else np.nan,
            time[past] + reach if past or given > 0 else -np.inf,
            float(self._begins[index]) / self.time_scale,
        )
        return row

    def batches(self, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
        """Split the rows into batches of similar length."""
        return length_buckets(self.lengths, batch_size=batch_size, generator=generator)

    def fingerprint(self) -> dict[str, int | str]:
        """Return the facts that identify these rows, for training checkpoints."""
        return {
            "data": digest(self.classes, *self._edges, *self.codes, *self.rows, self.history_until),
            "rows": len(self),
            "events": int(self.lengths.sum()),
        }

    def intervals(self, rows: np.ndarray, positions: np.ndarray) -> Intervals:
        """Find the intervals of the table at these positions of rows."""
        sequence, number = self.sequence[rows], self.first[rows] + positions
        counts = np.array([len(codes) for codes in self.codes], dtype=np.int64)
        # All sequences one after another, each with an edge or a code of nothing on both sides.
        place = np.concatenate([[0], np.cumsum(counts + 2)])[sequence] + number
        edges = np.concatenate([np.empty(0), *self._edges])
        codes = np.concatenate([np.empty(0, int), *([-1, *one, -1] for one in self.codes)])
        return Intervals(
            sequence,
            number,
            start=edges[place],
            end=edges[place + 1],
            observed=number < counts[sequence],
            code=codes[place + 1],
            length_before=np.where(number > 0, edges[place] - edges[place - 1], np.nan),
            code_before=codes[place],
        )

    def locate(self, moments: np.ndarray) -> Moments:
        """Find the positions before given times, the same times for all sequences.

        Times before a sequence's window are left out, and those before its first event where the
        window's start is not known.
        """
        found = []
        for sequence, times in enumerate(self.table.times):
            number = np.searchsorted(times, moments, "left")
            elapsed = moments - self._edges[sequence][number]
            known = np.flatnonzero(elapsed > 0)  # False for NaN
            # Each interval belongs to one row, as in scoring.
            first, last = np.searchsorted(self.sequence, [sequence, sequence + 1])
            begins = self.score_first[first:last]
            row = first + np.searchsorted(begins, number[known], "right") - 1
            position = number[known] - self.first[row]
            found.append((np.full(len(known), sequence), known, row, position, elapsed[known]))
        return Moments(*(np.concatenate(part) for part in zip(*found)))

    def _rows(self, length: int | None, overlap: int) -> tuple[np.ndarray, ...]:
        """Cut the sequences into rows: sequence, first and last event, first scored interval."""
        if length is not None and not 0 <= overlap < length:
            raise DataError(
                f"overlap must be at least 0 and less than length={length}, found {overlap}"
            )
        rows: list[tuple[int, int, int, int]] = []
        for sequence, times in enumerate(self.table.times):
            n = len(times)
            # The first interval that is not all history.
            score = int(np.searchsorted(times, self.history_until[sequence], "right"))
            first = 0 if length is None else max(0, score - overlap)
            last = n if length is None else min(n, first + length)
            if length is not None:
                # As much history as the row has room for, as in training.
                first = max(0, last - length)
            rows.append((sequence, first, last, score))
            while last < n:
                score, first = last, last - overlap
                last = min(n, first + cast(int, length))
                rows.append((sequence, first, last, score))
        return tuple(np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def last_events(table: EventTable, n: int | None) -> EventTable:
    """Keep the last n events of each sequence; None keeps all.

    Where events are left out, the window starts at the last of these, so that the first
    inter-event time stays known; see `start_before`.
    """
    if n is None:
        return table
    return keep_last(table, [min(n, len(times)) for times in table.times])


def keep_last(table: EventTable, counts: Sequence[int]) -> EventTable:
    """Keep the last ``counts[i]`` events of sequence i; see `last_events`."""
    cut = [len(times) - count for times, count in zip(table.times, counts, strict=True)]
    if not any(cut):
        return table
    starts = [
        start_before(times, first, start)
        for first, start, times in zip(cut, table.starts, table.times)
    ]
    return replace(
        table,
        times=tuple(times[first:] for first, times in zip(cut, table.times)),
        types=tuple(types[first:] for first, types in zip(cut, table.types)),
        starts=np.array(starts, dtype=np.float64),
    )


def start_before(times: np.ndarray, first: int, start: float) -> float:
    """Return the start of the window of the events from ``first`` on.

    It is the time of the event before them, and the sequence's own ``start`` where there is none.
    NaN, not known, where that event has the time of the first one: a window does not contain its
    start.
    """
    if not first:
        return start
    tied = first < len(times) and times[first] == times[first - 1]
    return float("nan") if tied else float(times[first - 1])


def _encode_types(table: EventTable, classes: Sequence[str] | np.ndarray) -> list[np.ndarray]:
    """Map types to their indices in the classes."""
    place = {name: code for code, name in enumerate(classes)}
    # A file may write the type 0 as 0.0.
    alike = {whole_name(str(name)): code for name, code in place.items()}
    place |= {
        name: alike[whole_name(name)]
        for name in table.type_names
        if name not in place and whole_name(name) in alike
    }
    codes = []
    for key, types in zip(table.ids, table.types):
        row = np.array([place.get(name, -1) for name in types], dtype=np.int64)
        if (row < 0).any():
            at = int(np.argmax(row < 0))
            known = ", ".join(map(str, list(classes)[:10])) + (", ..." if len(classes) > 10 else "")
            raise DataError(
                f"sequence {key!r}, event {at}: the type {types[at]!r} was not seen in training "
                f"(known: {known}); leave such events out, or fit with them"
            )
        codes.append(row)
    return codes


def _check_ties(table: EventTable) -> None:
    """Raise for events at one time, whose density is unbounded."""
    for sequence, times in enumerate(table.times):
        ties = np.diff(times) == 0
        if ties.any():
            raise DataError(
                f"{table.place(sequence, int(np.argmax(ties)) + 1)} happens at the time of the "
                'event before it: construct the estimator with ties="batch" and the resolution of '
                'the times, or read the events with ties="jitter"'
            )


def _cut_after(table: EventTable, t_end: np.ndarray) -> EventTable:
    """Drop the events after a time; a window that contains it ends there."""
    limit = np.where(np.isnan(t_end), np.inf, t_end)
    counts = [int(np.searchsorted(times, end, "right")) for times, end in zip(table.times, limit)]
    first = np.array([times[0] if len(times) else np.nan for times in table.times])
    last = np.array([times[-1] if len(times) else np.nan for times in table.times])
    inside = limit > np.where(np.isnan(table.starts), first, table.starts)  # False for NaN
    until = np.where(np.isnan(table.ends), last, table.ends)
    return replace(
        table,
        times=tuple(times[:n] for times, n in zip(table.times, counts)),
        types=tuple(types[:n] for types, n in zip(table.types, counts)),
        starts=np.where(inside, table.starts, np.nan),
        ends=np.where(inside, np.where(limit <= until, limit, table.ends), np.nan),
    )
