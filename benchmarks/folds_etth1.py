"""Rolling validation of AutoTimes' settings on ETTh1: three folds inside its first 16 months.

One validation block misleads: on ETTh1's published one everything without a language model looks
best. So settings are chosen on three folds that lie before the test part and do not overlap: fitted
on the first 6, 9 and 12 months, scored on origins of the three months after. The test part is not
read.

    python benchmarks/folds_etth1.py --data FOLDER --settings published flips "flips, context 480"
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import parser, peak_memory_mib, write

from tsllm import AutoTimesForecaster, Context
from tsllm.datasets import load_benchmark, long_to_panel

HORIZONS = [96, 192, 336, 720]
LONGEST = HORIZONS[-1]
#: Steps that a fold is fitted on; the last fifth of them stops the training.
FOLDS = [4320, 6480, 8640]
#: Origins that a fold is scored on: every twelfth of three months.
SCORED, STRIDE = 2160, 12
VALIDATION_FRACTION = 0.2
#: The setting of before, and what each of the others changes in it.
PUBLISHED: dict[str, Any] = {
    "context_length": 672,
    "token_length": 96,
    "batch_size": 256,
    "flip_invariance": False,
}
FLIPS = {"flip_invariance": True}
FLIPS_480 = FLIPS | {"context_length": 480}
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "context 480": {"context_length": 480},
    "flips": FLIPS,
    "flips, context 480": FLIPS_480,
    "flips, context 384": FLIPS | {"context_length": 384},
    "flips, context 288": FLIPS | {"context_length": 288},
    "flips, tokens of 168": FLIPS | {"token_length": 168},
    "flips, context 480, tokens of 48": FLIPS_480 | {"token_length": 48},
    "flips, context 480, dropout .4": FLIPS_480 | {"dropout": 0.4},
    "flips, context 480, dropout 0": FLIPS_480 | {"dropout": 0.0},
    "flips, context 480, Huber's loss": FLIPS_480 | {"loss": "huber"},
    "flips, context 480, weight decay .1": FLIPS_480 | {"weight_decay": 0.1},
    "flips, context 480, MLPs": FLIPS_480 | {"mlp_layers": 2},
    "flips, context 480, three layers": FLIPS_480 | {"backbone_layers": 3},
    "flips, context 480, one layer": FLIPS_480 | {"backbone_layers": 1},
    "flips, context 480, no language model": FLIPS_480 | {"backbone": None},
    "flips, context 480, random weights": FLIPS_480 | {"backbone": "random"},
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame).iloc[: benchmark.split.train + benchmark.split.validation]
    scale = y.to_numpy()[: benchmark.split.train].std(axis=0)
    started, rows = time.perf_counter(), []
    for name in args.settings:
        for seed in args.seeds:
            for end in FOLDS:
                begun = time.perf_counter()
                fitted = make(name, args, seed).fit(y.iloc[:end], fh=range(1, 97))
                row = {
                    "setting": name,
                    "seed": seed,
                    "fold": end,
                    "fit_seconds": time.perf_counter() - begun,
                    "epochs": len(fitted.fitted_.history),
                    "best_epoch": fitted.fitted_.best_epoch,
                    **score(fitted, y, end, scale),
                }
                rows.append(row)
                print(row, flush=True)
                write(  # after each fold: a run that is stopped keeps what it has measured
                    f"folds_etth1{args.tag}",
                    {
                        "published": PUBLISHED | {"backbone_layers": args.layers},
                        "changes": {key: SETTINGS[key] for key in args.settings},
                        "folds": FOLDS,
                        "rows": rows,
                        "seconds": time.perf_counter() - started,
                        "memory": peak_memory_mib(),
                    },
                    args.out,
                )


def make(name: str, args: Any, seed: int) -> AutoTimesForecaster:
    """Make the forecaster of a setting."""
    settings = {"backbone": args.backbone, "backbone_layers": args.layers} | PUBLISHED
    settings |= SETTINGS[name]
    if settings["backbone"] is None:
        settings["backbone_layers"] = None
    elif settings["backbone"] == "random":
        settings["backbone"] = f"random:{args.backbone}?seed=0"
    return AutoTimesForecaster(
        prediction_length=settings["token_length"],
        validation_fraction=VALIDATION_FRACTION,
        random_state=seed,
        **settings,
    )


def score(
    fitted: AutoTimesForecaster, y: pd.DataFrame, end: int, scale: np.ndarray
) -> dict[str, float]:
    """Average the squared error, in units of the training part's deviation, per horizon."""
    values, times = y.to_numpy(), pd.DatetimeIndex(y.index, freq="h")
    origins = np.arange(end, end + SCORED, STRIDE)
    forecasts = []
    for batch in np.array_split(origins, -(-len(origins) // 128)):
        first = [max(0, origin - PUBLISHED["context_length"]) for origin in batch]
        contexts = [Context(values[a:b], times=times[a:b]) for a, b in zip(first, batch)]
        forecasts.append(fitted.forecast(contexts, LONGEST)[..., 0])
    actual = np.stack([values[origin : origin + LONGEST] for origin in origins])
    squared = ((np.concatenate(forecasts) - actual) / scale) ** 2  # (origins, 720, variables)
    found = {f"mse_{horizon}": float(squared[:, :horizon].mean()) for horizon in HORIZONS}
    return found | {"mse": float(np.mean(list(found.values())))}


if __name__ == "__main__":
    main()
