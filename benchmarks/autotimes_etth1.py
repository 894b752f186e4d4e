"""AutoTimes on ETTh1 under the published protocol, with and without the language model.

The arms differ in the backbone only: pretrained, the same architecture with random weights, none.
One model serves all four horizons. ETTh1 is this project's development set: settings were tried on
its test part, so its figures are not a clean test.

    python benchmarks/autotimes_etth1.py --data FOLDER --seeds 0 1 2
"""

from __future__ import annotations

import time

import pandas as pd
from common import parser, peak_memory_mib, setting, write

from tsllm import AutoTimesForecaster, backtest
from tsllm.datasets import load_benchmark, long_to_panel

HORIZONS = [96, 192, 336, 720]


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="*", default=["pretrained", "random", "none"])
    arguments.add_argument("--baselines", nargs="*", default=["seasonal_naive"])
    arguments.add_argument("--horizons", type=int, nargs="+", default=HORIZONS)
    arguments.add_argument("--set", nargs="*", default=[], help="estimator parameters, key=value")
    args = arguments.parse_args()

    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame)
    settings = {
        "context_length": 672,
        "token_length": 96,
        "prediction_length": 96,
        "batch_size": 256,
        "backbone_layers": args.layers,
        **dict(setting(text) for text in args.set),
    }
    backbones = {
        "pretrained": args.backbone,
        "random": f"random:{args.backbone}?seed=0",
        "none": None,
    }
    estimators = {
        arm: AutoTimesForecaster(
            backbones[arm], **(settings | ({} if backbones[arm] else {"backbone_layers": None}))
        )
        for arm in args.variants
    }
    started = time.perf_counter()
    report = backtest(
        estimators,
        y,
        horizons=args.horizons,
        train_size=benchmark.split.train,
        validation_size=benchmark.split.validation,
        test_size=benchmark.split.test,
        scaled=True,
        seeds=args.seeds,
        quantiles=(),
        metrics=["mse", "mae"],
        baselines=args.baselines,
        max_windows=20,
        progress=True,
    )
    with pd.option_context("display.width", 200, "display.max_columns", 30):
        print(report.table.to_string(index=False))
    pairs = []
    for other in ("random", "none"):
        for horizon in args.horizons if {"pretrained", other} <= set(args.variants) else []:
            pair = report.paired("pretrained", other, "mse", horizon=horizon)
            pairs.append(pair._asdict())
            print(
                f"pretrained - {other}, horizon {horizon}: MSE {pair.difference:+.4f} "
                f"[{pair.lower:+.4f}, {pair.upper:+.4f}]"
            )
    write(
        "autotimes_etth1" + args.tag,
        {
            "protocol": report.settings,
            "parameters": settings,
            "table": report.table.to_dict("records"),
            "paired": pairs,
            "notes": report.notes,
            "seconds": time.perf_counter() - started,
            "memory": peak_memory_mib(),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
