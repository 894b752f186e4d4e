"""Job files and ``--set``: what they say, what goes first, and what is refused."""

import os

import pytest

from tsllm.cli.config import BacktestJob, FitJob, ForecastJob, read_job, write_job
from tsllm.errors import DataError


@pytest.fixture
def config(tmp_path):
    """Write a job file and give its path."""

    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return path

    return write


def test_set_before_option_before_file_before_default(config):
    path = config(
        "data: a.csv\nhorizon: 3\nfreq: D\nparameters:\n  max_steps: 5\n  batch_size: 8\n"
    )
    job = read_job(ForecastJob, {"horizon": 7, "freq": None}, path, ["max_steps=9"])
    assert (job.data, job.horizon, job.freq, job.method) == ("a.csv", 7, "D", "auto")
    assert job.parameters == {"max_steps": 9, "batch_size": 8, "random_state": 0}
    assert job.quantiles == [0.1, 0.5, 0.9]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("5e-4", 5e-4),
        ("-1E3", -1000.0),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("None", None),
        ("none", None),
        ("NONE", None),
        ("nonempty", "nonempty"),
        ("auto", "auto"),
        ("[0.1, 0.9]", [0.1, 0.9]),
        ("{r: 8, alpha: 16}", {"r": 8, "alpha": 16}),
        ("random:gpt2?hidden=16&layers=1", "random:gpt2?hidden=16&layers=1"),
        ("'5'", "5"),
        ("1e5x", "1e5x"),
    ],
)
def test_values_of_set(text, value):
    parameters = read_job(BacktestJob, {"data": "a"}, None, [f"key={text}"]).parameters
    assert parameters == {"key": value, "random_state": 0}
    assert type(parameters["key"]) is type(value)


def test_the_target_of_a_job_file_is_a_name_or_a_list(config):
    for written, target in (("sold", "sold"), ("[sold, left]", ["sold", "left"])):
        path = config(f"data: a\ntarget_cols: {written}\n")
        assert read_job(FitJob, {}, path, None).data_options()["target_cols"] == target


@pytest.mark.parametrize("kind", [FitJob, ForecastJob, BacktestJob])
def test_a_job_written_is_the_job_read(kind, config):
    job = kind(data="é.csv", freq="D", target_cols=["y"], parameters={"learning_rate": 5e-4})
    assert read_job(kind, {}, config(write_job(job)), None) == job


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("data: a\nhorizn: 3", "job.yaml, line 2: unknown key 'horizn'; did you mean 'horizon'?"),
        ("data: a\n\nzzz: 3", "line 3: unknown key 'zzz'; known are data, id_col"),
        ("data: a\nhorizon: soon", "line 2: horizon must be a whole number or null, found 'soon'"),
        ("data: a\nhorizon: true", "horizon must be a whole number or null, found True"),
        ("quantiles: [a]", "quantiles must be a list of numbers, found ['a']"),
        ("data: a\nhorizon: 3\nhorizon: 4", "line 3: 'horizon' is there twice"),
        ("data: a\nfill:\n  y: zero\n  y: nan", "line 4: 'y' is there twice"),
        ("parameters: 3", "parameters must be a mapping, found 3"),
        ("horizon: [1", "is no YAML: line 1, expected ',' or ']'"),
        ("- 1", "must hold lines of 'key: value'"),
        ("", "must hold lines of 'key: value'"),
        ("data: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("parameters: {freq: D}\ndata: a", "give it with --freq"),
        ("horizon: 3", "there is no DATA"),
        (f"data: {'[' * 5000}{']' * 5000}", "nested too deeply"),
        ("data: a\nhorizon: .inf", "found inf"),
        (
            "data: [&b [&a [x, x, x, x], *a, *a, *a, *a], *b, *b, *b, *b]",
            "data must be text, found [[[",
        ),
    ],
)
def test_files_that_are_refused(text, complaint, config):
    with pytest.raises(DataError) as refusal:
        read_job(ForecastJob, {}, config(text), None)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    "pair", ["key=" + "[" * 5000, "max_steps", "=3", "key=[1,", "key=!!python/name:os.getcwd"]
)
def test_sets_that_are_refused(pair):
    with pytest.raises(DataError, match="--set"):
        read_job(FitJob, {"data": "a"}, None, [pair])


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for odd in (tmp_path, tmp_path / "pipe.yaml"):
        with pytest.raises(DataError, match="is no file"):
            read_job(FitJob, {}, odd, None)
    with pytest.raises(DataError, match="No such file"):
        read_job(FitJob, {}, tmp_path / "none.yaml", None)
