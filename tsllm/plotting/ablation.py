"""Plots of ablations: the difference of each variant from the judged one, with intervals."""

from typing import Any

import numpy as np
import pandas as pd

from tsllm.plotting.style import axes_or_new, legend_below, line_style


def plot_differences(rows: pd.DataFrame, *, xlabel: str, least: float, ax: Any = None) -> Any:
    """Draw differences and their intervals, variant by variant.

    ``rows`` has ``label`` (the variant), ``group``, ``value``, ``lower`` and ``upper``; NaN bounds
    mean no interval. The last group is drawn in black, ``least`` is drawn as a grey band.
    """
    labels, groups = list(rows["label"].unique()), list(rows["group"].unique())
    ax = axes_or_new(ax, 1.5 + 0.5 * len(labels))
    ax.axvspan(-least, least, color="0.88", lw=0)
    ax.axvline(0, color="0.4", lw=0.8)
    left, right = _limits(rows, least)
    offsets = np.linspace(-0.28, 0.28, len(groups)) if len(groups) > 1 else [0.0]
    for number, (group, offset) in enumerate(zip(groups, offsets)):
        own = rows[rows["group"] == group]
        value = own["value"].to_numpy()
        low, high = (own[bound].fillna(own["value"]).to_numpy() for bound in ("lower", "upper"))
        where = own["label"].map(labels.index).to_numpy() + offset
        last = group == groups[-1]
        style = line_style(number)
        color = "black" if last else style["color"]
        # A hollow point is told from a full one, and a square from a circle, without colour.
        fill = color if last else "white"
        width = 2.0 if last else 1.2
        ax.plot(
            value, where, "D" if last else style["marker"], ms=6, color=color, mfc=fill, mew=1.3,
            label=group, zorder=4,
        )  # fmt: skip
        shown = np.clip(low, left, right), np.clip(high, left, right)
        ax.hlines(where, *shown, color=color, lw=width, zorder=3)
        # An interval that goes on beyond the picture ends in an arrow.
        for edge, cut, marker in ((left, low < left, "<"), (right, high > right, ">")):
            if not cut.any():  # an empty line with clip_on=False takes room below the axes
                continue
            ax.plot(
                np.full(int(cut.sum()), edge), where[cut], marker, color=color, ms=7,
                clip_on=False, zorder=5,
            )  # fmt: skip
    ax.set_xlim(left, right)
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    legend_below(ax)
    return ax


def _limits(rows: pd.DataFrame, least: float) -> tuple[float, float]:
    """Return the limits of the axis: of all values, and of intervals that are not very wide."""
    value = rows["value"]
    low, high = float(value.min()), float(value.max())
    lowest = float(rows["lower"].fillna(value).min())
    highest = float(rows["upper"].fillna(value).max())
    low, high = min(low, -least), max(high, least)
    spread = max(high - low, 1e-9)
    left, right = max(low - spread, lowest), min(high + spread, highest)
    edge = 0.05 * (max(right, high) - min(left, low))
    return min(left, low) - edge, max(right, high) + edge
