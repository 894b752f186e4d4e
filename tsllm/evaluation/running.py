"""The methods of a backtest run: fitted, asked for every window's forecast, scored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout, WindowSet
from tsllm.evaluation.methods import Method
from tsllm.evaluation.plan import Plan
from tsllm.evaluation.report import BacktestReport, MethodRun, make_report

#: Windows are forecast in batches of at most so many numbers, so that memory stays small.
BATCH_VALUES = 8_000_000
#: Most windows of a batch.
MAX_BATCH = 512


def run_methods(plan: Plan, methods: Mapping[str, Method]) -> BacktestReport:
    """Fit methods, one after the other, and score their forecasts of the windows."""
    holdout, windows = plan.holdout, plan.windows
    runs, notes = {}, []
    for name, method in methods.items():
        picked = np.arange(len(windows))
        if method.refits_per_window:
            picked = windows.thin(plan.max_windows)
        seeds = [None] if plan.seeds is None or not method.takes_seed else list(plan.seeds)
        with tqdm(total=len(picked) * len(seeds), desc=name, disable=not plan.progress) as bar:
            runs[name] = _run(name, method, plan, picked, seeds, bar)
        notes += method.describe().get("notes", [])
    unused = max(len(c) - int(end) for c, end in zip(holdout.contexts, holdout.ends))
    if unused:
        notes.append(f"up to {unused} steps after the test part of a series are not used")
    return make_report(runs, windows, holdout, plan.settings, notes)


def _run(
    name: str,
    method: Method,
    plan: Plan,
    picked: np.ndarray,
    seeds: Sequence[int | None],
    bar: tqdm,
) -> MethodRun:
    """Fit one method and score its windows, once for each seed."""
    holdout, windows, scorer = plan.holdout, plan.windows, plan.scorer
    longest = int(windows.reach.max())
    totals, step_totals = [], []
    seconds = {"fit": 0.0, "predict": 0.0}
    for seed in seeds:
        parts, order = [], []
        per_step = np.zeros((2, len(scorer.metrics), longest, holdout.n_variables))
        for ends, stage in _stages(holdout, windows, picked, plan.refit, method):
            started = time.perf_counter()
            method.fit(ends, seed)
            seconds["fit"] += time.perf_counter() - started
            for batch in _batches(windows, stage, holdout.n_variables, len(scorer.levels)):
                series, origins = windows.series[batch], windows.origin[batch]
                horizon = int(windows.reach[batch[0]])
                started = time.perf_counter()
                forecast = method.forecast(series, origins, horizon, scorer.levels)
                seconds["predict"] += time.perf_counter() - started
                actual = np.stack(
                    [holdout.contexts[i].values[o : o + horizon] for i, o in zip(series, origins)]
                )
                _check_forecast(name, forecast, actual, holdout, series, origins)
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
    )


def _stages(
    holdout: Holdout, windows: WindowSet, picked: np.ndarray, refit: int | bool, method: Method
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give, for every fit, where each series' known part ends and which windows it serves."""
    if not refit or method.refits_per_window:
        yield holdout.borders, picked
        return
    number = windows.turn[picked] // int(refit)
    for stage in np.unique(number):
        own = picked[number == stage]
        # Series without a window at this stage give all that they had before their last one.
        first = holdout.borders.copy()
        for i in range(len(first)):
            begun = (windows.series == i) & (windows.turn <= stage * int(refit))
            first[i] = windows.origin[begun].max()
        yield first, own


def _batches(
    windows: WindowSet, picked: np.ndarray, n_variables: int, n_levels: int
) -> Iterator[np.ndarray]:
    """Cut windows into batches that are forecast equally far."""
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
    """Refuse a forecast that would make a score NaN."""
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
