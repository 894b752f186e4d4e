"""Aaren's speed and memory: training against softmax attention, and a stream of a million steps.

python benchmarks/speed/aaren.py
python benchmarks/speed/aaren.py --parts training --lengths 256 1024 4096 16384 65536
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from tsllm import AarenForecaster
from tsllm.adapters.aaren.attention import AarenAttention
from tsllm.adapters.aaren.mixers import CausalAttention, MinGRU
from tsllm.adapters.aaren.prefix_scan import prefix_scan

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, machine, parser, spread, write

BATCH, HEADS, WIDTH = 8, 8, 64
HIDDEN = HEADS * WIDTH
#: Softmax attention beyond this would take minutes a step.
MOST_ATTENTION = 16_384


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    parts = ["training", "memory", "layer", "stream", "both_ways"]
    arguments.add_argument("--parts", nargs="+", default=parts, choices=parts)
    arguments.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    arguments.add_argument("--steps", type=int, default=1_000_000, help="steps of the stream")
    arguments.add_argument("--rounds", type=int, default=7)
    args = arguments.parse_args()
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other
    print(json.dumps(machine()))
    results: dict[str, object] = {"batch": BATCH, "heads": HEADS, "width": WIDTH}
    if "training" in args.parts:
        results["training"] = training(args.lengths, args.rounds)
    if "memory" in args.parts:
        results["memory"] = memory(args.lengths)
    if "layer" in args.parts:
        results["layer"] = layers(args.rounds)
    if "stream" in args.parts:
        results["stream"] = stream(args.steps)
    if "both_ways" in args.parts:
        results["both_ways"] = both_ways()
    write("aaren_speed" + args.tag, results, args.out)


def training(lengths: list[int], rounds: int) -> list[dict[str, object]]:
    """Time forward and backward passes of the cores, in turn."""
    table = []
    for tokens in lengths:
        turns = max(1, rounds * 1024 // max(1024, tokens))
        seconds = in_turn(_cores(tokens), turns, busy=True)
        table.append(_shown({"tokens": tokens} | {k: min(v) for k, v in seconds.items()}))
    return table


def memory(lengths: list[int]) -> list[dict[str, object]]:
    """Measure the peak memory of forward and backward beyond the inputs, a process each."""
    table = []
    for tokens in lengths:
        row: dict[str, object] = {"tokens": tokens}
        row["values_mib"] = 4 * BATCH * HEADS * WIDTH * tokens / 2**20
        for name in _cores(1):
            if name == "attention" and tokens > MOST_ATTENTION:
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row[f"{name}_mib"] = pool.apply(_peak, (name, tokens))
        table.append(_shown(row))
    return table


def layers(rounds: int) -> list[dict[str, object]]:
    """Time whole mixing layers, projections included, at lengths that forecasters use."""
    table = []
    for tokens in (64, 512):
        x = torch.randn(BATCH, tokens, HIDDEN)
        mixers = {
            "aaren": AarenAttention(HIDDEN, HEADS),
            "aaren_decay": AarenAttention(HIDDEN, HEADS, decay=True),
            "aaren_token": AarenAttention(HIDDEN, HEADS, query="token"),
            "mingru": MinGRU(HIDDEN),
            "attention": CausalAttention(HIDDEN, HEADS),
        }
        calls = {
            name: lambda mixer=mixer, x=x: mixer(x).sum().backward()
            for name, mixer in mixers.items()
        }
        seconds = in_turn(calls, rounds, busy=True)
        table.append(_shown({"tokens": tokens} | {k: min(v) for k, v in seconds.items()}))
    return table


def stream(steps: int) -> dict[str, object]:
    """Follow one series for so many steps: latency of an update, bytes of the state."""
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(steps + 200) * 2 * np.pi / 24) + rng.normal(0, 0.1, steps + 200)
    y = pd.Series(values, index=pd.RangeIndex(len(values)))
    forecaster = AarenForecaster(max_steps=2, context_length=256, random_state=0)
    forecaster.fit(y.iloc[:100], fh=[1])
    marks = [m for m in (100, 10_000, 1_000_000) if m <= steps]
    seen, table, started = 100, [], time.perf_counter()
    for mark in marks:
        while seen < mark:  # in pieces of a thousand
            end = min(mark, seen + 1000)
            forecaster.update(y.iloc[seen:end])
            seen = end
        updates, forecasts = [], []
        for step in range(seen, seen + 60):
            updates.append(_busy(lambda step=step: forecaster.update(y.iloc[step : step + 1])))
            forecasts.append(_busy(forecaster.predict))
        seen += 60
        kept = forecaster._memories[None].nbytes + forecaster._contexts[None].values.nbytes
        row = {
            "steps": mark,
            "update": spread(updates),
            "predict": spread(forecasts),
            "bytes": kept,
            "resident_mib": _status("VmRSS") / 1024,
        }
        table.append(row)
        print(
            f"{mark} steps: update {1e3 * row['update']['p50']:.2f} ms, predict "
            f"{1e3 * row['predict']['p50']:.2f} ms, {kept} bytes, {row['resident_mib']:.0f} MiB",
            flush=True,
        )
    return {"seconds": time.perf_counter() - started, "table": table}


def both_ways(steps: int = 400) -> list[dict[str, object]]:
    """Follow a series with one state and, with flip invariance, with two, in turn."""
    values = np.sin(np.arange(1000 + steps) * 2 * np.pi / 24)
    y = pd.Series(values, index=pd.RangeIndex(len(values)))
    forecasters = {
        flips: AarenForecaster(
            max_steps=2, context_length=256, flip_invariance=flips, random_state=0
        ).fit(y.iloc[:1000], fh=[1])
        for flips in (False, True)
    }
    updates: dict[bool, list[float]] = {False: [], True: []}
    predicts: dict[bool, list[float]] = {False: [], True: []}
    for step in range(1000, 1000 + steps):
        for flips, one in forecasters.items():
            updates[flips].append(_busy(partial(one.update, y.iloc[step : step + 1])))
            predicts[flips].append(_busy(one.predict))
    return [
        {
            "flip_invariance": flips,
            "update": spread(updates[flips]),
            "predict": spread(predicts[flips]),
            "bytes": one._memories[None].nbytes + one._contexts[None].values.nbytes,
        }
        for flips, one in forecasters.items()
    ]


def _cores(tokens: int) -> dict[str, Callable[[], None]]:
    """Return the forward and backward pass of each core over so many tokens."""
    q, k, v = (torch.randn(BATCH, HEADS, tokens, WIDTH, requires_grad=True) for _ in range(3))
    scores = torch.randn(BATCH, HEADS, tokens, requires_grad=True)

    def step(out: Tensor) -> None:
        out.sum().backward()
        for leaf in (q, k, v, scores):
            leaf.grad = None

    def attention() -> None:
        step(functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    calls = {
        "segmented": lambda: step(prefix_scan(scores, v, method="segmented")[0]),
        "matmul": lambda: step(prefix_scan(scores, v, method="matmul")[0]),
        "attention": attention,
    }
    if tokens > MOST_ATTENTION:
        del calls["attention"]
    return calls


def _peak(name: str, tokens: int) -> float:
    """Run one core once and return the growth of the process's peak, in MiB."""
    torch.set_num_threads(1)
    _cores(8)[name]()
    call = _cores(tokens)[name]
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 (no regular file)
        file.write("5")
    call()
    return (_status("VmHWM") - before) / 1024


def _shown(row: dict[str, object]) -> dict[str, object]:
    """Print a row and return it."""
    print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return row


def _busy(call: Callable[[], object]) -> float:
    """Return the seconds of one call: of the processor on a CPU, of the clock on a GPU."""
    return in_turn({"": call}, 1, warmup=0, busy=True)[""][0]


def _status(field: str) -> int:
    """Read a field of the process's status, in KiB."""
    with open("/proc/self/status") as file:  # noqa: PTH123 (no regular file)
        return next(int(line.split()[1]) for line in file if line.startswith(field))


if __name__ == "__main__":
    main()
