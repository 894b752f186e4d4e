"""Backbones that were unpacked from GGUF files, in the user's cache."""

import hashlib
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import filelock
import platformdirs
import torch
from safetensors.torch import save_file

from tsllm.errors import DataError
from tsllm.logs import log_event

_LOG = logging.getLogger(__name__)
SUFFIX = ".gguf"
_ORIGIN, _INDEX = "origin.json", "model.safetensors.index.json"
#: Part of the directories' names. It changes when the unpacking gives other weights or tokens.
_FORMAT = 1
_SHARD = 2 * 2**30  # bytes of one file of weights, and about the memory that the unpacking takes
_STALE = ".unpacking"

_digests: dict[tuple[str, int, int], str] = {}
_DIGESTS_LOCK = threading.Lock()


class Origin(NamedTuple):
    """The GGUF file that a directory of weights was unpacked from."""

    file: str  # its name, without the directories above it
    sha256: str
    quantisation: str | None  # such as "Q4_1, Q8_0", the type of most weights first
    name: str
    licence: str | None  # as the file says

    @property
    def words(self) -> str:
        """Describe the weights in a few words."""
        kind = "not quantised" if self.quantisation is None else f"quantised: {self.quantisation}"
        return f"{self.file} ({kind}; sha256 {self.sha256[:12]}...)"


def folder() -> Path:
    """Return the folder of unpacked backbones: TSLLM_BACKBONES, or one in the user's cache.

    Examples
    --------
    >>> folder().is_absolute()
    True
    """
    given = os.environ.get("TSLLM_BACKBONES")
    if given:
        return Path(given).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("tsllm")) / "backbones"


def file_sha256(path: Path) -> str:
    """Hash a file, once per process for one path, size and time of change."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    with _DIGESTS_LOCK:
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[key]


def read_origin(directory: Path) -> Origin | None:
    """Return the GGUF file that a directory was unpacked from; None for any other directory."""
    try:
        facts = json.loads((directory / _ORIGIN).read_bytes())
        found = [facts[field] for field in Origin._fields]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    file, sha256, quantisation, name, licence = found
    known = all(isinstance(one, str) for one in (file, sha256, name))
    optional = all(one is None or isinstance(one, str) for one in (quantisation, licence))
    return Origin(*found) if known and optional else None


def write_origin(origin: Origin, directory: Path) -> None:
    """Write the origin of a directory's weights."""
    text = json.dumps(origin._asdict(), indent=1, ensure_ascii=False)
    (directory / _ORIGIN).write_text(f"{text}\n", encoding="utf-8")


def prepared_directories() -> Iterator[tuple[Path, Origin]]:
    """Yield the directories in the cache, with their origins."""
    for directory in sorted(folder().glob("*")) if folder().is_dir() else []:
        origin = read_origin(directory)
        if origin is not None and not directory.name.endswith(_STALE):
            yield directory, origin


def find_prepared(sha256: str) -> Path | None:
    """Return the directory that was unpacked from the file of this digest, if there is one."""
    directory = _place(sha256)
    try:
        index = json.loads((directory / _INDEX).read_bytes())["weight_map"]
        whole = all((directory / name).is_file() for name in set(index.values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return directory if whole and read_origin(directory) is not None else None


def prepare(path: Path) -> Path:
    """Unpack a GGUF file into the cache, once, and return the directory.

    The directory appears whole or not at all. A second process that wants the same file waits.
    About 2 GiB of unpacked weights are in memory at a time, and the largest one in float32.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    DataError
        The file cannot be read or is of a kind that tsllm does not run, or the cache cannot be
        written to.
    """
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    directory = find_prepared(sha256)
    if directory is not None:
        return directory
    directory = _place(sha256)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(directory.with_name(f".{directory.name}.lock")):
            if find_prepared(sha256) is None:
                _unpack(path, sha256, directory)
    except OSError as error:
        raise DataError(
            f"{path} cannot be unpacked into {directory.parent} ({error.strerror or error}): make "
            "room, or set TSLLM_BACKBONES to a folder that can be written to"
        ) from error
    return directory


def _place(sha256: str) -> Path:
    return folder() / f"gguf-{_FORMAT}-{sha256[:32]}"


def _unpack(path: Path, sha256: str, directory: Path) -> None:
    """Write a file's weights, config and tokenizer; the caller holds the lock."""
    # Here, because most models come from no GGUF file.
    from tsllm.backbone.gguf_files import GgufFile

    started = time.perf_counter()
    for stale in directory.parent.glob(f"{directory.name}.*{_STALE}"):
        shutil.rmtree(stale, ignore_errors=True)  # of a process that was killed
    file = GgufFile(path)
    config, tokenizer = file.config(), file.tokenizer()
    config.dtype = file.dtype
    temporary = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}{_STALE}")
    try:
        temporary.mkdir()
        _write_weights(file.weights(config), temporary)
        config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        origin = Origin(path.name, sha256, file.quantisation, file.name, file.licence)
        write_origin(origin, temporary)
        if directory.exists():  # some of its files were removed
            shutil.rmtree(directory)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log_event(
        _LOG,
        "backbone unpacked",
        file=str(path),
        directory=str(directory),
        seconds=round(time.perf_counter() - started, 1),
    )


def _write_weights(weights: Iterator[tuple[str, torch.Tensor]], directory: Path) -> None:
    """Write weights into files of limited size, and the index that transformers reads."""
    index: dict[str, str] = {}
    total = size = 0
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in weights:
        if size >= _SHARD:
            _write_shard(shard, index, directory)
            shard, size = {}, 0
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    _write_shard(shard, index, directory)
    document = {"metadata": {"total_size": total}, "weight_map": index}
    (directory / _INDEX).write_text(json.dumps(document))


def _write_shard(shard: dict[str, torch.Tensor], index: dict[str, str], directory: Path) -> None:
    """Write one file of weights, and enter them into the index."""
    name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
    save_file(shard, directory / name, metadata={"format": "pt"})
    (directory / name).chmod(0o644)  # as the other files, for a cache that a team shares
    index.update(dict.fromkeys(shard, name))
