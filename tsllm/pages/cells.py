"""Cells of HTML tables: values as text that people read, and as keys to sort by."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

#: A figure that was formatted already: "+1.5 % [-0.2, +3.2]", "1,234".
_FIGURE = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: %)?(?: \[[^\]]*\])?")


class Cell(NamedTuple):
    """A cell: its text, and the number that it is sorted by; None sorts by the text."""

    text: str
    key: float | None = None


def cell(value: Any) -> Cell:
    """Return the cell of a value: numbers with four digits, times without an idle midnight.

    Examples
    --------
    >>> [cell(value).text for value in (1234567.8, 0.123456, 12, True, None, float("nan"))]
    ['1,234,568', '0.1235', '12', 'yes', '', '']
    >>> cell(pd.Timestamp("2024-03-01")).text, cell([1, 2]).text, cell("+1.5 % [-1.0, +4.0]").key
    ('2024-03-01', '1, 2', 1.5)
    """
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no")
    if isinstance(value, int | np.integer):
        return Cell(f"{value:,}", float(value))
    if isinstance(value, float | np.floating):
        return Cell("", None) if math.isnan(value) else Cell(number(float(value)), float(value))
    if value is None or value is pd.NaT or value is pd.NA:
        return Cell("")
    if isinstance(value, pd.Timestamp):
        return Cell(moment(value))
    if isinstance(value, Mapping):
        return Cell(", ".join(f"{name}: {cell(one).text}" for name, one in value.items()))
    if isinstance(value, list | tuple | set):
        return Cell(", ".join(cell(one).text for one in value))
    text = str(value)
    figure = _FIGURE.fullmatch(text)
    return Cell(text, float(figure[1].replace(",", "")) if figure else None)


def number(value: float) -> str:
    """Write a number with four digits, and with separators from a thousand on."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    if abs(value) >= 1000 or value.is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


def moment(value: Any) -> str:
    """Write a time; midnight is left out, as in daily data. Numbers and periods are themselves."""
    if not isinstance(value, pd.Timestamp):
        return str(value)
    text = value.isoformat(sep=" ")
    return text.replace(" 00:00:00", "") if value == value.normalize() else text
