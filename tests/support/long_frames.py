"""Many short series in a long frame, and as Parquet parts."""

import numpy as np
import pandas as pd


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
