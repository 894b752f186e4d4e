"""Reports as text and as JSON: formatted figures, plain values, Markdown from templates."""

import math
from typing import Any

import numpy as np
import pandas as pd


def plain(value: Any) -> Any:
    """Convert a value to one that JSON knows; NaN and infinities become None."""
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
    """Convert a table to records of plain values; see `plain`."""
    return [plain(row) for row in frame.to_dict("records")]


def shown(value: Any) -> str:
    """Format a cell of a table: four digits of a number, nothing for None and NaN."""
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return ""
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
    return "" if value is None else str(value)


def bounds(value: Any, lower: Any, upper: Any, *, percent: bool = False) -> str:
    """Format a difference and its interval, ``+1.5 % [-0.2, +3.2]``."""
    if value is None or math.isnan(value):
        return ""
    factor, digits, unit = (100, 1, " %") if percent else (1, 4, "")
    text = f"{factor * value:+.{digits}f}{unit}"
    if lower is None or math.isnan(lower):
        return text
    return f"{text} [{factor * lower:+.{digits}f}, {factor * upper:+.{digits}f}]"


def cost(value: Any) -> str:
    """Format a count, a time or a size."""
    if value is None or math.isnan(value):
        return ""
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table_parts(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of a table and its cells as text, for the macro ``table``."""
    cells = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
    return {"columns": list(frame.columns), "rows": cells}


def render(template: str, **values: Any) -> str:
    """Render a Markdown page from a template of ``tsllm/evaluation/templates``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("tsllm.evaluation"), undefined=StrictUndefined)
    return environment.get_template(template).render(values)
