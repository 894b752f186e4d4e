"""One layer of AttNHP: attention over cached keys and values, its masks, prompts and rotations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.event_attention import LayerPrompt
from tsllm.adapters.prompt_choice import PromptChoice


class AttNHPLayer(nn.Module):
    """One layer, the same for the event stream and for queries.

    Queries and keys of a head have a content part and a time part. They are as wide as its values,
    or twice ``time_width`` where that is more.

    Parameters
    ----------
    hidden, heads, time_width : int
        See `AttNHPEncoder`.
    time_features : int
        Width of the code of the mean gap, the prompts' temporal part.
    """

    def __init__(self, hidden: int, heads: int, time_width: int, time_features: int) -> None:
        super().__init__()
        self.heads, self.value_width = heads, hidden // heads
        self.width = max(self.value_width, 2 * time_width)
        self.content = self.width - time_width
        self.query_layer = nn.Linear(hidden, heads * self.width)
        self.key_layer = nn.Linear(hidden, heads * self.width)
        self.value_layer = nn.Linear(hidden, hidden)
        # What the temporal part of a prompt, a code of the mean gap, adds to all its rows.
        self.time_key_layer = nn.Linear(time_features, heads * self.content, bias=False)
        self.time_value_layer = nn.Linear(time_features, hidden, bias=False)

    def project(self, x: Tensor, turn: TimeRotation, timed: Tensor) -> tuple[Tensor, Tensor]:
        """Make keys and values (batch, heads, tokens, width) of tokens (batch, tokens, hidden).

        ``timed`` (batch or 1, tokens) bool is False for the start token, whose key has no time.
        """
        k = turn.apply(self._by_head(self.key_layer(x)))  # (batch, tokens, heads, width)
        content = torch.arange(self.width, device=x.device) < self.content
        k = torch.where(timed[:, :, None, None] | content, k, 0.0)
        return k.transpose(1, 2), self._by_head(self.value_layer(x)).transpose(1, 2)

    def project_prompts(self, choice: PromptChoice, layer: int, code: Tensor) -> LayerPrompt:
        """Make keys and values of prompts; ``code`` (batch, positions, features)."""
        k = self._by_head(self.key_layer(choice.key_rows(layer)))  # (rows, heads, width)
        v = self._by_head(self.value_layer(choice.value_rows(layer)))
        return LayerPrompt(
            k[..., : self.content].transpose(0, 1),  # (heads, rows, content)
            v.transpose(0, 1),
            self._by_head(self.time_key_layer(code)).transpose(1, 2),
            self._by_head(self.time_value_layer(code)).transpose(1, 2),
            choice.visible_rows[:, None],
        )

    def cache(self, keys: Tensor, values: Tensor, prompt: LayerPrompt | None) -> LayerCache:
        """Put the row of zeros and the prompts before keys and values.

        The row of zeros is the 1 beside the sum of the weights. One column more takes up the
        temporal part of the prompts: in the keys a number that a query adds to the scores of all
        prompt rows, in the values the sum of their weights.
        """
        batch, heads = keys.shape[:2]
        width = self.width + (prompt is not None)
        width += -width % 8  # as the fast kernels want it
        keys, values = _widen(keys, width), _widen(values, width)
        zero = keys.new_zeros(batch, heads, 1, width)
        if prompt is None:
            return LayerCache(torch.cat([zero, keys], 2), torch.cat([zero, values], 2), None)
        one = torch.ones_like(prompt.keys[..., :1])
        k = torch.cat([_widen(prompt.keys, self.width), one], -1)  # (heads, rows, width + 1)
        v = torch.cat([prompt.values, one], -1)  # (heads, rows, value_width + 1)
        k, v = (_widen(part, width).expand(batch, -1, -1, -1) for part in (k, v))
        return LayerCache(torch.cat([zero, k, keys], 2), torch.cat([zero, v, values], 2), prompt)

    def attend(
        self, x: Tensor | None, turn: TimeRotation, cache: LayerCache, mask: TokenMask, part: slice
    ) -> Tensor:
        """Let queries after some positions look at the events, prompts and nothing.

        Parameters
        ----------
        x : Tensor, optional
            ``(batch, queries, hidden)``, as many a position for each of the positions ``part``.
            None: all are zero.
        turn : TimeRotation
            Of their times.
        cache : LayerCache
        mask : TokenMask
        part : slice

        Returns
        -------
        Tensor
            ``(batch, queries, hidden)``.
        """
        q = self.query_layer.bias[None, None] if x is None else self.query_layer(x)
        q = turn.apply(self._by_head(q))  # (batch, queries, heads, width)
        prompt = cache.prompt
        nodes = q.shape[1] // (part.stop - part.start)
        if prompt is not None:
            # (batch, positions, 1, heads, content)
            time_keys = prompt.time_keys[:, :, part].transpose(1, 2)[:, :, None]
            by_position = q[..., : self.content].unflatten(1, (-1, nodes))
            shift = (by_position * time_keys).sum(-1).flatten(1, 2)  # (batch, queries, heads)
            q = torch.cat([q, shift[..., None]], -1)
        bias = mask.bias(part, prompt, q.dtype)  # (batch or 1, positions, columns)
        columns = bias.shape[-1]
        mixed = functional.scaled_dot_product_attention(
            _widen(q, cache.keys.shape[-1]).transpose(1, 2),
            cache.keys[:, :, :columns],
            cache.values[:, :, :columns],
            attn_mask=bias.repeat_interleave(nodes, 1)[:, None],
            scale=1 / math.sqrt(self.width),
        ).transpose(1, 2)  # (batch, queries, heads, width)
        out = mixed[..., : self.value_width]
        if prompt is not None:
            time_values = prompt.time_values[:, :, part].transpose(1, 2)[:, :, None]
            share = mixed[..., self.value_width].unflatten(1, (-1, nodes))
            out = out + (share[..., None] * time_values).flatten(1, 2)
        return out.flatten(2)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer: a row of zeros, the prompts, the tokens."""

    keys: Tensor
    """(batch, heads, 1 + rows + tokens, width)."""
    values: Tensor
    prompt: LayerPrompt | None

    def select(self, rows: Tensor, positions: Tensor) -> LayerCache:
        """Take single positions of some sequences."""
        prompt = self.prompt
        if prompt is not None:
            prompt = LayerPrompt(
                prompt.keys,
                prompt.values,
                prompt.time_keys[rows, :, positions][:, :, None],
                prompt.time_values[rows, :, positions][:, :, None],
                prompt.visible[rows, :, positions][:, :, None],
            )
        return LayerCache(self.keys[rows], self.values[rows], prompt)


