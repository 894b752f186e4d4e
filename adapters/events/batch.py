"""Batches of event sequences, and the states of an encoder after each event.

A sequence of n events has n + 1 positions: position 0 is its start, position i follows event i. The
interval of a position ends at the next event or at the end of the window. All times are scaled by
the mean inter-event time in training; ``gaps`` are inter-event times.
"""

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
    """Event sequences of different lengths, padded on the right, from `pad_sequences`.

    The interval of a position contributes ``log f(elapsed, type) - log S(lower)`` to the
    log-likelihood where it ends in an observed event, and ``log S(elapsed) - log S(lower)`` where
    it does not (Daley and Vere-Jones 2003, section 7.2).
    """

    types: Tensor
    """(batch, events) int64, 0 where padded."""
    gaps: Tensor
    """(batch, events), inter-event times; the first from the window's start, 1 where that is not
    known."""
    mask: Tensor
    """(batch, events) bool, True for an event, False for padding."""
    first_known: Tensor
    """(batch,) bool, True where the window's start is known."""
    elapsed: Tensor
    """(batch, events + 1), length of each position's interval; 1 where there is none."""
    lower: Tensor
    """(batch, events + 1), the part of the interval before the scored part; mostly 0."""
    observed: Tensor
    """(batch, events + 1) bool, True where the interval ends in an event."""
    scored: Tensor
    """(batch, events + 1) bool, False for padding, intervals of unknown length, and history."""
    next_types: Tensor
    """(batch, events + 1) int64, the type of the event that ends the interval; 0 without one."""
    context: Tensor | None = None
    """(batch, features) static covariates."""
    origin: Tensor | None = None
    """(batch,) float64, the time of position 0 since the zero of the calendar, scaled; None where
    the times are no timestamps."""

    def __len__(self) -> int:
        return len(self.types)

    @property
    def lengths(self) -> Tensor:
        """Count the events of each sequence, (batch,) int64: the index of its last position."""
        return self.mask.sum(1)

    @property
    def times(self) -> Tensor | None:
        """Compute the calendar time of each position, (batch, events + 1) float64."""
        if self.origin is None:
            return None
        since = torch.nn.functional.pad(self.gaps.double().cumsum(1), (1, 0))
        return self.origin[:, None] + since

    @property
    def events_scored(self) -> Tensor:
        """Count the events in the log-likelihood, a scalar int64."""
        return (self.observed & self.scored).sum()

    def to(self, device: torch.device | str) -> Self:
        """Move all tensors to a device."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, rows: Tensor) -> Self:
        """Select sequences by index (int64) or by a bool mask; repeats are allowed."""
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if v is not None}
        return dataclasses.replace(self, **changed)


class StateMemory(Protocol):
    """The inputs of a decoder beside `EventStates.hidden`, selected with them."""

    def select(self, rows: Tensor, positions: Tensor) -> "StateMemory":
        """Select one position (n,) of each of the given sequences (n,)."""


@dataclass(frozen=True)
class EventStates:
    """The output of an encoder at each position, a function of the events before it only."""

    hidden: Tensor
    """(batch, positions, hidden)."""
    memory: StateMemory | None = None
    """For decoders that attend to the events (AttNHP)."""
    type_guess: Tensor | None = None
    """(batch, positions, types), counted probabilities of the next type times the share that they
    have in the predicted ones; None: no share."""

    def select(self, rows: Tensor, positions: Tensor) -> "EventStates":
        """Select one position (n,) of each of the given sequences (n,), as n sequences."""
        memory = None if self.memory is None else self.memory.select(rows, positions)
        guess = None if self.type_guess is None else self.type_guess[rows, positions][:, None]
        return EventStates(self.hidden[rows, positions][:, None], memory, guess)

    def at(self, positions: Tensor) -> "EventStates":
        """Select one position (batch,) of each sequence."""
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
    origin: ArrayLike | None = None,
    dtype: torch.dtype = torch.float32,
) -> EventBatch:
    """Combine event sequences to a batch, padded on the right to the longest.

    Parameters
    ----------
    gaps : sequence of (events,) arrays
        Scaled inter-event times, computed from float64 times. The first counts from the window's
        start, and is not read where that is not known.
    types : sequence of (events,) int arrays
        Event types, 0 to K - 1.
    first_known : (batch,) bool
        Whether the window's start is known: only then the first interval is scored.
    tails : (batch,) float
        Scaled time from the last event (without events, from the window's start) to the window's
        end. NaN where that is not known: the last interval is then not scored.
    score_from : (batch,) float or None, default=None
        Scaled time since the window's start (since the first event, where the start is not known)
        from which events are scored: events up to and including it are history, and of the interval
        that contains it only the rest is scored. -inf or None: everything is scored.
    resolution : float, default=0.0
        The shortest interval of the clock: shorter ones are replaced by it. 0: two events at the
        same time are an error.
    context : (batch, features) float or None, default=None
        Static covariates.
    origin : (batch,) float or None, default=None
        Scaled calendar time of each window's start; where that is not known, of the first event.
    dtype : torch.dtype, default=torch.float32
        Of the times in the batch.

    Returns
    -------
    EventBatch
        The padded batch.

    Raises
    ------
    ValueError
        For lengths that do not agree, inter-event times that are negative, zero or not finite, and
        negative tails or types: the message names sequence and event, both counted from 0.

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
    gap[~known, :1] = 0.0  # times count from the first event
    _check(gap, kind, mask, known, ends, resolution)
    time = np.pad(gap.cumsum(1), ((0, 0), (1, 0)))  # of each position, (batch, events + 1)
    interval = np.pad(gap, ((0, 0), (0, 1)))
    interval[rows, lengths] = ends
    position = np.arange(events + 1)
    observed = position < lengths[:, None]
    # Sums and differences of times round differently: an event at score_from is history.
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
        # A first gap that is not known counts as 1.
        origin=None if origin is None else torch.from_numpy(np.asarray(origin) - ~known),
    )


