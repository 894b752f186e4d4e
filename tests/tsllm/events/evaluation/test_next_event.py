"""Predictions held to the truth, against loops; and the guards against figures that say nothing."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from known_events import GOLD, hawkes_with

from tsllm.adapters.events.batch import EventStates
from tsllm.datasets.events import make_hawkes
from tsllm.events import NaiveEventForecaster
from tsllm.events.naive import NaiveDecoder


class AtOnce(NaiveEventForecaster):
    """A model that always predicts the next event at once: fault 7 of the released PromptTPP."""

    def _encode(self, batch):
        k = len(self.classes_)
        shape = (*batch.elapsed.shape, 1 + k)
        hidden = torch.full(shape, -np.log(k), dtype=torch.float64)
        hidden[..., 0] = np.log(500.0)
        return NaiveDecoder(k), EventStates(hidden)


@pytest.fixture(scope="module")
def stream():
    return make_hawkes(**GOLD, t_end=25, n_sequences=4, random_state=3).events


def test_the_figures_are_those_of_predicting_event_by_event(stream):
    model = hawkes_with(**GOLD, events=stream.to_frame())
    found = model.evaluate(stream, t_start=10.0, t_end=20.0)
    wrong, squared, absolute = [], [], []
    for name in stream.ids:
        own = stream.select([name]).to_frame()
        for place, row in own[own["time"].between(10.0, 20.0, inclusive="right")].iterrows():
            past = own[own.index < place]
            last = past["time"].iloc[-1]
            windows = (0.0, None)
            guess = model.predict(past, windows=windows, now=max(last, 10.0))
            wrong.append(guess["type"][0] != row["type"])
            squared.append((guess["time"][0] - row["time"]) ** 2)
            absolute.append(abs(guess["time_median"][0] - row["time"]))
    assert found.events == len(wrong)
    assert found["type_error"] == pytest.approx(np.mean(wrong))
    assert found["time_rmse"] == pytest.approx(np.sqrt(np.mean(squared)), rel=1e-6)
    assert found["time_mae"] == pytest.approx(np.mean(absolute), rel=1e-6)
    expected = model.score(stream, t_start=10.0, t_end=20.0)
    assert found["log_likelihood"] == pytest.approx(expected, rel=1e-12)


def test_the_guesses_are_those_of_a_loop(stream):
    train, test = stream.split((0.5, 0.5))
    model = NaiveEventForecaster().fit(train)
    table = model.evaluate(test).table
    gaps = np.concatenate([np.diff([start, *own]) for start, own in zip(train.starts, train.times)])
    counts = {a: dict.fromkeys("01", 0) for a in "01"}
    for own in train.types:
        for a, b in pairwise(own):
            counts[a][b] += 1
    majority = max("01", key=lambda name: sum((own == name).sum() for own in train.types))
    errors: dict = {name: [] for name in ("mean gap", "median gap", "last gap", "zero gap")}
    misses: dict = {"majority type": [], "Markov type": []}
    for start, times, types in zip(test.starts, test.times, test.types):
        last, before = gaps.mean(), None
        for gap, kind in zip(np.diff([start, *times]), types):
            for name, guess in (
                ("mean gap", gaps.mean()),
                ("median gap", np.median(gaps)),
                ("last gap", last),
                ("zero gap", 0.0),
            ):
                errors[name].append(guess - gap)
            usual = majority if before is None else max("01", key=counts[before].__getitem__)
            misses["majority type"].append(majority != kind)
            misses["Markov type"].append(usual != kind)
            last, before = gap, kind
    for name, found in errors.items():
        assert table.loc[name, "time_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(found))))
        assert table.loc[name, "time_mae"] == pytest.approx(np.mean(np.abs(found)))
    for name, found in misses.items():
        assert table.loc[name, "type_error"] == pytest.approx(np.mean(found))


def test_a_model_that_predicts_zero_gaps_is_flagged(stream):
    model = AtOnce().fit(stream)
    with pytest.warns(UserWarning, match="the predicted gaps are next to zero"):
        found = model.evaluate(stream)
    assert any("next to zero" in note for note in found.notes)
    assert "next to zero" in str(found)
    # its error is that of guessing zero, which is what stands beside it
    assert found["time_rmse"] == pytest.approx(found.table.loc["zero gap", "time_rmse"], rel=0.01)


def test_every_report_shows_the_guesses_and_says_which_are_not_beaten(stream, recwarn):
    shown = str(NaiveEventForecaster().fit(stream).evaluate(stream))
    for name in ("mean gap", "median gap", "last gap", "zero gap", "majority type", "Markov type"):
        assert name in shown
    assert "at least as good as the model" in shown
    good = hawkes_with(**GOLD).evaluate(stream)
    assert not any("next to zero" in note for note in good.notes)
    assert not recwarn.list


def test_one_type_has_no_errors_to_speak_of():
    events = pd.DataFrame({"time": [1.0, 2.0, 3.5, 4.0], "type": "a"})
    found = NaiveEventForecaster().fit(events).evaluate(events)
    assert found["type_error"] == 0
    assert not any("type_error" in note for note in found.notes)
    document = json.loads(json.dumps(found.to_dict()))
    assert document["events"] == 3
    assert document["table"]["mean gap"]["log_likelihood"] is None
