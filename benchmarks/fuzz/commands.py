"""The command line: each command in this process, with its exit code and what it prints."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import tsllm
from fuzz.cases import Attack, Case, RefusedError, UnexplainedError, check
from fuzz.shared import TINY, check_index, check_levels, check_table, fitted, long, stamps_after
from tsllm.cli.main import main
from tsllm.datasets import make_hawkes

IDS = ["s0", "s1", "s2"]
#: Options that make a command train in no time.
SET = (
    "--method autotimes --set backbone=null --set max_steps=2 --set random_state=0 "
    "--set context_length=12"
)


class Result(NamedTuple):
    """What a command printed."""

    out: str
    err: str


@contextlib.contextmanager
def _inside(folder: Path, stdin: bytes) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Work in a folder, with texts in place of the streams."""
    before, there = sys.stdin, Path.cwd()
    out, err = io.StringIO(), io.StringIO()
    os.chdir(folder)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield out, err
    finally:
        sys.stdin = before
        os.chdir(there)


def run(case: Case, *arguments: str, stdin: bytes = b"") -> Result:
    """Run a command in the folder of a case.

    Raises
    ------
    RefusedError
        The exit code is 2, nothing is on stdout, and the last line on stderr is a sentence.
    UnexplainedError
        Any other failure.
    """
    with _inside(case.folder, stdin) as (out, err):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = end.code
    said = err.getvalue().strip()
    last = said.splitlines()[-1] if said else ""
    if not code:
        check("Traceback" not in said, "a traceback and exit code 0")
        return Result(out.getvalue(), said)
    if code != 2 or not last.startswith("Error: ") or "Traceback" in said:
        raise UnexplainedError(f"exit code {code}: {said[-300:]}")
    check(out.getvalue() == "", "exit code 2, and output on stdout")
    raise RefusedError(last.removeprefix("Error: "))


def _table(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), dtype={"series_id": str}, float_precision="round_trip")


def _prepare(case: Case) -> pd.DataFrame:
    """Write the data, and a model of it, to the folder of a case."""
    frame = long()
    frame.to_csv(case.folder / "data.csv", index=False)
    frame.to_parquet(case.folder / "data.parquet", index=False)
    return frame


def _save_model(case: Case, kind: str = "long") -> None:
    tsllm.save(fitted("autotimes", kind), case.folder / "model")


def ordinary_commands(case: Case) -> None:
    """Write every row of an ordinary forecast, wherever it is written to."""
    frame = _prepare(case)
    _save_model(case)
    command = case.pick(
        "command", ["forecast data.csv", "forecast -", "predict model data.csv", "predict model"]
    )
    where = case.pick("out", ["", "-o out.csv", "-o out.parquet", "-o out.jsonl", "--json",
                              "-o OUT.CSV", "-o out.v2", "-o deep.name.csv"])  # fmt: skip
    command += f" --horizon 2 {where} {SET if 'forecast' in command else ''}"
    case.expect("either" if where in ("-o out.v2", "-o OUT.CSV") else "answer")
    stdin = (case.folder / "data.csv").read_bytes()
    result = run(case, *shlex.split(command), stdin=stdin)
    if where == "--json":
        rows = json.loads(result.out, parse_constant=_refuse)
        table = pd.DataFrame(rows["forecast"])
    elif not where:
        table = _table(result.out)
    else:
        path = case.folder / where.removeprefix("-o ")
        check(path.exists(), f"exit code 0 and no {path.name}")
        readers: dict[str, Callable[[Path], pd.DataFrame]] = {
            ".csv": lambda path: _table(path.read_text()),
            ".parquet": pd.read_parquet,
            ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"series_id": str}),
            ".v2": pd.read_parquet,
        }
        table = readers[path.suffix.lower()](path)
    check_table(table, IDS, 2)
    check_levels(table)
    last = frame["timestamp"].max()
    times = pd.to_datetime(table.loc[table["series_id"] == "s1", "timestamp"])
    check_index(pd.DatetimeIndex(times), stamps_after(last, "D", [1, 2]))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_ODD = ["0", "-1", "1.5", "x", "", "99999999", "1e9", "nan", "inf", "-5", "None", "true", "1,2,x",
        "10000000000000000000000", "../../x", "~", "*", "\x00"]  # fmt: skip
_OPTIONS = {
    "forecast": [
        *("--horizon", "--quantiles", "--freq", "--fill", "--resample", "--id-col", "--time-col"),
        *("--target-col", "--covariates", "--past-covariates", "--future", "--method", "--config"),
        *("--set", "--out", "--plot", "--tz", "--time-format", "--sep", "--decimal", "--encoding"),
    ],
    "predict": [
        *("--horizon", "--quantiles", "--freq", "--fill", "--engine", "--workers", "--batch-size"),
        *("--block-rows", "--out", "--future", "--target-col", "--worker-cpus"),
    ],
    "backtest": [
        *("--horizons", "--test-size", "--test-fraction", "--stride", "--seeds", "--baselines"),
        *("--out", "--markdown", "--method", "--freq"),
    ],
    "ablate": [
        "--variants",
        "--baselines",
        "--metric",
        "--min-difference",
        "--seeds",
        "--horizons",
    ],
    "embed": ["--store", "--method", "--horizon"],
    "fit": ["--horizon", "--out", "--checkpoint", "--set", "--method"],
}


