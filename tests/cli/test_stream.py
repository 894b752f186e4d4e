"""``tsllm stream``: rows of JSON in, forecasts out, and a state that continues."""

import io
import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import tsllm
from small_forecasters import panel

ROW = {"id": "a", "time": "2024-03-01", "value": 4.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    forecaster = tsllm.LinearForecaster().fit(panel([60, 60], ["a", "b"]), fh=[1, 2])
    return tsllm.save(forecaster, tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def follow(monkeypatch, capsys):
    """Run the command on some lines; return its exit code, the objects that it writes, stderr."""
    from tsllm.cli.main import main

    def run(*arguments, lines):
        text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(SystemExit) as end:
            main(["stream", *map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code, [json.loads(line) for line in said.out.splitlines()], said.err

    return run


def test_each_line_is_answered_as_the_library_does(model, follow):
    both = [ROW | {"time": "2024-03-02", "value": None}, ROW | {"id": "b", "value": 8}]
    code, out, _ = follow(model, "--quantiles", "0.2", lines=[ROW, "", both])
    stream = tsllm.load(model).stream()
    stream.observe("2024-03-01", 4.0, series=["a"])
    first = stream.forecast(2, (0.2,), series=["a"])[0, :, 0]
    stream.observe(["2024-03-02", "2024-03-01"], [np.nan, 8.0], series=["a", "b"])
    last = stream.forecast(2, (0.2,))[:, :, 0]  # (series, horizon, 1 + levels)
    assert code == 0
    assert [one["id"] for one in out] == ["a", "a", "b"]
    assert out[0]["time"] == ["2024-03-02T00:00:00", "2024-03-03T00:00:00"]
    for one, expected in zip(out, [first, *last]):
        np.testing.assert_allclose(np.array([one["forecast"], one["q0.2"]]).T, expected)


def test_the_only_series_needs_no_name(follow, tmp_path):
    forecaster = tsllm.LinearForecaster().fit(panel([60], ["series"]), fh=[1, 2])
    path = tsllm.save(forecaster, tmp_path / "model")
    named = ROW | {"id": "series"}
    nameless = {name: cell for name, cell in ROW.items() if name != "id"}
    (_, expected, _), (code, found, _) = (follow(path, lines=[one]) for one in (named, nameless))
    assert (code, found) == (0, expected)
    _, (refused,), _ = follow(path, lines=[[nameless, nameless | {"time": "2024-03-02"}]])
    assert "series 'series' comes twice in one call" in refused["error"]


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Save a model that reads the heat of each step, and the flow of the past."""
    y = panel([60, 60], ["a", "b"])
    X = pd.DataFrame({"heat": np.arange(120) % 7.0, "flow": np.arange(120) % 5.0}, index=y.index)
    forecaster = tsllm.LinearForecaster(past_covariates=("flow",)).fit(y, X=X, fh=[1, 2])
    return tsllm.save(forecaster, tmp_path_factory.mktemp("models") / "warm")


AHEAD = [{"heat": 1.0}, {"heat": 5.0}]


def test_covariates_are_further_keys(warm, follow):
    first = ROW | {"heat": 3.0, "flow": 1, "future": AHEAD}
    both = [
        ROW | {"time": "2024-03-02", "heat": 4.0, "flow": 2.0, "future": AHEAD[::-1]},
        ROW | {"id": "b", "heat": 5.0, "flow": 3.0, "future": AHEAD},
    ]
    code, out, _ = follow(warm, "--quantiles", "0.2", lines=[first, both])
    stream = tsllm.load(warm).stream()
    stream.observe("2024-03-01", 4.0, {"heat": 3.0, "flow": 1.0}, series=["a"])
    one = stream.forecast(2, (0.2,), {"heat": [1.0, 5.0]}, series=["a"])[0, :, 0]
    X = {"heat": [4.0, 5.0], "flow": [2.0, 3.0]}
    stream.observe(["2024-03-02", "2024-03-01"], [4.0, 4.0], X, series=["a", "b"])
    two = stream.forecast(2, (0.2,), {"heat": [5.0, 1.0, 1.0, 5.0]})[:, :, 0]
    assert code == 0
    for found, expected in zip(out, [one, *two]):
        np.testing.assert_allclose(np.array([found["forecast"], found["q0.2"]]).T, expected)


def test_a_covariate_may_have_a_usual_name(follow, tmp_path):
    y = panel([60], ["a"])  # its levels are id and time
    X = pd.DataFrame({"timestamp": np.arange(60) % 5.0, "series_id": 1.0 * (np.arange(60) % 3)})
    forecaster = tsllm.LinearForecaster(past_covariates=("timestamp", "series_id"))
    forecaster.fit(y, X=X.set_axis(y.index), fh=[1, 2])
    path = tsllm.save(forecaster, tmp_path / "model")
    line = ROW | {"timestamp": 3.0, "series_id": 1.0}
    code, (found,), _ = follow(path, lines=[line])
    stream = forecaster.stream().observe("2024-03-01", 4.0, {"timestamp": 3.0, "series_id": 1.0})
    assert code == 0
    np.testing.assert_allclose(found["forecast"], stream.forecast(2)[0, :, 0, 0])


def test_a_bad_covariate_is_answered_in_its_place(warm, follow):
    good = ROW | {"heat": 3.0, "flow": 1.0, "future": AHEAD}
    bad = [
        (ROW | {"flow": 1.0, "future": AHEAD}, "a row lacks 'heat', the covariate"),
        (good | {"heat": None}, "column 'heat' of X has no value"),
        (good | {"heat": "hot"}, "column 'heat' of X holds 'hot'"),
        (good | {"heat": [1.0]}, "column 'heat' of X holds"),
        (good | {"heat": 10**400}, "column 'heat' of X holds"),
        (good | {"rain": 1.0}, "a row has 'rain', which the stream does not read"),
        (good | {"future": AHEAD[:1]}, "'future' has 1 steps, and 2 are forecast"),
        (good | {"future": {"heat": 1.0}}, "'future' must be a list of objects"),
        (good | {"future": [{"heat": 1.0}, {}]}, "a row lacks 'heat', the covariate"),
        (good | {"future": [{"heat": 1.0}, {"flow": 1.0}]}, "a row has 'flow', which"),
        ([good, ROW | {"id": "b", "heat": 1.0, "flow": 1.0}], "others lack it"),
    ]
    code, out, _ = follow(warm, lines=[*(line for line, _ in bad), good])
    assert code == 2
    for one, (_, message) in zip(out, bad, strict=False):
        assert message in one["error"]
    assert out[-1]["id"] == "a"
    later = good | {"time": "2024-03-02"}
    del later["future"]
    _, (_, without), _ = follow(warm, lines=[good, later])
    assert (
        "its values were read, and there is no forecast: the row lacks 'future'" in without["error"]
    )


def test_a_bad_line_is_answered_in_its_place(model, follow):
    bad = [
        ("nonsense", "it is no JSON"),
        ("[1]", "it is no row"),
        (ROW | {"id": "zz"}, "series 'zz' is not in the stream"),
        (ROW | {"price": 3}, "a row has 'price', which the stream does not read"),
        ({"id": "a", "value": 3}, "a row lacks 'time'"),
        (ROW | {"time": "2024-04-01"}, "has a gap"),
        (ROW | {"value": "high"}, "holds 'high', which is no number"),
        (ROW | {"value": 10**400}, "holds a value beyond"),
        (ROW | {"id": ["a"]}, "series ['a'] is not in the stream"),
        (ROW | {"series_id": "b"}, "a row has 'id' and 'series_id', both the name of the series"),
        ([ROW, ROW | {"id": "b", "value": [2]}], "holds [2], which is no number"),
        (json.dumps(ROW)[:-1] + ', "value": 5.0}', "it gives 'value' twice in one object"),
        (ROW | {"time": "01/03/2024"}, "time must be a date, written year first"),
    ]
    code, out, said = follow(model, lines=[*(line for line, _ in bad), ROW])
    assert code == 2
    assert f"Error: {len(bad)} of {len(bad) + 1} lines could not be read" in said
    for number, (one, (_, message)) in enumerate(zip(out, bad), start=1):
        assert one["line"] == number
        assert message in one["error"]
    assert out[-1]["id"] == "a"


def test_the_state_continues(model, follow, tmp_path):
    state = tmp_path / "state"
    _, first, _ = follow(model, "--state", state, "--every", 2, lines=[ROW])
    code, second, _ = follow(model, "--state", state, lines=[ROW | {"time": "2024-03-02"}])
    _, whole, _ = follow(model, lines=[ROW, ROW | {"time": "2024-03-02"}])
    assert (code, first, second) == (0, [], whole[1:])
    other = tsllm.LinearForecaster().fit(panel([40], ["a"]), fh=[1])
    code, _, said = follow(tsllm.save(other, tmp_path / "m"), "--state", state, lines=[ROW])
    assert code == 2
    assert "holds no stream of the model" in said
    code, _, said = follow(model, "--state", model, lines=[ROW])
    assert code == 2
    assert "holds no stream of the model" in said


def test_events_are_followed_too(follow, tmp_path):
    events = pd.DataFrame({"time": [1.0, 2.0, 4.0, 4.5, 7.0], "type": list("abaab")})
    forecaster = tsllm.HawkesForecaster().fit(events)
    path = tsllm.save(forecaster, tmp_path / "m")
    lines = [{"time": 7.5, "type": "a"}, {"time": 7.5, "type": "a"}, {"time": 8, "type": "c"}]
    code, out, _ = follow(path, "--quantiles", "0.5", lines=lines)
    expected = forecaster.update(pd.DataFrame(lines[:1])).predict(levels=(0.5,))
    assert code == 2
    assert out[0]["time"] == pytest.approx(expected["time"].item())
    assert "does not come after it" in out[1]["error"]
    assert "an event of the type 'c'" in out[2]["error"]
    code, _, said = follow(path, "--fill", "nan", lines=[])
    assert "--fill has no effect on events" in said
    code, _, said = follow(path, "--horizon", "3", lines=[])
    assert "--horizon has no effect on events" in said


def test_a_line_of_other_bytes_spoils_no_other(model, monkeypatch, capsys):
    from tsllm.cli.main import main

    good = json.dumps(ROW).encode()
    lines = b"\xef\xbb\xbf" + good.replace(b'"a"', b'"a\xff"') + b"\r\n" + good + b"\r\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="latin-1"))
    with pytest.raises(SystemExit) as end:
        main(["stream", str(model)])
    bad, answer = map(json.loads, capsys.readouterr().out.splitlines())
    assert end.value.code == 2
    assert bad == {"line": 1, "error": "it has bytes that are not UTF-8: write JSON as UTF-8"}
    assert answer["id"] == "a"


def test_a_line_without_a_forecast_has_been_read(follow, tmp_path):
    forecaster = tsllm.LinearForecaster(context_length=4).fit(panel([60], ["a"]), fh=[1])
    path, state = tsllm.save(forecaster, tmp_path / "m"), tmp_path / "s"
    days = pd.date_range(tsllm.load(path).stream().last_times["a"], periods=6)[1:]
    missing = [ROW | {"time": str(day.date()), "value": None} for day in days]
    code, out, _ = follow(path, "--state", state, lines=missing)
    assert code == 2
    assert "its values were read, and there is no forecast: " in out[-1]["error"]
    assert tsllm.load(state).last_times["a"] == days[-1]


def test_options_are_checked_before_the_first_line(model, follow, tmp_path):
    for option, value in [("--horizon", "0"), ("--quantiles", "1.5")]:
        code, out, said = follow(model, option, value, lines=[ROW])
        assert (code, out) == (2, [])
        assert "could not be read" not in said
    state = tmp_path / "state"
    later = ROW | {"time": "2024-03-03"}
    assert follow(model, "--state", state, lines=[ROW, later])[0] == 2
    code, out, _ = follow(model, "--state", state, "--fill", "nan", lines=[later])
    assert code == 0
    assert out[0]["time"][0] == "2024-03-04T00:00:00"


def test_a_signal_saves_the_state(model, tmp_path):
    code = "from tsllm.cli.main import main; main()"
    command = [sys.executable, "-c", code, "stream", str(model), "--state", str(tmp_path / "s")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdin.write(json.dumps(ROW) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "a"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert tsllm.load(tmp_path / "s").last_times["a"] == pd.Timestamp("2024-03-01")
