"""Folders of parts: each file is read or named, whatever its name, format and order."""

import datetime
import gzip
import os
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import complaint_of

import tsllm
from tsllm.datasets import read_long

complaint = partial(complaint_of, read_long)


def series(name, steps=4, start="2024-01-01"):
    return pd.DataFrame(
        {
            "series_id": name,
            "timestamp": pd.date_range(start, periods=steps, freq="D"),
            "y": np.arange(steps) + len(name),
        }
    )


def write_part(frame, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.lower().endswith(".csv.gz"):
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    elif path.suffix.lower() == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix.lower() == ".jsonl":
        frame.astype({"timestamp": str}).to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path, index=False)


def names_in(folder, **arguments):
    return read_long(folder, **arguments)["series_id"].unique().tolist()


@pytest.mark.parametrize(
    "names",
    [
        ["p0.parquet", "P1.PARQUET", "p2.pq", "p3.parq", "sub/p4.parquet", "z/y/x.Parquet"],
        ["p0.csv", "P1.CSV", "p2.csv.gz", "P3.CSV.GZ", "sub/p4.csv"],
        ["p0.jsonl", "P1.JSONL", "sub/p2.jsonl"],
    ],
)
def test_every_part_is_read(tmp_path, names):
    for number, name in enumerate(names):
        write_part(series(f"s{number}"), tmp_path / name)
    for hidden in ("_SUCCESS", ".p0.parquet.crc", "_delta_log/0.json", ".hidden/p.parquet"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_text("no table")
    assert sorted(names_in(tmp_path)) == [f"s{number}" for number in range(len(names))]


@pytest.mark.parametrize("name", ["SALES.CSV", "sales.Csv.Gz", "SALES.PARQUET", "sales.pq"])
def test_endings_in_any_case_of_letters(tmp_path, name):
    write_part(series("a"), tmp_path / name)
    assert names_in(tmp_path / name) == ["a"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("p1.csv", ["'p1.csv' is CSV, but 'p0.parquet' is Parquet", "same format"]),
        ("sub/p1.csv", ["'sub/p1.csv' is CSV"]),
        ("notes.txt", ["holds 'notes.txt', which is no table", "underscore"]),
        ("p1.parquet.bak", ["'p1.parquet.bak'"]),
        ("sub/p1.xlsx", ["'sub/p1.xlsx'"]),
    ],
)
def test_what_is_not_read_is_named(tmp_path, other, words):
    write_part(series("a"), tmp_path / "p0.parquet")
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text(series("b").to_csv(index=False))
    message = complaint(tmp_path)
    assert [word for word in words if word not in message] == [], message


def test_links_and_pipes_are_followed_or_named(tmp_path):
    write_part(series("a"), tmp_path / "data" / "p0.parquet")
    write_part(series("b"), tmp_path / "elsewhere" / "p1.parquet")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert names_in(tmp_path / "data") == ["b", "a"]
    (tmp_path / "data" / "up").symlink_to(tmp_path / "data")
    assert "'up'" in complaint(tmp_path / "data")
    (tmp_path / "data" / "up").unlink()
    (tmp_path / "data" / "gone.parquet").symlink_to(tmp_path / "nowhere")
    assert "'gone.parquet'" in complaint(tmp_path / "data")
    (tmp_path / "data" / "gone.parquet").unlink()
    os.mkfifo(tmp_path / "data" / "pipe.parquet")
    assert "'pipe.parquet'" in complaint(tmp_path / "data")


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_folders_of_a_partition_are_columns(tmp_path, ending):
    for name in ("007", "a b", "c/d"):
        folder = f"series_id={name.replace(' ', '%20').replace('/', '%2F')}"
        write_part(series(name).drop(columns="series_id"), tmp_path / folder / f"p.{ending}")
    assert names_in(tmp_path) == ["007", "a b", "c/d"]
    assert read_long(tmp_path)["y"].tolist() == [*range(3, 7)] * 3


