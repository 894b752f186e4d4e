"""Covariates and resampling on the command line: the figures are the library's."""

import json

import pandas as pd
import pytest
from command_line import SET, SETTINGS
from covariate_frames import covariate_frames

import tsllm as library
from tsllm.tables.forecast import make_forecaster

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
NAMES = ["--covariates", "warm,sky"]


@pytest.fixture
def files(tmp_path):
    data, future = covariate_frames()
    data.to_csv(tmp_path / "data.csv", index=False)
    future.drop(columns="value").to_csv(tmp_path / "future.csv", index=False)
    return data, future


def test_forecast_with_a_known_future(tsllm, files):
    result = tsllm("forecast", "data.csv", "--horizon", 4, *NAMES, "--future", "future.csv", *SET)
    assert result.code == 0
    expected = library.forecast(
        files[0], 4, covariates=["warm", "sky"], future=files[1], **SETTINGS
    )
    assert result.table["forecast"].to_numpy() == pytest.approx(expected["forecast"].to_numpy())


def test_fit_remembers_the_covariates_and_predict_asks_for_them(tsllm, files, tmp_path):
    done = tsllm("fit", "data.csv", "--out", "model", "--horizon", 4, *NAMES, *SET)
    assert done.code == 0
    assert "covariates:\n- warm\n- sky\n" in (tmp_path / "model" / "job.yaml").read_text()
    known = ["--horizon", 4, "--future", "future.csv"]
    from_data = tsllm("predict", "model", "data.csv", *known)
    stored = tsllm("predict", "model", *known)
    assert from_data.code == stored.code == 0
    assert from_data.table["forecast"].to_numpy() == pytest.approx(
        stored.table["forecast"].to_numpy()
    )
    assert (
        "the future of the covariates warm, sky is missing"
        in tsllm("predict", "model", "data.csv").err
    )
    assert "there is no such file" in tsllm("predict", "model", "--future", "none.csv").err


def test_predict_knows_the_columns_of_the_fit(tsllm, files, tmp_path):
    own = {"series_id": "shop", "timestamp": "dt", "value": "units"}
    data, future = (frame.rename(columns=own) for frame in files)
    data.to_parquet("own.parquet", index=False)
    future.drop(columns="units").to_parquet("ahead.parquet", index=False)
    named = ["--id-col", "shop", "--time-col", "dt", "--target-col", "units", "--method", "linear"]
    assert tsllm("fit", "own.parquet", "--out", "model", "--horizon", 4, *NAMES, *named).code == 0
    known = ["--future", "ahead.parquet", "--quantiles", "none"]
    stored = tsllm("predict", "model", *known)
    assert stored.table.columns.tolist() == ["shop", "dt", "forecast"]
    pd.testing.assert_frame_equal(
        tsllm("predict", "model", "own.parquet", *known).table, stored.table
    )
    assert tsllm("predict", "model", "own.parquet", *known, "--out", "parts").code == 0
    parts = pd.read_parquet("parts")
    assert parts.columns.tolist() == stored.table.columns.tolist()
    assert parts["forecast"].to_numpy() == pytest.approx(stored.table["forecast"].to_numpy())


def test_a_missing_future_is_said_before_the_training(tsllm, files):
    told = "the future of the covariates warm, sky is missing: give it"
    refused = tsllm("forecast", "data.csv", "--horizon", 4, *NAMES, *SET)
    assert refused.code == 2
    assert told in refused.err
    assert "fitted autotimes" not in refused.err
    done = tsllm("fit", "data.csv", "--out", "model", "--horizon", 4, *NAMES, *SET)
    before, _, _ = done.err.partition("fitted autotimes")
    assert "predictions of the model will need the future of warm, sky" in before
    # Before DATA is looked at, too.
    assert told in tsllm("predict", "model", "none.csv").err
    past = ["--past-covariates", "warm,sky", "--overwrite"]
    quiet = tsllm("fit", "data.csv", "--out", "model", "--horizon", 4, *past, *SET)
    assert quiet.code == 0
    assert "will ask" not in quiet.err


