"""The baseline LightGBM: gradient-boosted trees on lags, one model for all series."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tsllm.errors import NotEnoughDataError
from tsllm.evaluation.external import import_baseline
from tsllm.evaluation.holdout import Holdout
from tsllm.forecasters.statistical import carried_forward, usable_season

#: The lags: a season of recent steps, within these limits, and so many seasons.
RECENT_STEPS, SEASONS = (24, 64), 7
#: The most rows of training, evenly spaced over all series, which limits memory.
MAX_ROWS = 300_000
_ROUNDS = 100


class LightGBMMethod:
    """LightGBM on lags: it is fitted once on all series and variables, it forecasts step by step.

    The trees forecast the change from the value a season earlier; where a series does not hold two
    seasons, the change from the last value. Their features are the values at the lags, less the
    same earlier value. All are in units of the variable's mean absolute change from step to step,
    so that one model serves series of all sizes. The trees have LightGBM's own defaults: 100 of
    them with 31 leaves. Longer horizons continue the forecasts. There are no quantiles.

    References
    ----------
    G. Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.
    """

    refits_per_window = False
    windows_at_once = 1
    takes_seed = False

    def __init__(self, holdout: Holdout) -> None:
        self._package = import_baseline("lightgbm")
        self._season = holdout.season
        # Gaps are filled with the value a season earlier, else with the last value.
        self._known = [carried_forward(c.values, holdout.season) for c in holdout.contexts]
        self._observed = [np.isfinite(c.values) for c in holdout.contexts]
        recent = range(1, int(np.clip(holdout.season, *RECENT_STEPS)) + 1)
        seasons = (k * holdout.season for k in range(1, SEASONS + 1))
        self._lags = np.array(sorted({*recent, *seasons}))
        self._anchors = np.empty(0, dtype=int)  # (series,): the lag of the value that is changed
        self._scales: list[np.ndarray] = []  # (variables,) for each series
        self._trees: Any = None

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit the trees on the steps of each series before ``ends``."""
        seasons = [
            usable_season(known[:end], self._season) for known, end in zip(self._known, ends)
        ]
        self._anchors = np.array(seasons)
        self._scales = [_usual_change(known[:end]) for known, end in zip(self._known, ends)]
        count = sum(int(end) for end in ends) * self._known[0].shape[1]
        stride = max(1, math.ceil(count / MAX_ROWS))
        features, targets = [], []
        for i, (known, end) in enumerate(zip(self._known, ends)):
            steps = np.arange(self._anchors[i], end, stride)
            for variable, scale in enumerate(self._scales[i]):
                values = known[:, variable]
                usual = values[steps - self._anchors[i]]
                change = (values[steps] - usual) / scale
                kept = np.isfinite(change) & self._observed[i][steps, variable]
                places = steps[kept, None] - self._lags  # (rows, lags)
                lagged = np.where(places < 0, np.nan, values[np.maximum(places, 0)])
                features.append((lagged - usual[kept, None]) / scale)
                targets.append(change[kept])
        labels = np.concatenate(targets)
        if len(labels) == 0:
            raise NotEnoughDataError(
                "lightgbm has no step to train on: hold out less, or leave the method out"
            )
        settings = {"objective": "regression", "verbosity": -1, "deterministic": True}
        settings |= {"force_row_wise": True, "num_threads": torch.get_num_threads(), "seed": 0}
        data = self._package.Dataset(np.concatenate(features), labels)
        self._trees = self._package.train(settings, data, num_boost_round=_ROUNDS)

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast step by step, all windows at once; only points."""
        most = int(max(self._lags[-1], self._anchors.max()))
        variables = self._known[0].shape[1]
        values = np.full((len(series), most + horizon, variables), np.nan)
        for row, (i, origin) in enumerate(zip(series, origins)):
            past = self._known[i][max(0, origin - most) : origin]
            values[row, most - len(past) : most] = past
        scales = np.stack([self._scales[i] for i in series])[..., None]  # (windows, variables, 1)
        windows, anchors = np.arange(len(series)), self._anchors[series]
        for step in range(most, most + horizon):
            usual = values[windows, step - anchors][..., None]  # (windows, variables, 1)
            lagged = np.moveaxis(values[:, step - self._lags], 1, 2)  # (windows, variables, lags)
            rows = ((lagged - usual) / scales).reshape(-1, len(self._lags))
            change = self._trees.predict(rows, num_threads=torch.get_num_threads())
            values[:, step] = (usual + change.reshape(usual.shape) * scales)[..., 0]
        return values[:, most:, :, None]

    def describe(self) -> dict[str, Any]:
        """Return the longest lag as context length."""
        return {"context_length": int(self._lags[-1]), "backbone": None}


def _usual_change(values: np.ndarray) -> np.ndarray:
    """Return the mean absolute change from step to step, 1 where there is none: (variables,)."""
    changes = np.abs(np.diff(values, axis=0))
    count = np.isfinite(changes).sum(axis=0)
    mean = np.nansum(changes, axis=0) / np.maximum(count, 1)
    return np.where(mean > 0, mean, 1.0)
