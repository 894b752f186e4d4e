"""The files of tables: the kinds of files that are read, and the parts of a folder."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from tsllm.errors import DataError

Kind = Literal["Parquet", "CSV", "JSON lines"]

#: The endings of files, in small letters, and their kinds.
KINDS: dict[str, Kind] = {
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".parq": "Parquet",
    ".jsonl": "JSON lines",
    ".jsonl.gz": "JSON lines",
}
# How Hive, Spark and pyarrow name the folder of missing values.
_MISSING_KEY = "__HIVE_DEFAULT_PARTITION__"


class PartFile(NamedTuple):
    """One file of a folder.

    ``name`` is the path in the folder, with ``/`` between folders.
    """

    path: Path
    name: str
    kind: Kind

    @property
    def keys(self) -> dict[str, str | None]:
        """Return the columns that folders named ``column=value`` stand for; see `keys_of`."""
        return keys_of(self.name)


def kind_of(path: Path) -> Kind | None:
    """Return the kind of a file by its ending, in any case of letters; None if it is not known.

    Examples
    --------
    >>> kind_of(Path("SALES.CSV")), kind_of(Path("p1.pq")), kind_of(Path("notes.txt"))
    ('CSV', 'Parquet', None)
    """
    name = path.name.lower()
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)


def check_there(path: Path) -> None:
    """Check that a path is a file or a directory, and no pipe or device, which may have no end.

    Raises
    ------
    DataError
        If it is not.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        if code in (None, errno.ENOENT, errno.ENOTDIR):
            problem = f"there is no file or directory {str(path)!r}"
        else:
            problem = f"{str(path)!r} cannot be read ({os.strerror(code)})"
        raise DataError(f"{problem}; check the path") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(
            f"{str(path)!r} is a pipe or a device; write its content to a file, or let the command "
            "line read CSV from standard input with - as DATA"
        )


def keys_of(name: str) -> dict[str, str | None]:
    """Return the columns that the folders of a part stand for, from its path in the folder.

    Examples
    --------
    >>> keys_of("year=2024/region=north/part-0.parquet")
    {'year': '2024', 'region': 'north'}
    """
    *folders, _ = name.split("/")
    keys: dict[str, str | None] = {}
    for folder in folders:
        column, equals, value = folder.partition("=")
        if equals and column:
            keys[unquote(column)] = None if value == _MISSING_KEY else unquote(value)
    return keys


def list_parts(folder: Path) -> list[PartFile]:
    """List the files of a folder and of its subfolders, in the order of their names.

    Names that begin with a point or an underscore are left out: Spark, Delta Lake and batch jobs
    keep such files beside the parts.

    Raises
    ------
    DataError
        If the folder holds no table or something else than tables, if its parts are of different
        kinds, or if some lie in folders ``column=value`` and others do not.
    """
    parts = list(_walk(folder, folder))
    if not parts:
        raise DataError(
            f"the directory {folder.name!r} holds no .parquet, .csv or .jsonl file; pass one with "
            "the parts of a table"
        )
    first = parts[0]
    for part in parts:
        if part.kind != first.kind:
            raise DataError(
                f"{part.name!r} is {part.kind}, but {first.name!r} is {first.kind}; give every "
                f"part of {folder.name!r} the same format, or move one of the two away"
            )
        if list(part.keys) != list(first.keys):
            raise DataError(
                f"{part.name!r} and {first.name!r} lie in folders of different columns "
                f"({', '.join(part.keys) or 'none'} and {', '.join(first.keys) or 'none'}); give "
                "the folders of every part the same, written as column=value"
            )
    return parts


def _walk(folder: Path, top: Path) -> Iterator[PartFile]:
    """Go through the files of a folder, and of the folders in it."""
    for path in sorted(folder.iterdir()):
        if path.name[0] in "._":
            continue
        name = path.relative_to(top).as_posix()
        if path.is_dir():
            if path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
                raise DataError(
                    f"{name!r} in {top.name!r} links to a folder that holds it; remove the link"
                )
            yield from _walk(path, top)
            continue
        kind = kind_of(path)
        if kind is None or not path.is_file():
            raise DataError(
                f"the directory {top.name!r} holds {name!r}, which is no table; move it away, or "
                f"let its name begin with an underscore (tables end in {', '.join(KINDS)})"
            )
        yield PartFile(path, name, kind)
