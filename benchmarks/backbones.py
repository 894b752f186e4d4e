"""Compare language models as the frozen part of one forecaster, at equal steps and at equal cost.

Every row trains AutoTimes, S²IP-LLM or TimeCMA on the same windows with the same settings; only the
language model differs. With ``--equal-cost`` each model takes as many steps as fit into the
processor's time of ``--steps`` steps with two layers of MiniLM; ``--steps-only`` measured the
seconds of a step before. MASE is the error relative to the seasonal naive forecast's in training,
on windows of the validation part and of the test part. Choices, also of the learning rate, are made
by the validation part. Each row runs in a process of its own, so that its peak of memory is its
own. Rows that the file of results has are kept, so an interrupted run continues.

    tsllm backbones get smollm2
    python benchmarks/backbones.py --data FOLDER
    python benchmarks/backbones.py --data FOLDER --steps-only
    python benchmarks/backbones.py --data FOLDER --steps 300 --rates 5e-4 2e-3 6e-3 --equal-cost
    python benchmarks/backbones.py --data FOLDER --method timecma --steps 100 --rates 3e-4 1e-3
    python benchmarks/backbones.py --data FOLDER --method s2ip --steps 40 --rates 5e-4 2e-3
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from data import load
from measuring import parser, peak_memory_mib, write

from tsllm import AutoTimesForecaster, Context, S2IPForecaster, TimeCMAForecaster
from tsllm.backbone import DEFAULT_BACKBONE as MINILM
from tsllm.backbone.packaged import SMOLLM2
from tsllm.forecasters import learning
from tsllm.training.callbacks import Callback, training_callbacks

WINDOWS = 12  # scored in each part
REFERENCE = "MiniLM, 2"  # the others are compared with it
_RANDOM_SEED = 1_000


class Set(NamedTuple):
    """How one data set is cut and forecast."""

    horizon: int
    season: int
    context: int
    token: int
    prompt_context: int  # steps that TimeCMA's prompts have
    prompt_stride: int  # between its windows: no multiple of the season
    series: int | None = None  # how many of a panel


SETS = {
    "ETTh1": Set(96, 24, context=168, token=24, prompt_context=96, prompt_stride=145),
    "national_illness": Set(24, 52, context=96, token=12, prompt_context=96, prompt_stride=9),
    "m4_hourly": Set(48, 24, context=168, token=24, prompt_context=96, prompt_stride=49, series=20),
}
#: Parameters of each language model: spec and layers.
MODELS: dict[str, dict[str, Any]] = {
    "none": {"backbone": None},
    REFERENCE: {"backbone": MINILM, "backbone_layers": 2},
    "SmolLM2, 2": {"backbone": SMOLLM2, "backbone_layers": 2},
    "MiniLM, random, 2": {"backbone": f"random:{MINILM}", "backbone_layers": 2},
    "SmolLM2, random, 2": {"backbone": f"random:{SMOLLM2}", "backbone_layers": 2},
    "block, MiniLM's width": {"backbone": f"layer:transformer?like={MINILM}"},
    "MiniLM, 4": {"backbone": MINILM, "backbone_layers": 4},
    "SmolLM2, 4": {"backbone": SMOLLM2, "backbone_layers": 4},
    "MiniLM, 6": {"backbone": MINILM, "backbone_layers": None},
    "block, SmolLM2's width": {"backbone": f"layer:transformer?like={SMOLLM2}"},
    "SmolLM2, 8": {"backbone": SMOLLM2, "backbone_layers": 8},
    "SmolLM2, 30": {"backbone": SMOLLM2, "backbone_layers": None},
}
METHODS = {
    "autotimes": AutoTimesForecaster,
    "s2ip": S2IPForecaster,
    "timecma": TimeCMAForecaster,
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--method", default="autotimes", choices=METHODS)
    arguments.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    arguments.add_argument("--models", nargs="+", choices=MODELS, help="default: all that suit")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--rates", nargs="+", type=float, default=[2e-3], help="learning rates")
    arguments.add_argument("--steps", type=int, default=100, help="training steps of each row")
    arguments.add_argument(
        "--equal-cost", action="store_true", help=f"--steps are those of {REFERENCE}"
    )
    arguments.add_argument("--steps-only", action="store_true", help="time training steps only")
    arguments.add_argument("--store", help="folder that keeps embeddings; default: a temporary one")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    # Points are scored, and most of the time of a short training is that of what surrounds it.
    learning.MAX_CALIBRATION_WINDOWS = 8
    learning.MAX_VALIDATION_WINDOWS = 256
    torch.set_num_threads(1)
    models = args.models or [model for model in MODELS if suits(args.method, model)]
    if args.steps_only:
        time_steps(models, args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.store = args.store or folder
        compare(models, args)


def suits(method: str, model: str) -> bool:
    """Tell whether a method can use a model: embeddings that are kept cannot follow a block."""
    return method != "timecma" or not model.startswith("block")


def compare(models: list[str], args: Any) -> None:
    """Train and score every model on every set, and write each row when it is there."""
    name = f"backbones_{args.method}{'_equal_cost' * args.equal_cost}{args.tag}"
    path = args.out / f"{name}.json"
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    done = {(row["set"], row["model"], row["seed"], row["rate"]) for row in rows}
    costs = step_costs(args) if args.equal_cost else {}
    title = f"{METHODS[args.method].__name__} at equal {'cost' if args.equal_cost else 'steps'}"
    settings = {"steps": args.steps, "batch_size": 16}
    # One seed of everything first: an interrupted run has whole comparisons.
    for seed, model, which in product(args.seeds, models, args.sets):
        steps = equal_steps(args.steps, costs, model) if args.equal_cost else args.steps
        # The first seed chooses the learning rate of the others.
        first = seed == args.seeds[0]
        tried = [f"{rate:g}" for rate in args.rates]  # words: the page keeps them apart
        for rate in tried if first else [best_rate(rows, model, which)]:
            if (which, model, seed, rate) in done:
                continue
            call = partial(measure, which, model, seed, float(rate), steps, args)
            row = {"set": which, "model": model, "seed": seed, "rate": rate}
            rows.append(row | in_own_process(call))
            print(rows[-1], flush=True)
            results = {title: summary(rows), "settings": settings, "runs": rows}
            write(name, results, args.out)


def equal_steps(steps: int, costs: dict[str, float], model: str) -> int:
    """Return the steps of a model that take as long as those of the reference.

    Random weights cost as much as pretrained ones of that shape.
    """
    return max(1, round(steps * costs[REFERENCE] / costs[model.replace(", random", "")]))


def step_costs(args: Any) -> dict[str, float]:
    """Read the processor's seconds of a step with each model, from ``--steps-only``."""
    path = args.out / f"backbones_{args.method}_steps.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there: run --steps-only first")
    return {row["model"]: row["step_seconds"] for row in json.loads(path.read_text())["models"]}


