"""Descriptions of series in tables: forecasters that read them, and series without any row yet."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tsllm.arguments import check_arguments
from tsllm.datasets.delimited import dialect_of
from tsllm.datasets.labels import Labels
from tsllm.datasets.layout import column_names, find_id_column, read_labels
from tsllm.datasets.tables import is_csv, missing_text, open_table
from tsllm.errors import DataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.cold_start import ColdStart

#: Arguments that make a `ColdStart` of a method's forecaster, and those that both read.
OWN_ARGUMENTS = ("static_text", "without_text")
SHARED_ARGUMENTS = ("text_backbone", "embedding_store")


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
    source: Any, estimator: SeriesForecaster, reading: Mapping[str, Any], labels: Labels
) -> pd.DataFrame | None:
    """Read the descriptions of new series.

    Parameters
    ----------
    source : DataFrame, path to a CSV, Parquet or JSON-lines file, or None
        Each row has the identifier of a series and the columns of ``static_text``. Other columns
        are not read.
    estimator : SeriesForecaster
        Fitted or not.
    reading : mapping
        How the data are read: arguments of `read_long`. Here ``id_col``, ``sep``, ``decimal`` and
        ``encoding`` are used, None where they are missing.
    labels : Labels
        Of the data; the table may name the column of identifiers as they do.

    Returns
    -------
    DataFrame or None
        Indexed by the identifiers as text, for `ColdStart.new_contexts`. None without a source.

    Raises
    ------
    DataError
        The model reads no descriptions, or the table lacks a column or an identifier.
    """
    if source is None:
        return None
    if not isinstance(estimator, ColdStart):
        raise DataError(
            "new_series (--new-series) needs a model that reads descriptions: name their columns "
            "in static_text= (--static-text)"
        )
    try:
        return _read_table(source, estimator.static_attributes, reading, labels)
    except DataError as error:  # its row could be one of the data
        raise type(error)(f"new_series (--new-series): {error}") from error


def _read_table(
    source: Any, described: Sequence[str], reading: Mapping[str, Any], labels: Labels
) -> pd.DataFrame:
    """Read the identifiers and the columns ``described`` of a table."""
    written = [reading.get(name) for name in ("sep", "decimal", "encoding")]
    table = open_table(source, None, dialect_of(*written) if is_csv(source) else None)
    column = find_id_column(table, reading.get("id_col"), labels.id)
    for name in described:
        if name not in table.frame:
            raise DataError(
                f"{table.source} has no column {name!r}, which describes new series; it has "
                f"{', '.join(map(str, table.frame.columns))}"
            )
    frame = table.frame[list(described)]
    if table.text:
        frame = frame.apply(lambda cells: cells.where(~missing_text(cells), None))
    ids = read_labels(table, column, "series", lambda row, name: f"series {name!r}")
    return frame.set_axis(pd.Index(ids, dtype=object))
