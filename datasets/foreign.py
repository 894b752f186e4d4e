"""Tables of other libraries than pandas: polars, pyarrow, and all that export Arrow's interface.

They are read through the protocol ``__arrow_c_stream__``, so none of these libraries is imported
unless the data are theirs. Results are of the kind of the data: polars for polars, else pyarrow.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute

from tsllm.errors import DataError, DataTypeError

_EXPORTS = ("__arrow_c_stream__", "__arrow_c_array__")


class TableKind(NamedTuple):
    """The library of a table, and the types of its columns."""

    polars: bool
    types: dict[str, pa.DataType]
    #: The types of polars, for its categories.
    own_types: dict[str, Any]

    def give(self, frame: pd.DataFrame | pd.Series, labels: Sequence[str]) -> Any:
        """Convert a result to this kind.

        Levels of its index become columns, and levels of column names are joined by ``_``. The
        columns ``labels``, such as the series and the times, get the types that they had where
        that changes no value, so that results join the data. Periods become text.
        """
        arrow = _without_pandas(frame)
        for name in labels:
            if name in arrow.column_names and name in self.types:
                arrow = _with_type(arrow, name, self.types[name])
        if not self.polars:
            return arrow
        polars = import_module("polars")  # the data were made with it
        table = polars.from_arrow(arrow)
        categories = {
            name: self.own_types[name]
            for name in labels
            if name in table.columns
            and isinstance(self.own_types.get(name), polars.Categorical | polars.Enum)
        }
        try:
            return table.cast(categories)
        except polars.exceptions.PolarsError:  # a name that is no category of the data
            return table


def kind_of(data: object) -> TableKind | None:
    """Return the kind of a table of another library; None for pandas and all that is no table."""
    if isinstance(data, pd.DataFrame | pd.Series | type):
        return None
    if _is_lazy(data) or not any(hasattr(data, name) for name in _EXPORTS):
        return None
    schema: Any = getattr(data, "schema", None)
    if type(data).__module__.partition(".")[0] == "polars":
        if schema is None:  # a single column
            return TableKind(True, {}, {})
        return TableKind(True, _types(pa.table(data.head(0)).schema), dict(schema))  # type: ignore[attr-defined]
    return TableKind(False, _types(schema) if isinstance(schema, pa.Schema) else {}, {})


def plain(data: Any, argument: str) -> Any:
    """Convert a table of another library to a pandas frame; return other data as they are.

    Raises
    ------
    DataError
        The table is lazy.
    DataTypeError
        The data are a single column.

    Examples
    --------
    >>> plain(pa.table({"day": [1, 2], "sold": [5.0, 6.0]}), "y")["sold"].tolist()
    [5.0, 6.0]
    """
    if _is_lazy(data):
        raise DataError(f"{argument} is a lazy table: pass it after collect()")
    if kind_of(data) is None:
        return data
    try:
        table = pa.table(data)
    except (pa.ArrowException, TypeError, ValueError):
        raise DataTypeError(
            f"{argument} is of type {type(data).__name__}, which is no table: pass a table with "
            "the times and the values in columns"
        ) from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _is_lazy(data: object) -> bool:
    return type(data).__name__ == "LazyFrame" and hasattr(data, "collect")


def _types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the types of columns by their names."""
    return {field.name: field.type for field in schema}


def _without_pandas(frame: pd.DataFrame | pd.Series) -> pa.Table:
    """Convert a frame to Arrow: plain columns, and no index."""
    if isinstance(frame, pd.Series):
        frame = frame.to_frame("0" if frame.name is None else frame.name)
    columns = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame]
    frame = frame.set_axis(columns, axis=1)
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    periods = [name for name, kind in frame.dtypes.items() if isinstance(kind, pd.PeriodDtype)]
    frame = frame.astype(dict.fromkeys(periods, str))
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def _with_type(table: pa.Table, name: str, wanted: pa.DataType) -> pa.Table:
    """Give a column of times or whole numbers another type, if no value changes.

    Stamps keep their time zone: Arrow would write local times in UTC.
    """
    column = table[name]
    right = pa.types.is_temporal(wanted) or pa.types.is_integer(wanted)
    if pa.types.is_timestamp(column.type):
        if pa.types.is_timestamp(wanted):
            wanted = pa.timestamp(wanted.unit, column.type.tz)
        right = right and (pa.types.is_timestamp(wanted) or column.type.tz is None)
    if column.type == wanted or not right:
        return table
    try:
        cast = column.cast(wanted)
        if not pa.compute.all(pa.compute.equal(cast.cast(column.type), column)).as_py():
            return table
    except pa.ArrowException:
        return table
    return table.set_column(table.column_names.index(name), name, cast)
