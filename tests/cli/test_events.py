"""``tsllm events``: from files to models to what comes next, and every mistake in one line."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from small_events import SMALL, stream

import tsllm as library
from tsllm.datasets import read_events

SETTINGS = [
    part for name, value in SMALL.items() for part in ("--set", f"{name}={value}") if name != "sort"
]


@pytest.fixture
def events(tmp_path):
    """A stream at timestamps, in ``events.csv``, its halves in ``first.csv`` and ``second.csv``."""
    frame = stream(t_end=40).to_frame()[["sequence_id", "time", "type"]]
    origin = pd.Timestamp("2024-01-01")
    frame["time"] = origin + pd.to_timedelta(frame["time"], unit="h").dt.round("s")
    frame.to_csv(tmp_path / "events.csv", index=False)
    early = frame["time"] < origin + pd.Timedelta(hours=24)
    frame[early].to_csv(tmp_path / "first.csv", index=False)
    frame[~early].to_csv(tmp_path / "second.csv", index=False)
    return frame


@pytest.fixture
def model(tsllm, events):
    """A model of the first half."""
    result = tsllm("events", "fit", "first.csv", "--time-unit", "h", "--out", "model", *SETTINGS)
    assert (result.code, result.out) == (0, ""), result.err
    return "model"


def test_fit_saves_what_the_library_fits(tsllm, model, events, tmp_path):
    job = yaml.safe_load((tmp_path / "model" / "job.yaml").read_text())
    assert (job["data"], job["time_unit"], job["method"]) == ("first.csv", "h", "prompttpp")
    loaded = library.load(tmp_path / "model")
    own = library.PromptTPP(time_unit="h", **SMALL).fit(tmp_path / "first.csv")
    pd.testing.assert_frame_equal(loaded.predict(), own.predict(), check_exact=True)
    again = tsllm(
        "events", "fit", "--config", "model/job.yaml", "--out", "other", "--json"
    )  # and the job can be run again
    assert again.code == 0, again.err
    assert again.json["summary"]["slices"] == 1
    said = [tsllm("events", "predict", name).out for name in ("model", "other")]
    assert said[0] == said[1]


def test_predict_writes_tables_pictures_and_json(tsllm, model, tmp_path):
    table = tsllm("events", "predict", model, "--steps", 2, "--quantiles", ".2,.8").table
    assert list(table) == [
        *("sequence_id", "step", "time", "time_median", "q0.2", "q0.8"),
        *("type", "probability", "no_event"),
    ]
    assert table["step"].tolist() == [1, 2] * 3
    loaded = library.load(tmp_path / "model")
    own = loaded.predict(n_steps=2, levels=(0.2, 0.8))
    assert (pd.to_datetime(table["time"]) - own["time"]).abs().max() < pd.Timedelta("1ms")
    result = tsllm("events", "predict", model, "--json", "--plot", "out.png")
    assert [row["step"] for row in result.json["events"]] == [1, 1, 1]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    for name in ("out.parquet", "out.jsonl", "out.csv"):
        assert tsllm("events", "predict", model, "--out", name).code == 0
    read = pd.read_parquet(tmp_path / "out.parquet")
    assert len(read) == len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_predict_from_other_histories_and_later_on(tsllm, model, events):
    from_data = tsllm("events", "predict", model, "second.csv").table
    assert from_data["sequence_id"].tolist() == [0, 1, 2]
    waited = tsllm("events", "predict", model, "--now", "2024-01-03").table
    assert (pd.to_datetime(waited["time"]) > pd.Timestamp("2024-01-03")).all()


def test_update_moves_the_histories(tsllm, model, events, tmp_path):
    before = library.load(tmp_path / "model")
    result = tsllm("events", "update", model, "second.csv")
    assert (result.code, result.out) == (0, ""), result.err
    assert "updated with" in result.err and (tmp_path / "model" / "job.yaml").is_file()
    expected = before.update(tmp_path / "second.csv")
    after = library.load(tmp_path / "model")
    pd.testing.assert_frame_equal(after.predict(), expected.predict(), check_exact=False)
    twice = tsllm("events", "update", model, "second.csv")
    assert twice.code == 2 and "already holds the time until" in twice.err


def test_update_can_learn_and_save_elsewhere(tsllm, model, tmp_path):
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    result = tsllm("events", "update", model, "second.csv", "--learn", "--out", "next", "--json")
    assert result.json["summary"]["slices"] == 2
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == content
    assert library.load(tmp_path / "next").n_slices_ == 2


def test_a_stream_is_learnt_slice_by_slice(tsllm, events, tmp_path):
    fit = ["events", "fit", "events.csv", "--slices", 2]
    result = tsllm(*fit, "--out", "model", *SETTINGS, "--json")
    assert result.json["summary"]["slots"] == 2
    assert "slice 1 of 2" in result.err
    settings = [one.replace("base_update=freeze", "base_update=auto") for one in SETTINGS]
    result = tsllm(*fit, "--out", "chosen", *settings, "--json")
    assert len(result.json["summary"]["changed"]) == 2
    assert "slice 1 of 2" in result.err and "slice 2 chose" in result.err
    by_day = tsllm("events", "fit", "events.csv", "--by", "1D", "--out", "days", *SETTINGS)
    assert by_day.code == 0 and "in 2 slices" in by_day.err


def test_simulate_draws_futures_and_new_sequences(tsllm, model, events):
    drawn = tsllm("events", "simulate", model, "--paths", 2, "--horizon", "6h", "--seed", 1)
    again = tsllm("events", "simulate", model, "--paths", 2, "--horizon", "6h", "--seed", 1)
    assert drawn.out == again.out
    assert set(drawn.table["path"]) <= {0, 1}
    assert (pd.to_datetime(drawn.table["time"]) > events["time"].iloc[0]).all()
    few = tsllm("events", "simulate", model, "--steps", 3).table
    assert few.groupby("sequence_id").size().max() == 3
    new = tsllm("events", "simulate", model, "--new", 2, "--horizon", "12h").table
    assert set(new["sequence_id"]) <= {0, 1}


def test_evaluate_a_saved_model(tsllm, model, tmp_path):
    shown = tsllm("events", "evaluate", "second.csv", "--model", model)
    assert shown.code == 0, shown.err
    assert "log_likelihood" in shown.out and "mean gap" in shown.out
    result = tsllm(
        *("events", "evaluate", "second.csv", "--model", model, "--json"),
        *("--out", "report.json", "--plot", "residuals.png"),
    )
    assert result.json == json.loads((tmp_path / "report.json").read_text())
    loaded = library.load(tmp_path / "model")
    score = loaded.score(tmp_path / "second.csv")
    rows = result.json["evaluation"]["table"]
    assert next(iter(rows.values()))["log_likelihood"] == pytest.approx(score, abs=1e-6)
    assert (tmp_path / "residuals.png").is_file()


def test_evaluate_a_method_on_the_last_part(tsllm, events):
    result = tsllm(
        *("events", "evaluate", "events.csv", "--method", "naive", "--time-unit", "h"),
        *("--test-fraction", ".25", "--json"),
    )
    assert result.code == 0, result.err
    whole = read_events(events, time_unit="h")
    training, _ = whole.split((0.75, 0.25))
    border = whole.clock.to_stamp(max(times[-1] for times in training.times))
    own = library.NaiveEventForecaster(time_unit="h").fit(training).score(whole, t_start=border)
    rows = result.json["evaluation"]["table"]
    assert next(iter(rows.values()))["log_likelihood"] == pytest.approx(own)


def test_evaluate_a_stream(tsllm, events, tmp_path):
    result = tsllm(
        *("events", "evaluate", "events.csv", "--slices", 2, "--baselines", "naive"),
        *("--plot", "stream.png", "--out", "report.json", *SETTINGS),
    )
    assert result.code == 0, result.err
    assert "forgetting" in result.out
    report = json.loads((tmp_path / "report.json").read_text())
    assert np.array(next(iter(report["matrices"].values()))).shape == (2, 2, 4)
    assert (tmp_path / "stream.png").is_file()


def test_two_fits_of_a_feed_with_ties_agree(tsllm):
    quakes = ("events", "fit", "usgs_earthquakes", "--method", "naive")
    refused = tsllm(*quakes, "--out", "none")
    assert refused.code == 2 and "(--ties jitter)" in refused.err, refused.err
    for name in ("one", "two"):
        done = tsllm(*quakes, "--ties", "jitter", "--out", name)
        assert done.code == 0 and "random_state 0" in done.err, done.err
    one, two = (library.load(name).history_.times[0] for name in ("one", "two"))
    assert (np.diff(one) > 0).all()
    assert one.tolist() == two.tolist()


def test_the_bundled_earthquakes_from_stdin_and_by_name(tsllm, events):
    by_name = tsllm(
        *("events", "fit", "usgs_earthquakes", "--ties", "jitter", "--time-unit", "h"),
        *("--method", "naive", "--out", "quakes"),
    )
    assert by_name.code == 0, by_name.err
    piped = tsllm(
        *("events", "fit", "-", "--method", "naive", "--out", "piped"),
        stdin=events.to_csv(index=False),
    )
    assert piped.code == 0 and "3 sequences" in piped.err


def test_columns_have_the_names_they_have(tsllm, events, tmp_path):
    renamed = events.set_axis(["who", "at", "what"], axis=1)
    renamed[::-1].to_csv(tmp_path / "renamed.csv", index=False)
    columns = ["--id-col", "who", "--time-col", "at", "--type-col", "what", "--sort"]
    result = tsllm(
        "events", "fit", "renamed.csv", *columns, "--method", "naive", "--out", "renamed"
    )
    assert result.code == 0, result.err
    table = tsllm("events", "predict", "renamed").table
    assert list(table)[:3] == ["who", "step", "at"]
    assert (
        tsllm("events", "predict", "renamed", "renamed.csv").out
        == tsllm("events", "predict", "renamed").out
    )


MISTAKES = {
    "no data": ("fit --out m", "there is no DATA"),
    "missing file": ("fit nope.csv --out m", "no file, directory or data set 'nope.csv'"),
    "misspelt set": ("fit usgs_earthquake --out m", "did you mean 'usgs_earthquakes'?"),
    "a series": ("fit co2 --out m", "holds series, not events"),
    "no out": ("fit first.csv", "--out is missing"),
    "out of the way": ("fit first.csv --out first.csv", "is not just a saved model"),
    "model there": ("fit first.csv --out model", "--overwrite"),
    "method": ("fit first.csv --method rnn --out m", "prompttpp, hawkes, naive, zero_shot"),
    "parameter": ("fit first.csv --set hiden=3 --out m", "did you mean 'hidden'?"),
    "kind": ("fit first.csv --set hidden=wide --out m", "hidden must be a whole number"),
    "impossible pair": (
        "fit first.csv --set encoder=aaren --set decoder=attnhp --out m",
        "encoder='aaren' cannot",
    ),
    "column of the data": ("fit first.csv --set time_col=at --out m", "give it with --time-col"),
    "slices of hawkes": ("fit first.csv --method hawkes --slices 2 --out m", "slice by slice"),
    "slices twice": ("fit first.csv --slices 2 --by 1D --out m", "give one of them"),
    "windows": ("fit first.csv --windows 3 --out m", "--windows must be START,END"),
    "unsorted": ("fit unsorted.csv --method naive --out m", "--sort"),
    "ties": ("fit ties.csv --method naive --out m", "--ties"),
    "wrong column": ("fit first.csv --type-col kind --out m", "no column 'kind'"),
    "empty file": ("fit empty.csv --out m", "empty"),
    "no model": ("predict nowhere", "no directory"),
    "series model": ("predict airline", "use 'tsllm predict'"),
    "steps": ("predict model --steps 0", "--steps"),
    "levels": ("predict model --quantiles 1.5", "1.5"),
    "now": ("predict model --now 2023-01-01", "before the last event"),
    "now text": ("predict model --now soon", "cannot be read as timestamps"),
    "windows without data": ("predict model --windows 0,1", "--windows has no effect without DATA"),
    "ending": ("predict model --out out.txt", ".parquet"),
    "plot": ("predict model --plot out.bmp", ".png"),
    "new types": ("update model howls.csv", "'howl' was not seen in training"),
    "nothing new": ("update model", "there is no DATA"),
    "old events": ("update model first.csv", "already holds the time until"),
    "learning of naive": ("update naive second.csv --learn", "cannot continue to learn"),
    "no horizon": ("simulate model", "--horizon is missing"),
    "horizon": ("simulate model --horizon far", "far"),
    "new without horizon": ("simulate model --new 2 --steps 3", "--horizon is missing"),
    "model and method": ("evaluate second.csv --model model --method naive", "as it is"),
    "baselines": ("evaluate second.csv --baselines naive", "--slices or --by"),
    "unknown baseline": ("evaluate events.csv --slices 2 --baselines rnn", "rnn"),
    "fraction": ("evaluate events.csv --test-fraction 1.5", "between 0 and 1"),
    "too many slices": ("evaluate events.csv --slices 500", "slice"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Models and files for the mistakes, made once."""
    folder = tmp_path_factory.mktemp("workshop")
    frame = stream(t_end=40).to_frame()[["sequence_id", "time", "type"]]
    frame["time"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(frame["time"], unit="h")
    early = frame["time"] < pd.Timestamp("2024-01-02")
    parts = {
        "events": frame,
        "first": frame[early],
        "second": frame[~early],
        "unsorted": frame[::-1],
        "ties": frame.assign(time=frame["time"].dt.floor("h")),
        "howls": frame[~early].assign(type="howl"),
        "empty": frame[:0],
    }
    for name, part in parts.items():
        part.to_csv(folder / f"{name}.csv", index=False)
    for name, method in (("model", "PromptTPP"), ("naive", "NaiveEventForecaster")):
        settings = SMALL if name == "model" else {}
        estimator = getattr(library, method)(time_unit="h", **settings)
        library.save(estimator.fit(folder / "first.csv"), folder / name)
    from sktime.datasets import load_airline

    series = library.DLinearForecaster(max_steps=1, context_length=4)
    library.save(series.fit(load_airline(), fh=[1]), folder / "airline")
    return folder


@pytest.mark.filterwarnings("ignore:the intervals ")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_and_exit_code_2(tsllm, workshop, monkeypatch, mistake):
    command, words = MISTAKES[mistake]
    monkeypatch.chdir(workshop)
    before = {path: path.read_bytes() for path in workshop.rglob("*") if path.is_file()}
    result = tsllm("events", *command.split())
    assert (result.code, result.out) == (2, ""), result.err
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.err
    assert words in lines[0], lines[0]
    assert {path: path.read_bytes() for path in workshop.rglob("*") if path.is_file()} == before


def test_predicting_series_from_a_model_of_events(tsllm, workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    result = tsllm("predict", "model")
    assert result.code == 2 and "use 'tsllm events predict'" in result.err


def test_a_damaged_model(tsllm, model, tmp_path):
    tensors = tmp_path / "model" / "model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(bytes(content))
    result = tsllm("events", "predict", "model")
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1 and "not as it was written" in result.err


def test_learning_that_was_stopped_continues(tsllm, events, tmp_path, monkeypatch):
    fit = ["events", "fit", "events.csv", "--slices", 2, "--checkpoint", "run", *SETTINGS]

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device", "model")

    monkeypatch.setattr("tsllm.saving.api.save", fail)
    assert tsllm(*fit, "--out", "model").code == 2
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["slice-000", "slice-001"]
    other = tsllm(*fit, "--set", "hidden=16", "--out", "model")
    assert other.code == 2 and "hidden=" in other.err
    assert tsllm(*fit, "--out", "model").code == 0 and not (tmp_path / "run").exists()
    refused = tsllm(*fit, "--method", "naive", "--out", "other")
    assert refused.code == 2 and "checkpoint_dir" in refused.err
