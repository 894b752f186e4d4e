"""The plan of a backtest: the arguments checked, the test part cut, its windows listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout, WindowSet, hold_out, list_windows
from tsllm.evaluation.scoring import Scorer


@dataclass(frozen=True)
class Plan:
    """What every method of a backtest is run on, and how.

    Attributes
    ----------
    holdout : Holdout
    windows : WindowSet
        Of the test parts.
    scorer : Scorer
    horizons : list of int
        Rising.
    refit, seeds, max_windows, max_history, progress
        See `backtest`.
    settings : dict
        All of it in words and numbers, for the report.
    """

    holdout: Holdout
    windows: WindowSet
    scorer: Scorer
    horizons: list[int]
    refit: int | bool
    seeds: Sequence[int] | None
    max_windows: int | None
    max_history: int | None
    progress: bool
    settings: dict[str, Any]


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
    """Cut the test part and list its windows; the arguments are those of `backtest`.

    Raises
    ------
    DataError
        Arguments that contradict each other, or a series too short for them.
    """
    steps = sorted({horizons} if isinstance(horizons, int | np.integer) else set(horizons))
    _check_arguments(steps, stride, refit, seeds, max_windows, max_history, season)
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
    return Plan(
        holdout,
        list_windows(holdout, steps, stride),
        scorer,
        steps,
        refit,
        seeds,
        max_windows,
        max_history,
        progress,
        settings,
    )


def _check_arguments(
    horizons: Sequence[int],
    stride: int,
    refit: int | bool,
    seeds: Sequence[int] | None,
    max_windows: int | None,
    max_history: int | None,
    season: int | None,
) -> None:
    """Refuse what is no count of anything."""
    if not horizons:
        raise DataError("horizons is empty: pass at least one number of steps")
    counts: list[tuple[str, int | None]] = [("horizons", h) for h in horizons]
    counts += [("stride", stride)]
    counts += [("max_windows", max_windows), ("max_history", max_history), ("season", season)]
    counts += [("refit", refit)] if refit is not False else []
    for name, value in counts:
        if value is None and name in ("max_windows", "max_history", "season"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise DataError(f"{name} must be a whole number of at least 1, found {value!r}")
    if seeds is not None and len(seeds) == 0:
        raise DataError("seeds is empty: pass at least one, or None")
