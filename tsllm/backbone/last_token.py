"""A model whose last layer computes the states of one token only.

A forecast and the embedding of a text read one token of the last layer. Of the others that layer
needs keys and values; their queries, attention and feed-forward parts are left out, five sixths of
its arithmetic. Architectures that are not here compute all tokens, with equal results.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

# The token of each row that is read, (batch,); None: the last one.
_COLUMNS: ContextVar[Tensor | None] = ContextVar("tsllm_last_columns", default=None)


@contextmanager
def read_at(columns: Tensor) -> Iterator[None]:
    """Read the token of each row (batch,) in this column; later ones are padding."""
    token = _COLUMNS.set(columns)
    try:
        yield
    finally:
        _COLUMNS.reset(token)


def keep_last_token(model: Any, model_type: str) -> Any:
    """Replace the last layer of a model by one that computes one token; None: not possible here.

    All rows of its output (batch, tokens, hidden) are the state of that token.
    """
    if model_type == "gpt2":
        model.h[-1] = _LastGPT2Block(model.h[-1])
    elif model_type == "bert":
        model.encoder.layer[-1] = _LastBertLayer(model.encoder.layer[-1])
    else:
        return None
    return model


class _LastLayer(nn.Module):
    """A layer that computes one token of each row."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def _run(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        past: Any,
        keys_and_values: Callable[[Tensor], tuple[Tensor, Tensor, int]],
        causal: bool,
        call: Callable[[Tensor, Tensor | None, Any], Tensor],
    ) -> Tensor:
        """Compute the keys and values of all tokens (batch, tokens, hidden), and one token.

        ``call`` runs the layer on tokens, with a mask and a cache.
        """
        tokens = hidden.shape[1]
        keys, values, number = keys_and_values(hidden)  # (batch, heads, tokens, width)
        if past is not None:
            keys, values = past.update(keys, values, number)
        columns = _COLUMNS.get()
        if columns is None:
            one = hidden[:, -1:]
            mask = None if mask is None else mask[:, :, -1:]
        else:
            rows = torch.arange(len(hidden), device=hidden.device)
            one = hidden[rows, columns][:, None]
            if mask is not None and mask.shape[2] > 1:
                mask = mask.expand(len(hidden), -1, -1, -1)[rows, :, columns][:, :, None]
            elif mask is None and causal:  # what is to the right is padding
                seen = torch.arange(tokens, device=hidden.device) <= columns[:, None]
                mask = seen[:, None, None]  # (batch, 1, 1, tokens)
        out = call(one, mask, _Known(keys, values))  # (batch, 1, hidden)
        return out.expand(-1, tokens, -1)


class _Known:
    """A cache that holds the keys and values of all tokens already."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.held = keys, values

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return all keys and values, those of the token that is computed included."""
        return self.held


class _LastGPT2Block(_LastLayer):
    """GPT-2's block for one token."""

    def forward(
        self, hidden: Tensor, past: Any, mask: Tensor | None, *rest: Any, **options: Any
    ) -> Tensor:
        """Take the arguments of transformers' own block."""
        block: Any = self.layer
        attention = block.attn

        def keys_and_values(hidden: Tensor) -> tuple[Tensor, Tensor, int]:
            width = attention.split_size
            both = torch.addmm(
                attention.c_attn.bias[width:],
                block.ln_1(hidden).flatten(0, 1),
                attention.c_attn.weight[:, width:],
            ).unflatten(0, hidden.shape[:2])  # (batch, tokens, 2 * hidden)
            keys, values = (
                one.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                for one in both.split(width, dim=-1)
            )
            return keys, values, attention.layer_idx

        def call(one: Tensor, mask: Tensor | None, known: Any) -> Tensor:
            out: Tensor = block(one, known, mask, *rest, **options)
            return out

        return self._run(hidden, mask, past, keys_and_values, True, call)


class _LastBertLayer(_LastLayer):
    """BERT's layer for one token."""

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        *rest: Any,
        past_key_values: Any = None,
        **options: Any,
    ) -> Tensor:
        """Take the arguments of transformers' own layer."""
        layer: Any = self.layer
        attention = layer.attention.self

        def keys_and_values(hidden: Tensor) -> tuple[Tensor, Tensor, int]:
            keys, values = (
                part(hidden).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
                for part in (attention.key, attention.value)
            )
            return keys, values, attention.layer_idx

        def call(one: Tensor, mask: Tensor | None, known: Any) -> Tensor:
            out: Tensor = layer(one, mask, *rest, past_key_values=known, **options)
            return out

        causal = bool(attention.is_causal)
        return self._run(hidden, mask, past_key_values, keys_and_values, causal, call)
