"""Long tables, one row for each series and time: read, checked and converted to sktime panels."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets.bad_series import SkippedSeries
from tsllm.datasets.checks import bad_value, check_times, check_values, not_a_number, series_name
from tsllm.datasets.counts import count_step
from tsllm.datasets.covariates import CovariateTable, read_covariates
from tsllm.datasets.delimited import decimal_hint, dialect_of
from tsllm.datasets.frequency import parse_frequency
from tsllm.datasets.gaps import (
    check_fill,
    check_filled,
    fill_gaps,
    regular_times,
    stamp_numbers,
    to_steps,
)
from tsllm.datasets.labels import Labels, mark_labels
from tsllm.datasets.layout import (
    Columns,
    column_names,
    find_columns,
    group_rows,
    read_labels,
    rows_by_name,
)
from tsllm.datasets.stamps import read_stamps
from tsllm.datasets.tables import Table, open_table, text_to_numbers
from tsllm.errors import DataError


def read_long(
    source: Any,
    *,
    id_col: str | None = None,
    time_col: str | None = None,
    target_cols: str | Sequence[str] | None = None,
    freq: str | None = None,
    fill: str | Mapping[str, str] | None = None,
    resample: str | None = None,
    sort: bool = False,
    covariates: str | Sequence[str] = (),
    categorical: Collection[str] | None = None,
    tz: str | None = None,
    format: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    model: Columns | None = None,
    text: Collection[str] = (),
    skipped: SkippedSeries | None = None,
) -> pd.DataFrame:
    """Read and check one or many time series from a table.

    Known layouts need no arguments: ``series_id, timestamp, value``, Nixtla's ``unique_id, ds, y``,
    AutoGluon's ``item_id, timestamp, target``, a first column of dates with values beside it, and
    GluonTS's JSON lines. A table with a column for each variable, such as the ETT files, needs
    ``target_cols``.

    Parameters
    ----------
    source : str, pathlib.Path, DataFrame, table of polars or Arrow, or Table
        A ``.csv``, ``.csv.gz``, ``.parquet``, ``.pq``, ``.parq``, ``.jsonl`` or ``.jsonl.gz``
        file, a directory of such files of one kind (with its subfolders, whose names
        ``column=value`` are columns), a table, or a `tsllm.datasets.tables.Table`.
    id_col, time_col : str or None, default=None
        The columns with the series' identifiers and the times. None recognises known names.
    target_cols : str, sequence of str or None, default=None
        The value columns. None: the column ``value``, ``y`` or ``target``, else the only column
        of numbers beside the covariates; several are an error. May be empty if there are
        covariates.
    freq : str or None, default=None
        The frequency that every series must have, for example ``"h"``, or ``"5"`` for integers in
        steps of 5. None infers a frequency for each series. A series that is too short gets the
        frequency that all others share.
    fill : {"nan", "zero", "ffill", "interpolate"}, dict or None, default=None
        How to fill rows that are inserted for missing stamps: NaN (masked by the forecasters),
        zero (for counts), the row before, or a line between the rows around them. A column that
        has only zeros and ones in a series is not interpolated: it repeats the row before. None
        makes a gap an error. Missing values in existing rows stay missing. A word is for the
        values; covariates follow "interpolate", and else repeat the row before. A dict gives some
        columns a word of their own, such as ``{"sales": "zero", "promo": "zero"}``; other values
        are then NaN, and other covariates repeat the row before.
    resample : {"mean", "sum", "last"} or None, default=None
        How to aggregate rows at irregular times, or several rows at one time, to the steps of
        ``freq``. Steps without a row are gaps, see ``fill``. None makes irregular times an error.
    sort : bool, default=False
        Sort each series by time. False makes unsorted rows an error.
    covariates : str or sequence of str, default=()
        Columns of covariates, which are not values. They are resampled like the values; see
        ``fill`` for gaps.
    categorical : collection of str or None, default=None
        The covariates that are categories. None: all that hold more than numbers.
    tz : str or None, default=None
        The time zone of the series, for example ``"Europe/Berlin"``. Stamps with a zone or an
        offset are converted to it; stamps without one are its local times. None keeps the stamps
        as they are, and makes different offsets in one column an error.
    format : str or None, default=None
        How times in text and integers are written, in the codes of ``strptime``, for example
        ``"%d.%m.%Y"``, or ``"%Y%m"`` for 202401. None reads dates year first (ISO 8601).
    sep, decimal, encoding : str or None, default=None
        How CSV is written: the character between cells, the decimal sign ``"."`` or ``","``, and
        the encoding, for example ``"latin-1"`` or ``"utf-16"``. None: comma, point and UTF-8.
    model : Columns or None, default=None
        The columns ``(id, time, targets)`` that a model was fitted on. Where an argument above is
        None, those that the table has are taken. A table that has all variables of the model is not
        searched for others.
    text : collection of str, default=()
        Those of ``covariates`` that hold texts. A row may have no text, and one that ``fill``
        inserts has none.
    skipped : SkippedSeries or None, default=None
        Collects the series that cannot be read, which are then left out. None: such a series is an
        error. A mistake in the table as a whole is always an error.

    Returns
    -------
    pandas.DataFrame
        Columns ``series_id`` (str; "series" if the table names none), ``timestamp`` (dates,
        periods or int64), the values (float64) and the covariates (float64, or text). Series
        are in order of first appearance and increase in time. Without ``fill`` the frame has
        exactly the rows of the table. ``attrs["labels"]`` keeps the names that the table has for
        the first two columns; forecasts have them again.

    Raises
    ------
    DataError
        If the table is invalid. The message names the series, the row (in text files the line,
        counted from 1, else the row, counted from 0) and the remedy.

    Warns
    -----
    UserWarning
        Once, if some series are constant; and if columns are left out beside the target.

    See Also
    --------
    long_to_panel : Convert the result to an sktime panel.
    read_events : Read sequences of events.

    Examples
    --------
    >>> table = pd.DataFrame({"ds": ["2024-01-01", "2024-01-02", "2024-01-04"], "y": [1, 2, 4]})
    >>> read_long(table, freq="D", fill="interpolate")["y"].tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    check_fill(fill)
    if not isinstance(sort, bool | np.bool_):
        raise DataError(f"sort must be True or False, found {sort!r}")
    if freq is not None and count_step(freq) is None:
        parse_frequency(freq)
    table = open_table(source, freq, dialect_of(sep, decimal, encoding))
    covariates = column_names("covariates", covariates)
    columns = find_columns(table, id_col, time_col, target_cols, covariates, model)
    check_filled(fill, [*columns.targets, *covariates])
    ids = _read_ids(table, columns)
    how = _Reading(
        columns, freq, fill, resample, sort, covariates, categorical, text, tz=tz, format=format
    )
    try:
        frame = _make_series(table, ids, how, how.cells(table, ids), count_gaps=skipped is None)
    except DataError:
        if skipped is None or columns.id is None:
            raise
        frame = _read_good(table, ids, how, skipped)
    _warn_constant(frame, columns)
    mark_labels(frame, _labels(table, columns))
    return frame


