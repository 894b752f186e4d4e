"""The few events of earlier slices that PromptTPP keeps, to check and to protect what it knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from tsllm.datasets.events import EventColumns, EventTable
from tsllm.events.batching import EventWindows, keep_last, start_before

#: Slices whose events are kept in full measure: with more, each keeps its share of so many.
FULL_SLICES = 16


@dataclass(frozen=True)
class SliceMemory:
    """Parts of the sequences of earlier slices.

    Half of the events of a slice come from its training part, to be trained on again; half from its
    validation part, on which a change of the model is checked.
    """

    #: The parts of sequences; their ids are numbers.
    table: EventTable
    #: (parts,): the slice of each part.
    slices: np.ndarray
    #: (parts,): True for a part to check on, False for one to train on again.
    checks: np.ndarray
    #: (parts,): events up to this time are history, in the table's numbers; NaN: none is.
    score_from: np.ndarray
    #: By slice, what its loss has grown since it was least, in nats an event.
    lost: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def empty(cls, like: EventTable) -> Self:
        """Make a memory of nothing, on the clock of a table."""
        nothing = np.empty(0)
        table = replace(like, ids=(), times=(), types=(), starts=nothing, ends=nothing)
        return cls(table, np.empty(0, np.int64), np.empty(0, bool), nothing)

    def to_state(self, classes: Sequence[str] | np.ndarray) -> dict[str, Any]:
        """Return the memory as plain values and arrays, for saving; types as numbers."""
        place = {name: code for code, name in enumerate(classes)}
        types = [place[name] for own in self.table.types for name in own]
        return {
            "lengths": np.array([len(own) for own in self.table.times], dtype=np.int64),
            "times": np.concatenate([*self.table.times, np.empty(0)]),
            "types": np.array(types, dtype=np.int64),
            "starts": np.array(self.table.starts),
            "ends": np.array(self.table.ends),
            "clock": vars(self.table.clock),
            "slices": self.slices,
            "checks": self.checks,
            "score_from": self.score_from,
            "lost": [[number, loss] for number, loss in self.lost.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], classes: Sequence[str] | np.ndarray) -> Self:
        """Build the memory from the output of `to_state`."""
        cuts = np.cumsum(state["lengths"])[:-1]
        names = np.array(list(classes), dtype=object)
        count = len(state["lengths"])
        history = EventTable.from_state(
            {
                "table": None,
                "ids": (),
                "starts": np.empty(0),
                "ends": np.empty(0),
                "clock": state["clock"],
                "names": vars(EventColumns()),
            }
        )
        table = replace(
            history,
            ids=tuple(range(count)),
            times=tuple(np.split(state["times"], cuts)) if count else (),
            types=tuple(np.split(names[state["types"]], cuts)) if count else (),
            starts=state["starts"],
            ends=state["ends"],
        )
        lost = {int(number): float(loss) for number, loss in state["lost"]}
        return cls(table, state["slices"], state["checks"].astype(bool), state["score_from"], lost)

    @property
    def numbers(self) -> list[int]:
        """List the slices that have parts to check on."""
        return sorted(set(self.slices[self.checks].tolist()))

    def select(self, *, checks: bool, number: int | None = None) -> tuple[EventTable, np.ndarray]:
        """Select the parts of a slice (None: of all), with their ``score_from``."""
        chosen = self.checks == checks
        if number is not None:
            chosen &= self.slices == number
        places = np.flatnonzero(chosen)
        return self.table.select([self.table.ids[i] for i in places]), self.score_from[places]

    def after(self, change: Mapping[int, float]) -> Self:
        """Return the memory with what a change of the model added to the loss of each slice."""
        grown = {at: max(0.0, self.lost.get(at, 0.0) + more) for at, more in change.items()}
        return replace(self, lost={**self.lost, **grown})

    def add(
        self,
        number: int,
        training: EventWindows,
        held_out: EventWindows | None,
        most: int,
        seed: int,
    ) -> Self:
        """Return a memory that also holds at most ``most`` events of a slice."""
        parts = [
            (self.table, self.slices, self.checks, self.score_from),
        ]
        generator = np.random.default_rng((seed, number))
        count = len(self.table)
        for rows, checks in ((held_out, True), (training, False)):
            if rows is None:
                continue
            table, score_from = _some_rows(rows, most // 2, generator)
            table = replace(table, ids=tuple(range(count, count + len(table))))
            count += len(table)
            parts.append(
                (
                    table,
                    np.full(len(table), number),
                    np.full(len(table), checks),
                    # On the clock of the memory.
                    self.table.clock.to_number(table.clock.to_stamp(score_from)),
                )
            )
        whole = parts[0][0]
        for table, *_ in parts[1:]:
            whole = whole.extend(table)
        grown = replace(
            self,
            table=whole,
            slices=np.concatenate([part[1] for part in parts]),
            checks=np.concatenate([part[2] for part in parts]),
            score_from=np.concatenate([part[3] for part in parts]),
        )
        return grown._thinned(most * FULL_SLICES, generator)

    def _thinned(self, most: int, generator: np.random.Generator) -> Self:
        """Drop parts of all slices at random until ``most`` events are left."""
        lengths = np.array([len(times) for times in self.table.times], dtype=np.int64)
        if lengths.sum() <= most:
            return self
        kept = np.zeros(len(lengths), dtype=np.int64)
        numbers = set(self.slices.tolist())
        share = max(1, most // (2 * len(numbers)))
        for number in numbers:
            for checks in (True, False):
                places = np.flatnonzero((self.slices == number) & (self.checks == checks))
                places = generator.permutation(places)
                before = lengths[places].cumsum() - lengths[places]
                # Of the part that the share ends in, its last events.
                kept[places] = np.minimum(lengths[places], share - before).clip(0)
        places = np.flatnonzero(kept)
        table = keep_last(self.table, kept.tolist()).select(places.tolist())
        return replace(
            self,
            table=replace(table, ids=tuple(range(len(table)))),
            slices=self.slices[places],
            checks=self.checks[places],
            score_from=self.score_from[places],
        )


def _some_rows(
    rows: EventWindows, most: int, generator: np.random.Generator
) -> tuple[EventTable, np.ndarray]:
    """Draw rows of a slice, as sequences with the times from which they are scored."""
    table = rows.table
    lengths = rows.lengths.clip(max=most)  # of a longer row, its last events
    order = generator.permutation(np.flatnonzero((rows.scored > 0) & (lengths > 0)))
    order = order[lengths[order].cumsum() <= most]
    times, types, starts, ends, score_from = [], [], [], [], []
    for row in np.sort(order):
        sequence, first, last, score = (int(part[row]) for part in rows.rows)
        own, first = table.times[sequence], max(first, last - most)
        times.append(own[first:last])
        types.append(table.types[sequence][first:last])
        starts.append(start_before(own, first, table.starts[sequence]))
        ends.append(table.ends[sequence] if last == len(own) else np.nan)
        border = rows.history_until[sequence]
        if score > first:
            border = max(border, own[score - 1])
        score_from.append(border if np.isfinite(border) else np.nan)
    chosen = replace(
        table,
        ids=tuple(range(len(times))),
        times=tuple(times),
        types=tuple(types),
        starts=np.array(starts, dtype=np.float64),
        ends=np.array(ends, dtype=np.float64),
    )
    return chosen, np.array(score_from, dtype=np.float64)
