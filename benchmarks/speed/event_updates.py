"""Seconds that `update` takes per event, as a stream grows to a million events (Aaren encoder).

A model is fitted to a short Hawkes stream and then reads a stream event by event. The events
between two counts are read in bulk; at each count, single events are timed and the next event is
predicted. Time and memory should be constant.

    python benchmarks/speed/event_updates.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsllm.datasets import EventTable, make_hawkes
from tsllm.events import PromptTPP

sys.path.append(str(Path(__file__).parents[1]))
from measuring import parser, peak_memory_mib, spread, write


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--counts", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000, 1_000_000]
    )
    arguments.add_argument("--repeats", type=int, default=200, help="single events timed a count")
    arguments.add_argument("--bulk", type=int, default=20_000, help="events of an update in bulk")
    arguments.add_argument("--hidden", type=int, default=32)
    arguments.add_argument("--encoder", default="aaren")
    arguments.add_argument("--quick", action="store_true", help="up to 1,000 events")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    counts = [count for count in args.counts if not args.quick or count <= 1000]
    started = time.perf_counter()
    training = make_hawkes(
        [0.3, 0.2], [[0.3, 0.2], [0.1, 0.4]], 2.0, t_end=50, n_sequences=20, random_state=0
    ).events
    model = PromptTPP(args.encoder, hidden=args.hidden, max_epochs=2, random_state=0).fit(training)
    stream = long_stream(max(counts) + args.repeats + 10, seed=1)
    print(f"stream of {stream.n_events} events, model of {model.n_parameters} parameters")
    model.update(part(stream, 0, 1))
    seen, rows = 1, []
    for count in counts:
        begun, first = time.perf_counter(), seen
        while seen < count:
            to = min(count, seen + args.bulk)
            model.update(part(stream, seen, to))
            seen = to
        bulk = (time.perf_counter() - begun) / max(seen - first, 1)
        seconds = []
        for _ in range(args.repeats):
            event = part(stream, seen, seen + 1)
            begun = time.perf_counter()
            model.update(event)
            seconds.append(time.perf_counter() - begun)
            seen += 1
        begun = time.perf_counter()
        predicted = model.predict()
        row = {
            "events": count,
            "update_seconds": spread(seconds),
            "predict_seconds": time.perf_counter() - begun,
            "bulk_seconds_per_event": bulk,
            "history_events": model.history_.n_events,
            "predicted_finite": bool(np.isfinite(predicted.select_dtypes("number")).all().all()),
            **peak_memory_mib(),
        }
        rows.append(row)
        print(row, flush=True)
    first, last = (rows[at]["update_seconds"]["p50"] for at in (0, -1))
    print(f"median at {counts[-1]:,} events over that at {counts[0]:,}: {last / first:.2f}")
    results: dict[str, Any] = {
        "encoder": args.encoder,
        "parameters": model.n_parameters,
        "table": rows,
        "last_over_first": last / first,
        "seconds": time.perf_counter() - started,
    }
    write("events_update_latency" + args.tag, results, args.out)


def long_stream(n_events: int, seed: int) -> EventTable:
    """Make one sequence of so many events: a Hawkes sequence, repeated one after another."""
    block = make_hawkes(
        [0.3, 0.2], [[0.3, 0.2], [0.1, 0.4]], 2.0, t_end=20_000, random_state=seed
    ).events
    times, types = block.times[0], block.types[0]
    turns = -(-n_events // len(times))
    return EventTable(
        ids=("stream",),
        times=((times + 20_000.0 * np.arange(turns)[:, None]).ravel()[:n_events],),
        types=(np.tile(types, turns)[:n_events],),
        starts=np.array([0.0]),
        ends=np.array([np.nan]),
    )


def part(stream: EventTable, first: int, last: int) -> EventTable:
    """Return some events of a stream."""
    return EventTable(
        ids=stream.ids,
        times=(stream.times[0][first:last],),
        types=(stream.types[0][first:last],),
        starts=stream.starts if first == 0 else np.array([np.nan]),
        ends=stream.ends,
    )


if __name__ == "__main__":
    main()
