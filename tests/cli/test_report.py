"""``--report``: each command writes the page that the library makes, or says why it cannot."""

import pytest
from command_line import SET
from html_pages import Parsed
from small_events import SMALL, stream

pytestmark = [
    pytest.mark.filterwarnings("ignore:the intervals "),
    pytest.mark.filterwarnings("ignore:.*next to zero"),
]
EVENT_SET = [
    word
    for key, value in (SMALL | {"max_epochs": 1}).items()
    for word in ("--set", f"{key}={value}")
]


def text_of(path):
    html = path.read_text(encoding="utf-8")
    parsed = Parsed(html)
    assert parsed.addresses() == [] and html.count("<script>") == 1
    return "".join(parsed.text)


@pytest.fixture
def events(tmp_path):
    frame = stream(t_end=30).to_frame()[["sequence_id", "time", "type"]]
    frame["type"] = frame["type"].replace("bark", "<script>")
    frame.to_csv(tmp_path / "events.csv", index=False)


def test_forecast(tsllm, series, tmp_path):
    table = series.replace({"series_id": {"a": "<script>alert(1)</script>"}})
    table.rename(columns={"series_id": "shop", "value": "sales"}).assign(
        promo=lambda rows: rows["timestamp"].dt.dayofweek.eq(5).astype(int)
    ).to_csv(tmp_path / "shops.csv", index=False)
    given = ["--horizon", 3, "--id-col", "shop", "--target-col", "sales", "--method", "linear"]
    runs = [
        tsllm("forecast", "shops.csv", *given, "--report", name, "--json")
        for name in ("one.html", "two.html")
    ]
    assert [run.code for run in runs] == [0, 0], runs[0].err
    assert runs[0].json["report"] == "one.html" and "wrote one.html" in runs[0].err
    text = text_of(tmp_path / "one.html")
    assert "sales, as a mean of 2 series, is expected to average" in text
    assert "<script>alert(1)</script>" in text
    # the same but for the date, which is that of today
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_backtest(tsllm, series, tmp_path):
    result = tsllm(
        "backtest", "series.csv", "--horizons", 3, "--test-size", 9, "--method", "linear",
        "--baselines", "seasonal_naive", "--report", "page.html",
    )  # fmt: skip
    assert result.code == 0, result.err
    text = text_of(tmp_path / "page.html")
    assert "Backtest on series.csv" in text and "mean absolute error" in text


@pytest.mark.long
def test_ablate(tsllm, series, tmp_path):
    result = tsllm(
        "ablate", "series.csv", "--horizons", 2, "--test-size", 12, "--variants", "none",
        "--baselines", "none", "--seeds", "0", "--report", "page.htm", *SET,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "Does the language model help?" in text_of(tmp_path / "page.htm")


@pytest.mark.long
def test_events(tsllm, events, tmp_path):
    one = tsllm("events", "evaluate", "events.csv", "--method", "naive", "--report", "scores.html")
    assert one.code == 0, one.err
    assert "simple guesses" in text_of(tmp_path / "scores.html")
    two = tsllm(
        "events", "evaluate", "events.csv", "--slices", 2, "--method", "naive",
        "--baselines", "none", "--report", "stream.html",
    )  # fmt: skip
    assert two.code == 0, two.err
    assert "Events of the slices" in text_of(tmp_path / "stream.html")
    assert tsllm("events", "fit", "events.csv", "--method", "naive", "--out", "m").code == 0
    three = tsllm("events", "predict", "m", "--json", "--report", "next.html")
    assert three.json["report"] == "next.html"
    assert "The next event of 3 sequences" in text_of(tmp_path / "next.html")
    four = tsllm(
        "events", "ablate", "events.csv", "--slices", 2, "--variants", "prompts", "--seeds", "0",
        "--baselines", "none", "--report", "ablation.html", *EVENT_SET,
    )  # fmt: skip
    assert four.code == 0, four.err
    assert "What is PromptTPP good for here?" in text_of(tmp_path / "ablation.html")


def test_warnings_are_among_the_notes(tsllm, series, tmp_path):
    series.loc[series["series_id"] == "a", "value"] = 5.0  # a constant series
    series.to_csv(tmp_path / "series.csv", index=False)
    result = tsllm(
        "forecast", "series.csv", "--horizon", 2, "--method", "linear", "--report", "page.html"
    )
    warned = [
        line.removeprefix("Warning: ")
        for line in result.err.splitlines()
        if line.startswith("Warning: ")
    ]
    assert warned and all(line in text_of(tmp_path / "page.html") for line in warned)


@pytest.mark.parametrize(
    ("path", "words"),
    [("page.pdf", "--report must end in .html or .htm"), ("no/page.html", "does not exist")],
)
def test_a_place_that_cannot_be_is_refused_before_any_work(tsllm, series, path, words):
    result = tsllm("forecast", "series.csv", "--horizon", 3, "--report", path)
    assert result.code == 2 and words in result.err
    assert "fitted" not in result.err


def test_without_matplotlib_the_extra_is_named(tsllm, series, monkeypatch):
    monkeypatch.setattr("tsllm.cli.output.find_spec", lambda name: None)
    result = tsllm("forecast", "series.csv", "--horizon", 3, "--report", "page.html")
    assert result.code != 0 and "pip install 'tsllm[plot]'" in result.err
