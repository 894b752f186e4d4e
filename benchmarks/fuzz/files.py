"""Files and folders of long tables: how they are written, named, spread and damaged."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.cases import Attack, Case, check
from fuzz.shared import check_levels, check_table, long
from fuzz.tables import IDS, forecast
from tsllm.datasets import read_long


def _check_read(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Check that a reader returns the rows of a table, each series' in order."""
    labels = ["series_id", "timestamp"]
    left, right = (one.sort_values(labels)[[*labels, "value"]] for one in (found, wanted))
    check(
        left["series_id"].tolist() == right["series_id"].tolist(),
        f"series {sorted(set(left['series_id']))}, {len(left)} rows",
    )
    check(
        bool((left["timestamp"].to_numpy() == right["timestamp"].to_numpy()).all()), "other stamps"
    )
    check(np.allclose(left["value"], right["value"], equal_nan=True), "other values")


def dialects_of_csv(case: Case) -> None:
    """Read any CSV that names its dialect, and name the remedy where it does not."""
    frame = long().round({"value": 3})
    path = case.folder / "data.csv"
    separator = case.pick("sep", [",", ";", "\t", "|"])
    decimal = case.pick("decimal", [".", ","])
    encoding = case.pick("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1252"])
    frame["series_id"] = frame["series_id"].str.replace("s0", "ä0")
    frame.to_csv(
        path, index=False, sep=separator, decimal=decimal, encoding=encoding,
        lineterminator=case.pick("end", ["\n", "\r\n"]),
    )  # fmt: skip
    given: dict[str, Any] = {}
    if case.pick("arguments", ["none", "all"]) == "all":
        given = {"sep": separator, "decimal": decimal, "encoding": encoding}
        case.expect("either" if separator == decimal else "answer")
    elif (separator, decimal) == (",", ".") and encoding.startswith("utf-8"):
        case.expect("answer")
    elif encoding not in ("utf-8", "utf-8-sig"):
        case.expect("refusal", "encoding", "utf-8")
    elif separator != ",":
        case.expect("either", "separator", "sep")
    _check_read(read_long(path, **given), frame)


def names_of_files(case: Case) -> None:
    """Read files by what they hold, whatever the case of their ending; name the endings."""
    frame = long()
    writers: dict[str, Callable[[Path], Any]] = {
        "data.csv": lambda path: frame.to_csv(path, index=False),
        "SALES.CSV": lambda path: frame.to_csv(path, index=False),
        "Data.Csv.Gz": lambda path: path.write_bytes(
            gzip.compress(frame.to_csv(index=False).encode())
        ),
        "data.csv.gz": lambda path: frame.to_csv(path, index=False),
        "DATA.PARQUET": lambda path: frame.to_parquet(path, index=False),
        "data.pq": lambda path: frame.to_parquet(path, index=False),
        "data.with.dots.csv": lambda path: frame.to_csv(path, index=False),
        "ünï cödé.csv": lambda path: frame.to_csv(path, index=False),
        "data.txt": lambda path: frame.to_csv(path, index=False),
        "data.xlsx": lambda path: path.write_bytes(b"PK\x03\x04"),
        "data.json": lambda path: path.write_text(frame.to_json(orient="records")),
        "data.csv.bz2": lambda path: path.write_bytes(bz2.compress(frame.to_csv().encode())),
        "no ending": lambda path: frame.to_csv(path, index=False),
        "data.feather": lambda path: path.write_bytes(b"ARROW1"),
        "data.tsv": lambda path: frame.to_csv(path, index=False, sep="\t"),
    }
    name = case.pick("name", list(writers))
    path = case.folder / name
    writers[name](path)
    if name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        case.expect("answer")
    _check_read(
        read_long(str(path) if case.pick("as", ["text", "path"]) == "text" else path), frame
    )


