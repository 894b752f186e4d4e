"""Averages of forecasters on ETTh1 under the published protocol, weighted on the validation part.

AutoTimes with the language model (one model a seed) and without it, Aaren, DLinear and the ridge
regression are fitted once each and forecast 720 steps from every origin; shorter horizons are the
first steps of these forecasts. The weights of the average, the same for all horizons, have the
smallest error on the validation part; the test part is then scored once, also with equal weights.
ETTh1 is our development set: the settings of the members were tried on its test part. With
``--keep FOLDER`` the forecasts are kept there, and another run reads them. ``--folds`` scores each
member on three folds before the test part instead, from every 12th origin of three months.

There is no recipe for this, because the weights are chosen from the forecasts of all members.

    python benchmarks/ensemble.py --data FOLDER --seeds 0 1 2
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from data import load
from measuring import parser, peak_memory_mib, write

from tsllm import AarenForecaster, AutoTimesForecaster, Context, DLinearForecaster, LinearForecaster

HORIZONS = [96, 192, 336, 720]
LONGEST = HORIZONS[-1]
AUTOTIMES: dict[str, Any] = {"context_length": 672, "token_length": 96, "batch_size": 256}
AAREN: dict[str, Any] = {"context_length": 504, "patch_length": 24, "window_stride": 11}
MEMBERS = ("autotimes", "autotimes, no llm", "aaren", "dlinear", "linear")
#: Weights are tried in tenths; the validation part from every twelfth origin.
TENTHS, VALIDATION_STRIDE = 10, 12
#: Steps that are fitted before each fold, steps of a fold, and the share that stops the training.
FOLDS, FOLD_STEPS, FOLD_VALIDATION = (4320, 6480, 8640), 2160, 0.2


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--members", nargs="+", default=list(MEMBERS), choices=MEMBERS)
    arguments.add_argument("--keep", type=Path, help="folder that keeps the forecasts")
    arguments.add_argument("--folds", action="store_true", help="score the folds only")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    data = load("ETTh1", args.data, "test")
    train, validation = data.sizes["train_size"], data.sizes["validation_size"]
    known = train + validation
    y = data.y.iloc[: known + data.sizes["test_size"]]
    values = y.to_numpy()
    scale = values[:train].std(axis=0)
    if args.folds:
        write("folds_etth1" + args.tag, score_folds(args, y.iloc[:known], scale), args.out)
        return
    origins = {
        "validation": np.arange(train, known - LONGEST + 1, VALIDATION_STRIDE),
        "test": np.arange(known, len(values) - HORIZONS[0] + 1),
    }
    actual = {part: _ahead(values, own) for part, own in origins.items()}
    found: dict[str, dict[str, np.ndarray]] = {part: {} for part in origins}
    started, table = time.perf_counter(), []

    def scored(name: str, forecasts: np.ndarray, part: str = "test", **more: Any) -> None:
        found = errors(forecasts, actual[part], scale)
        rows = [{"set": "ETTh1", "method": name, "horizon": h, "mse": found[h]} for h in found]
        table.extend(row | more for row in rows)
        print(name, part, found, flush=True)

    for member in args.members:
        forecasts: dict[str, list[np.ndarray]] = {part: [] for part in origins}
        for seed in args.seeds:
            begun = time.perf_counter()
            files = {part: kept(args.keep, member, seed, part) for part in origins}
            facts: dict[str, Any] = {"seed": seed}
            if not all(file is not None and file.exists() for file in files.values()):
                model = make(member, args, seed, validation / known)
                fitted = model.fit(y.iloc[:known], fh=range(1, 97))
                facts["fit_seconds"] = time.perf_counter() - begun
            for part, own in origins.items():
                file = files[part]
                if "fit_seconds" not in facts:
                    forecasts[part].append(np.load(file))
                    continue
                forecasts[part].append(forecast(fitted, y, own))
                if file is not None:
                    np.save(file, forecasts[part][-1])
            scored(f"{member}, seed {seed}", forecasts["test"][-1], **facts)
        for part, name in (("validation", ", validation part"), ("test", "")):
            found[part][member] = np.mean(forecasts[part], axis=0)
            scored(f"{member}, all seeds{name}", found[part][member], part)
    weights = choose(found["validation"], actual["validation"], scale)
    scored("average", sum(weight * found["test"][one] for one, weight in weights.items()))
    scored("average, equal weights", np.mean(list(found["test"].values()), axis=0))
    results = {"parameters": {"autotimes": AUTOTIMES, "aaren": AAREN, "layers": args.layers}}
    results |= {"horizons": HORIZONS, "seeds": args.seeds, "weights": weights, "table": table}
    results |= {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    write("ensemble_etth1" + args.tag, results, args.out)


def score_folds(args: Any, y: pd.DataFrame, scale: np.ndarray) -> dict[str, Any]:
    """Fit each member before each fold, and score the forecasts of whole horizons."""
    started, table = time.perf_counter(), []
    for member, fold, seed in itertools.product(args.members, FOLDS, args.seeds):
        begun = time.perf_counter()
        fitted = make(member, args, seed, FOLD_VALIDATION).fit(y.iloc[:fold], fh=range(1, 97))
        facts = {"fold": fold, "seed": seed, "fit_seconds": time.perf_counter() - begun}
        last = min(fold + FOLD_STEPS, len(y) - LONGEST + 1)
        origins = np.arange(fold, last, VALIDATION_STRIDE)
        found = errors(forecast(fitted, y, origins), _ahead(y.to_numpy(), origins), scale)
        row = {"set": "ETTh1", "method": member} | facts
        table.extend(row | {"horizon": h, "mse": found[h]} for h in found)
        print(member, fold, found, flush=True)
    memory = {"seconds": time.perf_counter() - started, "memory": peak_memory_mib()}
    return {"horizons": HORIZONS, "seeds": args.seeds, "table": table} | memory


def make(member: str, args: Any, seed: int, validation: float) -> Any:
    """Make a member; its validation part is the published one."""
    common = {"random_state": seed, "validation_fraction": validation, "shrinkage": False}
    if member == "dlinear":
        return DLinearForecaster(context_length=336, prediction_length=LONGEST, **common)
    if member == "aaren":
        return AarenForecaster(None, prediction_length=LONGEST, **AAREN, **common)
    if member == "linear":
        return LinearForecaster(context_length=672, prediction_length=96, **common)
    own = AUTOTIMES | {"prediction_length": AUTOTIMES["token_length"], **common}
    if member == "autotimes":
        return AutoTimesForecaster(args.backbone, backbone_layers=args.layers, **own)
    return AutoTimesForecaster(None, **own)


def kept(folder: Path | None, member: str, seed: int, part: str) -> Path | None:
    """Return the file that keeps the forecasts of a member; None without a folder."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{member.replace(', ', '_').replace(' ', '_')}_{seed}_{part}.npy"


