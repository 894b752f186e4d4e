"""The public names of the package: complete, quick to import, and known to type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tsllm
import tsllm.adapters
import tsllm.errors

PACKAGES = {
    *("adapters", "backbone", "batch", "datasets", "embeddings", "errors", "evaluation", "events"),
    *("forecasters", "metrics", "mlflow", "plotting", "reports"),
}


def test_tab_completion_shows_what_a_user_needs_and_nothing_else():
    assert set(dir(tsllm)) == {*tsllm.__all__, *PACKAGES, "__version__"}
    for name in dir(tsllm):
        if name == "mlflow":
            pytest.importorskip("mlflow")
        assert getattr(tsllm, name) is not None


def test_every_package_comes_by_attribute_after_a_plain_import():
    pytest.importorskip("mlflow")  # an extra
    code = "import tsllm\nprint(*(getattr(tsllm, name).__name__ for name in tsllm._PACKAGES))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"tsllm.{name}" for name in sorted(PACKAGES)]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Foretell'"):
        tsllm.Foretell  # noqa: B018


@pytest.mark.parametrize(
    ("package", "inner"),
    [
        (tsllm, PACKAGES),
        (tsllm.adapters, set()),
        (tsllm.events, set()),
        (tsllm.forecasters, set()),
    ],
)
def test_type_checkers_see_the_same_names(package, inner):
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    for node in imports:
        for one in node.names:
            assert one.asname == one.name in dir(package)
            if node.module != "tsllm":
                __import__(node.module)
                assert getattr(sys.modules[node.module], one.name) is getattr(package, one.name)
    assert {one.name for node in imports for one in node.names} == {*package.__all__, *inner}


def test_nothing_is_imported_before_it_is_used():
    code = "import sys, tsllm; print([m for m in sys.modules if m.startswith('tsllm.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_errors_are_listed():
    defined = {
        name
        for name, member in vars(tsllm.errors).items()
        if isinstance(member, type) and issubclass(member, Exception)
    }
    assert set(tsllm.errors.__all__) == defined
