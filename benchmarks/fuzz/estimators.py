"""The estimators: columns, covariates, values and arguments of fit, predict and update."""

from __future__ import annotations

import decimal
import warnings
from typing import Any

import numpy as np
import pandas as pd

from fuzz.cases import Attack, Case, check
from fuzz.shared import (
    HORIZON,
    NAMES,
    affected,
    check_index,
    check_intervals,
    check_near,
    check_same,
    check_values,
    covariates,
    fitted,
    new,
    panel,
    series,
    stamps_after,
    two_columns,
    waves,
)

STEPS = list(range(1, HORIZON + 1))


# ---------------------------------------------------------------------- columns


def columns_in_another_order(case: Case) -> None:
    """Match the columns of an update by their names."""
    method = case.pick("method", NAMES)
    kind = case.pick("kind", ["two", "two in a panel"])
    more = two_columns(6, start="2024-03-01")
    more = panel(more) if "panel" in kind else more
    case.expect("answer")
    right, turned = fitted(method, kind).update(more), fitted(method, kind)
    turned.update(more[["hi", "lo"]])
    check_same(turned.predict(), right.predict())
    check_near(turned.predict()["lo"], 10, 50)


def foreign_columns(case: Case) -> None:
    """Refuse an update with other columns than those of the fit."""
    names = case.pick(
        "columns", [["lo", "high"], ["a", "b"], [0, 1], ["lo", "lo"], ["lo"], ["lo", "hi", "x"]]
    )
    more = two_columns(6, start="2024-03-01")
    data = {place: more.iloc[:, place % 2] for place in range(len(names))}
    frame = pd.DataFrame(data).set_axis(names, axis=1)
    forecaster = fitted(case.pick("method", NAMES), "two")
    case.expect("refusal", "column", "variable", "lo", "hi")
    if names == [0, 1]:  # counted columns are no names
        case.expect("either")
    forecaster.update(frame)


def payload_of_turned_columns(case: Case) -> None:
    """Write each variable of a payload under its own name."""
    forecaster = fitted(case.pick("method", NAMES), "two")
    frame = two_columns(20)[["hi", "lo"]]
    case.expect("answer")
    document = forecaster.to_payload(2, y=frame)["dataframe_split"]
    table = pd.DataFrame(document["data"], columns=document["columns"])
    check_near(table["lo"], 10, 50)
    check_near(table["hi"], 1000, 50)


def pretrained_on_turned_columns(case: Case) -> None:
    """Fit a pretrained model on the same columns in another order."""
    method = case.pick("method", NAMES)
    frame = two_columns()
    case.expect("answer")
    right = new(method).pretrain(panel(frame), fh=STEPS).fit(frame, fh=STEPS).predict()
    turned = new(method).pretrain(panel(frame), fh=STEPS).fit(frame[["hi", "lo"]], fh=STEPS)
    check_same(turned.predict()[["lo", "hi"]], right)


def covariates_in_another_order(case: Case) -> None:
    """Match the columns of X by their names, and refuse a name that comes twice."""
    forecaster = fitted(case.pick("method", NAMES), "X")
    future = covariates(63).iloc[60:]
    right = forecaster.predict(X=future)
    order = case.pick("order", [["sky", "wind", "warm"], ["wind", "warm", "sky"], "twice"])
    if order == "twice":
        case.expect("refusal", "warm")
        forecaster.predict(X=pd.concat([future, future[["warm"]] * 9], axis=1))
    else:
        case.expect("answer")
        check_same(forecaster.predict(X=future[order]), right)


def covariates_at_fit_time(case: Case) -> None:
    """Take or refuse X with odd columns, and never misread them."""
    X = covariates(63)
    y = affected(X.iloc[:60])
    kind = case.pick(
        "kind",
        ["decimal", "boolean", "None", "inf", "category", "dates", "lists", "twice", "int name"],
    )
    columns: dict[str, Any] = {
        "decimal": [decimal.Decimal(f"{one:.3f}") for one in X["warm"]],
        "boolean": pd.array(X["warm"] > 0, dtype="boolean"),
        "None": X["warm"].astype(object).where(X.index != X.index[4], None),
        "inf": X["warm"].where(X.index != X.index[4], np.inf),
        "category": X["sky"].astype("category"),
        "dates": X.index,
        "lists": [[1]] * 63,
    }
    if kind in columns:
        X = X.assign(warm=columns[kind])
    elif kind == "twice":
        X = pd.concat([X, X[["warm"]]], axis=1)
    else:
        X = X.rename(columns={"warm": 7})
    if kind in ("decimal", "boolean", "category"):
        case.expect("answer")
    elif kind in ("inf", "lists", "twice"):
        case.expect("refusal", "warm")
    forecaster = new(case.pick("method", NAMES)).fit(y, X=X.iloc[:60], fh=STEPS)
    answer = forecaster.predict(X=X.iloc[60:])
    check_values(answer)
    if kind == "decimal":  # a number, and no category
        numbers = X.assign(warm=X["warm"].astype(float))
        right = forecaster.clone().fit(y, X=numbers.iloc[:60], fh=STEPS)
        check_same(answer, right.predict(X=numbers.iloc[60:]))


