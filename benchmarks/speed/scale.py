"""A million series in a folder of parts: rate, memory, and the time to continue after a kill.

    python benchmarks/speed/scale.py --folder /tmp/scale --series 1000000

Two jobs forecast the same data: the local engine, and two workers of Ray. Each is killed (SIGKILL)
when half of its blocks are written, and started again; of Ray, a worker is killed before, too. The
forecasts of both must be equal. The folder keeps the data, the jobs and the figures of what is
done, so that the benchmark itself continues where it was stopped. Beside the clock the seconds of
the processor are counted, which a busy machine does not change.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import tsllm

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from batch import series, write_rows
from measuring import parser, write

_JOB = """
import json, sys, time
import torch
torch.set_num_threads(1)
from tsllm.batch import Workers, predict_batch

def say(**found):
    print(json.dumps({"at": time.time(), **found}), flush=True)

engine, model, data, out = sys.argv[1:]
result = predict_batch(
    model, data, out, engine=engine, workers=Workers(2) if engine == "ray" else None,
    batch_size=256,
    on_block=lambda block: say(series=block.series, process=block.process),
)
say(blocks=result.blocks, before=result.blocks_before)
"""


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, required=True, help="data, jobs and figures")
    arguments.add_argument("--series", type=int, default=1_000_000)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--horizon", type=int, default=12)
    arguments.add_argument("--series-per-part", type=int, default=10_000)
    arguments.add_argument("--engines", nargs="+", default=["local", "ray"])
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    model = save_model(chosen.folder / "model", chosen)
    size = make_data(chosen.folder / "data", chosen)
    results: dict[str, Any] = {"series": chosen.series, "steps": chosen.steps}
    results |= {"horizon": chosen.horizon, "method": "linear", "parquet_bytes": size}
    results["jobs"] = [
        {"engine": engine} | figures_of(engine, model, chosen) for engine in chosen.engines
    ]
    results["forecast_bytes"] = sum(
        path.stat().st_size for path in (chosen.folder / chosen.engines[0]).glob("part-*.parquet")
    )
    outs = [chosen.folder / engine for engine in chosen.engines]
    results["equal"] = all(equal(outs[0], out) for out in outs[1:])
    print(json.dumps(results, indent=1))
    write(f"scale_cpu{chosen.tag}", results, chosen.out)


def save_model(folder: Path, chosen: argparse.Namespace) -> Path:
    """Fit the linear method on a few series."""
    if folder.exists():
        return folder
    frame = series(np.arange(50), chosen.steps).set_index(["series_id", "timestamp"])
    forecaster = tsllm.LinearForecaster(context_length=48)
    return tsllm.save(forecaster.fit(frame, fh=range(1, chosen.horizon + 1)), folder)


def make_data(folder: Path, chosen: argparse.Namespace) -> int:
    """Write the parts that are not there yet; return the bytes of all."""
    folder.mkdir(exist_ok=True)
    schema = pa.Schema.from_pandas(series(np.arange(1), 3))
    for part, first in enumerate(range(0, chosen.series, chosen.series_per_part)):
        path = folder / f"part-{part:05d}.parquet"
        if path.exists():
            continue
        numbers = np.arange(first, min(first + chosen.series_per_part, chosen.series))
        unfinished = path.with_suffix(".unfinished")
        with pq.ParquetWriter(unfinished, schema) as writer:
            for some in np.array_split(numbers, -(-len(numbers) // 1000)):
                write_rows(writer, series(some, chosen.steps))
        unfinished.replace(path)
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def figures_of(engine: str, model: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run the job of an engine, killed in the middle and continued; keep its figures."""
    kept = chosen.folder / f"{engine}.json"
    if not kept.exists():
        out = chosen.folder / engine
        blocks = -(-chosen.series * chosen.steps // 250_000)
        first = run(engine, model, chosen.folder / "data", out, stop_after=blocks // 2)
        second = run(engine, model, chosen.folder / "data", out)
        found = joined(first, second)
        kept.write_text(json.dumps(found, indent=1))
    return json.loads(kept.read_text())


def run(
    engine: str, model: Path, data: Path, out: Path, stop_after: int | None = None
) -> dict[str, Any]:
    """Run a job in a process of its own, and kill it after so many blocks.

    Of Ray's job one worker is killed after a quarter of them.
    """
    command = [sys.executable, "-P", "-c", _JOB, engine, model, data, out]
    started = time.time()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    said: list[dict[str, Any]] = []
    spent: dict[int, float] = {}  # seconds of the processor, by process
    peak: dict[int, float] = {}
    killed_worker = None
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        found = json.loads(line)
        said.append(found)
        for one in {process.pid, found.get("process", process.pid)}:
            usage = usage_of(one)
            if usage is not None:
                spent[one], peak[one] = usage
        if stop_after is not None and len(said) == stop_after // 2 and engine == "ray":
            killed_worker = found["process"]
            os.kill(killed_worker, signal.SIGKILL)
        if stop_after is not None and len(said) >= stop_after:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    blocks = [one for one in said if "series" in one]
    result = {
        "seconds_to_first_block": blocks[0]["at"] - started,
        "seconds": blocks[-1]["at"] - blocks[0]["at"],
        "series": sum(one["series"] for one in blocks[1:]),
        "all_series": sum(one["series"] for one in blocks),
        "driver": process.pid,
        "processor_seconds": spent,
        "peak_mib": peak,
        "killed_worker": killed_worker is not None,
        "blocks": len(blocks),
        "last": said[-1],
    }
    print(json.dumps({"engine": engine, **result}), flush=True)
    return result


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a job from its two runs: until the kill, and to the end."""
    both = [first, second]
    series_done = sum(one["series"] for one in both)
    spent = sum(sum(one["processor_seconds"].values()) for one in both)
    workers = [
        mib for one in both for pid, mib in one["peak_mib"].items() if int(pid) != one["driver"]
    ]
    return {
        "series_per_second": series_done / sum(one["seconds"] for one in both),
        "series_per_processor_second": sum(one["all_series"] for one in both) / spent,
        "seconds_to_first_block": first["seconds_to_first_block"],
        "seconds_to_continue": second["seconds_to_first_block"],
        "driver_peak_mib": max(one["peak_mib"][one["driver"]] for one in both),
        "worker_peak_mib": max(workers, default=None),
        "blocks": second["last"]["blocks"],
        "blocks_before_the_kill": second["last"]["before"],
        "worker_killed": first["killed_worker"],
    }


def usage_of(process: int) -> tuple[float, float] | None:
    """Return seconds of the processor and the peak memory in MiB of a process; None: it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(peak[1]) / 1024 if peak else 0.0


def equal(one: Path, other: Path) -> bool:
    """Compare the parts of two jobs."""
    names = sorted(path.name for path in one.glob("part-*.parquet"))
    if names != sorted(path.name for path in other.glob("part-*.parquet")):
        return False
    return all(pq.read_table(one / name).equals(pq.read_table(other / name)) for name in names)


if __name__ == "__main__":
    main()
