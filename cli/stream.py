"""``tsllm stream``: rows of JSON in, forecasts of JSON out, one line each."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tsllm.cli import options
from tsllm.cli.output import check_folder, count, records, say, working
from tsllm.errors import DataError, TsllmError

if TYPE_CHECKING:
    from tsllm.events.stream import EventStream
    from tsllm.forecasters.series_stream import SeriesStream


#: The key of the covariates of the steps to forecast.
_FUTURE = "future"


class _StoppedError(Exception):
    """A signal ended the reading of lines."""


def stream(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="The directory that 'tsllm fit' saved to.")
    ],
    horizon: options.Horizon = None,
    quantiles: options.Quantiles = None,
    fill: Annotated[
        Literal["nan"] | None,
        typer.Option(
            "--fill", help="nan: count missing steps as not observed. Default: a gap is an error."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="Continue the stream in this directory, and save it there at the end.",
            metavar="DIR",
        ),
    ] = None,
    every: Annotated[
        int, typer.Option("--every", min=1, help="Forecast after every so many lines.")
    ] = 1,
    backbone: options.Backbone = None,
) -> None:
    """Follow series, or sequences of events, line by line.

    Each line of stdin is a row as JSON, {"series_id": "a", "timestamp": "2024-05-01", "value": 3},
    or a list of rows of different series; null is a missing value. A row of events is
    {"sequence_id": "u", "time": 12.5, "type": "click"}. Covariates are further keys, and "future"
    lists those of the steps to forecast: [{"holiday": 1}, {"holiday": 0}]. After each line, the
    forecasts of its series follow on stdout, one line each. For a bad line, {"line": 7, "error":
    "..."} takes the place of its forecast, the stream goes on, and the exit code is 2 at the end.

    SIGTERM and Ctrl-C end the stream after the current line; --state saves it then.
    """
    from tsllm.saving.api import fingerprint, load, save

    levels = options.read(context, "quantiles")
    if state is not None:
        check_folder(state.absolute().parent, "--state")
    with working("loading the model"):
        model_fingerprint = fingerprint(model)
        if state is not None and state.exists():
            found: Any = load(state, backbone=backbone)
            if getattr(found, "made_of", None) != model_fingerprint:
                raise DataError(
                    f"--state {str(state)!r} holds no stream of the model in {str(model)!r}: name "
                    "a new directory, or remove this one"
                )
        else:
            loaded: Any = load(model, backbone=backbone)
            found = loaded.stream()
            found.made_of = model_fingerprint
    if fill is not None:
        if not hasattr(found, "fill"):
            raise DataError("--fill has no effect on events, which have no steps: drop it")
        found.fill = fill
    lines = _lines_of(found, horizon, levels)
    try:
        read, refused = _follow(lines, every)
    finally:
        if state is not None:
            save(found, state, overwrite=True)
            say(f"saved the stream in {state}")
    if refused:
        raise DataError(f"{refused:,} of {count(read, 'lines')} could not be read or forecast")


def _lines_of(
    stream: SeriesStream | EventStream, horizon: int | None, levels: Sequence[float] | None
) -> _SeriesLines | _EventLines:
    """Return the reader and writer of lines for a stream."""
    from tsllm.arguments import checked_levels
    from tsllm.events.stream import EventStream
    from tsllm.forecasters.parameters import check_horizon
    from tsllm.tables.forecast import DEFAULT_QUANTILES

    chosen = DEFAULT_QUANTILES if levels is None else levels
    checked_levels(chosen, "quantiles")
    if not isinstance(stream, EventStream):
        if horizon is not None:
            check_horizon(horizon)
        return _SeriesLines(stream, horizon, chosen)
    if horizon is not None:
        raise DataError("--horizon has no effect on events, whose next one is forecast: drop it")
    return _EventLines(stream, chosen)


def _follow(lines: _SeriesLines | _EventLines, every: int) -> tuple[int, int]:
    """Read lines until they end or a signal comes; count them, and those that were refused."""
    number = refused = 0
    with _lines_of_stdin() as given:
        for line in given:
            number += 1
            if not line.strip():
                continue
            problem = ""
            try:
                names = lines.observe(_rows_of(line))
                problem = "its values were read, and there is no forecast: "
                out = lines.forecast(names) if number % every == 0 else []
            except TsllmError as error:
                refused += 1
                problem += " ".join(str(error).split())
                say(f"Warning: line {number}: {problem}", style="yellow")
                out = [{"line": number, "error": problem}]
            for one in out:
                sys.stdout.write(json.dumps(one, allow_nan=False) + "\n")
            sys.stdout.flush()
    return number, refused


@contextmanager
def _lines_of_stdin() -> Iterator[Iterator[str]]:
    """Give the lines of stdin until they end; SIGTERM and Ctrl-C end them between two lines."""
    waiting = stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if waiting:
            raise _StoppedError

    def lines() -> Iterator[str]:
        nonlocal waiting
        while not stopped:
            try:
                waiting = True
                line = sys.stdin.readline()
                waiting = False
            except _StoppedError:
                return
            if not line:
                return
            yield line

    if isinstance(sys.stdin, io.TextIOWrapper):
        # a byte that is not UTF-8 spoils its own line only; Windows may write a mark in front
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(one, stop) for one in signals]
    try:
        yield lines()
    finally:
        for one, handler in zip(signals, before):
            signal.signal(one, handler)


def _rows_of(line: str) -> list[dict[str, Any]]:
    """Read a line: a row, or a list of them."""
    from tsllm.datasets.strict_json import parse_json

    try:
        line.encode()
    except UnicodeEncodeError:
        raise DataError("it has bytes that are not UTF-8: write JSON as UTF-8") from None
    try:
        found = parse_json(line, "it")
    except DataError:  # a ValueError, too
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is no JSON ({error}): write one row, or a list of rows") from None
    rows = found if isinstance(found, list) else [found]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError("it is no row: write an object with names and values, or a list of them")
    return rows


def _cell(row: Mapping[str, Any], names: Sequence[str], what: str) -> Any:
    """Return the value of a row under one of several names; a row has exactly one of them."""
    found = [name for name in dict.fromkeys(names) if name in row]
    if len(found) > 1:
        raise DataError(f"a row has {found[0]!r} and {found[1]!r}, both the {what}: give it one")
    if found:
        return row[found[0]]
    raise DataError(f"a row lacks {names[0]!r}, the {what}: it has {', '.join(map(str, row))}")


def _check_names(row: Mapping[str, Any], known: Sequence[str]) -> None:
    """Check that a row has no name but the known ones."""
    foreign = [name for name in row if name not in known]
    if foreign:
        raise DataError(
            f"a row has {foreign[0]!r}, which the stream does not read: it reads "
            f"{', '.join(dict.fromkeys(known))}"
        )


def _by_text(names: Sequence[Any]) -> Callable[[Any], Any]:
    """Return a function that finds names as they are written in JSON."""
    texts = {str(name): name for name in names}
    return lambda given: texts.get(str(given), given)


class _SeriesLines:
    """Rows and forecasts of a stream of series."""

    def __init__(self, stream: SeriesStream, horizon: int | None, levels: Sequence[float]) -> None:
        self._stream, self._horizon, self._levels = stream, horizon, levels
        self._labels = stream.labels
        self._single = stream.series == [None]
        self._name = _by_text(stream.series)
        # its name may be left out where there is no other
        self._only = stream.series[0] if len(stream.series) == 1 else None
        columns = [str(column) for column in stream.columns]
        self._covariates, self._known = stream.covariates, stream.known_covariates
        # what has a name of its own may be called by the usual one, unless this is another column's
        taken = {*columns, *self._covariates}
        own = self._labels.id, self._labels.time
        self._id_names = [own[0], *({"series_id"} - {*taken, own[1]})]
        self._time_names = [own[1], *({"timestamp"} - {*taken, own[0]})]
        alias = [] if len(columns) > 1 else sorted({"value"} - {*self._covariates, *own})
        self._columns = [[one, *alias] for one in columns]
        self._columns = [[name for name in one if name != "None"] for one in self._columns]
        self._future: dict[str, list[Any]] | None = None
        if self._known and _FUTURE in self._covariates:
            raise DataError(
                f"the model has a covariate with the name {_FUTURE!r}, under which lines give the "
                "covariates of the steps to forecast: fit it with another name"
            )

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> list[Any] | None:
        """Take the rows, and return the names of their series."""
        ids, times = self._id_names, self._time_names
        known = [*ids, *times, *(name for one in self._columns for name in one)]
        known += [*self._covariates, *([_FUTURE] if self._known else [])]
        for row in rows:
            _check_names(row, known)
        names = None
        if not self._single:
            names = [self._name_of(row, ids) for row in rows]
        stamps = [_cell(row, times, "time") for row in rows]
        values = [[_cell(row, one, "value") for one in self._columns] for row in rows]
        if self._single and len(rows) > 1:
            raise DataError("the stream has one series: write one row a line")
        X = None
        if self._covariates:
            X = {
                name: [_cell(row, [name], "covariate") for row in rows] for name in self._covariates
            }
        future = self._read_future(rows)
        self._stream.observe(stamps, values, X, series=names)
        self._future = future
        return names

    def _name_of(self, row: Mapping[str, Any], ids: Sequence[str]) -> Any:
        """Return the name of the series of a row."""
        if self._only is not None and not any(name in row for name in ids):
            return self._only
        return self._name(_cell(row, ids, "name of the series"))

    def _read_future(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]] | None:
        """Return the known covariates of the steps to forecast, series by series."""
        given = [row[_FUTURE] for row in rows if _FUTURE in row]
        if not given:
            return None
        steps = self._horizon or self._stream.horizon
        if len(given) < len(rows):
            raise DataError(f"some rows have {_FUTURE!r}, and others lack it: give it in all rows")
        for one in given:
            if not isinstance(one, list) or not all(isinstance(step, dict) for step in one):
                raise DataError(f"{_FUTURE!r} must be a list of objects, one for each step ahead")
            if len(one) != steps:
                raise DataError(
                    f"{_FUTURE!r} has {len(one)} steps, and {steps} are forecast: give each of them"
                )
        ahead = [step for one in given for step in one]
        for step in ahead:
            _check_names(step, self._known)
        return {name: [_cell(step, [name], "covariate") for step in ahead] for name in self._known}

    def forecast(self, names: list[Any] | None) -> list[dict[str, Any]]:
        """Return the forecasts of some series, one object each."""
        if self._known and self._future is None:
            raise DataError(
                f"the row lacks {_FUTURE!r}: give the covariates {', '.join(self._known)} of each "
                "step to forecast, as a list of objects"
            )
        values = self._stream.forecast(self._horizon, self._levels, self._future, series=names)
        stamps = self._stream.next_times(values.shape[1], series=names)
        heads = ["forecast", *(f"q{level:g}" for level in self._levels)]
        out = []
        for place, (one, times) in enumerate(zip(values, stamps)):
            # (horizon, variables, 1 + levels)
            row = {} if names is None else {self._labels.id: names[place]}
            row |= {self._labels.time: [_plain(stamp) for stamp in times]}
            for number, head in enumerate(heads):
                each = {c[0]: one[:, v, number].tolist() for v, c in enumerate(self._columns)}
                row[head] = each if len(each) > 1 else next(iter(each.values()))
            out.append(row)
        return out


class _EventLines:
    """Rows and predictions of a stream of events."""

    def __init__(self, stream: EventStream, levels: Sequence[float]) -> None:
        self._stream, self._levels = stream, levels
        self._columns = stream.column_names

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Take the events, and return the names of their sequences."""
        own = self._columns
        ids, times, types = (
            [own.id_col, "sequence_id"],
            [own.time_col, "time"],
            [own.type_col, "type"],
        )
        for row in rows:
            _check_names(row, [*ids, *times, *types])
        only = self._stream.sequences if len(self._stream.sequences) == 1 else None
        names = [
            only[0]
            if only and not any(name in row for name in ids)
            else _cell(row, ids, "name of the sequence")
            for row in rows
        ]
        self._stream.observe(
            [_cell(row, times, "time") for row in rows],
            [_cell(row, types, "type") for row in rows],
            sequence=names,
        )
        return list(dict.fromkeys(names))

    def forecast(self, names: list[Any] | None) -> list[dict[str, Any]]:
        """Return the next event of some sequences, one object each."""
        table = self._stream.predict(self._levels, sequences=names)
        return [
            {name: value for name, value in row.items() if name != "step"} for row in records(table)
        ]


def _plain(stamp: Any) -> Any:
    """Return a stamp as a JSON value: dates as ISO text, integers as they are."""
    if hasattr(stamp, "isoformat"):
        return stamp.isoformat()
    return int(stamp) if hasattr(stamp, "__index__") else str(stamp)
