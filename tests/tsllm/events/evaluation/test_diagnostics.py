"""Residuals and their tests: the truth is accepted, what is wrong is not."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from known_events import GOLD, GOLD_EVENTS, hawkes_with
from scipy import integrate, stats

from tsllm.datasets.events import make_hawkes, make_poisson, make_renewal
from tsllm.events import NaiveEventForecaster
from tsllm.events.evaluation.diagnostics import ALL_TYPES, diagnose

ACCEPTED, REJECTED = 1e-3, 1e-6


@pytest.fixture(scope="module")
def stream():
    return make_hawkes(**GOLD, t_end=2500, random_state=0).events


# ---------------------------------------------------------------- residuals


def test_residuals_are_integrals_of_the_intensity():
    model = hawkes_with(**GOLD)
    times, codes = GOLD_EVENTS["time"].to_numpy(), GOLD_EVENTS["type"].astype(int).to_numpy()

    def rate(t, code):
        past = times < t
        jumps = np.array(GOLD["alpha"])[code, codes[past]] * GOLD["beta"][code]
        decay = np.exp(-GOLD["beta"][code] * (t - times[past]))
        return GOLD["mu"][code] + (jumps * decay).sum()

    def passed(low, high, code):
        points = [t for t in times if low < t < high] or None
        return integrate.quad(rate, low, high, args=(code,), points=points)[0]

    found = model.residuals(GOLD_EVENTS, windows=(0, 5))
    edges = [0.0, *times, 5.0]
    expected = [sum(passed(*pair, k) for k in (0, 1)) for pair in pairwise(edges)]
    np.testing.assert_allclose(found["residual"], expected, rtol=1e-6)
    assert found["observed"].tolist() == [True] * 6 + [False]

    own = model.residuals(GOLD_EVENTS, by_type=True, windows=(0, 5), t_start=1.0)
    for code in (0, 1):
        ends = [*times[(codes == code) & (times > 1.0)], 5.0]
        expected = [passed(*pair, code) for pair in zip([1.0, *ends], ends)]
        rows = own[own["type"] == str(code)]
        np.testing.assert_allclose(rows["residual"], expected, rtol=1e-6)
        assert rows["time"].tolist() == ends
        assert rows["observed"].tolist() == [True] * (len(ends) - 1) + [False]


def test_residuals_of_several_sequences_do_not_mix():
    events = make_hawkes(**GOLD, t_end=12, n_sequences=3, random_state=0).events
    model = hawkes_with(**GOLD)
    together = model.residuals(events, by_type=True)
    parts = [model.residuals(events.select([name]), by_type=True) for name in events.ids]
    pd.testing.assert_frame_equal(together, pd.concat(parts, ignore_index=True))


# ---------------------------------------------------------------- the tests of them


def test_the_true_model_is_accepted(stream):
    found = hawkes_with(**GOLD).diagnostics(stream)
    assert found.table.index.tolist() == [ALL_TYPES, "0", "1"]
    assert (found.table["p_value"] > ACCEPTED).all()
    assert (found.table["lag1_p_value"] > ACCEPTED).all()
    assert found.type_p_value > ACCEPTED
    assert found.calibration_error < 0.03
    assert stats.kstest(found.pit, "uniform").pvalue > ACCEPTED
    assert found.table.loc[ALL_TYPES, "events"] == stream.n_events


def test_a_poisson_process_of_the_right_rate_is_rejected(stream):
    model = NaiveEventForecaster().fit(stream)
    found = model.diagnostics(stream)
    assert found.table.loc[ALL_TYPES, "mean"] == pytest.approx(1, abs=0.01)
    assert found.table.loc[ALL_TYPES, "p_value"] < REJECTED
    assert found.table.loc[ALL_TYPES, "lag1_p_value"] < REJECTED


def test_the_right_times_with_the_wrong_types_are_rejected(stream):
    wrong = dict(GOLD, alpha=[[0.1, 0.3], [0.4, 0.2]], mu=[0.3, 0.5])
    found = hawkes_with(**wrong).diagnostics(stream)
    assert found.type_p_value < REJECTED
    assert found.calibration_error > 0.05


def test_a_renewal_process_is_told_from_the_poisson_process():
    events = make_renewal("lognormal", cv=0.5, t_end=1000, random_state=0).events
    found = NaiveEventForecaster().fit(events).diagnostics(events)
    assert found.table.loc[ALL_TYPES, "p_value"] < REJECTED


def test_dependence_is_seen_where_the_distribution_is_right():
    """Kolmogorov and Smirnov alone miss it."""
    rng = np.random.default_rng(0)
    normal = np.zeros(3000)
    for i in range(1, 3000):
        normal[i] = 0.4 * normal[i - 1] + np.sqrt(1 - 0.16) * rng.normal()
    residuals = stats.expon.ppf(stats.norm.cdf(normal[::1]))[:, None]
    found = diagnose(np.zeros(3000, int), residuals, np.ones((3000, 1)), np.array(["a"]))
    assert found.table.loc[ALL_TYPES, "p_value"] > ACCEPTED
    assert found.table.loc[ALL_TYPES, "lag1_p_value"] < REJECTED


def test_short_windows_do_not_favour_short_gaps():
    """Dropping the time that ends without an event would reject the truth."""
    truth = make_poisson(1.0, t_end=1.5, n_sequences=3000, random_state=0)
    model = hawkes_with([1.0], [[0.0]], [1.0])
    found = model.diagnostics(truth.events)
    assert found.table.loc[ALL_TYPES, "p_value"] > ACCEPTED
    residuals = model.residuals(truth.events)
    complete = residuals.loc[residuals["observed"], "residual"]
    assert stats.kstest(complete, "expon").pvalue < REJECTED


def test_pits_of_simulated_sequences_are_uniform_for_the_model_that_made_them():
    model = hawkes_with(**GOLD, random_state=4)
    events = model.simulate(60, duration=20.0)
    found = model.diagnostics(events)
    assert stats.kstest(found.pit, "uniform").pvalue > ACCEPTED
    assert found.type_p_value > ACCEPTED


def test_certain_types_are_no_division_by_zero():
    codes = np.array([0, 1] * 60)
    sure = np.eye(2)[codes]
    increments = np.random.default_rng(0).exponential(size=(120, 2))
    assert diagnose(codes, increments, sure, ["a", "b"]).type_p_value == pytest.approx(1.0)
    assert diagnose(codes, increments, sure[::-1], ["a", "b"]).type_p_value == 0.0


def test_few_events_have_no_p_value_and_everything_is_json(stream):
    events = pd.DataFrame({"time": [1.0, 2.0, 2.5, 4.0, 5.5], "type": list("aabaa")})
    found = NaiveEventForecaster().fit(events).diagnostics(events)
    assert np.isnan(found.table.loc["b", "p_value"])
    assert json.loads(json.dumps(found.to_dict()))["table"]["b"]["p_value"] is None
    assert "calibration error" in str(found)
