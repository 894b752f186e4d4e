"""Every option of every command is used, or refused where a run would ignore it."""

import numpy as np
import pandas as pd
import pytest
import typer
from command_line import SET
from small_events import stream

import tsllm as library
from tsllm.cli.main import app

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")

# Options that each run of their command reads.
_READING = ["id_col", "time_col", "target_col", "freq", "fill", "resample", "sort", "covariates"]
_JOB = [*_READING, "data", "past_covariates", "config", "set_", "method", "json"]
_TEXTS = ["text", "static_text"]
_EVENTS = ["data", "id_col", "time_col", "type_col", "windows", "sort", "ties", "config", "set_"]
USED = {
    "forecast": [*_JOB, *_TEXTS, "horizon", "quantiles", "skip_bad", "out", "plot", "page"],
    "fit": [*_JOB, *_TEXTS, "out", "horizon", "skip_bad", "checkpoint", "overwrite"],
    "embed": [*_JOB, *_TEXTS, "store", "horizon", "skip_bad"],
    "backtest": [
        *(*_JOB, *_TEXTS, "horizons", "test_size", "baselines", "stride", "seeds", "scaled"),
        *("out", "markdown", "plot", "page", "time_limit"),
    ],
    "ablate": [
        *(*_JOB, "horizons", "variants", "baselines", "seeds", "metric", "min_difference"),
        *("as_given", "test_size", "stride", "out", "markdown", "plot", "page", "text"),
    ],
    "predict": [
        *("model", "data", "horizon", "quantiles", "skip_bad", "batch_size", "out", "json"),
    ],
    "stream": ["model", "horizon", "quantiles", "fill", "state", "every"],
    "serve": [
        *("model", "port", "host", "workers", "threads", "timeout", "limit", "device", "backbone"),
    ],
    "datasets": ["json"],
    "backbones get": ["name", "json"],
    "doctor": ["json"],
    "events fit": [*_EVENTS, "out", "method", "slices", "checkpoint", "overwrite", "json"],
    "events update": ["model", "data", "learn", "out", "windows", "sort", "json"],
    "events predict": [
        *("model", "data", "steps", "quantiles", "now", "out", "plot", "page", "json"),
    ],
    "events simulate": ["model", "horizon", "new", "seed", "out", "json"],
    "events evaluate": [*_EVENTS, "model", "slices", "out", "plot", "page", "json"],
    "events ablate": [
        *(*_EVENTS, "slices", "variants", "baselines", "seeds", "min_difference"),
        *("out", "markdown", "plot", "page", "json"),
    ],
    "store stats": ["folder", "json"],
    "store verify": ["folder", "json"],
    "store prune": ["folder", "unused_days", "json"],
}