def odd_options(case: Case) -> None:
    """Take or refuse any text as the value of any option, in a sentence."""
    _prepare(case)
    command = case.pick("command", list(_OPTIONS))
    option = case.pick("option", _OPTIONS[command])
    value = case.pick("value", _ODD)
    also = ["directory"] if option == "--out" else [value] if value else []
    case.expect("either", option[2:], option[2:].replace("-", "_"), *also)
    if command == "predict":
        _save_model(case)
        words = ["predict", "model", "data.csv"]
    else:
        words = [command, "data.csv", *shlex.split(SET)]
        backbone = ["--set", f"backbone={TINY}"]
        defaults = {
            "forecast": ["--horizon", "2"],
            "backtest": ["--horizons", "2", "--test-size", "4", "--baselines", "none"],
            "ablate": ["--horizons", "2", "--test-size", "4", "--variants", "none",
                       "--baselines", "none", "--seeds", "0", *backbone],
            "embed": ["--store", "store", "--method", "timecma", *backbone],
            "fit": ["--horizon", "2", "--out", "made"],
        }  # fmt: skip
        words += defaults.get(command, [])
    run(case, *words, option, value)


def unknown_words(case: Case) -> None:
    """Refuse commands and options that there are none of, with the nearest."""
    _prepare(case)
    words = case.pick(
        "words",
        ["forcast data.csv", "forecast data.csv --horizn 2", "--nope", "predict", "events",
         "events nope",
         "store nope", "forecast data.csv extra --horizon 2", "fit data.csv", "predict nowhere",
         "predict data.csv", "backtest", "events fit data.csv --out m", "events predict data.csv",
         "store prune nowhere --unused-days -5", "store prune --unused-days nan",
         "store verify nowhere",
         "store stats data.csv", "forecast data.csv --horizon 2 --horizon",
         "events fit nope.csv -o m"],
    )  # fmt: skip
    case.expect("refusal")
    if words in ("events",):
        case.expect("either")
    run(case, *words.split())


def odd_job_files(case: Case) -> None:
    """Refuse job files that hold anything else; name the key."""
    _prepare(case)
    files: dict[str, bytes] = {
        "unknown key": b"horizn: 2\n",
        "no YAML": b"horizon: [2\n",
        "list": b"- 1\n",
        "text": b"hello\n",
        "empty": b"",
        "binary": bytes(range(256)),
        "deep": b"a: " + b"[" * 3000 + b"]" * 3000,
        "deep mapping": b"{a: " * 1500 + b"1" + b"}" * 1500,
        "anchors": b"a: &a [1]\n" + b"".join(b"b%d: [*a,*a]\n" % i for i in range(9)),
        "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i,
        b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
        "huge number": b"horizon: 100000000000000000000\n",
        "long number": b"horizon: " + b"9" * 5000 + b"\n",
        "wrong kind": b"horizon: many\n",
        "null": b"horizon: null\n",
        "float": b"horizon: 2.0\n",
        "bool": b"horizon: true\n",
        "python tag": b"horizon: !!python/object/apply:os.system ['true']\n",
        "date": b"horizon: 2024-01-01\n",
        "nan": b"horizon: .nan\n",
        "parameters list": b"horizon: 2\nparameters: [1]\n",
        "twice": b"horizon: 2\nhorizon: 3\n",
        "data number": b"data: 5\nhorizon: 2\n",
        "utf-16": "horizon: 2\n".encode("utf-16"),
    }  # fmt: skip
    content = case.pick_named("file", files)
    (case.folder / "job.yaml").write_bytes(content)
    if case.drawn["file"] not in ("float", "twice", "utf-16"):
        case.expect("refusal")
    run(case, "forecast", "data.csv", "--config", "job.yaml", *shlex.split(SET))


def odd_sets(case: Case) -> None:
    """Refuse a ``--set`` of another kind; name the parameter."""
    _prepare(case)
    name = case.pick(
        "parameter",
        ["max_steps", "context_length", "learning_rate", "batch_size", "quantiles", "loss",
         "backbone",
         "device", "dtype", "random_state", "dropout", "lora", "timestamps", "token_length",
         "adaptive"],
    )  # fmt: skip
    value = case.pick("value", ["x", "-1", "0", "1.5", "[1", "{a: 1}", "[]", "null", "1e400",
                                "true", "9" * 30,
                                "[" * 500 + "]" * 500, "'", "nan", "[0.1, 2]"])  # fmt: skip
    case.expect("either", name, "YAML", "backbone", "device")
    run(
        case,
        "forecast",
        "data.csv",
        "--horizon",
        "2",
        *shlex.split(SET),
        "--set",
        f"{name}={value}",
    )


