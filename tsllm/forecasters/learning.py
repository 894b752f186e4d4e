"""The part of every forecaster that makes a trained model of series."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from torch import nn

from tsllm.backbone import Backbone, load_backbone, resolve_device
from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates, fit_covariates
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.checks import check_same_series
from tsllm.forecasters.exogenous import learn_covariates
from tsllm.forecasters.fitting import train_state, warn_of_constants
from tsllm.forecasters.parameters import check_parameters
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.randomness import seeded
from tsllm.training import Loss
from tsllm.windows import WindowBatch, Windows

if TYPE_CHECKING:
    from tsllm.forecasters.base import BaseLLMForecaster


class LearnsFromSeries(ABC):
    """The part of a forecaster that chooses, builds and trains the model of some series.

    Around the hooks of a method: the language model is found, covariates are learnt, the model is
    trained and calibrated, or one that was pretrained is taken over. Nothing here reads or changes
    what the forecaster keeps of series; the trained `FittedState` is given back.
    """

    #: Parameters that decide the model's tensors; setting one discards a pretrained model.
    _architecture: ClassVar[frozenset[str]] = frozenset(
        {
            "backbone",
            "backbone_layers",
            "lora",
            "context_length",
            "loss",
            "quantiles",
            "dtype",
            "past_covariates",
        }
    )
    #: Whether the language model runs inside the model; else only its embeddings are read.
    _runs_backbone: ClassVar[bool] = True
    #: Whether each variable is a series of its own to the model.
    _channel_independent: ClassVar[bool] = True
    #: Columns of X whose future is not known; a constructor argument.
    past_covariates: tuple[str, ...] = ()
    #: Columns of X, constant within a series, that a method reads as text; likewise.
    static_attributes: tuple[str, ...] = ()
    #: Steps between training windows; a constructor argument where a step is costly.
    window_stride: int = 1
    #: ``max_epochs="auto"``: at least so many epochs, and epochs enough for so many steps.
    _auto_epochs: ClassVar[int] = 10
    _auto_steps: ClassVar[int] = 400
    #: The training loop's gradient clipping and last learning rate.
    _clip_norm: ClassVar[float | None] = 5.0
    _final_learning_rate: ClassVar[float] = 1e-8

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Stand for the constructor arguments of the estimator, and for what sktime adds."""

    # ------------------------------------------------------------------ the hooks of a method

    @abstractmethod
    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        """Choose the sizes of the model from the parameters and the series."""

    @abstractmethod
    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        """Build the torch module; called with the random state seeded."""

    @abstractmethod
    def _target_length(self, shape: ModelShape) -> int:
        """Steps after the context that a training window holds."""

    @abstractmethod
    def _make_loss(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[nn.Module, WindowBatch], Loss]:
        """Make the training loss for batches of these windows (training, validation).

        The windows' series are numbered as the contexts are, with variables fastest where a method
        is channel-independent.
        """

    def _texts_to_embed(
        self, shape: ModelShape, contexts: Sequence[Context], backbone: Backbone
    ) -> Iterable[Sequence[str]]:
        """List what fitting to these series embeds, some texts at a time."""
        return ()

    def _needs_language_model(self) -> dict[str, Any]:
        """Name the parameters that only a language model can serve, with what turns them off."""
        return {} if self.lora is None else {"lora": None}

    # ------------------------------------------------------------------ from series to a model

    def _train_new(
        self, contexts: Sequence[Context], columns: CovariateColumns | None, horizon: int | None
    ) -> FittedState:
        """Learn the covariates, build a model for the rest, train it, calibrate its intervals."""
        check_parameters(self)
        warn_of_constants(contexts)
        shape = self._choose_shape(contexts, horizon)
        backbone = self._load_backbone()
        model = self._new_model(backbone, shape)
        state = FittedState(model, backbone, shape, self.device)
        state.covariates = self._learn_effects(contexts, columns, shape)
        train_state(cast("BaseLLMForecaster", self), state, contexts, self.max_epochs)
        return state

    def _learn_columns(
        self, contexts: Sequence[Context], X: pd.DataFrame | None
    ) -> tuple[list[Context], CovariateColumns | None]:
        """Join X to series that a model is fitted on."""
        return learn_covariates(contexts, X, self.past_covariates, self.static_attributes)

    def _learn_effects(
        self, contexts: Sequence[Context], columns: CovariateColumns | None, shape: ModelShape
    ) -> Covariates | None:
        """Learn what the covariates say about the series; None where there are none."""
        if columns is None:
            return None
        return fit_covariates(
            contexts,
            columns,
            context_length=shape.context_length,
            horizon=shape.horizon,
            season=season_length(shape.freq),
            validation_fraction=self.validation_fraction,
        )

    def _load_backbone(self) -> Backbone | None:
        """Find the language model that the parameters name."""
        if self.backbone is None:
            return None
        return load_backbone(
            self.backbone, layers=self.backbone_layers, device=self.device, dtype=self.dtype
        )

    def _new_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        """Build an untrained model where it will run."""
        device = resolve_device(self.device) if backbone is None else backbone.device
        with seeded(self._seed()):
            return self._build_model(backbone, shape).to(device)

    def _adopt(self, contexts: Sequence[Context]) -> FittedState:
        """Take the pretrained model for new series, trained further only where asked to."""
        state: FittedState = self.pretrained_
        check_same_series(state, contexts)
        if self.update_epochs > 0 or self.adaptive:
            state = state.copy()
        if self.update_epochs > 0:
            train_state(cast("BaseLLMForecaster", self), state, contexts, self.update_epochs)
        return state

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