def booleans_of_two_kinds(case: Case) -> None:
    """Take the same covariate as bool, boolean, 0/1 or object."""
    X = covariates(63).assign(sky=lambda frame: frame["warm"] > 0)
    y = affected(covariates(63))[:60] + 3.0 * X["sky"][:60]
    forecaster = new(case.pick("method", NAMES)).fit(y, X=X.iloc[:60], fh=STEPS)
    right = forecaster.predict(X=X.iloc[60:])
    dtype = case.pick("dtype", ["boolean", "object", "int64", "float64", "Int8"])
    case.expect("answer" if dtype in ("boolean", "object") else "either", "'sky'")
    check_same(forecaster.predict(X=X.iloc[60:].astype({"sky": dtype})), right)


def future_covariates_of_another_form(case: Case) -> None:
    """Answer with every row of X found by its stamp, or refuse."""
    forecaster = fitted(case.pick("method", NAMES), "X")
    future = covariates(63).iloc[60:]
    right = forecaster.predict(X=future)
    form = case.pick(
        "form",
        ["short", "none", "turned rows", "more rows", "periods", "zone", "text", "integers",
         "twice", "no column", "NaN", "new category", "array", "series", "panel"],
    )  # fmt: skip
    forms: dict[str, Any] = {
        "short": lambda: future.iloc[:2],
        "none": lambda: None,
        "turned rows": lambda: future.iloc[::-1],
        "more rows": lambda: covariates(70),
        "periods": lambda: future.set_axis(future.index.to_period("D")),
        "zone": lambda: future.tz_localize("Europe/Berlin"),
        "text": lambda: future.set_axis(future.index.astype(str)),
        "integers": lambda: future.reset_index(drop=True),
        "twice": lambda: pd.concat([future, future]),
        "no column": lambda: future.drop(columns="wind"),
        "NaN": lambda: future.assign(warm=np.nan),
        "new category": lambda: future.assign(sky="fog"),
        "array": lambda: future.to_numpy(),
        "series": lambda: future["warm"],
        "panel": lambda: panel(future[["warm", "wind"]]).assign(sky="sun"),
    }
    if form in ("short", "none", "no column", "NaN"):
        case.expect("refusal")
    answer = forecaster.predict(X=forms[form]())
    check_values(answer)
    if form != "new category":  # the same values, in another form
        check_same(answer, right)


# ---------------------------------------------------------------------- values and indices


def values_of_other_kinds(case: Case) -> None:
    """Read the same numbers in whatever dtype they come."""
    method = case.pick("method", ["dlinear", "aaren", "timecma"])
    y = series().round(2)
    kinds: dict[str, Any] = {
        "decimal": lambda: y.map(lambda one: decimal.Decimal(f"{one:.2f}")),
        "object": lambda: y.astype(object),
        "Float64": lambda: y.astype("Float64"),
        "arrow": lambda: y.astype("double[pyarrow]"),
        "frame": lambda: y.to_frame(),
        "object with None": lambda: y.astype(object).where(y.index != y.index[9], None),
        "Float64 with NA": lambda: y.astype("Float64").where(y.index != y.index[9], pd.NA),
        "decimal with None": lambda: y.map(lambda one: decimal.Decimal(f"{one:.2f}")).where(
            y.index != y.index[9], None
        ),
    }
    kind = case.pick("dtype", list(kinds))
    plain = y.where(y.index != y.index[9]) if "with" in kind else y
    case.expect("answer")
    check_same(
        new(method).fit(kinds[kind](), fh=STEPS).predict(),
        new(method).fit(plain, fh=STEPS).predict(),
    )


