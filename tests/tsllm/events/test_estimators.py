"""Event estimators: scikit-learn's manners, exact scores, what a fit finds, refusals by name."""

import numpy as np
import pandas as pd
import pytest
import torch
from known_events import GOLD, GOLD_EVENTS, GOLD_LOG_LIKELIHOOD, hawkes_with
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from tsllm.datasets.events import make_hawkes, make_poisson, read_events
from tsllm.datasets.events.hawkes import check_hawkes, hawkes_log_likelihood
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events import HawkesForecaster, NaiveEventForecaster

ESTIMATORS = [
    HawkesForecaster(),
    NaiveEventForecaster(),
    NaiveEventForecaster(gap="median", types="markov"),
    NaiveEventForecaster(gap="last"),
    NaiveEventForecaster(gap="ema", types="markov"),
]
SIGNS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
names = [f"{type(one).__name__}-{i}" for i, one in enumerate(ESTIMATORS)]


@pytest.fixture(scope="module")
def stream():
    return make_hawkes(**GOLD, t_end=60, n_sequences=4, random_state=0).events


# ---------------------------------------------------------------- scikit-learn's manners


@pytest.mark.filterwarnings("ignore:the fitted Hawkes process is not stationary")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=names)
class TestManners:
    def test_parameters_are_stored_cloned_and_set(self, estimator):
        params = estimator.get_params()
        twin = clone(estimator)
        assert twin.get_params() == params and twin is not estimator
        assert not [name for name in vars(twin) if name.endswith("_")]
        assert clone(estimator).set_params(ties="batch", random_state=3).ties == "batch"

    def test_nothing_works_before_fit(self, estimator, stream):
        model = clone(estimator)
        for call in (
            lambda: model.predict(),
            lambda: model.score(stream),
            lambda: model.evaluate(stream),
            lambda: model.residuals(stream),
            lambda: model.sample(1, n_events=1),
            lambda: model.update(stream),
            lambda: model.predict_intensity([1.0]),
        ):
            with pytest.raises(NotFittedError):
                call()

    def test_fit_returns_itself_and_forgets_what_was_before(self, estimator, stream):
        model = clone(estimator)
        assert model.fit(stream) is model
        model.stale_ = 1
        short = pd.DataFrame({"time": [1.0, 2.0, 4.0, 5.0], "type": list("xyxx")})
        with pytest.raises(DataError):
            model.fit(short.assign(time=1.0))
        assert model.predict()["type"].isin(["0", "1"]).all()  # what cannot be read changes nothing
        with pytest.raises(NotEnoughDataError):
            model.fit(short.iloc[:1])
        with pytest.raises(NotFittedError):
            model.predict()
        again = model.fit(short)
        assert not hasattr(model, "stale_")
        assert again.classes_.tolist() == ["x", "y"]
        assert again.n_events_ == 4
        assert again.history_.n_events == 4
        fresh = clone(estimator).fit(short)
        assert fresh.score(short) == again.score(short)

    def test_frames_and_tables_are_the_same(self, estimator, stream):
        frame = stream.to_frame()
        first, second = clone(estimator).fit(stream), clone(estimator).fit(frame)
        assert first.score(stream) == second.score(frame)
        pd.testing.assert_frame_equal(first.predict(), second.predict(frame))
        assert first.classes_.tolist() == ["0", "1"]
        assert first.time_scale_ == pytest.approx(first.mean_inter_event_time_)

    def test_a_score_does_not_depend_on_the_order_or_the_company(self, estimator, stream):
        model = clone(estimator).fit(stream)
        model._rows_at_once = 2
        found = model.score_samples(stream)
        turned = model.score_samples(stream.select(stream.ids[::-1]))
        np.testing.assert_allclose(
            found["log_likelihood"], turned["log_likelihood"][::-1], rtol=1e-12
        )
        for name, whole in zip(stream.ids, found["log_likelihood"]):
            alone = model.score_samples(stream.select([name]))
            assert alone["log_likelihood"][0] == pytest.approx(whole, rel=1e-12)
        total = found["log_likelihood"].sum() / found["events"].sum()
        assert model.score(stream) == pytest.approx(total, rel=1e-12)

    def test_scores_follow_the_unit_of_time(self, estimator, stream):
        frame = stream.to_frame()
        slow = frame.copy()
        for column in ("time", "window_start", "window_end"):
            slow[column] = 60 * slow[column]
        first, second = clone(estimator).fit(frame), clone(estimator).fit(slow)
        assert second.score(slow) == pytest.approx(first.score(frame) - np.log(60), abs=1e-6)

    def test_scores_follow_the_names_of_the_types(self, estimator, stream):
        frame = stream.to_frame()
        renamed = frame.assign(type=frame["type"].map({"0": "z", "1": "a"}))
        first, second = clone(estimator).fit(frame), clone(estimator).fit(renamed)
        assert second.score(renamed) == pytest.approx(first.score(frame), abs=1e-6)
        assert second.predict()["type"].map({"z": "0", "a": "1"}).tolist() == (
            first.predict()["type"].tolist()
        )

    def test_scores_over_parts_of_the_time_add_up(self, estimator, stream):
        model = clone(estimator).fit(stream)
        cut = float(np.median(np.concatenate(stream.times)))  # between events or at one
        whole = model.score_samples(stream)["log_likelihood"]
        early = model.score_samples(stream, t_end=cut)["log_likelihood"]
        late = model.score_samples(stream, t_start=cut)["log_likelihood"]
        np.testing.assert_allclose(early + late, whole, rtol=1e-9)

    def test_what_was_learnt_survives_the_global_generators(self, estimator, stream):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        model = clone(estimator).set_params(random_state=1).fit(stream)
        model.sample(2, n_events=2)
        model.evaluate(stream)
        assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- exact likelihoods (fault 12)


