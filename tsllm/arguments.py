"""Constructor arguments: checked against their type hints, and documented where they are shared."""

import inspect
import numbers
import re
import textwrap
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tsllm.errors import DataError

ClassT = TypeVar("ClassT", bound=type)
_WORDS = {
    bool: "true or false",
    dict: "a mapping",
    float: "a number",
    int: "a whole number",
    Path: "a path",
    str: "text",
    types.NoneType: "null",
}
_NUMBERS: dict[type, type] = {float: numbers.Real, int: numbers.Integral}
_LIST_WORDS = {float: "a list of numbers", int: "a list of whole numbers", str: "a list of text"}


def wanted_instead(value: object, hint: Any) -> str | None:
    """Describe the value that was expected, in words.

    The value is as YAML or Python gives it; a list passes for a tuple, a whole number for a number.
    The result is None where the value is what the hint says.

    Examples
    --------
    >>> wanted_instead("fast", float | None)
    'a number or null'
    >>> wanted_instead([0.1, 0.9], tuple[float, ...]) is None
    True
    """
    union = get_origin(hint) in (Union, types.UnionType)
    kinds = get_args(hint) if union else (hint,)
    if any(_fits(value, kind) for kind in kinds):
        return None
    return " or ".join(_in_words(kind) for kind in kinds)


def check_arguments(cls: type, known: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Check settings from a file or a command line against a constructor."""
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]  # sound: only hints are read
    for name, value in parameters.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise DataError(f"{cls.__name__} has no parameter {name!r}: {remedy}")
        wanted = wanted_instead(value, hints[name])
        if wanted:
            raise DataError(f"{name} must be {wanted}, found {value!r}")


def document_parameters(cls: ClassT, shared: Mapping[str, tuple[str, str]]) -> ClassT:
    """Add arguments, shared by name, to the docstring of a class, in the signature's order.

    ``shared`` has the type and the description of each argument.
    """
    head, rule, rest = inspect.cleandoc(cls.__doc__ or "").partition("Parameters\n----------\n")
    own, blank, tail = rest.partition("\n\n")
    entries: dict[str, str] = {}
    for entry in filter(None, re.split(r"\n(?=\S)", own)):
        names, _, _ = entry.partition(" : ")
        entries |= dict.fromkeys(names.split(", "), entry)
    ordered = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in entries and name in shared:
            kind, text = shared[name]
            default = repr(parameter.default).replace("'", '"')
            entries[name] = f"{name} : {kind}, default={default}\n" + textwrap.fill(
                text, 96, initial_indent="    ", subsequent_indent="    "
            )
        ordered.append(entries.get(name))
    if rule:
        section = "\n".join(filter(None, dict.fromkeys(ordered)))
        cls.__doc__ = head + rule + section + blank + tail
    return cls


def _fits(value: object, kind: Any) -> bool:
    """Return whether a value is of one kind."""
    if kind is Any:
        return True
    origin = get_origin(kind) or kind
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(
            _fits(one, get_args(kind)[0]) for one in value
        )
    if origin in _NUMBERS:
        # True is a whole number to Python, and never meant as one.
        return isinstance(value, _NUMBERS[origin]) and not isinstance(value, bool)
    return isinstance(value, origin)


def _in_words(kind: Any) -> str:
    """Name a kind for people."""
    origin = get_origin(kind) or kind
    if origin in (list, tuple):
        return _LIST_WORDS.get(get_args(kind)[0], "a list")
    return _WORDS.get(origin, f"a {getattr(origin, '__name__', origin)}")
