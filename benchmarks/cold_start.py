"""New series forecast from their descriptions: retail turnover of series that are left out.

148 monthly series are described by industry and state. A fifth of them is left out in turn, and
forecast for the last year from its description and 0, 3 or 12 observations, by `ColdStart` fitted
on the others. It reads the descriptions with a language model, with the same model with random
weights, or as a bag of words; or it has none (the mean of the panel). Beside it stand the mean of
the series of the same state, of the same industry and of all, in logarithms, scaled to the
observations where there are some, and the forecaster alone.

Errors: of logarithms (root mean square), and absolute ones in changes of a season (the mean of all
series and the median series); coverage and width of the intervals of 80 % and 95 %.

    python benchmarks/cold_start.py --data FOLDER
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write

from tsllm import AutoForecaster, ColdStart, Context

HORIZON = 12
COUNTS = (0, 3, 12)
LEVELS = (0.025, 0.1, 0.9, 0.975)
#: Steps of a series that its errors are compared with.
LEAST_STEPS = 60
LANGUAGE_MODEL = "language model"
#: The first is the table that the book shows.
WIDE = ("log_rmse", "scaled_median")


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--inside", nargs="+", default=["seasonal_naive", "theta"])
    args = arguments.parse_args()
    torch.set_num_threads(1)
    data = _read(args.data)
    ids = data.index.get_level_values(0).unique()
    fold_of = np.random.default_rng(0).permutation(len(ids)) % args.folds
    rows, settings = [], {}
    for fold in range(args.folds):
        left_out = list(ids[fold_of == fold])
        panel = data[~data.index.get_level_values(0).isin(left_out)]
        panel = panel[panel.index.get_level_values(1) <= _origin(data)]
        rows += _by_means(data, panel, left_out)
        encoders = {LANGUAGE_MODEL: args.backbone, "bag of words": "tfidf"}
        encoders |= {
            f"random weights, seed {s}": f"random:{args.backbone}?seed={s}" for s in args.seeds
        }
        first = _fit(panel, args)
        rows += _alone(first, data, left_out)
        for name, encoder in ({"mean of the panel": None} | encoders).items():
            model = first if encoder == args.backbone else _reading_with(first, encoder)
            found = _by_model(name, model, data, left_out)
            rows += found
            print(fold, name, _scores(found, 0), flush=True)
            if fold == 0:
                settings[name] = _settings(model)
    table = _tables(pd.DataFrame(rows))
    write(
        "cold_start" + args.tag,
        table
        | {"chosen_in_the_first_fold": [{"text": k, **v} for k, v in settings.items()]}
        | {"inside": ", ".join(args.inside), "folds": args.folds, "series": len(ids)}
        | {"memory": peak_memory_mib()},
        args.out,
    )


def _read(folder: str | None) -> pd.DataFrame:
    """Read the series that have the last year, indexed by id and month."""
    path = Path(folder or os.environ["TSLLM_DATA"]) / "aus_retail.parquet"
    data = pd.read_parquet(path)
    data["industry"] = [
        text.removesuffix(f", {state}") for text, state in zip(data["description"], data["state"])
    ]
    data = data.set_index(["series_id", "timestamp"])
    last = data.index.get_level_values(1).max()
    lasts = data.reset_index().groupby("series_id")["timestamp"].agg(["max", "size"])
    whole = lasts.index[(lasts["max"] == last) & (lasts["size"] >= LEAST_STEPS + HORIZON)]
    return data[data.index.get_level_values(0).isin(whole)]


def _origin(data: pd.DataFrame) -> pd.Timestamp:
    """Return the last month before those that are forecast."""
    stamps = data.index.get_level_values(1).unique().sort_values()
    return stamps[-HORIZON - 1]


def _fit(panel: pd.DataFrame, args: Any) -> ColdStart:
    """Fit on a panel, with the language model."""
    inside = AutoForecaster(args.inside, backbone=None, random_state=0)
    model = ColdStart(inside, static_text=("description",), text_backbone=args.backbone)
    tried = model._own_forecasts
    known: dict[Any, np.ndarray] = {}

    def own_forecasts(state: Any, contexts: Any, lasts: Any, rows: Any, *rest: int) -> np.ndarray:
        """Forecast by the forecaster inside once, for all encoders."""
        key = (tuple(rows), *rest)
        if key not in known:
            known[key] = tried(state, contexts, lasts, rows, *rest)
        return known[key]

    model._own_forecasts = own_forecasts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = range(1, HORIZON + 1)
        return model.fit(panel[["value"]], X=panel[["description"]], fh=steps)


def _reading_with(first: ColdStart, encoder: str | None) -> ColdStart:
    """Return a forecaster that reads descriptions in another way, or not, around the same one."""
    model = copy.copy(first)
    model.text_backbone = encoder
    if encoder is None:
        model.static_text, model.without_text = (), "mean"
    model.fitted_ = copy.copy(first.fitted_)
    model.fitted_.encoder = None
    model.fitted_.panel = model._learn_panel(model.fitted_, list(first._contexts.values()))
    return model


def _parts(data: pd.DataFrame, series_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a series before and in the last year."""
    one = data.loc[series_id]
    return one[one.index <= _origin(data)], one[one.index > _origin(data)]


