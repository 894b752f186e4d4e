"""Accuracy of the event models: streams with and without drift, and texts of event types.

    python benchmarks/events.py drift --seeds 0 1 2
    python benchmarks/events.py returning --seeds 0 1 2 --variants PromptTPP fine-tuned
    python benchmarks/events.py calendar --seeds 0 1 2
    python benchmarks/events.py simulated --seeds 0 1 2
    python benchmarks/events.py quakes --data FOLDER --seeds 0 1 2
    python benchmarks/events.py sanjac --data FOLDER
    python benchmarks/events.py zero-shot-sanjac --data FOLDER
    python benchmarks/events.py taobao-days --data FOLDER --slices 4 --set max_epochs=10
    python benchmarks/events.py taobao-split --data FOLDER --set hidden=64 max_epochs=40
    python benchmarks/events.py text --data FOLDER --seeds 0 1 2

There is no recipe for them: recipes run `tsllm.backtest`, which scores forecasts of series.

- drift: the trigger graph of `make_drift` is permuted in each of five slices. A slice has 105
  sequences to train on, 15 for early stopping and 30 to test on. The variants are PromptTPP and
  PromptTPP without one of its parts, the network trained on all slices at once, and baselines.
- returning: three regimes of `make_drift`, each of which comes again: A B C A B C.
- calendar: a Poisson process whose rate follows the day, with and without the calendar.
- simulated: five processes whose likelihood is known, with 2,000 and 8,000 events to train on. With
  `--development` those on which settings were chosen.
- quakes: two catalogues of earthquakes in sequences of 16 to 60 events of seven classes.
- sanjac, taobao-days: earthquakes by year and clicks by day, with `evaluate_stream`.
- zero-shot-sanjac: eight histories of 180 earthquakes, and the next 100 of each.
- taobao-split, taobao-jitter: one fit on the file's own training sequences. With jitter, each time
  is moved by a random part of the clock's tick.
- text: `make_text_events` with few and many training sequences and with unseen phrases, and New
  York's animal requests by borough.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from event_processes import FILES, TESTED, Case, daily_cycle, quake_sequences, simulated_case
from measuring import parser, peak_memory_mib, setting, write

from tsllm.datasets import (
    EventTable,
    make_drift,
    make_hawkes,
    make_text_events,
    read_events,
    time_slices,
)
from tsllm.datasets.events import Simulation
from tsllm.events import (
    EventForecaster,
    HawkesForecaster,
    NaiveEventForecaster,
    PromptTPP,
    ZeroShotEventForecaster,
    evaluate_stream,
)
from tsllm.events.evaluation.stream_report import GAINS, METRICS

#: Variants that learn slice by slice, and their parameters.
DRIFT: dict[str, dict[str, Any]] = {
    "PromptTPP": {},
    "allocated, frozen base": {"base_update": "freeze"},
    "allocated, frozen base, no head changes": {"base_update": "freeze", "head_rank": 0},
    "allocated, slow base": {"base_update": "slow"},
    "allocated, full base": {"base_update": "full"},
    "shared pool, full base (as published)": {
        "prompt_mode": "shared", "base_update": "full", "max_slots": 10, "top_slots": 5,
    },
    "fine-tuned": {"prompt_mode": "none", "base_update": "full"},
}  # fmt: skip
#: Variants that are fitted anew to the latest slice or, "joint", to all slices at once.
ANEW = ("retrained", "joint", "hawkes", "naive")
TEXT = ("text", "text, shuffled names", "text, random weights", "index", "hawkes", "naive")
BASELINES: dict[str, Any] = {"hawkes": HawkesForecaster, "naive": NaiveEventForecaster}
#: Parameters of a network without prompts.
PLAIN = {"prompt_mode": "none", "base_update": "full"}
#: Tests of the rescaled times: distance from the exponential, correlation of neighbours.
FIT = ("ks", "lag1")
#: The clock of the Taobao file ticks every 10 s; its times are in units of 1e4 s.
TICK = {"ties": "batch", "resolution": 1e-3}


def main() -> None:
    """Run one of the benchmarks and write its figures."""
    arguments = parser(__doc__.splitlines()[0])
    runs = {
        "drift": drift, "returning": drift, "calendar": calendar, "sanjac": stream,
        "zero-shot-sanjac": zero_shot_sanjac, "taobao-days": stream, "simulated": simulated,
        "quakes": quakes, "taobao-split": taobao_split, "taobao-jitter": taobao_split, "text": text,
    }  # fmt: skip
    arguments.add_argument("what", choices=runs)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument(
        "--variants", nargs="+", help="of drift and text, or baselines of streams; default: all"
    )
    arguments.add_argument(
        "--per-slice", type=int, default=150, help="sequences of a slice of drift and returning"
    )
    arguments.add_argument("--slices", type=int, help="use only the first slices")
    arguments.add_argument("--users", type=int, help="use only the first users of Taobao")
    arguments.add_argument("--sequences", type=int, nargs="+", default=[10, 30, 100])
    arguments.add_argument(
        "--events", type=int, nargs="+", default=[2000, 8000], help="to train on, of simulated"
    )
    arguments.add_argument("--sets", nargs="+", help="of simulated and quakes; default: all")
    arguments.add_argument(
        "--development", action="store_true", help="processes that settings are chosen on"
    )
    arguments.add_argument("--set", nargs="*", default=[], help="of PromptTPP, key=value")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    settings = dict(setting(one) for one in args.set)
    started = time.perf_counter()
    results = {"what": args.what, "settings": settings, **runs[args.what](settings, args)}
    results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    write(f"events_{args.what.replace('-', '_')}{args.tag}", results, args.out)


def show(row: dict[str, Any]) -> dict[str, Any]:
    """Print the flat values of a row and return the row."""
    flat = {key: one for key, one in row.items() if not isinstance(one, dict | list)}
    words = (f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in flat.items())
    print("  ".join(words), flush=True)
    return row


# ------------------------------------------------------------------------------------- drift


class Part(NamedTuple):
    """Sequences of a slice: to train on, for early stopping and to test on."""

    train: EventTable
    dev: EventTable
    test: EventTable


def drift(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Measure how much is forgotten if the trigger graph changes from slice to slice."""
    table, matrices, changed = [], {}, {}
    for seed in args.seeds:
        if args.what == "returning":
            slices = returning(seed, args.per_slice)
        else:
            slices = make_drift(
                "permute",
                n_slices=args.slices or 5,
                n_sequences=args.per_slice,
                random_state=seed,
            )
        parts = [split_sequences(one.events) for one in slices]
        truth = [
            one.log_likelihood(part.test).sum() / part.test.n_events
            for one, part in zip(slices, parts, strict=True)
        ]
        for name in args.variants or [*DRIFT, *ANEW]:
            begun = time.perf_counter()
            learnt = fitted_after(name, parts, settings, seed)
            values, fits, chosen = learn(learnt, parts, name == "joint")
            row = {"set": args.what, "method": name, "seed": seed}
            row |= {"seconds": time.perf_counter() - begun}
            row |= summary(values) | {"true_log_likelihood": float(np.mean(truth))}
            row |= {f"final_{of}": float(fits[of].mean()) for of in FIT}
            table.append(show(row))
            matrices[f"{name}, seed {seed}"] = values.tolist()
            changed |= {f"{name}, seed {seed}": chosen} if chosen else {}
    kind = "returning" if args.what == "returning" else "permute"
    told = {"metrics": list(METRICS), "matrices": matrices, "changed": changed}
    return {"kind": kind, **told, "table": table}


