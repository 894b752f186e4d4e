"""Futures of event sequences: samples, counts of events, and whole simulated sequences."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsllm.arguments import shown
from tsllm.datasets.events import Clock, EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import (
    MOST_EVENTS,
    checked_count,
    duration_in_numbers,
    in_chunks,
    read_times,
)
from tsllm.events.encoding import FittedModel, Origin
from tsllm.events.sampling import Futures, Paths, draw_futures, sequence_generator

#: Futures that are drawn at once.
PATHS_AT_ONCE = 1024
#: Halvings that find the longest time that can be sampled.
REACH_STEPS = 100
#: Different lengths of futures, the longest ones, whose numbers of events are expected first.
MOST_LENGTHS = 16
#: Events of all sequences of a simulation together.
MOST_SIMULATED = 5_000_000


def sample_futures(
    model: FittedModel,
    origin: Origin,
    n_paths: int,
    seed: int,
    *,
    n_events: int | None = None,
    until: np.ndarray | None = None,
    longest: float | None = None,
) -> Iterator[tuple[np.ndarray, Futures]]:
    """Sample futures of some sequences at a time; see `draw_futures` for their ends.

    Each sequence has its own generator, made from the seed and the sequence's name.

    Yields
    ------
    places : int array (some,)
        The sequences.
    futures : Futures
        Arrays (some, paths, steps).
    """
    n_paths = checked_count("n_paths", n_paths)
    if n_events is None and until is None:
        raise DataError("say how far to sample: pass horizon, n_events, or both")
    if n_events is not None:
        n_events = checked_count("n_events", n_events)
    rows = model.last_rows(origin.table)
    for places in in_chunks(len(rows), max(1, PATHS_AT_ONCE // n_paths)):
        batch = rows.gather(places).to(model.device)
        with torch.no_grad():
            paths = model.start_paths(batch, n_paths)
        if n_events is None and until is not None:
            _check_reach(model, paths, origin, places, until[places])
        drawn = draw_futures(
            paths,
            [sequence_generator(seed, origin.table.ids[place]) for place in places],
            origin.elapsed[places].repeat(n_paths),
            n_events=n_events,
            until=None if until is None else until[places].repeat(n_paths),
            longest=longest,
        )
        shape = (len(places), n_paths, -1)
        yield places, Futures(*(part.reshape(shape) for part in drawn))


def _check_reach(
    model: FittedModel, paths: Paths, origin: Origin, places: np.ndarray, until: np.ndarray
) -> None:
    """Check, before anything is drawn, that no future is expected to have too many events.

    Sequences with the longest futures are checked; where others explode, drawing them stops.
    """
    copies = paths.states.hidden.shape[0] // len(places)
    waited = origin.elapsed[places]
    longest = np.unique(until - waited)[-MOST_LENGTHS:].min()
    rows = np.flatnonzero(until - waited >= longest)

    def expected(some: np.ndarray, length: np.ndarray) -> np.ndarray | None:
        at = torch.from_numpy(some * copies).to(paths.states.hidden.device)
        since = torch.from_numpy(waited[some]).to(at.device)
        states = paths.states.select(at, torch.zeros_like(at))
        end = since + torch.from_numpy(length).to(at.device)
        found = paths.decoder.expected_events(states, since, end)
        return None if found is None else found.cpu().numpy()

    found = expected(rows, until[rows] - waited[rows])
    if found is None or not (found > MOST_EVENTS).any():
        return
    row = rows[[int(found.argmax())]]
    reached, refused = 0.0, float(until[row[0]] - waited[row[0]])
    for _ in range(REACH_STEPS):
        middle = (reached + refused) / 2
        few = expected(row, np.array([middle]))
        if few is not None and few[0] <= MOST_EVENTS:
            reached = middle
            if refused < 1.01 * reached:
                break
        else:
            refused = middle
    clock, time = origin.table.clock, reached * model.time_scale
    unit = f" {clock.unit}" if clock.is_stamps else ""
    raise DataError(
        f"a future of sequence {origin.table.ids[places[row[0]]]!r} would have about "
        f"{found.max():.3g} events, and has at most {MOST_EVENTS:,}: ask for a shorter time "
        f"(horizon, window or duration), at most {time:.3g}{unit} from now on, or for n_events"
    )


def count_events(
    model: FittedModel,
    origin: Origin,
    window: Any,
    levels: Sequence[float],
    n_paths: int,
    seed: int,
) -> pd.DataFrame:
    """Count the events of sampled futures in a window of time; see `predict_count`."""
    table, last, elapsed = origin
    current = last + elapsed * model.time_scale
    start, end = _window_edges(table, current, window)
    k, names = len(model.classes), table.names
    opens, until = (start - last) / model.time_scale, (end - last) / model.time_scale
    counts = np.empty((len(table), k + 1, checked_count("n_paths", n_paths)), dtype=np.int64)
    for places, futures in sample_futures(model, origin, n_paths, seed, until=until):
        inside = np.isfinite(futures.elapsed) & (futures.elapsed > opens[places, None, None])
        for code in range(k):
            counts[places, code] = (inside & (futures.types == code)).sum(-1)
        counts[places, k] = inside.sum(-1)
    ids = table.windows()[names.id_col]
    frame = pd.DataFrame({names.id_col: ids.repeat(k + 1).reset_index(drop=True)})
    frame[names.type_col] = np.tile(np.append(model.classes, "all"), len(table))
    frame["mean"] = counts.mean(-1).ravel()
    ranks = np.quantile(counts, levels, axis=-1, method="inverted_cdf")
    for level, values in zip(levels, ranks):
        frame[f"q{level:g}"] = values.ravel()
    frame["none"] = (counts == 0).mean(-1).ravel()
    return frame


def _window_edges(
    table: EventTable, current: np.ndarray, window: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Read a duration from now on, or a pair of times: start and end of each sequence."""
    if not isinstance(window, tuple | list):
        return current, current + duration_in_numbers(table.clock, window, "window")
    if len(window) != 2:
        raise DataError(f"window must be a duration or a pair (start, end), found {shown(window)}")
    opens, closes = read_times(table.clock, list(window), "window")
    if not closes > opens or (opens < current).any():
        raise DataError(
            f"window={shown(window)} must start no earlier than now, "
            f"{table.clock.to_stamp(current.max())}, and end later than it starts"
        )
    return np.full(len(table), opens), np.full(len(table), closes)