def _contexts(data: pd.DataFrame, ids: Sequence[str], count: int) -> list[Context]:
    """Return the last observations of series, as the forecaster reads them."""
    contexts = []
    for series_id in ids:
        past, _ = _parts(data, series_id)
        values = past["value"].to_numpy()[-max(count, 1) :, None]
        contexts.append(
            Context(
                values if count else np.full_like(values, np.nan),
                times=pd.DatetimeIndex(past.index[-max(count, 1) :], freq="MS"),
                static={"description": past["description"].iloc[0]},
            )
        )
    return contexts


def _by_model(
    name: str, model: ColdStart, data: pd.DataFrame, ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Score a fitted forecaster on series that it does not know."""
    rows = []
    for count in COUNTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = model.forecast(_contexts(data, ids, count), HORIZON, quantiles=LEVELS)
        for series_id, forecast in zip(ids, found[:, :, 0]):
            row = _row(name, count, data, series_id, forecast[:, 0])
            actual = _parts(data, series_id)[1]["value"].to_numpy()
            low95, low80, high80, high95 = forecast[:, 1:].T
            row["coverage80"] = float(((low80 <= actual) & (actual <= high80)).mean())
            row["coverage95"] = float(((low95 <= actual) & (actual <= high95)).mean())
            row["width95"] = float(np.log(high95 / np.maximum(low95, 1e-9)).mean())
            rows.append(row)
    return rows


def _alone(model: ColdStart, data: pd.DataFrame, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Score the forecaster inside, from the observations alone."""
    rows = []
    inside = model.forecaster
    for count in COUNTS[1:]:
        contexts = _contexts(data, ids, count)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, _ = inside._reader(model.fitted_.inner).predict(contexts, HORIZON)
        for series_id, forecast in zip(ids, found[:, :, 0, 0]):
            rows.append(_row("the forecaster alone", count, data, series_id, forecast))
    return rows


def _by_means(data: pd.DataFrame, panel: pd.DataFrame, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Score means of the last year of the panel's series, in logarithms, month by month."""
    year = panel[panel.index.get_level_values(1) > _origin(data) - pd.DateOffset(months=12)]
    logs = np.log(year["value"]).groupby([year["state"], year["industry"], "series_id"])
    logs = logs.apply(lambda one: one.to_numpy())
    logs = pd.DataFrame(
        [one for one in logs if len(one) == HORIZON],
        index=logs.index[[len(one) == HORIZON for one in logs]],
    )
    rows = []
    for series_id in ids:
        past, _ = _parts(data, series_id)
        about = past.iloc[0]
        groups = {
            "mean of all, scaled": logs,
            "mean of the state, scaled": logs[logs.index.get_level_values(0) == about["state"]],
            "mean of the industry, scaled": logs[
                logs.index.get_level_values(1) == about["industry"]
            ],
        }
        for name, group in groups.items():
            profile = (group if len(group) else logs).mean().to_numpy()
            for count in COUNTS:
                seen = np.log(past["value"].to_numpy()[-count:]) if count else profile
                shift = (seen - profile[-len(seen) :]).mean()
                rows.append(_row(name, count, data, series_id, np.exp(profile + shift)))
    return rows


def _row(
    name: str, count: int, data: pd.DataFrame, series_id: str, forecast: np.ndarray
) -> dict[str, Any]:
    """Score one forecast of a series."""
    past, future = _parts(data, series_id)
    actual, history = future["value"].to_numpy(), past["value"].to_numpy()
    usual = np.abs(history[12:] - history[:-12]).mean()
    logs = np.log(actual) - np.log(np.maximum(forecast, 1e-3 * actual))
    return {
        "forecast from": name,
        "observations": count,
        "series": series_id,
        "squared_log": float((logs**2).mean()),
        "scaled": float(np.abs(actual - forecast).mean() / usual),
    }


def _scores(rows: list[dict[str, Any]], count: int) -> float:
    """Return the root mean square error of the logarithms."""
    squares = [row["squared_log"] for row in rows if row["observations"] == count]
    return round(float(np.sqrt(np.mean(squares))), 3)


def _tables(rows: pd.DataFrame) -> dict[str, Any]:
    """Summarise the series, and compare the language model with the others series by series."""
    seeds = rows["forecast from"].str.startswith("random weights")
    rows.loc[seeds, "forecast from"] = "random weights"
    summary, differences = [], []
    for count in COUNTS:
        own = rows[rows["observations"] == count]
        by_series = own.groupby(["forecast from", "series"], sort=False).mean(numeric_only=True)
        for name, some in by_series.groupby(level=0, sort=False):
            told = {
                "observations": count,
                "forecast from": name,
                "log_rmse": float(np.sqrt(some["squared_log"].mean())),
                "scaled_mean": float(some["scaled"].mean()),
                "scaled_median": float(some["scaled"].median()),
            }
            if some["coverage80"].notna().all():
                told |= {k: float(some[k].mean()) for k in ("coverage80", "coverage95", "width95")}
            summary.append(told)
        errors = np.sqrt(by_series["squared_log"]).unstack(level=0)
        for name in errors.columns.drop(LANGUAGE_MODEL):
            gap = (errors[LANGUAGE_MODEL] - errors[name]).to_numpy()
            draws = np.random.default_rng(0).integers(0, len(gap), (4000, len(gap)))
            low, high = np.quantile(gap[draws].mean(axis=1), [0.025, 0.975])
            differences.append(
                {
                    "observations": count,
                    "language model less": name,
                    "log_error": float(gap.mean()),
                    "lower": float(low),
                    "upper": float(high),
                }
            )
    wide = {f"{metric}_by_values": _wide(summary, metric) for metric in WIDE}
    return {**wide, "scores": summary, "differences": differences}


def _wide(summary: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Write one metric with a row for each way and a column for each number of observations."""
    rows: dict[str, dict[str, Any]] = {}
    for told in summary:
        row = rows.setdefault(told["forecast from"], {"forecast from": told["forecast from"]})
        row[f"{told['observations']} values"] = told[metric]
    return list(rows.values())


def _settings(model: ColdStart) -> dict[str, Any]:
    """Return what validation chose."""
    told = model.summary()["cold_start"]
    (prior,) = told.get("by_text") or told["panel_mean"]
    left = {f"{part} left": share for part, share in prior["error_left"].items()}
    return {"scale": prior["scale"], "half_weight": str(prior["half_weight"]), **left}


if __name__ == "__main__":
    main()
