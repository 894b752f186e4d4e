"""Plots of explanations: the shares of covariates and texts in a forecast."""

from typing import Any

import numpy as np
import pandas as pd

from tsllm.errors import DataError
from tsllm.plotting.style import (
    area_style,
    axes_or_new,
    drawable,
    label_times,
    legend_below,
    short_numbers,
)


def plot_explanation(
    shares: pd.DataFrame, *, series_id: object = None, variable: object = None, ax: Any = None
) -> Any:
    """Draw the model's own forecast of one series, the shares of its covariates, and their sum.

    Parameters
    ----------
    shares : DataFrame
        The output of `explain`.
    series_id : object, default=None
        The series of a panel to draw; a tuple for several levels of ids. None: the first.
    variable : object, default=None
        The variable to draw. None: the first.
    ax : matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        The series or the variable is not among the shares.
    """
    title = ""
    if shares.columns.nlevels == 2:
        named = shares.columns.get_level_values(0)
        variable = named[0] if variable is None else variable
        if variable not in named:
            raise DataError(
                f"variable={variable!r} is not explained: choose one of "
                f"{', '.join(map(str, named.unique()))}"
            )
        title = str(variable)
        shares = pd.DataFrame(shares.xs(variable, axis=1, level=0))
    if isinstance(shares.index, pd.MultiIndex):
        ids = shares.index.droplevel(-1)
        series_id = ids[0] if series_id is None else series_id
        rows = np.array([one == series_id for one in ids])
        if not rows.any():
            raise DataError(f"series_id={series_id!r} is not among the explained series")
        shares = shares[rows].droplevel(list(range(shares.index.nlevels - 1)))
        title = f"{series_id}: {title}" if title else str(series_id)
    ax = axes_or_new(ax, 4.0)
    when = drawable(shares.index)
    own, parts = shares.iloc[:, 0], shares.iloc[:, 1:]
    parts = parts.loc[:, (parts != 0).any()]
    # Shares above the model's forecast are stacked upwards, those below it downwards.
    rising, falling = own.to_numpy(copy=True), own.to_numpy(copy=True)
    for number, (name, part) in enumerate(parts.items()):
        values = part.to_numpy()
        for base, share in ((rising, np.maximum(values, 0)), (falling, np.minimum(values, 0))):
            label = str(name) if base is rising else None
            style = area_style(number)
            ax.bar(when, share, bottom=base, width=_width(when), label=label, **style)
            base += share
    ax.plot(when, own, color="0.35", lw=1.5, ls="--", label="model")
    ax.plot(when, shares.sum(axis=1), color="black", lw=1.8, marker="o", ms=4, label="forecast")
    ax.set_title(title)
    short_numbers(ax)
    label_times(ax, when)
    ax.use_sticky_edges = False  # of bars, which would touch the frame
    ax.margins(y=0.1)
    legend_below(ax)
    return ax


def _width(when: Any) -> Any:
    """Return the width of a bar: most of the distance of two steps."""
    stamps = np.asarray(when)
    return 0.8 * (stamps[1] - stamps[0]) if len(stamps) > 1 else 0.8
