"""Split-conformal calibration: forecast from held-out origins and keep the scaled errors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from tsllm.context import Context
from tsllm.intervals import MAX_WINDOWS, MIN_WINDOWS, Calibration, make_calibration

#: Windows forecast for the calibration of a whole panel.
MAX_CALIBRATION_WINDOWS = 4096

#: Contexts and a horizon to forecasts (series, horizon, variables, 1 + levels) and the contexts'
#: scales (series, variables).
Run = Callable[[Sequence[Context], int], tuple[np.ndarray, np.ndarray]]


def calibrate(
    run: Run,
    contexts: Sequence[Context],
    *,
    context_length: int,
    horizon: int,
    validation_fraction: float,
    held_out: Sequence[bool],
    season: int = 1,
    levels: tuple[float, ...] = (),
    adaptive: bool = False,
) -> Calibration:
    """Calibrate intervals on the part of each series that training did not see.

    Every origin of the held-out part is a window, evenly thinned to 256 a series and 4,096 a panel;
    near the end of the series a window scores only the steps that were observed. Where a panel is
    so large that its series get too few windows for scores of their own, those are taken that lie
    whole seasons before the end, as far as there are such: the steps that are forecast next are
    then calibrated at their own hours. Where no series has a held-out part, the second half of the
    training data serves and the calibration says so.

    Parameters
    ----------
    run : callable
        The trained model, as `BaseLLMForecaster._run` gives it.
    contexts : sequence of Context
        The series, whole.
    context_length : int
        Steps that a forecast reads: a window needs one observation of every variable among them.
    horizon : int
        Steps to calibrate.
    validation_fraction : float
        Share of each series, at its end, that training held out.
    held_out : sequence of bool
        Whether that is so for each series: the short ones were used whole.
    season : int
        Steps of a season.
    levels : tuple of float
        Quantile levels of the head.
    adaptive : bool
        Whether the calibration is to follow the data.

    Returns
    -------
    Calibration
    """
    in_sample = not any(held_out)
    errors: dict[Hashable, np.ndarray] = {}
    pasts: list[Context] = []
    futures: list[np.ndarray] = []
    counts: dict[Hashable, int] = {}
    spacings: dict[Hashable, float] = {}
    for context, origins in zip(
        contexts, calibration_origins(contexts, validation_fraction, held_out, season)
    ):
        counts[context.series_id] = 0
        gaps = np.diff(origins) if len(origins) > 1 else horizon  # a lone window overlaps none
        spacings[context.series_id] = float(np.mean(gaps))
        for origin in origins.tolist():
            past = context.until(origin)
            if past.tail(context_length).mask.any(axis=0).all():
                pasts.append(past)
                futures.append(_padded(context.values[origin : origin + horizon], horizon))
                counts[context.series_id] += 1
    if not pasts:
        # Nothing but unobserved pasts: the one origin that is left is the start of the series.
        return _without_scores(contexts[0].n_variables, horizon, levels, adaptive)
    forecasts, scales = run(pasts, horizon)  # (windows, horizon, variables, 1 + levels)
    # A constant context has no scale, and an interval of no width: it teaches nothing.
    divisor = np.where(scales > 0, scales, np.nan)[:, None, :, None]
    scores = (np.stack(futures)[..., None] - forecasts) / divisor
    first = 0
    for series_id, count in counts.items():
        errors[series_id] = scores[first : first + count]
        first += count
    return make_calibration(
        errors, levels, spacings=spacings, adaptive=adaptive, in_sample=in_sample
    )


def calibration_origins(
    contexts: Sequence[Context],
    validation_fraction: float,
    held_out: Sequence[bool],
    season: int = 1,
) -> list[np.ndarray]:
    """List the origins of each series' calibration windows; none for a series that is not used.

    Parameters
    ----------
    contexts, validation_fraction, held_out, season
        As `calibrate` takes them.

    Returns
    -------
    list of array (windows,), int
        Rising positions of each window's first target step.
    """
    in_sample = not any(held_out)
    used = [in_sample or out for out in held_out]
    most = int(np.clip(MAX_CALIBRATION_WINDOWS // sum(used), 4, MAX_WINDOWS))
    origins = []
    for context, use in zip(contexts, used):
        steps = len(context)
        border = steps - round(validation_fraction * steps)
        first = max(1, steps // 2) if in_sample else max(1, border)
        count = min(most, steps - first) if use else 0
        seasons = (steps - first) // season
        if most < MIN_WINDOWS and count and season > 1 and seasons > 1:
            origins.append(steps - season * np.arange(min(most, seasons), 0, -1))
        else:
            origins.append(np.unique(np.linspace(first, steps - 1, count).round().astype(int)))
    return origins


def _padded(future: np.ndarray, horizon: int) -> np.ndarray:
    """Fill the steps after the series' end with NaN: (horizon, variables)."""
    missing = np.full((horizon - len(future), future.shape[1]), np.nan)
    return np.concatenate([future, missing])


def _without_scores(
    n_variables: int, horizon: int, levels: tuple[float, ...], adaptive: bool
) -> Calibration:
    """Make a calibration that widens nothing, for series that leave no window to score."""
    empty = np.full((1, horizon, n_variables, 1 + len(levels)), np.nan)
    return make_calibration({None: empty}, levels, adaptive=adaptive, in_sample=True)
