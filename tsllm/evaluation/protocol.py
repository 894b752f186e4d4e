"""Rolling-origin backtests: the plan of the windows, and the run over them."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import Limits, check_call, check_level_count
from tsllm.datasets.checks import series_name
from tsllm.datasets.indexed import index_tables
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout, WindowSet, hold_out, list_windows
from tsllm.evaluation.kept_forecasts import KeptForecasts, choose_kept
from tsllm.evaluation.methods import (
    DEFAULT_BASELINES,
    NAMED,
    GlobalMethod,
    Method,
    make_method,
    with_controls,
)
from tsllm.evaluation.progress import Progress, Task, duration
from tsllm.evaluation.report import BacktestReport, MethodRun, make_report
from tsllm.evaluation.scoring import Scorer
from tsllm.forecasters.floors import at_or_above
from tsllm.forecasters.parameters import MAX_STEPS

#: The largest number of values in a batch of windows, which limits memory.
BATCH_VALUES = 8_000_000

#: The largest number of windows in a batch.
MAX_BATCH = 512


@dataclass(frozen=True)
class Plan:
    """The data, windows and settings that all methods of a backtest share."""

    holdout: Holdout
    #: Of the test parts.
    windows: WindowSet
    scorer: Scorer
    #: The arguments of `backtest` and the sizes of the data, as plain values.
    settings: dict[str, Any]
    progress: bool

    def method(self, named: Any) -> Method:
        """Make the method of a baseline's name or of a forecaster."""
        settings = self.settings
        return make_method(
            named,
            self.holdout,
            longest=settings["horizons"][-1],
            max_history=settings["max_history"],
            time_limit=settings["time_limit"],
        )


_COUNT = Limits(1, 1_000_000_000)
#: What the numbers among the arguments of `backtest` and `ablate` may be, by name.
LIMITS: dict[str, Limits] = {
    "horizons": Limits(1, MAX_STEPS),
    **dict.fromkeys(("test_size", "train_size", "validation_size", "stride", "refit"), _COUNT),
    **dict.fromkeys(("max_windows", "max_history"), _COUNT),
    "season": Limits(1, MAX_STEPS),
    "test_fraction": Limits(0, 1, whole=False, above=True, below=True),
    "seeds": Limits(0, 2**32 - 1),
    "min_difference": Limits(0, 1, whole=False, below=True),
    "confidence": Limits(0, 1, whole=False, above=True, below=True),
    "time_limit": Limits(0, whole=False, above=True),
}
#: Windows of each series after which the time of a method that is fitted at each is estimated.
MEASURED_WINDOWS = 2


