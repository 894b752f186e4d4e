"""Training of a forecaster's model on series, and calibration of its intervals."""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sktime.forecasting.base import ForecastingHorizon
from torch import Tensor, nn

from tsllm.backbone import Backbone, load_backbone, native_bfloat16, resolve_device
from tsllm.context import Context
from tsllm.covariates import CovariateColumns, Covariates, fit_covariates
from tsllm.datasets.checks import series_name
from tsllm.datasets.frequency import season_length
from tsllm.embeddings import open_store
from tsllm.errors import DataError
from tsllm.forecasters.calibration import calibrate
from tsllm.forecasters.checks import check_parameters, check_same_series
from tsllm.forecasters.covariates import learn_covariates
from tsllm.forecasters.frames import span_of
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.training.loop import train
from tsllm.training.randomness import seeded
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import WindowBatch, Windows

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


#: Early stopping looks at no more windows than this, evenly spaced over the held-out part.
MAX_VALIDATION_WINDOWS = 4096


def train_state(
    forecaster: BaseLLMForecaster,
    state: FittedState,
    contexts: Sequence[Context],
    epochs: int | str,
    *,
    recalibrate: bool = True,
) -> None:
    """Train a state's model on series, in place, and calibrate its intervals.

    Parameters
    ----------
    forecaster : BaseLLMForecaster
        Gives the settings and the method's loss.
    state : FittedState
        The model, built; trained further where it was trained before.
    contexts : sequence of Context
        The series, whole, with their covariates.
    epochs : int or "auto"
        Passes over the training windows.
    recalibrate : bool
        Whether to calibrate anew; an update that trains keeps its calibration.
    """
    started = time.perf_counter()
    contexts = state.residuals(contexts)
    training, watched, held_out = windows_of(forecaster, state.shape, contexts)
    used = [training] if watched is None else [training, watched]
    result = train(
        state.model,
        forecaster._make_loss(state, contexts, used),
        training,
        watched,
        _settings(forecaster, state, training, epochs),
    )
    state.model.eval()
    state.history = [*state.history, *result.history]
    state.best_epoch, state.stopped = result.best_epoch, result.stopped
    state.trained_on = [*state.trained_on, span_of(contexts)]

    def run(pasts: Sequence[Context], steps: int) -> tuple[np.ndarray, np.ndarray]:
        values, scales = forecaster._run(state, pasts, steps)
        return state.with_lagged_effects(values, pasts), scales

    if recalibrate:
        state.calibration = calibrate(
            run,
            contexts,
            context_length=state.shape.context_length,
            horizon=state.shape.horizon,
            validation_fraction=forecaster.validation_fraction,
            held_out=held_out,
            season=season_length(state.shape.freq),
            levels=tuple(forecaster.quantiles) if forecaster.loss == "quantile" else (),
            adaptive=forecaster.adaptive,
        )
    state.seconds += time.perf_counter() - started


def windows_of(
    forecaster: BaseLLMForecaster, shape: ModelShape, contexts: Sequence[Context]
) -> tuple[Windows, Windows | None, list[bool]]:
    """Cut the windows that training is to read.

    Parameters
    ----------
    forecaster : BaseLLMForecaster
        Gives the target's length, the stride and the share that is held out.
    shape : ModelShape
        Of the model.
    contexts : sequence of Context
        The series, whole.

    Returns
    -------
    training : Windows
    watched : Windows or None
        Those that early stopping looks at.
    held_out : list of bool
        Which series have a part that training never sees.
    """
    _warn_of_phases(forecaster.window_stride, season_length(shape.freq))
    split = forecaster._channel_independent
    windows = Windows(
        [column for c in contexts for column in _standardised(c.values, split=split)],
        context_length=shape.context_length,
        target_length=forecaster._target_length(shape),
        stride=forecaster.window_stride,
    )
    training, validation = windows.split(forecaster.validation_fraction)
    present = validation.series_present()
    width = contexts[0].n_variables if split else 1
    held_out = [any(i * width + k in present for k in range(width)) for i in range(len(contexts))]
    watched = validation.thin(MAX_VALIDATION_WINDOWS) if len(validation) else None
    return training, watched, held_out


