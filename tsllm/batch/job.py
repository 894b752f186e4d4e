"""Batch jobs: start or continue a job, forecast its blocks, finish it."""

import logging
import os
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from tsllm.arguments import Limits, shown
from tsllm.batch.future import check_future
from tsllm.batch.manifest import (
    GROUPED,
    Manifest,
    Request,
    check_directory,
    check_same,
    current_versions,
    lock,
    read_manifest,
    series_in,
)
from tsllm.batch.outcomes import RECORDS, Outcome, written_outcomes
from tsllm.batch.parts import Part, find_parts, first_names, has_whole_ids, hash_parts
from tsllm.batch.planning import (
    bring_together,
    columns_of_parts,
    is_grouped,
    plan_again,
    plan_job,
)
from tsllm.batch.ray_engine import Workers, run_on_ray
from tsllm.batch.worker import BlockForecaster, BlockResult, Job
from tsllm.batch.writing import UNFINISHED, whole_file, writing_to
from tsllm.datasets.bad_series import SkippedSeries, skipping
from tsllm.datasets.gaps import check_fill, check_filled
from tsllm.datasets.labels import LABELS
from tsllm.datasets.layout import Columns
from tsllm.errors import DataError, NoSeriesLeftError, OutputError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.logs import log_event
from tsllm.saving.api import fingerprint, load_forecaster
from tsllm.tables.covariates import columns_of, labels_of_model, variables_of
from tsllm.tables.forecast import DEFAULT_QUANTILES, check_request, result_columns

#: Default of the approximate number of rows per block.
BLOCK_ROWS = 250_000
#: The list of series that were left out, in a job's directory.
SKIPPED = "_skipped.csv"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchResult:
    """The outcome of a batch job.

    Attributes
    ----------
    out : Path
        The directory with the parts.
    series, horizon : int
        Number of forecast series, and steps of each.
    blocks, blocks_before : int
        Number of all blocks, and of those that were there before this run.
    batch_size : int
        Series per batch.
    seconds : float
        Wall time of this run.
    skipped : dict of str to str
        The series that were left out, with their reasons; see ``on_error``.
    id_col : str
        The column of the series in the parts, and in the list of those left out.
    """

    out: Path
    series: int
    horizon: int
    blocks: int
    blocks_before: int
    batch_size: int
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)
    id_col: str = LABELS[0]


