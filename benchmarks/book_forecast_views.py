"""The tables of docs/benchmarks.md about errors and intervals of forecasts.

Those about time and memory are in `book_speed_views`, those about event streams in
`book_event_views`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from book_tables import (
    Known,
    Results,
    anything,
    by_horizon,
    error,
    paired,
    seconds,
    table,
    timings,
)

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


# ----------------------------------------------------------------------------------- one method


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
    "autotimes_etth1_flips_cpu": "Forecasts that turn over with the series (the default there)",
    "autotimes_etth1_flips_384_cpu": "The same with the lookback that the folds prefer, 384",
    "autotimes_etth1_h100": "As published, without flips: three seeds, H100, bfloat16 backbone",
    "autotimes_etth1_cpu": "The same on two CPU cores, native bfloat16 in training only",
    "autotimes_etth1_block_cpu": "One trained transformer block in the language model's place",
    "autotimes_etth1_timestamps_cpu": "With `timestamps=True`: here they hurt",
    "autotimes_etth1_cached_h100": 'With `rollout="cached"`',
    "autotimes_etth1_baselines_cpu": "Baselines, in our training loop",
    "autotimes_etth1_patchtst_cpu": "PatchTST, small, one 720-step head",
}
_FEW = "20 spaced windows, all that a refit at each affords (the trend of AutoETS runs away)"


def folds(known: Known) -> list[str]:
    """Compare settings on several folds, one setting a row, beside the published one."""
    settings: dict[str, dict[int, float]] = {}
    for one in known.values():
        for row in one["rows"]:  # the seeds of a fold are averaged
            found = settings.setdefault(row["setting"], {})
            same = [r["mse"] for r in one["rows"] if _fold_of(r) == _fold_of(row)]
            found[row["fold"]] = sum(same) / len(same)
    ends = sorted({fold for found in settings.values() for fold in found})
    whole = {name: found for name, found in settings.items() if len(found) == len(ends)}
    reference = whole.get("published", {})
    rows = []
    for name, found in whole.items():
        ratios = [found[end] / reference[end] for end in ends if end in reference]
        ratio = f"{sum(ratios) / len(ratios):.3f}" if ratios else "–"
        rows.append([name, *(error(found[end]) for end in ends), ratio])
    rows.sort(key=lambda row: row[-1])
    fitted = [f"fitted on {end // 720} months" for end in ends]
    return [table(["setting", *fitted, "mean ratio to published"], rows)]


def _fold_of(row: Results) -> tuple[str, int]:
    return row["setting"], row["fold"]


def flips(known: Known) -> list[str]:
    """Compare forecasts that turn over with the series and those that do not, a set a row."""
    rows = []
    for one in known.values():
        pairs = [row for row in one["rows"] if "pair" in row]
        errors = {(row["set"], row["method"]): row["mae"] for row in one["rows"] if "method" in row}
        for pair in pairs:
            naive = errors[pair["set"], "seasonal_naive"]
            upright, over = errors[pair["set"], pair["method_b"]], errors[pair["set"], pair["pair"]]
            rows.append(
                [
                    pair["set"],
                    "no" if "no language model" in pair["pair"] else "yes",
                    f"{over / naive:.3f}",
                    f"{upright / naive:.3f}",
                    f"{over / upright - 1:+.1%}",
                ]
            )
    header = ["set", "language model", "with flips", "without", "flips change it by"]
    return [f"*MAE in units of the seasonal naive forecast's*\n\n{table(header, rows)}"]


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
                    [row["variant"], row["horizon"], error(row["validation_loss"]), row["epochs"],
                     seconds(row["seconds"])] for row in rows
                ])
            )  # fmt: skip
    return [*blocks, _published("S²IP-LLM")]


def aaren_stream(known: Known) -> list[str]:
    """Show errors far beyond the trained length."""
    return [
        table(
            ["mixer", *(key for key in one["table"][0] if key.startswith(("tokens", "last")))],
            [
                [
                    row["variant"],
                    *(error(row[key]) for key in row if key.startswith(("tokens", "last"))),
                ]
                for row in one["table"]
            ],
        )
        for one in known.values()
    ]


# ------------------------------------------------------------------------------ several methods


def arms_by_horizon(known: Known) -> list[str]:
    """Compare arms, a file at a time."""
    return [
        block
        for name, one in known.items()
        for block in (f"*{name}*", *_errors_and_cost(one["table"]))
    ]


def arms(known: Known) -> list[str]:
    """Show an arm a row, with every figure of it."""
    blocks = []
    for name, one in known.items():
        header = list(dict.fromkeys(key for row in one["table"] for key in row))
        rows = [[row.get(key) for key in header] for row in one["table"]]
        blocks.append(f"*{name}*\n\n{table(header, rows)}")
    return blocks


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
                    f"{row['method']}, {row['variant']}",
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
            known_of = [
                row[key] for key in ("dataset", "variant", "covariates", "horizon", "windows")
            ]
            errors = [error(mae[key]) for key in ("with X", "without", "seasonal naive")]
            rows.append([*known_of, *errors, f"{middle:+.3f}", f"[{low:+.3f}, {high:+.3f}]"])
        blocks.append(f"*{name}: {one['protocol']['test']}*\n\n{table(header, rows)}")
    return blocks


def ablations(known: Known) -> list[str]:
    """Show the verdict of each ablation, its arms and what they cost; others as they are."""
    blocks = []
    for name, one in known.items():
        if not {"verdict", "table", "costs"} <= one.keys():
            blocks += [f"### {name}", *anything(one)]
            continue
        header = ["variant", "horizon", "windows", "seeds", "MSE", "vs pretrained", "interval"]
        rows = [
            [row["variant"], str(row["horizon"]), row["windows"], row["seeds"],
             error(row["mse"], row.get("mse_sd")), *_percents(row)]
            for row in one["table"]
        ]  # fmt: skip
        blocks += [f"### {name}", one["verdict"], table(header, rows)]
        costs = one["costs"]
        blocks.append(table(list(costs[0]), [list(row.values()) for row in costs]))
    return blocks


# -------------------------------------------------------------------------------- small helpers


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
