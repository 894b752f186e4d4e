"""PromptTPP: a forecaster of event streams that learns slice by slice and does not forget."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.backbone import Backbone, load_backbone, resolve_device, tuned
from tsllm.datasets.events import EventTable
from tsllm.embeddings.store import check_store
from tsllm.errors import BackboneMismatchError, DataError
from tsllm.events.attributes import COMMON, Attribute
from tsllm.events.base import EventForecaster
from tsllm.events.batching import EventWindows, longest_inter_event_time
from tsllm.events.prompttpp.calendar import calendars_to_try, check_calendar, lengths_of
from tsllm.events.prompttpp.inspection import InspectionMixin, slice_rows
from tsllm.events.prompttpp.memory import SliceMemory
from tsllm.events.prompttpp.parameters import (
    FIXED_PARAMETERS,
    MODEL_PARAMETERS,
    PROMPTTPP_LIMITS,
    backbone_name,
    check_parameters,
    count_context_events,
    is_endless,
    reads_texts,
)
from tsllm.events.prompttpp.running_states import RunningStates, StreamedPaths, StreamPredictor
from tsllm.events.prompttpp.text_types import type_vectors
from tsllm.events.prompttpp.trainer import SliceOutcome, SliceTrainer
from tsllm.events.sampling import Paths
from tsllm.saving.allocation import build_model
from tsllm.saving.damage import readable
from tsllm.training.checkpoints import describe_fit
from tsllm.training.randomness import seeded


class PromptTPP(InspectionMixin, EventForecaster):
    """A neural temporal point process with a pool of prompts, for streams that change.

    An encoder reads the events, a decoder models the density of the next event in time and type.
    The first slice of a stream trains the network. For each later slice (`partial_fit`) validation
    chooses between three candidates: the model as it is; new prompts, beside a network that stays;
    and the whole model trained on, together with a few kept events of earlier slices. ``slices_``
    says what was chosen and why. A prediction retrieves the prompts whose slice looked most like
    the sequence.

    This is not a port: the authors' code trains its prompts on the first batch only and reads
    future events. Here retrieval is by position and causal; the paper's shared pool, which forgets,
    is ``prompt_mode="shared"``.

    The parameters are in the order: the encoder and the decoder (to ``grow_types``), the prompts
    (to ``head_rank``), the training (to ``validation_fraction``), storage and device (to
    ``verbose``), the event table.

    The arguments that matter most: ``encoder``, ``decoder``, ``prompt_mode`` (what a slice learns),
    ``max_epochs`` (the time of the training) and ``random_state``.

    Examples
    --------
    >>> from tsllm.datasets import make_hawkes
    >>> from tsllm.events import PromptTPP
    >>> events = make_hawkes([0.5], [[0.5]], [2.0], t_end=30, n_sequences=4, random_state=0).events
    >>> early, late = events.split((0.5, 0.5))
    >>> model = PromptTPP(max_epochs=2, random_state=0).fit(early)
    >>> model = model.partial_fit(late)
    >>> model.n_slices_, model.slot_history_.shape
    (2, (2, 2))
    >>> model.predict(n_steps=2)["step"].tolist()
    [1, 2, 1, 2, 1, 2, 1, 2]

    Parameters
    ----------
    encoder : {"attention", "aaren", "llm", "llm-full"}, default="attention"
        The network that reads the events. "attention": a small causal Transformer.
        "aaren": attention as a recurrent network, whose `update` takes constant time and memory.
        "llm": one of these (``text_encoder``) over types that a frozen language model embeds once
        from their texts. "llm-full": the frozen language model reads the events themselves.
    text_encoder : {"attention", "aaren"}, default="attention"
        With "llm": the encoder over the embedded types.
    backbone : str or None, default=None
        The language model of "llm" and "llm-full". None: tsllm's default one.
    backbone_layers : int or None, default=None
        Number of first layers to use. None: all.
    lora : dict or None, default=None
        With "llm-full": tune the language model with LoRA, ``{"r": 8, "alpha": 16}``.
    type_text : str or mapping, default="{name}"
        With a language model, the text of a type: a template with ``{name}``, or a text for each.
    hidden : int, default=32
        Width of the encoder.
    layers : int, default=2
        Blocks of the encoder.
    heads : int, default=4
        Attention heads of the encoder.
    dropout : float, default=0.1
        Dropout in the encoder.
    context_length : int or "auto", default="auto"
        Most events of a sequence that are read at once; longer sequences are trained and scored in
        overlapping rows. "auto": 128, or less for a short language model. "aaren" is trained so,
        and then reads endless streams.
    decoder : {"lognormal_mixture", "rmtpp", "exponential", "attnhp"}, default="lognormal_mixture"
        The distribution of the next event. "lognormal_mixture": closed forms throughout. "rmtpp"
        and "exponential": intensities with closed integrals. "attnhp": the paper's decoder, which
        attends to all events again at each queried time and is slow; it needs the encoder
        "attention", or "llm" with ``text_encoder="attention"``.
    components : int, default=16
        Log-normal components of the mixture.
    calendar : "auto", list of {"day", "week", "year"} or None, default="auto"
        Periods of dated events that the model follows: the phase of each at the time of an event
        changes the state after it. "auto": those whose rates help to tell when validation events
        come, if a network with them has the lower validation loss; none with "attnhp". Phases are
        those of the wall clock where the model begins to read a sequence; a change to summer time
        after that is not followed.
    grow_types : bool, default=False
        Accept unknown types in `partial_fit`; else they are an error.
    prompt_mode : {"allocate", "shared", "none"}, default="allocate"
        "allocate": each slice opens slots of its own. "shared": all slices train one
        pool, as published. "none": a plain temporal point process.
    prompt_length : int, default=5
        Vectors of a prompt.
    max_slots : int, default=16
        Most slots of the pool; a slice that finds it full merges or re-uses slots, with a warning.
    slots_per_slice : int, default=1
        Slots that a slice opens.
    top_slots : int, default=1
        Slots that a prediction retrieves.
    when_full : {"merge", "reuse"}, default="merge"
        Merge the two most similar slots, or train the most similar one further.
    head_rank : int or None, default=None
        Rank of each slot's own change of the encoder's output, which learns most of a new slice on
        a frozen network. None: 8, but 0 with "attnhp", which needs 0. 0: no change.
    base_update : {"auto", "freeze", "slow", "full"}, default="auto"
        The training of the network after the first ``warmup_slices``. "auto": where validation
        prefers it to new prompts and to no change; never where there is no validation, and in other
        modes than "allocate". "freeze": never. "slow": always, at a tenth of its learning rate.
        "full": always. With "slow" and "full" the model forgets.
    warmup_slices : int, default=1
        Slices that train the network.
    max_epochs : int or "auto", default="auto"
        Passes over a slice. "auto": 15, or more where these make less than 150 steps, or fewer
        where they make more than 3,000.
    max_steps : int or None, default=None
        Most training steps of a slice.
    checkpoint_dir : path or None, default=None
        Directory that saves the training of each slice. Learning that was killed continues when the
        slices are learnt again; other data or parameters are an error. Needs a whole number as
        ``random_state``. Remove the directory when the model is saved.
    batch_size : int or "auto", default="auto"
        Rows, sequences or parts of long ones, of a step. "auto": about 200 events.
    learning_rate : float, default=3e-3
        Learning rate of the network.
    prompt_learning_rate : float, default=3e-2
        Learning rate of the prompts, which need about ten times the network's rate.
    weight_decay : float, default=0.0
        Above 0, AdamW instead of Adam.
    patience : int, default=10
        Epochs without a better validation loss before training stops.
    validation_fraction : float, default=0.1
        The last part of a slice that is held out where no ``validation`` is passed: for early
        stopping, and for the choice of what the slice changes.
    memory_events : int, default=1000
        Most events of each slice that are kept, with ``base_update="auto"``: half of them from the
        training part, on which the network is trained again with later slices, half from the
        validation part, on which the choices of later slices are checked. Beyond 16 slices each
        keeps less. They are saved and pickled with the model, but not by
        ``tsllm.save(..., include_context=False)``. 0: none, and the network stays frozen.
    embedding_store : EmbeddingStore, path or None, default=None
        Storage of the types' embeddings. None: in the user's cache folder.
    device : str, default="auto"
        "auto" uses a GPU where there is one.
    dtype : str, default="auto"
        Precision of the language model. "auto": bfloat16 on a GPU. "int8" and "int4" quantise it,
        on a GPU only.
    verbose : int, default=0
        1 shows progress on stderr.

    Attributes
    ----------
    model_ : PromptTPPModel
        The torch module.
    n_slices_ : int
        Slices learnt.
    slices_ : list of dict
        Of each slice: its events, what it changed (``chosen``: "network", "slot" or "nothing"), the
        validation ``losses`` of each candidate on this slice and on the kept events of the earlier
        ones, its slots, epochs and losses.
    calendar_ : dict
        The periods of the calendar that the model follows, in multiples of ``time_scale_``.
    prompt_usage_ : int array (slots,)
        Training positions that each slot was used at.
    longest_inter_event_time_ : float
        The longest time without an event in the slices, in the table's unit: between events, or
        before a window's end. Longer times cannot be learnt from them: predicted times are
        conditioned on the event coming within this time from ``now`` on, later quantiles are
        missing, and ``no_event`` is the probability that the event comes later or never.
    slot_history_ : int array (slices, slots)
        Number of positions of a slice that retrieved each slot after it was learnt.
    classes_, time_scale_, n_events_, history_, ...
        See `tsllm.events.base.EventForecaster`.

    See Also
    --------
    HawkesForecaster : The statistical baseline.
    NaiveEventForecaster : Typical inter-event times and types.
    tsllm.events.evaluate_stream : Measure learning and forgetting on a stream.

    References
    ----------
    Xue et al. (2023), "Prompt-augmented Temporal Point Process for Streaming Event Sequence",
    NeurIPS, arXiv 2310.04993.
    """

    # Set in fitting, beside those that the docstring describes: they tell how the model was made.
    model_: PromptTPPModel
    n_slices_: int
    slices_: list[dict[str, Any]]
    prompt_usage_: np.ndarray
    slot_history_: np.ndarray
    longest_inter_event_time_: float
    architecture_: dict[str, Any]
    seed_: int
    context_length_: int
    scaled_median_: float
    text_width_: int | None
    backbone_digest_: str | None
    calendar_: dict[str, float]
    #: The states after the last events of ``history_``.
    _running: RunningStates
    #: Events of earlier slices; None: none are kept.
    _memory: SliceMemory | None = None

    _limits = PROMPTTPP_LIMITS

    def __init__(
        self,
        encoder: str = "attention",
        *,
        text_encoder: str = "attention",
        backbone: str | None = None,
        backbone_layers: int | None = None,
        lora: dict[str, Any] | None = None,
        type_text: str | Mapping[str, str] = "{name}",
        hidden: int = 32,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        context_length: int | str = "auto",
        decoder: str = "lognormal_mixture",
        components: int = 16,
        calendar: str | Sequence[str] | None = "auto",
        grow_types: bool = False,
        prompt_mode: str = "allocate",
        prompt_length: int = 5,
        max_slots: int = 16,
        slots_per_slice: int = 1,
        top_slots: int = 1,
        when_full: str = "merge",
        head_rank: int | None = None,
        base_update: str = "auto",
        warmup_slices: int = 1,
        max_epochs: int | str = "auto",
        max_steps: int | None = None,
        checkpoint_dir: str | Path | None = None,
        batch_size: int | str = "auto",
        learning_rate: float = 3e-3,
        prompt_learning_rate: float = 3e-2,
        weight_decay: float = 0.0,
        patience: int = 10,
        validation_fraction: float = 0.1,
        memory_events: int = 1000,
        embedding_store: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        verbose: int = 0,
        id_col: str | None = "sequence_id",
        time_col: str = "time",
        type_col: str = "type",
        time_unit: str = "s",
        sort: bool = False,
        ties: str = "error",
        resolution: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.encoder = encoder
        self.text_encoder = text_encoder
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.lora = lora
        self.type_text = type_text
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.dropout = dropout
        self.context_length = context_length
        self.decoder = decoder
        self.components = components
        self.calendar = calendar
        self.grow_types = grow_types
        self.prompt_mode = prompt_mode
        self.prompt_length = prompt_length
        self.max_slots = max_slots
        self.slots_per_slice = slots_per_slice
        self.top_slots = top_slots
        self.when_full = when_full
        self.head_rank = head_rank
        self.base_update = base_update
        self.warmup_slices = warmup_slices
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.checkpoint_dir = checkpoint_dir
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.prompt_learning_rate = prompt_learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.memory_events = memory_events
        self.embedding_store = embedding_store
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        super().__init__(locals())

    # ------------------------------------------------------------------ learning

    def partial_fit(
        self,
        events: Any,
        y: Any = None,
        *,
        types: Any = None,
        windows: Any = None,
        validation: Any = None,
    ) -> Self:
        """Learn the next slice of a stream; earlier slices are not read again.

        On a new estimator this is `fit`.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            The slice, as in `fit`.
        y : object, default=None
            Ignored; for scikit-learn's pipelines.
        types : sequence of str or None, default=None
            Only at the first call: further types that later slices contain.
        windows : tuple, DataFrame, mapping or None, default=None
            As in `fit`.
        validation : as events, or None, default=None
            Later events of the same sequences, for early stopping. None holds out the last
            ``validation_fraction`` of the slice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            As in `fit`; or a new type without ``grow_types=True``, or settings that leave nothing
            to learn.

        Warns
        -----
        UserWarning
            The pool of prompts is full: the slots that were merged or re-used.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(events, windows=windows, validation=validation, types=types)
        if types is not None:
            raise DataError("types belongs to the first call: use grow_types=True for new ones")
        self._check_parameters()
        self._check_unchanged()
        table = self._read(events, windows=windows)
        held_back = None if validation is None else self._read(validation)
        whole = table if held_back is None else table.extend(held_back)
        # Where learning fails, the estimator stays as it was.
        former, classes = self.model_, self.classes_
        self.model_ = copy.deepcopy(former)
        try:
            self._grow_types(whole)
            self._learn(table, held_back)
        except BaseException:
            self.model_, self.classes_ = former, classes
            raise
        self.n_events_ += whole.n_events
        self._describe(whole)
        self._remember(whole)
        return self

    _attributes: ClassVar[Mapping[str, Attribute]] = {
        **COMMON,
        "architecture_": Attribute(dict),
        "seed_": Attribute(int),
        "n_slices_": Attribute(int, least=1),
        "slices_": Attribute(list[Any]),
        "scaled_median_": Attribute(float, least=np.finfo(float).tiny),
        "context_length_": Attribute(int, least=1),
        "backbone_digest_": Attribute(str | None),
        "text_width_": Attribute(int | None),
        "slot_history_": Attribute(np.ndarray),
        "prompt_usage_": Attribute(np.ndarray),
        "longest_inter_event_time_": Attribute(float, least=np.finfo(float).tiny),
        "calendar_": Attribute(dict[str, float], needed=False),
    }

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_store(self.embedding_store)
        check_calendar(self.calendar)
        check_parameters(self.get_params(deep=False))

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        self._running, self._memory = {}, None
        self.architecture_ = {name: getattr(self, name) for name in FIXED_PARAMETERS}
        self.seed_ = self._seed()
        self.n_slices_ = 0
        self.slices_ = []
        times = np.concatenate([np.diff(own) for own in table.times])
        typical = float(np.median(times[times > 0])) if (times > 0).any() else self.time_scale_
        self.scaled_median_ = typical / self.time_scale_
        backbone = self._load_backbone()
        self.context_length_ = count_context_events(
            self.context_length, self.encoder, self.prompt_length, backbone
        )
        self.backbone_digest_ = None if backbone is None else backbone.digest
        self.text_width_, vectors = None, None
        if reads_texts(self.encoder):
            vectors = self._type_vectors(self.classes_)
            self.text_width_ = vectors.shape[1]
        outcomes: dict[tuple[str, ...], SliceOutcome] = {}
        fraction = self.validation_fraction
        tried = calendars_to_try(self.calendar, self.decoder, table, validation, fraction)
        for periods in tried:
            self._follow(periods, table)
            self.model_, variant = self._build_model(vectors), "-".join(periods)
            outcomes[periods] = self._trainer().learn(
                self.model_, 0, table, validation, variant=variant
            )
        chosen = tried[0]
        if len(tried) > 1:
            chosen = min(tried, key=lambda one: outcomes[one].record["validation_loss"])
        self._follow(chosen, table)
        self._note(outcomes[chosen], table, validation)

    def _follow(self, periods: Sequence[str], table: EventTable) -> None:
        """Set the periods of the calendar that the model follows."""
        lengths = lengths_of(periods, table).items()
        self.calendar_ = {name: length / self.time_scale_ for name, length in lengths}

    def _learn(self, table: EventTable, validation: EventTable | None) -> None:
        """Learn a further slice and record the results."""
        trainer = self._trainer()
        outcome = trainer.learn(self.model_, self.n_slices_, table, validation, self._memory)
        self._note(outcome, table, validation)

    def _note(
        self, outcome: SliceOutcome, table: EventTable, validation: EventTable | None
    ) -> None:
        """Keep what learning a slice left behind."""
        self.model_, record, uses, self._memory = outcome
        width = max(self.model_.pool.max_slots if self.prompt_mode == "shared" else 0, len(uses))
        former = getattr(self, "slot_history_", np.zeros((0, 0), dtype=np.int64))
        rows = [np.pad(row, (0, width - len(row))) for row in [*former, uses]]
        self.slot_history_ = np.stack(rows)
        self.prompt_usage_ = np.array(self.model_.pool.usage, dtype=np.int64)
        self.slices_ = [*self.slices_, record]
        former_longest = getattr(self, "longest_inter_event_time_", 0.0)
        parts = [part for part in (table, validation) if part is not None]
        self.longest_inter_event_time_ = max(former_longest, *map(longest_inter_event_time, parts))
        self.n_slices_ += 1

    def _trainer(self) -> SliceTrainer:
        """Make the trainer with the current parameters."""
        made = {"identity", "rows", "seed", "device"}
        named = {field.name for field in fields(SliceTrainer)} - made
        return SliceTrainer(
            identity=describe_fit(self, self.backbone_digest_),
            **{name: getattr(self, name) for name in named},
            rows=partial(
                EventWindows,
                classes=self.classes_,
                time_scale=self.time_scale_,
                length=self.context_length_,
                overlap=self.context_length_ // 4,
                resolution=self.resolution_,
            ),
            seed=self.seed_,
            device=self._device(),
        )

    def _grow_types(self, table: EventTable) -> None:
        """Extend the model to new types; without ``grow_types`` they are an error in reading."""
        new = [name for name in table.type_names if name not in set(self.classes_)]
        if not new or not self.grow_types:
            return
        vectors = self._type_vectors(new) if self.text_width_ is not None else None
        self.classes_ = np.append(self.classes_, np.array(new, dtype=object))
        self.model_.grow_types(len(self.classes_), vectors)

    def _check_unchanged(self) -> None:
        """Check that the parameters and the backbone still fit the model."""
        check_parameters(self.get_params(deep=False))
        for name, value in self.architecture_.items():
            if getattr(self, name) != value:
                raise DataError(
                    f"{name} was {value!r} when the model was made and is {getattr(self, name)!r} "
                    "now: set it back, or begin anew with fit"
                )
        backbone = self._load_backbone()
        if backbone is not None and backbone.digest != self.backbone_digest_:
            raise BackboneMismatchError(
                f"backbone={self.backbone!r} has other weights than the one that the model was "
                "made with: set it back, or begin anew with fit"
            )

    def _fine_tuned(self) -> Self:
        copied: Self = clone(self).set_params(
            prompt_mode="none", base_update="full", checkpoint_dir=None
        )
        return copied

    # ------------------------------------------------------------------ the model

    def _build_model(self, vectors: Tensor | None = None) -> PromptTPPModel:
        """Build the model for the known types and scale.

        Zeros stand in for the types' vectors (types, width) until the weights are loaded.
        """
        if vectors is None and self.text_width_ is not None:
            vectors = torch.zeros(len(self.classes_), self.text_width_)
        sizes: dict[str, Any] = {name: getattr(self, name) for name in MODEL_PARAMETERS}
        try:
            with seeded(self.seed_):
                if self.encoder == "llm-full":
                    sizes["backbone"] = tuned(self._load_backbone(), lora=self.lora)
                    sizes["max_events"] = self.context_length_
                model = PromptTPPModel(
                    len(self.classes_),
                    median_gap=self.scaled_median_,
                    type_vectors=vectors,
                    calendar=tuple(getattr(self, "calendar_", {}).values()),
                    seed=self.seed_,
                    **sizes,
                )
        except ValueError as error:
            raise DataError(str(error)) from error
        return model.to(self._device()).eval()

    def _type_vectors(self, classes: Any) -> Tensor:
        """Embed the texts of types: (types, width)."""
        backbone = self._load_backbone()
        assert backbone is not None  # the other encoders read no texts
        return type_vectors(self.encoder, classes, self.type_text, backbone, self.embedding_store)

    def _load_backbone(self) -> Backbone | None:
        name = backbone_name(self.encoder, self.backbone)
        if name is None:
            return None
        return load_backbone(
            name, layers=self.backbone_layers, device=self.device, dtype=self.dtype
        )

    # ------------------------------------------------------------------ predicting

    def _predictor(self) -> StreamPredictor:
        """Make the predictor from the model."""
        return StreamPredictor(
            self.model_,
            self._fitted(),
            self.context_length_,
            endless=self._is_endless(),
            stepped=self.decoder != "attnhp",
        )

    def _is_endless(self) -> bool:
        return is_endless(self.encoder, self.text_encoder)

    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        self._check_calendar(batch)
        return self.model_.decoder, self.model_.encode(batch)

    def _check_calendar(self, batch: EventBatch) -> None:
        """Check that events have the timestamps that the model follows."""
        if self.model_.calendar is not None and batch.origin is None:
            raise DataError(
                "the model follows the calendar, and the times of these events are numbers: pass "
                "timestamps, as in training"
            )

    def _context_length(self) -> int | None:
        return None if self._is_endless() else self.context_length_

    def _longest_inter_event_time(self) -> float | None:
        return self.longest_inter_event_time_ / self.time_scale_

    def _device(self) -> torch.device:
        backbone = self._load_backbone() if self.encoder == "llm-full" else None
        return resolve_device(self.device) if backbone is None else backbone.device

    def _remember(self, table: EventTable) -> None:
        predictor = self._predictor()
        self.history_, self._running = predictor.keep(table), predictor.begin(table)

    def _extend_history(self, new: EventTable) -> None:
        predictor = self._predictor()
        history = predictor.trim(self.history_.extend(new))
        self._running = predictor.advance(self._running, history, new)
        self.history_ = history

    def _latest_states(self) -> tuple[EventDecoder, EventStates] | None:
        return self._predictor().latest(self._running, self.history_)

    def _stream_states(self, table: EventTable | None) -> tuple[Any, Tensor]:
        if not self._is_endless():
            return super()._stream_states(table)
        predictor = self._predictor()
        return predictor.joined(self._running if table is None else predictor.begin(table))

    def _no_stream_reason(self) -> str:
        return (
            f"with encoder={self.encoder!r} has no stream, for it reads its last events again; "
            "encoder='aaren' has one"
        )

    def _step(
        self, decoder: Any, states: Any, types: Tensor, gaps: Tensor
    ) -> tuple[Any, EventStates]:
        return self.model_.step(states, types, gaps)

    def _decoder_states(self, states: Any, hidden: Tensor) -> EventStates:
        return EventStates(hidden, type_guess=self.model_.type_guess(states.query))

    def _decoder(self) -> EventDecoder:
        return self.model_.decoder

    def _forget_history(self) -> None:
        super()._forget_history()
        self._running = {}

    def _start_paths(self, batch: EventBatch, copies: int) -> Paths:
        if self.decoder == "attnhp":
            return super()._start_paths(batch, copies)
        self._check_calendar(batch)
        return StreamedPaths(self.model_, batch, copies)

    # ------------------------------------------------------------------ saving

    def to_state(self, *, include_context: bool = True) -> dict[str, Any]:
        """Return everything but the parameters; see `EventForecaster.to_state`."""
        running = {}
        # The states of the other encoders are computed from the history.
        if include_context and self._is_endless():
            running = {
                f"{number}.{name}": tensor
                for number, state in enumerate(self._running.values())
                for name, tensor in state.to_state().items()
            }
        state = super().to_state(include_context=include_context)
        # The memory holds events, as the history does.
        kept = self._memory.to_state(self.classes_) if include_context and self._memory else None
        weights = dict(self.model_.state_dict())
        return state | {"model": weights, "running": running, "memory": kept}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], parameters: Mapping[str, Any]) -> Self:
        """Build a forecaster from the output of `to_state`; see `EventForecaster.from_state`."""
        estimator = super().from_state(state, parameters)
        with readable(holds_data=True):
            backbone = estimator._load_backbone()  # held, so that building finds it loaded
            estimator.model_ = build_model(estimator._build_model, state["model"], backbone)
            kept = state.get("memory")  # models before 2.0 have none
            estimator._memory = (
                None if kept is None else SliceMemory.from_state(kept, estimator.classes_)
            )
            parts: dict[str, dict[str, Tensor]] = {}
            for name, tensor in state["running"].items():
                number, _, rest = name.partition(".")
                parts.setdefault(number, {})[rest] = tensor
            empty = estimator._predictor().empty_state() if parts else None
            estimator._running = {
                name: empty.from_state(parts[str(number)])
                for number, name in enumerate(estimator.history_.ids)
                if empty is not None
            }
        return estimator

    def _card_facts(self, with_context: bool) -> dict[str, Any]:
        results = {f"Slice {number}": slice_rows(one) for number, one in enumerate(self.slices_)}
        return super()._card_facts(with_context) | {"results": results}

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if not hasattr(self, "model_"):
            return state
        # Tensors are pickled on the CPU, so that a model fitted on a GPU can be read without one.
        # The running states that the history determines are left out: a language model's are large.
        kept = self._running.items() if self._is_endless() else ()
        running = {name: one.on("cpu") for name, one in kept}
        model = self.model_
        if any(parameter.device.type != "cpu" for parameter in model.parameters()):
            model = copy.deepcopy(model).cpu()
        return state | {"model_": model, "_running": running}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "model_"):
            self.model_.to(self._device())
