"""Events without training: near the truth on short streams of processes of several kinds."""

import dataclasses
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from tsllm.datasets.events import make_hawkes, make_renewal, make_self_correcting
from tsllm.errors import DataError, ModelFormatError
from tsllm.events import HawkesForecaster, NaiveEventForecaster, ZeroShotEventForecaster
from tsllm.pretrained import ZERO_SHOT_EVENTS

HISTORY = 120


def split(simulation):
    """The first events of a stream, the stream, and the true log-likelihood of the others."""
    whole = simulation.events
    past = whole.between(None, whole.times[0][HISTORY - 1])
    truth = simulation.log_likelihood(whole) - simulation.log_likelihood(past)
    return past, whole, truth[0] / (whole.n_events - HISTORY)


@pytest.mark.parametrize(
    ("simulation", "loss"),
    [
        (make_hawkes([0.4], [[0.6]], [1.2], t_end=300, random_state=1), 0.1),
        (make_renewal("gamma", cv=0.4, t_end=300, random_state=1), 0.1),
        (make_self_correcting(1.0, 1.0, t_end=300, random_state=1), 0.15),
    ],
    ids=["hawkes", "renewal", "self-correcting"],
)
def test_a_short_stream_of_an_unknown_kind_is_predicted_nearly_as_by_the_truth(simulation, loss):
    past, whole, truth = split(simulation)
    start = past.times[0][-1]
    model = ZeroShotEventForecaster().fit(past)
    found = model.score(whole, t_start=start)
    assert truth - loss < found < truth + 0.1
    assert found > NaiveEventForecaster().fit(past).score(whole, t_start=start)


@pytest.mark.filterwarnings("ignore:the fitted Hawkes process is not stationary")
def test_regular_times_are_predicted_better_than_by_a_fitted_hawkes_process():
    past, whole, _ = split(make_renewal("gamma", cv=0.3, t_end=300, random_state=0))
    start = past.times[0][-1]
    fitted = HawkesForecaster().fit(past).score(whole, t_start=start)
    assert ZeroShotEventForecaster().fit(past).score(whole, t_start=start) > fitted + 0.3


def test_the_unit_of_time_does_not_matter():
    frame = make_renewal(t_end=60, random_state=0).events.to_frame()[["time", "type"]]
    model = ZeroShotEventForecaster(id_col=None)
    quantiles = model.fit(frame).predict_quantiles()
    scaled = model.fit(frame.assign(time=1000 * frame["time"])).predict_quantiles()
    np.testing.assert_allclose(scaled, 1000 * quantiles, rtol=1e-4)


def test_types_that_alternate_are_learnt_from_the_history():
    times = np.arange(1, 41.0)
    frame = pd.DataFrame({"time": times, "type": ["tick", "tock"] * 20})
    chances = ZeroShotEventForecaster(id_col=None).fit(frame).predict_proba()
    assert float(chances["tick"].iloc[0]) > 0.75


def test_too_many_types_are_refused():
    types = [f"kind {number}" for number in range(80)]
    frame = pd.DataFrame({"time": np.arange(80.0), "type": types})
    with pytest.raises(DataError, match="reads at most 64 types, found 80: join rare types"):
        ZeroShotEventForecaster(id_col=None).fit(frame)


def test_the_packaged_weights_are_small_and_checked():
    file = resources.files("tsllm.pretrained").joinpath(ZERO_SHOT_EVENTS.file)
    assert len(file.read_bytes()) < 5_000_000
    other = dataclasses.replace(ZERO_SHOT_EVENTS, sha256="0" * 64)
    with pytest.raises(ModelFormatError, match="install tsllm anew"):
        other.read()
