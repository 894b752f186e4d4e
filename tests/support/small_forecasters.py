"""Small forecasters and series that many tests share."""

import numpy as np
import pandas as pd

from tsllm import AutoTimesForecaster

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"


def tiny(**parameters):
    settings = {
        "backbone": TINY,
        "context_length": 12,
        "token_length": 6,
        "max_steps": 4,
        "batch_size": 32,
        "random_state": 0,
    }
    return AutoTimesForecaster(**(settings | parameters))


def season(steps, *, phase=0.0, level=10.0, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.1, steps)
    return level + np.sin(np.arange(steps) * 2 * np.pi / 12 + phase) + noise


def panel(lengths, ids, *, start="2024-01-01", freq="D"):
    frames = [
        pd.DataFrame(
            {"value": season(n, phase=i, level=100.0 * (i + 1), seed=i)},
            index=pd.MultiIndex.from_product(
                [[name], pd.date_range(start, periods=n, freq=freq)], names=["id", "time"]
            ),
        )
        for i, (n, name) in enumerate(zip(lengths, ids))
    ]
    return pd.concat(frames)