def test_a_partition_needs_a_role(tmp_path):
    for year in (2023, 2024):
        part = series("a", 3, "2023-12-29" if year == 2023 else "2024-01-01")
        write_part(part, tmp_path / f"year={year}" / "part.parquet")
    message = complaint(tmp_path)
    assert "'year' in the names of its folders" in message and "target_cols=['y']" in message
    assert len(read_long(tmp_path, target_cols="y")) == 6
    assert read_long(tmp_path, covariates="year", target_cols="y")["year"].tolist() == (
        ["2023"] * 3 + ["2024"] * 3
    )


def test_a_missing_partition_and_one_that_the_file_repeats(tmp_path):
    write_part(series("a"), tmp_path / "series_id=a" / "p.parquet")
    write_part(series("b"), tmp_path / "series_id=b" / "p.parquet")
    assert names_in(tmp_path) == ["a", "b"]
    write_part(series("d"), tmp_path / "series_id=c" / "p.parquet")
    assert "other values than 'c'" in complaint(tmp_path)
    missing = tmp_path / "series_id=c" / "p.parquet"
    write_part(series("c").drop(columns="series_id"), missing)
    missing.parent.rename(tmp_path / "series_id=__HIVE_DEFAULT_PARTITION__")
    assert "has no series in column 'series_id'" in complaint(tmp_path)


def test_partitions_of_some_parts_only(tmp_path):
    write_part(series("a"), tmp_path / "region=north" / "p.parquet")
    write_part(series("b"), tmp_path / "p.parquet")
    message = complaint(tmp_path)
    assert "different columns" in message and "region" in message and "none" in message


# Columns of parts


def test_parts_differ_in_order_and_types(tmp_path):
    write_part(series("a"), tmp_path / "0.parquet")
    dates = series("b")
    dates["timestamp"] = dates["timestamp"].dt.date
    dates = dates.astype({"series_id": "category", "y": "float32"})[["y", "timestamp", "series_id"]]
    write_part(dates, tmp_path / "1.parquet")
    assert pa.types.is_date(pq.read_schema(tmp_path / "1.parquet").field("timestamp").type)
    nothing = series("c").assign(y=None)
    write_part(nothing, tmp_path / "2.parquet")
    numbers = series("d").assign(y=[*map(datetime.datetime.toordinal, dates["timestamp"])][:4])
    write_part(numbers.assign(y=numbers["y"] * 1.5), tmp_path / "3.parquet")
    expected = pd.concat([series("a"), series("b"), nothing, numbers.assign(y=numbers["y"] * 1.5)])
    read = read_long(tmp_path)
    assert read["timestamp"].tolist() == expected["timestamp"].tolist()
    assert read["series_id"].tolist() == expected["series_id"].tolist()
    np.testing.assert_array_equal(read["y"], expected["y"].astype(float))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_columns_of_some_parts_are_left_out_or_named(tmp_path, ending):
    write_part(series("a"), tmp_path / f"0.{ending}")
    write_part(series("b").assign(promo=1.0), tmp_path / f"1.{ending}")
    message = complaint(tmp_path)
    assert f"'0.{ending}'" in message and "no column 'promo'" in message
    assert "target_cols=['y']" in message
    assert names_in(tmp_path, target_cols="y") == ["a", "b"]
    assert "'promo'" in complaint(tmp_path, target_cols="y", covariates="promo")
    write_part(series("b").rename(columns={"series_id": "name"}), tmp_path / f"1.{ending}")
    assert "missing in" in complaint(tmp_path, target_cols="y")


def test_types_that_no_type_holds_are_named(tmp_path):
    write_part(series("a"), tmp_path / "0.parquet")
    write_part(series("b").astype({"y": str}), tmp_path / "1.parquet")
    message = complaint(tmp_path)
    assert "column 'y'" in message and "'0.parquet'" in message and "'1.parquet'" in message


