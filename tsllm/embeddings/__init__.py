"""Text embeddings that are computed once: the store on disk, and how it is filled."""

from tsllm.embeddings.store import EmbeddingStore, Keys, default_path, open_store

__all__ = ["EmbeddingStore", "Keys", "default_path", "open_store"]
