"""AutoForecaster at its defaults against each of its candidates, on sets of many kinds.

Each set is forecast after its last origins, which no choice was made on. Of one fit all rows are
scored: the combination, each candidate, equal weights, and the combination without the language
model. Errors are MASE, and are compared as ratios to those of the seasonal naive forecast. The
coverage of 80 % and 95 % intervals is that of all steps.

    python benchmarks/auto.py --data FOLDER
    python benchmarks/auto.py --data FOLDER --sets airline nile
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write

from tsllm import AutoForecaster, Context
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.auto import CombinedState
from tsllm.forecasters.held_out import usual_change

COVERAGES = (0.8, 0.95)


@dataclass(frozen=True)
class Panel:
    """Series, the steps to forecast, and the number of origins, a horizon apart."""

    series: list[pd.Series]
    horizon: int
    origins: int = 1


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sets", nargs="+", default=list(SETS))
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    ratios, errors = [], []
    for name in args.sets:
        panel = SETS[name](Path(args.data) if args.data else Path())
        for seed in args.seeds:
            kind = {"data": name, "series": len(panel.series), "horizon": panel.horizon}
            kind |= {"seed": seed}
            mase, rest = _measure(panel, args, seed)
            errors.append(kind | mase)
            ratios.append(kind | {k: v / mase["seasonal_naive"] for k, v in mase.items()} | rest)
            print(pd.Series(ratios[-1]).to_frame().T.round(3).to_string(index=False), flush=True)
    methods = [name for name in pd.DataFrame(errors) if name not in kind]
    means = np.exp(np.log(pd.DataFrame(ratios)[methods]).mean())
    print(means.round(3).to_string())
    found = {"ratios": ratios, "geometric_means": [means.to_dict()], "errors": errors}
    write("auto" + args.tag, found | {"memory": peak_memory_mib()}, args.out)


def _measure(panel: Panel, args: Any, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Fit at each origin; return the MASE of each method, and coverage and seconds of a fit."""
    errors: dict[str, list[np.ndarray]] = {}
    hits: dict[str, list[np.ndarray]] = {}
    for turn in range(panel.origins, 0, -1):
        cut = (turn - 1) * panel.horizon
        known = [one.iloc[: len(one) - cut - panel.horizon] for one in panel.series]
        actual = np.stack(
            [
                one.iloc[len(past) : len(past) + panel.horizon]
                for one, past in zip(panel.series, known)
            ]
        )  # (series, horizon)
        forecaster = AutoForecaster(backbone=args.backbone, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = pd.concat(dict(enumerate(known)), names=["series", "time"]).to_frame("value")
            forecaster.fit(y, fh=range(1, panel.horizon + 1))
        contexts = [
            Context(past.to_numpy(), times=past.index, series_id=i) for i, past in enumerate(known)
        ]
        season = season_length(forecaster.fitted_.shape.freq)
        scale = np.stack([usual_change(c.values, season) for c in contexts])  # (series, 1)
        for name, forecast in _forecasts(forecaster, contexts, panel.horizon).items():
            errors.setdefault(name, []).append(np.abs(forecast - actual) / scale)
        levels = [level for c in COVERAGES for level in ((1 - c) / 2, (1 + c) / 2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spread = forecaster.forecast(contexts, panel.horizon, quantiles=levels)[:, :, 0, 1:]
        for i, coverage in enumerate(COVERAGES):
            inside = (spread[..., 2 * i] <= actual) & (actual <= spread[..., 2 * i + 1])
            hits.setdefault(f"coverage{100 * coverage:g}", []).append(inside)
    # A candidate that joined at some origins only, for the length of the series, is not compared.
    whole = {name: e for name, e in errors.items() if len(e) == panel.origins}
    mase = {name: float(np.nanmean(np.concatenate(e))) for name, e in whole.items()}
    covered = {name: float(np.mean(inside)) for name, inside in hits.items()}
    return mase, covered | {"fit_seconds": forecaster.fitted_.seconds}


def _forecasts(
    forecaster: AutoForecaster, contexts: list[Context], horizon: int
) -> dict[str, np.ndarray]:
    """Forecast with the combination and with each of its parts: (series, horizon)."""
    state = forecaster.fitted_
    assert isinstance(state, CombinedState)
    parts = {one.name: one.forecast(contexts, horizon)[..., 0] for one in state.candidates}
    return {
        "auto": forecaster.forecast(contexts, horizon)[..., 0, 0],
        "equal weights": np.mean(list(parts.values()), axis=0),
        **parts,
    }


# ---------------------------------------------------------------------- the sets


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


def _simulated(
    count: int, lengths: tuple[int, int], freq: str, horizon: int, draw: Callable[..., np.ndarray]
) -> Callable[[Path], Panel]:
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


def _growing(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
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


def _walk(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
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
    "simulated yearly": _simulated(60, (14, 40), "Y", 6, _growing),
    "simulated quarterly": _simulated(60, (24, 80), "Q", 8, _seasonal(4)),
    "simulated monthly": _simulated(40, (60, 130), "M", 18, _seasonal(12)),
    "simulated walks": _simulated(40, (60, 130), "M", 12, _walk),
    "simulated counts": _simulated(30, (200, 400), "D", 28, _counts),
    "simulated load": _simulated(8, (900, 1300), "h", 48, _load),
}

if __name__ == "__main__":
    main()
