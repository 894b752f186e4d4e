"""S²IP-LLM's speed against the published way: its two costly parts, and a whole training step.

The published way is rebuilt here: one pandas frame per row on the CPU for the decomposition, and
prototypes mixed from the whole vocabulary at every step. Both ways take turns in one process. The
step is the same in all else: the same backbone, in the same precision, and Adam over what is
trained.

    python benchmarks/speed/s2ip.py
    python benchmarks/speed/s2ip.py --backbone openai-community/gpt2 --layers 6
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tsllm import Backbone, load_backbone
from tsllm.adapters.s2ip import model as s2ip
from tsllm.adapters.s2ip.anchors import build_anchors, retrieve
from tsllm.adapters.s2ip.decomposition import decompose
from tsllm.backbone import autocast_backbone, native_bfloat16, tuned

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, machine, parser, peak_memory_mib, spread, write

CONTEXT, HORIZON, TREND, SEASON = 512, 96, 96, 96  # ETTh1, as published
POOL, PROMPT = 1000, 4


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--turns", type=int, default=7)
    args = arguments.parse_args()
    print(machine())
    core = load_backbone(args.backbone, layers=args.layers)
    results: dict[str, Any] = {
        "backbone": args.backbone,
        "layers": args.layers,
        "dtype": str(core.dtype),
        "batch": args.batch,
        "context": CONTEXT,
        "horizon": HORIZON,
        "pool": POOL,
        "decomposition": compare_decompositions(core, args.batch, args.turns),
        "anchors": compare_anchors(core, args.batch, args.turns),
        "training_step": compare_steps(core, args.batch, args.turns),
    }
    # The time of both parts together, published over ours.
    parts = [results["decomposition"], results["anchors"]]
    together = {way: sum(part[way]["p50"] for part in parts) for way in ("published", "ours")}
    results["parts_together"] = together["published"] / together["ours"]
    print(f"decomposition and anchors together: {results['parts_together']:.1f} times")
    results["memory"] = peak_memory_mib()
    write("s2ip_speed" + args.tag, results, args.out)


def decompose_with_pandas(x: Tensor, trend_length: int, seasonal_length: int, _: Any) -> Tensor:
    """Decompose one row at a time on the CPU, as the published code does."""

    def one(row: np.ndarray) -> np.ndarray:
        frame = pd.DataFrame(row)
        trend = frame.rolling(window=trend_length, center=True).mean().bfill().ffill()
        detrended = frame - trend
        groups = detrended.groupby(detrended.index % seasonal_length)
        seasonal = groups.transform("mean").bfill().ffill()
        return np.stack([trend, seasonal, frame - trend - seasonal], axis=1)

    parts = np.apply_along_axis(one, 1, x.cpu().numpy())  # (samples, time, 3, 1)
    stacked = torch.tensor(parts).to(x.device)[..., 0]
    return stacked.transpose(1, 2).float()  # (samples, 3, time)


def compare_decompositions(core: Backbone, batch: int, turns: int) -> dict[str, Any]:
    """Time the decomposition of a batch in both ways."""
    x = torch.randn(batch, CONTEXT, device=core.device).cumsum(1)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    error = decompose_with_pandas(x, TREND, SEASON, None) - decompose(x, TREND, SEASON)
    figures = take_turns(
        {
            "published": lambda: decompose_with_pandas(x, TREND, SEASON, None),
            "ours": lambda: decompose(x, TREND, SEASON),
        },
        turns,
        "decomposition",
    )
    return figures | {"largest_difference": float(error.abs().max())}


def compare_anchors(core: Backbone, batch: int, turns: int) -> dict[str, Any]:
    """Time mixing and retrieving anchors, with their gradients, in both ways."""
    words, width = core.word_embeddings, core.hidden_size
    query = torch.randn(batch, width, device=core.device)
    pools = {
        "published": build_anchors("prototypes", POOL, width, words).to(core.device),
        "ours": build_anchors("free", POOL, width, words).to(core.device),
    }

    def step(way: str) -> Callable[[], None]:
        def call() -> None:
            found = retrieve(query, pools[way](words), PROMPT)
            (found.similarities.sum() + found.anchors.sum()).backward()
            pools[way].zero_grad()

        return call

    return take_turns({way: step(way) for way in pools}, turns, "anchors")


def compare_steps(core: Backbone, batch: int, turns: int) -> dict[str, Any]:
    """Time a training step, forward, backward and Adam, in both ways, and profile ours."""
    dtype = torch.bfloat16 if native_bfloat16(core.device) else None
    x = torch.randn(batch, CONTEXT, 1, device=core.device).cumsum(1)
    target = torch.randn(batch, HORIZON, 1, device=core.device)
    ways = {"published": ("prototypes", decompose_with_pandas), "ours": ("free", decompose)}

    def make(anchors: str, decomposition: Callable[..., Tensor]) -> Callable[[], None]:
        model = s2ip.S2IPModel(
            tuned(core, train=["layer_norms", "positions"]),
            CONTEXT,
            HORIZON,
            trend_length=TREND,
            seasonal_length=SEASON,
            anchors=anchors,
            pool_size=POOL,
            prompt_length=PROMPT,
        ).to(core.device)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

        def step() -> None:
            s2ip.decompose = decomposition
            with autocast_backbone(dtype):
                forecast, similarity = model(x)
                loss = (forecast - target).square().mean() - 0.05 * similarity
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()

        return step

    steps = {way: make(*parts) for way, parts in ways.items()}
    figures = take_turns(steps, turns, "training step")
    profiles = {way: profiled(step) for way, step in steps.items()}
    s2ip.decompose = decompose
    return figures | {"backbone_computes_in": str(dtype or core.dtype), "profile": profiles}


def profiled(call: Callable[[], None], *, rows: int = 8) -> list[dict[str, Any]]:
    """List the operations that take most of the time of a call."""
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities) as profiler:
        call()
    spent = [
        (event.key, event.self_device_time_total if cuda else event.self_cpu_time_total)
        for event in profiler.key_averages()
    ]
    total = sum(time for _, time in spent)
    shares = [
        {"operation": key, "share": round(time / total, 3), "ms": round(time / 1e3, 2)}
        for key, time in sorted(spent, key=lambda pair: -pair[1])[:rows]
    ]
    for row in shares:
        print(f"    {row['share']:6.1%}  {row['ms']:9.2f} ms  {row['operation']}")
    return shares


def take_turns(calls: dict[str, Callable[[], Any]], turns: int, name: str) -> dict[str, Any]:
    """Time calls in turn, and compare the published way with ours."""
    seconds = in_turn(calls, turns)
    figures: dict[str, Any] = {way: spread(times) for way, times in seconds.items()}
    figures["ratio"] = figures["published"]["p50"] / figures["ours"]["p50"]
    print(
        f"{name}: published {figures['published']['p50'] * 1e3:.2f} ms, ours "
        f"{figures['ours']['p50'] * 1e3:.2f} ms, {figures['ratio']:.1f} times"
    )
    return figures


if __name__ == "__main__":
    main()
