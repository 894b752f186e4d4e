"""TimeCMA: a series aligned with the last-token embedding of its prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.timecma import TimeCMAModel
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.context import Context, ContextBatch, batch_contexts
from tsllm.datasets.frequency import season_length
from tsllm.embeddings import EmbeddingStore, open_store
from tsllm.errors import DataError
from tsllm.forecasters.calibration import calibration_origins
from tsllm.forecasters.checks import check_multiple, check_whole
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.frames import stamps_after
from tsllm.forecasters.learning import windows_of
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.prompts.writer import (
    DEFAULT_TEMPLATE,
    PromptWriter,
    check_prompts_fit,
    series_statistics,
)
from tsllm.training.windows import WindowBatch, Windows

# Prompts that are in memory as text at once: about 70 MB of 96 values each.
_PROMPTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class WindowPrompts:
    """Writes the windows that a model of some shape reads.

    Attributes
    ----------
    writer : PromptWriter
    shape : ModelShape
        Of the model: a window is its ``context_length`` steps.
    statistics : dict of series id to array (2, variables)
        Mean and deviation of series, for a value format that needs them. A series that is not
        among them is written by the statistics of its context.
    """

    writer: PromptWriter
    shape: ModelShape
    statistics: dict[Hashable, np.ndarray]

    def measure(self, contexts: Sequence[Context]) -> None:
        """Add the statistics of series that the format needs and that are not known yet."""
        if self.writer.needs_statistics:
            for context in contexts:
                if context.series_id not in self.statistics:
                    self.statistics[context.series_id] = series_statistics(context.values)

    def of_series(self, context: Context, starts: Sequence[int] | np.ndarray) -> list[str]:
        """Write windows of one series, given by their first steps: one a variable, these fastest.

        ``starts`` (windows,) are positions in the context, negative before it.
        """
        return self.writer.write(
            context,
            starts,
            self.shape.context_length,
            freq=self.shape.freq,
            statistics=self.statistics.get(context.series_id),
        )

    def of_ends(self, contexts: Sequence[Context], backbone: Backbone) -> list[str]:
        """Write the last window of each context, variables fastest, checked as `in_parts` does."""
        prompts = [
            prompt
            for context in contexts
            for prompt in self.of_series(context, [len(context) - self.shape.context_length])
        ]
        check_prompts_fit(prompts, backbone)
        return prompts

    def in_parts(
        self, contexts: Sequence[Context], places: np.ndarray, backbone: Backbone
    ) -> Iterator[list[str]]:
        """Write windows of many series, some at a time.

        Each part is checked before it is handed over.

        Parameters
        ----------
        contexts : sequence of Context
            The series, whole.
        places : array (windows, 2), int
            The number of the series and the first step of each window, sorted by them.
        backbone : Backbone
            That is to read the prompts.

        Raises
        ------
        DataError
            A prompt has more tokens than the backbone reads.
        """
        rows = max(1, _PROMPTS_AT_ONCE // self.shape.n_variables)
        for first in range(0, len(places), rows):
            part = places[first : first + rows]
            prompts = [
                prompt
                for series in np.unique(part[:, 0]).tolist()
                for prompt in self.of_series(contexts[series], part[part[:, 0] == series, 1])
            ]
            check_prompts_fit(prompts, backbone)
            yield prompts


class EmbeddedWindows:
    """The embeddings of the prompts of training windows, found by series and first step.

    All are in the store when it is made; what is kept in memory is a key of 32 bytes each.

    Parameters
    ----------
    prompts : WindowPrompts
    contexts : sequence of Context
        The series, whole.
    windows : sequence of Windows
        Those to embed, for training and validation, of these series.
    backbone : Backbone
        That reads the prompts.
    store : EmbeddingStore
        Where the embeddings are kept.
    progress : bool
        Whether to show how far the language model is.
    """

    def __init__(
        self,
        prompts: WindowPrompts,
        contexts: Sequence[Context],
        windows: Sequence[Windows],
        backbone: Backbone,
        store: EmbeddingStore,
        *,
        progress: bool,
    ) -> None:
        self.backbone, self.store = backbone, store
        places = places_of(windows)  # (windows, 2)
        keys = [
            store.fill(part, backbone, progress=progress)
            for part in prompts.in_parts(contexts, places, backbone)
        ]
        shape = prompts.shape
        self._keys = np.concatenate(keys).reshape(len(places), shape.n_variables, -1)
        # One number a window. They rise as the places do, for no two first steps of one series are
        # as far apart as this: a search finds a window's row.
        self._span = max(map(len, contexts)) + shape.context_length
        self._numbers = places @ [self._span, 1]  # (windows,)

    def read(self, batch: WindowBatch) -> Tensor:
        """Give a batch of windows its embeddings, (batch, width, variables), on its device."""
        number = (batch.series * self._span + batch.start).cpu().numpy()
        keys = self._keys[np.searchsorted(self._numbers, number)]  # (batch, variables, 32)
        vectors = self.store.read(keys.reshape(-1, keys.shape[-1]), self.backbone)
        return by_variable(vectors, len(number), batch.values.device)


def places_of(windows: Sequence[Windows]) -> np.ndarray:
    """Give the series and the first step of windows, each place once and sorted: (windows, 2)."""
    positions = [torch.stack(part.positions(), dim=1).numpy() for part in windows]
    return np.unique(np.concatenate(positions), axis=0)


def by_variable(vectors: Tensor, batch: int, device: torch.device) -> Tensor:
    """Bring embeddings (batch * variables, width) into the form (batch, width, variables)."""
    return vectors.to(device).unflatten(0, (batch, -1)).transpose(1, 2)


def extend_by_forecasts(
    contexts: Sequence[Context], values: Tensor, done: int, shape: ModelShape
) -> list[Context]:
    """Extend contexts by their own forecasts, in the series' units.

    ``values`` (batch, context, variables) end with them, standardised as the contexts were.
    """
    steps = shape.context_length
    standard = batch_contexts(contexts, steps)
    forecasts = values[:, -done:].double().cpu().numpy()  # (batch, at most context, variables)
    forecasts = forecasts * standard.scale[:, None] + standard.location[:, None]
    extended = []
    for context, forecast in zip(contexts, forecasts):
        times = context.times.append(stamps_after(context, done, freq=shape.freq))
        whole = np.concatenate([context.values, forecast])[-steps:]
        extended.append(context.with_values(whole, times=times[-len(whole) :], past_x=None))
    return extended


# Tokens (variables) that are forecast in one batch.
_TOKENS_AT_ONCE = 2048


class TimeCMAForecaster(DirectForecaster):
    """Forecast with prompt embeddings that are computed once (Liu et al., AAAI 2025, 2406.01638).

    Each variable's window is written as a text (its dates, values and trend), and the language
    model's state of the text's last token describes it. A small transformer over the variables
    aligns that description with the series and forecasts ``prediction_length`` steps at once;
    longer horizons are rolled out, with prompts of its own forecasts. The embeddings depend on
    nothing that is trained, so each is computed once and kept in the embedding store: training
    again, or forecasting the same windows, does not run the language model.

    Variables are forecast together, and a panel's series share one model. The published alignment
    normalises over the variables, which leaves nothing of a single one and the mere order of two;
    with one or two variables it normalises over the features instead. The method is made for many
    variables that move together.

    Parameters
    ----------
    backbone : str or None
        The language model: a Hugging Face id, a local directory, or ``"random:..."``. None leaves
        the prompt branch out: the alignment then retrieves from the series branch itself and
        everything else is the same, the control for whether the language model helps.
    backbone_layers : int, optional
        Use the first layers only. None uses all.
    lora : None
        Not for this method: embeddings that are computed once cannot follow a language model that
        is tuned.
    context_length : int or "auto"
        Steps of history that a forecast reads. "auto": 96, and at most half of a typical series.
        A step takes about three tokens of the prompt.
    prediction_length : int, optional
        Steps that the model forecasts at once, and that intervals are calibrated for. None: the
        ``fh`` of `fit`, else a season.
    channel : int
        Width of a variable's token, a multiple of ``heads``.
    heads : int
        Attention heads; the language model's width must be a multiple of them too.
    encoder_layers, decoder_layers : int
        Layers of the two encoders, and of the decoder.
    feedforward : int
        Width inside the feed-forward blocks.
    dropout : float
        Everywhere in the model.
    prompt_template : str
        The text, with any of the fields ``{start}``, ``{end}``, ``{values}``, ``{frequency}`` and
        ``{trend}``; see `tsllm.prompts.writer.PromptWriter`.
    value_format : {"window", "series", "int"}
        How values are written: standardised by the window's own statistics, by those of the series
        that was trained on (an unseen one: of the context it is forecast from), both times 100 and
        rounded, or as the authors do, the whole part of the series-standardised value. "window"
        writes the same prompt whatever the horizon, fold or refit, so that its embedding is found
        again; its length stays bounded where series drift; and it needs to know nothing of a series
        that was never seen.
    window_stride : int
        Steps between training windows, each of which costs a pass of the language model, once. A
        stride that shares a factor with the season misses some of its phases: a warning says so.
    loss : {"mse", "mae", "huber", "quantile"}
        "quantile" trains a head that gives ``quantiles`` without crossing.
    quantiles : tuple of float
        Levels of the quantile head.
    adaptive : bool
        Keep the intervals' calibration current in `update`; costs one forecast per update.
    update_epochs : int
        Epochs to train on new data in `update`, and in `fit` after `pretrain`. 0: none.
    max_epochs : int or "auto"
        "auto": ten, or more where the series are so few that ten make less than 400 steps.
    batch_size : int
        Windows a training step, each with all its variables.
    learning_rate, weight_decay : float
        Of AdamW, with a cosine schedule over the epochs.
    patience : int
        Epochs without a better validation loss before training stops.
    validation_fraction : float
        Share of each series, at its end, for early stopping and for calibrating intervals.
    max_steps : int, optional
        Stop after so many training steps.
    past_covariates : tuple of str
        Columns of X that end with y; the other columns must be given for the steps to forecast.
    static_attributes : tuple of str
        Columns of X that do not change within a series, such as its region: they stand in front of
        its prompts as text.
    embedding_store : EmbeddingStore or path, optional
        Where the embeddings are kept. None: in the user's cache folder.
    freq : str, optional
        Frequency of the series, where their index does not tell it.
    device, dtype : str
        "auto" takes the GPU with bfloat16 where there is one.
    random_state : int, RandomState or None
        One random state gives one result.
    verbose : int
        1 shows progress on stderr.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    Examples
    --------
    >>> import tempfile
    >>> from sktime.datasets import load_airline
    >>> from tsllm import TimeCMAForecaster
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     forecaster = TimeCMAForecaster(
    ...         backbone="random:gpt2?hidden=16&layers=1&heads=8",
    ...         embedding_store=folder,
    ...         max_steps=5,
    ...         random_state=0,
    ...     )
    ...     forecast = forecaster.fit(load_airline(), fh=[1, 2, 3]).predict()
    >>> forecast.index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    """

    _runs_backbone = False
    _channel_independent = False
    _final_learning_rate = 1e-6
    _max_context: ClassVar[int] = 96
    _architecture = DirectForecaster._architecture | {
        "prediction_length",
        "channel",
        "heads",
        "encoder_layers",
        "decoder_layers",
        "feedforward",
        "dropout",
        "prompt_template",
        "value_format",
        "static_attributes",
    }

    def __init__(
        self,
        backbone: str | None = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | None = None,
        lora: dict[str, Any] | None = None,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        channel: int = 64,
        heads: int = 8,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        feedforward: int = 2048,
        dropout: float = 0.2,
        prompt_template: str = DEFAULT_TEMPLATE,
        value_format: str = "window",
        window_stride: int = 1,
        loss: str = "mse",
        quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 16,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-3,
        patience: int = 3,
        validation_fraction: float = 0.1,
        max_steps: int | None = None,
        past_covariates: tuple[str, ...] = (),
        static_attributes: tuple[str, ...] = (),
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.lora = lora
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.channel = channel
        self.heads = heads
        self.encoder_layers = encoder_layers
        self.decoder_layers = decoder_layers
        self.feedforward = feedforward
        self.dropout = dropout
        self.prompt_template = prompt_template
        self.value_format = value_format
        self.window_stride = window_stride
        self.loss = loss
        self.quantiles = quantiles
        self.adaptive = adaptive
        self.update_epochs = update_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.max_steps = max_steps
        self.past_covariates = past_covariates
        self.static_attributes = static_attributes
        self.embedding_store = embedding_store
        self.freq = freq
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Give small settings for sktime's tests.

        Parameters
        ----------
        parameter_set : str
            Ignored: there is one set.

        Returns
        -------
        list of dict
        """
        tiny = {
            "backbone": "random:gpt2?hidden=8&layers=1&heads=2&positions=512",
            "channel": 4,
            "heads": 2,
            "decoder_layers": 1,
            "feedforward": 8,
        }
        return [
            {**tiny, "context_length": 8, "max_steps": 2, "random_state": 42},
            {
                **tiny,
                "context_length": 6,
                "prediction_length": 2,
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "value_format": "series",
                "max_steps": 1,
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    # ------------------------------------------------------------------ the method's hooks

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        self._check_own_parameters()
        shape = super()._choose_shape(contexts, horizon)
        # Of two variables a norm over variables leaves which one is larger, of one nothing at all.
        cross_norm = "variables" if shape.n_variables > 2 else "features"
        return replace(shape, extra={"cross_norm": cross_norm})

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        width = None if backbone is None else backbone.hidden_size
        if width is not None and width % self.heads:
            raise DataError(
                f"heads={self.heads} must divide the width of the backbone {self.backbone}, "
                f"{width}: choose another number of heads"
            )
        return TimeCMAModel(
            shape.context_length,
            shape.horizon,
            shape.n_variables,
            width,
            channel=self.channel,
            heads=self.heads,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            feedforward=self.feedforward,
            dropout=self.dropout,
            cross_norm=shape.extra["cross_norm"],
            quantiles=self._head_levels(),
        )

    def _training_inputs(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[WindowBatch], dict[str, Tensor]]:
        if state.backbone is None:
            return super()._training_inputs(state, contexts, windows)
        prompts = self._prompts(state.shape, state.statistics)
        # A series that an update goes on with keeps the statistics of its first training.
        prompts.measure(contexts)
        store = open_store(self.embedding_store)
        embedded = EmbeddedWindows(
            prompts, contexts, windows, state.backbone, store, progress=self.verbose > 0
        )
        return lambda batch: {"prompt_embeddings": embedded.read(batch)}

    def _forecast_inputs(
        self, state: FittedState, values: Tensor, contexts: Sequence[Context], done: int
    ) -> dict[str, Tensor]:
        if state.backbone is None:
            return {}
        if done:
            contexts = extend_by_forecasts(contexts, values, done, state.shape)
        prompts = self._prompts(state.shape, state.statistics).of_ends(contexts, state.backbone)
        vectors = open_store(self.embedding_store).encode(prompts, state.backbone)
        return {"prompt_embeddings": by_variable(vectors, len(contexts), values.device)}

    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        if state.backbone is not None and horizon > state.shape.horizon:
            # Prompts of forecasts round them to few digits: in float64, so that the last bits,
            # which depend on the batch, tip no rounding.
            state = replace(state, model=copy.deepcopy(state.model).double())
            batch = replace(batch, values=batch.values.double())
        return super()._run_model(state, batch, contexts, horizon)

    def _rows_at_once(self, state: FittedState) -> int:
        return max(1, _TOKENS_AT_ONCE // state.shape.n_variables)

    def _texts_to_embed(
        self, shape: ModelShape, contexts: Sequence[Context], backbone: Backbone
    ) -> Iterator[list[str]]:
        training, watched, held_out = windows_of(self, shape, contexts)
        windows = [training] if watched is None else [training, watched]
        # What calibration forecasts from, and `predict` after it.
        origins = calibration_origins(
            contexts, self.validation_fraction, held_out, season_length(shape.freq)
        )
        further = [
            (series, int(origin) - shape.context_length)
            for series, (context, before) in enumerate(zip(contexts, origins))
            for origin in [*before, len(context)]
        ]
        places = np.unique(np.concatenate([places_of(windows), np.array(further)]), axis=0)
        prompts = self._prompts(shape, {})
        prompts.measure(contexts)
        yield from prompts.in_parts(contexts, places, backbone)

    # ------------------------------------------------------------------ helpers

    def _prompts(self, shape: ModelShape, statistics: dict[Hashable, np.ndarray]) -> WindowPrompts:
        writer = PromptWriter(self.prompt_template, self.value_format)
        return WindowPrompts(writer, shape, statistics)

    def _check_own_parameters(self) -> None:
        """Check the parameters that only TimeCMA has, and those that it refuses."""
        if self.lora is not None:
            raise DataError(
                f"lora={self.lora!r} cannot be used with TimeCMAForecaster: its prompts are "
                "embedded once and kept, and a language model that is tuned would leave them "
                "behind; leave lora out, or use AutoTimesForecaster"
            )
        PromptWriter(self.prompt_template, self.value_format)  # refuses what it cannot write
        for name in ("channel", "heads", "encoder_layers", "decoder_layers", "feedforward"):
            check_whole(name, getattr(self, name))
        check_multiple(self, "channel", "heads")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout must be at least 0 and less than 1, found {self.dropout!r}")
