"""Compare zero-shot events with fitted and trained models on held-out processes; write the figures.

PYTHONPATH=benchmarks python -m zero_shot_events.evaluate --tag _cpu --trained "hawkes, 2 types"
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import parser, write
from safetensors.torch import load_file

from tsllm.adapters.events.zero_shot.model import ZeroShotEventModel
from tsllm.events import ZeroShotEventForecaster
from tsllm.events import zero_shot as packaged
from zero_shot_events.streams import HISTORIES, PROCESSES, fitted, later, streams, trained


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--weights", type=Path, help="default: the packaged weights")
    arguments.add_argument("--streams", type=int, default=2, help="streams of each process")
    arguments.add_argument(
        "--trained", nargs="*", default=[], help="processes on which PromptTPP is trained, or all"
    )
    arguments.add_argument("--partial", type=Path, help="keep scores in this file, and go on")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.weights is not None:
        model = ZeroShotEventModel().requires_grad_(False).eval()
        model.load_state_dict({k: v.float() for k, v in load_file(args.weights).items()})
        packaged.packaged_model = lambda: model
    done: dict[str, Any] = {}
    if args.partial is not None and args.partial.exists():
        done = json.loads(args.partial.read_text("utf-8"))
    for name in PROCESSES:
        rival = None
        for stream in streams(name, range(args.streams)):
            row = done.setdefault(f"{name}|{stream['seed']}|{stream['events']}", {})
            if "hawkes" not in row:
                row.update(fitted(stream))
            if "zero_shot" not in row or args.weights is not None:
                zero = ZeroShotEventForecaster().fit(stream["history"], types=stream["types"])
                row["zero_shot"] = later(zero, stream)
            if ("all" in args.trained or name in args.trained) and "prompttpp" not in row:
                begun = time.process_time()
                rival = trained(name) if rival is None else rival
                row["prompttpp"] = later(rival, stream)
                print(name, f"{time.process_time() - begun:.0f} s", flush=True)
            if args.partial is not None:
                args.partial.write_text(json.dumps(done), "utf-8")
        print(json.dumps(mean_of(done, name)), flush=True)
    table = [mean_of(done, name) for name in PROCESSES]
    table += [mean_of(done, None, events) for events in HISTORIES]
    table.append(mean_of(done))
    write(f"events_zero_shot{args.tag}", {"table": table}, args.out)


def mean_of(
    done: dict[str, dict[str, float]], process: str | None = None, events: int | None = None
) -> dict[str, Any]:
    """Average the scores of the histories of a process, or of so many events.

    Also count the histories after which `ZeroShotEventForecaster` has the higher likelihood than
    `HawkesForecaster`.
    """
    rows = [
        row
        for key, row in done.items()
        if process in (None, key.split("|")[0]) and events in (None, int(key.split("|")[2]))
    ]
    found: dict[str, Any] = {"process": process or "all", "history": events or "all"}
    for name in ("truth", "zero_shot", "hawkes", "naive", "prompttpp"):
        values = [row[name] for row in rows if name in row]
        if len(values) == len(rows):
            found[name] = float(np.mean(values))
    above = sum(row["zero_shot"] > row["hawkes"] for row in rows)
    found["zero_shot_above_hawkes"] = f"{above} of {len(rows)}"
    return found


if __name__ == "__main__":
    main()
