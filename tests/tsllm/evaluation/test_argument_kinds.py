"""Every argument of a backtest or an ablation takes any value: it works, or is named."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest

from small_forecasters import season, tiny
from tsllm import ablate, backtest
from tsllm.errors import TsllmError

Y = pd.Series(season(30), index=pd.RangeIndex(30), name="y")
FAST = {"horizons": [1, 2], "baselines": ["seasonal_naive"], "test_size": 4}
STRANGE = [
    *(None, "x", "", -1, 0, 1.5, np.nan, np.inf, 10**30, 10**400, True),
    *([], (), {}, [None], ["a"], [-1], [10**30], [0.5, 0.1], {"a": 1}, object(), np.zeros(2)),
    *(pd.Series([1.0]), {1, 2}, b"x", [1, 1], [[1]]),
]
CASES = [
    (function, name)
    for function in (backtest, ablate)
    for name in inspect.signature(function).parameters
]


@pytest.mark.parametrize(("function", "name"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_any_value_of_an_argument_works_or_is_named(function, name):
    first = "estimators" if function is backtest else "estimator"
    # An ablation trains: every value that is refused is refused before that.
    method = {} if function is backtest else tiny(backbone=None)
    for value in STRANGE:
        given = {first: method, "y": Y, **FAST, name: value}
        if name == "test_fraction":
            del given["test_size"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                function(**given)
            except TsllmError as error:
                message = str(error)
                about = {"metrics": "metric", "y": ""}.get(name, name)
                refused = function is ablate and "backbone=None" in message
                assert about in message or refused, (value, message)
                assert "\n" not in message
                assert len(message) < 500
