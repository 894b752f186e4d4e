"""Event streams: forecasters of the time and the type of the next events.

The names below are imported on first use: one forecaster imports no other. Type checkers read
``__init__.pyi``.
"""

from importlib import import_module

#: The module of each public name.
_HOMES = {
    "EVENT_METHODS": "methods",
    "EventAblationReport": "evaluation.ablation_report",
    "EventDiagnostics": "evaluation.diagnostics",
    "EventEvaluation": "evaluation.next_event",
    "EventForecaster": "base",
    "EventStream": "stream",
    "HawkesForecaster": "hawkes",
    "NaiveEventForecaster": "naive",
    "PromptTPP": "prompttpp.estimator",
    "StreamReport": "evaluation.stream_report",
    "ZeroShotEventForecaster": "zero_shot",
    "ablate": "evaluation.ablation",
    "evaluate_stream": "evaluation.continual",
    "make_event_forecaster": "methods",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(f"tsllm.events.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tsllm.events' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
