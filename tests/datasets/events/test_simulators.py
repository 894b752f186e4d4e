import itertools

import numpy as np
import pandas as pd
import pytest
from exact_hawkes import hawkes_compensators, stationary_rates
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tsllm.datasets import (
    EventTable,
    make_drift,
    make_hawkes,
    make_poisson,
    make_renewal,
    make_self_correcting,
    make_text_events,
    read_events,
)
from tsllm.datasets.events.hawkes import check_hawkes
from tsllm.errors import DataError

GOLD = {"mu": [0.5, 0.3], "alpha": [[0.3, 0.1], [0.2, 0.4]], "beta": [2.0, 1.5]}
GOLD_TIMES = [0.3, 0.7, 1.2, 2.5, 2.6, 4.0]
GOLD_TYPES = ["0", "1", "0", "1", "1", "0"]


def events_of(times, types, start, end) -> EventTable:
    frame = pd.DataFrame({"time": times, "type": types})
    return read_events(frame, windows=(start, end))


def by_quadrature(intensity, times, types, start, end) -> float:
    """Compute a log-likelihood from intensities (types,) at a time, given the events before it."""
    logs, integral = 0.0, 0.0
    for number, (low, high) in enumerate(zip([start, *times], [*times, end], strict=True)):
        past = np.array(times[:number]), np.array(types[:number], dtype=int)
        integral += integrate.quad(
            lambda time, past=past: intensity(time, *past).sum(), low, high, epsabs=1e-12
        )[0]
        if number < len(times):
            logs += np.log(intensity(high, *past)[types[number]])
    return logs - integral


# Log-likelihoods


def test_hawkes_gold_values():
    two = make_hawkes(**GOLD, t_end=1)
    value = two.log_likelihood(events_of(GOLD_TIMES, GOLD_TYPES, 0, 5))
    assert value == pytest.approx([-10.431166433487], abs=5e-13)
    one = make_hawkes(0.4, 0.6, 1.2, t_end=1)
    value = one.log_likelihood(events_of([0.5, 1, 1.1, 3, 7], "0", 0, 10))
    assert value == pytest.approx([-9.252111223861], abs=5e-13)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.sampled_from([0.0, -3.5]), scale=st.floats(0.1, 0.9))
def test_hawkes_log_likelihood_by_quadrature(seed, start, scale):
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(size=(3, 3))
    alpha *= scale / np.abs(np.linalg.eigvals(alpha)).max()
    mu, beta = rng.uniform(0.1, 1, 3), rng.uniform(0.2, 4, 3)
    simulation = make_hawkes(mu, alpha, beta, t_start=start, t_end=start + 4, random_state=seed)
    times, types = simulation.events.times[0].tolist(), simulation.events.types[0].astype(int)

    def intensity(time, past, kinds):
        kernels = beta[:, None] * np.exp(-beta[:, None] * (time - past))  # (types, events)
        return mu + (alpha[:, kinds] * kernels).sum(1)

    expected = by_quadrature(intensity, times, types.tolist(), start, start + 4)
    assert simulation.log_likelihood(simulation.events) == pytest.approx([expected], abs=1e-7)


def test_poisson_log_likelihood():
    constant = make_poisson([0.5, 2.0], t_end=30, random_state=1)
    counts = constant.events.type_counts()
    expected = counts["0"] * np.log(0.5) + counts["1"] * np.log(2) - 2.5 * 30
    assert constant.log_likelihood(constant.events) == pytest.approx([expected], abs=1e-10)
    rising = make_poisson(lambda t: [t, 1.0], bound=11, t_end=10, random_state=1)
    times, types = rising.events.times[0], rising.events.types[0]
    expected = np.log(times[types == "0"]).sum() - 50 - 10
    assert rising.log_likelihood(rising.events) == pytest.approx([expected], abs=1e-8)


def test_self_correcting_log_likelihood_by_quadrature():
    simulation = make_self_correcting(0.7, 0.4, t_start=2, t_end=9, random_state=3)
    times = simulation.events.times[0].tolist()

    def intensity(time, past, kinds):
        return np.array([np.exp(0.7 * (time - 2) - 0.4 * len(past))])

    expected = by_quadrature(intensity, times, [0] * len(times), 2, 9)
    assert simulation.log_likelihood(simulation.events) == pytest.approx([expected], abs=1e-9)