def backtest(
    estimators: Any,
    y: Any,
    *,
    horizons: int | Sequence[int],
    X: Any = None,
    test_size: int | None = None,
    test_fraction: float | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    stride: int = 1,
    refit: int | bool = False,
    quantiles: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    baselines: Sequence[str] = DEFAULT_BASELINES,
    metrics: Sequence[str] | None = None,
    scaled: bool = False,
    season: int | None = None,
    seeds: Sequence[int] | None = None,
    max_windows: int | None = 20,
    max_history: int | None = 512,
    time_limit: float | None = None,
    freq: str | None = None,
    progress: bool = False,
) -> BacktestReport:
    """Evaluate forecasters and baselines on every origin of a test part.

    The last part of each series is held out. Methods are fitted on the steps before it. They then
    forecast from every ``stride``-th step of the test part and read only the steps before that
    origin. For a horizon ``h``, every such origin with ``h`` remaining steps counts; none is
    dropped. All horizons are scored on one forecast of the longest horizon.

    tsllm forecasters are fitted once and forecast in batches. Other sktime forecasters and the
    statistical baselines (AutoETS, Theta, FLAIR) are fitted at every window, and Fracast takes as
    long, so they run on ``max_windows`` evenly spaced windows of each series. The table then scores
    every method on those windows as well. An estimator with in-context series also runs without
    them.

    Parameters
    ----------
    estimators : forecaster, or dict of str to forecaster
        tsllm or sktime forecasters; they are cloned. May be an empty dict.
    y : Series, DataFrame, or table of polars or Arrow
        As in sktime's ``fit``, panels too, or a long frame of `tsllm.datasets.read_long`.
    horizons : int or sequence of int
        Steps.
    X : DataFrame or None, default=None
        Covariates in the form of ``y``, for tsllm's forecasters. Each also runs without them;
        baselines and other forecasters never read them. The future of a window is the observed one,
        even where only a forecast would have been known. The future of ``past_covariates`` is not
        shown.
    test_size : int or None, default=None
        Steps of each series' test part.
    test_fraction : float or None, default=None
        Share of each series in its test part; 0.2 where neither is given.
    train_size, validation_size : int or None, default=None
        Steps of each series for training and, after them, for validation. They fix a published
        split exactly: ETTh1's is 8640, 2880 and a ``test_size`` of 2880. Steps after the three
        parts are not used. tsllm forecasters get ``validation_size`` as their
        ``validation_fraction``.
    stride : int, default=1
        Steps between origins.
    refit : False or int, default=False
        False: fit once. ``k``: refit every ``k`` windows on all earlier steps.
    quantiles : sequence of float, default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        Levels to score, ascending; coverage and width use the outermost two. Empty: only point
        forecasts.
    baselines : sequence of str, default=DEFAULT_BASELINES
        Among "seasonal_naive", "auto_ets", "theta", "auto_theta", "zero_shot", "linear", "dlinear",
        "patchtst", and with the extra ``tsllm[baselines]`` "flair", "fracast" and "lightgbm". The
        default is "seasonal_naive", "auto_ets", "theta", "dlinear" and "patchtst". Counts have a
        floor at zero, as with ``floor="auto"`` of tsllm's forecasters; an estimator of sktime has
        none.
    metrics : sequence of str or None, default=None
        Among "mse", "mae", "mase", "smape", "wql", "crps", "coverage" and "width"; see
        `tsllm.metrics`. None: all that ``quantiles`` allow.
    scaled : bool, default=False
        The published long-horizon protocol: divide mse, mae, crps and width by each variable's
        standard deviation in the training part. Methods read the values as they are.
    season : int or None, default=None
        Steps of a season, for MASE and the statistical baselines. None: from the frequency.
    seeds : sequence of int or None, default=None
        Fit each method that has a ``random_state`` once per seed; the table has means and standard
        deviations. None: fit once, with the estimator's own ``random_state``.
    max_windows : int or None, default=20
        Windows of each series for methods that are fitted at each window. None: all.
    max_history : int or None, default=512
        Steps before the origin that those methods are fitted on. None: all. FLAIR always reads all
        of them, Fracast the last 2,048.
    time_limit : float or None, default=None
        Seconds for each baseline, and for each other method that is fitted at every window. A
        method whose time is over forecasts fewer windows, spread over the test part and at least
        one; a training ends early and keeps its best epoch. A note says so. Results then depend on
        the speed of the machine. None: no limit.
    freq : str or None, default=None
        Frequency of the series, where the index does not determine it.
    progress : bool, default=False
        Show the expected time and the progress of each method on stderr: bars on a terminal, else
        lines every 30 seconds.

    Returns
    -------
    BacktestReport

    Raises
    ------
    DataError
        Arguments contradict each other, every series is too short for them, or a method forecasts
        NaN.

    Warns
    -----
    UserWarning
        Some series are too short for the test part and are left out; the warning and the report's
        ``notes`` name them.

    See Also
    --------
    tsllm.ablate : Measure what the language model contributes.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> report = backtest(
    ...     {}, load_airline(), horizons=[1, 12], test_size=24, baselines=["seasonal_naive"]
    ... )
    >>> report.table[["method", "horizon", "windows", "mae"]].round(1).to_dict("records")
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'method': 'seasonal_naive', 'horizon': 1, 'windows': 24, 'mae': 47.6},
     {'method': 'seasonal_naive', 'horizon': 12, 'windows': 13, 'mae': 51.5}]
    """
    check_call(backtest, locals(), LIMITS)
    y, X = index_tables(y, X)
    check_level_count(quantiles, "quantiles")
    plan = make_plan(
        y,
        X=X,
        horizons=horizons,
        test_size=test_size,
        test_fraction=test_fraction,
        train_size=train_size,
        validation_size=validation_size,
        stride=stride,
        refit=refit,
        quantiles=quantiles,
        metrics=metrics,
        scaled=scaled,
        season=season,
        seeds=seeds,
        max_windows=max_windows,
        max_history=max_history,
        time_limit=time_limit,
        freq=freq,
        progress=progress,
    )
    named = _name_methods(estimators, baselines, X)
    return run_methods(plan, {name: plan.method(one) for name, one in named.items()})


