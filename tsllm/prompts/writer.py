"""Prompts for windows: dates, values and trend in words (TimeCMA)."""

from __future__ import annotations

import string
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsllm.arguments import check_choice
from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.prompts.dates import frequency_in_words, stamps_in_words

if TYPE_CHECKING:
    from tsllm.backbone import Backbone

FIELDS = ("start", "end", "values", "frequency", "trend")
#: The trend is last: the embedding is the state of the last token, which then follows everything.
DEFAULT_TEMPLATE = (
    "From {start} to {end}, the values were {values} every {frequency}. "
    "The total trend value was {trend}"
)
VALUE_FORMATS = ("window", "series", "int")
#: Stands for a value that was not observed; one token in common tokenizers.
MISSING = "missing"

# Number of longest texts that are tokenised to check their length.
_TOKENISED = 16
# Up to this range of numbers a table of their texts is faster than sorting them.
_TABLE = 1_000_000


class PromptWriter:
    """Write the prompts of windows.

    Parameters
    ----------
    template : str, default=DEFAULT_TEMPLATE
        A text with any of the fields ``{start}`` and ``{end}`` (the stamps of the first and the
        last step), ``{values}``, ``{frequency}`` (in words, as in "every hour") and ``{trend}``
        (the sum of the differences, which is the last value minus the first).
    value_format : {"window", "series", "int"}, default="window"
        The format of the values.

        - "window": standardised by the mean and standard deviation of the window, times 100,
          rounded. A prompt then depends on its window only: horizons, folds, refits and methods
          share embeddings, unseen series are written like seen ones, and no number is further
          than ``100 * sqrt(steps - 1)`` from 0.
        - "series": standardised by the mean and deviation of the whole training series, times
          100, rounded. The level of a window shows, and a refit on longer series writes other
          prompts.
        - "int": as in the authors' code, ``int()`` of the series-standardised value. Most values
          become -1, 0 or 1, and the embeddings of different series are nearly equal.

    Raises
    ------
    DataError
        If the template has other fields, or the format is not known.

    See Also
    --------
    TimeCMAForecaster : Forecasts from the embeddings of these prompts.

    References
    ----------
    TimeCMA, arXiv 2406.01638, section 3.2.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tsllm.context import Context
    >>> times = pd.date_range("2024-01-01", periods=4, freq="h")
    >>> context = Context(np.array([1.0, 2.0, np.nan, 4.0]), times=times)
    >>> PromptWriter().write(context, [0], 4)[0][:80]
    'From 01/01/2024 00:00 to 01/01/2024 03:00, the values were -107, -27, missing, 1'
    """

    def __init__(self, template: str = DEFAULT_TEMPLATE, value_format: str = "window") -> None:
        check_choice("value_format", value_format, VALUE_FORMATS)
        _check_template(template)
        self.template = template
        self.value_format = value_format

    @property
    def needs_statistics(self) -> bool:
        """Return whether a prompt depends on more than its window."""
        return self.value_format != "window"

    def write(
        self,
        context: Context,
        starts: Sequence[int] | np.ndarray,
        steps: int,
        *,
        freq: str | None = None,
        statistics: np.ndarray | None = None,
    ) -> list[str]:
        """Write the prompts of windows of a series.

        Parameters
        ----------
        context : Context
            The series. Its static attributes are written first.
        starts : sequence of int, (windows,)
            Position of the first step of each window. Of a window that starts before the series
            (negative), the part inside the series is written.
        steps : int
            Length of the windows.
        freq : str or None, default=None
            The frequency, if the context's stamps have none.
        statistics : array (2, variables) or None, default=None
            Mean and deviation of the series, for the formats that need them. None computes them
            from the context.

        Returns
        -------
        list of str
            One prompt for each window and variable, variables fastest.
        """
        starts = np.asarray(starts, dtype=np.int64)
        if not len(starts):
            return []
        rows, inside = _cut(context.values, starts, steps)  # (windows * variables, steps)
        scaled = self._scaled(rows, context, statistics)
        values, trends = self._numbers_in_words(scaled, inside)
        first, last = self._stamps(context, np.maximum(starts, 0), starts + steps - 1, freq)
        known = getattr(context.times, "freq", None)
        dated = isinstance(context.times, pd.DatetimeIndex)
        words = frequency_in_words(known or (freq if dated else None))
        each = range(context.n_variables)
        front = _attributes_in_words(context)
        return [
            front + self.template.format(start=a, end=b, values=v, frequency=words, trend=t)
            for (a, b), v, t in zip(
                ((a, b) for a, b in zip(first, last) for _ in each), values, trends
            )
        ]

    def _scaled(
        self, rows: np.ndarray, context: Context, statistics: np.ndarray | None
    ) -> np.ndarray:
        """Standardise windows (rows, steps) for the format."""
        if not self.needs_statistics:
            return _standardised_rows(rows)
        if statistics is None:
            statistics = series_statistics(context.values)
        mean, deviation = (np.resize(row, len(rows))[:, None] for row in statistics)
        return (rows - mean) / deviation

    def _numbers_in_words(
        self, scaled: np.ndarray, inside: np.ndarray
    ) -> tuple[list[str], list[str]]:
        """Write the values and the trend of each window."""
        whole = np.trunc(scaled) if self.value_format == "int" else np.rint(scaled * 100)
        whole += 0.0  # no negative zero
        texts = _whole_numbers(whole).tolist()
        steps = whole.shape[1]
        values = [", ".join(row[steps - count :]) for row, count in zip(texts, inside.tolist())]
        if self.value_format == "int":
            differences = _last_minus_first(scaled) + 0.0
            trends = [MISSING if d != d else f"{d:.6f}" for d in differences.tolist()]
        else:
            trends = _whole_numbers(_last_minus_first(whole)).tolist()
        return values, trends

    def _stamps(
        self, context: Context, first: np.ndarray, last: np.ndarray, freq: str | None
    ) -> tuple[list[str], list[str]]:
        """Write the stamps of the first and the last step of each window."""
        positions, where = np.unique(np.concatenate([first, last]), return_inverse=True)
        times = context.times
        known = getattr(times, "freq", None) or freq
        texts = stamps_in_words(times[positions], known)
        written = [texts[i] for i in where.tolist()]
        return written[: len(first)], written[len(first) :]


