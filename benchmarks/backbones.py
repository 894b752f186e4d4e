"""Compare language models as the frozen part of one forecaster, at one small budget.

Every row trains AutoTimes (or S²IP-LLM) with the same steps, batches, windows and settings; only
the language model differs. MASE is the error relative to the seasonal naive forecast's in training,
on windows of the validation part and of the test part. The choice is made by the validation part.
Each row runs in a process of its own, so that its peak of memory is its own. Rows that the file of
results has are kept, so an interrupted run continues.

    tsllm backbones get smollm2
    python benchmarks/backbones.py --data FOLDER --seeds 0 1 2
    python benchmarks/backbones.py --data FOLDER --steps-only   # seconds of a step, all 30 layers
"""

from __future__ import annotations

import json
import os
import time
import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from data import load
from measuring import parser, peak_memory_mib, write

from tsllm import AutoTimesForecaster, Context, S2IPForecaster
from tsllm.backbone import DEFAULT_BACKBONE as MINILM
from tsllm.backbone.packaged import SMOLLM2
from tsllm.forecasters import learning

WINDOWS = 12  # scored in each part
RATE = 2e-3  # above the default, for a short training
_RANDOM_SEED = 1_000


class Set(NamedTuple):
    """How one data set is cut and forecast."""

    horizon: int
    season: int
    context: int
    token: int
    series: int | None = None  # how many of a panel


SETS = {
    "ETTh1": Set(horizon=96, season=24, context=168, token=24),
    "national_illness": Set(horizon=24, season=52, context=96, token=12),
    "m4_hourly": Set(horizon=48, season=24, context=168, token=24, series=20),
}
#: Parameters of each language model: spec and layers.
MODELS: dict[str, dict[str, Any]] = {
    "none": {"backbone": None},
    "MiniLM, 2": {"backbone": MINILM, "backbone_layers": 2},
    "SmolLM2, 2": {"backbone": SMOLLM2, "backbone_layers": 2},
    "MiniLM, random, 2": {"backbone": f"random:{MINILM}", "backbone_layers": 2},
    "SmolLM2, random, 2": {"backbone": f"random:{SMOLLM2}", "backbone_layers": 2},
    "block, MiniLM's width": {"backbone": f"layer:transformer?like={MINILM}"},
    "SmolLM2, 4": {"backbone": SMOLLM2, "backbone_layers": 4},
    "MiniLM, 4": {"backbone": MINILM, "backbone_layers": 4},
    "block, SmolLM2's width": {"backbone": f"layer:transformer?like={SMOLLM2}"},
    "SmolLM2, 8": {"backbone": SMOLLM2, "backbone_layers": 8},
    "SmolLM2, 30": {"backbone": SMOLLM2},
}
METHODS = {"autotimes": AutoTimesForecaster, "s2ip": S2IPForecaster}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--method", default="autotimes", choices=METHODS)
    arguments.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    arguments.add_argument("--models", nargs="+", default=list(MODELS)[:-1], choices=MODELS)
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--steps", type=int, default=60, help="training steps of each row")
    arguments.add_argument("--steps-only", action="store_true", help="time training steps only")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    # Points are scored, and most of the time of a short training is that of its calibration.
    learning.MAX_CALIBRATION_WINDOWS = 64
    torch.set_num_threads(1)
    name = f"backbones_{args.method}{'_steps' * args.steps_only}{args.tag}"
    path = args.out / f"{name}.json"
    rows = json.loads(path.read_text())["table"] if path.exists() else []
    done = {(row["set"], row["method"], row["seed"]) for row in rows}
    models = list(MODELS) if args.steps_only else args.models
    # One seed of everything first: an interrupted run has whole comparisons.
    for seed in [0] if args.steps_only else args.seeds:
        for model in models:
            for which in ["ETTh1"] if args.steps_only else args.sets:
                if (which, model, seed) in done:
                    continue
                measured = in_own_process(partial(measure, which, model, seed, args))
                rows.append({"set": which, "method": model, "seed": seed, **measured})
                print(rows[-1], flush=True)
                settings = {
                    "method": args.method,
                    "steps": args.steps,
                    "batch_size": 16,
                    "learning_rate": RATE,
                }
                results = {"settings": settings, "table": rows}
                write(name, results if args.steps_only else results | costs(rows), args.out)


