"""The base of event encoders that are a stack of blocks over event tokens."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, cast

from torch import Tensor, nn

from tsllm.adapters.events.features import EventEmbedding
from tsllm.adapters.events.prompt_pool import PromptChoice

BlockT = TypeVar("BlockT", bound=nn.Module)
PromptT = TypeVar("PromptT")


class EventStack(nn.Module, Generic[BlockT]):
    """An embedding and blocks of its width, each of which reads its own rows of the prompts."""

    #: Parts of a prompt in a block: rows for keys and rows for values.
    prompt_parts = 2

    def __init__(self, embedding: EventEmbedding, blocks: Iterable[BlockT], dropout: float) -> None:
        super().__init__()
        self.embedding, self.hidden = embedding, embedding.hidden
        self.blocks = nn.ModuleList(blocks)
        if not len(self.blocks):
            raise ValueError("layers must be at least 1: an encoder without any reads nothing")
        self.dropout = nn.Dropout(dropout)

    @property
    def prompt_layers(self) -> int:
        """Return the number of layers that read prompts."""
        return len(self.blocks)

    @property
    def prompt_width(self) -> int:
        """Return the width of a prompt row."""
        return self.hidden

    def _blocks(self) -> list[BlockT]:
        return [cast(BlockT, block) for block in self.blocks]

    def _prompts(
        self,
        prompts: PromptChoice | None,
        read: Callable[[BlockT, PromptChoice, int, Tensor], PromptT],
    ) -> list[PromptT | None]:
        """Read the prompts of each block; None for each without prompts.

        ``read`` gets the block, its number and the code of the mean inter-event time so far.
        """
        if prompts is None:
            return [None for _ in self.blocks]
        code = self.embedding.time_encoding(prompts.mean_gap)  # (batch, positions, time_features)
        return [read(block, prompts, number, code) for number, block in enumerate(self._blocks())]
