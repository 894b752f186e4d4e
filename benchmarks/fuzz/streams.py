"""Streams of events: tables, estimators, predictions, futures and scores."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from fuzz.cases import Attack, Case, check
from tsllm.datasets import make_hawkes, read_events
from tsllm.events import HawkesForecaster, NaiveEventForecaster, PromptTPP

METHODS: dict[str, Callable[[], Any]] = {
    "naive": lambda: NaiveEventForecaster(types="markov", random_state=0),
    "hawkes": lambda: HawkesForecaster(max_steps=5, random_state=0),
    "prompttpp": lambda: PromptTPP(
        "attention", hidden=8, layers=1, heads=2, components=3, max_epochs=1, batch_size=4,
        head_rank=0, device="cpu", random_state=0,
    ),
}  # fmt: skip


@functools.cache
def _table() -> pd.DataFrame:
    """Return a stream of two types in three sequences, with its windows."""
    made = make_hawkes([0.5, 0.3], [[0.3, 0.1], [0.2, 0.4]], [2.0, 1.5], t_end=24, n_sequences=3,
                       type_names=["bark", "bite"], random_state=0)  # fmt: skip
    frame: pd.DataFrame = made.events.to_frame()
    return frame


def _stream() -> pd.DataFrame:
    return _table().copy()


@functools.cache
def _fitted(method: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return METHODS[method]().fit(_stream(), windows=(0.0, 24.0))


def _names() -> list[str]:
    return sorted(set(_stream()["sequence_id"]))


def fitted(case: Case) -> Any:
    """Return a fitted estimator of a drawn method."""
    try:
        return _fitted(case.pick("method", list(METHODS)))
    except Exception as error:
        raise AssertionError(f"the fit that the case begins with failed: {error}") from error


def ordinary_streams(case: Case) -> None:
    """Predict the next event of each sequence after its last, in any order of rows."""
    frame = _stream()
    form = case.pick(
        "form", ["as it is", "turned columns", "interleaved", "stamps", "zone", "one sequence"]
    )
    if form == "turned columns":
        frame = frame[list(frame.columns[::-1])]
    elif form == "interleaved":
        frame = frame.sort_values("time")
    elif form in ("stamps", "zone"):
        zone = None if form == "stamps" else "Europe/Berlin"
        start = pd.Timestamp("2024-03-30", tz=zone)
        frame["time"] = start + pd.to_timedelta(frame["time"], unit="h")
        frame = frame.drop(columns=[n for n in frame if n.startswith("window")])
    elif form == "one sequence":
        frame = frame[frame["sequence_id"] == frame["sequence_id"].iloc[0]].drop(
            columns="sequence_id"
        )
    case.expect("answer")
    given = {} if form in ("stamps", "zone") else {"windows": (0.0, 24.0)}
    model = METHODS[case.pick("method", list(METHODS))]().fit(frame, **given)
    table = model.predict()
    names = ["sequence"] if form == "one sequence" else _names()
    found = table["sequence_id"].astype(str).tolist() if "sequence_id" in table else names
    check(sorted(found) == sorted(names), f"sequences {found} instead of {names}")
    keys = frame["sequence_id"].astype(str) if "sequence_id" in frame else ["sequence"] * len(frame)
    last = frame["time"].groupby(keys).max()
    for name, time in zip(found, table["time"]):
        check(pd.isna(time) or time >= last[name], f"{time} in {name} before its last event")
    check(set(table["type"]) <= set(frame["type"]), f"types {set(table['type'])}")
    check(bool(table["probability"].between(0, 1).all()), "a probability beyond 0 and 1")
    levels = table[["q0.1", "time_median", "q0.9"]].dropna()
    check(bool((levels["q0.1"] <= levels["q0.9"]).all()), "quantiles that do not rise")


def odd_tables(case: Case) -> None:
    """Refuse tables with a fault; name the sequence and the row."""
    frame = _stream()
    middle = frame.index == 7
    tables: dict[str, Any] = {
        "None": None,
        "list": [1, 2],
        "number": 5,
        "empty": frame.iloc[:0],
        "no types": frame.drop(columns="type"),
        "no times": frame.drop(columns="time"),
        "NaN time": frame.assign(time=frame["time"].where(~middle)),
        "inf time": frame.assign(time=frame["time"].where(~middle, np.inf)),
        "text time": frame.assign(time=frame["time"].astype(object).where(~middle, "soon")),
        "NaN type": frame.assign(type=frame["type"].where(~middle, None)),
        "unsorted": frame.iloc[::-1],
        "ties": frame.assign(time=frame["time"].where(~middle, frame["time"][6])),
        "NaN id": frame.assign(
            sequence_id=frame["sequence_id"].astype(object).where(~middle, np.nan)
        ),
        "one event": frame.iloc[:1],
        "column twice": pd.concat([frame, frame[["time"]]], axis=1),
        "two levels": pd.concat({"a": frame}, axis=1),
        "complex": frame.assign(time=frame["time"] + 1j),
        "huge times": frame.assign(time=frame["time"] * 1e300),
        "far times": frame.assign(time=frame["time"] + 1e17),
        "negative": frame.assign(time=frame["time"] - 1000),
        "integer types": frame.assign(type=(frame["type"] == "bark").astype(int)),
        "mixed types": frame.assign(type=frame["type"].astype(object).where(~middle, 3)),
        "mixed stamps": frame.assign(
            time=[
                pd.Timestamp("2024-01-01", tz="UTC"),
                *pd.date_range("2024-01-02", periods=len(frame) - 1),
            ]
        ),
        "missing file": "nope.csv",
        "a type each": frame.assign(type=[f"t{i}" for i in range(len(frame))]),
    }
    table = case.pick_named("table", tables)
    name = case.drawn["table"]
    model = METHODS[case.pick("method", list(METHODS))]()
    if name not in ("one event", "integer types", "mixed types", "a type each"):
        case.expect("refusal")
    model.fit(table).predict()


def odd_windows(case: Case) -> None:
    """Refuse windows that do not hold the events, or of a wrong kind."""
    windows: dict[str, Any] = {
        "turned": (24.0, 0.0),
        "short": (0.0, 5.0),
        "late": (10.0, 24.0),
        "one": (0.0,),
        "text": "all",
        "texts": ("a", "b"),
        "NaN": (float("nan"), float("nan")),
        "inf": (0.0, float("inf")),
        "None": (None, None),
        "dates": (pd.Timestamp("2024"), pd.Timestamp("2025")),
        "mapping of another": {"nope": (0.0, 24.0)},
        "mapping": dict.fromkeys(_names(), (0.0, 24.0)),
        "frame": pd.DataFrame({"sequence_id": _names(), "window_start": 0.0, "window_end": 24.0}),
        "frame without columns": pd.DataFrame({"sequence_id": _names()}),
        "frame twice": pd.DataFrame(
            {"sequence_id": ["0", "0"], "window_start": 0.0, "window_end": 24.0}
        ),
        "number": 5,
        "list": [0.0, 24.0],
    }
    given = case.pick_named("windows", windows)
    taken = ("NaN", "None", "mapping", "mapping of another", "frame", "list")
    case.expect("answer" if case.drawn["windows"] in taken else "refusal")
    read_events(
        _stream().drop(columns=["window_start", "window_end"], errors="ignore"), windows=given
    )


_ODD: list[Any] = [None, "x", "", -1, 0, 1.5, True, float("nan"), float("inf"), 10**6, 10**12,
10**30, [], [1],
                   ["a"], {}, (0.5, 0.1), [0.5, 0.5], pd.Timestamp("2024"), "1D",
                    pd.Timedelta("1D"), 1e300]  # fmt: skip


def odd_calls(case: Case) -> None:
    """Take or refuse an argument of a prediction; name it where it is refused."""
    model = fitted(case)
    calls: dict[str, tuple[Callable[..., Any], list[str]]] = {
        "predict": (model.predict, ["n_steps", "levels", "now", "windows", "n_paths", "history"]),
        "predict_proba": (model.predict_proba, ["now", "history"]),
        "predict_quantiles": (model.predict_quantiles, ["levels", "now"]),
        "predict_intensity": (model.predict_intensity, ["times", "windows", "history"]),
        "predict_count": (model.predict_count, ["window", "levels", "n_paths", "now"]),
        "sample": (model.sample, ["n_paths", "horizon", "n_events"]),
        "simulate": (model.simulate, ["n_sequences", "duration", "start"]),
        "score": (model.score, ["events", "t_start", "t_end"]),
        "update": (METHODS["naive"]().fit(_stream()).update, ["events", "windows"]),
    }
    name = case.pick("call", list(calls))
    call, arguments = calls[name]
    argument = case.pick("argument", arguments)
    value = case.pick("value", _ODD)
    files = ["source", "file", "the list"] if argument in ("events", "history") else []
    case.expect("either", argument.removesuffix("s"), *files)
    given: dict[str, Any] = {
        "sample": {"n_events": 2},
        "simulate": {"duration": 3.0},
        "score": {"events": _stream()},
        "predict_count": {"window": 3.0},
        "predict_intensity": {"times": [25.0]},
        "update": {"events": _stream().assign(time=lambda frame: frame["time"] + 100)},
    }.get(name, {})
    call(**(given | {argument: value}))


def odd_parameters(case: Case) -> None:
    """Take or refuse an argument of the constructor; name it where it is refused."""
    method = case.pick("method", list(METHODS))
    plain = METHODS[method]()
    name = case.pick("argument", sorted(plain.get_params(deep=False)))
    value = case.pick("value", [*_ODD, object, "attention", "llm", 3])
    case.expect("either", name, "column", "backbone")
    model = plain.set_params(**{name: value})
    model.fit(_stream(), windows=(0.0, 24.0))
    table = model.predict()
    check(len(table) == 3, f"{len(table)} rows for three sequences")


def updates(case: Case) -> None:
    """Continue each sequence from the events of an update, and refuse earlier ones."""
    model = METHODS[case.pick("method", ["naive", "hawkes"])]().fit(_stream(), windows=(0.0, 24.0))
    name = _names()[0]
    kinds: dict[str, Any] = {
        "later": pd.DataFrame({"sequence_id": [name], "time": [30.0], "type": ["bark"]}),
        "new sequence": pd.DataFrame({"sequence_id": ["new"], "time": [30.0], "type": ["bark"]}),
        "earlier": pd.DataFrame({"sequence_id": [name], "time": [1.0], "type": ["bark"]}),
        "new type": pd.DataFrame({"sequence_id": [name], "time": [30.0], "type": ["meow"]}),
        "stamps": pd.DataFrame(
            {"sequence_id": [name], "time": [pd.Timestamp("2024-01-01")], "type": ["bark"]}
        ),
        "NaN": pd.DataFrame({"sequence_id": [name], "time": [np.nan], "type": ["bark"]}),
        "no rows": pd.DataFrame({"sequence_id": [], "time": [], "type": []}),
        "turned columns": pd.DataFrame({"type": ["bark"], "time": [30.0], "sequence_id": [name]}),
    }
    kind = case.pick_named("update", kinds)
    drawn = case.drawn["update"]
    if drawn in ("later", "turned columns", "new sequence"):
        case.expect("answer")
    elif drawn != "no rows":
        case.expect("refusal")
    model.update(kind)
    table = model.predict()
    if drawn in ("later", "turned columns"):
        row = table[table["sequence_id"].astype(str) == name].iloc[0]
        check(pd.isna(row["time"]) or row["time"] >= 30.0, f"{row['time']} comes after 30.0")
    if drawn == "new sequence":
        check(len(table) == 4, f"{len(table)} rows for four sequences")


def long_futures(case: Case) -> None:
    """Refuse futures that would be endless, at once."""
    kind = case.pick(
        "kind", ["supercritical", "far", "many paths", "many events", "many sequences"]
    )
    case.expect("refusal")
    if kind == "supercritical":
        times = np.sort(
            np.concatenate([30 * (1 - 0.5**k) + 1e-3 * np.arange(40) for k in range(6)])
        )
        burst = pd.DataFrame({"time": np.unique(times), "type": "a"})
        model: Any = HawkesForecaster(max_steps=300, random_state=0).fit(burst)
        model.sample(n_paths=20, horizon=case.pick("horizon", [100.0, 1e4, 1e6]))
        return
    model = _fitted(case.pick("method", ["naive", "hawkes"]))
    if kind == "far":
        model.sample(n_paths=2, horizon=case.pick("horizon", [1e6, 1e9, 1e15]))
    elif kind == "many paths":
        model.sample(n_paths=case.pick("paths", [10**6, 10**9]), n_events=5)
    elif kind == "many events":
        model.sample(n_paths=1, n_events=case.pick("events", [10**6, 10**9]))
    else:
        model.simulate(case.pick("sequences", [10**6, 10**9, 10**12]), duration=10.0)


def scores_of_known_processes(case: Case) -> None:
    """Score a Poisson process as its formula does."""
    rng = np.random.default_rng(case.whole("rng", 0, 99))
    rate, end = case.pick("rate", [0.5, 2.0]), 200.0
    times = np.sort(rng.uniform(0, end, int(rate * end)))
    frame = pd.DataFrame({"time": times, "type": "a"})
    case.expect("answer")
    model = NaiveEventForecaster(random_state=0).fit(frame, windows=(0.0, end))
    found = model.score(frame, windows=(0.0, end))
    wanted = np.log(rate) - 1
    check(abs(found - wanted) < 0.02, f"{found:.3f} nats instead of {wanted:.3f}")


def files_of_events(case: Case) -> None:
    """Read events from files however they are written, or say what is wrong with them."""
    frame = _stream()
    name = case.pick("name", ["events.csv", "EVENTS.CSV", "events.parquet", "events.jsonl",
                              "events.txt",
                              "semicolons.csv", "empty.csv", "header.csv", "latin.csv",
                              "cut.parquet"])  # fmt: skip
    path = case.folder / name
    if name.endswith("parquet"):
        frame.to_parquet(path, index=False)
        if name.startswith("cut"):
            path.write_bytes(path.read_bytes()[: case.whole("place", 0, 500)])
    elif name.endswith("jsonl"):
        frame.to_json(path, orient="records", lines=True)
    elif name == "empty.csv":
        path.write_text("")
    elif name == "header.csv":
        path.write_text("sequence_id,time,type\n")
    elif name == "latin.csv":
        path.write_bytes(frame.replace("bark", "bärk").to_csv(index=False).encode("latin-1"))
    else:
        frame.to_csv(path, index=False, sep=";" if name.startswith("semi") else ",")
    if name in ("events.csv", "events.parquet", "events.jsonl"):
        case.expect("answer")
    elif name not in ("EVENTS.CSV",):
        case.expect("refusal")
    found = read_events(path)
    check(found.n_events == len(frame), f"{found.n_events} events instead of {len(frame)}")
    back = found.to_frame()
    check(np.allclose(np.sort(back["time"]), np.sort(frame["time"])), "other times")


def nested_lists(case: Case) -> None:
    """Read records and arrays of times with a fault in one of them, from Python and from files."""
    rng = np.random.default_rng(case.whole("rng", 0, 99))
    records: list[dict[str, Any]] = [
        {
            "seq_idx": number,
            "dim_process": 3,
            "time_since_start": np.sort(rng.uniform(0, 9, 5)).tolist(),
            "type_event": rng.integers(0, 3, 5).tolist(),
        }
        for number in range(4)
    ]
    faults: dict[str, tuple[str, Any]] = {
        "none": ("dim_process", 3),
        "short times": ("time_since_start", [0.0]),
        "falling times": ("time_since_start", [5.0, 4.0, 3.0, 2.0, 1.0]),
        "tied times": ("time_since_start", [1.0] * 5),
        "text time": ("time_since_start", [0.0, "soon", 2.0, 3.0, 4.0]),
        "missing time": ("time_since_start", [0.0, None, 2.0, 3.0, 4.0]),
        "huge time": ("time_since_start", [0.0, 1.0, 2.0, 3.0, 10**400]),
        "nested time": ("time_since_start", [[0.0], 1.0, 2.0, 3.0, 4.0]),
        "one time": ("time_since_start", 3.0),
        "no times": ("time_since_start", []),
        "type beyond": ("type_event", [0, 1, 2, 3, 0]),
        "negative type": ("type_event", [0, 1, -2, 1, 0]),
        "missing type": ("type_event", [0, 1, None, 1, 0]),
        "text type": ("type_event", [0, 1, "x", 1, 0]),
        "broken type": ("type_event", [0, 1, 0.5, 1, 0]),
        "text dim": ("dim_process", "many"),
        "other dim": ("dim_process", 7),
        "same name": ("seq_idx", 0),
    }
    field, value = case.pick_named("fault", faults)
    records[case.whole("record", 1, 3)][field] = value
    case.expect("answer" if case.drawn["fault"] == "none" else "refusal")
    form = case.pick("form", ["list", "json", "lines", "jsonl", "frame"])
    source: Any = records
    if form == "frame":
        source = pd.DataFrame(records)
    elif form != "list":
        source = case.folder / ("events.jsonl" if form == "jsonl" else "events.json")
        parts = [json.dumps(one) for one in records]
        source.write_text(f"[{','.join(parts)}]" if form == "json" else "\n".join(parts))
    model = METHODS[case.pick("method", ["naive", "hawkes"])]().fit(source)
    check(len(model.predict(source)) == 4, "not a row for each of four sequences")


ATTACKS: list[Attack] = [
    ordinary_streams,
    odd_tables,
    odd_windows,
    odd_calls,
    odd_calls,
    odd_parameters,
    updates,
    long_futures,
    scores_of_known_processes,
    files_of_events,
    nested_lists,
    odd_tables,
    odd_calls,
    odd_parameters,
]
