"""Folders as batch jobs find them: every part is forecast or named, as `read_long` reads them."""

import pandas as pd
import pytest
from long_frames import fit_tiny

import tsllm
from tsllm.batch import predict_batch
from tsllm.datasets import read_long
from tsllm.errors import DataError
from tsllm.tables.forecast import predict_long

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def forecasts(model, data, out, **options):
    predict_batch(model, data, out, block_rows=300, **options)
    return pd.read_parquet(out)


def sort(table):
    return table.sort_values(["series_id", "timestamp"], ignore_index=True)


@pytest.mark.parametrize("layout", ["names", "partition", "mixed types", "index"])
def test_a_folder_is_forecast_as_one_table(model, frame, expected, tmp_path, layout):
    data = tmp_path / "data"
    thirds = [
        frame[frame["series_id"].between(first, last)]
        for first, last in (("s0000", "s0009"), ("s0010", "s0019"), ("s0020", "s0029"))
    ]
    if layout == "partition":
        for name, rows in frame.groupby("series_id"):
            (data / f"series_id={name}").mkdir(parents=True)
            rows.drop(columns="series_id").to_parquet(data / f"series_id={name}" / "0.parquet")
    elif layout == "index":
        data.mkdir()
        frame.set_index(["series_id", "timestamp"]).to_parquet(data / "0.parquet")
    else:
        (data / "more").mkdir(parents=True)
        (data / "_SUCCESS").touch()
        if layout == "mixed types":
            dates = thirds[1]["timestamp"].dt.date
            thirds[1] = thirds[1].assign(timestamp=dates)[["value", "timestamp", "series_id"]]
            thirds[2] = thirds[2].astype({"series_id": "category"})
        paths = ["P0.PARQUET", "more/p1.parquet", "p2.pq"]
        for part, path in zip(thirds, paths):
            part.to_parquet(data / path, index=False)
    table = sort(forecasts(model, data, tmp_path / "out"))
    pd.testing.assert_frame_equal(table, sort(expected), rtol=1e-6, check_dtype=False)
    pd.testing.assert_frame_equal(sort(read_long(data)), sort(read_long(frame)), check_dtype=False)


@pytest.mark.parametrize("other", ["p1.csv", "sub/p1.txt"])
def test_what_is_not_read_is_named(model, frame, tmp_path, other):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    frame.to_parquet(data / "p0.parquet", index=False)
    frame.to_csv(data / other, index=False)
    with pytest.raises(DataError, match=other):
        forecasts(model, data, tmp_path / "out")


def test_a_part_may_lack_columns_but_not_those_of_the_model(model, frame, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    frame[:500].to_parquet(data / "0.parquet", index=False)
    frame[500:].assign(promo=1).to_parquet(data / "1.parquet", index=False)
    assert forecasts(model, data, tmp_path / "out")["series_id"].nunique() == 30
    frame[500:].rename(columns={"value": "sold"}).to_parquet(data / "1.parquet", index=False)
    with pytest.raises(DataError, match=r"'value'.*missing in '1.parquet'"):
        forecasts(model, data, tmp_path / "other")


def test_a_partition_that_is_no_series_needs_a_role(model, frame, tmp_path):
    for year, rows in (("2023", frame[:600]), ("2024", frame[600:])):
        (tmp_path / "data" / f"year={year}").mkdir(parents=True)
        rows.to_parquet(tmp_path / "data" / f"year={year}" / "0.parquet", index=False)
    with pytest.raises(DataError, match=r"'year' in the names of its folders"):
        forecasts(model, tmp_path / "data", tmp_path / "out")
    table = forecasts(model, tmp_path / "data", tmp_path / "out", target_cols="value")
    assert table["series_id"].nunique() == 30


def test_zone_and_format_of_the_times(frame, tmp_path):
    zoned = frame.assign(timestamp=frame["timestamp"].dt.tz_localize("Europe/Berlin"))
    saved = tsllm.save(fit_tiny(zoned[zoned["series_id"] < "s0005"]), tmp_path / "model")
    expected = predict_long(tsllm.load(saved), read_long(zoned), 3)
    texts = zoned.assign(timestamp=zoned["timestamp"].dt.strftime("%d.%m.%Y %z"))
    texts.to_parquet(tmp_path / "data.parquet", index=False)
    how = {"tz": "Europe/Berlin", "format": "%d.%m.%Y %z"}
    table = forecasts(saved, tmp_path / "data.parquet", tmp_path / "out", **how)
    assert table["timestamp"].tolist() == expected["timestamp"].tolist()
    pd.testing.assert_frame_equal(table, expected, rtol=1e-6, check_dtype=False)
    with pytest.raises(DataError, match="was started with tz='Europe/Berlin'"):
        forecasts(saved, tmp_path / "data.parquet", tmp_path / "out", format="%d.%m.%Y %z")
