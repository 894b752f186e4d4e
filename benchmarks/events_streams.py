"""Streams learnt slice by slice: San Jacinto earthquakes by year, Taobao clicks by day.

Every slice is split 70/10/20 by time. After each slice the model predicts the test parts of all
slices: PromptTPP, the same network pretrained on the first slice, fine-tuned on each, and retrained
from scratch on each, with the Hawkes process and the naive guesses beside them. ``taobao-split`` is
no stream: one fit on the file's own training sequences, early stopping on its dev, its test scored.

    python benchmarks/events_streams.py --stream sanjac --data DATA
    python benchmarks/events_streams.py --stream taobao-days --data DATA
    python benchmarks/events_streams.py --stream taobao-split --data DATA --hidden 64
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from events_data import (
    TAOBAO_TICK,
    data_folder,
    san_jacinto,
    taobao_days,
    taobao_frame,
)
from measuring import parser, peak_memory_mib, write

from tsllm.datasets import EventTable, read_events
from tsllm.events import HawkesForecaster, NaiveEventForecaster, PromptTPP, evaluate_stream

BASELINES = ("pretrained", "fine_tuned", "retrained", "hawkes", "naive")


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--stream", choices=["sanjac", "taobao-days", "taobao-split"], required=True
    )
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--hidden", type=int, default=32)
    arguments.add_argument("--dropout", type=float, default=0.1)
    arguments.add_argument("--epochs", default="auto")
    arguments.add_argument("--patience", type=int, default=10)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--learning-rate", type=float, default=3e-3)
    arguments.add_argument("--prompt-learning-rate", type=float, default=3e-2)
    arguments.add_argument("--slots", type=int, default=1, help="slots a slice opens")
    arguments.add_argument("--head-rank", type=int, help="default: as PromptTPP has it")
    arguments.add_argument("--encoder", default="attention")
    arguments.add_argument("--baselines", nargs="*", default=list(BASELINES))
    arguments.add_argument("--jitter", action="store_true", help="spread Taobao's clock ticks")
    arguments.add_argument("--quick", action="store_true", help="two slices, two epochs")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    folder = data_folder(args.data)
    settings = {
        "encoder": args.encoder,
        "hidden": args.hidden,
        "dropout": args.dropout,
        "max_epochs": 2
        if args.quick
        else args.epochs
        if args.epochs == "auto"
        else int(args.epochs),
        "patience": args.patience,
        "batch_size": args.batch,
        "learning_rate": args.learning_rate,
        "prompt_learning_rate": args.prompt_learning_rate,
        "slots_per_slice": args.slots,
    }
    if args.head_rank is not None:
        settings["head_rank"] = args.head_rank
    if args.quick:
        settings["max_epochs"] = 2
    started = time.perf_counter()
    if args.stream == "taobao-split":
        found = taobao_split(folder, settings, args)
    else:
        found = stream(folder, settings, args)
    results = {"stream": args.stream, "settings": settings, **found}
    results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    write(f"events_{args.stream.replace('-', '_')}{args.tag}", results, args.out)


def stream(folder: Any, settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Learn a stream slice by slice, once a seed."""
    ties: dict[str, Any] = {}
    if args.stream == "sanjac":
        slices = san_jacinto(folder)
    else:
        slices, ties = taobao_days(folder), {"ties": "batch", "resolution": TAOBAO_TICK}
    slices = slices[:2] if args.quick else slices
    reports = []
    for seed in args.seeds:
        model = PromptTPP(**settings, **ties, max_slots=len(slices) * args.slots, random_state=seed)
        report = evaluate_stream(model, slices, baselines=args.baselines, verbose=1)
        print(f"{args.stream}, seed {seed}\n{report}", flush=True)
        reports.append({"seed": seed, **report.to_dict()})
    unit = "day" if args.stream == "sanjac" else "1e4 s"
    return {"slices": len(slices), "time_unit": unit, "reports": reports}


def taobao_split(folder: Any, settings: dict[str, Any], args: Any) -> dict[str, Any]:
    """Fit once on the file's training sequences; the dev sequences stop the training."""
    frame = taobao_frame(folder)
    ties: dict[str, Any] = {"ties": "batch", "resolution": TAOBAO_TICK}
    parts = {}
    for name in ("train", "dev", "test"):
        part = frame[frame["split"] == name]
        parts[name] = read_events(part, id_col="seq_id", ties="batch")
        if args.jitter:
            parts[name] = spread_ticks(parts[name])
    if args.jitter:
        ties = {}
    rows = []
    for seed in args.seeds:
        arms = {
            "PromptTPP": PromptTPP(**settings, **ties, random_state=seed, verbose=1),
            "hawkes": HawkesForecaster(**ties),
            "naive": NaiveEventForecaster(**ties),
        }
        for arm, model in arms.items():
            if arm != "PromptTPP" and seed != args.seeds[0]:
                continue
            begun = time.perf_counter()
            model.fit(parts["train"], validation=parts["dev"])
            row = {"variant": arm, "seed": seed, "fit_seconds": time.perf_counter() - begun}
            row["dev_log_likelihood"] = model.score(parts["dev"])
            evaluation = model.evaluate(parts["test"])
            row |= {"test": evaluation.to_dict()}
            if arm == "PromptTPP":
                row["training"] = {
                    key: model.slices_[-1][key]
                    for key in ("epochs", "best_epoch", "steps", "stopped", "validation_loss")
                }
            rows.append(row)
            print(f"{arm}, seed {seed}: dev {row['dev_log_likelihood']:.4f}, "
                  f"{row['fit_seconds']:.0f} s\n{evaluation}", flush=True)  # fmt: skip
    return {"time_unit": "1e4 s", "ticks": "spread" if args.jitter else "kept", "rows": rows}


def spread_ticks(events: EventTable) -> EventTable:
    """Add U(0, tick) to every time, so that its density is one of a continuous time."""
    rng = np.random.default_rng(0)
    frame = events.to_frame()
    frame["time"] += rng.uniform(0, TAOBAO_TICK, len(frame))
    return read_events(frame, id_col="seq_id", sort=True)


if __name__ == "__main__":
    main()