def values_that_are_no_numbers(case: Case) -> None:
    """Refuse values that are no numbers; name the column or the row."""
    y = series()
    kinds: dict[str, Any] = {
        "text": y.astype(str),
        "one text": y.astype(object).where(y.index != y.index[9], "oops"),
        "complex": y.astype(complex) + 1j,
        "dates": pd.Series(y.index, index=y.index, name="value"),
        "lists": pd.Series([[1.0]] * len(y), index=y.index, name="value"),
        "category": y.round().astype(str).astype("category"),
        "inf": y.where(y.index != y.index[9], np.inf),
        "-inf in objects": y.astype(object).where(y.index != y.index[9], -np.inf),
        "durations": pd.Series(pd.to_timedelta(y, unit="h"), index=y.index, name="value"),
        "all missing": y * np.nan,
    }
    kind = case.pick("kind", list(kinds))
    forecaster = new(case.pick("method", NAMES))
    case.expect("refusal")
    forecaster.fit(kinds[kind], fh=STEPS)


def sizes_of_values(case: Case) -> None:
    """Forecast huge and tiny values in finite numbers, or refuse them."""
    exponent = case.pick(
        "exponent", [-320, -300, -160, -40, 15, 30, 37, 39, 100, 153, 155, 300, 307]
    )
    offset = case.pick("offset", [0.0, 1.0])
    y = (series() - 10 + offset) * float(f"1e{exponent}")
    forecaster = new(case.pick("method", NAMES)).fit(y, fh=STEPS)
    answer = forecaster.predict()
    check_values(answer)
    check_near(answer / float(f"1e{exponent}"), offset, 50)
    check_values(forecaster.predict_quantiles(alpha=[0.1, 0.9]))
    check_values(forecaster.predict_var())


def intervals_of_little_evidence(case: Case) -> None:
    """Give intervals a width, or say that there is none."""
    method = case.pick("method", NAMES)
    kind = case.pick("kind", ["last missing", "large offset", "few rows", "steps", "constant"])
    y = series(80)
    if kind == "last missing":
        y.iloc[-case.whole("missing", 1, 40) :] = np.nan
    elif kind == "large offset":
        size = case.pick("size", [1e-6, 1e-3, 0.003, 1.0])
        y = 1e12 + size * (y - 10)
    elif kind == "few rows":
        y = y.iloc[: case.whole("rows", 2, 20)]
    elif kind == "steps":
        y = y.round(-1)
    else:
        y = y * 0 + 5
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        forecaster = new(method).fit(y, fh=STEPS)
        table = forecaster.predict_interval(coverage=0.8)
    lower, upper = table.iloc[:, 0].to_numpy(float), table.iloc[:, 1].to_numpy(float)
    told = [one for one in said if "interval" in str(one.message) or "constant" in str(one.message)]
    if not told:
        check_intervals(lower, upper)
        check_values(forecaster.predict_var())


def odd_series(case: Case) -> None:
    """Refuse what is no series."""
    y = series()
    shapes: dict[str, Any] = {
        "None": None,
        "list": [],
        "dict": {},
        "text": "co2",
        "array": y.to_numpy().reshape(2, 2, 3, -1),
        "empty": y.iloc[:0],
        "one row": y.iloc[:1],
        "no columns": pd.DataFrame(index=y.index),
        "doubled stamp": pd.concat([y.iloc[:20], y.iloc[19:]]),
        "turned": y.iloc[::-1],
        "NaT": y.set_axis(y.index.where(y.index != y.index[5], pd.NaT)),
        "text index": y.set_axis([f"day {i}" for i in range(60)]),
        "float index": y.set_axis(np.arange(60) + 0.5),
        "gap": y.drop(y.index[30]),
        "column twice": pd.concat([y, y], axis=1),
        "two levels of columns": pd.concat({"a": y.to_frame(), "b": y.to_frame()}, axis=1),
        "long frame": panel(y).reset_index(),
        "panel with a gap": panel(y).drop(("a", y.index[30])),
        "panel with doubled rows": pd.concat([panel(y), panel(y).iloc[:1]]),
        "panel of one row each": panel(y.iloc[:1], [f"s{i}" for i in range(2000)]),
        "panel with a short series": pd.concat([panel(y), panel(y.iloc[:1], ["c"])]),
    }
    shape = case.pick("shape", list(shapes))
    forecaster = new(case.pick("method", NAMES))
    call = case.pick("call", ["fit", "fit", "pretrain"])
    case.expect("refusal")
    getattr(forecaster, call)(shapes[shape], fh=STEPS)