def make_plan(
    y: pd.Series | pd.DataFrame,
    *,
    X: pd.DataFrame | None,
    horizons: int | Sequence[int],
    test_size: int | None,
    test_fraction: float | None,
    train_size: int | None,
    validation_size: int | None,
    stride: int,
    refit: int | bool,
    quantiles: Sequence[float],
    metrics: Sequence[str] | None,
    scaled: bool,
    season: int | None,
    seeds: Sequence[int] | None,
    max_windows: int | None,
    max_history: int | None,
    time_limit: float | None,
    freq: str | None,
    progress: bool,
) -> Plan:
    """Cut the test part and list its windows; the arguments are those of `backtest`."""
    steps = sorted({horizons} if isinstance(horizons, int | np.integer) else set(horizons))
    if not steps:
        raise DataError("horizons is empty: pass at least one number of steps")
    if seeds is not None and len(seeds) == 0:
        raise DataError("seeds is empty: pass at least one, or None")
    holdout = hold_out(
        y,
        steps,
        X=X,
        test_size=test_size,
        test_fraction=test_fraction,
        train_size=train_size,
        validation_size=validation_size,
        season=season,
        freq=freq,
    )
    scorer = Scorer(holdout, steps, metrics, quantiles, scaled)
    test_steps = sorted({int(n) for n in holdout.ends - holdout.borders})
    settings = {
        "horizons": [int(step) for step in steps],
        "metrics": list(scorer.metrics),
        "quantiles": [float(q) for q in quantiles],
        "interval": float(quantiles[-1] - quantiles[0]) if len(quantiles) > 1 else None,
        "series": len(holdout.contexts),
        "variables": holdout.n_variables,
        "freq": holdout.freq,
        "season": holdout.season,
        "test_steps": "-".join(map(str, dict.fromkeys([test_steps[0], test_steps[-1]]))),
        "train_size": train_size,
        "validation_size": validation_size,
        "stride": stride,
        "refit": refit,
        "scaled": scaled,
        "seeds": None if seeds is None else [int(seed) for seed in seeds],
        "max_windows": max_windows,
        "max_history": max_history,
        "time_limit": time_limit,
        "covariates": None if holdout.X is None else list(map(str, holdout.X.columns)),
    }
    return Plan(holdout, list_windows(holdout, steps, stride), scorer, settings, progress)


def run_methods(plan: Plan, methods: Mapping[str, Method]) -> BacktestReport:
    """Fit the methods one after the other, and score their forecasts of the windows.

    Methods that are fitted at every window begin with a few windows, from which their time is
    estimated.
    """
    holdout, windows = plan.holdout, plan.windows
    notes = [holdout.left_out] if holdout.left_out else []
    progress = Progress(plan.progress)
    runs = {name: _Run(name, method, plan) for name, method in methods.items()}
    progress.say(_windows_in_words(plan, runs.values()))
    for run in runs.values():
        run.measure(progress)
    progress.say(_times_in_words(runs.values(), plan.settings["time_limit"]))
    finished: dict[str, MethodRun] = {}
    for name, run in runs.items():
        run.finish(progress)
        finished[name] = run.result()
        notes += run.notes()
    unused = max(len(c) - int(end) for c, end in zip(holdout.contexts, holdout.ends))
    if unused:
        notes.append(f"up to {unused} steps after the test part of a series are not used")
    return make_report(finished, windows, holdout, plan.settings, notes)


def _name_methods(
    estimators: Any, baselines: Sequence[str], X: pd.DataFrame | None
) -> dict[str, Any]:
    """Return every method by its name in the table."""
    if not isinstance(estimators, Mapping):
        estimators = {type(estimators).__name__: estimators}
    named = with_controls(estimators, X)
    texts = [one for one in named.values() if isinstance(one, str)]
    if texts:
        raise DataError(
            f"estimators must be forecasters, found {texts[0]!r}: name baselines in baselines="
        )
    for name in baselines:
        if name in named:
            raise DataError(f"an estimator has the name of the baseline {name!r}: rename it")
        named[name] = name
    if not named:
        raise DataError("there is nothing to evaluate: pass estimators, or baselines")
    return named


