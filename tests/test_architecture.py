"""What each folder may import, as docs/design.md says."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Beside the standard library. A longer name allows that module and those in it.
ALLOWED = {
    "adapters": {"torch", "numpy", "tsllm.adapters", "tsllm.backbone"},
    "datasets": {
        *("numpy", "pandas", "pyarrow", "scipy", "pooch", "statsmodels", "sktime.datasets"),
        *("tsllm.datasets", "tsllm.errors"),
    },
}


def imports_of(path):
    """Give the modules that a file imports, but for those that only type checkers see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


def within(module, packages):
    return any(module == one or module.startswith(f"{one}.") for one in packages)


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder):
    allowed = ALLOWED[folder] | set(sys.stdlib_module_names)
    foreign = {
        f"{path.name}: {module}"
        for path in (ROOT / folder).rglob("*.py")
        for module in imports_of(path)
        if not within(module, allowed)
    }
    assert not foreign


def test_the_library_does_not_know_the_command():
    for path in (ROOT / "tsllm").rglob("*.py"):
        assert not [module for module in imports_of(path) if within(module, {"tsllm.cli", "typer"})]


def test_only_the_backbone_knows_transformers():
    for path in [*(ROOT / "tsllm").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        if path.is_relative_to(ROOT / "tsllm" / "backbone"):
            continue
        assert not [module for module in imports_of(path) if within(module, {"transformers"})], path
