"""Deadlines: every kind of forecast stops between its batches, and nothing stays behind."""

import contextvars
import threading

import numpy as np
import pandas as pd
import pytest
from small_events import small_prompttpp, stream

import tsllm
from small_forecasters import SMALL, small
from tsllm.backbone import stopping
from tsllm.errors import StoppedError
from tsllm.events import NaiveEventForecaster

Y = pd.Series(np.sin(np.arange(40.0)), pd.date_range("2024-01-01", periods=40, freq="D"))
pytestmark = pytest.mark.filterwarnings("ignore:the intervals ", "ignore:.* fewer ")


def dlinear():
    return tsllm.DLinearForecaster(context_length=12, max_steps=2, random_state=0)


@pytest.mark.parametrize("method", [*SMALL, "dlinear"])
def test_a_forecast_stops_at_its_deadline_and_another_is_as_before(method):
    forecaster = (dlinear() if method == "dlinear" else small(method)).fit(Y, fh=[1, 2])
    expected = forecaster.predict()
    with stopping.deadline(0, "too long"), pytest.raises(StoppedError, match="too long"):
        forecaster.predict()
    pd.testing.assert_series_equal(forecaster.predict(), expected)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_prediction_of_events_stops_at_its_deadline(n_steps):
    model = small_prompttpp().fit(stream())
    with stopping.deadline(0, "too long"), pytest.raises(StoppedError, match="too long"):
        model.predict(stream(12), n_steps=n_steps)
    assert len(model.predict(stream(12))) == 3


def test_sampled_futures_stop_between_their_events(monkeypatch):
    model = NaiveEventForecaster(types="markov", random_state=0).fit(stream())
    looks = iter(range(1_000))

    def third_look():
        if next(looks) == 3:
            raise StoppedError("now")

    monkeypatch.setattr("tsllm.events.sampling.check_time", third_look)
    with pytest.raises(StoppedError, match="now"):
        model.predict(n_steps=50)


def test_the_earlier_of_two_deadlines_counts():
    assert stopping.seconds_left() is None
    with stopping.deadline(0, "outer"), stopping.deadline(60, "inner"):
        assert stopping.seconds_left() == 0
        with pytest.raises(StoppedError, match="outer"):
            stopping.check_time()
    inner = pytest.raises(StoppedError, match="inner")
    with stopping.deadline(60, "outer"), stopping.deadline(0, "inner"), inner:
        stopping.check_time()
    stopping.check_time()


def test_a_deadline_holds_in_its_own_thread_only():
    found = []
    with stopping.deadline(60, "too long"):
        for run in (lambda work: work(), contextvars.copy_context().run):
            thread = threading.Thread(
                target=lambda run=run: run(lambda: found.append(stopping.seconds_left()))
            )
            thread.start()
            thread.join()
    assert found[0] is None and found[1] > 50


def test_a_process_that_ends_stops_all_work(monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(stopping, "_asked_to_end", None)
    stopping.end_when(asked.is_set)
    stopping.check_time()
    asked.set()
    with pytest.raises(StoppedError, match="ends"):
        stopping.check_time()
