"""Writing of a job's directory: each file in one step, and errors of the disk in one sentence."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tsllm.errors import OutputError

#: End of the names of unfinished files and directories.
UNFINISHED = ".part"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing; it gets its name when all of it is on the disk."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Raise errors of the disk as one sentence about the directory ``out``.

    The block may only write, because an error of reading would be reported as one of writing.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        if error.errno in _FULL:
            raise OutputError(
                f"the disk of {str(out)!r} is full: free some space and start the job again"
            ) from error
        if error.errno in _CLOSED:
            raise OutputError(
                f"{str(out)!r} cannot be written to ({reason}): allow writing there and start the "
                "job again"
            ) from error
        raise OutputError(
            f"{str(out)!r} cannot be written to ({reason}): repair its disk or connection "
            "and start the job again"
        ) from error
