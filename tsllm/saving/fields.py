"""The fields of dataclasses in saved models, checked against their type hints."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from tsllm.arguments import wanted_instead
from tsllm.errors import ModelFormatError

T = TypeVar("T")


def read_fields(cls: type[T], saved: Mapping[str, Any]) -> T:
    """Build a dataclass from saved fields.

    Parameters
    ----------
    cls : type
        The dataclass.
    saved : mapping of str to object
        Values by the names of the fields. Fields with a default may be missing.

    Raises
    ------
    ModelFormatError
        A field is unknown, missing, or of another type than its hint.

    Examples
    --------
    >>> from tsllm.datasets.events.table import EventColumns
    >>> read_fields(EventColumns, {"id_col": "user"}).id_col
    'user'
    >>> read_fields(EventColumns, {"id_col": 3})
    Traceback (most recent call last):
        ...
    tsllm.errors.ModelFormatError: the saved model's 'id_col' must be text, found 3
    """
    check_fields(cls, saved)
    try:
        return cls(**saved)
    except TypeError as error:
        raise ModelFormatError(f"the saved model lacks fields of its {cls.__name__}") from error


def check_fields(cls: type, saved: Mapping[str, Any]) -> None:
    """Check that saved values are fields of a dataclass, each of the type of its hint."""
    if not isinstance(saved, Mapping):
        raise ModelFormatError(f"the saved model's {cls.__name__} has no fields")
    names = {field.name for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    for name, value in saved.items():
        if name not in names:
            raise ModelFormatError(
                f"the saved model has the field {name!r}, which {cls.__name__} does not know: load "
                "it with the version of tsllm that saved it"
            )
        wanted = wanted_instead(value, hints[name])
        if wanted:
            raise ModelFormatError(
                f"the saved model's {name!r} must be {wanted}, found {repr(value)[:200]}"
            )
