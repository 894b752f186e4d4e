"""What all tests share: one thread, no network, a tiny backbone."""

import ipaddress
import os
import socket

# Read once, when huggingface_hub is first imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tempfile

import pytest
import torch

from tsllm.backbone import Backbone, load_backbone

torch.set_num_threads(1)

#: Of tests/support/small_forecasters.py, and of what `get_test_params` returns.
OFTEN_USED = (
    "random:gpt2?hidden=16&layers=1&heads=2&positions=256",
    "random:gpt2?hidden=8&layers=1&heads=2&positions=128",
    "random:gpt2?hidden=8&layers=1&heads=2&positions=512",
)

# The user's own embedding store and unpacked backbones are none of the tests' business; child
# processes inherit these.
_store = tempfile.TemporaryDirectory(prefix="tsllm-test-store-")
os.environ["TSLLM_STORE"] = _store.name
_backbones = tempfile.TemporaryDirectory(prefix="tsllm-test-backbones-")
os.environ["TSLLM_BACKBONES"] = _backbones.name


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail a test that connects beyond this machine, even where the code catches the error."""
    refused = []

    def guard(name):
        connect = getattr(socket.socket, name)

        def guarded(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                refused.append(address)
                raise OSError(f"tests do not reach the network: {address}")
            return connect(self, address)

        return guarded

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guard(name))
    yield
    assert not refused, f"this test tried to reach {refused}"


@pytest.fixture(autouse=True)
def short_trainings(request, monkeypatch):
    """Limit the trainings of AutoForecaster's candidates, where a test does not ask for whole ones.

    Its candidates have no argument for the number of steps.
    """
    if request.node.get_closest_marker("whole_trainings") is None:
        monkeypatch.setattr("tsllm.forecasters.auto.TRAINING_STEPS", 40)
        monkeypatch.setattr("tsllm.forecasters.auto.LANGUAGE_MODEL_STEPS", 4)


@pytest.fixture(scope="session")
def tiny_backbone() -> Backbone:
    """Two layers of a random GPT-2, 32 wide."""
    return load_backbone("random:gpt2?hidden=32&layers=2&heads=2&seed=0", device="cpu")


@pytest.fixture(scope="session", autouse=True)
def kept_backbones():
    """Keep the small backbones of many tests in memory.

    Otherwise a backbone is dropped with its last forecaster, and each fit makes it again.
    """
    return [load_backbone(spec, device="cpu") for spec in OFTEN_USED]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
