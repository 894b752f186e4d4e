"""Causal attention over events, with prompts as a prefix that each position chooses."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.aaren.attention import initial_decay
from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.encoders.stack import EventStack
from tsllm.adapters.events.features import EventEmbedding
from tsllm.adapters.events.prompt_pool import PromptChoice

#: Queries whose weights over all earlier tokens are in memory at once.
QUERY_BLOCK = 256


@dataclass(frozen=True)
class LayerPrompt:
    """Keys and values of the prompts in one attention layer."""

    keys: Tensor
    """(heads, rows, width), of the structural part."""
    values: Tensor
    """(heads, rows, width)."""
    time_keys: Tensor
    """(batch, heads, positions, width), of the temporal part, added to each key."""
    time_values: Tensor
    """(batch, heads, positions, width)."""
    visible: Tensor
    """(batch, 1, positions, rows) bool."""

    def at(self, part: slice) -> "LayerPrompt":
        """Select some positions."""
        return LayerPrompt(
            self.keys,
            self.values,
            self.time_keys[:, :, part],
            self.time_values[:, :, part],
            self.visible[:, :, part],
        )


class PromptProjection(nn.Module):
    """Project the temporal part of prompts to keys and values.

    A prompt row is [structural; temporal], and the temporal part of a position is the code of its
    mean inter-event time so far (PromptTPP, arXiv 2310.04993). A projection W of it is
    ``W_s structural + W_t code``: the second term is the same for all rows, so it is added once a
    position, and no row is projected twice.
    """

    def __init__(self, hidden: int, heads: int, time_features: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_layer = nn.Linear(time_features, hidden, bias=False)
        self.value_layer = nn.Linear(time_features, hidden, bias=False)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes (batch, positions, features) to two (batch, heads, positions, width)."""
        keys, values = self.key_layer(code), self.value_layer(code)
        return _heads(keys, self.heads), _heads(values, self.heads)