def _warn_of_phases(stride: int, season: int) -> None:
    """Say so where strided windows would begin at some phases of the season only."""
    shared = math.gcd(stride, season)
    if stride > 1 and shared > 1:
        warnings.warn(
            f"window_stride={stride} and the season of {season} steps share the factor {shared}: "
            f"training sees {season // shared} of {season} phases only, and forecasts from the "
            f"others suffer; use window_stride={_coprime(stride, season)}",
            stacklevel=2,
        )


def _coprime(stride: int, season: int) -> int:
    """Give the largest stride up to this one that shares no factor with the season."""
    return next(one for one in range(stride, 0, -1) if math.gcd(one, season) == 1)


def warn_of_constants(contexts: Sequence[Context]) -> None:
    """Say in one warning which series have nothing to learn from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a variable without any observation
        names = [
            series_name(context.series_id)
            for context in contexts
            if (np.nanmax(context.values, axis=0) == np.nanmin(context.values, axis=0)).all()
        ]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warnings.warn(
            f"{', '.join(names[:3])}{more} never change{'s' * (len(names) == 1)}: the forecast is "
            "the constant",
            stacklevel=2,
        )


def _settings(
    forecaster: BaseLLMForecaster, state: FittedState, training: Windows, epochs: int | str
) -> TrainingSettings:
    """Translate the parameters into the training loop's settings."""
    patience = int(forecaster.patience)
    if epochs == "auto":
        per_epoch = -(-len(training) // forecaster.batch_size)
        enough = max(forecaster._auto_epochs, -(-forecaster._auto_steps // per_epoch))
        # An epoch of a single step says little: where there are more epochs for being short, as
        # many more have to pass without progress.
        patience *= -(-enough // forecaster._auto_epochs)
        epochs = enough
    # Where the CPU multiplies bfloat16 natively the frozen backbone trains in it, at the same
    # accuracy; forecasts stay float32 there, so that single and batched ones agree.
    autocast = None
    if (
        forecaster.dtype == "auto"
        and state.backbone is not None
        and state.device.type == "cpu"
        and native_bfloat16(state.device)
    ):
        autocast = torch.bfloat16
    return TrainingSettings(
        max_epochs=int(epochs),
        max_steps=None if forecaster.max_steps is None else int(forecaster.max_steps),
        batch_size=int(forecaster.batch_size),
        learning_rate=forecaster.learning_rate,
        weight_decay=forecaster.weight_decay,
        final_learning_rate=forecaster._final_learning_rate,
        clip_norm=forecaster._clip_norm,
        patience=patience,
        seed=forecaster._seed(),
        device=state.device,
        autocast=autocast,
        verbose=forecaster.verbose,
    )


def _standardised(values: np.ndarray, *, split: bool) -> list[Tensor]:
    """Scale a series by its own mean and deviation: (time, variables), or one tensor a column.

    Losses of series with different units then weigh alike; the models undo any scaling themselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a variable without any observation
        mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    spread = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, 1.0)
    tensor = torch.from_numpy(((values - mean) / spread).astype(np.float32))  # (time, variables)
    return list(tensor.split(1, dim=1)) if split else [tensor]


def embed_ahead(
    forecaster: BaseLLMForecaster, contexts: Sequence[Context], fh: Any, X: pd.DataFrame | None
) -> dict[str, Any]:
    """Fill the store with the texts of a method; see `BaseLLMForecaster.embed`."""
    check_parameters(forecaster)
    steps = None if fh is None else ForecastingHorizon(fh)
    contexts, columns = forecaster._learn_columns(contexts, X)
    shape = forecaster._choose_shape(contexts, forecaster._asked_horizon(steps, contexts))
    covariates = forecaster._learn_effects(contexts, columns, shape)
    if covariates is not None:
        contexts = [covariates.residual(context) for context in contexts]
    backbone, store = forecaster._load_backbone(), open_store(forecaster.embedding_store)
    started, before = time.perf_counter(), store.stats()["misses"]
    texts = 0
    if backbone is not None:
        for part in forecaster._texts_to_embed(shape, contexts, backbone):
            store.fill(part, backbone, progress=forecaster.verbose > 0)
            texts += len(part)
    if not texts:
        raise DataError(
            f"{type(forecaster).__name__} embeds no text with these settings: there is nothing to "
            "do ahead of time"
        )
    return {
        "texts": texts,
        "computed": store.stats()["misses"] - before,
        "seconds": time.perf_counter() - started,
        "path": str(store.path),
    }
