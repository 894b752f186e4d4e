"""Fast embedding of texts for a store.

Texts are processed in shards, the longest first. While the language model runs on one shard,
another thread tokenises the next. Within a shard texts of similar length share a batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm.auto import tqdm

from tsllm.backbone import Backbone
from tsllm.errors import DataError

#: Texts that are tokenised together and sorted by their number of tokens.
SHARD = 2048
#: Tokens of a batch with ``batch_size="auto"``: on a CPU as many as the caches hold, on a GPU as
#: many as keep it busy.
AUTO_TOKENS = {"cpu": 4096, "cuda": 131_072}
#: Largest share of padding in a batch.
MAX_PADDING = 0.05
#: Embeddings are delivered after this number or time: a killed process loses no more.
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
    """Embed texts and deliver the embeddings, some thousands at a time.

    ``deliver`` is called with the numbers of some texts and their embeddings, (rows, hidden)
    float32. ``is_done`` is called with the numbers of a shard's texts before it is run, and returns
    for each whether another process has computed it in the meantime. If something fails (a text
    that is too long, Ctrl-C), finished embeddings are delivered first. The other arguments are
    those of `EmbeddingStore.encode`.
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
    # one thread: only the next shard is prepared
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
    """Cut texts into batches of similar length, the longest first.

    ``lengths`` are the tokens of each text. The batch size "auto" limits the tokens of a batch, by
    device.

    Yields
    ------
    list of int
        The numbers of the texts of a batch, of which at most 5 % is padding.

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
    """Check that a batch size is a number of texts or "auto"."""
    if batch_size != "auto" and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        raise DataError(
            f"batch_size must be 'auto' or a whole number of at least 1, found {batch_size!r}"
        )


class _Held:
    """Embeddings that wait on their device for a common transfer."""

    def __init__(self, deliver: Callable[[list[int], np.ndarray], None]) -> None:
        self._deliver = deliver
        self._numbers: list[int] = []
        self._states: list[torch.Tensor] = []
        self._since = time.monotonic()

    def add(self, numbers: list[int], states: torch.Tensor) -> None:
        """Add the states (rows, hidden) of a batch, and deliver when it is time."""
        self._numbers += numbers
        self._states.append(states)
        late = time.monotonic() - self._since > HAND_OVER_SECONDS
        if late or len(self._numbers) >= HAND_OVER_ROWS:
            self.hand_over()

    def hand_over(self) -> None:
        """Pass on all waiting embeddings after one transfer to the CPU."""
        numbers, states = self._numbers, self._states
        self._numbers, self._states = [], []
        if numbers:
            self._deliver(numbers, torch.cat(states).float().cpu().numpy())
        self._since = time.monotonic()
