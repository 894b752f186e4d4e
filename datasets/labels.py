"""Columns of names: which series, sequence or type a row is of, as text."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tsllm.datasets.tables import Table, missing_text
from tsllm.errors import DataError


def read_labels(
    table: Table,
    column: str,
    noun: str,
    place: Callable[[int, str], str],
    *,
    words: bool = False,
) -> np.ndarray:
    """Read a column of names as text; two names must not become one.

    Parameters
    ----------
    table : Table
        The table.
    column : str
        The column with the names.
    noun : str
        What error messages call that which is named: "series", "sequence" or "type".
    place : callable
        How error messages call the row at a position, given the name it holds.
    words : bool, default False
        Whether ``NA``, ``null`` and the like in a file of text stand for a missing name.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), objects of type str.

    Raises
    ------
    DataError
        If a name is missing or blank, or if one text stands for values of two types.
    """
    cells = table.frame[column]
    missing = cells.isna() | (cells.astype(str).str.strip() == "")
    if table.text and words:
        missing |= missing_text(cells)
    if missing.any():
        raise DataError(
            f"{table.row(int(missing.argmax()))} of {table.source} has no {noun} in column "
            f"{column!r}; give it one or drop the row"
        )
    names = cells.astype(str)
    if cells.dtype == object:  # the number 1 and the text "1" are two names
        kinds = pd.DataFrame({"name": names.array, "kind": [type(cell).__name__ for cell in cells]})
        both = kinds.drop_duplicates().duplicated("name")
        if both.any():
            bad = int(both.index.to_numpy()[both.to_numpy().argmax()])
            label = noun if noun == "type" else "identifier"
            raise DataError(
                f"{place(bad, names.iloc[bad])} has its {label} as {kinds['kind'][bad]}, but an "
                f"earlier row has it as another type; write all of column {column!r} as text"
            )
    return names.to_numpy(dtype=object)