@dataclass(frozen=True)
class TimeRotation:
    """Rotations of the time parts of queries or keys by angles, rates times their times.

    A score of the rotated parts depends on the difference of the times alone.
    """

    phase: Tensor
    """(batch, n, heads, time_width / 2), complex numbers of length 1."""

    @classmethod
    def by(cls, angles: Tensor, dtype: torch.dtype) -> TimeRotation:
        """Make rotations by angles (batch, n, heads, time_width / 2), of any size in float64."""
        return cls(torch.complex(angles.cos().to(dtype), angles.sin().to(dtype)))

    def apply(self, x: Tensor) -> Tensor:
        """Rotate the last columns of (batch, n, heads, width), pair by pair."""
        time_width = 2 * self.phase.shape[-1]
        content, time = x.split([x.shape[-1] - time_width, time_width], -1)
        pairs = time.to(self.phase.real.dtype).unflatten(-1, (-1, 2))
        turned = torch.view_as_real(torch.view_as_complex(pairs) * self.phase).flatten(-2)
        return torch.cat([content.expand(*turned.shape[:-1], -1), turned], -1)

    def at(self, part: slice) -> TimeRotation:
        """Take some of the times."""
        return TimeRotation(self.phase[:, part])


@dataclass(frozen=True)
class TokenMask:
    """Which tokens are visible after which position; rows of 1 stand for a whole batch."""

    order: Tensor
    """(batch or 1, tokens) int64, the place of each token in its sequence."""
    seen: Tensor
    """(batch or 1, positions) int64, the last place that is visible."""
    aligned: bool
    """Whether token i has place i, so that later tokens need not be looked at."""

    def bias(self, part: slice, prompt: LayerPrompt | None, dtype: torch.dtype) -> Tensor:
        """Give 0 and -inf for the row of zeros, the prompts, the tokens: (batch or 1, n, columns).

        The row of zeros is always visible, so that no query is left with nothing.
        """
        order = self.order[:, : part.stop] if self.aligned else self.order
        visible = order[:, None] <= self.seen[:, part, None]  # (batch or 1, n, tokens)
        nothing = torch.ones_like(visible[..., :1])
        if prompt is None:
            visible = torch.cat([nothing, visible], -1)
        else:
            rows = prompt.visible[:, 0, part]  # (batch, n, rows)
            batch = len(rows)
            visible = torch.cat(
                [nothing.expand(batch, -1, -1), rows, visible.expand(batch, -1, -1)], -1
            )
        bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return bias.masked_fill_(~visible, -torch.inf)

    def select(self, rows: Tensor, positions: Tensor) -> TokenMask:
        """Take single positions of some sequences."""
        if len(self.order) == 1:
            order, seen = self.order.expand(len(rows), -1), self.seen[0, positions]
        else:
            order, seen = self.order[rows], self.seen[rows, positions]
        return TokenMask(order, seen[:, None], aligned=False)


def _widen(x: Tensor, width: int) -> Tensor:
    """Append zeros up to a width."""
    return x if x.shape[-1] == width else functional.pad(x, (0, width - x.shape[-1]))
