"""Plots of ablations: the difference of each variant from the judged one, with intervals."""

from typing import Any

import numpy as np
import pandas as pd

from tsllm.plotting.forecasts import axes_or_new


def plot_differences(rows: pd.DataFrame, *, xlabel: str, least: float, ax: Any = None) -> Any:
    """Draw differences and their intervals, variant by variant.

    ``rows`` has ``label`` (the variant), ``group``, ``value``, ``lower`` and ``upper``; NaN bounds
    mean no interval. The last group is drawn in black, ``least`` is drawn as a grey band.
    """
    labels, groups = list(rows["label"].unique()), list(rows["group"].unique())
    ax = axes_or_new(ax, (8.0, 1.2 + 0.45 * len(labels)))
    ax.axvspan(-least, least, color="0.9", lw=0)
    ax.axvline(0, color="0.5", lw=0.8)
    offsets = np.linspace(-0.28, 0.28, len(groups)) if len(groups) > 1 else [0.0]
    for number, (group, offset) in enumerate(zip(groups, offsets)):
        own = rows[rows["group"] == group]
        value = own["value"].to_numpy()
        low = np.nan_to_num(value - own["lower"].to_numpy())
        high = np.nan_to_num(own["upper"].to_numpy() - value)
        last = group == groups[-1]
        ax.errorbar(
            value,
            own["label"].map(labels.index).to_numpy() + offset,
            xerr=[low, high],
            fmt="D" if last else "o",
            ms=5 if last else 4,
            lw=2 if last else 1,
            color="black" if last else f"C{number}",
            label=group,
        )
    ax.set_xlim(*_limits(rows, least))
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    if len(groups) > 1:
        ax.legend(frameon=False, loc="best")
    return ax


def _limits(rows: pd.DataFrame, least: float) -> tuple[float, float]:
    """Return the limits of the axis; very wide intervals are cut off."""
    value = rows["value"]
    low, high = float(value.min()), float(value.max())
    lowest = float(rows["lower"].fillna(value).min())
    highest = float(rows["upper"].fillna(value).max())
    spread = max(high - low, 3 * least, 1e-9)
    return max(low - spread, lowest - 0.05 * spread), min(high + spread, highest + 0.05 * spread)
