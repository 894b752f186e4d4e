"""Options that say how DATA are written, at every command that reads series."""

import numpy as np
import pandas as pd
import pytest
from command_line import SET

BERLIN = "Europe/Berlin"
FAST = [*SET, "--set", "backbone=null"]


@pytest.fixture
def files(tmp_path):
    """One series over a clock change, written in several ways, and as other tools do it."""
    days = pd.date_range("2024-03-01", periods=60, freq="D", tz=BERLIN)
    frame = pd.DataFrame({"series_id": "Zürich", "timestamp": days})
    frame["y"] = np.sin(np.arange(60) * 2 * np.pi / 7).round(3) + 10
    frame.to_csv(tmp_path / "offsets.csv", index=False)
    german = frame.assign(timestamp=days.strftime("%d.%m.%Y"))
    german.to_csv(tmp_path / "german.csv", index=False, sep=";", decimal=",", encoding="latin-1")
    frame.to_csv(tmp_path / "SALES.CSV", index=False, date_format="%Y-%m-%d")
    return frame


GERMAN = ["--sep", ";", "--decimal", ",", "--encoding", "latin-1", "--time-format", "%d.%m.%Y"]


def test_forecasts_of_other_ways_to_write_are_the_same(tsllm, files):
    plain = tsllm("forecast", "SALES.CSV", "--horizon", 2, *SET)
    assert plain.code == 0, plain.err
    german = tsllm("forecast", "german.csv", "--horizon", 2, *GERMAN, *SET)
    assert (german.code, german.out) == (0, plain.out), german.err
    zoned = tsllm("forecast", "offsets.csv", "--horizon", 2, "--tz", BERLIN, *SET)
    assert zoned.code == 0, zoned.err
    assert zoned.table["timestamp"].tolist() == [
        "2024-04-30 00:00:00+02:00",
        "2024-05-01 00:00:00+02:00",
    ]
    assert zoned.table["forecast"].tolist() == plain.table["forecast"].tolist()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("offsets.csv", "--tz on the command line"),
        ("german.csv", "latin-1"),
    ],
)
@pytest.mark.parametrize("command", ["forecast", "fit", "backtest", "ablate", "embed"])
def test_every_command_says_and_takes_how_data_are_written(
    tsllm, files, tmp_path, command, data, words
):
    rest = {
        "forecast": ["--horizon", 2, *FAST],
        "fit": ["--horizon", 2, "--out", "model", *FAST],
        "backtest": ["--horizons", 2, "--baselines", "none", "--test-size", 3, *FAST],
        "ablate": ["--horizons", 2, "--metric", "no", *FAST],
        "embed": ["--horizon", 2, "--method", "dlinear"],
    }[command]
    refused = tsllm(command, data, *rest)
    assert refused.code == 2 and words in refused.err, refused.err
    how = GERMAN if data == "german.csv" else ["--tz", BERLIN]
    taken = tsllm(command, data, *how, *rest)
    after_reading = {"ablate": "metric", "embed": "method"}.get(command)
    if after_reading is None:
        assert taken.code == 0, taken.err
    else:
        assert after_reading in taken.err, taken.err


def test_a_saved_model_reads_them_too(tsllm, files, tmp_path):
    fitted = tsllm("fit", "offsets.csv", "--tz", BERLIN, "--horizon", 2, "--out", "model", *SET)
    assert fitted.code == 0, fitted.err
    assert "tz: Europe/Berlin" in (tmp_path / "model" / "job.yaml").read_text()
    stored = tsllm("predict", "model")
    refused = tsllm("predict", "model", "offsets.csv")
    assert refused.code == 2 and "--tz" in refused.err
    read = tsllm("predict", "model", "offsets.csv", "--tz", BERLIN)
    assert read.out == stored.out
    german = tsllm("predict", "model", "german.csv", "--tz", BERLIN, *GERMAN)
    assert german.out == stored.out, german.err


def test_a_job_file_says_how_data_are_written(tsllm, files, tmp_path):
    (tmp_path / "job.yaml").write_text(
        "data: german.csv\nhorizon: 2\nsep: ';'\ndecimal: ','\nencoding: latin-1\n"
        "time_format: '%d.%m.%Y'\ntz: Europe/Berlin\n"
    )
    result = tsllm("forecast", "--config", "job.yaml", *SET)
    assert result.code == 0, result.err
    assert result.table["timestamp"].iloc[0] == "2024-04-30 00:00:00+02:00"


@pytest.mark.parametrize("sep", ["tab", "\\t", "\t"])
def test_a_tab_in_letters(tsllm, files, tmp_path, sep):
    files.to_csv(tmp_path / "tabs.csv", index=False, sep="\t", date_format="%Y-%m-%d")
    assert tsllm("forecast", "tabs.csv", "--horizon", 2, "--sep", sep, *SET).code == 0


@pytest.mark.parametrize("name", ["OUT.CSV", "Out.Parquet", "out.JSONL"])
def test_output_endings_in_any_case_of_letters(tsllm, files, tmp_path, name):
    plain = tsllm("forecast", "SALES.CSV", "--horizon", 2, *SET)
    result = tsllm("forecast", "SALES.CSV", "--horizon", 2, "-o", name, *SET)
    assert result.code == 0, result.err
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}.get(
        name.rpartition(".")[2].lower(), lambda path: pd.read_json(path, lines=True)
    )
    assert read(tmp_path / name)["forecast"].tolist() == pytest.approx(
        plain.table["forecast"].tolist()
    )


def test_an_output_that_is_neither_a_file_nor_a_folder(tsllm, files, tmp_path):
    assert tsllm("fit", "SALES.CSV", "--horizon", 2, "--out", "model", *SET).code == 0
    result = tsllm("predict", "model", "SALES.CSV", "-o", "out.v2")
    assert result.code == 2 and ".csv or .parquet or .jsonl, or be a directory" in result.err
    (tmp_path / "out.v2").mkdir()
    files.to_parquet(tmp_path / "data.parquet", index=False)
    made = tsllm("predict", "model", "data.parquet", "-o", "out.v2")
    assert made.code == 0 and len(list((tmp_path / "out.v2").glob("part-*.parquet"))) == 1
