"""The base of forecasters whose head forecasts the whole horizon at once."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.layers import MonotoneQuantileHead
from tsllm.adapters.losses import elementwise_loss
from tsllm.backbone.stopping import check_time
from tsllm.context import Context, ContextBatch, typical_length
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.base import ModelForecaster
from tsllm.forecasters.frames import frequency_of
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.training.settings import Loss
from tsllm.training.windows import WindowBatch, Windows


class DirectForecaster(ModelForecaster):
    """A method whose model maps a context to `prediction_length` steps; longer ones roll out.

    A subclass builds a module with ``forward(x, mask=...)`` and ``quantile_head`` (None for a point
    forecast) in `_build_model`. A module that reads more than values needs `_training_inputs` and
    `_forecast_inputs`, one that returns more than a forecast `_read_output`.
    """

    #: ``context_length="auto"`` reads at most this number of steps.
    _max_context: ClassVar[int]

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        freq = frequency_of(contexts)
        typical = typical_length(contexts)
        season = season_length(freq)
        context_length = self.context_length
        if horizon is None:
            horizon = int(np.clip(typical // 4, 1, max(season, 8)))
        if context_length == "auto":
            most = self._most_context(typical, horizon)
            context_length = int(np.clip(most, 1, self._max_context))
        return ModelShape(int(context_length), horizon, contexts[0].n_variables, freq)

    def _training_inputs(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[WindowBatch], dict[str, Tensor]]:
        """Prepare the model's inputs beside the values of each training window."""
        return lambda batch: {}

    def _forecast_inputs(
        self, state: FittedState, values: Tensor, contexts: Sequence[Context], done: int
    ) -> dict[str, Tensor]:
        """Return the model's inputs beside values, ``done`` steps after the contexts' ends.

        ``values`` (batch, context, variables) are the steps that it reads, its own forecasts among
        them, in the contexts' standardised units.
        """
        return {}

    def _read_output(self, out: Any) -> tuple[Tensor, dict[str, Tensor], Tensor | float]:
        """Split a model's output: forecast, figures for the history, term of the training loss."""
        return out, {}, 0.0

    def _target_length(self, shape: ModelShape) -> int:
        return shape.horizon

    def _make_loss(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[nn.Module, WindowBatch], Loss]:
        split = state.shape.context_length
        levels = self._head_levels()
        inputs = self._training_inputs(state, contexts, windows)

        def loss(model: nn.Module, batch: WindowBatch) -> Loss:
            context, target = batch.values[:, :split], batch.values[:, split:]
            seen = batch.mask[:, :split]  # (batch, context, variables)
            # (batch, horizon, variables[, levels])
            forecast, figures, term = self._read_output(model(context, mask=seen, **inputs(batch)))
            if not model.training:
                term = 0.0  # the best weights are those of the best forecasts
            # A window whose context was never observed has nothing to forecast from.
            counted = batch.mask[:, split:] & seen.any(dim=1, keepdim=True)
            errors = elementwise_loss(self.loss, forecast, target, levels)
            count = counted.sum()
            return Loss(torch.where(counted, errors, 0.0).sum() + term * count, count, figures)

        return loss

    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        values, mask = batch.values, batch.mask  # (batch, context, variables)
        parts = []
        for done in range(0, horizon, state.shape.horizon):
            check_time()
            inputs = self._forecast_inputs(state, values, contexts, done)
            out, _, _ = self._read_output(state.model(values, mask=mask, **inputs))
            if self.loss == "quantile":
                head = state.model.quantile_head
                assert isinstance(head, MonotoneQuantileHead)
                out = torch.cat([out[..., head.median, None], out], dim=-1)
            else:
                out = out.unsqueeze(-1)
            parts.append(out)  # (batch, steps of the head, variables, 1 + levels)
            # Beyond the head's steps its own forecasts become the context.
            point = out[..., 0]
            values = torch.cat([values, point], dim=1)[:, -state.shape.context_length :]
            mask = torch.cat([mask, torch.ones_like(point, dtype=torch.bool)], dim=1)
            mask = mask[:, -state.shape.context_length :]
        return torch.cat(parts, dim=1)[:, :horizon]
