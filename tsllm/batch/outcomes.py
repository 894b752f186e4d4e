"""What blocks have written: their parts, the digest of each part, the series that they left out.

A block has a key, a hash of all that determines its forecasts. Its part carries the key in its
footer. A record beside the parts, named by the key, holds the digest of the part. So a part that is
damaged, or that was made from data that have changed since, is never used as a result.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tsllm.batch.parts import first_names
from tsllm.batch.writing import whole_file, writing_to
from tsllm.datasets.labels import Labels
from tsllm.errors import DataError

#: Folder of the records; readers of Parquet ignore names that begin with an underscore.
RECORDS = "_blocks"
# Metadata keys of a part: the job, and the block.
_JOB, _BLOCK = b"tsllm.job", b"tsllm.block"
# The name of a part that moves to another number begins with this.
_MOVING = ".moving-"


@dataclass(frozen=True)
class Outcome:
    """What a block has written."""

    #: Digest of its part; None where every series was left out, and there is no part.
    part: str | None
    #: Number of series that were forecast.
    series: int
    #: The series that were left out, with their reasons.
    skipped: dict[str, str] = field(default_factory=dict)


def part_of(out: Path, number: int) -> Path:
    """Return the path that a block is written to."""
    return out / f"part-{number:05d}.parquet"


def write_outcome(
    frame: pd.DataFrame | None,
    labels: Labels,
    skipped: Mapping[str, str],
    out: Path,
    number: int,
    key: str,
    job: str,
) -> Outcome:
    """Write the forecasts of a block and its record.

    ``frame`` is None where every series was left out; its part has the names of ``labels``. The
    record is written first, because a part without a record looks like a damaged one.
    """
    if frame is None:
        outcome, content = Outcome(None, 0, dict(skipped)), b""
    else:
        table = pa.Table.from_pandas(labels.restore(frame), preserve_index=False)
        named = {_JOB: job.encode(), _BLOCK: key.encode()}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **named})
        stream = pa.BufferOutputStream()
        pq.write_table(table, stream)
        content = stream.getvalue().to_pybytes()
        series = int(frame["series_id"].nunique())
        outcome = Outcome(hashlib.sha256(content).hexdigest(), series, dict(skipped))
    with writing_to(out):
        (out / RECORDS).mkdir(exist_ok=True)
        with whole_file(_record_of(out, key)) as file:
            file.write(json.dumps(asdict(outcome)).encode())
        if outcome.part is None:
            part_of(out, number).unlink(missing_ok=True)
        else:
            with whole_file(part_of(out, number)) as file:
                file.write(content)
    return outcome


def written_outcomes(out: Path, keys: Sequence[str], job: str) -> dict[int, Outcome]:
    """Return what blocks have written, by their numbers; leave no other part in the directory.

    ``keys`` are those of the blocks. A part whose block has another number now is renamed. A
    damaged part is named in a warning and removed, because its block is forecast again. A part of
    data that have changed is removed. A part of another job is an error.
    """
    records = _read_records(out)
    by_digest = {outcome.part: key for key, outcome in records.items() if outcome.part is not None}
    numbers = {key: number for number, key in enumerate(keys)}
    stand = {
        numbers[key]: outcome
        for key, outcome in records.items()
        if key in numbers and outcome.part is None
    }
    found: dict[int, Path] = {}
    useless: list[Path] = []
    damaged: list[str] = []
    for path in sorted([*out.glob("part-*.parquet"), *out.glob(f"{_MOVING}*.parquet")]):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = by_digest.get(digest)
        if key in numbers and numbers[key] not in found:
            found[numbers[key]] = path
            stand[numbers[key]] = records[key]
            continue
        if key is None:
            block = _check_job(path, job)
            if block is None or block in numbers:
                damaged.append(path.name)
        useless.append(path)
    if damaged:
        warnings.warn(
            f"damaged parts: {first_names(damaged)} in {str(out)!r} differ from what was written; "
            "their blocks are forecast again",
            UserWarning,
            stacklevel=4,
        )
    with writing_to(out):
        for path in useless:
            path.unlink()
        for key in records.keys() - numbers.keys():
            _record_of(out, key).unlink(missing_ok=True)
        moving = {n: path for n, path in found.items() if path != part_of(out, n)}
        # In two steps, because two parts may change their places.
        for number, path in moving.items():
            path.replace(out / f"{_MOVING}{keys[number]}.parquet")
        for number in moving:
            (out / f"{_MOVING}{keys[number]}.parquet").replace(part_of(out, number))
    return stand


def _check_job(path: Path, job: str) -> str | None:
    """Return the key of the block in a part's footer; None where the footer is damaged."""
    try:
        named = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    if named.get(_JOB) != job.encode():
        raise DataError(f"{str(path)!r} belongs to another job: give another directory to write to")
    return named.get(_BLOCK, b"").decode(errors="replace")


def _record_of(out: Path, key: str) -> Path:
    return out / RECORDS / f"{key}.json"


def _read_records(out: Path) -> dict[str, Outcome]:
    """Read the records by the keys of their blocks; a damaged record is left out."""
    records = {}
    for path in (out / RECORDS).glob("*.json"):
        try:
            read = json.loads(path.read_bytes())
            outcome = Outcome(read["part"], int(read["series"]), dict(read["skipped"]))
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            continue
        records[path.stem] = outcome
    return records
