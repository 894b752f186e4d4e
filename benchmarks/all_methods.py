"""Every method at its defaults on the sets of `panels.py`, one fit for each origin.

The figures are MASE over all series and steps, and the seconds of a fit with its forecast. The file
is written after each method and set, and what it holds is not measured again: remove it to start
anew. A method that refuses a set, because its series are too short, has no figure there.

    python benchmarks/all_methods.py --data FOLDER
    python benchmarks/all_methods.py --data FOLDER --methods auto flair --sets nile --origins 1
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write
from panels import SETS, Panel, to_frame

import tsllm
from tsllm.errors import TsllmError
from tsllm.forecasters import METHODS

#: The methods of other packages; all others are ours.
BASELINES = ("seasonal_naive", "auto_theta", "auto_ets", "lightgbm", "flair", "fracast")
NAME = "all_methods"


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sets", nargs="+", default=list(SETS))
    arguments.add_argument("--methods", nargs="+", default=[*BASELINES, *METHODS])
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments.add_argument("--origins", type=int, default=4, help="the last ones of a set, at most")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    path = args.out / f"{NAME}{args.tag}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows, notes = found.get("table", []), found.get("notes", [])
    for name in args.sets:
        panel = SETS[name](Path(args.data) if args.data else Path())
        for method in args.methods:
            for seed in args.seeds if method in METHODS else args.seeds[:1]:
                known = (row for row in rows if (row["method"], row["set"]) == (method, name))
                if any(row["seed"] == seed for row in known):
                    continue
                try:
                    row = _measure(method, panel, args.origins, seed)
                except TsllmError as error:
                    notes.append(f"{method} refuses {name}: {str(error).rstrip('.')}")
                    continue
                rows.append({"set": name, "method": method, "seed": seed} | row)
                print(rows[-1], flush=True)
                results = {"table": rows, "costs": _costs(rows), "notes": sorted(set(notes))}
                write(path.stem, results | {"memory": peak_memory_mib()}, args.out)


def _measure(method: str, panel: Panel, most: int, seed: int) -> dict[str, Any]:
    """Backtest one method on the last origins of a set, with a fit for each."""
    errors, seconds = [], []
    origins = min(panel.origins, most)
    for turn in range(origins, 0, -1):
        cut = (turn - 1) * panel.horizon
        series = [one.iloc[: len(one) - cut] for one in panel.series]
        y = to_frame(series)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short series and constants
            report = tsllm.backtest(
                {method: METHODS[method](random_state=seed)} if method in METHODS else {},
                y,
                horizons=panel.horizon,
                test_size=panel.horizon,
                quantiles=(),
                metrics=["mase"],
                baselines=() if method in METHODS else [method],
                max_windows=None,
                max_history=None,
            )
        row = report.table.iloc[0]
        errors.append(row["mase"])
        seconds.append(row["fit_seconds"] + row["predict_seconds"])
    return {
        "horizon": panel.horizon,
        "series": len(panel.series),
        "origins": origins,
        "mase": float(np.mean(errors)),
        "fit_seconds": float(np.mean(seconds)),
    }


def _costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each method's ratio to the seasonal naive forecast, over its sets, and its seconds."""
    table = pd.DataFrame(rows).groupby(["method", "set"], sort=False)[["mase", "fit_seconds"]]
    mean = table.mean()
    naive = mean["mase"].xs("seasonal_naive") if "seasonal_naive" in mean.index else None
    out = []
    for method, own in mean.groupby("method", sort=False):
        figures = own.droplevel("method")
        row: dict[str, Any] = {"method": method, "sets": len(figures)}
        if naive is not None:
            ratios = (figures["mase"] / naive).dropna()
            row["relative_to_seasonal_naive"] = float(np.exp(np.log(ratios).mean()))
        out.append(row | {"seconds_of_all_sets": float(figures["fit_seconds"].sum())})
    return out


if __name__ == "__main__":
    main()
