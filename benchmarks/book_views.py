"""The tables of docs/benchmarks.md: one function a benchmark, from results to Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator

from book_tables import (
    Results,
    anything,
    by_horizon,
    error,
    number,
    paired,
    seconds,
    table,
    timings,
)

Known = dict[str, Results]


# What the papers print for ETTh1 at 96, 192, 336 and 720 steps, and the average where they do.
PUBLISHED = {
    "AutoTimes": [
        ("LLaMA-7B, lookback 672, one model", "MSE", (0.360, 0.388, 0.401, 0.406, 0.389)),
        ("LLaMA-7B, lookback 672, one model", "MAE", (0.400, 0.419, 0.429, 0.440, 0.422)),
        ("the same without the language model", "MSE", (0.365, 0.405, 0.429, 0.450, None)),
        ("the same without the language model", "MAE", (0.399, 0.425, 0.441, 0.468, None)),
    ],
    "TimeCMA": [
        ("GPT-2, lookback 96, selected on test", "MSE", (0.373, 0.427, 0.458, 0.449, 0.423)),
        ("GPT-2, lookback 96, selected on test", "MAE", (0.391, 0.421, 0.448, 0.460, 0.431)),
        ("the same script, an independent rerun", "MSE", (0.399, 0.453, 0.488, 0.520, None)),
    ],
    "S²IP-LLM": [
        ("GPT-2, six layers, lookback 512", "MSE", (0.366, 0.401, 0.412, 0.440, 0.406)),
        ("GPT-2, six layers, lookback 512", "MAE", (0.396, 0.420, 0.431, 0.458, 0.427)),
        ("the same scripts, a user's rerun", "MSE", (0.374, 0.405, 0.457, 0.489, None)),
    ],
}


# ------------------------------------------------------------------------- AutoTimes


def autotimes_etth1(known: Known) -> list[str]:
    """Compare arms on ETTh1, a file at a time, beside the published figures."""
    blocks = []
    for name in [*filter(known.get, _TITLES), *(name for name in known if name not in _TITLES)]:
        rows = [row for row in known[name]["table"] if row["scored_on"] == "all"]
        title = _TITLES.get(name, name)
        blocks += [f"*{title}*", *_errors_and_cost(rows)]
        if known[name]["paired"]:
            blocks.append(paired(known[name]["paired"]))
        common = [row for row in known[name]["table"] if row["scored_on"] == "common"]
        if common:
            blocks.append(f"*{title}, {_FEW}*\n\n{by_horizon(common)}")
    return [*blocks, _published("AutoTimes")]


_TITLES = {
    "autotimes_etth1_h100": "Three seeds, H100, bfloat16 backbone",
    "autotimes_etth1_cpu": "The same on two CPU cores, native bfloat16 in training only",
    "autotimes_etth1_block_cpu": "One trained transformer block in the language model's place",
    "autotimes_etth1_timestamps_cpu": "With `timestamps=True`: here they hurt",
    "autotimes_etth1_cached_h100": 'With `rollout="cached"`',
    "autotimes_etth1_baselines_cpu": "Baselines, in our training loop",
    "autotimes_etth1_patchtst_cpu": "PatchTST, small, one 720-step head",
}
_FEW = "20 spaced windows, all that a refit at each affords (the trend of AutoETS runs away)"


def lora(known: Known) -> list[str]:
    """Compare arms with and without LoRA."""
    blocks = []
    for name, one in known.items():
        blocks += [f"*{name}*", *_errors_and_cost(one["table"])]
        blocks.append(paired(one["paired"]))
    return blocks


def rollouts(known: Known) -> list[str]:
    """Compare the two ways to roll out."""
    return [by_horizon(one["table"]) for one in known.values()]


def speed(known: Known) -> list[str]:
    """Show a training step, rollouts and latencies, a machine at a time."""
    blocks = []
    for name, one in known.items():
        step = one["training_step"]
        entries = [(f"training step, {kind}", step[kind]) for kind in ("float32", "bfloat16")]
        for row in one["rollout_720"]:
            entries += [(f"720 steps, {row['rows']} rows, {way}", row[way])
                        for way in ("sliding", "cached")]  # fmt: skip
        entries += [(row["call"], row) for row in one["latency"]]
        ratios = ", ".join(
            f"{row['ratio']:.1f} × for {row['rows']:,}" for row in one["rollout_720"]
        )
        blocks += [
            f"### {name}",
            timings(entries),
            f"Cached against sliding, by rows at once: {ratios}.",
        ]
    return blocks


def llama_step(known: Known) -> list[str]:
    """Show a training step of a model of LLaMA-7B's shape."""
    return [
        timings([(f"an iteration of {one['batch']} windows of {one['tokens']} tokens",
                  one["seconds_per_iteration"])])
        + f"\n\n{one['parameters']:,} frozen parameters in {one['dtype']}, "
        f"{one['trained_parameters']:,} trained."
        for one in known.values()
    ]  # fmt: skip


