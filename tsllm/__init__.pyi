from tsllm import adapters as adapters
from tsllm import datasets as datasets
from tsllm import embeddings as embeddings
from tsllm import errors as errors
from tsllm import evaluation as evaluation
from tsllm import events as events
from tsllm import forecasters as forecasters
from tsllm.backbone import Backbone as Backbone
from tsllm.backbone import load_backbone as load_backbone
from tsllm.batch import predict_batch as predict_batch
from tsllm.context import Context as Context
from tsllm.evaluation import ablate as ablate
from tsllm.evaluation import backtest as backtest
from tsllm.events import HawkesForecaster as HawkesForecaster
from tsllm.events import NaiveEventForecaster as NaiveEventForecaster
from tsllm.events import PromptTPP as PromptTPP
from tsllm.forecasters.aaren import AarenForecaster as AarenForecaster
from tsllm.forecasters.autotimes import AutoTimesForecaster as AutoTimesForecaster
from tsllm.forecasters.baselines import DLinearForecaster as DLinearForecaster
from tsllm.forecasters.baselines import PatchTSTForecaster as PatchTSTForecaster
from tsllm.forecasters.embedder import LastTokenEmbedder as LastTokenEmbedder
from tsllm.forecasters.s2ip import S2IPForecaster as S2IPForecaster
from tsllm.forecasters.timecma import TimeCMAForecaster as TimeCMAForecaster
from tsllm.saving.api import load as load
from tsllm.saving.api import save as save
from tsllm.tables.forecast import forecast as forecast

__version__: str
