"""S²IP-LLM: patches of a decomposed series, prompted with anchors among the word embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from tsllm.adapters.anchors import ANCHORS
from tsllm.adapters.s2ip import S2IPModel, count_patches
from tsllm.backbone import DEFAULT_BACKBONE, Backbone, tuned
from tsllm.context import Context
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.parameters import check_choice, check_whole
from tsllm.forecasters.s2ip_anchors import ShowsAnchors
from tsllm.forecasters.state import ModelShape

TUNABLE = ("layer_norms", "positions")
#: The published patch; shorter contexts take a quarter of their steps.
MAX_PATCH_LENGTH = 16
#: Steps of the moving average where the frequency suggests no season (DLinear's).
TREND_WITHOUT_SEASON = 25


class S2IPForecaster(ShowsAnchors):
    """Forecast with a prompted language model (S²IP-LLM; Pan et al., ICML 2024, 2403.05798).

    Each window is split into trend, season and residual, and patches of the three become tokens of
    the language model. Anchors made of the model's own word embeddings, those that are most alike
    to the window, stand before them as a prompt. One model forecasts ``prediction_length`` steps at
    once; longer horizons are rolled out on its own forecasts. `anchors` names what was chosen.

    Parameters
    ----------
    backbone : str or None
        The language model: a Hugging Face id, a local directory, or ``"random:..."``. None leaves
        it out, the control for whether it helps: anchors are then free rows that start at random.
    backbone_layers : int, optional
        Use the first layers only. None uses all; the paper's are 6 of GPT-2's 12.
    tune : tuple of {"layer_norms", "positions"}
        What is trained inside the language model, as published; empty: nothing.
    lora : dict, optional
        Fine-tune the language model with LoRA (Hu et al., 2021, 2106.09685), through peft:
        ``{"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}``, where each entry may be
        left out and None means the query and value projections. The adapters are this
        forecaster's own; the shared weights are never changed.
    context_length : int or "auto"
        Steps of history that a forecast reads. "auto": 512, and at most half of a typical series.
    prediction_length : int, optional
        Steps that the model forecasts at once, and that intervals are calibrated for. None: the
        ``fh`` of `fit`, else a season.
    anchor_pool : {"free", "prototypes", "clusters"}
        What the anchors are. "prototypes", as published: mixtures of the whole vocabulary, by a
        linear layer that takes most of a small model's training time and memory. "free": a matrix
        that starts from such mixtures and is trained itself; it reaches the same anchors, for the
        mixtures have no more dimensions than a token. "clusters": centres of words that mean
        something alike, frozen, and the best to name.
    pool_size, prompt_length : int
        Number of anchors, and of those that prompt the language model.
    similarity_coef : float
        Weight of the similarity of windows and chosen anchors in the training loss; negative, so
        that they are drawn together. Validation compares forecasts alone.
    patch_length, stride : int or "auto"
        Steps of a patch and between the starts of two. "auto": 16 or a quarter of the context,
        where that is less; half a patch.
    trend_length : int or "auto"
        Steps of the moving average that is the trend. "auto": one season, so that it averages out;
        without a season 25 or a quarter of the context.
    seasonal_length : int or "auto"
        Steps of a season. "auto": what the frequency suggests, where the context holds two.
    dropout : float
        On the prompted tokens.
    loss : {"mse", "mae", "huber", "quantile"}
        "quantile" trains a head that gives ``quantiles`` without crossing.
    quantiles : tuple of float
        Levels of the quantile head.
    adaptive : bool
        Keep the intervals' calibration current in `update`; costs one forecast per update.
    update_epochs : int
        Epochs to train on new data in `update`, and in `fit` after `pretrain`. 0: none.
    max_epochs : int or "auto"
        "auto": ten, or more where the series are so few that ten make less than 400 steps;
        ``patience`` then grows alike.
    batch_size : int
        Windows a training step; each variable is a window of its own.
    window_stride : int
        Steps between training windows: more than 1 where a step is costly and the series long.
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
    embedding_store : optional
        Unused: this method embeds no texts.
    freq : str, optional
        Frequency of the series, where their index does not tell it.
    device, dtype : str
        "auto" takes the GPU with bfloat16 where there is one.
    compile : bool
        Train through ``torch.compile``: the same forecasts within 1e-5, and up to twice as fast
        with ``backbone=None``, after half a minute or more of compiling. Refused with a language
        model on a CPU, where it was measured to be no faster.
    random_state : int, RandomState or None
        One random state gives one result.
    verbose : int
        1 shows progress on stderr.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history. An epoch of the history holds
        its mean ``similarity``: that of query and anchors, added over the prompt.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import S2IPForecaster
    >>> forecaster = S2IPForecaster(
    ...     backbone="random:gpt2?hidden=16&layers=1&heads=2",
    ...     pool_size=50, max_steps=5, random_state=0,
    ... )
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    >>> forecaster.anchors(top=2)["rank"].tolist()
    [1, 2, 3, 4]
    """

    _architecture = ShowsAnchors._architecture | {
        "prediction_length",
        "tune",
        "anchor_pool",
        "pool_size",
        "prompt_length",
        "patch_length",
        "stride",
        "trend_length",
        "seasonal_length",
    }
    # The paper's lookback.
    _max_context: ClassVar[int] = 512

    def __init__(
        self,
        backbone: str | None = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | None = None,
        tune: tuple[str, ...] = TUNABLE,
        lora: dict[str, Any] | None = None,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        anchor_pool: str = "free",
        pool_size: int = 1000,
        prompt_length: int = 4,
        similarity_coef: float = -0.05,
        patch_length: int | str = "auto",
        stride: int | str = "auto",
        trend_length: int | str = "auto",
        seasonal_length: int | str = "auto",
        dropout: float = 0.1,
        loss: str = "mse",
        quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 128,
        window_stride: int = 1,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        max_steps: int | None = None,
        past_covariates: tuple[str, ...] = (),
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        compile: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.tune = tune
        self.lora = lora
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.anchor_pool = anchor_pool
        self.pool_size = pool_size
        self.prompt_length = prompt_length
        self.similarity_coef = similarity_coef
        self.patch_length = patch_length
        self.stride = stride
        self.trend_length = trend_length
        self.seasonal_length = seasonal_length
        self.dropout = dropout
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
        self.embedding_store = embedding_store
        self.freq = freq
        self.device = device
        self.dtype = dtype
        self.compile = compile
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
            "backbone": "random:gpt2?hidden=8&layers=1&heads=2&positions=128",
            "pool_size": 10,
            "prompt_length": 2,
            "batch_size": 16,
        }
        return [
            {**tiny, "context_length": 8, "patch_length": 4, "max_steps": 2, "random_state": 42},
            {
                **tiny,
                "context_length": 6,
                "prediction_length": 2,
                "anchor_pool": "clusters",
                "tune": (),
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "max_steps": 1,
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    # ------------------------------------------------------------------ the method's hooks

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        self._check_own_parameters()
        shape = super()._choose_shape(contexts, horizon)
        steps = shape.context_length
        season = season_length(shape.freq)
        has_season = 1 < season <= steps // 2
        patch = self._chosen_length(
            "patch_length", most=steps, automatic=min(MAX_PATCH_LENGTH, max(1, steps // 4))
        )
        stride = self._chosen_length("stride", most=patch, automatic=max(1, patch // 2))
        trend = self._chosen_length(
            "trend_length",
            most=steps,
            automatic=season if has_season else min(TREND_WITHOUT_SEASON, max(1, steps // 4)),
        )
        seasonal = self.seasonal_length
        if seasonal == "auto":
            seasonal = season if has_season else 1
        extra = {
            "patch_length": patch,
            "stride": stride,
            "trend_length": trend,
            "seasonal_length": int(seasonal),
        }
        return replace(shape, extra=extra)

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        if backbone is not None:
            self._check_fits(backbone, shape)
        return S2IPModel(
            tuned(backbone, train=self.tune, lora=self.lora),
            shape.context_length,
            shape.horizon,
            **shape.extra,
            anchors=self.anchor_pool,
            pool_size=self.pool_size,
            prompt_length=self.prompt_length,
            dropout=self.dropout,
            quantiles=self._head_levels(),
        )

    def _read_output(self, out: Any) -> tuple[Tensor, dict[str, Tensor], Tensor | float]:
        forecast, similarity = out
        return forecast, {"similarity": similarity}, self.similarity_coef * similarity

    # ------------------------------------------------------------------ helpers

    def _chosen_length(self, name: str, *, most: int, automatic: int) -> int:
        """Choose a length in steps; one that was asked for is cut to a context that was not."""
        asked = getattr(self, name)
        if asked == "auto":
            return automatic
        if asked <= most:
            return int(asked)
        if name != "stride" and self.context_length == "auto":
            return most
        raise DataError(
            f"{name}={asked} must be at most {most}, the steps of the "
            f"{'patch' if name == 'stride' else 'context'}: use a smaller {name}"
        )

    def _check_own_parameters(self) -> None:
        """Check the parameters that only S²IP-LLM has."""
        check_choice("anchor_pool", self.anchor_pool, ANCHORS)
        unknown = [self.tune] if isinstance(self.tune, str) else set(self.tune) - set(TUNABLE)
        if unknown:
            raise DataError(
                f"tune lists some of {', '.join(TUNABLE)}, or nothing, found {self.tune!r}"
            )
        for name in ("pool_size", "prompt_length"):
            check_whole(name, getattr(self, name))
        if self.prompt_length > self.pool_size:
            raise DataError(
                f"prompt_length={self.prompt_length} must be at most pool_size={self.pool_size}"
            )
        for name in ("patch_length", "stride", "trend_length", "seasonal_length"):
            if getattr(self, name) != "auto":
                check_whole(name, getattr(self, name), or_auto=True)

    def _check_fits(self, backbone: Backbone, shape: ModelShape) -> None:
        """Check what the language model must have room and words enough for."""
        patch, stride = shape.extra["patch_length"], shape.extra["stride"]
        tokens = self.prompt_length + count_patches(shape.context_length, patch, stride)
        if backbone.max_positions and tokens > backbone.max_positions:
            raise DataError(
                f"context_length={shape.context_length} with patch_length={patch} and "
                f"stride={stride} makes {tokens} tokens, and the backbone {backbone.spec} reads at "
                f"most {backbone.max_positions}: use a longer stride and patch_length, or a "
                "shorter context_length"
            )
        if self.anchor_pool == "clusters" and self.pool_size > backbone.vocab_size:
            raise DataError(
                f"pool_size={self.pool_size} clusters are more than the {backbone.vocab_size} "
                f"words of the backbone {backbone.spec}: use a smaller pool_size"
            )
