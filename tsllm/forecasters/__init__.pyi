from tsllm.forecasters.aaren import AarenForecaster as AarenForecaster
from tsllm.forecasters.auto import AutoForecaster as AutoForecaster
from tsllm.forecasters.autotimes import AutoTimesForecaster as AutoTimesForecaster
from tsllm.forecasters.baselines import DLinearForecaster as DLinearForecaster
from tsllm.forecasters.baselines import PatchTSTForecaster as PatchTSTForecaster
from tsllm.forecasters.cold_start import ColdStart as ColdStart
from tsllm.forecasters.linear import LinearForecaster as LinearForecaster
from tsllm.forecasters.methods import METHODS as METHODS
from tsllm.forecasters.s2ip import S2IPForecaster as S2IPForecaster
from tsllm.forecasters.text_context import TextContext as TextContext
from tsllm.forecasters.timecma import TimeCMAForecaster as TimeCMAForecaster
from tsllm.forecasters.zero_shot import ZeroShotForecaster as ZeroShotForecaster

__all__: list[str]