def sample_frame(
    model: FittedModel,
    origin: Origin,
    n_paths: int,
    seed: int,
    *,
    horizon: Any,
    n_events: int | None,
) -> pd.DataFrame:
    """Write sampled futures in the user's names and units; see `EventForecaster.sample`."""
    table, last, elapsed = origin
    until = None
    if horizon is not None:
        until = elapsed + duration_in_numbers(table.clock, horizon, "horizon") / model.time_scale
    ids, names, frames = table.windows()[table.names.id_col], table.names, []
    for places, futures in sample_futures(
        model, origin, n_paths, seed, n_events=n_events, until=until
    ):
        sequence, path, step = np.isfinite(futures.elapsed).nonzero()
        later = futures.elapsed[sequence, path, step] * model.time_scale
        columns = {
            names.id_col: ids.iloc[places[sequence]].reset_index(drop=True),
            "path": path,
            names.time_col: table.clock.to_stamp(last[places[sequence]] + later),
            names.type_col: model.classes[futures.types[sequence, path, step]],
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _start_of(clock: Clock, start: Any) -> float:
    """Read the one time at which simulated sequences start."""
    begins = read_times(clock, start, "start")
    if begins.ndim or not np.isfinite(begins):
        raise DataError(f"start must be one known time, found {shown(start)}")
    return float(begins)


def _check_simulated(size: int, length: float) -> None:
    """Check that sequences of a scaled length have not too many events together.

    The estimate takes the mean inter-event time of the training for that of the simulation.
    """
    expected = size * length
    if expected > MOST_SIMULATED:
        raise DataError(
            f"a simulation of n_sequences={size:,} would have about {expected:.3g} events, and has "
            f"at most {MOST_SIMULATED:,}: ask for fewer sequences or a shorter duration"
        )


def simulate_sequences(
    model: FittedModel, like: EventTable, size: int, duration: Any, start: Any, seed: int
) -> EventTable:
    """Simulate whole sequences, with the clock and the column names of another table."""
    clock = like.clock
    begins = 0.0 if start is None else _start_of(clock, start)
    length = duration_in_numbers(clock, duration, "duration")
    _check_simulated(size, length / model.time_scale)
    empty = EventTable(
        ids=tuple(str(i) for i in range(size)),
        times=tuple(np.empty(0) for _ in range(size)),
        types=tuple(np.empty(0, dtype=object) for _ in range(size)),
        starts=np.full(size, begins),
        ends=np.full(size, np.nan),
        clock=clock,
        names=like.names,
    )
    until = np.full(size, length / model.time_scale)
    origin = Origin(empty, empty.starts, np.zeros(size))
    times, types = [], []
    for _, futures in sample_futures(model, origin, 1, seed, until=until):
        for elapsed, codes in zip(futures.elapsed[:, 0], futures.types[:, 0]):
            n = int(np.isfinite(elapsed).sum())
            # Rounding must not move an event over the edge of its window.
            times.append(np.minimum(begins + elapsed[:n] * model.time_scale, begins + length))
            types.append(model.classes[codes[:n]])
    return EventTable(
        empty.ids,
        tuple(times),
        tuple(types),
        empty.starts,
        empty.starts + length,
        clock,
        empty.names,
    )
