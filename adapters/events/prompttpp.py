"""PromptTPP: an event encoder with a pool of prompts, and a decoder of the next event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch
from tsllm.adapters.events.calendar import CalendarChange
from tsllm.adapters.events.decoders.attnhp import AttNHPDecoder, AttNHPEncoder
from tsllm.adapters.events.decoders.base import TypeHeadDecoder, log_likelihood
from tsllm.adapters.events.decoders.closed_form import (
    ExponentialDecoder,
    LogNormalMixtureDecoder,
    RMTPPDecoder,
)
from tsllm.adapters.events.encoders.aaren import AarenEncoder
from tsllm.adapters.events.encoders.attention import AttentionEncoder
from tsllm.adapters.events.encoders.llm import EventTokens, LLMEncoder, TextTypeHead, word_rms
from tsllm.adapters.events.encoders.prompted import PromptedEncoder
from tsllm.adapters.events.features import EventEmbedding
from tsllm.adapters.events.prompt_pool import PromptPool
from tsllm.adapters.events.prompt_query import CausalQuery

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone


ENCODERS = ("attention", "aaren", "llm", "llm-full")
TEXT_ENCODERS = ("attention", "aaren")
DECODERS = ("lognormal_mixture", "rmtpp", "exponential", "attnhp")
#: Least number of events at a position whose query counts for a key.
KEY_CONTEXT = 10
#: Rank of a slot's change of the states: on a frozen base it learns most of what is new.
HEAD_RANK = 8


class PromptTPPModel(PromptedEncoder):
    """PromptTPP (Xue et al., NeurIPS 2023, arXiv 2310.04993).

    An event encoder, a decoder and a pool of prompts. `PromptedEncoder` computes states of whole
    sequences and of streams; this class adds the likelihood, which parameters are trained, and new
    types.

    Parameters
    ----------
    n_types : int
        Number of event types.
    encoder : {"attention", "aaren", "llm", "llm-full"}, default="attention"
        "attention": `AttentionEncoder`. "aaren": `AarenEncoder`, which streams in constant memory.
        "llm": one of these (``text_encoder``) over projected vectors of the types' texts, with type
        logits tied to them. "llm-full": `LLMEncoder`, a language model over all events.
    decoder : {"lognormal_mixture", "rmtpp", "exponential", "attnhp"}, default="lognormal_mixture"
        See `tsllm.adapters.events.decoders`. "attnhp" has an encoder of its own, `AttNHPEncoder`,
        in place of "attention"; it goes with "attention" and "llm" only.
    text_encoder : {"attention", "aaren"}, default="attention"
        The encoder of the projected types in "llm".
    backbone : Backbone, PrivateBackbone or None, default=None
        The language model of "llm-full".
    max_events : int or None, default=None
        Maximal number of events that "llm-full" reads at once; None: as many as its positions hold.
    hidden : int, default=32
        Width of the states.
    layers : int, default=2
        Blocks of the encoder; not for "llm-full".
    heads : int, default=4
        Heads of the encoder; not for "llm-full".
    dropout : float, default=0.0
        Dropout in the encoder.
    components : int, default=16
        Log-normal components of the mixture.
    time_features : int, default=32
        Width of the code of an inter-event time, a multiple of 4.
    median_gap : float, default=1.0
        Median inter-event time in training, scaled.
    context_features : int, default=0
        Static covariates of a sequence.
    type_vectors : Tensor or None, default=None
        ``(types, width)``, vectors of the types' texts, for "llm" and "llm-full" only; for
        "llm-full" from `mean_token_embeddings`.
    prompt_mode : {"allocate", "shared", "none"}, default="allocate"
        This and the following: see `PromptPool`.
    prompt_length : int, default=5
        Rows of a prompt.
    max_slots : int, default=10
        Maximal number of slots.
    slots_per_slice, top_slots : int, default=1
        Slots that a slice opens, and that a position reads.
    min_context : int, default=3
        Fewer events leave the choice to ``cold_start``.
    cold_start : {"usage", "average"}, default="usage"
        Choice of the slots after few events.
    when_full : {"merge", "reuse"}, default="merge"
        How a slice gets a slot of a full pool.
    head_rank : int or None, default=None
        None: `HEAD_RANK`, and 0 with "attnhp", whose decoder does not read the states.
    matching_coef : float, default=0.1
        Weight of the matching loss in mode "shared".
    query_size : int, default=64
        Width of queries and keys.
    calendar : sequence of float, default=()
        Periods of the calendar that the states know, in scaled time; not with "attnhp".
    seed : int, default=0
        Of the query's projections and of the prompts. Everything else is initialised from torch's
        global generator.

    See Also
    --------
    tsllm.PromptTPP : The estimator that trains this model.

    Examples
    --------
    >>> from tsllm.adapters.events.batch import pad_sequences
    >>> batch = pad_sequences([[0.5, 2.0]], [[0, 1]], first_known=[True], tails=[1.0])
    >>> model = PromptTPPModel(2, hidden=16)
    >>> slots = model.open_slots(model.slice_queries([batch]))
    >>> total, count, extras = model.loss(batch, slots)
    >>> slots, count.item(), total.isfinite().item()
    ([0], 2, True)
    """

    def __init__(
        self,
        n_types: int,
        *,
        encoder: str = "attention",
        decoder: str = "lognormal_mixture",
        text_encoder: str = "attention",
        backbone: Backbone | PrivateBackbone | None = None,
        max_events: int | None = None,
        hidden: int = 32,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        components: int = 16,
        time_features: int = 32,
        median_gap: float = 1.0,
        context_features: int = 0,
        type_vectors: Tensor | None = None,
        prompt_mode: str = "allocate",
        prompt_length: int = 5,
        max_slots: int = 10,
        slots_per_slice: int = 1,
        top_slots: int = 1,
        min_context: int = 3,
        cold_start: str = "usage",
        when_full: str = "merge",
        head_rank: int | None = None,
        matching_coef: float = 0.1,
        query_size: int = 64,
        calendar: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if head_rank is None:
            head_rank = 0 if decoder == "attnhp" else HEAD_RANK
        _check_arguments(n_types, encoder, decoder, text_encoder, backbone, type_vectors, head_rank)
        self.n_types = n_types
        self.matching_coef = matching_coef
        if backbone is not None:
            assert type_vectors is not None
            tokens = EventTokens(
                word_rms(backbone),
                type_vectors,
                time_features=time_features,
                median_gap=median_gap,
                context_features=context_features,
            )
            self.encoder = LLMEncoder(
                backbone,
                hidden,
                tokens,
                prompt_length=prompt_length,
                max_events=max_events,
                dropout=dropout,
            )
        else:
            embedding = EventEmbedding(
                n_types,
                hidden,
                time_features=time_features,
                median_gap=median_gap,
                type_vectors=type_vectors,
                context_features=context_features,
            )
            kind = _encoder_class(encoder, text_encoder, decoder)
            self.encoder = kind(embedding, layers=layers, heads=heads, dropout=dropout)
        head = None if type_vectors is None else TextTypeHead(hidden, type_vectors)
        self.decoder = _build_decoder(decoder, hidden, n_types, components, head)
        self.query = CausalQuery(n_types, size=query_size, seed=seed, type_vectors=type_vectors)
        self.pool = PromptPool(
            self.encoder.prompt_layers,
            self.encoder.prompt_width,
            query_size=query_size,
            hidden=hidden,
            parts=self.encoder.prompt_parts,
            mode=prompt_mode,
            length=prompt_length,
            max_slots=max_slots,
            slots_per_slice=slots_per_slice,
            top_slots=top_slots,
            min_context=min_context,
            cold_start=cold_start,
            when_full=when_full,
            head_rank=head_rank,
            n_types=n_types if isinstance(self.decoder, TypeHeadDecoder) else 0,
            seed=seed,
        )
        # Last, so that a model without it draws the same weights.
        self.calendar = CalendarChange(hidden, calendar) if calendar else None

    def log_likelihood(self, batch: EventBatch, slots: Sequence[int] | None = None) -> Tensor:
        """Compute the log-likelihood of each interval, (batch, 1 + events), in scaled time."""
        return log_likelihood(self.decoder, self.encode(batch, slots), batch)

    def loss(
        self, batch: EventBatch, slots: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the loss that training minimises.

        Returns
        -------
        total : Tensor
            Minus the log-likelihood, and in mode "shared" the matching loss of the scored
            positions.
        count : Tensor
            Events scored: ``total / count`` is in nats an event.
        extras : dict
            "matching": the mean matching loss a position, in mode "shared".
        """
        choice = self.retrieve(batch, slots)
        states = self._encode(batch, choice)
        total = -log_likelihood(self.decoder, states, batch).sum()
        extras = {}
        if choice is not None and self.pool.mode == "shared":
            query = self.query(batch)
            matching = self.pool.matching_loss(query, choice)  # (batch, positions)
            matching = torch.where(batch.scored, matching, 0.0).sum()
            total = total + self.matching_coef * matching
            extras["matching"] = matching.detach() / batch.scored.sum().clamp_min(1)
        return total, batch.events_scored, extras

    def forward(self, batch: EventBatch, slots: Sequence[int] | None = None) -> Tensor:
        """Return `log_likelihood`."""
        return self.log_likelihood(batch, slots)

    @torch.no_grad()
    def slice_queries(self, batches: Iterable[EventBatch]) -> Tensor:
        """Collect the queries from which the keys of a slice are computed: (n, query_size).

        They are the queries of all positions with at least `KEY_CONTEXT` events; where there are
        none, of all positions with an event.
        """
        early, late = [], []
        for batch in batches:
            query = self.query(batch)
            real = nn.functional.pad(batch.mask, (1, 0))  # not the start
            enough = real & (query.counts >= KEY_CONTEXT)
            early.append(query.vectors[real])
            late.append(query.vectors[enough])
        found = torch.cat(late)
        return found if len(found) else torch.cat(early)

    def open_slots(self, queries: Tensor) -> list[int]:
        """Open the slots of a new slice; see `PromptPool.open_slots`."""
        return self.pool.open_slots(queries)

    def train_only(self, *, base: bool, slots: Sequence[int] = ()) -> None:
        """Set which parameters the next forward passes train; everything else is frozen.

        Keys are trained in mode "shared" only.

        Parameters
        ----------
        base : bool
            Whether to train encoder and decoder.
        slots : sequence of int, default=()
            Prompt slots to train.
        """
        for parameter in self.base_parameters():
            parameter.requires_grad_(base)
        for number, slot in enumerate(self.pool.slots):
            for name, parameter in slot.named_parameters():
                trained = number in slots and (name != "key" or self.pool.mode == "shared")
                parameter.requires_grad_(trained)

    def base_parameters(self) -> list[nn.Parameter]:
        """List the parameters of encoder and decoder."""
        parts = [self.encoder, self.decoder, *([] if self.calendar is None else [self.calendar])]
        return [parameter for part in parts for parameter in part.parameters()]

    def grow_types(self, n_types: int, type_vectors: Tensor | None = None) -> None:
        """Add event types; the parameters of the other types stay.

        Parameters
        ----------
        n_types : int
            Number of types in all; the new ones are the last.
        type_vectors : Tensor or None, default=None
            ``(new types, width)``, for a model with vectors of the types' texts.

        Raises
        ------
        ValueError
            For fewer types than before, and vectors that are missing or not needed.
        """
        new = n_types - self.n_types
        if new < 0:
            raise ValueError(f"n_types={n_types} is less than the {self.n_types} there are")
        given = 0 if type_vectors is None else len(type_vectors)
        needed = new if self.query.vectors is not None else 0
        if given != needed:
            raise ValueError(
                f"{new} new types need {needed} type_vectors here, and {given} were given"
            )
        if not new:
            return
        self.encoder.embedding.grow(n_types, type_vectors)
        self.query.grow(n_types, type_vectors)
        self.decoder.grow_types(n_types)
        if self.pool.n_types:
            self.pool.grow_types(n_types)
        head = getattr(self.decoder, "type_head", None)
        if isinstance(head, TextTypeHead):
            head.grow(cast(Tensor, type_vectors))
        self.n_types = n_types


