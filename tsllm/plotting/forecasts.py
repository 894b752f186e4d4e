"""Plots of forecasts with their intervals, of one series and of panels, and of trainings."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.errors import DataError
from tsllm.plotting.forecast_tables import ForecastTables, chosen_names
from tsllm.plotting.style import (
    COLOURS,
    WIDTH,
    axes_or_new,
    drawable,
    label_times,
    legend_below,
    list_names,
    new_axes,
    short_numbers,
    whole_ticks,
)

#: The markers of promotions and other 0/1 columns, below the data.
_MARKS = ("^", "d", "s")


def plot_panel(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    future: pd.DataFrame | None = None,
    series_ids: Sequence[Hashable] | None = None,
    variables: Sequence[str] | None = None,
    last: int | None = None,
    marks: Sequence[str] | None = None,
    most: int = 6,
) -> Any:
    """Draw the forecasts of a panel: a small picture for each series and variable.

    Parameters
    ----------
    history, forecast : DataFrame
        As in `plot_forecast`.
    future : DataFrame or None, default=None
        As in `plot_forecast`.
    series_ids : sequence or None, default=None
        The series to draw. None: all, in the forecast's order.
    variables : sequence of str or None, default=None
        The value columns to draw. None: all that are forecast; of a forecast of one column, which
        does not name it, ``value``, ``y``, ``target`` or the first of numbers in ``history``.
    last : int or None, default=None
        As in `plot_forecast`.
    marks : sequence of str or None, default=None
        As in `plot_forecast`.
    most : int, default=6
        Pictures to draw; a line below tells how many more there are.

    Returns
    -------
    matplotlib Figure
        ``figure.savefig("forecast.png")`` writes it.

    Raises
    ------
    DataError
        A series or a variable is not among the forecasts.
    ImportError
        matplotlib is not installed.

    See Also
    --------
    plot_forecast : Draw one series on axes of your own.

    Examples
    --------
    >>> import pandas as pd, tsllm
    >>> from tsllm.plotting.forecasts import plot_panel
    >>> days = pd.date_range("2024-01-01", periods=40, freq="D")
    >>> shops = [
    ...     pd.DataFrame({"series_id": shop, "timestamp": days, "sales": range(40)})
    ...     for shop in ("north", "south")
    ... ]
    >>> history = pd.concat(shops)
    >>> table = tsllm.forecast(
    ...     history, 7, method="linear", target_cols="sales", random_state=0
    ... )
    >>> figure = plot_panel(history, table)
    >>> [ax.get_title() for ax in figure.axes]
    ['north', 'south']
    """
    tables = ForecastTables(history, forecast, future)
    series_ids = chosen_names(series_ids, tables.series, "series_ids")
    variables = tables.variables(variables, "variables")
    wanted = [(name, variable) for name in series_ids for variable in variables]

    def draw(ax: Any, name: Hashable, variable: str) -> None:
        draw_forecast(ax, tables, name, variable, last=last, marks=marks)

    return small_multiples(wanted, draw, most=most)


def plot_forecast(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    future: pd.DataFrame | None = None,
    series_id: object = None,
    variable: str | None = None,
    last: int | None = None,
    marks: Sequence[str] | None = None,
    title: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw the history of one series, its forecast and its intervals.

    Parameters
    ----------
    history : DataFrame
        Long format: identifiers and times in the columns that ``forecast`` has them in (or
        ``series_id, timestamp``), value columns, and any covariates.
    forecast : DataFrame
        As `tsllm.forecast` returns it: identifiers, times, ``forecast, q0.1, ...``, with a column
        ``variable`` where there are several value columns. Quantiles symmetric around 0.5 become
        bands: the widest, and that nearest to half.
    future : DataFrame or None, default=None
        The covariates of the steps to forecast, in the form of ``history``, for their marks.
    series_id : object, default=None
        The series to draw. None: the first.
    variable : str or None, default=None
        The value column to draw. None: the first that is forecast; of a forecast of one column,
        which does not name it, ``value``, ``y``, ``target`` or the first of numbers in ``history``.
    last : int or None, default=None
        Steps of history to show. None: three times the horizon, at least 60.
    marks : sequence of str or None, default=None
        Columns of ``history`` that hold only 0 and 1, such as promotions: the steps with 1 are
        marked below the data. None: all such columns, at most three.
    title : str or None, default=None
        None: the names of the series and the variable.
    ax : matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        The series or the variable is not among the forecasts.
    ImportError
        matplotlib is not installed.

    See Also
    --------
    plot_panel : Draw several series and variables.
    """
    tables = ForecastTables(history, forecast, future)
    wanted = None if series_id is None else [series_id]
    series_id = chosen_names(wanted, tables.series, "series_id")[0]
    variable = tables.variables(None if variable is None else [variable], "variable")[0]
    ax = axes_or_new(ax, 3.6)
    draw_forecast(ax, tables, series_id, variable, last=last, marks=marks)
    if title is not None:
        ax.set_title(title)
    legend_below(ax)
    return ax


