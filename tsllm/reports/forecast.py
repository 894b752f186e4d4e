"""The page of a forecast: what is expected, beside what was, series by series."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tsllm.datasets.frequency import infer_frequency, season_length
from tsllm.errors import DataError
from tsllm.pages.cells import moment, number
from tsllm.pages.page import Page, Table
from tsllm.pages.pictures import Picture, axes_of
from tsllm.plotting.forecast_tables import ForecastTables
from tsllm.plotting.forecasts import draw_forecast
from tsllm.plotting.style import legend_below
from tsllm.reports.settings import settings_to_show, without_times

#: The most series and variables that are drawn on a page.
MAX_PICTURES = 12
#: The most variables that the verdict names.
_MOST_NAMED = 3
#: What a step is called, by the code of its frequency.
_UNITS = {
    **{"s": "second", "min": "minute", "h": "hour", "D": "day", "B": "business day", "W": "week"},
    **dict.fromkeys(("MS", "ME", "BMS", "BME", "M"), "month"),
    **dict.fromkeys(("QS", "QE", "BQS", "BQE", "Q"), "quarter"),
    **dict.fromkeys(("YS", "YE", "BYS", "BYE", "Y"), "year"),
}


def report_forecast(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    future: pd.DataFrame | None = None,
    variable: str | None = None,
    title: str = "Forecast",
    summary: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Page:
    """Make the page of a forecast.

    It compares the mean of the forecast with the mean of the same steps one or more seasons before,
    for example the next six months with the same six months of the last year.

    Parameters
    ----------
    history : DataFrame
        The table that was forecast: identifiers and times in the columns that ``forecast`` has
        them in, or ``series_id, timestamp`` as `tsllm.datasets.read_long` returns them.
    forecast : DataFrame
        As `tsllm.forecast` returns it.
    future : DataFrame or None, default=None
        The covariates of the steps to forecast, in the form of ``history``: the steps with 1 in a
        column of 0 and 1 are marked, as those of ``history``.
    variable : str or None, default=None
        The value column of a forecast of one column, which does not name it. None: ``value``,
        ``y``, ``target`` or the first of numbers in ``history``.
    title : str, default="Forecast"
        The name of the page.
    summary : mapping or None, default=None
        The forecaster's `summary()`: its held-out error is stated, its sizes are listed.
    settings : mapping or None, default=None
        More settings to list.
    notes : sequence of str, default=()
        Restrictions that a reader must know, such as series that are left out.

    Returns
    -------
    Page

    Raises
    ------
    DataError
        A table has no row, or not the columns that the page reads.

    See Also
    --------
    tsllm.plotting.forecasts.plot_forecast : The picture alone.

    Examples
    --------
    >>> days = pd.date_range("2024-01-01", periods=21, freq="D")
    >>> past = pd.DataFrame({"series_id": "series", "timestamp": days, "value": [10.0] * 21})
    >>> ahead = pd.DataFrame(
    ...     {"series_id": "series", "timestamp": days[-7:] + pd.Timedelta("7D"), "forecast": 11.0}
    ... )
    >>> report_forecast(past, ahead).verdict.partition(", ")[2]
    'value is expected to average 11: 10.0 % more than over the 7 days before.'
    """
    read = ForecastTables(history, forecast, future)
    named = None if variable is None or read.several else [variable]
    variables = read.variables(named, "variable")
    offset = _offset(read)
    unit = _unit(offset)
    changes = _compare(read, variables, season_length(offset))
    told = dict(summary or {})
    candidates = pd.DataFrame(told.pop("candidates", []))
    pictures, pictures_note = _pictures(read, changes, variables)
    skipped = forecast.attrs.get("skipped", {})
    left_out = [f"{name} was left out: {reason}" for name, reason in skipped.items()]
    tables = [Table("By series", _by_series(changes), _explain(changes, unit))]
    tables.append(Table("The forecast", forecast))
    if len(candidates):
        note = "Errors on windows before the end of the data, which no candidate has seen."
        tables.append(Table("The combined methods", without_times(candidates), note))
    return Page(
        title,
        _verdict(changes, variables, forecast[read.time_col], unit),
        details=[*_intervals(forecast), *_trust(told)],
        pictures=pictures,
        pictures_note=pictures_note,
        tables=tables,
        notes=[*left_out, *notes],
        settings=settings_to_show({**(settings or {}), **told}),
    )


def _compare(tables: ForecastTables, variables: Sequence[str], season: int) -> pd.DataFrame:
    """Return a row per series and variable: means of the forecast and of what was before."""
    rows = []
    for key, ahead in tables.forecast.groupby(
        [tables.id_col, "variable"] if tables.several else [tables.id_col], sort=False
    ):
        name, variable = key if tables.several else (key[0], variables[0])
        steps = len(ahead)
        values = tables.past(name)[variable].to_numpy(dtype=float)
        # The nearest steps at the same places of the season.
        back = -(-steps // season) * season
        if len(values) < back:
            back = steps
        before = values[-back:][:steps]
        rows.append(
            {
                "series_id": str(name),
                "variable": variable,
                "steps": steps,
                "back": back if len(values) >= back else len(values),
                "before": np.nan if np.isnan(before).all() else float(np.nanmean(before)),
                "least": np.nan if np.isnan(before).all() else float(np.nanmin(before)),
                "forecast": float(ahead["forecast"].mean()),
                "last": values[-1] if len(values) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _offset(tables: ForecastTables) -> pd.offsets.BaseOffset | None:
    """Return the frequency of the first series of the history; None where none is found."""
    stamps = tables.times(tables.first_past())
    if isinstance(stamps.dtype, pd.PeriodDtype):
        return stamps.dtype.freq
    if not pd.api.types.is_datetime64_any_dtype(stamps.dtype):
        return None
    try:
        return infer_frequency(pd.DatetimeIndex(stamps))
    except DataError:  # a few rows, or times that only a given frequency explains
        return None


def _unit(offset: pd.offsets.BaseOffset | None) -> str:
    """Return what a step is called: "month", or "step" where it has no name."""
    if offset is None or offset.n != 1:
        return "step"
    return _UNITS.get(offset.rule_code.split("-")[0], "step")


def _count(number: int, unit: str) -> str:
    """Return a number of steps with their name."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _verdict(changes: pd.DataFrame, variables: Sequence[str], times: pd.Series, unit: str) -> str:
    """Say in one sentence what is expected."""
    steps = int(changes["steps"].max())
    ends = [_day(times.min(), unit), _day(times.max(), unit)]
    span = f"Over the next {_count(steps, unit)} ({' to '.join(ends)})"
    if steps == 1:
        span = f"In the next {unit} ({ends[0]})"
    series = changes["series_id"].nunique()
    of_all = "" if series == 1 else f", as a mean of {series:,} series,"
    average = "be" if steps == series == 1 else "average"
    if len(variables) == 1:
        name = variables[0]
        if series == 1 and name == "value" and str(changes["series_id"].iloc[0]) != "series":
            name = str(changes["series_id"].iloc[0])
        mean = number(float(changes["forecast"].mean()))
        than = _than(changes, unit)
        return f"{span}, {name}{of_all} is expected to {average} {mean}{than and ': '}{than}."
    named = []
    for variable, own in changes.groupby("variable", sort=False):
        than = _than(own, unit).split(" than")[0].split(" as over")[0]
        named.append(f"{variable} {number(float(own['forecast'].mean()))}{than and f' ({than})'}")
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"{span}, these means{of_all} are expected: {', '.join(named[:_MOST_NAMED])}{more}."


