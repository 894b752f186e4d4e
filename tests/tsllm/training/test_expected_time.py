"""A long training is announced once, from the time of its first steps."""

import warnings

import pandas as pd
import pytest

from tsllm import DLinearForecaster
from tsllm.training import callbacks
from tsllm.training.callbacks import ExpectedTime
from tsllm.training.settings import TrainingState


def run(monkeypatch, seconds_per_step, planned, steps=10):
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])
    callback, state = ExpectedTime(), TrainingState(None, planned)
    for _ in range(steps):
        callback.on_step_begin(state)
        clock[0] += seconds_per_step
        state.step += 1
        assert not callback.on_step_end(state)


def test_the_rest_is_estimated_from_the_first_steps(monkeypatch):
    # The first 3 of 1,203 steps take 3 seconds: 1,200 steps are left.
    with pytest.warns(UserWarning, match="up to 20 minutes .*1,203 steps") as caught:
        run(monkeypatch, 1.0, 1203)
    assert len(caught) == 1


@pytest.mark.parametrize("seconds, planned", [(0.01, 5000), (1.0, 60), (0.1, 10**6)])
def test_short_trainings_are_not_announced(monkeypatch, seconds, planned):
    """The last has not yet run for three seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(monkeypatch, seconds, planned)


def test_a_fit_announces_it(monkeypatch):
    monkeypatch.setattr(callbacks, "LONG_TRAINING", 0.0)
    monkeypatch.setattr(callbacks, "MEASURED", 0.0)
    with pytest.warns(UserWarning, match="this training will take up to 1 minutes"):
        DLinearForecaster(max_steps=3).fit(pd.Series(range(30)), fh=[1])
