"""``tsllm fit`` and ``predict``: a model that outlives its process, and the job beside it."""

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import yaml
from command_line import SET, TINY

import tsllm as library
from tsllm.backbone.export import export_backbone

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture
def model(tsllm, series):
    """A model of the two series, fitted for three steps."""
    result = tsllm("fit", "series.csv", "--horizon", 3, "--out", "model", *SET)
    assert (result.code, result.out) == (0, "")
    assert "saved the model in model" in result.err
    return "model"


def test_predict_gives_what_forecast_gives(tsllm, model):
    direct = tsllm("forecast", "series.csv", "--horizon", 3, *SET)
    from_data = tsllm("predict", model, "series.csv", "--horizon", 3)
    from_stored = tsllm("predict", model)
    assert direct.out == from_data.out == from_stored.out
    assert "forecast 2 series for 3 steps" in from_data.err


def test_a_single_series_keeps_its_name(tsllm):
    tsllm("fit", "airline", "--horizon", 2, "--out", "model", *SET)
    assert tsllm("predict", "model").table["series_id"].tolist() == ["airline"] * 2


def test_predict_reads_each_series_own_history(tsllm, model, series, tmp_path):
    other = series.assign(
        series_id=series["series_id"] + "x", timestamp=series["timestamp"] + pd.Timedelta(days=365)
    )
    other.to_csv(tmp_path / "other.csv", index=False)
    table = tsllm("predict", model, "other.csv", "--horizon", 3, "--quantiles", ".2,.8").table
    assert list(table) == ["series_id", "timestamp", "forecast", "q0.2", "q0.8"]
    assert table["series_id"].tolist() == ["bx"] * 3 + ["ax"] * 3
    known = tsllm("predict", model, "series.csv").table
    assert table["forecast"].tolist() == known["forecast"].tolist()
    ahead = pd.to_datetime(table["timestamp"]) - pd.Timedelta(days=365)
    assert ahead.astype(str).tolist() == known["timestamp"].tolist()


def test_one_series_of_the_panel_uses_its_own_intervals(tsllm, model, series, tmp_path):
    series[series["series_id"] == "a"].to_csv(tmp_path / "a.csv", index=False)
    alone = tsllm("predict", model, "a.csv").table
    together = tsllm("predict", model).table.iloc[3:].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, together)


def test_a_language_model_may_have_moved(tsllm, series, tmp_path):
    export_backbone(library.load_backbone(TINY, device="cpu"), tmp_path / "words")
    settings = [part.replace(TINY, "words") for part in SET]
    assert tsllm("fit", "series.csv", "--horizon", 3, "--out", "model", *settings).code == 0
    before = tsllm("predict", "model")
    (tmp_path / "words").rename(tmp_path / "moved")
    refused = tsllm("predict", "model")
    assert refused.code == 2 and "--backbone" in refused.err and "words" in refused.err
    assert tsllm("predict", "model", "--backbone", "moved").out == before.out
    series.to_parquet("series.parquet")
    jobs = tsllm("predict", "model", "series.parquet", "--backbone", "moved", "--out", "parts")
    assert jobs.code == 0


def test_batch_size_changes_nothing(tsllm, model):
    small = tsllm("predict", model, "--batch-size", 1, "--engine", "local").table
    pd.testing.assert_frame_equal(small, tsllm("predict", model).table, rtol=1e-6)


def test_variables_are_matched_by_name(tsllm):
    columns = ["--target-col", "cpi", "--target-col", "realgdp"]
    tsllm("fit", "macrodata", *columns, "--horizon", 2, "--out", "model", *SET)
    turned = ["--target-col", "realgdp", "--target-col", "cpi"]
    there = tsllm("predict", "model", "macrodata", *turned)
    assert there.out == tsllm("predict", "model").out
    assert there.out == tsllm("predict", "model", "macrodata").out  # the model knows its variables
    wrong = tsllm("predict", "model", "macrodata", "--target-col", "m1", "--target-col", "cpi")
    assert wrong.code == 2 and "cpi, realgdp" in wrong.err


