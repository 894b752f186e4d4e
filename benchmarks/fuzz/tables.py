"""Long tables in memory: `tsllm.forecast` and `read_long` on frames."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

import tsllm
from fuzz.cases import Attack, Case, check
from fuzz.shared import (
    SETTINGS,
    check_index,
    check_levels,
    check_near,
    check_table,
    check_values,
    long,
    stamps_after,
    waves,
)
from tsllm.datasets import read_long
from tsllm.errors import DataError

METHODS = ("auto", "aaren", "autotimes", "timecma", "s2ip")
IDS = ["s0", "s1", "s2"]


def forecast(data: Any, horizon: Any = 2, *, method: str = "autotimes", **arguments: Any) -> Any:
    """Forecast with a model that trains in no time."""
    settings = SETTINGS[method] if method in METHODS else {}
    tiny = {"backbone": None, "random_state": 0}
    return tsllm.forecast(data, horizon, method=method, **(tiny | settings | arguments))


def _next(freq: str, steps: int = 40) -> dict[str, pd.Index]:
    """Return the two stamps that follow each series of `long`."""
    last = pd.date_range("2024-01-01", periods=steps, freq=freq)[-1]
    return {name: stamps_after(last, freq, [1, 2]) for name in IDS}


def ordinary_tables(case: Case) -> None:
    """Forecast every series of a table, in any order of rows and columns and of any frequency."""
    freq = case.pick("freq", ["D", "h", "B", "MS", "ME", "W-SUN", "QS", "15min", "YS"])
    frame = long(freq=freq)
    form = case.pick(
        "form", ["as it is", "shuffled", "turned columns", "index", "interleaved", "other names"]
    )
    rng = np.random.default_rng(case.whole("order", 0, 99))
    sort = form in ("shuffled",)
    if form == "shuffled":
        frame = frame.iloc[rng.permutation(len(frame))]
    elif form == "turned columns":
        frame = frame[["value", "series_id", "timestamp"]]
    elif form == "index":
        frame = frame.set_axis(rng.integers(0, 5, len(frame)))
    elif form == "interleaved":
        frame = frame.sort_values(["timestamp", "series_id"])
    else:
        frame = frame.set_axis(["unique_id", "ds", "y"], axis=1)
    case.expect("answer")
    table = forecast(frame, method=case.pick("method", METHODS), sort=sort)
    check_table(table, IDS, 2, stamps=_next(freq))
    check_levels(table)


def names_of_series(case: Case) -> None:
    """Keep the names of series as text, each apart."""
    kinds: dict[str, list[Any]] = {
        "integers": [3, 1, 2],
        "leading zeros": ["007", "07", "7"],
        "mixed": [1, "1", "01"],
        "None": ["a", None, "b"],
        "NaN": ["a", np.nan, "b"],
        "NaT": [pd.NaT, "a", "b"],
        "empty": ["", "a", "b"],
        "spaces": [" a", "a", "a "],
        "signs": ["a,b", 'q"', "ä/é\n"],
        "booleans": [True, False, "x"],
        "floats": [1.0, 2.5, 3.0],
        "dates": list(pd.date_range("2024-01-01", periods=3)),
        "tuples": [("a", 1), ("b", 2), ("c", 3)],
        "nan as text": ["nan", "None", "NA"],
        "bytes": [b"a", b"b", b"c"],
        "categories": ["a", "b", "c"],
        "huge": [10**30, 2**63, 5],
    }
    ids = case.pick_named("ids", kinds)
    frame = long()
    column = pd.Series([ids[int(name[1:])] for name in frame["series_id"]], dtype=object)
    if case.drawn["ids"] == "categories":
        column = column.astype("category")
    if case.drawn["ids"] in ("integers", "leading zeros", "categories", "nan as text"):
        case.expect("answer")
    elif case.drawn["ids"] in ("None", "NaN", "NaT"):
        case.expect("refusal", "row")
    table = forecast(frame.assign(series_id=column))
    check(table["series_id"].nunique() == 3, f"{table['series_id'].nunique()} of three series")
    check_values(table["forecast"])
    if case.drawn["ids"] in ("leading zeros", "integers"):
        for place, name in enumerate(ids):
            rows = table[table["series_id"] == str(name)]
            check_near(rows["forecast"], 100.0 * (place + 1), 40)


def times_of_other_kinds(case: Case) -> None:
    """Read stamps however they are written, or say how to write them."""
    days = pd.Series(pd.date_range("2024-01-01", periods=40, freq="D"))
    hours = pd.Series(pd.date_range("2024-03-29", periods=60, freq="h", tz="Europe/Berlin"))
    months = pd.Series([(2020 + i // 12) * 100 + i % 12 + 1 for i in range(40)])
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "text": (days.astype(str), {}),
        "dates": (days.dt.date, {}),
        "objects": (days.astype(object), {}),
        "seconds": (days.astype("datetime64[s]"), {}),
        "periods": (days.dt.to_period("D"), {}),
        "arrow": (days.astype("timestamp[us][pyarrow]"), {}),
        "arrow dates": (days.astype("date32[day][pyarrow]"), {}),
        "ISO with Z": (days.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), {}),
        "UTC in words": (days.dt.strftime("%Y-%m-%d %H:%M:%S UTC"), {}),
        "offsets": (hours.map(lambda one: one.isoformat()), {"tz": "Europe/Berlin"}),
        "offsets without tz": (hours.map(lambda one: one.isoformat()), {}),
        "zone": (hours, {}),
        "German": (days.dt.strftime("%d.%m.%Y"), {"format": "%d.%m.%Y"}),
        "German without format": (days.dt.strftime("%d.%m.%Y"), {}),
        "American": (days.dt.strftime("%m/%d/%Y"), {}),
        "AM": (days.dt.strftime("%Y-%m-%d 01:00 PM"), {}),
        "weeks": (pd.Series([f"2024-W{week:02d}" for week in range(1, 41)]), {}),
        "quarters": (pd.Series([f"{2000 + i // 4}Q{i % 4 + 1}" for i in range(40)]), {}),
        "months as integers": (months, {}),
        "months with format": (months, {"format": "%Y%m"}),
        "days as integers": (days.dt.strftime("%Y%m%d").astype(int), {}),
        "epoch": (days.astype("int64") // 10**9, {}),
        "steps": (pd.Series(range(40)), {}),
        "years": (pd.Series(range(1900, 1940)), {}),
        "census": (pd.Series(range(1800, 2000, 5)), {}),
        "floats": (pd.Series(np.arange(40.0)), {}),
        "decimals": (pd.Series([decimal.Decimal(i) for i in range(40)]), {}),
        "times of day": (days.dt.time, {}),
        "durations": (days - days[0], {}),
        "two kinds": (pd.Series([*days[:20], *days[20:].astype(str)], dtype=object), {}),
        "two zones": (
            pd.Series([*days[:20].dt.tz_localize("UTC"), *days[20:].dt.tz_localize("Asia/Tokyo")]),
            {},
        ),
        "NaT": (days.where(days.index != 7), {}),
        "year 9999": (days + pd.Timedelta(days=365), {}),
        "31 February": (pd.Series(["2024-02-31"] * 40), {}),
        "far": (pd.Series([datetime.datetime(9999, 12, day + 1) for day in range(31)] * 2), {}),
    }  # fmt: skip
    times, arguments = case.pick_named("times", kinds)
    name = case.drawn["times"]
    frame = pd.DataFrame({"timestamp": times, "value": waves(len(times))})
    if name in ("text", "dates", "objects", "seconds", "periods", "arrow", "arrow dates", "zone",
                "offsets", "ISO with Z", "German", "months with format", "steps",
                "years"):  # fmt: skip
        case.expect("answer")
    if name in ("months as integers", "days as integers", "epoch", "two zones", "NaT"):
        case.expect("refusal")
    table = forecast(frame, **arguments)
    check_values(table["forecast"])
    last, answered = times.iloc[-1], table["timestamp"].iloc[0]
    if name in ("steps", "years", "census"):
        step = times.iloc[1] - times.iloc[0]
        check(answered == last + step, f"{answered} follows {last}")
    elif name == "offsets" or name == "zone":
        wanted = hours.iloc[-1] + pd.Timedelta(hours=1)
        check(answered == wanted, f"{answered} follows {hours.iloc[-1]}")
    elif name in ("text", "dates", "objects", "seconds", "arrow", "arrow dates", "German",
                  "German without format", "American"):  # fmt: skip
        check(answered == pd.Timestamp("2024-02-10"), f"{answered} follows 2024-02-09")
    elif name == "months with format":
        check(answered == pd.Timestamp("2023-05-01"), f"{answered} follows 2023-04")


def values_of_other_kinds(case: Case) -> None:
    """Read the same numbers in any dtype; refuse what is no number and name its row."""
    frame = long().round({"value": 2})
    plain = frame["value"]
    good: dict[str, Any] = {
        "decimal": lambda: plain.map(lambda one: decimal.Decimal(f"{one:.2f}")),
        "decimal with None": lambda: plain.map(lambda one: decimal.Decimal(f"{one:.2f}")).where(
            plain.index != 5, None
        ),
        "object": lambda: plain.astype(object),
        "None": lambda: plain.astype(object).where(plain.index != 5, None),
        "Float64": lambda: plain.astype("Float64"),
        "arrow": lambda: plain.astype("double[pyarrow]"),
        "arrow decimal": lambda: pd.Series(
            [decimal.Decimal(f"{one:.2f}") for one in plain],
            dtype=pd.ArrowDtype(pa.decimal128(10, 2)),
        ),
        "NaN": lambda: plain.where(plain.index != 5),
    }
    bad: dict[str, Any] = {
        "text": lambda: plain.astype(str).where(plain.index != 5, "oops"),
        "one text": lambda: plain.astype(object).where(plain.index != 5, "oops"),
        "inf": lambda: plain.where(plain.index != 5, np.inf),
        "complex": lambda: plain.astype(complex) * 1j,
        "dates": lambda: frame["timestamp"],
        "dicts": lambda: pd.Series([{"a": 1}] * len(plain)),
        "huge decimal": lambda: plain.map(lambda one: decimal.Decimal("1e400")),
        "huge integer": lambda: pd.Series([10**400] * len(plain), dtype=object),
        "one series missing": lambda: plain.where(frame["series_id"] != "s1"),
        "end missing": lambda: plain.where((frame["series_id"] != "s1") | (frame.index % 40 < 38)),
    }
    value = case.pick_named("values", good | bad)
    name = case.drawn["values"]
    case.expect("answer" if name in good else "refusal", *([] if name in good else ["value"]))
    if name in ("one text", "text", "inf"):
        case.expect("refusal", "row 5", "s0")
    elif name in ("one series missing", "end missing"):
        case.expect("either", "s1")
    table = forecast(frame.assign(value=value()))
    check_table(table, IDS, 2, stamps=_next("D"))
    check_levels(table)


def arguments_of_wrong_kinds(case: Case) -> None:
    """Name the argument that is of a wrong kind."""
    arguments: dict[str, list[Any]] = {
        "horizon": [0, -1, 1.5, True, "3", None, [1, 2], 10**6, 10**9, 10**30, float("nan")],
        "quantiles": [[2.0], ["a"], [float("nan")], [0.5, 0.5], 0.5, "0.5", [None], [0], [True],
                      np.linspace(0.001, 0.999, 1001).tolist(), {"a": 1}],
        "id_col": [3, "nope", ["series_id"], "value", "timestamp", ""],
        "time_col": [3, "nope", "value", "series_id", ["timestamp"]],
        "target_cols": [2, "nope", ["value", "value"], [], ["series_id"], {"value": 1},
                        "timestamp"],
        "freq": ["X", "h", 5, "", "M", "W", ["D"], "-1D"],
        "fill": ["zero", 0, True, ["nan"]],
        "resample": ["max", 1, True],
        "sort": ["yes", 2],
        "method": ["naive", 3, ""],
        "covariates": ["nope", 3, ["value"], ["timestamp"]],
        "tz": ["Mars", 3, ""],
        "format": [3, "%Q", "no codes"],
        "on_error": ["ignore", True, 3],
        "context_length": [10**12, -1, "long", 1.5],
        "max_steps": [0, -1, "few"],
        "not_known": [1],
        "future": ["nope.csv", 3, []],
    }  # fmt: skip
    name = case.pick("argument", list(arguments))
    value = case.pick("value", arguments[name])
    of_columns = name == "covariates" or name.endswith(("_col", "_cols"))
    words = (name, *(["column"] if of_columns else []))
    taken = [("sort", 2), ("sort", "yes"), ("format", "no codes")]
    case.expect("either" if (name, value) in taken else "refusal", *words)
    given = {name: value}
    horizon = given.pop("horizon", 2)
    table = forecast(long(), horizon, **given)
    check_values(table["forecast"])


def odd_tables(case: Case) -> None:
    """Refuse what is no long table; name the series and the row."""
    frame = long()
    one = frame[frame["series_id"] == "s0"]
    tables: dict[str, Any] = {
        "None": None,
        "list": [1, 2],
        "array": frame.to_numpy(),
        "empty": frame.iloc[:0],
        "no columns": frame[[]],
        "one row": frame.iloc[:1],
        "doubled": pd.concat([frame, frame.iloc[:1]]),
        "gap": frame.drop(index=7),
        "unsorted": frame.iloc[::-1],
        "two levels of columns": pd.concat({"a": frame}, axis=1),
        "column twice": pd.concat([frame, frame[["value"]]], axis=1),
        "no times": frame.drop(columns="timestamp"),
        "short series": pd.concat([frame, frame.iloc[:1].assign(series_id="x")]),
        "two frequencies": pd.concat(
            [frame,
             one.assign(series_id="x", timestamp=pd.date_range("2024", periods=40, freq="h"))]
        ),
        "zones and none": pd.concat(
            [frame.astype({"timestamp": object}),
             one.assign(series_id="x", timestamp=[*one["timestamp"].dt.tz_localize("UTC")])]
        ),
        "number": 5,
        "dict": frame.to_dict("list"),
        "series": frame["value"],
        "long one-point table": pd.DataFrame(
            {"series_id": [f"s{i}" for i in range(10_000)], "timestamp": pd.Timestamp("2024-01-01"),
             "value": 1.0}
        ),
    }  # fmt: skip
    table = case.pick_named("table", tables)
    case.expect("refusal")
    if case.drawn["table"] == "dict":
        case.expect("either")
    forecast(table, method=case.pick("method", METHODS))


def resampled_rows(case: Case) -> None:
    """Sum, average or take the last of the rows of each step, as pandas does."""
    how = case.pick("resample", ["sum", "mean", "last"])
    freq = case.pick("freq", ["D", "h", "W-SUN", "MS", "ME"])
    rows = case.whole("rows a step", 1, 4)
    rng = np.random.default_rng(case.whole("rng", 0, 99))
    steps = pd.date_range("2024-01-01", periods=30, freq=freq)
    width = (steps[1] - steps[0]) / 2
    times = np.sort(np.repeat(steps, rows))
    if case.pick("rows", ["at one stamp", "within the step"]) == "within the step":
        times = np.sort(times + width * rng.random(len(times))) if freq in ("D", "h") else times
    frame = pd.DataFrame({"timestamp": times, "value": rng.normal(10, 1, len(times)).round(3)})
    case.expect("answer")
    read = read_long(frame, freq=freq, resample=how)
    wanted = frame.groupby(np.repeat(np.arange(30), rows))["value"].agg(how)
    check(len(read) == 30, f"{len(read)} steps instead of 30")
    check(np.allclose(read["value"], wanted), f"{read['value'].iloc[0]} not {wanted.iloc[0]}")
    check_index(pd.Index(read["timestamp"]), steps)


def filled_gaps(case: Case) -> None:
    """Fill the rows that are missing, and no others, as pandas does."""
    fill = case.pick("fill", ["nan", "ffill", "interpolate"])
    freq = case.pick("freq", ["D", "h", "B", "MS", "W-SUN", "15min"])
    frame = long(1, 40, freq=freq)
    rng = np.random.default_rng(case.whole("rng", 0, 99))
    dropped = rng.choice(np.arange(1, 39), case.whole("dropped", 1, 12), replace=False)
    case.expect("answer")
    read = read_long(frame.drop(index=dropped), freq=freq, fill=fill)
    wanted = frame["value"].where(~frame.index.isin(dropped))
    if fill == "ffill":
        wanted = wanted.ffill()
    elif fill == "interpolate":
        stamps = pd.Series(wanted.to_numpy(), index=pd.DatetimeIndex(frame["timestamp"]))
        by_step, by_time = wanted.interpolate(), stamps.interpolate("time").reset_index(drop=True)
        check(
            np.allclose(read["value"], by_step) or np.allclose(read["value"], by_time),
            "values that are on no line",
        )
        wanted = read["value"]
    check(np.allclose(read["value"], wanted, equal_nan=True), "other values than pandas'")
    check_index(pd.Index(read["timestamp"]), pd.DatetimeIndex(frame["timestamp"]))


def one_bad_series(case: Case) -> None:
    """Skip the bad series when asked to, forecast the rest, and list what was left out."""
    frame = long()
    bad = frame[frame["series_id"] == "s1"]
    kinds: dict[str, Any] = {
        "all missing": bad.assign(value=np.nan),
        "end missing": bad.assign(value=bad["value"].where(bad.index % 40 < 20)),
        "one row": bad.iloc[:1],
        "doubled row": pd.concat([bad, bad.iloc[-1:]]),
        "gap": bad.drop(index=bad.index[5]),
        "unsorted": bad.iloc[::-1],
        "inf": bad.assign(value=bad["value"].where(bad.index % 40 != 5, np.inf)),
        "no stamp": bad.assign(timestamp=bad["timestamp"].where(bad.index % 40 != 5)),
    }
    kind = case.pick_named("kind", kinds)
    method = case.pick("method", METHODS)
    whole = pd.concat([frame[frame["series_id"] == "s0"], kind, frame[frame["series_id"] == "s2"]])
    try:
        forecast(whole, method=method)
    except DataError as error:
        check("s1" in str(error), f"the sentence does not name the series: {error}")
        case.expect("answer")
        table = forecast(whole, method=method, on_error="skip")
        check_table(table, ["s0", "s2"], 2, stamps={n: _next("D")[n] for n in ("s0", "s2")})
        check_levels(table)
        check(list(table.attrs["skipped"]) == ["s1"], f"left out {table.attrs['skipped']}")
    else:  # what is no mistake, such as missing values
        check(case.drawn["kind"] in ("end missing", "all missing"), "a bad series was taken")


def known_futures(case: Case) -> None:
    """Read the known future by names and stamps, or say which is missing."""
    rng = np.random.default_rng(0)
    frame = long(2, 50)
    frame["warm"] = rng.normal(size=100)
    frame["value"] += 5 * frame["warm"]
    past = frame[frame.index % 50 < 48]
    future = frame[frame.index % 50 >= 48].drop(columns="value")
    forms: dict[str, Any] = {
        "as it is": future,
        "turned columns": future[["warm", "timestamp", "series_id"]],
        "more series": pd.concat([future, future.iloc[:2].assign(series_id="x")]),
        "with values": frame[frame.index % 50 >= 48],
        "more rows": frame.drop(columns="value"),
        "shuffled": future.iloc[[1, 0, 3, 2]],
        "a series missing": future.iloc[:2],
        "a step missing": future.iloc[[0, 2, 3]],
        "NaN": future.assign(warm=np.nan),
        "text": future.assign(warm="a"),
        "zone": future.assign(timestamp=future["timestamp"].dt.tz_localize("UTC")),
        "text times": future.assign(timestamp=future["timestamp"].astype(str)),
        "column missing": future.drop(columns="warm"),
        "doubled": pd.concat([future, future]),
        "later": future.assign(timestamp=future["timestamp"] + pd.Timedelta(days=9)),
        "None": None,
    }
    form = case.pick_named("form", forms)
    if case.drawn["form"] in ("as it is", "turned columns", "with values", "text times"):
        case.expect("answer")
    elif case.drawn["form"] in ("a series missing", "a step missing", "column missing", "later"):
        case.expect("refusal")
    method = case.pick("method", METHODS)
    table = forecast(past, covariates="warm", future=form, method=method)
    case.expect("answer")
    right = forecast(past, covariates="warm", future=future, method=method)
    check_table(table, ["s0", "s1"], 2)
    check(np.allclose(table["forecast"], right["forecast"]), "another answer for the same future")


def several_value_columns(case: Case) -> None:
    """Keep each value column under its own name."""
    frame = long()
    names = case.pick("names", [("a", "b"), ("b", "a"), ("lo", "forecast"), ("q0.1", "x"), (1, 2)])
    frame[names[1]] = frame["value"] + 1000
    frame = frame.rename(columns={"value": names[0]})
    if case.pick("order", ["as it is", "turned"]) == "turned":
        frame = frame[[names[1], "timestamp", names[0], "series_id"]]
    method = case.pick("method", METHODS)
    table = forecast(frame, method=method)
    for place, name in enumerate(names):
        rows = table[(table["variable"] == str(name)) & (table["series_id"] == "s0")]
        check(len(rows) == 2, f"{len(rows)} rows of {name!r}")
        check_near(rows["forecast"], 100 + 1000 * place, 60)


ATTACKS: list[Attack] = [
    ordinary_tables,
    names_of_series,
    times_of_other_kinds,
    values_of_other_kinds,
    arguments_of_wrong_kinds,
    odd_tables,
    resampled_rows,
    filled_gaps,
    one_bad_series,
    known_futures,
    several_value_columns,
    times_of_other_kinds,
    arguments_of_wrong_kinds,
]