def test_the_first_interval_and_the_tail_count():
    """Fault 12 of the released PromptTPP: it leaves both out."""
    model = hawkes_with(**GOLD)
    windows = {"windows": (0.0, 5.0)}
    assert model.score(GOLD_EVENTS, **windows) == pytest.approx(GOLD_LOG_LIKELIHOOD / 6, abs=1e-11)
    inner = model.score_samples(GOLD_EVENTS, by="event", **windows)
    assert inner["log_likelihood"].sum() == pytest.approx(GOLD_LOG_LIKELIHOOD, abs=1e-10)
    assert inner["type"].tolist()[:6] == ["0", "1", "0", "1", "1", "0"]
    assert inner["type"].isna().tolist() == [False] * 6 + [True]
    unknown = model.score_samples(GOLD_EVENTS, by="event")
    assert len(unknown) == 5  # neither edge of the window is known


def test_the_second_gold_value():
    model = hawkes_with([0.4], [[0.6]], [1.2])
    events = pd.DataFrame({"time": [0.5, 1, 1.1, 3, 7], "type": "0"})
    found = model.score_samples(events, windows=(0, 10))
    assert found["log_likelihood"][0] == pytest.approx(-9.252111223861, abs=1e-10)


def test_an_event_of_log_density_0_is_an_event():
    """Fault 12: the released code takes events whose log-likelihood is 0 for padding."""
    model = hawkes_with([1.0], [[0.0]], [1.0])
    events = pd.DataFrame({"time": [1.0, 2.0], "type": "0"})
    found = model.score_samples(events, by="event", windows=(0.0, 2.0))
    assert len(found) == 2
    assert model.score(events, windows=(0, 2)) == pytest.approx(-1.0)  # log 1 - 1 for each


def test_an_impossible_event_is_minus_infinity():
    """Fault 12: log(intensity + eps) makes it merely unlikely."""
    model = hawkes_with([0.5, 0.0], [[0.1, 0.0], [0.0, 0.0]], [1.0, 1.0])
    events = pd.DataFrame({"time": [1.0, 2.0], "type": ["0", "1"]})
    assert model.score(events) == -np.inf


def test_scores_equal_the_simulators_own(stream):
    truth = make_hawkes(**GOLD, t_end=60, n_sequences=4, random_state=0)
    found = hawkes_with(**GOLD).score_samples(stream)
    np.testing.assert_allclose(found["log_likelihood"], truth.log_likelihood(stream), rtol=1e-10)


# ---------------------------------------------------------------- naive guesses