def draw_losses(
    history: Sequence[dict[str, Any]], *, best_epoch: int | None = None, ax: Any = None
) -> Any:
    """Draw training and validation losses over the epochs.

    ``history`` is that of a `FittedState`; ``best_epoch``, whose weights were kept, is marked.
    """
    ax = axes_or_new(ax, 3.4)
    epochs = np.arange(1, len(history) + 1)
    marker = "o" if len(epochs) < 30 else None  # a single epoch is a point, not a line
    ax.plot(
        epochs, [h["train_loss"] for h in history], color=COLOURS[0], marker=marker, ms=4,
        label="training",
    )  # fmt: skip
    validation = [h.get("validation_loss") for h in history]
    if any(v is not None for v in validation):
        values = [np.nan if v is None else v for v in validation]
        style = {"color": COLOURS[1], "ls": "--", "marker": marker and "s", "ms": 4}
        ax.plot(epochs, values, label="validation", **style)
    label_epochs(ax, "loss", best_epoch)
    return ax


def label_epochs(ax: Any, ylabel: str, best_epoch: int | None) -> None:
    """Set the labels of a plot over the epochs, and mark the best epoch."""
    if best_epoch is not None:
        ax.axvline(best_epoch, color="0.4", lw=1, ls=":", label="kept")
    ax.set_xlabel("epoch")
    ax.set_ylabel(ylabel)
    whole_ticks(ax.xaxis)
    legend_below(ax)


def small_multiples(
    wanted: Sequence[tuple[Hashable, str]], draw: Callable[[Any, Hashable, str], None], *, most: int
) -> Any:
    """Draw a figure of small pictures, one for each series and variable, with one legend.

    ``draw(ax, name, variable)`` draws one. At most ``most`` are drawn; a line below tells which
    are not.
    """
    if most < 1:
        raise DataError(f"most must be at least 1, found {most!r}")
    shown = wanted[:most]
    columns = 1 if len(shown) < 4 else 2
    rows = math.ceil(len(shown) / columns)
    width = WIDTH if columns == 1 else 1.25 * WIDTH
    height = (2.6 if columns == 1 else 2.7) * rows + 0.7
    axes = new_axes(height, rows=rows, columns=columns, width=width)
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    for ax, (name, variable) in zip(axes, shown):
        draw(ax, name, variable)
    for ax in axes[len(shown) :]:
        ax.remove()
    figure = axes[0].figure
    missing = wanted[most:]
    named = list_names(dict.fromkeys(name for name, _ in missing), 2)
    legend_below(figure, note=f"{len(missing)} more not drawn: {named}" if missing else None)
    return figure


