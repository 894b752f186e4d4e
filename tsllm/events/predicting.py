"""Predictions of the next events: their times, their types, and intensities."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.next_event import NextEvent, next_event
from tsllm.backbone.stopping import check_time
from tsllm.datasets.events import EventTable
from tsllm.events.arguments import in_chunks
from tsllm.events.encoding import FittedModel, Origin
from tsllm.events.sampling import Futures
from tsllm.events.simulating import sample_futures

#: Distributions of the next event that are computed at once.
ROWS_AT_ONCE = 512


class Prediction(NamedTuple):
    """Time and type of the next event; times are scaled and count from the last event."""

    #: (sequences,)
    mean: np.ndarray
    median: np.ndarray
    #: (sequences, levels)
    quantiles: np.ndarray
    #: (sequences, types)
    types: np.ndarray
    #: (sequences,)
    no_event: np.ndarray


def predict_next_event(
    model: FittedModel,
    origin: Origin,
    levels: Sequence[float],
    running: tuple[EventDecoder, EventStates] | None = None,
) -> Prediction:
    """Predict the next event of each sequence.

    ``running`` are decoder and states after the last events. None: the sequences are encoded.
    """
    elapsed = torch.as_tensor(origin.elapsed, device=model.device)

    def describe(decoder: EventDecoder, states: EventStates, waited: torch.Tensor) -> NextEvent:
        end = None if model.longest is None else waited + model.longest
        return next_event(decoder, states, waited=waited, levels=levels, horizon_max=end)

    results = []
    with torch.no_grad():
        if running is not None:
            decoder, states = running
            for places in in_chunks(len(origin.table), ROWS_AT_ONCE):
                check_time()
                rows = torch.as_tensor(places, device=model.device)
                here = states.select(rows, torch.zeros_like(rows))
                results.append(describe(decoder, here, elapsed[places]))
        else:
            sequences = model.last_rows(origin.table)
            for places in in_chunks(len(origin.table), model.rows_at_once):
                check_time()
                batch = sequences.gather(places).to(model.device)
                decoder, states = model.encode(batch)
                results.append(describe(decoder, states.at(batch.lengths), elapsed[places]))
    return Prediction(*(torch.cat(part).cpu().numpy() for part in zip(*results)))


def predict_later_events(
    model: FittedModel,
    origin: Origin,
    levels: Sequence[float],
    *,
    n_steps: int,
    n_paths: int,
    seed: int,
) -> list[Prediction]:
    """Predict the events 2 to ``n_steps`` of each sequence from sampled futures."""
    chunks = [
        [_sampled_step(futures, step, levels, len(model.classes)) for step in range(1, n_steps)]
        for _, futures in sample_futures(
            model, origin, n_paths, seed, n_events=n_steps, longest=model.longest
        )
    ]
    return [Prediction(*map(np.concatenate, zip(*step))) for step in zip(*chunks)]


def prediction_frame(
    model: FittedModel, origin: Origin, steps: Sequence[Prediction], levels: Sequence[float]
) -> pd.DataFrame:
    """Write predictions in the user's names and units; see `EventForecaster.predict`."""
    whole = Prediction(*(np.stack(part, 1) for part in zip(*steps)))  # (sequences, steps, ...)
    names, best = origin.table.names, whole.types.argmax(-1)
    ids = origin.table.windows()[names.id_col]
    frame = pd.DataFrame({names.id_col: ids.repeat(len(steps)).reset_index(drop=True)})
    frame["step"] = np.tile(np.arange(1, len(steps) + 1), len(origin.table))
    times = {names.time_col: whole.mean, f"{names.time_col}_median": whole.median}
    for place, level in enumerate(levels):
        times[f"q{level:g}"] = whole.quantiles[..., place]
    for name, elapsed in times.items():
        absolute = origin.last[:, None] + elapsed * model.time_scale
        frame[name] = origin.table.clock.to_stamp(absolute.ravel())
    frame[names.type_col] = model.classes[best.ravel()]
    frame["probability"] = np.take_along_axis(whole.types, best[..., None], -1).ravel()
    frame["no_event"] = whole.no_event.ravel()
    return frame


