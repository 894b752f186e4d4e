"""Checks of input data: numeric values, regular times, and errors that name series and row."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from difflib import get_close_matches
from numbers import Real

import numpy as np
import pandas as pd

from tsllm.datasets.counts import check_no_dates, count_step
from tsllm.datasets.frequency import (
    FILL_REMEDY,
    freq_name,
    infer_frequency,
    is_period_frequency,
    row_number,
    set_frequency,
)
from tsllm.errors import DataError, DataTypeError, GapError

#: The square of a larger value may overflow, which makes a forecast infinite or NaN.
LARGEST = 1e140
# Series that are searched for gaps when one has a gap.
_MOST_COUNTED = 10_000


def series_name(series_id: object) -> str:
    """Return the name of a series in an error message; None stands for a single series.

    Examples
    --------
    >>> series_name("a"), series_name(None)
    ("series 'a'", 'the series')
    """
    if series_id is None:
        return "the series"
    return f"series {shown_value(series_id)}"


def series_names(ids: Sequence[object]) -> str:
    """Return the names of the first three series in a message, and the number of the others.

    Examples
    --------
    >>> series_names(["a", "b", "c", "d", "e"])
    "series 'a', series 'b', series 'c' and 2 more"
    """
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(series_name, ids[:3])) + more


def nearest(name: str, names: Sequence[str]) -> str:
    """Name the column with the closest name, or list all columns.

    Examples
    --------
    >>> nearest("sale", ["sales", "day"]), nearest("x", ["sales", "day"])
    ("did you mean 'sales'?", 'its columns are sales, day')
    """
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"its columns are {', '.join(names)}"


def with_all_gaps(
    error: GapError, series: Sequence[object], check: Callable[[int], object]
) -> GapError:
    """Return the error of the first gap with the number of all series that have one.

    ``series`` are the names of all series, and ``check`` raises a `GapError` for the number of one
    that has a gap. Only the first 10,000 series are counted.
    """
    counted = series[:_MOST_COUNTED]
    gaps = []
    for number, name in enumerate(counted):
        try:
            check(number)
        except GapError:
            gaps.append(name)
        except DataError:  # another mistake, which is told when the gaps are gone
            continue
    if len(gaps) < 2:
        return error
    first = "the first " if len(counted) < len(series) else ""
    return GapError(
        f"{len(gaps):,} of {first}{len(counted):,} series have gaps: {series_names(gaps)}; for "
        f"example {error.fact}",
        error.remedy,
    )


def in_column(variable: int, count: int, columns: Sequence[str] | None) -> str:
    """Return the words that name one of ``count`` variables in an error message.

    They begin with a space, and are empty for the only variable of a series without names.

    Examples
    --------
    >>> in_column(0, 1, ["sales"]), in_column(1, 2, None), in_column(0, 1, None)
    (" in column 'sales'", ' in variable 1 (counted from 0)', '')
    """
    if columns is not None and len(columns) == count:
        return f" in column {columns[variable]!r}"
    return "" if count == 1 else f" in variable {variable} (counted from 0)"


def check_values(
    values: object,
    *,
    series: object = None,
    times: pd.Index | None = None,
    row: Callable[[int], str] = row_number,
) -> np.ndarray:
    """Check that values are finite numbers or missing, and return float64 (time, variables).

    ``values`` are one column or (time, variables), and the result may share their memory. The other
    arguments are for error messages; ``row`` returns the name of the row at a position.

    Raises
    ------
    DataTypeError
        If a value is not a real number; the message names series, row and column.
    DataError
        If a value is infinite, or beyond 1e140.

    Examples
    --------
    >>> check_values([1, 2.5, None])
    array([[1. ],
           [2.5],
           [nan]])
    """
    frame = _as_frame(values, series)
    if times is None and isinstance(values, pd.Series | pd.DataFrame):
        times = values.index

    columns = []
    for number in range(frame.shape[1]):
        column = frame.iloc[:, number]
        bad = bad_value(column)
        if bad is not None:
            position, complaint = bad
            label = frame.columns[number]
            named = isinstance(values, pd.DataFrame) or frame.shape[1] > 1 or label != 0
            error = DataError if _is_numeric(column) else DataTypeError
            raise error(
                f"{series_name(series)}, {row(position)}{_stamp(times, position)}"
                f"{f', column {label!r}' if named else ''} {complaint}"
            )
        columns.append(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.column_stack(columns)  # (time, variables)


def bad_value(column: pd.Series) -> tuple[int, str] | None:
    """Find the first value of a column that is neither missing nor a number to compute with.

    Returns
    -------
    tuple of int and str, or None
        The position of the value, and a description with the remedy. None if there is none.
    """
    if not _is_numeric(column):
        position = _first_non_number(column)
        if position is not None:
            return position, not_a_number(column.iloc[position])
    try:
        numbers = np.abs(column.to_numpy(dtype=np.float64, na_value=np.nan))
    except OverflowError:  # a whole number that no float64 reaches
        numbers = np.array([min(abs(value), 2 * LARGEST) for value in column.fillna(0)])
    large = numbers > LARGEST
    if not large.any():
        return None
    position = int(large.argmax())
    if np.isinf(numbers[position]):
        return position, (
            f"holds {float(column.iloc[position])}; "
            "replace infinite values with numbers, or with NaN to count them as missing"
        )
    return position, (
        f"holds a value beyond {LARGEST:g}, too large to compute with; rescale the column, for "
        "example divide it by its largest value"
    )


def holds_numbers(column: pd.Series) -> bool:
    """Return whether all values of a column are real numbers or missing, as JSON with nulls gives.

    Examples
    --------
    >>> holds_numbers(pd.Series([1, None], dtype=object)), holds_numbers(pd.Series(["1", None]))
    (True, False)
    """
    return _is_numeric(column) or _first_non_number(column) is None


def not_a_number(value: object) -> str:
    """Return the end of an error message about a value that is not a number."""
    return (
        f"holds {shown_value(value)}, which is no number; "
        "convert text and categorical columns to numbers, NaN where a value is missing"
    )


def check_times(
    times: pd.Index,
    *,
    series: object = None,
    freq: str | pd.offsets.BaseOffset | None = None,
    row: Callable[[int], str] = row_number,
) -> pd.Index:
    """Check that an index is increasing and regular, and return it with its frequency set.

    An index that already has a frequency is not checked again: pandas guarantees it. The arguments
    are those of `check_values` and `infer_frequency`.

    Raises
    ------
    DataError
        If the index is empty or of another type, or if stamps are missing, unsorted, duplicated,
        irregular or have gaps. The message names the series, the first bad row and the remedy.

    Examples
    --------
    >>> check_times(pd.DatetimeIndex(["2024-01-01", "2024-02-01", "2024-03-01"])).freqstr
    'MS'
    """
    name = series_name(series)
    if len(times) == 0:
        raise DataError(f"{name} has no rows; pass at least one")
    if isinstance(times, pd.DatetimeIndex):
        own = times.freq
        if own is None or own.n < 0:
            _check_increasing(times, name, row)
        offset = infer_frequency(times, freq, name=name, row=row)
        return times if own == offset else set_frequency(times, offset)
    if isinstance(times, pd.PeriodIndex):
        _check_increasing(times, name, row)
        if freq is not None and not is_period_frequency(times, freq):
            raise DataError(
                f"{name} has periods of {times.freqstr!r}, not of freq={freq_name(freq)!r}; "
                "pass that frequency, or convert the index with asfreq"
            )
        _check_constant_step(times, pd.PeriodDtype(times.freqstr).freq.n, name, row)
        return times
    if not pd.api.types.is_integer_dtype(times.dtype):
        raise DataError(
            f"{name} has times of type {times.dtype} (first: {times[0]}); "
            "convert them with pd.to_datetime, or use integers that count steps"
        )
    step = count_step(freq)
    if freq is not None and step is None:
        if times.is_monotonic_increasing:
            check_no_dates(times, name, row)
        raise DataError(
            f"{name} has integer times, to which freq={freq_name(freq)!r} does not apply; "
            f"leave freq out, or convert the times with pd.to_datetime{_epoch(times[:1])}"
        )
    if not (isinstance(times, pd.RangeIndex) and times.step > 0):
        _check_increasing(times, name, row)
    if step is None:
        check_no_dates(times, name, row)
    if not (isinstance(times, pd.RangeIndex) and times.step == (step or times.step)):
        _check_constant_step(times, step, name, row)
    return times


def _as_frame(values: object, series: object) -> pd.DataFrame:
    """Convert values of any accepted type to a DataFrame, one column for each variable."""
    if isinstance(values, pd.DataFrame):
        frame = values
    elif isinstance(values, pd.Series):
        frame = values.to_frame()
    else:
        array = values if isinstance(values, np.ndarray) else pd.Series(values).to_numpy()
        if array.ndim not in (1, 2):
            raise DataError(
                f"{series_name(series)} has values with {array.ndim} dimensions; "
                "pass one column, or two dimensions (time, variables)"
            )
        try:
            frame = pd.DataFrame(array)
        except OverflowError:  # a whole number that no float64 reaches
            frame = pd.DataFrame(array, dtype=object)
    if frame.shape[1] == 0:
        raise DataError(f"{series_name(series)} has no value columns; pass at least one")
    return frame


def _is_numeric(column: pd.Series) -> bool:
    """Check whether the dtype of a column holds real numbers only."""
    kind = column.dtype
    return (
        pd.api.types.is_numeric_dtype(kind)
        and not pd.api.types.is_bool_dtype(kind)
        and not pd.api.types.is_complex_dtype(kind)
    )


def _first_non_number(column: pd.Series) -> int | None:
    """Find the first value that is neither a real number nor missing; NaT is a date."""
    if column.dtype.kind in "mM":
        return 0
    for position, value in enumerate(column):
        missing = value is None or value is pd.NA
        number = isinstance(value, Real) or (isinstance(value, Decimal) and not value.is_snan())
        if isinstance(value, bool | np.bool_) or not (missing or number):
            return position
    return None


def _stamp(times: pd.Index | None, position: int) -> str:
    """Return the stamp of a row in brackets, or nothing if it only counts rows."""
    if times is None or isinstance(times, pd.RangeIndex):
        return ""
    return f" ({times[position]})"


def shown_value(value: object) -> str:
    """Show a value in a message as the user wrote it."""
    try:
        return repr(value.item() if isinstance(value, np.generic) else value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a value of type {type(value).__name__}"


def _check_increasing(times: pd.Index, name: str, row: Callable[[int], str]) -> None:
    """Check that stamps are not missing, not duplicated and in order."""
    if times.hasnans:
        bad = int(np.flatnonzero(times.isna())[0])
        raise DataError(
            f"{name}, {row(bad)} has no stamp ({times[bad]}); give it one or drop the row"
        )
    if times.is_monotonic_increasing and times.is_unique:
        return
    duplicated = times.duplicated()
    if duplicated.any():
        bad = int(np.flatnonzero(duplicated)[0])
        first = int(np.flatnonzero(times == times[bad])[0])
        raise DataError(
            f"{name} has the stamp {times[bad]} twice, in {row(first)} and {row(bad)}; keep one "
            "of the two, for example with drop_duplicates, or give each series an id of its own"
        )
    order = times.asi8 if isinstance(times, pd.DatetimeIndex | pd.PeriodIndex) else times.to_numpy()
    bad = int(np.flatnonzero(order[1:] < order[:-1])[0]) + 1
    raise DataError(
        f"{name} is not in time order: {row(bad)} ({times[bad]}) comes after {row(bad - 1)} "
        f"({times[bad - 1]}); sort it by time, for example with sort_index"
    )


def _check_constant_step(
    times: pd.Index, step: int | None, name: str, row: Callable[[int], str]
) -> None:
    """Check that periods or integers have the given step, or one constant step if None."""
    if len(times) < 2:
        return
    numbers = times.asi8 if isinstance(times, pd.PeriodIndex) else times.to_numpy(np.int64)
    steps = np.diff(numbers)
    if step is None:
        step = int(steps.min())
    if (steps == step).all():
        return
    bad = int(np.flatnonzero(steps != step)[0])
    if steps[bad] % step == 0:
        missing = times[bad] + (1 if isinstance(times, pd.PeriodIndex) else step)
        raise GapError(
            f"{name} has a gap: {missing} is missing after {row(bad)} ({times[bad]}), where the "
            f"next is {times[bad + 1]}",
            f"insert the missing rows by reindexing, or {FILL_REMEDY}",
        )
    unit = "" if isinstance(times, pd.PeriodIndex) else _epoch(times)
    since = unit and f", or make them dates with pd.to_datetime{unit}"
    raise DataError(
        f"{name} has irregular times: {row(bad + 1)} ({times[bad + 1]}) is no multiple of the "
        f"step {step} after {row(bad)} ({times[bad]}); bring them to one step{since}"
    )


def _epoch(times: pd.Index) -> str:
    """Return the arguments that read integers that may be times since 1970, or nothing."""
    units = {9: "s", 10: "s", 12: "ms", 13: "ms", 15: "us", 16: "us", 18: "ns", 19: "ns"}
    unit = units.get(len(str(times[0])))
    return "" if unit is None else f"(times, unit={unit!r})"
