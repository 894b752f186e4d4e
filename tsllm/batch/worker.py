"""Forecasts of single blocks, in the process of the local engine or in Ray's actors."""

import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tsllm.batch.future import FutureParts
from tsllm.batch.manifest import GROUPED, Manifest, Request, read_manifest
from tsllm.batch.parts import ORIGIN_PART, ORIGIN_ROW, read_block, write_part
from tsllm.datasets.long import read_long
from tsllm.datasets.tables import Table
from tsllm.errors import DataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.saving.api import load_forecaster
from tsllm.tables.covariates import columns_of, columns_to_read, read_future
from tsllm.tables.forecast import predict_long


@dataclass(frozen=True)
class Job:
    """The paths and the place of a batch job, the same in every process."""

    #: The saved model, the directory with the input's parts, the directory to write to.
    model: Path
    data: Path
    out: Path
    #: As for `tsllm.load`.
    device: str | None = None
    backbone: str | None = None


@dataclass(frozen=True)
class BlockResult:
    """A block that has been forecast."""

    #: Number of the block, and of its series.
    number: int
    series: int
    #: Wall time.
    seconds: float
    #: Warnings about its data.
    warnings: list[str] = field(default_factory=list)
    #: Id of the process that forecast it.
    process: int = field(default_factory=os.getpid)


class BlockForecaster:
    """A forecaster of blocks that loads the model and the known future's footers once."""

    def __init__(self, job: Job, estimator: SeriesForecaster | None = None) -> None:
        self.job = job
        manifest = read_manifest(job.out)
        if manifest is None:
            raise DataError(f"{str(job.out)!r} holds no job: its manifest is gone")
        self.manifest: Manifest = manifest
        if estimator is None:
            estimator = load_forecaster(job.model, device=job.device, backbone=job.backbone)
        self.estimator = estimator
        # Set on the instance: set_params would reset the model.
        self.estimator.batch_size = manifest.batch_size
        self._future = _open_future(estimator, manifest.request)

    def run(self, number: int) -> BlockResult:
        """Forecast a block and write its part."""
        started = time.perf_counter()
        manifest, out = self.manifest, self.job.out
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            table = block_table(manifest, number, self.job)
            forecasts = self._forecast(table)
        write_part(forecasts, manifest.part_of(out, number), manifest.digest)
        said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        return BlockResult(
            number, manifest.blocks[number].series, time.perf_counter() - started, said
        )

    def _forecast(self, table: Table) -> pd.DataFrame:
        """Forecast the series of a block's rows."""
        request = self.manifest.request
        frame = read_table(self.estimator, table, request)
        future = None
        if self._future is not None:
            future = read_future(
                self._future.of(list(frame["series_id"].unique())),
                self.estimator,
                id_col=request.id_col,
                time_col=request.time_col,
                freq=request.freq,
                sort=request.sort,
                tz=request.tz,
                format=request.format,
            )
        return predict_long(
            self.estimator,
            frame,
            request.horizon,
            quantiles=request.quantiles,
            freq=request.freq or self.estimator.fitted_.shape.freq,
            future=future,
        )


def block_table(manifest: Manifest, number: int, job: Job) -> Table:
    """Read the rows of a block."""
    columns = manifest.request.columns
    folder = job.data
    if manifest.grouped:
        folder, columns = job.out / GROUPED, [*columns, ORIGIN_PART, ORIGIN_ROW]
    return read_block(folder, manifest.read_from, manifest.blocks[number].pieces, columns)


def read_table(estimator: SeriesForecaster, table: Table, request: Request) -> pd.DataFrame:
    """Check the rows of a block and return them in the canonical long form.

    All series have the model's frequency, which a single block may not show.
    """
    return read_long(
        table,
        id_col=request.id_col,
        time_col=request.time_col,
        target_cols=request.target_cols,
        freq=request.freq or estimator.fitted_.shape.freq,
        fill=request.fill,
        sort=request.sort,
        tz=request.tz,
        format=request.format,
        **columns_to_read(estimator),
    )


def _open_future(estimator: SeriesForecaster, request: Request) -> FutureParts | None:
    """Open the parts with the known future, if the job has a known future."""
    covariates = columns_of(estimator)
    if request.future is None or covariates is None:
        return None
    return FutureParts(Path(request.future), covariates, request.id_col, request.time_col)
