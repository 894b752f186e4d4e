"""A store of each test's own, and a record of what the backbones compute."""

import pytest

from tsllm.backbone import Backbone
from tsllm.embeddings import EmbeddingStore


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "store")


@pytest.fixture
def computed(monkeypatch):
    """The number of tokens of every row that any backbone runs."""
    rows = []
    original = Backbone.last_states

    def counting(self, tokens):
        rows.extend(tuple(row) for row in tokens)
        return original(self, tokens)

    monkeypatch.setattr(Backbone, "last_states", counting)
    return rows
