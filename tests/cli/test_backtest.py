"""``tsllm backtest``: the report that the library gives, on stdout and in files."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from command_line import SET, TINY

import tsllm as library
from tsllm.tables.forecast import make_forecaster

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def without_seconds(document):
    rows = document["table"]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_report_is_the_librarys(tsllm, series, tmp_path):
    options = ["--horizons", "3,2", "--test-size", 10, "--stride", 2, "--scaled", "--seeds", "0,1"]
    files = ["-o", "report.json", "--markdown", "report.md"]
    result = tsllm(
        "backtest", "series.csv", *options, "--baselines", "seasonal_naive", *files, "--json", *SET
    )
    assert result.code == 0
    estimator = make_forecaster("autotimes", backbone=TINY, max_steps=2, random_state=0)
    expected = library.backtest(
        {"autotimes": estimator},
        series,
        horizons=[2, 3],
        test_size=10,
        stride=2,
        scaled=True,
        seeds=[0, 1],
        baselines=["seasonal_naive"],
    )
    assert without_seconds(result.json) == without_seconds(json.loads(expected.to_json()))
    assert json.loads((tmp_path / "report.json").read_text()) == result.json
    assert (tmp_path / "report.md").read_text().count("| autotimes |") == 2


def test_table_on_stdout(tsllm, series):
    result = tsllm(
        "backtest", "series.csv", "--horizons", 3, "--test-fraction", 0.2, "--baselines", "none",
        *SET,
    )  # fmt: skip
    header, row = (line.split() for line in result.out.splitlines())
    assert header[:3] == ["method", "horizon", "windows"]
    # a fifth of 70 and of 60 steps: 14 and 12, which hold 12 and 10 windows of 3 steps
    assert row[:3] == ["autotimes", "3", "22"]


def test_benchmarks_come_with_their_published_split(tsllm, monkeypatch, tmp_path):
    days = pd.date_range("2000-01-01", periods=300, freq="D")
    values = np.random.default_rng(0).normal(size=(300, 2))
    frame = pd.DataFrame(values, columns=["0", "OT"])
    frame.insert(0, "date", days)
    frame.to_csv(tmp_path / "exchange_rate.csv", index=False)
    monkeypatch.setenv("TSLLM_DATA", str(tmp_path))
    result = tsllm(
        "backtest", "exchange_rate", "--horizons", 5, "--baselines", "none", "--json", *SET
    )
    assert "published split: 210, 30 and 60 steps" in result.err
    settings = result.json["settings"]
    assert (settings["train_size"], settings["validation_size"]) == (210, 30)
    assert result.json["table"][0]["windows"] == 56


def test_a_baseline_without_its_package_is_one_sentence(tsllm, series, monkeypatch):
    monkeypatch.setitem(sys.modules, "flaircast", None)
    result = tsllm("backtest", "series.csv", "--horizons", 2, "--baselines", "flair", *SET)
    assert result.code == 2
    assert "the baseline 'flair' needs flaircast: pip install 'tsllm[baselines]'" in result.err
    assert "Traceback" not in result.err


def test_the_time_is_told_first_and_a_picture_is_drawn(tsllm, series, tmp_path):
    result = tsllm(
        "backtest", "series.csv", "--horizons", 3, "--test-size", 10, "--baselines", "theta",
        "--method", "linear", "--plot", "picture.svg", "--time-limit", "none",
    )  # fmt: skip
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("expected time: theta "))
    assert any(line.startswith("linear: fitted in ") for line in lines[first:])
    assert (tmp_path / "picture.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize("limit", ["0", "-3", "soon", "1,2"])
def test_a_time_limit_is_a_positive_number_of_seconds(tsllm, series, limit):
    result = tsllm("backtest", "series.csv", "--horizons", 3, "--time-limit", limit)
    assert result.code == 2
    assert "--time-limit must be" in result.err and repr(limit) in result.err
