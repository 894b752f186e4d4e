"""The plan of a batch job: its columns, its blocks and its batch size."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from tsllm.batch.blocks import plan_blocks
from tsllm.batch.manifest import GROUPED, Manifest, Request, current_versions
from tsllm.batch.parts import Part, find_parts, roles_of, rows_of
from tsllm.batch.regroup import MOST_GROUPS, regroup
from tsllm.batch.sizing import measure_batch_size
from tsllm.batch.worker import Job, block_table, read_table
from tsllm.datasets.frequency import row_number
from tsllm.datasets.layout import Columns, find_columns
from tsllm.datasets.tables import Table
from tsllm.errors import DataError
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
    blocks = plan_blocks(job.data, parts, request.id_col, block_rows)
    grouped: list[Part] = []
    if blocks is None:
        bring_together(job, parts, request, block_rows)
        folder, grouped = find_parts(job.out / GROUPED)
        most = max(block_rows, *(part.rows for part in grouped))
        blocks = plan_blocks(folder, grouped, request.id_col, most)
        assert blocks is not None  # each part holds whole series
    manifest = Manifest(
        checksum, request, 1, block_rows, parts, grouped, blocks, current_versions()
    )
    size = estimator.batch_size if batch_size is None else batch_size
    if size == "auto":
        frame = read_table(estimator, block_table(manifest, 0, job), request)
        own = request.freq or estimator.fitted_.shape.freq
        size = measure_batch_size(estimator, frame, request.horizon, freq=own)
    manifest = replace(manifest, batch_size=int(size))
    manifest.write(job.out)
    return manifest


def bring_together(job: Job, parts: list[Part], request: Request, block_rows: int) -> None:
    """Write scattered series to parts of the job's directory that hold whole series."""
    rows = sum(part.rows for part in parts)
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


def columns_of_parts(
    folder: Path,
    parts: list[Part],
    id_col: str | None,
    time_col: str | None,
    target_cols: str | Sequence[str] | None,
    covariates: Sequence[str],
) -> Columns:
    """Find the columns of the input in its first rows; see `find_columns`."""
    head = next(rows_of(folder, parts[0], None, 0, min(parts[0].rows, _DECISIVE_ROWS)))
    frame = pa.Table.from_batches([head]).to_pandas(ignore_metadata=True)
    source = parts[0].name if len(parts) == 1 else folder.name
    roles = roles_of(folder, parts)
    frame = frame.assign(**{name: None for name in roles.lacking if name not in frame})
    table = Table(frame, row_number, repr(source), text=False, roles=roles)
    return find_columns(table, id_col, time_col, target_cols, covariates)
