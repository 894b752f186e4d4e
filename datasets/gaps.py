"""Regular time stamps for the series of a panel: check, complete, fill and resample."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.datasets.checks import check_times, nearest, series_name, with_all_gaps
from tsllm.datasets.counts import check_no_dates, count_step, step_of
from tsllm.datasets.frequency import complete_times, parse_frequency
from tsllm.errors import DataError, GapError

FILLS = ("nan", "zero", "ffill", "interpolate")
RESAMPLES = ("mean", "sum", "last")
# The most steps of a series that is resampled; more would need gigabytes.
_MOST_STEPS = 5_000_000


def regular_times(
    times: Sequence[pd.Index],
    *,
    labels: Sequence[str | None],
    rows: Sequence[Callable[[int], str]],
    freq: str | None,
    complete: bool,
    count_gaps: bool = True,
) -> list[pd.Index]:
    """Check or complete the increasing stamps of each series of a panel.

    ``labels`` and ``rows`` name the series and their rows in error messages, and ``count_gaps``
    makes the error of a gap tell how many series have one. If ``freq`` is None,
    each series has its own frequency, and a series of fewer than three dates or integers gets the
    frequency that all others share. ``complete`` inserts missing stamps, which are an error
    otherwise.
    """

    def check(number: int) -> pd.Index:
        return _regular(times[number], labels[number], rows[number], freq, complete)

    # Many series of a panel share their stamps: check each set of stamps once.
    known: dict[bytes, pd.Index] = {}
    indexes: dict[int, pd.Index] = {}
    for number, index in enumerate(times):
        short = isinstance(index, pd.DatetimeIndex) or pd.api.types.is_integer_dtype(index.dtype)
        if freq is None and short and len(index) < 3:
            continue
        key = stamp_numbers(index).tobytes()
        if key not in known:
            try:
                known[key] = check(number)
            except GapError as error:
                raise with_all_gaps(error, labels, check) if count_gaps else error from None
        indexes[number] = known[key]
    found = {_frequency_of(index) for index in known.values()} - {None}
    shared = found.pop() if len(found) == 1 else freq
    for number in set(range(len(times))) - indexes.keys():
        indexes[number] = _regular(times[number], labels[number], rows[number], shared, complete)
    return [indexes[number] for number in range(len(times))]


def stamp_numbers(times: pd.Index) -> np.ndarray:
    """Return dates, periods or integers as int64, (rows,), in the same order."""
    if isinstance(times, pd.DatetimeIndex | pd.PeriodIndex):
        return times.asi8
    return times.to_numpy(np.int64)


def check_fill(fill: object) -> None:
    """Check the argument ``fill`` of `read_long`, before the table is read.

    Raises
    ------
    DataError
        It is neither a word of `FILLS`, nor a dict from columns to such words, nor None.
    """
    words = list(fill.values()) if isinstance(fill, Mapping) else [fill]
    bad = [word for word in words if not (isinstance(word, str) and word in FILLS)]
    if fill is None or (words and not bad):
        return
    raise DataError(
        f"fill={fill!r} is not known; pass one of {', '.join(FILLS)}, or one for each column, such "
        "as fill={'sales': 'zero', 'promo': 'ffill'} (--fill sales=zero,promo=ffill)"
    )


def check_filled(fill: str | Mapping[str, str] | None, columns: Sequence[str]) -> None:
    """Check that a dict ``fill`` names only columns that are read: values and covariates."""
    for name in fill if isinstance(fill, Mapping) else ():
        if name not in columns:
            raise DataError(
                f"fill names the column {name!r}, which is neither a value nor a covariate here; "
                f"{nearest(str(name), columns)}"
            )


def words_of_columns(
    fill: str | Mapping[str, str],
    values: Sequence[str],
    covariates: Sequence[str],
    categories: Sequence[str],
    texts: Sequence[str],
) -> list[str]:
    """Return the word of `FILLS` for each of the columns of ``values`` and ``covariates``.

    One word is for the values. Covariates follow it where it is "interpolate", and else repeat the
    row before: each step needs a covariate, and zero may be no price. ``categories`` and ``texts``
    are those of the covariates: categories repeat the row before, an inserted row has no text.

    Raises
    ------
    DataError
        ``fill`` has a word that a covariate cannot follow.

    Examples
    --------
    >>> words_of_columns("zero", ["sales"], ["promo", "report"], [], ["report"])
    ['zero', 'ffill', 'nan']
    >>> words_of_columns({"promo": "zero"}, ["sales"], ["promo"], [], [])
    ['nan', 'zero']
    """
    given: Mapping[str, str] = {} if isinstance(fill, str) else fill
    word = fill if isinstance(fill, str) else "nan"
    for name, chosen in given.items():
        if name in texts:
            raise DataError(
                f"fill={chosen!r} cannot fill column {name!r}, which holds texts: leave it out; "
                "an inserted row has no text"
            )
        if name in categories and chosen != "ffill":
            raise DataError(
                f"fill={chosen!r} cannot fill column {name!r}, which holds categories: use "
                "'ffill', or make numbers of them"
            )
        if name in covariates and chosen == "nan":
            raise DataError(
                f"fill='nan' cannot fill column {name!r}: a covariate needs a value at each step; "
                "use 'zero', 'ffill' or 'interpolate'"
            )
    words = dict.fromkeys(values, word)
    line = "interpolate" if word == "interpolate" else "ffill"
    words |= {name: "ffill" if name in categories else line for name in covariates}
    words |= dict.fromkeys(texts, "nan")
    return [given.get(name, words[name]) for name in (*values, *covariates)]


def fill_gaps(
    values: np.ndarray, times: pd.Index, complete: pd.Index, words: Sequence[str]
) -> np.ndarray:
    """Place the values (rows, columns) of a series on more stamps, and fill the inserted rows.

    The word of a column is "nan", "zero", "ffill" (the row before) or "interpolate" (a line between
    the rows around; the row before in a column of zeros and ones, which has nothing between them).
    Existing rows are unchanged, NaN included.

    Examples
    --------
    >>> days, promo = [[1.0, 0.0], [4.0, 1.0]], ["interpolate", "interpolate"]
    >>> fill_gaps(np.array(days), pd.Index([0, 3]), pd.RangeIndex(4), promo)
    array([[1., 0.],
           [2., 0.],
           [3., 0.],
           [4., 1.]])
    """
    positions = complete.get_indexer(times)  # (rows,)
    steps = np.arange(len(complete))
    before = np.searchsorted(positions, steps, side="right") - 1  # (steps,)
    filled = np.full((len(complete), values.shape[1]), np.nan)
    for number, word in enumerate(words):
        column = values[:, number]
        if word == "zero":
            filled[:, number] = 0.0
        elif word == "interpolate" and not np.isin(column[~np.isnan(column)], (0, 1)).all():
            filled[:, number] = np.interp(steps, positions, column)
        elif word != "nan":
            filled[:, number] = column[before]
    filled[positions] = values
    return filled


def to_steps(
    values: np.ndarray, times: pd.Index, freq: str | None, how: str
) -> tuple[np.ndarray, pd.DatetimeIndex, np.ndarray]:
    """Resample rows (rows, variables) of one series to a frequency; empty steps stay gaps.

    ``how`` is "mean", "sum" or "last", of the values that are not missing. Rows may have the same
    stamp.

    Returns
    -------
    values : numpy.ndarray
        Shape (steps, variables).
    times : pandas.DatetimeIndex
        Stamps of the steps, labelled as in pandas' ``resample``.
    first : numpy.ndarray
        Position of the first row of each step.

    Examples
    --------
    >>> stamps = pd.to_datetime(["2024-01-01 00:05", "2024-01-01 00:40", "2024-01-01 03:10"])
    >>> hours, times, _ = to_steps(np.array([[1.0], [3.0], [5.0]]), stamps, "h", "mean")
    >>> hours.ravel().tolist(), times.hour.tolist()
    ([2.0, 5.0], [0, 3])
    """
    if how not in RESAMPLES:
        raise DataError(f"resample={how!r} is not known; pass one of {', '.join(RESAMPLES)}")
    if freq is None:
        raise DataError(
            f"resample={how!r} needs the frequency to bring the rows to: pass freq= (--freq)"
        )
    if not isinstance(times, pd.DatetimeIndex):
        raise DataError(
            f"resample={how!r} needs dates, and the times are of type {times.dtype}: leave it out"
        )
    offset = parse_frequency(freq)
    start = times[0].tz_localize(None)
    if (times[-1] - times[0]) / ((start + offset) - start) > _MOST_STEPS:
        raise DataError(
            f"the rows from {times[0]} to {times[-1]} make more than {_MOST_STEPS:,} steps of "
            f"freq={freq!r}: give a lower frequency, or check the first and the last stamp"
        )
    bins = _bins(pd.DataFrame(values, index=times), offset)
    counts = bins.size().to_numpy()
    steps = bins.sum(min_count=1) if how == "sum" else getattr(bins, how)()
    steps, counts = steps[counts > 0], counts[counts > 0]
    first = np.cumsum(counts) - counts  # (steps,)
    stamps = steps.index[np.arange(len(steps))]  # drops the frequency
    assert isinstance(stamps, pd.DatetimeIndex)  # resample keeps the type of the index
    if stamps.tz is None and times.tz is not None:
        stamps = stamps.tz_localize(times.tz, ambiguous=True, nonexistent="shift_forward")
    return steps.to_numpy(), stamps, first


def _bins(frame: pd.DataFrame, offset: pd.offsets.BaseOffset) -> Any:
    """Put rows into the steps of a frequency, with the same grid for all series of a table.

    Steps of several days are counted on the local calendar: their stamps have no time zone.
    """
    if isinstance(offset, pd.offsets.Tick):
        return frame.resample(offset, origin="epoch")
    if isinstance(offset, pd.offsets.Day) and offset.n > 1:
        assert isinstance(frame.index, pd.DatetimeIndex)
        days = frame.set_axis(frame.index.tz_localize(None).normalize(), axis=0)
        return days.resample(f"{24 * offset.n}h", origin="epoch")
    return frame.resample(offset)


def _frequency_of(times: pd.Index) -> str | None:
    """Return the frequency of dates, or the step of integers as text; None for periods."""
    if isinstance(times, pd.DatetimeIndex):
        return times.freqstr
    step = None if isinstance(times, pd.PeriodIndex) else step_of(times)
    return None if step is None else str(step)


def _regular(
    index: pd.Index,
    label: str | None,
    row: Callable[[int], str],
    freq: str | None,
    complete: bool,
) -> pd.Index:
    """Check the stamps of one series, or complete them."""
    if not complete:
        return check_times(index, series=label, freq=freq, row=row)
    if isinstance(index, pd.DatetimeIndex):
        return complete_times(index, freq, name=series_name(label), row=row)
    check_times(index[:1], series=label, freq=freq, row=row)  # checks freq
    whole: pd.Index
    if isinstance(index, pd.PeriodIndex):
        whole = pd.period_range(index[0], index[-1], freq=index.freq)
    else:
        if freq is None:
            check_no_dates(index, series_name(label), row)
        step = count_step(freq) or (int(np.diff(index).min()) if len(index) > 1 else 1)
        whole = pd.RangeIndex(index[0], index[-1] + 1, step)
    off = ~index.isin(whole)
    if off.any():
        bad = int(off.argmax())
        raise DataError(
            f"{series_name(label)} has irregular times: {row(bad)} ({index[bad]}) is no whole "
            f"number of steps after {row(0)} ({index[0]}); bring them to one step"
        )
    return whole
