"""The facts about a language model, read from the shared copy of its weights."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tsllm.backbone.shared import SharedBackbone


class ModelFacts:
    """The facts that a shared handle and a private shell have in common."""

    _shared: SharedBackbone

    @property
    def device(self) -> torch.device:
        """Return the device of the frozen weights."""
        return self._shared.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the frozen weights."""
        return self._shared.dtype

    @property
    def hidden_size(self) -> int:
        """Return the width of the token embeddings and of the states."""
        return self._shared.hidden_size

    @property
    def n_layers(self) -> int:
        """Return the number of layers that were kept."""
        return self._shared.config.num_hidden_layers

    @property
    def max_positions(self) -> int | None:
        """Return the largest number of tokens that the model takes; None: no limit."""
        return self._shared.max_positions

    @property
    def vocab_size(self) -> int:
        """Return the number of rows of the word embeddings."""
        return self._shared.word_embeddings.shape[0]

    @property
    def model_type(self) -> str:
        """Return transformers' name of the architecture."""
        return self._shared.config.model_type

    @property
    def natively_causal(self) -> bool:
        """Return False for an encoder, which ``hidden`` runs with a causal mask."""
        return self._shared.natively_causal

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer; it is shared, so leave its settings as they are."""
        return self._shared.tokenizer

    @property
    def word_embeddings(self) -> Tensor:
        """Return the shared frozen word embeddings, (vocab, hidden), in the weights' dtype."""
        return self._shared.word_embeddings
