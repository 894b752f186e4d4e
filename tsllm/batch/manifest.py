"""The manifest of a batch job: its request and its blocks, written before the first block.

A job that was killed and is started again reads it, and writes the same forecasts. Only a job whose
data have changed is planned again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from tsllm.batch.blocks import Block
from tsllm.batch.parts import Part, Piece
from tsllm.batch.writing import whole_file, writing_to
from tsllm.datasets.labels import LABELS, Labels
from tsllm.errors import DataError

MANIFEST = "_manifest.json"
FORMAT, FORMAT_VERSION = "tsllm batch job", 3
#: Folder of regrouped series.
GROUPED = "_grouped"
# Fields of a request that change with the data.
_OF_THE_DATA = ("data", "future_digest")
_PACKAGES = ("tsllm", "torch", "transformers", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Request:
    """The request of a job, with the arguments of `tsllm.forecast`.

    ``data`` is the path of the data. ``covariates`` are the model's, and ``future_digest`` is the
    hash of their known future. ``whole_ids`` says that the series are named by whole numbers.
    """

    data: str
    horizon: int
    quantiles: list[float]
    id_col: str | None
    time_col: str
    target_cols: list[str]
    freq: str | None
    fill: str | dict[str, str] | None
    sort: bool
    tz: str | None = None
    format: str | None = None
    covariates: list[str] = field(default_factory=list)
    whole_ids: bool = False
    future_digest: str | None = None

    @property
    def labels(self) -> Labels:
        """Return the names that the series and the times have in the data and the forecasts."""
        return Labels(self.id_col or LABELS[0], self.time_col, self.whole_ids)

    @property
    def columns(self) -> list[str]:
        """Return the columns to read."""
        names = [self.id_col, self.time_col, *self.target_cols, *self.covariates]
        return [name for name in names if name is not None]


@dataclass(frozen=True)
class Manifest:
    """The plan of a job."""

    #: Checksum of the model's config.json, which covers all its files.
    model: str
    request: Request
    #: Series per batch.
    batch_size: int
    #: Approximate number of rows per block.
    block_rows: int
    #: The user's data.
    parts: list[Part]
    #: The regrouped parts of scattered series; empty where they are not scattered.
    grouped: list[Part]
    blocks: list[Block]
    #: Versions of the packages that affect results.
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """Hash all fields."""
        return _hash(asdict(self))

    @property
    def job(self) -> str:
        """Hash what stays the same when the data of the job change."""
        request = {k: v for k, v in asdict(self.request).items() if k not in _OF_THE_DATA}
        return _hash([FORMAT_VERSION, self.model, request, self.batch_size, self.block_rows])

    @property
    def keys(self) -> list[str]:
        """Hash for each block all that determines its forecasts: the job, its rows, the future."""
        job, future, parts = self.job, self.request.future_digest, self.read_from
        return [
            _hash([job, future, [(parts[p].digest, start, stop) for p, start, stop in pieces]])
            for _, pieces in self.blocks
        ]

    @property
    def read_from(self) -> list[Part]:
        """Return the parts that the blocks are read from."""
        return self.grouped or self.parts

    def write(self, out: Path) -> None:
        """Write the manifest to the job's directory, in one step."""
        head = {"digest": self.digest, "format": FORMAT, "format_version": FORMAT_VERSION}
        with writing_to(out), whole_file(out / MANIFEST) as file:
            file.write(json.dumps({**head, **asdict(self)}, allow_nan=False).encode())


def current_versions() -> dict[str, str]:
    """Return the versions of the packages that affect results."""
    return {package: version(package) for package in _PACKAGES}


def read_manifest(out: Path) -> Manifest | None:
    """Read the manifest of a job; None where there is none."""
    path = out / MANIFEST
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_bytes())
        digest = document.pop("digest")
        if document.pop("format") != FORMAT or document.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it has another format")
        for name in ("parts", "grouped"):
            document[name] = [_part(*part) for part in document[name]]
        manifest = Manifest(
            **document
            | {
                "request": Request(**document["request"]),
                "blocks": [
                    Block(series, [Piece(*piece) for piece in pieces])
                    for series, pieces in document["blocks"]
                ],
            }
        )
        if manifest.digest != digest:
            raise ValueError("it is not as it was written")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{str(path)!r} is no manifest that this tsllm can read ({error}): continue with the "
            "version that wrote it, or give another directory to write to"
        ) from error
    return manifest


def check_same(
    planned: Manifest,
    model: str,
    request: Request,
    batch_size: int | None,
    block_rows: int | None,
    out: Path,
) -> None:
    """Check that a job is continued with the model and the request that it was started with.

    `model` is the checksum of the current model. `batch_size` and `block_rows` are compared where
    they are given. The data may have changed.
    """
    pairs: list[tuple[str, Any, Any]] = [
        (one.name, getattr(planned.request, one.name), getattr(request, one.name))
        for one in fields(Request)
        if one.name not in _OF_THE_DATA
    ]
    given = {"batch_size": batch_size, "block_rows": block_rows}
    pairs += [(n, getattr(planned, n), now) for n, now in given.items() if now is not None]
    for name, before, now in pairs:
        if before != now:
            raise DataError(
                f"the job in {str(out)!r} was started with {name}={before!r} and now "
                f"{name}={now!r} is given: continue with the same, or give another directory"
            )
    if planned.model != model:
        raise DataError(
            f"the job in {str(out)!r} was started with another model: continue with the same, or "
            "give another directory"
        )


def lock(out: Path) -> filelock.BaseFileLock:
    """Make the directory of a job, and lock it for this process."""
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(out / ".lock")
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            raise DataError(
                f"another process is working on {str(out)!r}: wait for it, or give another "
                "directory"
            ) from None
    return held


def check_directory(out: Path) -> None:
    """Check that a directory is empty or holds a job."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{str(out)!r} is a file: give a directory to write the parts to")
    if out.is_dir() and not (out / MANIFEST).exists():
        others = sorted(p.name for p in out.iterdir() if p.name[0] not in "._")
        if others:
            raise DataError(
                f"{str(out)!r} holds {others[0]!r} and no job: give an empty directory, or one of "
                "an unfinished job"
            )


def _part(name: str, rows: int, digest: str) -> Part:
    """Build a part, whose name must be a path inside its folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"the part {name!r} has a path out of its folder")
    return Part(name, rows, digest)


def _hash(value: Any) -> str:
    """Hash JSON values."""
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()


def series_in(blocks: Sequence[Block]) -> int:
    """Count the series of blocks."""
    return sum(block.series for block in blocks)
