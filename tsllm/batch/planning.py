"""The plan of a batch job: its columns, its blocks and its batch size."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from tsllm.batch.blocks import Block, plan_blocks
from tsllm.batch.manifest import GROUPED, Manifest, Request, current_versions
from tsllm.batch.parts import (
    Part,
    check_unchanged,
    find_parts,
    hash_parts,
    roles_of,
    rows_of,
)
from tsllm.batch.regroup import MOST_GROUPS, regroup
from tsllm.batch.sizing import measure_batch_size
from tsllm.batch.worker import Job, block_table, read_table
from tsllm.datasets.bad_series import SkippedSeries
from tsllm.datasets.frequency import row_number
from tsllm.datasets.layout import Columns, find_columns
from tsllm.datasets.tables import Table
from tsllm.errors import DataError, NoSeriesLeftError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.logs import log_event

# Rows that are read to find the columns.
_DECISIVE_ROWS = 1000
_LOG = logging.getLogger(__name__)


def plan_job(
    estimator: SeriesForecaster,
    job: Job,
    parts: list[Part],
    request: Request,
    checksum: str,
    batch_size: int | str | None,
    block_rows: int,
) -> Manifest:
    """Plan a job and write its manifest.

    `checksum` is the model's. `batch_size` "auto" is measured on the first block; None is the
    model's.
    """
    blocks, grouped = _plan(job, parts, request, block_rows)
    manifest = Manifest(
        checksum, request, 1, block_rows, parts, grouped, blocks, current_versions()
    )
    size = estimator.batch_size if batch_size is None else batch_size
    if size == "auto":
        size = _measured_batch_size(estimator, manifest, job)
    manifest = replace(manifest, batch_size=int(size))
    manifest.write(job.out)
    return manifest


def plan_again(planned: Manifest, job: Job, parts: list[Part], request: Request) -> Manifest:
    """Plan a job whose data have changed since it was started, and write its manifest.

    A block whose rows are the same as before stays a block, so that its part is kept.
    """
    blocks, grouped = planned.blocks, planned.grouped
    if parts != planned.parts:
        shutil.rmtree(job.out / GROUPED, ignore_errors=True)
        blocks, grouped = _plan(job, parts, request, planned.block_rows, planned)
    manifest = replace(planned, request=request, parts=parts, grouped=grouped, blocks=blocks)
    manifest.write(job.out)
    return manifest


def _plan(
    job: Job,
    parts: list[Part],
    request: Request,
    block_rows: int,
    planned: Manifest | None = None,
) -> tuple[list[Block], list[Part]]:
    """Return the blocks, and the regrouped parts if the rows of a series are scattered.

    `planned` is the manifest from before the data changed, None for a new job.
    """
    before: list[Part] = [] if planned is None else planned.parts
    keep = [] if planned is None or planned.grouped else _kept_rows(planned, parts)
    blocks = plan_blocks(job.data, parts, request.id_col, block_rows, keep)
    if blocks is not None:
        return blocks, []
    bring_together(job, parts, request, block_rows, before)
    folder, grouped = find_parts(job.out / GROUPED)
    grouped, _ = hash_parts(folder, grouped)
    most = max(block_rows, *(part.rows for part in grouped))
    keep = [] if planned is None or not planned.grouped else _kept_rows(planned, grouped)
    blocks = plan_blocks(folder, grouped, request.id_col, most, keep)
    assert blocks is not None  # each part holds whole series
    return blocks, grouped


def _kept_rows(planned: Manifest, parts: Sequence[Part]) -> list[tuple[int, int]]:
    """List the old blocks whose rows lie together in the new parts.

    Each is its first row and its end (excluded) there, counted over all parts.
    """
    offsets = np.cumsum([0, *(part.rows for part in parts)]).tolist()
    places = {part.digest: offset for part, offset in zip(parts, offsets)}
    old = planned.read_from
    kept = []
    for block in planned.blocks:
        found = [
            (places[old[p].digest] + start, places[old[p].digest] + stop)
            for p, start, stop in block.pieces
            if old[p].digest in places
        ]
        together = all(end == start for (_, end), (start, _) in pairwise(found))
        if len(found) == len(block.pieces) and together:
            kept.append((found[0][0], found[-1][1]))
    return kept


def _measured_batch_size(estimator: SeriesForecaster, manifest: Manifest, job: Job) -> int:
    """Measure the batch size on the first block that has a good series."""
    request = manifest.request
    freq = request.freq or estimator.fitted_.shape.freq
    for number in range(len(manifest.blocks)):
        skipped = SkippedSeries() if job.skip else None
        try:
            frame = read_table(estimator, block_table(manifest, number, job), request, skipped)
            return measure_batch_size(estimator, frame, request.horizon, freq=freq, skipped=skipped)
        except NoSeriesLeftError:
            continue
    return int(estimator.batch_size)


def bring_together(
    job: Job, parts: list[Part], request: Request, block_rows: int, before: Sequence[Part] = ()
) -> None:
    """Write scattered series to parts of the job's directory that hold whole series.

    `before` are the parts of the job before its data changed: their rows determine the number of
    new parts, so that unchanged series come to the same part.
    """
    rows = sum(part.rows for part in before or parts)
    groups = -(-rows // block_rows)
    if groups > MOST_GROUPS:
        raise DataError(
            f"the series are scattered over {rows:,} rows, too many to regroup: sort the data by "
            f"{request.id_col!r}, or give a block_rows of at least "
            f"{-(-rows // MOST_GROUPS):,}"
        )
    assert request.id_col is not None  # a single series is not scattered
    log_event(_LOG, "regrouping scattered series", rows=rows, parts=groups)
    regroup(job.data, parts, request.columns, request.id_col, job.out / GROUPED, groups)
    check_unchanged(job.data, parts, job.stamps)


def is_grouped(job: Job, grouped: Sequence[Part]) -> bool:
    """Check that the job's directory holds the regrouped parts that the plan is made for."""
    if not (job.out / GROUPED).exists():
        return False
    try:
        found, _ = hash_parts(*find_parts(job.out / GROUPED))
    except DataError:
        return False
    return found == list(grouped)


def columns_of_parts(
    folder: Path,
    parts: list[Part],
    id_col: str | None,
    time_col: str | None,
    target_cols: str | Sequence[str] | None,
    covariates: Sequence[str],
    model: Columns,
) -> Columns:
    """Find the columns of the input in its first rows; see `find_columns`."""
    head = next(rows_of(folder, parts[0], None, 0, min(parts[0].rows, _DECISIVE_ROWS)))
    frame = pa.Table.from_batches([head]).to_pandas(ignore_metadata=True)
    source = parts[0].name if len(parts) == 1 else folder.name
    roles = roles_of(folder, parts)
    frame = frame.assign(**{name: None for name in roles.lacking if name not in frame})
    table = Table(frame, row_number, repr(source), text=False, roles=roles)
    return find_columns(table, id_col, time_col, target_cols, covariates, model)
