"""A batch job on two of Ray's workers against one, and against the local engine.

    python benchmarks/speed/batch_on_ray.py --series 20000

Each worker has one processor and one thread. Ray is started once; what is measured is the time from
the first block to the last, without the loading of the model, so that it is the workers' own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from batch_predict import make_data, save_model

from tsllm.batch import Workers, predict_batch

sys.path.append(str(Path(__file__).parents[1]))
from measuring import parser, write


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--series", type=int, default=20_000)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--horizon", type=int, default=12)
    arguments.add_argument("--parts", type=int, default=4)
    arguments.add_argument("--block-rows", type=int, default=100_000)
    arguments.add_argument("--turns", type=int, default=2)
    arguments.set_defaults(scattered=False)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {"local": [], "ray 1": [], "ray 2": []}
    with tempfile.TemporaryDirectory(prefix="tsllm-bench-") as name:
        folder = Path(name)
        model = save_model(folder / "model", chosen.steps, chosen.horizon)
        make_data(folder / "data", chosen)
        for turn in range(chosen.turns):  # in turn, so that a busy minute hits all alike
            for engine in rates:
                out = folder / f"{engine}-{turn}".replace(" ", "-")
                rates[engine].append(rate(model, folder / "data", out, engine, chosen.block_rows))
                print(f"{engine}: {rates[engine][-1]:.0f} series a second", flush=True)
        frames = [pd.read_parquet(folder / f"{e}-0".replace(" ", "-")) for e in rates]
        for frame in frames[1:]:
            pd.testing.assert_frame_equal(frame, frames[0])
    best = {engine: float(np.median(found)) for engine, found in rates.items()}
    result = {"series_per_second": best, "all": rates, "series": chosen.series}
    result["two_workers_to_one"] = best["ray 2"] / best["ray 1"]
    print(json.dumps(result, indent=1))
    write(f"batch_ray{chosen.tag}", result, chosen.out)


def rate(model: Path, data: Path, out: Path, engine: str, block_rows: int) -> float:
    """Run a job and give series a second between the first block of each worker and the last."""
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
        block_rows=block_rows,
        on_block=lambda block: done.append((time.perf_counter(), block.series)),
    )
    warm = done[workers - 1][0]
    return sum(series for _, series in done[workers:]) / (done[-1][0] - warm)


if __name__ == "__main__":
    main()
