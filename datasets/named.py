"""Data that a user names: a file, a folder, or a data set that is bundled or a benchmark."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tsllm.datasets.benchmark import BenchmarkSplit, list_benchmarks, load_benchmark
from tsllm.datasets.bundled import list_datasets, load_dataset
from tsllm.errors import DataError


class NamedSeries(NamedTuple):
    """What a name of series leads to."""

    #: A path, or the frame of a data set as `read_long` returns it.
    source: str | pd.DataFrame
    #: The published split of a benchmark.
    split: BenchmarkSplit | None = None

    def targets(self, covariates: Sequence[str]) -> list[str] | None:
        """Return the variables of a data set beside some covariates; None for a path."""
        if isinstance(self.source, str):
            return None
        others = {"series_id", "timestamp", *covariates}
        return [name for name in self.source.columns if name not in others]


def find_series(data: str) -> NamedSeries:
    """Find the series that a text names; a path has priority over a data set of the same name.

    Raises
    ------
    DataError
        There is neither; the message suggests the closest name.

    See Also
    --------
    list_datasets, list_benchmarks : The names.

    Examples
    --------
    >>> find_series("airline").targets([])
    ['passengers']
    """
    if Path(data).expanduser().exists():
        return NamedSeries(data)
    if data in list_benchmarks():
        benchmark = load_benchmark(data)
        return NamedSeries(benchmark.frame, benchmark.split)
    kinds = list_datasets().set_index("name")["kind"]
    series = [*kinds.index[kinds == "series"], *list_benchmarks()]
    if data not in kinds.index:
        raise unknown_data(data, series)
    if kinds[data] == "events":
        raise DataError(
            f"{data!r} holds events, and series are read here: give one of "
            f"{', '.join(map(repr, series))} or a file, or use tsllm.events ('tsllm events')"
        )
    return NamedSeries(load_dataset(data))


def unknown_data(data: str, names: Sequence[str]) -> DataError:
    """Build the error for a text that names no data, with the closest name."""
    near = get_close_matches(data, names, n=1)
    remedy = (
        f"did you mean {near[0]!r}?"
        if near
        else "tsllm.datasets.list_datasets() ('tsllm datasets') lists the data sets"
    )
    return DataError(f"there is no file, directory or data set {data!r}; {remedy}")
