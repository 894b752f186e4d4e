"""The sktime forecasters: one base class and one file per method."""

from tsllm.forecasters.autotimes import AutoTimesForecaster
from tsllm.forecasters.s2ip import S2IPForecaster
from tsllm.forecasters.timecma import TimeCMAForecaster

#: The methods by the short names that the command line and `tsllm.forecast` use.
METHODS = {
    "autotimes": AutoTimesForecaster,
    "timecma": TimeCMAForecaster,
    "s2ip": S2IPForecaster,
}

__all__ = ["METHODS", "AutoTimesForecaster", "S2IPForecaster", "TimeCMAForecaster"]
