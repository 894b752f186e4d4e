"""Weights in 8 and 4 bits: refused on a CPU, and what stays the same with them."""

import importlib.util

import pytest
import torch

from tsllm.backbone import load_backbone, loading, tuned
from tsllm.backbone.devices import quantisation_of
from tsllm.backbone.export import export_backbone
from tsllm.errors import DataError

SPECS = [f"random:{name}?hidden=64&layers=2&heads=4" for name in ("llama", "gpt2", "bert")]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_cpu_is_refused_by_name(dtype):
    with pytest.raises(DataError, match=f"dtype='{dtype}' needs a CUDA device.*'cpu'"):
        load_backbone(SPECS[0], device="cpu", dtype=dtype)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'tsllm\[quant\]'"):
        quantisation_of("int8", torch.device("cuda", 0))
    assert quantisation_of("bfloat16", torch.device("cpu")) is None


@pytest.fixture
def on_any_device(monkeypatch):
    """Lift the refusal: bitsandbytes has slow kernels for CPUs, which show the same contracts."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (tsllm[quant])")
    # On some CPUs it would pack the weights at the first pass; its packed kernel has no gradients.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    wanted = {"int8", "int4"}
    monkeypatch.setattr(loading, "quantisation_of", lambda d, where: d if d in wanted else None)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("spec", SPECS)
def test_quantised_weights(on_any_device, spec, dtype, tmp_path):
    whole = load_backbone(spec, device="cpu")
    backbone = load_backbone(spec, device="cpu", dtype=dtype)
    assert backbone != whole and backbone == load_backbone(spec, device="cpu", dtype=dtype)
    assert backbone.quantisation == dtype == backbone.to_state()["quantisation"]
    assert backbone.digest != whole.digest
    assert backbone.parameter_count == whole.parameter_count
    inputs = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    expected = whole.hidden(inputs).states
    states = backbone.hidden(inputs).states
    assert 0 < (states - expected).norm() / expected.norm() < 0.05
    # Private shells share the quantised weights, and gradients flow to what they own.
    digest = backbone.digest
    for _ in range(2):
        private = tuned(backbone, train=["layer_norms"], lora={})
        private.hidden(inputs).states.square().sum().backward()
        assert all(owned.grad is not None for owned in private.parameters())
    torch.testing.assert_close(backbone.hidden(inputs).states, states, atol=1e-3, rtol=1e-3)
    assert backbone.digest == digest
    with pytest.raises(DataError, match="rounds its weights on the GPU"):
        export_backbone(backbone, tmp_path / "exported")
