from tsllm.adapters.aaren.model import AarenModel as AarenModel
from tsllm.adapters.autotimes import AutoTimesModel as AutoTimesModel
from tsllm.adapters.baselines import DLinearModel as DLinearModel
from tsllm.adapters.baselines import PatchTSTModel as PatchTSTModel
from tsllm.adapters.events.batch import EventBatch as EventBatch
from tsllm.adapters.events.batch import EventStates as EventStates
from tsllm.adapters.events.batch import pad_sequences as pad_sequences
from tsllm.adapters.events.decoders.attnhp import AttNHPDecoder as AttNHPDecoder
from tsllm.adapters.events.decoders.attnhp import AttNHPEncoder as AttNHPEncoder
from tsllm.adapters.events.decoders.base import EventDecoder as EventDecoder
from tsllm.adapters.events.decoders.base import log_likelihood as log_likelihood
from tsllm.adapters.events.decoders.closed_form import ExponentialDecoder as ExponentialDecoder
from tsllm.adapters.events.decoders.closed_form import (
    LogNormalMixtureDecoder as LogNormalMixtureDecoder,
)
from tsllm.adapters.events.decoders.closed_form import RMTPPDecoder as RMTPPDecoder
from tsllm.adapters.events.encoders.aaren import AarenEncoder as AarenEncoder
from tsllm.adapters.events.encoders.attention import AttentionEncoder as AttentionEncoder
from tsllm.adapters.events.encoders.llm import LLMEncoder as LLMEncoder
from tsllm.adapters.events.features import EventEmbedding as EventEmbedding
from tsllm.adapters.events.hawkes import HawkesProcess as HawkesProcess
from tsllm.adapters.events.next_event import next_event as next_event
from tsllm.adapters.events.next_event import sample_next as sample_next
from tsllm.adapters.events.prompt_pool import PromptPool as PromptPool
from tsllm.adapters.events.prompttpp import PromptTPPModel as PromptTPPModel
from tsllm.adapters.linear import LinearModel as LinearModel
from tsllm.adapters.s2ip.model import S2IPModel as S2IPModel
from tsllm.adapters.timecma import TimeCMAModel as TimeCMAModel
from tsllm.adapters.zero_shot import ZeroShotModel as ZeroShotModel
