"""A small saved model, and a long frame of many series."""

import numpy as np
import pandas as pd
import pytest

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


@pytest.fixture(scope="session")
def frame():
    return long_frame(30)


@pytest.fixture(scope="session")
def model(frame, tmp_path_factory):
    """The directory of a model fitted on a few of the series."""
    some = frame[frame["series_id"] < "s0005"].set_index(["series_id", "timestamp"])
    forecaster = tsllm.AutoTimesForecaster(
        TINY, max_steps=2, context_length=12, token_length=6, batch_size=8, random_state=0
    )
    folder = tmp_path_factory.mktemp("model") / "model"
    return tsllm.save(forecaster.fit(some, fh=[1, 2, 3]), folder)


@pytest.fixture(scope="session")
def expected(frame, model):
    """What the model forecasts of the frame, all at once."""
    from tsllm.datasets import read_long
    from tsllm.long_format import predict_long

    return predict_long(tsllm.load(model), read_long(frame), 3)


def write_parts(frame, folder, borders):
    """Write a frame as parts that are cut at rows."""
    folder.mkdir()
    ends = [*borders, len(frame)]
    for i, (start, stop) in enumerate(zip([0, *borders], ends)):
        frame.iloc[start:stop].to_parquet(folder / f"in-{i:02d}.parquet", index=False)
    return folder
