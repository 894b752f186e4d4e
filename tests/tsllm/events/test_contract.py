"""What every event estimator keeps to, whatever it is made of."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from small_events import TINY, halves, small_estimators, small_prompttpp, stream

from tsllm.datasets import read_events
from tsllm.errors import DataError
from tsllm.events import PromptTPP

NAMES = list(small_estimators())
#: One of each kind, for what takes longer and does not depend on the pair.
KINDS = [
    name for name in NAMES if not name.endswith((" rmtpp", " exponential")) or name == "aaren rmtpp"
]
pytestmark = pytest.mark.filterwarnings("ignore:HawkesForecaster stopped after")


@pytest.fixture(scope="module")
def fitted():
    """Every estimator, fitted on the first half of a stream."""
    past, _ = halves()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # marks do not reach fixtures
        return {name: one.fit(past) for name, one in small_estimators().items()}


def said(model, events=None):
    """Return the predictions of a model for its own histories, or for others."""
    return pd.concat(
        [
            model.predict(events, n_steps=2, n_paths=4),
            model.predict_proba(events).reset_index(drop=True),
        ],
        axis=1,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_only_stores(name):
    estimator = small_estimators()[name]
    parameters = estimator.get_params()
    again = type(estimator)(**parameters)
    assert again.get_params() == parameters
    assert all(getattr(again, key) is value for key, value in parameters.items())
    assert clone(estimator).get_params() == parameters
    assert estimator.set_params(random_state=5).random_state == 5
    assert not [key for key in vars(estimator) if key.endswith("_")]
    with pytest.raises(NotFittedError):
        estimator.predict()
    with pytest.raises(NotFittedError):
        estimator.update(stream())


@pytest.mark.parametrize("name", NAMES)
def test_one_random_state_gives_one_result_bit_for_bit(fitted, name):
    model = fitted[name]
    again = clone(model).fit(halves()[0])
    pd.testing.assert_frame_equal(said(again), said(model), check_exact=True)
    assert again.score(halves()[1]) == model.score(halves()[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_is_as_a_batch_of_many(fitted, name):
    model, events = fitted[name], halves()[1]
    together = model.score_samples(events, by="event")["log_likelihood"]
    alone = pd.concat(
        [model.score_samples(events.select([one]), by="event") for one in events.ids]
    )["log_likelihood"]
    np.testing.assert_allclose(alone, together, atol=2e-5)
    predicted = model.predict(events).select_dtypes("number")
    single = pd.concat([model.predict(events.select([one])) for one in events.ids])
    np.testing.assert_allclose(single.select_dtypes("number"), predicted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_copies_and_pickles_say_the_same_without_the_backbone(fitted, name):
    model = fitted[name]
    pickled = pickle.dumps(model)
    assert len(pickled) < 150_000
    for other in (pickle.loads(pickled), copy.deepcopy(model)):
        pd.testing.assert_frame_equal(said(other), said(model), check_exact=True)
    twin = copy.deepcopy(model)
    twin.update(halves()[1])  # and live a life of their own
    pd.testing.assert_frame_equal(said(model), said(fitted[name]), check_exact=True)


@pytest.mark.parametrize("name", KINDS)
def test_updates_event_by_event_end_where_the_whole_history_does(fitted, name):
    model = copy.deepcopy(fitted[name])
    past, later = halves()
    frame = later.to_frame()[["sequence_id", "time", "type"]].sort_values("time").head(6)
    before = model.score(later)
    for row in range(len(frame)):
        model.update(frame.iloc[row : row + 1])
    whole = past.extend(read_events(frame))
    assert model.history_ == whole
    assert model.score(later) == before  # nothing is learnt
    expected, got = model.predict(whole), model.predict()
    numbers = list(got.select_dtypes("number"))
    np.testing.assert_allclose(got[numbers], expected[numbers], rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(got.drop(columns=numbers), expected.drop(columns=numbers))


@pytest.mark.parametrize("name", ["attention lognormal_mixture", "aaren rmtpp", "llm-full rmtpp"])
def test_threads_predict_what_one_predicts(fitted, name):
    model, events = fitted[name], halves()[1]
    expected = said(model, events)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(said, model, events) for _ in range(6)]
        for result in results:
            pd.testing.assert_frame_equal(result.result(), expected, check_exact=True)


@pytest.mark.parametrize("name", KINDS)
def test_fit_forgets_what_was_learnt_before(fitted, name):
    model = copy.deepcopy(fitted[name]).fit(halves()[1])
    fresh = clone(model).fit(halves()[1])
    pd.testing.assert_frame_equal(said(model), said(fresh), check_exact=True)


# ---------------------------------------------------------------------- what cannot go together

REFUSED = [
    ({"encoder": "llm-full", "decoder": "attnhp"}, "encoder='llm-full' cannot"),
    ({"encoder": "aaren", "decoder": "attnhp"}, "encoder='aaren' cannot"),
    (
        {"encoder": "llm", "text_encoder": "aaren", "decoder": "attnhp"},
        "text_encoder='aaren' cannot",
    ),
    ({"lora": {"r": 2}}, "lora tunes a language model that reads the events"),
    ({"encoder": "llm", "lora": {"r": 2}}, "use encoder='llm-full'"),
    ({"backbone": TINY}, "backbone is for the encoders that read the types' texts"),
    ({"type_text": "a {name}"}, "type_text is for the encoders that read the types' texts"),
    ({"encoder": "transformer"}, "encoder must be one of attention, aaren, llm, llm-full"),
    ({"decoder": "nhp"}, "decoder must be one of lognormal_mixture"),
    ({"prompt_mode": "pool"}, "prompt_mode must be one of allocate, shared, none"),
    ({"base_update": "frozen"}, "base_update must be one of auto, freeze, slow, full"),
    ({"max_epochs": 0}, "max_epochs must be a whole number"),
    ({"warmup_slices": 0}, "warmup_slices must be a whole number"),
    ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ({"prompt_learning_rate": -1.0}, "prompt_learning_rate must be above 0"),
    ({"validation_fraction": 1.0}, "validation_fraction must be at least 0 and less than 1"),
    ({"slots_per_slice": 9, "max_slots": 4}, "slots_per_slice=9 are more than max_slots=4"),
    ({"hidden": 9}, "hidden=9 must be a multiple of heads=2"),
    ({"head_rank": 2, "decoder": "attnhp"}, "head_rank=2"),
    (
        {"encoder": "llm-full", "backbone": TINY, "context_length": 100},
        "context_length=100 events are more than the 61",
    ),
]


@pytest.mark.parametrize(("parameters", "message"), REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(parameters, message):
    base = dict(small_prompttpp().get_params())
    with pytest.raises(DataError, match=message) as caught:
        PromptTPP(**{**base, **parameters}).fit(stream())
    assert "\n" not in str(caught.value)
