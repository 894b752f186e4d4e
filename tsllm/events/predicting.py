"""What comes next, as an event forecaster sees it: when, of which type, how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.next_event import NextEvent, next_event
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.arguments import checked_count, checked_levels, in_chunks
from tsllm.events.batching import last_events
from tsllm.events.sampling import Futures
from tsllm.events.simulating import SimulatesEvents

#: Distributions of the next event that are computed at once.
ROWS_AT_ONCE = 512


class Prediction(NamedTuple):
    """When the next event comes and of which type; scaled, from the last event of the history on.

    Attributes
    ----------
    mean, median, no_event : float arrays (sequences,)
    quantiles : float array (sequences, levels)
    types : float array (sequences, types)
    """

    mean: np.ndarray
    median: np.ndarray
    quantiles: np.ndarray
    types: np.ndarray
    no_event: np.ndarray


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
            least squared error), ``time_median`` (its median, given the same; least absolute
            error), ``q0.1`` and so on (by when it has come, with such a probability); the most
            probable ``type`` with its ``probability``; and ``no_event``, the probability that so
            many events never come. Of a method that knows only so far (`PromptTPP`:
            ``longest_wait_``) an event that comes later counts as none. Times that cannot be known
            or that no timestamp can hold are missing (NaT, inf for numbers).

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
        steps = [self._next_event(table, waited, levels, continued=history is None)]
        if n_steps > 1:
            steps += self._later_steps(table, waited, n_steps, levels, n_paths)
        whole = Prediction(*(np.stack(part, 1) for part in zip(*steps)))  # (sequences, steps, ...)
        names, best = table.names, whole.types.argmax(-1)
        ids = table.windows()[names.id_col]
        frame = pd.DataFrame({names.id_col: ids.repeat(n_steps).reset_index(drop=True)})
        frame["step"] = np.tile(np.arange(1, n_steps + 1), len(table))
        times = {names.time_col: whole.mean, f"{names.time_col}_median": whole.median}
        for place, level in enumerate(levels):
            times[f"q{level:g}"] = whole.quantiles[..., place]
        for name, elapsed in times.items():
            absolute = base[:, None] + elapsed * self.time_scale_
            frame[name] = table.clock.to_stamp(absolute.ravel())
        frame[names.type_col] = self.classes_[best.ravel()]
        frame["probability"] = np.take_along_axis(whole.types, best[..., None], -1).ravel()
        frame["no_event"] = whole.no_event.ravel()
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
        found = self._next_event(table, waited, (), continued=history is None)
        index = pd.Index(table.windows()[table.names.id_col])
        return pd.DataFrame(found.types, index=index, columns=list(self.classes_))

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
            missing (NaT, inf for numbers) where the event may never come, or later than the
            method knows (`PromptTPP`: ``longest_wait_``).
        """
        check_is_fitted(self)
        levels = checked_levels(levels)
        table, waited, base = self._known(history, now, windows)
        found = self._next_event(table, waited, levels, continued=history is None)
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

    def _next_event(
        self, table: EventTable, waited: np.ndarray, levels: Sequence[float], *, continued: bool
    ) -> Prediction:
        """Describe the next event of each sequence; ``continued`` where the table is `history_`."""
        wait = torch.as_tensor(waited, device=self._device())
        running = self._latest_states() if continued else None
        longest = self._longest_wait()

        def describe(decoder: EventDecoder, states: EventStates, wait: torch.Tensor) -> NextEvent:
            end = None if longest is None else wait + longest
            return next_event(decoder, states, waited=wait, levels=levels, horizon_max=end)

        results = []
        with torch.no_grad():
            if running is not None:
                decoder, states = running
                for places in in_chunks(len(table), ROWS_AT_ONCE):
                    rows = torch.as_tensor(places, device=wait.device)
                    here = states.select(rows, torch.zeros_like(rows))
                    results.append(describe(decoder, here, wait[places]))
            else:
                histories = self._windows(last_events(table, self._context_length()))
                for places in in_chunks(len(table), self._rows_at_once):
                    batch = histories.gather(places).to(wait.device)
                    decoder, states = self._encode(batch)
                    here = states.at(batch.lengths)
                    results.append(describe(decoder, here, wait[places]))
        return Prediction(*(torch.cat(part).cpu().numpy() for part in zip(*results)))

    def _later_steps(
        self,
        table: EventTable,
        waited: np.ndarray,
        n_steps: int,
        levels: Sequence[float],
        n_paths: int,
    ) -> list[Prediction]:
        """Describe the events after the next one of each sequence, from sampled futures."""
        chunks = [
            [_sampled_step(futures, step, levels, len(self.classes_)) for step in range(1, n_steps)]
            for _, futures in self._futures(
                table, waited, n_paths, n_events=n_steps, longest=self._longest_wait()
            )
        ]
        return [Prediction(*map(np.concatenate, zip(*step))) for step in zip(*chunks)]

    def _intensities(self, table: EventTable, moments: np.ndarray) -> np.ndarray:
        """Give intensities in the user's unit: (sequences, times, types), NaN where not known."""
        windows = self._windows(table)
        asked = windows.locate(moments)
        values = np.full((len(table), len(moments), len(self.classes_)), np.nan)
        for rows in in_chunks(len(windows), self._rows_at_once):
            mine = np.flatnonzero((asked.row >= rows[0]) & (asked.row <= rows[-1]))
            if not len(mine):
                continue
            batch = windows.gather(rows).to(self._device())
            with torch.no_grad():
                decoder, states = self._encode(batch)
                for some in np.split(mine, range(ROWS_AT_ONCE, len(mine), ROWS_AT_ONCE)):
                    row, position, elapsed = (
                        torch.as_tensor(part[some], device=self._device())
                        for part in (asked.row - rows[0], asked.position, asked.elapsed)
                    )
                    nodes = (elapsed / self.time_scale_).to(self._dtype)[:, None, None]
                    rates = decoder.log_intensities(states.select(row, position), nodes).exp()
                    found = rates[:, 0, 0].double().cpu().numpy() / self.time_scale_
                    values[asked.sequence[some], asked.moment[some]] = found
        return values


def _sampled_step(futures: Futures, step: int, levels: Sequence[float], n_types: int) -> Prediction:
    """Describe one step of sampled futures, the first being step 0."""
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
    """Predict the event that ends each interval, from its start (given its lower part).

    Parameters
    ----------
    decoder, states, batch
        See `log_likelihood`.
    longest : float, optional
        Scaled: given that the event comes within so long of the interval's lower part.

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
        waited = batch.lower[at].double()
        end = None if longest is None else waited + longest
        found = next_event(decoder, states.select(*at), waited=waited, horizon_max=end)
        mean[at], median[at], types[at] = found.mean, found.median, found.type_probabilities
    return mean, median, types


def _listed(times: Any) -> Any:
    """Wrap one time in a list."""
    return [times] if np.ndim(times) == 0 else times
