"""The known future of covariates in a batch job: of each block, the rows of its own series."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq

from tsllm.batch.parts import common_schema, find_parts
from tsllm.datasets.tables import Table
from tsllm.errors import DataError
from tsllm.forecasters.base import BaseLLMForecaster


def check_future(
    future: Path | None, estimator: BaseLLMForecaster, columns: Sequence[str]
) -> str | None:
    """Make sure that the known future can be read, before any block is.

    Parameters
    ----------
    future : Path or None
        A ``.parquet`` file, or a directory of them.
    estimator : BaseLLMForecaster
    columns : sequence of str
        The names of the series and of the times, as in the data, and the known covariates.

    Returns
    -------
    str or None
        A hash of its contents, as of the data's parts.

    Raises
    ------
    DataError
        It is missing or not wanted, or has other columns.
    """
    covariates = estimator.fitted_.covariates
    known = () if covariates is None else covariates.columns.known
    if future is None:
        if known:
            raise DataError(
                f"the future of the covariates {', '.join(known)} is missing: give it as future= "
                "(--future), a Parquet file or a directory of them"
            )
        return None
    if not known:
        raise DataError(
            "the future of covariates was given and the model reads none: leave future (--future) "
            "out"
        )
    folder, parts = find_parts(future)
    names = pq.read_schema(folder / parts[0].name).names
    for name in columns:
        if name not in names:
            raise DataError(
                f"{future.name!r} has no column {name!r}: the future needs {', '.join(columns)}, "
                "named as in the data"
            )
    return hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest()


def future_of(
    future: Path, columns: Sequence[str], id_col: str | None, series: Sequence[str]
) -> Table:
    """Read the future of some series.

    Where it is sorted by series, nothing but their own row groups are read.

    Parameters
    ----------
    future : Path
    columns : sequence of str
    id_col : str or None
        The column with the series' names; None: all rows are one series.
    series : sequence of str
        The names, as text.

    Returns
    -------
    Table
        As `tsllm.long_covariates.read_future` takes it.
    """
    folder, parts = find_parts(future)
    schema = common_schema(folder, parts, columns)
    files = [str(folder / part.name) for part in parts]
    rows = pyarrow.dataset.dataset(files, schema=schema, format="parquet")
    if id_col is None:
        table = rows.to_table()
    else:
        kind = schema.field(id_col).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        names = pa.array(series, pa.string()).cast(kind)
        ends = pyarrow.compute.min_max(names)
        column = pyarrow.dataset.field(id_col)
        near = (column >= ends["min"]) & (column <= ends["max"])
        table = rows.to_table(filter=near & column.isin(names))
    if not len(table):
        raise DataError(
            f"{future.name!r} holds no row of series {series[0]!r}: give the covariates of every "
            "series for the steps to forecast"
        )
    return Table(
        table.to_pandas(ignore_metadata=True),
        lambda row: f"row {row} of its series in {future.name}",
        repr(future.name),
        text=False,
    )