# --------------------------------------------------------- TimeCMA, S²IP-LLM, the store


def timecma(known: Known) -> list[str]:
    """Show accuracy with and without text, and what a second fit costs."""
    blocks = []
    for one in known.values():
        for part in one.get("accuracy", []):
            blocks += _errors_and_cost(part["table"])
            blocks += [paired(part["paired"])]
        cost = one.get("cost")
        if cost:
            blocks += [
                f"*Cost of {cost['steps']} training steps, {cost['prompts']:,} prompts*",
                timings(cost["seconds"].items()),
                f"The first fit, which embeds, took {seconds(cost['cold_seconds'])}; with every "
                f"prompt known a fit costs {cost['fit_warm_over_head']:.2f} × the head alone.",
            ]
    return [*blocks, _published("TimeCMA")]


def s2ip(known: Known) -> list[str]:
    """Show accuracy with and without the language model, and how anchors compare."""
    blocks = []
    for one in known.values():
        parts = one["horizons"].values()
        rows = [row for part in parts for row in part["table"]]
        if "mse" in rows[0]:
            blocks += _errors_and_cost(rows)
            blocks.append(paired(pair for part in parts for pair in part["paired"]))
        else:
            header = ["anchors", "horizon", "validation loss", "epochs", "training"]
            blocks.append(
                "*Kinds of anchors, by validation loss after the same few epochs*\n\n"
                + table(header, [
                    [row["arm"], row["horizon"], error(row["validation_loss"]), row["epochs"],
                     seconds(row["seconds"])] for row in rows
                ])
            )  # fmt: skip
    return [*blocks, _published("S²IP-LLM")]


def s2ip_speed(known: Known) -> list[str]:
    """Compare S²IP-LLM's costly parts with the published way."""
    blocks = []
    for one in known.values():
        entries = [(f"{part.replace('_', ' ')}, {way}", one[part][way])
                   for part in ("decomposition", "anchors", "training_step")
                   for way in ("published", "ours")]  # fmt: skip
        ratio = one["training_step"]["ratio"]
        blocks += [
            timings(entries),
            f"Decomposition and anchors together are {one['parts_together']:.0f} × faster, "
            f"the whole step {ratio:.1f} ×.",
        ]
    return blocks


def store(known: Known) -> list[str]:
    """Show how fast the store is filled and read."""
    blocks = []
    for one in known.values():
        encoding = one["encoding"]
        rates = [(name, encoding["prompts_per_second"][name]["p50"],
                  encoding["ratio_to_plain_float32"][name])
                 for name in encoding["prompts_per_second"]]  # fmt: skip
        second = one["second_pass"]
        blocks += [
            table(["way", "prompts a second", "ratio to one at a time, float32"], rates)
            + f"\n\nPrompts of {encoding['mean_tokens']:.0f} tokens, {one['layers']} layers, "
            f"{100 * encoding['padding']:.1f} % padding. Cosine of float32 and bfloat16 vectors: "
            f"{encoding['cosine_of_precisions']['mean']:.4f}. Native bfloat16 on this CPU: "
            f"{'yes' if one['native_bfloat16'] else 'no'}.",
            f"Read back: {number(second['encode']['p50'])} vectors a second by text, "
            f"{number(second['read']['p50'])} by key.",
            timings((f"forecast of one new window, {row['store']}", row) for row in one["latency"]),
        ]
    return blocks


# --------------------------------------------------------------------------- Aaren


