"""The backtest: fit before the test part, forecast every window of it, score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tsllm.errors import DataError
from tsllm.evaluation.methods import DEFAULT_BASELINES, make_method, with_controls
from tsllm.evaluation.plan import make_plan
from tsllm.evaluation.report import BacktestReport
from tsllm.evaluation.running import run_methods


def backtest(
    estimators: Any,
    y: pd.Series | pd.DataFrame,
    *,
    horizons: int | Sequence[int],
    X: pd.DataFrame | None = None,
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
    """Evaluate forecasters and baselines by forecasting from every origin of a test part.

    The last part of each series is held out. Methods are fitted on what lies before it, and then
    forecast from every ``stride``-th step of the test part, reading only what lies before that
    step. For a horizon ``h`` every such origin with ``h`` steps left counts; none is dropped. All
    horizons are scored from one forecast to the longest.

    tsllm forecasters are fitted once and forecast in batches. Plain sktime forecasters, and AutoETS
    and Theta among the baselines, are fitted anew at every window; they are run on ``max_windows``
    evenly spaced windows of each series, and the table then scores every method on those windows as
    well, beside all windows. An estimator with in-context prompts is run without them, too.

    Parameters
    ----------
    estimators : forecaster, or dict of str to forecaster
        tsllm or sktime forecasters; they are cloned and stay as they are. May be an empty dict.
    y : Series or DataFrame
        As sktime's forecasters take it, a panel too, or a long frame of `tsllm.datasets.read_long`.
    horizons : int or sequence of int
        Steps.
    X : DataFrame, optional
        Covariates in the form of ``y``, for tsllm's own forecasters; each is run without them, too,
        and baselines and other forecasters never see them. The future of a window is what came,
        also where a forecast of it would have been known only; that of ``past_covariates`` is not
        shown.
    test_size : int, optional
        Steps of each series' test part.
    test_fraction : float, optional
        Share of each series that is its test part; 0.2 where neither is given.
    train_size, validation_size : int, optional
        Steps of each series for training and, after them, for validation; they fix a published
        split exactly: ETTh1's is 8640, 2880 and a ``test_size`` of 2880. Steps after the three
        parts are not used. With ``validation_size``, tsllm forecasters get it as their
        ``validation_fraction``.
    stride : int
        Steps between origins.
    refit : False or int
        False: fit once. ``k``: fit anew every ``k`` windows, on all that lies before.
    quantiles : sequence of float
        Levels to score, rising; coverage and width are those of the outermost two. Empty: only
        point forecasts.
    baselines : sequence of str
        Among "seasonal_naive", "auto_ets", "theta", "auto_theta" (needs `tsllm[baselines]`),
        "dlinear" and "patchtst".
    metrics : sequence of str, optional
        Among "mse", "mae", "mase", "smape", "wql", "crps", "coverage" and "width"; see
        `tsllm.metrics`. None: all that ``quantiles`` allow.
    scaled : bool
        The published long-horizon protocol: mse, mae, crps and width are those of values divided by
        each variable's standard deviation in the training part. Methods see the values as they are.
    season : int, optional
        Steps of a season, for MASE and the statistical baselines. None: from the frequency.
    seeds : sequence of int, optional
        Fit each method that has a ``random_state`` once for each seed; the table gives means and
        standard deviations. None: once, as it is.
    max_windows : int, optional
        Windows of each series for methods that are fitted anew at each. None: all.
    max_history : int, optional
        Steps before the origin that those methods are fitted on. None: all.
    freq : str, optional
        Frequency of the series, where their index does not tell it.
    progress : bool
        Show a progress bar on stderr for each method.

    Returns
    -------
    BacktestReport

    Raises
    ------
    DataError
        Arguments that contradict each other, a series too short for them, or a method that
        forecasts NaN; the message names the remedy.

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
    methods = {
        name: make_method(
            method, plan.holdout, longest=plan.horizons[-1], max_history=plan.max_history
        )
        for name, method in _name_methods(estimators, baselines, X).items()
    }
    return run_methods(plan, methods)


def _name_methods(
    estimators: Any, baselines: Sequence[str], X: pd.DataFrame | None
) -> dict[str, Any]:
    """Give every method its name in the table."""
    if not isinstance(estimators, Mapping):
        estimators = {type(estimators).__name__: estimators}
    named = with_controls(estimators, X)
    for name in baselines:
        if name in named:
            raise DataError(f"an estimator has the name of the baseline {name!r}: rename it")
        named[name] = name
    if not named:
        raise DataError("there is nothing to evaluate: pass estimators, or baselines")
    return named
