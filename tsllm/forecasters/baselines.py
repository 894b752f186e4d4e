"""DLinear and PatchTST, trained and calibrated as the language-model forecasters are."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import nn

from tsllm.adapters.baselines import DLinearModel, PatchTSTModel
from tsllm.backbone import Backbone
from tsllm.errors import DataError
from tsllm.forecasters.checks import check_multiple, check_whole
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.state import ModelShape


class _WithoutLanguageModel(DirectForecaster):
    """What the baselines have in common: none of the language model's parameters."""

    backbone: ClassVar[None] = None
    backbone_layers: ClassVar[None] = None
    lora: ClassVar[None] = None
    embedding_store: ClassVar[None] = None
    dtype: ClassVar[str] = "auto"
    # Both papers compare the methods at a lookback of 336 steps.
    _max_context: ClassVar[int] = 336

    _architecture = frozenset({"context_length", "prediction_length", "loss", "quantiles"})


class DLinearForecaster(_WithoutLanguageModel):
    """Forecast with two linear layers (DLinear; Zeng et al., AAAI 2023, 2205.13504).

    The linear baseline of the field, with the window normalised by its own mean and standard
    deviation. One model forecasts ``prediction_length`` steps at once; longer horizons are rolled
    out on its own forecasts.

    Parameters
    ----------
    context_length : int or "auto"
        Steps of history that a forecast reads. "auto": 336, and at most half of a typical series.
    prediction_length : int, optional
        Steps that the model forecasts at once, and that intervals are calibrated for. None: the
        ``fh`` of `fit`, else a season.
    kernel_size : int
        Steps of the moving average that is the trend, odd.
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
    device : str
        "auto" takes the GPU where there is one.
    random_state : int, RandomState or None
        One random state gives one result.
    verbose : int
        1 shows progress on stderr.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import DLinearForecaster
    >>> forecaster = DLinearForecaster(max_steps=5, random_state=0)
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    """

    _architecture = _WithoutLanguageModel._architecture | {"kernel_size"}

    def __init__(
        self,
        *,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        kernel_size: int = 25,
        loss: str = "mse",
        quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        max_steps: int | None = None,
        past_covariates: tuple[str, ...] = (),
        freq: str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.kernel_size = kernel_size
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
        self.freq = freq
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Give small settings for sktime's tests; there is one ``parameter_set``."""
        return [
            {"context_length": 8, "kernel_size": 3, "max_steps": 2, "random_state": 42},
            {
                "context_length": 6,
                "prediction_length": 2,
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "max_steps": 1,
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        check_whole("kernel_size", self.kernel_size)
        if self.kernel_size % 2 == 0:
            raise DataError(
                f"kernel_size must be an odd number of steps, found {self.kernel_size!r}"
            )
        return DLinearModel(
            shape.context_length,
            shape.horizon,
            kernel_size=self.kernel_size,
            quantiles=self._head_levels(),
        )


class PatchTSTForecaster(_WithoutLanguageModel):
    """Forecast with a small PatchTST (Nie et al., ICLR 2023, 2211.14730).

    The Transformer baseline of the field: channel-independent, instance-normalised, its default
    sizes those that the authors use for ETTh1. One model forecasts ``prediction_length`` steps at
    once; longer horizons are rolled out on its own forecasts.

    Parameters
    ----------
    context_length : int or "auto"
        Steps of history that a forecast reads. "auto": 336, and at most half of a typical series.
    prediction_length : int, optional
        Steps that the model forecasts at once, and that intervals are calibrated for. None: the
        ``fh`` of `fit`, else a season.
    patch_length : int
        Steps of a patch; patches start every half of it. At most the context.
    hidden, layers, heads : int
        Width of a token (a multiple of the heads), encoder layers, attention heads.
    feedforward : int
        Width inside the feed-forward blocks.
    dropout : float
        On the tokens and inside the encoder.
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
    device : str
        "auto" takes the GPU where there is one.
    random_state : int, RandomState or None
        One random state gives one result.
    verbose : int
        1 shows progress on stderr.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import PatchTSTForecaster
    >>> forecaster = PatchTSTForecaster(max_steps=5, random_state=0)
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    """

    _architecture = _WithoutLanguageModel._architecture | {
        "patch_length",
        "hidden",
        "layers",
        "heads",
        "feedforward",
        "dropout",
    }

    def __init__(
        self,
        *,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        patch_length: int = 16,
        hidden: int = 16,
        layers: int = 3,
        heads: int = 4,
        feedforward: int = 128,
        dropout: float = 0.3,
        loss: str = "mse",
        quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        max_steps: int | None = None,
        past_covariates: tuple[str, ...] = (),
        freq: str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.patch_length = patch_length
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.feedforward = feedforward
        self.dropout = dropout
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
        self.freq = freq
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Give small settings for sktime's tests; there is one ``parameter_set``."""
        tiny = {"hidden": 4, "layers": 1, "heads": 1, "feedforward": 4, "max_steps": 1}
        return [
            {**tiny, "context_length": 8, "patch_length": 4, "random_state": 42},
            {
                **tiny,
                "context_length": 6,
                "prediction_length": 2,
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        for name in ("patch_length", "hidden", "layers", "heads", "feedforward"):
            check_whole(name, getattr(self, name))
        check_multiple(self, "hidden", "heads")
        # A series too short for one patch of this length makes one patch of all it has.
        patch = min(self.patch_length, shape.context_length)
        return PatchTSTModel(
            shape.context_length,
            shape.horizon,
            patch_length=patch,
            stride=max(1, patch // 2),
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            feedforward=self.feedforward,
            dropout=self.dropout,
            quantiles=self._head_levels(),
        )
