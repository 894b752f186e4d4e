"""Forgetting under drift: a stream whose trigger graph is permuted in every slice (five slices).

Each slice has sequences of its own, 105 to train on, 15 to stop by and 30 to test on, of some 70
events each; a test sequence starts afresh, and nothing tells the model which slice it is from.
Beside PromptTPP as it is by default stand what it is made of, taken away one at a time; the network
trained on all slices at once, which a stream does not allow; and the true process.

    python benchmarks/events_drift.py --seeds 0 1 2
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write

from tsllm.datasets import EventTable, Simulation, make_drift
from tsllm.events import EventForecaster, HawkesForecaster, NaiveEventForecaster, PromptTPP
from tsllm.events.evaluation.stream_report import GAINS, METRICS

#: Arms that learn slice by slice: what they set beside the common settings.
ARMS: dict[str, dict[str, Any]] = {
    "allocated, frozen base": {},
    "allocated, frozen base, no head changes": {"head_rank": 0},
    "allocated, slow base": {"base_update": "slow"},
    "allocated, full base": {"base_update": "full"},
    "shared pool, full base (as published)": {
        "prompt_mode": "shared", "base_update": "full", "max_slots": 10, "top_slots": 5,
    },
    "fine-tuned": {"prompt_mode": "none", "base_update": "full"},
}  # fmt: skip
#: Arms that are fitted anew to the latest slice, or, "joint", to all slices at once.
ANEW = ("retrained", "joint", "hawkes", "naive")


class Part(NamedTuple):
    """A slice of the stream: sequences to train on, to stop by and to test on."""

    train: EventTable
    dev: EventTable
    test: EventTable


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--kind", default="permute", help="of drift, see make_drift")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--slices", type=int, default=5)
    arguments.add_argument("--variants", nargs="+", default=[*ARMS, *ANEW], choices=[*ARMS, *ANEW])
    arguments.add_argument("--hidden", type=int, default=32)
    arguments.add_argument("--dropout", type=float, default=0.1)
    arguments.add_argument("--epochs", default="auto")
    arguments.add_argument("--prompt-learning-rate", type=float, default=3e-2)
    arguments.add_argument("--prompt-length", type=int, default=5)
    arguments.add_argument("--quick", action="store_true", help="two slices, two epochs, one seed")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    settings = {
        "hidden": args.hidden,
        "dropout": args.dropout,
        "max_epochs": args.epochs if args.epochs == "auto" else int(args.epochs),
        "prompt_learning_rate": args.prompt_learning_rate,
        "prompt_length": args.prompt_length,
    }
    n_slices, seeds = args.slices, args.seeds
    if args.quick:
        n_slices, seeds, settings["max_epochs"] = 2, seeds[:1], 2
    started, rows, matrices = time.perf_counter(), [], {}
    for seed in seeds:
        stream = make_drift(args.kind, n_slices=n_slices, random_state=seed)
        parts = [split_sequences(one.events) for one in stream]
        truth = true_log_likelihoods(stream, parts)
        for arm in args.variants:
            begun = time.perf_counter()
            values = learn(learner(arm, parts, settings, seed), parts, latest_only=arm == "joint")
            row = {"variant": arm, "seed": seed, "seconds": time.perf_counter() - begun}
            row |= summary(values)
            row["true_log_likelihood"] = float(truth.mean())
            rows.append(row)
            matrices[f"{arm}, seed {seed}"] = values.tolist()
            print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                            for key, value in row.items()), flush=True)  # fmt: skip
    table = pd.DataFrame(rows)
    means = table.drop(columns="seed").groupby("variant", sort=False).agg(["mean", "std"])
    print(means.to_string(float_format=lambda value: f"{value:.3f}"))
    results = {
        "kind": args.kind,
        "settings": settings,
        "metrics": list(METRICS),
        "matrices": matrices,
        "rows": rows,
        "seconds": time.perf_counter() - started,
        "memory": peak_memory_mib(),
    }
    write("events_drift" + args.tag, results, args.out)


def split_sequences(events: EventTable) -> Part:
    """Take 70, 10 and 20 per cent of the sequences."""
    ids, n = events.ids, len(events)
    first, second = round(0.7 * n), round(0.8 * n)
    return Part(
        events.select(ids[:first]), events.select(ids[first:second]), events.select(ids[second:])
    )


def true_log_likelihoods(stream: list[Simulation], parts: list[Part]) -> np.ndarray:
    """Score each slice's test sequences with the process that made them, per event."""
    return np.array(
        [
            one.log_likelihood(part.test).sum() / part.test.n_events
            for one, part in zip(stream, parts, strict=True)
        ]
    )


def learner(
    arm: str, parts: list[Part], settings: dict[str, Any], seed: int
) -> Callable[[int], EventForecaster]:
    """Give what makes an arm's fitted estimator after each slice."""
    types = sorted({name for part in parts for name in part.train.type_counts().index})
    if arm in ARMS:
        model = PromptTPP(**{**settings, **ARMS[arm]}, random_state=seed)

        def go_on(latest: int) -> EventForecaster:
            known = {"types": types} if latest == 0 else {}
            return model.partial_fit(parts[latest].train, validation=parts[latest].dev, **known)

        return go_on

    def anew(latest: int) -> EventForecaster:
        plain = {"prompt_mode": "none", "base_update": "full", "random_state": seed}
        models = {"hawkes": HawkesForecaster, "naive": NaiveEventForecaster}
        model = models[arm]() if arm in models else PromptTPP(**{**settings, **plain})
        used = parts if arm == "joint" else parts[latest : latest + 1]
        train, dev = (together([part[side] for part in used]) for side in (0, 1))
        return model.fit(train, validation=dev, types=types)

    return anew


def learn(
    fitted: Callable[[int], EventForecaster], parts: list[Part], *, latest_only: bool
) -> np.ndarray:
    """Test on all slices after each: (learned, tested, metrics); only after the last for joint."""
    rows = []
    for latest in range(len(parts)):
        if latest_only and latest < len(parts) - 1:
            rows.append(np.full((len(parts), len(METRICS)), np.nan))
            continue
        model = fitted(latest)
        evaluations = [model.evaluate(part.test) for part in parts]
        rows.append(np.array([[one[metric] for metric in METRICS] for one in evaluations]))
        print(f"after slice {latest}: {rows[-1][:, 0].round(3).tolist()}", flush=True)
    return np.stack(rows)


def summary(values: np.ndarray) -> dict[str, float]:
    """Reduce an arm's R matrices (learned, tested, metrics) to a few figures.

    ``final``: the mean over all slices after the last was learnt; ``plasticity``: that of each
    slice when it was just learnt; ``forgetting``: how much better an earlier slice once was known.
    """
    found = {f"final_{name}": values[-1, :, at].mean() for at, name in enumerate(METRICS)}
    for at, name in enumerate(METRICS[:2]):
        if not np.isnan(values).any():
            matrix = values[:, :, at] if name in GAINS else -values[:, :, at]
            found[f"plasticity_{name}"] = np.diag(values[:, :, at]).mean()
            found[f"forgetting_{name}"] = (matrix.max(0) - matrix[-1])[:-1].mean()
    return {name: float(value) for name, value in found.items()}


def together(tables: list[EventTable]) -> EventTable:
    """Put tables with different sequences side by side."""
    whole = tables[0]
    for table in tables[1:]:
        whole = whole.extend(table)
    return whole


if __name__ == "__main__":
    main()
