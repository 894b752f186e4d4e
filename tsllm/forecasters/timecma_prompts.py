"""TimeCMA's prompts: the texts of windows, and the embedding that each training window reads."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tsllm.backbone import Backbone
from tsllm.context import Context, batch_contexts
from tsllm.embeddings import EmbeddingStore
from tsllm.forecasters.frames import stamps_after
from tsllm.forecasters.state import ModelShape
from tsllm.prompt_text import PromptWriter, check_prompts_fit, series_statistics
from tsllm.windows import WindowBatch, Windows

# Prompts that are in memory as text at once: about 70 MB of 96 values each.
_PROMPTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class WindowPrompts:
    """Writes the windows that a model of some shape reads.

    Attributes
    ----------
    writer : PromptWriter
    shape : ModelShape
        Of the model: a window is its ``context_length`` steps.
    statistics : dict of series id to array (2, variables)
        Mean and deviation of series, for a value format that needs them. A series that is not
        among them is written by the statistics of its context.
    """

    writer: PromptWriter
    shape: ModelShape
    statistics: dict[Hashable, np.ndarray]

    def measure(self, contexts: Sequence[Context]) -> None:
        """Add the statistics of series that the format needs and that are not known yet."""
        if self.writer.needs_statistics:
            for context in contexts:
                if context.series_id not in self.statistics:
                    self.statistics[context.series_id] = series_statistics(context.values)

    def of_series(self, context: Context, starts: Sequence[int] | np.ndarray) -> list[str]:
        """Write windows of one series, given by their first steps: one a variable, these fastest.

        ``starts`` (windows,) are positions in the context, negative before it.
        """
        return self.writer.write(
            context,
            starts,
            self.shape.context_length,
            freq=self.shape.freq,
            statistics=self.statistics.get(context.series_id),
        )

    def of_ends(self, contexts: Sequence[Context], backbone: Backbone) -> list[str]:
        """Write the last window of each context, variables fastest, checked as `in_parts` does."""
        prompts = [
            prompt
            for context in contexts
            for prompt in self.of_series(context, [len(context) - self.shape.context_length])
        ]
        check_prompts_fit(prompts, backbone)
        return prompts

    def in_parts(
        self, contexts: Sequence[Context], places: np.ndarray, backbone: Backbone
    ) -> Iterator[list[str]]:
        """Write windows of many series, some at a time.

        Each part is checked before it is handed over.

        Parameters
        ----------
        contexts : sequence of Context
            The series, whole.
        places : array (windows, 2), int
            The number of the series and the first step of each window, sorted by them.
        backbone : Backbone
            That is to read the prompts.

        Raises
        ------
        DataError
            A prompt has more tokens than the backbone reads.
        """
        rows = max(1, _PROMPTS_AT_ONCE // self.shape.n_variables)
        for first in range(0, len(places), rows):
            part = places[first : first + rows]
            prompts = [
                prompt
                for series in np.unique(part[:, 0]).tolist()
                for prompt in self.of_series(contexts[series], part[part[:, 0] == series, 1])
            ]
            check_prompts_fit(prompts, backbone)
            yield prompts


class EmbeddedWindows:
    """The embeddings of the prompts of training windows, found by series and first step.

    All are in the store when it is made; what is kept in memory is a key of 32 bytes each.

    Parameters
    ----------
    prompts : WindowPrompts
    contexts : sequence of Context
        The series, whole.
    windows : sequence of Windows
        Those to embed, for training and validation, of these series.
    backbone : Backbone
        That reads the prompts.
    store : EmbeddingStore
        Where the embeddings are kept.
    progress : bool
        Whether to show how far the language model is.
    """

    def __init__(
        self,
        prompts: WindowPrompts,
        contexts: Sequence[Context],
        windows: Sequence[Windows],
        backbone: Backbone,
        store: EmbeddingStore,
        *,
        progress: bool,
    ) -> None:
        self.backbone, self.store = backbone, store
        places = places_of(windows)  # (windows, 2)
        keys = [
            store.fill(part, backbone, progress=progress)
            for part in prompts.in_parts(contexts, places, backbone)
        ]
        shape = prompts.shape
        self._keys = np.concatenate(keys).reshape(len(places), shape.n_variables, -1)
        # One number a window. They rise as the places do, for no two first steps of one series are
        # as far apart as this: a search finds a window's row.
        self._span = max(map(len, contexts)) + shape.context_length
        self._numbers = places @ [self._span, 1]  # (windows,)

    def read(self, batch: WindowBatch) -> Tensor:
        """Give a batch of windows its embeddings, (batch, width, variables), on its device."""
        number = (batch.series * self._span + batch.start).cpu().numpy()
        keys = self._keys[np.searchsorted(self._numbers, number)]  # (batch, variables, 32)
        vectors = self.store.read(keys.reshape(-1, keys.shape[-1]), self.backbone)
        return by_variable(vectors, len(number), batch.values.device)


def places_of(windows: Sequence[Windows]) -> np.ndarray:
    """Give the series and the first step of windows, each place once and sorted: (windows, 2)."""
    positions = [torch.stack(part.positions(), dim=1).numpy() for part in windows]
    return np.unique(np.concatenate(positions), axis=0)


def by_variable(vectors: Tensor, batch: int, device: torch.device) -> Tensor:
    """Bring embeddings (batch * variables, width) into the form (batch, width, variables)."""
    return vectors.to(device).unflatten(0, (batch, -1)).transpose(1, 2)


def extend_by_forecasts(
    contexts: Sequence[Context], values: Tensor, done: int, shape: ModelShape
) -> list[Context]:
    """Extend contexts by their own forecasts, in the series' units.

    ``values`` (batch, context, variables) end with them, standardised as the contexts were.
    """
    steps = shape.context_length
    standard = batch_contexts(contexts, steps)
    forecasts = values[:, -done:].double().cpu().numpy()  # (batch, at most context, variables)
    forecasts = forecasts * standard.scale[:, None] + standard.location[:, None]
    extended = []
    for context, forecast in zip(contexts, forecasts):
        times = context.times.append(stamps_after(context, done, freq=shape.freq))
        whole = np.concatenate([context.values, forecast])[-steps:]
        extended.append(context.with_values(whole, times=times[-len(whole) :], past_x=None))
    return extended
