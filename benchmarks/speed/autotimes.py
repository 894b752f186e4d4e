"""AutoTimes' speed: a training step, a rollout of 720 steps in both modes, latency of a forecast.

python benchmarks/speed/autotimes.py
python benchmarks/speed/autotimes.py --llama7b     (needs a GPU with 40 GiB)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tsllm import AutoTimesForecaster, Context, load_backbone
from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.adapters.losses import next_segment_loss
from tsllm.backbone import Backbone, autocast_backbone

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, machine, parser, peak_memory_mib, spread, timed, write

CONTEXT, TOKEN, HORIZON = 672, 96, 720
LLAMA_7B = "random:llama?hidden=4096&layers=32&heads=32&intermediate=11008&vocab=32000"


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--llama7b", action="store_true", help="a 7B-shaped random LLaMA")
    args = arguments.parse_args()
    if args.llama7b:
        write("llama7b_step" + args.tag, llama7b(), args.out)
        return
    print(machine())
    results = {
        "training_step": training_steps(args.backbone, args.layers),
        "rollout_720": rollouts(args.backbone, args.layers),
        "latency": latencies(args.backbone, args.layers),
    }
    results["memory"] = peak_memory_mib()
    write("autotimes_speed" + args.tag, results, args.out)


def trainer(core: Backbone, batch: int) -> tuple[AutoTimesModel, Callable[..., float]]:
    """Make a model and a training step (forward, backward, Adam) that returns the loss."""
    model = AutoTimesModel(core, TOKEN).to(core.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-4)
    values = torch.randn(batch, CONTEXT + TOKEN, 1, device=core.device)

    def step(dtype: torch.dtype | None = None) -> float:
        with autocast_backbone(dtype):
            total, count = next_segment_loss(model, values)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
        return float(total.detach() / count)

    return model, step


def training_steps(backbone: str, layers: int, *, batch: int = 256) -> dict[str, object]:
    """Time a step of 256 windows of 7 tokens in both precisions."""
    core = load_backbone(backbone, layers=layers)
    _, step = trainer(core, batch)
    results: dict[str, object] = {"windows": batch, "tokens": CONTEXT // TOKEN, "layers": layers}
    calls = {"float32": lambda: step(None), "bfloat16": lambda: step(torch.bfloat16)}
    seconds = in_turn(calls, 10)
    for name, values_ in seconds.items():
        results[name] = spread(values_)
        print(f"training step, {name}: {np.median(values_):.4f} s")
    results["backbone_dtype"] = str(core.dtype)
    results["ratio"] = float(np.median(seconds["float32"]) / np.median(seconds["bfloat16"]))
    return results


def rollouts(backbone: str, layers: int) -> list[dict[str, object]]:
    """Time a forecast of 720 steps, re-reading the context or on the key-value cache."""
    core = load_backbone(backbone, layers=layers)
    model = AutoTimesModel(core, TOKEN).to(core.device).eval()
    table = []
    for rows in (1, 32, 224, 1024):
        x = torch.randn(rows, CONTEXT, 1, device=core.device)
        calls = {
            mode: lambda x=x, mode=mode: model.rollout(x, HORIZON, mode=mode)
            for mode in ("sliding", "cached")
        }
        with torch.inference_mode():
            seconds = in_turn(calls, 7)
        ratio = float(np.median(seconds["sliding"]) / np.median(seconds["cached"]))
        print(f"rollout of {HORIZON} steps, {rows} rows: sliding / cached = {ratio:.2f}")
        table.append({"rows": rows, "ratio": ratio, **{m: spread(s) for m, s in seconds.items()}})
    return table


def latencies(backbone: str, layers: int) -> list[dict[str, object]]:
    """Time `predict` and the stateless core for one series and for a thousand."""
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=2000, freq="h")
    season = np.sin(np.arange(2000) * 2 * np.pi / 24)
    y = pd.Series(season + rng.normal(0, 0.1, 2000), index=index)
    forecaster = AutoTimesForecaster(
        backbone,
        backbone_layers=layers,
        context_length=CONTEXT,
        token_length=TOKEN,
        max_steps=2,
        random_state=0,
    ).fit(y, fh=range(1, 97))
    many = [Context(season[:700] + rng.normal(0, 0.1, 700)) for _ in range(1000)]
    calls = [
        ("predict, one series", lambda: forecaster.predict(), 100),
        (
            "predict_interval, one series",
            lambda: forecaster.predict_interval(coverage=[0.8, 0.95]),
            50,
        ),
        ("forecast, one context", lambda: forecaster.forecast(many[:1], 96), 100),
        ("forecast, 1000 contexts", lambda: forecaster.forecast(many, 96), 7),
        (
            "forecast, 1000 contexts, 9 quantiles",
            lambda: forecaster.forecast(many, 96, quantiles=np.arange(1, 10) / 10),
            5,
        ),
    ]
    table = []
    for name, call, repeats in calls:
        figures = spread(timed(call, repeats=repeats, warmup=2))
        print(f"{name}: p50 {figures['p50'] * 1e3:.1f} ms, p95 {figures['p95'] * 1e3:.1f} ms")
        table.append({"call": name, **figures})
    return table


def llama7b(*, steps: int = 8, batch: int = 16) -> dict[str, object]:
    """Train AutoTimes a few steps around a random LLaMA of 7B's shape."""
    started = time.perf_counter()
    core = load_backbone(LLAMA_7B, device="cuda")
    load_seconds = time.perf_counter() - started
    torch.cuda.reset_peak_memory_stats()
    model, step = trainer(core, batch)
    losses: list[float] = []
    seconds = timed(lambda: losses.append(step()), repeats=steps, warmup=2)
    results = {
        "backbone": LLAMA_7B,
        "parameters": core.parameter_count,
        "dtype": str(core.dtype),
        "load_seconds": load_seconds,
        "batch": batch,
        "tokens": CONTEXT // TOKEN,
        "seconds_per_iteration": spread(seconds),
        "losses": losses,
        "trained_parameters": sum(p.numel() for p in model.parameters()),
        "memory": peak_memory_mib(),
    }
    print(
        f"LLaMA-7B shape, {batch} windows of {CONTEXT // TOKEN} tokens: "
        f"{results['seconds_per_iteration']['p50']:.4f} s/iteration, "
        f"peak {results['memory']['gpu_mib'] / 1024:.1f} GiB"
    )
    return results


if __name__ == "__main__":
    main()
