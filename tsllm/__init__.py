"""Forecasters of time series and event streams, made out of frozen language models.

The names below are imported when they are first used, so that ``import tsllm`` is quick and lean
machines can use the torch parts without sktime. Type checkers read ``__init__.pyi``.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "AarenForecaster": "tsllm.forecasters.aaren",
    "AutoForecaster": "tsllm.forecasters.auto",
    "AutoTimesForecaster": "tsllm.forecasters.autotimes",
    "Backbone": "tsllm.backbone",
    "ColdStart": "tsllm.forecasters.cold_start",
    "Context": "tsllm.context",
    "DLinearForecaster": "tsllm.forecasters.baselines",
    "HawkesForecaster": "tsllm.events",
    "LastTokenEmbedder": "tsllm.forecasters.embedder",
    "LinearForecaster": "tsllm.forecasters.linear",
    "NaiveEventForecaster": "tsllm.events",
    "PatchTSTForecaster": "tsllm.forecasters.baselines",
    "PromptTPP": "tsllm.events",
    "S2IPForecaster": "tsllm.forecasters.s2ip",
    "TextContext": "tsllm.forecasters.text_context",
    "TimeCMAForecaster": "tsllm.forecasters.timecma",
    "ZeroShotEventForecaster": "tsllm.events",
    "ZeroShotForecaster": "tsllm.forecasters.zero_shot",
    "ablate": "tsllm.evaluation",
    "backtest": "tsllm.evaluation",
    "forecast": "tsllm.tables.forecast",
    "load": "tsllm.saving.api",
    "load_backbone": "tsllm.backbone",
    "predict_batch": "tsllm.batch",
    "save": "tsllm.saving.api",
}
# The modules and packages that users work with; `tsllm.mlflow` needs an extra.
_PACKAGES = (
    *("adapters", "backbone", "batch", "datasets", "embeddings", "errors", "evaluation", "events"),
    *("forecasters", "metrics", "mlflow", "plotting", "reports"),
)

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return import_module(f"tsllm.{name}")
    raise AttributeError(f"module 'tsllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_HOMES, *_PACKAGES, "__version__"]