_TRAIN = {
    "forecast": "series.csv --horizon 2",
    "fit": "series.csv --horizon 2 --out new",
    "embed": "series.csv --horizon 2",
    "backtest": "series.csv --horizons 2",
    "ablate": "series.csv --horizons 2",
}
# Options with runs that would ignore them: the rest of the command line, and the refusal.
IGNORED = {
    (command, option): (rest, words)
    for command, start in _TRAIN.items()
    for option, (rest, words) in {
        "tz": (f"{start.replace('series', 'steps')} --tz UTC", "holds integers"),
        "time_format": (f"{start.replace('csv', 'parquet')} --time-format %Y", "holds dates"),
        "sep": (f"{start.replace('csv', 'parquet')} --sep ;", "are for CSV"),
        "decimal": (f"{start.replace('csv', 'parquet')} --decimal ,", "are for CSV"),
        "encoding": (f"{start.replace('csv', 'parquet')} --encoding latin-1", "are for CSV"),
    }.items()
}
IGNORED |= {
    ("forecast", "future"): ("series.csv --horizon 2 --future series.csv", "reads none"),
    ("forecast", "new_series"): ("series.csv --horizon 2 --new-series series.csv", "descriptions"),
    ("backtest", "test_fraction"): (
        "series.csv --horizons 2 --test-size 5 --test-fraction .2",
        "both size the test part",
    ),
    ("ablate", "test_fraction"): (
        "series.csv --horizons 2 --test-size 5 --test-fraction .2",
        "both size the test part",
    ),
}
_WITHOUT_DATA = {
    "freq": "D",
    "fill": "nan",
    "resample": "mean",
    "sort": "",
    "id_col": "series_id",
    "time_col": "timestamp",
    "target_col": "value",
    "tz": "UTC",
    "time_format": "%Y",
    "sep": ";",
    "decimal": ",",
    "encoding": "latin-1",
}
IGNORED |= {
    ("predict", option): (
        f"model --{option.replace('_', '-')} {value}",
        f"--{option.replace('_', '-')} has no effect without DATA",
    )
    for option, value in _WITHOUT_DATA.items()
}
IGNORED |= {
    ("predict", "future"): ("model series.csv --future series.csv", "reads none"),
    ("predict", "new_series"): ("model series.csv --new-series series.csv", "descriptions"),
    ("predict", "backbone"): ("model series.csv --backbone gpt2", "uses none"),
    ("predict", "engine"): ("model series.csv --engine ray", "--out the name of a directory"),
    ("predict", "workers"): ("model series.parquet -o p --workers 2", "without --engine ray"),
    ("predict", "worker_cpus"): ("model series.csv --worker-cpus 2", "without --engine ray"),
    ("predict", "worker_gpus"): ("model series.csv --worker-gpus 1", "without --engine ray"),
    ("predict", "block_rows"): ("model series.csv --block-rows 9", "on one table"),
    ("stream", "backbone"): ("model --backbone gpt2", "uses none"),
    ("events fit", "by"): ("events.csv --out new --slices 2 --by 1D", "give one of them"),
    ("events update", "overwrite"): ("stream events.csv --overwrite", "without --out"),
    ("events predict", "windows"): ("stream --windows 0,9", "without DATA"),
    ("events predict", "sort"): ("stream --sort", "without DATA"),
    ("events simulate", "data"): ("stream events.csv --new 1 --horizon 9", "DATA has no effect"),
    ("events simulate", "paths"): ("stream --paths 2 --new 1 --horizon 9", "with --new"),
    ("events simulate", "steps"): ("stream --steps 2 --new 1 --horizon 9", "with --new"),
    ("events simulate", "windows"): ("stream --windows 0,9 --new 1 --horizon 9", "with --new"),
    ("events simulate", "sort"): ("stream --sort --new 1 --horizon 9", "with --new"),
    ("events evaluate", "method"): ("events.csv --model stream --method hawkes", "as it is"),
    ("events evaluate", "test_fraction"): (
        "events.csv --model stream --test-fraction .3",
        "with --model",
    ),
    ("events evaluate", "by"): ("events.csv --slices 2 --by 1D", "give one of them"),
    ("events evaluate", "baselines"): ("events.csv --baselines naive", "without --slices"),
    ("events ablate", "by"): ("events.csv --slices 2 --by 1D", "give one of them"),
}
for _command, _start in {
    "events fit": "--out new",
    "events evaluate": "",
    "events ablate": "--slices 2",
}.items():
    IGNORED |= {
        (_command, "time_unit"): (f"events.csv {_start} --time-unit h", "are numbers"),
        (_command, "resolution"): (f"events.csv {_start} --resolution 1", "has no effect"),
    }

_WRITTEN = {
    name: _WITHOUT_DATA[name] for name in ("tz", "time_format", "sep", "decimal", "encoding")
}
for _command, _start, _words in (
    ("events predict", "stream", "without DATA"),
    ("events simulate", "stream --new 1 --horizon 9", "with --new"),
):
    IGNORED |= {
        (_command, option): (f"{_start} --{option.replace('_', '-')} {value}", _words)
        for option, value in _WRITTEN.items()
    }
for _command, _start in {
    "events fit": "DATA --out new",
    "events update": "stream DATA",
    "events evaluate": "DATA",
    "events ablate": "DATA --slices 2",
}.items():
    for _option, _value in _WRITTEN.items():
        _data = "events.csv" if _option == "tz" else "stamps.parquet"
        _words = {"tz": "holds numbers", "time_format": "holds dates"}.get(_option, "are for CSV")
        _rest = f"{_start.replace('DATA', _data)} --{_option.replace('_', '-')} {_value}"
        IGNORED[_command, _option] = (_rest, _words)

