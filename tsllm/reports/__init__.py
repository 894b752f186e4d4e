"""One page of HTML for a result: forecasts, backtests, ablations and event streams."""

from tsllm.pages.page import Page
from tsllm.reports.ablation import report_ablation
from tsllm.reports.backtest import report_backtest
from tsllm.reports.events import report_evaluation, report_predictions, report_stream
from tsllm.reports.forecast import report_forecast

__all__ = [
    "Page",
    "report_ablation",
    "report_backtest",
    "report_evaluation",
    "report_forecast",
    "report_predictions",
    "report_stream",
]