def test_rows_of_csv_parts_are_named_by_part(tmp_path):
    write_part(series("a"), tmp_path / "0.csv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "1.csv").write_text("series_id,timestamp,y\nb,2024-01-01,x\n")
    assert "series 'b', line 2 of sub/1.csv, column 'y' holds 'x'" in complaint(tmp_path)


# An index in the file


@pytest.mark.parametrize("levels", [["timestamp"], ["series_id", "timestamp"]])
def test_an_index_in_the_file_is_a_column(tmp_path, levels):
    frame = series("a").set_index(levels)
    frame.to_parquet(tmp_path / "0.parquet")
    pd.testing.assert_frame_equal(
        read_long(tmp_path / "0.parquet"), read_long(series("a")), check_dtype=False
    )
    series("b").to_parquet(tmp_path / "1.parquet")
    assert names_in(tmp_path) == ["a", "b"]


def test_row_numbers_in_an_index_are_left_out(tmp_path):
    frame = series("a").set_axis([5, 3, 8, 1])
    for number, name in enumerate([None, "row", "id"]):
        path = tmp_path / f"{number}.parquet"
        frame.rename_axis(name).to_parquet(path)
        assert read_long(path).columns.tolist() == ["series_id", "timestamp", "y"]
    steps = pd.DataFrame({"y": [1.0, 2, 4]}, pd.RangeIndex(3, name="time"))
    steps.to_parquet(tmp_path / "steps.parquet")
    assert read_long(tmp_path / "steps.parquet")["timestamp"].tolist() == [0, 1, 2]


def test_dates_in_an_index_without_a_name(tmp_path):
    frame = series("a")[["timestamp", "y"]].set_index("timestamp").rename_axis(None)
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_long(tmp_path / "a.parquet")["y"].tolist() == [1, 2, 3, 4]


def test_a_level_without_a_role_is_named(tmp_path):
    frame = pd.concat([series("a").assign(shop=1), series("b").assign(shop=2)])
    frame.set_index(["shop", "timestamp"])[["y"]].to_parquet(tmp_path / "a.parquet")
    assert "'shop' in the names of its folders or in an index" in complaint(tmp_path / "a.parquet")
    assert names_in(tmp_path / "a.parquet", id_col="shop") == ["1", "2"]


def test_a_target_that_a_part_lacks_is_left_out_only_if_another_remains(tmp_path):
    write_part(series("a"), tmp_path / "a.parquet")
    write_part(series("b").drop(columns="y"), tmp_path / "b.parquet")
    message = complaint(tmp_path)
    assert "'b.parquet' in" in message and message.endswith("give every part the same"), message
    assert complaint(tmp_path, target_cols=["y"]).endswith("give it to every part")
    write_part(series("a").assign(z=1.5), tmp_path / "a.parquet")
    write_part(series("b").drop(columns="y").assign(z=2.5), tmp_path / "b.parquet")
    assert complaint(tmp_path).endswith("or pass target_cols=['z'] (--target-col) to leave it out")
    assert complaint(tmp_path, target_cols=["y", "z"]).endswith("or leave it out")
    assert names_in(tmp_path, target_cols=["z"]) == ["a", "b"]


def test_forecasts_of_a_folder_are_those_of_one_file(tmp_path):
    whole = pd.concat([series("a", 30), series("b", 30)], ignore_index=True)
    write_part(whole[:30], tmp_path / "parts" / "0.PARQUET")
    write_part(whole[30:][["y", "timestamp", "series_id"]], tmp_path / "parts" / "x" / "1.pq")
    write_part(whole, tmp_path / "whole.csv")
    how = {"method": "autotimes", "backbone": None, "max_steps": 2, "random_state": 0}
    one = tsllm.forecast(tmp_path / "whole.csv", 2, **how)
    pd.testing.assert_frame_equal(tsllm.forecast(tmp_path / "parts", 2, **how), one)


@pytest.mark.parametrize(
    "name", ["pipe.csv", "zero.csv", "loop.csv", "x" * 300 + ".csv", "a/b.csv", "\0"]
)
def test_what_is_no_file_is_refused_without_reading(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "a").write_text("x")
    message = complaint(tmp_path / name)
    assert "check the path" in message or "a pipe or a device" in message


def test_page_checksums_of_parquet_are_verified(tmp_path):
    path = tmp_path / "p.parquet"
    series("a", steps=50).to_parquet(path, index=False, write_page_checksum=True, compression=None)
    content = bytearray(path.read_bytes())
    place = content.index(np.arange(50).astype("int64")[20].tobytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    assert "p.parquet" in complaint(path) and "checksum" in complaint(path)
