"""Causal mixers to compare with Aaren: minGRU, softmax attention, none."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.aaren.prefix_scan import prefix_scan
from tsllm.adapters.aaren.state import AarenState


class MinGRU(nn.Module):
    """A gated recurrent unit whose gate depends only on the current token (minGRU).

    Feng et al., "Were RNNs All We Needed?" (arXiv 2410.01201, section 3.1): ``h_t = (1 - z_t)
    h_{t-1} + z_t c_t`` with ``z = sigmoid(linear(x))`` and ``c = linear(x)``. This is a prefix
    softmax average with one head a channel, in which h_0 = 0 is a token of score 0 and token t has
    the score ``log z_t - sum_{i<=t} log(1 - z_i)``; it uses Aaren's kernel and state.

    Parameters
    ----------
    hidden : int
        Width of a token.

    Examples
    --------
    >>> mixer = MinGRU(4)
    >>> x = torch.randn(2, 3, 4)
    >>> y, state = mixer.extend(mixer.empty_state(2), x)
    >>> torch.allclose(y, mixer(x), atol=1e-6)
    True
    """

    # The scores rise with each token: short segments allow plain cumulative sums.
    _chunk = 32

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate_layer = nn.Linear(hidden, hidden)
        self.candidate_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, **_: Any) -> Tensor:
        """Compute the outputs (batch, tokens, hidden); masked tokens are skipped."""
        state = self.empty_state(len(x))
        wide = torch.promote_types(x.dtype, torch.float32)
        state = AarenState(state.m, state.u.to(wide), state.w.to(wide))
        return self.extend(state, x, mask=mask)[0]

    def extend(
        self, state: AarenState, x: Tensor, *, mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, AarenState]:
        """Continue a stream by tokens (batch, tokens, hidden)."""
        gate = self._gate(x, mask).mT  # (batch, hidden, tokens)
        # log z - sum log(1 - z), with log z = -softplus(-gate) and log(1 - z) = -softplus(gate)
        scores = functional.softplus(gate).cumsum(-1) - functional.softplus(-gate)
        values = self.candidate_layer(x).mT[..., None]  # (batch, hidden, tokens, 1)
        averages, after = prefix_scan(scores, values, state, chunk=self._chunk)
        return averages[..., 0].mT, self._state(after.average()[..., 0])

    def step(
        self, state: AarenState, x: Tensor, *, mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, AarenState]:
        """Continue a stream by one token (batch, hidden)."""
        gate = self._gate(x, mask).sigmoid()
        before = state.w[..., 0]  # (batch, hidden)
        after = before + gate.to(before.dtype) * (self.candidate_layer(x).to(before.dtype) - before)
        return after.to(x.dtype), self._state(after)

    def empty_state(self, batch: int) -> AarenState:
        """Create the state before the first token: h = 0."""
        weight = self.gate_layer.weight
        return self._state(weight.new_zeros(batch, weight.shape[0], dtype=torch.float64))

    def _gate(self, x: Tensor, mask: Tensor | None) -> Tensor:
        gate = self.gate_layer(x).double()  # summed over all tokens
        return gate if mask is None else gate.masked_fill(~mask[..., None], -torch.inf)

    def _state(self, h: Tensor) -> AarenState:
        """Return h (batch, hidden) as a state of one token of score 0."""
        return AarenState(torch.zeros_like(h), torch.ones_like(h), h[..., None])


class NoMixing(nn.Module):
    """No mixing: each token is alone, and the state is empty."""

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        """Return zeros, which do not change a residual."""
        return torch.zeros_like(x)

    def extend(self, state: AarenState, x: Tensor, **_: Any) -> tuple[Tensor, AarenState]:
        """Continue a stream by tokens."""
        return torch.zeros_like(x), state

    step = extend

    def empty_state(self, batch: int) -> AarenState:
        """Create a state without elements."""
        return AarenState.empty(batch, heads=0, width=0)


class CausalAttention(nn.Module):
    """Causal multi-head softmax attention without positions, for comparison.

    Vaswani et al., NeurIPS 2017, section 3.2. Its cache would grow with each token: it cannot
    stream.

    Parameters
    ----------
    hidden : int
        Width of a token, a multiple of ``heads``.
    heads : int
        Number of heads.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} must be a multiple of heads={heads}")
        self.heads = heads
        self.in_layer = nn.Linear(hidden, 3 * hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, **_: Any) -> Tensor:
        """Attend to earlier tokens that are not masked, (batch, tokens, hidden)."""
        q, k, v = self.in_layer(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        visible = None
        if mask is not None:
            n = x.shape[1]
            earlier = torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
            own = torch.eye(n, dtype=torch.bool, device=x.device)
            visible = (earlier & mask[:, None, None]) | own  # (batch, 1, tokens, tokens)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, is_causal=visible is None
        )  # (batch, heads, tokens, width)
        return self.out_layer(mixed.transpose(1, 2).flatten(2))

    def empty_state(self, batch: int) -> AarenState:
        """Create a state without elements: no state has constant size."""
        return AarenState.empty(batch, heads=0, width=0)

    def extend(self, state: AarenState, x: Tensor, **_: Any) -> tuple[Tensor, AarenState]:
        """Raise an error: a stream would need all tokens."""
        raise ValueError(
            "mixer='attention' has no state of constant size and cannot continue a stream: "
            "use 'aaren' or 'mingru', or re-encode the context"
        )

    step = extend
