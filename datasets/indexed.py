"""sktime's y and X from tables without an index, as those of polars and Arrow are."""

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from tsllm.datasets.foreign import kind_of, plain
from tsllm.datasets.frequency import row_number
from tsllm.datasets.layout import find_id, find_time
from tsllm.datasets.stamps import read_stamps
from tsllm.datasets.tables import open_table
from tsllm.errors import DataError


def index_table(
    data: Any, argument: str, names: Sequence[Hashable] | None = None
) -> pd.DataFrame | Any:
    """Convert a table of another library to sktime's form; return other data as they are.

    Parameters
    ----------
    data : table of polars or Arrow, or other data
        One row for each series and time, the values in the other columns.
    argument : str
        Its name in error messages.
    names : sequence of hashable or None, default=None
        The columns with the series, if there are several, and the times. None: the times by a known
        name or by their dates; the series by a known name, or the only column of text.

    Returns
    -------
    DataFrame
        Indexed by (series, time), or by time alone.

    Raises
    ------
    DataError
        A column is missing, or cannot be found.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"shop": ["a", "a"], "day": [1, 2], "sold": [5.0, 6.0]})
    >>> index_table(table, "y", ["shop", "day"]).index.names
    FrozenList(['shop', 'day'])
    """
    frame = plain(data, argument)
    if kind_of(data) is None:
        return frame
    table = open_table(frame)._replace(source=argument)
    if names is None:
        time = find_time(table)
        series = find_id(table, time)
        names = [time] if series is None else [series, time]
    columns = [str(name) for name in names]
    for name in columns:
        if name not in table.frame:
            whose = "y's series and times" if argument == "X" else "the series and times of the fit"
            raise DataError(
                f"{argument} has no column {name!r}: name its columns of series and times as "
                f"{whose}, {', '.join(columns)}"
            )
    stamps = read_stamps(table.frame[columns[-1]], False, row_number).rename(columns[-1])
    values = table.frame.drop(columns=columns)
    if len(columns) == 1:
        return values.set_axis(stamps, axis=0)
    levels = [table.frame[name] for name in columns[:-1]]
    return values.set_axis(pd.MultiIndex.from_arrays([*levels, stamps], names=columns), axis=0)


def index_tables(y: Any, X: Any) -> tuple[Any, Any]:
    """Convert y and X of other libraries to sktime's form; X has the columns of y's index."""
    y = index_table(y, "y")
    if kind_of(X) is None:
        return y, plain(X, "X")
    names = getattr(getattr(y, "index", None), "names", None)
    if names is None or None in names:
        raise DataError(
            "X is a table without an index, and the index of y has no names: name its levels as "
            "the columns of X, for example with y.rename_axis(index=['series_id', 'timestamp'])"
        )
    return y, index_table(X, "X", names)