def _encoder_class(encoder: str, text_encoder: str, decoder: str) -> Any:
    """Return the class of the encoder."""
    if decoder == "attnhp":
        return AttNHPEncoder
    name = text_encoder if encoder == "llm" else encoder
    return AarenEncoder if name == "aaren" else AttentionEncoder


def _build_decoder(
    name: str, hidden: int, n_types: int, components: int, head: TextTypeHead | None
) -> Any:
    """Build a decoder by name; ``head`` computes its type logits where it has such a head."""
    if name == "lognormal_mixture":
        return LogNormalMixtureDecoder(hidden, n_types, components, type_head=head)
    if name == "rmtpp":
        return RMTPPDecoder(hidden, n_types, type_head=head)
    if name == "exponential":
        return ExponentialDecoder(hidden, n_types)
    return AttNHPDecoder(hidden, n_types)


def _check_arguments(
    n_types: int,
    encoder: str,
    decoder: str,
    text_encoder: str,
    backbone: object,
    type_vectors: Tensor | None,
    head_rank: int,
) -> None:
    """Check the names, and that the arguments go together."""
    for name, value, possible in (
        ("encoder", encoder, ENCODERS),
        ("decoder", decoder, DECODERS),
        ("text_encoder", text_encoder, TEXT_ENCODERS),
    ):
        if value not in possible:
            raise ValueError(f"{name} must be one of {list(possible)}, got {value!r}")
    reads_text = encoder in ("llm", "llm-full")
    if reads_text != (type_vectors is not None):
        raise ValueError(
            f"encoder={encoder!r} {'needs' if reads_text else 'takes no'} type_vectors: they are "
            "the types' texts as 'llm' and 'llm-full' read them"
        )
    if type_vectors is not None and len(type_vectors) != n_types:
        raise ValueError(f"{len(type_vectors)} type_vectors for {n_types} types: give one each")
    if (encoder == "llm-full") != (backbone is not None):
        raise ValueError(
            f"encoder={encoder!r} {'takes no' if backbone is not None else 'needs a'} backbone: "
            "only 'llm-full' reads events with it"
        )
    if decoder == "attnhp":
        if encoder in ("aaren", "llm-full") or (encoder == "llm" and text_encoder == "aaren"):
            raise ValueError(
                "decoder='attnhp' attends to the events again at every time and has an encoder of "
                "its own: use it with encoder='attention', or take another decoder"
            )
        if head_rank:
            raise ValueError(
                f"head_rank={head_rank} changes the states, which decoder='attnhp' does not read: "
                "use head_rank=0 with it"
            )