def panels_of_other_forms(case: Case) -> None:
    """Forecast every series of a panel under its own name, or refuse."""
    names: dict[str, list[Any]] = {
        "integers": [2, 1],
        "text numbers": ["007", "7"],
        "mixed": [1, "1"],
        "None": ["a", None],
        "NaN": ["a", np.nan],
        "dates": list(pd.date_range("2020", periods=2)),
        "empty text": ["", "a"],
        "same twice": ["a", "a"],
        "booleans": [True, False],
    }
    ids = case.pick_named("ids", names)
    y = panel(series(), ids if len(set(map(str, ids))) > 1 else ["x", "y"])
    if len(set(map(str, ids))) == 1:
        y.index = pd.MultiIndex.from_arrays(
            [np.repeat(np.array(ids, object), 60), y.index.get_level_values(1)]
        )
    form = case.pick("form", ["frame", "series"])
    data = y if form == "frame" else y["value"]
    answer = new(case.pick("method", NAMES)).fit(data, fh=STEPS).predict()
    check(len(answer) == 2 * HORIZON, f"{len(answer)} rows for two series: one is missing")
    check_values(answer)
    texts = answer.index.get_level_values(0).astype(str)
    for number, name in enumerate(map(str, ids) if texts.nunique() == 2 else []):
        check_near(answer[texts == name], 10 + 10 * number, 5)


def intervals_at_ordinary_times(case: Case) -> None:
    """Nest intervals, centre them and label them."""
    forecaster = fitted(case.pick("method", NAMES), case.pick("kind", ["one", "two", "panel"]))
    wide, narrow = sorted([case.whole("wide", 60, 95), case.whole("narrow", 10, 59)], reverse=True)
    case.expect("answer")
    table = forecaster.predict_interval(coverage=[narrow / 100, wide / 100])
    for variable in table.columns.levels[0]:
        inner, outer = table[variable][narrow / 100], table[variable][wide / 100]
        check_intervals(inner["lower"].to_numpy(), inner["upper"].to_numpy())
        check(bool((outer["lower"] <= inner["lower"]).all()), "intervals that do not nest")
        check(bool((outer["upper"] >= inner["upper"]).all()), "intervals that do not nest")


# ---------------------------------------------------------------------- arguments

_ODD: dict[str, Any] = {
    "None": None,
    "text": "many",
    "nan": float("nan"),
    "inf": float("inf"),
    "-1": -1,
    "0": 0,
    "1e12": 10**12,
    "1e30": 10**30,
    "0.5": 0.5,
    "True": True,
    "list": [1, 2],
    "dict": {"a": 1},
    "Ellipsis": ...,
    "empty": "",
    "tuple of text": ("a", "b"),
    "Decimal": decimal.Decimal("0.5"),
    "array": np.arange(3),
    "complex": 1j,
    "levels": (0.9, 0.1),
    "level": 0.1,
}


def odd_arguments(case: Case) -> None:
    """Take or refuse an argument of the constructor; name it where it is refused."""
    method = case.pick("method", NAMES)
    known = sorted(new(method).get_params(deep=False))
    name = case.pick("argument", [one for one in known if one != "embedding_store"])
    value = case.pick_named("value", _ODD)
    case.expect("either", name, *(["X", "covariate"] if name == "past_covariates" else []))
    forecaster = new(method, **{name: value})
    answer = forecaster.fit(series(), fh=STEPS).predict()
    check_values(answer)


def odd_levels(case: Case) -> None:
    """Take levels between 0 and 1, and refuse others."""
    forecaster = fitted(case.pick("method", NAMES))
    call = case.pick("call", ["predict_quantiles", "predict_interval"])
    many = np.linspace(0.01, 0.99, 99).tolist()
    good = {"0.5": 0.5, "list": [0.1, 0.9], "array": np.array([0.2, 0.8]), "many": many}
    bad: dict[str, Any] = {
        "0": 0, "1": 1, "-0.1": -0.1, "1.5": 1.5, "nan": float("nan"), "text": "a", "texts": ["a"],
        "empty": [], "True": True, "twice": [0.5, 0.5], "None in a list": [None], "80": [80],
    }  # fmt: skip
    value = case.pick_named("levels", good | bad)
    case.expect("answer" if case.drawn["levels"] in good else "refusal")
    if case.drawn["levels"] in ("twice", "1", "0", "empty"):  # sktime leaves these open
        case.expect("either")
    key = "alpha" if call == "predict_quantiles" else "coverage"
    check_values(getattr(forecaster, call)(**{key: value}))