def arms_by_horizon(known: Known) -> list[str]:
    """Compare arms, a file at a time."""
    return [
        block
        for name, one in known.items()
        for block in (f"*{name}*", *_errors_and_cost(one["table"]))
    ]


def aaren_speed(known: Known) -> list[str]:
    """Show the scan against attention, in time and memory, and the cost of an update."""
    blocks = []
    for one in known.values():
        header = ["tokens", "Aaren, ours", "Aaren, as matrix products", "attention", "ratio"]
        rows = [[row["tokens"], seconds(row["segmented"]), seconds(row["matmul"]),
                 seconds(row["attention"]) if "attention" in row else "–",
                 f"{row['attention'] / row['segmented']:.1f} ×" if "attention" in row else "–"]
                for row in one["training"]]  # fmt: skip
        blocks.append(f"*Forward and backward, processor time*\n\n{table(header, rows)}")
        rows = [[row["tokens"], row["segmented_mib"], row["matmul_mib"],
                 row.get("attention_mib"), f"{row['segmented_mib'] / row['values_mib']:.1f} ×"]
                for row in one["memory"]]  # fmt: skip
        header = ["tokens", "Aaren, MiB", "as matrix products", "attention", "Aaren to its values"]
        blocks.append(f"*Memory, MiB*\n\n{table(header, rows)}")
        blocks.append(
            "*A whole layer, seconds*\n\n"
            + table(list(one["layer"][0]), map(dict.values, one["layer"]))  # type: ignore[arg-type]
        )
        header = ["points seen", "update, median", "update, 95 %", "predict, median", "bytes kept"]
        rows = [[row["steps"], seconds(row["update"]["p50"]), seconds(row["update"]["p95"]),
                 seconds(row["predict"]["p50"]), row["bytes"]]
                for row in one["stream"]["table"]]  # fmt: skip
        blocks.append(f"*A stream*\n\n{table(header, rows)}")
    return blocks


def aaren_stream(known: Known) -> list[str]:
    """Show errors far beyond the trained length."""
    return [
        table(
            ["mixer", *(key for key in one["table"][0] if key.startswith(("tokens", "last")))],
            [
                [
                    row["arm"],
                    *(error(row[key]) for key in row if key.startswith(("tokens", "last"))),
                ]
                for row in one["table"]
            ],
        )
        for one in known.values()
    ]


# -------------------------------------------------------------------- panels, intervals


def arms(known: Known) -> list[str]:
    """Show an arm a row, with every figure of it."""
    blocks = []
    for name, one in known.items():
        header = list(dict.fromkeys(key for row in one["table"] for key in row))
        rows = [[row.get(key) for key in header] for row in one["table"]]
        blocks.append(f"*{name}*\n\n{table(header, rows)}")
    return blocks


def intervals(known: Known) -> list[str]:
    """Show coverage and width."""
    header = ["set", "method", "mode", "80 % covers", "lowest step", "highest step", "outside",
              "95 % covers", "CRPS"]  # fmt: skip
    return [
        table(
            header,
            [
                [
                    row["set"],
                    f"{row['method']}, {row['arm']}",
                    row["mode"],
                    f"{100 * row['coverage80']:.0f} %",
                    f"{100 * row['lowest80']:.0f} %",
                    f"{100 * row['highest80']:.0f} %",
                    row["outside80"],
                    f"{100 * row['coverage95']:.0f} %",
                    row["crps"],
                ]
                for row in one["table"]
            ],
        )
        for one in known.values()
    ]


# ------------------------------------------------------- several methods, jobs, the rest


def long_horizons(known: Known) -> list[str]:
    """Compare all methods on a set, with the language model and without."""
    return [
        f"*{one['set']}*\n\n{by_horizon(one['table'])}\n\n{_cost(one['table'])}"
        for one in known.values()
    ]


def ensemble(known: Known) -> list[str]:
    """Show averages of forecasters, and the members' own errors."""
    blocks = []
    for one in known.values():
        header = ["forecasts", "part", *map(str, one["horizons"]), "average"]
        rows = []
        for row in one["rows"]:
            name = row["member"]
            if "seed" in row:
                name += f", seed {row['seed']}" if isinstance(row["seed"], int) else ", all seeds"
            cells = [error(row[f"mse_{horizon}"]) for horizon in one["horizons"]]
            rows.append([name, row.get("part", "test"), *cells, error(row["mse"])])
        weights = ", ".join(f"{share:g} {member}" for member, share in one["weights"].items())
        blocks.append(table(header, rows) + f"\n\nWeights, chosen on validation: {weights}.")
    return blocks


