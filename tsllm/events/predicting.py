"""What comes next, as an event forecaster sees it: when, of which type, how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from tsllm.adapters.event_batch import EventBatch, EventStates
from tsllm.adapters.event_decoder_base import EventDecoder
from tsllm.adapters.next_event import NextEvent, next_event
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import checked_count, checked_levels, in_chunks
from tsllm.events.histories import last_events
from tsllm.events.simulating import SimulatesEvents

#: Distributions of the next event that are computed at once.
ROWS_AT_ONCE = 512


class PredictsEvents(SimulatesEvents):
    """The part of `EventForecaster` that predicts.

    All methods take the same arguments for what is known:

    - ``history``: events as in `fit`; None continues those that `fit` and `update` were given. A
      row is predicted for each sequence.
    - ``windows``: from when to when ``history`` was observed, as in `fit`.
    - ``now``: nothing has happened since the last event until then; one time for all sequences or a
      mapping by sequence. None: the end of the observation window where it is known, else the
      time of the last event.

    Times come back as they were given: timestamps where the events have timestamps.
    """

    # ------------------------------------------------------------------ the next events

    def predict(
        self,
        history: Any = None,
        *,
        n_steps: int = 1,
        levels: Sequence[float] = (0.1, 0.9),
        now: Any = None,
        windows: Any = None,
        n_paths: int = 256,
    ) -> pd.DataFrame:
        """Predict the next events of each sequence.

        Parameters
        ----------
        history, now, windows : optional
            What is known, see `PredictsEvents`.
        n_steps : int
            How many events ahead. The first is predicted exactly; the others from sampled futures,
            never by feeding predictions back.
        levels : sequence of float
            Probability levels of the quantile columns.
        n_paths : int
            Futures to sample of each sequence, for ``n_steps`` above 1.

        Returns
        -------
        DataFrame
            A row per sequence and ``step``: the ``time`` (its mean, given that the event comes;
            least squared error), ``time_median`` (least absolute error), ``q0.1`` and so on; the
            most probable ``type`` with its ``probability``; and ``no_event``, the probability that
            so many events never come. Times that cannot be known or that no timestamp can hold are
            missing (NaT, inf for numbers).

        Raises
        ------
        DataError
            Bad arguments, a type that was not seen in training, or a sequence without events and
            without a window's start.

        Examples
        --------
        >>> import pandas as pd
        >>> from tsllm.events import NaiveEventForecaster
        >>> days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])
        >>> events = pd.DataFrame({"time": days, "type": ["on", "off", "on"]})
        >>> model = NaiveEventForecaster(types="markov").fit(events)
        >>> model.predict()[["step", "time", "type"]]
           step                time type
        0     1 2024-01-05 12:00:00  off
        """
        check_is_fitted(self)
        n_steps, levels = checked_count("n_steps", n_steps), checked_levels(levels)
        table, waited, base = self._known(history, now, windows)
        names, stamp, k = table.names, table.clock.to_stamp, len(self.classes_)
        first = self._next_events(table, waited, levels, history is None)
        # (sequences, steps, ...): the first step, then those of the sampled futures
        times = np.column_stack([first.mean, first.median, first.quantiles])[:, None]
        types, never = first.type_probabilities[:, None], first.no_event[:, None]
        if n_steps > 1:
            futures = self._futures(table, waited, n_paths, n_events=n_steps)
            elapsed = futures.elapsed[:, :, 1:]  # (sequences, paths, steps - 1)
            comes = np.isfinite(elapsed)
            counts = comes.sum(1)
            sums = np.where(comes, elapsed, 0.0).sum(1)
            means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
            ranks = np.quantile(elapsed, [0.5, *levels], axis=1, method="inverted_cdf")
            times = np.concatenate(
                [times, np.concatenate([means[None], ranks]).transpose(1, 2, 0)], 1
            )
            shares = (futures.types[:, :, 1:, None] == np.arange(k)).sum(1)
            types = np.concatenate([types, shares / np.maximum(counts, 1)[..., None]], 1)
            never = np.concatenate([never, 1 - counts / n_paths], 1)
        rows, steps = len(table), n_steps
        absolute = base[:, None, None] + times * self.time_scale_
        best = types.argmax(-1)
        ids = table.windows()[names.id_col]
        frame = pd.DataFrame({names.id_col: ids.repeat(steps).reset_index(drop=True)})
        frame["step"] = np.tile(np.arange(1, steps + 1), rows)
        for place, name in enumerate(
            [names.time_col, f"{names.time_col}_median", *(f"q{level:g}" for level in levels)]
        ):
            frame[name] = stamp(absolute[:, :, place].ravel())
        frame[names.type_col] = self.classes_[best.ravel()]
        frame["probability"] = np.take_along_axis(types, best[..., None], -1).ravel()
        frame["no_event"] = never.ravel()
        return frame

    def predict_proba(
        self, history: Any = None, *, now: Any = None, windows: Any = None
    ) -> pd.DataFrame:
        """Predict of which type the next event is, whenever it comes.

        Parameters
        ----------
        history, now, windows : optional
            What is known, see `PredictsEvents`.

        Returns
        -------
        DataFrame
            Probabilities: one row per sequence, named by the index, and one column per type.
        """
        check_is_fitted(self)
        table, waited, _ = self._known(history, now, windows)
        found = self._next_events(table, waited, (), history is None)
        index = pd.Index(table.windows()[table.names.id_col])
        return pd.DataFrame(found.type_probabilities, index=index, columns=list(self.classes_))

    def predict_quantiles(
        self,
        history: Any = None,
        *,
        levels: Sequence[float] = (0.1, 0.5, 0.9),
        now: Any = None,
        windows: Any = None,
    ) -> pd.DataFrame:
        """Predict by when the next event has come, with given probabilities.

        Parameters
        ----------
        history, now, windows : optional
            What is known, see `PredictsEvents`.
        levels : sequence of float
            Probability levels, between 0 and 1.

        Returns
        -------
        DataFrame
            Times: one row per sequence, named by the index, and one column per level (``q0.1``);
            missing (NaT, inf for numbers) where the event may never come.
        """
        check_is_fitted(self)
        levels = checked_levels(levels)
        table, waited, base = self._known(history, now, windows)
        found = self._next_events(table, waited, levels, history is None)
        times = base[:, None] + found.quantiles * self.time_scale_
        index = pd.Index(table.windows()[table.names.id_col])
        columns = {
            f"q{level:g}": table.clock.to_stamp(times[:, i]) for i, level in enumerate(levels)
        }
        return pd.DataFrame(columns, index=index)

    # ------------------------------------------------------------------ intensities

    def predict_intensity(
        self,
        times: Any,
        history: Any = None,
        *,
        by_type: bool = True,
        windows: Any = None,
    ) -> pd.DataFrame:
        """Tell how many events per unit of time the model expects at given times.

        Each time is seen from the events strictly before it; after the last event, given that
        nothing has happened since.

        Parameters
        ----------
        times : time or sequence of times
            The same for all sequences.
        history, windows : optional
            What is known, see `PredictsEvents`.
        by_type : bool
            One column per type, else one of all events.

        Returns
        -------
        DataFrame
            One row per sequence and time, which name the index. In events per unit of the user's
            time (``time_unit`` for timestamps). NaN before a sequence's window, and before its
            first event where the window's start is not known.
        """
        check_is_fitted(self)
        table = self._table(history, windows)
        moments = np.atleast_1d(np.asarray(table.clock.to_number(_listed(times)), dtype=np.float64))
        if not np.isfinite(moments).all():
            raise DataError("times has missing or infinite entries; leave them out")
        values = self._intensities(table, moments)  # (sequences, times, types)
        ids, names = table.windows()[table.names.id_col], table.names
        index = pd.MultiIndex.from_arrays(
            [
                ids.repeat(len(moments)),
                table.clock.to_stamp(np.tile(moments, len(table))),
            ],
            names=[names.id_col, names.time_col],
        )
        flat = values.reshape(-1, values.shape[-1])
        if by_type:
            return pd.DataFrame(flat, index=index, columns=list(self.classes_))
        return pd.DataFrame({"intensity": flat.sum(-1)}, index=index)

    # ------------------------------------------------------------------ below

    def _next_events(
        self, table: EventTable, waited: np.ndarray, levels: Sequence[float], own: bool
    ) -> NextEvent:
        """Describe the next event of each sequence: float arrays, scaled."""
        wait = torch.as_tensor(waited, device=self._device())
        running = self._latest_states() if own else None
        results: list[tuple[np.ndarray, NextEvent]] = []

        def describe(decoder: EventDecoder, states: EventStates, places: np.ndarray) -> None:
            found = next_event(decoder, states, waited=wait[places], levels=levels)
            results.append((places, found))

        with torch.no_grad():
            if running is not None:
                decoder, states = running
                for places in in_chunks(len(table), ROWS_AT_ONCE):
                    rows = torch.as_tensor(places, device=wait.device)
                    describe(decoder, states.select(rows, torch.zeros_like(rows)), places)
            else:
                histories = self._windows(last_events(table, self._context_length()))
                for places in in_chunks(len(table), self._rows_at_once):
                    batch = histories.gather(places).to(wait.device)
                    decoder, states = self._encode(batch)
                    describe(decoder, states.at(batch.lengths), places)
        order = np.argsort(np.concatenate([places for places, _ in results]))
        return NextEvent(
            *(
                np.concatenate([part.cpu().numpy() for part in parts])[order]  # type: ignore[arg-type]
                for parts in zip(*(found for _, found in results))
            )
        )

    def _intensities(self, table: EventTable, moments: np.ndarray) -> np.ndarray:
        """Give intensities in the user's unit: (sequences, times, types), NaN where not known."""
        windows = self._windows(table)
        values = np.full((len(table), len(moments), len(self.classes_)), np.nan)
        number = [np.searchsorted(times, moments, "left") for times in table.times]
        for places in in_chunks(len(windows), self._rows_at_once):
            batch = windows.gather(places).to(self._device())
            with torch.no_grad():
                decoder, states = self._encode(batch)
            for row, place in enumerate(places):
                sequence = int(windows.sequence[place])
                edges = np.concatenate([[table.starts[sequence]], table.times[sequence]])
                own = number[sequence]
                # Each interval belongs to one row, as in scoring.
                stop = np.inf if windows.last[place] == len(edges) - 1 else windows.last[place]
                mine = (own >= windows.score_first[place]) & (own < stop)
                mine &= moments > edges[own]  # False where the start is not known
                if not mine.any():
                    continue
                elapsed = (moments - edges[own])[mine] / self.time_scale_
                position = torch.as_tensor(
                    (own - windows.first[place])[mine], device=batch.gaps.device
                )
                with torch.no_grad():
                    here = states.select(torch.full_like(position, row), position)
                    nodes = torch.as_tensor(elapsed, device=position.device).to(self._dtype)
                    rates = decoder.log_intensities(here, nodes[:, None, None])[:, 0, 0].exp()
                values[sequence, mine] = rates.double().cpu().numpy() / self.time_scale_
        return values


def predict_at_positions(
    decoder: EventDecoder, states: EventStates, batch: EventBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predict the event that ends each interval, from its start (given its lower part).

    Returns
    -------
    mean, median : Tensor
        ``(batch, positions)``, scaled and from the event before; 0 where no event is scored.
    types : Tensor
        ``(batch, positions, types)``.
    """
    wanted = batch.observed & batch.scored
    rows, positions = wanted.nonzero(as_tuple=True)
    shape = tuple(wanted.shape)
    mean = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    median, types = torch.zeros_like(mean), mean.new_zeros(*shape, decoder.n_types)
    for some in torch.arange(len(rows), device=rows.device).split(ROWS_AT_ONCE):
        at = rows[some], positions[some]
        found = next_event(decoder, states.select(*at), waited=batch.lower[at])
        mean[at], median[at], types[at] = found.mean, found.median, found.type_probabilities
    return mean, median, types


def _listed(times: Any) -> Any:
    """Wrap one time in a list."""
    return [times] if np.ndim(times) == 0 else times
