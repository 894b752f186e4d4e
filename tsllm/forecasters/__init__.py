"""The sktime forecasters: one base class and one file per method.

The names below are imported on first use: one forecaster imports no other. Type checkers read
``__init__.pyi``.
"""

from importlib import import_module

#: The module of each public name.
_HOMES = {
    "AarenForecaster": "aaren",
    "AutoForecaster": "auto",
    "AutoTimesForecaster": "autotimes",
    "ColdStart": "cold_start",
    "DLinearForecaster": "baselines",
    "LinearForecaster": "linear",
    "METHODS": "methods",
    "PatchTSTForecaster": "baselines",
    "S2IPForecaster": "s2ip",
    "TextContext": "text_context",
    "TimeCMAForecaster": "timecma",
    "ZeroShotForecaster": "zero_shot",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(f"tsllm.forecasters.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tsllm.forecasters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
