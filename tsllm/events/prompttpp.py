"""PromptTPP: a forecaster of event streams that learns slice by slice and does not forget."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tsllm.adapters.event_batch import EventBatch, EventStates
from tsllm.adapters.event_decoders import EventDecoder
from tsllm.adapters.prompttpp import PromptTPPModel
from tsllm.backbone import Backbone, load_backbone, resolve_device
from tsllm.datasets.events import EventTable
from tsllm.errors import BackboneMismatchError, DataError
from tsllm.events.base import EventForecaster
from tsllm.events.histories import last_events
from tsllm.events.prompttpp_model import build_model, embed_classes, retrieved_slots
from tsllm.events.prompttpp_parameters import (
    FIXED_PARAMETERS,
    backbone_name,
    check_parameters,
    context_length,
    is_endless,
    reads_texts,
)
from tsllm.events.running_states import (
    RunningStates,
    StreamedPaths,
    history_length,
    trim_history,
)
from tsllm.events.sampling import Paths
from tsllm.events.slice_training import learn_slice


class PromptTPP(EventForecaster):
    """Forecast event streams with a pool of prompts (Xue et al., 2023, "PromptTPP").

    A neural temporal point process: an encoder reads the events, a decoder gives the density of the
    next one in time and type. The stream may change: each slice of it (`partial_fit`) opens prompts
    of its own while the network stays as the first slices made it, and a prediction retrieves the
    prompts whose slice looked most like the sequence at hand. What was learnt of earlier slices is
    kept without keeping their events.

    This is not a port: the authors' released code neither trains its prompts beyond the first batch
    nor hides the future from the past. Retrieval here is by position and causal, and each slice's
    prompts are frozen after it (``prompt_mode="allocate"``); the paper's shared pool is
    ``"shared"``, which forgets.

    Parameters
    ----------
    encoder : {"attention", "aaren", "llm", "llm-full"}
        "attention": a small causal Transformer. "aaren": attention as a recurrent network, whose
        `update` takes constant time and memory however long the stream. "llm": one of these
        (``text_encoder``) over types that a frozen language model has read as texts, once.
        "llm-full": the events themselves go through the frozen language model.
    text_encoder : {"attention", "aaren"}
        With "llm": what reads the events.
    backbone : str, optional
        The language model of "llm" and "llm-full". None: tsllm's default one.
    backbone_layers : int, optional
        Use the first layers only. None uses all.
    lora : dict, optional
        With "llm-full": tune the language model with LoRA, ``{"r": 8, "alpha": 16}``.
    type_text : str or mapping
        With a language model, the text of a type: a template with ``{name}``, or a text for each.
    decoder : {"lognormal_mixture", "rmtpp", "exponential", "attnhp"}
        "lognormal_mixture": closed forms throughout. "rmtpp" and "exponential": intensities with
        closed integrals. "attnhp": the paper's, which attends to the events anew at every queried
        time and is slow; with the encoder "attention", or "llm" over it.
    prompt_mode : {"allocate", "shared", "none"}
        "allocate": each slice opens slots of its own. "shared": all slices train one pool, as
        published. "none": a plain temporal point process.
    base_update : {"freeze", "slow", "full"}
        What happens to the network after the first ``warmup_slices``: nothing; a tenth of its
        learning rate; as before. Anything but "freeze" forgets.
    warmup_slices : int
        Slices that train the network.
    hidden, layers, heads : int
        Width, blocks and heads of the encoder.
    dropout : float
        In the encoder.
    components : int
        Log-normal components of the mixture.
    time_features : int
        Width of the code of a gap, a multiple of 4.
    context_length : int or "auto"
        Most events of a sequence that are read at once; longer ones are trained and scored in
        overlapping parts. "auto": 128, or less where the language model takes less. "aaren" is
        trained so, and then reads without end.
    prompt_length : int
        Rows of a prompt.
    max_slots : int
        Most slots of the pool; a slice that finds it full merges or re-uses slots and says so.
    slots_per_slice : int
        Slots that a slice opens.
    top_slots : int
        Slots that a prediction retrieves.
    min_context : int
        Events from which on the slot is chosen by the sequence; before, the most used one is.
    cold_start : {"usage", "average"}
        The slot before that: the most used one, or all.
    when_full : {"merge", "reuse"}
        Merge the two most alike slots, or train the most similar one further.
    head_rank : int, optional
        Rank of each slot's own change of the encoder's output: what a frozen base learns most of a
        new slice by. None: 8, but 0 with "attnhp", which cannot have it. 0: none.
    matching_coef : float
        With "shared": weight of the loss that draws keys to the queries they serve.
    prompt_every : int
        With "shared": steps from one training of the prompts to the next, while the network is
        trained in all of them.
    grow_types : bool
        Whether `partial_fit` may bring types that were not seen before; else they are an error.
    max_epochs : int or "auto"
        Passes over a slice. "auto": 60, or more where these make less than 400 steps.
    max_steps : int, optional
        Training steps of a slice at most.
    batch_size : int
        Sequences, or parts of long ones, a step.
    learning_rate, prompt_learning_rate : float
        Of the network and of the prompts, which need ten times as much to learn at all.
    weight_decay : float
        Above 0, AdamW instead of Adam.
    patience : int
        Epochs without a better validation loss before training stops.
    validation_fraction : float
        The last part of a slice, which early stopping looks at where no ``validation`` is passed.
    embedding_store : EmbeddingStore or path, optional
        Where the types' embeddings are kept. None: in the user's cache folder.
    device, dtype : str
        "auto" takes the GPU, the language model in bfloat16, where there is one.
    id_col, time_col, type_col, time_unit, sort, ties, resolution
        How events are read, see `tsllm.datasets.read_events`.
    random_state : int, RandomState or None
        One random state gives one result.
    verbose : int
        1 shows progress on stderr.

    Attributes
    ----------
    model_ : PromptTPPModel
        The torch module.
    n_slices_ : int
        Slices learnt.
    slices_ : list of dict
        What was learnt of each slice: its events, its slots, epochs and losses.
    prompt_usage_ : int array (slots,)
        Training positions that each slot was used at.
    slot_history_ : int array (slices, slots)
        Which slots the positions of a slice retrieved after it was learnt.
    classes_, time_scale_, n_events_, history_, ...
        See `tsllm.events.base.EventForecaster`.

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
    """

    model_: PromptTPPModel
    _running: RunningStates | None

    def __init__(
        self,
        encoder: str = "attention",
        *,
        text_encoder: str = "attention",
        backbone: str | None = None,
        backbone_layers: int | None = None,
        lora: dict[str, Any] | None = None,
        type_text: str | Mapping[str, str] = "{name}",
        decoder: str = "lognormal_mixture",
        prompt_mode: str = "allocate",
        base_update: str = "freeze",
        warmup_slices: int = 1,
        hidden: int = 32,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        components: int = 16,
        time_features: int = 32,
        context_length: int | str = "auto",
        prompt_length: int = 5,
        max_slots: int = 16,
        slots_per_slice: int = 1,
        top_slots: int = 1,
        min_context: int = 3,
        cold_start: str = "usage",
        when_full: str = "merge",
        head_rank: int | None = None,
        matching_coef: float = 0.1,
        prompt_every: int = 2,
        grow_types: bool = False,
        max_epochs: int | str = "auto",
        max_steps: int | None = None,
        batch_size: int = 16,
        learning_rate: float = 3e-3,
        prompt_learning_rate: float = 3e-2,
        weight_decay: float = 0.0,
        patience: int = 10,
        validation_fraction: float = 0.1,
        embedding_store: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        id_col: str = "sequence_id",
        time_col: str = "time",
        type_col: str = "type",
        time_unit: str = "s",
        sort: bool = False,
        ties: str = "error",
        resolution: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.encoder = encoder
        self.text_encoder = text_encoder
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.lora = lora
        self.type_text = type_text
        self.decoder = decoder
        self.prompt_mode = prompt_mode
        self.base_update = base_update
        self.warmup_slices = warmup_slices
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.dropout = dropout
        self.components = components
        self.time_features = time_features
        self.context_length = context_length
        self.prompt_length = prompt_length
        self.max_slots = max_slots
        self.slots_per_slice = slots_per_slice
        self.top_slots = top_slots
        self.min_context = min_context
        self.cold_start = cold_start
        self.when_full = when_full
        self.head_rank = head_rank
        self.matching_coef = matching_coef
        self.prompt_every = prompt_every
        self.grow_types = grow_types
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.prompt_learning_rate = prompt_learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.embedding_store = embedding_store
        self.device = device
        self.dtype = dtype
        self.id_col = id_col
        self.time_col = time_col
        self.type_col = type_col
        self.time_unit = time_unit
        self.sort = sort
        self.ties = ties
        self.resolution = resolution
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ learning a stream

    def partial_fit(
        self,
        events: Any,
        y: Any = None,
        *,
        types: Any = None,
        windows: Any = None,
        validation: Any = None,
    ) -> Self:
        """Learn the next slice of a stream; nothing earlier is read again.

        On a new estimator this is `fit`.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            The slice, as `fit` takes events.
        y : ignored
            For scikit-learn's pipelines.
        types : sequence of str, optional
            Only at the first call: types that later slices will bring, beside those of this one.
        windows : optional
            See `fit`.
        validation : as events, optional
            Later events of the same sequences, for early stopping. None takes the last
            ``validation_fraction`` of the slice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            As in `fit`; or a new type without ``grow_types=True``, or settings under which nothing
            would be learnt.

        Warns
        -----
        UserWarning
            The pool of prompts is full: what was merged or re-used.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(events, windows=windows, validation=validation, types=types)
        if types is not None:
            raise DataError("types belongs to the first call: use grow_types=True for new ones")
        self._check_goes_on()
        table = self._read(events, windows=windows)
        held_back = None if validation is None else self._read(validation)
        whole = table if held_back is None else table.extend(held_back)
        # A slice that fails to be learnt leaves the estimator as it was.
        former, classes = self.model_, self.classes_
        self.model_ = copy.deepcopy(former)
        try:
            self._meet_types(whole)
            self._learn(table, held_back)
        except BaseException:
            self.model_, self.classes_ = former, classes
            raise
        self.n_events_ += whole.n_events
        self._describe(whole)
        self._remember(whole)
        return self

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        check_parameters(self)
        self._running = None
        self.architecture_ = {name: getattr(self, name) for name in FIXED_PARAMETERS}
        self.seed_ = self._seed()
        self.n_slices_ = 0
        self.slices_: list[dict[str, Any]] = []
        gaps = np.concatenate([np.diff(times) for times in table.times])
        typical = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else self.time_scale_
        self.median_scaled_gap_ = typical / self.time_scale_
        backbone = self._load_backbone()
        self.context_length_ = context_length(self, backbone)
        self.backbone_digest_ = None if backbone is None else backbone.digest
        self.text_width_, vectors = None, None
        if reads_texts(self):
            vectors = embed_classes(self, self.classes_)
            self.text_width_ = vectors.shape[1]
        self.model_ = self._build_model(vectors)
        self._learn(table, validation)

    def _learn(self, table: EventTable, validation: EventTable | None) -> None:
        """Train on a slice, and note what came of it."""
        record, uses = learn_slice(self, table, validation)
        width = max(self.model_.pool.max_slots if self.prompt_mode == "shared" else 0, len(uses))
        former = getattr(self, "slot_history_", np.zeros((0, 0), dtype=np.int64))
        rows = [np.pad(row, (0, width - len(row))) for row in [*former, uses]]
        self.slot_history_ = np.stack(rows)
        self.prompt_usage_ = np.array(self.model_.pool.usage, dtype=np.int64)
        self.slices_ = [*self.slices_, record]
        self.n_slices_ += 1
        self._running = None  # the states of another model

    def _meet_types(self, table: EventTable) -> None:
        """Make room for types that come up for the first time."""
        seen = np.unique(np.concatenate([*table.types, np.empty(0, object)]).astype(str))
        new = [name for name in seen if name not in set(self.classes_)]
        if not new or not self.grow_types:
            return  # unknown types are refused where they are read
        vectors = embed_classes(self, new) if self.text_width_ is not None else None
        self.classes_ = np.append(self.classes_, np.array(new, dtype=object))
        self.model_.grow_types(len(self.classes_), vectors)

    def _check_goes_on(self) -> None:
        """Refuse settings that no longer fit the model."""
        check_parameters(self)
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

    # ------------------------------------------------------------------ what is in the model

    def retrieve(self, history: Any = None, *, windows: Any = None) -> pd.DataFrame:
        """Tell which prompts each sequence retrieves after its last event.

        Parameters
        ----------
        history : as events in `fit`, optional
            None: the events of `fit` and `update`.
        windows : optional
            See `fit`.

        Returns
        -------
        DataFrame
            A row per sequence and slot: the slot's number, the slice that opened it last, its
            ``likeness`` to the sequence (minus the squared distance from the key, in units of how
            queries scatter; in mode "shared" the cosine), and whether it is ``retrieved``. No rows
            where there are no prompts.
        """
        check_is_fitted(self)
        return retrieved_slots(self, self._table(history, windows))

    @property
    def n_parameters(self) -> int:
        """Number of trained weights: the network's and the prompts', not the language model's."""
        check_is_fitted(self)
        return sum(parameter.numel() for parameter in self.model_.parameters())

    def summary(self) -> dict[str, Any]:
        """Say what was learnt, in one dict for printing and logging.

        Returns
        -------
        dict
            Weights (of the network, of the prompts, of the frozen language model), slices, slots,
            events, epochs and losses of the last slice, seconds of all, device.
        """
        check_is_fitted(self)
        prompts = sum(parameter.numel() for parameter in self.model_.pool.parameters())
        backbone = self._load_backbone()
        last = self.slices_[-1]
        return {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "backbone": None if backbone is None else backbone.spec,
            "trained_parameters": self.n_parameters,
            "network_parameters": self.n_parameters - prompts,
            "prompt_parameters": prompts,
            "frozen_parameters": 0 if backbone is None else backbone.parameter_count,
            "types": len(self.classes_),
            "context_length": self.context_length_,
            "slices": self.n_slices_,
            "slots": len(self.model_.pool),
            "events": self.n_events_,
            "epochs": last["epochs"],
            "best_epoch": last["best_epoch"],
            "steps": last["steps"],
            "train_loss": last["train_loss"],
            "validation_loss": last["validation_loss"],
            "stopped": last["stopped"],
            "seconds": sum(one["seconds"] for one in self.slices_),
            "device": str(self._device()),
        }

    # ------------------------------------------------------------------ the hooks of the base

    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        return self.model_.decoder, self.model_.encode(batch)

    def _context_length(self) -> int | None:
        return None if is_endless(self) else self.context_length_

    def _device(self) -> torch.device:
        backbone = self._load_backbone() if self.encoder == "llm-full" else None
        return resolve_device(self.device) if backbone is None else backbone.device

    def _remember(self, table: EventTable) -> None:
        most = history_length(self)
        if self._running is None:  # after learning
            self.history_ = last_events(table, most)
            self._running = RunningStates.begin(self, table)
        else:
            self.history_ = trim_history(table, most)

    def _advance(self, new: EventTable) -> None:
        assert self._running is not None  # `fit` began it
        self._running = self._running.after(self, new)

    def _latest_states(self) -> tuple[EventDecoder, EventStates] | None:
        return None if self._running is None else self._running.latest(self)

    def _start_paths(self, batch: EventBatch, copies: int) -> Paths:
        if self.decoder == "attnhp":
            return super()._start_paths(batch, copies)
        return StreamedPaths(self.model_, batch, copies)

    def _running_tensors(self) -> dict[str, Tensor]:
        # The states of the others are made anew from the history.
        running = self._running if is_endless(self) else None
        return {} if running is None else running.tensors()

    def _restore_running(self, tensors: Mapping[str, Tensor]) -> None:
        self._running = RunningStates({})
        if tensors:
            self._running = RunningStates.from_tensors(self, list(self.history_.ids), tensors)

    def _fine_tuned(self) -> Self:
        tuned: Self = clone(self).set_params(prompt_mode="none", base_update="full")
        return tuned

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if not hasattr(self, "model_"):
            return state
        # Tensors leave on the CPU, so that a model fitted on a GPU opens where there is none. The
        # running states that the history tells are left out: a language model's are large.
        running = self._running
        if running is not None:
            running = running.cpu() if is_endless(self) else RunningStates({})
        model = self.model_
        if any(parameter.device.type != "cpu" for parameter in model.parameters()):
            model = copy.deepcopy(model).cpu()
        return state | {"model_": model, "_running": running}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "model_"):
            self.model_.to(self._device())

    # ------------------------------------------------------------------ the model

    def _build_model(self, vectors: Tensor | None = None) -> PromptTPPModel:
        """Build the model for what is known; the types' vectors may be loaded later."""
        return build_model(self, vectors)

    def _load_backbone(self) -> Backbone | None:
        """Find the language model that the parameters name."""
        name = backbone_name(self)
        if name is None:
            return None
        return load_backbone(
            name, layers=self.backbone_layers, device=self.device, dtype=self.dtype
        )

    def _slice_seed(self) -> int:
        """Give the seed of the slice that is learnt now."""
        return int(np.random.SeedSequence((self.seed_, self.n_slices_)).generate_state(1)[0])
