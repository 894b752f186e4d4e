"""Values held against type hints."""

from typing import Any, Optional

import numpy as np
import pytest

from tsllm import AutoForecaster, LinearForecaster
from tsllm.arguments import check_arguments, wanted_instead
from tsllm.errors import DataError


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (np.int64(1), int),
        (1, float),
        (0.5, float),
        (np.float32(0.5), float),
        ("auto", int | str),
        (None, int | None),
        (None, Optional[int]),  # noqa: UP045 (the other spelling is what is tested)
        ([0.1, 1], tuple[float, ...]),
        ((1, 2), list[int]),
        ([], list[str]),
        ({"r": 8}, dict[str, Any] | None),
        (object(), Any),
        (np.zeros(2), str | np.ndarray),
    ],
)
def test_values_that_fit(value, hint):
    assert wanted_instead(value, hint) is None


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (True, int, "a whole number"),
        (True, float, "a number"),
        (1.0, int, "a whole number"),
        ("1", int | None, "a whole number or null"),
        (1, bool, "true or false"),
        ("ab", list[str], "a list of text"),
        ([1, "b"], list[int], "a list of whole numbers"),
        (["a"], tuple[float, ...], "a list of numbers"),
        ([1], dict[str, Any], "a mapping"),
        (3, str | np.ndarray, "text or a ndarray"),
    ],
)
def test_values_that_do_not(value, hint, words):
    assert wanted_instead(value, hint) == words


@pytest.mark.parametrize(
    ("cls", "name", "remedy"),
    [
        (AutoForecaster, "text", "did you mean 'text_covariates'"),
        (LinearForecaster, "texts", "did you mean 'text_covariates'"),
        (
            LinearForecaster,
            "backbone",
            "it reads numbers without a language model, so leave it out",
        ),
        (LinearForecaster, "text_backbon", "did you mean 'text_backbone'"),
        (LinearForecaster, "colour", "it has adaptive, "),
    ],
)
def test_an_unknown_argument_has_a_remedy(cls, name, remedy):
    told = f"{cls.__name__} has no parameter {name!r}: {remedy}"
    with pytest.raises(DataError, match=told):
        check_arguments(cls, cls.get_param_names(), {name: None})
    with pytest.raises(TypeError, match=told):  # as Python's own error is
        cls(**{name: None})
