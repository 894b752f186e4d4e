"""One trainable layer in the place of a language model, as the baseline to compare with."""

import hashlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.backbone.architectures import keep_layers
from tsllm.backbone.shared import SharedBackbone
from tsllm.errors import DataError

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutputWithPast

LAYER_PREFIX = "layer:"
#: The kinds of layers, and their names in words.
LAYERS = {"attention": "one attention layer", "transformer": "one transformer block"}
_FEEDFORWARD = 4  # times the width, as in most language models
_ROTARY_BASE = 10_000.0


class LayerSpec(NamedTuple):
    """A parsed ``layer:...`` spec."""

    kind: str
    like: str  # the spec of the language model that it replaces


def parse_layer(spec: str) -> LayerSpec:
    """Parse ``layer:attention?like=<spec>``; the text after ``like=`` is the other spec."""
    kind, _, query = spec.removeprefix(LAYER_PREFIX).partition("?")
    if kind not in LAYERS:
        raise DataError(
            f"backbone {spec!r}: {kind!r} is no such layer; use {' or '.join(map(repr, LAYERS))}, "
            "as in 'layer:attention?like=openai-community/gpt2'."
        )
    name, _, like = query.partition("=")
    if name != "like" or not like or like.startswith(LAYER_PREFIX):
        raise DataError(
            f"backbone {spec!r} does not say which language model's place it takes; write "
            f"'{LAYER_PREFIX}{kind}?like=<Hugging Face id, directory or random:...>'."
        )
    return LayerSpec(kind, like)


class ReplacementLayer(nn.Module):
    """One causal attention layer, alone or in a transformer block, with a language model's call.

    Norms come first, with one at the end; positions are rotations, so that no context is too long.

    Parameters
    ----------
    width : int
        Width of the tokens.
    heads : int
        Attention heads, reduced to a divisor of the width.
    feedforward : bool
        Whether the feed-forward half of a transformer block follows the attention.

    References
    ----------
    Tan et al. (2024), "Are Language Models Actually Useful for Time Series Forecasting?", arXiv
    2406.16964, section 4 (LLM2Attn and LLM2Trsf). Norms: Xiong et al. (2020). Rotations: Su et al.
    (2021).

    Examples
    --------
    >>> layer = ReplacementLayer(8, 2, feedforward=True)
    >>> positions = torch.arange(5)[None]
    >>> layer(torch.randn(3, 5, 8), position_ids=positions).last_hidden_state.shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, *, feedforward: bool) -> None:
        super().__init__()
        self.heads = math.gcd(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feedforward: nn.Sequential | None = None
        if feedforward:
            self.feedforward = nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, _FEEDFORWARD * width),
                nn.GELU(),
                nn.Linear(_FEEDFORWARD * width, width),
            )
        self.final_norm = nn.LayerNorm(width)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> "BaseModelOutputWithPast":
        """Run the layer over tokens (batch, tokens, width), with transformers' arguments.

        ``attention_mask`` is bool, (batch, 1, tokens, past + tokens); None: all up to the token.
        """
        # Imported here: they take long, and most processes have no such layer.
        from transformers import DynamicCache
        from transformers.modeling_outputs import BaseModelOutputWithPast

        x = inputs_embeds.float()
        assert position_ids is not None  # `run_causally` always passes them
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, d)
            for part in self.projections(self.attention_norm(x)).chunk(3, dim=-1)
        )
        query, key = _rotate(query, position_ids), _rotate(key, position_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, 0)
        seen = key.shape[2] - query.shape[2]
        if attention_mask is None and seen:
            columns = torch.arange(key.shape[2], device=key.device)
            attention_mask = columns <= columns[seen:, None]  # (tokens, past + tokens)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, is_causal=attention_mask is None
        )
        x = x + self.attention_output(mixed.transpose(1, 2).flatten(2))
        if self.feedforward is not None:
            x = x + self.feedforward(x)
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_norm(x), past_key_values=past_key_values
        )


class SharedReplacement(SharedBackbone):
    """The shared part of a ``layer:...`` spec: word embeddings and tokenizer of the other model.

    Each estimator trains a layer of its own, which its private shell builds and owns.
    """

    def __init__(self, key: tuple[Any, ...], spec: str, kind: str, like: SharedBackbone) -> None:
        words = _WordsOnly(spec, like.word_embeddings)
        super().__init__(
            key,
            f"{LAYERS[kind]}, trained from random weights, as wide as {like.words}",
            keep_layers(like.config, 1),
            like.tokenizer,
            words,
            words,
        )
        self.kind = kind
        self.natively_causal = True
        self.max_positions = None
        self.sliding_window = None

    @property
    def trained_whole(self) -> bool:
        """Return True: each estimator trains all of it."""
        return True

    @property
    def digest(self) -> str:
        """Return the sha256 of word embeddings, tokenizer and kind of layer, without weights."""
        return hashlib.sha256(f"{self.kind} {super().digest}".encode()).hexdigest()

    def new_shell(self) -> nn.Module:
        """Build a layer, initialised from torch's global generator."""
        heads = self.config.num_attention_heads
        layer = ReplacementLayer(self.hidden_size, heads, feedforward=self.kind == "transformer")
        return layer.to(self.device)


class _WordsOnly(nn.Module):
    """The word embeddings of a language model, without a language model to run."""

    def __init__(self, spec: str, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(words)
        self._spec = spec

    def get_input_embeddings(self) -> nn.Embedding:
        """Return them, as transformers' models do."""
        return self.words

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Raise, because only a shell has a layer."""
        raise DataError(
            f"the backbone {self._spec!r} is a layer that each forecaster trains, so it reads no "
            "texts and embeds nothing by itself: use a language model for that, or tuned()."
        )


def _rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate pairs of features (batch, heads, tokens, d) by angles that grow with the positions.

    An odd last feature does not change.
    """
    half = x.shape[-1] // 2
    rates = _ROTARY_BASE ** (-torch.arange(half, device=x.device) / max(1, half))
    angles = positions[:, None, :, None] * rates  # (batch or 1, 1, tokens, half)
    cosine, sine = angles.cos(), angles.sin()
    one, other, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([one * cosine - other * sine, other * cosine + one * sine, rest], dim=-1)
