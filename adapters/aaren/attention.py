"""Aaren: attention with a learnt query, over all tokens at once or token by token."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.aaren.mixers import CausalAttention, MinGRU, NoMixing
from tsllm.adapters.aaren.prefix_scan import prefix_scan
from tsllm.adapters.aaren.state import AarenState

MIXERS = ("aaren", "mingru", "attention", "none")
QUERIES = ("token", "folded")
#: The shortest and the longest half-life of the heads at the start of training, in units of time.
HALF_LIVES = (2.0, 256.0)


class AarenAttention(nn.Module):
    """Multi-head attention with a learnt query (Feng et al., arXiv 2405.13956, section 3).

    Output k of a head is the softmax average of the values of tokens 1 to k; the query of the
    scores does not depend on the tokens. All outputs are computed at once in training, and one at a
    time from a state of constant size in a stream, with equal results.

    Parameters
    ----------
    hidden : int
        Width of a token, a multiple of ``heads``.
    heads : int
        Number of heads.
    query : {"folded", "token"}, default="folded"
        "token": the paper's parameters, a query token with projections for queries and keys.
        "folded": one score vector a head, the product of these: the same functions with ``2 hidden²
        - hidden heads`` fewer parameters.
    decay : bool, default=False
        Whether a token's weight falls by exp(-rate) in each unit of time, at a learnt rate of the
        head. Not in the paper. Without it nothing is ever forgotten, and a stream much longer than
        the training sequences drifts away from them.

    Raises
    ------
    ValueError
        When ``hidden`` is not a multiple of ``heads`` or ``query`` is unknown.

    Examples
    --------
    >>> layer = AarenAttention(8, 2).eval()
    >>> x = torch.randn(3, 5, 8)
    >>> state = layer.empty_state(3)
    >>> for token in x.unbind(1):
    ...     y, state = layer.step(state, token)
    >>> torch.allclose(y, layer(x)[:, -1], atol=1e-6)
    True
    """

    def __init__(
        self, hidden: int, heads: int, *, query: str = "folded", decay: bool = False
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} must be a multiple of heads={heads}")
        if query not in QUERIES:
            raise ValueError(f"query must be one of {list(QUERIES)}, got {query!r}")
        self.hidden, self.heads, self.width = hidden, heads, hidden // heads
        if query == "token":
            # Small: training starts near the mean of the past.
            self.query_token = nn.Parameter(torch.randn(hidden) / math.sqrt(hidden))
            self.query_layer = nn.Linear(hidden, hidden)
            self.key_layer = nn.Linear(hidden, hidden)
        else:
            self.score_weight = nn.Parameter(torch.randn(heads, hidden) / hidden)
        self.query = query
        self.value_layer = nn.Linear(hidden, hidden)
        self.out_layer = nn.Linear(hidden, hidden)
        self.decay_logit = None
        if decay:
            self.decay_logit = initial_decay(heads)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, elapsed: Tensor | None = None
    ) -> Tensor:
        """Compute the output at each token, (batch, tokens, hidden).

        Parameters
        ----------
        x : Tensor
            ``(batch, tokens, hidden)``.
        mask : Tensor or None, default=None
            Bool, ``(batch, tokens)``, False for tokens that have no weight. None: all have.
        elapsed : Tensor or None, default=None
            ``(batch, tokens)``, time since the token before, for the decay. None: 1, and 0 for a
            masked token.
        """
        return self._mix(x, None, mask, elapsed)[0]

    def extend(
        self,
        state: AarenState,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        elapsed: Tensor | None = None,
    ) -> tuple[Tensor, AarenState]:
        """Continue a stream by several tokens; equal to `forward` over the whole stream.

        Returns
        -------
        y : Tensor
            ``(batch, tokens, hidden)``.
        state : AarenState
            The state after them.
        """
        return self._mix(x, state, mask, elapsed)

    def step(
        self,
        state: AarenState,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        elapsed: Tensor | None = None,
    ) -> tuple[Tensor, AarenState]:
        """Continue a stream by one token (batch, hidden), in constant time.

        ``mask`` and ``elapsed`` are (batch,). A masked token with no time leaves the state as it
        is.
        """
        mask = None if mask is None else mask[:, None]
        elapsed = None if elapsed is None else elapsed[:, None]
        scores, values, state = self._scored(x[:, None], state, mask, elapsed)
        state = state.add(scores[..., 0], values[:, :, 0])
        return self.out_layer(state.average().flatten(1).to(x.dtype)), state

    def empty_state(self, batch: int) -> AarenState:
        """Create the state before the first token."""
        device = self.value_layer.weight.device
        return AarenState.empty(batch, heads=self.heads, width=self.width, device=device)

    def folded_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the weights (heads, hidden) and biases of the scores, from queries and keys."""
        if self.query == "folded":
            return self.score_weight, None
        query = self.query_layer(self.query_token).view(self.heads, self.width)
        query = query / math.sqrt(self.width)
        keys = self.key_layer.weight.view(self.heads, self.width, self.hidden)
        bias = (query * self.key_layer.bias.view(self.heads, self.width)).sum(1)
        return torch.einsum("hw,hwd->hd", query, keys), bias

    def decay_rates(self) -> Tensor | None:
        """Return each head's decay a unit of time, (heads,); None without decay."""
        return None if self.decay_logit is None else functional.softplus(self.decay_logit)

    def _mix(
        self, x: Tensor, state: AarenState | None, mask: Tensor | None, elapsed: Tensor | None
    ) -> tuple[Tensor, AarenState]:
        """Score all tokens, scan them, and project the averages."""
        if state is None:
            wide = torch.promote_types(x.dtype, torch.float32)
            state = AarenState.empty(
                len(x), heads=self.heads, width=self.width, dtype=wide, device=x.device
            )
        scores, values, state = self._scored(x, state, mask, elapsed)
        averages, state = prefix_scan(scores, values, state)
        # (batch, heads, tokens, width) -> (batch, tokens, hidden): a view, given values' layout
        return self.out_layer(averages.transpose(1, 2).flatten(2)), state

    def _scored(
        self, x: Tensor, state: AarenState, mask: Tensor | None, elapsed: Tensor | None
    ) -> tuple[Tensor, Tensor, AarenState]:
        """Return scores (batch, heads, tokens), values, and the state, faded to the last token."""
        weight, bias = self.folded_weight()
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            scores = functional.linear(
                x.to(wide), weight.to(wide), None if bias is None else bias.to(wide)
            ).mT  # (batch, heads, tokens)
        values = self.value_layer(x).unflatten(-1, (self.heads, self.width)).transpose(1, 2)
        rates = self.decay_rates()
        if rates is not None:
            # In float64, and relative to the last token: large times lose no digits.
            rates = rates.double()
            if elapsed is None:
                elapsed = x.new_ones(x.shape[:2]) if mask is None else mask
            time = elapsed.double().cumsum(1)  # (batch, tokens)
            passed = time[:, -1:] if x.shape[1] else time.new_zeros(len(x), 1)
            scores = scores.double() + rates[:, None] * (time - passed)[:, None]
            state = state.fade(rates * passed)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        return scores, values, state


