"""Long frames of series on which covariates matter, and their known future."""

import numpy as np
import pandas as pd

import tsllm

STEPS, KNOWN = 90, 12


def covariate_frames(names=("b", "a"), *, freq="D"):
    """Return (data, future): ``value``, ``warm`` and ``sky``, and the last two for later steps."""
    rng = np.random.default_rng(0)
    parts = []
    for level, name in enumerate(names):
        steps = STEPS + KNOWN
        warm, sky = rng.normal(size=steps), rng.choice(["sun", "rain"], steps)
        parts.append(
            pd.DataFrame(
                {
                    "series_id": name,
                    "timestamp": pd.date_range("2024-01-01", periods=steps, freq=freq),
                    "value": 100.0 * level
                    + np.sin(np.arange(steps) * 2 * np.pi / 7)
                    + 4 * warm
                    + 6.0 * (sky == "rain")
                    + rng.normal(0, 0.1, steps),
                    "warm": warm,
                    "sky": sky,
                }
            )
        )
    whole = pd.concat(parts, ignore_index=True)
    place = whole.groupby("series_id", sort=False).cumcount()
    data, future = whole[place < STEPS], whole[place >= STEPS]
    return data.reset_index(drop=True), future.reset_index(drop=True)


def stacked(pairs, steps):
    """Return the first steps of y, and X, of a panel; pairs (y, X) by the name of the series."""
    y = pd.concat({name: y[:steps] for name, (y, _) in pairs.items()}, names=["id", "day"])
    X = pd.concat({name: X for name, (_, X) in pairs.items()}, names=["id", "day"])
    return y.to_frame(), X


def batch_forecasts(forecaster, y, X, horizon, folder):
    """Return the points of a batch job on a panel of `stacked`, in the order of the series."""
    past, ahead = folder / "past.parquet", folder / "ahead.parquet"
    y.join(X).reset_index().to_parquet(past)
    later = X[~X.index.isin(y.index)].groupby(level=0).head(horizon)
    later.reset_index().to_parquet(ahead)
    model = tsllm.save(forecaster, folder / "model")
    keys = {"id_col": "id", "time_col": "day"}
    tsllm.predict_batch(model, past, folder / "out", horizon=horizon, future=ahead, **keys)
    found = pd.read_parquet(folder / "out").sort_values(["id", "day"])
    return found["forecast"].to_numpy()
