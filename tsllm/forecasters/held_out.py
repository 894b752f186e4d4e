"""Windows of the past of series: forecasts of them are scored, and calibrate the intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.errors import NotEnoughDataError
from tsllm.forecasters.combining import HeldOutForecasts
from tsllm.intervals.calibration import Calibration, make_calibration
from tsllm.metrics import seasonal_scale

#: ``n_origins="auto"``: windows of a series, and of the whole panel; most series that are scored.
MAX_ORIGINS = 24
PANEL_WINDOWS = 150
MAX_SCORED_SERIES = 600
#: The held-out end of a series has at least this share of it, and at most half.
HELD_OUT = 0.1


def choose_origins(
    contexts: Sequence[Context], horizon: int, n_origins: int | str
) -> list[np.ndarray]:
    """Choose the positions of each series that held-out windows begin at; none for some series.

    Steps are counted from the first that has a value of every variable before it or at it, to the
    last observed one, with which the last window ends. The windows lie in the last tenth of a
    series, or in as much more as the horizon and the origins need, but not in its first half. Where
    that leaves no room for a whole horizon, windows are cut at the end of the series. Of a large
    panel, `MAX_SCORED_SERIES` evenly spaced series are scored.

    Examples
    --------
    >>> import numpy as np
    >>> [origins.tolist() for origins in choose_origins([Context(np.arange(40.0))], 12, 5)]
    [[24, 25, 26, 27, 28]]
    """
    if isinstance(n_origins, int):
        most = n_origins
    else:
        most = origins_of_each(contexts)
    scored = np.linspace(0, len(contexts) - 1, min(len(contexts), MAX_SCORED_SERIES))
    chosen = set(scored.round().astype(int).tolist())
    origins = []
    for number, context in enumerate(contexts):
        start, end = _observed_span(context)
        steps = end - start
        earliest = start + max(1, steps - steps // 2)
        last = end - horizon
        if number not in chosen:
            origins.append(np.empty(0, dtype=int))
        elif last >= earliest:
            reach = max(round(HELD_OUT * steps), most - 1)
            origins.append(_spread(max(earliest, last - reach), last, most))
        else:
            origins.append(_spread(earliest, end - 1, most))
    return origins


def origins_of_each(contexts: Sequence[Context]) -> int:
    """Return the number of windows of each series: a small panel needs more than a large one."""
    variables = sum(context.n_variables for context in contexts)
    return int(np.clip(PANEL_WINDOWS // max(1, variables), 1, MAX_ORIGINS))


def spread_origins(
    contexts: Sequence[Context], horizon: int, most: int, *, first: float
) -> list[np.ndarray]:
    """Choose the positions that windows spread over the history begin at; none for some series.

    They lie between the share ``first`` of the observed steps of a series and its end, and number
    at most ``most`` in all. Of a large panel, ``most`` evenly spaced series have one each. Where
    that leaves no room for a whole horizon, windows are cut at the end of the series.

    Examples
    --------
    >>> import numpy as np
    >>> contexts = [Context(np.arange(40.0))]
    >>> [origins.tolist() for origins in spread_origins(contexts, 4, 5, first=0.5)]
    [[20, 24, 28, 32, 36]]
    """
    scored = np.linspace(0, len(contexts) - 1, min(len(contexts), most)).round().astype(int)
    each = max(1, most // len(scored))
    origins = [np.empty(0, dtype=int)] * len(contexts)
    for number in scored.tolist():
        start, end = _observed_span(contexts[number])
        earliest = start + max(1, round(first * (end - start)))
        last = end - horizon if end - horizon >= earliest else end - 1
        origins[number] = _spread(earliest, last, each)
    return origins


def held_out_origins(
    contexts: Sequence[Context], held_out: Sequence[int], horizon: int
) -> list[np.ndarray]:
    """Choose the positions of windows in the last ``held_out`` steps of each series.

    As many as `choose_origins` takes. Windows have a whole horizon if there are enough such ones;
    else some are cut at the end of the series.
    """
    most = origins_of_each([context for context, held in zip(contexts, held_out) if held])
    used = np.flatnonzero(held_out)
    scored = np.linspace(0, len(used) - 1, min(len(used), MAX_SCORED_SERIES)).round().astype(int)
    origins = [np.empty(0, dtype=int)] * len(contexts)
    for number in used[scored].tolist():
        steps = len(contexts[number])
        first = max(1, steps - held_out[number])
        whole = steps - horizon - first + 1
        origins[number] = _spread(first, steps - horizon if whole >= most else steps - 1, most)
    return origins


def independent_windows(origins_of: Sequence[np.ndarray], horizon: int) -> float:
    """Count windows as if those of a series did not overlap.

    Examples
    --------
    >>> independent_windows([np.array([80, 84, 88]), np.array([90])], 8)
    3.0
    """
    spans = [
        (len(origins), 1 + np.ptp(origins) / horizon) for origins in origins_of if len(origins)
    ]
    return float(sum(min(count, span) for count, span in spans))


def values_after(context: Context, origin: int, horizon: int) -> np.ndarray:
    """Return the values from a position on, NaN after the series' end: (horizon, variables)."""
    values = np.full((horizon, context.n_variables), np.nan)
    future = context.values[origin : origin + horizon]
    values[: len(future)] = future
    return values


