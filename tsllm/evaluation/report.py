"""Reports of backtests: tables, paired differences, files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout, WindowSet
from tsllm.evaluation.paired import PairedDifference, estimate
from tsllm.evaluation.scoring import average, weighted_mean


def plain(value: Any) -> Any:
    """Turn a value into one that JSON knows; NaN and infinities become None."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    return str(value)


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a table into records of plain values; see `plain`."""
    return [
        {str(column): plain(value) for column, value in row.items()}
        for row in frame.to_dict("records")
    ]


def shown(value: Any) -> str:
    """Write a cell of a table: four digits of a number; nothing for None and NaN."""
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return ""
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
    return "" if value is None else str(value)


def bounds(value: Any, lower: Any, upper: Any, *, percent: bool = False) -> str:
    """Write a difference with its interval; shares in percent."""
    if value is None or math.isnan(value):
        return ""
    factor, digits, unit = (100, 1, " %") if percent else (1, 4, "")
    text = f"{factor * value:+.{digits}f}{unit}"
    if lower is None or math.isnan(lower):
        return text
    return f"{text} [{factor * lower:+.{digits}f}, {factor * upper:+.{digits}f}]"


def cost(value: Any) -> str:
    """Write a cost for people."""
    if value is None or math.isnan(value):
        return ""
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_page(title: str, parts: Sequence[str], notes: Sequence[str]) -> str:
    """Put a report together."""
    return "\n\n".join([f"# {title}", *parts, *(f"Note: {note}." for note in notes)]) + "\n"


#: What `paired` is told for the mean over all horizons.
ALL_HORIZONS = "all"


@dataclass
class MethodRun:
    """What one method scored, seed by seed.

    Attributes
    ----------
    windows : int array (windows,)
        Which of the test windows it forecast.
    totals : array (seeds, 2, metrics, windows, horizons, variables)
        Sums of errors and of their weights, see `Scorer.score`.
    steps : array (seeds, 2, metrics, longest horizon, variables)
        The same over the windows, step by step.
    fit_seconds, predict_seconds : float
        Means over the seeds.
    context_length : int or None
        Steps that the method looks back on; None: all that it is given.
    backbone : str or None
        Its language model.
    """

    windows: np.ndarray
    totals: np.ndarray
    steps: np.ndarray
    fit_seconds: float
    predict_seconds: float
    context_length: int | None
    backbone: str | None


@dataclass
class BacktestReport:
    """What `backtest` found.

    Attributes
    ----------
    table : DataFrame
        One row per method and horizon: the number of ``windows``, what they were ``scored_on``, the
        metrics, their standard deviation over seeds (``mse_sd``, where there is more than one), and
        the lookback, the backbone and the seconds. "all": every window of the test part. "common":
        the windows that the slow methods were run on; there every method has a row, so that all are
        compared on the same windows.
    per_series : DataFrame
        The metrics by method, series and horizon, on the method's own windows.
    per_step : DataFrame
        The metrics by method and step of the horizon, on the method's own windows.
    settings : dict
        The protocol: sizes, horizons, stride, units.
    notes : list of str
        What a reader of the table must know.
    """

    table: pd.DataFrame
    per_series: pd.DataFrame
    per_step: pd.DataFrame
    settings: dict[str, Any]
    notes: list[str]
    _runs: dict[str, MethodRun] = field(repr=False)
    _windows: WindowSet = field(repr=False)

    def paired(
        self,
        method_a: str,
        method_b: str,
        metric: str = "mse",
        *,
        horizon: int | str | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> PairedDifference:
        """Compare two methods window by window, with a block-bootstrap interval.

        Forecasts from neighbouring origins share most of their steps, so whole blocks of origins
        are drawn; see `tsllm.evaluation.paired.estimate`. Where the methods were run with several
        seeds, the interval covers these, too.

        Parameters
        ----------
        method_a, method_b : str
            Names in the table.
        metric : str
            One of the backtest's metrics.
        horizon : int or "all", optional
            None: the longest. "all": the mean over all horizons, on the windows that have the
            longest.
        confidence : float
            Of the interval.
        seed : int
            Of the bootstrap.

        Returns
        -------
        PairedDifference

        Raises
        ------
        DataError
            A name, metric or horizon that the backtest does not have.
        """
        metrics, horizons = self.settings["metrics"], self.settings["horizons"]
        horizon = max(horizons) if horizon is None else horizon
        for name, value, known in (
            ("method_a", method_a, list(self._runs)),
            ("method_b", method_b, list(self._runs)),
            ("metric", metric, metrics),
            ("horizon", horizon, [*horizons, ALL_HORIZONS]),
        ):
            if value not in known:
                raise DataError(
                    f"{name} must be among {', '.join(map(str, known))}, found {value!r}"
                )
        every = horizon == ALL_HORIZONS
        longest = max(horizons) if every else int(horizon)
        runs = [self._runs[method_a], self._runs[method_b]]
        shared = np.intersect1d(runs[0].windows, runs[1].windows)
        shared = shared[self._windows.reach[shared] >= longest]
        m = metrics.index(metric)
        own = slice(None) if every else [horizons.index(horizon)]
        # (seeds, 2, windows, horizons, variables) each
        pair = [
            run.totals[:, :, m, np.searchsorted(run.windows, shared)][:, :, :, own] for run in runs
        ]
        if any((one[:, 1].sum() == 0) for one in pair):
            missing = method_a if pair[0][:, 1].sum() == 0 else method_b
            raise DataError(f"{missing!r} has no {metric!r}: it forecasts no quantiles")
        found = estimate(
            metric,
            *pair,
            series=self._windows.series[shared],
            when=self._windows.when[shared],
            horizon=longest,
            confidence=confidence,
            seed=seed,
        )
        (difference, relative), (lower, relative_lower), (upper, relative_upper) = (
            bounds.tolist() for bounds in (found.value, found.lower, found.upper)
        )
        return PairedDifference(
            method_a,
            method_b,
            metric,
            horizon,
            difference,
            lower,
            upper,
            confidence,
            len(shared),
            found.block_length,
            relative,
            relative_lower,
            relative_upper,
            found.unit,
            found.blocks,
            found.seeds,
        )

    def over_horizons(self, method: str) -> dict[str, float]:
        """Give a method's metrics, means over the horizons, on its windows that have the longest.

        With their number, and the metrics' deviation over seeds where there is more than one.
        """
        run, names = self._runs[method], self.settings["metrics"]
        used = run.windows[self._windows.reach[run.windows] == max(self.settings["horizons"])]
        at = np.searchsorted(run.windows, used)
        out: dict[str, float] = {"windows": len(used)}
        for m, name in enumerate(names):
            # (seeds, 2, windows, horizons, variables) to (seeds, 2, horizons, variables)
            sums = run.totals[:, :, m, at].sum(axis=2)
            values = weighted_mean(name, sums[:, 0], sums[:, 1]).mean(axis=-1)  # (seeds,)
            out[name] = float(values.mean())
            if len(values) > 1:
                out[f"{name}_sd"] = float(values.std(ddof=1))
        return out

    def run_of(self, method: str) -> MethodRun:
        """Give what one method scored, window by window and seed by seed."""
        return self._runs[method]

    def to_json(self) -> str:
        """Write everything but the windows as JSON; NaN becomes null."""
        document: dict[str, Any] = {"settings": self.settings, "notes": self.notes}
        for name in ("table", "per_series", "per_step"):
            document[name] = plain_rows(getattr(self, name))
        return json.dumps(document, indent=1, allow_nan=False, default=plain)

    def to_markdown(self) -> str:
        """Write the protocol, the table and the notes as Markdown."""
        lines = [_describe(self.settings)]
        for scored_on, rows in self.table.groupby("scored_on", sort=False):
            if scored_on == "common":
                lines.append("The same windows for every method:")
            frame = rows.drop(columns="scored_on").dropna(axis=1, how="all")
            cells = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
            lines.append(markdown_table(list(frame.columns), cells))
        lines += [f"Note: {note}." for note in self.notes]
        return "\n\n".join(lines) + "\n"


def make_report(
    runs: dict[str, MethodRun],
    windows: WindowSet,
    holdout: Holdout,
    settings: dict[str, Any],
    notes: list[str],
) -> BacktestReport:
    """Average the scores of all methods into tables."""
    sets = {"all": np.arange(len(windows))}
    common = min((run.windows for run in runs.values()), key=len)
    if len(common) < len(windows):
        sets["common"] = common
    table, per_series, per_step = [], [], []
    for scored_on, chosen in sets.items():
        for h, horizon in enumerate(settings["horizons"]):
            used = chosen[windows.reach[chosen] >= horizon]
            for name, run in runs.items():
                if np.isin(used, run.windows).all():
                    table.append(
                        {
                            "method": name,
                            "horizon": horizon,
                            "windows": len(used),
                            "scored_on": scored_on,
                            **_metrics(run, h, used, settings["metrics"], spread=True),
                            "seeds": len(run.totals),
                            "context_length": run.context_length,
                            "backbone": run.backbone,
                            "fit_seconds": run.fit_seconds,
                            "predict_seconds": run.predict_seconds,
                        }
                    )
    for name, run in runs.items():
        for h, horizon in enumerate(settings["horizons"]):
            used = run.windows[windows.reach[run.windows] >= horizon]
            for i, context in enumerate(holdout.contexts):
                own = used[windows.series[used] == i]
                if len(own):
                    per_series.append(
                        {
                            "method": name,
                            "series_id": "series"
                            if context.series_id is None
                            else context.series_id,
                            "horizon": horizon,
                            "windows": len(own),
                            **_metrics(run, h, own, settings["metrics"]),
                        }
                    )
        reach = windows.reach[run.windows]
        for step in range(run.steps.shape[3]):
            count = int((reach > step).sum())
            by_metric = {
                metric: float(
                    np.mean([average(metric, seed[:, m, step, None]) for seed in run.steps])
                )
                for m, metric in enumerate(settings["metrics"])
            }
            per_step.append({"method": name, "step": step + 1, "windows": count, **by_metric})
    return BacktestReport(
        pd.DataFrame(table),
        pd.DataFrame(per_series),
        pd.DataFrame(per_step),
        settings,
        notes,
        runs,
        windows,
    )


def _metrics(
    run: MethodRun, h: int, used: np.ndarray, names: Sequence[str], *, spread: bool = False
) -> dict[str, float]:
    """Average every metric over some of a method's windows: means over seeds, their deviations."""
    at = np.searchsorted(run.windows, used)
    out: dict[str, float] = {}
    for m, name in enumerate(names):
        values = [average(name, seed[:, m, at, h]) for seed in run.totals]
        out[name] = float(np.mean(values))
        if spread and len(values) > 1:
            out[f"{name}_sd"] = float(np.std(values, ddof=1))
    return out


def _describe(settings: dict[str, Any]) -> str:
    """Say the protocol in a sentence or two."""
    units = (
        "mse, mae, crps and width in standard deviations of each variable's training part"
        if settings["scaled"]
        else "values in their own units"
    )
    interval = settings["interval"]
    held = f"; intervals hold {100 * interval:g} %" if interval else ""
    refit = settings["refit"]
    fitted = f"refitted every {refit} windows" if refit else "fitted once"
    return (
        f"{settings['series']} series of {settings['variables']} variable(s), test part "
        f"{settings['test_steps']} steps a series, stride {settings['stride']}, {fitted}, season "
        f"{settings['season']}; {units}{held}."
    )
