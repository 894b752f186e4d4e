"""The look of all pictures: sizes and fonts for a phone's width, marks that need no colour."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.errors import DataError

#: Inches of a picture's width, and points of its text. A phone shows the width in 390 pixels:
#: points / 72 / inches * 390 is the height of a letter there, 9 and more.
WIDTH, TEXT = 6.0, 10.5
#: Lines of several things, told apart by colour, by dash and by marker. The colours are those of
#: Okabe and Ito, from dark to light.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P")
#: Fillings of bars and areas that lie side by side.
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++", "ooo")


def line_style(number: int) -> dict[str, Any]:
    """Return colour, dash and marker of the line with a number, from 0."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "ls": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "ms": 3.5,
        "lw": 1.5,
    }


def area_style(number: int) -> dict[str, Any]:
    """Return colour and hatching of the area with a number, from 0."""
    return {
        "facecolor": COLOURS[number % len(COLOURS)],
        "hatch": HATCHES[number % len(HATCHES)],
        "edgecolor": "white",
        "lw": 0.5,
    }


def axes_or_new(ax: Any, height: float) -> Any:
    """Return the axes to draw on: those given, or new ones of a height in inches."""
    if ax is None:
        return new_axes(height)
    if not (hasattr(ax, "plot") and hasattr(ax, "set_xlabel")):
        raise DataError(f"ax must be axes of matplotlib or None, found {shown(ax)}")
    tidy(ax)
    return ax


def new_axes(height: float, *, rows: int = 1, columns: int = 1, width: float = WIDTH) -> Any:
    """Make a figure without pyplot's global state and without a display.

    The size is in inches. One row and one column are axes, else an array of axes as matplotlib's
    ``subplots`` returns it.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'tsllm[plot]'") from error
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), layout=layout)
    axes = figure.subplots(rows, columns)
    text = TEXT * width / WIDTH
    for ax in np.atleast_1d(np.asarray(axes, dtype=object)).ravel():
        tidy(ax, text)
    return axes


def tidy(ax: Any, text: float | None = None) -> None:
    """Set the frame of axes, and the size of their text in points where it is given."""
    ax.spines[["top", "right"]].set_visible(False)
    if text is not None:
        ax.tick_params(labelsize=text)
        for label in (ax.xaxis.label, ax.yaxis.label, ax.title):
            label.set_fontsize(text)
        ax.xaxis.get_offset_text().set_fontsize(text)
        ax.yaxis.get_offset_text().set_fontsize(text)


def text_size(ax: Any) -> float:
    """Return the size of the text of axes, in points."""
    return float(ax.xaxis.label.get_fontsize())


def legend_below(target: Any, *, note: str | None = None) -> None:
    """Place the legend of axes, or of a whole figure, below the data, with a line above it.

    A figure gets one entry for each label of its axes. One entry needs no legend.
    """
    own = [target] if hasattr(target, "get_legend_handles_labels") else target.axes
    found: dict[str, Any] = {}
    for ax in own:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            found.setdefault(label, handle)
    if len(found) < 2 and note is None:
        return
    text = text_size(own[0])
    longest = max(map(len, found))
    figure = target.figure if own == [target] else target
    # Letters are about half as wide as high; a key and its spaces take nine of them.
    fit = int(figure.get_size_inches()[0] * 72 / (0.55 * text * (longest + 9)))
    columns = max(1, min(len(found), fit))
    place: dict[str, Any] = {"loc": "outside lower center"}
    if own == [target]:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.28)}
        if figure.get_layout_engine() is not None and len(figure.axes) == 1:
            target, place = figure, {"loc": "outside lower center"}
    target.legend(
        found.values(),
        found.keys(),
        ncols=columns,
        frameon=False,
        fontsize=text,
        title=note,
        title_fontsize=text,
        handlelength=2.6,
        columnspacing=1.2,
        handletextpad=0.5,
        **place,
    )


def label_times(ax: Any, stamps: pd.Series | pd.Index, *, ticks: int = 5) -> None:
    """Format the axis of times: few ticks, the year said once; steps are whole numbers."""
    from matplotlib import dates, ticker

    if pd.api.types.is_datetime64_any_dtype(stamps.dtype):
        place = dates.AutoDateLocator(minticks=2, maxticks=ticks)
        ax.xaxis.set_major_locator(place)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(place))
    else:
        ax.xaxis.set_major_locator(ticker.MaxNLocator(ticks, integer=True))


def whole_ticks(axis: Any, most: int = 8) -> None:
    """Place the ticks of an axis on whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def short_numbers(ax: Any) -> None:
    """Write large numbers of the vertical axis with a comma every three digits."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(4))
    low, high = ax.get_ylim()
    if 1e4 <= max(abs(low), abs(high)) < 1e9 and high - low >= 10:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def drawable(stamps: pd.Series | pd.Index) -> Any:
    """Convert periods, which matplotlib does not know, to their start times.

    Times with a zone become those that a clock there shows.
    """
    stamps = pd.Series(stamps)
    if isinstance(stamps.dtype, pd.PeriodDtype):
        return stamps.dt.to_timestamp()
    if isinstance(stamps.dtype, pd.DatetimeTZDtype):
        return stamps.dt.tz_localize(None)
    return stamps


def list_names(names: Iterable[object], most: int = 3) -> str:
    """List the first few names, and how many more there are."""
    known = list(map(str, names))
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
