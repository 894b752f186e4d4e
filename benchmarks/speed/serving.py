"""Requests a second, wrong answers (none) and memory of a served model with many clients.

    python benchmarks/speed/serving.py --requests 1000 --clients 8

Starts ``mlflow models serve`` on this machine and sends requests, each with another series; every
answer is compared with the forecast of the model in this process. Memory is that of the server's
processes after a tenth of the requests and after all of them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from batch import TINY, series

import tsllm
import tsllm.mlflow
from tsllm.datasets import read_long
from tsllm.tables.forecast import predict_long

sys.path.append(str(Path(__file__).parents[1]))
from measuring import parser, spread, write

HORIZON = 12


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=1000)
    arguments.add_argument("--clients", type=int, default=8)
    arguments.add_argument("--steps", type=int, default=200)
    chosen = arguments.parse_args()
    frame = series(np.arange(chosen.requests), chosen.steps)
    forecaster = tsllm.AutoTimesForecaster(
        TINY, max_steps=5, context_length=48, token_length=12, random_state=0
    )
    some = frame.head(20 * chosen.steps).set_index(["series_id", "timestamp"])
    forecaster.fit(some, fh=range(1, HORIZON + 1))
    expected = predict_long(forecaster, read_long(frame), HORIZON)["forecast"].to_numpy()
    expected = expected.reshape(chosen.requests, HORIZON)
    text = frame.assign(timestamp=frame["timestamp"].astype(str))
    bodies = [
        json.dumps({"dataframe_split": part.to_dict("split", index=False)}).encode()
        for _, part in text.groupby("series_id", sort=False)
    ]
    with tempfile.TemporaryDirectory(prefix="tsllm-bench-") as name:
        tsllm.mlflow.save_model(forecaster, f"{name}/model")
        result = measure(Path(name), bodies, expected, chosen.clients)
    print(json.dumps(result, indent=1))
    write(f"mlflow_serving{chosen.tag}", result, chosen.out)


def measure(folder: Path, bodies: list[bytes], expected: np.ndarray, clients: int) -> dict:
    """Start the server, send all requests and stop the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "-m", f"{folder}/model"]
    command += ["-h", "127.0.0.1", "-p", str(port), "--env-manager", "local", "-w", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    address = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        while not _answers(address):
            assert server.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.2)
        ready = time.perf_counter() - started
        latencies: list[float] = []
        wrong: list[int] = []

        def ask(number: int) -> None:
            begun = time.perf_counter()
            rows = _post(address, bodies[number])
            latencies.append(time.perf_counter() - begun)
            found = np.array([row["forecast"] for row in rows])
            if not np.allclose(found, expected[number], rtol=1e-4, atol=1e-6):
                wrong.append(number)

        tenth = len(bodies) // 10
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(ask, range(tenth)))
            early = _memory_mib(server.pid)
            begun = time.perf_counter()
            list(pool.map(ask, range(len(bodies))))
            seconds = time.perf_counter() - begun
            late = _memory_mib(server.pid)
    finally:
        for process in psutil.Process(server.pid).children(recursive=True):
            process.terminate()
        server.terminate()
        server.wait(30)
    return {
        "requests": len(bodies),
        "clients": clients,
        "wrong": len(wrong),
        "seconds_to_start": ready,
        "requests_per_second": len(bodies) / seconds,
        "latency": spread(latencies),
        "server_mib_early": early,
        "server_mib_late": late,
    }


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/ping", timeout=5)
    except OSError:
        return False
    return True


def _post(address: str, body: bytes) -> list[dict]:
    request = urllib.request.Request(
        f"{address}/invocations", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["predictions"]


def _memory_mib(pid: int) -> float:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 2**20


if __name__ == "__main__":
    main()
