"""Requests to a served model, as MLflow's server reads and answers them."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.pyfunc import scoring_server

import tsllm.mlflow
from fuzz.cases import Attack, Case, RefusedError, UnexplainedError, check
from fuzz.shared import check_near, check_same, check_table, covariates, fitted, long
from tsllm.events import NaiveEventForecaster

IDS = ["s0", "s1", "s2"]
JSON, CSV = "application/json", "text/csv"


@functools.cache
def _server(kind: str) -> Any:
    """Return MLflow's server of a saved model; it is called without a socket."""
    if kind == "events":
        days = pd.date_range("2024-01-01", periods=30, freq="D")
        events = pd.DataFrame({"time": days, "type": ["on", "off", "on"] * 10})
        model: Any = NaiveEventForecaster(types="markov").fit(events)
    else:
        model = fitted("autotimes", kind)
    with tempfile.TemporaryDirectory() as name:
        path = str(Path(name) / "model")
        tsllm.mlflow.save_model(model, path)
        os.environ[scoring_server._SERVER_MODEL_PATH] = path  # as `mlflow models serve` does
        return scoring_server.init(mlflow.pyfunc.load_model(path))


def ask(kind: str, body: bytes | str, content: str = JSON) -> tuple[int, bytes]:
    """Post a body to the server and return status and answer."""
    body = body.encode() if isinstance(body, str) else body
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", content.encode()), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": "/invocations", "raw_path": b"/invocations", "query_string": b"", "scheme": "http",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "root_path": "",
    }  # fmt: skip
    asyncio.run(_server(kind)(scope, receive, send))
    answer = b"".join(message.get("body", b"") for message in sent)
    return int(sent[0]["status"]), answer


def request(kind: str, body: bytes | str, content: str = JSON) -> pd.DataFrame:
    """Post a body and return the table of the answer.

    Raises
    ------
    RefusedError
        Status 400 or 415 and one sentence, without the request in it.
    UnexplainedError
        Any other status, or an answer that is no JSON.
    """
    status, answer = ask(kind, body, content)

    def refuse(constant: str) -> None:
        raise UnexplainedError(f"the answer holds {constant}, which is no JSON")

    try:
        document = json.loads(answer, parse_constant=refuse)
    except ValueError as error:
        if status == 415:
            raise RefusedError(answer.decode()) from error
        raise UnexplainedError(f"status {status}, an answer that is no JSON: {error}") from error
    if status == 200:
        return pd.DataFrame(document["predictions"])
    if status == 400 and "stack_trace" not in document:
        raise RefusedError(document["message"])
    raise UnexplainedError(f"status {status}: {str(document)[:300]}")


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"timestamp": str}) if "timestamp" in frame else frame


def _body(frame: pd.DataFrame, **params: Any) -> str:
    document: dict[str, Any] = {"dataframe_split": _rows(frame).to_dict("split", index=False)}
    return json.dumps(document | ({"params": params} if params else {}))


def _check(table: pd.DataFrame, ids: list[str], horizon: int = 3) -> None:
    """Check that every series has all its steps, and the forecast of its own level."""
    check_table(table, ids, horizon)
    for place, name in enumerate(ids):
        level = 100.0 * (IDS.index(name) + 1 if name in IDS else place + 1)
        check_near(table.loc[table["series_id"] == name, "forecast"], level, 40)


