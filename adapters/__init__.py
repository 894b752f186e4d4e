"""The torch modules of the methods: tensors in, tensors out.

The names below are imported on first use: importing one model imports no other.
"""

if __name__ == "adapters":
    raise ImportError(
        "this folder is tsllm's own 'adapters' package and is imported as 'tsllm.adapters'; "
        "install tsllm and keep the repository root off sys.path (PYTHONSAFEPATH=1)"
    )

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsllm.adapters.aaren.model import AarenModel
    from tsllm.adapters.autotimes import AutoTimesModel
    from tsllm.adapters.baselines import DLinearModel, PatchTSTModel
    from tsllm.adapters.events.batch import EventBatch, EventStates, pad_sequences
    from tsllm.adapters.events.decoders.attnhp import AttNHPDecoder, AttNHPEncoder
    from tsllm.adapters.events.decoders.base import EventDecoder, log_likelihood
    from tsllm.adapters.events.decoders.closed_form import (
        ExponentialDecoder,
        LogNormalMixtureDecoder,
        RMTPPDecoder,
    )
    from tsllm.adapters.events.encoders.aaren import AarenEncoder
    from tsllm.adapters.events.encoders.attention import AttentionEncoder
    from tsllm.adapters.events.encoders.llm import LLMEncoder
    from tsllm.adapters.events.features import EventEmbedding
    from tsllm.adapters.events.hawkes import HawkesProcess
    from tsllm.adapters.events.next_event import next_event, sample_next
    from tsllm.adapters.events.prompt_pool import PromptPool
    from tsllm.adapters.events.prompttpp import PromptTPPModel
    from tsllm.adapters.s2ip.model import S2IPModel
    from tsllm.adapters.timecma import TimeCMAModel

#: The module of each public name.
_HOMES = {
    "AarenEncoder": "events.encoders.aaren",
    "AarenModel": "aaren.model",
    "AttNHPDecoder": "events.decoders.attnhp",
    "AttNHPEncoder": "events.decoders.attnhp",
    "AttentionEncoder": "events.encoders.attention",
    "AutoTimesModel": "autotimes",
    "DLinearModel": "baselines",
    "EventBatch": "events.batch",
    "EventDecoder": "events.decoders.base",
    "EventEmbedding": "events.features",
    "EventStates": "events.batch",
    "ExponentialDecoder": "events.decoders.closed_form",
    "HawkesProcess": "events.hawkes",
    "LLMEncoder": "events.encoders.llm",
    "LogNormalMixtureDecoder": "events.decoders.closed_form",
    "PatchTSTModel": "baselines",
    "PromptPool": "events.prompt_pool",
    "PromptTPPModel": "events.prompttpp",
    "RMTPPDecoder": "events.decoders.closed_form",
    "S2IPModel": "s2ip.model",
    "TimeCMAModel": "timecma",
    "log_likelihood": "events.decoders.base",
    "next_event": "events.next_event",
    "pad_sequences": "events.batch",
    "sample_next": "events.next_event",
}
__all__ = [
    "AarenEncoder",
    "AarenModel",
    "AttNHPDecoder",
    "AttNHPEncoder",
    "AttentionEncoder",
    "AutoTimesModel",
    "DLinearModel",
    "EventBatch",
    "EventDecoder",
    "EventEmbedding",
    "EventStates",
    "ExponentialDecoder",
    "HawkesProcess",
    "LLMEncoder",
    "LogNormalMixtureDecoder",
    "PatchTSTModel",
    "PromptPool",
    "PromptTPPModel",
    "RMTPPDecoder",
    "S2IPModel",
    "TimeCMAModel",
    "log_likelihood",
    "next_event",
    "pad_sequences",
    "sample_next",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(f"tsllm.adapters.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tsllm.adapters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
