"""Aaren: a forecaster that follows its series in constant time and memory per observation."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.aaren.attention import MIXERS, QUERIES
from tsllm.adapters.aaren.model import AarenModel, prefix_loss
from tsllm.adapters.aaren.patches import NORMALISATIONS
from tsllm.arguments import check_choice
from tsllm.backbone import DEFAULT_BACKBONE, Backbone, tuned
from tsllm.context import Context
from tsllm.datasets.counts import count_step
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.forecasting import Reader
from tsllm.forecasters.language_model import LLMForecaster
from tsllm.forecasters.parameters import DECILES, choose_flips
from tsllm.forecasters.running_state import (
    Memory,
    PastRows,
    RunningRows,
    StreamReader,
    follow,
    memories_from,
    memory_tensors,
    warn_of_drift,
)
from tsllm.forecasters.shapes import best_shape
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.training.settings import Loss
from tsllm.training.windows import WindowBatch, Windows

MEMORIES = ("decay", "full", "window", "reencode")
#: ``patch_length="auto"``: without a season, at most, and the shortest part of a season.
PLAIN_PATCH, LONGEST_PATCH, SHORTEST_PATCH = 16, 32, 4


def choose_patch_length(season: int, context_length: int, *, divides: bool) -> int:
    """Choose the steps of a patch: a season or a part of one, if there is one.

    The context holds at least four patches if it can; ``divides`` asks for a multiple of the patch.

    Examples
    --------
    >>> choose_patch_length(24, 520, divides=False), choose_patch_length(24, 512, divides=True)
    (24, 8)
    """
    most = min(max(1, context_length // 4), LONGEST_PATCH)
    possible = [p for p in range(1, most + 1) if not divides or context_length % p == 0]
    seasonal = [p for p in possible if season % p == 0 and p >= SHORTEST_PATCH]
    return max(seasonal or [p for p in possible if p <= PLAIN_PATCH])


class AarenForecaster(DirectForecaster, LLMForecaster):
    """Follow series of any length in constant memory (Feng et al., 2024).

    Attention with a learnt query is a recurrent network: each layer keeps a softmax average of the
    whole past, which a new observation updates in constant time. Patches of the series are the
    tokens, and every prefix of a training window is a training example. `update` advances the state
    of each series, and `predict` reads it: to rounding the same forecast as encoding the whole
    history anew.

    The forecaster keeps the last ``context_length`` steps of a series and two states of constant
    size. It skips rows that it has read before, and reads corrections within the kept steps anew.
    A training (``update_epochs``) makes the states stale: they are rebuilt from the kept steps, and
    what lay before is forgotten. `forecast` reads any context from its first step on.

    Do not use it for short series, or for series that need the recall of single events. Below some
    ten thousand tokens, attention with a cache is as fast per step; the advantage of Aaren is that
    neither time nor memory grows.

    The arguments that matter most: ``context_length``, ``patch_length``, ``memory`` (how far back a
    forecast reads), ``max_steps`` (the time of the training) and ``random_state``.

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

    Parameters
    ----------
    backbone : str or None, default=None
        A language model that reads the last ``soft_prompt_length`` outputs behind a text prompt,
        when a forecast is made; `update` never runs it. None: the model without one.
    context_length : int or "auto", default="auto"
        Steps of a training window, a multiple of the patch length. "auto": up to 512, and at most
        half of a typical series. Streams continue beyond it. Where series of fewer than 300 steps
        are typical, and ``patch_length`` is "auto" too, the lengths and half of either are compared
        on the held-out part.
    patch_length : int or "auto", default="auto"
        Steps of a patch. "auto": a season, or the longest part of one up to 32 steps, so that
        every patch shows the same hours or months; 16 without a season; at least four patches a
        window.
    mixer : {"aaren", "mingru", "attention", "none"}, default="aaren"
        The layer that mixes the patches. "mingru" (Feng et al., 2024, 2410.01201) streams too;
        "attention" cannot, and needs ``memory="reencode"``; "none" sees one patch at a time.
    memory : {"decay", "full", "window", "reencode"}, default="decay"
        "decay": each head of Aaren forgets at a rate that it learns (not in the paper). "full": the
        paper's, nothing is forgotten; far beyond the training windows it drifts. "window": states
        restart, so that a forecast reads one to two windows. "reencode": no state; each forecast
        reads the last window.
    normalisation : {"causal", "anchored", "window"}, default="causal"
        "causal": by the running mean and deviation. "anchored": by the last value and the running
        deviation. Both are part of the state. "window": by the whole window's, with
        ``memory="reencode"`` only.
    query : {"folded", "token"}, default="folded"
        "token": the paper's parameters; "folded": the same functions with fewer.
    hidden : int, default=64
        Width of a token, a multiple of the heads.
    layers : int, default=2
        Number of blocks.
    heads : int, default=4
        Heads of each block.
    feedforward : int, default=128
        Width inside the feed-forward parts.
    dropout : float, default=0.2
        Dropout in the blocks.
    soft_prompt_length : int, default=8
        Outputs that the language model reads.
    prompt : str, default="auto"
        The text before them. "auto": one sentence with frequency and horizon.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    See Also
    --------
    AutoTimesForecaster, PatchTSTForecaster

    References
    ----------
    Feng et al., "Attention as an RNN", 2024, arXiv 2405.13956, section 3.
    """

    _max_context: ClassVar[int] = 512

    _free_parameters = DirectForecaster._free_parameters | {"dropout"}

    flip_invariance: bool | str

    def __init__(
        self,
        backbone: str | None = None,
        *,
        backbone_layers: int | str | None = "auto",
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
        quantiles: tuple[float, ...] = DECILES,
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 128,
        window_stride: int | str = "auto",
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        shrinkage: bool | str = "auto",
        max_steps: int | None = None,
        checkpoint_dir: str | Path | None = None,
        floor: float | str | None = "auto",
        past_covariates: tuple[str, ...] = (),
        text_covariates: tuple[str, ...] = (),
        text_backbone: str = DEFAULT_BACKBONE,
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.patch_length = patch_length
        self.mixer = mixer
        self.memory = memory
        self.normalisation = normalisation
        self.query = query
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.feedforward = feedforward
        self.dropout = dropout
        self.soft_prompt_length = soft_prompt_length
        self.prompt = prompt
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
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
        self._check_own_parameters()
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
        if free and self.patch_length == "auto" and horizon is not None:
            patch, context_length = self._compare_lengths(contexts, horizon, patch, context_length)
        if context_length % patch:
            raise DataError(
                f"context_length={context_length} is no multiple of patch_length={patch}: use "
                f"{context_length // patch * patch or patch}, or another patch_length"
            )
        flips = choose_flips(
            self.flip_invariance,
            self._head_levels(),
            contexts,
            context_length=context_length,
            target_length=shape.horizon,
            held_out=self.validation_fraction,
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

    _memories: dict[Hashable, Memory]
    #: The running states of a stream's series, which the stream moves; None outside a stream.
    _rows: RunningRows | PastRows | None = None

    def _forget_series(self) -> None:
        super()._forget_series()
        self._memories, self._rows = {}, None

    def _running_rows(self) -> RunningRows | None:
        if self.memory == "reencode":
            return None
        if isinstance(self._rows, RunningRows):
            return self._rows
        states = [self._memories[series_id].now for series_id in self._contexts]
        return RunningRows(self.fitted_, list(self._contexts), states)

    def _read_rows(self, rows: RunningRows | PastRows) -> None:
        self._memories, self._rows = {}, rows

    def _read_pasts(self, contexts: Sequence[Context]) -> None:
        # A stream has no use for the states before its kept rows: it never reads them again.
        if self.memory != "reencode":
            residuals = self.fitted_.residuals(contexts)
            rows = RunningRows.read(self.fitted_, residuals, self.batch_size)
            self._warn_of_drift(rows.tokens)
            self._rows = rows
        super()._read_pasts(contexts)

    def _remember(self, contexts: Sequence[Context]) -> None:
        if self.memory != "reencode":
            keep = self._steps_to_keep(self.fitted_)
            assert keep is not None  # a model keeps its context
            ids = [context.series_id for context in contexts]
            before = [self._contexts[i] for i in ids if i in self._contexts]
            new = follow(
                self.fitted_,
                self.fitted_.residuals(contexts),
                {context.series_id: context for context in self.fitted_.residuals(before)},
                self._memories,
                keep=keep,
                batch_size=self.batch_size,
            )
            self._memories = self._memories | new
            self._warn_of_drift({i: int(one.now.tokens.max()) for i, one in new.items()})
        super()._remember(contexts)

    def _model_reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        if self.memory == "reencode":
            return super()._model_reader(state, followed=followed)
        if not followed:
            return StreamReader(state, self.batch_size)
        kept = self._memories if self._rows is None else self._rows
        return StreamReader(state, self.batch_size, kept)

    def _warn_of_drift(self, tokens: Mapping[Hashable, int]) -> None:
        if self.memory == "full" and self.mixer == "aaren":
            warn_of_drift(tokens, self.fitted_.shape)

    def _memory_tensors(self) -> dict[str, Tensor]:
        return memory_tensors(self._memories, list(self._contexts))

    def _restore_memory(self, tensors: dict[str, Tensor]) -> None:
        self._memories = memories_from(tensors, list(self._contexts))

    # ------------------------------------------------------------------ helpers

    def _compare_lengths(
        self, contexts: Sequence[Context], horizon: int, patch: int, context_length: int
    ) -> tuple[int, int]:
        """Choose the steps of a patch and of the context; short series may want half of either."""
        half = max(1, context_length // 2 // patch) * patch
        short = max(1, patch // 2)
        shapes = [
            (patch, context_length),
            (patch, half),
            (short, context_length // short * short),
        ]
        settings = [{"patch_length": one, "context_length": length} for one, length in shapes]
        off = {"backbone": None, "backbone_layers": None, "lora": None}
        best = best_shape(self, contexts, horizon, settings, off)
        return best["patch_length"], best["context_length"]

    def _check_own_parameters(self) -> None:
        """Check the parameters that only Aaren has."""
        for name, choices in (
            ("mixer", MIXERS),
            ("memory", MEMORIES),
            ("normalisation", NORMALISATIONS),
            ("query", QUERIES),
        ):
            check_choice(name, getattr(self, name), choices)
        self._check_multiple("hidden", "heads")
        for name, value in (("mixer", "attention"), ("normalisation", "window")):
            if getattr(self, name) == value and self.memory != "reencode":
                raise DataError(
                    f"{name}={value!r} needs the whole context at once: set memory='reencode', or "
                    f"another {name}"
                )


def _prompt_of(shape: ModelShape) -> str:
    """Write the sentence that tells the language model its task."""
    counted = shape.freq is None or count_step(shape.freq)
    every = "equal steps" if counted else f"frequency {shape.freq}"
    return f"A time series of {every}. Its next {shape.horizon} values follow from:"
