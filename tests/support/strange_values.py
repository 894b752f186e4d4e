"""Values that no argument expects, and the check that a call works or names its argument."""

import warnings

import numpy as np
import pandas as pd

from tsllm.errors import TsllmError

STRANGE = [
    *(None, "x", "", "2024-01-01", b"x", True, -1, 0, 1.5, np.nan, np.inf, pd.NaT, object()),
    *(10**30, 10**400, 10**5000, np.zeros(2), pd.Series([1.0]), (0, 1), (1, 0), (None, None)),
    *([], (), {}, [None], ["a"], [np.nan], [np.inf], {1, 2}, {"a": 1}, {"0": 1}, {"0": "x"}),
]


def assert_works_or_names(call, value, *names, most=500):
    """Check that ``call(value)`` works, or that one short sentence has one of the names.

    The sentence has fewer than ``most`` characters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(value)
        except TsllmError as error:
            message = str(error)
            assert any(name in message for name in names), (value, message)
            assert "\n" not in message
            assert len(message) < most
