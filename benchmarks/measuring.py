"""Shared parts of the benchmarks: timing, the description of the machine, the file of results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import tsllm

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Describe the machine and how busy it is."""
    cuda = torch.cuda.is_available()
    cpu = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "tsllm": tsllm.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def timed(call: Callable[[], Any], *, repeats: int, warmup: int = 1) -> list[float]:
    """Return the seconds of each of several calls, with those of the GPU."""
    return in_turn({"": call}, repeats, warmup=warmup)[""]


def in_turn(
    calls: dict[str, Callable[[], Any]], turns: int, *, warmup: int = 1, busy: bool = False
) -> dict[str, list[float]]:
    """Return the seconds of calls that take turns, so that a busy machine slows all of them.

    ``busy``: seconds of the processor instead of the clock, if there is no GPU.
    """
    clock = time.process_time if busy and not torch.cuda.is_available() else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + turns):
        for name, call in calls.items():
            synchronize()
            started = clock()
            call()
            synchronize()
            if turn >= warmup:
                seconds[name].append(clock() - started)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    """Summarise seconds: median, 5th and 95th percentile."""
    p5, p50, p95 = np.percentile(seconds, [5, 50, 95])
    return {"p50": float(p50), "p5": float(p5), "p95": float(p95), "runs": len(seconds)}


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_mib() -> dict[str, float]:
    """Return the process's peak resident memory and the GPU's peak allocation."""
    peak = {"host_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if torch.cuda.is_available():
        peak["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def write(name: str, results: dict[str, Any], folder: Path | None = None) -> Path:
    """Write results as JSON, with the machine they were measured on."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps({"machine": machine(), **results}, indent=1, default=str)
    path.write_text(text + "\n")
    print(f"wrote {path}")
    return path


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that all benchmarks have."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--data", help="folder with the data files; default: TSLLM_DATA")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    arguments.add_argument("--tag", default="", help="added to the name of the JSON file")
    arguments.add_argument(
        "--backbone", default="sentence-transformers/all-MiniLM-L6-v2", help="id or directory"
    )
    arguments.add_argument("--layers", type=int, default=2, help="backbone layers kept")
    return arguments


def setting(text: str) -> tuple[str, Any]:
    """Read ``key=value``, the value as a number, True, False, None or text."""
    key, value = text.split("=", 1)
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, {"True": True, "False": False, "None": None}.get(value, value)


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
