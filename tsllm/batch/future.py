"""The known future of covariates in a batch job, read block by block."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq

from tsllm.batch.parts import (
    Stamp,
    check_unchanged,
    common_schema,
    find_parts,
    hash_parts,
    reading_explained,
)
from tsllm.covariates import CovariateColumns
from tsllm.datasets.parts import keys_of
from tsllm.datasets.tables import Table
from tsllm.errors import DataError
from tsllm.tables.covariates import check_future_given


def check_future(
    future: Path | None, covariates: CovariateColumns | None, id_col: str | None, time_col: str
) -> tuple[str | None, list[Stamp]]:
    """Check that the known future can be read; return its hash and the stamps of its files.

    The hash is None without a future. `id_col` (None: one series) and `time_col` are the columns of
    the data.
    """
    check_future_given(covariates, future)
    if future is None:
        return None, []
    assert covariates is not None  # else it is not wanted
    folder, parts = find_parts(future)
    wanted = _columns(covariates, id_col, time_col)
    there = [{*pq.read_schema(folder / part.name).names, *keys_of(part.name)} for part in parts]
    for name in wanted:
        if not all(name in names for names in there):
            raise DataError(
                f"{future.name!r} has no column {name!r}: the future needs {', '.join(wanted)}, "
                "named as in the data"
            )
    parts, stamps = hash_parts(folder, parts)
    return hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest(), stamps


class FutureParts:
    """The parts with the known future, whose footers are read once for all blocks.

    ``future`` is a Parquet file or a directory of such files. Without ``id_col`` all rows are one
    series. ``stamps`` are those of its files when the job was started.
    """

    def __init__(
        self,
        future: Path,
        covariates: CovariateColumns,
        id_col: str | None,
        time_col: str,
        stamps: Sequence[Stamp],
    ) -> None:
        folder, parts = find_parts(future)
        self._files = folder, parts, stamps
        self._name = future.name
        self._id_col = id_col
        self._schema = common_schema(folder, parts, _columns(covariates, id_col, time_col))
        files = [str(folder / part.name) for part in parts]
        keys = pa.schema([f for f in self._schema if f.name in keys_of(parts[0].name)])
        # The data set caches the footers that it has read.
        self._rows = pyarrow.dataset.dataset(
            files,
            schema=self._schema,
            format="parquet",
            partitioning=pyarrow.dataset.partitioning(keys, flavor="hive"),
        )

    def lacks(self, series: str) -> DataError:
        """Return the error for a series without any row."""
        return DataError(
            f"{self._name!r} holds no row of series {series!r}: give the covariates of every "
            "series for the steps to forecast"
        )

    def of(self, series: Sequence[str]) -> Table | None:
        """Read the future of some series, as a table for `tsllm.tables.covariates.read_future`.

        If the future is sorted by series, only their row groups are read. None: it has no row.
        """
        with reading_explained(self._name):
            table = self._rows.to_table(filter=self._filter(series))
        check_unchanged(*self._files)
        if not len(table):
            return None
        return Table(
            table.to_pandas(ignore_metadata=True),
            lambda row: f"row {row} of its series in {self._name}",
            repr(self._name),
            text=False,
        )

    def _filter(self, series: Sequence[str]) -> pyarrow.dataset.Expression | None:
        """Return the filter for the rows of some series."""
        if self._id_col is None:
            return None
        kind = self._schema.field(self._id_col).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        names = pa.array(series, pa.string()).cast(kind)
        ends = pyarrow.compute.min_max(names)
        column = pyarrow.dataset.field(self._id_col)
        near = (column >= ends["min"]) & (column <= ends["max"])
        return near & column.isin(names)


def _columns(covariates: CovariateColumns, id_col: str | None, time_col: str) -> list[str]:
    """Name the columns of a future that are read."""
    return [*([] if id_col is None else [id_col]), time_col, *covariates.known]
