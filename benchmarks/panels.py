"""Panels of many kinds, which benchmarks forecast after their last origins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Panel:
    """Series, the steps to forecast, and the number of origins, a horizon apart."""

    series: list[pd.Series]
    horizon: int
    origins: int = 1

    def splits(self) -> Iterator[tuple[list[pd.Series], np.ndarray]]:
        """Yield what is known at each origin, and the values after it: (series, horizon)."""
        for turn in range(self.origins, 0, -1):
            cut = (turn - 1) * self.horizon
            known = [one.iloc[: len(one) - cut - self.horizon] for one in self.series]
            ahead = [
                one.iloc[len(past) : len(past) + self.horizon]
                for one, past in zip(self.series, known)
            ]
            yield known, np.stack(ahead)


def to_frame(series: list[pd.Series]) -> pd.DataFrame:
    """Return series as one panel, as `fit` takes it: index levels "series" and "time"."""
    return pd.concat(dict(enumerate(series)), names=["series", "time"]).to_frame("value")


def _statsmodels(name: str, start: str, freq: str, column: str | None = None) -> pd.Series:
    from importlib import import_module

    frame = import_module(f"statsmodels.datasets.{name}").load_pandas().data
    values = frame[column] if column else frame.iloc[:, -1]
    return pd.Series(
        values.to_numpy(dtype=float), index=pd.period_range(start, periods=len(values), freq=freq)
    )


def _macrodata(folder: Path) -> Panel:
    from statsmodels.datasets import macrodata

    frame = macrodata.load_pandas().data.drop(columns=["year", "quarter"])
    index = pd.period_range("1959Q1", periods=len(frame), freq="Q")
    return Panel([pd.Series(frame[c].to_numpy(), index=index) for c in frame], 8, 2)


def _elnino(folder: Path) -> Panel:
    from statsmodels.datasets import elnino

    values = elnino.load_pandas().data.iloc[:, 1:].to_numpy(dtype=float).ravel()
    return Panel(
        [pd.Series(values, index=pd.period_range("1950-01", periods=len(values), freq="M"))], 12, 4
    )


def _sktime(name: str) -> pd.Series:
    from sktime import datasets

    y: pd.Series = getattr(datasets, f"load_{name}")().astype(float)
    return y


def _m4_hourly(folder: Path) -> Panel:
    train = pd.read_csv(folder / "m4_hourly_train.csv", index_col=0)
    test = pd.read_csv(folder / "m4_hourly_test.csv", index_col=0)
    series = []
    for name in train.index[::14]:
        values = np.concatenate([train.loc[name].dropna(), test.loc[name]]).astype(float)
        hours = pd.period_range("2000-01-01", periods=len(values), freq="h")
        series.append(pd.Series(values, index=hours))
    return Panel(series, 48)


def _wide(file: str, freq: str, start: str, horizon: int, last: int) -> Callable[[Path], Panel]:
    def read(folder: Path) -> Panel:
        frame = pd.read_csv(folder / file).iloc[-last:, 1:]
        index = pd.period_range(start, periods=len(frame), freq=freq)
        return Panel(
            [pd.Series(frame[c].to_numpy(dtype=float), index=index) for c in frame], horizon, 2
        )

    return read


def _aus_retail(folder: Path) -> Panel:
    table = pd.read_parquet(folder / "aus_retail.parquet")
    series = []
    for _, rows in list(table.groupby("series_id"))[::4]:
        values = rows.sort_values("timestamp")["value"].to_numpy(dtype=float)[-130:]
        index = pd.period_range("2000-01", periods=len(values), freq="M")
        series.append(pd.Series(values, index=index).interpolate())
    return Panel([one for one in series if len(one) == 130], 12)


def simulated(
    count: int, lengths: tuple[int, int], freq: str, horizon: int, draw: Callable[..., np.ndarray]
) -> Callable[[Path], Panel]:
    """Return a function that draws the same panel in each call; it reads no folder.

    ``lengths`` are the fewest steps of a series before its horizon, and one more than the most.
    """

    def make(folder: Path) -> Panel:
        rng = np.random.default_rng(7)
        series = []
        for _ in range(count):
            steps = int(rng.integers(*lengths)) + horizon
            values = draw(rng, np.arange(steps))
            series.append(
                pd.Series(values, index=pd.period_range("2000-01-01", periods=steps, freq=freq))
            )
        return Panel(series, horizon)

    return make


def growing(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Draw a yearly series whose slope changes slowly."""
    slope = rng.normal(1.0, 0.5) + np.cumsum(rng.normal(0, 0.15, len(t)))
    return 100 + np.cumsum(slope) + rng.normal(0, 1.0, len(t))


def _seasonal(period: int) -> Callable[..., np.ndarray]:
    def draw(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
        """Draw a trend with a multiplicative season and autocorrelated noise."""
        profile = rng.normal(0, 0.15, period)
        noise = np.zeros(len(t))
        for i in range(1, len(t)):
            noise[i] = 0.6 * noise[i - 1] + rng.normal(0, 0.03)
        return 200 * np.exp(rng.normal(0.002, 0.004) * t + profile[t % period] + noise)

    return draw


def walk(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Draw a random walk with drift."""
    return 100 + np.cumsum(rng.normal(0.1, 1.0, len(t)))


def _counts(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Draw counts of a shop by the day: a week's profile, a slow level, few or many sales."""
    level = np.exp(rng.normal(1.5, 0.8) + np.cumsum(rng.normal(0, 0.02, len(t))))
    return rng.poisson(level * np.exp(rng.normal(0, 0.4, 7))[t % 7]).astype(float)


def _load(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Draw an hourly load with a day and a week."""
    day = np.sin(2 * np.pi * (t % 24 - rng.integers(24)) / 24)
    week = np.where(t // 24 % 7 >= 5, 0.7, 1.0)
    weather = np.zeros(len(t))
    for i in range(1, len(t)):
        weather[i] = 0.97 * weather[i - 1] + rng.normal(0, 1.5)
    return 100 + 30 * day * week - 20 * (1 - week) + weather + rng.normal(0, 2, len(t))


SETS: dict[str, Callable[[Path], Panel]] = {
    "airline": lambda folder: Panel([_sktime("airline")], 12, 4),
    "shampoo": lambda folder: Panel([_sktime("shampoo_sales")], 6, 2),
    "lynx": lambda folder: Panel([_sktime("lynx")], 10, 3),
    "nile": lambda folder: Panel([_statsmodels("nile", "1871", "Y")], 10, 3),
    "sunspots": lambda folder: Panel([_statsmodels("sunspots", "1700", "Y")], 11, 4),
    "elnino": _elnino,
    "macrodata": _macrodata,
    "aus_retail": _aus_retail,
    "m4_hourly": _m4_hourly,
    "illness": _wide("national_illness.csv", "W", "2002-01-01", 24, 700),
    "exchange": _wide("exchange_rate.csv", "D", "2000-01-01", 30, 600),
    "simulated yearly": simulated(60, (14, 40), "Y", 6, growing),
    "simulated quarterly": simulated(60, (24, 80), "Q", 8, _seasonal(4)),
    "simulated monthly": simulated(40, (60, 130), "M", 18, _seasonal(12)),
    "simulated walks": simulated(40, (60, 130), "M", 12, walk),
    "simulated counts": simulated(30, (200, 400), "D", 28, _counts),
    "simulated load": simulated(8, (900, 1300), "h", 48, _load),
}