def _day(stamp: Any, unit: str) -> str:
    """Write the time of a step, that of a month without its day."""
    if isinstance(stamp, pd.Timestamp) and unit in ("month", "quarter"):
        return stamp.strftime("%Y-%m")
    return moment(stamp)


def _than(changes: pd.DataFrame, unit: str) -> str:
    """Compare with the steps before: "3.1 % more than over the 12 months before"."""
    known = changes.dropna(subset=["before"])
    if known.empty:
        return ""
    ahead, before = float(known["forecast"].mean()), float(known["before"].mean())
    if known["least"].min() >= 0 and before > 0:
        change = 100 * (ahead / before - 1)
        if abs(change) < 0.05:
            return f"as much as {_period(known, unit)}"
        amount = f"{abs(change):.1f} %"
    else:
        amount = number(abs(ahead - before))
    way = "more" if ahead >= before else "less"
    return f"{amount} {way} than {_period(known, unit)}"


def _period(changes: pd.DataFrame, unit: str) -> str:
    """Name the steps that a forecast is compared with."""
    steps, back = int(changes["steps"].max()), int(changes["back"].max())
    if back > steps:
        return f"{_count(back, unit)} earlier"
    return f"in the {unit} before" if back == 1 else f"over the {_count(back, unit)} before"


