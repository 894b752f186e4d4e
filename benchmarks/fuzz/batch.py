"""Batch jobs: parts that differ, change, vanish or are damaged, and jobs that are cut short."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import tsllm
from fuzz.cases import Attack, Case, check, riddle_of
from fuzz.shared import (
    NAMES,
    check_levels,
    check_table,
    check_values,
    fitted,
    full_disk,
    killed_after,
    long,
)
from tsllm.datasets import read_long
from tsllm.errors import DataError, TsllmError
from tsllm.tables.forecast import predict_long

SERIES = 6
IDS = [f"s{number}" for number in range(SERIES)]


class _CutShort(Exception):  # noqa: N818 (no error, an end that the case makes)
    """The end of a job that is cut short."""


def _write(frame: pd.DataFrame, folder: Path, parts: int = 3) -> Path:
    """Write a frame as parts of whole series."""
    folder.mkdir(exist_ok=True)
    for number, names in enumerate(np.array_split(frame["series_id"].unique(), parts)):
        rows = frame[frame["series_id"].isin(names)]
        rows.to_parquet(folder / f"in-{number}.parquet", index=False)
    return folder


def _saved(case: Case) -> Path:
    return tsllm.save(fitted(case.pick("method", NAMES), "long"), case.folder / "model")


def _predict(case: Case, data: Path, **arguments: Any) -> pd.DataFrame:
    """Run a job and read what it wrote."""
    given: dict[str, Any] = {"out": case.folder / "out", "block_rows": 80} | arguments
    tsllm.predict_batch(case.folder / "model", data, **given)
    return pd.read_parquet(given["out"])


def _cut_short(case: Case, data: Path, after: int, **arguments: Any) -> None:
    """Run a job and end it after some blocks."""
    done = []

    def stop(block: Any) -> None:
        done.append(block)
        if len(done) >= after:
            raise _CutShort

    with contextlib.suppress(_CutShort):
        _predict(case, data, on_block=stop, **arguments)


def _check(case: Case, found: pd.DataFrame, frame: pd.DataFrame, horizon: int = 3) -> None:
    """Compare a job's forecasts with those of the same model in this process."""
    model = tsllm.load(case.folder / "model")
    wanted = predict_long(model, read_long(frame, sort=True), horizon)
    labels = ["series_id", "timestamp"]
    found, wanted = (one.sort_values(labels, ignore_index=True) for one in (found, wanted))
    check_table(found, sorted(set(frame["series_id"])), horizon)
    check(bool((found["timestamp"] == wanted["timestamp"]).all()), "other stamps")
    worst = float((found["forecast"] - wanted["forecast"]).abs().max())
    check(worst < 1e-2, f"forecasts that differ by {worst} from those of the data")


def ordinary_jobs(case: Case) -> None:
    """Forecast every series of the parts, however they are cut."""
    frame = long(SERIES)
    _saved(case)
    data = case.folder / "data"
    form = case.pick(
        "form", ["whole series", "cut anywhere", "one file", "scattered", "one row group each"]
    )
    if form == "whole series":
        _write(frame, data)
    elif form == "one file":
        data = case.folder / "data.parquet"
        frame.to_parquet(data, index=False)
    elif form == "cut anywhere":
        data.mkdir()
        cut = case.whole("cut", 1, len(frame) - 1)
        frame.iloc[:cut].to_parquet(data / "a.parquet", index=False)
        frame.iloc[cut:].to_parquet(data / "b.parquet", index=False)
    elif form == "scattered":
        data.mkdir()
        for number in range(3):
            frame[frame.index % 3 == number].to_parquet(data / f"{number}.parquet", index=False)
    else:
        data.mkdir()
        frame.to_parquet(data / "a.parquet", index=False, row_group_size=case.whole("rows", 1, 60))
    case.expect("answer")
    found = _predict(case, data, sort=True, block_rows=case.pick("block_rows", [1, 50, 10**6]))
    _check(case, found, frame)
    check_levels(found)


