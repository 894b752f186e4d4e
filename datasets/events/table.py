"""Event tables: checked sequences of typed events, each with its observation window."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tsllm.datasets.events.clock import Clock
from tsllm.datasets.events.names import whole_name
from tsllm.errors import DataError, NotEnoughDataError


@dataclass(frozen=True)
class EventColumns:
    """The names of the columns of an event table.

    See Also
    --------
    EventTable : The table.
    """

    id_col: str = "sequence_id"
    time_col: str = "time"
    type_col: str = "type"


@dataclass(frozen=True, eq=False)
class EventTable:
    """Sequences of typed events in continuous time, each with its observation window.

    `read_events` reads one from a file or a frame; simulators return one. The arrays are
    read-only.

    Parameters
    ----------
    ids : tuple
        The sequences, in order of first appearance.
    times : tuple of numpy.ndarray
        For each sequence the times of its events, float64, not decreasing, on the table's clock.
    types : tuple of numpy.ndarray
        For each sequence the types of its events, objects of type str.
    starts, ends : numpy.ndarray
        Shape (sequences,): the observation window ``(start, end]``, in which every event was
        recorded. NaN if unknown: it is then not known whether events happened before the first
        event, or after the last.
    clock : Clock, default=Clock()
        Converts between the table's times and the user's.
    names : EventColumns, default=EventColumns()
        The user's column names.

    Raises
    ------
    DataError
        If times are not finite or decrease, or an event lies outside its window.

    See Also
    --------
    read_events : Read an event table from a file or a frame.
    time_slices : Cut an event table into slices of time.

    Examples
    --------
    >>> table = EventTable(("a",), (np.array([0.5, 2.0]),), (np.array(["x", "y"], object),),
    ...                    starts=np.array([0.0]), ends=np.array([3.0]))
    >>> table
    EventTable(1 sequence, 2 events, 2 types, times 0.5 to 2.0)
    >>> table.between(1.0, 2.5).to_frame()
      sequence_id  time type  window_start  window_end
    0           a   2.0    y           1.0         2.5
    """

    ids: tuple[Hashable, ...]
    times: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...]
    starts: np.ndarray
    ends: np.ndarray
    clock: Clock = field(default_factory=Clock)
    names: EventColumns = field(default_factory=EventColumns)

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "ids", tuple(self.ids))
        set_field(self, "times", tuple(_frozen(part, np.float64) for part in self.times))
        set_field(self, "types", tuple(_frozen(part, object) for part in self.types))
        set_field(self, "starts", _frozen(self.starts, np.float64))
        set_field(self, "ends", _frozen(self.ends, np.float64))
        sizes = {len(self.ids), len(self.times), len(self.types), len(self.starts), len(self.ends)}
        if len(sizes) != 1 or len(set(self.ids)) != len(self.ids):
            raise DataError(
                f"an event table needs ids, times, types, starts and ends for each sequence and "
                f"ids that differ; here there are {len(set(self.ids))} ids, {len(self.times)}, "
                f"{len(self.types)}, {len(self.starts)} and {len(self.ends)}"
            )
        for number in range(len(self.ids)):
            if len(self.times[number]) != len(self.types[number]):
                raise DataError(
                    f"{sequence_name(self.ids[number])} has {len(self.times[number])} times but "
                    f"{len(self.types[number])} types; give each event both"
                )
            bounds = float(self.starts[number]), float(self.ends[number])
            found = find_fault(self.times[number], *bounds, self.clock)
            if found is not None:
                name = sequence_name(self.ids[number])
                where = name if found[0] is None else f"{name}, event {found[0]}"
                raise DataError(f"{where} {found[1]}")

    def to_state(self, *, events: bool = True) -> dict[str, Any]:
        """Return the table as plain values, arrays and one frame that other programs can read.

        Parameters
        ----------
        events : bool, default=True
            Whether to include the sequences. False keeps the clock and the names only.

        Returns
        -------
        dict
            ``table``, a row for each event: ``sequence`` (its number), ``time`` and ``type``, for
            people also ``sequence_id`` and ``timestamp`` in UTC. And the other fields.
        """
        shown = self if events else self._take([])
        rows = np.repeat(np.arange(len(shown)), [len(times) for times in shown.times])
        times = np.concatenate([*shown.times, np.empty(0)])
        types = np.concatenate([*shown.types, np.empty(0, dtype=object)])
        frame = pd.DataFrame(
            {
                "sequence": rows,
                "sequence_id": pd.Series([str(shown.ids[row]) for row in rows], dtype=str),
                "time": times,
                "type": pd.Series(types, dtype=str),
            }
        )
        if self.clock.is_stamps:
            stamps = self.clock.to_stamp(times)
            frame["timestamp"] = stamps if stamps.tz is None else stamps.tz_convert("UTC")
        return {
            "table": frame if events else None,
            "ids": shown.ids,
            "starts": shown.starts,
            "ends": shown.ends,
            "clock": vars(self.clock),
            "names": vars(self.names),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "EventTable":
        """Build the table from the output of `to_state`."""
        ids, frame = state["ids"], state["table"]
        times: list[np.ndarray] = []
        types: list[np.ndarray] = []
        if frame is not None:
            cuts = np.searchsorted(frame["sequence"].to_numpy(), np.arange(1, len(ids)))
            times = np.split(frame["time"].to_numpy(dtype=np.float64), cuts)
            types = np.split(frame["type"].to_numpy(dtype=object), cuts)
        return cls(
            ids,
            tuple(times),
            tuple(types),
            state["starts"],
            state["ends"],
            _saved_clock(state["clock"]),
            _saved_names(state["names"]),
        )

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.ids)

    @property
    def n_events(self) -> int:
        """Return the number of events in all sequences."""
        return sum(len(part) for part in self.times)

    @property
    def type_names(self) -> list[str]:
        """Return the types that have events, sorted."""
        return sorted({str(name) for part in self.types for name in part})

    def type_counts(self) -> pd.Series:
        """Count the events of each type, the most frequent first, ties by name."""
        names, counts = np.unique(
            np.concatenate([*self.types, np.empty(0, object)]).astype(str), return_counts=True
        )
        order = np.lexsort((names, -counts))
        return pd.Series(counts[order], index=pd.Index(names[order].astype(object), name="type"))

    def place(self, sequence: int, event: int) -> str:
        """Name an event in a message; sequence and event are counted from 0."""
        when = self.clock.to_stamp(self.times[sequence][event])
        return f"{sequence_name(self.ids[sequence])}, event {event} ({when})"

    def to_frame(self) -> pd.DataFrame:
        """Return the events as rows, in the form that `read_events` reads.

        Returns
        -------
        pandas.DataFrame
            The user's columns for the sequence, the time and the type; ``window_start`` and
            ``window_end`` if a window is known. A sequence without events has no rows: pass
            ``windows=table.windows()`` with the frame to read it again.
        """
        lengths = [len(part) for part in self.times]
        rows = np.repeat(np.arange(len(self)), lengths)
        ids = np.empty(len(self), dtype=object)
        ids[:] = self.ids
        frame = pd.DataFrame({self.names.id_col: pd.Series(ids[rows]).infer_objects()})
        frame[self.names.time_col] = self.clock.to_stamp(np.concatenate([*self.times, np.empty(0)]))
        types = np.concatenate([*self.types, np.empty(0, object)])
        frame[self.names.type_col] = pd.Series(types, dtype=str)
        for name, bounds in (("window_start", self.starts), ("window_end", self.ends)):
            if not np.isnan(bounds).all():
                frame[name] = self.clock.to_stamp(bounds[rows])
        return frame

    def windows(self) -> pd.DataFrame:
        """Return the observation window of each sequence.

        Returns
        -------
        pandas.DataFrame
            One row for each sequence: the user's column for the sequence, ``window_start`` and
            ``window_end``, missing if unknown.
        """
        frame = pd.DataFrame({self.names.id_col: pd.Series(list(self.ids), dtype=object)})
        frame[self.names.id_col] = frame[self.names.id_col].infer_objects()
        frame["window_start"] = self.clock.to_stamp(self.starts)
        frame["window_end"] = self.clock.to_stamp(self.ends)
        return frame

    def select(self, ids: Iterable[Hashable]) -> "EventTable":
        """Return the given sequences in the given order.

        Parameters
        ----------
        ids : iterable of hashable
            The sequences.

        Returns
        -------
        EventTable
            On the same clock.

        Raises
        ------
        DataError
            If there is no such sequence.
        """
        places = {name: number for number, name in enumerate(self.ids)}
        wanted = list(ids)
        missing = [name for name in wanted if name not in places]
        if missing:
            raise DataError(
                f"there is no {sequence_name(missing[0])} in the table; its {len(self)} sequences "
                f"start with {', '.join(repr(name) for name in self.ids[:3])}"
            )
        return self._take([places[name] for name in wanted])

    def between(
        self, start: object = None, end: object = None, *, keep_empty: bool = False
    ) -> "EventTable":
        """Return the events in ``(start, end]``, and cut their windows.

        A bound of the cut becomes the window's if the sequence was observed on both sides of it.
        An unknown window bound stays unknown if no event lies beyond the cut, because then nothing
        shows that the sequence was observed there.

        Parameters
        ----------
        start, end : number, timestamp or None, default=None
            In the user's times; None does not cut.
        keep_empty : bool, default=False
            Keep sequences that were observed between the bounds but have no event there.

        Returns
        -------
        EventTable
            On the same clock.

        Raises
        ------
        DataError
            If the end is not after the start.
        """
        low = None if start is None else float(self.clock.to_number(start))
        high = None if end is None else float(self.clock.to_number(end))
        return self.cut(low, high, keep_empty=keep_empty)

    def cut(
        self, start: float | None, end: float | None, *, keep_empty: bool = False
    ) -> "EventTable":
        """Cut like `between`, with bounds on the table's clock."""
        low = -np.inf if start is None else start
        high = np.inf if end is None else end
        if not low < high:
            raise DataError(
                f"the cut from {self.clock.to_stamp(low)} to {self.clock.to_stamp(high)} is "
                "empty; pass an end after the start"
            )
        kept, times, types, starts, ends = [], [], [], [], []
        for number in range(len(self)):
            own, known = self.times[number], (self.starts[number], self.ends[number])
            first, last = np.searchsorted(own, [low, high], side="right")
            # observed from the start of the window, or from the first event if unknown
            since = known[0] if not np.isnan(known[0]) else (own[0] if len(own) else np.nan)
            until = known[1] if not np.isnan(known[1]) else (own[-1] if len(own) else np.nan)
            if first == last and not (keep_empty and max(low, since) < min(high, until)):
                continue
            kept.append(number)
            times.append(own[first:last])
            types.append(self.types[number][first:last])
            starts.append(low if low >= since else known[0])
            ends.append(high if high <= until else known[1])
        return replace(
            self,
            ids=tuple(self.ids[number] for number in kept),
            times=tuple(times),
            types=tuple(types),
            starts=np.array(starts, dtype=np.float64),
            ends=np.array(ends, dtype=np.float64),
        )

    def split(
        self, fractions: Sequence[float] = (0.7, 0.1, 0.2), *, keep_empty: bool = False
    ) -> tuple["EventTable", ...]:
        """Split all sequences at the same times into earlier and later parts.

        Parameters
        ----------
        fractions : sequence of float, default=(0.7, 0.1, 0.2)
            The share of all events in each part; they sum to 1.
        keep_empty : bool, default=False
            Keep sequences that were observed in a part but have no event there.

        Returns
        -------
        tuple of EventTable
            One table for each fraction, in order of time. A cut is at the time of an event, which
            belongs to the earlier part.

        Raises
        ------
        NotEnoughDataError
            If a part would have no events.
        """
        if min(fractions, default=0) <= 0 or not np.isclose(sum(fractions), 1):
            raise DataError(f"fractions={tuple(fractions)} must be positive and add up to 1")
        pooled = np.sort(np.concatenate([*self.times, np.empty(0)]))
        last = np.floor(np.cumsum(fractions)[:-1] * len(pooled) + 1e-9).astype(int) - 1
        enough = last.min(initial=0) >= 0 and len(pooled) > 0
        if not enough or not (np.diff([-np.inf, *pooled[last], pooled[-1]]) > 0).all():
            raise NotEnoughDataError(
                f"{self.n_events} events at {len(np.unique(pooled))} times are too few to split "
                f"into parts of {tuple(fractions)}; give more events or fewer parts"
            )
        cuts = [None, *pooled[last].tolist(), None]
        return tuple(self.cut(*bounds, keep_empty=keep_empty) for bounds in pairwise(cuts))

    def extend(self, later: "EventTable") -> "EventTable":
        """Append later events to the sequences of this table, and new sequences at the end.

        Parameters
        ----------
        later : EventTable
            Events after those of this table; the origin of its clock may differ. A window that
            starts where the window of this table ends extends it.

        Returns
        -------
        EventTable
            On this table's clock, with its column names.

        Raises
        ------
        DataError
            If the new events or the new window of a sequence begin before its old ones end, or if
            there is a hole between the two windows. The message names the sequence.
        """
        places = {name: number for number, name in enumerate(self.ids)}
        # A later file may write the sequence 1 as 1.0.
        alike = {whole_name(str(name)): number for name, number in places.items()}
        times, types = list(self.times), list(self.types)
        starts, ends, ids = list(self.starts), list(self.ends), list(self.ids)
        for number, name in enumerate(later.ids):
            new = self.clock.to_number(later.clock.to_stamp(later.times[number]))
            opens, closes = self.clock.to_number(
                later.clock.to_stamp(np.array([later.starts[number], later.ends[number]]))
            )
            here = places.get(name, alike.get(whole_name(str(name))))
            if here is None:
                ids.append(name)
                times.append(new)
                types.append(later.types[number])
                starts.append(opens)
                ends.append(closes)
                continue
            fault = _find_fault_in_continuation(
                self.times[here],
                (float(self.starts[here]), float(self.ends[here])),
                new,
                float(opens),
                self.clock,
            )
            if fault is not None:
                raise DataError(f"{sequence_name(name)} {fault}")
            times[here] = np.concatenate([times[here], new])
            types[here] = np.concatenate([types[here], later.types[number]])
            if len(new) or not np.isnan(closes):
                ends[here] = closes
        return replace(
            self,
            ids=tuple(ids),
            times=tuple(times),
            types=tuple(types),
            starts=np.array(starts),
            ends=np.array(ends),
        )

    def __eq__(self, other: object) -> bool:
        """Compare events and windows, on any clock."""
        if not isinstance(other, EventTable):
            return NotImplemented
        if self.ids != other.ids or self.clock.is_stamps != other.clock.is_stamps:
            return False
        pairs = [(self.starts, other.starts), (self.ends, other.ends)]
        pairs += zip(self.times, other.times, strict=True)
        return all(
            len(mine) == len(its)
            and pd.Index(self.clock.to_stamp(mine)).equals(pd.Index(other.clock.to_stamp(its)))
            for mine, its in pairs
        ) and all(
            np.array_equal(mine, its) for mine, its in zip(self.types, other.types, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the numbers of sequences, events and types, and the range of times."""
        counts = [(len(self), "sequence"), (self.n_events, "event")]
        counts.append((len(self.type_names), "type"))
        parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
        if self.n_events:
            pooled = np.concatenate(self.times)
            first, last = self.clock.to_stamp(pooled.min()), self.clock.to_stamp(pooled.max())
            parts.append(f"times {first} to {last}")
        return f"EventTable({', '.join(parts)})"

    def _take(self, numbers: list[int]) -> "EventTable":
        return replace(
            self,
            ids=tuple(self.ids[number] for number in numbers),
            times=tuple(self.times[number] for number in numbers),
            types=tuple(self.types[number] for number in numbers),
            starts=self.starts[numbers],
            ends=self.ends[numbers],
        )


def sequence_name(sequence_id: object) -> str:
    """Return the name of a sequence in an error message, for example ``"sequence 'a'"``."""
    return f"sequence {sequence_id!r}"


def find_fault(
    times: np.ndarray, start: float, end: float, clock: Clock
) -> tuple[int | None, str] | None:
    """Find the first fault of event times (events,) and their window ``(start, end]``.

    Unknown bounds are NaN. Returns the number of the faulty event (None for the window itself)
    and the end of a sentence that begins with its name; None if there is no fault.
    """
    stamp = clock.to_stamp
    if np.isinf(start) or np.isinf(end):
        return None, f"has the window ({start}, {end}]; leave a bound that is not known missing"
    if end <= start:
        return None, (
            f"has a window that ends at {stamp(end)} and starts at {stamp(start)}; give it an end "
            "after its start"
        )
    if not np.isfinite(times).all():
        bad = int((~np.isfinite(times)).argmax())
        return bad, "has no finite time; give it one or drop it"
    if (np.diff(times) < 0).any():
        bad = int((np.diff(times) < 0).argmax()) + 1
        return bad, f"is earlier than the event before it ({stamp(times[bad - 1])}); sort by time"
    if len(times) and times[0] <= start:
        return 0, (
            f"at {stamp(times[0])} is not after its window's start {stamp(start)}, which itself "
            "does not belong to the window; start the window earlier"
        )
    if len(times) and times[-1] > end:
        bad = int(np.searchsorted(times, end, side="right"))
        return bad, (
            f"at {stamp(times[bad])} is after its window's end {stamp(end)}; end the window later"
        )
    return None


def _find_fault_in_continuation(
    times: np.ndarray, window: tuple[float, float], new: np.ndarray, opens: float, clock: Clock
) -> str | None:
    """Find the reason why new event times do not continue a sequence; None if they do.

    ``opens`` is the start of the new window; unknown bounds are NaN. The reason is the end of a
    sentence that begins with the name of the sequence.
    """
    edges = [*times[-1:], *window]
    last = max((edge for edge in edges if not np.isnan(edge)), default=-np.inf)
    if (len(new) and new[0] <= last) or opens < last:
        first = opens if opens < last else new[0]
        return (
            f"already holds the time until {clock.to_stamp(last)}, but the new part begins at "
            f"{clock.to_stamp(first)}; pass only what came after, for example with "
            "between(start=...)"
        )
    if opens > last:
        return (
            f"was observed until {clock.to_stamp(last)} and then from {clock.to_stamp(opens)} on, "
            "which leaves a hole; give the later part a window that starts where the earlier ends, "
            "or another id"
        )
    return None


def _frozen(values: object, kind: type) -> np.ndarray:
    """Return a read-only array of a dtype."""
    if isinstance(values, np.ndarray) and values.dtype == kind and not values.flags.writeable:
        return values
    array: np.ndarray = np.array(values, dtype=kind)  # a copy: the caller's stays writable
    array.setflags(write=False)
    return array


def _saved_clock(fields: Mapping[str, Any]) -> Clock:
    """Build the clock of a saved table, whose fields may be damaged."""
    clock = Clock(**fields)
    if clock.origin is not None and not isinstance(clock.origin, pd.Timestamp):
        raise DataError(f"the origin of the times is {clock.origin!r}, which is no timestamp")
    return clock


def _saved_names(fields: Mapping[str, Any]) -> EventColumns:
    """Build the names of the columns of a saved table, whose fields may be damaged."""
    if not all(isinstance(name, str) for name in fields.values()):
        raise DataError(f"the names of the columns are {dict(fields)}, which are no text")
    return EventColumns(**fields)
