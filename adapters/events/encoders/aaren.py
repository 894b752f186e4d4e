"""Aaren over events: streams in constant memory, with prompts as initial states."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.aaren.attention import AarenAttention, AarenBlock
from tsllm.adapters.aaren.prefix_scan import prefix_scan
from tsllm.adapters.aaren.state import AarenState, finite_or_zero
from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.encoders.stack import EventStack
from tsllm.adapters.events.features import EventEmbedding
from tsllm.adapters.events.prompt_pool import PromptChoice


class PromptedAaren(AarenAttention):
    """Aaren whose average includes, at each token, the prompts of this token.

    The rows of a prompt are a state like that of tokens, so the prompt of a token is merged with
    the state of the tokens up to it (Feng et al., arXiv 2405.13956, section 3.2): the average is
    the same as if the stream had begun with that prompt. Other prompts at the next token need only
    another merge. Tokens decay with time, prompts do not. The temporal part of a prompt adds a
    number to the scores of all its rows and a vector to their values, as in `PromptedAttention`.
    """

    def __init__(self, hidden: int, heads: int, time_features: int) -> None:
        super().__init__(hidden, heads, decay=True)
        self.prompt_score_layer = nn.Linear(time_features, heads, bias=False)
        self.prompt_value_layer = nn.Linear(time_features, hidden, bias=False)

    def fold_prompts(self, choice: PromptChoice, layer: int, code: Tensor) -> AarenState:
        """Reduce the prompts that each position sees to a float64 state.

        ``code`` is (batch, positions, time_features). The state has an axis of positions after that
        of the heads.
        """
        weight, bias = self.folded_weight()
        scores = functional.linear(choice.key_rows(layer), weight, bias).double().mT
        scores = scores.unflatten(1, (len(choice.rows), -1))  # (heads, slots, length)
        values = self.value_layer(choice.value_rows(layer)).double()  # (rows, hidden)
        values = values.unflatten(0, scores.shape[1:]).unflatten(-1, (self.heads, -1))
        m = scores.amax(-1)  # (heads, slots)
        weights = (scores - m[..., None]).exp()
        u = weights.sum(-1)
        w = torch.einsum("hsl,slhw->hsw", weights, values)
        # The slots that a position sees, merged: (batch, heads, positions, slots)
        seen = torch.where(choice.visible[:, None], m[:, None], -torch.inf)
        top = seen.amax(-1)  # (batch, heads, positions)
        share = (seen - finite_or_zero(top)[..., None]).exp()
        u = torch.einsum("bhps,hs->bhp", share, u)
        w = torch.einsum("bhps,hsw->bhpw", share, w)
        time_values = self.prompt_value_layer(code).double().unflatten(-1, (self.heads, -1))
        w = w + u[..., None] * time_values.transpose(1, 2)
        return AarenState(top + self.prompt_score_layer(code).double().mT, u, w)

    def mix(
        self,
        x: Tensor,
        elapsed: Tensor,
        prompts: AarenState | None,
        *,
        state: AarenState | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, AarenState]:
        """Average tokens (batch, tokens, hidden), those before them, and prompts.

        ``prompts`` come from `fold_prompts`; ``mask`` is False for tokens that do not change the
        state. Returns the outputs, and the state of the tokens without prompts.
        """
        if state is None:
            wide = torch.promote_types(x.dtype, torch.float32)
            state = AarenState.empty(
                len(x), heads=self.heads, width=self.width, dtype=wide, device=x.device
            )
        if prompts is None:
            return self.extend(state, x, mask=mask, elapsed=elapsed)
        scores, values, state = self._scored(x, state, mask, elapsed)
        averages, after = prefix_scan(scores, values, state)
        rates = self.decay_rates()
        assert rates is not None
        time = elapsed.double().cumsum(1)
        # Scores are relative to the last token's time; those of prompts to their token's time.
        passed = (time[:, -1:] - time)[:, None] * rates.double()[:, None]
        # The state is added after the sums: the gradient of logcumsumexp at -inf is NaN.
        before = (state.m + state.u.double().log())[..., None]
        total = torch.logaddexp(scores.logcumsumexp(-1), before) + passed
        tokens = AarenState(total, torch.ones_like(total), averages.double())
        merged = tokens.merge(prompts).average().to(x.dtype)  # (batch, heads, tokens, width)
        return self.out_layer(merged.transpose(1, 2).flatten(2)), after


class PromptedAarenBlock(AarenBlock):
    """A pre-norm block with `PromptedAaren`."""

    def __init__(self, hidden: int, heads: int, time_features: int, dropout: float) -> None:
        super().__init__(hidden, heads, feedforward=4 * hidden, mixer="none", dropout=dropout)
        self.mixer = PromptedAaren(hidden, heads, time_features)

    def mix(
        self,
        x: Tensor,
        elapsed: Tensor,
        prompts: AarenState | None,
        *,
        state: AarenState | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, AarenState]:
        """Map tokens (batch, tokens, hidden) to the same; see `PromptedAaren.mix`."""
        mixed, after = self.mixer.mix(self._start(x), elapsed, prompts, state=state, mask=mask)
        return self._finish(x, mixed), after


@dataclass(frozen=True)
class AarenEventState:
    """The state of streams, of constant size."""

    layers: tuple[AarenState, ...]
    """Of the tokens of each layer, float64."""
    context: Tensor | None
    """(batch, features), static covariates."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of the states."""
        return sum(state.nbytes for state in self.layers)