class _Cells(NamedTuple):
    """The cells of some rows, read and not yet checked as series."""

    times: pd.Index
    numbers: np.ndarray  # (rows, variables + covariates)
    beside: CovariateTable  # its numbers are the last columns of ``numbers``

    def take(self, rows: np.ndarray) -> "_Cells":
        """Return the cells of some of the rows."""
        return self._replace(times=self.times[rows], numbers=self.numbers[rows])


@dataclass(frozen=True)
class _Reading:
    """How the rows of a table are read: the arguments of `read_long`."""

    columns: Columns
    freq: str | None
    fill: str | Mapping[str, str] | None
    resample: str | None
    sort: bool
    covariates: Sequence[str]
    categorical: Collection[str] | None
    text: Collection[str]
    tz: str | None
    format: str | None

    def place(self, table: Table, ids: np.ndarray) -> Callable[[int], str]:
        """Return the function that names a row in an error message."""

        def place(position: int) -> str:
            name = series_name(None if self.columns.id is None else ids[position])
            return f"{name}, {table.row(position)}"

        return place

    def times(self, table: Table, ids: np.ndarray) -> pd.Index:
        """Read the stamps of the rows."""
        column, place = table.frame[self.columns.time], self.place(table, ids)
        return read_stamps(column, table.text, place, tz=self.tz, format=self.format)

    def values(self, table: Table, ids: np.ndarray) -> np.ndarray:
        """Read the values of the rows, (rows, variables)."""
        return _read_values(table, self.columns, self.place(table, ids))

    def beside(self, table: Table, ids: np.ndarray) -> CovariateTable:
        """Read the covariates of the rows."""
        return read_covariates(
            table,
            self.covariates,
            self.place(table, ids),
            categorical=self.categorical,
            text=self.text,
            resample=self.resample,
        )

    def cells(self, table: Table, ids: np.ndarray) -> _Cells:
        """Read the times, the values and the covariates of the rows."""
        times, beside = self.times(table, ids), self.beside(table, ids)
        return _Cells(times, np.hstack([self.values(table, ids), beside.numbers]), beside)


