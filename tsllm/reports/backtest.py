"""The page of a backtest: which method forecasts best, by how much, and how sure that is."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from tsllm.evaluation.paired import PairedDifference
from tsllm.evaluation.report import ALL_HORIZONS, BacktestReport
from tsllm.pages.cells import number
from tsllm.pages.page import Page, Table
from tsllm.pages.pictures import Picture
from tsllm.reports.settings import settings_to_show, without_times

#: The errors that a verdict may be about, the plainest first.
_ERRORS = {
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "mase": "mean absolute scaled error",
    "smape": "percentage error",
    "crps": "error of its quantiles (CRPS)",
    "wql": "weighted quantile loss",
}
#: The most series and variables that are drawn on a page.
MAX_PICTURES = 8
#: Differences below this share are not told apart in words.
_SMALL = 0.0005


def report_backtest(
    report: BacktestReport,
    *,
    title: str = "Backtest",
    settings: Mapping[str, Any] | None = None,
) -> Page:
    """Make the page of a backtest.

    The verdict compares the method with the smallest error with the first method of the backtest,
    or where this is the first one, with the next best. It calls a difference clear where the 95 %
    interval of `BacktestReport.paired` excludes zero.

    Parameters
    ----------
    report : BacktestReport
        From `tsllm.backtest`.
    title : str, default="Backtest"
        The name of the page.
    settings : mapping or None, default=None
        More settings to list, beside the report's.

    Returns
    -------
    Page

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import backtest
    >>> report = backtest(
    ...     {}, load_airline(), horizons=[1, 12], test_size=24, baselines=["seasonal_naive"]
    ... )
    >>> report_backtest(report).verdict
    'seasonal_naive has a mean absolute error of 49.57 on 24 windows of 1 series.'
    """
    metric = next((name for name in _ERRORS if name in report.settings["metrics"]), None)
    ranked = None if metric is None else _rank(report, metric)
    pictures, note = _pictures(report)
    return Page(
        title,
        *_verdict(report, metric, ranked),
        pictures=pictures,
        pictures_note=note,
        tables=_tables(report, metric),
        notes=report.notes,
        settings=settings_to_show({**(settings or {}), **report.settings}),
    )


def _rank(report: BacktestReport, metric: str) -> pd.Series:
    """Return the error of each method over all horizons, on windows of all, the best first."""
    table = report.table
    table = table[table["scored_on"] == table["scored_on"].iloc[-1]]
    errors = table.groupby("method", sort=False)[metric].mean()
    return errors.sort_values(kind="stable").dropna()


def _verdict(
    report: BacktestReport, metric: str | None, ranked: pd.Series | None
) -> tuple[str, list[str]]:
    """Return the verdict in one sentence, and those that explain it."""
    first = str(report.table["method"].iloc[0])
    windows, series = int(report.table["windows"].max()), report.settings["series"]
    where = f"on {windows:,} windows of {series:,} series"
    if metric is None or ranked is None or ranked.empty:
        return f"{first} was tested {where}.", []
    error, best = _ERRORS[metric], str(ranked.index[0])
    held = _held(report, best)
    if len(ranked) == 1:
        return f"{best} has a {error} of {number(ranked.iloc[0])} {where}.", held
    other = first if best != first and first in ranked.index else str(ranked.index[1])
    horizons = report.settings["horizons"]
    pair = report.paired(
        best, other, metric, horizon=ALL_HORIZONS if len(horizons) > 1 else horizons[0]
    )
    percent = f"{100 * abs(pair.relative):.1f} %"
    small = math.isnan(pair.relative) or abs(pair.relative) < _SMALL
    if small:
        said = f"{best} and {other} are the best here, with the same {error}."
    elif math.isnan(pair.relative_lower):
        said = (
            f"{best} has the smallest {error} here, {percent} less than {other}, on a test part "
            "too short to tell whether that is chance."
        )
    elif pair.relative_upper < 0:
        said = (
            f"{best} forecasts best here: its {error} is {percent} smaller than that of {other}"
            + (", the next best." if other == str(ranked.index[1]) else ".")
        )
    else:
        said = (
            f"{best} has the smallest {error} here, {percent} less than {other}, but that may be "
            "chance."
        )
    return said, [*_sure(pair, where), *held]


def _sure(pair: PairedDifference, where: str) -> list[str]:
    """State the interval of a difference."""
    if math.isnan(pair.relative_lower):
        return [f"The methods were compared {where}."]
    return [
        f"The methods were compared {where}: with {100 * pair.confidence:g} % confidence, the "
        f"error of {pair.method_a} is {_span(pair)} than that of {pair.method_b}."
    ]


def _span(pair: PairedDifference) -> str:
    """Write an interval in words: "2.0 % to 8.0 % smaller", "1.0 % smaller to 3.0 % larger"."""
    ends = [100 * pair.relative_lower, 100 * pair.relative_upper]
    if ends[1] < 0:
        return f"{-ends[1]:.1f} % to {-ends[0]:.1f} % smaller"
    return " to ".join(f"{abs(end):.1f} % {'smaller' if end < 0 else 'larger'}" for end in ends)


def _held(report: BacktestReport, method: str) -> list[str]:
    """State how many values the intervals of a method held."""
    interval, table = report.settings["interval"], report.table
    if interval is None or "coverage" not in table:
        return []
    found = table.loc[table["method"] == method, "coverage"].mean()
    if math.isnan(found):
        return []
    return [
        f"Of the values that came, {100 * found:.0f} % lie in the {100 * interval:g} % intervals "
        f"of {method}."
    ]


def _pictures(report: BacktestReport) -> tuple[list[Picture], str]:
    """Draw the forecasts of the first series, and say how many there are."""
    names = list(report.per_series["series_id"].unique())
    variables = report.variables
    pairs = [(name, variable) for name in names for variable in variables]
    pictures = [
        Picture(
            partial(_draw, report, name, variable),
            f"Forecasts of {name}, {variable}, beside the values that came",
            wide=None,
            narrow=(6.0, 3.6),
        )
        for name, variable in pairs[:MAX_PICTURES]
    ]
    note = "Forecasts of the last windows, beside the values that came."
    if len(pairs) > MAX_PICTURES:
        what = "series" if len(variables) == 1 else "pairs of series and variable"
        note += f" The first {MAX_PICTURES} of {len(pairs):,} {what} are drawn."
    return pictures, note


def _draw(report: BacktestReport, series: object, variable: str, _: tuple[float, float]) -> Any:
    """Draw one series; the size is that of all plots of the report."""
    return report.plot(series=[series], variables=[variable])


def _tables(report: BacktestReport, metric: str | None) -> list[Table]:
    """Return the errors of all methods, then by series."""
    own = report.table.drop(columns="scored_on")
    tables = []
    titles = {
        "all": ("Errors", ""),
        "common": (
            "Errors on the same windows",
            "Slow methods forecast fewer windows; here every method is scored on those.",
        ),
    }
    for scored_on, place in report.table.groupby("scored_on", sort=False).groups.items():
        rows = own.loc[place].dropna(axis=1, how="all")
        title, note = titles[str(scored_on)]
        tables.append(Table(title, without_times(rows), note))
    by_series = report.per_series
    if by_series["series_id"].nunique() > 1:
        tables.append(Table("By series", by_series.dropna(axis=1, how="all")))
    by_step = report.per_step
    if metric is not None and by_step["step"].nunique() > 1:
        wide = by_step.pivot(index="step", columns="method", values=metric)
        wide = wide[list(by_step["method"].unique())].reset_index()
        tables.append(Table(f"{_ERRORS[metric].capitalize()} by step", wide))
    return tables
