"""A batch job over many series: seconds, series a second, and how little memory it takes.

    python benchmarks/speed/batch.py --series 100000 --steps 200

The model is tiny, so that the figures are those of everything around it: reading, checking,
planning the blocks, dating and writing. Each job runs in a process of its own, whose peak memory is
measured; ``--scattered`` orders the rows by time, so that each series lies in every part.
"""

from __future__ import annotations

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

import tsllm

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
    arguments = parser(__doc__)
    arguments.add_argument("--series", type=int, default=100_000)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--horizon", type=int, default=12)
    arguments.add_argument("--parts", type=int, default=20)
    arguments.add_argument("--batch-size", default="auto")
    arguments.add_argument("--scattered", action="store_true")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="tsllm-bench-") as name:
        folder = Path(name)
        model = save_model(folder / "model", chosen.steps, chosen.horizon)
        started = time.perf_counter()
        size = make_data(folder / "data", chosen)
        print(f"made {size / 1e6:.0f} MB of Parquet in {time.perf_counter() - started:.0f} s")
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


def save_model(folder: Path, steps: int, horizon: int) -> Path:
    """Fit a tiny model on a few series."""
    frame = series(np.arange(20), steps)
    forecaster = tsllm.AutoTimesForecaster(
        TINY, max_steps=5, context_length=48, token_length=12, random_state=0
    )
    forecaster.fit(frame.set_index(["series_id", "timestamp"]), fh=range(1, horizon + 1))
    return tsllm.save(forecaster, folder)


def series(numbers: np.ndarray, steps: int) -> pd.DataFrame:
    """Hourly series with a daily season."""
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


def make_data(folder: Path, chosen: object) -> int:
    """Write the parts and give their bytes; by time, where the series are to be scattered."""
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
