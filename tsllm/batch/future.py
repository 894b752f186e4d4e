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
from tsllm.covariates import CovariateColumns
from tsllm.datasets.tables import Table
from tsllm.errors import DataError
from tsllm.tables.covariates import check_future_given


def check_future(
    future: Path | None, covariates: CovariateColumns | None, id_col: str | None, time_col: str
) -> str | None:
    """Make sure that the known future can be read, before any block is.

    Parameters
    ----------
    future : Path or None
        A ``.parquet`` file, or a directory of them.
    covariates : CovariateColumns or None
        Of the model.
    id_col, time_col
        The columns with the names of the series (None: there are none) and with the times, as in
        the data.

    Returns
    -------
    str or None
        A hash of its contents, as of the data's parts.

    Raises
    ------
    DataError
        It is missing or not wanted, or has other columns.
    """
    check_future_given(covariates, future)
    if future is None:
        return None
    assert covariates is not None  # else it is not wanted
    folder, parts = find_parts(future)
    names = pq.read_schema(folder / parts[0].name).names
    wanted = _columns(covariates, id_col, time_col)
    for name in wanted:
        if name not in names:
            raise DataError(
                f"{future.name!r} has no column {name!r}: the future needs {', '.join(wanted)}, "
                "named as in the data"
            )
    return hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest()


class FutureParts:
    """The parts that hold the known future, whose footers are read once for many blocks.

    Parameters
    ----------
    future : Path
        A ``.parquet`` file, or a directory of them.
    covariates : CovariateColumns
        Of the model.
    id_col : str or None
        The column with the series' names; None: all rows are one series.
    time_col : str
        The column with the times.
    """

    def __init__(
        self, future: Path, covariates: CovariateColumns, id_col: str | None, time_col: str
    ) -> None:
        folder, parts = find_parts(future)
        self._name = future.name
        self._id_col = id_col
        self._schema = common_schema(folder, parts, _columns(covariates, id_col, time_col))
        files = [str(folder / part.name) for part in parts]
        # Keeps the footer of each file that it has looked into.
        self._rows = pyarrow.dataset.dataset(files, schema=self._schema, format="parquet")

    def of(self, series: Sequence[str]) -> Table:
        """Read the future of some series.

        Where it is sorted by series, nothing but their own row groups are read.

        Parameters
        ----------
        series : sequence of str
            The names, as text.

        Returns
        -------
        Table
            As `tsllm.tables.covariates.read_future` takes it.

        Raises
        ------
        DataError
            It holds no row of any of them.
        """
        if self._id_col is None:
            table = self._rows.to_table()
        else:
            kind = self._schema.field(self._id_col).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            names = pa.array(series, pa.string()).cast(kind)
            ends = pyarrow.compute.min_max(names)
            column = pyarrow.dataset.field(self._id_col)
            near = (column >= ends["min"]) & (column <= ends["max"])
            table = self._rows.to_table(filter=near & column.isin(names))
        if not len(table):
            raise DataError(
                f"{self._name!r} holds no row of series {series[0]!r}: give the covariates of "
                "every series for the steps to forecast"
            )
        return Table(
            table.to_pandas(ignore_metadata=True),
            lambda row: f"row {row} of its series in {self._name}",
            repr(self._name),
            text=False,
        )


def _columns(covariates: CovariateColumns, id_col: str | None, time_col: str) -> list[str]:
    """Name the columns that are read of a future."""
    return [*([] if id_col is None else [id_col]), time_col, *covariates.known]
