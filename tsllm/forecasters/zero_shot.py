"""Forecasts without training: packaged weights that were trained on synthetic series only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsllm.adapters.zero_shot import CONTEXT, LEVELS, ZeroShotModel
from tsllm.backbone import DEFAULT_BACKBONE, Backbone, tuned
from tsllm.context import Context, ContextBatch
from tsllm.datasets.frequency import season_length
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.pretrained import ZERO_SHOT

#: The season beside that of the frequency: a week of parts of a day, a year of days.
WEEK_OF = {24: 168, 48: 336, 96: 672}
YEAR_OF_DAYS = {7: 365}


class ZeroShotForecaster(DirectForecaster):
    """Forecast any series without training, with weights that come with the package.

    Two frozen layers of the embedded language model, LoRA adapters and two projections were trained
    on synthetic series only, so no benchmark has been seen. A forecast reads at most 1,024 steps
    and the season of the series' frequency; it gives eleven quantiles of 64 steps at once, and
    longer horizons are rolled out on the median. `fit` trains nothing: it calibrates the intervals
    on the second half of each series, and learns the effects of covariates.

    The arguments that matter most: ``prediction_length`` (the horizon, if `fit` gets no ``fh``),
    ``past_covariates``, ``text_covariates``, ``batch_size`` and ``device``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import ZeroShotForecaster
    >>> forecaster = ZeroShotForecaster().fit(load_airline(), fh=[1, 2, 3])
    >>> forecaster.predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']

    Parameters
    ----------
    backbone : str, default="sentence-transformers/all-MiniLM-L6-v2"
        The language model that the weights were trained around: its Hugging Face id, or a directory
        with the same weights. Another one is refused.
    prediction_length : int or None, default=None
        Steps that the intervals are calibrated for. None: the ``fh`` of `fit`, else a season.
    shrinkage : bool or "auto", default=False
        Combine the forecasts with the last value and seasonal naive forecasts, with weights that
        the second half of each series supports.
    batch_size : int, default=64
        Series that are read at once; each variable is one.
    random_state : int, RandomState or None, default=None
        Without effect: nothing is random. All forecasters have this argument.

    Attributes
    ----------
    fitted_ : FittedState
        The model, its sizes and its calibration.

    See Also
    --------
    AutoForecaster : Combine these forecasts with others, by their errors on your series.
    AutoTimesForecaster : Train a model around the language model on your series.
    tsllm.adapters.zero_shot.ZeroShotModel : The network.

    References
    ----------
    Liu et al., "AutoTimes: Autoregressive Time Series Forecasters via Large Language Models",
    NeurIPS 2024, arXiv 2402.02370: series segments as tokens of a frozen language model.
    Ansari et al., "Chronos-2: From Univariate to Universal Forecasting", arXiv 2510.15821:
    zero-shot forecasts learnt from synthetic series.
    """

    # What is packaged decides these; a forecaster's arguments cannot.
    context_length = CONTEXT
    loss = "quantile"
    quantiles = LEVELS
    # No step was trained on, so intervals may be calibrated on half of them.
    validation_fraction = 0.5

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        prediction_length: int | None = None,
        shrinkage: bool | str = False,
        adaptive: bool = False,
        batch_size: int = 64,
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
        return [{}, {"prediction_length": 2, "adaptive": True, "device": "cpu"}]

    # ------------------------------------------------------------------ the method's hooks

    def _load_backbone(self) -> Backbone:
        return ZERO_SHOT.load_backbone(self.backbone, self.device)

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        model = ZeroShotModel(tuned(backbone, lora=ZERO_SHOT.lora))
        model.load_state_dict(ZERO_SHOT.read())
        return model.requires_grad_(False)

    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        assert isinstance(state.model, ZeroShotModel)  # _build_model made it
        variables, device = state.shape.n_variables, batch.values.device
        # In units of the scale, and not around the mean: the model knows where zero is.
        level = torch.as_tensor(batch.location / batch.scale, device=device)  # (batch, variables)
        x = (batch.values.double() + level[:, None]).transpose(1, 2).flatten(0, 1)
        observed = batch.mask.transpose(1, 2).flatten(0, 1)  # (batch * variables, context)
        seasons = torch.tensor([seasons_of(state.shape.freq)] * len(x), device=device)
        out = state.model.forecast(x, observed, seasons, horizon)  # (batch * variables, horizon, q)
        out = out.unflatten(0, (-1, variables)) - level[..., None, None]
        return out.transpose(1, 2).float()  # (batch, horizon, variables, 1 + levels)


def seasons_of(freq: str | None) -> tuple[int, int]:
    """Return the steps of the short and of the long season of a frequency; 0 for none.

    Examples
    --------
    >>> [seasons_of(freq) for freq in ("h", "15min", "D", "MS", "YE", None)]
    [(24, 168), (96, 672), (7, 365), (12, 0), (0, 0), (0, 0)]
    """
    short = season_length(freq)
    return short if short > 1 else 0, (WEEK_OF | YEAR_OF_DAYS).get(short, 0)
