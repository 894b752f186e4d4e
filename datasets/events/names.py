"""Names of sequences and types that are whole numbers, written with decimal places or without."""

import warnings

import numpy as np
import pandas as pd

from tsllm.datasets.tables import Table


def whole_name(name: str) -> str:
    """Return the name of a whole number without decimal places; other names as they are.

    Examples
    --------
    >>> whole_name("3.0"), whole_name("3"), whole_name("3.5"), whole_name("v1.0")
    ('3', '3', '3.5', 'v1.0')
    """
    whole, point, rest = name.partition(".")
    digits = whole.removeprefix("-")
    if point and digits.isascii() and digits.isdigit() and rest and not rest.strip("0"):
        return whole
    return name


def as_whole_numbers(names: np.ndarray, table: Table, column: str, noun: str) -> np.ndarray:
    """Write the names of whole numbers without decimal places, and warn of it.

    pandas writes whole numbers as 0.0 where the column once had a missing value. Names such as 1.0
    and 1.1 are versions: they stay.
    """
    known = pd.unique(names).tolist()
    changed = {name: whole_name(name) for name in known if whole_name(name) != name}
    if not changed or not all(name in changed or _is_whole(name) for name in known):
        return names
    first = next(iter(changed))
    warnings.warn(
        f"column {column!r} of {table.source} holds whole numbers with decimal places: {first} is "
        f"read as the {noun} {changed[first]!r}, the same as {changed[first]}",
        UserWarning,
        stacklevel=4,
    )
    return np.array([changed.get(name, name) for name in names], dtype=object)


def _is_whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()
