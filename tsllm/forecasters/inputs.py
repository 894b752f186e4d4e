"""y and X as users pass them: checked, and brought to one form, before sktime reads them."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown, wanted_instead
from tsllm.datasets.checks import holds_numbers
from tsllm.datasets.stamps import looks_like_dates
from tsllm.errors import DataError, DataTypeError

#: How many names an error message lists.
SHOWN = 8
#: Kinds of stamps, for error messages.
NAIVE, AWARE = "dates without a time zone", "dates with a time zone"


def read_container(data: Any, argument: str) -> Any:
    """Return y or X with plain columns, in a container that sktime takes.

    A panel that is a Series becomes a frame. Columns of objects that are numbers or missing, such
    as Decimal and None, become float64; nullable truth values become plain ones. Containers that
    are not pandas' are left to sktime.

    Raises
    ------
    DataTypeError
        ``data`` hold no series, such as a tuple.
    DataError
        A column name stands twice, the columns have several levels, or there is no column.
    """
    if isinstance(data, pd.Series):
        if isinstance(data.index, pd.MultiIndex):
            return read_container(data.to_frame(), argument)
        return _plain_column(data, argument)
    if isinstance(data, pd.DataFrame):
        return _plain_frame(data, argument)
    if isinstance(data, list) and data and all(isinstance(one, pd.DataFrame) for one in data):
        return [_plain_frame(one, argument) for one in data]
    if data is None or isinstance(data, list | tuple | dict | str | bytes | int | float):
        raise wrong_container(data, argument)
    return data


def wrong_container(data: Any, argument: str) -> DataTypeError:
    """Make the error for a container that holds no series."""
    kind = "None" if data is None else f"of type {type(data).__name__}, which holds no series"
    if argument == "X" and wanted_instead(data, int | list[int] | range) is None and data:
        kind += f"; for a horizon write fh={shown(data)}"
    return DataTypeError(
        f"{argument} is {kind}: pass a pandas Series, or a DataFrame with a column for each "
        "variable; several series have the index levels (series, time)"
    )


def refused_container(error: TypeError, **arguments: Any) -> DataTypeError:
    """Make one sentence of sktime's refusal of an argument, which is pages long."""
    for name, data in arguments.items():
        if data is not None and not is_table(data):
            return wrong_container(data, name)
    reason = str(error).splitlines()[0].split(". ")[0]
    return DataTypeError(f"{' or '.join(arguments)} cannot be read: {reason}")


def match_columns(y: Any, columns: pd.Index, *, other_series: bool = False) -> Any:
    """Return ``y`` with the columns of the fit, found by name, in the order of the fit.

    Columns that only count, as those of arrays and of a Series without a name do, have no names:
    they are taken in their order and get the names of the fit. With ``other_series`` these keep
    their names, and so does an only variable: a model may forecast series of any name.

    Raises
    ------
    DataError
        A column is missing or unknown; the message names it.

    Examples
    --------
    >>> y = pd.DataFrame({"high": [3.0], "low": [1.0]})
    >>> match_columns(y, pd.Index(["low", "high"])).columns.tolist()
    ['low', 'high']
    """
    if isinstance(y, list):
        return [match_columns(one, columns, other_series=other_series) for one in y]
    if not is_table(y):
        return y
    given, known = _names_of(y), list(columns)
    if given == known:
        return y
    nameless = _only_count(given) or _only_count(known)
    if len(given) == len(known) and (nameless or (other_series and len(known) == 1)):
        if other_series:
            return y
        if isinstance(y, pd.Series):
            return y.rename(None if _only_count(known) else known[0])
        return y.set_axis(columns, axis=1)
    missing = [name for name in known if name not in given]
    if missing:
        raise DataError(
            f"y has the columns {_listed(given)} and the model was fitted on {_listed(known)}: "
            f"{_listed(missing)} is missing; pass the columns of the fit, in any order"
        )
    foreign = [name for name in given if name not in known]
    if foreign:
        raise DataError(
            f"y has the columns {_listed(given)} and the model was fitted on {_listed(known)}: "
            f"leave {_listed(foreign)} out, or fit anew"
        )
    return y[known]


