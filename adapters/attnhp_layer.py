"""One layer of AttNHP: attention over cached keys and values, its masks, prompts and rotations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.event_attention import LayerPrompt, PromptProjection
from tsllm.adapters.prompt_pool import PromptChoice


class AttNHPLayer(nn.Module):
    """One layer, the same for the event stream and for queries.

    Parameters
    ----------
    hidden, heads, time_width : int
        See `AttNHPEncoder`.
    time_features : int
        Width of the code of the mean gap, the prompts' temporal part.
    """

    def __init__(self, hidden: int, heads: int, time_width: int, time_features: int) -> None:
        super().__init__()
        self.heads, self.content = heads, hidden // heads
        self.width = self.content + time_width
        self.query_layer = nn.Linear(hidden, heads * self.width)
        self.key_layer = nn.Linear(hidden, heads * self.width)
        self.value_layer = nn.Linear(hidden, hidden)
        self.prompt_time = PromptProjection(hidden, heads, time_features)

    def project(self, x: Tensor, turn: TimeRotation, timed: Tensor) -> tuple[Tensor, Tensor]:
        """Make keys and values of tokens (batch, tokens, hidden).

        ``timed`` (batch or 1, tokens) bool is False for the start token, whose key has no time.
        """
        k = self._by_head(self.key_layer(x))  # (batch, heads, tokens, width)
        content, time = k.split([self.content, self.width - self.content], -1)
        time = torch.where(timed[:, None, :, None], turn.apply(time), 0.0)
        return torch.cat([content, time], -1), self._by_head(self.value_layer(x))

    def project_prompts(self, choice: PromptChoice, layer: int, code: Tensor) -> LayerPrompt:
        """Make keys and values of prompts; ``code`` (batch, positions, features)."""
        k = self.key_layer(choice.key_rows(layer)).unflatten(-1, (self.heads, -1))
        v = self.value_layer(choice.value_rows(layer)).unflatten(-1, (self.heads, -1))
        return LayerPrompt(
            k[..., : self.content].transpose(0, 1),  # (heads, rows, content)
            v.transpose(0, 1),
            *self.prompt_time(code),
            choice.visible_rows[:, None],
        )

    def cache(self, keys: Tensor, values: Tensor, prompt: LayerPrompt | None) -> LayerCache:
        """Put the row of zeros and the prompts before keys and values.

        The row of zeros is the 1 beside the sum of the weights. Columns that are not needed
        otherwise take up the temporal part of the prompts: a number that a query adds to the
        scores of all prompt rows, and the sum of their weights.
        """
        batch, heads = keys.shape[:2]
        width = self.width + (prompt is not None)
        width += -width % 8  # as the fast kernels want it
        keys = functional.pad(keys, (0, width - self.width))
        values = functional.pad(values, (0, width - self.content))
        zero = keys.new_zeros(batch, heads, 1, width)
        if prompt is None:
            return LayerCache(torch.cat([zero, keys], 2), torch.cat([zero, values], 2), None)
        one = torch.ones_like(prompt.keys[..., :1])
        timeless = functional.pad(prompt.keys, (0, self.width - self.content))
        k = torch.cat([timeless, one], -1)  # (heads, rows, width + 1)
        v = torch.cat([prompt.values, one], -1)  # (heads, rows, content + 1)
        k, v = (
            functional.pad(x, (0, width - x.shape[-1])).expand(batch, -1, -1, -1) for x in (k, v)
        )
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
        batch, _, queries, _ = turn.cos.shape
        if x is None:
            q = self.query_layer.bias.expand(1, queries, -1)
        else:
            q = self.query_layer(x)
        content, time = self._by_head(q).split([self.content, self.width - self.content], -1)
        content = content.expand(batch, -1, -1, -1)  # (batch, heads, queries, content)
        parts = [content, turn.apply(time)]
        prompt = cache.prompt
        nodes = queries // (part.stop - part.start)
        if prompt is not None:
            time_keys = prompt.time_keys[:, :, part, None]  # (batch, heads, positions, 1, content)
            by_position = content.unflatten(2, (-1, nodes))
            parts.append((by_position * time_keys).sum(-1).flatten(2)[..., None])
        q = torch.cat(parts, -1)
        q = functional.pad(q, (0, cache.keys.shape[-1] - q.shape[-1]))
        bias = mask.bias(part, prompt, q.dtype)  # (batch or 1, positions, columns)
        columns = bias.shape[-1]
        mixed = functional.scaled_dot_product_attention(
            q,
            cache.keys[:, :, :columns],
            cache.values[:, :, :columns],
            attn_mask=bias.repeat_interleave(nodes, 1)[:, None],
            scale=1 / math.sqrt(self.width),
        )  # (batch, heads, queries, width)
        out = mixed[..., : self.content]
        if prompt is not None:
            share = mixed[..., self.content].unflatten(2, (-1, nodes))[..., None]
            out = out + (share * prompt.time_values[:, :, part, None]).flatten(2, 3)
        return out.transpose(1, 2).flatten(2)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


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
    """Rotations of the time parts of queries or keys by angles, rates times their times."""

    cos: Tensor
    """(batch, 1, n, time_width / 2)."""
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotate (batch, heads, n, time_width)."""
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1)

    def at(self, part: slice) -> TimeRotation:
        """Take some of the times."""
        return TimeRotation(self.cos[:, :, part], self.sin[:, :, part])


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
