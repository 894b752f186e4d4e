"""Training a forecaster's model on series, and calibrating it on what was held out."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tsllm.backbone import native_bfloat16
from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.calibrate import calibrate
from tsllm.forecasters.frames import span_of
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.training import TrainingSettings, train
from tsllm.windows import Windows

if TYPE_CHECKING:
    from tsllm.forecasters.base import BaseLLMForecaster

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
    contexts = state.remainders(contexts)
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
        return state.with_news(values, pasts), scales

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
        compile=forecaster.compile,
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
