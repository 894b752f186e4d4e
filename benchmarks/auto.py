"""AutoForecaster at its defaults against each of its candidates, on sets of many kinds.

Each set is forecast after its last origins, which no choice was made on. Of one fit all rows are
scored: the combination, each candidate, equal weights, and the combination without the language
model. Errors are MASE, and are compared as ratios to those of the seasonal naive forecast. The
coverage of 80 % and 95 % intervals is that of all steps.

    python benchmarks/auto.py --data FOLDER
    python benchmarks/auto.py --data FOLDER --sets airline nile
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write
from panels import SETS, Panel, to_frame

from tsllm import AutoForecaster, Context
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.auto import CombinedState
from tsllm.forecasters.held_out import usual_change

COVERAGES = (0.8, 0.95)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sets", nargs="+", default=list(SETS))
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    ratios, errors = [], []
    for name in args.sets:
        panel = SETS[name](Path(args.data) if args.data else Path())
        for seed in args.seeds:
            kind = {"data": name, "series": len(panel.series), "horizon": panel.horizon}
            kind |= {"seed": seed}
            mase, rest = _measure(panel, args, seed)
            errors.append(kind | mase)
            ratios.append(kind | {k: v / mase["seasonal_naive"] for k, v in mase.items()} | rest)
            print(pd.Series(ratios[-1]).to_frame().T.round(3).to_string(index=False), flush=True)
    methods = [name for name in pd.DataFrame(errors) if name not in kind]
    means = np.exp(np.log(pd.DataFrame(ratios)[methods]).mean())
    print(means.round(3).to_string())
    found = {"ratios": ratios, "geometric_means": [means.to_dict()], "errors": errors}
    write("auto" + args.tag, found | {"memory": peak_memory_mib()}, args.out)


def _measure(panel: Panel, args: Any, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Fit at each origin; return the MASE of each method, and coverage and seconds of a fit."""
    errors: dict[str, list[np.ndarray]] = {}
    hits: dict[str, list[np.ndarray]] = {}
    for known, actual in panel.splits():
        forecaster = AutoForecaster(backbone=args.backbone, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forecaster.fit(to_frame(known), fh=range(1, panel.horizon + 1))
        contexts = [
            Context(past.to_numpy(), times=past.index, series_id=i) for i, past in enumerate(known)
        ]
        season = season_length(forecaster.fitted_.shape.freq)
        scale = np.stack([usual_change(c.values, season) for c in contexts])  # (series, 1)
        for name, forecast in _forecasts(forecaster, contexts, panel.horizon).items():
            errors.setdefault(name, []).append(np.abs(forecast - actual) / scale)
        levels = [level for c in COVERAGES for level in ((1 - c) / 2, (1 + c) / 2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spread = forecaster.forecast(contexts, panel.horizon, quantiles=levels)[:, :, 0, 1:]
        for i, coverage in enumerate(COVERAGES):
            inside = (spread[..., 2 * i] <= actual) & (actual <= spread[..., 2 * i + 1])
            hits.setdefault(f"coverage{100 * coverage:g}", []).append(inside)
    # A candidate that joined at some origins only, for the length of the series, is not compared.
    whole = {name: e for name, e in errors.items() if len(e) == panel.origins}
    mase = {name: float(np.nanmean(np.concatenate(e))) for name, e in whole.items()}
    covered = {name: float(np.mean(inside)) for name, inside in hits.items()}
    return mase, covered | {"fit_seconds": forecaster.fitted_.seconds}


def _forecasts(
    forecaster: AutoForecaster, contexts: list[Context], horizon: int
) -> dict[str, np.ndarray]:
    """Forecast with the combination and with each of its parts: (series, horizon)."""
    state = forecaster.fitted_
    assert isinstance(state, CombinedState)
    parts = {one.name: one.forecast(contexts, horizon)[..., 0] for one in state.candidates}
    return {
        "auto": forecaster.forecast(contexts, horizon)[..., 0, 0],
        "equal weights": np.mean(list(parts.values()), axis=0),
        **parts,
    }


if __name__ == "__main__":
    main()
