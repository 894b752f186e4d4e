"""Backtests, and ablations on them: every method on the same windows, which none has seen."""

from tsllm.evaluation.ablation import ABLATION_BASELINES, ablate
from tsllm.evaluation.ablation_report import AblationReport
from tsllm.evaluation.methods import BASELINES, DEFAULT_BASELINES
from tsllm.evaluation.paired import PairedDifference
from tsllm.evaluation.protocol import backtest
from tsllm.evaluation.report import BacktestReport
from tsllm.evaluation.scoring import METRICS
from tsllm.evaluation.variants import VARIANTS

__all__ = [
    "ABLATION_BASELINES",
    "BASELINES",
    "DEFAULT_BASELINES",
    "METRICS",
    "VARIANTS",
    "AblationReport",
    "BacktestReport",
    "PairedDifference",
    "ablate",
    "backtest",
]