def returning(seed: int, sequences: int) -> list[Simulation]:
    """Simulate three regimes, and the same three again with new sequences."""
    regimes = make_drift("permute", n_slices=3, n_sequences=sequences, random_state=seed)
    stream = list(regimes)
    for number, one in enumerate(regimes, len(regimes)):
        known = one.parameters
        length = float(one.events.ends[0] - one.events.starts[0])
        stream.append(
            make_hawkes(
                known["mu"],
                known["alpha"],
                known["beta"],
                t_start=number * length,
                t_end=(number + 1) * length,
                n_sequences=len(one.events),
                id_prefix=f"{number}-",
                random_state=1000 * (seed + 1) + number,
            )
        )
    return stream


def calendar(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Fit to a Poisson process that follows the time of day, for 80 days; test on 20 more."""
    table = []
    for seed in args.seeds:
        case = daily_cycle(80, 20, seed)
        for name, periods in (("auto", "auto"), ("without", None)):
            model = PromptTPP(**settings, calendar=periods, time_unit="h", random_state=seed)
            row = {"set": "daily cycle", "method": f"PromptTPP, calendar {name}", "seed": seed}
            row |= measured(model, case)
            table.append(show(row | {"found": " ".join(model.calendar_) or "none"}))
    return {"table": table}


def simulated(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Fit to processes whose likelihood is known."""
    table = []
    for seed in args.seeds:
        for events in args.events:
            for name in args.sets or ("Poisson, daily cycle", *TESTED):
                case = simulated_case(name, events, seed, args.development)
                table += fitted_rows(f"{name}, {events}", case, settings, seed, args)
    return averaged(table)


def quakes(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Fit to sequences of earthquakes; the seed draws the sequences to test on, too."""
    table = []
    for seed in args.seeds:
        for name in args.sets or FILES:
            case = Case(*quake_sequences(folder_of(args), name, seed), None, np.nan, "h")
            table += fitted_rows(name, case, settings, seed, args)
    return {"time_unit": "h", **averaged(table)}


def averaged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over seeds as the table, with the farthest from the truth, and all rows."""
    frame = pd.DataFrame(rows)
    frame["below_truth"] = frame["true_log_likelihood"] - frame["log_likelihood"]
    groups = frame.groupby(["set", "method"], sort=False)
    means = groups.mean(numeric_only=True).drop(columns=["seed", "true_log_likelihood"])
    means.insert(0, "seeds", groups["seed"].nunique())
    means.insert(3, "below_truth", means.pop("below_truth"))
    means.insert(4, "below_truth_most", groups["below_truth"].max())
    means = means.dropna(axis="columns", how="all")
    table = means.reset_index().rename(columns={"set": "data"})  # one table of all sets
    return {"table": table.to_dict("records"), "details": rows}


def fitted_rows(
    set_name: str, case: Case, settings: dict[str, Any], seed: int, args: Any
) -> list[dict[str, Any]]:
    """Fit PromptTPP and the baselines, and measure each."""
    rows = []
    for name in args.variants or ["PromptTPP", *BASELINES]:
        common = {"time_unit": case.time_unit, "random_state": seed}
        make = BASELINES.get(name)
        model = PromptTPP(**settings, **common) if make is None else make(**common)
        row = {"set": set_name, "method": name, "seed": seed, **measured(model, case)}
        rows.append(show(row))
    return rows


def measured(model: EventForecaster, case: Case) -> dict[str, Any]:
    """Fit to a case and measure on its test events, in seconds of processor time."""
    begun = time.process_time()
    model.fit(case.train)
    seconds = time.process_time() - begun
    found = model.evaluate(case.test, t_start=case.t_start)
    own, *guesses = found.to_dict()["table"].values()
    row = {"train_events": model.n_events_, "test_events": found.events}
    row |= {"log_likelihood": own["log_likelihood"], "true_log_likelihood": case.truth}
    row |= {"type_error": own["type_error"]}
    errors = [one["type_error"] for one in guesses if one["type_error"] is not None]
    row |= {"least_type_error_of_guesses": min(errors)}
    return row | goodness(model, case.test, case.t_start) | {"cpu_seconds": seconds}


def goodness(model: EventForecaster, events: EventTable, t_start: Any = None) -> dict[str, float]:
    """Return distance and correlation of the rescaled times; under the truth near 0."""
    row = model.diagnostics(events, t_start=t_start).table.iloc[0]
    return {"ks": float(row["ks"]), "lag1": float(row["lag1"])}


def split_sequences(events: EventTable) -> Part:
    """Split the sequences: 70, 10 and 20 per cent."""
    first, second = round(0.7 * len(events)), round(0.8 * len(events))
    ids = events.ids
    return Part(*map(events.select, (ids[:first], ids[first:second], ids[second:])))


def fitted_after(
    name: str, parts: list[Part], settings: dict[str, Any], seed: int
) -> Callable[[int], EventForecaster]:
    """Return a function that fits a variant to a slice, which it gets by its number."""
    types = sorted({one for part in parts for one in part.train.type_counts().index})
    if name in DRIFT:
        model = PromptTPP(**{**settings, **DRIFT[name]}, random_state=seed)

        def go_on(latest: int) -> EventForecaster:
            known = {"types": types} if latest == 0 else {}
            return model.partial_fit(parts[latest].train, validation=parts[latest].dev, **known)

        return go_on

    def anew(latest: int) -> EventForecaster:
        plain = PromptTPP(**{**settings, **PLAIN}, random_state=seed)
        model = BASELINES[name]() if name in BASELINES else plain
        used = parts if name == "joint" else parts[latest : latest + 1]
        train, dev = (together([part[side] for part in used]) for side in (0, 1))
        return model.fit(train, validation=dev, types=types)

    return anew


def learn(
    fitted: Callable[[int], EventForecaster], parts: list[Part], latest_only: bool
) -> tuple[np.ndarray, pd.DataFrame, str]:
    """Test on all slices after each of them, or after the last.

    Returns the values (learned, tested, metrics), the tests of the last model's rescaled times on
    each slice, and what it chose to change.
    """
    values = np.full((len(parts), len(parts), len(METRICS)), np.nan)
    for latest in range(len(parts) - 1 if latest_only else 0, len(parts)):
        model = fitted(latest)
        evaluations = [model.evaluate(part.test) for part in parts]
        values[latest] = [[one[metric] for metric in METRICS] for one in evaluations]
        print(f"after slice {latest}: {values[latest, :, 0].round(3).tolist()}", flush=True)
    fits = [goodness(model, part.test) for part in parts]
    records = getattr(model, "slices_", [])
    chosen = [one["chosen"] for one in records] if any(one["losses"] for one in records) else []
    return values, pd.DataFrame(fits), " ".join(chosen)


def summary(values: np.ndarray) -> dict[str, float]:
    """Reduce the values of a variant (learned, tested, metrics) to a few figures.

    ``final``: the mean over all slices after the last; ``plasticity``: the mean of each slice just
    after it was learned; ``forgetting``: the mean loss of an earlier slice against its best value.
    """
    found = {f"final_{name}": values[-1, :, at].mean() for at, name in enumerate(METRICS)}
    for at, name in enumerate(METRICS[:2]):
        if not np.isnan(values).any():
            matrix = values[:, :, at] if name in GAINS else -values[:, :, at]
            found[f"plasticity_{name}"] = np.diag(values[:, :, at]).mean()
            found[f"forgetting_{name}"] = (matrix.max(0) - matrix[-1])[:-1].mean()
    return {name: float(value) for name, value in found.items()}


def together(tables: list[EventTable]) -> EventTable:
    """Join tables with different sequences."""
    whole = tables[0]
    for table in tables[1:]:
        whole = whole.extend(table)
    return whole


# ---------------------------------------------------------------------------- recorded streams


def stream(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Learn a stream slice by slice, once a seed."""
    quakes = args.what == "sanjac"
    slices = (san_jacinto if quakes else taobao_days)(folder_of(args))[: args.slices]
    if args.users is not None:
        names = sorted({name for one in slices for name in one.ids}, key=str)[: args.users]
        slices = [one.select([name for name in names if name in set(one.ids)]) for one in slices]
    ties = {} if quakes else TICK
    table, reports = [], []
    for seed in args.seeds:
        model = PromptTPP(**settings, **ties, random_state=seed)
        model.set_params(max_slots=len(slices) * model.slots_per_slice)
        every = ["pretrained", "fine_tuned", "retrained", "hawkes", "naive"]
        baselines = args.variants or every
        report = evaluate_stream(model, slices, baselines=baselines, verbose=1)
        print(report, flush=True)
        found = {"seed": seed, **report.to_dict()}
        for row in sorted(found.pop("summary"), key=lambda row: METRICS.index(row["metric"])):
            metric = row.pop("metric")
            row = {
                "set": f"{args.what}, {metric}",
                "method": row.pop("variant"),
                "seed": seed,
            } | row
            if metric == METRICS[0]:
                fits = report.fits.set_index("variant").loc[row["method"]]
                row |= {f"final_{of}": float(fits[of]) for of in FIT}
            table.append(row | {"seconds": sum(found["seconds"][row["method"]])})
        table += [
            {"set": f"{args.what}, guesses", "method": name, "seed": seed, **scores}
            for name, scores in found.pop("guesses").items()
        ]
        reports.append(found)
    unit = "day" if quakes else "1e4 s"
    return {"slices": len(slices), "time_unit": unit, "table": table, "reports": reports}


def folder_of(args: Any) -> Path:
    """Find the folder of the data files: an argument, or TSLLM_DATA."""
    folder = args.data or os.environ.get("TSLLM_DATA")
    if not folder:
        raise SystemExit("name the folder of the data files with --data, or set TSLLM_DATA")
    return Path(folder)


def san_jacinto(folder: Path) -> list[EventTable]:
    """Read the San Jacinto earthquakes as ten yearly slices, typed by magnitude; times in days."""
    frame = pd.read_csv(folder / "events_quakes_sanjac.csv.gz")
    names = ["below 1.25", "1.25 to 1.5", "1.5 to 2", "2 and above"]
    bins = pd.cut(frame["magnitude"], [-np.inf, 1.25, 1.5, 2, np.inf], right=False, labels=names)
    events = read_events(
        pd.DataFrame({"time": frame["time"], "type": bins}),
        windows=("2008-01-01", "2018-01-01"),
        time_unit="D",
    )
    return time_slices(events, "YS")


def taobao_days(folder: Path) -> list[EventTable]:
    """Cut Taobao's clicks into the nine days of the campaign, in China's time.

    The first slice also has the 439 events of the days before, too few for a slice of their own.
    """
    frame = pd.read_csv(folder / "events_taobao.csv.gz")
    events = read_events(frame, id_col="seq_id", ties="batch")
    days = np.arange(17496, 17504)  # since 1970-01-01
    return time_slices(events, (days * 86400 - 8 * 3600) / 1e4)


def zero_shot_sanjac(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Score the earthquakes after each of eight histories, without training and fitted to it."""
    frame = pd.read_csv(folder_of(args) / "events_quakes_sanjac.csv.gz")
    kinds = np.where(frame["magnitude"] < 1.5, "below 1.5", "1.5 and above")
    quakes = pd.DataFrame({"time": frame["time"], "type": kinds})
    models = {"zero_shot": ZeroShotEventForecaster, **BASELINES}
    table, histories, history, scored = [], 8, 180, 100
    for number in range(histories):
        first = number * (len(quakes) // histories)
        part = quakes.iloc[first : first + history + scored]
        row: dict[str, Any] = {"first": part["time"].iloc[0]}
        for name, make in models.items():
            model = make().fit(part.iloc[:history], types=sorted(set(kinds)))
            row[name] = model.score(part, t_start=part["time"].iloc[history - 1])
        table.append(show(row))
    mean = {name: float(np.mean([row[name] for row in table])) for name in models}
    return {"table": [*table, show({"first": "mean", **mean})]}


def taobao_split(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Fit once to the file's training sequences; its dev sequences stop the training."""
    frame = pd.read_csv(folder_of(args) / "events_taobao.csv.gz")
    jitter = args.what == "taobao-jitter"
    parts = {}
    for name in ("train", "dev", "test"):
        parts[name] = read_events(frame[frame["split"] == name], id_col="seq_id", ties="batch")
        if jitter:
            moved = parts[name].to_frame()
            moved["time"] += np.random.default_rng(0).uniform(0, TICK["resolution"], len(moved))
            parts[name] = read_events(moved, id_col="seq_id", sort=True)
    ties = {} if jitter else TICK
    rows, guesses = [], {}
    for seed in args.seeds:
        models = {"PromptTPP": PromptTPP(**settings, **ties, random_state=seed, verbose=1)}
        if seed == args.seeds[0]:
            models |= {name: make(**ties) for name, make in BASELINES.items()}
        for name, model in models.items():
            begun = time.perf_counter()
            model.fit(parts["train"], validation=parts["dev"])
            row = {"method": name, "seed": seed, "fit_seconds": time.perf_counter() - begun}
            own, *others = model.evaluate(parts["test"]).to_dict()["table"].items()
            row |= own[1] | {"dev_log_likelihood": model.score(parts["dev"])}
            row |= goodness(model, parts["test"])
            rows.append(show(row))
            guesses |= {guess: {"method": guess, **scores} for guess, scores in others}
    ticks = "spread" if jitter else "kept"
    return {"time_unit": "1e4 s", "ticks": ticks, "table": [*rows, *guesses.values()]}


# -------------------------------------------------------------------------------------- text


def text(settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Compare encoders of the numbers of types with encoders of their texts."""
    table = []
    for seed in args.seeds:
        for data in text_sets(args, seed):
            for name in args.variants or TEXT:
                model = text_model(name, data["types"], settings, args, seed)
                begun = time.perf_counter()
                model.fit(data["train"], validation=data["dev"], types=data["types"])
                seconds = time.perf_counter() - begun
                found = model.evaluate(data["test"], t_start=data.get("t_start"))
                row = {"set": data["set"], "method": name, "seed": seed}
                row |= {"train_events": data["train"].n_events, "test_events": found.events}
                row |= {metric: found[metric] for metric in METRICS}
                row |= {"true_log_likelihood": data.get("truth", np.nan), "seconds": seconds}
                table.append(show(row))
    return {"backbone": args.backbone, "layers": args.layers, "table": table}


def text_sets(args: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Make each set: the sequences to fit, to stop by and to test on, and the true likelihood."""
    most = max(args.sequences)
    unseen = {"unseen_per_theme": 2}
    kinds = [(f"phrases, {n} sequences", n, {}, {}) for n in args.sequences]
    kinds.append((f"12 phrases unseen, {most} sequences", most, unseen, unseen | {"types": "all"}))
    for name, n, held, tested in kinds:
        test = make_text_events(n_sequences=50, random_state=1000 + seed, **tested)
        dev = make_text_events(n_sequences=20, random_state=2000 + seed, **held).events
        yield {
            "set": name,
            "train": make_text_events(n_sequences=n, random_state=seed, **held).events,
            "dev": replace(dev, ids=tuple(f"dev-{one}" for one in dev.ids)),
            "test": test.events,
            "types": sorted(test.parameters["themes"]),
            "truth": float(test.log_likelihood(test.events).sum() / test.events.n_events),
        }
    train, dev, test = nyc311(folder_of(args)).split(keep_empty=True)
    known = train.extend(dev)
    whole = known.extend(test)
    start = known.clock.to_stamp(max(times[-1] for times in known.times if len(times)))
    types = sorted(whole.type_counts().index)
    yield {"set": "nyc311", "train": train, "dev": dev, "test": whole, "t_start": start,
           "types": types}  # fmt: skip


def nyc311(folder: Path) -> EventTable:
    """Read New York's animal requests by borough, typed by complaint and descriptor; in hours.

    One request without a borough is dropped. Requests in one second are spread over it.
    """
    frame = pd.read_csv(folder / "events_nyc311_animals.csv.gz")
    frame = frame[frame["Borough"] != "Unspecified"]
    names = frame["Complaint Type"].str.replace("-", " ") + (
        ": " + frame["Descriptor"].fillna("")
    ).where(frame["Descriptor"].notna(), "")
    columns = {"sequence_id": frame["Borough"], "time": frame["Created Date"], "type": names}
    return read_events(
        pd.DataFrame(columns),
        sort=True,
        ties="jitter",
        resolution=1 / 3600,
        time_unit="h",
        random_state=0,
    )


def text_model(
    name: str, types: list[str], settings: dict[str, Any], args: Any, seed: int
) -> EventForecaster:
    """Make the estimator of a variant."""
    if name in BASELINES:
        model: EventForecaster = BASELINES[name]()
        return model
    common = {**settings, **PLAIN, "random_state": seed}
    if name == "index":
        return PromptTPP("attention", **common)
    texts: Any = "{name}"
    if name == "text, shuffled names":
        shuffled = np.random.default_rng(seed).permutation(types)
        texts = dict(zip(types, shuffled.tolist(), strict=True))
    backbone = args.backbone
    if name == "text, random weights":
        backbone = f"random:{backbone}?seed={seed}"
    common |= {"backbone": backbone, "backbone_layers": args.layers}
    return PromptTPP("llm", type_text=texts, **common)


if __name__ == "__main__":
    main()
