"""A small fitted forecaster, and requests for it."""

import os

import pytest
from long_frames import fit_tiny, long_frame

os.environ["DO_NOT_TRACK"] = "1"

import tsllm.mlflow


@pytest.fixture(scope="session")
def frame():
    return long_frame(8)


@pytest.fixture(scope="session")
def forecaster(frame):
    return fit_tiny(frame)


@pytest.fixture(scope="session")
def saved(forecaster, tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow") / "model"
    tsllm.mlflow.save_model(forecaster, str(path))
    return path


@pytest.fixture(scope="session")
def served(saved):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(saved))
