"""Every argument of every forecaster takes any value: it works, or one sentence names it."""

import inspect

import numpy as np
import pandas as pd
import pytest
from strange_values import STRANGE, assert_works_or_names

from small_forecasters import SMALL, season
from tsllm import (
    AutoForecaster,
    Context,
    DLinearForecaster,
    LinearForecaster,
    PatchTSTForecaster,
    TextContext,
)
from tsllm.forecasters import METHODS

BUDGET = {"max_steps": 1, "max_epochs": 1, "batch_size": 16, "context_length": 12}
CLASSES = {
    **{METHODS[method]: SMALL[method] | BUDGET for method in SMALL if method != "auto"},
    TextContext: {"forecaster": "seasonal_naive", "n_origins": 1},
    AutoForecaster: {"candidates": ["seasonal_naive"], "n_origins": 1, "backbone": None},
    DLinearForecaster: BUDGET,
    LinearForecaster: {"batch_size": 16, "context_length": 12},
    PatchTSTForecaster: BUDGET | {"hidden": 4, "layers": 1, "heads": 1, "feedforward": 4},
}
Y = pd.Series(season(30), index=pd.RangeIndex(30))
CASES = [(cls, name) for cls in CLASSES for name in inspect.signature(cls).parameters]


def outcome(call, name, value):
    """Check that a call works or names its argument."""
    names = ("fh", "horizon") if name == "fh" else (name,)
    # a backbone that is nowhere names every place
    assert_works_or_names(call, value, *names, most=600)


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_any_value_of_an_argument_works_or_is_named(cls, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a text may be a folder
    for value in STRANGE:
        forecaster = cls(**(CLASSES[cls] | {name: value}))
        outcome(lambda _: predict_two(forecaster.fit(Y, fh=[1, 2])), name, value)  # noqa: B023


def predict_two(forecaster):
    return forecaster.predict_quantiles(fh=[1, 2], alpha=[0.1, 0.9])


@pytest.fixture(scope="module")
def fitted():
    return DLinearForecaster(**BUDGET).fit(Y, fh=[1, 2])


@pytest.fixture(scope="module")
def with_covariates():
    X = pd.DataFrame({"known": np.arange(30.0) % 7}, index=Y.index)
    return DLinearForecaster(**BUDGET).fit(Y, X=X, fh=[1, 2])


CONTEXTS = [Context(np.arange(20.0))]
CALLS = {
    "contexts": lambda model, value: model.forecast(value, 2),
    "horizon": lambda model, value: model.forecast(CONTEXTS, value),
    "quantiles": lambda model, value: model.forecast(CONTEXTS, 2, quantiles=value),
    "future_x": lambda model, value: model.forecast(CONTEXTS, 2, future_x=value),
    "fh": lambda model, value: model.predict(value),
    "coverage": lambda model, value: model.predict_interval([1, 2], coverage=value),
    "alpha": lambda model, value: model.predict_quantiles([1, 2], alpha=value),
    "update_params": lambda model, value: model.update(Y[:0], update_params=value),
    "ax": lambda model, value: model.plot_history(ax=value),
    "payload horizon": lambda model, value: model.to_payload(value),
    "payload quantiles": lambda model, value: model.to_payload(2, quantiles=value),
    "values": lambda model, value: Context(value),
    "mask": lambda model, value: Context(np.arange(3.0), mask=value),
    "times": lambda model, value: Context(np.arange(3.0), times=value),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_value_of_a_methods_argument_works_or_is_named(fitted, name):
    for value in [*STRANGE, "80", CONTEXTS, [0.1, 2.0]]:
        outcome(lambda given: CALLS[name](fitted, given), name.split()[-1], value)


def test_any_value_of_the_covariates_future_works_or_is_named(with_covariates):
    contexts = [Context(np.arange(20.0), past_x=np.arange(20.0)[:, None] % 7)]
    for value in [*STRANGE, [np.zeros((2, 1))], [np.zeros((3, 1))], [np.zeros((2, 4))]]:
        for given in (value, [value]):
            assert_works_or_names(
                lambda future: with_covariates.forecast(contexts, 2, future_x=future),
                given,
                *("future", "covariate"),
            )
