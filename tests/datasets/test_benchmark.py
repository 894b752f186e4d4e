import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsllm.datasets import (
    BenchmarkSplit,
    benchmark,
    describe_benchmarks,
    list_benchmarks,
    load_benchmark,
    read_long,
)
from tsllm.errors import DataError

FOLDER = Path(os.environ.get("TSLLM_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="shared/data absent")


# Sizes and borders printed by the published code (Autoformer's data_loader.py) for lookback 96.
@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "split", "borders"),
    [
        ("ETTh1", (17420, 7), (8640, 2880, 2880), [(0, 8640), (8544, 11520), (11424, 14400)]),
        ("exchange_rate", (7588, 8), (5311, 760, 1517), [(0, 5311), (5215, 6071), (5975, 7588)]),
        ("national_illness", (966, 7), (676, 97, 193), [(0, 676), (580, 773), (677, 966)]),
    ],
)
def test_published_splits(name, shape, split, borders):
    loaded = load_benchmark(name, FOLDER)
    assert loaded.split == split
    assert loaded.test is None
    assert loaded.frame.iloc[:, 2:].shape == shape
    parts = ("train", "validation", "test")
    rows = [loaded.split.rows(part, context_length=96) for part in parts]
    assert [(part.start, part.stop) for part in rows] == borders


@needs_data
def test_values_are_those_of_the_file():
    frame = load_benchmark("ETTh1", FOLDER).frame
    table = np.loadtxt(FOLDER / "ETTh1.csv", delimiter=",", skiprows=1, usecols=range(1, 8))
    np.testing.assert_array_equal(frame.iloc[:, 2:], table)


@needs_data
def test_m4_hourly_is_ragged_and_its_test_part_follows_on():
    loaded = load_benchmark("m4_hourly", FOLDER)
    assert loaded.split is None
    train, test = (
        loaded.frame.groupby("series_id", sort=False),
        loaded.test.groupby("series_id", sort=False),
    )
    assert train.ngroups == test.ngroups == 414
    assert set(train.size()) == {700, 960}
    assert set(test.size()) == {48}
    np.testing.assert_array_equal(test["timestamp"].min(), train["timestamp"].max() + 1)
    assert loaded.test.loc[loaded.test["series_id"] == "H1", "y"].iloc[:3].tolist() == [
        619,
        565,
        532,
    ]
    pd.testing.assert_frame_equal(read_long(loaded.frame), loaded.frame)


@needs_data
@pytest.mark.parametrize("name", ["ETTh1", "m4_hourly", "exchange_rate", "national_illness"])
def test_checksums_are_those_of_the_data_at_hand(name):
    for file in benchmark._FILES[name]:
        data = (FOLDER / file.name).read_bytes()
        # two of the published files have Windows line ends
        published = [data, data.replace(b"\n", b"\r\n")]
        assert file.sha256 in [hashlib.sha256(one).hexdigest() for one in published]


def test_split_rows():
    split = BenchmarkSplit(10, 3, 4)
    assert split.rows("train", context_length=5) == slice(0, 10)
    assert split.rows("validation") == slice(10, 13)
    assert split.rows("test", context_length=13) == slice(0, 17)
    with pytest.raises(DataError, match="context_length=14 does not fit before the test part"):
        split.rows("test", context_length=14)
    with pytest.raises(DataError, match="part='val'"):
        split.rows("val")


def write_illness(folder: Path) -> bytes:
    weeks = pd.date_range("2002-01-01", periods=20, freq="7D")
    table = pd.DataFrame({"date": weeks, "OT": range(20)})
    table.to_csv(folder / "national_illness.csv", index=False)
    return (folder / "national_illness.csv").read_bytes()


def test_the_folder_comes_from_the_argument_else_from_the_environment(tmp_path, monkeypatch):
    write_illness(tmp_path)
    split = BenchmarkSplit(14, 2, 4)
    monkeypatch.setenv("TSLLM_DATA", str(tmp_path / "absent"))
    assert load_benchmark("national_illness", tmp_path).split == split
    with pytest.raises(DataError, match=r"holds no national_illness.csv; put it there from https"):
        load_benchmark("national_illness")
    monkeypatch.setenv("TSLLM_DATA", str(tmp_path))
    assert load_benchmark("national_illness").split == split


def test_without_a_folder_the_cache_is_used_and_checked(tmp_path, monkeypatch):
    data = write_illness(tmp_path)
    (tmp_path / "source.csv").write_bytes(data)
    (tmp_path / "national_illness.csv").unlink()
    monkeypatch.delenv("TSLLM_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(known_hash)
        (Path(path) / fname).write_bytes(data)
        return str(Path(path) / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(
        DataError, match=r"not in the cache .*allow_download is False; pass folder="
    ):
        load_benchmark("national_illness", allow_download=False)
    assert asked == []
    assert len(load_benchmark("national_illness").frame) == 20
    assert asked == [f"sha256:{benchmark._FILES['national_illness'][0].sha256}"]


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("TSLLM_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)

    def retrieve(*args, **kwargs):
        raise ValueError("SHA256 hash of downloaded file does not match the known hash")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(DataError, match=r"ETTh2.csv could not be downloaded .*TSLLM_DATA"):
        load_benchmark("ETTh2")


def test_a_hole_in_m4_is_refused(tmp_path):
    (tmp_path / "m4_hourly_train.csv").write_text('"V1","V2","V3","V4"\n"H1",1,,3\n')
    (tmp_path / "m4_hourly_test.csv").write_text('"V1","V2"\n"H1",4\n')
    with pytest.raises(DataError, match=r"m4_hourly_train.csv has an empty cell"):
        load_benchmark("m4_hourly", tmp_path)


def test_an_unknown_name_points_to_the_nearest():
    assert "ETTh1" in list_benchmarks()
    with pytest.raises(DataError, match="'etth1'; did you mean 'ETTh1' or 'ETTh2'"):
        load_benchmark("etth1")


@needs_data
@pytest.mark.parametrize("name", ["ETTh1", "exchange_rate", "national_illness", "m4_hourly"])
def test_what_is_said_of_a_benchmark_is_so(name):
    facts = describe_benchmarks(FOLDER).set_index("name").loc[name]
    frame = load_benchmark(name, FOLDER).frame
    assert facts["found"] == str(FOLDER)
    assert (facts["rows"], facts["series"]) == (len(frame), frame["series_id"].nunique())
    assert facts["variables"] == frame.shape[1] - 2
    if pd.isna(facts["freq"]):
        assert pd.api.types.is_integer_dtype(frame["timestamp"])
    else:
        assert facts["freq"] == pd.infer_freq(frame["timestamp"])


def test_describe_benchmarks_without_files(tmp_path):
    facts = describe_benchmarks(tmp_path)
    assert facts["name"].tolist() == list_benchmarks()
    assert facts["found"].isna().all()
