"""One block of a batch job: read, forecast, written. What the local engine and Ray's actors run."""

from __future__ import annotations

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
    """Where a batch job's things are, as seen by every process that works on it.

    Attributes
    ----------
    model, data, out : Path
        The saved model, the directory of the input's parts, the directory to write to.
    device, backbone : str, optional
        As for `tsllm.load`.
    """

    model: Path
    data: Path
    out: Path
    device: str | None = None
    backbone: str | None = None


@dataclass(frozen=True)
class BlockResult:
    """What became of a block.

    Attributes
    ----------
    number : int
    series : int
    seconds : float
    warnings : list of str
        What its data were warned of.
    process : int
        The process that forecast it.
    """

    number: int
    series: int
    seconds: float
    warnings: list[str] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)


class BlockForecaster:
    """Forecasts the blocks of a job, and keeps what they share.

    The model is loaded once, from its path, and so are the footers of the known future's parts.

    Parameters
    ----------
    job : Job
        Its plan has been written down.
    estimator : SeriesForecaster, optional
        The model, where it has been loaded.

    Raises
    ------
    DataError
        The plan is gone.
    """

    def __init__(self, job: Job, estimator: SeriesForecaster | None = None) -> None:
        self.job = job
        manifest = read_manifest(job.out)
        if manifest is None:
            raise DataError(f"{str(job.out)!r} holds no job: its manifest is gone")
        self.manifest: Manifest = manifest
        if estimator is None:
            estimator = load_forecaster(job.model, device=job.device, backbone=job.backbone)
        self.estimator = estimator
        # Set on the instance: set_params would take the model for a new one.
        self.estimator.batch_size = manifest.batch_size
        self._future = _open_future(estimator, manifest.request)

    def run(self, number: int) -> BlockResult:
        """Forecast a block and write its part.

        Raises
        ------
        DataError
            Its data break a rule; the message names the series, the row and the remedy.
        """
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
    """Check a block's rows and give them in the canonical form.

    All series have the model's frequency: a block may hold none that tells its own.
    """
    return read_long(
        table,
        id_col=request.id_col,
        time_col=request.time_col,
        target_cols=request.target_cols,
        freq=request.freq or estimator.fitted_.shape.freq,
        fill=request.fill,
        sort=request.sort,
        **columns_to_read(estimator),
    )


def _open_future(estimator: SeriesForecaster, request: Request) -> FutureParts | None:
    """Find the parts with the known future, where the job has one."""
    covariates = columns_of(estimator)
    if request.future is None or covariates is None:
        return None
    return FutureParts(Path(request.future), covariates, request.id_col, request.time_col)
