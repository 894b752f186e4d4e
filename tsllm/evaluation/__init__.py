"""Backtests: every method on the same windows of a test part that none of them has seen."""

from tsllm.evaluation.methods import BASELINES, DEFAULT_BASELINES
from tsllm.evaluation.paired import PairedDifference
from tsllm.evaluation.protocol import backtest
from tsllm.evaluation.report import BacktestReport
from tsllm.evaluation.scoring import METRICS

__all__ = [
    "BASELINES",
    "DEFAULT_BASELINES",
    "METRICS",
    "BacktestReport",
    "PairedDifference",
    "backtest",
]
