"""``tsllm ablate``: the report that the library gives, on stdout and in files."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import SET, TINY
from small_events import SMALL, stream

import tsllm as library
from tsllm.tables.forecast import make_forecaster

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")

EVENT_SET = [
    word
    for key, value in (SMALL | {"max_epochs": 1}).items()
    for word in ("--set", f"{key}={value}")
]
OPTIONS = ["--horizons", "2,3", "--test-size", 12, "--baselines", "seasonal_naive"]


def without_times(document):
    document = document | {"costs": None, "backtest": None}
    return json.loads(json.dumps(document))


def test_report_is_the_librarys(tsllm, series, tmp_path):
    files = ["-o", "report.json", "--markdown", "report.md", "--plot", "report.png"]
    result = tsllm(
        "ablate", "series.csv", *OPTIONS, "--variants", "random,attention", "--seeds", "0,1",
        "--min-difference", 0.05, "--metric", "mae", *files, "--json", *SET,
    )  # fmt: skip
    assert result.code == 0
    expected = library.ablate(
        make_forecaster("autotimes", backbone=TINY, max_steps=2, random_state=0),
        series,
        horizons=[2, 3],
        test_size=12,
        baselines=["seasonal_naive"],
        variants=["random", "attention"],
        seeds=[0, 1],
        min_difference=0.05,
        metric="mae",
    )
    assert without_times(result.json) == without_times(expected.to_dict())
    assert json.loads((tmp_path / "report.json").read_text()) == result.json
    assert expected.verdict in (tmp_path / "report.md").read_text()
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "wrote report.png" in result.err


def test_texts_are_judged(tsllm, series, tmp_path):
    words = np.where(np.arange(len(series)) % 3 > 0, "rain, much rain", "sun")
    table = series.assign(report=words, day=np.arange(len(series)) % 7.0)
    table.to_csv(tmp_path / "texts.csv", index=False)
    result = tsllm(
        "ablate", "texts.csv", *OPTIONS, "--text", "report", "--covariates", "day", "--seeds", "0",
        "--variants", "past,tfidf", "--method", "dlinear", "--set", "max_steps=2",
        "--set", f"text_backbone={TINY}", "--set", f"embedding_store={tmp_path}", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    expected = library.ablate(
        make_forecaster(
            "dlinear", max_steps=2, text_backbone=TINY, embedding_store=tmp_path, random_state=0
        ),
        series,
        table[["series_id", "timestamp", "day", "report"]],
        text="report",
        horizons=[2, 3],
        test_size=12,
        baselines=["seasonal_naive"],
        variants=["past", "tfidf"],
        seeds=[0],
    )
    assert result.json["verdict"] == expected.verdict
    rows = pd.DataFrame(result.json["table"])
    np.testing.assert_allclose(rows["mse"], expected.table["mse"], rtol=1e-12)
    assert rows["variant"].unique().tolist() == [
        "pretrained", "tfidf", "past", "none", "seasonal_naive",
    ]  # fmt: skip


def test_the_verdict_is_the_last_line(tsllm, series, tmp_path):
    (tmp_path / "job.yaml").write_text("variants: []\nseeds: [4]\nhorizons: [2]\n")
    result = tsllm(
        "ablate", "series.csv", "--test-size", 12, "--baselines", "none", "--config", "job.yaml",
        *SET,
    )  # fmt: skip
    lines = result.out.splitlines()
    assert lines[0].split()[:3] == ["variant", "mse", "2"]
    assert [line.split()[0] for line in lines[1:3]] == ["pretrained", "none"]
    assert any(line.startswith("note: one seed") for line in lines)
    assert "without it the squared error is" in lines[-1]


def test_mistakes_end_in_one_line(tsllm, series):
    for arguments, words in (
        (["series.csv"], "--horizons is missing"),
        (["series.csv", *OPTIONS, "--variants", "llm"], "variants must be among random, attention"),
        (["series.csv", *OPTIONS, "--method", "aaren"], "set backbone to one"),
        (["series.csv", *OPTIONS, "--plot", "x.txt"], "--plot must end in .png"),
        (["series.csv", *OPTIONS, "--text", "news"], "'news'"),
        (["series.csv", *OPTIONS, "--text", "value", "--as-given"], "no effect with --text"),
        (["series.csv", *OPTIONS, "--set", "text_covariates=[a]"], "give it with --text"),
    ):
        result = tsllm("ablate", *arguments)
        assert result.code == 2
        assert words in result.err
        assert len(result.err.strip().splitlines()) == 1


def test_events(tsllm, tmp_path):
    assert stream(n_sequences=4).to_frame().to_csv(tmp_path / "e.csv", index=False) is None
    files = ["-o", "e.json", "--markdown", "e.md", "--plot", "e.svg"]
    result = tsllm(
        "events", "ablate", "e.csv", "--slices", 2, "--variants", "prompts", "--seeds", 0,
        "--baselines", "naive", *files, "--json", *EVENT_SET,
    )  # fmt: skip
    assert result.code == 0, result.err
    variants = [row["variant"] for row in result.json["table"]]
    assert variants == ["given", "shared, freeze", "none, full", "naive"]
    assert json.loads((tmp_path / "e.json").read_text()) == result.json
    assert result.json["verdict"] in (tmp_path / "e.md").read_text()
    assert "<svg" in (tmp_path / "e.svg").read_text()
    wrong = tsllm("events", "ablate", "e.csv", "--variants", "prompt")
    assert (wrong.code, "variants must be among prompts, base, text" in wrong.err) == (2, True)