def test_past_covariates_and_config(tsllm, files, tmp_path):
    given = ["--covariates", "warm", "--past-covariates", "sky"]
    result = tsllm("forecast", "data.csv", "--horizon", 3, *given, "--future", "future.csv", *SET)
    assert result.code == 0
    (tmp_path / "job.yaml").write_text(
        "covariates: [warm]\npast_covariates: [sky]\nfuture: future.csv\n"
    )
    again = tsllm("forecast", "data.csv", "--horizon", 3, "--config", "job.yaml", *SET)
    assert again.out == result.out
    refused = tsllm("forecast", "data.csv", "--horizon", 3, "--set", "past_covariates=[sky]")
    assert refused.code == 2
    assert "give it with --past-covariates" in refused.err


def test_backtest_with_and_without(tsllm, files):
    options = ["--horizons", 3, "--test-size", 8, "--baselines", "none"]
    result = tsllm("backtest", "data.csv", *options, *NAMES, "--json", *SET)
    data, _ = files
    expected = library.backtest(
        {"autotimes": make_forecaster(**SETTINGS)},
        data[["series_id", "timestamp", "value"]],
        X=data[["series_id", "timestamp", "warm", "sky"]],
        horizons=3,
        test_size=8,
        baselines=[],
    )
    rows, wanted = result.json["table"], json.loads(expected.to_json())["table"]
    assert [row["method"] for row in rows] == ["autotimes", "autotimes, no X"]
    assert [row["mae"] for row in rows] == [row["mae"] for row in wanted]


def test_irregular_times_are_resampled_where_it_is_asked_for(tsllm, tmp_path):
    data, _ = covariate_frames()
    data = data[["series_id", "timestamp", "value"]]
    late = data.assign(timestamp=data["timestamp"] + pd.to_timedelta(data.index % 7, unit="min"))
    late.to_csv(tmp_path / "late.csv", index=False)
    assert tsllm("forecast", "late.csv", "--horizon", 2, *SET).code == 2
    bring = ["--resample", "mean", "--freq", "D"]
    result = tsllm("forecast", "late.csv", "--horizon", 2, *bring, *SET)
    expected = library.forecast(data, 2, freq="D", **SETTINGS)
    assert result.table["forecast"].to_numpy() == pytest.approx(expected["forecast"].to_numpy())
    assert tsllm("fit", "late.csv", "--out", "model", "--horizon", 2, *bring, *SET).code == 0
    again = tsllm("predict", "model", "late.csv", *bring)
    assert again.out == result.out
    assert (
        "--resample has no effect on a job in blocks"
        in tsllm("predict", "model", "late.csv", "--resample", "mean", "-o", "folder").err
    )


def test_gaps_are_filled_column_by_column(tsllm, files, tmp_path):
    files[0].drop(index=[5, 6]).to_csv(tmp_path / "holed.csv", index=False)
    asked = ["forecast", "holed.csv", "--horizon", 2, "--method", "linear", "--covariates", "warm"]
    asked += ["--future", "future.csv", "--target-col", "value"]
    (tmp_path / "job.yaml").write_text("fill:\n  value: zero\n  warm: interpolate\n")
    option = tsllm(*asked, "--fill", "value=zero,warm=interpolate")
    assert option.code == 0
    assert tsllm(*asked, "--config", "job.yaml").out == option.out
    assert "fill={'value': 'half'} is not known" in tsllm(*asked, "--fill", "value=half").err
    assert "--fill must be one word such as zero, or" in tsllm(*asked, "--fill", "=zero").err
    assert "names the column 'value' twice" in tsllm(*asked, "--fill", "value=zero,value=nan").err
    assert "both in covariates=" in tsllm(*asked, "--text", "warm", "--fill", "nan").err
