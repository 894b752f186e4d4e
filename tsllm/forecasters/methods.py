"""The forecasters by their short names, for the command line and tables."""

from tsllm.forecasters.aaren import AarenForecaster
from tsllm.forecasters.auto import AutoForecaster
from tsllm.forecasters.autotimes import AutoTimesForecaster
from tsllm.forecasters.baselines import DLinearForecaster, PatchTSTForecaster
from tsllm.forecasters.linear import LinearForecaster
from tsllm.forecasters.s2ip import S2IPForecaster
from tsllm.forecasters.timecma import TimeCMAForecaster
from tsllm.forecasters.zero_shot import ZeroShotForecaster

#: The methods by the short names that the command line and `tsllm.forecast` use.
METHODS = {
    "auto": AutoForecaster,
    "autotimes": AutoTimesForecaster,
    "timecma": TimeCMAForecaster,
    "s2ip": S2IPForecaster,
    "aaren": AarenForecaster,
    "linear": LinearForecaster,
    "dlinear": DLinearForecaster,
    "patchtst": PatchTSTForecaster,
    "zero_shot": ZeroShotForecaster,
}
