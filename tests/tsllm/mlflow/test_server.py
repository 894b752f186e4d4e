"""``tsllm serve``, really started and asked over HTTP."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.metadata import version

import pandas as pd
import pytest

HISTORY = {
    "columns": ["series_id", "timestamp", "value"],
    "data": [["a", f"2024-01-{day:02d}", float(day % 3)] for day in range(1, 21)],
}
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
SECRET = "confidential" * 20
#: Body, content type, and words of the answer.
BAD = {
    "no JSON": (f'{{"dataframe_split": {{"{SECRET}"'.encode(), JSON, "is no JSON"),
    "deep": (b"[" * 100_000, JSON, "is no JSON"),
    "long number": (b'{"dataframe_split": ' + b"9" * 5_000 + b"}", JSON, "is no JSON"),
    "no UTF-8": (b'{"\xff": "' + SECRET.encode() + b'"}', JSON, "not UTF-8"),
    "a list": (b"[1]", JSON, "JSON list"),
    "a name twice": (b'{"params": {}, "params": {"horizon": 2}}', JSON, "gives 'params' twice"),
    "another format": ({"rows": [SECRET]}, JSON, "dataframe_split"),
    "short rows": ({"dataframe_split": HISTORY | {"columns": ["value"]}}, JSON, "columns"),
    "a list as name": (
        {"dataframe_records": [{"series_id": ["a"], "timestamp": "2024-01-01", "value": 1}]},
        JSON,
        "row 0, column 'series_id' holds \\['a'\\]",
    ),
    "params of a wrong kind": (
        {"dataframe_split": HISTORY, "params": {"horizon": SECRET}},
        JSON,
        "horizon must be a whole number",
    ),
    "params as a list": ({"dataframe_split": HISTORY, "params": [3]}, JSON, "must be an object"),
    "an unknown parameter": (
        {"dataframe_split": HISTORY, "params": {"horizn": 3}},
        JSON,
        "'horizn'",
    ),
    "100,000 quantiles": (
        {"dataframe_split": HISTORY, "params": {"quantiles": [0.5] * 100_000}},
        JSON,
        "100,000 quantiles",
    ),
    "unordered": ({"dataframe_split": HISTORY | {"data": HISTORY["data"][::-1]}}, JSON, "earlier"),
    "ragged CSV": (b"series_id,timestamp,value\na,2024-01-01\n", CSV, "line 2 .* 2 cells"),
    "text in CSV": (b"series_id,timestamp,value\na,2024-01-01,much\n", CSV, "row 0.*'much'"),
    "empty CSV": (b"", CSV, "empty"),
    "no Parquet": (SECRET.encode(), PARQUET, "Parquet"),
}


@pytest.fixture(scope="module")
def server(saved, tmp_path_factory):
    """The address of a server of the saved model, its process, and the command that it prints."""
    folder = tmp_path_factory.mktemp("server")
    log, out = folder / "log.txt", folder / "out.txt"
    command = [sys.executable, "-m", "tsllm.cli", "serve", str(saved), "--port", "0"]
    command += ["--threads", "1"]
    # Nothing of the folder in which the command is called may be imported.
    (folder / "tsllm").mkdir()
    (folder / "tsllm" / "__init__.py").write_text("raise ImportError('not this one')")
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    with log.open("w") as errors, out.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=errors, env=environment, cwd=folder)
    try:
        deadline = time.monotonic() + 500  # some seconds on a machine that is not busy
        while not out.read_text().endswith("\n"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        printed = shlex.split(out.read_text())
        yield printed[1].removesuffix("/invocations"), process, printed
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def _no_json(word):
    raise AssertionError(f"{word} is no JSON")


def _ask(server, body, content_type="application/json"):
    """Post a request and give status and document."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{server[0]}/invocations", data=body, headers={"Content-Type": content_type}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.loads(response.read(), parse_constant=_no_json)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_printed_command_is_answered(server):
    address, _, printed = server
    assert printed[0] == "curl" and printed[2:5] == ["-H", "Content-Type: application/json", "-d"]
    status, answer = _ask(server, printed[5].encode())
    assert status == 200
    assert {row["series_id"] for row in answer["predictions"]} == {"s0000"}
    for path, body in (("ping", b"\n"), ("version", version("mlflow").encode())):
        with urllib.request.urlopen(f"{address}/{path}", timeout=5) as response:
            assert response.status == 200 and body in response.read()


@pytest.mark.filterwarnings("ignore:the intervals ")
def test_a_server_answers_json_and_parquet_and_says_what_is_wrong(
    server, forecaster, frame, tmp_path
):
    payload = forecaster.to_payload(2)
    own = forecaster.predict(fh=[1, 2])["value"].tolist()
    status, answer = _ask(server, payload)
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
    status, answer = _ask(server, payload)
    assert status == 400
    assert answer["message"].startswith("series 's0000', row 3, column 'value' holds 'much'")
    assert "\n" not in answer["message"] and "stack_trace" not in answer

    def stored(number):
        name = f"s{number % 8:04d}"
        request = {"dataframe_split": {"columns": ["series_id"], "data": [[name]]}}
        return name, _ask(server, request)

    with ThreadPoolExecutor(8) as pool:
        for name, (status, answer) in pool.map(stored, range(24)):
            assert status == 200
            assert {row["series_id"] for row in answer["predictions"]} == {name}


def test_csv_keeps_the_names_of_series_and_of_stored_ones(server, frame):
    zeros = frame.assign(series_id="00" + frame["series_id"].str[1:])
    status, answer = _ask(server, zeros.to_csv(index=False).encode(), CSV)
    assert status == 200
    found = pd.DataFrame(answer["predictions"])
    assert found["series_id"].unique().tolist() == zeros["series_id"].unique().tolist()
    records = zeros.astype({"timestamp": str}).to_dict(orient="records")
    status, same = _ask(server, {"dataframe_records": records})
    assert status == 200
    pd.testing.assert_frame_equal(found, pd.DataFrame(same["predictions"]), rtol=1e-6)
    status, answer = _ask(server, b"series_id\ns0003\n", CSV)
    assert {row["series_id"] for row in answer["predictions"]} == {"s0003"}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_gets_one_short_sentence_over_http(server, bad):
    body, content_type, words = BAD[bad]
    status, answer = _ask(server, body, content_type)
    assert status == 400
    assert re.search(words, answer["message"])
    assert "stack_trace" not in answer and "\n" not in answer["message"]
    assert "confidential" * 10 not in answer["message"] and len(answer["message"]) < 500
    assert "--" not in answer["message"]


def test_a_server_ends_in_seconds_while_it_computes(server):
    table = {"columns": ["series_id"], "data": []}
    long = {"dataframe_split": table, "params": {"horizon": 10_000}}
    with ThreadPoolExecutor(12) as pool:  # more than are computed at once
        answers = [pool.submit(_ask, server, long) for _ in range(12)]
        time.sleep(1)
        started = time.monotonic()
        server[1].terminate()
        wait(answers)
        assert time.monotonic() - started < 15
    assert server[1].wait(30) == 0
    stopped = [answer for status, answer in (one.result() for one in answers) if status == 503]
    assert stopped and all("ends" in answer["message"] for answer in stopped)
