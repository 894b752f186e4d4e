"""A picture of an ablation: how each arm differs from the pretrained one, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tsllm.evaluation.report import ALL_HORIZONS
from tsllm.plotting import _new_axes

if TYPE_CHECKING:
    from tsllm.evaluation.ablation_report import AblationReport


def plot_ablation(report: AblationReport, *, ax: Any = None) -> Any:
    """Draw each arm's difference from the pretrained arm and its interval, by horizon.

    To the right of 0 an arm is worse than the pretrained model; within the grey band no difference
    matters. Shuffled contexts are not drawn: what they cost is of another size.

    Parameters
    ----------
    report : AblationReport
    ax : matplotlib Axes, optional
        None makes a new figure.

    Returns
    -------
    matplotlib Axes
    """
    pairs = report.differences[~report.differences["method_a"].str.contains("shuffled")]
    labels = {
        (one, other): one if other == "pretrained" else f"{one}\n(vs {other})"
        for one, other in zip(pairs["method_a"], pairs["method_b"])
    }
    horizons = list(pairs["horizon"].unique())
    ax = ax if ax is not None else _new_axes((8.0, 1.2 + 0.45 * len(labels)))
    least = 100 * report.settings["min_difference"]
    ax.axvspan(-least, least, color="0.9", lw=0)
    ax.axvline(0, color="0.5", lw=0.8)
    offsets = np.linspace(-0.28, 0.28, len(horizons)) if len(horizons) > 1 else [0.0]
    for number, (horizon, offset) in enumerate(zip(horizons, offsets)):
        rows = pairs[pairs["horizon"] == horizon].set_index(["method_a", "method_b"])
        rows = 100 * rows.loc[list(labels), ["relative", "relative_lower", "relative_upper"]]
        value = rows["relative"].to_numpy()
        # without an interval only the point is drawn
        low = np.nan_to_num(value - rows["relative_lower"].to_numpy())
        high = np.nan_to_num(rows["relative_upper"].to_numpy() - value)
        every = horizon == ALL_HORIZONS
        ax.errorbar(
            value,
            np.arange(len(labels)) + offset,
            xerr=[low, high],
            fmt="D" if every else "o",
            ms=5 if every else 4,
            lw=2 if every else 1,
            color="black" if every else f"C{number}",
            label="all horizons" if every else f"{horizon} steps",
        )
    ax.set_yticks(np.arange(len(labels)), list(labels.values()))
    ax.invert_yaxis()
    metric = report.settings["metric"]
    ax.set_xlabel(f"{metric}: % more than the pretrained model's")
    if len(horizons) > 1:
        ax.legend(frameon=False, loc="best")
    return ax