def test_renewal_log_likelihood():
    chances = [0.25, 0.75]
    exponential = make_renewal("gamma", mean=0.5, cv=1, probabilities=chances, random_state=2)
    poisson = make_poisson([0.5, 1.5])
    assert exponential.log_likelihood(exponential.events) == pytest.approx(
        poisson.log_likelihood(exponential.events), abs=1e-9
    )
    lognormal = make_renewal("lognormal", mean=2, cv=0.5, t_end=5)
    mu, sigma = lognormal.parameters["mu"], lognormal.parameters["sigma"]
    gaps = np.array([1.5, 2.25])
    expected = (stats.norm(mu, sigma).logpdf(np.log(gaps)) - np.log(gaps)).sum()
    expected += stats.norm(mu, sigma).logsf(np.log(0.5))
    given_ = events_of([1.5, 3.75], "0", 0, 4.25)
    assert lognormal.log_likelihood(given_) == pytest.approx([expected], abs=1e-12)


@pytest.mark.parametrize(
    "simulation",
    [
        make_hawkes(**GOLD, t_end=3, n_sequences=1000, random_state=5),
        make_poisson([0.3, 0.9], t_end=3, n_sequences=1000, random_state=5),
        make_poisson(lambda t: [0.3, t / 3], bound=1.3, t_end=3, n_sequences=1000, random_state=5),
        make_renewal("gamma", mean=0.8, cv=0.8, probabilities=[0.3, 0.7], t_end=3,
                     n_sequences=1000, random_state=5),
        make_renewal("lognormal", mean=0.8, cv=0.8, probabilities=[0.3, 0.7], t_end=3,
                     n_sequences=1000, random_state=5),
    ],
    ids=["hawkes", "poisson", "rising", "gamma", "lognormal"],
)  # fmt: skip
def test_what_is_simulated_has_the_likelihood_that_is_computed(simulation):
    """The mean of another process's likelihood over the true one's is exactly 1."""
    other = make_poisson([0.4, 0.7])
    ratios = np.exp(
        other.log_likelihood(simulation.events) - simulation.log_likelihood(simulation.events)
    )
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(ratios))
    assert ratios.std() > 0.1  # they do differ


def test_likelihoods_need_windows_and_known_types():
    simulation = make_hawkes(**GOLD, t_end=5)
    with pytest.raises(DataError, match="sequence 'sequence' has no known window"):
        simulation.log_likelihood(read_events(pd.DataFrame({"time": [1.0], "type": "0"})))
    with pytest.raises(DataError, match=r"'sequence', event 1 \(2.0\) has the type 'z'"):
        simulation.log_likelihood(events_of([1.0, 2.0], ["0", "z"], 0, 3))
    empty = simulation.events.select([])
    assert simulation.log_likelihood(empty).shape == (0,)


# What they draw


def test_stationary_rates_of_hawkes():
    simulation = make_hawkes(**GOLD, t_end=10_000, random_state=0)
    rates = stationary_rates(check_hawkes(**GOLD))
    assert rates == pytest.approx([0.825, 0.775], abs=1e-12)
    counts = simulation.events.type_counts()
    # the standard error of a rate is near sqrt(var / T) with var about rate / (1 - branching)^2
    assert [counts["0"] / 1e4, counts["1"] / 1e4] == pytest.approx(rates, abs=0.05)


def test_count_variance_of_hawkes():
    simulation = make_hawkes(0.4, 0.6, 1.2, t_end=200, n_sequences=150, random_state=1)
    counts = np.array([len(times) for times in simulation.events.times])
    # mu / (1 - n)^3 = 6.25 in the long run; the empty start takes a little off at T = 200
    assert counts.var() / 200 == pytest.approx(5.99, abs=3 * 5.99 * np.sqrt(2 / 150))
    assert counts.mean() / 200 == pytest.approx(1.0, abs=0.06)


def test_time_rescaling_accepts_the_truth_and_rejects_another_process():
    simulation = make_hawkes(**GOLD, t_end=4000, random_state=0)
    times, types = simulation.events.times[0], simulation.events.types[0].astype(int)
    truth = hawkes_compensators(times, types, check_hawkes(**GOLD), 0.0)
    for kind in (0, 1):
        cumulative = truth[:, kind].cumsum()[types == kind]
        assert stats.kstest(np.diff(cumulative, prepend=0), "expon").pvalue > 1e-3
    ground = truth.sum(1)
    assert stats.kstest(ground, "expon").pvalue > 1e-3
    assert abs(np.corrcoef(ground[:-1], ground[1:])[0, 1]) < 4 / np.sqrt(len(ground))
    poisson = np.diff(times, prepend=0) * len(times) / 4000
    assert stats.kstest(poisson, "expon").pvalue < 1e-6


def test_compensators_add_up_to_the_integral():
    simulation = make_hawkes(**GOLD, t_end=50, random_state=0)
    times, types = simulation.events.times[0], simulation.events.types[0].astype(int)
    parameters = check_hawkes(**GOLD)
    mu, alpha, beta = parameters
    end = times[-1]
    kernels = 1 - np.exp(-beta[:, None] * (end - times))
    expected = mu * end + (alpha[:, types] * kernels).sum(1)
    assert hawkes_compensators(times, types, parameters, 0).sum(0) == pytest.approx(expected)


