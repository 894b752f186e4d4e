"""AutoTimes and S²IP-LLM on ETTh1 under the published protocol, with and without LoRA.

The arms of a method differ in ``lora`` only; S²IP-LLM is also run with its layer norms and
positions frozen, as LoRA beside them is not in its paper. Horizon 96, the published lookbacks.
ETTh1 is this project's development set: settings were tried on its test part.

    python benchmarks/lora_etth1.py --data FOLDER --seeds 0 1 2
    python benchmarks/lora_etth1.py --data FOLDER --methods autotimes --rank 8 --set max_steps=200
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
from common import parser, peak_memory_mib, setting, write

from tsllm import AutoTimesForecaster, S2IPForecaster, backtest
from tsllm.datasets import load_benchmark, long_to_panel

HORIZON = 96
AUTOTIMES: dict[str, Any] = {"context_length": 672, "token_length": 96, "batch_size": 256}
#: A stride that shares no factor with the day shows every hour to training.
S2IP: dict[str, Any] = {
    "context_length": 512,
    "patch_length": 16,
    "stride": 8,
    "trend_length": 96,
    "seasonal_length": 96,
    "window_stride": 23,
    "learning_rate": 3e-4,
    "batch_size": 64,
    "max_epochs": 5,
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--methods", nargs="+", default=["autotimes", "s2ip"])
    arguments.add_argument("--rank", type=int, default=8)
    arguments.add_argument("--test-stride", type=int, default=1, help="steps between test windows")
    arguments.add_argument("--set", nargs="*", default=[], help="estimator parameters, key=value")
    args = arguments.parse_args()

    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    chosen = dict(setting(text) for text in args.set)
    lora = {"r": args.rank, "alpha": 2 * args.rank}
    arms: dict[str, Any] = {}
    common = {"backbone_layers": args.layers, "prediction_length": HORIZON}
    if "autotimes" in args.methods:
        settings = common | AUTOTIMES | chosen
        arms["autotimes"] = AutoTimesForecaster(args.backbone, **settings)
        arms["autotimes, lora"] = AutoTimesForecaster(args.backbone, lora=lora, **settings)
    if "s2ip" in args.methods:
        settings = common | S2IP | chosen
        for tune in ((), ("layer_norms", "positions")):
            name = "s2ip, tuned" if tune else "s2ip, frozen"
            arms[name] = S2IPForecaster(args.backbone, tune=tune, **settings)
            arms[f"{name}, lora"] = S2IPForecaster(args.backbone, tune=tune, lora=lora, **settings)
    started = time.perf_counter()
    report = backtest(
        arms,
        long_to_panel(benchmark.frame),
        horizons=[HORIZON],
        train_size=benchmark.split.train,
        validation_size=benchmark.split.validation,
        test_size=benchmark.split.test,
        stride=args.test_stride,
        scaled=True,
        seeds=args.seeds,
        quantiles=(),
        metrics=["mse", "mae"],
        baselines=[],
        progress=True,
    )
    with pd.option_context("display.width", 200, "display.max_columns", 30):
        print(report.table.to_string(index=False))
    pairs = []
    for name in arms:
        if f"{name}, lora" in arms:
            pair = report.paired(f"{name}, lora", name, "mse", horizon=HORIZON)
            pairs.append(pair._asdict())
            print(
                f"{name}: LoRA changes the MSE by {pair.difference:+.4f} "
                f"[{pair.lower:+.4f}, {pair.upper:+.4f}]"
            )
    write(
        "lora_etth1" + args.tag,
        {
            "protocol": report.settings,
            "parameters": {"autotimes": AUTOTIMES, "s2ip": S2IP, "set": chosen, "lora": lora},
            "table": report.table.to_dict("records"),
            "paired": pairs,
            "seconds": time.perf_counter() - started,
            "memory": peak_memory_mib(),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