def predict_batch(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    horizon: int | None = None,
    quantiles: Sequence[float] = DEFAULT_QUANTILES,
    engine: Literal["local", "ray"] = "local",
    workers: Workers | None = None,
    batch_size: int | Literal["auto"] | None = None,
    block_rows: int | None = None,
    id_col: str | None = None,
    time_col: str | None = None,
    target_cols: str | Sequence[str] | None = None,
    freq: str | None = None,
    fill: str | Mapping[str, str] | None = None,
    sort: bool = False,
    future: str | Path | None = None,
    tz: str | None = None,
    format: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    device: str | None = None,
    backbone: str | None = None,
    text_backbone: str | None = None,
    progress: bool = False,
    on_block: Callable[[BlockResult], None] | None = None,
) -> BatchResult:
    """Forecast every series of Parquet parts with a saved model, into Parquet parts.

    The plan is written to ``_manifest.json`` in ``out`` before the first block. A job that was
    killed continues when it is started again, and writes the same forecasts. All files of the data
    are hashed first: where one has changed, the blocks that read it are forecast again, and the
    others stay. A part of the output that is damaged is forecast again, too. Memory depends on
    ``block_rows`` and the longest series only. Series whose rows are scattered over parts are
    regrouped on disk first; the output then has another order than the data.

    Parameters
    ----------
    model : path
        A directory that `tsllm.save` wrote.
    data : path
        A Parquet file, or a directory of such files with its subfolders, in the long format of
        `tsllm.datasets.read_long`.
    out : path
        The directory for ``part-00000.parquet, ...``; ``pd.read_parquet(out)`` reads them all. The
        columns of the series and the times have the names of the data.
    horizon : int or None, default=None
        Steps after the end of each series. None: the model's horizon.
    quantiles : sequence of float, default=(0.1, 0.5, 0.9)
        Levels between 0 and 1.
    engine : {"local", "ray"}, default="local"
        This process, or Ray's workers: on the cluster at ``RAY_ADDRESS``, else on this machine.
    workers : Workers or None, default=None
        Number of Ray workers, and the resources of each.
    batch_size : int, "auto" or None, default=None
        Series per batch. "auto" measures the fastest before the first block; None: the model's.
    block_rows : int or None, default=None
        Approximate number of rows per block. None: 250,000.
    id_col, time_col : str or None, default=None
        Columns with the series' names and the times. None: found by name.
    target_cols : str, sequence of str or None, default=None
        Columns with the values. None: the model's variables where the data have them all, else
        found by name, as `tsllm.forecast` does.
    freq : str or None, default=None
        Frequency of the series. None: the model's.
    fill : {"nan", "zero", "ffill", "interpolate"}, dict or None, default=None
        How to fill gaps, as for `tsllm.forecast`. None: a gap is an error.
    sort : bool, default=False
        Sort each series by time.
    future : path or None, default=None
        Parquet with the known future of the model's covariates, with the columns of the data. Each
        block reads the rows of its own series: sort it by series. Where it has changed since the
        job was started, all blocks are forecast again.
    tz, format : str or None, default=None
        The time zone of the series, and how times in text and integers are written; as for
        `tsllm.forecast`.
    on_error : {"raise", "skip"}, default="raise"
        The treatment of a series that cannot be used. "raise": it ends the job, which continues
        when the series is repaired. "skip": it is left out; ``_skipped.csv`` in ``out`` lists it
        with the reason. If every series is bad, it is an error.
    device, backbone, text_backbone : str or None, default=None
        As for `tsllm.load`.
    progress : bool, default=False
        Show the number of series, rate and remaining time on stderr.
    on_block : callable or None, default=None
        Called with each `BlockResult` after the block is written.

    Returns
    -------
    BatchResult

    Raises
    ------
    DataError
        The data or the request cannot be used, or ``out`` holds another job.
    ModelFormatError
        There is no model, or it is damaged.
    OutputError
        The disk is full, or ``out`` cannot be written to; what is written already stays.

    Examples
    --------
    >>> import tempfile, pandas as pd, tsllm
    >>> days = pd.date_range("2024-01-01", periods=60, freq="D")
    >>> frame = pd.DataFrame({"timestamp": days, "value": [float(i % 7) for i in range(60)]})
    >>> panel = pd.concat([frame.assign(series_id=name) for name in "abc"])
    >>> model = tsllm.DLinearForecaster(max_steps=2, context_length=12)
    >>> model = model.fit(panel.set_index(["series_id", "timestamp"]), fh=[1, 2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = tsllm.save(model, f"{folder}/model")
    ...     panel.to_parquet(f"{folder}/data.parquet")
    ...     result = predict_batch(saved, f"{folder}/data.parquet", f"{folder}/forecasts")
    ...     rows = len(pd.read_parquet(f"{folder}/forecasts"))
    >>> result.series, rows
    (3, 6)
    """
    started = time.perf_counter()
    given = {"model": model, "data": data, "out": out}
    given |= {} if future is None else {"future": future}
    switches = {"sort": sort, "progress": progress}
    _check_arguments(given, switches, engine, workers, batch_size, block_rows, on_block)
    check_request(1 if horizon is None else horizon, quantiles)
    check_fill(fill)
    skip = skipping(on_error) is not None
    target = Path(out).expanduser().absolute()
    check_directory(target)
    folder, parts = find_parts(Path(data).expanduser().absolute())
    source = Path(model).expanduser().absolute()
    checksum = fingerprint(source)
    estimator = load_forecaster(
        source, device=device, backbone=backbone, text_backbone=text_backbone
    )
    covariates = columns_of(estimator)
    beside = [] if covariates is None else list(covariates.everything)
    labels = labels_of_model(estimator)
    model_columns = Columns(labels.id, labels.time, variables_of(estimator))
    columns = columns_of_parts(folder, parts, id_col, time_col, target_cols, beside, model_columns)
    ahead = None if future is None else Path(future).expanduser().absolute()
    digest, future_stamps = check_future(ahead, covariates, columns.id, columns.time)
    parts, stamps = hash_parts(folder, parts)
    job = Job(
        source, folder, target, device, backbone, text_backbone, skip, ahead, stamps, future_stamps
    )
    request = Request(
        data=str(Path(data).expanduser().absolute()),
        horizon=estimator.fitted_.shape.horizon if horizon is None else int(horizon),
        quantiles=[float(q) for q in quantiles],
        id_col=columns.id,
        time_col=columns.time,
        target_cols=columns.targets,
        freq=freq,
        fill=fill if fill is None or isinstance(fill, str) else dict(fill),
        sort=sort,
        tz=tz,
        format=format,
        covariates=beside,
        whole_ids=has_whole_ids(folder, parts, columns.id),
        future_digest=digest,
    )
    check_filled(fill, [*columns.targets, *beside])
    request.labels.check_beside(result_columns(len(columns.targets), quantiles))
    with lock(target):
        _sweep(target)
        manifest, outcomes = _plan_or_continue(
            estimator, job, parts, request, checksum, batch_size, block_rows
        )
        before = len(outcomes)
        numbers = [n for n in range(len(manifest.blocks)) if n not in outcomes]
        if numbers and manifest.grouped and not is_grouped(job, manifest.grouped):
            bring_together(job, manifest.parts, request, manifest.block_rows)
        if engine == "ray":
            results = run_on_ray(job, numbers, workers or Workers()) if numbers else iter(())
        else:
            results = _run_here(job, estimator, numbers)
        try:
            _follow(results, manifest, numbers, outcomes, progress, on_block)
            skipped = _list_skipped(target, outcomes, skip, request.labels.id)
        except OutputError as error:
            raise OutputError(
                f"{error}, which continues: {len(outcomes):,} of {len(manifest.blocks):,} blocks "
                "are written and stay"
            ) from error
        shutil.rmtree(target / GROUPED, ignore_errors=True)
    series = sum(outcome.series for outcome in outcomes.values())
    if not series:
        raise NoSeriesLeftError(f"{skipped.none_left()}; {str(target / SKIPPED)!r} lists them all")
    return BatchResult(
        target,
        series,
        request.horizon,
        len(manifest.blocks),
        before,
        manifest.batch_size,
        time.perf_counter() - started,
        skipped.reasons,
        request.labels.id,
    )