def parts_that_are_not_read(case: Case) -> None:
    """Read every part of a folder or name the one that is not read."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame.iloc[:80], case.folder / "data", 1)
    name = case.pick(
        "other",
        ["P1.PARQUET", "p1.pq", "p1.csv", "sub/p1.parquet", "id=1/p1.parquet", "p1.parq", "p1"],
    )
    (data / name).parent.mkdir(exist_ok=True)
    if name.endswith("csv"):
        frame.iloc[80:].to_csv(data / name, index=False)
    else:
        frame.iloc[80:].to_parquet(data / name, index=False)
    case.expect("either", name.split("/")[0])
    found = _predict(case, data)
    _check(case, found, frame)


def changes_between_runs(case: Case) -> None:
    """See that data changed since the job began, however little, and never mix old and new."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    after = case.pick("after", [1, 2, 99])
    _cut_short(case, data, after)
    part = data / f"in-{case.whole('part', 0, 2)}.parquet"
    rows = pd.read_parquet(part)
    change = case.pick(
        "change", ["one value", "all values", "same size", "touched", "row", "rewritten"]
    )
    place = case.whole("row", 0, len(rows) - 1)
    if change == "one value":
        rows.loc[place, "value"] += 50.0
    elif change == "all values":
        rows["value"] = rows["value"].to_numpy()[::-1]
    elif change == "same size":
        rows.loc[len(rows) - 1, "value"] = np.nextafter(rows["value"].iloc[-1], np.inf) + 30
    elif change == "row":
        rows = rows.iloc[1:]
    if change == "touched":
        os.utime(part)
    else:
        rows.to_parquet(part, index=False)
    case.expect("answer" if change in ("touched", "rewritten") else "either")
    found = _predict(case, data)
    _check(case, found, pd.concat(pd.read_parquet(one) for one in sorted(data.iterdir())))


def jobs_cut_short(case: Case) -> None:
    """Continue a job that was cut short, and refuse to continue it as another job."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    _cut_short(case, data, case.whole("after", 1, 2))
    change: dict[str, Any] = case.pick_named(
        "then",
        {"same": {}, "horizon": {"horizon": 2}, "quantiles": {"quantiles": [0.2]},
        "fill": {"fill": "nan"},
         "block_rows": {"block_rows": 10**6}, "freq": {"freq": "h"},
         "target": {"target_cols": "nope"}},
    )  # fmt: skip
    case.expect("answer" if not change else "either")
    _check(case, _predict(case, data, **change), frame)


def killed_jobs(case: Case) -> None:
    """Continue a job that was killed at any time, and lose or double nothing."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    _predict(case, data, out=case.folder / "warm")  # what a fresh process would import
    milliseconds = case.whole("milliseconds", 1, 150)
    killed_after(milliseconds / 1000, lambda: _predict(case, data))
    case.expect("answer")
    _check(case, _predict(case, data), frame)


def full_disks(case: Case) -> None:
    """Say that the disk is full, and finish the job when it has room again."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    try:
        with full_disk(case.whole("room", 0, 6000)):
            _predict(case, data)
    except TsllmError as error:
        riddle = riddle_of(str(error))
        check(riddle is None, f"{riddle}: {error}")
    case.expect("answer")
    _check(case, _predict(case, data), frame)


def damaged_outputs(case: Case) -> None:
    """Write a damaged part of the output again, or say that it is damaged."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    _predict(case, data)
    out = case.folder / "out"
    parts = sorted(out.glob("*.parquet"))
    part = parts[case.whole("part", 0, len(parts) - 1)]
    content = bytearray(part.read_bytes())
    place = case.whole("place", 4, len(content) - 9)
    damage = case.pick("damage", ["flip", "cut", "empty", "removed", "zeros", "of another part"])
    if damage == "flip":
        content[place] ^= 0xFF
    elif damage == "cut":
        content = content[:place]
    elif damage == "empty":
        content = bytearray()
    elif damage == "zeros":
        content[place : place + 50] = bytes(min(50, len(content) - place))
    if damage == "removed":
        part.unlink()
    elif damage == "of another part":
        part.write_bytes(parts[parts.index(part) - 1].read_bytes())
    else:
        part.write_bytes(bytes(content))
    _check(case, _predict(case, data), frame)