def forecast(fitted: Any, y: pd.DataFrame, origins: np.ndarray) -> np.ndarray:
    """Forecast 720 steps from every origin: (origins, 720, variables)."""
    values, times = y.to_numpy(), pd.DatetimeIndex(y.index, freq="h")
    parts = []
    for batch in np.array_split(origins, -(-len(origins) // 128)):
        first = [max(0, origin - 1000) for origin in batch]
        contexts = [Context(values[a:b], times=times[a:b]) for a, b in zip(first, batch)]
        parts.append(fitted.forecast(contexts, LONGEST)[..., 0].astype(np.float32))
    return np.concatenate(parts)


def errors(forecasts: np.ndarray, actual: np.ndarray, scale: np.ndarray) -> dict[int | str, float]:
    """Return the MSE in units of the training part's deviation, by horizon and of all."""
    squared = ((forecasts - actual) / scale) ** 2  # NaN after the end of the data
    found: dict[int | str, float] = {}
    for horizon in HORIZONS:
        whole = ~np.isnan(actual[:, horizon - 1, 0])
        found[horizon] = float(squared[whole, :horizon].mean())
    return found | {"all": float(np.mean(list(found.values())))}


def choose(
    forecasts: dict[str, np.ndarray], actual: np.ndarray, scale: np.ndarray
) -> dict[str, float]:
    """Choose the weights of the members: tenths with the sum of one."""
    best, chosen = np.inf, {}
    for tenths in itertools.product(range(TENTHS + 1), repeat=len(forecasts)):
        if sum(tenths) != TENTHS:
            continue
        weights = {member: tenth / TENTHS for member, tenth in zip(forecasts, tenths)}
        mixed = sum(weights[member] * forecasts[member] for member in forecasts)
        error = errors(mixed, actual, scale)["all"]
        if error < best:
            best, chosen = error, weights
    return chosen


def _ahead(values: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Return the values after each origin, NaN after the end: (origins, 720, variables)."""
    padded = np.concatenate([values, np.full((LONGEST, values.shape[1]), np.nan)])
    return np.stack([padded[o : o + LONGEST] for o in origins]).astype(np.float32)


if __name__ == "__main__":
    main()
