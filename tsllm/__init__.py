"""Forecasters of time series and event streams, made out of frozen language models.

The names below are imported when they are first used, so that ``import tsllm`` is quick and lean
machines can use the torch parts without sktime.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, load_backbone
    from tsllm.batch import predict_batch
    from tsllm.context import Context
    from tsllm.evaluation import ablate, backtest
    from tsllm.events import HawkesForecaster, NaiveEventForecaster, PromptTPP
    from tsllm.forecasters.aaren import AarenForecaster
    from tsllm.forecasters.autotimes import AutoTimesForecaster
    from tsllm.forecasters.baselines import DLinearForecaster, PatchTSTForecaster
    from tsllm.forecasters.embedder import LastTokenEmbedder
    from tsllm.forecasters.s2ip import S2IPForecaster
    from tsllm.forecasters.timecma import TimeCMAForecaster
    from tsllm.saving.api import load, save
    from tsllm.tables.forecast import forecast

__version__ = "0.1.0"

_HOMES = {
    "AarenForecaster": "tsllm.forecasters.aaren",
    "AutoTimesForecaster": "tsllm.forecasters.autotimes",
    "Backbone": "tsllm.backbone",
    "Context": "tsllm.context",
    "DLinearForecaster": "tsllm.forecasters.baselines",
    "HawkesForecaster": "tsllm.events",
    "LastTokenEmbedder": "tsllm.forecasters.embedder",
    "NaiveEventForecaster": "tsllm.events",
    "PatchTSTForecaster": "tsllm.forecasters.baselines",
    "PromptTPP": "tsllm.events",
    "S2IPForecaster": "tsllm.forecasters.s2ip",
    "TimeCMAForecaster": "tsllm.forecasters.timecma",
    "ablate": "tsllm.evaluation",
    "backtest": "tsllm.evaluation",
    "forecast": "tsllm.tables.forecast",
    "load": "tsllm.saving.api",
    "load_backbone": "tsllm.backbone",
    "predict_batch": "tsllm.batch",
    "save": "tsllm.saving.api",
}
__all__ = [
    "AarenForecaster",
    "AutoTimesForecaster",
    "Backbone",
    "Context",
    "DLinearForecaster",
    "HawkesForecaster",
    "LastTokenEmbedder",
    "NaiveEventForecaster",
    "PatchTSTForecaster",
    "PromptTPP",
    "S2IPForecaster",
    "TimeCMAForecaster",
    "ablate",
    "backtest",
    "forecast",
    "load",
    "load_backbone",
    "predict_batch",
    "save",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tsllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