def _make_series(
    table: Table, ids: np.ndarray, how: _Reading, cells: _Cells, *, count_gaps: bool = False
) -> pd.DataFrame:
    """Check the rows of the series ``ids`` (rows,) as series, and return the frame of them.

    ``count_gaps`` makes the error of a gap tell how many series have one.
    """
    columns, place, freq, fill = how.columns, how.place(table, ids), how.freq, how.fill
    resample = how.resample
    times, values, beside = cells
    words = None if fill is None else beside.fill_words(fill, columns.targets)
    codes, names = pd.factorize(ids)
    if resample is None:
        others = table.frame.drop(columns=[columns.time, *columns.targets])
        _check_duplicates(codes, times, place, table.row, None if columns.id else others)
    order = group_rows(
        codes, stamp_numbers(times), times, place, table.row, noun="series", sort=how.sort
    )
    codes, times, values = codes[order], times[order], values[order]

    spans = _spans(codes)
    if resample is not None:
        steps = [to_steps(values[span], times[span], freq, resample) for span in spans]
        values = np.concatenate([part for part, _, _ in steps])
        times = steps[0][1].append([part for _, part, _ in steps[1:]])
        order = np.concatenate([order[span][first] for span, (_, _, first) in zip(spans, steps)])
        codes = np.repeat(np.arange(len(names)), [len(part) for part, _, _ in steps])
        spans = _spans(codes)
    indexes = regular_times(
        [times[span] for span in spans],
        labels=[None if columns.id is None else name for name in names],
        rows=[_rows_of(table, order[span]) for span in spans],
        freq=freq,
        complete=fill is not None,
        count_gaps=count_gaps,
    )
    if words is not None:
        parts = zip(spans, indexes, strict=True)
        filled = [fill_gaps(values[span], times[span], index, words) for span, index in parts]
        values = np.concatenate(filled)
        codes = np.repeat(np.arange(len(names)), [len(index) for index in indexes])
        times = indexes[0].append(indexes[1:])

    frame = pd.DataFrame({"series_id": pd.Series(np.asarray(names)[codes]).astype(str)})
    frame["timestamp"] = times
    width = len(columns.targets)
    frame[columns.targets] = values[:, :width]
    for name, column in beside.columns(values[:, width:]).items():
        frame[name] = column
    return frame


def long_to_panel(frame: pd.DataFrame, freq: str | None = None) -> pd.DataFrame:
    """Convert a long frame of `read_long` to the ``y`` of an sktime forecaster.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ``series_id``, ``timestamp`` and the values.
    freq : str or None, default=None
        The frequency. Only a single series of fewer than three dates needs it.

    Returns
    -------
    pandas.DataFrame
        For one series its values by time, with the frequency of the index set; for several
        series the values by (series_id, timestamp), in the order of the frame.

    Raises
    ------
    DataError
        If the frame does not begin with the two columns, or a single series is not regular.

    Examples
    --------
    >>> frame = read_long(pd.DataFrame({"ds": pd.date_range("2024-01-31", periods=3, freq="ME"),
    ...                                 "y": [1.0, 3.0, 2.0]}))
    >>> long_to_panel(frame).index.freqstr
    'ME'
    """
    if list(frame.columns[:2]) != ["series_id", "timestamp"]:
        raise DataError(
            f"the frame's columns are {list(frame.columns)}, not series_id, timestamp and values; "
            "pass it through read_long first"
        )
    if frame["series_id"].nunique() > 1:
        return frame.set_index(["series_id", "timestamp"])
    series = frame["series_id"].iloc[0] if len(frame) else None
    times = check_times(pd.Index(frame["timestamp"]), series=series, freq=freq)
    return frame.drop(columns=["series_id", "timestamp"]).set_axis(times, axis=0)


