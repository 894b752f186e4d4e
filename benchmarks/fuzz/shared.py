"""Series, small fitted forecasters and oracles that the doors share."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fuzz.cases import check
from tsllm import AutoForecaster, DLinearForecaster, PatchTSTForecaster
from tsllm.forecasters import METHODS
from tsllm.forecasters.base import SeriesForecaster

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"
_TRAINING = {"context_length": 12, "max_steps": 2}
#: Enough for a fit in some 30 ms.
SETTINGS: dict[str, dict[str, Any]] = {
    "auto": {"candidates": ["seasonal_naive"], "backbone": None},
    "linear": {"context_length": 12},
    "dlinear": _TRAINING,
    "patchtst": _TRAINING | {"hidden": 16, "layers": 1, "heads": 2},
    "aaren": _TRAINING | {"hidden": 16, "layers": 1, "heads": 2, "patch_length": 3},
    "autotimes": _TRAINING | {"backbone": None, "token_length": 6},
    "timecma": _TRAINING | {"backbone": None, "channel": 8, "heads": 2, "decoder_layers": 1},
    "s2ip": _TRAINING
    | {"backbone": None, "patch_length": 4, "trend_length": 4, "seasonal_length": 6},
}
NAMES = tuple(SETTINGS)
_CLASSES = {
    **METHODS,
    "auto": AutoForecaster,
    "dlinear": DLinearForecaster,
    "patchtst": PatchTSTForecaster,
}
#: Steps that the shared forecasters were asked for when they were fitted.
HORIZON = 3


def new(method: str, **parameters: Any) -> SeriesForecaster:
    """Make an unfitted forecaster that trains in no time."""
    common = {"random_state": 0, "device": "cpu"}
    return _CLASSES[method](**(common | SETTINGS[method] | parameters))


def waves(steps: int, *, level: float = 10.0, seed: int = 0) -> np.ndarray:
    """Return a noisy season of 7 steps."""
    noise = np.random.default_rng(seed).normal(0, 0.3, steps)
    return level + np.sin(np.arange(steps) * 2 * np.pi / 7) + noise


def series(steps: int = 60, *, freq: str = "D", start: str = "2024-01-01", **of: Any) -> pd.Series:
    """Return one series."""
    index = pd.date_range(start, periods=steps, freq=freq)
    return pd.Series(waves(steps, **of), index=index, name="value")


def two_columns(steps: int = 60, *, start: str = "2024-01-01") -> pd.DataFrame:
    """Return two variables that cannot be taken for each other."""
    index = pd.date_range(start, periods=steps, freq="D")
    return pd.DataFrame({"lo": waves(steps), "hi": waves(steps, level=1000, seed=1)}, index=index)


def panel(frame: pd.DataFrame | pd.Series, names: Sequence[Any] = ("a", "b")) -> pd.DataFrame:
    """Return a panel whose series are a frame, each ten higher than the one before."""
    frame = frame.to_frame() if isinstance(frame, pd.Series) else frame
    parts = {name: frame + 10 * number for number, name in enumerate(names)}
    return pd.concat(parts, names=["series_id", "timestamp"])


def long(n_series: int = 3, steps: int = 40, *, freq: str = "D") -> pd.DataFrame:
    """Return a long frame of series that cannot be taken for each other."""
    parts = [
        pd.DataFrame(
            {
                "series_id": f"s{number}",
                "timestamp": pd.date_range("2024-01-01", periods=steps, freq=freq),
                "value": waves(steps, level=100.0 * (number + 1), seed=number),
            }
        )
        for number in range(n_series)
    ]
    return pd.concat(parts, ignore_index=True)


def covariates(steps: int, *, start: str = "2024-01-01") -> pd.DataFrame:
    """Return two numbers and a category for each day; more steps begin with the same rows."""
    rng = np.random.default_rng(5)
    columns = {
        "warm": rng.normal(size=200),
        "wind": rng.normal(50, 10, size=200),
        "sky": rng.choice(["sun", "rain"], 200),
    }
    return pd.DataFrame(columns, pd.date_range(start, periods=200, freq="D")).iloc[:steps]


def affected(X: pd.DataFrame) -> pd.Series:
    """Return a series that depends on the covariates."""
    effect = 4 * X["warm"] + 0.2 * X["wind"] + 6.0 * (X["sky"] == "rain")
    return (effect + waves(len(X))).rename("value")


@functools.cache
def _fitted(method: str, kind: str) -> SeriesForecaster:
    horizon = list(range(1, HORIZON + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "X":
            X = covariates(60)
            return new(method).fit(affected(X), X=X, fh=horizon)
        y = {
            "one": series,
            "two": two_columns,
            "panel": lambda: panel(series()),
            "two in a panel": lambda: panel(two_columns()),
            "long": lambda: long().set_index(["series_id", "timestamp"]),
        }[kind]()
        return new(method).fit(y, fh=horizon)


def fitted(method: str, kind: str = "one") -> SeriesForecaster:
    """Return a fitted forecaster that the case may change.

    Parameters
    ----------
    method : str
        The short name of the method.
    kind : {"one", "two", "panel", "two in a panel", "long", "X"}, default="one"
        What it was fitted on: 60 days of `series`, of `two_columns`, of two such series, the table
        of `long`, or 60 days that depend on `covariates`.

    Returns
    -------
    SeriesForecaster
    """
    try:
        return copy.deepcopy(_fitted(method, kind))
    except Exception as error:  # so that nobody takes it for a refusal
        raise AssertionError(f"the fit that the case begins with failed: {error}") from error


def stamps_after(last: pd.Timestamp, freq: str, steps: Sequence[int]) -> pd.DatetimeIndex:
    """Return the stamps some steps after a stamp, by pandas' own arithmetic."""
    return pd.date_range(last, periods=max(steps) + 1, freq=freq)[list(steps)]


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond some bytes, as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed_after(seconds: float, work: Callable[[], Any]) -> None:
    """Run ``work`` in a child process and kill it, as the system does that needs its memory."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


# ---------------------------------------------------------------------- oracles


def check_index(found: pd.Index, wanted: pd.Index) -> None:
    """Check that an answer has exactly the stamps asked for, as instants and in this order."""
    same = len(found) == len(wanted) and bool((found == wanted).all())
    check(same, f"asked for {_some(wanted)}, answered {_some(found)}")
    check(
        getattr(found, "tz", None) == getattr(wanted, "tz", None)
        or str(getattr(found, "tz", None)) == str(getattr(wanted, "tz", None)),
        f"asked in {getattr(wanted, 'tz', None)}, answered in {getattr(found, 'tz', None)}",
    )


def check_values(found: pd.DataFrame | pd.Series) -> None:
    """Check that an answer has rows, and no value that is missing or infinite."""
    check(len(found) > 0, "an answer without rows")
    numbers = np.asarray(found, dtype=float)
    check(bool(np.isfinite(numbers).all()), f"the answer holds {_bad_value(numbers)}")


def check_same(found: Any, wanted: Any, *, rtol: float = 1e-4) -> None:
    """Check that two answers agree in labels and values."""
    found, wanted = (
        one.to_frame() if isinstance(one, pd.Series) else one for one in (found, wanted)
    )
    check(list(found.columns) == list(wanted.columns), f"columns {list(found)} not {list(wanted)}")
    check(found.index.equals(wanted.index), f"index {_some(found.index)} not {_some(wanted.index)}")
    left, right = found.to_numpy(float), wanted.to_numpy(float)
    check(
        np.allclose(left, right, rtol=rtol, equal_nan=True), f"{_first(left)} not {_first(right)}"
    )


def check_near(found: pd.DataFrame | pd.Series, level: float, within: float) -> None:
    """Check that a forecast is of the series' level: a swapped column or series is not."""
    numbers = np.asarray(found, dtype=float)
    check(bool((abs(numbers - level) < within).all()), f"{_first(numbers)} is not near {level}")


