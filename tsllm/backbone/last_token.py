"""A model whose last layer computes the state of one token only.

A forecast and the embedding of a text read one token of the last layer. That layer needs the keys
and values of all tokens, but the query, the attention and the feed-forward part of that one token:
a sixth of its arithmetic. Architectures that are not here compute all tokens, with equal results.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

# The column of the token that is read in each row, (batch,); None: the last column.
_COLUMNS: ContextVar[Tensor | None] = ContextVar("tsllm_last_columns", default=None)


@contextmanager
def read_at(columns: Tensor) -> Iterator[None]:
    """Read the token in the given column of each row, (batch,); later columns are padding."""
    token = _COLUMNS.set(columns)
    try:
        yield
    finally:
        _COLUMNS.reset(token)


class _LastLayer(nn.Module, ABC):
    """A layer that computes one token of each row.

    All tokens of its output (batch, tokens, hidden) have the state of that token.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        # Versions of transformers differ in which arguments they pass by position.
        self._names = list(inspect.signature(layer.forward).parameters)

    def forward(self, *args: Any, **options: Any) -> Any:
        """Take the arguments of transformers' own layer, and return what it returns."""
        given = dict(zip(self._names, args)) | options
        hidden: Tensor = given["hidden_states"]  # (batch, tokens, hidden)
        keys, values, index = self._keys_and_values(hidden)  # (batch, heads, tokens, width)
        if given.get("past_key_values") is not None:
            keys, values = given["past_key_values"].update(keys, values, index)
        given["hidden_states"], given["attention_mask"] = self._one(
            hidden, given.get("attention_mask")
        )
        given["past_key_values"] = _Known(keys, values)
        out = self.layer(**given)
        if isinstance(out, tuple):
            return (out[0].expand_as(hidden), *out[1:])
        return out.expand_as(hidden)

    def _one(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the token that is read, (batch, 1, hidden), and the mask of what it attends to."""
        columns = _COLUMNS.get()
        if columns is None:
            return hidden[:, -1:], None if mask is None else mask[:, :, -1:]
        rows = torch.arange(len(hidden), device=hidden.device)
        if mask is not None and mask.shape[2] > 1:
            mask = mask.expand(len(hidden), -1, -1, -1)[rows, :, columns][:, :, None]
        elif mask is None:  # a causal model, which needs no mask for padding on the right
            seen = torch.arange(hidden.shape[1], device=hidden.device) <= columns[:, None]
            mask = seen[:, None, None]  # (batch, 1, 1, tokens)
        return hidden[rows, columns][:, None], mask

    @abstractmethod
    def _keys_and_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return keys and values of all tokens, and the index of the layer."""


class _Known:
    """A cache that holds the keys and values of all tokens already."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.held = keys, values

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return all keys and values, those of the token that is computed included."""
        return self.held


class _LastGPT2Block(_LastLayer):
    """GPT-2's block for one token; one matrix holds its queries, keys and values."""

    def _keys_and_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, int]:
        attention = self.layer.attn
        width = attention.split_size
        both = torch.addmm(
            attention.c_attn.bias[width:],
            self.layer.ln_1(hidden).flatten(0, 1),
            attention.c_attn.weight[:, width:],
        ).unflatten(0, hidden.shape[:2])  # (batch, tokens, 2 * hidden)
        keys, values = (
            one.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for one in both.split(width, dim=-1)
        )
        return keys, values, attention.layer_idx


class _LastBertLayer(_LastLayer):
    """BERT's layer for one token."""

    def _keys_and_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, int]:
        attention = self.layer.attention.self
        keys, values = (
            part(hidden).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
            for part in (attention.key, attention.value)
        )
        return keys, values, attention.layer_idx


#: Where each architecture has its layers, and the class that wraps the last one.
_LAST_LAYERS: dict[str, tuple[str, type[_LastLayer]]] = {
    "gpt2": ("h", _LastGPT2Block),
    "bert": ("encoder.layer", _LastBertLayer),
}


def can_keep_last_token(model_type: str) -> bool:
    """Check that `keep_last_token` knows an architecture."""
    return model_type in _LAST_LAYERS


def keep_last_token(model: Any, model_type: str) -> None:
    """Replace the last layer of a model by one that computes one token of each row."""
    name, wrapper = _LAST_LAYERS[model_type]
    layers = model.get_submodule(name)
    layers[-1] = wrapper(layers[-1])
