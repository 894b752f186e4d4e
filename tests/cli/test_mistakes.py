"""Users' mistakes: each ends in one line that says what to do, nothing on stdout, exit code 2."""

import pytest
from command_line import SET

# Command line, and what the one line must contain.
MISTAKES = {
    "missing file": ("forecast nope.csv --horizon 2", "'nope.csv'"),
    "unknown data set": ("forecast co3 --horizon 2", "did you mean 'co2'?"),
    "events": ("forecast usgs_earthquakes --horizon 2", "holds events"),
    "no data": ("forecast --horizon 2", "there is no DATA"),
    "no horizon": ("forecast series.csv", "--horizon is missing"),
    "horizon 0": ("forecast series.csv --horizon 0", "horizon must be a whole number"),
    "horizon text": ("forecast series.csv --horizon x", "tsllm forecast --help"),
    "quantile beyond 1": ("forecast series.csv --horizon 2 --quantiles 1.5", "found 1.5"),
    "quantile text": ("forecast series.csv --horizon 2 --quantiles a", "--quantiles must be"),
    "quantile twice": ("forecast series.csv --horizon 2 --quantiles .1,.1", "found 0.1 twice"),
    "unknown method": ("forecast series.csv --horizon 2 --method autotime", "autotimes"),
    "unknown parameter": (
        "forecast series.csv --horizon 2 --method autotimes --set max_step=3",
        "'max_steps'?",
    ),
    "bad --set": ("forecast series.csv --horizon 2 --set max_steps", "key=value"),
    "wrong kind": (
        "forecast series.csv --horizon 2 --method aaren --set learning_rate=fast",
        "found 'fast'",
    ),
    "another method's": ("forecast series.csv --horizon 2 --set max_steps=3", "(--method)"),
    "value out of range": ("forecast series.csv --horizon 2 --set batch_size=0", "batch_size"),
    "unknown key": ("forecast series.csv --config bad.yaml", "did you mean 'horizon'?"),
    "unknown option": ("forecast series.csv --horizn 2", "--horizon"),
    "unknown command": ("forcast series.csv", "'forecast'"),
    "gap": ("forecast gap.csv --horizon 2", "--fill"),
    "text in values": ("forecast text.csv --horizon 2", "line 4, column 'value' holds 'oops'"),
    "unsorted": ("forecast unsorted.csv --horizon 2", "--sort"),
    "empty stdin": ("forecast - --horizon 2", "is empty"),
    "unknown column": ("forecast series.csv --horizon 2 --target-col valu", "'value'"),
    "unknown ending": ("forecast series.csv --horizon 2 -o out.txt", ".parquet"),
    "no folder": ("forecast series.csv --horizon 2 -o no/out.csv", "make it first"),
    "plot ending": ("forecast series.csv --horizon 2 --plot out.bmp", ".png"),
    "no backbone": (
        "forecast series.csv --horizon 2 --method autotimes --set backbone=no/such",
        "was not found",
    ),
    "no out": ("fit series.csv", "--out is missing"),
    "out below a file": ("fit series.csv --out series.csv/model", "another folder"),
    "no model": ("predict nowhere", "no directory"),
    "model without files": ("predict empty", "config.json"),
    "engine": ("predict empty --engine spark", "'ray'"),
    "ray without a directory": ("predict empty --engine ray", "directory"),
    "batch size": ("predict empty --batch-size 0", "or auto"),
    "blocks of CSV": ("predict empty series.csv -o parts", "write it as Parquet"),
    "no arguments": ("predict", "MODEL_DIR"),
    "no horizons": ("backtest series.csv", "--horizons is missing"),
    "horizons text": ("backtest series.csv --horizons 2,x", "--horizons must be"),
    "unknown baseline": ("backtest series.csv --horizons 2 --baselines naive", "seasonal_naive"),
    "test part too short": ("backtest series.csv --horizons 500", "test_size"),
}


@pytest.fixture
def files(series, tmp_path):
    series.drop(index=[5, 6]).to_csv(tmp_path / "gap.csv", index=False)
    series.astype({"value": object}).assign(
        value=[*series["value"][:2], "oops", *series["value"][3:]]
    ).to_csv(tmp_path / "text.csv", index=False)
    series[::-1].to_csv(tmp_path / "unsorted.csv", index=False)
    (tmp_path / "bad.yaml").write_text("horizn: 2\n")
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_and_exit_code_2(tsllm, files, tmp_path, mistake):
    command, words = MISTAKES[mistake]
    before = sorted(tmp_path.rglob("*"))
    given = {"--method", "--set"} & set(command.split())
    settings = [] if given or not _trains(command) else SET
    result = tsllm(*command.split(), *settings)
    assert result.code == 2
    assert result.out == ""
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.err
    assert words in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_corrupted_model(tsllm, series, tmp_path):
    tsllm("fit", "series.csv", "--horizon", 2, "--out", "model", *SET)
    tensors = tmp_path / "model" / "model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(bytes(content))
    result = tsllm("predict", "model")
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1 and "not as it was written" in result.err


def test_model_of_another_frequency(tsllm, series, tmp_path):
    tsllm("fit", "series.csv", "--horizon", 2, "--out", "model", *SET)
    result = tsllm("predict", "model", "airline")
    assert result.code == 2 and "of frequency D and y has MS" in result.err
    (tmp_path / "steps.csv").write_text(
        "time,y\n" + "".join(f"{i},{i % 3}\n" for i in range(30)), encoding="utf-8"
    )
    result = tsllm("predict", "model", "steps.csv")
    assert result.code == 2 and "of frequency D" in result.err


def _trains(command):
    """Return True if a command has the option --set."""
    return command.split()[0] in ("forecast", "fit", "backtest")
