"""The embedding store: encoding against one prompt at a time, reading, latency of a forecast.

Prompts are those of ETTh1's windows of 96 steps, about 275 tokens each. Everything is compared in
one process, in turn.

    python benchmarks/speed/embedding_store.py --data FOLDER --layers 6
    python benchmarks/speed/embedding_store.py --layers 12 \
        --backbone "random:gpt2?hidden=768&layers=12&heads=12" --rounds 3
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tsllm import TimeCMAForecaster, load_backbone
from tsllm.backbone import Backbone, native_bfloat16
from tsllm.datasets import load_benchmark, long_to_panel
from tsllm.embeddings import EmbeddingStore
from tsllm.embeddings.encoding import length_batches
from tsllm.forecasters.frames import split_series
from tsllm.prompts.writer import PromptWriter

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, machine, parser, peak_memory_mib, spread, synchronize, timed, write

CONTEXT, HORIZON = 96, 96


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--prompts", type=int, default=64, help="prompts a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--read", type=int, default=5000, help="prompts of the second pass")
    arguments.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    args = arguments.parse_args()
    print(machine())
    benchmark = load_benchmark("ETTh1", folder=args.data, allow_download=False)
    y = long_to_panel(benchmark.frame).iloc[:12_000]
    backbones = {
        dtype: load_backbone(args.backbone, layers=args.layers, dtype=dtype)
        for dtype in args.precisions
    }
    prompts = prompts_of(y)
    # Reading does not depend on the layers, and one layer fills the store fast.
    quick = load_backbone(args.backbone, layers=1, dtype=args.precisions[0])
    results = {
        "backbone": args.backbone,
        "layers": args.layers,
        "native_bfloat16": native_bfloat16(next(iter(backbones.values())).device),
        "encoding": encoding(backbones, prompts, args.prompts, args.rounds),
        "second_pass": second_pass(quick, prompts[-args.read :]),
        "latency": latencies(args.backbone, args.layers, y),
        "memory": peak_memory_mib(),
    }
    write("embedding_store" + args.tag, results, args.out)


def prompts_of(y) -> list[str]:
    """Write the prompts of many windows of ETTh1, all different."""
    (context,) = split_series(y)
    starts = np.arange(0, len(context) - CONTEXT, 7)
    return PromptWriter().write(context, starts, CONTEXT)


def encoding(
    backbones: dict[str, Backbone], prompts: list[str], size: int, rounds: int
) -> dict[str, object]:
    """Time one prompt at a time and the store, on new prompts each round."""
    rates: dict[str, list[float]] = {}
    vectors: dict[str, torch.Tensor] = {}
    results: dict[str, object] = {"prompts_a_round": size}
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(folder)
        for turn in range(rounds + 1):  # the first is a warm-up
            part = prompts[turn * size : (turn + 1) * size]
            for dtype, backbone in backbones.items():
                started = time.perf_counter()
                for text in part:
                    backbone.last_token([text])
                synchronize()
                between = time.perf_counter()
                store.encode(part, backbone)
                ended = time.perf_counter()
                if turn:
                    rates.setdefault(f"plain {dtype}", []).append(size / (between - started))
                    rates.setdefault(f"store {dtype}", []).append(size / (ended - between))
                vectors[dtype] = store.encode(part, backbone)
            print(f"round {turn}: load {os.getloadavg()[0]:.2f}", flush=True)
    tokens = next(iter(backbones.values())).tokens(prompts[: 4 * size])
    lengths = np.array([len(row) for row in tokens])
    room = sum(len(b) * int(lengths[b].max()) for b in length_batches(lengths))
    results["mean_tokens"] = float(lengths.mean())
    results["padding"] = float(1 - lengths.sum() / room)
    results["prompts_per_second"] = {name: spread(values) for name, values in rates.items()}
    base = np.median(rates[f"plain {next(iter(backbones))}"])
    results["ratio_to_plain_float32"] = {
        name: float(np.median(values) / base) for name, values in rates.items()
    }
    results["ratio_to_plain_same_precision"] = {
        dtype: float(np.median(rates[f"store {dtype}"]) / np.median(rates[f"plain {dtype}"]))
        for dtype in backbones
    }
    for name, values in rates.items():
        print(f"{name}: {np.median(values):.1f} prompts/s, {np.median(values) / base:.2f} x plain")
    if len(vectors) == 2:
        cosine = torch.nn.functional.cosine_similarity(*vectors.values())
        results["cosine_of_precisions"] = {
            "min": float(cosine.min()),
            "mean": float(cosine.mean()),
        }
        print(f"cosine of the two precisions: min {cosine.min():.5f}, mean {cosine.mean():.5f}")
    first = next(iter(backbones.values()))
    results["share_of_matmul_rate"] = share_of_peak(
        first, float(np.median(rates[f"store {next(iter(backbones))}"])) * lengths.mean()
    )
    return results


def share_of_peak(backbone: Backbone, tokens_per_second: float) -> dict[str, float]:
    """Compare the arithmetic of encoding with the device's own rate for a large product."""
    side = 4096 if backbone.device.type == "cuda" else 1536
    a = torch.randn(side, side, device=backbone.device, dtype=backbone.dtype)
    seconds = float(np.median(timed(lambda: a @ a, repeats=7)))
    peak = 2 * side**3 / seconds
    blocks = backbone.parameter_count - backbone.word_embeddings.numel()
    used = 2 * blocks * tokens_per_second
    print(f"{tokens_per_second:.0f} tokens/s, {used / peak:.0%} of {peak / 1e9:.0f} GFLOP/s")
    return {
        "tokens_per_second": tokens_per_second,
        "matmul_gflops": peak / 1e9,
        "share": used / peak,
    }