class _Run:
    """One method on its windows, once per seed: its scores, and how long it took."""

    def __init__(self, name: str, method: Method, plan: Plan) -> None:
        self.name, self.method, self._plan = name, method, plan
        settings, windows, scorer = plan.settings, plan.windows, plan.scorer
        self.windows = np.arange(len(windows))
        if method.refits_per_window:
            self.windows = windows.thin(settings["max_windows"])
        self.total = len(self.windows)  # of one seed
        self._seeds = (settings["seeds"] if method.takes_seed else None) or [None]
        self._done = 0  # windows, of all seeds
        self._seconds = {"fit": 0.0, "predict": 0.0}
        self._totals: list[np.ndarray] = []
        self._steps: list[np.ndarray] = []
        width = plan.holdout.n_variables * (1 + len(scorer.levels))
        self._kept = KeptForecasts(
            choose_kept(windows, self.windows, width=width, max_windows=settings["max_windows"])
        )
        self._work = self._forecast_all()
        #: Seconds that all windows will take, where that was measured.
        self.expected: float | None = None

    # ------------------------------------------------------------------ the work

    def measure(self, progress: Progress) -> None:
        """Estimate the time of all windows.

        A method that is fitted at every window forecasts the first ones of each series. Of a
        training, the first steps are measured where there is someone to tell.
        """
        seeds = len(self._seeds)
        if not self.method.refits_per_window:
            if progress.shown and isinstance(self.method, GlobalMethod):
                with progress.over(f"{self.name}, first steps", 0):
                    borders = self._plan.holdout.borders
                    once = self.method.expected_seconds(borders, self._seeds[0])
                self.expected = None if once is None else once * seeds
            return
        series = len(np.unique(self._plan.windows.series[self.windows]))
        with progress.over(self.name, self.total * seeds) as task:
            seconds = [0.0]
            for number in range(1, MEASURED_WINDOWS + 1):
                self._advance(task, until=number * series)
                seconds.append(sum(self._seconds.values()))
        # What a method does once, as choosing a form, is not counted for the windows to come.
        each = (seconds[-1] - seconds[-2]) / series
        self.expected = seconds[-1] + each * max(0, self.total * seeds - self._done)

    def finish(self, progress: Progress) -> None:
        """Forecast the windows that are left."""
        with progress.over(self.name, self.total * len(self._seeds), self._done) as task:
            self._advance(task)
        progress.finish(self.name, self._done, self._seconds["fit"], self._seconds["predict"])

    def _advance(self, task: Task, until: float = math.inf) -> None:
        """Forecast further windows until so many are done."""
        while self._done < until:
            count = next(self._work, None)
            if count is None:
                return
            self._done += count
            task.update(count)

    def _forecast_all(self) -> Iterator[int]:
        """Fit and score, and yield the number of windows after each batch."""
        plan, method = self._plan, self.method
        holdout, windows, scorer = plan.holdout, plan.windows, plan.scorer
        longest = int(windows.reach.max())
        for number, seed in enumerate(self._seeds):
            parts: list[np.ndarray] = []
            order: list[np.ndarray] = []
            per_step = np.zeros((2, len(scorer.metrics), longest, holdout.n_variables))
            for ends, stage in _stages(
                holdout, windows, self.windows, plan.settings["refit"], method
            ):
                started = time.perf_counter()
                method.fit(ends, seed)
                self._seconds["fit"] += time.perf_counter() - started
                for batch in _batches(plan, method, stage):
                    scored, by_step = self._score(batch, keep=number == 0)
                    parts.append(scored)
                    per_step[:, :, : by_step.shape[2]] += by_step
                    order.append(batch)
                    yield len(batch)
                    if number == 0 and self._time_is_over():
                        break
            done = np.concatenate(order)
            self.windows = np.sort(done)  # fewer than planned where the time was over
            self._totals.append(np.concatenate(parts, axis=2)[:, :, np.argsort(done)])
            self._steps.append(per_step)

    def _score(self, batch: np.ndarray, *, keep: bool) -> tuple[np.ndarray, np.ndarray]:
        """Forecast a batch of windows of one horizon, and score it; see `Scorer.score`."""
        plan = self._plan
        holdout, windows, scorer = plan.holdout, plan.windows, plan.scorer
        series, origins = windows.series[batch], windows.origin[batch]
        horizon = int(windows.reach[batch[0]])
        started = time.perf_counter()
        forecast = self.method.forecast(series, origins, horizon, scorer.levels)
        if isinstance(self.method, NAMED):
            forecast = _floored(forecast, holdout, series, origins)
        self._seconds["predict"] += time.perf_counter() - started
        actual = np.stack(
            [holdout.contexts[i].values[o : o + horizon] for i, o in zip(series, origins)]
        )
        _check_forecast(self.name, forecast, actual, holdout, series, origins)
        if keep:
            self._kept.add(batch, forecast)
        return scorer.score(series, actual, forecast)

    def _time_is_over(self) -> bool:
        limit = self._plan.settings["time_limit"]
        spent = sum(self._seconds.values())
        return self.method.refits_per_window and limit is not None and spent > limit

    # ------------------------------------------------------------------ the result

    def result(self) -> MethodRun:
        """Return the scores."""
        described = self.method.describe()
        kept = self._kept
        kept.windows = np.intersect1d(kept.windows, self.windows)
        return MethodRun(
            self.windows,
            np.stack(self._totals),
            np.stack(self._steps),
            self._seconds["fit"] / len(self._seeds),
            self._seconds["predict"] / len(self._seeds),
            described["context_length"],
            described["backbone"],
            described.get("pretrained_on"),
            kept,
        )

    def notes(self) -> list[str]:
        """Return what a reader of the report must know of the method."""
        notes: list[str] = list(self.method.describe().get("notes", []))
        if len(self.windows) < self.total:
            limit = self._plan.settings["time_limit"]
            notes.append(
                f"{self.name} forecast {len(self.windows)} of {self.total} windows in its time "
                f"limit of {limit:g} s: time_limit= (--time-limit) raises it"
            )
        return notes


