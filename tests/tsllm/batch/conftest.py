"""A small saved model, and the series that it forecasts."""

import pytest
from long_frames import long_frame

import tsllm

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"


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
