"""The command as a process: quick help, streams kept apart, exit codes, failures that are ours."""

import json
import resource
import subprocess
import sys
import warnings

import pytest
from command_line import SET

import tsllm as library
from tsllm.cli import forecast as forecast_module
from tsllm.cli import output as output_module

COMMAND = [sys.executable, "-c", "from tsllm.cli.main import main; main()"]
HEAVY = ("torch", "pandas", "numpy", "sktime", "transformers", "matplotlib", "rich")


@pytest.mark.parametrize("arguments", [["--help"], ["forecast", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    script = (
        "import sys; from tsllm.cli.main import main\n"
        f"try: main({arguments})\n"
        f"except SystemExit: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("Usage: tsllm")
    assert done.stderr.strip() == "[]"


def test_help_is_quick():
    """Processor time, the best of three runs, since other processes may be busy."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_data_on_stdout_and_the_rest_on_stderr(series, tmp_path):
    done = subprocess.run(
        [*COMMAND, "forecast", "series.csv", "--horizon", "2", *SET, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["forecast"]) == 4
    lines = done.stderr.splitlines()
    assert lines[0].startswith("fitted autotimes on 2 series")
    assert all(line.startswith(("fitted", "Warning: ")) for line in lines)


def test_mistake_in_a_process(tmp_path):
    done = subprocess.run(
        [*COMMAND, "forecast", "co3", "--horizon", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_reader_that_leaves(tmp_path):
    """As in ``tsllm datasets | head -0``: no traceback when nobody reads."""
    process = subprocess.Popen(
        [*COMMAND, "datasets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in errors and "BrokenPipe" not in errors


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(tsllm, arguments):
    result = tsllm(*arguments)
    assert (result.code, result.err) == (0, "")
    for name in ("forecast", "fit", "predict", "backtest", "datasets", "backbones", "doctor"):
        assert name in result.out


def test_version(tsllm):
    assert tsllm("--version").out == f"tsllm {library.__version__}\n"


@pytest.fixture
def broken(monkeypatch):
    """A command with a bug in it."""

    def fail(*arguments, **options):
        raise KeyError("a bug\nin two lines")

    monkeypatch.setattr(forecast_module, "open_data", fail)


def test_a_bug_ends_in_one_line(tsllm, broken):
    result = tsllm("forecast", "co2", "--horizon", 2, *SET)
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1
    assert "KeyError" in result.err and "--debug" in result.err


def test_debug_shows_where(tsllm, broken):
    result = tsllm("--debug", "forecast", "co2", "--horizon", 2, *SET)
    assert result.code == 1
    assert "Traceback" in result.err and "in fail" in result.err


def test_missing_extra(tsllm, monkeypatch):
    monkeypatch.setattr(output_module, "find_spec", lambda name: None)
    result = tsllm("forecast", "co2", "--horizon", 2, "--plot", "p.png", *SET)
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: --plot needs matplotlib: pip install 'tsllm[plot]'\n"


def test_broken_import_is_no_mistake_of_the_user(tsllm, monkeypatch):
    monkeypatch.setitem(sys.modules, "tsllm.tables.forecast", None)
    result = tsllm("forecast", "co2", "--horizon", 2)
    assert result.code == 1 and "unexpected" in result.err


def test_interrupted(tsllm, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(forecast_module, "open_data", interrupt)
    result = tsllm("forecast", "co2", "--horizon", 2, *SET)
    assert result.code not in (0, 2) and "Traceback" not in result.err


def test_warnings_of_the_caller_are_left_as_they_were(tsllm):
    filters, show = list(warnings.filters), warnings.showwarning
    tsllm("datasets")
    assert warnings.filters == filters and warnings.showwarning is show
