"""The report of a backtest: tables, forecasts, paired differences, JSON, Markdown, a plot."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsllm.errors import DataError
from tsllm.evaluation.documents import plain, plain_rows, render, shown, table_parts
from tsllm.evaluation.holdout import Holdout, WindowSet
from tsllm.evaluation.kept_forecasts import KeptForecasts, Observed, forecasts_to_frame, observe
from tsllm.evaluation.paired import PairedDifference, estimate
from tsllm.evaluation.scoring import average, weighted_mean
from tsllm.pages.notebook import piece

#: The horizon of `BacktestReport.paired` that means the mean over all horizons.
ALL_HORIZONS = "all"


@dataclass
class MethodRun:
    """The scores of one method, per seed."""

    #: (windows,): The test windows that it forecast.
    windows: np.ndarray
    #: (seeds, 2, metrics, windows, horizons, variables): Sums of errors and of their weights, see
    #: `Scorer.score`.
    totals: np.ndarray
    #: (seeds, 2, metrics, longest horizon, variables): sums over the windows, by step.
    steps: np.ndarray
    #: Means over the seeds.
    fit_seconds: float
    predict_seconds: float
    #: Steps of history that the method reads; None: all.
    context_length: int | None
    #: Its language model.
    backbone: str | None
    #: Other series that it has learnt from.
    pretrained_on: str | None
    forecasts: KeptForecasts


@dataclass(repr=False)
class BacktestReport:
    """The results of `backtest`.

    Attributes
    ----------
    table : DataFrame
        One row per method and horizon: the number of ``windows``, ``scored_on``, the metrics, their
        standard deviation over several seeds (``mse_sd``), the context length, the backbone, the
        other series that the method was pretrained on, and the seconds. ``scored_on`` "all" means
        every window of the test part; "common" means the windows of the slow methods, where every
        method has a row.
    per_series : DataFrame
        The metrics by method, series and horizon, on the method's own windows.
    per_step : DataFrame
        The metrics by method and step of the horizon, on the method's own windows.
    settings : dict
        The protocol: sizes, horizons, stride, units.
    notes : list of str
        Restrictions that a reader of the table must know.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import backtest
    >>> report = backtest(
    ...     {}, load_airline(), horizons=12, test_size=24, baselines=["seasonal_naive"]
    ... )
    >>> report.forecasts[["method", "cutoff", "step", "timestamp", "forecast", "actual"]].tail(1)
                 method   cutoff  step timestamp  forecast  actual
    155  seasonal_naive  1959-12    12   1960-12     405.0   432.0
    """

    table: pd.DataFrame
    per_series: pd.DataFrame
    per_step: pd.DataFrame
    settings: dict[str, Any]
    notes: list[str]
    _runs: dict[str, MethodRun] = field(repr=False)
    _windows: WindowSet = field(repr=False)
    _observed: list[Observed] = field(repr=False)
    _variables: list[str] = field(repr=False)

    def __str__(self) -> str:
        """Write the protocol, the errors of each method and the notes as text."""
        parts = [_protocol(self.settings)]
        for scored_on, rows in self.table.groupby("scored_on", sort=False):
            if scored_on == "common":
                parts.append("the same windows for every method:")
            parts.append(_as_text(rows, self.settings["metrics"]))
        parts += [f"note: {note}" for note in self.notes]
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = {
            "" if scored_on == "all" else "the same windows for every method": rows.drop(
                columns="scored_on"
            ).dropna(axis=1, how="all")
            for scored_on, rows in self.table.groupby("scored_on", sort=False)
        }
        return piece(_protocol(self.settings), tables, self.notes)

    @property
    def variables(self) -> list[str]:
        """Return the names of the variables."""
        return list(self._variables)

    @property
    def forecasts(self) -> pd.DataFrame:
        """Return the forecasts themselves, with the values that came.

        Returns
        -------
        DataFrame
            A row per method, series, window, variable and step: ``method, series_id``, with several
            variables ``variable``, then ``cutoff`` (the last time that the method knew), ``step``
            (1 is the first after it), ``timestamp``, ``forecast``, the quantiles ``q0.1, ...``
            where any were scored (NaN of a method without them), and ``actual`` (NaN where it is
            not observed). Of several seeds, the first one's.

        Warns
        -----
        UserWarning
            There were too many to keep them all (four million values of a method): the rows are
            those of some windows of each series, evenly spaced, the last one included.
        """
        kept = {name: run.forecasts for name, run in self._runs.items()}
        some = [n for n, run in self._runs.items() if len(run.windows) > len(kept[n].windows)]
        if some:
            run = self._runs[some[0]]
            warnings.warn(
                f"the report keeps the forecasts of {len(kept[some[0]].windows):,} of the "
                f"{len(run.windows):,} windows of {some[0]!r}, evenly spaced: for more of them, "
                "backtest fewer series, or with a larger stride",
                stacklevel=2,
            )
        return forecasts_to_frame(
            kept,
            self._windows,
            self._observed,
            self._variables,
            [f"q{level:g}" for level in self.settings["quantiles"]],
        )

    def plot(
        self,
        *,
        methods: Sequence[str] | None = None,
        series: Sequence[object] | None = None,
        variables: Sequence[str] | None = None,
        windows: int = 3,
        most: int = 6,
    ) -> Any:
        """Draw forecasts against what came, one picture per series and variable.

        Parameters
        ----------
        methods : sequence of str or None, default=None
            Names in the table; the first one's interval is drawn too. None: the first method and
            the other with the smallest error.
        series, variables : sequence or None, default=None
            Those to draw. None: all, as far as ``most`` allows.
        windows : int, default=3
            Windows to draw of each series: the last ones that do not overlap and that all methods
            have forecast.
        most : int, default=6
            Pictures to draw; a line below tells how many more there are.

        Returns
        -------
        matplotlib Figure

        Raises
        ------
        DataError
            A method, a series or a variable is not in the backtest.
        ImportError
            matplotlib is not installed.
        """
        from tsllm.plotting.backtests import plot_backtest

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # some windows are enough to draw
            forecasts = self.forecasts
        past = [
            pd.DataFrame(one.values, columns=self._variables).assign(timestamp=one.times)
            for one in self._observed
        ]
        observed = pd.concat(past, ignore_index=True)
        names = [name for one in self._observed for name in [one.series_id] * len(one.times)]
        observed["series_id"] = pd.Series(names, dtype=object)
        return plot_backtest(
            observed,
            forecasts,
            methods=self._best() if methods is None else methods,
            series=series,
            variables=variables,
            windows=windows,
            most=most,
        )

    def _best(self) -> list[str]:
        """Return the first method, and the other with the smallest error."""
        table = self.table[self.table["horizon"] == max(self.settings["horizons"])]
        # Where a method has few windows, all are compared on those.
        table = table[table["scored_on"] == table["scored_on"].iloc[-1]]
        errors = [m for m in self.settings["metrics"] if m != "coverage"]
        ranked = table.sort_values(errors[:1], kind="stable")["method"].tolist()
        first = next(iter(self._runs))
        return [first, *(name for name in ranked if name != first)][:2]

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

        Neighbouring origins share most of their forecast steps, so whole blocks of origins are
        drawn; see `tsllm.evaluation.paired.estimate`. With several seeds, the interval includes the
        variation over them.

        Parameters
        ----------
        method_a, method_b : str
            Names in the table.
        metric : str, default="mse"
            One of the backtest's metrics.
        horizon : int, "all" or None, default=None
            None: the longest. "all": the mean over all horizons, on windows that have the longest.
        confidence : float, default=0.95
            Of the interval.
        seed : int, default=0
            Of the bootstrap.

        Returns
        -------
        PairedDifference

        Raises
        ------
        DataError
            A name, metric or horizon is not in the backtest.
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
        return found.between(
            method_a, method_b, metric, horizon, confidence=confidence, windows=len(shared)
        )

    def over_horizons(self, method: str) -> dict[str, float]:
        """Return a method's metrics, means over the horizons, on windows that have the longest.

        The dict also has the number of windows and, with several seeds, the metrics' standard
        deviations.
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
        """Return the scores of one method, by window and seed."""
        return self._runs[method]

    def to_json(self) -> str:
        """Write everything but the windows as JSON; NaN becomes null."""
        document: dict[str, Any] = {"settings": self.settings, "notes": self.notes}
        for name in ("table", "per_series", "per_step"):
            document[name] = plain_rows(getattr(self, name))
        return json.dumps(document, indent=1, allow_nan=False, default=plain)

    def to_markdown(self) -> str:
        """Write the protocol, the table and the notes as Markdown."""
        parts = [
            {"scored_on": scored_on}
            | table_parts(rows.drop(columns="scored_on").dropna(axis=1, how="all"))
            for scored_on, rows in self.table.groupby("scored_on", sort=False)
        ]
        return render("backtest.md.jinja", settings=self.settings, parts=parts, notes=self.notes)


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
                            "pretrained_on": run.pretrained_on,
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
        observe(holdout, max(settings["horizons"])),
        [str(column) for column in holdout.layout.columns],
    )


