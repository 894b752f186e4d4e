"""Does it help that a language model reads the types' names? Index encoders against text encoders.

On ``make_text_events`` (48 phrases; what they mean decides what triggers what) with few and with
many training sequences, with phrases held out of training, and on New York's animal requests by
borough. The arms differ in what the network knows of a type: its number; its text, embedded by the
language model; the same with random weights; the same with the names shuffled.

    python benchmarks/events_text.py --data DATA --seeds 0 1 2
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from events_data import data_folder, nyc311
from measuring import parser, peak_memory_mib, write

from tsllm.datasets import EventTable, make_text_events
from tsllm.events import EventForecaster, HawkesForecaster, NaiveEventForecaster, PromptTPP

ARMS = ("text", "text, shuffled names", "text, random weights", "index", "hawkes", "naive")


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--sequences", type=int, nargs="+", default=[10, 30, 100])
    arguments.add_argument("--sets", nargs="+", default=["phrases", "unseen", "nyc311"])
    arguments.add_argument("--variants", nargs="+", default=list(ARMS), choices=list(ARMS))
    arguments.add_argument("--hidden", type=int, default=32)
    arguments.add_argument("--dropout", type=float, default=0.1)
    arguments.add_argument("--epochs", default="auto")
    arguments.add_argument("--quick", action="store_true", help="ten sequences, two epochs")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "prompt_mode": "none",
        "base_update": "full",
        "hidden": args.hidden,
        "dropout": args.dropout,
        "max_epochs": args.epochs if args.epochs == "auto" else int(args.epochs),
    }
    if args.quick:
        args.sequences, args.seeds, settings["max_epochs"] = [10], args.seeds[:1], 2
    layers = None if args.layers == 0 else args.layers
    started, rows = time.perf_counter(), []
    for seed in args.seeds:
        for name in args.sets:
            for data in data_sets(name, args, seed):
                for arm in args.variants:
                    row = measured(arm, data, settings, args.backbone, layers, seed)
                    rows.append(row)
                    print("  ".join(
                        f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()
                    ), flush=True)  # fmt: skip
    table = pd.DataFrame(rows).drop(columns=["seed", "seconds"])
    means = table.groupby(["set", "variant"], sort=False).mean(numeric_only=True)
    print(means.to_string(float_format=lambda value: f"{value:.3f}"))
    results = {
        "settings": settings,
        "backbone": args.backbone,
        "layers": layers,
        "rows": rows,
        "seconds": time.perf_counter() - started,
        "memory": peak_memory_mib(),
    }
    write("events_text" + args.tag, results, args.out)


def data_sets(name: str, args: Any, seed: int) -> list[dict[str, Any]]:
    """Make a kind of data: what to fit, to stop by and to test on, and the true log-likelihood."""
    if name == "nyc311":
        train, dev, test = nyc311(data_folder(args.data)).split(keep_empty=True)
        known = train.extend(dev)
        start = known.clock.to_stamp(max(times[-1] for times in known.times if len(times)))
        whole = known.extend(test)
        return [{"set": name, "train": train, "dev": dev, "test": whole, "t_start": start,
                 "types": types_of(whole), "truth": np.nan}]  # fmt: skip
    if name == "phrases":
        found = []
        test = make_text_events(n_sequences=50, random_state=1000 + seed)
        dev = make_text_events(n_sequences=20, random_state=2000 + seed).events
        types = sorted(test.parameters["themes"])
        for n in args.sequences:
            train = make_text_events(n_sequences=n, random_state=seed).events
            found.append({"set": f"phrases, {n} sequences", "train": train,
                          "dev": renamed(dev, "dev"), "test": test.events, "t_start": None,
                          "types": types, "truth": truth_of(test)})  # fmt: skip
        return found
    held = {"unseen_per_theme": 2}
    test = make_text_events(types="all", n_sequences=50, random_state=1000 + seed, **held)
    dev = make_text_events(n_sequences=20, random_state=2000 + seed, **held).events
    n = max(args.sequences)
    train = make_text_events(n_sequences=n, random_state=seed, **held).events
    return [{"set": f"12 phrases unseen, {n} sequences", "train": train,
             "dev": renamed(dev, "dev"), "test": test.events, "t_start": None,
             "types": sorted(test.parameters["themes"]), "truth": truth_of(test)}]  # fmt: skip


def measured(
    arm: str, data: dict[str, Any], settings: dict[str, Any], backbone: str, layers: Any, seed: int
) -> dict[str, Any]:
    """Fit an arm and test it."""
    model = estimator(arm, data["types"], settings, backbone, layers, seed)
    begun = time.perf_counter()
    model.fit(data["train"], validation=data["dev"], types=data["types"])
    seconds = time.perf_counter() - begun
    found = model.evaluate(data["test"], t_start=data["t_start"])
    return {
        "set": data["set"],
        "variant": arm,
        "seed": seed,
        "train_events": data["train"].n_events,
        "test_events": found.events,
        "log_likelihood": found["log_likelihood"],
        "true_log_likelihood": data["truth"],
        "type_error": found["type_error"],
        "time_rmse": found["time_rmse"],
        "time_mae": found["time_mae"],
        "seconds": seconds,
    }


def estimator(
    arm: str, types: list[str], settings: dict[str, Any], backbone: str, layers: Any, seed: int
) -> EventForecaster:
    """Make an arm's estimator."""
    if arm == "hawkes":
        return HawkesForecaster()
    if arm == "naive":
        return NaiveEventForecaster()
    if arm == "index":
        return PromptTPP("attention", **settings, random_state=seed)
    texts: Any = "{name}"
    if arm == "text, shuffled names":
        shuffled = np.random.default_rng(seed).permutation(types)
        texts = dict(zip(types, shuffled.tolist(), strict=True))
    if arm == "text, random weights":
        backbone = f"random:{backbone}?seed={seed}"
    return PromptTPP(
        "llm",
        backbone=backbone,
        backbone_layers=layers,
        type_text=texts,
        **settings,
        random_state=seed,
    )


def renamed(events: EventTable, prefix: str) -> EventTable:
    """Give sequences names of their own, so that they are not taken for those of another table."""
    return replace(events, ids=tuple(f"{prefix}-{name}" for name in events.ids))


def types_of(events: EventTable) -> list[str]:
    """List the types of a table."""
    return sorted(events.type_counts().index)


def truth_of(simulation: Any) -> float:
    """Score simulated events with the process that made them, per event."""
    total = simulation.log_likelihood(simulation.events).sum()
    return float(total / simulation.events.n_events)


if __name__ == "__main__":
    main()
