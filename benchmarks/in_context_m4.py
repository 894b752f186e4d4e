"""In-context prompts on M4 hourly: the same fitted models with and without a prompt.

python benchmarks/in_context_m4.py --data FOLDER
"""

from __future__ import annotations

import time

import numpy as np
from common import parser, peak_memory_mib, write

from tsllm import AutoTimesForecaster
from tsllm.datasets import load_benchmark, long_to_panel
from tsllm.metrics import mase, seasonal_scale, smape

HORIZON, SEASON = 48, 24


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--max-steps", type=int, default=600)
    args = arguments.parse_args()
    benchmark = load_benchmark("m4_hourly", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame)
    values = benchmark.frame.columns[-1]
    train = {k: g[values].to_numpy() for k, g in benchmark.frame.groupby("series_id", sort=False)}
    truth = np.stack(
        [g[values].to_numpy() for _, g in benchmark.test.groupby("series_id", sort=False)]
    )  # (series, horizon)
    table = [{"variant": "seasonal naive", **_scores(_seasonal_naive(train), truth, train)}]
    for seed in args.seeds:
        settings = {
            "backbone_layers": args.layers,
            "context_length": 192,
            "token_length": 48,
            "prediction_length": HORIZON,
            "loss": "mae",
            "learning_rate": 2e-3,
            "batch_size": 256,
            "max_steps": args.max_steps,
            "random_state": seed,
        }
        started = time.perf_counter()
        trained = AutoTimesForecaster(args.backbone, **settings).pretrain(y)
        seconds = time.perf_counter() - started
        for prompt in (None, "recent_period", "earliest", "similar"):
            # The prompt changes what is read, not what is trained.
            model = trained.clone().set_params(in_context=prompt, in_context_length=96)
            model.fit(y, fh=range(1, HORIZON + 1))
            forecast = model.predict().to_numpy().reshape(len(train), HORIZON)
            row = {"variant": f"prompt: {prompt}", "seed": seed, "fit_seconds": seconds}
            table.append(row | _scores(forecast, truth, train))
            print(table[-1], flush=True)
    results = {"parameters": settings, "table": table, "memory": peak_memory_mib()}
    write("in_context_m4" + args.tag, results, args.out)


def _seasonal_naive(train: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([np.tile(v[-SEASON:], HORIZON // SEASON) for v in train.values()])


def _scores(
    forecast: np.ndarray, truth: np.ndarray, train: dict[str, np.ndarray]
) -> dict[str, float]:
    """Average sMAPE and MASE over the series, as the M4 competition did."""
    smapes = [smape(t[:, None], f[:, None]) for t, f in zip(truth, forecast)]
    mases = [
        mase(t[:, None], f[:, None], seasonal_scale(v[:, None], SEASON))
        for t, f, v in zip(truth, forecast, train.values())
    ]
    return {"smape": float(np.mean(smapes)), "mase": float(np.mean(mases))}


if __name__ == "__main__":
    main()
