"""A small saved model, and the series that it forecasts."""

import pytest
from covariate_frames import covariate_frames
from long_frames import fit_tiny, long_frame

import tsllm
from small_forecasters import SMALL


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


@pytest.fixture(scope="session")
def covariate_model():
    """A forecaster with covariates, fitted on the first series of `covariate_frames`."""
    from tsllm.datasets import read_long
    from tsllm.tables.forecast import fit_long, make_forecaster

    data, _ = covariate_frames(["s0", "s1", "s2"])
    forecaster = make_forecaster("autotimes", **SMALL["autotimes"])
    frame = read_long(data, covariates=["warm", "sky"])
    return fit_long(forecaster, frame, 3, covariates=["warm", "sky"])
