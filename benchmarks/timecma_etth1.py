"""TimeCMA on ETTh1 under the published protocol: whether the text helps, and what it costs.

Three parts, each left out by an option:

- accuracy: arms that differ in the embeddings only (of the pretrained model, of the same
  architecture with random weights, none), and in how values are written;
- cost: the first fit (cold store), the second (warm), and the head alone on random embeddings of
  the same shape, which the second should come close to;
- probe: what the embeddings tell of a window: how alike those of different variables are, and how
  much of the window's shape and of the next day a ridge regression reads from them.

ETTh1 is this project's development set: settings were tried on its test part, so its figures are
not a clean test.

    python benchmarks/timecma_etth1.py --data FOLDER --store STORE --seeds 0 1 2
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, setting, spread, synchronize, write
from sklearn.linear_model import RidgeCV

from tsllm import Context, TimeCMAForecaster, backtest, load_backbone
from tsllm.adapters.timecma import TimeCMAModel
from tsllm.datasets import load_benchmark, long_to_panel
from tsllm.embeddings import EmbeddingStore
from tsllm.prompts.writer import VALUE_FORMATS, PromptWriter, series_statistics
from tsllm.training.loop import train
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import Windows

CONTEXT = 96


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.set_defaults(layers=None)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="*", default=["pretrained", "random", "none"])
    arguments.add_argument("--value-formats", nargs="+", default=["window"], choices=VALUE_FORMATS)
    arguments.add_argument("--horizons", type=int, nargs="+", default=[96])
    arguments.add_argument("--window-stride", type=int, default=1)
    arguments.add_argument("--dtype", default="auto", help="that embeddings are computed in")
    arguments.add_argument("--stride", type=int, default=1, help="of the test windows")
    arguments.add_argument("--store", type=Path, help="embeddings are kept; default: for this run")
    arguments.add_argument("--cost-rows", type=int, default=2000, help="0: leave costs out")
    arguments.add_argument("--cost-steps", type=int, default=300)
    arguments.add_argument("--cost-turns", type=int, default=5, help="of warm fits and heads alone")
    arguments.add_argument("--probe-windows", type=int, default=140, help="0: leave the probe out")
    arguments.add_argument("--set", nargs="*", default=[], help="estimator parameters, key=value")
    args = arguments.parse_args()

    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame)
    # The authors' sizes for ETTh1.
    settings = {
        "context_length": CONTEXT,
        "channel": 64,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "dropout": 0.7,
        "batch_size": 16,
        "window_stride": args.window_stride,
        "dtype": args.dtype,
        **dict(setting(text) for text in args.set),
    }
    started = time.perf_counter()
    results: dict[str, Any] = {"parameters": settings}
    with tempfile.TemporaryDirectory() as folder:
        store = args.store or Path(folder) / "store"
        values, times = _first(y, benchmark.split.train)
        if args.probe_windows:
            results["probe"] = probe(values, times, args, store)
        if args.cost_rows:
            part = values[: args.cost_rows], times[: args.cost_rows]
            results["cost"] = cost(*part, args, settings, Path(folder) / "cold")
        if args.variants:
            results["accuracy"] = accuracy(y, benchmark.split, args, settings, store)
        held = EmbeddingStore(store).stats()
        del held["path"]  # says nothing of the figures, and something of this machine
        results["store"] = held
    results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    write("timecma_etth1" + args.tag, results, args.out)


def accuracy(
    y: pd.DataFrame, split: Any, args: Any, settings: dict[str, Any], store: Path
) -> list[dict[str, Any]]:
    """Score the arms on the test part, one model for each horizon."""
    results = []
    for horizon in args.horizons:
        estimators = {}
        for arm in args.variants:
            for value_format in args.value_formats if arm != "none" else [""]:
                backbone = _backbone(arm, args)
                estimators[f"{arm} {value_format}".strip()] = TimeCMAForecaster(
                    backbone,
                    backbone_layers=args.layers if backbone else None,
                    prediction_length=horizon,
                    value_format=value_format or "window",
                    embedding_store=store,
                    **settings,
                )
        report = backtest(
            estimators,
            y,
            horizons=[horizon],
            train_size=split.train,
            validation_size=split.validation,
            test_size=split.test,
            stride=args.stride,
            scaled=True,
            seeds=args.seeds,
            quantiles=(),
            metrics=["mse", "mae"],
            baselines=["seasonal_naive"],
            max_windows=20,
            progress=True,
        )
        with pd.option_context("display.width", 200, "display.max_columns", 30):
            print(report.table.to_string(index=False))
        first = next(iter(estimators))
        pairs = []
        for other in list(estimators)[1:]:
            pair = report.paired(first, other, "mse", horizon=horizon)
            pairs.append({"other": other, **pair._asdict()})
            print(
                f"{first} - {other}, horizon {horizon}: MSE {pair.difference:+.4f} "
                f"[{pair.lower:+.4f}, {pair.upper:+.4f}]"
            )
        results.append(
            {
                "horizon": horizon,
                "protocol": report.settings,
                "table": report.table.to_dict("records"),
                "paired": pairs,
                "notes": report.notes,
            }
        )
    return results


def cost(
    values: np.ndarray, times: pd.Index, args: Any, settings: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Time a cold fit; then, in turn, warm ones and the head alone for as many steps."""
    y = pd.DataFrame(values, index=times)
    settings = settings | {"max_steps": args.cost_steps, "patience": 1000, "max_epochs": 1000}
    stride = settings["window_stride"]

    def fit() -> Any:
        return TimeCMAForecaster(
            args.backbone,
            backbone_layers=args.layers,
            prediction_length=96,
            embedding_store=folder,
            random_state=0,
            **settings,
        ).fit(y)

    begun = time.perf_counter()
    state = fit().fitted_
    synchronize()
    cold = time.perf_counter() - begun
    prompts = EmbeddingStore(folder).stats()["misses"]
    # The same windows, model and loop, and embeddings that lie ready in memory.
    scaled = torch.from_numpy((values - values.mean(0)) / values.std(0)).float()
    windows = Windows([scaled], context_length=CONTEXT, target_length=96, stride=stride)
    training, validation = windows.split(0.1)
    width = state.backbone.hidden_size
    table = torch.randn(len(values), width, values.shape[1])
    loop = TrainingSettings(
        max_epochs=1000,
        max_steps=args.cost_steps,
        batch_size=settings["batch_size"],
        learning_rate=1e-4,
        weight_decay=1e-3,
        patience=1000,
        device=state.device,
    )

    def loss(model: Any, batch: Any) -> Loss:
        prompts = table[batch.start.cpu()].to(batch.values.device)
        out = model(batch.values[:, :CONTEXT], prompts, mask=batch.mask[:, :CONTEXT])
        error = (out - batch.values[:, CONTEXT:]) ** 2
        return Loss(error.sum(), torch.tensor(float(error.numel()), device=error.device))

    def head_alone() -> None:
        model = TimeCMAModel(
            CONTEXT,
            96,
            values.shape[1],
            width,
            channel=settings["channel"],
            encoder_layers=settings["encoder_layers"],
            decoder_layers=settings["decoder_layers"],
            dropout=settings["dropout"],
        )
        train(model, loss, training, validation, loop)

    seconds: dict[str, list[float]] = {"warm fit": [], "warm training": [], "head alone": []}
    for _ in range(args.cost_turns):
        begun = time.perf_counter()
        warm = fit().fitted_
        synchronize()
        between = time.perf_counter()
        head_alone()
        synchronize()
        seconds["warm fit"].append(between - begun)
        seconds["warm training"].append(sum(epoch["seconds"] for epoch in warm.history))
        seconds["head alone"].append(time.perf_counter() - between)
    head = np.median(seconds["head alone"])
    figures = {
        "cold_seconds": cold,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "prompts": prompts,
        "training_warm_over_head": float(np.median(seconds["warm training"]) / head),
        "fit_warm_over_head": float(np.median(seconds["warm fit"]) / head),
        "training_windows": len(training),
        "steps": args.cost_steps,
    }
    print("cost:", figures)
    return figures


