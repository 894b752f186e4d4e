"""Benchmark data of the long-horizon papers and M4, with the published splits."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets.long import read_long
from tsllm.errors import DataError

_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_HUB = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"
_M4 = "https://raw.githubusercontent.com/Mcompetitions/M4-methods/master/Dataset"


class _File(NamedTuple):
    """A file of a benchmark: its name in a folder, its public address and its sha256."""

    name: str
    url: str
    sha256: str


class _Facts(NamedTuple):
    """A description of a benchmark, without its data."""

    series: int
    rows: int
    variables: int
    freq: str | None
    licence: str
    description: str


_FILES = {
    "ETTh1": (
        _File("ETTh1.csv", f"{_ETT}/ETTh1.csv",
              "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
    ),
    "ETTh2": (
        _File("ETTh2.csv", f"{_ETT}/ETTh2.csv",
              "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
    ),
    "exchange_rate": (
        _File("exchange_rate.csv", f"{_HUB}/exchange_rate/exchange_rate.csv",
              "48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842"),
    ),
    "national_illness": (
        _File("national_illness.csv", f"{_HUB}/illness/national_illness.csv",
              "93601f64d2566dc796ca4305adad8b8560c2db1a1ff04543c3bd813a7263570a"),
    ),
    "m4_hourly": (
        _File("m4_hourly_train.csv", f"{_M4}/Train/Hourly-train.csv",
              "ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f"),
        _File("m4_hourly_test.csv", f"{_M4}/Test/Hourly-test.csv",
              "71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42"),
    ),
}  # fmt: skip

_FACTS = {
    "ETTh1": _Facts(
        1, 17420, 7, "h", "CC BY-ND 4.0",
        "load and oil temperature of an electricity transformer, 2016-2018 (ETDataset)",
    ),
    "ETTh2": _Facts(
        1, 17420, 7, "h", "CC BY-ND 4.0",
        "the same of a second transformer (ETDataset)",
    ),
    "exchange_rate": _Facts(
        1, 7588, 8, "D", "none stated",
        "exchange rates of eight currencies (LSTNet)",
    ),
    "national_illness": _Facts(
        1, 966, 7, "W-TUE", "public domain",
        "influenza-like illness in the United States, 2002-2020 (CDC ILINet)",
    ),
    "m4_hourly": _Facts(
        414, 353500, 1, None, "none stated",
        "the training part of the M4 competition's hourly series, steps without dates",
    ),
}  # fmt: skip

# 12, 4 and 4 months of 30 days of hours (Zhou et al., Informer, AAAI 2021).
_ETT_HOURLY = (12 * 30 * 24, 4 * 30 * 24, 4 * 30 * 24)


class BenchmarkSplit(NamedTuple):
    """The published split of a benchmark in time.

    Attributes
    ----------
    train, validation, test : int
        Number of steps of each part, in this order from the first row. Later rows belong to no
        part, as in ETT's published split.

    See Also
    --------
    Benchmark : The data that it splits.
    """

    train: int
    validation: int
    test: int

    def rows(self, part: str, context_length: int = 0) -> slice:
        """Return the rows of a part, with the context of its first forecast.

        Parameters
        ----------
        part : {"train", "validation", "test"}
            The part.
        context_length : int, default=0
            Number of steps to add before a validation or test part, so that forecasts begin at its
            first step, as in the published code.

        Returns
        -------
        slice
            Rows for ``iloc``.

        Raises
        ------
        DataError
            If there is no such part, or not enough steps before it.

        Examples
        --------
        >>> BenchmarkSplit(8640, 2880, 2880).rows("test", context_length=96)
        slice(11424, 14400, None)
        """
        if part not in self._fields:
            raise DataError(f"part={part!r} is none of {', '.join(self._fields)}; pass one of them")
        number = self._fields.index(part)
        start = sum(self[:number])
        if number > 0 and not 0 <= context_length <= start:
            raise DataError(
                f"context_length={context_length} does not fit before the {part} part, which "
                f"starts at step {start}; pass one from 0 to {start}"
            )
        return slice(start - context_length if number else start, start + self[number])


class Benchmark(NamedTuple):
    """A benchmark data set.

    Attributes
    ----------
    name : str
        Its name.
    frame : pandas.DataFrame
        All rows in the long form of `read_long`; the training rows if ``test`` is set.
    split : BenchmarkSplit or None
        The published split of the rows. None if the test part is a table of its own.
    test : pandas.DataFrame or None
        The test part of M4 in long form. Its integer timestamps continue those of ``frame``.

    See Also
    --------
    load_benchmark : Load one.
    """

    name: str
    frame: pd.DataFrame
    split: BenchmarkSplit | None
    test: pd.DataFrame | None


def list_benchmarks() -> list[str]:
    """List the names of the benchmarks that `load_benchmark` can load.

    Examples
    --------
    >>> list_benchmarks()
    ['ETTh1', 'ETTh2', 'exchange_rate', 'national_illness', 'm4_hourly']
    """
    return list(_FILES)


def describe_benchmarks(folder: str | Path | None = None) -> pd.DataFrame:
    """Describe the benchmarks and the folders of their files, without reading them.

    Parameters
    ----------
    folder : str, pathlib.Path or None, default=None
        As for `load_benchmark`.

    Returns
    -------
    pandas.DataFrame
        The columns of `list_datasets`, and ``found``: the folder with all files of the
        benchmark, or None if `load_benchmark` would have to download some.

    Examples
    --------
    >>> describe_benchmarks()[["name", "variables"]].head(2).to_dict("records")
    [{'name': 'ETTh1', 'variables': 7}, {'name': 'ETTh2', 'variables': 7}]
    """
    import pooch

    given = _given_folder(folder)
    home = Path(pooch.os_cache("tsllm")) if given is None else given
    rows = []
    for name, facts in _FACTS.items():
        here = all((home / file.name).is_file() for file in _FILES[name])
        found = str(home) if here else None
        rows.append({"name": name, "kind": "series", **facts._asdict(), "found": found})
    return pd.DataFrame(rows)


def load_benchmark(
    name: str, folder: str | Path | None = None, *, allow_download: bool = True
) -> Benchmark:
    """Load a benchmark data set from a folder, or download it once into a cache.

    Parameters
    ----------
    name : str
        A name of `list_benchmarks`.
    folder : str, pathlib.Path or None, default=None
        The folder with the files, named as in ``ETTh1.csv``, ``exchange_rate.csv``,
        ``m4_hourly_train.csv``. None uses the environment variable ``TSLLM_DATA``, or else the
        user's cache.
    allow_download : bool, default=True
        Whether missing files may be downloaded into the cache. Their sha256 is checked.

    Returns
    -------
    Benchmark
        The data, with the split of the published code: 12, 4 and 4 months for ETT; for the
        others 70 % for training, 20 % for testing (both rounded down), the rest between them
        for validation.

    Raises
    ------
    DataError
        If there is no such benchmark or file, or if the download fails or has another sha256.

    Examples
    --------
    >>> etth1 = load_benchmark("ETTh1")  # doctest: +SKIP
    >>> etth1.frame.iloc[etth1.split.rows("test", context_length=96)]  # doctest: +SKIP
    """
    if name not in _FILES:
        known = {known.lower(): known for known in _FILES}
        near = get_close_matches(str(name).lower(), known, n=2, cutoff=0.5) or list(known)
        raise DataError(
            f"there is no benchmark {name!r}; "
            f"did you mean {' or '.join(repr(known[one]) for one in near)}?"
        )
    given = _given_folder(folder)
    paths = [
        _cached(file, allow_download) if given is None else _in_folder(file, given)
        for file in _FILES[name]
    ]
    if name == "m4_hourly":
        train = _read_m4(paths[0], starts=None)
        lengths = train.groupby("series_id", sort=False).size()
        return Benchmark(name, train, None, _read_m4(paths[1], starts=lengths))
    variables = pd.read_csv(paths[0], nrows=0).columns[1:]  # beside the date
    frame = read_long(paths[0], target_cols=list(variables))
    if name.startswith("ETT"):
        return Benchmark(name, frame, BenchmarkSplit(*_ETT_HOURLY), None)
    train_steps, test_steps = int(len(frame) * 0.7), int(len(frame) * 0.2)
    split = BenchmarkSplit(train_steps, len(frame) - train_steps - test_steps, test_steps)
    return Benchmark(name, frame, split, None)


def _given_folder(folder: str | Path | None) -> Path | None:
    """Return the folder of the argument or of TSLLM_DATA; None without both."""
    given = folder or os.environ.get("TSLLM_DATA")
    return Path(given).expanduser() if given else None


def _in_folder(file: _File, folder: Path) -> Path:
    """Find a file in the user's folder."""
    path = folder / file.name
    if not path.is_file():
        raise DataError(
            f"the folder {str(folder)!r} (folder= or TSLLM_DATA) holds no {file.name}; "
            f"put it there from {file.url}, or give no folder to download it"
        )
    return path


