"""Seconds and memory of a batch job over many series, and series a second on Ray.

    python benchmarks/speed/batch.py --series 100000 --steps 200
    python benchmarks/speed/batch.py --ray --series 20000 --parts 4

The model is tiny, so that the figures are those of everything else: reading, checking, planning the
blocks, dating and writing. The job runs in a process of its own, whose peak memory is measured.
``--scattered`` orders the rows by time, so that each series lies in every part. ``--ray`` compares
the local engine with one and two workers of Ray, from the first block to the last, without the time
that loads the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import tsllm
from tsllm.batch import Workers, predict_batch

sys.path.append(str(Path(__file__).parents[1]))
from measuring import parser, write

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"
_JOB = """
import json, re, sys, torch
torch.set_num_threads(1)
from tsllm.batch import predict_batch

def peak_mib():  # of this program: rusage counts what the process was before it as well
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

idle = peak_mib()
model, data, out, size = sys.argv[1:]
result = predict_batch(model, data, out, batch_size="auto" if size == "auto" else int(size))
print(json.dumps({"seconds": result.seconds, "series": result.series, "blocks": result.blocks,
                  "batch_size": result.batch_size, "idle_mib": idle, "peak_mib": peak_mib()}))
"""


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--series", type=int, default=100_000)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--horizon", type=int, default=12)
    arguments.add_argument("--parts", type=int, default=20)
    arguments.add_argument("--batch-size", default="auto")
    arguments.add_argument("--scattered", action="store_true")
    arguments.add_argument("--ray", action="store_true")
    arguments.add_argument("--turns", type=int, default=2, help="jobs of each engine, with --ray")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tsllm-bench-") as name:
        folder = Path(name)
        model = save_model(folder / "model", chosen.steps, chosen.horizon)
        started = time.perf_counter()
        size = make_data(folder / "data", chosen)
        print(f"made {size / 1e6:.0f} MB of Parquet in {time.perf_counter() - started:.0f} s")
        if chosen.ray:
            write(f"batch_ray{chosen.tag}", on_ray(model, folder, chosen), chosen.out)
            return
        out = folder / "out"
        job = [sys.executable, "-P", "-c", _JOB, model, folder / "data", out, chosen.batch_size]
        run = subprocess.run(job, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(run.stdout.splitlines()[-1])
        rows = pq.ParquetDataset(out).read(columns=["forecast"]).num_rows
    assert rows == chosen.series * chosen.horizon, rows
    result |= {"series_per_second": result["series"] / result["seconds"], "parquet_bytes": size}
    result |= {"steps": chosen.steps, "horizon": chosen.horizon, "scattered": chosen.scattered}
    print(json.dumps(result, indent=1))
    kind = "_scattered" if chosen.scattered else ""
    write(f"batch_predict{kind}{chosen.tag}", result, chosen.out)


def on_ray(model: Path, folder: Path, chosen: argparse.Namespace) -> dict[str, object]:
    """Compare the local engine with one and two workers of Ray, in turn."""
    rates: dict[str, list[float]] = {"local": [], "ray 1": [], "ray 2": []}
    frames = []
    for turn in range(chosen.turns):
        for engine in rates:
            out = folder / f"{engine}-{turn}".replace(" ", "-")
            rates[engine].append(rate(model, folder / "data", out, engine))
            print(f"{engine}: {rates[engine][-1]:.0f} series a second", flush=True)
            frames.append(pd.read_parquet(out))
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    best = {engine: float(np.median(found)) for engine, found in rates.items()}
    result: dict[str, object] = {"series_per_second": best, "all": rates, "series": chosen.series}
    return result | {"two_workers_to_one": best["ray 2"] / best["ray 1"]}


def rate(model: Path, data: Path, out: Path, engine: str) -> float:
    """Run a job; return series a second from the first block of each worker to the last."""
    name, _, number = engine.partition(" ")
    workers = int(number or 1)
    done: list[tuple[float, int]] = []
    predict_batch(
        model,
        data,
        out,
        engine=name,
        workers=Workers(workers) if name == "ray" else None,
        batch_size=64,
        block_rows=100_000,
        on_block=lambda block: done.append((time.perf_counter(), block.series)),
    )
    warm = done[workers - 1][0]
    return sum(series for _, series in done[workers:]) / (done[-1][0] - warm)


def save_model(folder: Path, steps: int, horizon: int) -> Path:
    """Fit a tiny model on a few series."""
    frame = series(np.arange(20), steps)
    forecaster = tsllm.AutoTimesForecaster(
        TINY, max_steps=5, context_length=48, token_length=12, random_state=0
    )
    forecaster.fit(frame.set_index(["series_id", "timestamp"]), fh=range(1, horizon + 1))
    return tsllm.save(forecaster, folder)


def series(numbers: np.ndarray, steps: int) -> pd.DataFrame:
    """Make hourly series with a daily season."""
    rng = np.random.default_rng(int(numbers[0]))
    hours = np.arange(steps)
    values = np.sin(2 * np.pi * (hours / 24 + rng.random((len(numbers), 1))))
    values = 10 + values + rng.normal(0, 0.2, values.shape)  # (series, steps)
    stamps = pd.date_range("2024-01-01", periods=steps, freq="h")
    return pd.DataFrame(
        {
            "series_id": np.repeat([f"series-{i:07d}" for i in numbers], steps),
            "timestamp": np.tile(stamps, len(numbers)),
            "value": values.ravel(),
        }
    )


def make_data(folder: Path, chosen: argparse.Namespace) -> int:
    """Write the parts, ordered by time if the series are scattered; return their bytes."""
    folder.mkdir()
    total, steps, parts = chosen.series, chosen.steps, chosen.parts
    for part, numbers in enumerate(np.array_split(np.arange(total), parts)):
        path = folder / f"part-{part:03d}.parquet"
        with pq.ParquetWriter(path, pa.Schema.from_pandas(series(np.arange(1), 3))) as writer:
            if chosen.scattered:  # each part holds a stretch of time of all series
                first, last = part * steps // parts, (part + 1) * steps // parts
                for some in np.array_split(np.arange(total), -(-total // 1000)):
                    frame = series(some, steps)
                    rows = np.tile(np.arange(steps), len(some))
                    write_rows(writer, frame[(rows >= first) & (rows < last)])
            else:
                for some in np.array_split(numbers, -(-len(numbers) // 1000)):
                    write_rows(writer, series(some, steps))
    return sum(path.stat().st_size for path in folder.iterdir())


def write_rows(writer: pq.ParquetWriter, frame: pd.DataFrame) -> None:
    writer.write_table(pa.Table.from_pandas(frame, writer.schema, preserve_index=False))


if __name__ == "__main__":
    main()
