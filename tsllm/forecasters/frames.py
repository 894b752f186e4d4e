"""pandas in and out: checked series and covariates from sktime's containers, dated forecasts."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context, column_names
from tsllm.covariates import CovariateColumns, Covariates
from tsllm.covariates.columns import attribute_text, learn_columns
from tsllm.covariates.effects import missing_future
from tsllm.datasets.checks import check_times, check_values, series_name, with_all_gaps
from tsllm.datasets.counts import as_counts, step_of
from tsllm.datasets.frequency import freq_name, frequency_name, future_times, set_frequency
from tsllm.errors import DataError, GapError, NotEnoughDataError
from tsllm.forecasters.inputs import (
    is_table,
    read_container,
    read_covariates,
    wrong_container,
)


@dataclass(frozen=True)
class Layout:
    """The form of ``y``, in which forecasts are returned."""

    columns: pd.Index  # the variables
    index_names: tuple[Hashable, ...]  # of the levels of the index, the time last

    @property
    def is_panel(self) -> bool:
        """Return whether the rows carry instance levels before the time."""
        return len(self.index_names) > 1


def layout_of(y: pd.DataFrame) -> Layout:
    """Record the columns and the names of the index levels."""
    return Layout(columns=y.columns, index_names=tuple(y.index.names))


# ---------------------------------------------------------------------- y in


def check_input(y: Any, *, freq: str | None, at_least: int, argument: str = "y") -> list[Context]:
    """Check pandas input before sktime does, whose messages name no row; skip other types.

    Return the series, none for other types.
    """
    if not is_table(y):
        return []
    return split_series(y, freq=freq, at_least=at_least, argument=argument)


def split_series(
    y: pd.Series | pd.DataFrame,
    *,
    freq: str | None = None,
    at_least: int = 1,
    argument: str = "y",
) -> list[Context]:
    """Split sktime's ``y`` into one checked context per series, in order of first appearance.

    ``freq`` is for an index that has none; without it, a series of one or two stamps takes the
    frequency that all others share. ``argument`` names ``y`` in messages. A `DataError`
    names the series, the row and the remedy: text, infinities, unsorted or repeated stamps, gaps,
    series without an id or of different frequencies. A series of fewer than ``at_least`` steps
    raises a `NotEnoughDataError`.
    """
    y = read_container(y, argument)
    if not is_table(y):
        raise wrong_container(y, argument)
    frame = y.to_frame() if isinstance(y, pd.Series) else y
    try:
        everything = check_values(frame)  # (rows, variables)
    except DataError:
        everything = None  # the checks of each series name it
    columns = column_names(frame.columns)
    known: dict[Hashable, pd.Index] = {}  # most series of a panel have the same stamps
    found = list(_rows_of_series(frame.index, argument))
    short = [freq is None and rows.are_too_few for rows in found]
    contexts: list[Context] = []
    # short series come last: their frequency is that of the others
    places = np.argsort(short, kind="stable").tolist()
    for place in places:
        rows, name = found[place], found[place].series_id
        if short[place] and freq is None and not short[places[0]]:
            _check_one_frequency(contexts)
            freq = frequency_of(contexts)
        if everything is None:
            part = frame.iloc[rows.positions]
            values = check_values(part, series=name, times=rows.stamps)
        else:
            values = everything[rows.positions]
        if len(values) < at_least:
            raise NotEnoughDataError(
                f"{series_name(name)} has {len(values)} step{'s' * (len(values) != 1)} and at "
                f"least {at_least} are needed: drop it, or pass more of its history"
            )
        if rows.key not in known:
            try:
                times = check_times(rows.stamps, series=name, freq=freq)
            except GapError as error:
                raise _count_gaps(error, found, freq) from None
            dated = isinstance(times, pd.DatetimeIndex | pd.PeriodIndex)
            known[rows.key] = times if dated else as_counts(times, freq)
        contexts.append(Context(values, times=known[rows.key], series_id=name, columns=columns))
    if not contexts:
        raise NotEnoughDataError(f"{argument} holds no rows: pass at least two steps of a series")
    contexts = [contexts[position] for position in np.argsort(places).tolist()]
    _check_one_frequency(contexts)
    return contexts


def _count_gaps(error: GapError, found: Sequence[Any], freq: str | None) -> GapError:
    """Return the error of a gap with the number of all series that have one."""
    names = [rows.series_id for rows in found]

    def check(number: int) -> pd.Index:
        return check_times(found[number].stamps, series=names[number], freq=freq)

    return with_all_gaps(error, names, check)


def frequency_of(contexts: Sequence[Context]) -> str | None:
    """Return the frequency that all contexts share; the step of integers as text, such as "1"."""
    return freq_name(own_frequency(contexts[0].times) or "1")


def own_frequency(times: pd.Index) -> str | pd.offsets.BaseOffset | None:
    """Return the frequency of stamps, or the step of integers as text; None if they have none."""
    if isinstance(times, pd.DatetimeIndex | pd.PeriodIndex):
        return times.freq
    step = step_of(times)
    return None if step is None else str(step)


def extend_context(known: Context, new: Context) -> Context:
    """Append new rows to a context; rows that were seen before take their new values.

    Attributes that come with the new rows replace the known ones. sktime's splitters pass rows
    again that were seen before, and so do people who correct their data. Rows from before the
    kept context change nothing. New rows that leave a gap, or end before the kept context
    begins, raise a `DataError`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> known = Context(np.array([1.0, 2.0]), times=pd.RangeIndex(2))
    >>> extend_context(known, Context(np.array([5.0, 3.0]), times=pd.Index([1, 2]))).values.ravel()
    array([1., 5., 3.])
    """
    name = series_name(known.series_id)
    if new.times[-1] < known.times[0]:
        raise DataError(
            f"the update of {name} ends at {new.times[-1]}, before the context that is kept begins "
            f"({known.times[0]}): pass rows after {known.times[-1]}"
        )
    begin = max(0, int(new.times.searchsorted(known.times[0])))
    times, values = new.times[begin:], new.values[begin:]
    expected = stamps_after(known, 1)[0]
    if times[0] > expected:
        raise DataError(
            f"the update of {name} begins at {times[0]} and the series ends at {known.times[-1]}: "
            f"pass the rows from {expected} on, as NaN where nothing was observed"
        )
    if times[0] == expected:
        position = len(known)
    else:
        position = int(known.times.get_indexer(times[:1])[0])
        if position < 0:
            raise DataError(
                f"the update of {name} has the stamp {times[0]}, which lies between the stamps of "
                f"the series (its frequency is {frequency_name(frequency_of([known]))}): "
                "resample it first"
            )
    end = position + len(times)  # known rows after the new ones stay
    merged = np.concatenate([known.values[:position], values, known.values[end:]])
    stamps = known.times[:position].append([times, known.times[end:]])
    if isinstance(known.times, pd.DatetimeIndex) and known.times.freq is not None:
        stamps = set_frequency(pd.DatetimeIndex(stamps), known.times.freq)
    elif isinstance(known.times, pd.RangeIndex):
        stamps = as_counts(stamps)
    past_x = None
    if known.past_x is not None and new.past_x is not None:
        rows = new.past_x[begin:]
        past_x = np.concatenate([known.past_x[:position], rows, known.past_x[end:]])
    static = known.static if new.static is None else new.static
    return known.with_values(merged, times=stamps, past_x=past_x, static=static)


# ---------------------------------------------------------------------- X in


def learn_covariates(
    contexts: Sequence[Context],
    X: pd.DataFrame | None,
    *,
    past: Sequence[str] = (),
    static: Sequence[str] = (),
    optional: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> tuple[list[Context], CovariateColumns | None]:
    """Join X to the series that a model is fitted on, and describe its columns; None without X.

    X is indexed as y; further rows are ignored, the columns have any order. The future of the
    columns ``past`` is not known; the columns ``static`` do not change, and a series may have no
    value in those of them that are ``optional``; the columns ``texts`` hold texts, which may be
    missing. Any other missing row or value raises a `DataError` that names series, stamp, column
    and remedy.
    """
    X = None if X is None else _frame_of(X, contexts)
    given = {"past_covariates": past, "static_attributes": static, "text_covariates": texts}
    for argument, names in given.items():
        if isinstance(names, str):
            raise DataError(
                f"{argument} must be a list of columns, found {names!r}: write [{names!r}]"
            )
    if X is None or X.shape[1] == 0:
        for argument, names in given.items():
            if names:
                raise DataError(
                    f"{argument} names {', '.join(names)} and there is no X: pass it, or leave "
                    f"{argument} out"
                )
        return list(contexts), None
    rows = _rows_by_series(X)
    picked = [_positions(rows, context, context.times) for context in contexts]
    columns = learn_columns(X.iloc[np.concatenate(picked)], past=past, static=static, texts=texts)
    columns = replace(columns, optional=tuple(optional))
    return _join(contexts, X, picked, columns), columns


def join_covariates(
    contexts: Sequence[Context], X: pd.DataFrame | None, covariates: Covariates | None
) -> list[Context]:
    """Join X to series that a fitted model reads.

    X without covariates of the model, no X with them, or a missing column, row or value raises a
    `DataError`.
    """
    if covariates is None:
        if X is not None and X.shape[1]:
            raise DataError(
                f"X was given ({', '.join(map(str, X.columns[:5]))}) and the model was fitted "
                "without covariates: leave X out, or fit anew with X"
            )
        return list(contexts)
    columns = covariates.columns
    if X is None:
        raise DataError(
            f"X is missing: the model was fitted with the covariates "
            f"{', '.join(columns.everything)}, which must come with y"
        )
    X = _check_columns(_frame_of(X, contexts), columns.everything, columns)
    rows = _rows_by_series(X)
    picked = [_positions(rows, context, context.times) for context in contexts]
    return _join(contexts, X, picked, columns)


def future_covariates(
    contexts: Sequence[Context],
    X: pd.DataFrame | None,
    covariates: Covariates | None,
    steps: Sequence[np.ndarray],
    horizon: int,
    *,
    between: bool = False,
    argument: str = "X",
) -> list[np.ndarray | None] | None:
    """Pick the known future of the covariates for the steps to forecast.

    ``X`` is indexed as y and must hold the stamps to forecast; further rows are ignored. ``steps``
    are those to forecast of each series, one being the first after its context. The result is an
    array (horizon, known columns) for each series, or None where the model reads no future. A step
    that is not to be forecast repeats another; but a text moves later steps too, so texts are read
    of all steps up to the last. So is every column where a forecast reads the steps ``between``.
    An attribute in ``X`` must be the known one. ``argument`` names ``X`` in messages.
    """
    if covariates is None:
        return None if X is None else [None for _ in join_covariates(contexts, X, None)]
    columns = covariates.columns
    if X is not None:
        X = _frame_of(X, contexts)
        _check_attributes(X, columns, contexts)
    if not columns.known:
        return None
    if X is None:
        raise DataError(missing_future(contexts[0], columns))
    X = _check_columns(X, columns.known, columns)
    rows = _rows_by_series(X)
    remedy = "which is to be forecast"
    if columns.known_texts or between:
        steps = [np.arange(1, int(asked.max()) + 1) for asked in steps]
        remedy = "and the forecasts of all later steps read it, too"
        if columns.known_texts:
            remedy = "and a text moves all later steps, too"
    picked = [
        _positions(
            rows,
            context,
            stamps_after(context, int(asked.max()))[asked - 1],
            future=remedy,
            argument=argument,
        )
        for context, asked in zip(contexts, steps)
    ]
    futures: list[np.ndarray | None] = []
    read = _read_rows(X, picked, columns, columns.known, contexts, argument)
    for asked, values in zip(steps, read):
        nearest = np.minimum(np.searchsorted(asked, np.arange(1, horizon + 1)), len(asked) - 1)
        futures.append(values[nearest])
    return futures


def descriptions_of_new(
    X: pd.DataFrame, known: Sequence[Context], names: Sequence[str]
) -> pd.DataFrame:
    """Read the static columns of the series that X has and a fitted model does not know.

    ``X`` is indexed as y. The result has a row a series, indexed by its id, and the columns
    ``names``.
    """
    X = _frame_of(X, known)
    X = X.set_axis([str(name) for name in X.columns], axis=1)
    ids = {context.series_id for context in known}
    new = [rows for rows in _rows_of_series(X.index, "X") if rows.series_id not in ids]
    if not new:
        return pd.DataFrame(columns=list(names))
    columns = CovariateColumns((), (), static=tuple(names), optional=tuple(names))
    for name in names:
        if name not in X.columns:
            raise DataError(f"X has no column {name!r}, which describes new series: pass it")
    nothing = Context(np.zeros(1))
    found = [
        _attributes(X.iloc[one.positions], columns, replace(nothing, series_id=one.series_id))
        for one in new
    ]
    index = pd.Index([one.series_id for one in new], tupleize_cols=False)
    return pd.DataFrame(found, index=index)


# ---------------------------------------------------------------------- forecasts out


def forecast_frame(
    values: np.ndarray, steps: Sequence[np.ndarray], contexts: Sequence[Context], layout: Layout
) -> pd.DataFrame:
    """Build the data frame of forecasts (series, horizon, columns), indexed as ``y`` was.

    ``steps`` are the steps of the horizon to keep of each series, one being the first.
    """
    picked = np.concatenate([row[keep - 1] for row, keep in zip(values, steps)])
    return pd.DataFrame(picked, index=_forecast_index(steps, contexts, layout))


def stamps_after(context: Context, horizon: int, *, freq: str | None = None) -> pd.Index:
    """Return the stamps of the ``horizon`` steps after a context.

    ``freq`` is for a context whose stamps have none.
    """
    return future_times(context.times[-1], own_frequency(context.times) or freq, horizon)


def request_payload(
    contexts: Sequence[Context],
    columns: pd.Index,
    horizon: int,
    quantiles: Sequence[float],
    covariates: CovariateColumns | None,
    futures: Sequence[np.ndarray | None] | None,
) -> dict[str, Any]:
    """Write the request for a forecast of these histories; see `SeriesForecaster.to_payload`."""
    rows: list[list[Any]] = []
    for number, context in enumerate(contexts):
        name = "series" if context.series_id is None else str(context.series_id)
        past = _json_rows(context.values)
        if covariates is not None:
            past = [
                [*row, *x, False] for row, x in zip(past, _json_covariates(context, covariates))
            ]
        rows += [[name, stamp, *row] for stamp, row in zip(_json_stamps(context.times), past)]
        future = None if futures is None else futures[number]
        if covariates is not None and future is not None:
            nothing = [None] * context.n_variables
            known = (dict(zip(covariates.known, row)) for row in _json_rows(future))
            ahead = [[*map(x.get, covariates.everything), True] for x in known]
            stamps = _json_stamps(stamps_after(context, horizon))
            rows += [[name, stamp, *nothing, *x] for stamp, x in zip(stamps, ahead)]
    names = list(column_names(columns) or ["y"])
    if covariates is not None:
        names += [*covariates.everything, "future"]
    return {
        "dataframe_split": {"columns": ["series_id", "timestamp", *names], "data": rows},
        "params": {"horizon": int(horizon), "quantiles": [float(q) for q in quantiles]},
    }


# ---------------------------------------------------------------------- helpers


@dataclass(frozen=True)
class _Rows:
    """The rows of one series in y or X."""

    series_id: Hashable
    positions: np.ndarray | slice
    stamps_of_all: pd.Index
    key: Hashable  # equal for equal stamps

    @property
    def stamps(self) -> pd.Index:
        return self.stamps_of_all[self.positions]

    @property
    def are_too_few(self) -> bool:
        """Return whether a series of a panel has too few dates or integers for a frequency."""
        if isinstance(self.positions, slice) or isinstance(self.stamps_of_all, pd.PeriodIndex):
            return False
        return len(self.positions) < 3


def _rows_of_series(index: pd.Index, argument: str) -> Iterator[_Rows]:
    """List the rows of each series of y or X, in order of first appearance."""
    if not isinstance(index, pd.MultiIndex):
        yield _Rows(None, slice(None), index, None)
        return
    for level in range(index.nlevels - 1):
        # pandas marks a missing id by its code, or keeps NaN as the value of a level.
        missing = np.append(index.levels[level].isna(), True)
        nameless = missing[np.asarray(index.codes[level])]
        if nameless.any():
            row = int(nameless.argmax())
            raise DataError(
                f"row {row} of {argument} has no series id (level {index.names[level]!r} is "
                "missing): give it one, or drop the row"
            )
    ids = index.droplevel(-1)
    codes, unique = pd.factorize(ids)
    order = np.argsort(codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(len(unique) + 1)).tolist()
    stamps = index.get_level_values(-1)
    # A stamp is one of its level, so equal codes are equal stamps.
    numbers = np.asarray(index.codes[-1])[order]
    for series_id, first, end in zip(unique, borders[:-1], borders[1:]):
        yield _Rows(series_id, order[first:end], stamps, numbers[first:end].tobytes())


def _check_one_frequency(contexts: Sequence[Context]) -> None:
    """Check that all series have the frequency of the first."""
    ours = frequency_name(frequency_of(contexts))
    for context in contexts[1:]:
        theirs = frequency_name(frequency_of([context]))
        if ours != theirs:
            raise DataError(
                f"the panel mixes frequencies: {series_name(contexts[0].series_id)} has {ours}, "
                f"{series_name(context.series_id)} has {theirs}; fit one model per frequency, or "
                "resample them to one"
            )


def _join(
    contexts: Sequence[Context],
    X: pd.DataFrame,
    picked: Sequence[np.ndarray],
    columns: CovariateColumns,
) -> list[Context]:
    """Add the picked rows of X to contexts."""
    X = X.set_axis([str(name) for name in X.columns], axis=1)
    joined = list(contexts)
    if columns.static:
        joined = [
            replace(context, static=_attributes(X.iloc[rows], columns, context))
            for context, rows in zip(joined, picked)
        ]
    if columns.names:
        values = _read_rows(X, picked, columns, columns.names, contexts)
        joined = [replace(context, past_x=x) for context, x in zip(joined, values)]
    return joined


def _attributes(X: pd.DataFrame, columns: CovariateColumns, context: Context) -> dict[str, object]:
    """Read the attributes of one series, which must not change."""
    attributes: dict[str, object] = {}
    for name in columns.static:
        title = f"{series_name(context.series_id)}, column {name!r} of X"
        texts = list(dict.fromkeys(attribute_text(value, title) for value in X[name].dropna()))
        if len(texts) > 1:
            raise DataError(
                f"{series_name(context.series_id)} has {texts[0]!r} and {texts[1]!r} in column "
                f"{name!r} of X, and a static attribute must not change: give each series one, "
                "or leave the column out of static_attributes or static_text"
            )
        if (not texts or not texts[0]) and name not in columns.optional:
            raise DataError(
                f"{series_name(context.series_id)} has no value in column {name!r} of X: give it "
                "one, such as 'unknown'"
            )
        attributes[name] = texts[0] if texts else ""
    return attributes


def _check_attributes(
    X: pd.DataFrame, columns: CovariateColumns, contexts: Sequence[Context]
) -> None:
    """Check that X has no attribute of a series that differs from the known one."""
    if not columns.static:
        return
    ids = X.index.droplevel(-1) if isinstance(X.index, pd.MultiIndex) else [None] * len(X)
    known = {context.series_id: context.static or {} for context in contexts}
    for position, name in enumerate(map(str, X.columns)):
        if name not in columns.static:
            continue
        for series_id, value in zip(ids, X.iloc[:, position]):
            before = known.get(series_id, {}).get(name)
            if before is None or (isinstance(value, str) and value == before):
                continue
            if pd.api.types.is_scalar(value) and pd.isna(value):
                continue  # not given: the known one holds
            now = attribute_text(value, f"{series_name(series_id)}, column {name!r} of X")
            if now != before:
                raise DataError(
                    f"{series_name(series_id)} has {now!r} in column {name!r} of X, and the model "
                    f"knows it as {before!r}: update, with rows of y, replaces it; else leave the "
                    "column out, or correct it"
                )


def _read_rows(
    X: pd.DataFrame,
    picked: Sequence[np.ndarray],
    columns: CovariateColumns,
    names: Sequence[str],
    contexts: Sequence[Context],
    argument: str = "X",
) -> list[np.ndarray]:
    """Check and read the rows of each series, all at once."""
    rows = np.concatenate(picked)
    ends = np.cumsum([len(one) for one in picked])
    stamps = X.index.get_level_values(-1)

    def place(row: int) -> str:
        owner = contexts[int(np.searchsorted(ends, row, side="right"))]
        return f"{series_name(owner.series_id)}, {stamps[rows[row]]}"

    return np.split(columns.read(X.iloc[rows], names, place=place, argument=argument), ends[:-1])


def _frame_of(X: Any, contexts: Sequence[Context]) -> pd.DataFrame:
    """Read X, which is indexed as the series are."""
    name = contexts[0].series_id
    levels = 1 if name is None else 1 + (len(name) if isinstance(name, tuple) else 1)
    X = read_covariates(X, levels, contexts[0].times)
    if not is_table(X):
        raise wrong_container(X, "X")
    return X.to_frame() if isinstance(X, pd.Series) else X


def _check_columns(
    X: pd.DataFrame, needed: Sequence[str], columns: CovariateColumns
) -> pd.DataFrame:
    """Rename the columns of X to text and check that none is missing or unknown."""
    X = X.set_axis([str(name) for name in X.columns], axis=1)
    for name in needed:
        if name not in X.columns:
            raise DataError(
                f"X has no column {name!r}, and the model was fitted with it: pass the columns "
                f"{', '.join(needed)}"
            )
    for number, name in enumerate(X.columns):
        if name not in columns.everything:
            raise DataError(
                f"X has the column {name!r}, and the model was fitted without it: leave it out, or "
                "fit anew"
            )
        if name in X.columns[:number]:
            raise DataError(f"X has the column {name!r} twice: drop one of them")
    return X


def _rows_by_series(X: pd.DataFrame) -> dict[Hashable, tuple[np.ndarray, pd.Index]]:
    """Find the positions and stamps of each series' rows of X."""
    everything = np.arange(len(X))
    found = {}
    for rows in _rows_of_series(X.index, "X"):
        stamps = rows.stamps
        if not stamps.is_unique:
            twice = stamps[stamps.duplicated()][0]
            raise DataError(
                f"X has two rows of {series_name(rows.series_id)} at {twice}: keep one of them"
            )
        found[rows.series_id] = everything[rows.positions], stamps
    return found