def _cached(file: _File, allow_download: bool) -> Path:
    """Find a file in the user's cache, or download it there."""
    import pooch

    folder = Path(pooch.os_cache("tsllm"))
    path = folder / file.name
    if not allow_download and not (path.is_file() and pooch.file_hash(path) == file.sha256):
        raise DataError(
            f"{file.name} is not in the cache {str(folder)!r} and allow_download is False; "
            "pass folder= (or set TSLLM_DATA), or allow the download"
        )
    try:
        return Path(pooch.retrieve(file.url, f"sha256:{file.sha256}", fname=file.name, path=folder))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file.name} could not be downloaded from {file.url} ({reason}); "
            "put the file in a folder yourself and pass folder= (or set TSLLM_DATA)"
        ) from error


def _read_m4(path: Path, starts: pd.Series | None) -> pd.DataFrame:
    """Read an M4 table, one series for each line padded with empty cells, as a long frame."""
    table = pd.read_csv(path)
    ids = table.iloc[:, 0].astype(str)
    values = table.iloc[:, 1:].to_numpy(dtype=np.float64)  # (series, longest)
    observed = ~np.isnan(values)
    lengths = observed.sum(axis=1)
    if not (observed == (np.arange(values.shape[1]) < lengths[:, None])).all():
        raise DataError(f"{path.name} has an empty cell amid a series; fetch the file anew")
    first = np.zeros(len(ids), np.int64) if starts is None else starts.loc[ids].to_numpy(np.int64)
    steps = np.concatenate([np.arange(length) for length in lengths])
    frame = pd.DataFrame({"series_id": pd.Series(np.repeat(ids.to_numpy(), lengths)).astype(str)})
    frame["timestamp"] = steps + np.repeat(first, lengths)
    frame["y"] = values[observed]
    return frame