def test_the_naive_gaps_by_hand():
    events = pd.DataFrame({"time": [0.0, 1.0, 3.0, 8.0], "type": list("abab")})
    gaps = [1.0, 2.0, 5.0]

    def means(**params):
        model = NaiveEventForecaster(**params).fit(events)
        table = model.predict_intensity([0.5, 2.0, 5.0, 9.0], by_type=False)
        return (1 / table["intensity"]).tolist()

    mean = np.mean(gaps)
    assert means(gap="mean") == pytest.approx([mean] * 4)
    assert means(gap="median") == pytest.approx([2 / np.log(2)] * 4)
    assert means(gap="last") == pytest.approx([mean, 1.0, 2.0, 5.0])
    first = 0.75 * mean + 0.25
    second = 0.75 * first + 0.5
    assert means(gap="ema", smoothing=0.25) == pytest.approx(
        [mean, first, second, 0.75 * second + 1.25]
    )


def test_the_naive_types_by_hand():
    events = pd.DataFrame({"time": np.arange(6.0), "type": list("aababa")})
    shares = np.array([4.5, 2.5]) / 7
    model = NaiveEventForecaster().fit(events)
    assert model.predict_proba().to_numpy()[0] == pytest.approx(shares)
    markov = NaiveEventForecaster(types="markov").fit(events)
    # followers of a: a, b, b
    assert markov.predict_proba().to_numpy()[0] == pytest.approx(
        np.array([1 + shares[0], 2 + shares[1]]) / 4
    )
    assert markov.predict()["type"][0] == "b"


# ---------------------------------------------------------------- the fit of a Hawkes process


def test_maximum_likelihood_finds_the_truth():
    truth = make_hawkes([0.4], [[0.6]], [1.2], t_end=5000, random_state=3)
    model = HawkesForecaster(standard_errors=True).fit(truth.events)
    assert model.converged_ and model.stationary_
    for found, error, expected in [
        (model.mu_, model.mu_error_, 0.4),
        (model.alpha_, model.alpha_error_, 0.6),
        (model.beta_, model.beta_error_, 1.2),
    ]:
        assert abs(found.item() - expected) < 3 * error.item() < 0.15 * expected + 0.1
    best = truth.log_likelihood(truth.events).sum() / truth.events.n_events
    assert best <= model.score(truth.events) < best + 0.003


def test_the_maximum_is_one():
    """No small step in any parameter is better."""
    events = make_hawkes(**GOLD, t_end=300, random_state=1).events
    model = HawkesForecaster().fit(events)
    best = model.score(events)
    for name in ("mu_", "alpha_", "beta_"):
        values = getattr(model, name)
        for index in np.ndindex(values.shape):
            for factor in (0.99, 1.01):
                changed = values.copy()
                changed[index] *= factor
                setattr(model, name, changed)
                assert model.score(events) <= best + 1e-9
                setattr(model, name, values)


def test_standard_errors_are_those_of_the_numerical_information():
    """Second differences of the simulator's own likelihood, in the parameters themselves."""
    events = make_hawkes([0.5], [[0.5]], [2.0], t_end=400, random_state=0).events
    model = HawkesForecaster(standard_errors=True).fit(events)
    times, types = events.times[0], np.zeros(events.n_events, dtype=int)

    def likelihood(parameters):
        mu, alpha, beta = parameters
        known = check_hawkes([mu], [[alpha]], [beta])
        return hawkes_log_likelihood(times, types, known, 0.0, 400.0)

    best = np.array([model.mu_.item(), model.alpha_.item(), model.beta_.item()])
    steps = np.diag(1e-3 * best)
    information = np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        corners = [likelihood(best + a * steps[i] + b * steps[j]) for a, b in SIGNS]
        information[i, j] = -(corners @ np.array([1, -1, -1, 1])) / (4 * steps[i, i] * steps[j, j])
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    found = [model.mu_error_.item(), model.alpha_error_.item(), model.beta_error_.item()]
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_poisson_events_leave_a_hawkes_process_little_to_find():
    truth = make_poisson(1.5, t_end=2000, random_state=0)
    model = HawkesForecaster().fit(truth.events)
    gain = model.score(truth.events) * truth.events.n_events - truth.log_likelihood(truth.events)
    assert 0 <= gain.item() < 8  # half a chi-squared of two parameters
    rate = model.mu_.item() / (1 - model.alpha_.item())
    assert rate == pytest.approx(truth.events.n_events / 2000, rel=0.01)


