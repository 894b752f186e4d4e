"""Futures of event sequences, drawn event by event."""

import zlib
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.next_event import sample_next
from tsllm.backbone.stopping import check_time
from tsllm.errors import DataError
from tsllm.events.arguments import MOST_EVENTS

Encode = Callable[[EventBatch], tuple[EventDecoder, EventStates]]
#: The pace of futures is checked at this number of events, and whenever it has doubled.
FIRST_CHECK = 512
#: Mean events per mean inter-event time of the training, over 1,024 events: an explosion.
FAST_RATE = 20.0
#: Events of all futures that are drawn together: two arrays of 8 bytes each.
MOST_DRAWN = 20_000_000


class Futures(NamedTuple):
    """Sampled futures; scaled times from the last event of the history on."""

    #: (..., steps): inf where a future has fewer events.
    elapsed: np.ndarray
    #: (..., steps): Class codes, -1 there.
    types: np.ndarray


class Paths(Protocol):
    """Sequences that grow event by event, with the state after the last event."""

    @property
    def decoder(self) -> EventDecoder:
        """Return the decoder of the states."""

    @property
    def states(self) -> EventStates:
        """Return the states after the last event of each path: one position."""

    def append(self, types: Tensor, gaps: Tensor) -> None:
        """Append an event to each path: types and scaled inter-event times, (rows,) each."""


def copies_of(rows: int, copies: int, device: torch.device) -> Tensor:
    """Repeat each row index ``copies`` times, in order: (rows * copies,)."""
    return torch.arange(rows, device=device).repeat_interleave(copies)


class ReencodedPaths:
    """Paths of any encoder: their last ``context_length`` events are encoded after each event."""

    def __init__(self, encode: Encode, batch: EventBatch, context_length: int | None) -> None:
        self._encode, self._context_length = encode, context_length
        self._set(batch.types, batch.gaps, batch.lengths, batch.first_known, batch.context)

    def append(self, types: Tensor, gaps: Tensor) -> None:
        """Append an event to each path."""
        batch = self._batch
        lengths, rows = batch.lengths, torch.arange(len(batch), device=types.device)
        more = (0, 1)  # one column of padding on the right
        all_types = torch.nn.functional.pad(batch.types, more)
        all_gaps = torch.nn.functional.pad(batch.gaps, more, value=1.0)
        all_types[rows, lengths] = types
        all_gaps[rows, lengths] = gaps.to(all_gaps.dtype)
        lengths, known = lengths + 1, batch.first_known
        if self._context_length is not None and int(lengths.max()) > self._context_length:
            # Drop the first events of too long paths; the first inter-event time left is known.
            dropped = (lengths - self._context_length).clamp_min(0)
            width = min(self._context_length, all_types.shape[1])
            columns = dropped[:, None] + torch.arange(width, device=types.device)
            columns = columns.clamp_max(all_types.shape[1] - 1)
            all_types, all_gaps = all_types.gather(1, columns), all_gaps.gather(1, columns)
            lengths, known = lengths - dropped, known | (dropped > 0)
        self._set(all_types, all_gaps, lengths, known, batch.context)

    def _set(
        self, types: Tensor, gaps: Tensor, lengths: Tensor, known: Tensor, context: Tensor | None
    ) -> None:
        """Encode the sequences; no interval is scored."""
        positions = torch.arange(types.shape[1] + 1, device=types.device)
        nothing = torch.zeros(len(types), types.shape[1] + 1, device=types.device)
        self._batch = EventBatch(
            types=types,
            gaps=gaps,
            mask=positions[:-1] < lengths[:, None],
            first_known=known,
            elapsed=(nothing + 1).to(gaps),
            lower=nothing.to(gaps),
            observed=nothing.bool(),
            scored=nothing.bool(),
            next_types=nothing.long(),
            context=context,
        )
        self.decoder, states = self._encode(self._batch)
        self.states = states.at(lengths)