def _positions(
    rows: Mapping[Hashable, tuple[np.ndarray, pd.Index]],
    context: Context,
    stamps: pd.Index,
    *,
    future: str = "",
    argument: str = "X",
) -> np.ndarray:
    """Find the rows of X at a series' stamps; ``future`` says why those ahead must be there."""
    name = series_name(context.series_id)
    if context.series_id not in rows:
        raise DataError(
            f"{argument} holds no row of {name}: {_same_number(context.series_id, rows)}"
            "pass its covariates, or leave the series out"
        )
    positions, known = rows[context.series_id]
    found = known.get_indexer(stamps)
    if (found < 0).any():
        stamp = stamps[int((found < 0).argmax())]
        wanted = f"the {len(stamps)} steps to forecast, {stamps[0]} to {stamps[-1]}"
        if len(stamps) == 1:
            wanted = "the step to forecast"
        remedy = (
            f"{future}: {argument} must hold {wanted}, of each series"
            if future
            else f"where y has one: {argument} must hold every such step"
        )
        raise DataError(f"{argument} has no row of {name} at {stamp}, {remedy}")
    return positions[found]


def _same_number(wanted: Hashable, ids: Iterable[Hashable]) -> str:
    """Say what helps where an id was read as a number, which loses zeros: "0001" and 1."""
    number = _number(wanted)
    same = next((one for one in ids if number is not None and _number(one) == number), None)
    if same is None:
        return ""
    return f"it has the id {same!s}, the same number; read the ids as text (dtype=str), or else "


