"""Does AutoTimes gain from forecasts that turn over with the series? Set by set, before any test.

The same forecaster with ``flip_invariance`` and without it, on the parts of eight sets that lie
before their test part: fitted on the first four fifths of those, scored on the last fifth. ETTh1 is
left out, for folds_etth1.py asks the same there. Series with peaks and no troughs (sunspots,
influenza) are among them, where a series turned upside down is nothing that could happen.

    python benchmarks/flips.py --data FOLDER --seeds 0 1 2
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import torch
from common import parser, peak_memory_mib, write

from tsllm import AutoTimesForecaster, backtest
from tsllm.datasets import load_benchmark, load_dataset, long_to_panel

#: Horizon and settings of each set; the rest is default.
SETS: dict[str, dict[str, Any]] = {
    "airline": {"horizon": 12},
    "co2": {"horizon": 52},
    "elec_equip": {"horizon": 12},
    "elnino": {"horizon": 12},
    "sunspots": {"horizon": 11},
    "exchange_rate": {
        "horizon": 96,
        "context_length": 96,
        "token_length": 24,
        "batch_size": 256,
    },
    "national_illness": {"horizon": 24, "context_length": 96, "token_length": 24},
    "m4_hourly": {
        "horizon": 48,
        "context_length": 336,
        "token_length": 48,
        "batch_size": 256,
        "max_steps": 400,
    },
}
#: Share of a bundled set that is never read here.
TEST_SHARE = 0.2


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    started, rows = time.perf_counter(), []
    for name in args.sets:
        settings = dict(SETS[name])
        horizon = settings.pop("horizon")
        report = backtest(
            {
                "flips": make(args, settings, flip_invariance=True),
                "no flips": make(args, settings, flip_invariance=False),
                "flips, no language model": make(
                    args, settings | {"backbone": None}, flip_invariance=True
                ),
                "no flips, no language model": make(
                    args, settings | {"backbone": None}, flip_invariance=False
                ),
            },
            before_the_test(name, args),
            horizons=horizon,
            **({"test_size": horizon} if name == "m4_hourly" else {"test_fraction": 0.2}),
            seeds=args.seeds,
            quantiles=(),
            metrics=["mse", "mae", "mase"],
            baselines=["seasonal_naive"],
        )
        pairs = {
            kind: report.paired(f"flips{kind}", f"no flips{kind}", "mae")._asdict()
            for kind in ("", ", no language model")
        }
        table = report.table
        rows += [{"set": name, **row} for row in table.to_dict("records")]
        rows += [{"set": name, "pair": f"flips{kind}", **pair} for kind, pair in pairs.items()]
        with pd.option_context("display.width", 200, "display.max_columns", 30):
            print(name, table.round(4).to_string(index=False), pairs, sep="\n", flush=True)
        write(  # after each set: a run that is stopped keeps what it has measured
            f"flips{args.tag}",
            {
                "sets": {key: SETS[key] for key in args.sets},
                "seeds": args.seeds,
                "layers": args.layers,
                "rows": rows,
                "seconds": time.perf_counter() - started,
                "memory": peak_memory_mib(),
            },
            args.out,
        )


def make(args: Any, settings: dict[str, Any], *, flip_invariance: bool) -> AutoTimesForecaster:
    """Make an arm's forecaster."""
    settings = {"backbone": args.backbone, "backbone_layers": args.layers} | settings
    if settings["backbone"] is None:
        settings["backbone_layers"] = None
    return AutoTimesForecaster(flip_invariance=flip_invariance, **settings)


def before_the_test(name: str, args: Any) -> Any:
    """Load what lies before a set's test part."""
    if name not in ("exchange_rate", "national_illness", "m4_hourly"):
        y = load_dataset(name)
        return y.iloc[: int(len(y) * (1 - TEST_SHARE))]
    benchmark = load_benchmark(name, folder=args.data, allow_download=False)
    if benchmark.split is not None:
        y = long_to_panel(benchmark.frame)
        return y.iloc[: benchmark.split.train + benchmark.split.validation]
    frame = benchmark.frame  # M4: its test part is a frame of its own
    hours = pd.to_timedelta(frame.groupby("series_id", sort=False).cumcount(), unit="h")
    return long_to_panel(frame.assign(timestamp=pd.Timestamp("2000-01-01") + hours))


if __name__ == "__main__":
    main()
