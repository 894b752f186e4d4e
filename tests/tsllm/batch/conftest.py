"""A small saved model, and the series that it forecasts."""

import pytest
from long_frames import fit_tiny, long_frame

import tsllm


@pytest.fixture(scope="session")
def frame():
    return long_frame(30)


@pytest.fixture(scope="session")
def model(frame, tmp_path_factory):
    """The directory of a model fitted on a few of the series."""
    forecaster = fit_tiny(frame[frame["series_id"] < "s0005"], batch_size=8)
    return tsllm.save(forecaster, tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def expected(frame, model):
    """The model's forecasts of the whole frame at once."""
    from tsllm.datasets import read_long
    from tsllm.tables.forecast import predict_long

    return predict_long(tsllm.load(model), read_long(frame), 3)
