"""Series that cannot be used: left out with their reasons, while the others are forecast."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import pandas as pd

from tsllm.datasets.labels import LABELS
from tsllm.errors import DataError, NoSeriesLeftError

Result = TypeVar("Result")
ON_ERROR = ("raise", "skip")


class SkippedSeries:
    """The series that a call leaves out, in the order in which they were found.

    `each` and `keep` call a function with all series at once, so that nothing is done twice if no
    series is bad. If the function raises a `DataError`, they call it with each half of the series,
    and so on, until they have found the series that it refuses. The reason for a series is the
    sentence of that error.

    Attributes
    ----------
    reasons : dict of str to str
        The sentence for each series that is left out.

    Examples
    --------
    >>> def check(names):
    ...     if "b" in names:
    ...         raise DataError("series 'b' is empty; drop it")
    >>> skipped = SkippedSeries()
    >>> skipped.keep(["a", "b", "c"], check)
    ['a', 'c']
    >>> skipped.reasons
    {'b': "series 'b' is empty; drop it"}
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def each(self, names: Sequence[str], work: Callable[[list[str]], Result]) -> list[Result]:
        """Return the results of ``work`` for all series that it accepts.

        Each result is for one group of series. Groups and results are in the order of ``names``.
        """
        results = []
        groups = [list(names)] if names else []
        while groups:
            some = groups.pop()
            try:
                results.append(work(some))
            except DataError as error:
                if len(some) == 1:
                    self.reasons[some[0]] = str(error)
                else:
                    middle = len(some) // 2
                    groups += [some[middle:], some[:middle]]
        return results

    def keep(self, names: Sequence[str], check: Callable[[list[str]], object]) -> list[str]:
        """Return the series that ``check`` accepts; its result and its warnings are not used."""

        def named(some: list[str]) -> list[str]:
            check(some)
            return some

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the work on the kept series repeats them
            return [name for some in self.each(names, named) for name in some]

    def without(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a canonical long frame whose series are not left out."""
        if not self.reasons:
            return frame
        kept = frame[~frame["series_id"].isin(self.reasons)]
        if not len(kept):
            raise self.none_left()
        return kept.reset_index(drop=True)

    def adopt(self, other: "SkippedSeries", names: Iterable[str]) -> None:
        """Add those of the series ``names`` that another table, such as a future, leaves out."""
        self.reasons |= {name: other.reasons[name] for name in names if name in other.reasons}

    def none_left(self) -> NoSeriesLeftError:
        """Return the error for data of which every series is bad."""
        first, *others = self.reasons.values()
        if not others:
            return NoSeriesLeftError(first)
        return NoSeriesLeftError(f"none of the {len(self.reasons):,} series can be used: {first}")

    def table(self, id_col: str = LABELS[0]) -> pd.DataFrame:
        """Return the columns ``id_col`` and ``reason``, a row for each series left out."""
        rows = list(self.reasons.items())
        return pd.DataFrame(rows, columns=[id_col, "reason"], dtype=object)

    def sentence(self, series: int, where: str = "") -> str:
        """Return the number of ``series`` that are left out, and the first reason, in words.

        ``where`` follows the number, for example ``", listed in skipped.csv"``. The text is empty
        if none is left out.
        """
        if not self.reasons:
            return ""
        reasons = list(self.reasons.values())
        first = "" if len(reasons) == 1 else "the first because "
        return f"left out {len(reasons):,} of {series:,} series{where}: {first}{reasons[0]}"


def skipping(on_error: str) -> SkippedSeries | None:
    """Check an argument ``on_error`` and return the collector of "skip"; None for "raise".

    Examples
    --------
    >>> skipping("raise") is None
    True
    """
    if on_error not in ON_ERROR:
        raise DataError(
            f"on_error must be 'raise', which refuses data with a bad series, or 'skip', which "
            f"leaves such a series out, found {on_error!r}"
        )
    return SkippedSeries() if on_error == "skip" else None
