"""The directory of a saved model: its files, where it may stand, and how it appears in one step."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from tsllm.errors import DataError, ModelFormatError

#: What config.json calls itself.
FORMAT = "tsllm model"
CONFIG, TENSORS, CONTEXT, CARD = "config.json", "model.safetensors", "context.parquet", "card.md"
#: What the command line adds to a model: what it was asked for. `tsllm.load` does not read it.
JOB = "job.yaml"


def check_target(directory: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse a directory that `tsllm.save` could not write to, before a model is trained for it.

    Parameters
    ----------
    directory, overwrite
        As for `tsllm.save`.

    Returns
    -------
    Path
        The directory's full path.

    Raises
    ------
    DataError
        Something else is there, or a model and ``overwrite`` is False.
    """
    target = Path(directory).expanduser().resolve()
    _tidy_up(target)
    _check_free(target, overwrite)
    return target


def find_model(directory: str | os.PathLike[str]) -> Path:
    """Find the directory of a model, also where a save that was to replace it was killed.

    Raises
    ------
    ModelFormatError
        There is no such directory.
    """
    folder = Path(directory).expanduser().resolve()
    previous = _previous(folder)
    if not folder.exists() and previous.exists():
        folder = previous  # killed between the two renames
    if not folder.is_dir():
        raise ModelFormatError(f"{folder} is no directory: give the one that tsllm.save wrote")
    return folder


def write_files(files: Mapping[str, bytes], target: Path) -> None:
    """Write a model's files, by name; their directory appears whole or not at all.

    Parameters
    ----------
    files : mapping of str to bytes
    target : Path
        As `check_target` gave it. A model that is there is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    temporary.mkdir()
    try:
        for name, content in files.items():
            _write(temporary / name, content)
        _flush_directory(temporary)
        _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _previous(target: Path) -> Path:
    """Name the place where a model waits while another takes its place."""
    return target.with_name(f".{target.name}.previous")


def _tidy_up(target: Path) -> None:
    """Finish what an overwriting save left undone when it was killed."""
    previous = _previous(target)
    if not previous.exists():
        return
    if not target.exists():
        previous.rename(target)
    elif _holds_only_model_files(previous):
        shutil.rmtree(previous)


def _check_free(target: Path, overwrite: bool) -> None:
    """Refuse to write over anything but, where that is wanted, a model."""
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
    """Tell whether a directory has the config.json of a model."""
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


def _holds_only_model_files(path: Path) -> bool:
    """Tell whether removing a directory would remove nothing but a model."""
    return {entry.name for entry in path.iterdir()} <= {CONFIG, TENSORS, CONTEXT, CARD, JOB}


def _put_in_place(temporary: Path, target: Path) -> None:
    """Give a directory its name; a model that has it is moved aside and then removed.

    Between the two renames only the one that was moved aside exists; `find_model` finds it there.
    """
    previous = _previous(target)
    if target.exists():
        target.rename(previous)
    temporary.rename(target)
    _flush_directory(target.parent)
    if previous.exists():
        shutil.rmtree(previous)


def _write(path: Path, content: bytes) -> None:
    """Write a file down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    """Write a directory's entries down to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
