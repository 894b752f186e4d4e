"""Texts to embeddings at the speed of the hardware: the work behind a store.

Texts go through in shards, the longest first. While the language model runs over one shard, the
next is tokenised in another thread. Within a shard texts of like length share a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from tsllm.backbone import Backbone
from tsllm.errors import DataError

#: Texts tokenised at once, and sorted by their number of tokens.
SHARD = 2048
#: Tokens of a batch with ``batch_size="auto"``: on a CPU the activations of about so many stay in
#: its caches, on a GPU it takes more to keep it busy.
AUTO_TOKENS = {"cpu": 4096, "cuda": 131_072}
#: Share of a batch that may be padding.
MAX_PADDING = 0.05
#: Embeddings are handed over after so many, or so many seconds: what a killed process loses.
HAND_OVER_ROWS = 4096
HAND_OVER_SECONDS = 5.0


def embed_texts(
    texts: Sequence[str],
    backbone: Backbone,
    deliver: Callable[[list[int], np.ndarray], None],
    *,
    batch_size: int | str = "auto",
    pooling: str = "last_token",
    is_done: Callable[[list[int]], list[bool]] | None = None,
    progress: bool = False,
) -> None:
    """Embed texts and hand the embeddings over, a few thousand at a time.

    What was computed when something fails (a text that is too long, Ctrl-C) is handed over too.

    Parameters
    ----------
    texts : sequence of str
    backbone : Backbone
    deliver : callable
        Called with the numbers of some texts and their embeddings, (rows, hidden) float32.
    batch_size : int or "auto"
        Texts run at once. "auto": as many as suit the device and the texts' length.
    pooling : {"last_token", "mean"}
        Which state of a text is its embedding: the last token's, or the mean over all.
    is_done : callable, optional
        Called with the numbers of a shard's texts before it is run; those that it says have been
        computed by somebody else meanwhile are left out.
    progress : bool
        Whether to draw a bar with the rate and the time that is left on stderr.

    Raises
    ------
    DataError
        A text that the backbone cannot embed, see :meth:`Backbone.last_token`; a bad batch size.
    """
    check_batch_size(batch_size)
    numbers = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    shards = [numbers[first : first + SHARD] for first in range(0, len(numbers), SHARD)]

    def prepare(shard: list[int]) -> tuple[list[int], list[list[int]]]:
        if is_done is not None:
            shard = [i for i, done in zip(shard, is_done(shard), strict=True) if not done]
        return shard, backbone.tokens([texts[i] for i in shard])

    held = _Held(deliver)
    bar = tqdm(total=len(texts), desc="embedding texts", unit="text", disable=not progress)
    # One thread: the shard after the one that runs is prepared, and no other.
    with bar, ThreadPoolExecutor(1, thread_name_prefix="tokenise") as helper:
        try:
            waiting = helper.submit(prepare, shards[0]) if shards else None
            for position, whole in enumerate(shards):
                assert waiting is not None
                shard, tokens = waiting.result()
                if position + 1 < len(shards):
                    waiting = helper.submit(prepare, shards[position + 1])
                bar.update(len(whole) - len(shard))
                lengths = np.array([len(row) for row in tokens], dtype=np.int64)
                for rows in length_batches(lengths, batch_size, backbone.device.type):
                    run = backbone.mean_states if pooling == "mean" else backbone.last_states
                    states = run([tokens[row] for row in rows])
                    held.add([shard[row] for row in rows], states)
                    bar.update(len(rows))
        finally:
            held.hand_over()


def length_batches(
    lengths: np.ndarray, batch_size: int | str = "auto", device_type: str = "cpu"
) -> Iterator[list[int]]:
    """Cut texts into batches of like length, the longest first.

    Parameters
    ----------
    lengths : array (texts,), int
        Tokens of each text.
    batch_size : int or "auto"
        Most texts of a batch; "auto": most tokens, by the device.
    device_type : {"cpu", "cuda"}

    Yields
    ------
    list of int
        The numbers of a batch's texts. Never more than 5 % of it is padding.

    Examples
    --------
    >>> list(length_batches(np.array([3, 100, 3, 98]), 8))
    [[1, 3], [0, 2]]
    """
    order = np.argsort(-lengths, kind="stable").tolist()
    batch: list[int] = []
    real = 0
    for number in order:
        length = int(lengths[number])
        if batch:
            longest = int(lengths[batch[0]])
            room = longest * (len(batch) + 1)
            full = (
                room > AUTO_TOKENS[device_type]
                if batch_size == "auto"
                else len(batch) >= int(batch_size)
            )
            if full or room - real - length > MAX_PADDING * room:
                yield batch
                batch, real = [], 0
        batch.append(number)
        real += length
    if batch:
        yield batch


def check_batch_size(batch_size: int | str) -> None:
    """Refuse what is neither a number of texts nor "auto"."""
    if batch_size != "auto" and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        raise DataError(
            f"batch_size must be 'auto' or a whole number of at least 1, found {batch_size!r}"
        )


class _Held:
    """Embeddings that wait on their device, to be brought over and kept many at once."""

    def __init__(self, deliver: Callable[[list[int], np.ndarray], None]) -> None:
        self._deliver = deliver
        self._numbers: list[int] = []
        self._states: list[torch.Tensor] = []
        self._since = time.monotonic()

    def add(self, numbers: list[int], states: torch.Tensor) -> None:
        """Take a batch's states (rows, hidden), and hand over where it is time."""
        self._numbers += numbers
        self._states.append(states)
        late = time.monotonic() - self._since > HAND_OVER_SECONDS
        if late or len(self._numbers) >= HAND_OVER_ROWS:
            self.hand_over()

    def hand_over(self) -> None:
        """Bring what is held to the CPU, in one transfer, and deliver it."""
        numbers, states = self._numbers, self._states
        self._numbers, self._states = [], []
        if numbers:
            self._deliver(numbers, torch.cat(states).float().cpu().numpy())
        self._since = time.monotonic()
