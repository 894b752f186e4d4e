"""Columns of covariates in a long table: numbers or categories beside the values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets.checks import bad_value, holds_numbers, not_a_number, shown_value
from tsllm.datasets.delimited import decimal_hint, has_decimal_commas
from tsllm.datasets.gaps import words_of_columns
from tsllm.datasets.layout import column_names
from tsllm.datasets.tables import Table, missing_cells, missing_text, text_to_numbers
from tsllm.errors import DataError


class CovariateTable(NamedTuple):
    """Covariates as numbers, so that they are processed like the values."""

    names: list[str]
    numbers: np.ndarray  # (rows, covariates) float64; category codes; NaN where missing
    categories: list[list[str] | None]  # for each covariate, texts too; None for numbers
    texts: list[bool]  # whether a covariate holds texts, which are not carried to other rows

    def columns(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Convert processed numbers back to columns, categories to their texts."""
        columns: dict[str, np.ndarray] = {}
        for name, column, known in zip(self.names, numbers.T, self.categories):
            if known is None:
                columns[name] = column
            else:
                texts = np.array([*known, None], dtype=object)
                columns[name] = texts[np.where(np.isnan(column), len(known), column).astype(int)]
        return columns

    def fill_words(self, fill: str | Mapping[str, str], values: Sequence[str]) -> list[str]:
        """Return how gaps are filled in the columns of values and in these; see `read_long`."""
        texts = [name for name, holds in zip(self.names, self.texts) if holds]
        categories = [
            name
            for name, known in zip(self.names, self.categories)
            if known is not None and name not in texts
        ]
        return words_of_columns(fill, values, self.names, categories, texts)


def read_covariates(
    table: Table,
    names: Sequence[str],
    place: Callable[[int], str],
    *,
    categorical: Collection[str] | None = None,
    text: Collection[str] = (),
    resample: str | None = None,
) -> CovariateTable:
    """Read columns of covariates; see `read_long`.

    ``categorical`` names the covariates that are categories; None: all that hold more than
    numbers. ``text`` names those that hold texts. ``resample`` is only checked: there is no mean of
    categories and texts.
    """
    numbers: list[np.ndarray] = []
    categories: list[list[str] | None] = []
    for name in names:
        column = table.frame[name]
        known: list[str] | None = None
        if name in text:
            read, known = _read_texts(table, column, name, place, resample)
        else:
            wanted = None if categorical is None else name not in categorical
            found = None if wanted is False else _as_numbers(table, column, name, place, wanted)
            if found is None:
                found, known = _read_categories(table, column, name, resample)
            read = found
        numbers.append(read)
        categories.append(known)
    stacked = np.column_stack(numbers) if numbers else np.empty((len(table.frame), 0))
    return CovariateTable(list(names), stacked, categories, [name in text for name in names])


def all_covariates(known: object, *others: Sequence[str], texts: Sequence[str] = ()) -> list[str]:
    """List covariates without duplicates, those with a known future first.

    ``texts`` are columns with texts. One that ``known`` has, too, is an error: it would be read as
    text.
    """
    first = column_names("covariates", known)
    both = [name for name in first if name in texts]
    if both:
        raise DataError(
            f"column {both[0]!r} is given both in covariates= (--covariates) and as a text in "
            "text_covariates= (--text): leave it out of the first if it holds texts, and of the "
            "second if it holds numbers or categories"
        )
    first = list(dict.fromkeys([*first, *texts]))
    return list(dict.fromkeys([*first, *(name for some in others for name in some)]))


def _read_categories(
    table: Table, column: pd.Series, name: str, resample: str | None
) -> tuple[np.ndarray, list[str]]:
    """Read categories as positions in a list of them, NaN for rows without one."""
    if resample is not None:
        raise DataError(
            f"column {name!r} of {table.source} holds categories, which resample="
            f"{resample!r} cannot average: make numbers of them, or resample the data first"
        )
    words = column.astype(str).str.strip() if table.text else column.astype(str)
    return _positions(words.where(~missing_cells(table, column)))


def _read_texts(
    table: Table,
    column: pd.Series,
    name: str,
    place: Callable[[int], str],
    resample: str | None,
) -> tuple[np.ndarray, list[str]]:
    """Read texts as positions in a list of them, NaN for rows without a text."""
    if resample is not None:
        raise DataError(
            f"column {name!r} of {table.source} holds texts, which resample={resample!r} cannot "
            "aggregate: resample the data first"
        )
    missing = missing_cells(table, column)
    other = ~missing & ~column.map(lambda cell: isinstance(cell, str)).to_numpy(dtype=bool)
    if other.any():
        row = int(other.argmax())
        raise DataError(
            f"{place(row)}, column {name!r} holds {shown_value(column.iloc[row])}, which is no "
            "text: write text there, or name the column in covariates= (--covariates) if it holds "
            "numbers or categories"
        )
    return _positions(column.astype(object).where(~missing, None))


def _positions(cells: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return the position of each cell among the distinct ones, NaN where it is missing."""
    codes, unique = pd.factorize(cells)
    return np.where(codes < 0, np.nan, codes), [str(text) for text in unique]


def _as_numbers(
    table: Table,
    column: pd.Series,
    name: str,
    place: Callable[[int], str],
    wanted: bool | None,
) -> np.ndarray | None:
    """Read a column as numbers; return None for other values unless numbers are wanted."""
    if table.text:
        numbers = text_to_numbers(column, table.decimal)
        if isinstance(numbers, int):
            if not wanted and not has_decimal_commas(column[~missing_text(column)]):
                return None
            hint = decimal_hint(column.iloc[numbers])
            if hint:
                raise DataError(
                    f"{place(numbers)}, column {name!r} {not_a_number(column.iloc[numbers])}{hint}"
                )
            raise DataError(
                f"{place(numbers)}, column {name!r} holds {column.iloc[numbers]!r}, which is no "
                "number, and the model was fitted with numbers there"
            )
        column = pd.Series(numbers)
    if pd.api.types.is_bool_dtype(column):
        # 1 and 0 where the model was fitted with numbers, as in X
        return column.to_numpy(dtype=np.float64, na_value=np.nan) if wanted else None
    bad = bad_value(column)
    if bad is not None:
        position, complaint = bad
        if wanted or holds_numbers(column):  # infinite, or too large
            raise DataError(f"{place(position)}, column {name!r} {complaint}")
        return None
    return column.to_numpy(dtype=np.float64, na_value=np.nan)