def test_python_loads_the_model(tsllm, model, tmp_path):
    point = library.load(tmp_path / model).predict(fh=[1, 2, 3])
    assert point["value"].tolist() == tsllm("predict", model).table["forecast"].tolist()


def test_job_beside_the_model_makes_it_again(tsllm, model, tmp_path):
    job = yaml.safe_load((tmp_path / model / "job.yaml").read_text())
    assert job["data"] == "series.csv" and job["horizon"] == 3
    assert job["parameters"] == {"backbone": TINY, "max_steps": 2, "random_state": 0}
    result = tsllm("fit", "--config", "model/job.yaml", "--out", "again")
    assert result.code == 0
    assert tsllm("predict", "again").out == tsllm("predict", model).out
    assert yaml.safe_load((tmp_path / "again" / "job.yaml").read_text()) == job


def test_overwrite_is_asked_for(tsllm, model, tmp_path):
    before = (tmp_path / model / "model.safetensors").read_bytes()
    refused = tsllm("fit", "airline", "--horizon", 1, "--out", model, *SET)
    assert refused.code == 2 and "--overwrite" in refused.err
    assert "fitted" not in refused.err  # refused before the training
    assert (tmp_path / model / "model.safetensors").read_bytes() == before
    replaced = tsllm("fit", "airline", "--horizon", 1, "--out", model, "--overwrite", *SET)
    assert replaced.code == 0
    assert tsllm("predict", model).table["series_id"].tolist() == ["airline"]
    assert yaml.safe_load((tmp_path / model / "job.yaml").read_text())["data"] == "airline"


def test_overwrite_spares_what_is_no_model(tsllm, series, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    result = tsllm("fit", "series.csv", "--out", "mine", "--overwrite", *SET)
    assert result.code == 2 and "fitted" not in result.err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_json(tsllm, series, tmp_path):
    fitted = tsllm("fit", "series.csv", "--horizon", 2, "--out", "m", "--json", *SET).json
    assert fitted["model"] == str(tmp_path / "m")
    assert fitted["summary"]["horizon"] == 2
    predicted = tsllm("predict", "m", "--json", "-o", "out.csv").json
    assert predicted["forecast"] is None and predicted["out"] == "out.csv"
    assert predicted["summary"]["series"] == 2
    assert len(pd.read_csv(tmp_path / "out.csv")) == 4


def test_lora_is_a_setting_like_any_other(tsllm, series, tmp_path):
    lora = "lora={r: 2, alpha: 4, target_modules: [c_attn]}"
    result = tsllm("fit", "series.csv", "--horizon", 2, "--out", "tuned", *SET, "--set", lora)
    assert result.code == 0, result.err
    tensors = safetensors.numpy.load_file(tmp_path / "tuned" / "model.safetensors")
    assert {v.shape[0] for n, v in tensors.items() if "lora_A" in n} == {2}
    assert len(tsllm("predict", "tuned").table) == 4
    refused = tsllm(
        "fit", "series.csv", "--out", "no", "--method", "timecma", "--set", "lora={r: 2}"
    )
    assert refused.code == 2
    assert "its prompts are embedded once and kept" in refused.err


def test_a_fit_that_was_stopped_continues(tsllm, series, tmp_path, monkeypatch):
    fit = ["fit", "series.csv", "--horizon", 3, "--checkpoint", "run", *SET]
    tsllm(*fit, "--out", "whole")
    assert not (tmp_path / "run").exists()  # removed when the model was saved

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device", "model")

    monkeypatch.setattr("tsllm.saving.api.save", fail)
    assert tsllm(*fit, "--out", "model").code == 2
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    other = tsllm(*fit, "--set", "learning_rate=0.5", "--out", "model")
    assert other.code == 2 and "learning_rate" in other.err and "was written with" in other.err
    result = tsllm(*fit, "--out", "model", "--json")
    assert result.code == 0 and not (tmp_path / "run").exists()
    whole, model = (
        safetensors.numpy.load_file(tmp_path / name / "model.safetensors")
        for name in ("whole", "model")
    )
    for name, value in whole.items():
        np.testing.assert_array_equal(model[name], value)
    assert yaml.safe_load((tmp_path / "model" / "job.yaml").read_text())["parameters"]