def length_buckets(
    lengths: ArrayLike,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Group sequences of similar length into batches, to reduce padding.

    Parameters
    ----------
    lengths : (sequences,) int
        Events of each sequence.
    batch_size : int or None, default=None
        Maximal number of sequences in a batch.
    max_tokens : int or None, default=None
        Maximal number of positions (padding included) in a batch; a longer sequence is alone.
    generator : torch.Generator or None, default=None
        Shuffles sequences of similar length among batches, and the batches. None: by length.

    Returns
    -------
    list of Tensor
        The indices of each batch, int64; each sequence is in exactly one.

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
        # Lengths within 10 % are similar: their order, and so their batch, is random.
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
    """Pad sequences with zeros to rows: (batch, events)."""
    for row, (one, length) in enumerate(zip(sequences, lengths, strict=True)):
        if len(one) != length:
            raise ValueError(f"sequence {row} has {length} inter-event times and {len(one)} types")
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
    """Check inter-event times, types and tails."""
    wrong = ~np.isfinite(gaps) | (gaps < 0)
    if resolution <= 0:
        wrong |= gaps == 0
    wrong &= mask
    wrong[~known, :1] = False
    if wrong.any():
        row, event = np.argwhere(wrong)[0]
        raise ValueError(
            f"sequence {row}, event {event}: the inter-event time before it is {gaps[row, event]}, "
            "not finite and positive: make times increase, or give equal ones a resolution"
        )
    if (types < 0).any():
        row, event = np.argwhere(types < 0)[0]
        raise ValueError(
            f"sequence {row}, event {event}: its type is {types[row, event]}, not 0 or more"
        )
    if (tails < 0).any():
        row = int((tails < 0).argmax())
        raise ValueError(f"sequence {row}: its window ends {-tails[row]} before its last event")