def ignored_options(case: Case) -> None:
    """Refuse options that would be ignored: those of DATA without DATA."""
    _prepare(case)
    _save_model(case)
    option = case.pick(
        "option", ["--freq D", "--fill nan", "--sort", "--resample sum", "--id-col x",
                   "--time-col x",
                   "--target-col value", "--tz UTC"]
    )  # fmt: skip
    case.expect("refusal", option.split()[0])
    run(case, "predict", "model", *option.split())


def tables_of_all_kinds(case: Case) -> None:
    """Forecast what stdin and files hold, with each series' name as it is written."""
    ids = case.pick(
        "ids",
        [["007", "7", "07"], ["a b", "c,d", 'e"f'], ["é", "日本", "x"], ["NA", "nan", "null"]],
    )
    frame = long()
    frame["series_id"] = [ids[int(name[1:])] for name in frame["series_id"]]
    name = case.pick("name", ["data.csv", "data.parquet", "-"])
    stdin = b""
    if name == "-":
        stdin = frame.to_csv(index=False).encode()
    elif name == "data.csv":
        frame.to_csv(case.folder / name, index=False)
    else:
        frame.to_parquet(case.folder / name, index=False)
    if "NA" not in ids:
        case.expect("answer")
    words = f"forecast {name} --horizon 2 -o out.parquet {SET}"
    run(case, *shlex.split(words), stdin=stdin)
    table = pd.read_parquet(case.folder / "out.parquet")
    check(
        sorted(set(table["series_id"])) == sorted(ids), f"series {sorted(set(table['series_id']))}"
    )
    check_table(table, ids, 2)


def broken_output(case: Case) -> None:
    """Say that an output cannot be written, before the work or after, and leave nothing behind."""
    _prepare(case)
    where = case.pick(
        "out", ["no/such/out.csv", "data.csv/out.csv", "/dev/full", "/proc/out.csv",
                "x" * 300 + ".csv",
                "out.txt", "full.csv", "."]
    )  # fmt: skip
    if where == "full.csv":
        (case.folder / where).symlink_to("/dev/full")
    case.expect("refusal")
    before = sorted(case.folder.rglob("*"))
    try:
        run(case, *shlex.split(f"forecast data.csv --horizon 2 {SET}"), "-o", where)
    except RefusedError:
        check(sorted(case.folder.rglob("*")) == before, "a file is left behind")
        raise


def event_commands(case: Case) -> None:
    """Take or refuse any text as the value of an option of the event commands."""
    stream = make_hawkes([0.5, 0.3], [[0.3, 0.1], [0.2, 0.4]], [2.0, 1.5], t_end=20, n_sequences=3,
                         random_state=0).events  # fmt: skip
    stream.to_frame().to_csv(case.folder / "events.csv", index=False)
    options = {
        "fit": ["--windows", "--time-unit", "--ties", "--resolution", "--id-col", "--type-col",
                "--slices",
                "--by", "--method", "--set"],
        "predict": ["--steps", "--now", "--windows"],
        "simulate": ["--paths", "--horizon", "--steps", "--new", "--seed"],
    }  # fmt: skip
    command = case.pick("command", list(options))
    option = case.pick("option", options[command])
    value = case.pick("value", _ODD)
    fit = ["events", "fit", "events.csv", "--method", "naive", "--out", "model"]
    if command == "fit":
        run(case, *fit, option, value)
        return
    try:
        run(case, *fit)
    except RefusedError as error:
        raise AssertionError(f"the fit that the case begins with failed: {error}") from error
    words = ["events", command, "model"]
    if command == "simulate" and option not in ("--horizon", "--steps"):
        words += ["--horizon", "5"]
    run(case, *words, option, value)


def lists(case: Case) -> None:
    """Answer the commands that list, in tables and in JSON."""
    words = case.pick("words", ["datasets", "datasets --json", "--version", "--help",
                                "forecast --help",
                                "events --help", "store stats --json"])  # fmt: skip
    if not words.startswith("store"):
        case.expect("answer")
    result: Any = run(case, *words.split())
    if "--json" in words:
        json.loads(result.out, parse_constant=_refuse)
    else:
        check(len(result.out) > 10, "nothing on stdout")


ATTACKS: list[Attack] = [
    ordinary_commands,
    odd_options,
    odd_options,
    unknown_words,
    odd_job_files,
    odd_sets,
    ignored_options,
    tables_of_all_kinds,
    broken_output,
    event_commands,
    odd_options,
    event_commands,
    lists,
]
