"""Backtests and ablations: their arguments, their windows and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import tsllm
from fuzz.cases import Attack, Case, check
from fuzz.shared import NAMES, affected, covariates, new, panel, series, two_columns, waves


def _backtest(y: Any, **arguments: Any) -> pd.DataFrame:
    given: dict[str, Any] = {
        "horizons": [1, 3],
        "test_size": 12,
        "baselines": ["seasonal_naive"],
        "season": 7,
    }
    table: pd.DataFrame = tsllm.backtest({}, y, **(given | arguments)).table
    return table


def errors_of_the_seasonal_naive(case: Case) -> None:
    """Score the seasonal naive forecast as its definition does, on every window."""
    steps, size = case.whole("steps", 40, 90), case.whole("test", 8, 15)
    horizon, stride = case.whole("horizon", 1, 8), case.whole("stride", 1, 3)
    freq = case.pick("freq", ["D", "h", "B", "MS", "W-SUN"])
    y = series(steps, freq=freq)
    case.expect("answer")
    table = _backtest(y, horizons=[horizon], test_size=size, stride=stride, metrics=["mae", "mse"])
    values = y.to_numpy()
    errors = [
        values[origin + step] - values[origin + step - 7 * (step // 7 + 1)]
        for origin in range(steps - size, steps - horizon + 1, stride)
        for step in range(horizon)
    ]
    row = table[(table["method"] == "seasonal_naive") & (table["horizon"] == horizon)].iloc[0]
    wanted = np.abs(errors).mean()
    check(np.isclose(row["mae"], wanted), f"mae {row['mae']} instead of {wanted}")
    wanted = np.square(errors).mean()
    check(np.isclose(row["mse"], wanted), f"mse {row['mse']} instead of {wanted}")


def odd_arguments(case: Case) -> None:
    """Refuse arguments of a wrong kind, before anything is fitted; name them."""
    arguments: dict[str, list[Any]] = {
        "horizons": [
            0,
            -1,
            1.5,
            "3",
            [],
            [0],
            [3, "a"],
            True,
            10**6,
            10**12,
            None,
            [1, 1],
            float("nan"),
        ],
        "test_size": [0, -1, 1.5, "x", 10**6, 60, True, [5]],
        "test_fraction": [0, 1, -0.5, 2.0, "x", float("nan")],
        "train_size": [0, -1, 10**6, "x"],
        "validation_size": [-1, 10**6, "x"],
        "stride": [0, -1, 1.5, "x", 10**6],
        "refit": [-1, "x", 1.5],
        "quantiles": [[0], [2], ["a"], [0.5, 0.1], 0.5, [0.5, 0.5]],
        "baselines": [["nope"], "theta", [3], 5, ["theta", "theta"]],
        "metrics": [["nope"], "mae", [3], [], 5],
        "season": [0, -1, 1.5, "x", 10**6],
        "seeds": [[], ["a"], [-1], 3, [1.5], [0, 0], [10**30]],
        "max_windows": [0, -1, "x", 1.5],
        "max_history": [0, -1, "x", 1.5],
        "freq": ["X", "h", 3, ""],
        "scaled": ["yes"],
        "X": [5, "x", covariates(10)],
        "progress": ["x"],
    }
    name = case.pick("argument", list(arguments))
    value = case.pick("value", arguments[name])
    words = (name.removesuffix("s"), *(["hold out"] if name.endswith("_size") else []))
    case.expect("refusal", *words)
    if name == "X" or (name, str(value)) in [("stride", "1000000"), ("seeds", "[0, 0]")]:
        case.expect("either", *words)  # the seasonal naive uses neither X nor seeds
    given = {name: value}
    if name == "test_fraction":
        given["test_size"] = None
    table = _backtest(series(), **given)
    check(bool(np.isfinite(table["mae"]).all()), "an error that is not finite")


def odd_series(case: Case) -> None:
    """Refuse what is no series, or one that is too short."""
    y = series()
    shapes: dict[str, Any] = {
        "None": None, "list": [], "number": 5, "text": "co2", "empty": y.iloc[:0],
        "short": y.iloc[:5],
        "text values": y.astype(str), "gap": y.drop(y.index[20]), "unsorted": y.iloc[::-1],
        "doubled": pd.concat([y, y.iloc[:1]]), "all missing": y * np.nan, "inf": y * np.inf,
        "missing in test": y.where(y.index < y.index[50]),
        "unequal panel": pd.concat([panel(y), panel(y.iloc[:10], ["c"])]),
        "two levels of columns": pd.concat({"a": y.to_frame()}, axis=1),
    }  # fmt: skip
    y = case.pick_named("shape", shapes)
    case.expect("answer" if case.drawn["shape"] == "missing in test" else "refusal")
    _backtest(y)


def odd_estimators(case: Case) -> None:
    """Refuse what is no forecaster."""
    estimators: dict[str, Any] = {
        "None": None, "text": "theta", "class": tsllm.DLinearForecaster, "number": 5,
        "list": [new("dlinear")],
        "dict of text": {"a": "theta"}, "dict of numbers": {"a": 5}, "unnamed": {3: new("dlinear")},
        "name of a baseline": {"seasonal_naive": new("dlinear")},
    }  # fmt: skip
    given = case.pick_named("estimators", estimators)
    taken = ("unnamed", "name of a baseline")
    case.expect("answer" if case.drawn["estimators"] in taken else "refusal")
    tsllm.backtest(given, series(), horizons=[2], test_size=8, baselines=[])


def our_methods(case: Case) -> None:
    """Score our forecasters, with finite errors for every horizon."""
    kinds: dict[str, Any] = {
        "one": series, "two": two_columns, "panel": lambda: panel(series()),
        "periods": lambda: series().set_axis(series().index.to_period("D")),
        "integers": lambda: pd.Series(waves(60), index=np.arange(0, 120, 2), name="value"),
        "zone": lambda: series(freq="h", start="2024-03-30").tz_localize("UTC"),
    }  # fmt: skip
    y = case.pick_named("y", kinds)()
    method = case.pick("method", NAMES)
    case.expect("answer")
    report = tsllm.backtest({method: new(method)}, y, horizons=[1, 3], test_size=10, baselines=[])
    rows = report.table[report.table["method"] == method]
    check(sorted(set(rows["horizon"])) == [1, 3], f"horizons {set(rows['horizon'])}")
    numbers = rows[["mse", "mae"]].to_numpy(float)
    check(bool(np.isfinite(numbers).all()), "an error that is not finite")


def covariates_of_backtests(case: Case) -> None:
    """Score with covariates in any order of columns, and refuse those that do not fit."""
    X = covariates(60)
    y = affected(X)
    forms: dict[str, Any] = {
        "as it is": X, "turned columns": X[["sky", "wind", "warm"]], "short": X.iloc[:50],
        "zone": X.tz_localize("UTC"), "integers": X.reset_index(drop=True),
        "turned rows": X.iloc[::-1],
        "NaN": X.assign(warm=np.nan), "twice": pd.concat([X, X[["warm"]]], axis=1),
        "longer": covariates(80),
    }  # fmt: skip
    form = case.pick_named("form", forms)
    method = case.pick("method", ["dlinear", "aaren"])
    if case.drawn["form"] in ("as it is", "turned columns"):
        case.expect("answer")
    elif case.drawn["form"] in ("short", "zone", "integers"):
        case.expect("refusal")
    given: dict[str, Any] = {"horizons": [2], "test_size": 8, "baselines": [], "max_windows": 3}
    table = tsllm.backtest({method: new(method)}, y, X=form, **given).table
    right = tsllm.backtest({method: new(method)}, y, X=X, **given).table
    if case.drawn["form"] == "turned columns":
        check(np.allclose(table["mae"].to_numpy(float), right["mae"].to_numpy(float), rtol=1e-3),
              "other errors for the same covariates")  # fmt: skip


def odd_ablations(case: Case) -> None:
    """Refuse arguments of an ablation that are of a wrong kind; name them."""
    arguments: dict[str, list[Any]] = {
        "variants": [["nope"], "none", [3], 5, ["none", "none"]],
        "baselines": [["nope"], 5],
        "metric": ["nope", 3, None, ["mse"]],
        "min_difference": [-1, "x", float("nan"), 2, None],
        "confidence": [0, 1, 2, "x", -0.5],
        "as_given": ["x", 3, None],
        "text": ["nope", [], 3, ["nope", 5]],
        "seeds": [[], ["a"], 3, [-1]],
        "horizons": [0, "x", []],
        "estimator": [None, 5, "autotimes", tsllm.DLinearForecaster()],
        "test_size": [0, 10**6, "x"],
    }
    name = case.pick("argument", list(arguments))
    value = case.pick("value", arguments[name])
    given: dict[str, Any] = {
        "horizons": [2], "test_size": 8, "variants": ["none"], "baselines": [], "seeds": [0],
                                                      "max_windows": 2,
    }  # fmt: skip
    estimator = (
        value
        if name == "estimator"
        else new("autotimes", backbone="random:gpt2?hidden=16&layers=1&heads=2")
    )
    case.expect("refusal")
    if value in (3, 5) and name == "seeds":
        case.expect("either")
    given |= {} if name == "estimator" else {name: value}
    if (name, str(value)) in [("variants", "none"), ("min_difference", "2")]:
        case.expect("either")
    tsllm.ablate(estimator, series(), **given)


ATTACKS: list[Attack] = [
    errors_of_the_seasonal_naive,
    odd_arguments,
    odd_series,
    odd_estimators,
    our_methods,
    covariates_of_backtests,
    odd_ablations,
    odd_arguments,
    odd_arguments,
]