def draw_bands(ax: Any, when: Any, ahead: pd.DataFrame, *, label: bool = True) -> None:
    """Draw the interval of a forecast: the widest in light grey-blue, the inner one hatched."""
    bands = _bands(ahead.columns)
    half = min(bands, key=lambda pair: abs(_share(pair) - 0.5)) if bands else None
    for low, high in dict.fromkeys(bands[:1] + ([half] if half else [])):
        inner = len(bands) > 1 and (low, high) == half
        share = f"{_share((low, high)):.0%} interval"
        ax.fill_between(
            when,
            ahead[low].astype(float),
            ahead[high].astype(float),
            facecolor="#BFD9EA" if not inner else "#7FB4D6",
            edgecolor="#3F7FA8" if not inner else "#1F5F8A",
            hatch="" if inner else "////",
            hatch_linewidth=0.4,
            lw=0.6,
            alpha=0.75,
            label=share if label else None,
            zorder=1.5 if inner else 1.2,
        )


def draw_forecast(
    ax: Any,
    tables: ForecastTables,
    series_id: Hashable,
    variable: str,
    *,
    last: int | None = None,
    marks: Sequence[str] | None = None,
) -> None:
    """Draw one series and variable, without a legend; see `plot_forecast`."""
    past, ahead = tables.past(series_id), tables.ahead(series_id, variable)
    last = max(60, 3 * len(ahead)) if last is None else last
    past = past.iloc[max(0, len(past) - last) :]
    then, when = drawable(tables.times(past)), drawable(ahead[tables.time_col])
    style = {"marker": "."} if len(past) < 2 else {}
    ax.plot(then, past[variable], color="black", lw=1.1, label="history", zorder=3, **style)
    ax.plot(
        when, ahead["forecast"], color=COLOURS[0], lw=1.8, ls=(0, (4, 1)), marker="o",
        ms=3.5 if len(ahead) <= 20 else 0, label="forecast", zorder=4,
    )  # fmt: skip
    draw_bands(ax, when, ahead)
    parts, later = [past], tables.later(series_id)
    if later is not None:
        parts.append(later.iloc[: len(ahead)])
    _draw_marks(ax, tables, parts, tables.flags(variable, marks, most=len(_MARKS)))
    # A single series without a name has none to show.
    title = "" if series_id == "series" else str(series_id)
    if tables.several:
        title = f"{title}: {variable}" if title else str(variable)
    ax.set_title(title or str(variable))
    ax.set_ylabel("" if variable == "0" else str(variable))
    ax.margins(x=0.02)
    short_numbers(ax)
    label_times(ax, when)


def _draw_marks(
    ax: Any, tables: ForecastTables, parts: Sequence[pd.DataFrame], columns: Sequence[str]
) -> None:
    """Mark the steps with 1 of some columns below the data, in a row each."""
    if not columns:
        return
    low, high = ax.get_ylim()
    step = 0.07 * (high - low)
    for row, name in enumerate(columns):
        rows = [
            drawable(tables.times(part))[part[name].astype(float) == 1]
            for part in parts
            if name in part.columns
        ]
        when = pd.concat(rows)
        ax.plot(
            when, np.full(len(when), low - (row + 0.4) * step), _MARKS[row % len(_MARKS)],
            color="0.25", mfc="0.7", ms=5, mew=0.8, label=str(name), zorder=2,
        )  # fmt: skip
    ax.set_ylim(low - (len(columns) + 0.2) * step, high)


def _bands(columns: pd.Index) -> list[tuple[str, str]]:
    """Pair quantile columns that are symmetric around 0.5, the widest first."""
    levels = {round(float(c[1:]), 6): c for c in columns if str(c).startswith("q0.")}
    return [
        (levels[q], levels[round(1 - q, 6)])
        for q in sorted(levels)
        if q < 0.5 and round(1 - q, 6) in levels
    ]


def _share(band: tuple[str, str]) -> float:
    """Return the probability between the two quantiles of a band."""
    return float(band[1][1:]) - float(band[0][1:])
