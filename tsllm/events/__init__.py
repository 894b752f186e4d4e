"""Event streams: forecasters of the time and the type of the next events."""

from tsllm.events.base import EventForecaster
from tsllm.events.evaluation.ablation import ablate
from tsllm.events.evaluation.ablation_report import EventAblationReport
from tsllm.events.evaluation.continual import evaluate_stream
from tsllm.events.evaluation.diagnostics import EventDiagnostics
from tsllm.events.evaluation.next_event import EventEvaluation
from tsllm.events.evaluation.stream_report import StreamReport
from tsllm.events.hawkes import HawkesForecaster
from tsllm.events.methods import EVENT_METHODS, make_event_forecaster
from tsllm.events.naive import NaiveEventForecaster
from tsllm.events.prompttpp.estimator import PromptTPP
from tsllm.events.stream import EventStream
from tsllm.events.zero_shot import ZeroShotEventForecaster

__all__ = [
    "EVENT_METHODS",
    "EventAblationReport",
    "EventDiagnostics",
    "EventEvaluation",
    "EventForecaster",
    "EventStream",
    "HawkesForecaster",
    "NaiveEventForecaster",
    "PromptTPP",
    "StreamReport",
    "ZeroShotEventForecaster",
    "ablate",
    "evaluate_stream",
    "make_event_forecaster",
]
