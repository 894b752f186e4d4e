"""How reports write what they found: plain values for JSON, figures and tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def plain(value: Any) -> Any:
    """Turn a value into one that JSON knows; NaN and infinities become None."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    return str(value)


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a table into records of plain values; see `plain`."""
    return [
        {str(column): plain(value) for column, value in row.items()}
        for row in frame.to_dict("records")
    ]


def shown(value: Any) -> str:
    """Write a cell of a table: four digits of a number; nothing for None and NaN."""
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return ""
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
    return "" if value is None else str(value)


def bounds(value: Any, lower: Any, upper: Any, *, percent: bool = False) -> str:
    """Write a difference with its interval; shares in percent."""
    if value is None or math.isnan(value):
        return ""
    factor, digits, unit = (100, 1, " %") if percent else (1, 4, "")
    text = f"{factor * value:+.{digits}f}{unit}"
    if lower is None or math.isnan(lower):
        return text
    return f"{text} [{factor * lower:+.{digits}f}, {factor * upper:+.{digits}f}]"


def cost(value: Any) -> str:
    """Write a cost for people."""
    if value is None or math.isnan(value):
        return ""
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_page(title: str, parts: Sequence[str], notes: Sequence[str]) -> str:
    """Put a report together."""
    return "\n\n".join([f"# {title}", *parts, *(f"Note: {note}." for note in notes)]) + "\n"