def panel_to_long(y: pd.Series | pd.DataFrame, series_id: str = "series") -> pd.DataFrame:
    """Convert an sktime series or panel to a long frame; the inverse of `long_to_panel`.

    Parameters
    ----------
    y : pandas.Series or pandas.DataFrame
        Values by time, or by (series, time).
    series_id : str, default="series"
        The name of a single series.

    Returns
    -------
    pandas.DataFrame
        Columns ``series_id`` (as in the index), ``timestamp`` and the values (float64). The
        column of a Series without a name is ``"y"``.

    Raises
    ------
    DataError
        If ``y`` is of another type, has more than two index levels, or holds other values than
        numbers.

    Examples
    --------
    >>> panel_to_long(pd.Series([1.0, 2.0], pd.period_range("2024-01", periods=2, freq="M")))
      series_id timestamp    y
    0    series   2024-01  1.0
    1    series   2024-02  2.0
    """
    if isinstance(y, pd.Series):
        y = y.to_frame("y" if y.name is None else y.name)
    if not isinstance(y, pd.DataFrame) or y.index.nlevels > 2:
        found = type(y).__name__ if not isinstance(y, pd.DataFrame) else f"{y.index.nlevels} levels"
        raise DataError(
            f"y has {found}; pass a Series or DataFrame indexed by time or by (series, time)"
        )
    if y.index.nlevels == 1:
        frame = pd.DataFrame({"series_id": pd.Series([series_id] * len(y)).astype(str)})
    else:
        frame = pd.DataFrame({"series_id": y.index.get_level_values(0)})
    frame["timestamp"] = y.index.get_level_values(-1)
    frame[[str(name) for name in y.columns]] = check_values(y)
    return frame


def _read_good(
    table: Table, ids: np.ndarray, how: _Reading, skipped: SkippedSeries
) -> pd.DataFrame:
    """Read the series that can be read; collect the others."""
    rows = rows_by_name(ids)

    def where(some: Sequence[str]) -> np.ndarray:
        return np.sort(np.concatenate([rows[name] for name in some]))

    def part(at: np.ndarray) -> Table:
        frame = table.frame.iloc[at].reset_index(drop=True)
        return table._replace(frame=frame, row=lambda i: table.row(int(at[i])))

    def on_rows(read: Callable[[Table, np.ndarray], object], some: Sequence[str]) -> object:
        at = where(some)
        return read(part(at), ids[at])

    # The cells of good rows are then read once, and not again for each group of series.
    good = list(rows)
    for read in (how.times, how.values, how.beside):
        good = skipped.keep(good, partial(on_rows, read))
    if not good:
        raise skipped.none_left()
    known = where(good)
    cells = how.cells(part(known), ids[known])

    def check(some: Sequence[str]) -> pd.DataFrame:
        at = where(some)
        return _make_series(part(at), ids[at], how, cells.take(np.searchsorted(known, at)))

    # A short series gets the frequency of the others: it is read together with one of them.
    long = skipped.keep([name for name in good if len(rows[name]) >= 3], check)
    short = [name for name in good if len(rows[name]) < 3]
    good = long + skipped.keep(short, lambda some: check([*long[:1], *some]))
    if not good:
        raise skipped.none_left()
    return check(good)


