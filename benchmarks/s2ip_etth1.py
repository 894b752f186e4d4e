"""S²IP-LLM on ETTh1 under the published protocol, with and without the language model.

The arms differ in the backbone only: pretrained, the same architecture with random weights, none;
arms with a backbone run once for each kind of anchors. As published, every horizon has a model of
its own and settings of its own. ETTh1 is this project's development set: settings are chosen with
--validation, which never sees the test part.

    python benchmarks/s2ip_etth1.py --data FOLDER --seeds 0 1 2 --window-stride 8
    python benchmarks/s2ip_etth1.py --data FOLDER --validation --set learning_rate=0.001
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
from common import parser, peak_memory_mib, setting, write

from tsllm import S2IPForecaster, backtest
from tsllm.datasets import load_benchmark, long_to_panel

COMMON = {"context_length": 512, "patch_length": 16, "stride": 8, "pool_size": 1000}
#: The authors' settings for ETTh1.
PUBLISHED: dict[int, dict[str, Any]] = {
    96: {"trend_length": 96, "seasonal_length": 96, "prompt_length": 4, "similarity_coef": -0.05},
    192: {"trend_length": 96, "seasonal_length": 96, "prompt_length": 4, "similarity_coef": -0.05},
    336: {"trend_length": 24, "seasonal_length": 24, "prompt_length": 8, "similarity_coef": -0.01},
    720: {"trend_length": 192, "seasonal_length": 48, "learning_rate": 1e-3},
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="*", default=["pretrained", "random", "none"])
    arguments.add_argument("--anchors", nargs="+", default=["free"], help="free clusters ...")
    arguments.add_argument("--baselines", nargs="*", default=["seasonal_naive"])
    arguments.add_argument("--horizons", type=int, nargs="+", default=list(PUBLISHED))
    arguments.add_argument("--window-stride", type=int, default=1)
    arguments.add_argument("--validation", action="store_true", help="validation losses only")
    arguments.add_argument("--set", nargs="*", default=[], help="estimator parameters, key=value")
    args = arguments.parse_args()

    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    chosen = dict(setting(text) for text in args.set)
    started = time.perf_counter()
    results: dict[str, Any] = {"parameters": {}, "horizons": {}}
    for horizon in args.horizons:
        settings = COMMON | PUBLISHED.get(horizon, {}) | {"window_stride": args.window_stride}
        settings |= chosen
        results["parameters"][horizon] = settings
        estimators = _estimators(args, settings)
        run = _validate if args.validation else _test
        results["horizons"][horizon] = run(estimators, benchmark, horizon, args)
    results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    write(f"s2ip_etth1{'_validation' * args.validation}" + args.tag, results, args.out)


def _estimators(args: Any, settings: dict[str, Any]) -> dict[str, S2IPForecaster]:
    """Make one forecaster for each arm, and of those with a backbone for each kind of anchors."""
    backbones = {"pretrained": args.backbone, "random": f"random:{args.backbone}?seed=0"}
    estimators = {}
    for arm in args.variants:
        if arm == "none":
            estimators[arm] = S2IPForecaster(None, **settings)
            continue
        for kind in args.anchors:
            estimators[f"{arm}, {kind}"] = S2IPForecaster(
                backbones[arm], backbone_layers=args.layers, anchor_pool=kind, **settings
            )
    return estimators


def _test(
    estimators: dict[str, S2IPForecaster], benchmark: Any, horizon: int, args: Any
) -> dict[str, Any]:
    """Score on the test part, and compare the pretrained arm with its controls."""
    report = backtest(
        estimators,
        long_to_panel(benchmark.frame),
        horizons=[horizon],
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
    _show(report.table)
    pairs = []
    for kind in args.anchors:
        names = (f"pretrained, {kind}", f"random, {kind}", "none")
        for other in names[1:]:
            if {names[0], other} <= estimators.keys():
                pair = report.paired(names[0], other, "mse", horizon=horizon)
                pairs.append(pair._asdict())
                print(
                    f"{names[0]} - {other}, horizon {horizon}: MSE {pair.difference:+.4f} "
                    f"[{pair.lower:+.4f}, {pair.upper:+.4f}]"
                )
    return {
        "protocol": report.settings,
        "table": report.table.to_dict("records"),
        "paired": pairs,
        "notes": report.notes,
    }


def _validate(
    estimators: dict[str, S2IPForecaster], benchmark: Any, horizon: int, args: Any
) -> dict[str, Any]:
    """Give the best validation losses, from the training and validation parts alone."""
    train, validation = benchmark.split.train, benchmark.split.validation
    y = long_to_panel(benchmark.frame).groupby(level=0, sort=False).head(train + validation)
    rows = []
    for name, estimator in estimators.items():
        for seed in args.seeds:
            forecaster = estimator.clone().set_params(
                random_state=seed, validation_fraction=validation / (train + validation)
            )
            summary = forecaster.fit(y, fh=range(1, horizon + 1)).summary()
            kept = ("validation_loss", "train_loss", "epochs", "best_epoch", "steps", "seconds")
            first, last = forecaster.fitted_.history[0], forecaster.fitted_.history[-1]
            rows.append(
                {
                    "variant": name,
                    "horizon": horizon,
                    "seed": seed,
                    **{key: summary[key] for key in kept},
                    "first_similarity": first["similarity"],
                    "last_similarity": last["similarity"],
                }
            )
    _show(pd.DataFrame(rows))
    return {"table": rows}


def _show(table: pd.DataFrame) -> None:
    with pd.option_context("display.width", 200, "display.max_columns", 30):
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