def _explain(changes: pd.DataFrame, unit: str) -> str:
    """Say what the columns of the table by series are."""
    known = changes.dropna(subset=["before"])
    if known.empty:
        return ""
    return f"Means of the forecast, and of the values {_period(known, unit)}."


def _by_series(changes: pd.DataFrame) -> pd.DataFrame:
    """Return the table by series, with the change in percent where that has a meaning."""
    table = changes[["series_id", "variable", "last", "before", "forecast"]].copy()
    table.columns = pd.Index(["series", "variable", "last value", "mean before", "mean forecast"])
    sensible = (changes["least"] >= 0) & (changes["before"] > 0)
    ratio = changes["forecast"] / changes["before"].where(sensible)
    table["change in %"] = (100 * (ratio - 1)).round(1)
    if changes["variable"].nunique() == 1:
        table = table.drop(columns="variable")
    return table


def _intervals(forecast: pd.DataFrame) -> list[str]:
    """Say how wide the widest interval is."""
    levels = {round(float(c[1:]), 6): c for c in map(str, forecast.columns) if c.startswith("q0.")}
    pairs = [(q, levels[round(1 - q, 6)]) for q in levels if q < 0.5 and round(1 - q, 6) in levels]
    if not pairs:
        return []
    low, upper = min(pairs)
    width = float((forecast[upper] - forecast[levels[low]]).mean())
    return [
        f"The model expects {100 * (1 - 2 * low):g} of 100 values within the shaded band between "
        f"the quantiles {low:g} and {1 - low:g}, which is {number(width)} wide on average."
    ]


def _trust(summary: dict[str, Any]) -> list[str]:
    """State the error on held-out windows of a combination, and what its language model added."""
    sentences = []
    error = summary.pop("error", None)
    if error is not None:
        sentences.append(
            f"On {summary.get('windows')} windows of the past, which it had not seen, the mean "
            f"absolute scaled error was {error:.3g}: below 1 is better than the usual error of "
            "repeating the last season."
        )
    if "language_model" in summary:
        said = str(summary.pop("language_model"))
        sentences.append(f"{said[0].upper()}{said[1:]}.")
    return sentences


def _pictures(
    tables: ForecastTables, changes: pd.DataFrame, variables: Sequence[str]
) -> tuple[list[Picture], str]:
    """Draw a forecast large, or several small, those with the largest values first."""
    place = changes["forecast"].abs().sort_values(ascending=False, kind="stable").index
    chosen = changes.loc[sorted(place[:MAX_PICTURES])]
    alone = len(changes) == 1
    pictures = []
    for row in chosen.to_dict("records"):
        name = f"{row['series_id']}: {row['variable']}" if len(variables) > 1 else row["series_id"]
        figure = partial(_draw, tables, row["series_id"], row["variable"])
        label = f"History and forecast of {name}"
        pictures.append(Picture(figure, label) if alone else Picture(figure, label, wide=None))
    what = "series" if len(variables) == 1 else "pairs of series and variable"
    if len(chosen) == len(changes):
        return pictures, ""
    return pictures, (
        f"{len(chosen)} of {len(changes):,} {what} are drawn: those with the largest forecasts."
    )


def _draw(
    tables: ForecastTables, series_id: object, variable: str, size: tuple[float, float]
) -> Any:
    """Draw one series and variable in a size."""
    ax = axes_of(size)
    draw_forecast(ax, tables, series_id, variable)
    legend_below(ax)
    return ax.figure
