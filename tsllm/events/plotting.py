"""Plots of event streams: intensities, residuals, slices. They need the extra ``tsllm[plot]``."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tsllm.events.base import EventForecaster
from tsllm.events.evaluation.diagnostics import EventDiagnostics
from tsllm.events.evaluation.stream_report import GAINS, StreamReport
from tsllm.plotting.style import (
    COLOURS,
    area_style,
    axes_or_new,
    label_times,
    legend_below,
    line_style,
    new_axes,
    text_size,
    whole_ticks,
)

#: Columns of a matrix whose cells have room for a number.
_MOST_NUMBERS = 12
#: Units of time in words.
_UNITS = {"W": "week", "D": "day", "h": "hour", "min": "minute", "s": "second"}


def plot_intensity(
    forecaster: EventForecaster,
    history: Any = None,
    *,
    sequence: Hashable = None,
    start: Any = None,
    end: Any = None,
    by_type: bool = True,
    points: int = 400,
    windows: Any = None,
    ax: Any = None,
) -> Any:
    """Draw the intensities of a model, with the events below.

    Parameters
    ----------
    forecaster : EventForecaster
        Fitted.
    history, windows : default=None
        Events, as in `EventForecaster.predict_intensity`.
    sequence : hashable, default=None
        Name of the sequence. None: the first.
    start, end : time or None, default=None
        Period to draw. None: the last 50 events, and two mean inter-event times after them.
    by_type : bool, default=True
        One line per type, else one for all.
    points : int, default=400
        Points of a line, besides both sides of each event.
    ax : matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib Axes
    """
    ax = axes_or_new(ax, 3.8)
    table = forecaster._table(history, windows)
    name = table.ids[0] if sequence is None else sequence
    table = table.select([name])
    times, clock = table.times[0], table.clock
    edges = np.concatenate([table.starts[~np.isnan(table.starts)], times])
    low = edges[max(0, len(edges) - 50)] if start is None else float(clock.to_number(start))
    high = edges[-1] + 2 * forecaster.time_scale_ if end is None else float(clock.to_number(end))
    inside = times[(times >= low) & (times <= high)]
    # Intensities jump at events: look on both sides of each.
    nudge = 1e-6 * forecaster.time_scale_
    grid = np.unique(np.concatenate([np.linspace(low, high, points), inside, inside + nudge]))
    found = forecaster.predict_intensity(clock.to_stamp(grid), table, by_type=by_type)
    for number, column in enumerate(found.columns):
        style = line_style(number) | {"marker": "", "lw": 1.4}
        ax.plot(clock.to_stamp(grid), found[column].to_numpy(), label=str(column), **style)
    colours = {line.get_label(): line.get_color() for line in ax.get_lines()}
    kinds = table.types[0][(times >= low) & (times <= high)]
    # A row of marks for each type below the lines, so that they are told apart without colour.
    top = ax.get_ylim()[1]
    rows = {str(kind): row for row, kind in enumerate(found.columns)} if by_type else {}
    for kind in pd.unique(kinds):
        where = clock.to_stamp(inside[kinds == kind])
        colour = colours.get(str(kind), "black")
        height = -0.07 * top * (rows.get(str(kind), 0) + 1)
        ax.plot(where, np.full(len(where), height), "|", ms=8, mew=1.4, color=colour)
    ax.set_ylim(-0.07 * top * (max(rows.values(), default=0) + 1.8), top)
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
    unit = _UNITS.get(clock.unit, clock.unit) if clock.is_stamps else "unit of time"
    ax.set_ylabel(f"events per {unit}")
    ax.set_title(str(name))
    if clock.is_stamps:
        label_times(ax, pd.Series(clock.to_stamp(grid)))
    else:
        ax.set_xlabel("time")
    legend_below(ax)
    return ax


def plot_residuals(diagnostics: EventDiagnostics, *, axes: Any = None) -> Any:
    """Draw a Q-Q plot of the residuals against the exponential, and the histogram of their PIT.

    Under a right model the points lie within the 99 % band, and the bars are level.

    Parameters
    ----------
    diagnostics : EventDiagnostics
        From `EventForecaster.diagnostics`.
    axes : two matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    array of two matplotlib Axes
    """
    own = axes is None
    if own:
        axes = new_axes(6.4, rows=2)
    left, right = axes
    for name, residuals in diagnostics.residuals.items():
        n = len(residuals)
        if n < 3:
            continue
        theory = stats.expon.ppf((np.arange(n) + 0.5) / n)
        number = list(diagnostics.residuals).index(name)
        ground = number == 0
        style = line_style(number - 1) | {"marker": "", "lw": 1.2}
        if ground:
            style = {"color": "black", "lw": 1.8, "zorder": 3}
        left.plot(theory, np.sort(residuals), label=str(name), **style)
        if ground:
            rank = np.arange(1, n + 1)
            low, high = (stats.beta.ppf(q, rank, n + 1 - rank) for q in (0.005, 0.995))
            band = stats.expon.ppf(low), stats.expon.ppf(high)
            left.fill_between(theory, *band, color="grey", alpha=0.25, lw=0, label="99 %")
            left.plot(theory, theory, color="grey", lw=0.8, ls="--")
    left.set_xlabel("exponential quantiles")
    left.set_ylabel("residuals")
    pit = diagnostics.pit
    bins = int(np.clip(len(pit) // 20, 5, 20))
    right.hist(pit, bins=bins, range=(0, 1), density=True, color=COLOURS[0], alpha=0.6, ec="white")
    low, high = stats.binom.ppf([0.005, 0.995], len(pit), 1 / bins) * bins / max(1, len(pit))
    right.axhspan(low, high, color="grey", alpha=0.25, lw=0)
    right.axhline(1, color="grey", lw=0.8, ls="--")
    right.set_xlabel("probability of an earlier event")
    right.set_ylabel("density")
    legend_below(left.figure if own else left)
    return axes


def plot_stream(
    report: StreamReport,
    metric: str = "log_likelihood",
    *,
    variants: Sequence[str] | None = None,
    axes: Any = None,
) -> Any:
    """Draw R matrices as heat maps: the last learnt slice against the tested slice.

    Cells show their numbers in matrices of up to twelve slices.

    Parameters
    ----------
    report : StreamReport
        From `evaluate_stream`.
    metric : str, default="log_likelihood"
        One of the report's metrics.
    variants : sequence of str or None, default=None
        The variants to draw. None: all.
    axes : matplotlib Axes, one per variant, or None, default=None
        None makes a new figure.

    Returns
    -------
    array of matplotlib Axes
    """
    variants = report.variants if variants is None else list(variants)
    matrices = [report.matrix(metric, variant) for variant in variants]
    if axes is None:
        # Cells of many slices are too narrow for their numbers where two pictures share a row.
        columns = min(2, len(variants)) if len(matrices[0]) <= 5 else 1
        rows = -(-len(variants) // columns)
        height = (3.6 if columns == 2 else 4.6) * rows + 0.6
        axes = new_axes(height, rows=rows, columns=columns, width=7.0 if columns == 2 else 6.0)
        axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        for ax in axes[len(variants) :]:
            ax.remove()
        axes = axes[: len(variants)]
    axes = np.atleast_1d(np.asarray(axes, dtype=object))
    everything = np.concatenate([matrix.to_numpy().ravel() for matrix in matrices])
    # One colour scale for all; quantiles, so that one failing variant does not hide the others.
    finite = everything[np.isfinite(everything)]
    low, high = np.quantile(finite, [0.05, 0.95]) if len(finite) else (0.0, 1.0)
    colours = "viridis" if metric in GAINS else "viridis_r"
    for ax, variant, matrix in zip(axes, variants, matrices):
        image = ax.imshow(matrix.to_numpy(), vmin=low, vmax=high, cmap=colours)
        middle = (low + high) / 2
        for (row, column), value in np.ndenumerate(matrix.to_numpy()):
            if not np.isfinite(value) or matrix.shape[1] > _MOST_NUMBERS:
                continue
            dark = (value < middle) == (metric in GAINS)
            ax.text(
                column,
                row,
                f"{value:.3g}",
                ha="center",
                va="center",
                fontsize=_fitting(matrix.shape[1], ax),
                color="white" if dark else "black",
            )
        whole_ticks(ax.xaxis)
        whole_ticks(ax.yaxis)
        ax.set_title(variant)
        ax.set_xlabel("tested on slice")
        ax.set_ylabel("learnt up to slice")
    bar = axes[0].figure.colorbar(
        image, ax=list(axes), location="bottom", shrink=0.6, pad=0.02, aspect=25, extend="both"
    )
    bar.set_label(metric.replace("_", " "), fontsize=text_size(axes[0]))
    bar.ax.tick_params(labelsize=text_size(axes[0]))
    return axes


def plot_slot_use(slot_history: Any, *, ax: Any = None) -> Any:
    """Draw the shares of the prompt slots that each slice of a stream used.

    Parameters
    ----------
    slot_history : array (slices, slots)
        Number of positions of a slice that retrieved each slot, as `PromptTPP.slot_history_`.
    ax : matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib Axes
        A column of bars per slice, of shares that add up to 1.
    """
    counts = np.asarray(slot_history, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax = axes_or_new(ax, 4.0)
    bottom = np.zeros(len(shares))
    used = np.flatnonzero(shares.any(axis=0))
    for number, slot in enumerate(used):
        style = area_style(number)
        ax.bar(range(len(shares)), shares[:, slot], bottom=bottom, label=f"slot {slot}", **style)
        bottom += shares[:, slot]
    whole_ticks(ax.xaxis)
    ax.set_xlabel("slice")
    ax.set_ylabel("share of retrievals")
    legend_below(ax)
    return ax


def _fitting(columns: int, ax: Any) -> float:
    """Return the size of the numbers in the cells of a matrix, in points."""
    inches = ax.get_position().width * ax.figure.get_size_inches()[0]
    # Five characters, each some 0.65 of its size wide
    return min(text_size(ax), 72 * inches / columns / (5 * 0.65))
