"""The torch modules of the methods: tensors in, tensors out.

The names below are imported on first use: importing one model imports no other. Type checkers read
``__init__.pyi``.
"""

if __name__ == "adapters":
    raise ImportError(
        "this folder is tsllm's own 'adapters' package and is imported as 'tsllm.adapters'; "
        "install tsllm and keep the repository root off sys.path (PYTHONSAFEPATH=1)"
    )

from importlib import import_module

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
    "LinearModel": "linear",
    "LogNormalMixtureDecoder": "events.decoders.closed_form",
    "PatchTSTModel": "baselines",
    "PromptPool": "events.prompt_pool",
    "PromptTPPModel": "events.prompttpp",
    "RMTPPDecoder": "events.decoders.closed_form",
    "S2IPModel": "s2ip.model",
    "TimeCMAModel": "timecma",
    "ZeroShotModel": "zero_shot",
    "log_likelihood": "events.decoders.base",
    "next_event": "events.next_event",
    "pad_sequences": "events.batch",
    "sample_next": "events.next_event",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(f"tsllm.adapters.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tsllm.adapters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