def check_intervals(lower: np.ndarray, upper: np.ndarray) -> None:
    """Check that intervals have a width."""
    check(bool(np.isfinite(lower).all() and np.isfinite(upper).all()), "an interval is not finite")
    check(bool((upper > lower).all()), f"an interval of width {float((upper - lower).min())}")


def check_table(
    table: pd.DataFrame,
    ids: Sequence[str],
    horizon: int,
    *,
    stamps: dict[str, pd.Index] | None = None,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
) -> None:
    """Check a table of forecasts: every series with every step, finite, with rising quantiles."""
    found = list(dict.fromkeys(table["series_id"]))
    check(
        sorted(map(str, found)) == sorted(ids), f"series {_brief(found)} instead of {_brief(ids)}"
    )
    check(len(table) == len(ids) * horizon, f"{len(table)} rows instead of {len(ids) * horizon}")
    names = ["forecast", *(f"q{level:g}" for level in quantiles)]
    check(list(table.columns[2:]) == names, f"columns {list(table)}")
    check_values(table[names])
    levels = table[names[1:]].to_numpy(float)
    check(bool((np.diff(levels, axis=1) >= 0).all()), "quantiles that do not rise")
    for name, wanted in (stamps or {}).items():
        check_index(pd.Index(table.loc[table["series_id"] == name, "timestamp"]), wanted)


def check_levels(table: pd.DataFrame) -> None:
    """Check that each series of `long` has the forecast of its own level."""
    for name, rows in table.groupby("series_id"):
        check_near(rows["forecast"], 100.0 * (int(str(name).lstrip("s")) + 1), 40)


def _some(index: pd.Index) -> str:
    return f"{[str(one) for one in index[:3]]}{' ...' if len(index) > 3 else ''} ({len(index)})"


def _brief(names: Sequence[Any]) -> str:
    return f"{list(names)[:6]} ({len(names)})"


def _bad_value(numbers: np.ndarray) -> str:
    bad = numbers[~np.isfinite(numbers)]
    return str(bad[0]) if len(bad) else ""


def _first(numbers: np.ndarray) -> str:
    return str(np.ravel(numbers)[:4].round(4).tolist())
