"""The constructor arguments that forecasters share, documented once and only where used."""

import inspect
import re

import pytest

from tsllm import DLinearForecaster, LastTokenEmbedder, PatchTSTForecaster
from tsllm.forecasters import METHODS

FORECASTERS = list(METHODS.values())


@pytest.mark.parametrize("cls", [*FORECASTERS, LastTokenEmbedder])
def test_help_lists_the_arguments_in_the_order_of_the_signature(cls):
    section = cls.__doc__.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    documented = [
        name
        for line in re.findall(r"^(\S.*?) : ", section, re.MULTILINE)
        for name in line.split(", ")
    ]
    assert documented == list(inspect.signature(cls).parameters)


@pytest.mark.parametrize("cls", FORECASTERS)
def test_every_argument_becomes_an_attribute(cls):
    given = {name: object() for name in inspect.signature(cls).parameters}
    forecaster = cls(**given)
    assert forecaster.get_params(deep=False) == given
    assert vars(forecaster).keys() >= given.keys()


@pytest.mark.parametrize("cls", [DLinearForecaster, PatchTSTForecaster])
@pytest.mark.parametrize("member", ["backbone", "backbone_layers", "lora", "dtype", "embed"])
def test_baselines_have_no_member_of_a_language_model(cls, member):
    assert not hasattr(cls(), member)


def test_a_subclass_may_have_an_argument_of_its_own():
    class Smoothed(DLinearForecaster):
        """A forecaster of a user.

        Parameters
        ----------
        width : int, default=3
            Its own argument.
        """

        def __init__(self, width=3, *, kernel_size=25, verbose=0):
            self.width = width
            super().__init__(kernel_size=kernel_size, verbose=verbose)

    assert Smoothed(5, verbose=1).get_params() == {"width": 5, "kernel_size": 25, "verbose": 1}
    assert "verbose : int, default=0" in Smoothed.__doc__