def time_steps(models: list[str], args: Any) -> None:
    """Write the processor's seconds of a training step on ETTh1; the sets' windows are alike."""
    rows = []
    for model in [one for one in models if "random" not in one]:
        call = partial(measure, "ETTh1", model, 0, args.rates[0], 40, args, only_steps=True)
        rows.append({"model": model, **in_own_process(call)})
        print(rows[-1], flush=True)
    write(f"backbones_{args.method}_steps{args.tag}", {"models": rows}, args.out)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each model costs and how it forecasts, the best on the validation parts first.

    On each set a model has the learning rate that is best on its validation part with the first
    seed. Means over sets are geometric; models that lack a set have none and come last.
    """
    chosen = [row for row in rows if row["rate"] == best_rate(rows, row["model"], row["set"])]
    table = pd.DataFrame(chosen)
    by_seed = np.log(table.set_index(["set", "seed", "model"])["validation"]).unstack()
    sets = list(dict.fromkeys(table["set"]))
    found = []
    for model, mine in table.groupby("model", sort=False):
        errors = mine.groupby("set")[["validation", "mase"]].mean().reindex(sets)
        mean = np.exp(np.log(errors).mean(skipna=False))  # NaN where a set lacks
        row: dict[str, Any] = {
            "model": model,
            "validation_mase": none_for_nan(mean["validation"]),
            "test_mase": none_for_nan(mean["mase"]),
        }
        if REFERENCE in by_seed and model != REFERENCE:
            gaps = (by_seed[model] - by_seed[REFERENCE]).dropna()
            row["better_than_reference"] = f"{int((gaps < 0).sum())} of {len(gaps)}"
        row |= {f"test, {which}": none_for_nan(errors["mase"][which]) for which in sets}
        row |= {
            "steps": int(mine["steps"].max()),
            "training_seconds": mean_of(mine, "training_seconds"),
        }
        cold = [one for one in rows if one["model"] == model and one.get("prompts")]
        if cold:  # one learning rate embeds, the others read
            seconds = sum(one["embedding_seconds"] for one in cold)
            row["seconds_of_1000_prompts"] = 1000 * seconds / sum(one["prompts"] for one in cold)
        row |= {name: mean_of(mine, name) for name in ("weights_mb", "peak_mib")}
        found.append(row)
    return sorted(found, key=lambda row: row["validation_mase"] or np.inf)


def mean_of(table: pd.DataFrame, column: str) -> float:
    """Return the mean of a column."""
    return float(table[column].mean())


def none_for_nan(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)


def best_rate(rows: list[dict[str, Any]], model: str, which: str) -> str:
    """Return the learning rate that had the least error of validation with the first seed."""
    mine = [row for row in rows if (row["model"], row["set"]) == (model, which)]
    first = [row for row in mine if row["seed"] == mine[0]["seed"]]
    return str(min(first, key=lambda row: row["validation"])["rate"])


def measure(
    which: str,
    model: str,
    seed: int,
    rate: float,
    steps: int,
    args: Any,
    *,
    only_steps: bool = False,
) -> dict[str, Any]:
    """Train one forecaster and score it on both parts; or return the seconds of its steps."""
    cut = SETS[which]
    y, ends = series_of(which, args.data)
    forecaster = forecaster_of(model, cut, seed, args)
    forecaster.set_params(learning_rate=rate, max_steps=steps)
    train = pd.concat({key: one.iloc[: ends[key][0]] for key, one in y.items()}, names=["series"])
    fh, measured = range(1, cut.horizon + 1), {}
    if args.method == "timecma" and forecaster.backbone is not None:
        busy = time.process_time()
        measured["prompts"] = forecaster.embed(train, fh=fh)["computed"]
        measured["embedding_seconds"] = time.process_time() - busy
    clock = Clock()
    with training_callbacks(clock):
        forecaster.fit(train, fh=fh)
    if only_steps:
        return {"step_seconds": clock.step_seconds()}
    summary = forecaster.summary()
    measured |= {
        "horizon": cut.horizon,
        "trained_parameters": summary["trained_parameters"],
        "training_seconds": clock.busy,
        "steps": summary["steps"],
    }
    for part, end in (("validation", 1), ("mase", 2)):
        measured[part] = score(forecaster, y, ends, cut, end)
    backbone = forecaster.fitted_.backbone
    measured["weights_mb"] = 0.0 if backbone is None else backbone.weight_bytes / 1e6
    return measured


def forecaster_of(model: str, cut: Set, seed: int, args: Any) -> Any:
    """Make the forecaster of a row."""
    settings = dict(MODELS[model])
    if "random" in model:
        settings["backbone"] += f"?seed={seed + _RANDOM_SEED}"
    if args.method == "timecma":
        settings |= {
            "context_length": cut.prompt_context,
            "window_stride": cut.prompt_stride,
            "embedding_store": args.store,
            "dtype": "bfloat16",  # embeds two to four times as fast here
        }
    else:
        settings["context_length"] = cut.context
    if args.method == "autotimes":  # without flips, which double the time of a step
        settings |= {"token_length": cut.token, "flip_invariance": False}
    return METHODS[args.method](
        **settings,
        batch_size=16,
        max_epochs=1000,
        patience=1000,
        shrinkage=False,
        random_state=seed,
    )


class Clock(Callback):
    """Take the processor's seconds of a training and of its steps."""

    def __init__(self) -> None:
        self.busy = 0.0
        self._started: float | None = None
        self._begun = 0.0
        self._steps: list[float] = []

    def on_step_begin(self, state: Any) -> None:
        """Start the clocks."""
        self._begun = time.process_time()
        if self._started is None:
            self._started = self._begun

    def on_step_end(self, state: Any) -> None:
        """Stop the clock of the step."""
        self._steps.append(time.process_time() - self._begun)

    def on_epoch_end(self, state: Any) -> None:
        """Read the clock of the training."""
        self.busy = time.process_time() - (self._started or 0.0)

    def step_seconds(self) -> float:
        """Return the lower quartile of the steps after the first ones."""
        return float(np.percentile(self._steps[4:], 25))


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
