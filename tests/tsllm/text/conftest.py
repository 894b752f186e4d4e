"""A store of each test's own, and the texts that backbones run."""

import pytest

from tsllm.backbone import Backbone, load_backbone
from tsllm.embeddings import EmbeddingStore


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "store")


@pytest.fixture(scope="session")
def bert():
    return load_backbone("random:bert?hidden=16&layers=1&heads=2&positions=32", device="cpu")


@pytest.fixture
def computed(monkeypatch):
    """The tokens of every sentence that an encoder model runs."""
    rows = []
    original = Backbone.mean_states

    def counting(self, tokens):
        rows.extend(tuple(row) for row in tokens)
        return original(self, tokens)

    monkeypatch.setattr(Backbone, "mean_states", counting)
    return rows
