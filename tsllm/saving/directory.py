"""The directory of a saved model: its files, its place, and the step in which it appears."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from tsllm.errors import DataError, ModelFormatError
from tsllm.saving.typed_json import parse_json

#: The name of the format in config.json.
FORMAT = "tsllm model"
CONFIG, TENSORS, CONTEXT, CARD = "config.json", "model.safetensors", "context.parquet", "card.md"
#: The job that the command line adds to a model. `tsllm.load` does not read it.
JOB = "job.yaml"
#: Bytes of the largest config.json that is read. A series takes some hundred bytes of it.
LARGEST_CONFIG = 2**30


def full_path(directory: str | os.PathLike[str]) -> Path:
    """Return the full path of a directory that a user names."""
    try:
        return Path(directory).expanduser().resolve()
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise DataError(
            f"directory={directory!r} is no path ({error}): give the path of a model's directory"
        ) from error


def check_target(directory: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Check that `tsllm.save` can write to a directory, before a training; return its full path."""
    target = full_path(directory)
    try:
        _tidy_up(target)
        _check_free(target, overwrite)
        there = next(parent for parent in target.parents if parent.exists())
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error
    if not there.is_dir():
        raise _unwritable(target, f"{there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(target, f"{there} cannot be written to")
    return target


def find_model(directory: str | os.PathLike[str]) -> Path:
    """Find the directory of a model, also after a save was killed while it replaced the model."""
    folder = full_path(directory)
    previous = _previous(folder)
    if not folder.exists() and previous.exists():
        folder = previous  # killed between the two renames
    if not folder.is_dir():
        raise ModelFormatError(f"{folder} is no directory: give the one that tsllm.save wrote")
    return folder


def read_file(path: Path, *, largest: int) -> bytes:
    """Read a regular file of limited size.

    Reading a fifo would hang, and reading a device would fill the memory.

    Parameters
    ----------
    path : Path
    largest : int
        The most bytes that it may have.

    Raises
    ------
    OSError
        The file is missing, larger, no regular file, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if facts.st_size > largest:
            raise OSError(errno.EFBIG, f"it has {facts.st_size:,} bytes")
        return file.read()


def write_files(files: Mapping[str, bytes], target: Path) -> None:
    """Write a model's files; their directory appears whole or not at all.

    ``target`` is the output of `check_target`. A model there is replaced.

    Raises
    ------
    DataError
        The disk is full, or the directory cannot be written to. A model there is kept.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, content in files.items():
            _write(temporary / name, content)
        _flush_directory(temporary)
        _put_in_place(temporary, target)
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(target: Path, reason: str) -> DataError:
    """Build the error of a directory that a model cannot be written to."""
    return DataError(
        f"the model cannot be written to {target} ({reason}): choose a directory that can be "
        "written to, with space left; a model that was there before is kept"
    )


def _previous(target: Path) -> Path:
    """Return the place of a model while another one replaces it."""
    return target.with_name(f".{target.name}.previous")


def _tidy_up(target: Path) -> None:
    """Finish the work of an overwriting save that was killed."""
    previous = _previous(target)
    if not previous.exists():
        return
    if not target.exists():
        previous.rename(target)
    elif _holds_only_model_files(previous):
        shutil.rmtree(previous)


def _check_free(target: Path, overwrite: bool) -> None:
    """Check that nothing is overwritten but, with ``overwrite``, a model."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (_says_model(target) and _holds_only_model_files(target)):
        raise DataError(
            f"directory={str(target)!r} exists and is not just a saved model: choose another "
            "directory, or move away what is there"
        )
    if not overwrite:
        raise DataError(
            f"directory={str(target)!r} holds a model: pass overwrite=True (--overwrite on the "
            "command line) to replace it, or choose another directory"
        )


def _says_model(path: Path) -> bool:
    """Return True where a directory has the config.json of a model."""
    try:
        config = parse_json(read_file(path / CONFIG, largest=LARGEST_CONFIG))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


def _holds_only_model_files(path: Path) -> bool:
    """Return True where a directory holds only the files of a model."""
    return {entry.name for entry in path.iterdir()} <= {CONFIG, TENSORS, CONTEXT, CARD, JOB}


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename a directory; a model of that name is moved aside and then removed.

    Between the two renames `find_model` finds the model that was moved aside.
    """
    previous = _previous(target)
    if target.exists():
        target.rename(previous)
    temporary.rename(target)
    _flush_directory(target.parent)
    if previous.exists():
        shutil.rmtree(previous)


def _write(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    """Flush a directory's entries to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
