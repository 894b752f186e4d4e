"""Cost of TimeCMA's embeddings on ETTh1's training part.

The first fit (cold store), then, in turn, fits with a warm store and the head alone on random
embeddings of the same shape. A warm fit should take little longer than the head alone.

    python benchmarks/speed/timecma.py --data FOLDER --layers 2
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsllm import TimeCMAForecaster
from tsllm.adapters.timecma import TimeCMAModel
from tsllm.datasets import load_benchmark, long_to_panel
from tsllm.embeddings import EmbeddingStore
from tsllm.training.loop import train
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import Windows

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, parser, peak_memory_mib, spread, write

CONTEXT = 96
#: The authors' sizes for ETTh1.
SIZES: dict[str, Any] = {"channel": 64, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.7}
BATCH, STRIDE = 16, 7


def main() -> None:
    """Measure the cost and write its figures."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=2000)
    arguments.add_argument("--steps", type=int, default=150)
    arguments.add_argument("--turns", type=int, default=5, help="warm fits and heads alone")
    args = arguments.parse_args()
    started = time.perf_counter()
    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame).iloc[: benchmark.split.train]
    y.index = pd.DatetimeIndex(y.index.get_level_values(-1), freq="h")
    results: dict[str, Any] = {"parameters": SIZES}
    with tempfile.TemporaryDirectory() as folder:
        results["cost"] = cost(y[: args.rows], args, Path(folder) / "cost")
    results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    write("timecma_etth1_cost" + args.tag, results, args.out)


def cost(y: pd.DataFrame, args: Any, folder: Path) -> dict[str, Any]:
    """Time a cold fit; then, in turn, warm fits and the head alone for as many steps."""
    values, trainings = y.to_numpy(), []

    def fit() -> Any:
        forecaster = TimeCMAForecaster(
            args.backbone, backbone_layers=args.layers, context_length=CONTEXT,
            prediction_length=96, embedding_store=folder, random_state=0, batch_size=BATCH,
            window_stride=STRIDE, max_steps=args.steps, patience=1000, max_epochs=1000, **SIZES,
        )  # fmt: skip
        state = forecaster.fit(y).fitted_
        trainings.append(sum(epoch["seconds"] for epoch in state.history))
        return state

    begun = time.perf_counter()
    state = fit()
    cold = time.perf_counter() - begun
    prompts = EmbeddingStore(folder).stats()["misses"]
    # The same windows, model and loop, with embeddings that lie ready in memory.
    scaled = torch.from_numpy((values - values.mean(0)) / values.std(0)).float()
    windows = Windows([scaled], context_length=CONTEXT, target_length=96, stride=STRIDE)
    training, validation = windows.split(0.1)
    width = state.backbone.hidden_size
    table = torch.randn(len(values), width, values.shape[1])
    loop = TrainingSettings(
        max_epochs=1000, max_steps=args.steps, batch_size=BATCH, learning_rate=1e-4,
        weight_decay=1e-3, patience=1000, device=state.device,
    )  # fmt: skip

    def loss(model: Any, batch: Any) -> Loss:
        prompts = table[batch.start.cpu()].to(batch.values.device)
        out = model(batch.values[:, :CONTEXT], prompts, mask=batch.mask[:, :CONTEXT])
        error = (out - batch.values[:, CONTEXT:]) ** 2
        return Loss(error.sum(), torch.tensor(float(error.numel()), device=error.device))

    def head_alone() -> None:
        model = TimeCMAModel(CONTEXT, 96, values.shape[1], width, **SIZES)
        train(model, loss, training, validation, loop)

    seconds = in_turn({"warm fit": fit, "head alone": head_alone}, args.turns, warmup=0)
    seconds["warm training"] = trainings[1:]
    median = {name: float(np.median(found)) for name, found in seconds.items()}
    figures = {
        "cold_seconds": cold,
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "prompts": prompts,
        "training_warm_over_head": median["warm training"] / median["head alone"],
        "fit_warm_over_head": median["warm fit"] / median["head alone"],
        "training_windows": len(training),
        "steps": args.steps,
    }
    print("cost:", figures)
    return figures


if __name__ == "__main__":
    main()
