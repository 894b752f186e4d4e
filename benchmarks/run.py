"""Run the accuracy benchmark that a recipe describes, and write its figures as JSON.

A recipe is a YAML file of `benchmarks/recipes`. It names the data, the part that is scored, the
protocol, the variants and the pairs to compare; `tsllm.backtest` or `tsllm.ablate` does the rest.
The file is written after each backtest, so an interrupted run keeps its figures.

    python benchmarks/run.py benchmarks/recipes/autotimes_etth1.yaml --data FOLDER
    python benchmarks/run.py RECIPE --only pretrained none --seeds 0 --set max_steps=100 --tag _try

Keys of a recipe
----------------
what : backtest or ablate
sets : mapping of a data set's name to keys that differ for it, {} where none do
part : test (default), validation (the part before the test part), or before_test (the last fifth
    of the steps before the test part)
protocol : arguments of `tsllm.backtest` or `tsllm.ablate`
folds : for each backtest, the number of steps that are fitted; 'test_size' of them follow
each_horizon : whether each horizon has a model of its own; else one model serves all
parameters : of every variant
horizon_parameters : of every variant, for one horizon
variants : name of each variant to its method and parameters; ``backbone`` is pretrained, random or
    none (null). The value "horizon" stands for the longest horizon of the backtest
pretrain : whether the first variant is trained once, and the others are its copies with other
    parameters
pairs : names of variants, two by two, whose MSE is compared
covariates : which columns of the data go into X
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from data import Data, load
from measuring import RESULTS, peak_memory_mib, setting, write

import tsllm
from tsllm.forecasters import METHODS

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ESTIMATORS = METHODS | {"dlinear": tsllm.DLinearForecaster, "patchtst": tsllm.PatchTSTForecaster}


def main() -> None:
    """Read the recipe and the options, run each backtest, write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recipe", type=Path, help="a file of benchmarks/recipes")
    arguments.add_argument("--data", help="folder of the data files; default: TSLLM_DATA")
    arguments.add_argument("--sets", nargs="+", help="only these data sets")
    arguments.add_argument("--only", nargs="+", metavar="VARIANT", help="only these variants")
    arguments.add_argument("--horizons", type=int, nargs="+", help="in place of the recipe's")
    arguments.add_argument("--seeds", type=int, nargs="+", help="in place of the recipe's")
    arguments.add_argument("--part", choices=["test", "validation", "before_test"])
    arguments.add_argument("--set", nargs="*", default=[], help="parameters of all, key=value")
    arguments.add_argument("--backbone", default=MINILM, help="what 'pretrained' stands for")
    arguments.add_argument("--tag", default="", help="added to the name of the JSON file")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    args = arguments.parse_args()
    torch.set_num_threads(1)  # two threads on a busy machine were 15 times slower
    recipe = read_recipe(args.recipe, args)
    started = time.perf_counter()
    results: dict[str, Any] = {"recipe": args.recipe.stem, "parameters": recipe}
    results |= {"table": [], "paired": [], "notes": []}
    for found in run(recipe, args):
        for key in ("table", "paired", "notes"):
            results[key] += [one for one in found.pop(key, []) if one not in results[key]]
        results |= found
        results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
        write(args.recipe.stem + args.tag, results, args.out)


