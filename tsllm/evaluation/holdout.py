"""Series cut in time: a part to fit on, a test part, and the windows of the test part."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.context import Context
from tsllm.datasets.checks import series_name, shown_value
from tsllm.datasets.frequency import season_length
from tsllm.datasets.long import long_to_panel
from tsllm.errors import DataError, DataTypeError, NotEnoughDataError
from tsllm.forecasters.floors import mostly_stop_at_zero
from tsllm.forecasters.frames import Layout, frequency_of, layout_of, split_series

DEFAULT_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Holdout:
    """Series and the positions that cut them."""

    #: The whole series.
    contexts: list[Context]
    #: (series,): The end of the training part (its statistics scale the errors), the start of the
    #: test part (methods may be fitted on all earlier steps), and its end.
    train_ends: np.ndarray
    borders: np.ndarray
    ends: np.ndarray
    #: Of the sktime ``y`` that methods are fitted on.
    layout: Layout
    freq: str | None
    season: int
    #: The covariates, in the form of that ``y``.
    X: pd.DataFrame | None = None
    #: Which series are left out because they are too short; empty for none.
    left_out: str = ""

    @property
    def n_variables(self) -> int:
        """Return the number of variables of each series."""
        return self.contexts[0].n_variables

    @functools.cached_property
    def stop_at_zero(self) -> np.ndarray:
        """Return which variables stop at zero in most series before the test part: (variables,)."""
        ends = zip(self.contexts, self.borders)
        return mostly_stop_at_zero([context.values[:end] for context, end in ends])

    def before(self, positions: np.ndarray, *, share: float = 1.0) -> pd.DataFrame:
        """Return the steps of each series before its own position, as sktime's ``y``.

        Only the last ``share`` of the steps is kept.
        """
        frames: list[pd.DataFrame] = [
            pd.DataFrame(
                context.values[end - round(share * end) : end],
                index=_stamps(context)[end - round(share * end) : end],
                columns=self.layout.columns,
            )
            for context, end in zip(self.contexts, positions)
        ]
        if not self.layout.is_panel:
            return frames[0]
        keys: list[Any] = [context.series_id for context in self.contexts]
        return pd.concat(frames, keys=keys, names=list(self.layout.index_names))


@dataclass(frozen=True)
class WindowSet:
    """The windows of the test parts, ordered by series and time; all arrays are (windows,)."""

    #: The number of the series, and the position of the first step to forecast.
    series: np.ndarray
    origin: np.ndarray
    #: The number of the origin within its series, from 0.
    turn: np.ndarray
    #: The longest horizon that ends inside the test part.
    reach: np.ndarray
    #: The position of the origin on the union of all series' stamps.
    when: np.ndarray

    def __len__(self) -> int:
        return len(self.series)

    def thin(self, most: int | None) -> np.ndarray:
        """Pick at most ``most`` evenly spaced windows of each series, the last one included.

        Returns the indices of windows with their series' longest reach, so that each serves all
        horizons.
        """
        picked = []
        for series in np.unique(self.series):
            own = np.flatnonzero(self.series == series)
            own = own[self.reach[own] == self.reach[own].max()]
            count = len(own) if most is None else min(most, len(own))
            picked.append(own[np.arange(1, count + 1) * len(own) // count - 1])
        return np.concatenate(picked)

    def spread(self, picked: np.ndarray) -> np.ndarray:
        """Order windows so that the first ones, however many, are spread over series and times."""
        series = self.series[picked]
        turns = np.empty(len(picked), dtype=int)
        for one in np.unique(series):
            own = np.flatnonzero(series == one)
            bits = max(1, (len(own) - 1).bit_length())
            # The bits of 0, 1, 2, ... in reverse: first halves, then quarters.
            mirrored = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(len(own))]
            turns[own] = np.argsort(np.argsort(mirrored))
        return picked[np.lexsort((series, turns))]


def hold_out(
    y: pd.Series | pd.DataFrame,
    horizons: Sequence[int],
    *,
    X: pd.DataFrame | None = None,
    test_size: int | None = None,
    test_fraction: float | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    season: int | None = None,
    freq: str | None = None,
) -> Holdout:
    """Cut every series in time; the arguments are those of `backtest`."""
    if isinstance(y, pd.DataFrame) and list(y.columns[:2]) == ["series_id", "timestamp"]:
        y = long_to_panel(y, freq=freq)
    if X is not None and not isinstance(X, pd.DataFrame):
        raise DataTypeError(f"X must be a DataFrame, another table or None, found {shown(X)}")
    if X is not None and list(X.columns[:2]) == ["series_id", "timestamp"]:
        X = long_to_panel(X, freq=freq)
    frame = y.to_frame() if isinstance(y, pd.Series) else y
    contexts = split_series(frame, freq=freq)
    if test_size is not None and test_fraction is not None:
        raise DataError(
            f"test_size={test_size} and test_fraction={test_fraction} both size the test part: "
            "pass one of them"
        )
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise DataError(f"test_fraction must lie between 0 and 1, found {test_fraction!r}")
    for name, size in (
        ("test_size", test_size),
        ("train_size", train_size),
        ("validation_size", validation_size),
    ):
        if size is not None and (not isinstance(size, int | np.integer) or size < 1):
            raise DataError(f"{name} must be a whole number of steps, at least 1, found {size!r}")
    cuts, kept, short = [], [], []
    for context in contexts:
        steps = len(context)
        test = test_size
        if test is None and (train_size is None or test_fraction is not None):
            test = round((test_fraction or DEFAULT_TEST_FRACTION) * steps)
        if train_size is not None:
            border = train_size + (validation_size or 0)
            end = steps if test is None else border + test
        else:
            assert test is not None
            border, end = steps - test, steps
        train_end = border - (validation_size or 0)
        try:
            _check_cut(context, train_end, border, end, horizons)
        except NotEnoughDataError as error:
            short.append((context, error))
            continue
        kept.append(context)
        cuts.append((train_end, border, end))
    if not kept:
        raise short[0][1]
    note = _note_of_short(short, len(contexts))
    if X is not None and short and isinstance(X.index, pd.MultiIndex):
        X = X[X.index.droplevel([X.index.nlevels - 1]).isin([one.series_id for one in kept])]
    contexts = kept
    train_ends, borders, ends = np.array(cuts).T
    scored = (context.values[border:end] for context, border, end in zip(contexts, borders, ends))
    if not any(np.isfinite(values).any() for values in scored):
        raise DataError(
            "no value is observed in the test part, so there is nothing to score: make it larger, "
            "or check the data"
        )
    _warn_of_unreached(contexts, ends - borders, horizons)
    name_of_freq = frequency_of(contexts)
    return Holdout(
        contexts,
        train_ends,
        borders,
        ends,
        layout_of(frame),
        name_of_freq,
        season_length(name_of_freq) if season is None else season,
        X,
        note,
    )


def list_windows(holdout: Holdout, horizons: Sequence[int], stride: int) -> WindowSet:
    """List every ``stride``-th origin of the test parts that has enough steps for a horizon."""
    rows = []
    steps = np.array(sorted(horizons))
    calendar = functools.reduce(pd.Index.union, (_stamps(c) for c in holdout.contexts))
    for i, (border, end) in enumerate(zip(holdout.borders, holdout.ends)):
        origins = np.arange(border, end - steps[0] + 1, stride)
        reach = steps[np.searchsorted(steps, end - origins, side="right") - 1]
        when = calendar.get_indexer(_stamps(holdout.contexts[i])[origins])
        rows.append((np.full(len(origins), i), origins, np.arange(len(origins)), reach, when))
    return WindowSet(*(np.concatenate(column) for column in zip(*rows)))


def _stamps(context: Context) -> pd.Index:
    assert context.times is not None  # pandas input always has stamps
    return context.times


def _check_cut(
    context: Context, train_end: int, border: int, end: int, horizons: Sequence[int]
) -> None:
    """Raise an error for a cut that leaves a part of a series empty."""
    name, steps = series_name(context.series_id), len(context)
    if end > steps:
        raise NotEnoughDataError(
            f"{name} has {steps} steps and train_size, validation_size and test_size add up to "
            f"{end}: make them smaller"
        )
    if train_end < 2:
        raise NotEnoughDataError(
            f"{name} has {steps} steps, of which {max(0, train_end)} are left for "
            "training: hold out less, or leave the series out"
        )
    if end - border < min(horizons):
        raise NotEnoughDataError(
            f"{name} has a test part of {end - border} steps and the shortest horizon is "
            f"{min(horizons)}: pass a larger test_size or test_fraction, or a shorter horizon"
        )


def _note_of_short(short: Sequence[tuple[Context, DataError]], count: int) -> str:
    """Name the series that are too short to be scored, in a warning and for the report."""
    if not short:
        return ""
    (_, error), names = short[0], [context.series_id for context, _ in short]
    shown = ", ".join(map(shown_value, names[:20])) + f" and {len(names) - 20:,} more" * (
        len(names) > 20
    )
    reason = str(error).rpartition(": ")[0]  # without the remedy, which is to leave it out
    note = f"left out {len(short):,} of {count:,} series, too short to score: {shown}; {reason}"
    warnings.warn(note, UserWarning, stacklevel=5)
    return note


def _warn_of_unreached(
    contexts: Sequence[Context], test_steps: np.ndarray, horizons: Sequence[int]
) -> None:
    """Raise an error for a horizon that no test part holds; warn where some do not."""
    if test_steps.max() < max(horizons):
        raise NotEnoughDataError(
            f"the longest test part has {test_steps.max()} steps and the longest horizon is "
            f"{max(horizons)}: pass a larger test_size or test_fraction, or a shorter horizon"
        )
    short = [c for c, steps in zip(contexts, test_steps) if steps < max(horizons)]
    if short:
        warnings.warn(
            f"{len(short)} of {len(contexts)} series, {series_name(short[0].series_id)} among "
            f"them, have a test part shorter than the horizon {max(horizons)} and are not scored "
            "there: pass a larger test_size to score them",
            stacklevel=4,
        )
