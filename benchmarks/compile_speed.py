"""Does ``compile=True`` pay? Seconds a training step with torch.compile and without, per method.

Both trainings are the same: same data, seed and batches, no dropout. What is compared is the median
step after the first epoch, the seconds that compiling takes, and how far the forecasts are apart in
units of the series' standard deviation.

    python benchmarks/compile_speed.py --layers 2
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import parser, peak_memory_mib, spread, write

from tsllm.forecasters import METHODS
from tsllm.training.callbacks import watched_by
from tsllm.training.loop import Callback

HORIZON = 24
SETTINGS: dict[str, dict[str, Any]] = {
    "autotimes": {"context_length": 168, "token_length": 24, "batch_size": 256},
    "aaren": {"context_length": 168, "patch_length": 24, "batch_size": 64, "dropout": 0.0},
    "s2ip": {"context_length": 168, "patch_length": 24, "stride": 24, "batch_size": 64},
    "timecma": {"context_length": 96, "batch_size": 16, "window_stride": 24},
}


class Steps(Callback):
    """The seconds of each training step."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: list[float] = []

    def on_step_end(self, state: Any) -> bool:
        """Note how long the step took."""
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        return False


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--turns", type=int, default=2)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=3000, freq="h")
    y = pd.Series(np.sin(np.arange(3000) * 2 * np.pi / 24) + rng.normal(0, 0.3, 3000), index=index)
    rows = []
    for method in args.methods:
        for arm in ("pretrained", "none"):
            rows.append({"method": method, "arm": arm} | compare(method, arm, y, args))
            print(rows[-1], flush=True)
            results = {"settings": SETTINGS, "steps": args.steps, "rows": rows}
            write("compile_speed" + args.tag, results | {"memory": peak_memory_mib()}, args.out)


def compare(method: str, arm: str, y: pd.Series, args: Any) -> dict[str, Any]:
    """Train a method in turns without and with torch.compile."""
    settings = {"dropout": 0.0, **SETTINGS[method], "max_steps": args.steps, "random_state": 0}
    backbone = args.backbone if arm == "pretrained" else None
    if backbone is not None:
        settings["backbone_layers"] = args.layers
    medians: dict[bool, list[float]] = {False: [], True: []}
    forecasts, compiling = {}, []
    for _ in range(args.turns):
        for compiled in medians:
            steps = Steps()
            forecaster = METHODS[method](
                backbone, prediction_length=HORIZON, compile=compiled, **settings
            )
            with watched_by(steps):
                forecaster.fit(y, fh=range(1, HORIZON + 1))
            medians[compiled].append(float(np.median(steps.seconds[len(steps.seconds) // 2 :])))
            if compiled:
                compiling.append(sum(steps.seconds) - medians[True][-1] * len(steps.seconds))
            forecasts[compiled] = forecaster.predict().to_numpy()
    apart = np.abs(forecasts[True] - forecasts[False]).max() / y.std()
    return {
        "step": spread(medians[False]),
        "compiled_step": spread(medians[True]),
        "ratio": float(np.median(medians[False]) / np.median(medians[True])),
        "compile_seconds": compiling[0],
        "forecasts_apart": float(apart),
    }


if __name__ == "__main__":
    main()
