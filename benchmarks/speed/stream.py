"""Streams at the rate of their observations: latency of one, rate of many, memory, and `update`.

Times of single calls are seconds of the processor, so that other work on the machine counts less.
Parts can be run alone: each writes its own entries into the file of results.

    python benchmarks/speed/stream.py
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsllm import AarenForecaster, HawkesForecaster, LinearForecaster, PromptTPP
from tsllm.datasets import make_hawkes

sys.path.append(str(Path(__file__).parents[1]))
from measuring import RESULTS, parser, peak_memory_mib, write

STEPS, HORIZON = 300, 24
MODELS: dict[str, Callable[[], Any]] = {
    "Aaren": lambda: AarenForecaster(max_steps=5, random_state=0),
    "Aaren, adaptive": lambda: AarenForecaster(max_steps=5, random_state=0, adaptive=True),
    "Linear": lambda: LinearForecaster(),
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    parts = {"one": one, "many": many, "memory": memory, "events": events}
    arguments.add_argument("--parts", nargs="+", default=list(parts), choices=list(parts))
    arguments.add_argument("--calls", type=int, default=300, help="observations timed")
    arguments.add_argument("--series", type=int, default=10_000)
    arguments.add_argument("--observations", type=int, default=1_000_000, help="for memory")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name = "stream" + args.tag
    path = (args.out or RESULTS) / f"{name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in args.parts:
        results[part] = parts[part](args)
        print(part, json.dumps(results[part], indent=1), flush=True)
    write(name, {key: results[key] for key in parts if key in results}, args.out)


def hourly(steps: int) -> pd.Series:
    """Make a noisy season of a day."""
    index = pd.date_range("2024-01-01", periods=steps, freq="h")
    noise = np.random.default_rng(0).normal(0, 0.1, steps)
    return pd.Series(np.sin(np.arange(steps) * 2 * np.pi / 24) + noise, index=index)


def one(args: Any) -> list[dict[str, Any]]:
    """Time single calls of a stream of one series, and of `update` and `predict`.

    First each step is observed only, then a forecast follows each step: the time of both counts,
    because adaptive intervals put off to the forecast what nobody reads before it.
    """
    rows = []
    for name, make in MODELS.items():
        y = hourly(STEPS + 2 * args.calls)
        forecaster = make().fit(y.iloc[:STEPS], fh=list(range(1, HORIZON + 1)))
        stream = forecaster.stream()
        calls = ("observe", "forecast", "observe_and_forecast", "update", "predict")
        times: dict[str, list[float]] = {call: [] for call in calls}
        for number, (stamp, value) in enumerate(y.iloc[STEPS:].items()):
            begun = time.process_time()
            stream.observe(stamp, value)
            seen = time.process_time()
            if number < args.calls:
                times["observe"].append(seen - begun)
                continue
            stream.forecast(HORIZON)
            times["forecast"].append(time.process_time() - seen)
            times["observe_and_forecast"].append(time.process_time() - begun)
        for number in range(50):
            row = y.iloc[[STEPS + number]]
            begun = time.process_time()
            forecaster.update(row)
            seen = time.process_time()
            forecaster.predict()
            times["update"].append(seen - begun)
            times["predict"].append(time.process_time() - seen)
        each = _milliseconds(times)
        ratio = float(np.mean(times["update"])) * 1000 / each["observe_ms_mean"]
        rows.append({"method": name, **each, "update_over_observe": ratio})
    return rows


def many(args: Any) -> list[dict[str, Any]]:
    """Count the observations a second of thousands of streams, each call with a step of all."""
    rows = []
    some = panel(40)
    for name in MODELS:
        forecaster = MODELS[name]().fit(some, fh=list(range(1, HORIZON + 1)))
        pasts = panel(args.series)
        begun = time.process_time()
        stream = forecaster.stream(pasts)
        opened = time.process_time() - begun
        hours = hourly(STEPS + 100).index[STEPS:]
        values = np.random.default_rng(1).normal(size=(100, args.series))
        steps = 4 if forecaster.adaptive else 48
        begun = time.process_time()
        for hour, step in zip(hours[:steps], values):
            stream.observe(hour, step)
        seconds = time.process_time() - begun
        begun = time.process_time()
        stream.forecast(HORIZON)
        rows.append(
            {
                "method": name,
                "series": args.series,
                "observations_per_second": steps * args.series / seconds,
                "seconds_to_open": opened,
                "seconds_to_forecast_all": time.process_time() - begun,
                "mib": stream.nbytes / 2**20,
            }
        )
    return rows


def panel(series: int) -> pd.DataFrame:
    """Make series of 100 hours."""
    y = hourly(STEPS).iloc[-100:]
    values = np.add.outer(np.arange(series), y.to_numpy())  # (series, steps)
    names = [f"s{number:05d}" for number in range(series)]
    index = pd.MultiIndex.from_product([names, y.index], names=["series_id", "timestamp"])
    return pd.DataFrame({"value": values.ravel()}, index=index)


def memory(args: Any) -> dict[str, Any]:
    """Measure the memory of a process over many observations of 100 streams."""
    forecaster = MODELS["Aaren"]().fit(panel(100), fh=list(range(1, HORIZON + 1)))
    stream, hour = forecaster.stream(), pd.Timedelta("1h")
    last = hourly(STEPS).index[-1]
    values = np.random.default_rng(1).normal(size=(args.observations // 100, 100))
    sizes = []
    for number, step in enumerate(values):
        last += hour
        stream.observe(last, step)
        if number in (len(values) // 10, len(values) - 1):
            sizes.append({"observations": 100 * (number + 1), **resident_mib()})
    return {"resident": sizes, "mib_of_stream": stream.nbytes / 2**20, **peak_memory_mib()}


def resident_mib() -> dict[str, float]:
    """Return the memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"resident_mib": pages * 4096 / 2**20}


