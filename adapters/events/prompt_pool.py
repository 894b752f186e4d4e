"""The prompt pool: slots of learnt prompts, their keys, and their retrieval."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.events.prompt_query import Query
from tsllm.adapters.events.type_guess import TypeGuess
from tsllm.adapters.s2ip.anchors import kmeans

PROMPT_MODES = ("allocate", "shared", "none")
COLD_STARTS = ("usage", "average")
WHEN_FULL = ("merge", "reuse")
#: The least share of a sphere in the covariance of the queries.
SHRINKAGE = 0.01


@dataclass(frozen=True)
class PromptChoice:
    """The prompts that each position of a batch attends to.

    The rows of all slots are stored once, and a mask says which a position sees: retrieval by
    position costs no more than one prefix.
    """

    rows: Tensor
    """(slots, parts, layers, length, width): the structural prompts. ``parts`` is 2, rows for keys
    and rows for values, or 1, soft tokens."""
    visible: Tensor
    """(batch, positions, slots) bool."""
    mean_gap: Tensor
    """(batch, positions), mean inter-event time so far; the temporal prompt is its code."""
    numbers: tuple[int, ...]
    """The numbers of these slots in the pool."""

    def key_rows(self, layer: int) -> Tensor:
        """Return the rows from which a layer computes keys, (slots * length, width)."""
        return self.rows[:, 0, layer].flatten(0, 1)

    def value_rows(self, layer: int) -> Tensor:
        """Return the rows from which a layer computes values, (slots * length, width)."""
        return self.rows[:, -1, layer].flatten(0, 1)

    @property
    def visible_rows(self) -> Tensor:
        """Return the rows that each position sees, (batch, positions, slots * length)."""
        return self.visible.repeat_interleave(self.rows.shape[3], -1)

    def at(self, positions: Tensor) -> "PromptChoice":
        """Select one position (batch,) of each sequence."""
        rows = torch.arange(len(positions), device=positions.device)
        visible = self.visible[rows, positions][:, None]
        return PromptChoice(
            self.rows, visible, self.mean_gap[rows, positions][:, None], self.numbers
        )


class PromptSlot(nn.Module):
    """One prompt: its key, its rows for each layer, a low-rank change of the states, its types."""

    def __init__(self, rows: Tensor, key: Tensor, head_down: Tensor, n_types: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)  # (parts, layers, length, width)
        self.key = nn.Parameter(key.clone())  # (query size,)
        self.usage: Tensor
        self.register_buffer("usage", torch.zeros((), dtype=torch.long, device=key.device))
        self.head_down = self.head_up = self.head_bias = None
        if len(head_down):
            self.head_down = nn.Parameter(head_down)  # (rank, hidden)
            self.head_up = nn.Parameter(torch.zeros_like(head_down.T))
            self.head_bias = nn.Parameter(torch.zeros_like(head_down[0]))
        self.guess = TypeGuess(n_types) if n_types else None


class PromptPool(nn.Module):
    """Prompt slots, their retrieval by nearest key, and their allocation to slices of a stream.

    Xue et al., "Prompt-augmented Temporal Point Process for Streaming Event Sequence" (NeurIPS
    2023, arXiv 2310.04993); "allocate" and ``head_rank`` are not in the paper.

    Parameters
    ----------
    layers : int
        Layers of the encoder that read prompts.
    width : int
        Width of a prompt row.
    query_size : int
        Width of keys and queries.
    hidden : int
        Width of the states that ``head_rank`` changes.
    parts : int, default=2
        2: rows for keys and rows for values. 1: soft tokens.
    mode : {"allocate", "shared", "none"}, default="allocate"
        "allocate": each slice opens slots of its own (`open_slots`), whose fixed keys are centroids
        of its queries; a position reads the slot with the nearest key in Mahalanobis distance, by
        the covariance of queries within slices. "shared": all slots exist from the start and their
        keys are trained; a position reads the ``top_slots`` of greatest cosine, as in the paper.
        "none": no prompts.
    length : int, default=5
        Rows of a prompt.
    max_slots : int, default=10
        Maximal number of slots.
    slots_per_slice : int, default=1
        Slots that a slice opens in "allocate".
    top_slots : int, default=1
        Slots that a position reads.
    min_context : int, default=3
        With fewer events the query means little, and ``cold_start`` chooses the slots.
    cold_start : {"usage", "average"}, default="usage"
        The most used slots, or all at once.
    when_full : {"merge", "reuse"}, default="merge"
        In a full pool, a slice merges the two slots of closest keys and gets the free place, or
        trains the most similar slot further. Both cause a warning.
    head_rank : int, default=0
        Rank of each slot's change of the states before the decoder, ``h + b + U V h``, which starts
        at zero; 0: no change.
    n_types : int, default=0
        Event types, whose frequencies are counted by slot, in modes without own slots for all.
    scale : float, default=1.0
        Standard deviation of the rows of a new prompt.
    seed : int, default=0
        Of the rows and of k-means.

    Examples
    --------
    >>> pool = PromptPool(2, 16, query_size=8, hidden=16, max_slots=4)
    >>> pool.open_slots(torch.randn(50, 8)), pool.open_slots(torch.randn(50, 8) + 3)
    ([0], [1])
    >>> query = Query(torch.full((1, 1, 8), 3.0), torch.tensor([[20]]), torch.ones(1, 1))
    >>> pool.choose(query).visible.tolist()
    [[[False, True]]]
    """

    def __init__(
        self,
        layers: int,
        width: int,
        *,
        query_size: int,
        hidden: int,
        parts: int = 2,
        mode: str = "allocate",
        length: int = 5,
        max_slots: int = 10,
        slots_per_slice: int = 1,
        top_slots: int = 1,
        min_context: int = 3,
        cold_start: str = "usage",
        when_full: str = "merge",
        head_rank: int = 0,
        n_types: int = 0,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, possible in (
            ("prompt_mode", mode, PROMPT_MODES),
            ("cold_start", cold_start, COLD_STARTS),
            ("when_full", when_full, WHEN_FULL),
        ):
            if value not in possible:
                raise ValueError(f"{name} must be one of {list(possible)}, got {value!r}")
        for name, count in (
            ("prompt_length", length),
            ("max_slots", max_slots),
            ("slots_per_slice", slots_per_slice),
            ("top_slots", top_slots),
        ):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if slots_per_slice > max_slots:
            raise ValueError(
                f"slots_per_slice={slots_per_slice} are more than max_slots={max_slots}: "
                "allow more slots, or open fewer a slice"
            )
        self.layers, self.width, self.parts = layers, width, parts
        self.query_size, self.hidden = query_size, hidden
        self.mode, self.length, self.max_slots = mode, length, max_slots
        self.slots_per_slice, self.top_slots = slots_per_slice, top_slots
        self.min_context, self.cold_start, self.when_full = min_context, cold_start, when_full
        self.head_rank, self.scale, self.seed = head_rank, scale, seed
        self.n_types = n_types
        self.guess = TypeGuess(n_types) if n_types and mode != "allocate" else None
        self.slots = nn.ModuleList()
        self.scatter: Tensor  # squared deviations within slices, summed over all queries
        self.register_buffer("scatter", torch.zeros(query_size, query_size, dtype=torch.float64))
        self.metric: Tensor  # makes queries uncorrelated and of equal variance
        self.register_buffer("metric", torch.eye(query_size, dtype=torch.float64))
        self.scatter_count: Tensor
        self.register_buffer("scatter_count", torch.zeros((), dtype=torch.long))
        self.opened: Tensor  # number of slots, needed to load them
        self.register_buffer("opened", torch.zeros((), dtype=torch.long))
        if mode == "shared":
            for number in range(max_slots):
                self._append(self._new_slot(number))

    def __len__(self) -> int:
        return len(self.slots)

    def choose(self, query: Query, slots: Sequence[int] | None = None) -> PromptChoice | None:
        """Choose the prompts of each position.

        Parameters
        ----------
        query : Query
            The queries of the positions.
        slots : sequence of int or None, default=None
            Candidates: a slice is trained with its own slots only. None: all.

        Returns
        -------
        PromptChoice or None
            None without candidates.
        """
        numbers = tuple(range(len(self.slots)) if slots is None else slots)
        if not numbers:
            return None
        if len(numbers) <= self.top_slots:
            return self.choose_all(query.mean_gap, numbers)
        chosen = [self._slot(number) for number in numbers]
        likeness = self.likeness(query.vectors, numbers)  # (batch, positions, slots)
        visible = _largest(likeness, self.top_slots)
        usage = torch.stack([slot.usage for slot in chosen])  # (slots,)
        prior = _largest(usage, self.top_slots)
        if self.cold_start == "average":
            prior = torch.ones_like(prior)
        visible = torch.where((query.counts < self.min_context)[..., None], prior, visible)
        return PromptChoice(
            torch.stack([slot.rows for slot in chosen]), visible, query.mean_gap, numbers
        )

    def needs_query(self, slots: Sequence[int] | None = None) -> bool:
        """Return whether the choice among slots (None: all) depends on the query's vectors."""
        return len(self.slots if slots is None else slots) > self.top_slots

    def choose_all(self, mean_gap: Tensor, numbers: Sequence[int]) -> PromptChoice | None:
        """Choose all of some slots at each position; ``mean_gap`` (batch, positions)."""
        if not numbers:
            return None
        rows = torch.stack([self._slot(number).rows for number in numbers])
        visible = torch.ones(*mean_gap.shape, len(rows), dtype=torch.bool, device=mean_gap.device)
        return PromptChoice(rows, visible, mean_gap, tuple(numbers))

    def likeness(self, queries: Tensor, numbers: Sequence[int]) -> Tensor:
        """Compare queries (..., size) with keys of slots: (..., slots) float64, larger is closer.

        Minus the squared Mahalanobis distance; in mode "shared" the cosine.
        """
        keys = torch.stack([self._slot(number).key for number in numbers]).detach().double()
        queries = queries.detach().double()
        if self.mode == "shared":
            return functional.normalize(queries, dim=-1) @ functional.normalize(keys, dim=-1).T
        difference = (queries @ self.metric)[..., None, :] - keys @ self.metric
        return -difference.square().sum(-1)

    def matching_loss(self, query: Query, choice: PromptChoice) -> Tensor:
        """Sum one minus the cosine to the keys of the chosen slots: (batch, positions).

        The matching loss of the paper. Gradients go to the keys only. 0 where there
        are too few events for a query.
        """
        keys = torch.stack([self._slot(number).key for number in choice.numbers])
        cosines = functional.cosine_similarity(
            query.vectors.detach()[:, :, None], keys, dim=-1
        )  # (batch, positions, slots)
        seen = choice.visible & (query.counts >= max(1, self.min_context))[..., None]
        return torch.where(seen, 1 - cosines, 0.0).sum(-1)

    def change_states(self, hidden: Tensor, choice: PromptChoice) -> Tensor:
        """Add the low-rank changes of the chosen slots to states (batch, positions, hidden)."""
        if not self.head_rank:
            return hidden
        slots = [self._slot(number) for number in choice.numbers]
        down = torch.stack([slot.head_down for slot in slots])  # (slots, rank, hidden)
        up = torch.stack([slot.head_up for slot in slots])  # (slots, hidden, rank)
        bias = torch.stack([slot.head_bias for slot in slots])  # (slots, hidden)
        share = choice.visible.to(hidden.dtype)
        share = share / share.sum(-1, keepdim=True).clamp_min(1)  # (batch, positions, slots)
        low = torch.einsum("bph,srh->bpsr", hidden, down) * share[..., None]
        return hidden + torch.einsum("bpsr,shr->bph", low, up) + share @ bias

    @property
    def guesses(self) -> list[TypeGuess]:
        """Return the counted types of each slot, in modes without own slots one for all."""
        found = [self.guess] if self.mode != "allocate" else [slot.guess for slot in self.slots]
        return [cast(TypeGuess, one) for one in found if one is not None]

    def guess_types(self, choice: PromptChoice | None, last_type: Tensor) -> Tensor | None:
        """Compute `EventStates.type_guess` after types (batch, positions), -1 for none.

        Of several slots, the mean.
        """
        total = None
        for part, guess in self.parts_of(choice, last_type):
            if bool(guess.share > 0) and bool((part > 0).any()):
                own = (guess.share * part)[..., None] * guess.probabilities(last_type)
                total = own if total is None else total + own
        return total

    def parts_of(
        self, choice: PromptChoice | None, last_type: Tensor
    ) -> list[tuple[Tensor, TypeGuess]]:
        """Return the weight (batch, positions) of each slot's counted types, and these."""
        if self.mode != "allocate":
            return [(torch.ones_like(last_type).float(), one) for one in self.guesses]
        if choice is None or not self.guesses:
            return []
        share = choice.visible.float()
        share = share / share.sum(-1, keepdim=True).clamp_min(1)  # (batch, positions, slots)
        return [(share[..., i], self.guesses[at]) for i, at in enumerate(choice.numbers)]

    def grow_types(self, n_types: int) -> None:
        """Add types without a count, ``n_types`` in all."""
        for guess in self.guesses:
            guess.grow(n_types - self.n_types)
        self.n_types = n_types

    @torch.no_grad()
    def open_slots(self, queries: Tensor) -> list[int]:
        """Open the slots of a new slice, with centroids of its queries as keys.

        Parameters
        ----------
        queries : Tensor
            ``(n, query_size)``, of positions of the slice with enough events.

        Returns
        -------
        list of int
            The numbers of the slots. In mode "shared" all, in "none" none.
        """
        if self.mode != "allocate":
            return list(range(len(self.slots)))
        if not len(queries):
            raise ValueError(
                "a slice without queries has no key: it needs sequences with events enough, "
                "or a smaller min_context"
            )
        queries = queries.detach().to(self.opened.device).double()
        centred = queries - queries.mean(0)
        self.scatter += centred.T @ centred
        self.scatter_count += len(queries)
        self.metric.copy_(self._metric())
        generator = torch.Generator().manual_seed(self.seed + 7919 * len(self.slots))
        centroids, sizes = kmeans(queries @ self.metric, self.slots_per_slice, generator)
        keys = torch.linalg.solve(self.metric.T, centroids.T).T.float()
        opened: list[int] = []
        for key, size in zip(keys, sizes.tolist(), strict=True):
            number = self._place(key, size, opened)
            opened.append(number)
        return opened

    @torch.no_grad()
    def copy_slot(self, source: int, into: Sequence[int]) -> None:
        """Copy the prompt of a slot, without its key, into other slots."""
        for number in into:
            for (name, mine), its in zip(
                self._slot(number).named_parameters(),
                self._slot(source).parameters(),
                strict=True,
            ):
                if name != "key":
                    mine.copy_(its)

    @torch.no_grad()
    def add_usage(self, choice: PromptChoice, counted: Tensor) -> None:
        """Count the choices of each slot at the ``counted`` (batch, positions) positions."""
        uses = (choice.visible & counted[..., None]).sum((0, 1))  # (slots,)
        for number, count in zip(choice.numbers, uses):
            self._slot(number).usage += count

    @property
    def usage(self) -> list[int]:
        """Return how often each slot was used in training."""
        return [int(self._slot(number).usage) for number in range(len(self.slots))]

    @property
    def rows(self) -> list[Tensor]:
        """Return the prompts of each slot, (parts, layers, length, width)."""
        return [self._slot(number).rows for number in range(len(self.slots))]

    def _metric(self) -> Tensor:
        """Compute the metric from the scatter within slices, shrunk to a sphere for few queries."""
        covariance = self.scatter / self.scatter_count.clamp_min(1)
        sphere = covariance.diagonal().mean()
        share = SHRINKAGE + self.query_size / (self.query_size + self.scatter_count)
        eye = torch.eye(self.query_size, dtype=covariance.dtype, device=covariance.device)
        if sphere <= 0:
            return eye
        shrunk = torch.lerp(covariance, sphere * eye, share.clamp_max(1.0))
        return torch.linalg.cholesky(torch.linalg.inv(shrunk))

    def _place(self, key: Tensor, size: int, opened: Sequence[int]) -> int:
        """Return the slot of a new key: a new one, a freed one, or one to train further."""
        if len(self.slots) < self.max_slots:
            number = len(self.slots)
            self._append(self._new_slot(number, key))
        elif self.when_full == "merge" and len(self.slots) - len(opened) >= 2:
            number = self._merge_closest(opened)
            self.slots[number] = self._new_slot(number, key)
        else:
            others = [i for i in range(len(self.slots)) if i not in opened] or list(
                range(len(self.slots))
            )
            number = others[int(self.likeness(key, others).argmax())]
            slot = self._slot(number)
            share = size / max(1, size + int(slot.usage))
            slot.key.lerp_(key, share)
            warnings.warn(
                f"the pool is full ({self.max_slots} slots): slot {number} is trained further for "
                "the new slice, and forgets; allow more with max_slots",
                UserWarning,
                stacklevel=4,
            )
        slot = self._slot(number)
        slot.usage += size
        slot.key.requires_grad_(False)
        return number

    def _merge_closest(self, opened: Sequence[int]) -> int:
        """Merge the two earlier slots of closest keys, and return the number that is freed."""
        numbers = [number for number in range(len(self.slots)) if number not in opened]
        keys = torch.stack([self._slot(number).key for number in numbers])
        keys = keys.double() @ self.metric
        distances = torch.cdist(keys, keys)
        distances.fill_diagonal_(torch.inf)
        first, second = divmod(int(distances.argmin()), len(numbers))
        kept, freed = (numbers[i] for i in sorted((first, second)))
        into, gone = self._slot(kept), self._slot(freed)
        total = into.usage + gone.usage
        share = float(gone.usage / total.clamp_min(1))
        for mine, its in zip(into.parameters(), gone.parameters(), strict=True):
            mine.lerp_(its, share)
        into.usage = total
        if into.guess is not None:
            into.guess.merge(gone.guess, share)
        warnings.warn(
            f"the pool is full ({self.max_slots} slots): slots {kept} and {freed} had the closest "
            f"keys and were merged into slot {kept}; allow more with max_slots",
            UserWarning,
            stacklevel=5,
        )
        return freed

    def _slot(self, number: int) -> Any:
        return self.slots[number]

    def _new_slot(self, number: int, key: Tensor | None = None) -> PromptSlot:
        """Create a slot of seeded random rows, and of a random key where none is given."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        shape = (self.parts, self.layers, self.length, self.width)
        rows = torch.randn(shape, generator=generator) * self.scale
        if key is None:
            key = torch.rand(self.query_size, generator=generator) * 2 - 1
        down = torch.randn(self.head_rank, self.hidden, generator=generator) / self.hidden**0.5
        own_types = self.n_types if self.mode == "allocate" else 0
        return PromptSlot(rows, key.cpu(), down, own_types).to(self.opened.device)

    def _append(self, slot: PromptSlot) -> None:
        self.slots.append(slot)
        self.opened.fill_(len(self.slots))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Create as many slots as were saved, before they are loaded."""
        count = state_dict.get(prefix + "opened")
        if count is not None:
            while len(self.slots) < int(count):
                self._append(self._new_slot(len(self.slots)))
            del self.slots[int(count) :]
        super()._load_from_state_dict(state_dict, prefix, *args)


def _largest(values: Tensor, count: int) -> Tensor:
    """Mark the ``count`` largest along the last axis; of equal ones the first."""
    order = values.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, order, True)
