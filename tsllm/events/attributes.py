"""The attributes that fitting sets, checked where a saved forecaster brings them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tsllm.arguments import wanted_instead
from tsllm.errors import ModelFormatError


class Attribute(NamedTuple):
    """What an attribute may be."""

    hint: Any
    #: The number of dimensions of an array, each as long as there are types; None: any shape.
    by_type: int | None = None
    #: Whether a number may be NaN or infinite.
    finite: bool = True
    #: The least number.
    least: float = -np.inf
    #: Whether every fitted forecaster has it.
    needed: bool = True


#: Of every forecaster of events.
COMMON: Mapping[str, Attribute] = {
    "classes_": Attribute(np.ndarray, by_type=1),
    "time_scale_": Attribute(float, least=np.finfo(float).tiny),
    "resolution_": Attribute(float, least=0.0),
    "n_events_": Attribute(int, least=0),
    "mean_inter_event_time_": Attribute(float, least=0.0),
    "median_inter_event_time_": Attribute(float, least=0.0),
    "type_counts_": Attribute(np.ndarray, by_type=1, least=0),
    "transition_counts_": Attribute(np.ndarray, by_type=2, least=0),
}


def check_attributes(found: Mapping[str, Any], known: Mapping[str, Attribute]) -> None:
    """Check the attributes of a saved forecaster.

    Raises
    ------
    ModelFormatError
        One that fitting does not set, or of another kind, shape or range, or one is missing.
    """
    for name in found:
        if name not in known:
            raise ModelFormatError(f"the saved model has the attribute {name!r}, which is none")
    n_types = np.size(found.get("classes_", ()))
    for name, attribute in known.items():
        if name not in found:
            if attribute.needed:
                raise ModelFormatError(f"the saved model lacks the attribute {name!r}")
            continue
        problem = _problem(found[name], attribute, n_types)
        if problem:
            raise ModelFormatError(f"the saved model's attribute {name!r} {problem}")


def _problem(value: Any, attribute: Attribute, n_types: int) -> str | None:
    """Return what is wrong with a value, or None."""
    wanted = wanted_instead(value, attribute.hint)
    if wanted:
        return f"must be {wanted}, found {repr(value)[:200]}"
    if attribute.by_type is not None and value.shape != (n_types,) * attribute.by_type:
        return f"has the shape {value.shape}, and there are {n_types} types"
    if attribute is COMMON["classes_"]:
        texts = all(isinstance(name, str) for name in value)
        return None if texts and len(set(value)) == n_types else "has names that are none"
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or isinstance(value, str):
        return None
    if attribute.finite and not np.isfinite(numbers).all():
        return "is NaN or infinite, so that every forecast would be NaN"
    return "is negative or too small" if (numbers < attribute.least).any() else None