def parts_of_folders(case: Case) -> None:
    """Read every part of a folder or name the one that is not read."""
    frame = long()
    halves = frame[frame["series_id"] == "s0"], frame[frame["series_id"] != "s0"]
    halves[0].to_parquet(case.folder / "p0.parquet", index=False)
    other = case.pick(
        "other",
        ["p1.parquet", "P1.PARQUET", "p1.pq", "p1.csv", "sub/p1.parquet", "id=1/p1.parquet",
         "p1.parquet.gz", "p1.snappy.parquet", "p1.parq", "p1", "p1.jsonl", "a/b/p1.parquet",
         "link.parquet"],
    )  # fmt: skip
    path = case.folder / other
    path.parent.mkdir(parents=True, exist_ok=True)
    if other.endswith(("csv", "jsonl")):
        path.write_text(halves[1].to_csv(index=False))
    elif other == "link.parquet":
        target = case.folder.parent / f"{case.folder.name}-target.parquet"
        halves[1].to_parquet(target, index=False)
        path.symlink_to(target)
    else:
        halves[1].to_parquet(path, index=False)
    taken = ("p1.parquet", "p1.snappy.parquet", "link.parquet")
    case.expect("answer" if other in taken else "either", other.split("/")[0])
    try:
        _check_read(read_long(case.folder), frame)
    finally:
        if other == "link.parquet":
            target.unlink()


def beside_the_parts(case: Case) -> None:
    """Leave out what is no part, as Spark and others write it, and read the parts."""
    frame = long()
    frame.to_parquet(case.folder / "p0.parquet", index=False)
    beside = case.pick(
        "beside", ["_SUCCESS", "_metadata", ".p0.parquet.crc", "_committed_1", ".DS_Store",
                   "_temporary/"]
    )  # fmt: skip
    if beside.endswith("/"):
        (case.folder / beside).mkdir()
    else:
        (case.folder / beside).write_bytes(b"x" if beside != "_SUCCESS" else b"")
    case.expect("answer")
    _check_read(read_long(case.folder), frame)


def parts_that_differ(case: Case) -> None:
    """Match the columns of parts by name and kind, or say how the part differs."""
    frame = long()
    first, second = frame.iloc[:60], frame.iloc[60:]
    kinds: dict[str, Any] = {
        "order": second[["value", "timestamp", "series_id"]],
        "more columns": second.assign(note="x"),
        "column missing": second.drop(columns="value"),
        "int values": second.round().astype({"value": int}),
        "float32": second.astype({"value": "float32"}),
        "category ids": second.astype({"series_id": "category"}),
        "date32": second.assign(timestamp=second["timestamp"].dt.date),
        "text times": second.assign(timestamp=second["timestamp"].astype(str)),
        "nanoseconds": second.astype({"timestamp": "datetime64[ns]"}),
        "integer ids": second.assign(series_id=range(60)),
        "zone": second.assign(timestamp=second["timestamp"].dt.tz_localize("UTC")),
        "other names": second.rename(columns={"value": "y"}),
        "text values": second.assign(value="a"),
        "empty": second.iloc[:0],
        "all null": second.assign(value=None),
    }
    kind = case.pick_named("kind", kinds)
    first.to_parquet(case.folder / "p0.parquet", index=False)
    kind.to_parquet(case.folder / "p1.parquet", index=False)
    name = case.drawn["kind"]
    if name in ("order", "float32", "nanoseconds", "category ids", "date32", "int values"):
        case.expect("answer")
    wanted = frame
    if name == "int values":
        wanted = pd.concat([first, second.round()])
    elif name == "empty":
        wanted = first
    elif name == "all null":
        wanted = pd.concat([first, second.assign(value=np.nan)])
    found = read_long(case.folder)
    if name == "float32":
        found = found.assign(value=found["value"].round(3))
        wanted = wanted.assign(value=wanted["value"].round(3))
        check(np.allclose(found["value"], wanted["value"], atol=2e-3), "other values")
    else:
        _check_read(found, wanted)


