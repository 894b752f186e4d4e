"""The attentive neural Hawkes process: layer, encoder and decoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder, GrowsTypes, grow_linear, of_type
from tsllm.adapters.events.decoders.closed_form import log_softplus
from tsllm.adapters.events.encoders.attention import LayerPrompt
from tsllm.adapters.events.encoders.stack import EventStack
from tsllm.adapters.events.features import EventEmbedding
from tsllm.adapters.events.prompt_pool import PromptChoice
from tsllm.adapters.events.quadrature import squared_rule

#: Rates of the time code in median inter-event times, fastest and slowest: powers of 10.
RATES = (0.5, -3.0)
#: Numbers of a query tensor in memory at once; more positions or nodes are split into blocks.
BLOCK = 2**22
#: Least number of blocks of many positions: a block does not need the keys after it.
BLOCKS = 4
#: Up to so many columns, plain products are faster on a CPU than the fused kernel.
SHORT = 64


@dataclass(frozen=True)
class TimeRotation:
    """Rotations of the time parts of queries or keys by angles, rates times their times.

    As rotary positions (Su et al., arXiv 2104.09864, section 3.2): a score of rotated parts depends
    on the difference of the times only.
    """

    phase: Tensor
    """(batch, heads, n, time_width / 2), complex numbers of length 1."""

    @classmethod
    def by(cls, angles: Tensor, dtype: torch.dtype) -> "TimeRotation":
        """Create rotations by angles (batch, heads, n, time_width / 2), of any size in float64."""
        return cls(torch.complex(angles.cos().to(dtype), angles.sin().to(dtype)))

    def apply(self, x: Tensor, *more: Tensor) -> Tensor:
        """Transform the last columns of (batch, heads, n, width) pair by pair, and append more."""
        time_width = 2 * self.phase.shape[-1]
        content, time = x.split([x.shape[-1] - time_width, time_width], -1)
        pairs = time.to(self.phase.real.dtype).unflatten(-1, (-1, 2))
        if x.shape[-1] % 2:
            pairs = pairs.contiguous()  # complex numbers begin at even places
        turned = torch.view_as_real(torch.view_as_complex(pairs) * self.phase).flatten(-2)
        return torch.cat([content.expand(*turned.shape[:-1], -1), turned, *more], -1)

    def at(self, part: slice) -> "TimeRotation":
        """Select some of the times."""
        return TimeRotation(self.phase[:, :, part])


@dataclass(frozen=True)
class TokenMask:
    """The tokens that are visible after each position; rows of 1 stand for a whole batch."""

    order: Tensor
    """(batch or 1, tokens) int64, the place of each token in its sequence."""
    seen: Tensor
    """(batch or 1, positions) int64, the last place that is visible."""
    aligned: bool
    """True where token i has place i, so that later tokens can be left out."""

    def bias(self, part: slice, prompt: LayerPrompt | None, dtype: torch.dtype) -> Tensor:
        """Return 0 or -inf for zero row, prompts and tokens: (batch or 1, n, columns).

        The row of zeros is always visible: each query has at least one key.
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

    def select(self, rows: Tensor, positions: Tensor) -> "TokenMask":
        """Select single positions of some sequences."""
        if len(self.order) == 1:
            order, seen = self.order.expand(len(rows), -1), self.seen[0, positions]
        else:
            order, seen = self.order[rows], self.seen[rows, positions]
        return TokenMask(order, seen[:, None], aligned=False)


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer: a row of zeros, the prompts, the tokens."""

    keys: Tensor
    """(batch, heads, 1 + rows + tokens, width)."""
    values: Tensor
    prompt: LayerPrompt | None

    def select(self, rows: Tensor, positions: Tensor) -> "LayerCache":
        """Select single positions of some sequences."""
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


class AttNHPLayer(nn.Module):
    """One attention layer, the same for the event stream and for queries.

    Queries and keys of a head have a content part and a time part. They are as wide as its values,
    or ``2 * time_width`` if that is more.
    """

    def __init__(self, hidden: int, heads: int, time_width: int, time_features: int) -> None:
        super().__init__()
        self.heads, self.value_width = heads, hidden // heads
        self.width = max(self.value_width, 2 * time_width)
        self.content = self.width - time_width
        self.query_layer = nn.Linear(hidden, heads * self.width)
        self.key_layer = nn.Linear(hidden, heads * self.width)
        self.value_layer = nn.Linear(hidden, hidden)
        # The temporal part of a prompt, which is added to all its rows.
        self.time_key_layer = nn.Linear(time_features, heads * self.content, bias=False)
        self.time_value_layer = nn.Linear(time_features, hidden, bias=False)

    def project(self, x: Tensor, turn: TimeRotation, timed: Tensor) -> tuple[Tensor, Tensor]:
        """Compute keys and values (batch, heads, tokens, width) of tokens (batch, tokens, hidden).

        ``timed`` (batch or 1, tokens) bool is False for the start token, whose key has no time.
        """
        k = turn.apply(self._by_head(self.key_layer(x)).transpose(1, 2))
        content = torch.arange(self.width, device=x.device) < self.content
        k = torch.where(timed[:, None, :, None] | content, k, 0.0)
        return k, self._by_head(self.value_layer(x)).transpose(1, 2)

    def project_prompts(self, choice: PromptChoice, layer: int, code: Tensor) -> LayerPrompt:
        """Compute keys and values of prompts; ``code`` (batch, positions, features)."""
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
        """Concatenate a row of zeros, the prompts, and keys and values.

        The row of zeros is the 1 beside the sum of the weights. One further column holds the
        temporal part of the prompts: in the keys a number that a query adds to the scores of all
        prompt rows, in the values the sum of their weights.
        """
        batch, heads = keys.shape[:2]
        width = self.width + (prompt is not None)
        if keys.device.type != "cpu":
            width += -width % 8  # fast kernels need a multiple of 8
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
        """Attend from queries after some positions to the row of zeros, the prompts and the events.

        ``x`` is (batch, queries, hidden), equally many queries for each position in ``part`` (None:
        all are zero), and ``turn`` holds the rotations of their times. Returns (batch, queries,
        hidden).
        """
        q = self.query_layer.bias[None, None] if x is None else self.query_layer(x)
        q = self._by_head(q).transpose(1, 2)  # (batch or 1, heads, queries or 1, width)
        queries, prompt = turn.phase.shape[2], cache.prompt
        nodes = queries // (part.stop - part.start)
        more = []
        if prompt is not None:
            time_keys = _part(prompt.time_keys, part, 2)  # (batch, heads, positions, content)
            content = q[..., : self.content].expand(-1, -1, queries, -1).unflatten(2, (-1, nodes))
            more.append((content @ time_keys[..., None]).flatten(2, 3))
        q = turn.apply(q, *more)  # (batch, heads, queries, width, or one more with prompts)
        bias = mask.bias(part, prompt, q.dtype)  # (batch or 1, positions, columns)
        columns = slice(0, bias.shape[-1])
        keys, values = _part(cache.keys, columns, 2), _part(cache.values, columns, 2)
        q, scale = _widen(q, keys.shape[-1]), 1 / math.sqrt(self.width)
        if q.device.type == "cpu" and bias.shape[-1] <= SHORT:
            scores = (q @ (keys.mT * scale)).unflatten(2, (-1, nodes))
            mixed = (scores + bias[:, None, :, None]).softmax(-1).flatten(2, 3) @ values
        else:
            spread = bias.repeat_interleave(nodes, 1)[:, None]
            mixed = functional.scaled_dot_product_attention(
                q, keys, values, attn_mask=spread, scale=scale
            )
        # (batch, heads, queries, width), then the share of the prompts where there are some
        out, *share = mixed.split(
            _widths(self.value_width, mixed.shape[-1], prompt is not None), -1
        )
        if prompt is not None:
            time_values = _part(prompt.time_values, part, 2)  # (batch, heads, positions, width)
            by_position = share[0].unflatten(2, (-1, nodes))
            out = torch.addcmul(
                out.unflatten(2, (-1, nodes)), by_position, time_values[:, :, :, None]
            ).flatten(2, 3)
        return out.transpose(1, 2).flatten(2)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


@dataclass(frozen=True)
class AttNHPMemory:
    """Keys and values of the events, for queries at any time after each position."""

    encoder: "AttNHPEncoder"
    caches: tuple[LayerCache, ...]
    mask: TokenMask
    time: Tensor
    """(batch, positions) float64, of the last event at each position."""

    def select(self, rows: Tensor, positions: Tensor) -> "AttNHPMemory":
        """Select single positions of some sequences."""
        caches = tuple(cache.select(rows, positions) for cache in self.caches)
        time = self.time[rows, positions][:, None]
        return AttNHPMemory(self.encoder, caches, self.mask.select(rows, positions), time)


@dataclass(frozen=True)
class AttNHPState:
    """The state of streams; it grows with each event.

    Sequences of different lengths stand in one batch: ``order`` tells which column is which event.
    """

    keys: tuple[Tensor, ...]
    """(batch, heads, tokens, width) a layer."""
    values: tuple[Tensor, ...]
    order: Tensor
    """(batch, tokens) int64, the place in its sequence; the largest number where padded."""
    seen: Tensor
    """(batch,) events so far."""
    now: Tensor
    """(batch,) float64, time of the last event."""
    context: Tensor | None
    """(batch, features), static covariates."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of the tensors."""
        parts = (*self.keys, *self.values, self.order, self.seen, self.now)
        return sum(part.nbytes for part in parts)


