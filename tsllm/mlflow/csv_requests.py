"""Requests as CSV: read as text, because a name such as 007 is no number.

MLflow hands over a table before it is known which model reads it, so all cells stay text until the
model says which columns hold numbers, times and marks.
"""

import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from tsllm.datasets.checks import not_a_number
from tsllm.datasets.frequency import row_number
from tsllm.datasets.tables import text_to_numbers
from tsllm.errors import DataError

#: The attribute of a frame that says that its cells are text.
_TEXT = "cells are text"
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_MARKS = {"true": True, "1": True, "false": False, "0": False, "": False}


def read_csv(source: str | Path | TextIO) -> pd.DataFrame:
    """Read CSV, separated by commas, with a header; every cell is text.

    Raises
    ------
    DataError
        There is no header, or a line has another number of cells.
    """
    if isinstance(source, str | Path):
        with Path(source).open(encoding="utf-8-sig", newline="") as file:
            return read_csv(file)
    reader = csv.reader(source, strict=True)
    rows: list[list[str]] = []
    try:
        header = next((record for record in reader if record), None)
        if header is None:
            raise DataError("the request is empty: send a header line and rows")
        header[0] = header[0].removeprefix("\ufeff")  # a byte order mark
        for record in reader:
            if record and len(record) != len(header):
                raise DataError(
                    f"line {reader.line_num} of the request has {len(record)} cells where the "
                    f"header has {len(header)}: send as many, with commas between them"
                )
            if record:
                rows.append(record)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of the request is no CSV: {error}") from None
    if len(header) == 1 and ";" in header[0]:
        raise DataError("the cells of the request are separated by semicolons: send commas")
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    frame.attrs[_TEXT] = True
    return frame


def is_text(frame: pd.DataFrame) -> bool:
    """Return whether `read_csv` has read a frame."""
    return bool(frame.attrs.get(_TEXT))


def read_cells(
    frame: pd.DataFrame,
    *,
    numbers: Collection[str],
    times: Collection[str],
    marks: Collection[str],
) -> pd.DataFrame:
    """Convert the text cells of some columns to numbers, times or marks; empty cells are missing.

    Parameters
    ----------
    frame : DataFrame
        As `read_csv` returns it.
    numbers, times, marks : collection of str
        Columns of numbers; of times, where digits alone are a whole number; of true and false.

    Returns
    -------
    DataFrame
        With the columns that JSON would have.

    Raises
    ------
    DataError
        A cell is not what its column holds; the message names row and column.
    """
    converted: dict[str, Any] = {}
    for name, cells in frame.items():
        if name in numbers:
            found = text_to_numbers(cells)
            if isinstance(found, int):
                raise DataError(
                    f"{row_number(found)}, column {name!r} {not_a_number(cells.iloc[found])}"
                )
            converted[str(name)] = found
        elif name in marks:
            converted[str(name)] = _read_marks(str(name), cells)
        else:
            cells = cells.where(cells.str.strip() != "", None)
            converted[str(name)] = _whole_numbers(cells) if name in times else cells
    return pd.DataFrame(converted, index=frame.index)


def _read_marks(name: str, cells: pd.Series) -> list[bool]:
    """Read true and false."""
    marks = [_MARKS.get(cell.strip().lower()) for cell in cells]
    if None in marks:
        row = marks.index(None)
        raise DataError(
            f"{row_number(row)}, column {name!r} holds {cells.iloc[row]!r}: write true or false"
        )
    return [bool(mark) for mark in marks]


def _whole_numbers(cells: pd.Series) -> pd.Series:
    """Convert a column in which every cell that is not missing is a whole number."""
    filled = cells.dropna()
    if len(filled) and all(_WHOLE.fullmatch(cell.strip()) for cell in filled):
        numbers = [None if cell is None else int(cell) for cell in cells]
        return pd.Series(numbers, index=cells.index, dtype=object).infer_objects()
    return cells
