"""Shrinkage: forecasts of a model, drawn towards simple forecasts as far as held-out windows say.

On short series a trained model may forecast worse than the last value or the last season. So its
forecast is combined with three simple ones: the last value, the seasonal naive, and the seasonal
naive with the mean change of a season. The weights are learnt on windows that training did not see,
for the whole panel. With few windows the model keeps most of the weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsllm.context import Context, typical_length
from tsllm.datasets.frequency import season_length
from tsllm.errors import NotEnoughDataError
from tsllm.forecasters.combining import Combination, learn_combination
from tsllm.forecasters.forecasting import Prediction, Reader
from tsllm.forecasters.held_out import HeldOut, independent_windows
from tsllm.forecasters.state import SHRUNK, ModelShape
from tsllm.forecasters.statistical import seasonal_naive

#: The weights of `SHRUNK` where no window tells more: the model's own forecast.
MODEL_ALONE = np.eye(len(SHRUNK))[0]
#: A typical series with fewer steps is short: the rules for long series do not suit it.
SHORT_SERIES = 300
#: Seasons of history that the simple forecasts read, and the most steps that this may take.
SEASONS = 3
MOST_HISTORY = 500


def are_short(contexts: Sequence[Context]) -> bool:
    """Return whether a typical series has fewer than `SHORT_SERIES` steps."""
    return typical_length(contexts) < SHORT_SERIES


def history_of(shape: ModelShape) -> int:
    """Return the steps of history that the simple forecasts read: the context or some seasons."""
    return max(shape.context_length, min(SEASONS * season_length(shape.freq), MOST_HISTORY))


def simple_forecasts(contexts: Sequence[Context], horizon: int, season: int) -> np.ndarray:
    """Forecast contexts simply: (contexts, horizon, variables, 3), in the order of `SHRUNK`.

    NaN for a variable without any observed value. A context without a whole season has the last
    value in place of the last season, and the mean change of a step as its drift.

    Examples
    --------
    >>> from tsllm import Context
    >>> context = Context(np.array([1.0, 5.0, 3.0, 7.0]))
    >>> simple_forecasts([context], 3, 2)[0, :, 0].T.tolist()
    [[7.0, 7.0, 7.0], [3.0, 7.0, 3.0], [5.0, 9.0, 7.0]]
    """
    out = np.empty((len(contexts), horizon, contexts[0].n_variables, 3))
    for row, context in zip(out, contexts):
        values = context.values
        lag = season if len(values) >= season else 1
        row[..., 0] = seasonal_naive(values, horizon, 1)
        row[..., 1] = seasonal_naive(values, horizon, lag)
        row[..., 2] = row[..., 1] + np.outer(1 + np.arange(horizon) // lag, _drift(values, lag))
    return out


@dataclass(frozen=True)
class ShrinkingReader(Reader):
    """Reads contexts with another reader and shrinks its forecasts."""

    reader: Reader
    combination: Combination
    #: Steps of history that the simple forecasts read, and of a season.
    history: int
    season: int

    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Predict, and shrink the points; quantiles move with them."""
        values, scales = self.reader.predict(contexts, horizon)
        variables = values.shape[2]
        weights = self.combination.weights(None, horizon, variables)  # (horizon, variables, 4)
        pasts = [context.tail(self.history) for context in contexts]
        simple = simple_forecasts(pasts, horizon, self.season)
        # As a change of the point: forecasts of a constant stay exact.
        change = (weights[..., 1:] * (simple - values[..., :1])).sum(axis=-1)
        change = np.nan_to_num(change)  # a variable that is not observed is left alone
        return values + change[..., None], scales


def learn_shrinkage(
    reader: Reader,
    contexts: Sequence[Context],
    origins_of: Sequence[np.ndarray],
    shape: ModelShape,
) -> Combination | None:
    """Learn the weights of a model and of the simple forecasts from windows of some series.

    Parameters
    ----------
    reader : Reader
        Forecasts with the model alone.
    contexts : sequence of Context
        The whole series.
    origins_of : sequence of int array
        The positions of each series that a held-out window begins at.
    shape : ModelShape
        The sizes of the model.

    Returns
    -------
    Combination or None
        None where the model is best alone.
    """
    season, history = season_length(shape.freq), history_of(shape)
    sizes = {"horizon": shape.horizon, "season": season, "history": shape.context_length}
    try:
        held_out = HeldOut.of(contexts, origins_of, **sizes)
    except NotEnoughDataError:
        return None
    model, _ = reader.predict(held_out.pasts, shape.horizon)
    pasts = [past.tail(history) for past in held_out.pasts]
    simple = simple_forecasts(pasts, shape.horizon, season)
    windows = held_out.with_forecasts(np.concatenate([model[..., :1], simple], axis=-1))
    independent = independent_windows(origins_of, shape.horizon) / sum(map(len, origins_of))
    found = learn_combination(
        windows, [None], prior=MODEL_ALONE, by_series=False, independent=independent
    )
    return None if (found.pooled == MODEL_ALONE).all() else found


def _drift(values: np.ndarray, lag: int) -> np.ndarray:
    """Return the mean change over a lag of steps, 0 where none is observed: (variables,)."""
    if len(values) <= lag:
        return np.zeros(values.shape[1])
    change = values[lag:] - values[:-lag]
    seen = ~np.isnan(change)
    drift: np.ndarray = np.where(seen, change, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return drift