def match_rows(y: Any, index_names: Sequence[Hashable], times: pd.Index | None) -> Any:
    """Return ``y`` with the stamps of an update in the time zone of the series that it continues.

    ``index_names`` are the levels of the index of the fit, ``times`` stamps of its series; None if
    they are not known.

    Raises
    ------
    DataError
        ``y`` is a panel and the fit was not, or the other way round; or its stamps are of another
        kind.
    """
    if not is_table(y):
        return y
    if y.index.nlevels != len(index_names):
        raise DataError(_other_levels(y.index, index_names))
    if times is None or not len(y):
        return y
    own = y.index.get_level_values(-1)
    _check_kind(own, times, "y", "the model's series")
    zone = getattr(times, "tz", None)
    if not isinstance(own, pd.DatetimeIndex) or zone is None or str(own.tz) == str(zone):
        return y
    moved = own.tz_convert(zone)
    if isinstance(y.index, pd.MultiIndex):
        levels = [y.index.get_level_values(i) for i in range(y.index.nlevels - 1)]
        return y.set_axis(pd.MultiIndex.from_arrays([*levels, moved], names=y.index.names))
    return y.set_axis(moved)


def read_covariates(X: Any, levels: int, times: pd.Index | None) -> Any:
    """Return X with plain columns, sorted by time, in a container that sktime takes.

    ``levels`` counts the levels of the index of y, and ``times`` are its stamps, where known.

    Raises
    ------
    DataError
        X is a panel and y is not, or the other way round; its stamps are of another kind, or one is
        missing. See also `read_container`.
    """
    X = read_container(X, "X")
    if not is_table(X) or (isinstance(X, pd.DataFrame) and X.shape[1] == 0):
        return X
    own = X.index.nlevels
    if own > levels == 1:
        raise DataError(
            f"X is a panel, with the index levels {_levels(X.index)}, and y is a single series: "
            "pass the covariates of that series, with the index of y"
        )
    if own == 1 < levels:
        raise DataError(
            "X has no series ids and y is a panel: give X the index levels of y, for example with "
            "pd.concat({name: X for name in names}), which repeats X for each series"
        )
    if own != levels:
        raise DataError(
            f"X has the {own} index levels {_levels(X.index)} and y has {levels}: give X those of y"
        )
    stamps = X.index.get_level_values(-1)
    if stamps.hasnans:
        row = int(stamps.isna().argmax())
        raise DataError(f"row {row} of X has no stamp: give it one or drop the row")
    if times is not None:
        _check_kind(times_of(X.index), times, "X", "y")
    if X.index.is_monotonic_increasing:
        return X
    return X.sort_index(level=-1, sort_remaining=False, kind="stable")  # the ids may not compare


def is_table(data: Any) -> bool:
    """Return whether the data are a Series or DataFrame of values; a cell may hold a series."""
    nested = (
        isinstance(data, pd.DataFrame)
        and data.size > 0
        and isinstance(data.iat[0, 0], pd.Series | np.ndarray)
    )
    return isinstance(data, pd.Series | pd.DataFrame) and not nested


def times_of(index: pd.Index) -> pd.Index:
    """Return the stamps of an index, each once for a panel."""
    return index.levels[-1] if isinstance(index, pd.MultiIndex) else index


# ---------------------------------------------------------------------- columns


def _plain_frame(frame: pd.DataFrame, argument: str) -> pd.DataFrame:
    """Check the names of a frame's columns and make its columns plain."""
    if argument == "y" and frame.shape[1] == 0:
        raise DataError("y has no column: pass a column for each variable")
    if frame.columns.nlevels > 1:
        raise DataError(
            f"{argument} has columns of {frame.columns.nlevels} levels: join their names into one, "
            f"for example with {argument}.columns = ['_'.join(map(str, name)) for name in "
            f"{argument}.columns]"
        )
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(
            f"{argument} has the column {twice!r} twice: name its columns differently, or drop one"
        )
    if not is_table(frame):
        return frame
    if argument == "y":
        _check_no_dates(frame)
    plain = [_plain_column(column, argument) for _, column in frame.items()]
    if all(one.dtype == kind for one, kind in zip(plain, frame.dtypes)):
        return frame
    return pd.concat(plain, axis=1).set_axis(frame.columns, axis=1)


