"""Aaren on ETTh1 under the published protocol, beside other mixers and in front of an LLM.

The arms differ in the mixer and the memory only; "aaren + llm" lets the frozen language model read
Aaren's last outputs, and "llm" is that language model alone (AutoTimes). One model is trained a
horizon. ETTh1 is this project's development set: settings were tried on its test part, so its
figures are not a clean test.

    python benchmarks/aaren_etth1.py --data FOLDER --seeds 0 1 2
"""

from __future__ import annotations

import itertools
import time

import pandas as pd
import torch
from common import parser, peak_memory_mib, setting, write

from tsllm import AarenForecaster, AutoTimesForecaster, backtest
from tsllm.datasets import load_benchmark, long_to_panel

HORIZONS = [96, 192, 336, 720]
ARMS = {
    "aaren decay": {"memory": "decay"},
    "aaren full": {"memory": "full"},
    "aaren window": {"memory": "window"},
    "mingru": {"mixer": "mingru"},
    "attention": {"mixer": "attention", "memory": "reencode"},
    "none": {"mixer": "none"},
    "aaren + llm": {"memory": "decay", "backbone": True},
    "llm": None,
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="+", default=list(ARMS), choices=list(ARMS))
    arguments.add_argument("--baselines", nargs="*", default=["seasonal_naive"])
    arguments.add_argument("--horizons", type=int, nargs="+", default=HORIZONS)
    arguments.add_argument("--set", nargs="*", default=[], help="Aaren parameters, key=value")
    args = arguments.parse_args()
    torch.set_num_threads(1)  # a stream's steps are small: more threads only wait for each other
    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame)
    settings = {
        "context_length": 504,
        "patch_length": 24,
        "window_stride": 4,
        **dict(setting(text) for text in args.set),
    }
    started, tables = time.perf_counter(), []
    for horizon, arm in itertools.product(args.horizons, args.variants):
        report = backtest(
            {arm: estimator(arm, args, settings, horizon)},
            y,
            horizons=[horizon],
            train_size=benchmark.split.train,
            validation_size=benchmark.split.validation,
            test_size=benchmark.split.test,
            scaled=True,
            seeds=args.seeds,
            quantiles=(),
            metrics=["mse", "mae"],
            baselines=args.baselines if arm == args.variants[0] else (),
            max_windows=20,
            progress=True,
        )
        tables.append(report.table)
        with pd.option_context("display.width", 200, "display.max_columns", 30):
            print(report.table.to_string(index=False), flush=True)
        write(  # after each arm: a run that is stopped keeps what it has measured
            "aaren_etth1" + args.tag,
            {
                "protocol": report.settings,
                "parameters": settings,
                "table": pd.concat(tables).to_dict("records"),
                "seconds": time.perf_counter() - started,
                "memory": peak_memory_mib(),
            },
            args.out,
        )


def estimator(arm: str, args, settings: dict[str, object], horizon: int):
    """Make the forecaster of an arm."""
    own = ARMS[arm]
    if own is None:
        return AutoTimesForecaster(
            args.backbone,
            backbone_layers=args.layers,
            context_length=672,
            token_length=96,
            prediction_length=96,
            batch_size=256,
        )
    own = dict(own)
    if own.pop("backbone", False):
        own |= {"backbone": args.backbone, "backbone_layers": args.layers}
    return AarenForecaster(**settings, **own, prediction_length=horizon)


if __name__ == "__main__":
    main()