def events(args: Any) -> list[dict[str, Any]]:
    """Time single events of one sequence, and count those a second of many sequences."""
    table = make_hawkes(
        [0.3, 0.2], [[0.3, 0.2], [0.1, 0.4]], 2.0, t_end=50, n_sequences=20, random_state=0
    ).events
    rows = []
    for model in (HawkesForecaster(), PromptTPP("aaren", max_epochs=1, random_state=0)):
        stream = model.fit(table).stream()
        (name,), last = stream.sequences[:1], 60.0
        times: dict[str, list[float]] = {"observe": [], "predict": []}
        for _ in range(args.calls):
            last += 1.0
            begun = time.process_time()
            stream.observe(last, stream.classes[0], sequence=name)
            seen = time.process_time()
            stream.predict(sequences=[name])
            times["observe"].append(seen - begun)
            times["predict"].append(time.process_time() - seen)
        names = [f"u{number}" for number in range(1000)]
        stream.observe(np.full(1000, 100.0), [stream.classes[1]] * 1000, sequence=names)
        begun = time.process_time()
        for turn in range(10):
            stream.observe(np.full(1000, 101.0 + turn), [stream.classes[0]] * 1000, sequence=names)
        rate = 10_000 / (time.process_time() - begun)
        each = _milliseconds(times)
        rows.append({"method": type(model).__name__, **each, "events_per_second": rate})
    return rows


def _milliseconds(times: dict[str, list[float]]) -> dict[str, float]:
    """Return quantiles and means of seconds in milliseconds, by call, without the first ones."""
    found = {}
    for call, seconds in times.items():
        later = np.array(seconds[min(len(seconds) // 10, 20) :]) * 1000
        for level in (50, 95):
            found[f"{call}_ms_p{level}"] = float(np.quantile(later, level / 100))
        if call.startswith("observe"):  # some calls do the work of others
            found[f"{call}_ms_mean"] = float(later.mean())
    return found


if __name__ == "__main__":
    main()
