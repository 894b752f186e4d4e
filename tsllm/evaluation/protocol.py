"""Rolling-origin backtests: the plan of the windows, and the run over them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tsllm.arguments import Limits, check_call, check_level_count
from tsllm.datasets.checks import series_name
from tsllm.datasets.indexed import index_tables
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout, WindowSet, hold_out, list_windows
from tsllm.evaluation.kept_forecasts import KeptForecasts, choose_kept
from tsllm.evaluation.methods import (
    DEFAULT_BASELINES,
    NAMED,
    Method,
    make_method,
    with_controls,
)
from tsllm.evaluation.report import BacktestReport, MethodRun, make_report
from tsllm.evaluation.scoring import Scorer
from tsllm.forecasters.floors import at_or_above, mostly_stop_at_zero
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
        longest, max_history = self.settings["horizons"][-1], self.settings["max_history"]
        return make_method(named, self.holdout, longest=longest, max_history=max_history)


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
}


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
        Among "seasonal_naive", "auto_ets", "theta", "auto_theta", "linear", "dlinear", "patchtst",
        and with the extra ``tsllm[baselines]`` "flair", "fracast" and "lightgbm". The default is
        "seasonal_naive", "auto_ets", "theta", "dlinear" and "patchtst". Counts have a floor at
        zero, as with ``floor="auto"`` of tsllm's forecasters; an estimator of sktime has none.
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
    freq : str or None, default=None
        Frequency of the series, where the index does not determine it.
    progress : bool, default=False
        Show a progress bar for each method on stderr.

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
        "covariates": None if holdout.X is None else list(map(str, holdout.X.columns)),
    }
    return Plan(holdout, list_windows(holdout, steps, stride), scorer, settings, progress)


def run_methods(plan: Plan, methods: Mapping[str, Method]) -> BacktestReport:
    """Fit the methods one after the other, and score their forecasts of the windows."""
    holdout, windows = plan.holdout, plan.windows
    runs: dict[str, MethodRun] = {}
    notes = [holdout.left_out] if holdout.left_out else []
    for name, method in methods.items():
        picked = np.arange(len(windows))
        if method.refits_per_window:
            picked = windows.thin(plan.settings["max_windows"])
        seeds = (plan.settings["seeds"] if method.takes_seed else None) or [None]
        with tqdm(total=len(picked) * len(seeds), desc=name, disable=not plan.progress) as bar:
            runs[name] = _run(name, method, plan, picked, seeds, bar)
        notes += method.describe().get("notes", [])
    unused = max(len(c) - int(end) for c, end in zip(holdout.contexts, holdout.ends))
    if unused:
        notes.append(f"up to {unused} steps after the test part of a series are not used")
    return make_report(runs, windows, holdout, plan.settings, notes)


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


def _run(
    name: str,
    method: Method,
    plan: Plan,
    picked: np.ndarray,
    seeds: Sequence[int | None],
    bar: tqdm,
) -> MethodRun:
    """Fit one method and score its windows, once per seed."""
    holdout, windows, scorer = plan.holdout, plan.windows, plan.scorer
    longest = int(windows.reach.max())
    totals, step_totals = [], []
    seconds = {"fit": 0.0, "predict": 0.0}
    width = holdout.n_variables * (1 + len(scorer.levels))
    kept = KeptForecasts(
        choose_kept(windows, picked, width=width, max_windows=plan.settings["max_windows"])
    )
    for number, seed in enumerate(seeds):
        parts, order = [], []
        per_step = np.zeros((2, len(scorer.metrics), longest, holdout.n_variables))
        for ends, stage in _stages(holdout, windows, picked, plan.settings["refit"], method):
            started = time.perf_counter()
            method.fit(ends, seed)
            seconds["fit"] += time.perf_counter() - started
            for batch in _batches(windows, stage, holdout.n_variables, len(scorer.levels)):
                series, origins = windows.series[batch], windows.origin[batch]
                horizon = int(windows.reach[batch[0]])
                started = time.perf_counter()
                forecast = method.forecast(series, origins, horizon, scorer.levels)
                if isinstance(method, NAMED):
                    forecast = _floored(forecast, holdout, series, origins)
                seconds["predict"] += time.perf_counter() - started
                actual = np.stack(
                    [holdout.contexts[i].values[o : o + horizon] for i, o in zip(series, origins)]
                )
                _check_forecast(name, forecast, actual, holdout, series, origins)
                if number == 0:
                    kept.add(batch, forecast)
                scored, by_step = scorer.score(series, actual, forecast)
                parts.append(scored)
                per_step[:, :, :horizon] += by_step
                order.append(batch)
                bar.update(len(batch))
        sequence = np.argsort(np.concatenate(order))
        totals.append(np.concatenate(parts, axis=2)[:, :, sequence])
        step_totals.append(per_step)
    described = method.describe()
    return MethodRun(
        picked,
        np.stack(totals),
        np.stack(step_totals),
        seconds["fit"] / len(seeds),
        seconds["predict"] / len(seeds),
        described["context_length"],
        described["backbone"],
        described.get("pretrained_on"),
        kept,
    )


def _floored(
    forecast: np.ndarray, holdout: Holdout, series: np.ndarray, origins: np.ndarray
) -> np.ndarray:
    """Raise forecasts of a baseline to zero, where those of tsllm's forecasters would be."""
    contexts, borders = holdout.contexts, holdout.borders
    if not (forecast < 0).any():
        return forecast
    mostly = mostly_stop_at_zero([c.values[:end] for c, end in zip(contexts, borders)])
    pasts = [contexts[i].values[:origin] for i, origin in zip(series, origins)]
    return at_or_above(forecast, pasts, "auto", mostly=mostly)


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


def _batches(
    windows: WindowSet, picked: np.ndarray, n_variables: int, n_levels: int
) -> Iterator[np.ndarray]:
    """Split windows into batches of one horizon."""
    for reach in np.unique(windows.reach[picked]):
        same = picked[windows.reach[picked] == reach]
        rows = int(np.clip(BATCH_VALUES // (reach * n_variables * (1 + n_levels)), 1, MAX_BATCH))
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
