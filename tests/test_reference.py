"""The reference of the site: the defaults that it shows are those of the signatures."""

import importlib
import inspect
from pathlib import Path

import pytest

griffe = pytest.importorskip("griffe", reason="needs tsllm[docs]: make test installs it")

ROOT = Path(__file__).parents[1]
#: The classes that have the methods of all forecasters.
HOMES = {
    "fit": "base.SeriesForecaster",
    "update": "base.SeriesForecaster",
    "forecast": "forecasting.ForecastingMixin",
}
#: What a page of docs/reference/ may hold.
KINDS = ("parameters", "other parameters")


@pytest.fixture(scope="module")
def package():
    """The package as the site's generator reads it."""
    return griffe.load(
        "tsllm",
        search_paths=[ROOT / "docs"],  # holds no package, so that the installed one is read
        extensions=griffe.load_extensions(str(ROOT / "docs" / "docstrings.py")),
        docstring_parser="numpy",
    )


def shown_parameters(module):
    """Yield (dotted name, parameter) of each documented parameter of public code."""
    for name, member in module.members.items():
        if member.is_alias or (name.startswith("_") and name != "__init__"):
            continue
        if member.docstring:
            for section in member.docstring.parsed:
                if section.kind.value in KINDS:
                    yield from ((member.path, parameter) for parameter in section.value)
        if member.is_module or member.is_class:
            yield from shown_parameters(member)


def found(path):
    """Return the class or function of a dotted name, and the names of its module."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        thing = module
        for part in parts[cut:]:
            thing = inspect.getattr_static(thing, part)
            thing = getattr(thing, "__func__", thing)
        return thing, vars(module)
    raise AssertionError(path)


def test_the_reference_shows_the_default_of_each_parameter(package):
    wrong, checked = [], 0
    for path, parameter in shown_parameters(package):
        thing, names = found(path)
        try:
            own = inspect.signature(thing).parameters.get(parameter.name.lstrip("*"))
        except (TypeError, ValueError):  # a property, or a class without a signature of its own
            continue
        if own is None or own.kind in (own.VAR_POSITIONAL, own.VAR_KEYWORD):
            continue
        checked += 1
        required = own.default is own.empty
        if required != (parameter.value is None) or (
            not required and not same(str(parameter.value), own.default, names)
        ):
            wrong.append(f"{path}({parameter.name}): {parameter.value}, not {own.default!r}")
    assert checked > 700
    assert not wrong, "\n".join(wrong)


def same(written, default, names):
    """Return whether a default is written as Python writes it, or by its public name."""
    try:
        return eval(written, dict(names)) == default or str(default) == "<factory>"
    except (NameError, SyntaxError):
        return written in {repr(default), getattr(default, "__name__", None), str(default)}


@pytest.mark.parametrize("method", ["fit", "predict", "predict_interval", "update", "forecast"])
def test_the_reference_describes_what_each_forecaster_does(package, method):
    home = f"tsllm.forecasters.{HOMES.get(method, 'checked_calls.CheckedCalls')}"
    assert f"::: {home}\n" in (ROOT / "docs" / "reference" / "forecasters.md").read_text()
    described = package[home.removeprefix("tsllm.")][method].docstring
    assert described and "Parameters\n" in described.value
