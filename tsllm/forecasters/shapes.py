"""The comparison of a few shapes of a model on the held-out part of short series.

A shape, such as the length of a token, decides much on short series, where no rule is right for
all. Each shape is tried by a short training without the language model, which takes about a second.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tsllm.context import Context
from tsllm.datasets.frequency import season_length
from tsllm.errors import NotEnoughDataError
from tsllm.forecasters.held_out import HeldOut, independent_windows
from tsllm.forecasters.learning import LearningMixin
from tsllm.forecasters.shrinking import are_short

#: Steps of a trial. A training with a smaller ``max_steps`` takes the plain rule.
TRIAL_STEPS = 200
#: Held-out windows, counted as if they did not overlap, that a choice needs.
LEAST_WINDOWS = 10
#: Another shape than the first must have an error that is lower by this share.
LEAST_GAIN = 0.02


def best_shape(
    forecaster: Any,
    contexts: Sequence[Context],
    horizon: int,
    shapes: Sequence[Mapping[str, Any]],
    off: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return the shape with the lowest error on held-out windows; the first where they are alike.

    Parameters
    ----------
    forecaster : ModelForecaster
        The settings of the trials.
    contexts : sequence of Context
        The series.
    horizon : int
        Steps that are compared.
    shapes : sequence of dict
        Arguments of the forecaster. Equal ones are tried once.
    off : dict
        Further arguments of a trial, such as ``backbone=None``.
    """
    different = [shape for i, shape in enumerate(shapes) if shape not in shapes[:i]]
    if len(different) == 1 or not worth_comparing(forecaster, contexts):
        return different[0]
    first = _error(forecaster, contexts, horizon, {**off, **different[0]})
    if np.isnan(first):
        return different[0]
    others = [_error(forecaster, contexts, horizon, {**off, **s}) for s in different[1:]]
    errors = np.array([first * (1 - LEAST_GAIN), *others])
    return different[int(np.nanargmin(errors))]


def worth_comparing(forecaster: Any, contexts: Sequence[Context]) -> bool:
    """Return whether series are short, a part is held out, and the training is no short trial."""
    few = forecaster.max_steps is not None and forecaster.max_steps < TRIAL_STEPS
    return bool(are_short(contexts) and forecaster.validation_fraction > 0 and not few)


def _error(
    forecaster: Any, contexts: Sequence[Context], horizon: int, settings: Mapping[str, Any]
) -> float:
    """Train a trial and return its mean scaled error on held-out windows; NaN with few."""
    plain = {"max_steps": TRIAL_STEPS, "shrinkage": False, "checkpoint_dir": None, "verbose": 0}
    trial = forecaster.clone().set_params(**plain, random_state=0, adaptive=False, **settings)
    assert isinstance(trial, LearningMixin)  # the forecasters of this package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training itself warns
        state = trial._train_new(contexts, None, horizon, calibrate=False)
        _, _, held_out = trial._windows(state.shape, contexts)
    origins = trial._shrinkage_origins(state.shape, contexts, held_out)
    if independent_windows(origins, horizon) < LEAST_WINDOWS:
        return np.nan
    try:
        windows = HeldOut.of(
            contexts,
            origins,
            horizon=horizon,
            season=season_length(state.shape.freq),
            history=state.shape.context_length,
        )
    except NotEnoughDataError:
        return np.nan
    values, _ = trial._model_reader(state).predict(windows.pasts, horizon)
    errors = windows.with_forecasts(values[..., :1]).mean_errors(np.ones((1, 1)), 0, horizon)
    return float(np.nanmean(errors)) if not np.isnan(errors).all() else np.nan
