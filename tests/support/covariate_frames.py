"""Long frames of series on which covariates matter, and their known future."""

import numpy as np
import pandas as pd

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