class PromptedAttention(nn.Module):
    """Causal multi-head attention whose weights decay in time, with prompts before the tokens.

    Query i attends to tokens 1 to i, whose scores fall with the time since then at a learnt rate of
    the head, and to the prompt rows that are visible at i, which do not decay. The softmax is over
    both (prefix tuning: Li and Liang, ACL 2021, section 4).
    """

    def __init__(self, hidden: int, heads: int, time_features: int) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} must be a multiple of heads={heads}")
        self.heads, self.width = heads, hidden // heads
        self.query_layer = nn.Linear(hidden, hidden)
        self.key_layer = nn.Linear(hidden, hidden)
        self.value_layer = nn.Linear(hidden, hidden)
        self.out_layer = nn.Linear(hidden, hidden)
        self.prompt_time = PromptProjection(hidden, heads, time_features)
        self.decay_logit = initial_decay(heads)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values (batch, heads, tokens, width) of tokens."""
        layers = (self.query_layer, self.key_layer, self.value_layer)
        # One product for all three.
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        q, k, v = (
            _heads(part, self.heads) for part in functional.linear(x, weight, bias).chunk(3, -1)
        )
        return q, k, v

    def project_prompts(self, choice: PromptChoice, layer: int, code: Tensor) -> LayerPrompt:
        """Compute keys and values of the prompts; ``code`` (batch, positions, features)."""
        keys = self.key_layer(choice.key_rows(layer)).unflatten(-1, (self.heads, -1))
        values = self.value_layer(choice.value_rows(layer)).unflatten(-1, (self.heads, -1))
        time_keys, time_values = self.prompt_time(code)
        return LayerPrompt(
            keys.transpose(0, 1),  # (heads, rows, width)
            values.transpose(0, 1),
            time_keys,
            time_values,
            choice.visible_rows[:, None],
        )

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        age: Tensor,
        hidden: Tensor,
        prompt: LayerPrompt | None,
    ) -> Tensor:
        """Average values by the softmax over prompts and tokens: (batch, queries, hidden).

        ``q``, ``k`` and ``v`` are (batch, heads, queries or tokens, width), ``age`` (batch,
        queries, tokens) is the time from token to query, and ``hidden`` a bool mask of its shape,
        True for tokens that a query does not see.
        """
        rates = functional.softplus(self.decay_logit)[:, None, None]
        q = q / math.sqrt(self.width)
        # (batch, heads, queries, tokens)
        logits = torch.addcmul(q @ k.mT, rates, age[:, None], value=-1)
        logits = logits.masked_fill(hidden[:, None], -torch.inf)
        if prompt is None:
            mixed = logits.softmax(-1) @ v
        else:
            shift = (q * prompt.time_keys).sum(-1, keepdim=True)  # (batch, heads, queries, 1)
            prefix = (q @ prompt.keys.mT + shift).masked_fill(~prompt.visible, -torch.inf)
            weights = torch.cat([prefix, logits], -1).softmax(-1)
            of_prompt, of_tokens = weights.tensor_split([prefix.shape[-1]], -1)
            mixed = of_tokens @ v + of_prompt @ prompt.values
            mixed = mixed + of_prompt.sum(-1, keepdim=True) * prompt.time_values
        out: Tensor = self.out_layer(mixed.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor, time: Tensor, prompt: LayerPrompt | None) -> Tensor:
        """Attend over tokens (batch, tokens, hidden) at times (batch, tokens) float64."""
        return self.attend_causally(*self.project(x), causal_parts(time, x.dtype), prompt)

    def attend_causally(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        parts: "list[CausalPart]",
        prompt: LayerPrompt | None,
    ) -> Tensor:
        """Attend from each token to itself and those before it, some queries at a time."""
        if len(parts) == 1:
            return self.attend(q, k, v, parts[0].age, parts[0].hidden, prompt)
        mixed = []
        for part, age, hidden in parts:
            seen = slice(0, part.stop)
            own = None if prompt is None else prompt.at(part)
            mixed.append(self.attend(q[:, :, part], k[:, :, seen], v[:, :, seen], age, hidden, own))
        return torch.cat(mixed, 1)


class CausalPart(NamedTuple):
    """Queries that attend together, to themselves and all tokens before."""

    part: slice
    age: Tensor
    """(batch, queries, tokens), the time from each token to each query, 0 for later ones."""
    hidden: Tensor
    """(1, queries, tokens) bool, True for later tokens."""


def causal_parts(time: Tensor, dtype: torch.dtype) -> list[CausalPart]:
    """Cut the tokens, at times (batch, tokens) float64, into parts that attend together."""
    tokens, parts = time.shape[1], []
    for first in range(0, tokens, QUERY_BLOCK):
        part = slice(first, min(first + QUERY_BLOCK, tokens))
        age = (time[:, part, None] - time[:, None, : part.stop]).to(dtype).clamp_min(0)
        ones = torch.ones(age.shape[1:], dtype=torch.bool, device=time.device)
        parts.append(CausalPart(part, age, ones.triu(first + 1)[None]))
    return parts


class AttentionBlock(nn.Module):
    """A pre-norm Transformer block with `PromptedAttention`."""

    def __init__(self, hidden: int, heads: int, time_features: int, dropout: float) -> None:
        super().__init__()
        self.attention = PromptedAttention(hidden, heads, time_features)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.feedforward = nn.Sequential(
            nn.Linear(hidden, 4 * hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * hidden, hidden),
        )
        self.dropout = nn.Dropout(dropout)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add the residuals and the feed-forward part."""
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feedforward(self.norm2(x)))


@dataclass(frozen=True)
class AttentionState:
    """Keys and values of all tokens so far; it grows with each event.

    Sequences of different lengths stand in one batch; ``real`` tells which columns are tokens.
    """

    keys: tuple[Tensor, ...]
    """(batch, heads, tokens, width) a layer."""
    values: tuple[Tensor, ...]
    time: Tensor
    """(batch, tokens) float64, of each token."""
    now: Tensor
    """(batch,) float64, of the last token."""
    real: Tensor
    """(batch, tokens) bool."""
    context: Tensor | None
    """(batch, features), static covariates."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of the tensors."""
        return sum(t.nbytes for t in (*self.keys, *self.values, self.time, self.now, self.real))


