"""A frozen language model over events, and event types as text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.features import TimeEncoding, TypeVectors, add_context
from tsllm.adapters.events.prompt_pool import PromptChoice

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone


def mean_token_embeddings(backbone: Backbone | PrivateBackbone, texts: Sequence[str]) -> Tensor:
    """Embed texts as one soft token each, the mean of the word embeddings of their tokens.

    Returns (texts, hidden) float32, on the CPU.

    Examples
    --------
    >>> from tsllm.backbone import load_backbone
    >>> mean_token_embeddings(load_backbone("random:gpt2", device="cpu"), ["rain", "hail"]).shape
    torch.Size([2, 64])
    """
    # A PrivateBackbone has the tokenizer and the words of the backbone inside.
    handle: Any = getattr(backbone, "backbone", backbone)
    rows = handle.tokens(texts, add_special_tokens=False)
    words = handle.word_embeddings
    means = [words[torch.tensor(ids, device=words.device)].float().mean(0) for ids in rows]
    return torch.stack(means).cpu()


def word_rms(backbone: Backbone | PrivateBackbone) -> float:
    """Compute the root mean square of the numbers in a backbone's word embeddings."""
    return float(backbone.word_embeddings.float().square().mean().sqrt())


class TextTypeHead(nn.Module):
    """Type logits tied to texts: the state times the projected vector of each type's text.

    A new type has a logit as soon as it has a text.

    Examples
    --------
    >>> head = TextTypeHead(8, torch.randn(3, 20))
    >>> head.grow(torch.randn(2, 20))
    >>> head(torch.randn(4, 8)).shape
    torch.Size([4, 5])
    """

    def __init__(self, hidden: int, type_vectors: Tensor) -> None:
        super().__init__()
        self.vectors = TypeVectors(type_vectors)
        self.projection = nn.Linear(type_vectors.shape[1], hidden)
        self.bias = nn.Parameter(torch.zeros(len(type_vectors)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (..., hidden) to logits (..., types)."""
        table = self.projection(self.vectors.table)  # (types, hidden)
        return hidden @ table.T / table.shape[1] ** 0.5 + self.bias

    def grow(self, type_vectors: Tensor) -> None:
        """Add types by the vectors of their texts; their biases start at the mean."""
        self.vectors.grow(type_vectors)
        bias = self.bias.detach()
        new = bias.mean().expand(len(type_vectors))
        self.bias = nn.Parameter(torch.cat([bias, new]), self.bias.requires_grad)


class EventTokens(nn.Module):
    """Two soft tokens an event, of the size of words: its type's text and its inter-event time.

    ``word_rms`` is the root mean square of the language model's word embeddings, ``type_vectors``
    (types, width) come from `mean_token_embeddings`, and static covariates are added to the time
    tokens and to the start.
    """

    def __init__(
        self,
        word_rms: float,
        type_vectors: Tensor,
        *,
        time_features: int = 32,
        median_gap: float = 1.0,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        width = type_vectors.shape[1]
        self.width = width
        self.word_rms: Tensor
        self.register_buffer("word_rms", torch.tensor(float(word_rms)))
        self.table: Tensor
        self.register_buffer("table", self._scaled(type_vectors.detach().float()))
        self.time_encoding = TimeEncoding(time_features, median_gap=median_gap)
        self.time_layer = nn.Linear(time_features, width)
        # Sines and cosines have a mean square of 1/2: the token starts at the size of a word.
        nn.init.normal_(self.time_layer.weight, std=(2 / time_features) ** 0.5)
        self.start = nn.Parameter(torch.randn(width))
        self.context_layer = (
            nn.Linear(context_features, width, bias=False) if context_features else None
        )

    def first(self, batch: int, context: Tensor | None) -> Tensor:
        """Compute the start's token, (batch, 1, width)."""
        start = self.start.expand(batch, 1, -1)
        return add_context(self.context_layer, start, context) * self.word_rms

    def forward(self, types: Tensor, gaps: Tensor, context: Tensor | None) -> Tensor:
        """Compute the tokens of events (batch, events): (batch, 2 * events, width)."""
        time = self.time_layer(self.time_encoding(gaps))  # (batch, events, width)
        time = add_context(self.context_layer, time, context)
        pairs = torch.stack([self.table[types], time * self.word_rms], 2)
        return pairs.flatten(1, 2)

    def grow(self, n_types: int, type_vectors: Tensor | None) -> None:
        """Add types by the vectors of their texts."""
        assert type_vectors is not None
        self.table = torch.cat([self.table, self._scaled(type_vectors.to(self.table))])

    def _scaled(self, vectors: Tensor) -> Tensor:
        """Scale vectors to the size of words: means of several tokens are shorter."""
        rms = vectors.square().mean(-1, keepdim=True).sqrt()
        return vectors / rms.clamp_min(1e-12) * self.word_rms


@dataclass(frozen=True)
class LLMState:
    """The KV cache of streams and its events; it grows with each event."""

    past: Any
    """The cache; its columns are the prompts', the start, and two an event."""
    real: Tensor
    """(batch, columns) bool, True for tokens of the sequence, without the prompts' columns."""
    counts: Tensor
    """(batch,), events in the cache."""
    types: Tensor
    """(batch, events), those events, padded on the right."""
    gaps: Tensor
    """(batch, events)."""
    visible: Tensor | None
    """(batch, 1 + events, slots) bool: the prompts of their positions."""
    context: Tensor | None
    """(batch, features), static covariates."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of the tensors."""
        cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in self.past.layers)
        own = (self.real, self.counts, self.types, self.gaps, self.visible)
        return int(cached) + sum(part.nbytes for part in own if part is not None)


class LLMEncoder(nn.Module):
    """A language model over ``[prompts][start][type][time][type][time]...``, run causally.

    The state at position i is the language model's at the time token of event i. The prompts of all
    slots stand before the events, at the same positions, and each event attends only to its own
    prompts: retrieval by position at the cost of one prefix. Prompts are soft tokens without a
    temporal part, because the time tokens carry the time.

    The language model's positions hold `max_events` events. In a longer sequence, reading starts
    again from the last half of them, as often as needed: a position sees at least ``max_events //
    2`` of the events before it, and the same ones in a stream and in a whole sequence.

    Parameters
    ----------
    backbone : Backbone or PrivateBackbone
        The language model; the weights of a `PrivateBackbone` (LoRA) are trained with the rest.
    hidden : int
        Width of the states for the decoder.
    tokens : EventTokens
        Computes the tokens of events.
    prompt_length : int, default=5
        Positions that are kept for prompts.
    max_events : int or None, default=None
        Maximal number of events read at once; None: as many as the positions hold, or all.
    dropout : float, default=0.0
        Dropout of the states.

    Raises
    ------
    ValueError
        For fewer positions than two events need, or a ``max_events`` below 2 or above the
        positions.

    Examples
    --------
    >>> from tsllm.adapters.events.batch import pad_sequences
    >>> from tsllm.backbone import load_backbone
    >>> backbone = load_backbone("random:gpt2", device="cpu")
    >>> tokens = EventTokens(0.02, mean_token_embeddings(backbone, ["rain", "hail"]))
    >>> encoder = LLMEncoder(backbone, 16, tokens).eval()
    >>> batch = pad_sequences([[0.5, 2.0]], [[0, 1]], first_known=[True], tails=[1.0])
    >>> encoder.encode(batch).hidden.shape
    torch.Size([1, 3, 16])
    """

    #: A prompt has one part, soft tokens, in one layer.
    prompt_parts, prompt_layers = 1, 1

    def __init__(
        self,
        backbone: Backbone | PrivateBackbone,
        hidden: int,
        tokens: EventTokens,
        *,
        prompt_length: int = 5,
        max_events: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone, self.hidden, self.embedding = backbone, hidden, tokens
        self.prompt_length = prompt_length
        self.max_events = _check_events(backbone, prompt_length, max_events)
        self.norm = nn.LayerNorm(backbone.hidden_size)
        self.out_layer = nn.Linear(backbone.hidden_size, hidden)
        self.dropout = nn.Dropout(dropout)

    @property
    def prompt_width(self) -> int:
        """Return the width of a prompt row: that of a token."""
        return self.backbone.hidden_size

    def encode(self, batch: EventBatch, prompts: PromptChoice | None = None) -> EventStates:
        """Encode all positions, (batch, 1 + events, hidden)."""
        lengths, parts = batch.lengths, []
        events = batch.types.shape[1]
        for start, first in self._blocks(events):
            rows = torch.arange(len(batch), device=batch.types.device)
            if start:
                rows = rows[lengths >= first]
            last = min(events, start + (self.max_events or events))
            states = self._run(
                batch.types[rows, start:last],
                batch.gaps[rows, start:last],
                batch.mask[rows, start:last],
                None if batch.context is None else batch.context[rows],
                prompts,
                None if prompts is None else prompts.visible[rows, start : last + 1],
            )[0]
            states = states[:, first - start :]
            if len(rows) < len(batch):
                empty = states.new_zeros(len(batch), *states.shape[1:])
                states = empty.index_copy(0, rows, states)
            parts.append(states)
        return EventStates(torch.cat(parts, 1))

    def init_state(
        self, batch: EventBatch, prompts: PromptChoice | None = None
    ) -> tuple[LLMState, EventStates]:
        """Encode the histories of streams; return their states after the last event."""
        starts = torch.tensor(
            [self._start_of(length) for length in batch.lengths.tolist()],
            device=batch.types.device,
            dtype=torch.long,
        )
        counts = batch.lengths - starts
        places = torch.arange(int(counts.max()) + 1, device=starts.device)[None] + starts[:, None]
        events = places[:, :-1].clamp_max(max(0, batch.types.shape[1] - 1))
        visible = None
        if prompts is not None:
            among = places.clamp_max(prompts.visible.shape[1] - 1)
            visible = prompts.visible.gather(
                1, among[..., None].expand(-1, -1, prompts.visible.shape[2])
            )
        return self._fill(
            batch.types.gather(1, events),
            batch.gaps.gather(1, events),
            counts,
            visible,
            batch.context,
            prompts,
        )

    def step(
        self, state: LLMState, types: Tensor, gaps: Tensor, prompts: PromptChoice | None = None
    ) -> tuple[LLMState, EventStates]:
        """Continue streams by one event each, with the KV cache; see `AttentionEncoder.step`.

        When the positions of a stream are used up, its last events are read again.

        Raises
        ------
        ValueError
            When prompt slots were opened or merged since the state was made.
        """
        slots = 0 if state.visible is None else state.visible.shape[2]
        if slots != (0 if prompts is None else len(prompts.rows)):
            raise ValueError(
                f"the stream's state was made with {slots} prompt slots, and there are "
                f"{0 if prompts is None else len(prompts.rows)}: make it anew with init_state"
            )
        full = state.counts == (self.max_events if self.max_events is not None else -1)
        if bool(full.any()):
            return self._restart(state, full, types, gaps, prompts)
        last = state.counts[:, None]
        after_types = _put(functional.pad(state.types, (0, 1)), last, types)
        after_gaps = _put(functional.pad(state.gaps, (0, 1)), last, gaps)
        visible = None
        if state.visible is not None and prompts is not None:
            visible = functional.pad(state.visible, (0, 0, 0, 1))
            rows = torch.arange(len(types), device=types.device)
            visible = visible.index_put((rows, state.counts + 1), prompts.visible[:, 0])
        tokens = self.embedding(types[:, None], gaps[:, None], state.context)  # (batch, 2, width)
        real = functional.pad(state.real, (0, 2), value=True)
        seen = real[:, None].repeat(1, 2, 1)
        seen[:, 0, -1] = False  # the type token does not see the time token
        if prompts is not None:
            before = prompts.visible_rows.expand(-1, 2, -1)
            seen = torch.cat([before, seen], -1)
        first = self.prompt_length + 1 + 2 * state.counts[:, None]  # (batch, 1)
        positions = torch.cat([first, first + 1], 1)
        past = _fork(state.past)
        out = self.backbone.hidden(tokens, past, attention_mask=seen, positions=positions)
        after = LLMState(
            out.past, real, state.counts + 1, after_types, after_gaps, visible, state.context
        )
        return after, EventStates(self._finish(out.states[:, -1:]))

    def _restart(
        self,
        state: LLMState,
        full: Tensor,
        types: Tensor,
        gaps: Tensor,
        prompts: PromptChoice | None,
    ) -> tuple[LLMState, EventStates]:
        """Drop the first half of the events of full streams, and read the rest with new ones."""
        assert self.max_events is not None
        shift = torch.where(full, self.max_events - self.max_events // 2, 0)[:, None]
        width = state.types.shape[1]
        places = torch.arange(width, device=types.device)[None] + shift
        moved = places.clamp_max(width - 1)
        counts = state.counts - shift[:, 0]
        all_types = _put(
            functional.pad(state.types.gather(1, moved), (0, 1)), counts[:, None], types
        )
        all_gaps = _put(functional.pad(state.gaps.gather(1, moved), (0, 1)), counts[:, None], gaps)
        visible = None
        if state.visible is not None and prompts is not None:
            places = torch.arange(width + 1, device=types.device)[None] + shift
            among = places.clamp_max(width)[..., None].expand(-1, -1, state.visible.shape[2])
            visible = functional.pad(state.visible.gather(1, among), (0, 0, 0, 1))
            rows = torch.arange(len(types), device=types.device)
            visible = visible.index_put((rows, counts + 1), prompts.visible[:, 0])
        counts = counts + 1
        longest = int(counts.max())
        return self._fill(
            all_types[:, :longest],
            all_gaps[:, :longest],
            counts,
            None if visible is None else visible[:, : longest + 1],
            state.context,
            prompts,
        )

    def _fill(
        self,
        types: Tensor,
        gaps: Tensor,
        counts: Tensor,
        visible: Tensor | None,
        context: Tensor | None,
        prompts: PromptChoice | None,
    ) -> tuple[LLMState, EventStates]:
        """Create the cache of events (batch, events), of which the first ``counts`` are real."""
        mask = torch.arange(types.shape[1], device=types.device) < counts[:, None]
        hidden, past = self._run(types, gaps, mask, context, prompts, visible, use_cache=True)
        real = functional.pad(mask.repeat_interleave(2, 1), (1, 0), value=True)
        state = LLMState(past, real, counts, types, gaps, visible, context)
        return state, EventStates(hidden).at(counts)

    def _run(
        self,
        types: Tensor,
        gaps: Tensor,
        mask: Tensor,
        context: Tensor | None,
        prompts: PromptChoice | None,
        visible: Tensor | None,
        *,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any]:
        """Read a block of events: states (batch, 1 + events, hidden), and the cache."""
        first = self.embedding.first(len(types), context)
        x = torch.cat([first, self.embedding(types, gaps, context)], 1)  # (batch, tokens, width)
        tokens = x.shape[1]
        positions = self.prompt_length + torch.arange(tokens, device=x.device)[None]
        pattern, slots = None, 0
        if prompts is not None and visible is not None:
            rows = prompts.rows[:, 0, 0] * self.embedding.word_rms  # (slots, length, width)
            slots, length = rows.shape[:2]
            x = torch.cat([rows.flatten(0, 1).expand(len(x), -1, -1), x], 1)
            own = torch.arange(length, device=x.device).repeat(slots)[None]
            positions = torch.cat([own, positions], 1)
            pattern = _pattern(visible, length, mask)
        out = self.backbone.hidden(
            x, attention_mask=pattern, positions=positions, use_cache=use_cache
        )
        # The state of position 0 is that of the start, followed by every second token's.
        states = out.states[:, x.shape[1] - tokens :: 2]
        return self._finish(states), out.past

    def _finish(self, states: Tensor) -> Tensor:
        out: Tensor = self.out_layer(self.dropout(self.norm(states)))
        return out

    def _blocks(self, events: int) -> list[tuple[int, int]]:
        """List the starts of blocks, each with the first position whose state it computes."""
        blocks = [(0, 0)]
        if self.max_events is not None:
            stride = self.max_events - self.max_events // 2
            while blocks[-1][0] + self.max_events < events:
                start = blocks[-1][0] + stride
                blocks.append((start, start + self.max_events // 2 + 1))
        return blocks

    def _start_of(self, length: int) -> int:
        """Return the start of the block that contains the end of so many events."""
        return self._blocks(length)[-1][0]


def _pattern(visible: Tensor, length: int, mask: Tensor) -> Tensor:
    """Return the columns that each token attends to, (batch, tokens, tokens).

    Tokens are ``length`` of each slot, the start, and two an event. Tokens of a slot see those of
    the slot, the others those of the slots visible (batch, 1 + events, slots) at their position.
    """
    batch, positions, slots = visible.shape
    rows, tokens = slots * length, 2 * positions - 1
    device = visible.device
    number = torch.arange(rows, device=device)
    prefix = (number[:, None] // length == number // length) & (number[:, None] >= number)
    position = (torch.arange(tokens, device=device) + 1) // 2  # of each token
    chosen = visible.repeat_interleave(length, -1)[:, position]  # (batch, tokens, rows)
    real = functional.pad(mask.repeat_interleave(2, 1), (1, 0), value=True)[:, None]
    earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    own = torch.eye(tokens, dtype=torch.bool, device=device)
    events = torch.cat([chosen, (earlier & real) | own], -1)
    before = functional.pad(prefix, (0, tokens)).expand(batch, -1, -1)
    return torch.cat([before, events], 1)


def _put(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Write values (batch,) at places (batch, 1) of x (batch, n)."""
    return x.scatter(1, places, values[:, None].to(x.dtype))


def _fork(past: Any) -> Any:
    """Copy a KV cache and share its tensors: new tokens are concatenated, not written in."""
    fork = copy.copy(past)
    fork.layers = [copy.copy(layer) for layer in past.layers]
    return fork


def _check_events(
    backbone: Backbone | PrivateBackbone, prompt_length: int, max_events: int | None
) -> int | None:
    """Return the maximal number of events that are read at once; None for no limit."""
    most = backbone.max_positions
    if most is None:
        fitting = None
    else:
        fitting = (most - prompt_length - 1) // 2
        if fitting < 2:
            raise ValueError(
                f"the backbone's {most} positions hold {max(0, fitting)} events beside a prompt of "
                f"{prompt_length}: use a shorter prompt, or a backbone with more positions"
            )
    if max_events is None:
        return fitting
    if max_events < 2 or (fitting is not None and max_events > fitting):
        raise ValueError(
            f"max_events={max_events} must be from 2 to the {fitting} that the backbone's "
            "positions hold"
        )
    return max_events
