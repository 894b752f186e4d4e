"""Coverage of 80 % and 95 % intervals at each step, their width and CRPS, for each method.

Three data sets: ETTh1 (7 variables, 24 steps ahead, from every origin of the published test part),
M4 hourly (414 series, the competition's 48 steps after each) and co2 (bundled, 26 weeks ahead, from
every origin of the last quarter). A fixed calibration is that of `fit`; an adaptive one follows the
stream with `update`, step by step. The standard error of a step's coverage is that between series
on M4 and between blocks of two horizons elsewhere, because neighbouring forecasts have similar
errors. "within" means: at most 3 points from the nominal coverage on average, and at most three
standard errors at each step.

There is no recipe for this, because a backtest neither updates a forecaster nor scores each step.

    python benchmarks/intervals.py --data FOLDER
    python benchmarks/intervals.py --data FOLDER --sets co2 --variants none
"""

from __future__ import annotations

import time
import warnings
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from data import load
from measuring import parser, peak_memory_mib, write

from tsllm import Context
from tsllm.forecasters import METHODS
from tsllm.metrics import crps

LEVELS = (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
COVERAGES = {0.8: (1, 9), 0.95: (0, 10)}
HORIZONS = {"ETTh1": 24, "m4_hourly": 48, "co2": 26}
#: Small settings, chosen once for speed: the subject is the calibration.
SETTINGS: dict[str, dict[str, Any]] = {
    "aaren": {"max_steps": 200, "window_stride": 5},
    "autotimes": {"max_steps": 200, "learning_rate": 2e-3, "batch_size": 256},
    "s2ip": {"max_steps": 200, "learning_rate": 1e-3, "window_stride": 5, "pool_size": 100},
    "timecma": {"max_steps": 200, "learning_rate": 1e-3, "window_stride": 5, "feedforward": 128},
}
CONTEXTS = {"ETTh1": 336, "m4_hourly": 192, "co2": 104}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sets", nargs="+", default=list(HORIZONS))
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--variants", nargs="+", default=["none", "pretrained"])
    arguments.add_argument("--modes", nargs="+", default=["fixed", "adaptive"])
    arguments.add_argument("--losses", nargs="+", default=["mse"])
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--test-steps", type=int, help="use so many steps of a test part only")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    rows, by_step = [], {}
    each = product(args.sets, args.methods, args.variants, args.losses, args.modes)
    for name, method, variant, loss, mode in each:
        panel = name == "m4_hourly"
        if panel and mode == "adaptive":
            continue  # one forecast a series: there is no stream
        forecaster = _forecaster(method, name, variant, mode, loss, args)
        y, test_steps = _data(name, args)
        started = time.perf_counter()
        if panel:
            actual, spread = _after_each(forecaster, y, test_steps)
        else:
            actual, spread = _along(forecaster, y, test_steps, mode)
        row, steps = _score(actual, spread, HORIZONS[name], panel)
        what = {"set": name, "method": method, "variant": variant, "loss": loss, "mode": mode}
        rows.append(what | {"seconds": time.perf_counter() - started} | row)
        by_step["/".join(what.values())] = steps
    with pd.option_context("display.width", 220, "display.max_columns", 40):
        print(pd.DataFrame(rows).round(3).to_string(index=False))
    results = {"settings": SETTINGS, "contexts": CONTEXTS, "horizons": HORIZONS}
    results |= {"table": rows, "by_step": by_step, "memory": peak_memory_mib()}
    write("interval_coverage" + args.tag, results, args.out)


def _data(name: str, args: Any) -> tuple[pd.DataFrame, int]:
    """Return the series and the steps of their test part."""
    data = load(name, args.data, "test")
    steps = data.sizes.get("test_size", len(data.y) // 4)
    y = data.y if name == "m4_hourly" else data.y.iloc[: sum(data.sizes.values()) or None]
    return y, min(args.test_steps or steps, steps)


def _forecaster(method: str, name: str, variant: str, mode: str, loss: str, args: Any) -> Any:
    settings = SETTINGS[method] | {"context_length": CONTEXTS[name], "loss": loss}
    settings |= {"prediction_length": HORIZONS[name], "random_state": args.seed}
    settings["adaptive"] = mode == "adaptive"
    if method == "autotimes":
        settings["token_length"] = {"ETTh1": 24, "m4_hourly": 48, "co2": 26}[name]
    if variant == "none":
        return METHODS[method](None, **settings)
    return METHODS[method](args.backbone, backbone_layers=args.layers, **settings)


def _fit(forecaster: Any, y: pd.DataFrame, horizon: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return forecaster.fit(y, fh=range(1, horizon + 1))


def _after_each(forecaster: Any, y: pd.DataFrame, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the last steps of each series: (series, horizon, variables[, levels])."""
    last = y.groupby(level=0, sort=False).cumcount(ascending=False).to_numpy() < horizon
    _fit(forecaster, y[~last], horizon)
    spread = forecaster.predict_quantiles(alpha=list(LEVELS)).to_numpy()
    return y[last].to_numpy().reshape(-1, horizon, 1), spread.reshape(-1, horizon, 1, len(LEVELS))


def _along(
    forecaster: Any, y: pd.DataFrame, test_steps: int, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast from every origin of the test part: (origins, horizon, variables[, levels])."""
    horizon = forecaster.prediction_length
    border = len(y) - test_steps
    origins = range(border, len(y) - horizon + 1)
    values = y.to_numpy().reshape(len(y), -1)
    times = pd.DatetimeIndex(y.index, freq=pd.infer_freq(y.index))
    actual = np.stack([values[o : o + horizon] for o in origins])
    _fit(forecaster, y.iloc[:border], horizon)
    parts = []
    if mode == "fixed":
        for first in range(0, len(origins), 256):
            contexts = [Context(values[:o], times=times[:o]) for o in origins[first : first + 256]]
            parts.append(forecaster.forecast(contexts, horizon, quantiles=LEVELS)[..., 1:])
        return actual, np.concatenate(parts)
    for origin in origins:
        spread = forecaster.predict_quantiles(alpha=list(LEVELS)).to_numpy()
        parts.append(spread.reshape(horizon, values.shape[1], len(LEVELS)))
        forecaster.update(y.iloc[origin : origin + 1])
    return actual, np.stack(parts)


def _score(
    actual: np.ndarray, spread: np.ndarray, horizon: int, independent: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Average hits, widths and CRPS, in units of each variable's mean absolute value."""
    unit = np.nanmean(np.abs(actual), axis=1, keepdims=True)
    if not independent:
        unit = unit.mean(axis=0, keepdims=True)
    row: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    for nominal, (low, high) in COVERAGES.items():
        hit = (spread[..., low] <= actual) & (actual <= spread[..., high])
        hits = np.nanmean(np.where(np.isnan(actual), np.nan, hit), axis=2)  # (origins, horizon)
        coverage = np.nanmean(hits, axis=0)
        error = _standard_error(hits, 1 if independent else 2 * horizon)
        outside = np.abs(coverage - nominal) > 3 * error
        key = f"{100 * nominal:g}"
        row[f"coverage{key}"] = float(coverage.mean())
        row[f"lowest{key}"], row[f"highest{key}"] = float(coverage.min()), float(coverage.max())
        row[f"error{key}"] = float(error.mean())
        row[f"outside{key}"] = int(outside.sum())
        row[f"within{key}"] = bool(abs(coverage.mean() - nominal) <= 0.03 and not outside.any())
        row[f"width{key}"] = float(np.nanmean((spread[..., high] - spread[..., low]) / unit))
        steps[f"coverage{key}"], steps[f"error{key}"] = coverage.tolist(), error.tolist()
    inner = slice(1, -1)  # equally spaced
    row["crps"] = float(crps(actual / unit, spread[..., inner] / unit[..., None], LEVELS[inner]))
    return row, steps


def _standard_error(hits: np.ndarray, block: int) -> np.ndarray:
    """Estimate each step's standard error from the means of blocks of origins."""
    count = len(hits) // block
    blocks = np.nanmean(hits[: count * block].reshape(count, block, -1), axis=1)
    return blocks.std(axis=0, ddof=1) / np.sqrt(count)


if __name__ == "__main__":
    main()