def _windows_in_words(plan: Plan, runs: Iterable[_Run]) -> str:
    """Say what a backtest will do."""
    once = [run.name for run in runs if not run.method.refits_per_window]
    slow = [run for run in runs if run.method.refits_per_window]
    parts = [f"fitted once: {', '.join(once)}"] if once else []
    if slow:
        named = ", ".join(run.name for run in slow)
        most = max(run.total for run in slow)
        parts.append(f"fitted anew at each of up to {most:,} windows: {named}")
    return f"backtest of {len(plan.windows):,} windows; {'; '.join(parts)}"


def _times_in_words(runs: Iterable[_Run], limit: float | None) -> str:
    """Say how long the methods will take whose time was measured, and name the others."""
    parts: list[str] = []
    unmeasured: list[str] = []
    total = 0.0
    for run in runs:
        if run.expected is None:
            unmeasured.append(run.name)
            continue
        said = f"{run.name} {duration(run.expected)}"
        expected = run.expected
        if limit is not None and run.method.refits_per_window and expected > limit:
            said += f", ended by its time limit of {duration(limit)}"
            expected = limit
        parts.append(said)
        total += expected
    others = f"not measured: {', '.join(unmeasured)}"
    if not parts:
        return f"expected time {others}"
    said = f"expected time: {'; '.join(parts)}; together {duration(total)}"
    return f"{said} ({others})" if unmeasured else said


def _floored(
    forecast: np.ndarray, holdout: Holdout, series: np.ndarray, origins: np.ndarray
) -> np.ndarray:
    """Raise forecasts of a baseline to zero, where those of tsllm's forecasters would be."""
    if not (forecast < 0).any():
        return forecast
    pasts = [holdout.contexts[i].values[:origin] for i, origin in zip(series, origins)]
    return at_or_above(forecast, pasts, "auto", mostly=holdout.stop_at_zero)


def _stages(
    holdout: Holdout, windows: WindowSet, picked: np.ndarray, refit: int | bool, method: Method
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each fit, the end of each series' known part and the windows to forecast."""
    if not refit or method.refits_per_window:
        yield holdout.borders, picked
        return
    number = windows.turn[picked] // int(refit)
    for stage in np.unique(number):
        own = picked[number == stage]
        # Series without a window at this stage are known up to their last one.
        first = holdout.borders.copy()
        for i in range(len(first)):
            begun = (windows.series == i) & (windows.turn <= stage * int(refit))
            first[i] = windows.origin[begun].max()
        yield first, own


def _batches(plan: Plan, method: Method, picked: np.ndarray) -> Iterator[np.ndarray]:
    """Split windows into batches of one horizon.

    A method that is fitted at every window gets few at once, the first ones spread over all series
    and times: its time may be over before the last.
    """
    windows, chunks = plan.windows, [picked]
    if method.refits_per_window:
        spread, size = windows.spread(picked), method.windows_at_once
        chunks = [spread[begin : begin + size] for begin in range(0, len(spread), size)]
    width = plan.holdout.n_variables * (1 + len(plan.scorer.levels))
    for chunk in chunks:
        for reach in np.unique(windows.reach[chunk]):
            same = chunk[windows.reach[chunk] == reach]
            rows = int(np.clip(BATCH_VALUES // (reach * width), 1, MAX_BATCH))
            for begin in range(0, len(same), rows):
                yield same[begin : begin + rows]


def _check_forecast(
    name: str,
    forecast: np.ndarray,
    actual: np.ndarray,
    holdout: Holdout,
    series: np.ndarray,
    origins: np.ndarray,
) -> None:
    """Raise an error for a forecast that would make a score NaN."""
    bad = np.isnan(forecast).any(axis=-1) & ~np.isnan(actual)
    if bad.any():
        window, step, _ = np.argwhere(bad)[0]
        context = holdout.contexts[series[window]]
        assert context.times is not None
        raise DataError(
            f"{name!r} forecasts NaN for {series_name(context.series_id)} at "
            f"{context.times[origins[window] + step]}: leave the method out, or give the series a "
            "longer history"
        )
