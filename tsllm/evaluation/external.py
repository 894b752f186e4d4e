"""Baselines of other packages, which the extra ``tsllm[baselines]`` installs: FLAIR and Fracast.

FLAIR is a statistical method without training. Fracast is a small model that was pretrained on
public series and forecasts without training; its weights are in its wheel. Neither reads anything
from the network.
"""

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch

from tsllm.datasets.counts import count_step
from tsllm.evaluation.holdout import Holdout
from tsllm.evaluation.statistical import LocalBaseline, SeasonalNaive
from tsllm.forecasters.statistical import observed_part, quietly

#: The package of each baseline, by name.
PACKAGES = {"flair": "flaircast", "fracast": "fracast", "lightgbm": "lightgbm"}

#: The fewest observed steps that Fracast reads, and the most series in one of its batches.
_FEWEST, _BATCH = 8, 64


def import_baseline(name: str) -> Any:
    """Import the package of a baseline.

    Raises
    ------
    ImportError
        The package is not installed; the sentence says what to install.
    """
    package = PACKAGES[name]
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"the baseline {name!r} needs {package}: pip install 'tsllm[baselines]'"
        ) from error


class FlairMethod(LocalBaseline):
    """FLAIR: one ridge regression on the totals of periods, times the shape of a period.

    The point is the mean of 200 sample paths, and the quantiles are theirs. FLAIR chooses its
    period among those of the frequency; without one, the season of the backtest is the period.
    It reads the whole past, of which it uses at most 500 periods. Another length may suit it
    better, and validation does not always tell: see decision 36.

    References
    ----------
    T. Honda, "Don't Learn the Shape: Forecasting Periodic Time Series by Rank-1 Decomposition",
    2026, arXiv 2605.07222.
    """

    takes_seed = True

    def __init__(self, holdout: Holdout) -> None:
        super().__init__("flair", holdout, None)
        self._package = import_baseline("flair")
        self._freq = self._name_of_period(holdout)

    def _name_of_period(self, holdout: Holdout) -> str:
        """Return the frequency in FLAIR's notation; ``"Y"`` has no period."""
        if holdout.freq is not None and count_step(holdout.freq) is None:
            return holdout.freq
        periods: dict[str, int] = self._package.FREQ_TO_PERIOD
        return next((name for name, steps in periods.items() if steps == holdout.season), "Y")

    def _fit_and_forecast(
        self, series: int, variable: int, values: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray | None:
        """Draw sample paths of one variable, and return their mean and quantiles."""
        values, missing = observed_part(values)
        if np.ptp(values) == 0:
            return np.full((horizon, 1 + len(levels)), values[0])
        paths = quietly(
            lambda: self._package.forecast(values, missing + horizon, self._freq, seed=self._seed)
        )
        if paths is None:
            return None
        paths = paths[:, missing:]  # (samples, horizon)
        out = np.stack([paths.mean(axis=0), *np.quantile(paths, list(levels), axis=0)], axis=1)
        return out if np.isfinite(out).all() else None


class FracastMethod:
    """Fracast-0: a pretrained convolutional model of 85,001 parameters, without any training.

    It reads up to 2,048 steps of one variable and returns the deciles of 48 steps. Longer horizons
    continue its medians. The point is the median. Quantiles between the deciles are interpolated;
    where a level lies beyond them, only points are returned. The seasonal naive forecast replaces
    it where fewer than 8 steps are observed. Its authors name the pretraining series of GIFT-Eval,
    LOTSA, and the data sets of Chronos, BOOM and fev as its training data; ETT, M4 and US influenza
    counts are among these.

    Fracast needs no fit, but a forecast takes as long as one, so its windows are few.
    """

    refits_per_window = True
    windows_at_once = 16
    takes_seed = False

    def __init__(self, holdout: Holdout) -> None:
        package = import_baseline("fracast")
        with torch.random.fork_rng(devices=[]):  # the weights are drawn before they are read
            self._model = package.FracastModel.from_pretrained()
        self._holdout = holdout
        self._fallback = SeasonalNaive(holdout)
        self._unread = 0
        self._beyond: set[float] = set()

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit the fallback; the model stays as it is."""
        self._fallback.fit(ends, seed)
        self._unread = 0

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast all variables of all windows as one batch."""
        known = self._model.quantiles
        self._beyond |= {level for level in levels if not known[0] <= level <= known[-1]}
        levels = [] if self._beyond else levels
        out = self._fallback.forecast(series, origins, horizon, levels)
        rows = self._rows(series, origins)  # (windows * variables, steps)
        read = np.isfinite(rows).sum(axis=1) >= _FEWEST
        self._unread += int((~read).sum())
        windows, _, variables, _ = out.shape
        flat = out.transpose(0, 2, 1, 3).reshape(windows * variables, horizon, -1)
        for chosen in np.array_split(np.flatnonzero(read), max(1, math.ceil(read.sum() / _BATCH))):
            if len(chosen):
                flat[chosen] = _at_levels(
                    self._deciles(rows[chosen], horizon), known, [0.5, *levels]
                )
        return flat.reshape(windows, variables, horizon, -1).transpose(0, 2, 1, 3)

    def describe(self) -> dict[str, Any]:
        """Return the longest context, what the model was pretrained on, and notes."""
        notes = [
            "fracast was pretrained on public series, ETT, M4 and US influenza counts among them: "
            "it may have seen these series, their test part too"
        ]
        if self._beyond:
            shown = ", ".join(f"{level:g}" for level in sorted(self._beyond))
            notes.append(f"fracast has no quantiles beyond its deciles, such as {shown}")
        if self._unread:
            notes.append(
                f"fracast: {self._unread} pasts have fewer than {_FEWEST} observed steps; the "
                "seasonal naive forecast replaces it"
            )
        return {
            "context_length": self._model.context_length,
            "backbone": None,
            "pretrained_on": "public series",
            "notes": notes,
        }

    def _deciles(self, rows: np.ndarray, horizon: int) -> np.ndarray:
        """Forecast rows (rows, steps): (rows, horizon, deciles)."""
        # The model scales rows in float32, which is too coarse for small changes of large values.
        least = np.nanmin(rows, axis=1, keepdims=True)
        width = np.nanmax(rows, axis=1, keepdims=True) - least
        width = np.where(width > 0, width, 1.0)
        scaled = self._model.forecast((rows - least) / width, horizon=horizon).astype(float)
        deciles: np.ndarray = np.sort(scaled, axis=-1) * width[..., None] + least[..., None]
        return deciles

    def _rows(self, series: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Return the past of each variable of each window, NaN before its start."""
        steps = self._model.context_length
        rows = []
        for i, origin in zip(series, origins):
            past = self._holdout.contexts[i].values[max(0, origin - steps) : origin]
            padding = np.full((steps - len(past), past.shape[1]), np.nan)
            rows.append(np.concatenate([padding, past]).T)  # (variables, steps)
        return np.concatenate(rows)


def _at_levels(
    quantiles: np.ndarray, known: Sequence[float], levels: Sequence[float]
) -> np.ndarray:
    """Interpolate ascending quantiles (..., known) at other levels between the known ones."""
    position = np.interp(levels, known, np.arange(len(known)))
    below = np.minimum(position.astype(int), len(known) - 2)
    share = position - below
    out: np.ndarray = quantiles[..., below] * (1 - share) + quantiles[..., below + 1] * share
    return out
