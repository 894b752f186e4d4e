"""Event streams: forecasters of when something happens next and what, in scikit-learn's manner."""

from tsllm.events.ablation import ablate
from tsllm.events.ablation_report import EventAblationReport
from tsllm.events.base import EventForecaster
from tsllm.events.continual import evaluate_stream
from tsllm.events.diagnostics import EventDiagnostics
from tsllm.events.evaluation import EventEvaluation
from tsllm.events.hawkes import HawkesForecaster
from tsllm.events.methods import EVENT_METHODS, make_event_forecaster
from tsllm.events.naive import NaiveEventForecaster
from tsllm.events.prompttpp import PromptTPP
from tsllm.events.stream_report import StreamReport

__all__ = [
    "EVENT_METHODS",
    "EventAblationReport",
    "EventDiagnostics",
    "EventEvaluation",
    "EventForecaster",
    "HawkesForecaster",
    "NaiveEventForecaster",
    "PromptTPP",
    "StreamReport",
    "ablate",
    "evaluate_stream",
    "make_event_forecaster",
]
