"""Files that are written in one step."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsllm.errors import DataError


@contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Open a temporary path, which gets the name of the file when the block ends.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{str(path)!r} cannot be written ({reason}): give another file") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a file of text in one step."""
    with in_one_step(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
