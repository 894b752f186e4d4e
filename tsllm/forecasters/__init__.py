"""The sktime forecasters: one base class and one file per method."""

from tsllm.forecasters.aaren import AarenForecaster
from tsllm.forecasters.autotimes import AutoTimesForecaster

#: The methods by the short names that the command line and `tsllm.forecast` use.
METHODS = {"aaren": AarenForecaster, "autotimes": AutoTimesForecaster}

__all__ = ["METHODS", "AarenForecaster", "AutoTimesForecaster"]
