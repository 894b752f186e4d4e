r"""Evaluate zero-shot checkpoints on series that training has never seen.

The sets are those of `panels.py` and ETTh1. ``--part dev`` forecasts origins before those of the
benchmark tables, for choices of the model; ``--part test`` forecasts the last origins. The figures
are the mean absolute error and the quantile loss of the deciles, scaled by series and relative to
the seasonal naive forecast, and the coverage of the central 80 % and 95 %.

    PYTHONPATH=benchmarks python -m zero_shot.evaluate --data FOLDER --part test \
        --checkpoints pretrained=A.safetensors random=B.safetensors none=C.safetensors
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write
from panels import SETS, Panel
from safetensors.torch import load_file

from tsllm.adapters.zero_shot import CONTEXT, LEVELS, ZeroShotModel
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.statistical import seasonal_naive
from tsllm.forecasters.zero_shot import seasons_of
from tsllm.pretrained import ZERO_SHOT
from zero_shot.train import build

NAME = "zero_shot"
_FREQUENCIES = {"Y": "YE", "Q": "QE", "M": "ME", "W": "W", "D": "D", "h": "h"}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--checkpoints", nargs="+", required=True, help="FROZEN=FILE")
    arguments.add_argument("--part", choices=("dev", "test"), default="dev")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    panels = {name: make(Path(args.data)) for name, make in SETS.items()}
    if args.part == "dev":
        panels = {name: dev for name, one in panels.items() if (dev := _earlier(one)) is not None}
    panels["ETTh1"] = _etth1(Path(args.data), args.part)
    rows, means = [], []
    for one in args.checkpoints:
        frozen, _, file = one.partition("=")
        model = build(frozen, ZERO_SHOT.layers)
        tensors = load_file(file)
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(tensors[f"average.{name}"])
        model.eval()
        facts = {"frozen": frozen, "steps": int(tensors["step"])}
        facts["minutes"] = round(float(tensors["spent"]) / 60, 1)
        own = [{**facts, "set": name, **_measure(model, panel)} for name, panel in panels.items()]
        rows += own
        mean = {
            key: float(np.exp(np.mean(np.log([row[key] for row in own])))) for key in ("mae", "wql")
        }
        for key in ("coverage80", "coverage95"):
            mean[key] = float(np.mean([row[key] for row in own]))
        means.append(facts | mean | {"seconds_of_1000": _seconds(model)})
        print(json.dumps(means[-1]), flush=True)
        print({row["set"]: round(row["mae"], 2) for row in own}, flush=True)
    results = {"table": rows, "means": means, "memory": peak_memory_mib()}
    write(f"{NAME}_{args.part}{args.tag}", results, args.out)


def _measure(model: ZeroShotModel, panel: Panel) -> dict[str, Any]:
    """Forecast the origins of a set, and compare with the seasonal naive forecast."""
    index = panel.series[0].index
    freq = _FREQUENCIES[index.freqstr.partition("-")[0]]
    season, sums = season_length(freq), np.zeros(5)
    levels = np.array(LEVELS)
    deciles = slice(1, -1)
    for known, ahead in panel.splits():
        pasts = [one.to_numpy(dtype=float) for one in known]
        quantiles = predict(model, pasts, freq, panel.horizon)  # (series, horizon, 1 + levels)
        naive = np.stack([seasonal_naive(p[:, None], panel.horizon, season)[:, 0] for p in pasts])
        lag = [season if len(past) > season else 1 for past in pasts]
        units = np.array([np.mean(np.abs(p[n:] - p[:-n])) for p, n in zip(pasts, lag)])[:, None]
        errors = (ahead[..., None] - quantiles[..., 1:]) / units[..., None]
        pinball = np.maximum(levels * errors, (levels - 1) * errors)[..., deciles].mean()
        inside = [
            np.mean((ahead >= quantiles[..., 1 + a]) & (ahead <= quantiles[..., -1 - a]))
            for a in (1, 0)
        ]
        naive_error = np.mean(np.abs(ahead - naive) / units)
        error = np.mean(np.abs(ahead - quantiles[..., 0]) / units)
        sums += np.array([error, naive_error, 2 * pinball, *inside])
    return {
        "mae": sums[0] / sums[1],
        "wql": sums[2] / sums[1],
        "coverage80": sums[3] / panel.origins,
        "coverage95": sums[4] / panel.origins,
    }


@torch.no_grad()
def predict(model: ZeroShotModel, pasts: list[np.ndarray], freq: str, horizon: int) -> np.ndarray:
    """Forecast series from their ends: (series, horizon, 1 + levels)."""
    longest = min(CONTEXT, max(map(len, pasts)))
    x, observed = np.zeros((len(pasts), longest)), np.zeros((len(pasts), longest), dtype=bool)
    for row, past in enumerate(pasts):
        tail = past[-longest:]
        x[row, longest - len(tail) :] = tail
        observed[row, longest - len(tail) :] = True
    seasons = torch.tensor([seasons_of(freq)] * len(pasts))
    out = model.forecast(torch.from_numpy(x), torch.from_numpy(observed), seasons, horizon)
    return out.numpy()


def _seconds(model: ZeroShotModel) -> float:
    """Time the forecasts of 1,000 series of 512 steps, 24 steps ahead."""
    rng = np.random.default_rng(0)
    pasts = list(rng.normal(size=(1000, 512)).cumsum(axis=1))
    begun = time.perf_counter()
    for first in range(0, len(pasts), 100):
        predict(model, pasts[first : first + 100], "h", 24)
    return time.perf_counter() - begun


def _earlier(panel: Panel) -> Panel | None:
    """Return a set without its test steps, where enough are left."""
    cut = panel.horizon * panel.origins
    series = [one.iloc[:-cut] for one in panel.series if len(one) >= cut + 3 * panel.horizon]
    if not series:
        return None
    return Panel(series, panel.horizon, 3 if min(map(len, series)) >= 5 * panel.horizon else 1)


def _etth1(folder: Path, part: str) -> Panel:
    """Return ETTh1's validation or test year, 24 origins of 48 hours spread over two months."""
    frame = pd.read_csv(folder / "ETTh1.csv").iloc[: 11520 if part == "dev" else 14400, 1:]
    hours = pd.period_range("2016-07-01", periods=len(frame), freq="h")
    return Panel([pd.Series(frame[c].to_numpy(float), index=hours) for c in frame], 48, 24)


if __name__ == "__main__":
    main()
