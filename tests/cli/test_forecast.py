"""``tsllm forecast``: what it writes where, and that it is what Python gives."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import SET, SETTINGS, TINY
from PIL import Image

import tsllm as library

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def python_forecast(data, horizon, **options):
    return library.forecast(data, horizon, **(SETTINGS | options))


def written(frame):
    """A frame as CSV and back, the way the command line hands it out."""
    return frame.assign(timestamp=frame["timestamp"].astype(str))


def test_stdout_holds_the_table_that_python_gives(tsllm, series):
    result = tsllm("forecast", "series.csv", "--horizon", 4, *SET)
    assert result.code == 0
    expected = written(python_forecast(series, 4))
    assert list(expected) == ["series_id", "timestamp", "forecast", "q0.1", "q0.5", "q0.9"]
    pd.testing.assert_frame_equal(result.table, expected, check_exact=True)
    assert expected["series_id"].tolist() == ["b"] * 4 + ["a"] * 4


def test_summary_line_on_stderr(tsllm, series):
    err = tsllm("forecast", "series.csv", "--horizon", 2, *SET).err
    line = next(line for line in err.splitlines() if line.startswith("fitted"))
    for part in (
        "2 series",
        TINY,
        "random weights",
        "1 layer;",
        "parameters trained",
        "validation",
    ):
        assert part in line


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_files_hold_the_same_table(tsllm, series, tmp_path, ending):
    result = tsllm("forecast", "series.csv", "--horizon", 3, *SET, "-o", f"out.{ending}")
    assert (result.code, result.out) == (0, "")
    assert f"wrote out.{ending}, 6 rows" in result.err
    path = tmp_path / f"out.{ending}"
    if ending == "csv":
        found = pd.read_csv(path, float_precision="round_trip")
    elif ending == "parquet":
        found = written(pd.read_parquet(path))
    else:
        found = pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    pd.testing.assert_frame_equal(found, written(python_forecast(series, 3)), check_exact=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["series.csv", path.name])


def test_json(tsllm, series):
    result = tsllm("forecast", "series.csv", "--horizon", 3, *SET, "--json", "--quantiles", "none")
    document = result.json
    expected = written(python_forecast(series, 3, quantiles=[]))
    pd.testing.assert_frame_equal(pd.DataFrame(document["forecast"]), expected, check_exact=True)
    assert document["summary"]["trained_parameters"] > 0
    assert document["out"] is None and document["plot"] is None


def test_plot_has_lines_and_bands(tsllm, series, tmp_path):
    result = tsllm("forecast", "series.csv", "--horizon", 7, *SET, "-o", "o.csv", "--plot", "p.png")
    assert "wrote p.png" in result.err
    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).reshape(-1, 3)
    colours = {tuple(pixel) for pixel in pixels.tolist()}
    blue = (0, 114, 178)  # the forecast
    band = [c for c in colours if c[2] > c[0] + 15 and 180 < c[0] < 240]  # its pale interval
    assert blue in colours and (0, 0, 0) in colours and band


def test_bundled_name_and_a_file_of_that_name(tsllm, series, tmp_path):
    bundled = tsllm("forecast", "airline", "--horizon", 2, *SET)
    assert bundled.table["series_id"].unique() == ["airline"]
    assert bundled.table["timestamp"].tolist() == ["1961-01-01", "1961-02-01"]
    folder = tmp_path / "airline"
    folder.mkdir()
    series.to_parquet(folder / "part-0.parquet")
    files = tsllm("forecast", "airline", "--horizon", 2, *SET)
    pd.testing.assert_frame_equal(files.table, written(python_forecast(series, 2)))


def test_stdin(tsllm, series):
    result = tsllm("forecast", "-", "--horizon", 2, *SET, stdin=series.to_csv(index=False))
    pd.testing.assert_frame_equal(result.table, written(python_forecast(series, 2)))


@pytest.mark.parametrize("method", ["dlinear", "patchtst"])
def test_two_runs_agree_without_a_seed(tsllm, series, method):
    run = ["forecast", "series.csv", "--horizon", 3, "--method", method, "--set", "max_steps=2"]
    first, second = tsllm(*run), tsllm(*run)
    assert first.code == 0 and first.out == second.out
    assert "random_state 0" in first.err


def test_the_linear_regression_is_a_method_like_the_others(tsllm, series):
    result = tsllm("forecast", "series.csv", "--horizon", 3, "--method", "linear")
    assert result.code == 0, result.err
    assert "fitted linear on 2 series" in result.err
    wanted = written(library.forecast(series, 3, method="linear"))
    pd.testing.assert_frame_equal(result.table, wanted)


def test_python_knows_the_data_sets_too(tsllm):
    table = tsllm("forecast", "airline", "--horizon", 2, *SET).table
    pd.testing.assert_frame_equal(table, written(python_forecast("airline", 2)), check_exact=True)
    both = python_forecast("macrodata", 1, quantiles=[])
    assert both["variable"].nunique() == 12
    with pytest.raises(library.errors.DataError, match="did you mean 'co2'"):
        python_forecast("co3", 1)


def test_several_variables_named_with_target_col(tsllm):
    columns = ["--target-col", "cpi", "--target-col", "realgdp"]
    table = tsllm("forecast", "macrodata", "--horizon", 2, *columns, *SET).table
    assert table["variable"].tolist() == ["cpi", "cpi", "realgdp", "realgdp"]
    whole = tsllm("forecast", "macrodata", "--horizon", 2, "--target-col", "cpi", *SET).table
    assert "variable" not in whole


def test_data_options_reach_the_reader(tsllm, series, tmp_path):
    messy = series.rename(columns={"series_id": "shop", "timestamp": "day"}).drop(index=[5, 6])
    messy.sample(frac=1, random_state=0).to_csv(tmp_path / "messy.csv", index=False)
    options = ["--id-col", "shop", "--time-col", "day", "--target-col", "value", "--freq", "D"]
    options += ["--fill", "interpolate", "--sort"]
    result = tsllm("forecast", "messy.csv", "--horizon", 2, *options, *SET)
    expected = python_forecast(
        tmp_path / "messy.csv",
        2,
        id_col="shop",
        time_col="day",
        target_cols=["value"],
        freq="D",
        fill="interpolate",
        sort=True,
    )
    expected["day"] = expected["day"].astype(str)
    assert expected.columns.tolist()[:3] == ["shop", "day", "forecast"]
    pd.testing.assert_frame_equal(result.table, expected)


def test_steps_without_dates(tsllm, series, tmp_path):
    counted = series[series["series_id"] == "b"].assign(timestamp=range(5, 75))
    counted[["timestamp", "value"]].to_csv(tmp_path / "steps.csv", index=False)
    result = tsllm("forecast", "steps.csv", "--horizon", 2, *SET)
    assert result.table["timestamp"].tolist() == [75, 76]


def test_warning_is_one_line(tsllm, series, tmp_path):
    series.assign(value=1.0).to_csv(tmp_path / "flat.csv", index=False)
    result = tsllm("forecast", "flat.csv", "--horizon", 2, *SET)
    assert result.table["forecast"].tolist() == [1.0] * 4
    warned = [line for line in result.err.splitlines() if line.startswith("Warning: constant")]
    assert len(warned) == 1 and ".py" not in result.err
