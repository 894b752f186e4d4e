"""TimeCMA: a series aligned with the last-token embedding of its prompt."""

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.frames import stamps_after
from tsllm.forecasters.language_model import LLMForecaster
from tsllm.forecasters.learning import calibration_origins
from tsllm.forecasters.parameters import DECILES
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.prompts.writer import (
    DEFAULT_TEMPLATE,
    PromptWriter,
    check_prompts_fit,
    series_statistics,
)
from tsllm.training.windows import WindowBatch, Windows

# Prompts in memory as text at once: about 70 MB of 96 values each.
_PROMPTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class WindowPrompts:
    """The prompts of the windows that a model reads, each of ``context_length`` steps.

    Series without statistics (2, variables), for a value format that needs mean and deviation, are
    written by the statistics of their context.
    """

    writer: PromptWriter
    shape: ModelShape
    statistics: dict[Hashable, np.ndarray]

    def measure(self, contexts: Sequence[Context]) -> None:
        """Add the missing statistics of series, if the format needs them."""
        if self.writer.needs_statistics:
            for context in contexts:
                if context.series_id not in self.statistics:
                    self.statistics[context.series_id] = series_statistics(context.values)

    def of_series(self, context: Context, starts: Sequence[int] | np.ndarray) -> list[str]:
        """Write the prompts of windows of one series, one a variable, variables fastest.

        ``starts`` (windows,) are the first steps: positions in the context, negative before it.
        """
        return self.writer.write(
            context,
            starts,
            self.shape.context_length,
            freq=self.shape.freq,
            statistics=self.statistics.get(context.series_id),
        )

    def of_ends(self, contexts: Sequence[Context], backbone: Backbone) -> list[str]:
        """Write and check the prompts of the last window of each context, variables fastest."""
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
        """Write and check the prompts of windows of many series, some at a time.

        ``places`` (windows, 2) are the number of the series and the first step of each window,
        sorted. A prompt of more tokens than the backbone reads raises a `DataError`.
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

    The constructor fills the store with those of all windows (training, validation) of whole
    series; the object keeps a key of 32 bytes each.
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
        # One number a window, sorted as the places are, because no two first steps of one series
        # are further apart than this: a search finds a window's row.
        self._span = max(map(len, contexts)) + shape.context_length
        self._numbers = places @ [self._span, 1]  # (windows,)

    def read(self, batch: WindowBatch) -> Tensor:
        """Read the embeddings of a batch of windows, (batch, width, variables), on its device."""
        number = (batch.series * self._span + batch.start).cpu().numpy()
        keys = self._keys[np.searchsorted(self._numbers, number)]  # (batch, variables, 32)
        vectors = self.store.read(keys.reshape(-1, keys.shape[-1]), self.backbone)
        return by_variable(vectors, len(number), batch.values.device)


def places_of(windows: Sequence[Windows]) -> np.ndarray:
    """List the series and first step of windows, each place once, sorted: (windows, 2)."""
    positions = [torch.stack(part.positions(), dim=1).numpy() for part in windows]
    return np.unique(np.concatenate(positions), axis=0)


def by_variable(vectors: Tensor, batch: int, device: torch.device) -> Tensor:
    """Reshape embeddings (batch * variables, width) to (batch, width, variables)."""
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


class TimeCMAForecaster(DirectForecaster, LLMForecaster):
    """Forecast with prompt embeddings that are computed once (Liu et al., AAAI 2025).

    Each variable's window is written as a text (its dates, values and trend), and the language
    model's state of the text's last token describes it. A small transformer over the variables
    aligns that description with the series and forecasts ``prediction_length`` steps at once;
    longer horizons are rolled out, with prompts of its own forecasts. The embeddings depend on
    nothing that is trained, so each is computed once and kept in the embedding store: training
    again, or forecasting the same windows, does not run the language model.

    Variables are forecast together, and a panel's series share one model. The published alignment
    normalises over the variables, which leaves nothing of a single one and only the order of two;
    with one or two variables it normalises over the features instead. The method is made for many
    variables that move together.

    The arguments that matter most: ``backbone`` (None: no language model), ``context_length``,
    ``prediction_length`` (the steps forecast at once), ``max_steps`` (the time of the training) and
    ``random_state``.

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

    Parameters
    ----------
    backbone : str or None, default="sentence-transformers/all-MiniLM-L6-v2"
        The language model: a Hugging Face id, a local directory, or ``"random:..."``. None trains
        the same forecaster without the prompt branch, as a control: the alignment then retrieves
        from the series branch itself.
    lora : None, default=None
        Not for this method: embeddings that are computed once cannot follow a language model that
        is tuned.
    context_length : int or "auto", default="auto"
        Steps of history that a forecast reads. "auto": 96, and at most half of a typical series.
        A step takes about three tokens of the prompt.
    channel : int, default=64
        Width of a variable's token, a multiple of ``heads``.
    heads : int, default=8
        Attention heads; the language model's width must be a multiple of them too.
    encoder_layers : int, default=1
        Layers of each of the two encoders.
    decoder_layers : int, default=2
        Layers of the decoder.
    feedforward : int, default=2048
        Width inside the feed-forward blocks.
    dropout : float, default=0.2
        Everywhere in the model.
    value_format : {"window", "series", "int"}, default="window"
        Form of the values. "window": standardised by the window's own statistics, times 100 and
        rounded. "series": likewise by the statistics of the series that was trained on (an unseen
        one: of the context it is forecast from). "int", as the authors do: the whole part of the
        series-standardised value. "window" writes the same prompt for every horizon, fold or refit,
        so that its embedding is found again; its length stays bounded where series drift; and it
        needs no statistics of an unseen series.
    batch_size : int, default=16
        Windows of a training step, each with all its variables.
    static_attributes : tuple of str, default=()
        Columns of X that do not change within a series, such as its region: its prompts begin with
        them as text.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    See Also
    --------
    AutoTimesForecaster, S2IPForecaster, LastTokenEmbedder

    References
    ----------
    Liu et al., "TimeCMA: Towards LLM-Empowered Multivariate Time Series Forecasting via
    Cross-Modality Alignment", AAAI 2025, arXiv 2406.01638, section 3.
    """

    _runs_backbone = False
    _channel_independent = False
    _embeds_windows = True
    _final_learning_rate = 1e-6
    _max_context: ClassVar[int] = 96

    prompt_template: str

    def __init__(
        self,
        backbone: str | None = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | str | None = "auto",
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
        loss: str = "mse",
        quantiles: tuple[float, ...] = DECILES,
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 16,
        window_stride: int | str = "auto",
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-3,
        patience: int = 3,
        validation_fraction: float = 0.1,
        shrinkage: bool | str = "auto",
        max_steps: int | None = None,
        checkpoint_dir: str | Path | None = None,
        floor: float | str | None = "auto",
        past_covariates: tuple[str, ...] = (),
        text_covariates: tuple[str, ...] = (),
        text_backbone: str = DEFAULT_BACKBONE,
        static_attributes: tuple[str, ...] = (),
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.channel = channel
        self.heads = heads
        self.encoder_layers = encoder_layers
        self.decoder_layers = decoder_layers
        self.feedforward = feedforward
        self.dropout = dropout
        self.value_format = value_format
        self.static_attributes = static_attributes
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
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
        # A norm over two variables leaves only their order, over one variable nothing.
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
        # An update keeps the statistics of a series' first training.
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
            # Prompts round forecasts to few digits. Float64, so that the last bits, which depend on
            # the batch, change no rounding.
            state = replace(state, model=copy.deepcopy(state.model).double())
            batch = replace(batch, values=batch.values.double())
        return super()._run_model(state, batch, contexts, horizon)

    def _rows_at_once(self, state: FittedState) -> int:
        return max(1, _TOKENS_AT_ONCE // state.shape.n_variables)

    def _texts_to_embed(
        self, shape: ModelShape, contexts: Sequence[Context], backbone: Backbone
    ) -> Iterator[list[str]]:
        training, validation, held_out = self._windows(shape, contexts)
        windows = [training] if validation is None else [training, validation]
        # The windows that calibration, shrinkage and then `predict` read.
        ends = [np.array([len(context)]) for context in contexts]
        read = [calibration_origins(contexts, held_out, season_length(shape.freq)), ends]
        if self._shrinks(contexts):
            read.append(self._shrinkage_origins(shape, contexts, held_out))
        further = [
            (series, int(origin) - shape.context_length)
            for origins_of in read
            for series, origins in enumerate(origins_of)
            for origin in origins
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
        """Check the parameters that only TimeCMA has, and those that it cannot use."""
        if self.lora is not None:
            raise DataError(
                f"lora={self.lora!r} cannot be used with TimeCMAForecaster: its prompts are "
                "embedded once and kept, and a language model that is tuned would leave them "
                "behind; leave lora out, or use AutoTimesForecaster"
            )
        PromptWriter(self.prompt_template, self.value_format)  # checks both
        self._check_multiple("channel", "heads")
