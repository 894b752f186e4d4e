"""Event types as text: soft tokens and type logits made of the vectors of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tsllm.adapters.event_features import TimeEncoding, TypeVectors, add_context

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone


def mean_token_embeddings(backbone: Backbone | PrivateBackbone, texts: Sequence[str]) -> Tensor:
    """Embed texts as one soft token each: the mean of the word embeddings of their tokens.

    Parameters
    ----------
    backbone : Backbone or PrivateBackbone
    texts : sequence of str

    Returns
    -------
    Tensor
        ``(texts, hidden)`` float32, on the CPU.

    Examples
    --------
    >>> from tsllm.backbone import load_backbone
    >>> mean_token_embeddings(load_backbone("random:gpt2", device="cpu"), ["rain", "hail"]).shape
    torch.Size([2, 64])
    """
    # A PrivateBackbone reads words as the backbone does that it is made of.
    handle: Any = getattr(backbone, "backbone", backbone)
    rows = handle.tokens(texts, add_special_tokens=False)
    words = handle.word_embeddings
    means = [words[torch.tensor(ids, device=words.device)].float().mean(0) for ids in rows]
    return torch.stack(means).cpu()


def word_rms(backbone: Backbone | PrivateBackbone) -> float:
    """Give the root mean square of the numbers in a backbone's word embeddings."""
    return float(backbone.word_embeddings.float().square().mean().sqrt())


class TextTypeHead(nn.Module):
    """Type logits tied to the types' texts: the state times the projected vector of each text.

    A type that was never seen has a logit as soon as it has a text.

    Parameters
    ----------
    hidden : int
        Width of the states.
    type_vectors : Tensor
        ``(types, width)``.

    Examples
    --------
    >>> head = TextTypeHead(8, torch.randn(3, 20))
    >>> head.grow(torch.randn(2, 20))
    >>> head(torch.randn(4, 8)).shape
    torch.Size([4, 5])
    """

    def __init__(self, hidden: int, type_vectors: Tensor) -> None:
        super().__init__()
        self.vectors = TypeVectors(type_vectors)
        self.projection = nn.Linear(type_vectors.shape[1], hidden)
        self.bias = nn.Parameter(torch.zeros(len(type_vectors)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (..., hidden) to logits (..., types)."""
        table = self.projection(self.vectors.table)  # (types, hidden)
        return hidden @ table.T / table.shape[1] ** 0.5 + self.bias

    def grow(self, type_vectors: Tensor) -> None:
        """Add types by the vectors of their texts; their biases start at the mean."""
        self.vectors.grow(type_vectors)
        bias = self.bias.detach()
        new = bias.mean().expand(len(type_vectors))
        self.bias = nn.Parameter(torch.cat([bias, new]), self.bias.requires_grad)


class EventTokens(nn.Module):
    """Two soft tokens an event, as large as words are: one of its type's text, one of its gap.

    Parameters
    ----------
    word_rms : float
        Root mean square of the language model's word embeddings.
    type_vectors : Tensor
        ``(types, width)``, what `mean_token_embeddings` gives.
    time_features, median_gap
        See `TimeEncoding`.
    context_features : int
        Static covariates of a sequence, added to its gaps' tokens and to the start.
    """

    def __init__(
        self,
        word_rms: float,
        type_vectors: Tensor,
        *,
        time_features: int = 32,
        median_gap: float = 1.0,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        width = type_vectors.shape[1]
        self.width = width
        self.word_rms: Tensor
        self.register_buffer("word_rms", torch.tensor(float(word_rms)))
        self.table: Tensor
        self.register_buffer("table", self._scaled(type_vectors.detach().float()))
        self.time_encoding = TimeEncoding(time_features, median_gap=median_gap)
        self.time_layer = nn.Linear(time_features, width)
        # Sines and cosines have a mean square of 1/2, so the token starts at the size of a word.
        nn.init.normal_(self.time_layer.weight, std=(2 / time_features) ** 0.5)
        self.start = nn.Parameter(torch.randn(width))
        self.context_layer = (
            nn.Linear(context_features, width, bias=False) if context_features else None
        )

    def first(self, batch: int, context: Tensor | None) -> Tensor:
        """Make the start's token, (batch, 1, width)."""
        start = self.start.expand(batch, 1, -1)
        return add_context(self.context_layer, start, context) * self.word_rms

    def forward(self, types: Tensor, gaps: Tensor, context: Tensor | None) -> Tensor:
        """Make the tokens of events (batch, events): (batch, 2 * events, width)."""
        time = self.time_layer(self.time_encoding(gaps))  # (batch, events, width)
        time = add_context(self.context_layer, time, context)
        pairs = torch.stack([self.table[types], time * self.word_rms], 2)
        return pairs.flatten(1, 2)

    def grow(self, n_types: int, type_vectors: Tensor | None) -> None:
        """Add types by the vectors of their texts."""
        assert type_vectors is not None
        self.table = torch.cat([self.table, self._scaled(type_vectors.to(self.table))])

    def _scaled(self, vectors: Tensor) -> Tensor:
        """Bring vectors to the size of words: means of several tokens are shorter."""
        rms = vectors.square().mean(-1, keepdim=True).sqrt()
        return vectors / rms.clamp_min(1e-12) * self.word_rms
