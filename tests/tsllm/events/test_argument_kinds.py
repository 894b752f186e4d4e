"""Every argument of every event forecaster takes any value: it works, or one sentence names it."""

import inspect

import pandas as pd
import pytest
from small_events import SMALL, stream
from strange_values import STRANGE, assert_works_or_names

from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events import (
    HawkesForecaster,
    NaiveEventForecaster,
    PromptTPP,
    ablate,
    evaluate_stream,
)

EVENTS = stream(t_end=8, n_sequences=2)
STAMPS = EVENTS.to_frame().assign(
    **{
        name: pd.Timestamp("2024-01-01") + pd.to_timedelta(EVENTS.to_frame()[name], unit="h")
        for name in ("time", "window_start", "window_end")
    }
)
CLASSES = {
    HawkesForecaster: {"max_steps": 2},
    NaiveEventForecaster: {},
    PromptTPP: SMALL | {"max_epochs": 1, "max_steps": 1},
}
CASES = [(cls, name) for cls in CLASSES for name in inspect.signature(cls).parameters]


def outcome(call, name, value):
    """Check that a call works or names its argument."""
    assert_works_or_names(call, value, name.removesuffix("s").removeprefix("prompt_"))


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_any_value_of_an_argument_works_or_is_named(cls, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a text may be a folder
    for value in STRANGE:
        model = cls(**(CLASSES[cls] | {name: value}))
        outcome(lambda _: model.fit(EVENTS.to_frame()).predict(), name, value)  # noqa: B023


CALLS = {
    "n_steps": lambda model, value: model.predict(n_steps=value, n_paths=2),
    "levels": lambda model, value: model.predict(levels=value),
    "now": lambda model, value: model.predict(now=value),
    "windows": lambda model, value: model.predict(EVENTS.to_frame(), windows=value),
    "predict n_paths": lambda model, value: model.predict(n_steps=2, n_paths=value),
    "quantiles levels": lambda model, value: model.predict_quantiles(levels=value),
    "times": lambda model, value: model.predict_intensity(value),
    "window": lambda model, value: model.predict_count(value, n_paths=2),
    "count n_paths": lambda model, value: model.predict_count(1.0, n_paths=value),
    "n_paths": lambda model, value: model.sample(value, n_events=1),
    "horizon": lambda model, value: model.sample(1, horizon=value, n_events=3),
    "n_events": lambda model, value: model.sample(1, horizon=1.0, n_events=value),
    "n_sequences": lambda model, value: model.simulate(value, duration=1.0),
    "duration": lambda model, value: model.simulate(1, duration=value),
    "start": lambda model, value: model.simulate(1, duration=1.0, start=value),
    "t_start": lambda model, value: model.score_samples(EVENTS, t_start=value),
    "t_end": lambda model, value: model.score_samples(EVENTS, t_end=value),
    "by": lambda model, value: model.score_samples(EVENTS, by=value),
    "by_type": lambda model, value: model.residuals(EVENTS, by_type=value),
    "intensity by_type": lambda model, value: model.predict_intensity(
        model.history_.clock.to_stamp(9.0), by_type=value
    ),
    "types": lambda model, value: NaiveEventForecaster().fit(EVENTS, types=value),
    "fit windows": lambda model, value: NaiveEventForecaster().fit(
        EVENTS.to_frame().drop(columns=["window_start", "window_end"]), windows=value
    ),
}


@pytest.fixture(scope="module", params=["numbers", "stamps"])
def fitted(request):
    return NaiveEventForecaster().fit(EVENTS if request.param == "numbers" else STAMPS)


@pytest.mark.parametrize("name", CALLS)
def test_any_value_of_a_methods_argument_works_or_is_named(fitted, name):
    for value in STRANGE:
        outcome(lambda given: CALLS[name](fitted, given), name.split()[-1], value)


STREAM = list(EVENTS.split((0.5, 0.5)))
EVALUATIONS = {
    "estimator": lambda value: evaluate_stream(value, STREAM, baselines=[]),
    "slices": lambda value: evaluate_stream(NaiveEventForecaster(), value, baselines=[]),
    "stream baselines": lambda value: evaluate_stream(
        NaiveEventForecaster(), STREAM, baselines=value
    ),
    "fractions": lambda value: evaluate_stream(
        NaiveEventForecaster(), STREAM, baselines=[], fractions=value
    ),
    # An ablation trains: each of these is refused before that, for it names no estimator.
    **{
        name: lambda value, name=name: ablate(NaiveEventForecaster(), STREAM, **{name: value})
        for name in ("variants", "baselines", "seeds", "min_difference", "confidence")
    },
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_any_value_of_an_evaluations_argument_works_or_is_named(name):
    for value in STRANGE:

        def call(given):
            try:
                EVALUATIONS[name](given)
            except NotEnoughDataError:
                pass  # of the slices that a share leaves
            except DataError as error:
                if "estimator must be a PromptTPP" not in str(error):
                    raise

        outcome(call, name.split()[-1], value)