class AttNHPEncoder(EventStack[AttNHPLayer]):
    """The event stream of the attentive neural Hawkes process.

    Yang et al., "Transformer Embeddings of Irregularly Spaced Events and Their Participants" (ICLR
    2022, arXiv 2201.00044), with one query for all types as in the code of PromptTPP and
    EasyTPP. A layer adds tanh of the attention over strictly earlier events, whose weights are
    divided by one plus their sum. The memory of the states keeps each layer's keys and values;
    `AttNHPDecoder` attends to them at any later time: events are encoded once for any number of
    times.

    Times enter as in the paper, in a separate part of queries and keys, but by rotation: weights
    depend on the time between event and query, not on the zero of the clock.

    Parameters
    ----------
    embedding : EventEmbedding
        Computes the tokens of events, ``hidden`` wide. Token 0 is the start of a sequence, visible
        to all and without time.
    layers : int, default=2
        Number of layers.
    heads : int, default=4
        Heads of a layer; the width is a multiple of them.
    dropout : float, default=0.0
        Dropout of the output of a layer.
    time_width : int, default=8
        Width of the time part of a head's queries and keys, even: half as many rates a head.

    Examples
    --------
    >>> from tsllm.adapters.events.batch import pad_sequences
    >>> from tsllm.adapters.events.decoders.base import log_likelihood
    >>> batch = pad_sequences([[0.5, 2.0]], [[0, 1]], first_known=[True], tails=[1.0])
    >>> encoder, decoder = AttNHPEncoder(EventEmbedding(2, 16)), AttNHPDecoder(16, 2)
    >>> log_likelihood(decoder, encoder.encode(batch), batch).shape
    torch.Size([1, 3])
    """

    def __init__(
        self,
        embedding: EventEmbedding,
        *,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        time_width: int = 8,
    ) -> None:
        hidden, features = embedding.hidden, embedding.time_encoding.features
        if hidden % heads:
            raise ValueError(f"hidden={hidden} must be a multiple of heads={heads}")
        if time_width < 2 or time_width % 2:
            raise ValueError(f"time_width must be even and positive, got {time_width}")
        blocks = (AttNHPLayer(hidden, heads, time_width, features) for _ in range(layers))
        super().__init__(embedding, blocks, dropout)
        self.heads = heads
        # Each head has other rates: together they cover the range.
        self.rates: Tensor
        rates = torch.logspace(*RATES, heads * time_width // 2, dtype=torch.float64)
        self.register_buffer("rates", rates.view(-1, heads).mT.contiguous(), persistent=False)

    def encode(self, batch: EventBatch, prompts: PromptChoice | None = None) -> EventStates:
        """Encode all events once, (batch, 1 + events, hidden), with the memory for `AttNHPDecoder`.

        ``prompts`` are rows before keys and values; an event, and a query after it, sees those of
        its position.
        """
        return self._encode(batch, prompts)[0]

    def init_state(
        self, batch: EventBatch, prompts: PromptChoice | None = None
    ) -> tuple[AttNHPState, EventStates]:
        """Encode the histories of streams; return their states after the last event."""
        states, state = self._encode(batch, prompts)
        return state, states.at(batch.lengths)

    def step(
        self, state: AttNHPState, types: Tensor, gaps: Tensor, prompts: PromptChoice | None = None
    ) -> tuple[AttNHPState, EventStates]:
        """Continue streams by one event each; see `AttentionEncoder.step`."""
        x = self.embedding.token(types, gaps, state.context)[:, None]  # (batch, 1, hidden)
        now = (state.now + gaps.double())[:, None]  # (batch, 1)
        turn = self._turn(now)
        place = state.seen[:, None] + 1
        mask = TokenMask(state.order, place - 1, aligned=False)
        keys, values, caches = [], [], []
        for layer, old_keys, old_values, prompt in zip(
            self._blocks(), state.keys, state.values, self._layer_prompts(prompts), strict=True
        ):
            k, v = layer.project(x, turn, place > 0)
            before = layer.cache(old_keys, old_values, prompt)
            x = x + self.dropout(layer.attend(x, turn, before, mask, slice(0, 1)).tanh())
            keys.append(torch.cat([old_keys, k], 2))
            values.append(torch.cat([old_values, v], 2))
            caches.append(layer.cache(keys[-1], values[-1], prompt))
        order = torch.cat([state.order, place], 1)
        after = AttNHPState(
            tuple(keys), tuple(values), order, place[:, 0], now[:, 0], state.context
        )
        memory = AttNHPMemory(self, tuple(caches), TokenMask(order, place, aligned=False), now)
        return after, EventStates(x, memory)

    def query(self, memory: AttNHPMemory, elapsed: Tensor) -> Tensor:
        """Compute the query stream at times (batch, positions, nodes) after each position.

        Returns (batch, positions, nodes, hidden), the output of the last layer.
        """
        batch, positions, nodes = elapsed.shape
        time = memory.time[..., None] + elapsed.double()
        layer = self._blocks()[0]
        # Numbers in memory for a query: its vector in each head, and its mask.
        cost = batch * max(layer.width * self.heads, memory.caches[0].keys.shape[2])
        rows = []
        least = BLOCKS if memory.mask.aligned and positions > SHORT else 1
        for part in _slices(positions, nodes * cost, least):
            columns = []
            for some in _slices(nodes, (part.stop - part.start) * cost, 1):
                turn = self._turn(time[:, part, some].flatten(1))
                z = None
                for layer, cache in zip(self._blocks(), memory.caches, strict=True):
                    added = self.dropout(layer.attend(z, turn, cache, memory.mask, part).tanh())
                    z = added if z is None else z + added  # (batch, queries, hidden)
                assert z is not None
                columns.append(z.unflatten(1, (part.stop - part.start, -1)))
            rows.append(_joined(columns, 2))
        return _joined(rows, 1)

    def _encode(
        self, batch: EventBatch, prompts: PromptChoice | None
    ) -> tuple[EventStates, AttNHPState]:
        x = self.dropout(self.embedding(batch))  # (batch, tokens, hidden)
        tokens = x.shape[1]
        # From the start on, in float64: differences of large times keep their digits.
        time = functional.pad(batch.gaps.double().cumsum(1), (1, 0))  # (batch, tokens)
        turn = self._turn(time)
        places = torch.arange(tokens, device=x.device)[None]  # (1, tokens)
        earlier = TokenMask(places, places - 1, aligned=True)
        keys, values, caches = [], [], []
        for layer, prompt in zip(self._blocks(), self._layer_prompts(prompts), strict=True):
            k, v = layer.project(x, turn, places > 0)
            cache = layer.cache(k, v, prompt)
            mixed = [
                layer.attend(_part(x, part, 1), turn.at(part), cache, earlier, part)
                for part in _slices(
                    tokens,
                    len(x) * max(layer.width * self.heads, tokens),
                    BLOCKS if tokens > SHORT else 1,
                )
            ]
            x = x + self.dropout(_joined(mixed, 1).tanh())
            keys.append(k)
            values.append(v)
            caches.append(cache)
        memory = AttNHPMemory(self, tuple(caches), TokenMask(places, places, aligned=True), time)
        # Padding comes after all events.
        real = functional.pad(batch.mask, (1, 0), value=True)
        order = torch.where(real, places, torch.iinfo(torch.int64).max)
        last = batch.lengths
        state = AttNHPState(
            tuple(keys),
            tuple(values),
            order,
            last,
            time.gather(1, last[:, None])[:, 0],
            batch.context,
        )
        return EventStates(x, memory), state

    def _layer_prompts(self, prompts: PromptChoice | None) -> list[LayerPrompt | None]:
        return self._prompts(
            prompts, lambda layer, choice, number, code: layer.project_prompts(choice, number, code)
        )

    def _turn(self, time: Tensor) -> TimeRotation:
        relative = time / self.embedding.time_encoding.median.double()
        # (batch, heads, n, time_width / 2)
        angles = relative[:, None, :, None] * self.rates[:, None]
        return TimeRotation.by(angles, self.embedding.start.dtype)


class AttNHPDecoder(EventDecoder, GrowsTypes):
    """Intensities softplus(W z(t)), where z(t) is the attention output at time t.

    Yang et al., arXiv 2201.00044.

    Parameters
    ----------
    hidden : int
        Width of the encoder, an `AttNHPEncoder`, whose memory the states must have.
    n_types : int
        Number of event types.
    quad_nodes : int, default=16
        See `EventDecoder`: each node attends to all events.
    score_nodes : int, default=32
        See `EventDecoder`.
    """

    def __init__(
        self, hidden: int, n_types: int, *, quad_nodes: int = 16, score_nodes: int = 32
    ) -> None:
        super().__init__(n_types, quad_nodes=quad_nodes, score_nodes=score_nodes)
        self.head = nn.Linear(hidden, n_types)
        with torch.no_grad():  # one event a unit of scaled time
            self.head.bias.fill_(math.log(math.expm1(1 / n_types)))

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log intensity of each type: (batch, positions, nodes, types)."""
        return log_softplus(self._levels(states, elapsed))

    def log_density_and_survival(
        self, states: EventStates, elapsed: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `log_density` and `log_survival` at the cost of one of them."""
        points, weights = squared_rule(elapsed, self._nodes)  # (batch, positions, nodes, points)
        levels = self._levels(states, torch.cat([elapsed, points.flatten(2)], 2))
        at_events, at_points = levels.split([elapsed.shape[2], points.flatten(2).shape[2]], 2)
        # Logarithms are needed at the events only.
        total = functional.softplus(at_points).sum(-1).unflatten(2, weights.shape[2:])
        survival = -(weights * total).sum(-1)
        return log_softplus(of_type(at_events, types)) + survival, survival

    def _levels(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute what softplus makes intensities of: (batch, positions, nodes, types)."""
        memory = states.memory
        if not isinstance(memory, AttNHPMemory):
            raise ValueError(
                "the attnhp decoder asks the keys and values of an AttNHPEncoder, and these "
                "states have none: use both together"
            )
        levels: Tensor = self.head(memory.encoder.query(memory, elapsed))
        return levels

    def _grow(self, new: int) -> None:
        grow_linear(self.head, new)


def _part(x: Tensor, part: slice, dim: int) -> Tensor:
    """Select a part along an axis; all of it costs nothing, also in the backward pass."""
    whole = part.start == 0 and part.stop >= x.shape[dim]
    return x if whole else x.narrow(dim, part.start, part.stop - part.start)


def _widths(values: int, width: int, prompts: bool) -> list[int]:
    """Return the widths of the values, of the share of prompts, and of what fills up."""
    used = values + prompts
    return [values, *([1] if prompts else []), *([width - used] if width > used else [])]


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _widen(x: Tensor, width: int) -> Tensor:
    """Append zeros up to a width."""
    return x if x.shape[-1] == width else functional.pad(x, (0, width - x.shape[-1]))


def _slices(count: int, cost: int, least: int) -> Iterator[slice]:
    """Cut positions or nodes, of so much ``cost`` each, into at ``least`` so many slices."""
    size = max(1, min(BLOCK // max(1, cost), -(-count // least)))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
