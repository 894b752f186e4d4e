"""Predictions of event forecasters against exact values, brute force and each other."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from known_events import GOLD, GOLD_EVENTS, hawkes_with
from scipy import integrate, stats
from small_events import small_prompttpp

from tsllm.datasets.events import make_hawkes, read_events
from tsllm.errors import DataError
from tsllm.events import (
    EventForecaster,
    HawkesForecaster,
    NaiveEventForecaster,
    PromptTPP,
)

START = {"windows": (0.0, None)}


def poisson(rate=0.5, **more):
    return hawkes_with([rate], [[0.0]], [1.0], **more)


def intensity(t, mu, alpha, beta, times, codes):
    """Hawkes intensities from the definition: (types,)."""
    rate = np.array(mu, dtype=float)
    for when, code in zip(times, codes):
        if when < t:
            rate += np.array(alpha)[:, code] * beta * np.exp(-np.array(beta) * (t - when))
    return rate


# ---------------------------------------------------------------- exact values


def test_the_next_event_of_gold_1():
    model = hawkes_with(**GOLD)
    found = model.predict(GOLD_EVENTS, **START)
    assert found["time"][0] - 4 == pytest.approx(0.8374454348, abs=1e-6)
    assert found["type"][0] == "0"
    assert found["probability"][0] == pytest.approx(0.5974510627, abs=1e-6)
    assert found["no_event"][0] == 0
    chances = model.predict_proba(GOLD_EVENTS, **START)
    assert chances.loc["sequence", "0"] == pytest.approx(0.5974510627, abs=1e-6)
    assert chances.sum(axis=1).tolist() == pytest.approx([1.0])


def test_quantiles_invert_the_survival_from_now_on():
    codes = [int(k) for k in GOLD_EVENTS["type"]]
    model = hawkes_with(**GOLD)
    now = 4.6
    found = model.predict_quantiles(GOLD_EVENTS, levels=[0.25, 0.8], now=now, **START)
    for level, when in zip([0.25, 0.8], found.to_numpy()[0]):
        passed = integrate.quad(
            lambda t: intensity(t, *GOLD.values(), GOLD_EVENTS["time"], codes).sum(), now, when
        )[0]
        assert 1 - np.exp(-passed) == pytest.approx(level, abs=1e-6)


def test_intensities_are_those_of_the_formula_in_the_past_and_the_future():
    codes = [int(k) for k in GOLD_EVENTS["type"]]
    times = [0.2, 0.3, 0.300001, 2.55, 4.0, 4.7, 9.0]
    found = hawkes_with(**GOLD).predict_intensity(times, GOLD_EVENTS, **START)
    for at, row in zip(times, found.to_numpy()):
        expected = intensity(at, *GOLD.values(), GOLD_EVENTS["time"], codes)
        assert row == pytest.approx(expected, rel=1e-6)
    total = hawkes_with(**GOLD).predict_intensity(times, GOLD_EVENTS, by_type=False, **START)
    assert total["intensity"].to_numpy() == pytest.approx(found.sum(axis=1).to_numpy())


def test_intensities_before_anything_is_known_are_missing():
    found = hawkes_with(**GOLD).predict_intensity([0.2, 1.0], GOLD_EVENTS)
    assert found.isna().all(axis=1).tolist() == [True, False]
    found = hawkes_with(**GOLD).predict_intensity([-1.0, 0.2], GOLD_EVENTS, **START)
    assert found.isna().all(axis=1).tolist() == [True, False]


def test_a_poisson_process_forgets_how_long_it_waited():
    events = pd.DataFrame({"time": [1.0, 2.0], "type": ["0", "0"]})
    model = poisson(0.5)
    assert model.predict(events)["time"][0] == pytest.approx(4.0)
    assert model.predict(events, now=7.0)["time"][0] == pytest.approx(9.0)
    # the end of a known window is now, where nothing else is said
    assert model.predict(events, windows=(0, 5))["time"][0] == pytest.approx(7.0)
    later = model.predict(events, now={"sequence": 7.0}, levels=(0.5,))
    assert later["q0.5"][0] == later["time_median"][0] == pytest.approx(7 + np.log(2) / 0.5)


def test_counts_of_a_poisson_process_are_poisson():
    events = pd.DataFrame({"time": [1.0, 2.0], "type": ["0", "0"]})
    found = poisson(0.5, random_state=3).predict_count(4.0, events, n_paths=2000, levels=[0.1, 0.9])
    assert found["type"].tolist() == ["0", "all"]
    assert found["mean"].tolist() == pytest.approx([2.0, 2.0], abs=0.1)
    assert found["none"].tolist() == pytest.approx([np.exp(-2)] * 2, abs=0.03)
    expected = stats.poisson.ppf([0.1, 0.9], 2.0)
    assert found[["q0.1", "q0.9"]].to_numpy()[1].tolist() == expected.tolist()
    between = poisson(0.5, random_state=3).predict_count((4, 6), events, n_paths=2000)
    assert between["mean"][1] == pytest.approx(1.0, abs=0.05)


def test_counts_of_hawkes_have_the_mean_that_its_equation_gives():
    """Univariate: dm/dt = mu + (alpha - 1) beta m + ..., solved for the start with excitation 0."""
    mu, alpha, beta, horizon = 0.4, 0.6, 1.2, 5.0
    model = hawkes_with([mu], [[alpha]], [beta], random_state=0)
    slow = beta * (1 - alpha)
    expected = (
        mu * horizon / (1 - alpha) - mu * alpha / (1 - alpha) * (1 - np.exp(-slow * horizon)) / slow
    )
    simulated = model.simulate(1000, duration=horizon)
    counts = np.array([len(own) for own in simulated.times])
    assert counts.mean() == pytest.approx(expected, abs=4 * counts.std() / np.sqrt(1000))


# ---------------------------------------------------------------- several steps


def test_steps_of_a_poisson_process_are_erlang():
    events = pd.DataFrame({"time": [1.0, 2.0], "type": ["0", "0"]})
    found = poisson(0.5, random_state=0).predict(events, n_steps=4, n_paths=4000, levels=[0.9])
    assert found["step"].tolist() == [1, 2, 3, 4]
    expected = stats.gamma(np.arange(1, 5), loc=2.0, scale=2.0)
    assert found["time"].to_numpy() == pytest.approx(expected.mean(), rel=0.03)
    assert found["time_median"].to_numpy() == pytest.approx(expected.median(), rel=0.03)
    assert found["q0.9"].to_numpy() == pytest.approx(expected.ppf(0.9), rel=0.03)


@pytest.mark.parametrize("encoder", ["attention", "aaren", "llm", "llm-full"])
def test_each_history_is_read_once_for_all_its_futures(encoder, monkeypatch):
    """What running states draw is what encoding every path anew draws."""
    events = make_hawkes(**GOLD, t_end=15, n_sequences=3, random_state=0).events
    model = small_prompttpp(encoder, max_epochs=1).fit(events)
    running = model.sample(5, n_events=3)
    monkeypatch.setattr(PromptTPP, "_start_paths", EventForecaster._start_paths)
    anew = model.sample(5, n_events=3)
    np.testing.assert_allclose(running["time"], anew["time"], rtol=1e-4)
    assert running["type"].tolist() == anew["type"].tolist()


def test_the_first_step_is_the_same_alone_and_with_others():
    model = hawkes_with(**GOLD, random_state=0)
    one = model.predict(GOLD_EVENTS, **START)
    many = model.predict(GOLD_EVENTS, n_steps=2, **START)
    pd.testing.assert_frame_equal(one, many.iloc[:1])


def test_reencoded_and_running_paths_draw_the_same_futures():
    """Hawkes steps its state; the general way encodes every path anew."""

    class Plain(HawkesForecaster):
        _start_paths = NaiveEventForecaster._start_paths

    events = make_hawkes(**GOLD, t_end=20, n_sequences=3, random_state=0).events
    quick = HawkesForecaster(max_steps=3, random_state=1)
    with pytest.warns(UserWarning, match="short of the maximum"):
        quick.fit(events)
    with pytest.warns(UserWarning):
        plain = Plain(max_steps=3, random_state=1).fit(events)
    first = quick.sample(4, n_events=6)
    second = plain.sample(4, n_events=6)
    np.testing.assert_allclose(first["time"], second["time"], rtol=1e-9)
    assert first["type"].tolist() == second["type"].tolist()


# ---------------------------------------------------------------- batches, seeds, names


def test_a_sequence_has_the_same_predictions_alone_and_among_others():
    events = make_hawkes(**GOLD, t_end=15, n_sequences=5, random_state=2).events
    model = hawkes_with(**GOLD, random_state=7)
    together = model.predict(events, n_steps=3, n_paths=40)
    for name in events.ids:
        alone = model.predict(events.select([name]), n_steps=3, n_paths=40)
        own = together[together["sequence_id"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, own, rtol=1e-12)
    turned = events.select(events.ids[::-1])
    futures = model.sample(3, horizon=5.0, history=events)
    others = model.sample(3, horizon=5.0, history=turned)
    keys = ["sequence_id", "path", "time"]
    pd.testing.assert_frame_equal(
        futures.sort_values(keys, ignore_index=True), others.sort_values(keys, ignore_index=True)
    )


def test_one_random_state_gives_one_result_and_another_another():
    model = hawkes_with(**GOLD, random_state=0)
    first = model.sample(3, horizon=5.0)
    pd.testing.assert_frame_equal(first, model.sample(3, horizon=5.0))
    assert not first.equals(model.set_params(random_state=1).sample(3, horizon=5.0))
    assert first["path"].isin([0, 1, 2]).all()


def test_samples_stay_within_the_horizon_and_after_now():
    model = hawkes_with(**GOLD, random_state=0)
    found = model.sample(50, horizon=3.0, history=GOLD_EVENTS, now=4.5, **START)
    assert found["time"].between(4.5, 7.5, inclusive="right").all()
    assert found.groupby("path")["time"].is_monotonic_increasing.all()
    assert found["path"].nunique() > 40
    exact = model.sample(2, n_events=5, history=GOLD_EVENTS, **START)
    assert exact.groupby("path").size().tolist() == [5, 5]


def test_timestamps_come_back_as_timestamps_in_the_users_columns():
    zone = "Europe/Berlin"
    stamps = pd.to_datetime(["2024-03-30 12:00", "2024-03-31 00:00"]).tz_localize(zone)
    events = pd.DataFrame({"who": ["x", "x"], "when": stamps, "what": ["a", "b"]})
    names = {"id_col": "who", "time_col": "when", "type_col": "what"}
    model = NaiveEventForecaster(**names, time_unit="h", random_state=0).fit(events)
    found = model.predict(levels=(0.5,))
    assert list(found.columns) == [
        "who",
        "step",
        "when",
        "when_median",
        "q0.5",
        "what",
        "probability",
        "no_event",
    ]
    assert found["when"][0] == pd.Timestamp("2024-03-31 13:00", tz=zone)  # summer time began
    assert model.time_scale_ == 12
    later = model.predict(now=pd.Timestamp("2024-03-31 06:00", tz=zone))
    assert later["when"][0] == pd.Timestamp("2024-03-31 18:00", tz=zone)
    counts = model.predict_count("5D", n_paths=2000)
    assert counts["mean"].iloc[-1] == pytest.approx(10, rel=0.05)
    futures = model.sample(1, horizon=pd.Timedelta("2D"))
    assert futures["when"].dt.tz is not None
    rates = model.predict_intensity(pd.Timestamp("2024-04-01", tz=zone))
    assert rates.to_numpy().sum() == pytest.approx(1 / 12)
    simulated = model.simulate(2, duration="3D")
    assert simulated.clock.is_stamps and len(simulated) == 2


def test_predictions_follow_the_unit_of_time():
    slow = GOLD_EVENTS.assign(time=60 * GOLD_EVENTS["time"])
    found = hawkes_with(**GOLD).predict(GOLD_EVENTS, **START)
    model = hawkes_with(np.array(GOLD["mu"]) / 60, GOLD["alpha"], np.array(GOLD["beta"]) / 60)
    scaled = model.predict(slow, **START)
    for column in ("time", "time_median", "q0.1", "q0.9"):
        assert scaled[column][0] == pytest.approx(60 * found[column][0], rel=1e-7)


def test_what_may_never_come_is_told():
    model = hawkes_with([0.0, 0.0], GOLD["alpha"], GOLD["beta"], random_state=0)
    left = float(
        (np.array(GOLD["alpha"])[:, 0]).sum()
    )  # one event of type 0, long ago nothing else
    events = pd.DataFrame({"time": [1.0], "type": ["0"]})
    found = model.predict(events, n_steps=3, **START)
    assert found["no_event"][0] == pytest.approx(np.exp(-left), rel=1e-6)
    assert np.isfinite(found["time"][0]) and np.isfinite(found["time_median"][0])
    never = model.predict_quantiles(events, levels=(1 - np.exp(-left) - 0.01, 0.99), **START)
    assert np.isinf(never.to_numpy()).tolist() == [[False, True]]
    assert found["no_event"].is_monotonic_increasing
    counts = model.predict_count(1e6, events, **START, n_paths=1000)
    assert counts["none"].iloc[-1] == pytest.approx(np.exp(-left), abs=0.05)


# ---------------------------------------------------------------- history and update


def test_update_continues_the_history_like_one_table():
    events = make_hawkes(**GOLD, t_end=40, n_sequences=2, random_state=5).events
    early, late = events.split((0.6, 0.4))
    model = hawkes_with(**GOLD, events=early.to_frame(), random_state=0)
    model.history_ = early
    model.update(late)
    assert model.history_ == events
    pd.testing.assert_frame_equal(model.predict(n_steps=2), model.predict(events, n_steps=2))
    with pytest.raises(DataError, match="already holds the time until"):
        model.update(late)
    strange = pd.DataFrame({"sequence_id": ["0"], "time": [99.0], "type": ["z"]})
    before = model.history_
    with pytest.raises(DataError, match="'z' was not seen"):
        model.update(strange)
    assert model.history_ is before


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.predict(n_steps=0), "n_steps must be a whole number"),
        (lambda m: m.predict(n_paths=0), "n_paths must be a whole number"),
        (lambda m: m.predict(levels=[0.5, 1.0]), "levels must lie strictly between 0 and 1"),
        (lambda m: m.predict_quantiles(now=1e300), "beyond all that a model can tell"),
        (lambda m: m.predict(now=0.5), "now=0.5 lies before the last event of sequence 'sequence'"),
        (lambda m: m.predict(windows=(0, 9)), "windows belongs to a history"),
        (lambda m: m.sample(1), "say how far to sample"),
        (lambda m: m.sample(0, n_events=1), "n_paths must be a whole number"),
        (lambda m: m.sample(1, horizon=-1.0), "horizon must be a positive length of time"),
        (lambda m: m.predict_count((0.5, 9.0)), "must start no earlier than now"),
        (lambda m: m.predict_count((5.0, 9.0, 10.0)), "a duration or a pair"),
        (lambda m: m.predict_intensity([1.0, np.nan]), "missing or infinite"),
        (lambda m: m.simulate(2, duration="1D"), "duration must be a positive length of time"),
    ],
)
def test_what_cannot_be_predicted_is_refused_by_name(call, message):
    model = hawkes_with(**GOLD, random_state=0)
    with pytest.raises(DataError, match=message):
        call(model)


def test_a_sequence_of_which_nothing_is_known_is_refused_by_name():
    table = read_events(GOLD_EVENTS, windows={"sequence": (0, 5), "quiet": (0, 5)})
    model = hawkes_with(**GOLD)
    assert len(model.predict(table)) == 2
    blank = replace(table, starts=np.array([0.0, np.nan]))
    with pytest.raises(DataError, match="'quiet' has no events and no known start"):
        model.predict(blank)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.sample(1, horizon=20.0),
        lambda model: model.predict_count(1e6),
        lambda model: model.simulate(2, duration=1e9),
    ],
)
def test_an_explosion_is_told(call):
    model = hawkes_with([1.0], [[3.0]], [5.0], random_state=0)
    with pytest.raises(DataError, match=r"the model explodes|would have about .* events"):
        call(model)
    assert len(model.sample(1, horizon=20.0, n_events=600)) == 600


def test_a_time_with_too_many_events_is_told_after_the_first():
    model = hawkes_with([1.0], [[0.5]], [5.0], random_state=0)
    with pytest.raises(DataError, match=r"would have about .* at most 100,000"):
        model.sample(1, horizon=1e9)
    with pytest.raises(DataError, match="100,000 futures of 1,000 events are too many"):
        model.sample(100_000, n_events=1000)
    expected = 1e6 * 10 / model.time_scale_
    with pytest.raises(DataError, match=re.escape(f"would have about {expected:.3g} events, and")):
        model.simulate(10**6, duration=10.0)
    assert len(model.simulate(2, duration=10.0)) == 2


@pytest.mark.filterwarnings("ignore:the fitted Hawkes process is not stationary")
@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.sample(n_paths=5, horizon=1e6),
        lambda model: model.predict_count(1e6, n_paths=5),
        lambda model: model.simulate(1, duration=1e6 * model.time_scale_),
    ],
)
def test_futures_of_an_explosive_process_are_refused_before_they_are_drawn(call, monkeypatch):
    model = HawkesForecaster(max_steps=5, random_state=0).fit(
        pd.DataFrame({"time": np.arange(20.0), "type": "a"})
    )
    model.alpha_, model.beta_ = np.array([[1.5]]), np.array([1.0])
    monkeypatch.setattr("tsllm.events.simulating.draw_futures", lambda *_, **__: pytest.fail())
    with pytest.raises(DataError, match=r"at most 100,000: .*at most [\d.]+ from now on") as caught:
        call(model)
    reach = float(re.search(r"at most ([\d.]+) from", str(caught.value)).group(1))
    assert 5 < reach < 50
