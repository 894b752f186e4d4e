"""``tsllm predict`` with a directory as --out, and events as lines of JSON."""

import json

import pandas as pd
import pytest
from command_line import SET

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture
def model(tsllm, series, tmp_path):
    series.to_parquet(tmp_path / "series.parquet", index=False)
    assert tsllm("fit", "series.parquet", "--horizon", 3, "--out", "model", *SET).code == 0
    return "model"


def test_parts_hold_what_one_table_does(tsllm, model, tmp_path):
    arguments = ["predict", model, "series.parquet", "--quantiles", ".2,.8"]
    result = tsllm(*arguments, "-o", "parts", "--block-rows", 70, "--json")
    assert result.json["summary"]["series"] == 2 and result.json["summary"]["blocks"] == 2
    assert "forecast 2 series for 3 steps" in result.err and "wrote parts, 2 parts" in result.err
    tsllm(*arguments, "-o", "table.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "parts"), pd.read_parquet(tmp_path / "table.parquet"), rtol=1e-6
    )
    again = tsllm(*arguments, "-o", "parts", "--json")
    assert again.json["summary"]["blocks_before"] == 2
    other = tsllm("predict", model, "series.parquet", "--horizon", 2, "-o", "parts")
    assert other.code == 2 and "started with horizon=3" in other.err


def test_batch_size_auto(tsllm, model):
    measured = tsllm("predict", model, "series.parquet", "--batch-size", "auto")
    assert measured.code == 0
    pd.testing.assert_frame_equal(
        measured.table, tsllm("predict", model, "series.parquet").table, rtol=1e-6
    )


def test_every_message_is_a_line_of_json(tsllm, model):
    result = tsllm("--log", "json", "predict", model, "series.parquet", "-o", "parts")
    lines = [json.loads(line) for line in result.err.splitlines()]
    events = [line["event"] for line in lines]
    assert events[:2] == ["job planned", "block written"]
    assert lines[0]["series"] == 2 and lines[0]["logger"] == "tsllm.batch.job"
    assert {"time", "level", "seconds", "block"} <= lines[1].keys()
    failed = tsllm("--log", "json", "predict", "nowhere")
    (line,) = [json.loads(line) for line in failed.err.splitlines()]
    assert failed.code == 2 and line["level"] == "error" and "no directory" in line["event"]
    assert not tsllm("predict", model, "series.parquet", "-o", "parts").err.startswith("{")
