"""Training of a forecaster's model on series, and calibration of its intervals."""

import math
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsllm.backbone import Backbone, resolve_device
from tsllm.context import Context, ContextBatch, within_rounding
from tsllm.covariates import CovariateColumns, Covariates, fit_covariates
from tsllm.datasets.checks import series_name, series_names
from tsllm.datasets.frequency import season_length
from tsllm.errors import TrainingDivergedError
from tsllm.forecasters.combining import Combination
from tsllm.forecasters.floors import mostly_stop_at_zero
from tsllm.forecasters.forecasting import ContextReader, ForecastingMixin, Reader
from tsllm.forecasters.frames import learn_covariates
from tsllm.forecasters.held_out import held_out_origins, origins_of_each, values_after
from tsllm.forecasters.shrinking import (
    ShrinkingReader,
    are_short,
    history_of,
    learn_shrinkage,
)
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.intervals.calibration import MAX_WINDOWS, MIN_WINDOWS, Calibration, make_calibration
from tsllm.text import TextEncoder, make_encoder, restore_encoder
from tsllm.training.checkpoints import describe_fit
from tsllm.training.loop import train
from tsllm.training.memory import TRAINING_COPIES, memory_estimated
from tsllm.training.randomness import seeded
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import DrawnWindows, WindowBatch, Windows

#: Early stopping reads at most this number of windows, evenly spaced over the held-out part.
MAX_VALIDATION_WINDOWS = 4096
#: Windows that calibration forecasts for a whole panel.
MAX_CALIBRATION_WINDOWS = 4096


class FittingMixin(ForecastingMixin):
    """The part of a forecaster that learns the effects of covariates and fits to the residuals.

    Nothing here reads or changes what the forecaster keeps of series; the `FittedState` is
    returned.
    """

    #: Parameters that a pretrained state survives, for they do not decide what it learnt.
    _free_parameters: ClassVar[frozenset[str]] = frozenset()

    # ------------------------------------------------------------------ the hooks of a kind

    @abstractmethod
    def _new_state(self, contexts: Sequence[Context], horizon: int | None) -> FittedState:
        """Build the state before its training, for some series."""

    @abstractmethod
    def _restore_state(self, saved: Mapping[str, Any], backbone: Backbone | None) -> FittedState:
        """Build a trained state from the output of its `to_state`."""

    @abstractmethod
    def _train(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        epochs: int | str,
        *,
        recalibrate: bool = True,
        resumable: bool = False,
    ) -> None:
        """Train a state on whole series, in place, and calibrate its intervals.

        An update that trains passes ``recalibrate=False``. Only a new model is trained under
        ``checkpoint_dir``.
        """

    def _load_backbone(self) -> Backbone | None:
        """Load the language model; None for a method without one."""
        return None

    # ------------------------------------------------------------------ from series to a state

    def _train_new(
        self,
        contexts: Sequence[Context],
        columns: CovariateColumns | None,
        horizon: int | None,
        *,
        calibrate: bool = True,
    ) -> FittedState:
        """Learn the covariates' effects; build, train and calibrate a model of the residuals."""
        _warn_of_constants(contexts)
        state = self._new_state(contexts, horizon)
        state.stops_at_zero = mostly_stop_at_zero([context.values for context in contexts])
        state.covariates = self._learn_effects(contexts, columns, state.shape)
        self._train(state, contexts, self.max_epochs, recalibrate=calibrate, resumable=True)
        return state

    def _adopt(self, state: FittedState, contexts: Sequence[Context]) -> FittedState:
        """Use a pretrained model for new series; train it for ``update_epochs``."""
        state.check_same_series(contexts)
        if self.update_epochs > 0 or self.adaptive:
            state = state.copy()
        if self.update_epochs > 0:
            self._train(state, contexts, self.update_epochs)
        return state

    def _learn_columns(
        self, contexts: Sequence[Context], X: pd.DataFrame | None
    ) -> tuple[list[Context], CovariateColumns | None]:
        """Join X to series that a model is fitted on."""
        return learn_covariates(
            contexts,
            X,
            past=self.past_covariates,
            static=self.static_attributes,
            texts=self.text_covariates,
        )

    def _learn_effects(
        self, contexts: Sequence[Context], columns: CovariateColumns | None, shape: ModelShape
    ) -> Covariates | None:
        """Learn the effects of the covariates on the series; None without covariates."""
        if columns is None:
            return None
        return fit_covariates(
            contexts,
            columns,
            context_length=shape.context_length,
            horizon=shape.horizon,
            season=season_length(shape.freq),
            validation_fraction=self.validation_fraction,
            make_encoder=self._make_encoder,
        )

    def _make_encoder(self, texts: Sequence[str | None]) -> TextEncoder:
        """Make the encoder of text covariates from the texts of training."""
        return make_encoder(self.text_backbone, texts, **self._encoder_settings())

    def _restore_encoder(self, saved: Mapping[str, Any]) -> TextEncoder:
        """Build the encoder of a saved model."""
        return restore_encoder(saved, self.text_backbone, **self._encoder_settings())

    def _encoder_settings(self) -> dict[str, Any]:
        return {
            "store": self.embedding_store,
            "device": self.device,
            "dtype": getattr(self, "dtype", "auto"),  # of methods with a language model
            "progress": self.verbose > 0,
        }


