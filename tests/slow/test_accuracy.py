"""Accuracy that must not get lost; the figures themselves come from benchmarks/."""

import os
from pathlib import Path

import pytest

from tsllm import AutoTimesForecaster, backtest
from tsllm.datasets import load_benchmark, long_to_panel

DATA = Path(os.environ.get("TSLLM_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "ETTh1.csv").exists(), reason="shared/data absent"),
]


def test_autotimes_on_etth1_stays_where_it_was_measured():
    """400 steps, one seed, every sixth window: .37 with the language model, .38 without."""
    benchmark = load_benchmark("ETTh1", folder=DATA, allow_download=False)
    settings = {
        "context_length": 672,
        "token_length": 96,
        "batch_size": 256,
        "max_steps": 400,
        "random_state": 0,
    }
    report = backtest(
        {
            "pretrained": AutoTimesForecaster(backbone_layers=2, **settings),
            "none": AutoTimesForecaster(backbone=None, **settings),
        },
        long_to_panel(benchmark.frame),
        horizons=[96, 336],
        train_size=benchmark.split.train,
        validation_size=benchmark.split.validation,
        test_size=benchmark.split.test,
        stride=6,
        scaled=True,
        quantiles=(),
        baselines=["seasonal_naive"],
    )
    mse = report.table.set_index(["method", "horizon"])["mse"]
    assert mse["pretrained", 96] < 0.375
    assert mse["none", 96] < 0.385
    assert mse["pretrained", 336] < mse["none", 336] < mse["seasonal_naive", 336]