def costs(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what each language model costs, and its mean error on the validation parts.

    The mean is geometric, over all sets; None where some have no row yet.
    """
    table = pd.DataFrame(rows)
    found = []
    for method, mine in table.groupby("method", sort=False):
        by_set = mine.groupby("set")["validation"].mean()
        whole = len(by_set) == table["set"].nunique()
        found.append(
            {
                "method": method,
                "validation_mase": float(np.exp(np.log(by_set).mean())) if whole else None,
                "sets": len(by_set),
                "runs": len(mine),
                "processor_seconds": float(mine["fit_processor_seconds"].mean()),
                "weights_mb": float(mine["weights_mb"].mean()),
                "peak_mib": float(mine["peak_mib"].mean()),
            }
        )
    return {"costs": found}


def measure(which: str, model: str, seed: int, args: Any) -> dict[str, Any]:
    """Train one forecaster and score it on both parts."""
    cut = SETS[which]
    y, ends = series_of(which, args.data)
    settings = dict(MODELS[model])
    if str(settings["backbone"]).startswith("random:"):
        settings["backbone"] += f"?seed={seed + _RANDOM_SEED}"
    own: dict[str, Any] = {}
    if args.method == "autotimes":  # without flips, which double the time of a step
        own = {"token_length": cut.token, "flip_invariance": False}
    forecaster = METHODS[args.method](
        **settings,
        **own,
        context_length=cut.context,
        batch_size=16,
        learning_rate=RATE,
        max_steps=3 if args.steps_only else args.steps,
        max_epochs=1000,
        shrinkage=False,
        random_state=seed,
        dtype="float32",
    )
    train = pd.concat({key: one.iloc[: ends[key][0]] for key, one in y.items()}, names=["series"])
    started, busy = time.perf_counter(), time.process_time()
    forecaster.fit(train, fh=range(1, (cut.token if args.steps_only else cut.horizon) + 1))
    busy, seconds = time.process_time() - busy, time.perf_counter() - started
    summary = forecaster.summary()
    measured: dict[str, Any] = {
        "horizon": cut.horizon,
        "trained_parameters": summary["trained_parameters"],
        "fit_seconds": seconds,
        "fit_processor_seconds": busy,
        "steps": summary["steps"],
    }
    if args.steps_only:
        measured = {"step_processor_seconds": step_seconds(forecaster, train, cut)}
    else:
        for part, end in (("validation", 1), ("mase", 2)):
            measured[part] = score(forecaster, y, ends, cut, end)
    backbone = forecaster.fitted_.backbone
    measured["weights_mb"] = 0.0 if backbone is None else backbone.weight_bytes / 1e6
    return measured


def step_seconds(forecaster: Any, train: pd.DataFrame, cut: Set) -> float:
    """Return the processor's seconds of one training step: those of 8 steps less those of 2."""
    spent = []
    for steps in (2, 8):
        one = forecaster.clone().set_params(max_steps=steps)
        busy = time.process_time()
        one.fit(train, fh=range(1, cut.token + 1))
        spent.append(time.process_time() - busy)
    return (spent[1] - spent[0]) / 6


def series_of(
    which: str, folder: str | None
) -> tuple[dict[Any, pd.DataFrame], dict[Any, tuple[int, int, int]]]:
    """Return each series, and where its training, validation and test parts end."""
    cut, data = SETS[which], load(which, folder, "test")
    if isinstance(data.y.index, pd.MultiIndex):
        panel = {key: one.droplevel(0) for key, one in data.y.groupby(level=0, sort=False)}
    else:
        panel = {which: pd.DataFrame(data.y)}
    panel = dict(list(panel.items())[: cut.series])
    sizes = data.sizes
    if "train_size" in sizes:
        first = sizes["train_size"]
        second = first + sizes["validation_size"]
        return panel, dict.fromkeys(panel, (first, second, second + sizes["test_size"]))
    tail = sizes["test_size"]
    return panel, {key: (len(y) - 2 * tail, len(y) - tail, len(y)) for key, y in panel.items()}


def score(forecaster: Any, panel: dict, ends: dict, cut: Set, part: int) -> float:
    """Return the MASE of windows that are spread over a part."""
    contexts, truths, scales = [], [], []
    for key, y in panel.items():
        values = y.to_numpy(dtype=float)
        first, last = ends[key][part - 1], ends[key][part] - cut.horizon
        train = values[: ends[key][0]]
        scale = np.nanmean(np.abs(train[cut.season :] - train[: -cut.season]), axis=0)
        for origin in np.unique(np.linspace(first, last, WINDOWS).astype(int)):
            contexts.append(Context(values[origin - cut.context : origin]))
            truths.append(values[origin : origin + cut.horizon])
            scales.append(scale)
    found = np.asarray(forecaster.forecast(contexts, cut.horizon))
    errors = np.abs(found.reshape(np.shape(truths)) - np.array(truths)).mean(1)
    return float(np.nanmean(errors / np.array(scales)))


def in_own_process(call: Any) -> dict[str, Any]:
    """Run a call in a forked process, and add its peak of memory."""
    read, write_to = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            result = call() | {"peak_mib": peak_memory_mib()["host_mib"]}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        os.write(write_to, json.dumps(result).encode())
        os._exit(0)
    os.close(write_to)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    result: dict[str, Any] = json.loads(content)
    if "error" in result:
        raise RuntimeError(result["error"])
    return result


if __name__ == "__main__":
    main()
