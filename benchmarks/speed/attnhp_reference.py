"""AttNHP computed as published code computes it, for a comparison of speed.

Written from the description of the method, not from published code. Each head is a stack of its
own, in a Python loop. Events and queries are one sequence of twice the length, and the whole
sequence passes every layer again for each sampled time: the batch is repeated once for each sampled
time of an interval. The integral is the mean over equally spaced times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.events.batch import EventBatch
from tsllm.adapters.events.decoders.attnhp import AttNHPDecoder, AttNHPEncoder
from tsllm.adapters.events.features import EventEmbedding


class RepeatedAttNHP(nn.Module):
    """The layers of `AttNHPEncoder`, one head at a time and all events again for every time.

    Parameters
    ----------
    embedding : EventEmbedding
        Its ``hidden`` is that of all heads together.
    n_types, layers, heads : int
    time_width : int
        Width of the time part of queries and keys.
    rates : Tensor
        ``(heads, time_width / 2)``, those of `AttNHPEncoder`.
    """

    def __init__(
        self,
        embedding: EventEmbedding,
        n_types: int,
        *,
        layers: int,
        heads: int,
        time_width: int,
        rates: Tensor,
    ) -> None:
        super().__init__()
        self.embedding, self.n_types = embedding, n_types
        self.width = embedding.hidden // heads
        self.rates: Tensor  # (heads, time_width / 2)
        self.register_buffer("rates", rates / embedding.time_encoding.median.double())
        self.heads = nn.ModuleList(
            nn.ModuleList(_HeadLayer(self.width, time_width) for _ in range(layers))
            for _ in range(heads)
        )
        self.head = nn.Linear(embedding.hidden, n_types)

    def intensities(self, batch: EventBatch, elapsed: Tensor) -> Tensor:
        """Return intensities (batch, positions, nodes, types) at times after each position."""
        nodes = elapsed.shape[2]
        x = self.embedding(batch)  # (batch, tokens, hidden)
        time = functional.pad(batch.gaps.double().cumsum(1), (1, 0))
        asked = (time[..., None] + elapsed.double()).permute(2, 0, 1).flatten(0, 1)
        x = x.repeat(nodes, 1, 1)  # (nodes * batch, tokens, hidden)
        both = torch.cat([time.repeat(nodes, 1), asked], 1)  # (nodes * batch, 2 tokens)
        mask = self._mask(x.shape[1], x.device)
        outputs = []
        parts = x.split(self.width, -1)
        for stack, part, rates in zip(self.heads, parts, self.rates, strict=True):
            angles = both[..., None] * rates
            turn = torch.complex(angles.cos().to(x.dtype), angles.sin().to(x.dtype))
            stream = torch.cat([part, torch.zeros_like(part)], 1)  # events, then queries
            for layer in stack:
                stream = layer(stream, turn, mask)
            outputs.append(stream[:, x.shape[1] :])
        z = torch.cat(outputs, -1).unflatten(0, (nodes, -1))  # (nodes, batch, positions, hidden)
        return functional.softplus(self.head(z)).permute(1, 2, 0, 3)

    def log_likelihood(self, batch: EventBatch, points: int) -> Tensor:
        """Return the mean-of-points likelihood (batch, positions), by two passes."""
        at_events = self.intensities(batch, batch.elapsed[..., None])[:, :, 0]
        fractions = torch.linspace(0, 1, points, device=batch.elapsed.device)
        sampled = self.intensities(batch, batch.elapsed[..., None] * fractions)
        return mean_likelihood(batch, at_events, sampled)

    def copy_into(self, encoder: AttNHPEncoder, decoder: AttNHPDecoder) -> None:
        """Copy the weights into encoder and decoder: stacks of heads become blocks of a matrix."""
        with torch.no_grad():
            encoder.embedding.load_state_dict(self.embedding.state_dict())
            decoder.head.load_state_dict(self.head.state_dict())
            for number, layer in enumerate(encoder.blocks):
                parts = [stack[number] for stack in self.heads]
                for name in ("query_layer", "key_layer", "value_layer"):
                    target = getattr(layer, name)
                    linears = [getattr(part, name) for part in parts]
                    target.weight.copy_(torch.block_diag(*(one.weight for one in linears)))
                    target.bias.copy_(torch.cat([one.bias for one in linears]))

    def _mask(self, tokens: int, device: torch.device) -> Tensor:
        """Return the mask: events see earlier events, queries see events up to their position."""
        earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril(-1)
        own = earlier | torch.eye(tokens, dtype=torch.bool, device=device)
        nobody = torch.zeros_like(earlier)
        return torch.cat([torch.cat([earlier, nobody], 1), torch.cat([own, nobody], 1)], 0)


def mean_likelihood(batch: EventBatch, at_events: Tensor, sampled: Tensor) -> Tensor:
    """Estimate the likelihood from intensities at events and equally spaced times in between.

    ``at_events`` (batch, positions, types), ``sampled`` (batch, positions, points, types).
    """
    chosen = at_events.gather(-1, batch.next_types[..., None])[..., 0].log()
    total = torch.where(batch.observed, chosen, 0.0) - batch.elapsed * sampled.sum(-1).mean(-1)
    return torch.where(batch.scored, total, 0.0)


class _HeadLayer(nn.Module):
    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.content = width - time_width
        self.query_layer = nn.Linear(width, width)
        self.key_layer = nn.Linear(width, width)
        self.value_layer = nn.Linear(width, width)

    def forward(self, x: Tensor, turn: Tensor, mask: Tensor) -> Tensor:
        q, k = self.query_layer(x), self.key_layer(x)
        q = torch.cat([q[..., : self.content], _rotate(q[..., self.content :], turn)], -1)
        timed = _rotate(k[..., self.content :], turn)
        start = torch.arange(x.shape[1], device=x.device)[:, None] == 0
        k = torch.cat([k[..., : self.content], timed.masked_fill(start, 0.0)], -1)
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (rows, 2 tokens, 2 tokens)
        weights = scores.masked_fill(~mask, -torch.inf).exp()
        mixed = weights @ self.value_layer(x) / (1 + weights.sum(-1, keepdim=True))
        return x + mixed.tanh()


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)
