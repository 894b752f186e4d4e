"""DLinear and PatchTST, trained and calibrated as the language-model forecasters are."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from tsllm.adapters.baselines import DLinearModel, PatchTSTModel
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.errors import DataError
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.parameters import DECILES
from tsllm.forecasters.state import ModelShape

#: Both papers compare the methods at this lookback.
LOOKBACK = 336


class DLinearForecaster(DirectForecaster):
    """Forecast with two linear layers (DLinear; Zeng et al., AAAI 2023).

    The linear baseline of the field, with the window normalised by its own mean and standard
    deviation. One model forecasts ``prediction_length`` steps at once; longer horizons are rolled
    out on its own forecasts.

    The arguments that matter most: ``context_length``, ``prediction_length`` (the horizon, if `fit`
    gets no ``fh``), ``max_steps`` (the time of the training), ``loss`` and ``random_state``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import DLinearForecaster
    >>> forecaster = DLinearForecaster(max_steps=5, random_state=0)
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']

    Parameters
    ----------
    context_length : int or "auto", default="auto"
        Steps of history that a forecast reads. "auto": 336, and at most half of a typical series.
    kernel_size : int, default=25
        Steps of the moving average that is the trend, odd.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    See Also
    --------
    PatchTSTForecaster, AutoTimesForecaster

    References
    ----------
    Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023,
    arXiv 2205.13504, section 4.
    """

    _max_context: ClassVar[int] = LOOKBACK

    def __init__(
        self,
        *,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        kernel_size: int = 25,
        loss: str = "mse",
        quantiles: tuple[float, ...] = DECILES,
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 256,
        window_stride: int | str = "auto",
        learning_rate: float = 1e-3,
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
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.kernel_size = kernel_size
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
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


class PatchTSTForecaster(DirectForecaster):
    """Forecast with a small PatchTST (Nie et al., ICLR 2023).

    The Transformer baseline of the field, channel-independent and instance-normalised. The default
    sizes are those that the authors use for ETTh1. One model forecasts ``prediction_length`` steps
    at once; longer horizons are rolled out on its own forecasts.

    The arguments that matter most: ``context_length``, ``patch_length``, ``prediction_length`` (the
    horizon, if `fit` gets no ``fh``), ``max_steps`` (the time of the training) and
    ``random_state``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import PatchTSTForecaster
    >>> forecaster = PatchTSTForecaster(max_steps=5, random_state=0)
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']

    Parameters
    ----------
    context_length : int or "auto", default="auto"
        Steps of history that a forecast reads. "auto": 336, and at most half of a typical series.
    patch_length : int, default=16
        Steps of a patch; patches start every half of it. At most the context.
    hidden : int, default=16
        Width of a token, a multiple of the heads.
    layers : int, default=3
        Encoder layers.
    heads : int, default=4
        Attention heads.
    feedforward : int, default=128
        Width inside the feed-forward blocks.
    dropout : float, default=0.3
        On the tokens and inside the encoder.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    See Also
    --------
    DLinearForecaster, AarenForecaster

    References
    ----------
    Nie et al., "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers",
    ICLR 2023, arXiv 2211.14730, section 3.
    """

    _max_context: ClassVar[int] = LOOKBACK

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
        quantiles: tuple[float, ...] = DECILES,
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 256,
        window_stride: int | str = "auto",
        learning_rate: float = 1e-3,
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
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.patch_length = patch_length
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.feedforward = feedforward
        self.dropout = dropout
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
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
        self._check_multiple("hidden", "heads")
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
