"""Aaren: a forecaster that follows its series in constant time and memory per observation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.aaren.attention import MIXERS, QUERIES
from tsllm.adapters.aaren.model import AarenModel, prefix_loss
from tsllm.adapters.aaren.patches import NORMALISATIONS
from tsllm.backbone import Backbone, tuned
from tsllm.context import Context
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.checks import check_choice, check_multiple, check_whole
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.flips import choose_flips
from tsllm.forecasters.running_state import (
    Memory,
    encode,
    follow,
    forecast_streams,
    memories_from,
    memory_tensors,
    warn_of_drift,
)
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.training.settings import Loss
from tsllm.training.windows import WindowBatch, Windows

MEMORIES = ("decay", "full", "window", "reencode")
#: ``patch_length="auto"``: without a season; at most; and the shortest part of a season.
PLAIN_PATCH, LONGEST_PATCH, SHORTEST_PATCH = 16, 32, 4


def check_aaren_parameters(estimator: AarenForecaster) -> None:
    """Check the parameters that only Aaren has.

    Raises
    ------
    DataError
        Naming the parameter, its value and what would do.
    """
    for name, choices in (
        ("mixer", MIXERS),
        ("memory", MEMORIES),
        ("normalisation", NORMALISATIONS),
        ("query", QUERIES),
    ):
        check_choice(name, getattr(estimator, name), choices)
    if estimator.patch_length != "auto":
        check_whole("patch_length", estimator.patch_length, or_auto=True)
    for name in ("hidden", "layers", "heads", "feedforward", "soft_prompt_length"):
        check_whole(name, getattr(estimator, name))
    check_multiple(estimator, "hidden", "heads")
    for name, value in (("mixer", "attention"), ("normalisation", "window")):
        if getattr(estimator, name) == value and estimator.memory != "reencode":
            raise DataError(
                f"{name}={value!r} needs the whole context at once: set memory='reencode', or "
                f"another {name}"
            )


def choose_patch_length(season: int, context_length: int, *, divides: bool) -> int:
    """Choose the steps of a patch: a season, or a part of one, where there is one.

    Parameters
    ----------
    season, context_length : int
        Steps of a season and of the context, which holds at least four patches where it can.
    divides : bool
        Whether the context must be a multiple of the patch.

    Returns
    -------
    int
        Steps.

    Examples
    --------
    >>> choose_patch_length(24, 520, divides=False), choose_patch_length(24, 512, divides=True)
    (24, 8)
    """
    most = min(max(1, context_length // 4), LONGEST_PATCH)
    possible = [p for p in range(1, most + 1) if not divides or context_length % p == 0]
    seasonal = [p for p in possible if season % p == 0 and p >= SHORTEST_PATCH]
    return max(seasonal or [p for p in possible if p <= PLAIN_PATCH])


class AarenForecaster(DirectForecaster):
    """Follow series of any length in constant memory (Feng et al., 2024, 2405.13956).

    Attention with a learnt query is a recurrent network: each layer keeps a softmax average of the
    whole past, which a new observation updates in constant time. Patches of the series are the
    tokens, and every prefix of a training window is learnt from. `update` advances the state of
    each series, and `predict` reads it: the same forecast, to rounding, as encoding the whole
    history anew.

    Of a series are kept its last ``context_length`` steps and two states of constant size. Rows
    that are handed over again are passed over; corrections within the kept steps are read anew.
    A training (``update_epochs``) makes the states stale: they are then rebuilt from the kept
    steps, and what lay before is forgotten. `forecast` reads any context from its first step on.

    Not for series that need recall of single events, or are short; and below some ten thousand
    tokens attention with a cache is no slower a step. What is gained is that nothing grows.

    Parameters
    ----------
    backbone : str or None
        A language model that reads the last ``soft_prompt_length`` outputs behind a text prompt,
        when a forecast is asked for; `update` never runs it. None: the model without one.
    backbone_layers : int, optional
        Use the first layers only. None uses all.
    lora : dict, optional
        Fine-tune the language model with LoRA (Hu et al., 2021, 2106.09685), through peft:
        ``{"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}``, where each entry may be
        left out and None means the query and value projections. The adapters are this
        forecaster's own; the shared weights are never changed.
    context_length : int or "auto"
        Steps of a training window, a multiple of the patch length. "auto": up to 512, and at most
        half of a typical series. Streams go on beyond it.
    patch_length : int or "auto"
        Steps of a patch. "auto": a season, or the longest part of one up to 32 steps, so that
        every patch shows the same hours or months; 16 where there is no season; at least four
        patches a window.
    prediction_length : int, optional
        Steps that the model forecasts at once, and that intervals are calibrated for. None: the
        ``fh`` of `fit`, else a season. Longer horizons are rolled out on its own forecasts.
    mixer : {"aaren", "mingru", "attention", "none"}
        What mixes the patches. "mingru" (Feng et al., 2024, 2410.01201) streams alike;
        "attention" cannot, and needs ``memory="reencode"``; "none" sees one patch at a time.
    memory : {"decay", "full", "window", "reencode"}
        "decay": each head of Aaren forgets at a rate it learns (not in the paper). "full": the
        paper's, nothing is forgotten; far beyond the training windows it drifts. "window": states
        start over, so that a forecast reads one to two windows. "reencode": no state; each
        forecast reads the last window.
    normalisation : {"causal", "anchored", "window"}
        By the running mean and deviation, or the last value and the running deviation: both are
        part of the state. "window": by the whole window's, with ``memory="reencode"`` only.
    query : {"folded", "token"}
        "token": the paper's parameters; "folded": the same functions with fewer.
    hidden, layers, heads, feedforward : int
        Width of a token (a multiple of the heads), blocks, heads, width inside the feed-forward
        parts.
    dropout : float
        In the blocks.
    flip_invariance : bool or "auto"
        Let the forecast of a series turned upside down be the forecast turned upside down: training
        turns each window over by chance, and a forecast is the average of both readings, which
        takes twice the time. Not in the paper. "auto": where the series rise and fall alike, in at
        least a third of the windows each; a model of this kind cannot know that a series grows.
    soft_prompt_length : int
        Outputs that the language model reads.
    prompt : str
        The text before them. "auto": one sentence with frequency and horizon.
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
        Windows a training step; each variable is a window of its own.
    window_stride : int
        Steps between training windows.
    learning_rate, weight_decay : float
        Of Adam, with a cosine schedule over the epochs.
    patience : int
        Epochs without a better validation loss before training stops.
    validation_fraction : float
        Share of each series, at its end, for early stopping and for calibrating intervals.
    max_steps : int, optional
        Stop after so many training steps.
    past_covariates : tuple of str
        Columns of X that end with y; the other columns must be given for the steps to forecast.
    freq : str, optional
        Frequency of the series, where their index does not tell it.
    device, dtype : str
        "auto" takes the GPU, the language model in bfloat16, where there is one.
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
    >>> from sktime.datasets import load_airline
    >>> from tsllm import AarenForecaster
    >>> y = load_airline()
    >>> forecaster = AarenForecaster(max_steps=5, random_state=0).fit(y[:100], fh=[1, 2, 3])
    >>> for month in range(100, 144):
    ...     forecaster = forecaster.update(y[month : month + 1])
    >>> forecaster.predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    """

    embedding_store: ClassVar[None] = None
    _max_context: ClassVar[int] = 512

    _architecture = DirectForecaster._architecture | {
        "patch_length",
        "prediction_length",
        "mixer",
        "memory",
        "normalisation",
        "query",
        "hidden",
        "layers",
        "heads",
        "feedforward",
        "soft_prompt_length",
        "prompt",
        "flip_invariance",
    }

    def __init__(
        self,
        backbone: str | None = None,
        *,
        backbone_layers: int | None = None,
        lora: dict[str, Any] | None = None,
        context_length: int | str = "auto",
        patch_length: int | str = "auto",
        prediction_length: int | None = None,
        mixer: str = "aaren",
        memory: str = "decay",
        normalisation: str = "causal",
        query: str = "folded",
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 128,
        dropout: float = 0.2,
        flip_invariance: bool | str = "auto",
        soft_prompt_length: int = 8,
        prompt: str = "auto",
        loss: str = "mse",
        quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 128,
        window_stride: int = 1,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        max_steps: int | None = None,
        past_covariates: tuple[str, ...] = (),
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
        self.patch_length = patch_length
        self.prediction_length = prediction_length
        self.mixer = mixer
        self.memory = memory
        self.normalisation = normalisation
        self.query = query
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.feedforward = feedforward
        self.dropout = dropout
        self.flip_invariance = flip_invariance
        self.soft_prompt_length = soft_prompt_length
        self.prompt = prompt
        self.loss = loss
        self.quantiles = quantiles
        self.adaptive = adaptive
        self.update_epochs = update_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.window_stride = window_stride
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.max_steps = max_steps
        self.past_covariates = past_covariates
        self.freq = freq
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Give small settings for sktime's tests; there is one ``parameter_set``."""
        tiny = {"hidden": 8, "layers": 1, "heads": 2, "feedforward": 8, "batch_size": 16}
        return [
            {
                **tiny,
                "context_length": 8,
                "patch_length": 4,
                "max_steps": 2,
                "random_state": 42,
            },
            {
                **tiny,
                "backbone": "random:gpt2?hidden=8&layers=1&heads=2&positions=128",
                "context_length": 6,
                "patch_length": 3,
                "prediction_length": 2,
                "soft_prompt_length": 2,
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "mixer": "mingru",
                "normalisation": "anchored",
                "max_steps": 1,
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    # ------------------------------------------------------------------ the method's hooks

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        check_aaren_parameters(self)
        shape = super()._choose_shape(contexts, horizon)
        context_length = shape.context_length
        free = self.context_length == "auto"
        if self.patch_length != "auto":
            patch = int(self.patch_length)
        else:
            season = season_length(shape.freq)
            patch = choose_patch_length(season, context_length, divides=not free)
        if free:
            context_length = max(1, context_length // patch) * patch
        if context_length % patch:
            raise DataError(
                f"context_length={context_length} is no multiple of patch_length={patch}: use "
                f"{context_length // patch * patch or patch}, or another patch_length"
            )
        flips = choose_flips(
            self, contexts, context_length=context_length, target_length=shape.horizon
        )
        extra = {"patch_length": patch, "flip_invariance": flips}
        return ModelShape(context_length, shape.horizon, shape.n_variables, shape.freq, extra)

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        core, patch = tuned(backbone, lora=self.lora), shape.extra["patch_length"]
        try:
            return AarenModel(
                core,
                patch,
                shape.horizon,
                hidden=self.hidden,
                layers=self.layers,
                heads=self.heads,
                feedforward=self.feedforward,
                mixer=self.mixer,
                query=self.query,
                decay=self.memory == "decay",
                normalisation=self.normalisation,
                half_life=shape.context_length,
                restart=shape.context_length // patch if self.memory == "window" else None,
                dropout=self.dropout,
                quantiles=self._head_levels(),
                flip_invariance=shape.extra.get("flip_invariance", False),
                soft_prompt_length=self.soft_prompt_length,
                prompt=_prompt_of(shape) if self.prompt == "auto" else self.prompt,
            )
        except ValueError as error:
            raise DataError(str(error)) from error

    def _make_loss(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[nn.Module, WindowBatch], Loss]:
        patch = state.shape.extra["patch_length"]
        tokens = state.shape.context_length // patch
        streams = self.memory != "reencode"

        def loss(model: nn.Module, batch: WindowBatch) -> Loss:
            # Last patches of all lengths, whichever windows stand in the batch.
            rows = torch.arange(len(batch.start), device=batch.start.device)
            fill = patch - (batch.start[0] + rows) % patch
            total, count = prefix_loss(
                cast(AarenModel, model),
                batch.values,
                batch.mask,
                loss=self.loss,
                fill=fill if streams else torch.full_like(fill, patch),
                # In a stream all but one in patch_length forecasts come from incomplete patches.
                last_weight=max(1.0, tokens / 4),
            )
            return Loss(total, count)

        return loss

    # ------------------------------------------------------------------ series that are followed

    def _fit(self, y: Any, X: Any, fh: Any) -> AarenForecaster:
        self._memories: dict[Hashable, Memory] = {}
        super()._fit(y, X, fh)
        return self

    def _remember(self, contexts: Sequence[Context]) -> None:
        if self.memory != "reencode":
            ids = [context.series_id for context in contexts]
            before = [self._contexts[i] for i in ids if i in self._contexts]
            new = follow(
                self.fitted_,
                self.fitted_.residuals(contexts),
                {context.series_id: context for context in self.fitted_.residuals(before)},
                self._memories,
                batch_size=self.batch_size,
            )
            self._memories = self._memories | new
            if self.memory == "full" and self.mixer == "aaren":
                warn_of_drift(new, self.fitted_.shape)
        super()._remember(contexts)

    def _run(
        self, state: FittedState, contexts: Sequence[Context], horizon: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.memory == "reencode":
            return super()._run(state, contexts, horizon)
        streams = encode(state, contexts, batch_size=self.batch_size)
        return forecast_streams(state, streams, contexts, horizon, batch_size=self.batch_size)

    def _run_known(
        self, contexts: Sequence[Context], horizon: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.memory == "reencode":
            return super()._run_known(contexts, horizon)
        streams = [self._memories[context.series_id].now for context in contexts]
        return forecast_streams(
            self.fitted_, streams, contexts, horizon, batch_size=self.batch_size
        )

    def _memory_tensors(self) -> dict[str, Tensor]:
        return memory_tensors(self._memories, list(self._contexts))

    def _restore_memory(self, tensors: dict[str, Tensor]) -> None:
        self._memories = memories_from(tensors, list(self._contexts))


def _prompt_of(shape: ModelShape) -> str:
    """Tell the language model what it is to forecast."""
    every = "equal steps" if shape.freq is None else f"frequency {shape.freq}"
    return f"A time series of {every}. Its next {shape.horizon} values follow from:"
