"""Batch jobs with on_error="skip": bad series are listed, the others are forecast."""

import numpy as np
import pandas as pd
import pytest
from covariate_frames import covariate_frames
from long_frames import write_parts

import tsllm
from tsllm.batch import predict_batch
from tsllm.errors import DataError, NoSeriesLeftError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture(scope="module")
def spoilt(frame):
    """The frame with five bad series, and the words of each refusal."""
    rows = frame.groupby("series_id").indices
    spoilt = frame.copy()
    spoilt.loc[rows["s0003"], "value"] = np.nan
    spoilt.loc[rows["s0007"][-15:], "value"] = np.nan
    spoilt.loc[rows["s0012"][5], "value"] = np.inf
    spoilt.loc[rows["s0020"][6], "timestamp"] = spoilt.loc[rows["s0020"][5], "timestamp"]
    spoilt = spoilt.drop(rows["s0029"][4]).reset_index(drop=True)
    return spoilt, {
        "s0003": "no observed value in column 'value'",
        "s0007": "no observed value in column 'value' in its last 12 steps",
        "s0012": "column 'value' holds inf",
        "s0020": "have the same stamp",
        "s0029": "has a gap",
    }


@pytest.mark.parametrize("order", ["sorted", "scattered"])
def test_the_rest_is_forecast_and_the_bad_are_listed(model, spoilt, expected, tmp_path, order):
    frame, words = spoilt
    if order == "scattered":
        frame = frame.sort_values("timestamp", kind="stable")
    data = write_parts(frame, tmp_path / "data", [333, 700])
    out = tmp_path / "out"
    result = predict_batch(
        model, data, out, block_rows=200, on_error="skip", batch_size="auto", sort=True
    )
    listed = pd.read_csv(out / "_skipped.csv").set_index("series_id")["reason"]
    assert result.skipped == listed.to_dict()
    assert result.series == 25 and sorted(result.skipped) == list(words)
    for name, text in words.items():
        assert f"series {name!r}" in listed[name] and text in listed[name]
    found = pd.read_parquet(out).sort_values(["series_id", "timestamp"]).reset_index(drop=True)
    wanted = expected[~expected["series_id"].isin(words)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-5)
    again = predict_batch(model, data, out, on_error="skip", sort=True)
    assert again.blocks_before == again.blocks and again.skipped == result.skipped


def test_a_refused_job_goes_on_with_skip_and_back(model, spoilt, tmp_path):
    data = write_parts(spoilt[0], tmp_path / "data", [333, 700])
    out = tmp_path / "out"
    with pytest.raises(DataError, match="s0003"):
        predict_batch(model, data, out, block_rows=100)
    before = len(list(out.glob("part-*")))
    assert before >= 1
    result = predict_batch(model, data, out, on_error="skip")
    assert result.blocks_before == before and len(result.skipped) == 5
    with pytest.raises(DataError, match="s0003"):
        predict_batch(model, data, out)


def test_a_block_of_bad_series_has_no_part(model, frame, tmp_path):
    bad = frame["series_id"].between("s0002", "s0007")
    data = write_parts(frame.assign(value=frame["value"].mask(bad, np.inf)), tmp_path / "data", [])
    result = predict_batch(model, data, tmp_path / "out", block_rows=100, on_error="skip")
    parts = list((tmp_path / "out").glob("part-*.parquet"))
    assert len(parts) < result.blocks and len(result.skipped) == 6
    found = pd.read_parquet(tmp_path / "out")["series_id"].unique()
    assert sorted(found) == sorted(frame["series_id"][~bad].unique())
    again = predict_batch(model, data, tmp_path / "out", on_error="skip")
    assert again.blocks_before == again.blocks


def test_when_all_are_bad_the_job_fails_and_lists_them(model, frame, tmp_path):
    data = write_parts(frame.assign(value=np.inf), tmp_path / "data", [])
    with pytest.raises(
        NoSeriesLeftError, match=r"none of the 30 series can be used: series 's0000'"
    ):
        predict_batch(
            model, data, tmp_path / "out", block_rows=100, on_error="skip", batch_size="auto"
        )
    assert len(pd.read_csv(tmp_path / "out" / "_skipped.csv")) == 30
    with pytest.raises(DataError, match="on_error must be"):
        predict_batch(model, data, tmp_path / "out", on_error="drop")


def test_series_without_a_good_future_are_left_out(covariate_model, tmp_path):
    values, known = covariate_frames([f"s{i}" for i in range(6)])
    model = tsllm.save(covariate_model, tmp_path / "model")
    values.to_parquet(tmp_path / "data.parquet", index=False)
    known.loc[known["series_id"] == "s1", "warm"] = np.inf
    known = known[~known["series_id"].isin(["s2", "s4"])]
    known.to_parquet(tmp_path / "future.parquet", index=False)
    for rows in (90, 180, 1000):  # one series a block, two, all
        result = predict_batch(
            model,
            tmp_path / "data.parquet",
            tmp_path / f"out{rows}",
            future=tmp_path / "future.parquet",
            block_rows=rows,
            on_error="skip",
        )
        assert sorted(result.skipped) == ["s1", "s2", "s4"]
        for name, text in {"s1": "inf", "s2": "no row of series 's2'", "s4": "'s4'"}.items():
            assert text in result.skipped[name]