def _check_no_dates(y: pd.DataFrame) -> None:
    """Check that no column beside the values holds the stamps, as after ``reset_index``."""
    others = [name for name, column in y.items() if not pd.api.types.is_numeric_dtype(column)]
    dates = next((name for name in others if looks_like_dates(y[name])), None)
    if dates is None or y.shape[1] == 1:
        return
    if isinstance(times_of(y.index), pd.DatetimeIndex | pd.PeriodIndex):
        raise DataTypeError(f"column {dates!r} of y holds dates and its index too: leave it out")
    ids = [name for name in others if name != dates and pd.api.types.is_string_dtype(y[name])]
    if not pd.api.types.is_integer_dtype(y.index.dtype):
        remedy = f"y.set_index({dates!r}, append=True)"
    elif len(ids) == 1:
        remedy = f"y.set_index([{ids[0]!r}, {dates!r}])"
    else:
        remedy = f"y.set_index({dates!r})"
    text = any(isinstance(cell, str) for cell in y[dates].head(5))
    first = f"read them with y[{dates!r}] = pd.to_datetime(y[{dates!r}]), then " if text else ""
    raise DataTypeError(
        f"column {dates!r} of y holds dates, which belong in the index: {first}pass {remedy}"
    )


def _plain_column(column: pd.Series, argument: str) -> pd.Series:
    """Return a column of numbers as float64 and one of truth values as bool, others as they are."""
    kind = column.dtype
    if kind.kind == "b" and kind != np.bool_:
        return column.astype(object if column.isna().any() else bool)
    category = isinstance(kind, pd.CategoricalDtype) and argument == "X"
    if kind.kind == "O" and not category and holds_numbers(column):
        try:
            numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except OverflowError:  # the checks of values name the row
            return column
        return pd.Series(numbers, index=column.index, name=column.name)
    return column


def _names_of(y: pd.Series | pd.DataFrame) -> list[Hashable]:
    """List the names of the variables; a Series without a name counts, as a frame of it does."""
    if isinstance(y, pd.DataFrame):
        return list(y.columns)
    return [0 if y.name is None else y.name]


def _only_count(names: Sequence[Hashable]) -> bool:
    """Return whether names are those of columns without names: 0, 1, 2, ..."""
    return list(names) == list(range(len(names)))


def _listed(names: Sequence[Hashable]) -> str:
    """List the first names."""
    return ", ".join(map(repr, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)


# ---------------------------------------------------------------------- rows


def _levels(index: pd.Index) -> str:
    """List the names of the levels of an index."""
    return "(" + ", ".join(map(str, index.names)) + ")"


def _other_levels(index: pd.Index, known: Sequence[Hashable]) -> str:
    """Say what to do with an update of a panel where the fit was none, and the other way round."""
    if len(known) == 1:
        return (
            f"y is a panel, with the index levels {_levels(index)}, and the model follows a single "
            f"series: pass that series, for example y.xs({index[0][0]!r}), or fit anew on the panel"
        )
    if index.nlevels == 1:
        return (
            "y is a single series and the model follows a panel: give y the id of its series, for "
            "example with pd.concat({'a': y})"
        )
    return (
        f"y has the index levels {_levels(index)} and the model was fitted on "
        f"({', '.join(map(str, known))}): pass the levels of the fit"
    )


def _check_kind(own: pd.Index, others: pd.Index, mine: str, theirs: str) -> None:
    """Check that stamps are of one kind: dates with or without a zone, periods, integers."""
    kind, other = _kind_of(own), _kind_of(others)
    if kind == other or not len(own):
        return
    zone = getattr(others, "tz", None)
    if pd.api.types.is_string_dtype(own.dtype) and isinstance(others, pd.DatetimeIndex):
        remedy = f"convert those of {mine} with pd.to_datetime"
    elif not {kind, other} <= {NAIVE, AWARE}:
        remedy = "give both the same kind of index"
    elif zone is None:
        remedy = f"drop the time zone of {mine} with tz_localize(None)"
    else:
        remedy = f"give {mine} its time zone, for example with tz_localize({str(zone)!r})"
    raise DataError(f"{mine} is indexed by {kind} and {theirs} by {other}: {remedy}")


def _kind_of(times: pd.Index) -> str:
    """Name the kind of stamps."""
    if isinstance(times, pd.DatetimeIndex):
        return NAIVE if times.tz is None else AWARE
    if isinstance(times, pd.PeriodIndex):
        return "periods"
    if pd.api.types.is_integer_dtype(times.dtype):
        return "integers"
    return f"stamps of type {times.dtype}"
