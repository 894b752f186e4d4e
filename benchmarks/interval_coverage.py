"""Coverage of intervals at each step on simulated series, and the corrected point on real ones.

Simulated: panels of 1, 20 and 200 series of 40, 115 and 950 steps, horizons of 6, 18 and 48. Half
of the panels are monthly series with a season, a trend and autocorrelated noise, the others random
walks with drift. The replications of a cell resolve about two points of coverage. A step counts as
"narrow" if its coverage is more than four points below the level and two standard errors below that
bound, and as "silent" if the forecaster did not warn of it either.

Real: sets of `panels.py`, forecast at their last origins. The point is scored as the model made it
and as corrected by the median of its held-out errors; "outside" is the share of steps at which the
model's own point lies outside the 80 % interval.

    python benchmarks/interval_coverage.py
    python benchmarks/interval_coverage.py --data FOLDER --only real
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write
from panels import SETS, Panel, to_frame

from tsllm import AutoForecaster, AutoTimesForecaster, Context, DLinearForecaster, LinearForecaster

LEVELS = (0.025, 0.1, 0.9, 0.975)
SERIES, STEPS, HORIZONS = (1, 20, 200), (40, 115, 950), (6, 18, 48)
#: Panels of each kind of process, by the number of series.
REPLICATIONS = {1: 150, 20: 15, 200: 3}
SLACK = 0.04
CHEAP: dict[str, Callable[[], Any]] = {
    "linear": lambda: LinearForecaster(),
    "auto": lambda: AutoForecaster(["seasonal_naive", "theta"], backbone=None, random_state=0),
}
#: Small budgets: the subject is the calibration.
REAL: dict[str, Callable[[], Any]] = {
    "linear": lambda: LinearForecaster(),
    "dlinear": lambda: DLinearForecaster(max_steps=300, random_state=0),
    "autotimes": lambda: AutoTimesForecaster(None, max_steps=200, random_state=0),
    "auto": lambda: AutoForecaster(backbone=None, random_state=0),
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=("simulated", "real"))
    arguments.add_argument("--methods", nargs="+", default=list(CHEAP))
    arguments.add_argument("--series", nargs="+", type=int, default=list(SERIES))
    arguments.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    arguments.add_argument("--sets", nargs="+", default=["airline", "macrodata"])
    arguments.add_argument("--share", type=float, default=1.0, help="of the replications")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    if args.only != "real":
        cells, by_step = [], {}
        for method, series, steps, horizon in product(
            args.methods, args.series, args.steps, HORIZONS
        ):
            repeats = max(2, round(args.share * REPLICATIONS[series]))
            cell, found = measure_cell(CHEAP[method], series, steps, horizon, repeats)
            cells.append({"method": method} | cell)
            by_step[f"{method}/{series}/{steps}/{horizon}"] = found
            print(cells[-1], flush=True)
        results |= {"simulated": cells, "by_step": by_step}
    if args.only != "simulated":
        results["real"] = [
            {"data": name, "method": method} | measure_set(SETS[name](Path(args.data or "")), make)
            for name, (method, make) in product(args.sets, REAL.items())
        ]
        print(pd.DataFrame(results["real"]).round(3).to_string(index=False))
    write("coverage" + args.tag, results | {"memory": peak_memory_mib()}, args.out)


def measure_cell(
    make: Callable[[], Any], series: int, steps: int, horizon: int, repeats: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit panels of one size; return the row of the table, and coverage by step."""
    hits, widths, first, gains = [], [], [], []
    for number, draw in product(range(repeats), (seasonal, drifting)):
        rng = np.random.default_rng([number, series, steps, horizon])
        values = np.stack([draw(rng, steps + horizon) for _ in range(series)])
        known, actual = values[:, :steps], values[:, steps:]
        index = pd.period_range("2000-01", periods=steps, freq="M")
        panel = Panel([pd.Series(one, index=index) for one in known], horizon)
        spread, point, raw, warned = forecast(make(), panel, levels=LEVELS)
        low, high = spread[..., :2], spread[..., :1:-1]  # of 95 %, of 80 %
        inside = (low <= actual[..., None]) & (actual[..., None] <= high)
        hits.append(inside.mean(axis=0))  # (horizon, 2)
        scale = np.abs(np.diff(known, axis=1)).mean(axis=1)[:, None]
        widths.append(((high[..., 1] - low[..., 1]) / scale).mean(axis=0))
        first.append(warned)
        gains.append([(np.abs(one - actual) / scale).mean() for one in (point, raw)])
    coverage = np.mean(hits, axis=0)  # (horizon, 2)
    error = np.std(hits, axis=0, ddof=1) / np.sqrt(len(hits))
    bound = np.array([0.95, 0.8]) - SLACK
    narrow = (coverage + 2 * error < bound).any(axis=1)  # (horizon,)
    named = float(np.median(first))
    silent = narrow & (np.arange(1, horizon + 1) < named)
    row = {"series": series, "steps": steps, "horizon": horizon, "panels": len(hits)}
    for column, level in enumerate((95, 80)):
        row |= {
            f"coverage{level}": float(coverage[:, column].mean()),
            f"lowest{level}": float(coverage[:, column].min()),
            f"highest{level}": float(coverage[:, column].max()),
        }
    row |= {
        "standard_error": float(error.mean()),
        "warned_from": None if np.isinf(named) else int(named),
        "narrow": int(narrow.sum()),
        "silent": int(silent.sum()),
        "corrected_error": float(np.divide(*np.mean(gains, axis=0))),
    }
    found = {"95": coverage[:, 0], "80": coverage[:, 1], "width80": np.mean(widths, axis=0)}
    return row, {name: np.round(one, 4).tolist() for name, one in found.items()}