def _labels(table: Table, columns: Columns) -> Labels:
    """Return the names of the columns with the series and the times, for the forecasts."""
    if columns.id is None:
        return Labels(time=columns.time)
    kind, ids = table.frame[columns.id].dtype, table.frame[columns.id]
    if isinstance(kind, pd.CategoricalDtype):
        ids = kind.categories.to_series()
    whole = pd.api.types.infer_dtype(ids, skipna=False) == "integer"
    return Labels(columns.id, columns.time, whole)


def _read_ids(table: Table, columns: Columns) -> np.ndarray:
    """Return the series of each row as text."""
    if columns.id is None:
        return np.full(len(table.frame), "series", dtype=object)
    return read_labels(
        table, columns.id, "series", lambda row, name: f"{series_name(name)}, {table.row(row)}"
    )


def _read_values(table: Table, columns: Columns, place: Callable[[int], str]) -> np.ndarray:
    """Return the values as float64, (rows, variables)."""
    values = []
    for name in columns.targets:
        column = table.frame[name]
        hint = f", or pass id_col={name!r} (--id-col) if it names the series"
        hint = "" if columns.id is not None else hint
        if table.text:
            numbers = text_to_numbers(column, table.decimal)
            if isinstance(numbers, int):
                hint = decimal_hint(column.iloc[numbers]) or hint
                complaint = not_a_number(column.iloc[numbers])
                raise DataError(f"{place(numbers)}, column {name!r} {complaint}{hint}")
            column = pd.Series(numbers)
        bad = bad_value(column)
        if bad is not None:
            raise DataError(f"{place(bad[0])}, column {name!r} {bad[1]}")
        values.append(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.column_stack(values) if values else np.empty((len(table.frame), 0))


def _check_duplicates(
    codes: np.ndarray,
    times: pd.Index,
    place: Callable[[int], str],
    row: Callable[[int], str],
    others: pd.DataFrame | None,
) -> None:
    """Check that no series has a stamp twice; the error names both rows.

    ``others`` are the columns that could tell series apart; None where a column does.
    """
    keys = pd.DataFrame({"code": codes, "time": stamp_numbers(times)})
    twice = keys.duplicated()
    if twice.any():
        bad = int(twice.argmax())
        first = int((keys == keys.iloc[bad]).all(axis=1).argmax())
        remedy = "drop one of the two"
        if others is not None:
            remedy += ", name the column that tells series apart with id_col= (--id-col)"
            likely = _telling_apart(others, keys["time"])
            remedy += "" if likely is None else f", which seems to be {likely!r}"
        if isinstance(times, pd.DatetimeIndex):
            remedy += ", or aggregate the rows of a step with resample='sum' and freq= "
            remedy += "(--resample, --freq)"
        raise DataError(f"{place(first)} and {row(bad)} have the same stamp {times[bad]}; {remedy}")


def _telling_apart(others: pd.DataFrame, stamps: pd.Series) -> str | None:
    """Return the first column of names or whole numbers with which no stamp stands twice."""
    for name, column in others.items():
        if pd.api.types.is_float_dtype(column) or column.nunique() > len(column) / 2:
            continue
        if not pd.DataFrame({"own": column.to_numpy(), "time": stamps}).duplicated().any():
            return str(name)
    return None


def _spans(codes: np.ndarray) -> list[slice]:
    """Return the consecutive rows of each series."""
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


def _rows_of(table: Table, positions: np.ndarray) -> Callable[[int], str]:
    """Name the rows of one series by their places in the table."""
    return lambda position: table.row(int(positions[position]))


def _warn_constant(frame: pd.DataFrame, columns: Columns) -> None:
    """Warn once about constant series."""
    if not columns.targets:
        return
    groups = frame.groupby("series_id", sort=False)[columns.targets]
    constant = (groups.max() == groups.min()) & (groups.count() >= 2)
    places = [
        (series_name(None if columns.id is None else name), variable)
        for name, row in zip(constant.index, constant.to_numpy(), strict=True)
        for variable, found in zip(columns.targets, row, strict=True)
        if found
    ]
    if places:
        several = len(columns.targets) > 1
        named = [f"{name}, column {column!r}" if several else name for name, column in places]
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        warnings.warn(
            f"constant: {'; '.join(named[:5])}{more}; such a series is forecast as its constant",
            UserWarning,
            stacklevel=3,
        )
