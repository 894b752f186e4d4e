"""PromptTPP: a forecaster of event streams that learns slice by slice and does not forget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from tsllm.events.prompttpp.model import retrieved_slots
from tsllm.events.prompttpp.trainer import LearnsSlices


class PromptTPP(LearnsSlices):
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
    longest_wait_ : float
        The longest time without an event that the slices showed, in the table's unit: between
        events, or before a window's end. What comes later cannot be learnt from them. So predicted
        times are given that the event comes within so long from ``now`` on, quantiles beyond are
        missing, and ``no_event`` is the probability that it does not come within so long.
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
