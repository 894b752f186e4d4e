"""One model for all 414 M4 hourly series, 48 steps ahead, next to the seasonal naive forecast.

Settings are chosen with --validation, which holds the last 48 steps of each training series out and
never sees the test part. The steps are hours; the dates that say so begin nowhere in particular.

    python benchmarks/panel_m4_hourly.py --data FOLDER --seeds 0 1 2
    python benchmarks/panel_m4_hourly.py --data FOLDER --variants none --set max_steps=300
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from common import parser, peak_memory_mib, setting, write

from tsllm.datasets import load_benchmark, long_to_panel
from tsllm.forecasters import METHODS
from tsllm.metrics import mase, seasonal_scale, smape

HORIZON, DAY = 48, 24
#: A token is a week: many of the series repeat by the week, and without a language model each
#: token is forecast from the one before alone.
SETTINGS: dict[str, Any] = {
    "context_length": 336,
    "token_length": 168,
    "mlp_layers": 2,
    "mlp_hidden": 512,
    "dropout": 0.1,
    "loss": "mae",
    "learning_rate": 2e-3,
    "batch_size": 256,
    "max_steps": 1000,
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--method", default="autotimes", choices=list(METHODS))
    arguments.add_argument("--variants", nargs="+", default=["none", "pretrained"])
    arguments.add_argument("--validation", action="store_true", help="hold the training's end out")
    arguments.add_argument("--set", nargs="*", default=[], help="estimator parameters, key=value")
    args = arguments.parse_args()

    benchmark = load_benchmark("m4_hourly", folder=args.data, allow_download=False)
    frame = benchmark.frame
    hours = pd.to_timedelta(frame.groupby("series_id", sort=False).cumcount(), unit="h")
    y = long_to_panel(frame.assign(timestamp=pd.Timestamp("2000-01-01") + hours))
    truth = [g.iloc[:, -1].to_numpy() for _, g in benchmark.test.groupby("series_id", sort=False)]
    if args.validation:
        by_series = y.groupby(level=0, sort=False)
        truth = [g.iloc[-HORIZON:, 0].to_numpy() for _, g in by_series]
        y = y[by_series.cumcount(ascending=False) >= HORIZON]
    train = [g.iloc[:, 0].to_numpy() for _, g in y.groupby(level=0, sort=False)]
    naive = [np.tile(values[-DAY:], HORIZON // DAY) for values in train]
    rows: list[dict[str, Any]] = [{"variant": "seasonal naive", **_scores(naive, truth, train)}]
    print(rows[-1], flush=True)
    settings = dict(SETTINGS) if args.method == "autotimes" else {"context_length": 336}
    settings |= dict(setting(text) for text in args.set)
    for arm in args.variants:
        for seed in args.seeds:
            backbone = {"none": None, "pretrained": args.backbone}[arm]
            forecaster = METHODS[args.method](
                backbone,
                backbone_layers=None if backbone is None else args.layers,
                prediction_length=HORIZON,
                random_state=seed,
                **settings,
            )
            started, busy = time.perf_counter(), time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # constant series are no news here
                forecaster.fit(y, fh=range(1, HORIZON + 1))
            fit, fit_busy = time.perf_counter() - started, time.process_time() - busy
            forecast = forecaster.predict().to_numpy().reshape(len(train), HORIZON)
            row = {"variant": arm, "seed": seed, **_scores(forecast, truth, train)}
            row |= {
                "seconds": time.perf_counter() - started,
                "fit_seconds": fit,
                "cpu_seconds": time.process_time() - busy,
                "fit_cpu_seconds": fit_busy,
                "steps": forecaster.summary()["steps"],
                "validation_loss": forecaster.summary()["validation_loss"],
            }
            rows.append(row)
            print(row, flush=True)
    results = {"method": args.method, "parameters": settings, "layers": args.layers, "table": rows}
    results |= {"validation": args.validation, "memory": peak_memory_mib()}
    write("panel_m4_hourly" + "_validation" * args.validation + args.tag, results, args.out)


def _scores(forecasts: Any, truth: Any, train: list[np.ndarray]) -> dict[str, float]:
    """Average sMAPE and MASE over the series, as the M4 competition did."""
    pairs = [(t[:, None], f[:, None]) for t, f in zip(truth, forecasts)]
    scales = [seasonal_scale(values[:, None], DAY) for values in train]
    return {
        "smape": float(np.mean([smape(t, f) for t, f in pairs])),
        "mase": float(np.nanmean([mase(t, f, scale) for (t, f), scale in zip(pairs, scales)])),
    }


if __name__ == "__main__":
    main()
