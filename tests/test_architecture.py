"""The rules of docs/design.md: what each folder may import, no circles, no loose files."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("tsllm", "adapters", "datasets", "cli")
#: Beside the standard library. A longer name allows that module and those in it.
ALLOWED = {
    "adapters": {"torch", "numpy", "tsllm.adapters", "tsllm.backbone"},
    "datasets": {
        *("numpy", "pandas", "pyarrow", "scipy", "pooch", "statsmodels", "sktime.datasets"),
        *("tsllm.datasets", "tsllm.errors"),
    },
}
#: Files of tsllm/ that are in no room; each further one needs a reason in docs/design.md.
LOOSE = {"__init__", "arguments", "context", "errors", "logs", "metrics"}


def module_name(path):
    """Return the dotted name under which a file of the repository is installed."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "tsllm" else ("tsllm", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def imports_of(path):
    """Return every module that a file imports, also inside functions and for type checkers only.

    ``from package import name`` counts as an import of ``package.name`` where that is a module.
    """
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for one in node.names:
                submodule = f"{node.module}.{one.name}"
                modules.add(submodule if submodule in FILES else node.module)
    return modules


IMPORTS = {name: imports_of(path) for name, path in FILES.items()}


def within(module, packages):
    return any(module == one or module.startswith(f"{one}.") for one in packages)


def circles(imports):
    """Return the groups of modules that import each other (Tarjan's algorithm)."""
    order, lowest, stack, found = {}, {}, [], []

    def visit(module):
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in imports[module] & imports.keys() - {module}:
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in imports:
        if module not in order:
            visit(module)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"os"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other():
    assert circles(IMPORTS) == []


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder):
    allowed = ALLOWED[folder] | set(sys.stdlib_module_names)
    foreign = {
        f"{name}: {module}"
        for name, imports in IMPORTS.items()
        if within(name, {f"tsllm.{folder}"})
        for module in imports
        if not within(module, allowed)
    }
    assert not foreign


def test_the_library_does_not_know_the_command():
    for name, imports in IMPORTS.items():
        if not within(name, {"tsllm.cli"}):
            assert not [one for one in imports if within(one, {"tsllm.cli", "typer", "rich"})], name


def test_only_the_backbone_knows_transformers():
    for name, imports in IMPORTS.items():
        if within(name, {"tsllm.backbone", "tsllm.datasets", "tsllm.cli"}):
            continue
        assert not [one for one in imports if within(one, {"transformers"})], name


def test_only_the_saving_room_and_mlflow_know_saved_models():
    for name, imports in IMPORTS.items():
        if within(name, {"tsllm.adapters", "tsllm.forecasters", "tsllm.events", "tsllm.training"}):
            assert not [one for one in imports if within(one, {"tsllm.saving.api"})], name


def test_only_public_names_are_imported():
    """A leading underscore ends at the file: what others need has a public name."""
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and within(node.module, {"tsllm"}):
                private = [one.name for one in node.names if one.name.startswith("_")]
                # MLflow looks `_load_pyfunc` up by this name in the package
                assert set(private) <= {"__version__", "_load_pyfunc"}, f"{name}: {private}"


def test_each_file_is_in_a_room():
    assert {path.stem for path in (ROOT / "tsllm").glob("*.py")} == LOOSE


def test_files_are_of_readable_length():
    """One subject a file; beyond some 700 lines a file has more than one."""
    long = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()
    }
    assert {name: lines for name, lines in long.items() if lines > 750} == {}