def initial_decay(heads: int) -> nn.Parameter:
    """Return decay rates for half-lives from the shortest to the longest, before softplus."""
    shortest, longest = (math.log(2) / half_life for half_life in HALF_LIVES)
    rates = torch.logspace(math.log10(shortest), math.log10(longest), heads)
    return nn.Parameter(rates.expm1().log())  # the inverse of softplus


class AarenBlock(nn.Module):
    """A Transformer block with Aaren, or another causal mixer, in place of self-attention.

    With ``norm_first=False``, ``query="token"``, width 512 and 2048 inside it has 3,152,896
    parameters, 512 more than ``nn.TransformerEncoderLayer``, as published.

    Parameters
    ----------
    hidden, heads, feedforward : int
        Width of a token, heads, width inside the feed-forward part.
    mixer : {"aaren", "mingru", "attention", "none"}, default="aaren"
        The layer that mixes tokens. "attention" has no state of constant size and cannot stream.
    dropout : float, default=0.0
        Dropout after the mixer, and in and after the feed-forward part. There is none on the
        weights of the average, which no state could reproduce.
    norm_first : bool, default=True
        Layer norms before the parts, or after their residuals.
    query : {"folded", "token"}, default="folded"
        See `AarenAttention`.
    decay : bool, default=False
        See `AarenAttention`.

    Examples
    --------
    >>> block = AarenBlock(512, 8, feedforward=2048, query="token", norm_first=False)
    >>> sum(parameter.numel() for parameter in block.parameters())
    3152896
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        feedforward: int,
        mixer: str = "aaren",
        dropout: float = 0.0,
        norm_first: bool = True,
        query: str = "folded",
        decay: bool = False,
    ) -> None:
        super().__init__()
        if mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {list(MIXERS)}, got {mixer!r}")
        self.mixer: Any
        if mixer == "aaren":
            self.mixer = AarenAttention(hidden, heads, query=query, decay=decay)
        elif mixer == "mingru":
            self.mixer = MinGRU(hidden)
        elif mixer == "attention":
            self.mixer = CausalAttention(hidden, heads)
        else:
            self.mixer = NoMixing()
        self.norm_first = norm_first
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.feedforward = nn.Sequential(
            nn.Linear(hidden, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, hidden),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, **seen: Tensor | None) -> Tensor:
        """Map (batch, tokens, hidden) to the same; `mask` and `elapsed` as in `AarenAttention`."""
        return self._finish(x, self.mixer(self._start(x), **seen))

    def extend(
        self, state: AarenState, x: Tensor, **seen: Tensor | None
    ) -> tuple[Tensor, AarenState]:
        """Continue a stream by tokens (batch, tokens, hidden)."""
        y, state = self.mixer.extend(state, self._start(x), **seen)
        return self._finish(x, y), state

    def step(
        self, state: AarenState, x: Tensor, **seen: Tensor | None
    ) -> tuple[Tensor, AarenState]:
        """Continue a stream by one token (batch, hidden)."""
        y, state = self.mixer.step(state, self._start(x), **seen)
        return self._finish(x, y), state

    def _start(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm1(x) if self.norm_first else x
        return out

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add the residuals and the feed-forward part."""
        x = x + self.dropout(mixed)
        if self.norm_first:
            return x + self.feedforward(self.norm2(x))
        x = self.norm1(x)
        return self.norm2(x + self.feedforward(x))