def ordinary_requests(case: Case) -> None:
    """Answer each form of a request with the same forecasts."""
    frame = long()
    form = case.pick(
        "form", ["split", "records", "CSV", "CSV with charset", "turned columns", "kept",
                 "kept one",
                 "payload", "interleaved"]
    )  # fmt: skip
    case.expect("answer")
    ids, content = IDS, JSON
    if form == "records":
        body = json.dumps({"dataframe_records": _rows(frame).to_dict("records")})
    elif form.startswith("CSV"):
        body, content = (
            frame.to_csv(index=False),
            CSV + ("; charset=utf-8" if "charset" in form else ""),
        )
    elif form == "turned columns":
        body = _body(frame[["value", "timestamp", "series_id"]])
    elif form == "interleaved":
        body = _body(frame.sort_values(["timestamp", "series_id"]))
    elif form == "kept":
        body = json.dumps({"dataframe_split": {"columns": ["series_id"], "data": []}})
    elif form == "kept one":
        ids = ["s1"]
        body = json.dumps({"dataframe_split": {"columns": ["series_id"], "data": [["s1"]]}})
    elif form == "payload":
        body = json.dumps(fitted("autotimes", "long").to_payload(3, quantiles=[0.1, 0.5, 0.9]))
    else:
        body = _body(frame)
    table = request("long", body, content)
    _check(table, ids)
    right = request("long", _body(frame))
    right = right[right["series_id"].isin(ids)].reset_index(drop=True)
    order = ["series_id", "timestamp"]
    table = table.sort_values(order, ignore_index=True)
    check_same(table[["forecast"]], right.sort_values(order, ignore_index=True)[["forecast"]])


def names_in_csv(case: Case) -> None:
    """Keep names as text in every form of a request."""
    ids = case.pick("ids", [["007", "7", "07"], ["1", "2", "3"], ["1.0", "1", "01"], ["NA",
                             "null", "x"],
                            ["true", "false", "x"], ["1e5", "100000", "x"]])  # fmt: skip
    frame = long()
    frame["series_id"] = [ids[int(name[1:])] for name in frame["series_id"]]
    content = case.pick("content", [CSV, JSON])
    case.expect("either" if "NA" in ids else "answer")
    body = frame.to_csv(index=False) if content == CSV else _body(frame)
    table = request("long", body, content)
    _check(table, ids)


_ODD: list[Any] = [None, True, 0, -1, 1.5, "3", "x", [], [1], {}, {"a": 1}, 10**6, 10**12, 10**30,
1e400,
                   [[1]], "", "nan", [None], ["a"], [0.1, "b"], [2.0], [0.5, 0.5]]  # fmt: skip


def odd_params(case: Case) -> None:
    """Refuse parameters of a wrong kind in a sentence without the request in it."""
    name = case.pick("name", ["horizon", "quantiles", "Horizon", "level", "model", "params"])
    value = case.pick("value", _ODD)
    case.expect("either" if name in ("horizon", "quantiles") else "refusal", name)
    text = _body(long(), **{name: value})
    table = request("long", text)
    horizon = int(value) if name == "horizon" and value is not None else 3
    check(len(table) == 3 * horizon, f"{len(table)} rows for {name}={value!r}")


def odd_params_as_a_whole(case: Case) -> None:
    """Refuse params that are no object."""
    document = json.loads(_body(long()))
    given = case.pick("params", [5, [], [1], "x", True, None, {}, 1.5, {"": 1}])
    document["params"] = given
    case.expect("refusal" if given else "either", "param")
    request("long", json.dumps(document))


def many_numbers(case: Case) -> None:
    """Refuse what would hold the server for long, at once."""
    kind = case.pick(
        "kind", ["levels", "horizon", "series", "both", "deep", "long name", "columns"]
    )
    frame = long()
    if kind == "levels":
        levels = np.linspace(0.001, 0.999, case.pick("levels", [101, 1000, 100_000])).tolist()
        body = _body(frame, quantiles=levels)
    elif kind == "horizon":
        body = _body(frame, horizon=case.pick("horizon", [10_001, 10**6, 10**9, 2**63]))
    elif kind == "series":
        size = case.pick("series", [10_001, 20_000])
        rows = pd.DataFrame(
            {"series_id": [f"x{i}" for i in range(size)], "timestamp": "2024-01-01", "value": 1.0}
        )
        body = _body(rows)
    elif kind == "both":
        body = _body(frame, horizon=10_000, quantiles=np.linspace(0.01, 0.99, 99).tolist())
    elif kind == "deep":
        body = "[" * 100_000 + "]" * 100_000
    elif kind == "long name":
        body = _body(frame.assign(series_id="x" * 10**6))
        case.expect("either")
        request("long", body)
        return
    else:
        body = _body(
            pd.concat(
                [frame, pd.DataFrame(0.0, frame.index, [f"c{i}" for i in range(300)])], axis=1
            )
        )
        request("long", body)
        return
    case.expect("refusal")
    request("long", body)