def indices_in_parquet(case: Case) -> None:
    """Read Parquet whose index pandas keeps in the metadata."""
    frame = long()
    forms: dict[str, Any] = {
        "range": (frame, True),
        "labels": (frame.set_index(["series_id", "timestamp"]), True),
        "times": (frame.set_index("timestamp"), True),
        "filtered": (
            frame[frame["value"] > -1e9].sample(frac=1, random_state=0).sort_index(),
            True,
        ),
        "named": (frame.rename_axis("row"), True),
        "none": (frame, False),
    }
    form, index = case.pick_named("form", forms)
    form.to_parquet(case.folder / "data.parquet", index=index)
    if case.drawn["form"] in ("range", "labels", "none", "filtered"):
        case.expect("answer")
    _check_read(read_long(case.folder / "data.parquet"), frame)


def damaged_files(case: Case) -> None:
    """Read a damaged file rightly or refuse it; never read other values from Parquet."""
    frame = long()
    kind = case.pick("file", ["data.csv", "data.parquet", "data.csv.gz", "data.jsonl"])
    path = case.folder / kind
    if kind.endswith("parquet"):
        frame.to_parquet(path, index=False, write_page_checksum=True)
    elif kind.endswith("jsonl"):
        frame.astype({"timestamp": str}).to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    content = bytearray(path.read_bytes())
    how = case.pick(
        "damage", ["cut", "flip", "zeros", "empty", "noise", "doubled", "NUL", "header"]
    )
    place = case.whole("place", 0, len(content) - 1)
    if how == "cut":
        content = content[:place]
    elif how == "flip":
        content[place] ^= 1 << case.whole("bit", 0, 7)
    elif how == "zeros":
        content[place : place + 64] = bytes(min(64, len(content) - place))
    elif how == "empty":
        content = bytearray()
    elif how == "noise":
        content = bytearray(case.rng.bytes(500))
    elif how == "doubled":
        content = content * 2
    elif how == "NUL":
        content.insert(place, 0)
    else:
        content = content[: content.find(b"\n") + 1] if b"\n" in content else content[:4]
    path.write_bytes(bytes(content))
    if how in ("empty", "noise", "header") or (
        how == "cut" and kind in ("data.parquet", "data.csv.gz")
    ):
        case.expect("refusal")
    found = read_long(path, fill="nan", sort=True)
    if kind == "data.parquet" or (kind == "data.csv.gz" and how != "NUL"):
        _check_read(found, frame)


def odd_paths(case: Case) -> None:
    """Refuse what is no file in a sentence, without reading for ever."""
    kinds: dict[str, Callable[[], Any]] = {
        "missing": lambda: case.folder / "nope.csv",
        "empty folder": lambda: case.folder,
        "fifo": lambda: os.mkfifo(case.folder / "data.csv") or case.folder / "data.csv",
        "zero": lambda: (
            (case.folder / "data.csv").symlink_to("/dev/zero") or case.folder / "data.csv"
        ),
        "loop": lambda: (
            (case.folder / "data.csv").symlink_to("data.csv") or case.folder / "data.csv"
        ),
        "folder named like a file": lambda: (
            (case.folder / "data.csv").mkdir() or case.folder / "data.csv"
        ),
        "long name": lambda: case.folder / ("x" * 300 + ".csv"),
        "NUL": lambda: "a\0b.csv",
        "empty text": lambda: "",
        "bytes": lambda: b"data.csv",
        "URL": lambda: "https://127.0.0.1:9/data.csv",
        "S3": lambda: "s3://bucket/data.parquet",
        "below a file": lambda: (case.folder / "a").write_text("x") and case.folder / "a" / "b.csv",
    }
    kind = case.pick_named("path", kinds)
    case.expect("refusal")
    read_long(kind())