def damaged_inputs(case: Case) -> None:
    """Name the damaged part, keep what is written, and continue when it is repaired."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    part = data / f"in-{case.whole('part', 0, 2)}.parquet"
    content = part.read_bytes()
    damaged = bytearray(content)
    how = case.pick("damage", ["flip", "cut", "empty", "noise", "text"])
    if how == "flip":
        damaged[case.whole("place", 4, len(content) // 2)] ^= 0xFF
    elif how == "cut":
        damaged = damaged[: case.whole("place", 0, len(content) - 1)]
    elif how == "empty":
        damaged = bytearray()
    elif how == "noise":
        damaged = bytearray(case.rng.bytes(3000))
    else:
        damaged = bytearray(b"series_id,timestamp,value\n")
    part.write_bytes(bytes(damaged))
    case.expect("either", part.name)
    try:
        _predict(case, data)
    except DataError as error:
        check(part.name in str(error), f"the sentence does not name {part.name}: {error}")
    part.write_bytes(content)
    case.expect("answer")
    _check(case, _predict(case, data), frame)


def damaged_manifests(case: Case) -> None:
    """Refuse a manifest that is not as it was written."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    _cut_short(case, data, 1)
    path = case.folder / "out" / "_manifest.json"
    text = path.read_text()
    how = case.pick(
        "damage", ["cut", "empty", "list", "null", "deep", "removed", "key", "number", "future"]
    )
    changed: dict[str, str] = {
        "cut": text[: case.whole("place", 0, len(text) - 1)],
        "empty": "",
        "list": "[]",
        "null": "null",
        "deep": "[" * 100_000,
    }
    if how in ("key", "number", "future"):
        document = json.loads(text)
        key = case.pick("key", sorted(document))
        if how == "key":
            del document[key]
        else:
            document[key] = 10**30 if how == "number" else None
        changed[how] = json.dumps(document)
    if how == "removed":
        path.unlink()
    else:
        path.write_text(changed[how])
    _check(case, _predict(case, data), frame)


def bad_series(case: Case) -> None:
    """Name a bad series, or leave it out when asked to and list it."""
    frame = long(SERIES)
    _saved(case)
    bad = frame["series_id"] == "s2"
    kinds: dict[str, Callable[[], pd.DataFrame]] = {
        "all missing": lambda: frame.assign(value=frame["value"].mask(bad)),
        "end missing": lambda: frame.assign(
            value=frame["value"].mask(bad & (frame.index % 40 > 20))
        ),
        "doubled": lambda: pd.concat(
            [frame[frame.index < 120], frame[frame.index == 119], frame[frame.index >= 120]]
        ),
        "gap": lambda: frame[~(bad & (frame.index % 40 == 7))],
        "unsorted": lambda: pd.concat([frame[:80], frame[80:120][::-1], frame[120:]]),
        "inf": lambda: frame.assign(
            value=frame["value"].mask(bad & (frame.index % 40 == 7), np.inf)
        ),
        "hours": lambda: frame.assign(
            timestamp=frame["timestamp"].where(
                ~bad, pd.Timestamp("2024-01-01") + pd.to_timedelta(frame.index % 40, unit="h")
            )
        ),
        "no name": lambda: frame.assign(series_id=frame["series_id"].mask(bad)),
        "no stamp": lambda: frame.assign(timestamp=frame["timestamp"].mask(bad)),
    }
    kind = case.pick_named("kind", kinds)
    data = _write(kind(), case.folder / "data", 3)
    rest = frame[~bad]
    case.expect("either", "s2", "row")
    if case.pick("on_error", ["raise", "skip"]) == "raise":
        found = _predict(case, data)
        check(
            case.drawn["kind"] in ("end missing", "all missing", "no name"),
            "a bad series was taken",
        )
        check_values(found["forecast"])
        return
    if case.drawn["kind"] not in ("no name", "no stamp"):
        case.expect("answer")
    found = _predict(case, data, on_error="skip")
    if "s2" in set(found["series_id"]):
        check(case.drawn["kind"] in ("end missing", "all missing"), "a bad series was taken")
        found = found[found["series_id"] != "s2"]
    _check(case, found, rest)


