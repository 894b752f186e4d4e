"""Which rollout is more accurate? One trained model, both modes, on ETTh1's validation months.

The default of `AutoTimesForecaster(rollout=...)` was chosen by this; the test months were not used.

    python benchmarks/rollout_modes.py --data FOLDER
"""

from __future__ import annotations

import pandas as pd
from common import parser, write

from tsllm import AutoTimesForecaster, backtest
from tsllm.datasets import load_benchmark, long_to_panel


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--max-steps", type=int, default=800)
    args = arguments.parse_args()
    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    split = benchmark.split
    y = long_to_panel(benchmark.frame).iloc[: split.train + split.validation]
    settings = {
        "backbone_layers": args.layers,
        "context_length": 672,
        "token_length": 96,
        "batch_size": 256,
        "max_steps": args.max_steps,
        "random_state": 0,
    }
    train = pd.concat({"ETTh1": y.iloc[: split.train]}, names=["id", y.index.name])
    trained = AutoTimesForecaster(args.backbone, **settings).pretrain(train)
    report = backtest(
        {"sliding": trained, "cached": trained.clone().set_params(rollout="cached")},
        y,
        horizons=[96, 192, 336, 720],
        test_size=split.validation,
        stride=8,
        scaled=True,
        quantiles=(),
        metrics=["mse", "mae"],
        baselines=[],
    )
    print(report.table.to_string(index=False))
    write(
        "rollout_modes" + args.tag,
        {
            "part": "validation months, every 8th origin",
            "parameters": settings,
            "table": report.table.to_dict("records"),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