class AarenStack(nn.Module):
    """A sequence of blocks, each over the outputs of the one before.

    Parameters
    ----------
    layers : int
        Number of blocks.
    hidden, heads, **settings
        See `AarenBlock`.

    Examples
    --------
    >>> stack = AarenStack(2, 8, 2, feedforward=16, decay=True).eval()
    >>> x = torch.randn(1, 7, 8)
    >>> first, states = stack.extend(stack.empty_states(1), x[:, :4])
    >>> last, states = stack.extend(states, x[:, 4:])
    >>> torch.allclose(torch.cat([first, last], 1), stack(x), atol=1e-5)
    True
    """

    def __init__(self, layers: int, hidden: int, heads: int, **settings: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AarenBlock(hidden, heads, **settings) for _ in range(layers))

    def forward(self, x: Tensor, **seen: Tensor | None) -> Tensor:
        """Map (batch, tokens, hidden) to the same; `mask` and `elapsed` as in `AarenAttention`."""
        for block in self.blocks:
            x = block(x, **seen)
        return x

    def extend(
        self, states: Sequence[AarenState], x: Tensor, **seen: Tensor | None
    ) -> tuple[Tensor, tuple[AarenState, ...]]:
        """Continue a stream by tokens (batch, tokens, hidden)."""
        after = []
        for block, state in zip(self.blocks, states, strict=True):
            assert isinstance(block, AarenBlock)
            x, state = block.extend(state, x, **seen)
            after.append(state)
        return x, tuple(after)

    def step(
        self, states: Sequence[AarenState], x: Tensor, **seen: Tensor | None
    ) -> tuple[Tensor, tuple[AarenState, ...]]:
        """Continue a stream by one token (batch, hidden)."""
        after = []
        for block, state in zip(self.blocks, states, strict=True):
            assert isinstance(block, AarenBlock)
            x, state = block.step(state, x, **seen)
            after.append(state)
        return x, tuple(after)

    def empty_states(self, batch: int) -> tuple[AarenState, ...]:
        """Create the states before the first token, one a layer."""
        return tuple(block.mixer.empty_state(batch) for block in self.blocks)  # type: ignore[union-attr, operator]