def _check_arguments(
    paths: Mapping[str, object],
    flags: Mapping[str, object],
    engine: object,
    workers: object,
    batch_size: object,
    block_rows: object,
    on_block: object,
) -> None:
    """Check the arguments before any work is done."""
    for name, path in paths.items():
        if not isinstance(path, str | os.PathLike):
            raise DataError(f"{name} must be a path, found {shown(path)}")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise DataError(f"{name} must be True or False, found {shown(flag)}")
    if engine not in ("local", "ray"):
        raise DataError(f"engine must be 'local' or 'ray', found {shown(engine)}")
    if not isinstance(workers, Workers | None):
        raise DataError(f"workers must be a tsllm.batch.Workers, found {shown(workers)}")
    if on_block is not None and not callable(on_block):
        raise DataError(f"on_block must be a function, found {shown(on_block)}")
    if batch_size is not None:
        Limits(1, words=("auto",)).check("batch_size", batch_size)
    if block_rows is not None:
        Limits(1).check("block_rows", block_rows)


def _run_here(
    job: Job, estimator: SeriesForecaster, numbers: Sequence[int]
) -> Iterator[BlockResult]:
    """Forecast blocks in this process."""
    if not numbers:
        return
    forecaster = BlockForecaster(job, estimator)
    for number in numbers:
        yield forecaster.run(number)


def _follow(
    results: Iterator[BlockResult],
    manifest: Manifest,
    numbers: Sequence[int],
    outcomes: dict[int, Outcome],
    progress: bool,
    on_block: Callable[[BlockResult], None] | None,
) -> None:
    """Add the outcomes of blocks as they are written; print each kind of warning once."""
    total = series_in(manifest.blocks)
    said: Counter[str] = Counter()
    with tqdm(
        desc="forecasting",
        total=total,
        initial=total - sum(manifest.blocks[number].series for number in numbers),
        unit=" series",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
        disable=not progress,
    ) as bar:
        for result in results:
            outcomes[result.number] = result.outcome
            bar.update(result.series)
            log_event(
                _LOG,
                "block written",
                block=result.number,
                series=result.series,
                seconds=round(result.seconds, 3),
                process=result.process,
            )
            for message in result.warnings:
                kind = message.partition(":")[0]
                said[kind] += 1
                if said[kind] == 1:
                    warnings.warn(message, UserWarning, stacklevel=3)
            if on_block is not None:
                on_block(result)
    for kind, times in said.items():
        if times > 1:
            warnings.warn(
                f"{kind}: a warning of {times} blocks, printed for the first",
                UserWarning,
                stacklevel=3,
            )