def measure_set(panel: Panel, make: Callable[[], Any]) -> dict[str, Any]:
    """Forecast the last origins of a set; compare the model's own and the corrected point."""
    errors, hits, outside = [], [], []
    for known, actual in panel.splits():
        spread, point, raw, _ = forecast(make(), Panel(known, panel.horizon), levels=LEVELS)
        scale = np.stack([[np.abs(np.diff(one)).mean()] for one in known])
        errors.append([np.abs(one - actual) / scale for one in (raw, point)])
        low, high = spread[..., :2], spread[..., :1:-1]
        hits.append((low <= actual[..., None]) & (actual[..., None] <= high))
        outside.append((raw < spread[..., 1]) | (raw > spread[..., 2]))
    own, corrected = np.mean(errors, axis=(0, 2, 3))
    coverage = np.mean(hits, axis=(0, 1, 2))
    return {
        "series": len(panel.series),
        "horizon": panel.horizon,
        "origins": panel.origins,
        "own_error": float(own),
        "corrected_error": float(corrected),
        "outside": float(np.mean(outside)),
        "coverage80": float(coverage[1]),
        "coverage95": float(coverage[0]),
    }


def forecast(
    forecaster: Any, panel: Panel, *, levels: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Fit and forecast: quantiles, point, the model's own point, the first step warned of."""
    y = to_frame(panel.series)
    contexts = [
        Context(past.to_numpy(), times=past.index, series_id=i)
        for i, past in enumerate(panel.series)
    ]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        forecaster.fit(y, fh=range(1, panel.horizon + 1))
        made = forecaster.forecast(contexts, panel.horizon, quantiles=levels)[:, :, 0]
    reader = forecaster._reader(forecaster.fitted_)
    own = reader.predict(contexts, panel.horizon)[0][:, :, 0, 0]
    steps = [re.search(r"from step (\d+) on", str(one.message)) for one in told]
    first = min((float(step.group(1)) for step in steps if step), default=np.inf)
    if any("held-out windows only" in str(one.message) for one in told):
        first = 1.0
    return made[..., 1:], made[..., 0], own, first


def seasonal(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw a trend and a monthly season with autocorrelated noise."""
    time = np.arange(steps)
    noise = np.zeros(steps)
    for step in range(1, steps):
        noise[step] = 0.6 * noise[step - 1] + rng.normal()
    return 50 + rng.normal(0, 0.05) * time + rng.normal(0, 2, 12)[time % 12] + noise


def drifting(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draw a random walk with drift."""
    return 50 + np.cumsum(rng.normal(rng.normal(0, 0.2), 1, steps))


if __name__ == "__main__":
    main()
