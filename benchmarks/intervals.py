"""Do the intervals hold? Coverage of 80 % and 95 % per step, width and CRPS, for each method.

Three data sets: ETTh1 (7 variables, 24 steps ahead, from every origin of the published test part),
M4 hourly (414 series, the competition's 48 steps after each) and co2 (bundled, 26 weeks ahead, from
every origin of the last quarter). A fixed calibration is that of `fit`; an adaptive one follows the
stream with `update`, step by step. The standard error of a step's coverage is that between series
on M4 and between blocks of two horizons elsewhere, for neighbouring forecasts err alike. "within"
asks for 3 points of the nominal coverage on average and three standard errors at each step.

    python benchmarks/interval_coverage.py --data FOLDER
    python benchmarks/interval_coverage.py --data FOLDER --sets co2 --variants none
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from measuring import parser, peak_memory_mib, write

from tsllm import Context
from tsllm.datasets import load_benchmark, load_dataset, long_to_panel
from tsllm.forecasters import METHODS
from tsllm.metrics import crps

LEVELS = (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
COVERAGES = {0.8: (1, 9), 0.95: (0, 10)}
HORIZONS = {"ETTh1": 24, "m4_hourly": 48, "co2": 26}
#: Small settings, chosen once for speed: the calibration is what is looked at.
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
    rows, by_step = [], {}
    for name in args.sets:
        y, truth, test_steps = _data(name, args)
        for method in args.methods:
            for arm in args.variants:
                for loss in args.losses:
                    for mode in args.modes:
                        if mode == "adaptive" and name == "m4_hourly":
                            continue  # one forecast a series: there is nothing to follow
                        forecaster = _forecaster(method, name, arm, mode, loss, args)
                        started = time.perf_counter()
                        if name == "m4_hourly":
                            actual, spread = _after_each(forecaster, y, truth)
                        else:
                            actual, spread = _along(forecaster, y, test_steps, mode)
                        row, steps = _score(actual, spread, HORIZONS[name], name == "m4_hourly")
                        what = {"set": name, "method": method, "variant": arm, "loss": loss}
                        what |= {"mode": mode, "seconds": time.perf_counter() - started}
                        rows.append(what | row)
                        by_step["/".join([name, method, arm, loss, mode])] = steps
                        print(
                            " ".join(f"{k}={v:.3f}" if isinstance(v, float) else str(v)
                                     for k, v in rows[-1].items()),
                            flush=True,
                        )  # fmt: skip
    with pd.option_context("display.width", 220, "display.max_columns", 40):
        print(pd.DataFrame(rows).round(3).to_string(index=False))
    results = {"settings": SETTINGS, "contexts": CONTEXTS, "horizons": HORIZONS}
    results |= {"table": rows, "by_step": by_step, "memory": peak_memory_mib()}
    write("interval_coverage" + args.tag, results, args.out)


def _data(name: str, args: Any) -> tuple[pd.DataFrame, np.ndarray | None, int]:
    """Give the series, M4's truth after them, and the steps of the test part in them."""
    if name == "co2":
        y = long_to_panel(load_dataset("co2"))
        return y, None, min(args.test_steps or len(y), len(y) // 4)
    benchmark = load_benchmark(name, folder=args.data, allow_download=False)
    if name == "ETTh1":
        split = benchmark.split
        y = long_to_panel(benchmark.frame).iloc[: split.train + split.validation + split.test]
        return y, None, min(args.test_steps or split.test, split.test)
    # The steps are hours; dates say so, though nobody knows which.
    frame = benchmark.frame
    first = pd.Timestamp("2000-01-01")
    step = frame.groupby("series_id", sort=False).cumcount()
    y = long_to_panel(frame.assign(timestamp=first + pd.to_timedelta(step, unit="h")))
    truth = [g.iloc[:, -1].to_numpy() for _, g in benchmark.test.groupby("series_id", sort=False)]
    return y, np.stack(truth)[..., None], 0


def _forecaster(method: str, name: str, arm: str, mode: str, loss: str, args: Any) -> Any:
    settings = SETTINGS[method] | {"context_length": CONTEXTS[name], "loss": loss}
    settings |= {"prediction_length": HORIZONS[name], "random_state": args.seed}
    settings["adaptive"] = mode == "adaptive"
    if method == "autotimes":
        settings["token_length"] = {"ETTh1": 24, "m4_hourly": 48, "co2": 26}[name]
    if arm == "none":
        return METHODS[method](None, **settings)
    return METHODS[method](args.backbone, backbone_layers=args.layers, **settings)


def _quiet(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def _after_each(
    forecaster: Any, y: pd.DataFrame, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast what follows each series: (series, horizon, variables[, levels])."""
    horizon = truth.shape[1]
    _quiet(lambda: forecaster.fit(y, fh=range(1, horizon + 1)))
    spread = forecaster.predict_quantiles(alpha=list(LEVELS)).to_numpy()
    return truth, spread.reshape(len(truth), horizon, 1, len(LEVELS))


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
    _quiet(lambda: forecaster.fit(y.iloc[:border], fh=range(1, horizon + 1)))
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
