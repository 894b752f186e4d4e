"""Models and batches that do not fit end in a sentence, before the memory is taken."""

import numpy as np
import pandas as pd
import pytest
import torch

import tsllm
from tsllm import AarenForecaster, DLinearForecaster
from tsllm.backbone.devices import memory_errors_explained
from tsllm.errors import DataError, DeviceMemoryError
from tsllm.training.memory import memory_estimated, memory_of

CPU = torch.device("cpu")
Y = pd.Series(np.sin(np.arange(30.0)), index=pd.RangeIndex(30))


def test_a_model_beyond_the_memory_is_refused_before_it_is_built():
    words = r"a model with n=1 takes more than .* GiB, and cpu"
    with pytest.raises(DeviceMemoryError, match=words), memory_estimated(CPU, "n=1"):
        torch.nn.Linear(2**20, 2**20)


def test_copies_count_and_small_models_draw_the_same_weights():
    weights = memory_of(CPU) // 4 // 2  # half of the memory, and twice that while it is trained
    with memory_estimated(CPU, "n=1", copies=1):
        torch.empty(weights, dtype=torch.float32)
    with pytest.raises(DeviceMemoryError), memory_estimated(CPU, "n=1"):
        torch.empty(weights, dtype=torch.float32)
    torch.manual_seed(0)
    expected = torch.nn.Linear(3, 3).weight
    torch.manual_seed(0)
    with memory_estimated(CPU, "n=1"):
        assert torch.equal(torch.nn.Linear(3, 3).weight, expected)


def test_a_saved_model_needs_memory_for_its_weights_only(tmp_path, monkeypatch):
    model = DLinearForecaster(context_length=12, max_steps=1).fit(Y, fh=[1, 2])
    tsllm.save(model, tmp_path / "model")
    weights = sum(one.numel() * one.element_size() for one in model.fitted_.model.parameters())
    monkeypatch.setattr("tsllm.training.memory.memory_of", lambda device: 3 * weights)
    loaded = tsllm.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    with pytest.raises(DeviceMemoryError, match="context_length=12 and prediction_length=2"):
        loaded.fit(Y, fh=[1, 2])


def test_the_error_of_the_cpus_allocator_is_explained():
    words = "cpu ran out of memory in training with batch_size=8"
    with (
        pytest.raises(DeviceMemoryError, match=words),
        memory_errors_explained(CPU, "training", 8),
    ):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="another"), memory_errors_explained(CPU, "training", 8):
        raise RuntimeError("another error")


@pytest.mark.parametrize(
    ("forecaster", "error", "words"),
    [
        (DLinearForecaster(context_length=10**12), DataError, "context_length must be at most"),
        (
            DLinearForecaster(context_length=100_000, prediction_length=100_000),
            DeviceMemoryError,
            "context_length=100000 and prediction_length=100000",
        ),
        (AarenForecaster(hidden=10**6), DataError, "hidden must be at most 65,536"),
        (AarenForecaster(hidden=65_536, feedforward=65_536), DeviceMemoryError, "smaller lengths"),
    ],
)
def test_sizes_without_bound_are_refused(forecaster, error, words):
    with pytest.raises(error, match=words):
        forecaster.fit(Y)


@pytest.mark.parametrize("horizon", [10**6, 10**30])
def test_horizons_without_bound_are_refused(horizon):
    forecaster = DLinearForecaster(max_steps=1).fit(Y)
    with pytest.raises(DataError, match="a forecast has at most 100,000 steps"):
        forecaster.forecast([], horizon)


def test_levels_without_bound_are_refused():
    levels = np.linspace(0.1, 0.9, 1001)
    with pytest.raises(DataError, match="quantiles holds 1,001 levels: ask for at most 1,000"):
        DLinearForecaster(max_steps=1).fit(Y).forecast([], 1, quantiles=levels)
    with pytest.raises(DataError, match="quantiles holds 1,001 levels"):
        DLinearForecaster(loss="quantile", quantiles=levels.tolist()).fit(Y)