def odd_horizons(case: Case) -> None:
    """Refuse horizons that are no steps after the end, quickly and without their memory."""
    forecaster = fitted(case.pick("method", NAMES), case.pick("kind", ["one", "panel"]))
    horizons: dict[str, Any] = {
        "0": 0, "-1": [-1], "1.5": [1.5], "text": ["a"], "empty": [], "million": 10**6,
        "billion": 10**9, "1e18": [10**18], "1e30": [10**30], "nan": [float("nan")], "True": True,
        "dict": {1: 2}, "Ellipsis": ..., "two dimensions": np.ones((2, 2), int),
        "[1, 0]": [1, 0],
        "-1e18": [-(10**18)], "range of a million": range(1, 10**6),
    }  # fmt: skip
    horizon = case.pick_named("fh", horizons)
    if case.drawn["fh"] != "True":
        case.expect("refusal")
    check_values(forecaster.predict(fh=horizon))


def updates_of_another_kind(case: Case) -> None:
    """Refuse an update that does not continue the series, and keep all as it was."""
    more = series(5, start="2024-03-01")
    updates: dict[str, Any] = {
        "panel": panel(more),
        "zone": more.tz_localize("UTC"),
        "hours": series(5, freq="h", start="2024-03-01"),
        "gap": series(5, start="2024-03-10"),
        "periods": more.set_axis(more.index.to_period("D")),
        "integers": more.reset_index(drop=True),
        "text": more.set_axis(more.index.astype(str)),
        "turned": more.iloc[::-1],
        "doubled": pd.concat([more, more]),
        "words": more.astype(str),
        "inf": more * np.inf,
        "list": [1.0, 2.0],
        "number": 3,
        "older": series(5, start="2023-03-01"),
        "noon": series(5, start="2024-03-01 12:00"),
    }
    update = case.pick_named("update", updates)
    forecaster = fitted(case.pick("method", NAMES))
    before = forecaster.predict()
    case.expect("refusal")
    try:
        forecaster.update(update)
    except Exception:
        check_same(forecaster.predict(), before)
        raise


def overlapping_updates(case: Case) -> None:
    """Continue a series through an update that repeats its last rows."""
    overlap = case.whole("overlap", 0, 20)
    forecaster = fitted(case.pick("method", NAMES))
    whole = series(65)
    case.expect("answer")
    forecaster.update(whole.iloc[60 - overlap :])
    answer = forecaster.predict()
    check_index(answer.index, stamps_after(whole.index[-1], "D", STEPS))
    right = fitted(case.drawn["method"])
    right.update(whole.iloc[60:])
    check_same(answer, right.predict())


def deprecated_frequencies(case: Case) -> None:
    """Take an old name of a frequency, or name its successor."""
    old, now = case.pick(
        "freq", [("M", "ME"), ("H", "h"), ("15T", "min"), ("Q", "QE"), ("A", "YE"), ("Y", "YE"),
                 ("S", "s"), ("BM", "BME"), ("SM", "SME"), ("T", "min"), ("L", "ms"), ("AS", "YS")]
    )  # fmt: skip
    y = pd.Series(waves(40), index=pd.date_range("2024-01-31", periods=40, freq=now), name="value")
    y.index.freq = None
    forecaster = new(case.pick("method", NAMES), freq=old)
    case.expect("either", now)
    check_values(forecaster.fit(y, fh=STEPS).predict())


def unknown_frequencies(case: Case) -> None:
    """Refuse a frequency that is none, or not that of the series."""
    freq = case.pick("freq", ["", "X", "fortnight", "-1D", "0D", "h", "ME", "D D", "1.5D", "2D"])
    forecaster = new(case.pick("method", NAMES), freq=freq)
    case.expect("refusal", "freq", "frequency")
    forecaster.fit(series(), fh=STEPS)


ATTACKS: list[Attack] = [
    columns_in_another_order,
    foreign_columns,
    payload_of_turned_columns,
    pretrained_on_turned_columns,
    covariates_in_another_order,
    covariates_at_fit_time,
    booleans_of_two_kinds,
    future_covariates_of_another_form,
    values_of_other_kinds,
    values_that_are_no_numbers,
    sizes_of_values,
    intervals_of_little_evidence,
    odd_series,
    panels_of_other_forms,
    intervals_at_ordinary_times,
    odd_arguments,
    odd_arguments,
    odd_arguments,
    odd_levels,
    odd_horizons,
    updates_of_another_kind,
    overlapping_updates,
    deprecated_frequencies,
    unknown_frequencies,
]