def odd_arguments(case: Case) -> None:
    """Refuse arguments of a wrong kind; name them and write nothing."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    arguments: dict[str, list[Any]] = {
        "horizon": [0, -1, 1.5, "3", True, 10**6, 10**12],
        "quantiles": [
            [0],
            [2],
            ["a"],
            0.5,
            None,
            [0.5, 0.5],
            np.linspace(0.001, 0.999, 1001).tolist(),
        ],
        "engine": ["spark", 3, None],
        "batch_size": [0, -1, "many", 1.5],
        "block_rows": [0, -1, 1.5, "x"],
        "id_col": ["nope", 3],
        "time_col": ["nope", 3],
        "target_cols": ["nope", 3, ["value", "value"]],
        "freq": ["h", "X", 3],
        "fill": ["zero", 3],
        "sort": ["yes"],
        "future": ["nope.parquet", 3],
        "device": ["abacus", 3],
        "on_error": ["ignore", 3],
        "workers": [3],
    }
    name = case.pick("argument", list(arguments))
    value = case.pick("value", arguments[name])
    case.expect("either" if name in ("sort", "workers") else "refusal", name)
    try:
        _predict(case, data, **{name: value})
    except Exception:
        check(not list(case.folder.glob("out/*.parquet")), "a part is written, then refused")
        raise


def odd_places(case: Case) -> None:
    """Refuse places that hold no model, no data, or something else."""
    frame = long(SERIES)
    model = _saved(case)
    data = _write(frame, case.folder / "data")
    out = case.folder / "out"
    kind = case.pick(
        "kind", ["no model", "no data", "data are CSV", "out is data", "out is a file",
                 "out holds files",
                 "out is the model", "empty data", "out below a file", "out is full"]
    )  # fmt: skip
    case.expect("refusal")
    if kind == "no model":
        model = case.folder / "nope"
    elif kind == "no data":
        data = case.folder / "nope"
    elif kind == "data are CSV":
        data = case.folder / "data.csv"
        frame.to_csv(data, index=False)
    elif kind == "out is data":
        out = data
    elif kind == "out is a file":
        out.write_text("x")
    elif kind == "out holds files":
        out.mkdir()
        (out / "mine.parquet").write_text("x")
    elif kind == "out is the model":
        out = model
    elif kind == "empty data":
        data = case.folder / "empty"
        data.mkdir()
    elif kind == "out below a file":
        (case.folder / "f").write_text("x")
        out = case.folder / "f" / "out"
    else:
        out = Path("/proc/self/out")
    tsllm.predict_batch(model, data, out)


def parts_that_differ(case: Case) -> None:
    """Match the columns of parts by name and kind, or name the part that differs."""
    frame = long(SERIES)
    _saved(case)
    data = _write(frame, case.folder / "data")
    part = data / "in-1.parquet"
    rows = pd.read_parquet(part)
    kinds: dict[str, Any] = {
        "order": rows[["value", "timestamp", "series_id"]],
        "more columns": rows.assign(note="x"),
        "column missing": rows.drop(columns="value"),
        "int": rows.round().astype({"value": int}),
        "category": rows.astype({"series_id": "category"}),
        "date32": rows.assign(timestamp=rows["timestamp"].dt.date),
        "nanoseconds": rows.astype({"timestamp": "datetime64[ns]"}),
        "text times": rows.assign(timestamp=rows["timestamp"].astype(str)),
        "zone": rows.assign(timestamp=rows["timestamp"].dt.tz_localize("UTC")),
        "index": rows.set_index(["series_id", "timestamp"]),
        "empty": rows.iloc[:0],
        "decimal": None,
    }
    kind = case.pick("kind", list(kinds))
    if kind == "decimal":
        cells = pa.array([f"{one:.3f}" for one in rows["value"]]).cast(pa.decimal128(12, 3))
        table = pa.Table.from_pandas(rows, preserve_index=False).set_column(2, "value", cells)
        pq.write_table(table, part)
    else:
        kinds[kind].to_parquet(part)
    case.expect("either", "'in-")
    if kind in ("order", "nanoseconds", "int"):
        case.expect("answer")
    wanted = [frame[~frame["series_id"].isin(rows["series_id"])]]
    if kind == "int":
        wanted.append(kinds["int"])
    elif kind != "empty":
        wanted.append(rows)
    _check(case, _predict(case, data), pd.concat(wanted))


ATTACKS: list[Attack] = [
    ordinary_jobs,
    parts_that_are_not_read,
    changes_between_runs,
    jobs_cut_short,
    killed_jobs,
    full_disks,
    damaged_outputs,
    damaged_inputs,
    damaged_manifests,
    bad_series,
    odd_arguments,
    odd_places,
    parts_that_differ,
    changes_between_runs,
]
