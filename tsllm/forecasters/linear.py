"""A ridge regression from a context to the steps after it, shared by all series."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.linear import (
    DEFAULT_PENALTY,
    PENALTIES,
    LinearModel,
    Rows,
    moments,
    regression_rows,
    solve_ridge,
)
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.backbone.stopping import check_time
from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.training.windows import Windows

#: Shares of the series, at their ends, that the penalty is chosen on if none is held out.
CHOICE_SHARES = (0.2, 0.35, 0.5)
#: Steps of the longest context: its moments take half a gigabyte.
MAX_CONTEXT = 8192
#: Training reads at most this number of windows, evenly spaced.
MAX_WINDOWS = 30_000
#: The error on the training windows is that of at most this number.
MAX_SCORED = 4096


class LinearForecaster(DirectForecaster):
    """Forecast with one ridge regression that all series share, computed in closed form.

    The forecast is the last value plus a linear map of the context's changes from it. It takes
    seconds on a processor and no random numbers. The map is the average of two: one of the whole
    context and one of its last half. The penalty is the one with the smallest error on the held-out
    end of the series, or on the last windows where nothing is held out. One map forecasts
    ``prediction_length`` steps at once; longer horizons are rolled out on its own forecasts.

    The arguments that matter most: ``context_length``, ``prediction_length`` (the horizon, if `fit`
    gets no ``fh``), ``validation_fraction``, ``past_covariates`` and ``text_covariates``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import LinearForecaster
    >>> forecaster = LinearForecaster().fit(load_airline(), fh=[1, 2, 3])
    >>> forecaster.predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']

    Parameters
    ----------
    context_length : int or "auto", default="auto"
        Steps of history that a forecast reads, at most 8,192. "auto": 672, and at most half of a
        typical series.
    batch_size : int, default=256
        Windows that are read at once; each variable is a window of its own.
    validation_fraction : float, default=0.1
        Share of each series, at its end, that is held out for the choice of the penalty and for
        calibrating intervals.
    random_state : int, RandomState or None, default=None
        Without effect: nothing is random. All forecasters have this argument.

    Attributes
    ----------
    fitted_ : FittedState
        The map, its sizes and its calibration; ``summary()["penalty"]`` is the chosen penalty.

    See Also
    --------
    DLinearForecaster, AutoForecaster

    References
    ----------
    Toner and Darlow, "An Analysis of Linear Time Series Forecasting Models", ICML 2024,
    arXiv 2403.14587: the linear models of the field are ridge regressions in other forms.
    """

    _max_context: ClassVar[int] = 672

    max_epochs = 1  # the windows are read once, to solve for the weights

    def __init__(
        self,
        *,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        shrinkage: bool | str = "auto",
        adaptive: bool = False,
        batch_size: int = 256,
        validation_fraction: float = 0.1,
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
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
        return [
            {"context_length": 8},
            {"context_length": 6, "prediction_length": 2, "adaptive": True, "device": "cpu"},
        ]

    def summary(self) -> dict[str, Any]:
        """Summarise the fit, with the chosen penalty; see `SeriesForecaster.summary`."""
        told = super().summary()
        return told | {"penalty": self.fitted_.history[-1]["penalty"]}

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        if shape.context_length > MAX_CONTEXT:
            raise DataError(
                f"context_length must be at most {MAX_CONTEXT:,} steps, found "
                f"{shape.context_length:,}: the regression has an equation for each"
            )
        return LinearModel(shape.context_length, shape.horizon)

    def _learn_weights(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        training: Windows,
        validation: Windows | None,
        epochs: int | str,
        identity: Mapping[str, Any] | None,
    ) -> None:
        """Choose the penalty, and compute the map; there are no ``epochs`` and no checkpoints."""
        training = training.thin(MAX_WINDOWS)
        earlier, later = (training, validation) if validation else _split_off(training)
        found = moments(self._rows(state, earlier))
        penalty, error = DEFAULT_PENALTY, None
        if later is not None:
            errors = self._errors(state, solve_ridge(found, PENALTIES), later)
            penalty, error = PENALTIES[int(errors.argmin())], float(errors.min())
        if earlier is not training:
            found = moments(self._rows(state, training))
        (weight,) = solve_ridge(found, [penalty])
        assert isinstance(state.model, LinearModel)  # _build_model made it
        with torch.no_grad():
            state.model.weight.copy_(weight)
        fit = float(self._errors(state, [weight], training.thin(MAX_SCORED))[0])
        entry = {"epoch": 1, "step": 1, "penalty": penalty, "train_loss": fit}
        if error is not None:
            entry["validation_loss"] = error
        state.history = [*state.history, entry]
        state.best_epoch, state.stopped = 1, "closed form"

    def _errors(self, state: FittedState, maps: Sequence[Tensor], windows: Windows) -> Tensor:
        """Compute the mean squared error of each map on some windows: (maps,)."""
        stacked = torch.stack(list(maps)).float()  # (maps, horizon, context)
        squares = torch.zeros(len(maps), dtype=torch.float64, device=state.device)
        count = 0
        for rows in self._rows(state, windows):
            # (maps, rows, horizon)
            misses = rows.inputs @ stacked.transpose(1, 2) - rows.targets
            squares += misses.square().mul(rows.observed).sum((1, 2)).double()
            count += int(rows.observed.sum())
        return squares / max(1, count)

    def _rows(self, state: FittedState, windows: Windows) -> Iterator[Rows]:
        """Gather windows in batches, as rows of the regression."""
        for indices in torch.arange(len(windows)).split(int(self.batch_size)):
            check_time()
            batch = windows.gather(indices).to(state.device)
            yield regression_rows(batch.values, batch.mask, state.shape.context_length)


def _split_off(windows: Windows) -> tuple[Windows, Windows | None]:
    """Split the last windows off to choose the penalty on; all and None where too few steps."""
    for share in CHOICE_SHARES:
        earlier, later = windows.split(share)
        if len(later):
            return earlier, later
    return windows, None