def test_self_correcting_rate_and_regularity():
    simulation = make_self_correcting(t_end=20_000, random_state=0)
    gaps = np.diff(simulation.events.times[0])
    assert len(gaps) / 20_000 == pytest.approx(1.0, abs=0.005)  # mu / alpha
    assert gaps.std() / gaps.mean() == pytest.approx(0.716, abs=0.015)
    times = np.concatenate([[0], simulation.events.times[0]])
    levels = times[:-1] - np.arange(len(times) - 1)
    integrals = np.exp(levels) * np.expm1(np.diff(times))
    assert stats.kstest(integrals, "expon").pvalue > 1e-3


@pytest.mark.parametrize(("distribution", "cv"), [("lognormal", 1.5), ("gamma", 0.4)])
def test_renewal_gaps(distribution, cv):
    simulation = make_renewal(
        distribution, mean=2, cv=cv, probabilities=[0.2, 0.8], t_end=20_000, random_state=0
    )
    gaps = np.diff(simulation.events.times[0])
    own = simulation.parameters
    law = (
        stats.lognorm(s=own["sigma"], scale=np.exp(own["mu"]))
        if distribution == "lognormal"
        else stats.gamma(own["shape"], scale=own["scale"])
    )
    assert law.mean() == pytest.approx(2) and law.std() / law.mean() == pytest.approx(cv)
    assert stats.kstest(gaps, law.cdf).pvalue > 1e-3
    share = simulation.events.type_counts()["1"] / simulation.events.n_events
    assert share == pytest.approx(0.8, abs=0.02)