def zipped(case: Case) -> None:
    """Read or refuse archives."""
    frame = long()
    path = case.folder / case.pick("name", ["data.zip", "data.csv.zip", "data.csv.gz"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.csv", frame.to_csv(index=False))
    _check_read(read_long(path), frame)


def kinds_of_parquet(case: Case) -> None:
    """Read Parquet of other writers: units, dictionaries, decimals, large text, many groups."""
    frame = long().round({"value": 2})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    kind = case.pick(
        "kind",
        ["dictionary", "decimal", "large text", "int96", "ms", "groups", "version 1", "string view",
         "float16", "uncompressed", "zstd"],
    )  # fmt: skip
    options: dict[str, Any] = {}
    if kind == "dictionary":
        table = table.set_column(0, "series_id", table["series_id"].dictionary_encode())
    elif kind == "decimal":
        cells = pa.array(
            [None if np.isnan(v) else f"{v:.2f}" for v in frame["value"]], pa.string()
        ).cast(pa.decimal128(12, 2))
        table = table.set_column(2, "value", cells)
    elif kind == "large text":
        table = table.set_column(0, "series_id", table["series_id"].cast(pa.large_string()))
    elif kind == "string view":
        table = table.set_column(0, "series_id", table["series_id"].cast(pa.string()))
    elif kind == "int96":
        options = {"use_deprecated_int96_timestamps": True}
    elif kind == "ms":
        options = {"coerce_timestamps": "ms"}
    elif kind == "groups":
        options = {"row_group_size": 7}
    elif kind == "version 1":
        options = {"version": "1.0"}
    elif kind == "float16":
        table = table.set_column(2, "value", table["value"].cast(pa.float16()))
        frame["value"] = frame["value"].astype("float16").astype(float)
    else:
        options = {"compression": "none" if kind == "uncompressed" else "zstd"}
    pq.write_table(table, case.folder / "data.parquet", **options)
    case.expect("answer")
    _check_read(read_long(case.folder / "data.parquet"), frame)


def forecasts_from_files(case: Case) -> None:
    """Forecast from a file as from its frame."""
    frame = long()
    name = case.pick("name", ["data.csv", "data.parquet", "folder"])
    path = case.folder / name
    if name == "folder":
        path.mkdir()
        frame.iloc[:60].to_parquet(path / "a.parquet", index=False)
        frame.iloc[60:].to_parquet(path / "b.parquet", index=False)
    elif name.endswith("csv"):
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    case.expect("answer")
    table = forecast(path)
    check_table(table, IDS, 2)
    check_levels(table)
    right = forecast(frame)
    check(np.allclose(table["forecast"], right["forecast"]), "another forecast than from the frame")
    shutil.rmtree(path, ignore_errors=True)


def cells_of_csv(case: Case) -> None:
    """Read odd cells as what they are, or name their line."""
    cell = case.pick(
        "cell",
        ["1,5", "1 000", "1e400", "-", "n/a", "NULL", "#N/A", "", " 7 ", "0x1F", "1_000", "١٢",
         "inf", "nan", '"5"', "5%", "€5", "1.2.3", "True", "−5", "1d5", "5\u00a0000", "=1+1"],
    )  # fmt: skip
    column = case.pick("column", ["value", "timestamp", "series_id"])
    frame = long(1).astype(str)
    frame.loc[5, column] = cell
    frame.to_csv(case.folder / "data.csv", index=False)
    case.expect("either", "line 7", "s0", "row")
    read = read_long(case.folder / "data.csv", fill="nan")
    if column == "value":
        number = read["value"].iloc[5]
        if np.isnan(number):
            check(cell in ("", "n/a", "NULL", "#N/A", "nan"), f"{cell!r} is read as missing")
        else:
            check(float(number) == _number(cell), f"{cell!r} is read as {number}")
    elif column == "series_id":
        check(cell in set(read["series_id"]), f"no series {cell!r}")


def _number(cell: str) -> float | None:
    """Return the number that a cell of plain figures states."""
    plain = cell.strip().strip('"')
    return float(plain) if re.fullmatch(r"[0-9.]+", plain) else None


ATTACKS: list[Attack] = [
    dialects_of_csv,
    names_of_files,
    parts_of_folders,
    beside_the_parts,
    parts_that_differ,
    indices_in_parquet,
    damaged_files,
    odd_paths,
    zipped,
    kinds_of_parquet,
    forecasts_from_files,
    cells_of_csv,
    parts_of_folders,
    damaged_files,
]
