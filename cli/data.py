"""DATA on the command line: a file, a directory, stdin, or the name of a data set."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tsllm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from tsllm.datasets import BenchmarkSplit, EventTable


class Opened(NamedTuple):
    """The series of DATA, and the published split of a benchmark."""

    frame: pd.DataFrame  # as read_long returns it
    split: BenchmarkSplit | None


def open_data(data: str, **reading: Any) -> Opened:
    """Read and check DATA; the other arguments are those of `read_long`."""
    from tsllm.datasets import read_long
    from tsllm.datasets.named import find_series

    with tempfile.TemporaryDirectory(prefix="tsllm-") as folder:
        found = find_series(str(_from_stdin(folder)) if data == "-" else data)
        if reading.get("model") is None:
            own = found.targets(reading.get("covariates", ()))
            reading["target_cols"] = reading.get("target_cols") or own
        return Opened(read_long(found.source, **reading), found.split)


def check_table_file(option: str, path: str | None) -> None:
    """Check that the table of an option is a file, before any work is done for it."""
    if path is not None and not Path(path).expanduser().exists():
        raise DataError(f"{option} {path!r}: there is no such file")


def open_events(data: str, **options: Any) -> EventTable:
    """Read and check DATA as events; the arguments are those of `read_events`."""
    from tsllm.datasets import list_datasets, read_events
    from tsllm.datasets.named import unknown_data

    if data != "-" and not Path(data).expanduser().exists():
        sets = list_datasets()
        if data not in set(sets["name"]):
            events = sets["name"][sets["kind"] == "events"].tolist()
            raise unknown_data(data, events)
    with tempfile.TemporaryDirectory(prefix="tsllm-") as folder:
        return read_events(_from_stdin(folder) if data == "-" else data, **options)


def _from_stdin(folder: str) -> Path:
    """Copy stdin to a CSV file."""
    path = Path(folder) / "stdin.csv"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path
