"""Batches of event sequences, and what an encoder knows after each event.

A sequence of n events has n + 1 positions: position 0 is its start, position i comes right after
event i. The interval of a position reaches to the next event or to the end of the window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


@dataclass(frozen=True)
class EventBatch:
    """Event sequences of different lengths, padded on the right; all times are scaled.

    `pad_sequences` makes one. A position's interval contributes
    ``log f(elapsed, type) - log S(lower)`` to the log-likelihood where it is observed to end in an
    event, and ``log S(elapsed) - log S(lower)`` where it is not.
    """

    types: Tensor
    """(batch, events) int64, 0 where padded."""
    gaps: Tensor
    """(batch, events), time from the event before; the first from the window's start, 1 where that
    is not known."""
    mask: Tensor
    """(batch, events) bool, True for an event, False for padding."""
    first_known: Tensor
    """(batch,) bool, True where the window's start is known and the first gap is one."""
    elapsed: Tensor
    """(batch, events + 1), length of each position's interval; 1 where there is none."""
    lower: Tensor
    """(batch, events + 1), the part of the interval that is given, not scored; mostly 0."""
    observed: Tensor
    """(batch, events + 1) bool, True where the interval ends in an event."""
    scored: Tensor
    """(batch, events + 1) bool, False for padding, for intervals of unknown length and for those
    before the scored part."""
    next_types: Tensor
    """(batch, events + 1) int64, the type of the event the interval ends in, 0 where in none."""
    context: Tensor | None = None
    """(batch, features) static covariates."""

    def __len__(self) -> int:
        return len(self.types)

    @property
    def lengths(self) -> Tensor:
        """Events of each sequence, (batch,) int64: the index of its last position."""
        return self.mask.sum(1)

    @property
    def events_scored(self) -> Tensor:
        """How many events the log-likelihood counts, a scalar int64."""
        return (self.observed & self.scored).sum()

    def to(self, device: torch.device | str) -> Self:
        """Move all tensors to a device."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, rows: Tensor) -> Self:
        """Take some sequences, by index (int64) or by a bool mask; repeats are allowed."""
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if v is not None}
        return dataclasses.replace(self, **changed)


class StateMemory(Protocol):
    """What a decoder keeps beside `EventStates.hidden`, cut as they are cut."""

    def select(self, rows: Tensor, positions: Tensor) -> StateMemory:
        """Take one position (n,) of each of the given sequences (n,)."""


@dataclass(frozen=True)
class EventStates:
    """What an encoder knows at each position, a function of the events before it only."""

    hidden: Tensor
    """(batch, positions, hidden)."""
    memory: StateMemory | None = None
    """For decoders that look at the events again (AttNHP)."""

    def select(self, rows: Tensor, positions: Tensor) -> EventStates:
        """Take single positions of some sequences, each as a sequence of one position.

        Parameters
        ----------
        rows, positions : Tensor
            ``(n,)`` int64, which sequence and which position of it; repeats are allowed.

        Returns
        -------
        EventStates
            Of n sequences and one position.
        """
        memory = None if self.memory is None else self.memory.select(rows, positions)
        return EventStates(self.hidden[rows, positions][:, None], memory)

    def at(self, positions: Tensor) -> EventStates:
        """Take one position (batch,) of each sequence."""
        return self.select(torch.arange(len(self.hidden), device=positions.device), positions)


def pad_sequences(
    gaps: Sequence[Sequence[float] | np.ndarray],
    types: Sequence[Sequence[int] | np.ndarray],
    *,
    first_known: ArrayLike,
    tails: ArrayLike,
    score_from: ArrayLike | None = None,
    resolution: float = 0.0,
    context: ArrayLike | None = None,
    dtype: torch.dtype = torch.float32,
) -> EventBatch:
    """Put event sequences into one batch, padded on the right to the longest.

    Parameters
    ----------
    gaps : sequence of (events,) arrays
        Scaled time from the event before; the first from the window's start, and not looked at
        where that is not known. Computed from float64 times, for large times leave no digits to
        float32.
    types : sequence of (events,) int arrays
        Types, 0 to K - 1.
    first_known : (batch,) bool
        Whether the window's start is known: only then the first interval is scored.
    tails : (batch,) float
        Scaled time from the last event (from the window's start, where there is no event) to the
        window's end; NaN where that is not known, and the last interval is not scored then.
    score_from : (batch,) float or None, default=None
        Scaled time since the window's start (since the first event, where the start is not known)
        up to which all is given: events up to it, and it included, are history; of the interval it
        lies in only the rest is scored. -inf or None: everything is scored.
    resolution : float, default=0.0
        The shortest interval of the clock; shorter ones count as so long. 0: an event at the time
        of the one before it is an error.
    context : (batch, features) float or None, default=None
        Static covariates.
    dtype : torch.dtype, default=torch.float32
        Of the times in the batch.

    Returns
    -------
    EventBatch

    Raises
    ------
    ValueError
        Lengths that do not agree, gaps that are negative, zero or not finite, negative tails or
        types: the message names the sequence and the event, both counted from 0.

    Examples
    --------
    Two events in a window that ends 1 later, and one event in a window of unknown bounds:

    >>> batch = pad_sequences(
    ...     [[0.5, 2.0], [9.0]], [[0, 1], [1]], first_known=[True, False], tails=[1.0, np.nan]
    ... )
    >>> batch.elapsed
    tensor([[0.5000, 2.0000, 1.0000],
            [1.0000, 1.0000, 1.0000]])
    >>> batch.scored
    tensor([[ True,  True,  True],
            [False, False, False]])
    """
    size = len(gaps)
    known = np.asarray(first_known, dtype=bool).reshape(-1)
    ends = np.asarray(tails, dtype=np.float64).reshape(-1)
    cuts = np.full(size, -np.inf) if score_from is None else np.asarray(score_from, np.float64)
    for name, values in (("types", types), ("first_known", known), ("tails", ends)):
        if len(values) != size:
            raise ValueError(f"{name} is given for {len(values)} sequences, gaps for {size}")
    if cuts.shape != (size,):
        raise ValueError(f"score_from must be ({size},), got {cuts.shape}")
    lengths = np.array([len(one) for one in gaps], dtype=np.int64)
    rows, events = np.arange(size), int(lengths.max(initial=0))
    mask = np.arange(events) < lengths[:, None]  # (batch, events)
    gap = _padded(gaps, lengths, mask, np.float64)
    kind = _padded(types, lengths, mask, np.int64)
    gap[~known, :1] = 0.0  # so that times count from the first event
    _check(gap, kind, mask, known, ends, resolution)
    time = np.pad(gap.cumsum(1), ((0, 0), (1, 0)))  # of each position, (batch, events + 1)
    interval = np.pad(gap, ((0, 0), (0, 1)))
    interval[rows, lengths] = ends
    position = np.arange(events + 1)
    observed = position < lengths[:, None]
    # Sums of gaps and differences of times round differently: an event at score_from is given.
    scored = time + interval > cuts[:, None] + 1e-12 * time[:, -1:]
    scored &= position <= lengths[:, None]
    scored[rows, lengths] &= ends > 0  # NaN is not
    scored[:, 0] &= known
    lower = np.where(scored, np.maximum(cuts[:, None] - time, 0.0), 0.0)
    gap[~known, :1] = 1.0
    return EventBatch(
        types=torch.from_numpy(kind),
        gaps=torch.from_numpy(np.where(mask, np.maximum(gap, resolution), 1.0)).to(dtype),
        mask=torch.from_numpy(mask),
        first_known=torch.from_numpy(known.copy()),
        elapsed=torch.from_numpy(np.where(scored, np.maximum(interval, resolution), 1.0)).to(dtype),
        lower=torch.from_numpy(lower).to(dtype),
        observed=torch.from_numpy(observed),
        scored=torch.from_numpy(scored),
        next_types=torch.from_numpy(np.pad(kind, ((0, 0), (0, 1)))),
        context=None if context is None else torch.as_tensor(np.asarray(context)).to(dtype),
    )


def length_buckets(
    lengths: ArrayLike,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Group sequences of like length into batches, so that little is padded.

    Parameters
    ----------
    lengths : (sequences,) int
        Events of each sequence.
    batch_size : int or None, default=None
        Sequences a batch holds at most.
    max_tokens : int or None, default=None
        Positions (padding included) that a batch holds at most; a longer sequence is alone.
    generator : torch.Generator or None, default=None
        Shuffles sequences of like length among batches, and the batches. None: by length.

    Returns
    -------
    list of Tensor
        The indices of each batch, int64; every sequence is in exactly one.

    Raises
    ------
    ValueError
        When neither limit is given, or one is below 1.

    Examples
    --------
    >>> length_buckets([3, 90, 4, 88], batch_size=2)
    [tensor([0, 2]), tensor([3, 1])]
    """
    if batch_size is None and max_tokens is None:
        raise ValueError("give batch_size, max_tokens or both")
    for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    positions = torch.as_tensor(np.asarray(lengths, dtype=np.int64)) + 1
    keys = positions.double().log()
    if generator is not None:
        # Lengths within 10 % are alike: their order, and so their batch, is random.
        keys = keys + 0.1 * torch.rand(len(keys), generator=generator, dtype=torch.float64)
    order = keys.argsort(stable=True)
    batches: list[list[int]] = []
    longest = 0
    for index in order.tolist():
        longest = max(longest, int(positions[index]))
        size = len(batches[-1]) if batches else 0
        full = size == 0 or size == batch_size
        if full or (max_tokens is not None and (size + 1) * longest > max_tokens):
            batches.append([])
            longest = int(positions[index])
        batches[-1].append(index)
    groups = [torch.tensor(batch, dtype=torch.int64) for batch in batches]
    if generator is None:
        return groups
    return [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]


def _padded(
    sequences: Sequence[Sequence[float] | np.ndarray],
    lengths: np.ndarray,
    mask: np.ndarray,
    dtype: type,
) -> np.ndarray:
    """Lay sequences out as rows, zeros behind them: (batch, events)."""
    for row, (one, length) in enumerate(zip(sequences, lengths, strict=True)):
        if len(one) != length:
            raise ValueError(f"sequence {row} has {length} gaps and {len(one)} types")
    padded: np.ndarray = np.zeros(mask.shape, dtype=dtype)
    if mask.any():
        padded[mask] = np.concatenate([np.asarray(one).astype(dtype) for one in sequences])
    return padded


def _check(
    gaps: np.ndarray,
    types: np.ndarray,
    mask: np.ndarray,
    known: np.ndarray,
    tails: np.ndarray,
    resolution: float,
) -> None:
    wrong = ~np.isfinite(gaps) | (gaps < 0)
    if resolution <= 0:
        wrong |= gaps == 0
    wrong &= mask
    wrong[~known, :1] = False
    if wrong.any():
        row, event = np.argwhere(wrong)[0]
        raise ValueError(
            f"sequence {row}, event {event}: the gap before it is {gaps[row, event]}, "
            "and must be finite and positive: times must increase, and equal ones need a resolution"
        )
    if (types < 0).any():
        row, event = np.argwhere(types < 0)[0]
        raise ValueError(
            f"sequence {row}, event {event}: its type is {types[row, event]}, not 0 or more"
        )
    if (tails < 0).any():
        row = int((tails < 0).argmax())
        raise ValueError(f"sequence {row}: its window ends {-tails[row]} before its last event")