def series_statistics(values: np.ndarray) -> np.ndarray:
    """Compute the mean and deviation of the observed values (time, variables): (2, variables).

    The deviation is 1 for a constant variable, and the mean 0 for one without observations.

    Examples
    --------
    >>> series_statistics(np.array([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[2.0, 5.0], [1.0, 1.0]]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a variable without any observation
        mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    return np.stack([np.nan_to_num(mean), np.where(varies, deviation, 1.0)])


def check_prompts_fit(prompts: Sequence[str], backbone: Backbone) -> None:
    """Check that the backbone can read all prompts, before any is embedded.

    Only those with the most characters are tokenised. The error names the longest length, the
    limit and the remedies.
    """
    limit = backbone.max_positions
    if limit is None or not len(prompts):
        return
    longest = sorted(prompts, key=len)[-_TOKENISED:]
    most = max(backbone.token_counts(longest))
    if most > limit:
        raise DataError(
            f"the longest prompt has {most} tokens and the backbone {backbone.spec!r} reads at "
            f"most {limit}: use a shorter context_length, a shorter prompt_template, a coarser "
            "value_format ('int'), or a backbone with more positions"
        )


def _attributes_in_words(context: Context) -> str:
    """Write the static attributes of a series: ``"region: north; type: mall. "``."""
    if not context.static:
        return ""
    return "; ".join(f"{name}: {value}" for name, value in context.static.items()) + ". "


def _check_template(template: str) -> None:
    """Check that a template has no other fields than those of a window."""
    if not isinstance(template, str):
        raise DataError(f"prompt_template must be a text, found {template!r}")
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataError(
            f"prompt_template={template!r} cannot be read ({error}): write braces that are no "
            "field twice"
        ) from error
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        if field not in FIELDS or spec or conversion:
            whole = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise DataError(
                f"prompt_template has the field {{{whole}}}; the fields are "
                f"{', '.join('{' + name + '}' for name in FIELDS)}, as they are"
            )


def _cut(values: np.ndarray, starts: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Copy windows to (windows * variables, steps), and count the steps inside the series."""
    positions = starts[:, None] + np.arange(steps)  # (windows, steps)
    cut = np.where((positions < 0)[..., None], np.nan, values[np.maximum(positions, 0)])
    # contiguous rows, so that sums over a row do not depend on the number of rows
    rows = np.ascontiguousarray(cut.transpose(0, 2, 1)).reshape(-1, steps)
    inside = np.minimum(steps, steps + starts)
    return rows, np.repeat(inside, values.shape[1])


def _standardised_rows(rows: np.ndarray) -> np.ndarray:
    """Standardise each row over its observed values; constant rows become 0."""
    observed = ~np.isnan(rows)
    count = np.maximum(observed.sum(axis=1), 1)
    mean = np.where(observed, rows, 0.0).sum(axis=1) / count
    centred = rows - mean[:, None]
    deviation = np.sqrt((np.where(observed, centred, 0.0) ** 2).sum(axis=1) / count)
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    scaled = centred / np.where(varies, deviation, 1.0)[:, None]
    return np.where(varies[:, None] | ~observed, scaled, 0.0)


def _last_minus_first(rows: np.ndarray) -> np.ndarray:
    """Return the last observed value of each row minus the first; NaN without any."""
    observed = ~np.isnan(rows)
    first = observed.argmax(axis=1)
    last = rows.shape[1] - 1 - observed[:, ::-1].argmax(axis=1)
    each = np.arange(len(rows))
    return rows[each, last] - rows[each, first]


def _whole_numbers(numbers: np.ndarray) -> np.ndarray:
    """Write whole numbers of any size, and NaN as missing, in an array of the same shape."""
    observed = ~np.isnan(numbers)
    if not observed.any():
        return np.full(numbers.shape, MISSING, dtype=object)
    low, high = numbers[observed].min(), numbers[observed].max()
    if high - low < _TABLE:
        table = [f"{low + i:.0f}" for i in range(int(high - low) + 1)]
        codes = np.where(observed, numbers - low, len(table)).astype(np.int64)
    else:
        different, codes = np.unique(np.where(observed, numbers, np.inf), return_inverse=True)
        table = [f"{number:.0f}" for number in different if number < np.inf]
    return np.array([*table, MISSING], dtype=object)[codes]
