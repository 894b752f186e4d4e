"""The pages of a store's file, checked before LMDB maps them.

LMDB does not check its file: a page that was cut off, or never written, ends the process with a
signal. These checks read the file in the ordinary way, so that damage becomes an error.
"""

import stat
import struct
from pathlib import Path

#: Bytes of the largest file that is read whole when it is opened, at about 1 GB per second. Of a
#: larger file only the length is checked then; `verify`, `prune` and `export` read it whole.
READ_WHOLE = 2**30

# Attempts on a file that another process changes meanwhile: its pages may be used again.
_ATTEMPTS = 20
# Of a meta page: the page size and the flags of the list of free pages at byte 40, the flags of the
# list of databases at 92, the last page and the transaction at 136.
_META = struct.Struct("=40xIH46xH42xQQ")
# The flags of the two lists in a store: integer keys, and none.
_FLAGS = (8, 0)
_LARGEST_PAGE = 2**15


class PageError(Exception):
    """What is wrong with a file, in words."""


def check_pages(file: Path, *, whole: bool) -> None:
    """Check that LMDB can read a file and survive.

    Parameters
    ----------
    file : Path
        The data file of a store. An empty one is sound: LMDB fills it.
    whole : bool
        Whether to read all pages of a file above ``READ_WHOLE`` too.

    Raises
    ------
    PageError
        The file is none of LMDB's, or damaged.
    OSError
        The file cannot be read.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise PageError(f"{file.name} is no regular file")
    for _ in range(_ATTEMPTS):
        before = _first_pages(file)
        problem = _problem(file, whole, before)
        if problem is None:
            return
        if _first_pages(file) == before:
            raise PageError(problem)
    # The file of a process that commits that often is sound.


def _problem(file: Path, whole: bool, first_pages: bytes) -> str | None:
    """Return what is wrong with a file, or None."""
    # verify walks all pages without LMDB's engine.
    from lmdb.verify import VerifyError, verify

    size = file.stat().st_size
    if size == 0:
        return None
    if whole or size <= READ_WHOLE or size < _full_size(first_pages):
        try:
            problems = verify(str(file), subdir=False)
        except VerifyError as error:
            return str(error)
        if problems:
            return problems[0]
    if any(tuple(meta[1:3]) != _FLAGS for meta in _metas(first_pages)):
        return "the first pages have other flags"
    return None


def _full_size(first_pages: bytes) -> int:
    """Compute the size of a file from the newer of its two meta pages."""
    page_size, *_, last_page, _ = max(_metas(first_pages), key=lambda meta: meta[-1])
    return (last_page + 1) * page_size


def _metas(first_pages: bytes) -> list[tuple[int, ...]]:
    """Read both meta pages: page size, flags of two lists, last page and transaction."""
    try:
        page_size = _META.unpack_from(first_pages)[0]
        return [_META.unpack_from(first_pages, at) for at in (0, page_size)]
    except struct.error as error:
        raise PageError("its first pages are cut off") from error


def _first_pages(file: Path) -> bytes:
    """Read the pages that hold the state of a file, two of at most 32 kB."""
    with file.open("rb") as opened:
        return opened.read(2 * _LARGEST_PAGE)
