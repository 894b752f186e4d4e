"""Plots of backtests: forecasts of held-out windows against what came."""

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from tsllm.errors import DataError
from tsllm.plotting.forecast_tables import chosen_names
from tsllm.plotting.forecasts import draw_bands, small_multiples
from tsllm.plotting.style import drawable, label_times, line_style, list_names, short_numbers


def plot_backtest(
    observed: pd.DataFrame,
    forecasts: pd.DataFrame,
    *,
    methods: Sequence[str],
    series: Sequence[Hashable] | None = None,
    variables: Sequence[str] | None = None,
    windows: int = 3,
    most: int = 6,
) -> Any:
    """Draw forecasts against what came; see `tsllm.evaluation.BacktestReport.plot`.

    ``observed`` is a long frame, ``series_id, timestamp`` and the variables, of some history and
    the test part. ``forecasts`` are those of the report, ``methods`` those to draw: the interval is
    the first one's.
    """
    if windows < 1:
        raise DataError(f"windows must be at least 1, found {windows!r}")
    values = [c for c in observed.columns if c not in ("series_id", "timestamp")]
    ids = list(dict.fromkeys(observed["series_id"]))
    series = chosen_names(series, ids, "series")
    variables = chosen_names(variables, values, "variables")
    methods = chosen_names(methods, list(dict.fromkeys(forecasts["method"])), "methods")
    forecasts = forecasts[forecasts["method"].isin(methods)]
    by_series: dict[Any, pd.DataFrame] = dict(list(forecasts.groupby("series_id", sort=False)))
    past_of: dict[Any, pd.DataFrame] = dict(list(observed.groupby("series_id", sort=False)))

    def draw(ax: Any, name: Hashable, variable: str) -> None:
        past, own = past_of[name], by_series[name]
        if "variable" in own.columns:
            own = own[own["variable"] == variable]
        title = "" if name == "series" else str(name)
        if len(values) > 1:
            title = f"{title}: {variable}" if title else variable
        _draw(ax, past, own, variable, methods, windows)
        ax.set_title(title or variable)
        ax.set_ylabel("" if variable == "0" else variable)

    wanted = [(name, variable) for name in series if name in by_series for variable in variables]
    return small_multiples(wanted, draw, most=most)


def _draw(
    ax: Any,
    past: pd.DataFrame,
    own: pd.DataFrame,
    variable: str,
    methods: Sequence[str],
    windows: int,
) -> None:
    """Draw some windows of one series and variable."""
    chosen = _last_windows(own, methods, windows)
    own = own[own["cutoff"].isin(chosen)]
    first = past["timestamp"].searchsorted(chosen[0])
    horizon = int(own["step"].max())
    past = past.iloc[max(0, first - max(2 * horizon, 20)) :]
    past = past[past["timestamp"] <= own["timestamp"].max()]
    when = drawable(past["timestamp"])
    ax.plot(when, past[variable], color="black", lw=1.2, label="observed", zorder=3)
    for number, cutoff in enumerate(chosen):
        rows = own[own["cutoff"] == cutoff]
        begin = rows["timestamp"].iloc[0]
        ax.axvline(
            drawable(pd.Series([begin])).iloc[0], color="0.6", lw=0.8, ls=":",
            label=None if number else "forecast from here",
        )  # fmt: skip
        for m, method in enumerate(methods):
            ahead = rows[rows["method"] == method]
            stamps = drawable(ahead["timestamp"])
            style = line_style(m) | ({"ms": 0} if len(ahead) > 20 else {})
            ax.plot(
                stamps, ahead["forecast"], label=None if number else str(method),
                zorder=5 - 0.1 * m, **style,
            )  # fmt: skip
            if m == 0:
                bands = ahead.dropna(axis=1, how="all")
                draw_bands(ax, stamps, bands, label=number == 0)
    ax.margins(x=0.02)
    short_numbers(ax)
    label_times(ax, when)


def _last_windows(own: pd.DataFrame, methods: Sequence[str], count: int) -> list[Any]:
    """Return the cutoffs of the last windows that do not overlap and that all methods forecast."""
    spans = [
        rows.groupby("cutoff", sort=True)["timestamp"].max()
        for _, rows in own.groupby("method", sort=False)
    ]
    if len(spans) < len(methods):
        missing = [one for one in methods if one not in set(own["method"])]
        raise DataError(f"{missing[0]!r} forecasts no window of this series: leave it out")
    common = spans[0].index
    for one in spans[1:]:
        common = common.intersection(one.index)
    lengths = own[own["method"] == methods[0]].groupby("cutoff").size()
    common = common[lengths[common] == lengths[common].max()]
    if not len(common):
        raise DataError(
            f"no window of this series was forecast by all of {list_names(methods)}: draw fewer "
            "methods"
        )
    chosen: list[Any] = []
    begin = None
    for cutoff in reversed(list(common)):
        if begin is None or spans[0][cutoff] <= begin:
            chosen.append(cutoff)
            begin = cutoff
        if len(chosen) == count:
            break
    return chosen[::-1]