def usual_change(values: np.ndarray, season: int) -> np.ndarray:
    """Return the mean absolute change over a season, else over a step, else 0: (variables,)."""
    scale = np.zeros(values.shape[1])
    for lag in (1, season):
        if len(values) > lag:
            found = seasonal_scale(values, lag)
            scale = np.where(np.isfinite(found) & (found > 0), found, scale)
    return scale


@dataclass(frozen=True)
class HeldOut:
    """The held-out windows of some series, in the order of the series."""

    #: The history before each window.
    pasts: list[Context]
    #: (windows,): The number of the series, and the position of the first step of the window.
    series: np.ndarray
    origins: np.ndarray
    #: (windows, horizon, variables), NaN where not observed.
    actual: np.ndarray
    #: (windows, variables): The usual change of the history.
    scale: np.ndarray
    #: Steps of a season.
    season: int

    @classmethod
    def of(
        cls,
        contexts: Sequence[Context],
        origins_of: Sequence[np.ndarray],
        *,
        horizon: int,
        season: int,
        history: int,
    ) -> "HeldOut":
        """Cut the windows whose last ``history`` steps have an observed value of each variable."""
        pasts, series, origins, actual = [], [], [], []
        for number, (context, positions) in enumerate(zip(contexts, origins_of)):
            for origin in positions.tolist():
                past = context.until(origin)
                if not past.tail(history).mask.any(axis=0).all():
                    continue
                pasts.append(past)
                series.append(number)
                origins.append(origin)
                actual.append(values_after(context, origin, horizon))
        if not pasts:
            single = series_name(contexts[0].series_id) if len(contexts) == 1 else "each series"
            raise NotEnoughDataError(
                f"no candidate can be scored, for {single} has too few observed values: it needs a "
                "step after the first value of every variable; pass more values, or drop a "
                "variable without any"
            )
        scale = np.stack([usual_change(past.values, season) for past in pasts])
        return cls(pasts, np.array(series), np.array(origins), np.stack(actual), scale, season)

    def some(self, chosen: np.ndarray) -> "HeldOut":
        """Return some of the windows, by a mask (windows,)."""
        rows = np.flatnonzero(chosen)
        pasts = [self.pasts[row] for row in rows.tolist()]
        series, origins = self.series[rows], self.origins[rows]
        return HeldOut(pasts, series, origins, self.actual[rows], self.scale[rows], self.season)

    def with_forecasts(self, forecasts: np.ndarray) -> HeldOutForecasts:
        """Add the candidates' forecasts (windows, horizon, variables, candidates)."""
        return HeldOutForecasts(forecasts, self.actual, self.scale, self.series)

    def calibrate(
        self, forecasts: np.ndarray, ids: Sequence[Hashable], *, history: int, adaptive: bool
    ) -> Calibration:
        """Calibrate intervals on the errors of forecasts (windows, horizon, variables).

        ``history`` are the steps whose usual change scales a forecast.
        """
        scale = np.stack([usual_change(p.tail(history).values, self.season) for p in self.pasts])
        divisor = np.where(scale > 0, scale, np.nan)[:, None]
        scores = ((self.actual - forecasts) / divisor)[..., None]
        errors: dict[Hashable, np.ndarray] = {}
        spacings = {}
        for number in np.unique(self.series):
            rows = self.series == number
            gaps = np.diff(self.origins[rows])
            errors[ids[number]] = scores[rows]
            spacings[ids[number]] = float(gaps.mean()) if len(gaps) else float(forecasts.shape[1])
        return make_calibration(errors, (), spacings=spacings, adaptive=adaptive)


def _observed_span(context: Context) -> tuple[int, int]:
    """Return the first step that has seen a value of every variable, and the last observed + 1.

    Both are 0 where a variable has no value.
    """
    if not context.mask.any(axis=0).all():
        return 0, 0
    start = int(context.mask.argmax(axis=0).max())
    return start, int(np.flatnonzero(context.mask.any(axis=1))[-1]) + 1


def _spread(first: int, last: int, most: int) -> np.ndarray:
    """Return at most ``most`` evenly spaced whole numbers from first to last; one is the last."""
    count = max(0, min(most, last - first + 1))
    if count == 1:
        return np.array([last])
    return np.unique(np.linspace(first, last, count).round().astype(int))
