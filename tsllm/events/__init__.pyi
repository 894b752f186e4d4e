from tsllm.events.base import EventForecaster as EventForecaster
from tsllm.events.evaluation.ablation import ablate as ablate
from tsllm.events.evaluation.ablation_report import EventAblationReport as EventAblationReport
from tsllm.events.evaluation.continual import evaluate_stream as evaluate_stream
from tsllm.events.evaluation.diagnostics import EventDiagnostics as EventDiagnostics
from tsllm.events.evaluation.next_event import EventEvaluation as EventEvaluation
from tsllm.events.evaluation.stream_report import StreamReport as StreamReport
from tsllm.events.hawkes import HawkesForecaster as HawkesForecaster
from tsllm.events.methods import EVENT_METHODS as EVENT_METHODS
from tsllm.events.methods import make_event_forecaster as make_event_forecaster
from tsllm.events.naive import NaiveEventForecaster as NaiveEventForecaster
from tsllm.events.prompttpp.estimator import PromptTPP as PromptTPP
from tsllm.events.stream import EventStream as EventStream
from tsllm.events.zero_shot import ZeroShotEventForecaster as ZeroShotEventForecaster

__all__: list[str]