class AarenEncoder(EventStack[PromptedAarenBlock]):
    """Aaren over events, with prompts as initial states: updates in constant time and memory.

    Token 0 is the start of the sequence, token i event i; the state at position i is the output at
    token i.

    Parameters
    ----------
    embedding : EventEmbedding
        Computes the tokens of events; its ``hidden`` is the width here.
    layers : int, default=2
        Blocks.
    heads : int, default=4
        Heads of a block.
    dropout : float, default=0.0
        Dropout after Aaren and in the feed-forward part.

    Examples
    --------
    >>> from tsllm.adapters.events.batch import pad_sequences
    >>> batch = pad_sequences([[0.5, 2.0]], [[0, 1]], first_known=[True], tails=[1.0])
    >>> encoder = AarenEncoder(EventEmbedding(2, 16)).eval()
    >>> state, states = encoder.init_state(batch)
    >>> size = state.nbytes
    >>> for gap in (0.5, 2.0, 1.0):
    ...     state, states = encoder.step(state, torch.tensor([1]), torch.tensor([gap]))
    >>> states.hidden.shape, state.nbytes == size
    (torch.Size([1, 1, 16]), True)
    """

    def __init__(
        self, embedding: EventEmbedding, *, layers: int = 2, heads: int = 4, dropout: float = 0.0
    ) -> None:
        hidden, features = embedding.hidden, embedding.time_encoding.features
        blocks = (PromptedAarenBlock(hidden, heads, features, dropout) for _ in range(layers))
        super().__init__(embedding, blocks, dropout)
        self.norm = nn.LayerNorm(hidden)

    def encode(self, batch: EventBatch, prompts: PromptChoice | None = None) -> EventStates:
        """Encode all positions, (batch, 1 + events, hidden)."""
        x = self.dropout(self.embedding(batch))
        elapsed = functional.pad(batch.gaps, (1, 0))
        return EventStates(self._run(x, elapsed, prompts)[0])

    def init_state(
        self, batch: EventBatch, prompts: PromptChoice | None = None
    ) -> tuple[AarenEventState, EventStates]:
        """Encode the histories of streams; return their states after the last event."""
        elapsed = functional.pad(torch.where(batch.mask, batch.gaps, 0.0), (1, 0))
        hidden, layers = self._run(
            self.embedding(batch),
            elapsed,
            prompts,
            states=tuple(block.mixer.empty_state(len(batch)) for block in self._blocks()),
            mask=functional.pad(batch.mask, (1, 0), value=True),
        )
        return AarenEventState(layers, batch.context), EventStates(hidden).at(batch.lengths)

    def step(
        self,
        state: AarenEventState,
        types: Tensor,
        gaps: Tensor,
        prompts: PromptChoice | None = None,
    ) -> tuple[AarenEventState, EventStates]:
        """Continue streams by one event each, in constant time; see `AttentionEncoder.step`."""
        state, hidden = self.extend(state, types[:, None], gaps[:, None], prompts)
        return state, EventStates(hidden)

    def extend(
        self,
        state: AarenEventState,
        types: Tensor,
        gaps: Tensor,
        prompts: PromptChoice | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[AarenEventState, Tensor]:
        """Continue streams by several events, (batch, events); return (batch, events, hidden).

        ``mask`` is False for padding on the right.
        """
        context = None if state.context is None else state.context[:, None]
        x = self.embedding.token(types, gaps, context)
        elapsed = gaps if mask is None else torch.where(mask, gaps, 0.0)
        hidden, layers = self._run(x, elapsed, prompts, states=state.layers, mask=mask)
        return AarenEventState(layers, state.context), hidden

    def _run(
        self,
        x: Tensor,
        elapsed: Tensor,
        prompts: PromptChoice | None,
        *,
        states: tuple[AarenState, ...] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[AarenState, ...]]:
        """Run the blocks over tokens (batch, tokens, hidden)."""
        folds = self._prompts(
            prompts,
            lambda block, choice, number, code: block.mixer.fold_prompts(choice, number, code),
        )
        after = []
        for number, (block, folded) in enumerate(zip(self._blocks(), folds, strict=True)):
            state = None if states is None else states[number]
            x, state = block.mix(x, elapsed, folded, state=state, mask=mask)
            after.append(state)
        return self.norm(x), tuple(after)
