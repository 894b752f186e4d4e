"""The two columns that label a row, the series and the time, by the names of the user's table."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsllm.errors import DataError

#: The names of the two columns in a canonical long frame.
LABELS = ["series_id", "timestamp"]
# The key in the ``attrs`` of a canonical long frame.
_ATTRIBUTE = "labels"


class Labels(NamedTuple):
    """The names of the columns with the series and the times in a table."""

    id: str = "series_id"
    time: str = "timestamp"
    #: Whether the identifiers are whole numbers; those of a canonical long frame are text.
    whole_ids: bool = False

    def restore(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table of forecasts with these names in place of the canonical ones.

        Identifiers become whole numbers again if all of them are.

        Examples
        --------
        >>> table = pd.DataFrame({"series_id": ["7"], "timestamp": [3], "forecast": [1.5]})
        >>> Labels("shop", "week", True).restore(table).to_dict("records")
        [{'shop': 7, 'week': 3, 'forecast': 1.5}]
        """
        if self.whole_ids:
            codes, names = pd.factorize(table["series_id"])
            numbers = np.array([int(name) for name in names if _is_whole(name)])
            if len(numbers) == len(names) and numbers.dtype.kind in "iu":  # 64 bits hold them
                table = table.assign(series_id=numbers[codes])
        return table.rename(columns=dict(zip(LABELS, (self.id, self.time))))

    def check_beside(self, columns: Sequence[str]) -> None:
        """Check that the other columns of a table of forecasts have other names."""
        for what, name in (("series", self.id), ("times", self.time)):
            if name in columns:
                raise DataError(
                    f"the column of the {what} is called {name!r}, as a column of the forecasts "
                    "is: rename it"
                )


def mark_labels(frame: pd.DataFrame, labels: Labels) -> None:
    """Write the names of a table into the ``attrs`` of the canonical long frame made of it."""
    frame.attrs[_ATTRIBUTE] = labels._asdict()


def labels_of(frame: pd.DataFrame) -> Labels:
    """Return the names of the table that a canonical long frame was made of."""
    return Labels(**frame.attrs.get(_ATTRIBUTE, {}))


def labels_of_index(names: Sequence[Hashable]) -> Labels:
    """Return the names of the levels of an index, the time last; canonical ones where it has none.

    Examples
    --------
    >>> labels_of_index(["shop", "day"]), labels_of_index([None])
    (Labels(id='shop', time='day', whole_ids=False), Labels(id='series_id', time='timestamp', \
whole_ids=False))
    """
    own = [name if isinstance(name, str) else None for name in names]
    series = own[-2] if len(own) == 2 else None
    return Labels(series or LABELS[0], own[-1] or LABELS[1])


def _is_whole(name: str) -> bool:
    """Return whether a name is how a whole number is written: "7", and not "07"."""
    return name.removeprefix("-").isdecimal() and str(int(name)) == name