def test_an_explosive_fit_is_told():
    times = np.cumsum(1 / np.arange(1, 200.0))  # ever faster
    events = pd.DataFrame({"time": times, "type": "a"})
    with pytest.warns(UserWarning, match="not stationary: the spectral radius of alpha_ is"):
        model = HawkesForecaster().fit(events, windows=(0, times[-1]))
    assert not model.stationary_ and model.branching_radius_ >= 1


def test_a_search_that_is_cut_short_is_told(stream):
    with pytest.warns(UserWarning, match="raise max_steps"):
        model = HawkesForecaster(max_steps=2).fit(stream)
    assert not model.converged_


# ---------------------------------------------------------------- reading, and refusals


def test_validation_events_are_learnt_by_those_who_do_not_stop_early(stream):
    early, late = stream.split((0.7, 0.3))
    for estimator in (HawkesForecaster(), NaiveEventForecaster(types="markov")):
        first = clone(estimator).fit(stream)
        second = clone(estimator).fit(early, validation=late)
        assert second.score(stream) == pytest.approx(first.score(stream), abs=1e-6)
        assert second.history_ == stream


def test_types_that_can_come_are_known_without_having_come(stream):
    model = NaiveEventForecaster().fit(stream, types=["zebra", "0"])
    assert model.classes_.tolist() == ["0", "1", "zebra"]
    assert 0 < model.predict_proba()["zebra"].iloc[0] < 0.01


def test_ties_are_floored_where_the_user_says_so():
    frame = pd.DataFrame({"time": [1.0, 1.0, 3.0, 3.5], "type": list("abab")})
    with pytest.raises(DataError, match="time"):
        NaiveEventForecaster().fit(frame)
    model = NaiveEventForecaster(ties="batch").fit(frame)
    assert model.resolution_ == 0.5
    assert np.isfinite(model.score(frame))
    assert NaiveEventForecaster(ties="batch", resolution=0.1).fit(frame).resolution_ == 0.1
    with pytest.raises(DataError, match=r"sequence 'sequence', event 1.*ties=\"batch\""):
        NaiveEventForecaster().fit(read_events(frame, ties="batch"))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"time": [1.0, np.nan], "type": ["a", "b"]}, "time"),
        ({"time": [2.0, 1.0], "type": ["a", "b"]}, "earlier"),
        ({"time": [1.0, 2.0], "type": ["a", None]}, "type"),
        ({"time": [1.0, 2.0]}, "type"),
    ],
)
def test_bad_events_are_value_errors_that_name_the_column(frame, message):
    with pytest.raises(ValueError, match=message):
        NaiveEventForecaster().fit(pd.DataFrame(frame))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (NaiveEventForecaster(gap="mode"), "gap must be one of mean, median, last, ema"),
        (NaiveEventForecaster(types="x"), "types must be one of majority, markov"),
        (NaiveEventForecaster(smoothing=0), "smoothing must be above 0"),
        (HawkesForecaster(max_steps=0), "max_steps must be a whole number"),
    ],
)
def test_bad_parameters_are_refused_in_fit(estimator, message, stream):
    with pytest.raises(DataError, match=message):
        estimator.fit(stream)


def test_too_little_to_learn_or_to_score_is_told(stream):
    one = pd.DataFrame({"time": [1.0], "type": ["a"]})
    with pytest.raises(NotEnoughDataError, match="learns from the gaps"):
        NaiveEventForecaster().fit(one)
    model = NaiveEventForecaster().fit(stream)
    with pytest.raises(NotEnoughDataError, match="nothing can be scored"):
        model.score(stream, t_start=60.0)
    with pytest.raises(NotEnoughDataError, match="no event is scored"):
        model.score(stream, t_start=59.999, t_end=59.9991)
    with pytest.raises(DataError, match="by must be one of sequence, event"):
        model.score_samples(stream, by="type")
    with pytest.raises(DataError, match="'7' was not seen in training"):
        model.score(pd.DataFrame({"time": [1.0, 2.0], "type": ["0", "7"]}))
