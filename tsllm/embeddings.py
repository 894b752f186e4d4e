"""Text embeddings that are computed once: the store in memory."""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tsllm.backbone import Backbone

# Batches handed to the backbone at once: enough to sort texts by length, and what is computed is
# kept even where a later text fails.
_BATCHES_A_CALL = 32


class MemoryStore:
    """Last-token embeddings by backbone and text, kept for the life of the process.

    Safe to use from several threads. Copying gives the store itself and pickling an empty one, so
    an estimator that holds a store stays cheap to clone and to save.

    Examples
    --------
    >>> from tsllm.backbone import load_backbone
    >>> store = MemoryStore()
    >>> backbone = load_backbone("random:gpt2", device="cpu")
    >>> store.encode(["up", "down", "up"], backbone).shape
    torch.Size([3, 64])
    >>> store.stats()["hits"], store.stats()["misses"]
    (1, 2)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # (digest, dtype, mode) -> text -> (hidden,)
        self._spaces: dict[tuple[str, torch.dtype, str], dict[str, Tensor]] = {}
        self._hits = 0
        self._misses = 0

    def encode(
        self,
        texts: Sequence[str],
        backbone: Backbone,
        *,
        batch_size: int = 64,
        progress: bool = False,
    ) -> Tensor:
        """Embed texts, computing only what the store does not hold yet.

        Parameters
        ----------
        texts : sequence of str
            May repeat; each distinct text is computed once.
        backbone : Backbone
            Embeddings are kept apart by its digest and dtype.
        batch_size : int, default=64
            Texts run at once.
        progress : bool, default=False
            Whether to draw a progress bar on stderr.

        Returns
        -------
        Tensor, (texts, hidden)
            float32 on the CPU, in the order of the texts; a copy, free to change.

        Raises
        ------
        DataError
            A text that the backbone cannot embed; see :meth:`Backbone.last_token`.
        """
        key = (backbone.digest, backbone.dtype, "last_token")
        with self._lock:
            space = self._spaces.setdefault(key, {})
            missing = [text for text in dict.fromkeys(texts) if text not in space]
            self._hits += len(texts) - len(missing)
            self._misses += len(missing)
        # Computed outside the lock, so that nobody waits for texts that others need.
        missing.sort(key=len)
        size = batch_size * _BATCHES_A_CALL
        with tqdm(total=len(missing), desc="embedding texts", disable=not progress) as bar:
            for first in range(0, len(missing), size):
                part = missing[first : first + size]
                embeddings = backbone.last_token(part, batch_size=batch_size)  # (part, hidden)
                with self._lock:
                    # What another thread stored meanwhile stays, so that all see one value.
                    for text, embedding in zip(part, embeddings, strict=True):
                        space.setdefault(text, embedding)
                bar.update(len(part))
        if not len(texts):
            return torch.empty(0, backbone.hidden_size)
        with self._lock:
            return torch.stack([space[text] for text in texts])  # (texts, hidden)

    def stats(self) -> dict[str, int]:
        """Count texts served without computing (hits), texts computed (misses) and bytes held."""
        with self._lock:
            held = [row for space in self._spaces.values() for row in space.values()]
            size = sum(row.numel() * row.element_size() for row in held)
            return {"hits": self._hits, "misses": self._misses, "bytes": size}

    def __copy__(self) -> "MemoryStore":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "MemoryStore":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryStore, ()


_process_store = MemoryStore()


def open_store(store: MemoryStore | None) -> MemoryStore:
    """Give the store, or the one that the whole process shares for None.

    Examples
    --------
    >>> open_store(None) is open_store(None)
    True
    """
    return _process_store if store is None else store
