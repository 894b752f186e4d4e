"""Every argument of every forecaster takes any value: it works, or one sentence names it."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest

from small_forecasters import SMALL, season
from tsllm import DLinearForecaster, PatchTSTForecaster
from tsllm.errors import TsllmError
from tsllm.forecasters import METHODS

BUDGET = {"max_steps": 1, "max_epochs": 1, "batch_size": 16, "context_length": 12}
CLASSES = {
    **{cls: SMALL[method] | BUDGET for method, cls in METHODS.items()},
    DLinearForecaster: BUDGET,
    PatchTSTForecaster: BUDGET | {"hidden": 4, "layers": 1, "heads": 1, "feedforward": 4},
}
STRANGE = [
    *(None, "x", "", -1, 0, 1.5, np.nan, np.inf, 10**30, 10**400, True),
    *([], (), {}, [None], ["a"], {"a": 1}, object(), np.zeros(2), pd.Series([1.0]), {1, 2}, b"x"),
]
Y = pd.Series(season(30), index=pd.RangeIndex(30))
CASES = [(cls, name) for cls in CLASSES for name in inspect.signature(cls).parameters]


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_any_value_of_an_argument_works_or_is_named(cls, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a text may be a folder
    for value in STRANGE:
        forecaster = cls(**(CLASSES[cls] | {name: value}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                forecaster.fit(Y, fh=[1, 2]).predict_quantiles(fh=[1, 2], alpha=[0.1, 0.9])
            except TsllmError as error:
                message = str(error)
                assert name in message, (value, message)
                assert "\n" not in message
                assert len(message) < 500
