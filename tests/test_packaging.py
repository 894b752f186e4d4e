"""The wheel holds the whole package and nothing that shadows other people's."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"tsllm": "tsllm", "adapters": "tsllm/adapters", "datasets": "tsllm/datasets"}
FOLDERS["cli"] = "tsllm/cli"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A clean environment with the wheel; its Python, and where the packages are."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        source,
        "-w",
        work,
    )
    (wheel,) = work.glob("*.whl")
    venv.create(work / "env", with_pip=False)
    python = work / "env" / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel)
    site = next((work / "env").glob("lib/python*/site-packages"))
    # The dependencies come from this environment, after the wheel's own packages.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python, site


def test_only_tsllm_is_installed(installed):
    _, site = installed
    assert {p.name for p in site.iterdir() if p.is_dir() and not p.name.endswith(".dist-info")} == {
        "tsllm"
    }


def test_every_module_and_data_file_is_there(installed):
    _, site = installed
    for folder, target in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert (site / target / file.relative_to(ROOT / folder)).is_file(), file


def test_the_installed_package_works(installed):
    python, site = installed
    code = (
        "import tsllm, tsllm.cli.main, tsllm.evaluation, tsllm.saving.api;"
        "from tsllm.datasets import load_dataset;"
        "print(tsllm.__file__, len(load_dataset('usgs_earthquakes')))"
    )
    where, events = _run(python, "-c", code).split()
    assert Path(where).is_relative_to(site)
    assert events == "8826"
    assert "forecast" in _run(python.parent / "tsllm", "--help")


@pytest.mark.parametrize("folder", ["adapters", "datasets", "cli"])
def test_the_bare_folders_refuse_to_be_imported(folder):
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {folder}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    assert run.returncode == 1
    assert f"imported as 'tsllm.{folder}'" in run.stderr


@pytest.mark.parametrize(
    "module",
    [
        "tsllm.backbone",
        "tsllm.embeddings",
        "tsllm.training.windows",
        "tsllm.training.loop",
        "tsllm.adapters.autotimes",
        "tsllm.adapters.losses",
        "tsllm.adapters",
        "tsllm.adapters.baselines",
        "tsllm.adapters.events.prompttpp",
    ],
)
def test_lean_machines_can_import_the_torch_parts(module):
    heavy = ("sktime", "mlflow", "ray", "lmdb", "typer")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); import {module};"
        f"print([m for m in {heavy!r} if sys.modules[m] is not None])"
    )
    assert _run(sys.executable, "-c", code).strip().endswith("[]")


def _run(*command):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONSAFEPATH": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
