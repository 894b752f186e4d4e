"""Forecasts of single blocks, in the process of the local engine or in Ray's actors."""

import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tsllm.batch.future import FutureParts
from tsllm.batch.manifest import GROUPED, Manifest, Request, read_manifest
from tsllm.batch.outcomes import Outcome, write_outcome
from tsllm.batch.parts import ORIGIN_PART, ORIGIN_ROW, Stamp, check_unchanged, read_block
from tsllm.datasets.bad_series import SkippedSeries
from tsllm.datasets.long import read_long
from tsllm.datasets.tables import Table
from tsllm.errors import DataError, NoSeriesLeftError
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
    text_backbone: str | None = None
    #: Whether series that cannot be forecast are left out.
    skip: bool = False
    #: The known future of the model's covariates.
    future: Path | None = None
    #: Stamps of the data's parts and of the future's when the job was started.
    stamps: list[Stamp] = field(default_factory=list)
    future_stamps: list[Stamp] = field(default_factory=list)


@dataclass(frozen=True)
class BlockResult:
    """A block that has been forecast."""

    #: Number of the block.
    number: int
    #: Number of its series, those left out included.
    series: int
    #: Wall time.
    seconds: float
    #: What it has written.
    outcome: Outcome
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
            estimator = load_forecaster(
                job.model,
                device=job.device,
                backbone=job.backbone,
                text_backbone=job.text_backbone,
            )
        self.estimator = estimator
        # Set on the instance: set_params would reset the model.
        self.estimator.batch_size = manifest.batch_size
        self._keys, self._id = manifest.keys, manifest.job
        self._future = _open_future(estimator, manifest.request, job)

    def run(self, number: int) -> BlockResult:
        """Forecast a block and write its part."""
        started = time.perf_counter()
        skipped = SkippedSeries() if self.job.skip else None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            table = block_table(self.manifest, number, self.job)
            try:
                forecasts = self._forecast(table, skipped)
            except NoSeriesLeftError:
                forecasts = None  # the other blocks may have series left
        reasons = {} if skipped is None else skipped.reasons
        labels = self.manifest.request.labels
        outcome = write_outcome(
            forecasts, labels, reasons, self.job.out, number, self._keys[number], self._id
        )
        said = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))
        return BlockResult(
            number,
            self.manifest.blocks[number].series,
            time.perf_counter() - started,
            outcome,
            list(said),
        )

    def _forecast(self, table: Table, skipped: SkippedSeries | None) -> pd.DataFrame:
        """Forecast the series of a block's rows; ``skipped`` collects those that are left out."""
        request = self.manifest.request
        frame = read_table(self.estimator, table, request, skipped)
        future = None
        if self._future is not None:
            future = self._read_future(frame["series_id"].unique().tolist(), skipped)
        return predict_long(
            self.estimator,
            frame,
            request.horizon,
            quantiles=request.quantiles,
            freq=request.freq or self.estimator.fitted_.shape.freq,
            future=future,
            skipped=skipped,
        )

    def _read_future(self, series: list[str], skipped: SkippedSeries | None) -> pd.DataFrame | None:
        """Read the known future of series; ``skipped`` collects those whose future is bad."""
        assert self._future is not None  # the caller has looked
        request, lacks = self.manifest.request, self._future.lacks
        rows = self._future.of(series)
        if rows is None and skipped is None:
            raise lacks(series[0])
        bad = None if skipped is None else SkippedSeries()
        try:
            if rows is None:
                raise NoSeriesLeftError(str(lacks(series[0])))
            future = read_future(
                rows,
                self.estimator,
                id_col=request.id_col,
                time_col=request.time_col,
                freq=request.freq,
                sort=request.sort,
                tz=request.tz,
                format=request.format,
                skipped=bad,
            )
        except NoSeriesLeftError:
            assert skipped is not None and bad is not None  # else the error is another
            skipped.reasons |= {name: str(lacks(name)) for name in series} | bad.reasons
            raise
        if skipped is not None and bad is not None:
            skipped.adopt(bad, series)
        return future


def block_table(manifest: Manifest, number: int, job: Job) -> Table:
    """Read the rows of a block."""
    columns = manifest.request.columns
    folder = job.data
    pieces = manifest.blocks[number].pieces
    if manifest.grouped:
        folder, columns = job.out / GROUPED, [*columns, ORIGIN_PART, ORIGIN_ROW]
    table = read_block(folder, manifest.read_from, pieces, columns)
    if not manifest.grouped:  # regrouped parts are the job's own
        read = [piece.part for piece in pieces]
        stamps = [job.stamps[i] for i in read]
        check_unchanged(folder, [manifest.parts[i] for i in read], stamps)
    return table


def read_table(
    estimator: SeriesForecaster,
    table: Table,
    request: Request,
    skipped: SkippedSeries | None = None,
) -> pd.DataFrame:
    """Check the rows of a block and return them in the canonical long form.

    All series have the model's frequency, which a single block may not show. ``skipped`` collects
    the series that cannot be read.
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
        skipped=skipped,
        **columns_to_read(estimator),
    )


def _open_future(estimator: SeriesForecaster, request: Request, job: Job) -> FutureParts | None:
    """Open the parts with the known future, if the job has a known future."""
    covariates = columns_of(estimator)
    if job.future is None or covariates is None:
        return None
    return FutureParts(job.future, covariates, request.id_col, request.time_col, job.future_stamps)