def test_a_rate_that_changes():
    simulation = make_poisson(lambda t: 2 * t, bound=20, t_end=10, n_sequences=50, random_state=0)
    pooled = np.concatenate(simulation.events.times)
    assert stats.kstest(pooled, lambda t: (t / 10) ** 2).pvalue > 1e-3
    assert len(pooled) == pytest.approx(5000, abs=4 * np.sqrt(5000))


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: make_hawkes(**GOLD, **kw),
        lambda **kw: make_poisson([1.0, 0.5], **kw),
        lambda **kw: make_poisson(lambda t: 1 + np.sin(t), bound=2, **kw),
        lambda **kw: make_self_correcting(**kw),
        lambda **kw: make_renewal(**kw),
    ],
    ids=["hawkes", "poisson", "sine", "self-correcting", "renewal"],
)
def test_seeds_and_windows(make):
    few = make(t_start=-5, t_end=5, n_sequences=2, random_state=7).events
    many = make(t_start=-5, t_end=5, n_sequences=5, random_state=7).events
    assert many.select(["0", "1"]) == few
    assert make(t_start=-5, t_end=5, n_sequences=2, random_state=8).events != few
    assert many.starts.tolist() == [-5] * 5 and many.ends.tolist() == [5] * 5
    assert not any(np.array_equal(many.times[0], other) for other in many.times[1:])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: make_hawkes([1, 1], [[0.5, 0.5], [0.6, 0.6]], 1), "spectral radius 1.1"),
        (lambda: make_hawkes(1, 1, 1), "spectral radius 1, so that events trigger ever more"),
        (lambda: make_hawkes([1, 1], 0.5, 1), "mu has 2 types, alpha the shape (1, 1)"),
        (lambda: make_hawkes(-1, 0.5, 1), "mu=[-1.0] must be finite and not negative"),
        (lambda: make_hawkes(1, np.nan, 1), "alpha=[[nan]] must be finite"),
        (lambda: make_hawkes(0, 0.5, 1), "some rate mu and every decay beta must be positive"),
        (lambda: make_hawkes(1, 0.5, 1, type_names=["a", "b"]), "must be 1 different names"),
        (lambda: make_hawkes(1, 0.5, 1, t_end=0), "t_end=0 must lie after t_start=0.0"),
        (lambda: make_hawkes(1, 0.5, 1, n_sequences=0), "n_sequences=0 must be at least 1"),
        (lambda: make_poisson(lambda t: 1.0), "needs bound=, which it never exceeds"),
        (lambda: make_poisson(lambda t: 1 + t, bound=2), "above bound=2; raise the bound"),
        (lambda: make_poisson(-1.0), "it must not be negative"),
        (lambda: make_poisson(0.0), "the highest rate is 0.0; it must be positive"),
        (lambda: make_self_correcting(0), "mu=0 and alpha=1.0 must be positive"),
        (lambda: make_renewal("weibull"), "distribution='weibull' is not known"),
        (lambda: make_renewal(cv=0), "mean=1.0 and cv=0 must be positive"),
        (lambda: make_renewal(probabilities=[0.5, 0.6]), "must not be negative and add up to 1"),
        (lambda: make_drift("jump"), "kind='jump' is not known; pass one of permute, rate"),
        (lambda: make_drift(branching=1.0), "branching=1.0 must lie between 0 and 1"),
        (lambda: make_drift(n_slices=0), "n_slices=0 must be at least 1"),
        (lambda: make_text_events(words_per_theme=9), "there are 8 a theme"),
        (lambda: make_text_events(unseen_per_theme=8), "at least one must be seen"),
        (lambda: make_text_events(types="some"), "types='some' is not known"),
        (lambda: make_text_events(branching=1.5), "branching=1.5 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_simulated(call, expected):
    with pytest.raises(DataError) as error:
        call()
    assert expected in str(error.value)


# Streams that drift


def drift(kind, **settings):
    return make_drift(kind, n_sequences=12, random_state=0, **settings)


def test_every_slice_permutes_the_triggers():
    stream = drift("permute")
    assert len(stream) == 5
    assert [slice_.parameters["beta"][0] for slice_ in stream] == [1, 3, 8, 1, 3]
    permutations = [slice_.parameters["permutation"].tolist() for slice_ in stream]
    assert all(a != b for a, b in itertools.pairwise(permutations))
    for number, slice_ in enumerate(stream):
        events, permutation = slice_.events, slice_.parameters["permutation"]
        assert events.ids[0] == f"{number}-0"
        assert np.allclose(events.starts, 42 * number)
        assert np.allclose(events.ends, 42 * number + 42)
        alpha = slice_.parameters["alpha"]
        assert np.allclose(alpha.sum(0), 0.7) and (alpha[permutation, np.arange(5)] == 0.7).all()
        assert events.n_events / 12 == pytest.approx(70, rel=0.3)
    own = stream[1].log_likelihood(stream[1].events).sum()
    assert own > stream[0].log_likelihood(stream[1].events).sum() + 500


def test_the_kinds_of_drift():
    rates = [slice_.parameters["mu"].sum() for slice_ in drift("rate")]
    assert np.allclose(np.divide(rates[1:], rates[:-1]), 1.5)
    decays = drift("decay")
    assert [slice_.parameters["beta"][0] for slice_ in decays] == [1, 3, 8, 1, 3]
    assert len({tuple(slice_.parameters["permutation"]) for slice_ in decays}) == 1
    growing = [set(slice_.events.type_counts().index) for slice_ in drift("new_types")]
    assert [len(types) for types in growing] == [5, 6, 7, 8, 9]
    assert all(a < b for a, b in itertools.pairwise(growing))
    again = drift("recurring", n_slices=4)
    for one, other in ((0, 2), (1, 3)):
        for name in ("mu", "alpha", "beta", "permutation"):
            assert np.array_equal(again[one].parameters[name], again[other].parameters[name])
        assert len(again[one].events.times[0]) != len(again[other].events.times[0])
    assert again[0].parameters["beta"][0] != again[1].parameters["beta"][0]


def test_slices_depend_on_the_seed():
    arguments = {"n_slices": 2, "n_sequences": 2}
    one, again = (make_drift(random_state=0, **arguments)[1].events for _ in range(2))
    assert one == again
    assert one != make_drift(random_state=1, **arguments)[1].events


# Types that are phrases


def test_phrases_trigger_the_next_theme():
    simulation = make_text_events(random_state=0)
    themes = simulation.parameters["themes"]
    assert len(themes) == 48 and len(set(themes.values())) == 6
    order = list(dict.fromkeys(themes.values()))
    follows = dict(zip(order, [*order[1:], order[0]], strict=True))
    alpha = simulation.parameters["alpha"]
    names = list(themes)
    for triggering in range(48):
        for triggered in range(48):
            expected = follows[themes[names[triggering]]] == themes[names[triggered]]
            assert alpha[triggered, triggering] == pytest.approx(0.1 * expected)
    pairs = [
        (themes[a], themes[b])
        for types in simulation.events.types
        for a, b in itertools.pairwise(types)
    ]
    hits = np.mean([follows[a] == b for a, b in pairs])
    assert hits > 2 / 6  # twice chance, although other events come between


def test_phrases_held_out_of_training():
    arguments = {"words_per_theme": 6, "unseen_per_theme": 2, "random_state": 0}
    seen, everything = make_text_events(**arguments), make_text_events(types="all", **arguments)
    unseen = set(seen.parameters["unseen"])
    assert len(unseen) == 12 and unseen == set(everything.parameters["unseen"])
    assert set(seen.events.type_counts().index) == set(seen.parameters["themes"]) - unseen
    assert unseen < set(everything.events.type_counts().index)
    with pytest.raises(DataError, match="which the simulation does not have"):
        seen.log_likelihood(everything.events)
