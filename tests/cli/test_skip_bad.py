"""``--skip-bad``: the exit status, the list beside the output and the message."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import SET, TINY

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture
def spoilt(series, tmp_path):
    """``spoilt.csv``: the two series, and three that cannot be used."""
    good = series.rename(columns={"value": "sales"})
    one = good[good["series_id"] == "a"]
    silent = one.assign(series_id="silent", sales=np.nan)
    doubled = pd.concat([one, one.iloc[[4]]]).assign(series_id="doubled")
    single = one.iloc[:1].assign(series_id="single")
    frame = pd.concat([good, silent, doubled, single])
    frame.to_csv(tmp_path / "spoilt.csv", index=False)
    good.to_csv(tmp_path / "good.csv", index=False)
    return frame


COMMAND = ("spoilt.csv", "--horizon", 3, "--sort")


def test_forecast_lists_what_it_leaves_out(tsllm, spoilt, tmp_path):
    refused = tsllm("forecast", *COMMAND, *SET)
    assert refused.code == 2 and "same stamp" in refused.err
    result = tsllm("forecast", *COMMAND, *SET, "--skip-bad", "-o", "out.csv", "--json")
    assert result.code == 0
    assert "left out 3 of 5 series, listed in out.skipped.csv: the first because" in result.err
    listed = pd.read_csv(tmp_path / "out.skipped.csv").set_index("series_id")["reason"]
    assert listed.index.tolist() == ["doubled", "single", "silent"]
    assert "have the same stamp" in listed["doubled"]
    assert "has 1 step and at least 2 are needed" in listed["single"]
    assert "no observed value" in listed["silent"]
    assert [row["series_id"] for row in result.json["skipped"]] == listed.index.tolist()
    assert sorted(pd.read_csv(tmp_path / "out.csv")["series_id"].unique()) == ["a", "b"]


def test_predict_lists_what_it_leaves_out(tsllm, spoilt, tmp_path):
    assert tsllm("fit", "good.csv", "--horizon", 3, "--out", "model", *SET).code == 0
    command = ("predict", "model", *COMMAND)
    assert tsllm(*command).code == 2
    result = tsllm(*command, "--skip-bad", "--batch-size", "auto")
    assert result.code == 0
    assert "left out 2 of 5 series, which --out or --json lists: the first because" in result.err
    assert "forecast 3 series for 3 steps" in result.err
    found = result.table.set_index("series_id")
    alone = tsllm("predict", "model", "good.csv", "--horizon", 3).table
    for name in ("a", "b"):
        wanted = alone[alone["series_id"] == name]["forecast"]
        assert found.loc[name, "forecast"].tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    nothing = tsllm("predict", "model", "good.csv", "--skip-bad", "-o", "fine.csv", "--json")
    assert "left out" not in nothing.err and nothing.json["skipped"] == []
    assert (tmp_path / "fine.skipped.csv").read_text() == "series_id,reason\n"


def test_fit_lists_what_it_leaves_out(tsllm, spoilt, tmp_path):
    command = ("fit", *COMMAND, "--out", "model", *SET)
    assert tsllm(*command).code == 2
    result = tsllm(*command, "--skip-bad", "--json")
    assert result.code == 0
    assert "left out 2 of 5 series, listed in model.skipped.csv: the first bec" in result.err
    listed = pd.read_csv(tmp_path / "model.skipped.csv")
    assert listed.to_dict("records") == result.json["skipped"]
    again = tsllm("fit", "--config", "model/job.yaml", "--out", "model", "--overwrite")
    assert again.code == 0 and "left out 2 of 5" in again.err


def test_embed_leaves_out_what_fit_leaves_out(tsllm, spoilt):
    small = ["--set", f"backbone={TINY}", "--set", "context_length=12"]
    command = ("embed", *COMMAND, "--store", "kept", *small)
    assert tsllm(*command).code == 2
    result = tsllm(*command, "--skip-bad", "--json")
    assert result.code == 0, result.err
    assert "left out 2 of 5 series, which --json lists: the first because" in result.err
    assert sorted(row["series_id"] for row in result.json["skipped"]) == ["doubled", "single"]


def test_a_job_lists_what_it_leaves_out(tsllm, spoilt, tmp_path):
    spoilt.to_parquet(tmp_path / "spoilt.parquet", index=False)
    assert tsllm("fit", "good.csv", "--horizon", 3, "--out", "model", *SET).code == 0
    command = ("predict", "model", "spoilt.parquet", "--sort", "-o", "parts")
    assert tsllm(*command).code == 2
    result = tsllm(*command, "--skip-bad", "--json")
    assert result.code == 0 and result.json["summary"]["series"] == 3
    assert "left out 2 of 5 series, listed in parts/_skipped.csv: the first beca" in result.err
    listed = pd.read_csv(tmp_path / "parts" / "_skipped.csv")
    assert listed.to_dict("records") == result.json["skipped"]
    assert sorted(listed["series_id"]) == ["doubled", "silent"]


def test_when_all_are_bad_the_command_fails(tsllm, spoilt, tmp_path):
    spoilt[spoilt["series_id"] == "doubled"].to_csv(tmp_path / "spoilt.csv", index=False)
    result = tsllm("forecast", *COMMAND, *SET, "--skip-bad", "-o", "out.csv")
    assert result.code == 2 and "have the same stamp" in result.err
    assert not (tmp_path / "out.csv").exists()


def test_a_job_file_knows_it(tsllm, spoilt, tmp_path):
    (tmp_path / "job.yaml").write_text(
        json.dumps({"data": "spoilt.csv", "horizon": 3, "sort": True, "skip_bad": True})
    )
    assert tsllm("forecast", "--config", "job.yaml", *SET).code == 0
