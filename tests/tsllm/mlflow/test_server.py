"""``mlflow models serve``, really started and asked over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def server(saved, tmp_path_factory):
    """The address of a server of the saved model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", saved, "-h", "127.0.0.1"]
    command += ["-p", port, "--env-manager", "local", "-w", "1"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=file,
            stderr=file,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 500  # some seconds on a machine that is not busy
        while True:
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _ask(server, body, content_type="application/json"):
    """Post a request and give status and document."""
    request = urllib.request.Request(
        f"{server}/invocations", data=body, headers={"Content-Type": content_type}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.filterwarnings("ignore:the intervals ")
def test_a_server_answers_json_and_parquet_and_says_what_is_wrong(
    server, forecaster, frame, tmp_path
):
    payload = forecaster.to_payload(2)
    own = forecaster.predict(fh=[1, 2])["value"].tolist()
    status, answer = _ask(server, json.dumps(payload).encode())
    assert status == 200
    predictions = pd.DataFrame(answer["predictions"])
    assert list(predictions) == ["series_id", "timestamp", "forecast"]
    assert predictions["forecast"].tolist() == pytest.approx(own, rel=1e-6)
    assert predictions["timestamp"][0] == "2024-02-10T00:00:00"

    frame.to_parquet(tmp_path / "request.parquet", index=False)
    body = (tmp_path / "request.parquet").read_bytes()
    status, answer = _ask(server, body, "application/vnd.apache.parquet")
    assert status == 200
    table = pd.DataFrame(answer["predictions"])
    assert len(table) == 8 * 3 and {"q0.1", "q0.5", "q0.9"} <= set(table)

    payload["dataframe_split"]["data"][3][2] = "much"
    status, answer = _ask(server, json.dumps(payload).encode())
    assert status == 400
    assert answer["message"].startswith("series 's0000', row 3, column 'value' holds 'much'")
    assert "\n" not in answer["message"] and "stack_trace" not in answer

    def stored(number):
        name = f"s{number % 8:04d}"
        request = {"dataframe_split": {"columns": ["series_id"], "data": [[name]]}}
        return name, _ask(server, json.dumps(request).encode())

    with ThreadPoolExecutor(8) as pool:
        for name, (status, answer) in pool.map(stored, range(24)):
            assert status == 200
            assert {row["series_id"] for row in answer["predictions"]} == {name}