@torch.no_grad()
def draw_futures(
    paths: Paths,
    generators: list[np.random.Generator],
    waited: np.ndarray,
    *,
    n_events: int | None,
    until: np.ndarray | None,
    longest: float | None = None,
) -> Futures:
    """Draw futures, event by event.

    Parameters
    ----------
    paths : Paths
        The histories, each repeated once per future, in order; they grow.
    generators : list of numpy Generator
        One per history, so that its futures do not depend on the other histories.
    waited : float array (rows,)
        Scaled time since the last event without a further one.
    n_events : int or None
        Most events of a future.
    until : float array (rows,) or None
        Scaled time from the last event at which a future ends. One of both must be given.
    longest : float or None, default=None
        A future ends before a longer scaled inter-event time (for the first event, from now on).

    Returns
    -------
    Futures
        Of ``n_events`` steps where that is given, else of the longest future's steps.
    """
    rows = len(waited)
    per_history = rows // max(1, len(generators))
    device, dtype = paths.states.hidden.device, paths.states.hidden.dtype
    end = np.full(rows, np.inf) if until is None else until
    time, alive = np.zeros(rows), np.ones(rows, dtype=bool)
    all_elapsed: list[np.ndarray] = []
    all_types: list[np.ndarray] = []
    wait = torch.as_tensor(waited, dtype=torch.float64, device=device)
    pace = _Pace()
    if until is None and n_events is not None:
        _check_drawn(rows, n_events)
    while True:
        check_time()
        if n_events is None and len(all_types):
            pace.check(len(all_types), time[alive], end[alive])
        _check_drawn(rows, len(all_types))
        uniforms = np.concatenate([one.random((per_history, 2)) for one in generators])
        gaps, types = sample_next(
            paths.decoder, paths.states, waited=wait, uniforms=torch.from_numpy(uniforms).to(device)
        )
        if longest is not None:
            gaps = torch.where(gaps <= wait + longest, gaps, torch.inf)
        time = np.where(alive, time + gaps.cpu().numpy(), np.inf)
        alive &= time <= end
        alive &= np.isfinite(time)
        all_elapsed.append(np.where(alive, time, np.inf))
        all_types.append(np.where(alive, types.cpu().numpy(), -1))
        if not alive.any() or len(all_types) == n_events:
            break
        # Ended futures are continued with any event, which is not read.
        live = torch.from_numpy(alive).to(device)
        paths.append(torch.where(live, types, 0), torch.where(live, gaps, 1.0).to(dtype))
        wait = torch.zeros_like(wait)
    missing = [(0, 0), (0, 0 if n_events is None else n_events - len(all_types))]
    return Futures(
        np.pad(np.stack(all_elapsed, 1), missing, constant_values=np.inf),
        np.pad(np.stack(all_types, 1), missing, constant_values=-1),
    )


def _check_drawn(rows: int, n_events: int) -> None:
    """Check that futures drawn together do not fill the memory."""
    if rows * n_events > MOST_DRAWN:
        raise DataError(
            f"{rows:,} futures of {n_events:,} events are too many to draw at once: ask for fewer "
            "n_paths, fewer events or a shorter time"
        )


class _Pace:
    """Stops futures that would have too many events, long before they have them."""

    def __init__(self) -> None:
        self.n_events, self.reached = 0, 0.0  # at the check before

    def check(self, n_events: int, time: np.ndarray, end: np.ndarray) -> None:
        """Check futures of so many events, at scaled times (alive,), that stop at their ends."""
        if n_events < FIRST_CHECK or n_events & (n_events - 1):
            return
        reached = float(np.median(time))
        if n_events > FIRST_CHECK and n_events > FAST_RATE * (1 + reached):
            raise DataError(
                f"a sampled future has {n_events:,} events in {reached:,.0f} times the mean "
                "inter-event time of the training: the model explodes; ask for a shorter time, or "
                "for n_events"
            )
        rate = (n_events - self.n_events) / max(reached - self.reached, 1e-300)
        expected = n_events + rate * (float(np.median(end)) - reached)
        if expected > MOST_EVENTS:
            raise DataError(
                f"a sampled future would have about {expected:.3g} events, and has at most "
                f"{MOST_EVENTS:,}: ask for a shorter time (horizon, window or duration)"
            )
        self.n_events, self.reached = n_events, reached


def sequence_generator(seed: int, sequence: Hashable) -> np.random.Generator:
    """Make the random generator of one sequence from a seed and its name."""
    return np.random.default_rng([seed, zlib.crc32(str(sequence).encode())])