def _number(series_id: Hashable) -> float | None:
    """Return the number that an id writes; None for other ids."""
    try:
        return float(str(series_id))
    except ValueError:
        return None


def _forecast_index(
    steps: Sequence[np.ndarray], contexts: Sequence[Context], layout: Layout
) -> pd.Index:
    """Build the index of the steps after the end of each series."""
    stamps = [
        stamps_after(context, int(keep.max()))[keep - 1] for keep, context in zip(steps, contexts)
    ]
    if not layout.is_panel:
        return stamps[0].rename(layout.index_names[0])
    keys = [
        context.series_id if isinstance(context.series_id, tuple) else (context.series_id,)
        for context in contexts
    ]
    rows = [(*key, stamp) for key, dates in zip(keys, stamps) for stamp in dates]
    index = pd.MultiIndex.from_tuples(rows, names=layout.index_names)
    time = stamps[0].append(stamps[1:]) if len(stamps) > 1 else stamps[0]
    if isinstance(time, pd.DatetimeIndex | pd.PeriodIndex):
        # from_tuples loses the unit of the stamps
        arrays = [index.get_level_values(level) for level in range(index.nlevels - 1)]
        index = pd.MultiIndex.from_arrays([*arrays, time], names=layout.index_names)
    return index


def _json_covariates(context: Context, covariates: CovariateColumns) -> list[list[Any]]:
    """List the covariates and attributes of each step."""
    x = [[]] * len(context) if context.past_x is None else _json_rows(context.past_x)
    attributes = [(context.static or {}).get(name) for name in covariates.static]
    return [[*row, *attributes] for row in x]


def _json_rows(values: np.ndarray) -> list[list[Any]]:
    """Convert rows to lists; NaN becomes None, which JSON has."""
    return [[None if v != v else v for v in row] for row in values.tolist()]


def _json_stamps(times: pd.Index) -> list[str] | list[int]:
    """Write stamps as ISO texts, with their offset where they have a zone; integers stay."""
    if isinstance(times, pd.PeriodIndex):
        times = times.to_timestamp()
    if not isinstance(times, pd.DatetimeIndex):
        return [int(step) for step in times]
    return [stamp.isoformat() for stamp in times]