def odd_cells(case: Case) -> None:
    """Take or refuse any JSON value in any cell, and name its row."""
    frame = _rows(long())
    document = frame.to_dict("split", index=False)
    column = case.pick("column", ["series_id", "timestamp", "value"])
    value = case.pick("value", _ODD)
    row = case.whole("row", 0, len(frame) - 1)
    place = list(frame.columns).index(column)
    document["data"][row][place] = value
    case.expect("either", "row", "series", "column", "value")
    table = request("long", json.dumps({"dataframe_split": document}))
    check(len(table) % 3 == 0, f"{len(table)} rows")
    check(bool(np.isfinite(table["forecast"]).all()), "a forecast that is not finite")


def odd_bodies(case: Case) -> None:
    """Refuse bodies that are no request."""
    good = _body(long())
    bodies: dict[str, tuple[bytes | str, str]] = {
        "empty": ("", JSON),
        "null": ("null", JSON),
        "number": ("5", JSON),
        "list": ("[]", JSON),
        "text": ('"x"', JSON),
        "cut": (good[: len(good) // 2], JSON),
        "no table": ("{}", JSON),
        "unknown key": ('{"data": []}', JSON),
        "two tables": (good[:-1] + ', "dataframe_records": []}', JSON),
        "instances": ('{"instances": [1, 2]}', JSON),
        "inputs": ('{"inputs": {"a": [1]}}', JSON),
        "columns only": ('{"dataframe_split": {"columns": ["timestamp"]}}', JSON),
        "ragged": ('{"dataframe_split": {"columns": ["value"], "data": [["a"], [1, 2]]}}', JSON),
        "split list": ('{"dataframe_split": []}', JSON),
        "records numbers": ('{"dataframe_records": [1, 2]}', JSON),
        "NaN": (good.replace("100", "NaN", 1), JSON),
        "Infinity": ('{"dataframe_records": [{"timestamp": "2024-01-01", "value": Infinity}]}',
        JSON),
        "binary": (bytes(range(256)), JSON),
        "utf-16": (good.encode("utf-16"), JSON),
        "CSV empty": ("", CSV),
        "CSV header": ("series_id,timestamp,value\n", CSV),
        "CSV semicolons": (long().to_csv(index=False, sep=";"), CSV),
        "CSV ragged": ("series_id,timestamp,value\na,2024-01-01\n", CSV),
        "CSV binary": (bytes(range(256)), CSV),
        "CSV quote": ('series_id,timestamp,value\n"a,2024-01-01,1\n', CSV),
        "CSV latin": (long().replace("s0", "ä").to_csv(index=False).encode("latin-1"), CSV),
        "CSV text": (long().assign(value="x").to_csv(index=False), CSV),
        "other content": (good, "application/xml"),
        "no content": (good, ""),
        "charset": (good, JSON + "; charset=latin-1"),
    }  # fmt: skip
    body, content = case.pick_named("body", bodies)
    if case.drawn["body"] not in ("columns only", "NaN", "CSV header", "charset", "no content",
                  "inputs",
                                  "two tables", "utf-16", "CSV latin", "instances"):  # fmt: skip
        case.expect("refusal")
    request("long", body, content)


def odd_tables(case: Case) -> None:
    """Refuse tables with a fault, and name the series or the row."""
    frame = long()
    bad = frame["series_id"] == "s1"
    tables: dict[str, Any] = {
        "gap": frame.drop(index=45),
        "doubled": pd.concat([frame, frame.iloc[45:46]]),
        "unsorted": frame.iloc[::-1],
        "no values": frame.drop(columns="value"),
        "no times": frame.drop(columns="timestamp"),
        "other values": frame.rename(columns={"value": "y"}),
        "hours": frame.assign(timestamp=pd.date_range("2024", periods=40, freq="h").tolist() * 3),
        "zone": frame.assign(timestamp=frame["timestamp"].dt.tz_localize("UTC")),
        "integers": frame.assign(timestamp=list(range(40)) * 3),
        "short": frame[~bad | (frame.index % 40 < 1)],
        "unknown kept": pd.DataFrame({"series_id": ["nope"], "timestamp": [None], "value": [None]}),
        "text values": frame.assign(value=frame["value"].astype(str)),
        "half named": frame.assign(series_id=frame["series_id"].where(~bad, None)),
        "other columns": frame.assign(note="x"),
    }
    table = case.pick_named("table", tables)
    name = case.drawn["table"]
    if name in ("gap", "doubled", "unsorted", "no values", "no times", "other values", "hours",
    "integers",
                "unknown kept", "half named"):  # fmt: skip
        case.expect("refusal")
    elif name == "other columns":
        case.expect("answer")
    body = _body(table).replace('"None"', "null")
    answer = request("long", body)
    check("--" not in json.dumps(answer.astype(str).to_dict()), "an option of the command line")
    _check(answer, IDS)


def sentences_for_clients(case: Case) -> None:
    """Tell a client nothing of options of the command line."""
    frame = long()
    kinds = {
        "unsorted": frame.iloc[::-1],
        "gap": frame.drop(index=45),
        "doubled": pd.concat([frame, frame.iloc[45:46]]),
        "irregular": frame.assign(
            timestamp=frame["timestamp"] + pd.to_timedelta(frame.index % 3, unit="h")
        ),
    }
    body = _body(case.pick_named("kind", kinds))
    try:
        request("long", body)
    except RefusedError as error:
        check("--" not in str(error), f"an option of the command line: {error}")
        raise


def covariates_in_requests(case: Case) -> None:
    """Answer a request with the known future, and say what is missing of it."""
    payload = json.loads(json.dumps(_payload_with_covariates()))
    kind = case.pick(
        "kind", ["as it is", "no future", "short", "null", "text", "future text", "no column"]
    )
    table = payload["dataframe_split"]
    columns = table["columns"]
    mark, warm = columns.index("future"), columns.index("warm")
    if kind == "as it is":
        case.expect("answer")
    elif kind == "no future":
        table["data"] = [row for row in table["data"] if not row[mark]]
        case.expect("refusal")
    elif kind == "short":
        table["data"] = table["data"][:-1]
        case.expect("refusal")
    elif kind == "no column":
        table["columns"] = [name if name != "warm" else "cold" for name in columns]
        case.expect("refusal", "warm")
    else:
        values: dict[str, Any] = {"null": None, "text": "x", "future text": "yes"}
        table["data"][-1][mark if kind == "future text" else warm] = values[kind]
    answer = request("X", json.dumps(payload))
    check(len(answer) == 3, f"{len(answer)} rows")
    check(bool(np.isfinite(answer["forecast"]).all()), "a forecast that is not finite")


@functools.cache
def _payload_with_covariates() -> dict[str, Any]:
    return fitted("autotimes", "X").to_payload(3, X=covariates(63))


def events_in_requests(case: Case) -> None:
    """Answer histories of events, and refuse odd ones."""
    days = [f"2024-03-{day:02d}" for day in range(1, 9)]
    good = {"sequence_id": ["a"] * 8, "time": days, "type": ["on", "off"] * 4}
    name = case.pick("column", list(good))
    value = case.pick("value", [None, "x", 5, -1.5, True, [], {}, "2024-03-01", 1e300])
    row = case.whole("row", 0, 7)
    if case.pick("change", [True, True, False]):
        good[name] = [*good[name][:row], value, *good[name][row + 1 :]]
    else:
        case.expect("answer")
    horizon = case.pick("horizon", [1, 3])
    data = [list(cells) for cells in zip(*good.values())]
    body = {
        "dataframe_split": {"columns": list(good), "data": data},
        "params": {"horizon": horizon},
    }
    answer = request("events", json.dumps(body))
    check(len(answer) % horizon == 0 and len(answer) > 0, f"{len(answer)} rows")


ATTACKS: list[Attack] = [
    ordinary_requests,
    names_in_csv,
    odd_params,
    odd_params_as_a_whole,
    many_numbers,
    odd_cells,
    odd_bodies,
    odd_tables,
    sentences_for_clients,
    covariates_in_requests,
    events_in_requests,
    odd_cells,
    odd_bodies,
    odd_params,
]
