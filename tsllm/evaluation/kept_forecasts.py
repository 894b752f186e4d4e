"""The forecasts that a backtest keeps, beside their errors, and the values that they met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tsllm.evaluation.holdout import Holdout, WindowSet

#: A method's forecasts are kept whole up to this number of values (32 MB); of more windows, some
#: evenly spaced ones of each series are kept.
MOST_VALUES = 4_000_000


def choose_kept(
    windows: WindowSet, picked: np.ndarray, *, width: int, max_windows: int | None
) -> np.ndarray:
    """Choose the windows of a method whose forecasts are kept.

    Parameters
    ----------
    windows : WindowSet
        Of the test parts.
    picked : int array (picked,)
        The windows that the method forecasts.
    width : int
        Values that a step of a forecast has: variables times points and quantiles.
    max_windows : int or None
        Windows of each series that slow methods forecast. These are the ones to keep where there
        are too many for all, so that the same windows are kept of every method.

    Returns
    -------
    int array (kept,)
        Some of ``picked``, in order; at least one of each series.
    """
    if windows.reach[picked].sum() * width <= MOST_VALUES:
        return picked
    series = len(np.unique(windows.series[picked]))
    fitting = int(MOST_VALUES // (windows.reach.max() * width * series))
    most = max(1, fitting if max_windows is None else min(fitting, max_windows))
    return np.intersect1d(picked, windows.thin(most))


@dataclass
class KeptForecasts:
    """The forecasts of one method, of its first seed."""

    #: (kept,): The windows, in order.
    windows: np.ndarray
    #: By window: (steps, variables, 1 + levels).
    values: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, batch: np.ndarray, forecast: np.ndarray) -> None:
        """Keep those forecasts of a batch (windows, steps, variables, 1 + levels) that are to be.

        A method without quantiles has fewer columns than the levels that are scored.
        """
        for row in np.flatnonzero(np.isin(batch, self.windows)):
            self.values[int(batch[row])] = forecast[row].copy()


@dataclass(frozen=True)
class Observed:
    """The end of one series of a backtest: some history and the test part."""

    series_id: object
    #: (steps,) and (steps, variables).
    times: pd.Index
    values: np.ndarray
    #: The position of the first of these steps in the whole series.
    first: int
    #: The number of these steps before the test part.
    border: int


def observe(holdout: Holdout, longest: int) -> list[Observed]:
    """Return the end of each series, with some three horizons of history."""
    out = []
    for context, border, end in zip(holdout.contexts, holdout.borders, holdout.ends):
        assert context.times is not None  # pandas input always has stamps
        first = max(0, int(border) - max(60, 3 * longest))
        name = "series" if context.series_id is None else context.series_id
        # A copy, so that a report does not hold the whole series.
        values = context.values[first:end].copy()
        out.append(Observed(name, context.times[first:end], values, first, int(border) - first))
    return out


def forecasts_to_frame(
    kept: Mapping[str, KeptForecasts],
    windows: WindowSet,
    observed: Sequence[Observed],
    variables: Sequence[str],
    columns: Sequence[str],
) -> pd.DataFrame:
    """Write the kept forecasts of all methods as a long frame.

    ``columns`` are the names of the quantiles. A method that has none gets NaN there.
    """
    wide = 1 + len(columns)
    named: list[dict[str, object]] = []
    when: list[pd.Index] = []
    cutoffs: list[pd.Index] = []
    rows: list[np.ndarray] = []  # each (steps, variables, 2 + levels)
    for method, own in kept.items():
        for number in own.windows:
            forecast = own.values[int(number)]
            series = observed[windows.series[number]]
            start = int(windows.origin[number]) - series.first
            steps = len(forecast)
            block = np.full((steps, len(variables), wide + 1), np.nan)
            block[..., : forecast.shape[-1]] = forecast
            block[..., -1] = series.values[start : start + steps]
            named.append({"method": method, "series_id": series.series_id, "steps": steps})
            when.append(series.times[start : start + steps])
            cutoffs.append(series.times[start - 1 : start])
            rows.append(block)
    lengths = np.array([one["steps"] for one in named])
    # Each window has its steps for the first variable, then for the next.
    repeats = lengths * len(variables)
    table: dict[str, object] = {
        name: _repeated([one[name] for one in named], repeats) for name in ("method", "series_id")
    }
    if len(variables) > 1:
        table["variable"] = np.concatenate([np.repeat(list(variables), n) for n in lengths])
    table["cutoff"] = _joined(cutoffs).repeat(repeats)
    table["step"] = np.concatenate([np.tile(np.arange(1, n + 1), len(variables)) for n in lengths])
    table["timestamp"] = _joined([one for one in when for _ in variables])
    values = np.concatenate([one.transpose(1, 0, 2).reshape(-1, wide + 1) for one in rows])
    for i, name in enumerate(("forecast", *columns, "actual")):
        table[name] = values[:, i]
    return pd.DataFrame(table)


def _repeated(values: list[object], repeats: np.ndarray) -> np.ndarray:
    """Repeat names, which may be tuples, without making rows of them."""
    names = np.empty(len(values), dtype=object)
    names[:] = values
    return np.repeat(names, repeats)


def _joined(indexes: Sequence[pd.Index]) -> pd.Index:
    return indexes[0].append(list(indexes[1:])) if len(indexes) > 1 else indexes[0]
