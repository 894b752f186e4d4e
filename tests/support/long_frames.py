"""Many short series in a long frame, as Parquet parts, and a small model of them."""

import warnings

import numpy as np
import pandas as pd

import tsllm

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"


def long_frame(n_series, steps=40, *, freq="D"):
    """Series of unequal lengths, one after the other, none like another."""
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                "series_id": f"s{i:04d}",
                "timestamp": pd.date_range("2024-01-01", periods=steps + i % 7, freq=freq),
                "value": 10 * i + rng.normal(0, 1, steps + i % 7).cumsum(),
            }
        )
        for i in range(n_series)
    ]
    return pd.concat(frames, ignore_index=True)


def write_parts(frame, folder, borders):
    """Write a frame as parts that are cut at rows."""
    folder.mkdir()
    ends = [*borders, len(frame)]
    for i, (start, stop) in enumerate(zip([0, *borders], ends)):
        frame.iloc[start:stop].to_parquet(folder / f"in-{i:02d}.parquet", index=False)
    return folder


def read_parts(folder):
    """Return the bytes of each part by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def fit_tiny(frame, backbone=TINY, **parameters):
    settings = {"max_steps": 2, "context_length": 12, "token_length": 6, "random_state": 0}
    forecaster = tsllm.AutoTimesForecaster(backbone, **(settings | parameters))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return forecaster.fit(frame.set_index(["series_id", "timestamp"]), fh=[1, 2, 3])
