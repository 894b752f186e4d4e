"""The sktime forecasters: one base class and one file per method."""

from tsllm.forecasters.autotimes import AutoTimesForecaster

#: The methods by the short names that the command line and `tsllm.forecast` use.
METHODS = {"autotimes": AutoTimesForecaster}

__all__ = ["METHODS", "AutoTimesForecaster"]
