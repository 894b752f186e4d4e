"""The known future of covariates in a batch job, read block by block."""

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
    """Check that the known future can be read, and return its hash; None without a future.

    `id_col` (None: one series) and `time_col` are the columns of the data.
    """
    check_future_given(covariates, future)
    if future is None:
        return None
    assert covariates is not None  # else it is not wanted
    folder, parts = find_parts(future)
    wanted = _columns(covariates, id_col, time_col)
    there = [pq.read_schema(folder / part.name).names for part in parts]
    for name in wanted:
        if not all(name in names for names in there):
            raise DataError(
                f"{future.name!r} has no column {name!r}: the future needs {', '.join(wanted)}, "
                "named as in the data"
            )
    return hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest()


class FutureParts:
    """The parts with the known future, whose footers are read once for all blocks.

    ``future`` is a ``.parquet`` file or a directory of such files. Without ``id_col`` all rows are
    one series.
    """

    def __init__(
        self, future: Path, covariates: CovariateColumns, id_col: str | None, time_col: str
    ) -> None:
        folder, parts = find_parts(future)
        self._name = future.name
        self._id_col = id_col
        self._schema = common_schema(folder, parts, _columns(covariates, id_col, time_col))
        files = [str(folder / part.name) for part in parts]
        # The data set caches the footers that it has read.
        self._rows = pyarrow.dataset.dataset(files, schema=self._schema, format="parquet")

    def of(self, series: Sequence[str]) -> Table:
        """Read the future of some series, as a table for `tsllm.tables.covariates.read_future`.

        If the future is sorted by series, only their row groups are read.
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
    """Name the columns of a future that are read."""
    return [*([] if id_col is None else [id_col]), time_col, *covariates.known]