def compiled(known: Known) -> list[str]:
    """Show training steps with torch.compile and without."""
    header = ["method", "language model", "a step", "compiled", "times faster", "compiling",
              "forecasts apart, of the deviation"]  # fmt: skip
    return [
        table(
            header,
            [
                [
                    row["method"],
                    row["arm"],
                    seconds(row["step"]["p50"]),
                    seconds(row["compiled_step"]["p50"]),
                    f"{row['ratio']:.2f}",
                    seconds(row["compile_seconds"]),
                    f"{row['forecasts_apart']:.0e}",
                ]
                for row in one["rows"]
            ],
        )
        for one in known.values()
    ]


def ablations(known: Known) -> list[str]:
    """Show the verdict of each ablation, its arms and what they cost; others as they are."""
    blocks = []
    for name, one in known.items():
        if not {"verdict", "table", "costs"} <= one.keys():
            blocks += [f"### {name}", *anything(one)]
            continue
        header = ["arm", "horizon", "windows", "seeds", "MSE", "vs pretrained", "interval"]
        rows = [
            [row["arm"], str(row["horizon"]), row["windows"], row["seeds"],
             error(row["mse"], row.get("mse_sd")), *_percents(row)]
            for row in one["table"]
        ]  # fmt: skip
        blocks += [f"### {name}", one["verdict"], table(header, rows)]
        costs = one["costs"]
        blocks.append(table(list(costs[0]), [list(row.values()) for row in costs]))
    return blocks


def covariates(known: Known) -> list[str]:
    """Show each method with covariates and without."""
    header = ["data", "method", "covariates", "horizon", "windows", "MAE with", "without",
              "seasonal naive", "difference", "95 % interval"]  # fmt: skip
    blocks = []
    for name, one in known.items():
        rows = []
        for row in one["rows"]:
            mae = row["mae"]
            middle, low, high = mae["difference"]
            known_of = [row[key] for key in ("dataset", "arm", "covariates", "horizon", "windows")]
            errors = [error(mae[key]) for key in ("with X", "without", "seasonal naive")]
            rows.append([*known_of, *errors, f"{middle:+.3f}", f"[{low:+.3f}, {high:+.3f}]"])
        blocks.append(f"*{name}: {one['protocol']['test']}*\n\n{table(header, rows)}")
    return blocks


def as_it_is(known: Known) -> list[str]:
    """Show files that need no table of their own."""
    return [block for name, one in known.items() for block in (f"### {name}", *anything(one))]


# --------------------------------------------------------------------- small helpers


def _percents(row: Results) -> list[str]:
    middle, low, high = (row.get(f"{key}_percent") for key in ("difference", "lower", "upper"))
    if middle is None or math.isnan(middle):
        return ["–", "–"]
    known = low is not None and not math.isnan(low)
    return [f"{middle:+.1f} %", f"[{low:+.1f}, {high:+.1f}]" if known else "–"]


def _published(method: str) -> str:
    rows = [[setting, name, *map(error, values)] for setting, name, values in PUBLISHED[method]]
    header = ["setting", "error", "96", "192", "336", "720", "average"]
    return f"*Published for {method}, in its own setting*\n\n{table(header, rows)}"


def _errors_and_cost(rows: list[Results]) -> list[str]:
    return [by_horizon(rows), by_horizon(rows, metric="mae"), _cost(rows)]


def _cost(rows: list[Results]) -> str:
    """Say what training a model took; a range where each horizon has a model of its own."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["fit_seconds"] > 0.1:
            found.setdefault(row["method"], []).append(row["fit_seconds"])
    each: Iterator[str] = (
        f"{name} {seconds(min(cost))}"
        + (f" to {seconds(max(cost))}" if seconds(min(cost)) != seconds(max(cost)) else "")
        for name, cost in found.items()
    )
    return f"Training a model: {'; '.join(each)}."
