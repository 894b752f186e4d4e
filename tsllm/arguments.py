"""Arguments: checked against type hints and limits, and documented where they are shared.

A constructor keeps what it is given, as scikit-learn and sktime require; `fit` and the commands
check it here, with one table of limits for each family of estimators.
"""

import inspect
import math
import numbers
import re
import reprlib
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tsllm.errors import DataError, DataTypeError

ClassT = TypeVar("ClassT", bound=type)
#: Most quantile levels of a call.
MAX_LEVELS = 1_000
#: Names that the command line, other libraries or a reader have for arguments.
_OTHER_NAMES = {
    "text": "text_covariates",
    "texts": "text_covariates",
    "epochs": "max_epochs",
    "n_epochs": "max_epochs",
    "steps": "max_steps",
    "lr": "learning_rate",
    "seed": "random_state",
    "random_seed": "random_state",
    "model": "backbone",
    "llm": "backbone",
    "lookback": "context_length",
    "input_size": "context_length",
    "input_chunk_length": "context_length",
    "window": "context_length",
    "h": "prediction_length",
    "horizon": "prediction_length",
    "output_chunk_length": "prediction_length",
    "frequency": "freq",
}
_WORDS = {
    bool: "true or false",
    dict: "a mapping",
    float: "a number",
    int: "a whole number",
    Mapping: "a mapping",
    Path: "a path",
    str: "text",
    types.NoneType: "null",
}
_NUMBERS: dict[type, type] = {float: numbers.Real, int: numbers.Integral}
#: Writes a few values of a nest of lists, which YAML's aliases can make huge.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother, _BRIEF.maxlong = 3, 80, 80, 80
_LIST_WORDS = {float: "a list of numbers", int: "a list of whole numbers", str: "a list of text"}


@dataclass(frozen=True)
class Limits:
    """The numbers that an argument may be, and the texts that stand for a number.

    Examples
    --------
    >>> Limits(1, 10, words=("auto",)).check("layers", "auto")
    >>> Limits(0, 1, whole=False, below=True).check("dropout", 1.5)
    Traceback (most recent call last):
    tsllm.errors.DataError: dropout must be at least 0 and less than 1, found 1.5
    """

    least: float
    most: float = math.inf
    whole: bool = True
    #: Whether the least number itself is not allowed, and whether the most is not.
    above: bool = False
    below: bool = False
    words: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Check a value; the `DataError` names the argument and the value."""
        if isinstance(value, str) and value in self.words:
            return
        kind = numbers.Integral if self.whole else numbers.Real
        # numpy's truth values are no numbers, and Python's are.
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if fits and self._holds(value):
            return
        if self.whole:
            too_much = fits and value > self.most
            wanted = f"at most {self.most:,}" if too_much else self._whole_in_words()
        else:
            wanted = self._real_in_words()
        raise DataError(f"{name} must be {wanted}, found {shown(value)}")

    def _holds(self, value: Any) -> bool:
        """Return whether a number lies within the limits; NaN does not."""
        least = self.least < value if self.above else self.least <= value
        most = value < self.most if self.below or math.isinf(self.most) else value <= self.most
        return bool(least and most)

    def _whole_in_words(self) -> str:
        words = "".join(f" or {word!r}" for word in self.words)
        return f"a whole number of at least {self.least:,}{words}"

    def _real_in_words(self) -> str:
        parts = [f"above {self.least:g}" if self.above else f"at least {self.least:g}"]
        if not math.isinf(self.most):
            parts.append(f"less than {self.most:g}" if self.below else f"at most {self.most:,g}")
        return " and ".join(parts)


def shown(value: object) -> str:
    """Write a value on one line, in at most 80 characters.

    Examples
    --------
    >>> import numpy as np
    >>> shown(np.eye(2))
    'array([[1., 0.], [0., 1.]])'
    """
    try:
        text = " ".join(_BRIEF.repr(value).split())
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


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


def checked_levels(levels: Any, name: str = "quantiles", *, one: bool = False) -> tuple[float, ...]:
    """Return probability levels strictly between 0 and 1, at most `MAX_LEVELS`.

    ``one`` says whether a number stands for a list of one.

    Examples
    --------
    >>> checked_levels([0.1, 0.9], "quantiles")
    (0.1, 0.9)
    >>> checked_levels([90], "coverage")
    Traceback (most recent call last):
    tsllm.errors.DataError: coverage must lie strictly between 0 and 1, found 90: write 0.9 for 90 %
    """
    wanted = "a number between 0 and 1, or a list of them" if one else "a list of numbers"
    if one and wanted_instead(levels, float) is None:
        levels = (levels,)
    if isinstance(levels, str | bytes | Mapping) or not isinstance(levels, Iterable):
        remedy = _level_meant(levels, "{}" if one else "[{}]")
        raise DataError(f"{name} must be {wanted}, found {shown(levels)}{remedy}")
    found = tuple(levels)
    check_level_count(found, name)
    for level in found:
        remedy = _level_meant(level, "{}")
        if wanted_instead(level, float):
            raise DataError(f"{name} must be {wanted}, found {shown(level)} in it{remedy}")
        if not 0 < level < 1:
            raise DataError(
                f"{name} must lie strictly between 0 and 1, found {shown(level)}{remedy}"
            )
    return tuple(float(level) for level in found)


def _level_meant(given: Any, form: str) -> str:
    """Write what to pass for a level that is a percentage or a text; else nothing."""
    if isinstance(given, str):
        try:
            given = float(given.strip().removesuffix("%"))
        except ValueError:
            return ""
    fits = isinstance(given, numbers.Real) and 0 < given < 100  # type: ignore[operator]
    if not fits or given == 1:
        return ""
    if given < 1:
        return f": write {form.format(f'{given:.6g}')}"
    return f": write {form.format(f'{given / 100:.6g}')} for {given:g} %"


def check_level_count(levels: Sequence[float], name: str) -> None:
    """Check that there are at most `MAX_LEVELS` levels."""
    if len(levels) > MAX_LEVELS:
        raise DataError(f"{name} holds {len(levels):,} levels: ask for at most {MAX_LEVELS:,}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Check that an argument is one of some names; the `DataError` lists them."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise DataError(f"{name} must be one of {', '.join(known)}, found {shown(value)}")


def checked_flag(name: str, value: Any) -> bool:
    """Return an argument that must be true or false."""
    if wanted_instead(value, bool):
        raise DataError(f"{name} must be true or false, found {shown(value)}")
    return bool(value)


def check_arguments(
    cls: type,
    known: Sequence[str],
    parameters: Mapping[str, Any],
    limits: Mapping[str, Limits] | None = None,
) -> None:
    """Check arguments of a constructor against its type hints and against limits by name."""
    hints = _hints_of(cls.__init__)  # type: ignore[misc]  # sound: only hints are read
    for name, value in parameters.items():
        check_known(cls, name, known)
        _check_argument(name, value, hints.get(name, Any), limits)


def check_known(cls: type, name: str, known: Sequence[str]) -> None:
    """Check that a constructor has an argument of some name; the error has a remedy."""
    if name not in known:
        raise DataTypeError(f"{cls.__name__} has no parameter {name!r}: {_remedy(name, known)}")


def check_names(cls: ClassT) -> ClassT:
    """Make the constructor of a class check the names of its arguments with `check_known`."""
    construct = cls.__init__  # type: ignore[misc]  # sound: it is called with a new instance
    parameters = inspect.signature(construct).parameters
    known = sorted(parameters.keys() - {"self"})  # as get_param_names gives them
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return cls

    @wraps(construct)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            check_known(type(self), name, known)
        construct(self, *args, **kwargs)

    # sktime's own checks read the arguments with inspect.getfullargspec, which does not follow
    # __wrapped__.
    checked.__signature__ = inspect.signature(construct)  # type: ignore[attr-defined]
    cls.__init__ = checked  # type: ignore[misc]
    return cls


def _remedy(name: str, known: Sequence[str]) -> str:
    """Say what to do about an argument that a constructor does not have."""
    if name == "backbone":  # text_backbone, the nearest name, reads something else
        return "it reads numbers without a language model, so leave it out"
    meant = _OTHER_NAMES.get(name)
    near = [meant] if meant in known else get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"


def check_call(
    function: Callable[..., Any], given: Mapping[str, Any], limits: Mapping[str, Limits]
) -> None:
    """Check the arguments of a call against the function's type hints and against limits by name.

    ``given`` are its ``locals()`` at the start. Limits hold for the numbers of a list, too.
    """
    hints = _hints_of(function)
    for name, value in given.items():
        _check_argument(name, value, hints.get(name, Any), limits)


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints of a function's arguments."""
    return get_type_hints(function) | {"verbose": int | bool}  # Python takes True for 1


