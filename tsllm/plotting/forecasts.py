"""Plots of forecasts with their intervals, and of training histories."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.errors import DataError


def plot_forecast(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    series_id: object = None,
    variable: str | None = None,
    last: int | None = None,
    title: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw the history of one series, its forecast and its intervals.

    Parameters
    ----------
    history : DataFrame
        Long format: ``series_id, timestamp`` and value columns.
    forecast : DataFrame
        As `tsllm.forecast` returns it: ``series_id, timestamp, forecast, q0.1, ...``, with a column
        ``variable`` where there are several value columns. Quantiles symmetric around 0.5 become
        bands.
    series_id : object, default=None
        The series to draw. None: the first.
    variable : str or None, default=None
        The value column to draw. None: the first.
    last : int or None, default=None
        Steps of history to show. None: three times the horizon, at least 60.
    title : str or None, default=None
        None: the names of the series and the variable.
    ax : matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib Axes
    """
    ax = axes_or_new(ax, (9.0, 4.0))
    series_id = forecast["series_id"].iloc[0] if series_id is None else series_id
    values = [c for c in history.columns if c not in ("series_id", "timestamp")]
    variable = values[0] if variable is None else variable
    past = history[history["series_id"] == series_id]
    ahead = forecast[forecast["series_id"] == series_id]
    if "variable" in ahead.columns:
        ahead = ahead[ahead["variable"] == variable]
    last = max(60, 3 * len(ahead)) if last is None else last
    past = past.iloc[-last:]
    ax.plot(
        drawable_stamps(past["timestamp"]), past[variable], color="black", lw=1, label="history"
    )
    when = drawable_stamps(ahead["timestamp"])
    ax.plot(when, ahead["forecast"], color="tab:blue", lw=1.5, label="forecast")
    for low, high in _bands(ahead.columns):
        share = float(high[1:]) - float(low[1:])
        ax.fill_between(
            when, ahead[low], ahead[high], color="tab:blue", alpha=0.18, lw=0, label=f"{share:.0%}"
        )
    named = f"{series_id}: {variable}" if len(values) > 1 else str(series_id)
    ax.set_title(title or named)
    ax.legend(frameon=False, loc="upper left")
    ax.figure.autofmt_xdate()
    return ax


def draw_losses(
    history: Sequence[dict[str, Any]], *, best_epoch: int | None = None, ax: Any = None
) -> Any:
    """Draw training and validation losses over the epochs.

    ``history`` is that of a `FittedState`; ``best_epoch``, whose weights were kept, is marked.
    """
    ax = axes_or_new(ax, (6.0, 3.5))
    epochs = np.arange(1, len(history) + 1)
    ax.plot(epochs, [h["train_loss"] for h in history], label="training")
    validation = [h.get("validation_loss") for h in history]
    if any(v is not None for v in validation):
        ax.plot(epochs, [np.nan if v is None else v for v in validation], label="validation")
    label_epochs(ax, "loss", best_epoch)
    return ax


def axes_or_new(ax: Any, size: tuple[float, float]) -> Any:
    """Return the axes to draw on: those given, or new ones of a size in inches."""
    if ax is None:
        return new_axes(size)
    if not (hasattr(ax, "plot") and hasattr(ax, "set_xlabel")):
        raise DataError(f"ax must be axes of matplotlib or None, found {shown(ax)}")
    return ax


def new_axes(size: tuple[float, float], columns: int = 1) -> Any:
    """Make a figure without pyplot's global state and without a display.

    ``size`` is in inches. Several ``columns`` are an array of axes.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'tsllm[plot]'") from error
    return Figure(figsize=size, layout="constrained").subplots(1, columns)


def label_epochs(ax: Any, ylabel: str, best_epoch: int | None) -> None:
    """Set the labels of a plot over the epochs, and mark the best epoch."""
    if best_epoch is not None:
        ax.axvline(best_epoch, color="grey", lw=0.8, ls="--", label="kept")
    ax.set_xlabel("epoch")
    ax.set_ylabel(ylabel)
    ax.legend(frameon=False)


def _bands(columns: pd.Index) -> list[tuple[str, str]]:
    """Pair quantile columns that are symmetric around 0.5, the widest first."""
    levels = {round(float(c[1:]), 6): c for c in columns if c.startswith("q0.")}
    return [
        (levels[q], levels[round(1 - q, 6)])
        for q in sorted(levels)
        if q < 0.5 and round(1 - q, 6) in levels
    ]


def drawable_stamps(stamps: pd.Series) -> pd.Series:
    """Convert periods, which matplotlib does not know, to their start times."""
    return stamps.dt.to_timestamp() if isinstance(stamps.dtype, pd.PeriodDtype) else stamps
