"""A stream of series: observations one step at a time, and forecasts after any of them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import checked_levels, shown
from tsllm.context import Context, column_names
from tsllm.datasets.checks import LARGEST, check_values, series_name
from tsllm.datasets.labels import Labels, labels_of_index
from tsllm.errors import DataError, DataTypeError, ModelFormatError
from tsllm.forecasters.adaptive_stream import AdaptiveSeries
from tsllm.forecasters.floors import with_known_floors
from tsllm.forecasters.frames import future_covariates
from tsllm.forecasters.inputs import match_columns
from tsllm.forecasters.kept_rows import KeptRows
from tsllm.forecasters.parameters import check_horizon
from tsllm.forecasters.running_state import RunningRows
from tsllm.forecasters.stream_clock import StreamClock
from tsllm.forecasters.stream_covariates import StreamCovariates, refuse_covariates, rows_of_x
from tsllm.saving.streams import SavedStream

#: What a stream does about missing steps.
FILLS = (None, "nan")


class SeriesStream(SavedStream):
    """Series that a fitted forecaster follows at the rate of their observations.

    `forecaster.stream` opens one. It holds a copy of what changes, so the forecaster and other
    streams of it stay as they are; the weights are shared. After any sequence of calls its
    forecasts are those of ``update`` with the same steps, followed by ``predict``. Its memory does
    not grow with the steps. It takes one thread at a time.

    Attributes
    ----------
    series : list
        The names of the series, in the order of the forecasts; ``[None]`` for a single series.
    columns : list
        The variables, in the order of the values.
    made_of : str or None
        A note of the model that it was opened from, which is saved with it.
    fill : {"nan"} or None
        What it does about missing steps, see ``forecaster.stream``; it may be changed.

    See Also
    --------
    tsllm.AarenForecaster : The method whose state has constant size.
    tsllm.save : Save a stream to a directory; `tsllm.load` opens it again.

    Examples
    --------
    >>> import numpy as np, pandas as pd, tsllm
    >>> hours = pd.date_range("2024-01-01", periods=201, freq="h")
    >>> y = pd.Series(np.sin(np.arange(200) / 4), index=hours[:200], name="load")
    >>> forecaster = tsllm.AarenForecaster(context_length=48, max_steps=2, random_state=0)
    >>> stream = forecaster.fit(y, fh=[1, 2, 3]).stream()
    >>> stream.observe(hours[200], 0.4).forecast(3, levels=(0.1, 0.9)).shape
    (1, 3, 1, 3)
    >>> stream.table(2)[["timestamp"]]
                timestamp
    0 2024-01-09 09:00:00
    1 2024-01-09 10:00:00
    """

    _forecaster: Any  # a SeriesForecaster; its module imports this one
    _kept: KeptRows
    _stops: np.ndarray

    def __init__(self, forecaster: Any, *, fill: str | None = None) -> None:
        # The forecaster is a copy that nobody else has; its series move here.
        if fill not in FILLS:
            raise DataError(f"fill must be 'nan' or None, found {shown(fill)}")
        self._forecaster, self.fill = forecaster, fill
        self.made_of: str | None = None
        self._names = column_names(forecaster._layout.columns)
        self._ids: list[Hashable] = []
        self._places: dict[Hashable, int] = {}
        self._running: RunningRows | None = None
        #: What adaptive intervals need; None without them.
        self._adaptive = AdaptiveSeries(forecaster) if forecaster.adaptive else None
        #: The covariates of the series; None where the model reads none.
        self._covariates: StreamCovariates | None = None
        if forecaster._contexts:
            self._take_over()

    def _take_over(self) -> None:
        """Move the series that the forecaster keeps into the stream, behind those it has."""
        forecaster = self._forecaster
        state, contexts = forecaster.fitted_, list(forecaster._contexts.values())
        if any(context.stops_at_zero is None for context in contexts):  # of an earlier version
            contexts = with_known_floors(contexts, state.stops_at_zero)
        histories = [context.values for context in contexts]
        stops = np.array([context.stops_at_zero for context in contexts])  # (series, variables)
        running = forecaster._running_rows()
        if self._ids:
            self._kept.add(histories)
            self._stops = np.concatenate([self._stops, stops])
            if self._covariates is not None:
                self._covariates.add(contexts)
            if running is not None and self._running is not None:
                self._running.add(running)
        else:
            keep = forecaster._steps_to_keep(state)
            if keep is None:
                raise DataError(
                    f"in_context={forecaster.in_context!r} reads all of the past, and a stream "
                    "keeps the last steps only: use update and predict"
                )
            self._clock = StreamClock(contexts[0].times, forecaster._known_frequency())
            self._kept, self._stops = KeptRows(histories, keep), stops
            if state.covariates is not None:
                self._covariates = StreamCovariates(state.covariates, contexts, keep)
            self._last = np.empty(0, dtype=np.int64)
            self._running = running
        ends = [self._clock.numbers(context.times)[-1] for context in contexts]
        self._last = np.append(self._last, ends)
        for context in contexts:
            self._places[context.series_id] = len(self._ids)
            self._ids.append(context.series_id)
        pending = forecaster._pending
        forecaster._contexts, forecaster._pending = {}, {}
        if self._running is not None:
            forecaster._read_rows(self._running)
        if self._adaptive is not None:
            self._adaptive.add(contexts, pending)

    # ------------------------------------------------------------------ what it holds

    @property
    def series(self) -> list[Hashable]:
        """Return the names of the series."""
        return list(self._ids)

    @property
    def columns(self) -> list[Hashable]:
        """Return the names of the variables."""
        return list(self._forecaster._layout.columns)

    @property
    def covariates(self) -> list[str]:
        """Return the columns of X that `observe` reads of each step, without attributes."""
        covariates = self._forecaster.fitted_.covariates
        return [] if covariates is None else list(covariates.columns.names)

    @property
    def known_covariates(self) -> list[str]:
        """Return the columns of X that `forecast` reads of the steps to forecast."""
        covariates = self._forecaster.fitted_.covariates
        return [] if covariates is None else list(covariates.columns.known)

    @property
    def horizon(self) -> int:
        """Return the steps that the model was fitted to forecast."""
        horizon: int = self._forecaster.fitted_.shape.horizon
        return horizon

    @property
    def last_times(self) -> dict[Hashable, Any]:
        """Return the stamp of each series' last step, by its name."""
        return {name: self._clock.stamp(last) for name, last in zip(self._ids, self._last.tolist())}

    @property
    def nbytes(self) -> int:
        """Return the bytes of what it keeps of the series."""
        optional = (self._running, self._adaptive, self._covariates)
        parts = [self._kept, self._last, self._stops, *optional]
        return sum(int(part.nbytes) for part in parts if part is not None)

    def __repr__(self) -> str:
        number = len(self._ids)
        return (
            f"SeriesStream({type(self._forecaster).__name__}, {number} series, at "
            f"{self._clock.stamp(int(self._last.max()))})"
        )

    # ------------------------------------------------------------------ observing

    def observe(
        self,
        time: Any,
        values: Any,
        X: Any = None,
        *,
        series: Sequence[Hashable] | None = None,
    ) -> "SeriesStream":
        """Read the next step of some series, or of all; a mistake changes none of them.

        Parameters
        ----------
        time : stamp, or sequence of stamps
            The stamp of the step: one for all series, or one for each. It is the step after the
            last one of the series (see ``fill`` of ``forecaster.stream``); a date has a time zone
            if the series have one.
        values : number, array or DataFrame
            The step: ``(series, variables)``, without the axis that has one entry. NaN where
            nothing was observed. The columns of a DataFrame are found by name.
        series : sequence or None, default=None
            The names of the series that have a new step, in the order of the values. None: all.

        Returns
        -------
        self

        Raises
        ------
        DataError
            One sentence that names the series, the stamp and the remedy: a series that the stream
            does not hold, or that comes twice; a stamp that was read before, lies before the last
            one, leaves a gap, or is no step; a value that is infinite or no number.
        """
        places = self._places_of(series)
        numbers = self._read_values(values, places, time)
        now = self._clock.read(time, len(places))
        names = self._ids if series is None else series
        missing = self._clock.missing_before(
            names, self._last[places], now, fill=self.fill is not None or bool(self.covariates)
        )
        if missing is not None and self.covariates:
            place = int(missing.argmax())
            expected = int(self._clock.after(self._last[places[place : place + 1]])[0])
            raise DataError(
                f"{series_name(names[place])} has a gap: the next stamp is "
                f"{self._clock.stamp(expected)}, found {self._clock.stamp(int(now[place]))}, and "
                f"the covariates {', '.join(self.covariates)} of the steps between are not known: "
                "observe each of them with X, as NaN where nothing was observed"
            )
        steps = self._read_step(places, numbers, now, X)
        if missing is not None:
            for step in range(int(missing.max())):
                some = places[missing > step]
                nothing = np.full((len(some), numbers.shape[1]), np.nan)
                self._move(some, nothing, nothing)
        if steps is None:
            self._move(places, numbers, numbers)
        else:
            residuals = self._forecaster.fitted_.residuals(steps)
            assert self._covariates is not None  # it made the steps
            self._covariates.append(places, steps)
            self._move(places, numbers, np.concatenate([one.values for one in residuals]))
        return self

    def _read_step(
        self, places: np.ndarray, values: np.ndarray, now: np.ndarray, X: Any
    ) -> list[Context] | None:
        """Join the covariates of a step to it, a context for each series; None without any."""
        if self._covariates is None:
            refuse_covariates(X)
            return None
        ids = [self._ids[place] for place in places.tolist()]
        times = [self._clock.until(number, 1) for number in now.tolist()]
        steps = [
            Context(row[None], times=stamp, series_id=name, columns=self._names)
            for row, stamp, name in zip(values, times, ids)
        ]
        X = rows_of_x(X, ids, times, self._forecaster._index_names())
        return self._covariates.read_step(steps, places, X)

    def add(self, y: Any, X: Any = None) -> "SeriesStream":
        """Add further series, each with its past.

        Parameters
        ----------
        y : DataFrame, or other table
            The pasts, in the form of `fit`, of series that the stream does not hold.
        X : DataFrame, other table or None, default=None
            The covariates of ``y``, in the form of `fit`.

        Returns
        -------
        self
        """
        forecaster = self._forecaster
        # the forecaster reads its own states, not the stream's, while it takes up series
        try:
            forecaster._open_series(y, X, without=self._places)
            self._take_over()
        except BaseException:  # also where memory or time ran out
            forecaster._contexts, forecaster._pending = {}, {}
            if self._running is not None:
                forecaster._read_rows(self._running)
            raise
        return self

    def _move(self, places: np.ndarray, values: np.ndarray, residuals: np.ndarray) -> None:
        """Append a step (series, variables) to some series.

        The model reads the ``residuals``; without covariates they are the values.
        """
        if self._adaptive is not None:
            self._adaptive.before(places, self._running)
        self._kept.append(places, values)
        self._last[places] = self._clock.after(self._last[places])
        self._stops[places] &= ~(values < 0)
        if self._running is not None:
            self._running.observe(places, residuals)
        if self._adaptive is not None:
            contexts = self._contexts(places, copied=True)
            self._adaptive.observe(places, residuals, contexts, self._running)

    def _settle(self) -> None:
        """Compare the observations that adaptive intervals have put off."""
        if self._adaptive is not None:
            self._adaptive.settle(self._running)

    def _contexts(self, places: np.ndarray, *, copied: bool = False) -> list[Context]:
        """Make the contexts of series, as the forecaster would keep them.

        Their values are only valid until the next step, unless they are ``copied``.
        """
        contexts, known = [], self._covariates
        for place in places.tolist():
            values = self._kept.of(place)
            contexts.append(
                Context(
                    values.copy() if copied else values,
                    times=self._clock.until(self._last[place], len(values)),
                    series_id=self._ids[place],
                    stops_at_zero=self._stops[place],
                    columns=self._names,
                    **({} if known is None else known.of(place, copied=copied)),
                )
            )
        return contexts

    # ------------------------------------------------------------------ forecasting

    def forecast(
        self,
        horizon: int | None = None,
        levels: Sequence[float] = (),
        X: Any = None,
        *,
        series: Sequence[Hashable] | None = None,
    ) -> np.ndarray:
        """Forecast after the last step of each series.

        Parameters
        ----------
        horizon : int or None, default=None
            Steps to forecast. None: as many as the model was fitted for.
        levels : sequence of float, default=()
            Levels of the quantiles, strictly between 0 and 1.
        X : DataFrame, other table, mapping or None, default=None
            The known covariates of the steps to forecast, for a model with such: a table with the
            index of y, as `predict` takes it, or a mapping of the columns to the values, series by
            series and step by step.
        series : sequence or None, default=None
            The names of the series to forecast. None: all.

        Returns
        -------
        array (series, horizon, variables, 1 + levels)
            The point forecasts, then the quantiles in the order of the levels.

        Raises
        ------
        DataError
            Bad arguments, or a series that has no observed value within reach.
        """
        places, steps = self._places_of(series), self._steps(horizon)
        levels = checked_levels(levels, "levels")
        reader = None
        if self._adaptive is not None:
            self._settle()
            reader = self._adaptive.latest(places, steps)
        contexts = self._contexts(places)
        futures = self._read_future(contexts, steps, X)
        values: np.ndarray = self._forecaster._forecast_kept(
            contexts, steps, levels, futures, reader=reader
        )
        return values

    def _read_future(
        self, contexts: Sequence[Context], steps: int, X: Any
    ) -> list[np.ndarray | None] | None:
        """Read the known covariates of the next steps of series."""
        if self._covariates is None:
            refuse_covariates(X)
            return None
        ids = [context.series_id for context in contexts]
        state = self._forecaster.fitted_
        stamps = [
            self._clock.ahead(self._last[self._places[series_id]], steps) for series_id in ids
        ]
        X = rows_of_x(X, ids, stamps, self._forecaster._index_names())
        every = [np.arange(1, steps + 1)] * len(contexts)
        return future_covariates(
            contexts, X, state.covariates, every, steps, between=state.reads_between
        )

    def table(
        self,
        horizon: int | None = None,
        levels: Sequence[float] = (0.1, 0.9),
        X: Any = None,
        *,
        series: Sequence[Hashable] | None = None,
    ) -> pd.DataFrame:
        """Forecast as `forecast`, and write a long table.

        Parameters
        ----------
        horizon : int or None, default=None
            As in `forecast`.
        levels : sequence of float, default=(0.1, 0.9)
            As in `forecast`.
        X : DataFrame, other table, mapping or None, default=None
            As in `forecast`.
        series : sequence or None, default=None
            As in `forecast`.

        Returns
        -------
        DataFrame
            Columns ``series_id`` (for a panel) and ``timestamp``, named as the levels of the index
            of the fit where these have names; ``variable`` where there are several; ``forecast``;
            and ``q0.1`` and so on.
        """
        levels = checked_levels(levels, "levels")
        values = self.forecast(horizon, levels, X, series=series)
        places, (_, steps, variables, _) = self._places_of(series), values.shape
        names, stamps = self.labels, self.next_times(steps, series=series)
        each = [one for one in stamps for _ in range(variables)]
        columns: dict[str, Any] = {}
        if self._ids != [None]:
            ids = pd.Series([self._ids[place] for place in places], dtype=object).infer_objects()
            columns[names.id] = ids.repeat(variables * steps).to_numpy()
        columns[names.time] = each[0].append(each[1:])
        if variables > 1:
            columns["variable"] = np.tile(np.repeat(np.array(self.columns), steps), len(places))
        rows = values.transpose(0, 2, 1, 3).reshape(-1, values.shape[3])
        columns["forecast"] = rows[:, 0]
        columns |= {f"q{level:g}": rows[:, 1 + i] for i, level in enumerate(levels)}
        return pd.DataFrame(columns)

    @property
    def labels(self) -> Labels:
        """Return the names of the columns of the series and of the times in tables."""
        return labels_of_index(self._forecaster._layout.index_names)

    def next_times(
        self, horizon: int | None = None, *, series: Sequence[Hashable] | None = None
    ) -> list[pd.Index]:
        """Return the stamps of the next steps of each series.

        Parameters
        ----------
        horizon : int or None, default=None
            As in `forecast`.
        series : sequence or None, default=None
            As in `forecast`.

        Returns
        -------
        list of Index (horizon,)
        """
        steps = self._steps(horizon)
        return [self._clock.ahead(self._last[place], steps) for place in self._places_of(series)]

    # ------------------------------------------------------------------ saving

    def get_params(self, deep: bool = False) -> dict[str, Any]:  # noqa: D102
        return super().get_params(deep) | {"fill": self.fill}

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return vars(self)

    def to_state(self, *, include_context: bool = True) -> dict[str, Any]:  # noqa: D102
        self._settle()  # the calibration, which is the forecaster's, moves
        return super().to_state(include_context=include_context)

    def _read_so_far(self) -> dict[str, Any]:
        return {
            "clock": self._clock.to_state(),
            "ids": list(self._ids),
            "kept": self._kept.to_state(),
            "last": self._last,
            "stops": self._stops,
            "covariates": None if self._covariates is None else self._covariates.to_state(),
            "waiting": {} if self._adaptive is None else self._adaptive.to_state(),
            "running": {} if self._running is None else dict(self._running.tensors()),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        forecaster = self._forecaster
        fitted, self._ids = forecaster.fitted_, list(state["ids"])
        self._places = {series_id: place for place, series_id in enumerate(self._ids)}
        self._clock = StreamClock(**state["clock"])
        self._kept = KeptRows.from_state(state["kept"])
        self._last, self._stops = state["last"], state["stops"]
        number, variables = len(self._ids), fitted.shape.n_variables
        found = (len(self._places), len(self._kept), self._last.shape, self._stops.shape)
        if found != (number, number, (number,), (number, variables)):
            raise ModelFormatError(
                f"the saved stream has {number} series of {variables} variable(s), and parts of "
                f"another size {found}: save it again"
            )
        forecaster._forget_series()
        if fitted.covariates is not None:
            self._covariates = StreamCovariates.from_state(
                state["covariates"], fitted.covariates, self._kept.keep, number
            )
        if self._adaptive is not None:
            self._adaptive.restore(state["waiting"], self._ids)
        if state["running"]:
            self._running = RunningRows.from_tensors(fitted, self._ids, state["running"])
            forecaster._read_rows(self._running)

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        """Return what the card of the saved stream says."""
        facts: dict[str, Any] = self._forecaster._card_facts(with_context)
        number = len(self._ids)
        return facts | {
            "kind": f"A stream of {number} series at {self._clock.stamp(int(self._last.max()))}",
            "usage": "model.observe(time, values).forecast()",
        }

    # ------------------------------------------------------------------ arguments

    def _steps(self, horizon: int | None) -> int:
        return self.horizon if horizon is None else check_horizon(horizon)

    def _places_of(self, series: Sequence[Hashable] | None) -> np.ndarray:
        """Find series by their names."""
        if series is None:
            return np.arange(len(self._ids))
        if isinstance(series, str) or not isinstance(series, Sequence | pd.Index | np.ndarray):
            raise DataTypeError(f"series must be a list of names, found {shown(series)}")
        known = self._places
        places = [known.get(name, -1) if isinstance(name, Hashable) else -1 for name in series]
        found = np.array(places, dtype=np.int64)
        if len(found) == 0:
            raise DataError("series is empty: name the series, or leave it out for all of them")
        if (found < 0).any():
            name = series[int((found < 0).argmax())]
            example = f" (it holds {len(self._ids):,}, the first is {shown(self._ids[0])})"
            raise DataError(
                f"{series_name(name)} is not in the stream{example}: add its past with add(y)"
            )
        if len(set(places)) < len(places):
            twice = next(name for name, place in zip(series, places) if places.count(place) > 1)
            raise DataError(
                f"{series_name(twice)} comes twice in one call: observe its steps one by one"
            )
        return found

    def _read_values(self, values: Any, places: np.ndarray, time: Any) -> np.ndarray:
        """Read a step of some series as numbers (series, variables)."""
        shape = len(places), self._stops.shape[1]
        if isinstance(values, pd.DataFrame):
            self._check_rows(values, places, time)
            values = match_columns(values, self._forecaster._layout.columns).to_numpy()
        elif isinstance(values, pd.Series | Mapping):
            raise DataTypeError(
                f"values must be an array in the order of the series, found a "
                f"{type(values).__name__}: pass values.to_numpy() or a DataFrame"
            )
        elif isinstance(values, np.ma.MaskedArray):
            # as objects, where True and text stay what they are
            kind = np.float64 if values.dtype.kind in "fiu" else object
            values = np.ma.filled(values.astype(kind), np.nan)
        numbers = values if isinstance(values, np.ndarray) else _as_array(values)
        wanted: set[tuple[int, ...]] = {shape}
        wanted |= {shape[:1]} if shape[1] == 1 else set()
        wanted |= {shape[1:]} if shape[0] == 1 else set()
        wanted |= {()} if shape == (1, 1) else set()
        if numbers.shape not in wanted:
            raise DataError(
                f"values must have the shape (series, variables) = {shape}, found {numbers.shape}"
            )
        numbers = numbers.reshape(shape)
        if numbers.dtype.kind not in "fiu":
            numbers = self._check_step(numbers, places)
        numbers = numbers.astype(np.float64)
        if not (np.isnan(numbers) | (np.abs(numbers) <= LARGEST)).all():
            self._check_step(numbers, places)
        return numbers

    def _check_step(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Check the values (series, variables) of a step; name the series and the column."""
        columns = self._forecaster._layout.columns
        try:
            return check_values(values)
        except DataError:
            for row, place in zip(values, places.tolist()):
                named = pd.DataFrame(row[None], columns=columns) if len(columns) > 1 else row[None]
                check_values(named, series=self._ids[place], row=lambda _: "the new step")
            raise

    def _check_rows(self, values: pd.DataFrame, places: np.ndarray, time: Any) -> None:
        """Check the rows that name their series, their stamps, or both as in a table of `fit`."""
        names = [self._ids[place] for place in places.tolist()]
        rows: Any = values.index
        if len(rows) != len(names):
            return  # their number is checked with the shape
        stamps = rows.get_level_values(-1) if isinstance(rows, pd.MultiIndex) else rows
        if isinstance(stamps, pd.DatetimeIndex | pd.PeriodIndex):
            other = self._clock.read(stamps, len(names)) != self._clock.read(time, len(names))
            if other.any():
                raise DataError(
                    f"values has a row of {stamps[int(other.argmax())]}, and time is "
                    f"{shown(time)}: pass the stamps of the rows"
                )
        if isinstance(rows, pd.MultiIndex):
            rows = rows.droplevel(-1)
        labels = rows.tolist()
        if labels != names and any(label in self._places for label in labels):
            raise DataError(
                f"values has the rows {shown(labels)} for the series {shown(names)}: bring them "
                "into the same order"
            )


def _as_array(values: Any) -> np.ndarray:
    """Return numbers in lists as an array; of objects where one of them is no number."""
    try:
        numbers = np.asarray(values)
    except ValueError:  # lists of different lengths
        return np.asarray(values, dtype=object)
    if numbers.dtype.kind in "fiu" and isinstance(values, list | tuple):
        # numpy reads True beside numbers as 1
        rows = values if numbers.ndim > 1 else [values]
        if any({bool, np.bool_} & set(map(type, row)) for row in rows):
            return np.asarray(values, dtype=object)
    return numbers