class AttentionEncoder(EventStack[AttentionBlock]):
    """Causal attention over events, with prefix prompts.

    Token 0 is the start of the sequence, token i event i; the state at position i is the output at
    token i. Each position attends to its own prompt rows in each layer, at the cost of one prefix
    of all rows.

    Parameters
    ----------
    embedding : EventEmbedding
        Computes the tokens of events; its ``hidden`` is the width here.
    layers : int, default=2
        Blocks.
    heads : int, default=4
        Heads of a block.
    dropout : float, default=0.0
        Dropout after attention and in the feed-forward part.

    Examples
    --------
    >>> from tsllm.adapters.events.batch import pad_sequences
    >>> batch = pad_sequences([[0.5, 2.0]], [[0, 1]], first_known=[True], tails=[1.0])
    >>> encoder = AttentionEncoder(EventEmbedding(2, 16)).eval()
    >>> encoder.encode(batch).hidden.shape
    torch.Size([1, 3, 16])
    """

    def __init__(
        self, embedding: EventEmbedding, *, layers: int = 2, heads: int = 4, dropout: float = 0.0
    ) -> None:
        hidden, features = embedding.hidden, embedding.time_encoding.features
        blocks = (AttentionBlock(hidden, heads, features, dropout) for _ in range(layers))
        super().__init__(embedding, blocks, dropout)
        self.norm = nn.LayerNorm(hidden)

    def encode(self, batch: EventBatch, prompts: PromptChoice | None = None) -> EventStates:
        """Encode all positions, (batch, 1 + events, hidden)."""
        return EventStates(self._run(batch, prompts)[0])

    def init_state(
        self, batch: EventBatch, prompts: PromptChoice | None = None
    ) -> tuple[AttentionState, EventStates]:
        """Encode the histories of streams; return their states after the last event."""
        hidden, state = self._run(batch, prompts)
        return state, EventStates(hidden).at(batch.lengths)

    def step(
        self,
        state: AttentionState,
        types: Tensor,
        gaps: Tensor,
        prompts: PromptChoice | None = None,
    ) -> tuple[AttentionState, EventStates]:
        """Continue streams by one event each, with the cached keys and values.

        Parameters
        ----------
        state : AttentionState
            It is not changed.
        types, gaps : Tensor
            ``(batch,)``, types and scaled inter-event times.
        prompts : PromptChoice or None, default=None
            Of one position.
        """
        x = self.embedding.token(types, gaps, state.context)[:, None]  # (batch, 1, hidden)
        now = state.now + gaps.double()
        time = torch.cat([state.time, now[:, None]], 1)
        real = functional.pad(state.real, (0, 1), value=True)
        age = (now[:, None] - time).clamp_min(0).to(x.dtype)[:, None]  # (batch, 1, tokens)
        hidden = ~real[:, None]
        all_keys, all_values = [], []
        for block, old_keys, old_values, prompt in zip(
            self._blocks(), state.keys, state.values, self._layer_prompts(prompts), strict=True
        ):
            q, k, v = block.attention.project(block.norm1(x))
            k = torch.cat([old_keys, k], 2)
            v = torch.cat([old_values, v], 2)
            x = block.finish(x, block.attention.attend(q, k, v, age, hidden, prompt))
            all_keys.append(k)
            all_values.append(v)
        after = AttentionState(tuple(all_keys), tuple(all_values), time, now, real, state.context)
        return after, EventStates(self.norm(x))

    def _run(self, batch: EventBatch, prompts: PromptChoice | None) -> tuple[Tensor, Any]:
        """Encode all positions, and return the state of the streams."""
        x = self.dropout(self.embedding(batch))  # (batch, tokens, hidden)
        time = functional.pad(batch.gaps.double().cumsum(1), (1, 0))  # (batch, tokens)
        parts = causal_parts(time, x.dtype)
        all_keys, all_values = [], []
        for block, prompt in zip(self._blocks(), self._layer_prompts(prompts), strict=True):
            q, k, v = block.attention.project(block.norm1(x))
            x = block.finish(x, block.attention.attend_causally(q, k, v, parts, prompt))
            all_keys.append(k)
            all_values.append(v)
        state = AttentionState(
            tuple(all_keys),
            tuple(all_values),
            time,
            time.gather(1, batch.lengths[:, None])[:, 0],
            functional.pad(batch.mask, (1, 0), value=True),
            batch.context,
        )
        return self.norm(x), state

    def _layer_prompts(self, prompts: PromptChoice | None) -> list[LayerPrompt | None]:
        return self._prompts(
            prompts,
            lambda block, choice, number, code: block.attention.project_prompts(
                choice, number, code
            ),
        )


def _heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (batch, tokens, hidden) to (batch, heads, tokens, width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