def _plan_or_continue(
    estimator: SeriesForecaster,
    job: Job,
    parts: list[Part],
    request: Request,
    checksum: str,
    batch_size: int | str | None,
    block_rows: int | None,
) -> tuple[Manifest, dict[int, Outcome]]:
    """Return the plan of a job and what its blocks have written, planned again for changed data."""
    planned = read_manifest(job.out)
    if planned is None:
        manifest = plan_job(
            estimator, job, parts, request, checksum, batch_size, block_rows or BLOCK_ROWS
        )
        log_event(
            _LOG,
            "job planned",
            out=str(job.out),
            series=series_in(manifest.blocks),
            blocks=len(manifest.blocks),
            batch_size=manifest.batch_size,
        )
        return manifest, written_outcomes(job.out, manifest.keys, manifest.job)
    size = batch_size if isinstance(batch_size, int) else None
    check_same(planned, checksum, request, size, block_rows, job.out)
    _warn_of_versions(planned)
    changed = parts != planned.parts or request.future_digest != planned.request.future_digest
    if changed:
        _check_related(planned, parts, request, job.out)
    manifest = plan_again(planned, job, parts, request) if changed else planned
    outcomes = written_outcomes(job.out, manifest.keys, manifest.job)
    if not job.skip:
        outcomes = {n: outcome for n, outcome in outcomes.items() if not outcome.skipped}
    if changed:
        _warn_of_changes(planned, manifest, len(outcomes))
    return manifest, outcomes


def _check_related(planned: Manifest, parts: list[Part], request: Request, out: Path) -> None:
    """Check that changed data are those of the job, not others that are given by mistake."""
    shared = {part.digest for part in parts} & {part.digest for part in planned.parts}
    if not shared and request.data != planned.request.data:
        raise DataError(
            f"the job in {str(out)!r} was started with other data ({planned.request.data!r}): "
            "continue with the same, or give another directory"
        )


def _warn_of_changes(planned: Manifest, manifest: Manifest, stand: int) -> None:
    """Say in one line what has changed since the job was started, and what that costs.

    ``stand`` is the number of blocks that are not forecast again.
    """
    blocks = len(manifest.blocks)
    if planned.request.future_digest != manifest.request.future_digest:
        what = "the known future of the covariates has"
    else:
        before = {part.digest for part in planned.parts}
        now = {part.digest for part in manifest.parts}
        changed = [part.name for part in manifest.parts if part.digest not in before]
        gone = [part.name for part in planned.parts if part.digest not in now]
        names = list(dict.fromkeys([*changed, *gone]))
        which = f" ({first_names(names)})" if names else ", by the names of their parts,"
        what = f"the data{which} have"
    warnings.warn(
        f"{what} changed since the job was started: {stand:,} of {blocks:,} blocks stay as they "
        f"are, {blocks - stand:,} are forecast now",
        UserWarning,
        stacklevel=3,
    )


def _list_skipped(
    out: Path, outcomes: Mapping[int, Outcome], skip: bool, id_col: str
) -> SkippedSeries:
    """Write the list of the series that all blocks left out, in the order of the blocks."""
    skipped = SkippedSeries()
    for number in sorted(outcomes):
        skipped.reasons |= outcomes[number].skipped
    with writing_to(out):
        if skip:
            with whole_file(out / SKIPPED) as file:
                skipped.table(id_col).to_csv(file, index=False)
        else:
            (out / SKIPPED).unlink(missing_ok=True)
    return skipped


def _sweep(out: Path) -> None:
    """Remove unfinished files of a killed run; the directory is locked."""
    with writing_to(out):
        for path in [*out.iterdir(), *(out / RECORDS).glob(".*")]:
            if path.name.startswith(".") and path.name.endswith(UNFINISHED):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _warn_of_versions(manifest: Manifest) -> None:
    """Warn where packages have changed since the job was started."""
    for package, now in current_versions().items():
        before = manifest.versions.get(package)
        if before != now:
            warnings.warn(
                f"the job was started with {package} {before} and continues with {now}: the last "
                "digits of the forecasts may differ",
                UserWarning,
                stacklevel=3,
            )
