"""Short series and cost: what shapes, shrinkage and the limit of a training do.

`accuracy` fits each method at its defaults, without shrinkage, and without shrinkage and the
comparison of shapes, and forecasts each set after its last origins. Errors are MASE as ratios
to that of the seasonal naive forecast. `cost` measures the processor seconds of a default fit.

    python benchmarks/shapes.py accuracy --methods none dlinear
    python benchmarks/shapes.py cost --sets monthly weekly
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write
from panels import SETS as OTHERS
from panels import Panel, growing, simulated, to_frame, walk

from tsllm import (
    AarenForecaster,
    AutoForecaster,
    AutoTimesForecaster,
    Context,
    DLinearForecaster,
    PatchTSTForecaster,
    S2IPForecaster,
    TimeCMAForecaster,
)
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.held_out import usual_change
from tsllm.forecasters.statistical import seasonal_naive

METHODS: dict[str, Callable[..., Any]] = {
    "none": lambda **given: AutoTimesForecaster(None, **given),
    "autotimes": lambda **given: AutoTimesForecaster(backbone_layers=None, **given),
    "autotimes two layers": AutoTimesForecaster,
    "aaren": AarenForecaster,
    "dlinear": DLinearForecaster,
    "patchtst": PatchTSTForecaster,
    "timecma none": lambda **given: TimeCMAForecaster(None, **given),
    "s2ip none": lambda **given: S2IPForecaster(None, **given),
    "auto": AutoForecaster,
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("part", choices=["accuracy", "cost"])
    arguments.add_argument("--sets", nargs="+")
    arguments.add_argument("--methods", nargs="+", default=["none", "dlinear"])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    sets = PANELS if args.part == "accuracy" else COSTS
    measure = _accuracy if args.part == "accuracy" else _cost
    rows = []
    for name in args.sets or SHORT if args.part == "accuracy" else args.sets or COSTS:
        panel = sets[name](Path(args.data) if args.data else Path())
        for method in args.methods:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = measure(panel, method)
            steps = [len(one) - panel.horizon * panel.origins for one in panel.series]
            size = {"series": len(steps), "steps": f"{min(steps)}-{max(steps)}"}
            rows.append({"data": name, **size, "horizon": panel.horizon, "method": method, **found})
            print(pd.Series(rows[-1]).to_frame().T.round(3).to_string(index=False), flush=True)
            written = {args.part: rows, "memory": peak_memory_mib()}
            write(f"shapes_{args.part}{args.tag}", written, args.out)


def _accuracy(panel: Panel, method: str) -> dict[str, float]:
    """Compare the defaults with those of earlier versions; the mean over the origins."""
    errors: dict[str, list[float]] = {}
    for known, actual in panel.splits():
        y = to_frame(known)
        contexts = [Context(one.to_numpy(dtype=float)) for one in known]
        fitted = _fit(method, y, panel.horizon)
        season = season_length(fitted.fitted_.shape.freq)
        scale = np.stack([usual_change(c.values, season) for c in contexts])  # (series, 1)
        naive = np.stack([seasonal_naive(c.values, panel.horizon, season) for c in contexts])[
            ..., 0
        ]
        plain = {"shrinkage": False}
        variants = {"default": fitted, "no shrinkage": _fit(method, y, panel.horizon, **plain)}
        if method.startswith(("none", "autotimes")):
            usual = _fit(method, y, panel.horizon, max_steps=1).fitted_.shape  # the plain rule
            lengths = {"context_length": usual.context_length}
            lengths |= {"token_length": usual.extra["token_length"]}
            variants["usual shape"] = _fit(method, y, panel.horizon, **plain, **lengths)
        for name, one in variants.items():
            forecast = one.forecast(contexts, panel.horizon)[..., 0, 0]
            ratio = np.mean(np.abs(forecast - actual) / scale)
            errors.setdefault(name, []).append(ratio / np.mean(np.abs(naive - actual) / scale))
    return {name: float(np.exp(np.mean(np.log(ratios)))) for name, ratios in errors.items()}


def _cost(panel: Panel, method: str) -> dict[str, float]:
    """Measure a fit with default settings and the error of its forecast."""
    known = [one.iloc[: -panel.horizon] for one in panel.series]
    y = to_frame(known)
    started, begun = time.perf_counter(), time.process_time()
    fitted = _fit(method, y, panel.horizon)
    seconds = {"cpu_seconds": time.process_time() - begun, "seconds": time.perf_counter() - started}
    contexts = [Context(one.to_numpy(dtype=float), series_id=i) for i, one in enumerate(known)]
    forecast = fitted.forecast(contexts, panel.horizon)[..., 0, 0]
    actual = np.stack([one.iloc[-panel.horizon :] for one in panel.series])
    season = season_length(fitted.fitted_.shape.freq)
    scale = np.stack([usual_change(c.values, season) for c in contexts])
    return seconds | {"mase": float(np.mean(np.abs(forecast - actual) / scale))}


def _fit(method: str, y: pd.DataFrame, horizon: int, **given: Any) -> Any:
    return METHODS[method](random_state=0, **given).fit(y, fh=range(1, horizon + 1))


# ---------------------------------------------------------------------- the sets


def _trend_and_season(period: int) -> Callable[..., np.ndarray]:
    def draw(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
        """Draw growth with a season and a slowly wandering level."""
        profile = rng.normal(0, 0.1, period)
        level = np.cumsum(rng.normal(0, 0.01, len(t)))
        noise = rng.normal(0, 0.02, len(t))
        return 500 * np.exp(rng.normal(0.01, 0.01) * t + profile[t % period] + level + noise)

    return draw


def _long_weekly(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Draw weekly values with a year's profile."""
    profile = rng.normal(0, 0.15, 52)
    level = np.cumsum(rng.normal(0, 0.003, len(t)))
    return 200 * np.exp(profile[t % 52] + level + rng.normal(0, 0.03, len(t)))


SHORT: dict[str, Callable[[Path], Panel]] = {
    "yearly 14-30": simulated(100, (14, 31), "Y", 6, growing),
    "quarterly 16-40": simulated(100, (16, 41), "Q", 8, _trend_and_season(4)),
    "quarterly walks 20-50": simulated(100, (20, 51), "Q", 8, walk),
    "monthly 30-60": simulated(100, (30, 61), "M", 12, _trend_and_season(12)),
}
PANELS = SHORT | OTHERS
COSTS: dict[str, Callable[[Path], Panel]] = {
    "monthly": simulated(200, (115, 116), "M", 18, _trend_and_season(12)),
    "weekly": simulated(359, (2000, 2001), "W", 13, _long_weekly),
}

if __name__ == "__main__":
    main()