def second_pass(backbone: Backbone, prompts: list[str]) -> dict[str, object]:
    """Time reading known vectors: by their texts, which are hashed again, and by their keys."""
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(folder)
        keys = store.fill(prompts, backbone)
        calls = {
            "encode": lambda: store.encode(prompts, backbone),
            "fill": lambda: store.fill(prompts, backbone),
            "read": lambda: store.read(keys, backbone),
        }
        rates = {
            name: [len(prompts) / s for s in timed(call, repeats=15, warmup=2)]
            for name, call in calls.items()
        }
    for name, values in rates.items():
        print(f"second pass, {name}: {np.median(values):,.0f} vectors/s")
    figures = {name: spread(values) for name, values in rates.items()}
    return {"vectors": len(prompts), "width": backbone.hidden_size, **figures}


def latencies(backbone: str, layers: int, y) -> list[dict[str, object]]:
    """Time `forecast` of one new window, seven variables: warm store, cold store, no store."""
    table = []
    with tempfile.TemporaryDirectory() as folder:
        forecaster = TimeCMAForecaster(
            backbone,
            backbone_layers=layers,
            context_length=CONTEXT,
            prediction_length=HORIZON,
            window_stride=96,
            max_steps=2,
            embedding_store=folder,
            random_state=0,
        ).fit(y.iloc[:1000])
        core = forecaster.fitted_.backbone
        (whole,) = split_series(y)
        windows = [whole.until(2000 + 101 * i).tail(CONTEXT) for i in range(40)]
        writer = PromptWriter()
        seconds: dict[str, list[float]] = {}
        for turn, window in enumerate(windows):
            prompts = writer.write(window, [0], CONTEXT)

            def forecast(window=window):
                forecaster.forecast([window], HORIZON)

            def without_store(prompts=prompts, forecast=forecast):
                for prompt in prompts:  # a forecast that embeds its prompts itself, one by one
                    core.last_token([prompt])
                forecast()

            calls = {"cold store": forecast, "warm store": forecast, "no store": without_store}
            for name, values in in_turn(calls, 1, warmup=0).items():
                seconds.setdefault(name, []).extend(values if turn else [])
        for name, values in seconds.items():
            figures = spread(values)
            print(
                f"forecast of one window, {name}: p50 {figures['p50'] * 1e3:.1f} ms, "
                f"p95 {figures['p95'] * 1e3:.1f} ms"
            )
            table.append({"store": name, **figures})
    return table


if __name__ == "__main__":
    main()
