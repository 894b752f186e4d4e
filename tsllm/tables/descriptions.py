"""Descriptions of series in tables: forecasters that read them, and series without any row yet."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tsllm.arguments import check_arguments
from tsllm.datasets.delimited import dialect_of
from tsllm.datasets.layout import column_names, find_id_column, read_labels
from tsllm.datasets.tables import is_csv, missing_text, open_table
from tsllm.errors import DataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.cold_start import ColdStart

#: Arguments that make a `ColdStart` of a method's forecaster, and those that both read.
OWN_ARGUMENTS = ("static_text", "without_text")
SHARED_ARGUMENTS = ("text_backbone", "embedding_store")
#: How a table of descriptions is read: arguments of `read_descriptions`.
READING = ("id_col", "sep", "decimal", "encoding")


def split_arguments(
    parameters: dict[str, Any], own: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into those of a forecaster and those of the `ColdStart` around it.

    ``own`` are the arguments of the forecaster. The second dict is empty where no `ColdStart` is
    asked for.
    """
    around = {name: parameters[name] for name in OWN_ARGUMENTS if name in parameters}
    if "static_text" in around:
        around["static_text"] = tuple(column_names("static_text", around["static_text"]))
    if not around.get("static_text") and around.get("without_text", "raise") == "raise":
        return {n: v for n, v in parameters.items() if n not in OWN_ARGUMENTS}, {}
    shared = {name: parameters[name] for name in SHARED_ARGUMENTS if name in parameters}
    inside = {
        name: value
        for name, value in parameters.items()
        if name not in OWN_ARGUMENTS and (name not in shared or name in own)
    }
    return inside, around | shared


def describe_series(forecaster: SeriesForecaster, arguments: dict[str, Any]) -> SeriesForecaster:
    """Make a `ColdStart` around a forecaster, with the arguments of `split_arguments`."""
    if not arguments:
        return forecaster
    check_arguments(ColdStart, ColdStart.get_param_names(), arguments)
    around = ColdStart(forecaster, **arguments)
    around._check_parameters()  # before the data are read and the future is compared with them
    return around


def read_descriptions(
    source: Any,
    estimator: SeriesForecaster,
    *,
    id_col: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> pd.DataFrame:
    """Read the descriptions of new series.

    Parameters
    ----------
    source : DataFrame, or path to a CSV, Parquet or JSON-lines file
        A row a series: its identifier and the columns of ``static_text``. Others are ignored.
    estimator : SeriesForecaster
        Fitted or not.
    id_col : str or None, default=None
        The column of the identifiers. None: recognised by name.
    sep, decimal, encoding : str or None, default=None
        As in `tsllm.forecast`.

    Returns
    -------
    DataFrame
        Indexed by the identifiers as text, for `ColdStart.new_contexts`.
    """
    if not isinstance(estimator, ColdStart):
        raise DataError(
            "new_series (--new-series) needs a model that reads descriptions: name their columns "
            "in static_text= (--static-text)"
        )
    dialect = dialect_of(sep, decimal, encoding) if is_csv(source) else None
    table = open_table(source, None, dialect)
    column = find_id_column(table, id_col)
    for name in estimator.static_attributes:
        if name not in table.frame:
            raise DataError(
                f"{table.source} has no column {name!r}, which describes new series; it has "
                f"{', '.join(map(str, table.frame.columns))}"
            )
    frame = table.frame[list(estimator.static_attributes)]
    if table.text:
        frame = frame.apply(lambda cells: cells.where(~missing_text(cells), None))
    ids = read_labels(table, column, "series", lambda row, name: f"series {name!r}")
    return frame.set_axis(pd.Index(ids, dtype=object))