def _protocol(settings: dict[str, Any]) -> str:
    """Describe a backtest in a sentence or two."""
    horizons = ", ".join(map(str, settings["horizons"]))
    text = (
        f"Backtest of {settings['series']} series, {settings['variables']} variable(s): horizons "
        f"{horizons}; test part {settings['test_steps']} steps a series, stride "
        f"{settings['stride']}"
    )
    if settings["scaled"]:
        text += "; mse, mae, crps and width in standard deviations of the training part"
    if settings["interval"] is not None:
        text += f"; intervals hold {100 * settings['interval']:g} %"
    return f"{text}."


def _as_text(rows: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Write errors and seconds of methods as text; the table has more columns."""
    names = ["method", "horizon", "windows"]
    names += [f"{m}{end}" for m in metrics for end in ("", "_sd") if f"{m}{end}" in rows.columns]
    table = rows[names].assign(seconds=rows["fit_seconds"] + rows["predict_seconds"])
    table = table.dropna(axis=1, how="all").map(shown)
    table["method"] = table["method"].str.ljust(int(table["method"].str.len().max()))
    return table.to_string(index=False)


def _metrics(
    run: MethodRun, h: int, used: np.ndarray, names: Sequence[str], *, spread: bool = False
) -> dict[str, float]:
    """Average every metric over some of a method's windows: mean and deviation over seeds."""
    at = np.searchsorted(run.windows, used)
    out: dict[str, float] = {}
    for m, name in enumerate(names):
        values = [average(name, seed[:, m, at, h]) for seed in run.totals]
        out[name] = float(np.mean(values))
        if spread and len(values) > 1:
            out[f"{name}_sd"] = float(np.std(values, ddof=1))
    return out