class LearningMixin(FittingMixin):
    """The part of a forecaster that chooses, builds, trains and calibrates a model.

    Nothing here reads or changes what the forecaster keeps of series; the trained `FittedState` is
    returned.
    """

    #: Parameters that a pretrained model survives, for they do not decide its tensors.
    _free_parameters: ClassVar[frozenset[str]] = frozenset(
        (
            *("adaptive", "update_epochs", "max_epochs", "batch_size", "window_stride"),
            *("learning_rate", "weight_decay", "patience", "validation_fraction", "max_steps"),
            *("checkpoint_dir", "embedding_store", "freq", "device", "random_state", "verbose"),
            "floor",
        )
    )
    #: Whether each variable is a series of its own to the model.
    _channel_independent: ClassVar[bool] = True
    #: Fewest epochs and fewest steps of a training with ``max_epochs="auto"``.
    _auto_epochs: ClassVar[int] = 10
    _auto_steps: ClassVar[int] = 400
    #: Most steps of a training where ``window_stride`` is "auto" too; a larger ``max_steps`` raises
    #: it. `_budget` chooses the number for a model with a language model.
    _most_steps: ClassVar[int] = 2000
    #: Whether training embeds the text of each window, so that each epoch reads the same ones.
    _embeds_windows: ClassVar[bool] = False
    #: The training loop's gradient clipping and last learning rate.
    _clip_norm: ClassVar[float | None] = 5.0
    _final_learning_rate: ClassVar[float] = 1e-8

    # ------------------------------------------------------------------ the hooks of a method

    @abstractmethod
    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        """Choose the sizes of the model from the parameters and the series."""

    @abstractmethod
    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        """Build the torch module; called with the random state seeded."""

    @abstractmethod
    def _target_length(self, shape: ModelShape) -> int:
        """Return the steps after the context that a training window holds."""

    @abstractmethod
    def _make_loss(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[nn.Module, WindowBatch], Loss]:
        """Make the training loss for batches of these windows (training, validation).

        The windows number their series as the contexts are; for a channel-independent method each
        variable is a series, variables fastest.
        """

    @abstractmethod
    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        """Forecast a batch: (batch, horizon, variables, 1 + levels), in standardised units."""

    def _arrange_context(self, state: FittedState, context: Context) -> Context:
        """Choose the steps of a context that the model reads."""
        return context.tail(state.shape.context_length)

    def _rows_at_once(self, state: FittedState) -> int:
        """Return the number of contexts in a batch."""
        return max(1, int(self.batch_size) // state.shape.n_variables)

    def _autocast(self, state: FittedState) -> torch.dtype | None:
        """Return the type that training computes the frozen backbone in; None: its own."""
        return None

    # ------------------------------------------------------------------ from series to a model

    def _new_state(self, contexts: Sequence[Context], horizon: int | None) -> FittedState:
        """Build an untrained model for some series."""
        shape = self._choose_shape(contexts, horizon)
        backbone = self._load_backbone()
        return FittedState(self._new_model(backbone, shape), backbone, shape, self.device)

    def _restore_state(self, saved: Mapping[str, Any], backbone: Backbone | None) -> FittedState:
        """Build a trained state from the output of its `to_state`."""
        return FittedState.from_state(
            saved,
            lambda shape: self._new_model(backbone, shape, copies=1),
            backbone,
            self.device,
            self._restore_encoder,
        )

    def _new_model(
        self, backbone: Backbone | None, shape: ModelShape, *, copies: int = TRAINING_COPIES
    ) -> nn.Module:
        """Build an untrained model on its device, which has memory for copies of its weights."""
        device = resolve_device(self.device) if backbone is None else backbone.device
        sizes = f"context_length={shape.context_length} and prediction_length={shape.horizon}"
        with seeded(self._seed()), memory_estimated(device, sizes, copies=copies):
            model = self._build_model(backbone, shape)
        return model.to(device)

    def _train(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        epochs: int | str,
        *,
        recalibrate: bool = True,
        resumable: bool = False,
    ) -> None:
        """Train a state's model on whole series, in place, and calibrate its intervals.

        An update that trains passes ``recalibrate=False``. Only a new model is trained under
        ``checkpoint_dir``.
        """
        started = time.perf_counter()
        residuals = state.residuals(contexts)
        training, validation, held_out = self._windows(state.shape, residuals)
        identity = None
        if resumable and self.checkpoint_dir is not None:
            weights = None if state.backbone is None else state.backbone.digest
            identity = describe_fit(self, weights, *_data_of(contexts))
        self._learn_weights(state, residuals, training, validation, epochs, identity)
        state.model.eval()
        state.trained_on = [*state.trained_on, span_of(residuals)]
        if recalibrate or resumable:  # no update
            self._learn_from_held_out(state, residuals, held_out, calibrate=recalibrate)
        state.seconds += time.perf_counter() - started

    def _learn_weights(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        training: Windows,
        validation: Windows | None,
        epochs: int | str,
        identity: Mapping[str, Any] | None,
    ) -> None:
        """Train the weights of a state's model on windows of series, and add to its history.

        ``identity`` are the facts that tell this training from others, for checkpoints under
        ``checkpoint_dir``. None: no checkpoints. A model without weights to train stays as it is.
        """
        if not any(weight.requires_grad for weight in state.model.parameters()):
            state.stopped = "not trained"
            return
        windows = [training] if validation is None else [training, validation]
        some = self._drawn(training)
        loss = self._make_loss(state, contexts, windows)
        settings = self._training_settings(state, len(some), epochs)
        if identity is not None:
            assert self.checkpoint_dir is not None  # `_train` looked
            folder = Path(self.checkpoint_dir).expanduser()
            settings = replace(settings, checkpoint_dir=folder, identity=identity)
        result = train(state.model, loss, some, validation, settings)
        state.history = [*state.history, *result.history]
        state.best_epoch, state.stopped = result.best_epoch, result.stopped

    def _learn_from_held_out(
        self,
        state: FittedState,
        residuals: Sequence[Context],
        held_out: Sequence[int],
        *,
        calibrate: bool,
    ) -> None:
        """Learn the shrinkage of a trained state, and calibrate its intervals."""
        if self._shrinks(residuals):
            state.shrinkage = self._learn_shrinkage(state, residuals, held_out)
        if calibrate:
            state.calibration = self._make_calibration(state, residuals, held_out)

    def _shrinks(self, contexts: Sequence[Context]) -> bool:
        """Return whether forecasts shrink towards simple ones, if held-out windows support it."""
        return are_short(contexts) if self.shrinkage == "auto" else bool(self.shrinkage)

    def _windows(
        self, shape: ModelShape, contexts: Sequence[Context]
    ) -> tuple[Windows, Windows | None, list[int]]:
        """Cut the windows for training and for early stopping.

        The list has the steps at the end of each series that training holds out.
        """
        stride = 1 if self.window_stride == "auto" else int(self.window_stride)
        _warn_of_phases(stride, season_length(shape.freq))
        split = self._channel_independent
        windows = Windows(
            [column for c in contexts for column in _standardised(c.values, split=split)],
            context_length=shape.context_length,
            target_length=self._target_length(shape),
            stride=stride,
        )
        origins, least = origins_of_each(contexts), self._least_held_out(shape)
        held_out = [
            held_out_steps(len(context), least, self.validation_fraction, origins)
            for context in contexts
        ]
        columns = contexts[0].n_variables if split else 1
        training, validation = windows.split(torch.tensor(held_out).repeat_interleave(columns))
        most = MAX_VALIDATION_WINDOWS
        per_epoch = self._windows_of_epoch()
        if per_epoch is not None and len(training) > per_epoch:
            most = min(most, max(1, per_epoch // 2))  # validation takes less than training
            if self._embeds_windows:
                training = training.thin(per_epoch, jitter=True)
        some = validation.thin(most) if len(validation) else None
        return training, some, held_out

    def _least_held_out(self, shape: ModelShape) -> int:
        """Return the steps that are held out if possible: the horizon, or a training target."""
        return max(shape.horizon, self._target_length(shape))

    def _most_context(self, steps: int, target: int) -> int:
        """Return the longest context that suits series of some steps.

        Half of the series, and what leaves room for a training target before the held-out part, but
        at least a quarter.
        """
        held = held_out_steps(steps, target, self.validation_fraction)
        return max(min(steps // 2, steps - held - target), steps // 4, 1)

    def _windows_of_epoch(self) -> int | None:
        """Return the most windows that an epoch reads; None: all."""
        if self.window_stride != "auto" or self.max_epochs != "auto":
            return None
        steps = max(self._budget(), int(self.max_steps or 0)) // self._auto_epochs
        return int(self.batch_size) * steps

    def _budget(self) -> int:
        """Return the most steps of a training where epochs and stride are "auto"."""
        return self._most_steps

    def _shorter(self) -> str:
        """Name the arguments that make a long training shorter."""
        stride = "" if self._windows_of_epoch() is not None else "window_stride='auto', "
        return f"a smaller max_steps, {stride}or a GPU"

    def _drawn(self, training: Windows) -> Windows | DrawnWindows:
        """Return the training set: all windows, or some that each epoch draws anew."""
        per_epoch = self._windows_of_epoch()
        if per_epoch is None or len(training) <= per_epoch:
            return training
        return DrawnWindows(training, per_epoch)

    def _training_settings(
        self, state: FittedState, windows: int, epochs: int | str
    ) -> TrainingSettings:
        """Translate the parameters into the training loop's settings.

        ``windows`` is the number that an epoch reads.
        """
        patience = int(self.patience)
        if epochs == "auto":
            per_epoch = -(-windows // self.batch_size)
            least = min(self._auto_steps, self._budget())
            epochs = max(self._auto_epochs, -(-least // per_epoch))
            # The shorter the epochs, the more of them there are, and the more may pass in vain.
            patience *= -(-epochs // self._auto_epochs)
        return TrainingSettings(
            max_epochs=int(epochs),
            max_steps=None if self.max_steps is None else int(self.max_steps),
            batch_size=int(self.batch_size),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            final_learning_rate=self._final_learning_rate,
            clip_norm=self._clip_norm,
            patience=patience,
            seed=self._seed(),
            device=state.device,
            autocast=self._autocast(state),
            shorter=self._shorter(),
            verbose=self.verbose,
        )

    def _reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        reader = self._model_reader(state, followed=followed)
        if state.shrinkage is None:
            return reader
        season = season_length(state.shape.freq)
        return ShrinkingReader(reader, state.shrinkage, history_of(state.shape), season)

    def _model_reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        """Return the reader that forecasts with the model alone."""
        rows = self._rows_at_once(state)
        return ContextReader(state, self._arrange_context, self._run_model, rows, self.batch_size)

    # ------------------------------------------------------------------ shrinkage

    def _learn_shrinkage(
        self, state: FittedState, contexts: Sequence[Context], held_out: Sequence[int]
    ) -> Combination | None:
        """Learn how far forecasts shrink towards simple ones, on windows of the held-out part."""
        return learn_shrinkage(
            self._model_reader(state),
            contexts,
            self._shrinkage_origins(state.shape, contexts, held_out),
            state.shape,
        )

    def _shrinkage_origins(
        self, shape: ModelShape, contexts: Sequence[Context], held_out: Sequence[int]
    ) -> list[np.ndarray]:
        """List the origins of the windows that shrinkage is learnt on."""
        return held_out_origins(contexts, held_out, shape.horizon)

    # ------------------------------------------------------------------ calibration

    def _make_calibration(
        self, state: FittedState, contexts: Sequence[Context], held_out: Sequence[int]
    ) -> Calibration:
        """Calibrate intervals on the part of each series that training did not see.

        A variable that is not observed there is calibrated on training windows, with a warning.
        """
        levels, in_sample = self._head_levels(), not any(held_out)
        errors, spacings = self._score_windows(state, contexts, held_out)
        bare = unscored(errors)  # (variables,)
        if bare.any() and not in_sample:
            training, training_spacings = self._score_windows(state, contexts, [0] * len(contexts))
            lent = bare & ~unscored(training)
            if lent.any():
                _warn_of_lent_scores(contexts, lent)
            if lent.all():
                errors, spacings, in_sample = training, training_spacings, True
            elif lent.any():
                for series_id, older in training.items():
                    older[:, :, ~lent] = np.nan
                    errors[series_id] = np.concatenate([older, errors[series_id]])
        elif any(held_out):
            self._warn_of_unobserved_ends(contexts, held_out)
        if not any(map(len, errors.values())):
            # No window begins with observed values of all variables, so none has a score.
            n_variables, horizon = contexts[0].n_variables, state.shape.horizon
            return _without_scores(n_variables, horizon, levels, self.adaptive)
        return make_calibration(
            errors, levels, spacings=spacings, adaptive=self.adaptive, in_sample=in_sample
        )

    def _score_windows(
        self, state: FittedState, contexts: Sequence[Context], held_out: Sequence[int]
    ) -> tuple[dict[Hashable, np.ndarray], dict[Hashable, float]]:
        """Compute the scaled errors of each series' windows, and the steps between the windows.

        The model forecasts from `calibration_origins`; near the end of a series a window scores
        only the observed steps. The errors are (windows, horizon, variables, 1 + levels).
        """
        shape = state.shape
        origins_of = calibration_origins(contexts, held_out, season_length(shape.freq))
        pasts: list[Context] = []
        futures: list[np.ndarray] = []
        known: list[np.ndarray | None] = []
        counts: dict[Hashable, int] = {}
        spacings: dict[Hashable, float] = {}
        for context, origins in zip(contexts, origins_of):
            counts[context.series_id] = 0
            # A lone window overlaps none.
            gaps = np.diff(origins) if len(origins) > 1 else shape.horizon
            spacings[context.series_id] = float(np.mean(gaps))
            for origin in origins.tolist():
                past = context.until(origin)
                if past.tail(shape.context_length).mask.any(axis=0).all():
                    pasts.append(past)
                    futures.append(values_after(context, origin, shape.horizon))
                    known.append(state.known_ahead(context, origin, shape.horizon))
                    counts[context.series_id] += 1
        if not pasts:
            nothing = np.empty((0, shape.horizon, shape.n_variables, 1 + len(self._head_levels())))
            return dict.fromkeys(counts, nothing), spacings
        forecasts, scales = self._reader(state).predict(pasts, shape.horizon)
        if not np.isfinite(forecasts).all():
            raise TrainingDivergedError(
                "the trained model forecasts values that are not finite; lower learning_rate "
                f"({self.learning_rate:g}), and check the data for extreme values"
            )
        faint = within_rounding(scales, forecasts[:, 0, :, 0])  # (windows, variables)
        forecasts = state.with_lagged_effects(forecasts, pasts)
        forecasts = state.with_text_effects(forecasts, pasts, known)
        misses = np.stack(futures)[..., None] - forecasts
        # A constant context has no scale, and an interval of no width: it has no score.
        scores = misses / np.where(faint, np.nan, scales)[:, None, :, None]
        # A spread within rounding is a scale only where a variable has no other.
        bare = unscored({None: scores})
        if bare.any():
            own = misses / np.where(faint & (scales > 0), scales, np.nan)[:, None, :, None]
            scores = np.where(bare[:, None] & np.isnan(scores), own, scores)
        parts = np.split(scores, np.cumsum([*counts.values()])[:-1])
        return dict(zip(counts, parts)), spacings

    def _warn_of_unobserved_ends(
        self, contexts: Sequence[Context], held_out: Sequence[int]
    ) -> None:
        """Warn once of all series of a panel whose held-out part is not observed."""
        ids = [
            context.series_id
            for context, steps in zip(contexts, held_out)
            if steps and not context.mask[-steps:].any(axis=0).all()
        ]
        if ids:
            warnings.warn(
                f"the held-out end of {series_names(ids)} has no observed value: the intervals use "
                "the errors on the other series",
                stacklevel=2,
            )


def calibration_origins(
    contexts: Sequence[Context],
    held_out: Sequence[int],
    season: int = 1,
) -> list[np.ndarray]:
    """List the origins of each series' calibration windows; none for a series that is not used.

    Every origin of the held-out part is a window, evenly thinned to 256 a series and 4,096 a panel.
    Where a panel is so large that its series get too few windows for scores of their own, the
    windows lie whole seasons before the end if possible: the steps that are forecast next are then
    calibrated at their own hours. Where no series has a held-out part, the second half of the
    training data is used. ``held_out`` are the steps at the end of each series that training held
    out. An origin is the position of a window's first target step; they rise.
    """
    in_sample = not any(held_out)
    used = [in_sample or out > 0 for out in held_out]
    most = int(np.clip(MAX_CALIBRATION_WINDOWS // sum(used), 4, MAX_WINDOWS))
    origins = []
    for context, use, out in zip(contexts, used, held_out):
        steps = len(context)
        first = max(1, steps // 2) if in_sample else max(1, steps - out)
        count = min(most, steps - first) if use else 0
        seasons = (steps - first) // season
        if most < MIN_WINDOWS and count and season > 1 and seasons > 1:
            origins.append(steps - season * np.arange(min(most, seasons), 0, -1))
        else:
            origins.append(np.unique(np.linspace(first, steps - 1, count).round().astype(int)))
    return origins


def held_out_steps(steps: int, horizon: int, fraction: float, origins: int = 1) -> int:
    """Return the number of steps at the end of a series that training leaves out.

    A share of the series, but at least the horizon as far as half of the series allows it: with
    fewer steps no error of the last ones would be seen. A third of the series may be left out for
    further ``origins``. 0 where ``fraction`` is 0, or where less than 2 steps would be left.

    Examples
    --------
    >>> held_out_steps(400, 12, 0.1), held_out_steps(40, 12, 0.1), held_out_steps(16, 12, 0.1)
    (40, 12, 8)
    >>> held_out_steps(400, 12, 0.1, 40), held_out_steps(40, 6, 0.1, 24)
    (51, 13)
    """
    if fraction == 0:
        return 0
    wanted = max(min(horizon, steps // 2), min(horizon + origins - 1, steps // 3))
    held = max(round(fraction * steps), wanted)
    return held if steps - held >= 2 else 0


def _data_of(contexts: Sequence[Context]) -> list[Any]:
    """List all that training reads of some series."""
    return [
        part
        for c in contexts
        for part in (
            c.series_id,
            c.values,
            str(getattr(c.times, "dtype", None)),  # periods of all lengths count from 0
            np.asarray(getattr(c.times, "asi8", c.times)),
            c.past_x,
            c.static,
        )
    ]


def unscored(errors: Mapping[Hashable, np.ndarray]) -> np.ndarray:
    """Return which variables, (variables,), have no score other than 0.

    Values that are filled in have scores of 0, which tell nothing about the errors of others.
    """
    told = [(np.nan_to_num(one[..., 0]) != 0).any(axis=(0, 1)) for one in errors.values()]
    return ~np.any(told, axis=0)


def _warn_of_lent_scores(contexts: Sequence[Context], lent: np.ndarray) -> None:
    """Warn of variables, (variables,), whose held-out values cannot be scored."""
    name = series_name(contexts[0].series_id) if len(contexts) == 1 else "every series"
    which = [contexts[0].in_column(variable) for variable in np.flatnonzero(lent).tolist()]
    of = "" if lent.all() else " and".join(which)
    warnings.warn(
        f"the held-out end of {name} has no observed change{of}: its intervals rest on training "
        "windows and are likely too narrow; give values up to the end, or a larger "
        "validation_fraction",
        stacklevel=2,
    )


def _without_scores(
    n_variables: int, horizon: int, levels: tuple[float, ...], adaptive: bool
) -> Calibration:
    """Make a calibration without any score, for series without a window to score."""
    empty = np.full((1, horizon, n_variables, 1 + len(levels)), np.nan)
    return make_calibration({None: empty}, levels, adaptive=adaptive, in_sample=True)


def span_of(contexts: Sequence[Context]) -> dict[str, Any]:
    """Describe the amount of data: series, steps in all, first and last stamp as text."""
    return {
        "series": len(contexts),
        "steps": sum(len(context) for context in contexts),
        "first": str(min(context.times[0] for context in contexts)),
        "last": str(max(context.times[-1] for context in contexts)),
    }


def _warn_of_phases(stride: int, season: int) -> None:
    """Warn of strided windows that begin at some phases of the season only."""
    shared = math.gcd(stride, season)
    if stride > 1 and shared > 1:
        coprime = next(one for one in range(stride, 0, -1) if math.gcd(one, season) == 1)
        warnings.warn(
            f"window_stride={stride} and the season of {season} steps share the factor {shared}: "
            f"training sees {season // shared} of {season} phases only, and forecasts from the "
            f"others suffer; use window_stride={coprime}",
            stacklevel=2,
        )


def _warn_of_constants(contexts: Sequence[Context]) -> None:
    """Warn once of all series that never change beyond the rounding of their values."""
    ids = [
        context.series_id
        for context in contexts
        if within_rounding(*_spread_and_level(context.values)).all()
    ]
    if ids:
        warnings.warn(
            f"{series_names(ids)} never change{'s' * (len(ids) == 1)}: the forecast is the "
            "constant",
            stacklevel=2,
        )


def _spread_and_level(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return deviation and mean of each variable; NaN without any observation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a variable without any observation
        return np.nanstd(values, axis=0), np.nanmean(values, axis=0)


def _standardised(values: np.ndarray, *, split: bool) -> list[Tensor]:
    """Scale a series by its own mean and deviation: (time, variables), or one tensor a column.

    Losses of series with different units then weigh alike; the models undo any scaling themselves.
    """
    spread, mean = _spread_and_level(values)
    constant = within_rounding(spread, mean) | np.isnan(spread)  # (variables,)
    centred = np.where(constant & ~np.isnan(values), 0.0, values - mean)  # (time, variables)
    tensor = torch.from_numpy((centred / np.where(constant, 1.0, spread)).astype(np.float32))
    return list(tensor.split(1, dim=1)) if split else [tensor]