def read_recipe(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Read a recipe and apply the options of the command."""
    recipe: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if args.sets:
        recipe["sets"] = {name: recipe["sets"][name] for name in args.sets}
    if args.only:
        recipe["variants"] = {name: recipe["variants"][name] for name in args.only}
    if args.part:
        recipe["part"] = args.part
    protocol = recipe.setdefault("protocol", {})
    protocol |= {key: getattr(args, key) for key in ("seeds", "horizons") if getattr(args, key)}
    chosen = dict(setting(text) for text in args.set)
    for variant in recipe["variants"].values():
        variant |= chosen
    return recipe


def run(recipe: dict[str, Any], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of one backtest or ablation after another."""
    for name, own in recipe["sets"].items():
        settings = recipe | own | {"protocol": recipe["protocol"] | own.get("protocol", {})}
        data = load(name, args.data, settings.get("part", "test"), settings.get("covariates"))
        if args.horizons:
            settings["protocol"]["horizons"] = args.horizons
        if settings["what"] == "ablate":
            yield ablation(name, settings, data, args)
            continue
        for fold in settings.get("folds", [None]):
            for horizons in runs_of(settings):
                cut = data if fold is None else data.first(fold, settings["protocol"]["test_size"])
                found = backtest(settings, cut, horizons, args)
                for row in (*found["table"], *found["paired"]):
                    row |= {"set": name} | ({} if fold is None else {"fold": fold})
                yield found


def runs_of(settings: dict[str, Any]) -> list[list[int]]:
    """Return the horizons of each backtest: all together, or one by one."""
    horizons = list(settings["protocol"]["horizons"])
    return [[one] for one in horizons] if settings.get("each_horizon") else [horizons]


def backtest(
    settings: dict[str, Any], data: Data, horizons: list[int], args: argparse.Namespace
) -> dict[str, Any]:
    """Run one backtest of all variants."""
    protocol = {"scaled": data.scaled, **data.sizes, **settings["protocol"], "horizons": horizons}
    if "test_size" in protocol and "train_size" not in data.sizes:
        protocol.pop("test_fraction", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant series and early stops
        estimators = make_all(settings, data, horizons, args)
        report = tsllm.backtest(estimators, data.y, X=data.X, progress=True, **protocol)
    with pd.option_context("display.width", 200, "display.max_columns", 30):
        print(report.table.round(4).to_string(index=False), flush=True)
    methods = set(report.table["method"])
    paired = [
        report.paired(first, second, metric, horizon=horizon)._asdict()
        for first, second in settings.get("pairs", [])
        for horizon in horizons
        for metric in ("mse", "mae")
        if {first, second} <= methods and metric in report.table
    ]
    return {
        "protocol": report.settings,
        "table": report.table.to_dict("records"),
        "paired": paired,
        "notes": list(report.notes),
    }


def ablation(
    name: str, settings: dict[str, Any], data: Data, args: argparse.Namespace
) -> dict[str, Any]:
    """Run one ablation and return the figures of its report."""
    (variant,) = settings["variants"].values()
    horizons = settings["protocol"]["horizons"]
    estimator = make(settings["parameters"] | variant, horizons, args)
    report = tsllm.ablate(estimator, data.y, progress=True, **data.sizes, **settings["protocol"])
    print(report)
    args.out.mkdir(parents=True, exist_ok=True)
    report.plot().figure.savefig(args.out / f"{args.recipe.stem}{args.tag}.png", dpi=120)
    found = report.to_dict()
    found["protocol"] = found.pop("settings")
    found["paired"] = [{"set": name, **row} for row in found.pop("differences")]
    found["table"] = [{"set": name, "method": row.pop("variant"), **row} for row in found["table"]]
    found["costs"] = [{"method": row.pop("variant"), **row} for row in found["costs"]]
    return found


def make_all(
    settings: dict[str, Any], data: Data, horizons: list[int], args: argparse.Namespace
) -> dict[str, Any]:
    """Make the forecaster of each variant."""
    own = settings.get("horizon_parameters", {}).get(horizons[-1], {})
    common = settings.get("parameters", {}) | own
    variants = settings["variants"]
    if not settings.get("pretrain"):
        return {name: make(common | one, horizons, args) for name, one in variants.items()}
    (first, how), *others = variants.items()
    trained = make(common | how, horizons, args).pretrain(data.training())
    return {first: trained} | {
        name: trained.clone().set_params(**{k: v for k, v in one.items() if k != "method"})
        for name, one in others
    }


def make(parameters: dict[str, Any], horizons: list[int], args: argparse.Namespace) -> Any:
    """Make one forecaster from the words of a recipe."""
    given = {k: horizons[-1] if v == "horizon" else v for k, v in parameters.items()}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    backbones = {"pretrained": args.backbone, "random": f"random:{args.backbone}?seed=0"}
    if "backbone" in given:
        given["backbone"] = backbones.get(given["backbone"], given["backbone"])
        if given["backbone"] is None:
            given["backbone_layers"] = None
    estimator = ESTIMATORS[given.pop("method")]
    # The papers measure the model alone, trained on every window.
    alone = {"shrinkage": False, "window_stride": 1}
    known = estimator.get_param_names()
    return estimator(**{name: alone[name] for name in alone if name in known} | given)


if __name__ == "__main__":
    main()