# More runs that would ignore an option, and values out of range.
MORE = [
    ("predict", "model series.parquet -o p --resample mean", "on a job in blocks"),
    ("predict", "model series.parquet -o p --sep ;", "on a job in blocks"),
    ("predict", "model --future series.csv --freq D", "--freq has no effect without DATA"),
    ("predict", "model --new-series series.csv --time-col t", "--time-col has no effect without"),
    ("events simulate", "stream --sort --horizon 9", "without DATA"),
    ("events simulate", "stream --new 0 --horizon 9", "--new"),
    ("events evaluate", "events.csv --slices 2 --test-fraction .3", "with --slices"),
    ("events evaluate", "--model stream --config job.yaml", "as it is"),
    ("events fit", "events.csv --out new --ties jitter --resolution -1", "positive"),
    ("events fit", "events.csv --out new --resolution -1", "positive"),
    ("events fit", "events.csv --out new --ties batch --resolution nan", "positive"),
    ("store prune", "--unused-days -5", "--unused-days"),
    ("store prune", "--unused-days nan", "--unused-days"),
    ("backtest", "series.csv --horizons 2 --stride 0", "stride"),
    ("backtest", "series.csv --horizons 2 --test-size 0", "test_size"),
    ("ablate", "series.csv --horizons 2 --min-difference -1", "min_difference"),
    ("ablate", "series.csv --horizons 2 --min-difference nan", "min_difference"),
    ("events ablate", "events.csv --slices 2 --min-difference nan", "min_difference"),
]


def options_of(command, path=()):
    """List every command with its options."""
    if not hasattr(command, "commands"):
        return {" ".join(path): [one.name for one in command.params]}
    found = {}
    for name, below in command.commands.items():
        found |= options_of(below, (*path, name))
    return found


def test_every_option_is_used_or_has_a_run_that_refuses_it():
    found = options_of(typer.main.get_command(app))
    known = {command: list(names) for command, names in USED.items()}
    for command, option in IGNORED:
        known[command].append(option)
    assert {command: sorted(names) for command, names in found.items()} == {
        command: sorted(names) for command, names in known.items()
    }


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Series and events in files, with a small model of each."""
    folder = tmp_path_factory.mktemp("workshop")
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    frame = pd.DataFrame({"series_id": "a", "timestamp": days, "value": np.sin(np.arange(60.0))})
    frame.to_csv(folder / "series.csv", index=False)
    frame.to_parquet(folder / "series.parquet", index=False)
    frame.assign(timestamp=range(60)).to_csv(folder / "steps.csv", index=False)
    model = library.AutoTimesForecaster(None, max_steps=2, context_length=12)
    library.save(model.fit(frame.set_index("timestamp")[["value"]], fh=[1, 2]), folder / "model")
    events = stream(t_end=40).to_frame()[["sequence_id", "time", "type"]]
    events.to_csv(folder / "events.csv", index=False)
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(events["time"], unit="h")
    events.assign(time=stamps).to_parquet(folder / "stamps.parquet", index=False)
    library.save(library.NaiveEventForecaster().fit(events), folder / "stream")
    (folder / "job.yaml").write_text("data: events.csv\nparameters: {hidden_size: 8}\n")
    return folder


CASES = [(command, *case) for (command, _), case in IGNORED.items()] + MORE


@pytest.mark.parametrize(("command", "rest", "words"), CASES, ids=lambda value: str(value)[:60])
def test_an_option_without_effect_is_refused(tsllm, workshop, monkeypatch, command, rest, words):
    monkeypatch.chdir(workshop)
    monkeypatch.setenv("TSLLM_STORE", str(workshop / "store"))
    before = {path: path.stat().st_mtime_ns for path in workshop.rglob("*") if path.is_file()}
    train = SET if command in ("forecast", "fit", "backtest", "ablate") else []
    result = tsllm(*command.split(), *rest.split(), *train)
    assert (result.code, result.out) == (2, ""), result.err
    lines = result.err.splitlines()
    assert len(lines) == 1 and words in lines[0], result.err
    after = {path: path.stat().st_mtime_ns for path in workshop.rglob("*") if path.is_file()}
    changed = {path for path, written in after.items() if before.get(path) != written}
    assert changed <= {workshop / "store" / "data.mdb"} and before.keys() <= after.keys()
