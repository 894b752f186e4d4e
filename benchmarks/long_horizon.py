"""All four methods on the long-horizon sets under the published protocol, one table a set.

Each method has one setting for a set, the same for every horizon, with the language model and
without it. AutoTimes is one model for all horizons; the others are trained once a horizon. Exchange
and illness are sets that no setting was tried on; ETTh1 is this project's development set.

    python benchmarks/long_horizon.py --set exchange_rate --data FOLDER --seeds 0 1 2
    python benchmarks/long_horizon.py --set national_illness --data FOLDER --methods autotimes aaren
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from common import parser, peak_memory_mib, write

from tsllm import backtest
from tsllm.datasets import load_benchmark, long_to_panel
from tsllm.forecasters import METHODS

HORIZONS = {
    "ETTh1": [96, 192, 336, 720],
    "exchange_rate": [96, 192, 336, 720],
    "national_illness": [24, 36, 48, 60],
}
#: Lookbacks are those of the papers where they name one; the rest keeps a run within minutes.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "ETTh1": {
        "autotimes": {"context_length": 672, "token_length": 96, "batch_size": 256},
        "aaren": {"context_length": 504, "patch_length": 24, "window_stride": 11},
        "s2ip": {"context_length": 336, "patch_length": 24, "stride": 24, "window_stride": 11},
        "timecma": {"context_length": 96, "window_stride": 7},
    },
    "exchange_rate": {
        "autotimes": {"context_length": 96, "token_length": 24, "batch_size": 256},
        "aaren": {"context_length": 96, "patch_length": 8, "window_stride": 3},
        "s2ip": {"context_length": 96, "patch_length": 8, "stride": 8, "window_stride": 7},
        "timecma": {"context_length": 96, "window_stride": 7},
    },
    "national_illness": {
        "autotimes": {"context_length": 96, "token_length": 24, "batch_size": 64},
        "aaren": {"context_length": 104, "patch_length": 8},
        "s2ip": {"context_length": 96, "patch_length": 8, "stride": 8},
        "timecma": {"context_length": 36},
    },
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--set", required=True, choices=list(HORIZONS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments.add_argument("--variants", nargs="+", default=["pretrained", "none"])
    arguments.add_argument("--horizons", type=int, nargs="+")
    arguments.add_argument("--baselines", nargs="*", default=["seasonal_naive", "dlinear"])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    horizons = args.horizons or HORIZONS[args.set]
    benchmark = load_benchmark(args.set, folder=args.data, allow_download=False)
    y, split = long_to_panel(benchmark.frame), benchmark.split
    started, tables = time.perf_counter(), []
    for estimators, steps, baselines in runs(args, horizons):
        report = backtest(
            estimators,
            y,
            horizons=steps,
            train_size=split.train,
            validation_size=split.validation,
            test_size=split.test,
            scaled=True,
            seeds=args.seeds,
            quantiles=(),
            metrics=["mse", "mae"],
            baselines=baselines,
            progress=True,
        )
        tables.append(report.table)
        print(report.table.round(4).to_string(index=False), flush=True)
        write(  # after each run: one that is stopped keeps what it has measured
            f"long_horizon_{args.set.lower()}{args.tag}",
            {
                "set": args.set,
                "protocol": report.settings | {"horizons": horizons},
                "parameters": SETTINGS[args.set] | {"backbone_layers": args.layers},
                "table": pd.concat(tables).to_dict("records"),
                "seconds": time.perf_counter() - started,
                "memory": peak_memory_mib(),
            },
            args.out,
        )


def runs(args: Any, horizons: list[int]) -> Iterator[tuple[dict[str, Any], list[int], list[str]]]:
    """Give the estimators, horizons and baselines of one backtest after another."""
    if args.baselines:
        yield {}, horizons, args.baselines
    for method in args.methods:
        at_once = [horizons] if method == "autotimes" else [[horizon] for horizon in horizons]
        for steps in at_once:
            yield arms_of(method, args, steps), steps, []


def arms_of(method: str, args: Any, steps: list[int]) -> dict[str, Any]:
    """Make the forecasters of a method's arms."""
    return {f"{method}, {arm}": make(method, arm, args, steps) for arm in args.variants}


def make(method: str, arm: str, args: Any, steps: list[int]) -> Any:
    """Make an arm's forecaster; AutoTimes rolls one token on, the others forecast at once."""
    settings = dict(SETTINGS[args.set][method])
    settings["prediction_length"] = settings.get("token_length", steps[-1])
    if arm == "none":
        return METHODS[method](None, **settings)
    return METHODS[method](args.backbone, backbone_layers=args.layers, **settings)


if __name__ == "__main__":
    main()