def _check_argument(name: str, value: Any, hint: Any, limits: Mapping[str, Limits] | None) -> None:
    """Check one argument against its hint and its limits."""
    wanted = wanted_instead(value, hint)
    if wanted:
        one_text = isinstance(value, str) and wanted == _LIST_WORDS[str]
        remedy = f": write {shown([value])}" if one_text else ""
        raise DataError(f"{name} must be {wanted}, found {shown(value)}{remedy}")
    limit = limits.get(name) if limits else None
    if limit is None:
        return
    if isinstance(value, str | numbers.Real):
        # False has no limits: a hint that allows it gives it a meaning of its own.
        if value is not False:
            takes_text = wanted_instead("", hint) is None
            (limit if takes_text else replace(limit, words=())).check(name, value)
    elif _is_list(value):
        for one in value:
            limit.check(name, one)


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


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of one kind."""
    if kind is Any:
        return True
    origin = get_origin(kind) or kind
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return False
        kinds = get_args(kind)
        if origin is tuple and len(kinds) > 1 and kinds[-1] is not Ellipsis:  # of a fixed length
            return len(value) == len(kinds) and all(map(_fits, value, kinds))
        return all(_fits(one, kinds[0]) for one in value)
    if origin is Sequence:
        return _is_list(value) and all(_fits(one, get_args(kind)[0]) for one in value)
    if origin in _NUMBERS:
        # True is a whole number to Python, and never meant as one.
        return isinstance(value, _NUMBERS[origin]) and not isinstance(value, bool)
    if origin is bool:
        # numpy is not imported for this: the command line's help needs no numpy
        named = (type(value).__module__, type(value).__name__)
        return isinstance(value, bool) or named in (("numpy", "bool"), ("numpy", "bool_"))
    return isinstance(value, origin)


def _is_list(value: Any) -> bool:
    """Return whether a value is a list, or an array or index of one dimension."""
    if isinstance(value, list | tuple | range):
        return True
    return hasattr(value, "__array__") and getattr(value, "ndim", 0) == 1


def _in_words(kind: Any) -> str:
    """Name a kind for people."""
    origin = get_origin(kind) or kind
    if origin in (list, tuple, Sequence):
        return _LIST_WORDS.get(get_args(kind)[0], "a list")
    return _WORDS.get(origin, f"a {getattr(origin, '__name__', origin)}")