def probe(
    values: np.ndarray, times: pd.Index, args: Any, store: Path
) -> dict[str, dict[str, float]]:
    """Tell how alike embeddings of one moment are, and what can be read from them."""
    backbone = load_backbone(args.backbone, layers=args.layers, dtype=args.dtype)
    context, variables = Context(values, times=times), values.shape[1]
    starts = np.linspace(0, len(values) - CONTEXT - 24, args.probe_windows).astype(int)
    rows = np.stack([values[s : s + CONTEXT + 24].T for s in starts])  # (windows, variables, 120)
    seen = rows[..., :CONTEXT]
    scaled = (rows - seen.mean(-1, keepdims=True)) / (seen.std(-1, keepdims=True) + 1e-9)
    thirds = scaled.reshape(-1, 15, 8).mean(-1)  # thirds of a day
    targets = {"shape": thirds[:, :12], "next day": thirds[:, 12:]}
    fold = np.repeat(np.arange(len(starts)) * 10 // len(starts), variables)  # in time
    results = {}
    for value_format in VALUE_FORMATS:
        prompts = PromptWriter(value_format=value_format).write(
            context, starts, CONTEXT, statistics=series_statistics(values)
        )
        embeddings = EmbeddingStore(store).encode(prompts, backbone, progress=True)
        normed = torch.nn.functional.normalize(embeddings, dim=-1).unflatten(0, (-1, variables))
        cosine = normed @ normed.transpose(1, 2)  # (windows, variables, variables)
        pairs = torch.ones(variables, variables, dtype=torch.bool).triu(1)
        results[value_format] = {
            "mean pairwise cosine": float(cosine[:, pairs].mean()),
            "mean tokens": float(np.mean(backbone.token_counts(prompts))),
            "most tokens": float(max(backbone.token_counts(prompts))),
            **{f"R2 of {k}": _score(embeddings.numpy(), y, fold) for k, y in targets.items()},
        }
    print(pd.DataFrame(results).T.to_string(float_format="{:.3f}".format))
    return results


def _score(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Cross-validate a ridge regression, fold by fold in time."""
    predicted = np.zeros_like(y)
    for held_out in np.unique(fold):
        training = fold != held_out
        ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(x[training], y[training])
        predicted[~training] = ridge.predict(x[~training])
    return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def _first(y: pd.DataFrame, rows: int) -> tuple[np.ndarray, pd.DatetimeIndex]:
    """Give the values and stamps of the training part."""
    times = pd.DatetimeIndex(y.index.get_level_values(-1)[:rows], freq="h")
    return y.to_numpy()[:rows], times


def _backbone(arm: str, args: Any) -> str | None:
    return {"pretrained": args.backbone, "random": f"random:{args.backbone}?seed=0", "none": None}[
        arm
    ]


if __name__ == "__main__":
    main()
