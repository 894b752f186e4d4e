"""The contract tests run on every method."""

import functools

import pytest

from small_forecasters import SMALL, small


@pytest.fixture(params=sorted(SMALL))
def make(request):
    """Make small forecasters of one method, each method in its turn."""
    return functools.partial(small, request.param)


@pytest.fixture(params=sorted(SMALL.keys() - {"auto"}))
def make_trained(request):
    """Make small forecasters of each method that trains one model of its own."""
    return functools.partial(small, request.param)
