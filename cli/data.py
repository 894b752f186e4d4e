"""DATA on the command line: a file, a directory, stdin, or the name of a data set."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
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

    source, split = _find(data)
    with tempfile.TemporaryDirectory(prefix="tsllm-") as folder:
        if data == "-":
            source = _from_stdin(folder)
        if not isinstance(source, str | Path) and not reading.get("model_targets"):
            beside = {"series_id", "timestamp", *reading.get("covariates", ())}
            values = [name for name in source.columns if name not in beside]
            reading["target_cols"] = reading.get("target_cols") or values
        return Opened(read_long(source, **reading), split)


def check_future_file(future: str | None) -> None:
    """Check that --future is a file, before any work is done for it."""
    if future is not None and not Path(future).expanduser().exists():
        raise DataError(f"--future {future!r}: there is no such file")


def open_events(data: str, **options: Any) -> EventTable:
    """Read and check DATA as events; the arguments are those of `read_events`."""
    from tsllm.datasets import list_datasets, read_events

    if data != "-" and not Path(data).expanduser().exists():
        sets = list_datasets()
        if data not in set(sets["name"]):
            events = sets["name"][sets["kind"] == "events"].tolist()
            raise _unknown(data, events)
    with tempfile.TemporaryDirectory(prefix="tsllm-") as folder:
        return read_events(_from_stdin(folder) if data == "-" else data, **options)


def _from_stdin(folder: str) -> Path:
    """Copy stdin to a CSV file."""
    path = Path(folder) / "stdin.csv"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _find(data: str) -> tuple[str | Path | pd.DataFrame, BenchmarkSplit | None]:
    """Find what DATA names; a file has priority over a data set of the same name."""
    from tsllm.datasets import list_benchmarks, list_datasets, load_benchmark, load_dataset

    if data == "-" or Path(data).expanduser().exists():
        return data, None
    bundled = list_datasets().set_index("name")["kind"]
    if data in list_benchmarks():
        benchmark = load_benchmark(data)
        return benchmark.frame, benchmark.split
    series = [*bundled.index[bundled == "series"], *list_benchmarks()]
    if data not in bundled.index:
        raise _unknown(data, series)
    if bundled[data] == "events":
        raise DataError(
            f"{data!r} holds events, and this command reads series: give one of "
            f"{', '.join(map(repr, series))} or a file, or use 'tsllm events'"
        )
    return load_dataset(data), None


def _unknown(data: str, names: Sequence[str]) -> DataError:
    """Build the error of a DATA that names nothing, with the nearest name."""
    near = get_close_matches(data, names, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "'tsllm datasets' lists the data sets"
    return DataError(f"there is no file, directory or data set {data!r}; {remedy}")