def intensity_frame(model: FittedModel, table: EventTable, times: np.ndarray) -> pd.DataFrame:
    """Compute the intensity of each type; see `EventForecaster.predict_intensity`."""
    rows = model.rows(table)
    asked = rows.locate(times)
    values = np.full((len(table), len(times), len(model.classes)), np.nan)
    for chunk in in_chunks(len(rows), model.rows_at_once):
        mine = np.flatnonzero((asked.row >= chunk[0]) & (asked.row <= chunk[-1]))
        if not len(mine):
            continue
        batch = rows.gather(chunk).to(model.device)
        with torch.no_grad():
            decoder, states = model.encode(batch)
            for some in np.split(mine, range(ROWS_AT_ONCE, len(mine), ROWS_AT_ONCE)):
                row, position, elapsed = (
                    torch.as_tensor(part[some], device=model.device)
                    for part in (asked.row - chunk[0], asked.position, asked.elapsed)
                )
                nodes = (elapsed / model.time_scale).to(model.dtype)[:, None, None]
                rates = decoder.log_intensities(states.select(row, position), nodes).exp()
                found = rates[:, 0, 0].double().cpu().numpy() / model.time_scale
                values[asked.sequence[some], asked.moment[some]] = found
    ids, stamps = table.windows()[table.names.id_col], table.clock.to_stamp(times)
    index = pd.MultiIndex.from_product(
        [ids, stamps], names=[table.names.id_col, table.names.time_col]
    )
    return pd.DataFrame(values.reshape(len(index), -1), index=index, columns=list(model.classes))


def _sampled_step(futures: Futures, step: int, levels: Sequence[float], n_types: int) -> Prediction:
    """Summarise one step of sampled futures; the first is step 0."""
    elapsed, types = futures.elapsed[:, :, step], futures.types[:, :, step]  # (sequences, paths)
    comes = np.isfinite(elapsed)
    counts = comes.sum(1)
    sums = np.where(comes, elapsed, 0.0).sum(1)
    # Paths without the event are sorted to the end: they count for the levels, not the median.
    ordered = np.sort(elapsed, 1)
    middle = np.maximum((counts + 1) // 2, 1) - 1
    shares = (types[..., None] == np.arange(n_types)).sum(1) / np.maximum(counts, 1)[:, None]
    return Prediction(
        mean=np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0),
        median=np.take_along_axis(ordered, middle[:, None], 1)[:, 0],
        quantiles=np.quantile(elapsed, levels, axis=1, method="inverted_cdf").T,
        types=shares,
        no_event=1 - comes.mean(1),
    )


def predict_at_positions(
    decoder: EventDecoder,
    states: EventStates,
    batch: EventBatch,
    longest: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predict the event that ends each interval, given the interval's lower part.

    With ``longest``, the event comes within this scaled time after the lower part.

    Returns
    -------
    mean, median : Tensor (batch, positions)
        Scaled time from the event before; 0 where no event is scored.
    types : Tensor (batch, positions, types)
        Probabilities.
    """
    wanted = batch.observed & batch.scored
    rows, positions = wanted.nonzero(as_tuple=True)
    shape = tuple(wanted.shape)
    mean = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    median, types = torch.zeros_like(mean), mean.new_zeros(*shape, decoder.n_types)
    for some in torch.arange(len(rows), device=rows.device).split(ROWS_AT_ONCE):
        at = rows[some], positions[some]
        lower = batch.lower[at].double()
        end = None if longest is None else lower + longest
        found = next_event(decoder, states.select(*at), waited=lower, horizon_max=end)
        mean[at], median[at], types[at] = found.mean, found.median, found.type_probabilities
    return mean, median, types
