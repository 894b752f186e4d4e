"""The columns of X: their names and kinds, and the checks of their values."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from difflib import get_close_matches

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.datasets.checks import LARGEST, bad_value, holds_numbers, series_name
from tsllm.datasets.frequency import row_number
from tsllm.errors import DataError

_HALF = "holds half a character (a surrogate), which no tokenizer reads: repair it where it is read"


@dataclass(frozen=True)
class CovariateColumns:
    """The covariates that a model was fitted with."""

    #: In the order of arrays of covariates.
    names: tuple[str, ...]
    #: The seen categories of each column as text; None for a column of numbers.
    categories: tuple[tuple[str, ...] | None, ...]
    #: Columns whose future is not known.
    past: tuple[str, ...] = ()
    #: Further columns, constant within a series, that the method reads as text.
    static: tuple[str, ...] = ()
    #: Those of the static columns in which a series may have no value.
    optional: tuple[str, ...] = ()
    #: Those of ``names`` that hold text, any in each row, or None.
    texts: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """Return the columns whose future is known, in the order of arrays of the future."""
        return tuple(name for name in self.names if name not in self.past)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Return the columns of numbers."""
        kinds = zip(self.names, self.categories)
        return tuple(n for n, known in kinds if known is None and n not in self.texts)

    @property
    def known_values(self) -> tuple[str, ...]:
        """Return the columns of numbers and categories whose future is known."""
        return tuple(name for name in self.known if name not in self.texts)

    @property
    def past_values(self) -> tuple[str, ...]:
        """Return the columns of numbers and categories whose future is not known."""
        return tuple(n for n in self.names if n in self.past and n not in self.texts)

    @property
    def known_texts(self) -> tuple[str, ...]:
        """Return the columns of text whose future is known."""
        return tuple(name for name in self.known if name in self.texts)

    @property
    def past_texts(self) -> tuple[str, ...]:
        """Return the columns of text whose future is not known."""
        return tuple(n for n in self.names if n in self.past and n in self.texts)

    @property
    def everything(self) -> tuple[str, ...]:
        """Return all columns of X that belong to y."""
        return (*self.names, *self.static)

    def positions(self, names: Collection[str]) -> list[int]:
        """Return the positions of some columns among all."""
        return [i for i, name in enumerate(self.names) if name in names]

    def read(
        self,
        frame: pd.DataFrame,
        names: Sequence[str],
        *,
        place: Callable[[int], str] = row_number,
        argument: str = "X",
    ) -> np.ndarray:
        """Check columns of a frame and return them as an array (rows, columns).

        The array is float64 where all columns are numbers, else of objects; a missing text is
        None. ``place`` returns the name of the row at a position, for error messages, and
        ``argument`` names the frame.
        """
        kinds = dict(zip(self.names, self.categories))
        columns = []
        for name in names:
            column, title = frame[name], f"column {name!r} of {argument}"
            if name in self.texts:
                columns.append(_texts(column, title, place))
            elif kinds[name] is None:
                columns.append(_numbers(column, title, place))
            else:
                columns.append(_categories(column, title, place))
                _check_categories(columns[-1], kinds[name], title, place)
        return _stacked(columns, len(frame))

    def pick(
        self,
        values: np.ndarray | pd.DataFrame,
        names: Sequence[str],
        chosen: Sequence[str],
        *,
        series: object = None,
    ) -> list[np.ndarray]:
        """Convert the ``chosen`` columns to numbers, categories to their positions.

        Texts stay texts. The columns of an array are in the order of ``names``, and those of a
        DataFrame in any. ``series`` is the id of the series, for error messages.
        """
        if isinstance(values, pd.DataFrame):
            values = _in_order(values, names, series)
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(
                f"the covariates of {series_name(series)} must have the shape (steps, "
                f"{len(names)}), the columns {', '.join(names)}, found {values.shape}"
            )
        kinds = dict(zip(self.names, self.categories))

        def place(row: int) -> str:
            return f"{series_name(series)}, row {row}"

        coded = []
        for name in chosen:
            column, known = values[:, names.index(name)], kinds[name]
            if name in self.texts:
                texts = pd.Series(column, dtype=object)
                coded.append(_texts(texts, f"column {name!r} of X", place))
                continue
            codes = _as_float(column) if known is None else _places(column, known)
            if codes is None or not (np.abs(codes) <= LARGEST).all():
                frame = pd.DataFrame({name: column}).infer_objects()
                self.read(frame, [name], place=place)
                raise AssertionError("a column that cannot be coded cannot be read")
            coded.append(codes)
        return coded


def learn_columns(
    frame: pd.DataFrame,
    *,
    past: Sequence[str] = (),
    static: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> CovariateColumns:
    """Determine the kinds of a frame's columns.

    Numbers stay numbers. Texts, truth values and pandas' categories become categories, except in
    the columns that ``texts`` names: they hold any text. ``past`` names the columns whose future is
    not known, ``static`` those that do not change.

    Raises
    ------
    DataError
        X has a column of dates or two columns of one name, or ``past``, ``static`` or ``texts``
        names a column that X lacks.

    Examples
    --------
    >>> frame = pd.DataFrame({"temperature": [3.0, 4.5], "sky": ["clear", "rain"]})
    >>> learn_columns(frame).categories
    (None, ('clear', 'rain'))
    """
    names = [str(name) for name in frame.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"X has the column {twice[0]!r} twice: name its columns differently")
    asked_for = {"past_covariates": past, "static_attributes": static, "text_covariates": texts}
    for argument, asked in asked_for.items():
        for name in asked:
            if name not in names:
                near = get_close_matches(name, names, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"X has {', '.join(names)}"
                raise DataError(f"{argument} names {name!r}, which is no column of X: {remedy}")
    for kind, others in (("past covariate", past), ("text covariate", texts)):
        both = [name for name in others if name in static]
        if both:
            raise DataError(f"{both[0]!r} is a {kind} and a static attribute: give it one role")
    kinds: list[tuple[str, ...] | None] = []
    for name, (_, column) in zip(names, frame.items()):
        if name in static:
            continue
        if name in texts:
            kinds.append(None)
            continue
        if _holds_dates(column):
            raise DataError(
                f"column {name!r} of X holds dates: make numbers or categories of them, such as "
                "the hour or the weekday"
            )
        if holds_numbers(column) and not isinstance(column.dtype, pd.CategoricalDtype):
            kinds.append(None)
        else:
            kinds.append(tuple(sorted(set(column.dropna().map(str)))))
    return CovariateColumns(
        tuple(name for name in names if name not in static),
        tuple(kinds),
        tuple(name for name in names if name in past),
        tuple(static),
        texts=tuple(name for name in names if name in texts),
    )


def attribute_text(value: object, title: str = "an attribute") -> str:
    """Write an attribute as text; a number gets the same text from 3.0 and "3".

    Parameters
    ----------
    value : object
        One that is not missing.
    title : str, default="an attribute"
        The name of its place, for error messages.

    Examples
    --------
    >>> attribute_text(3.0), attribute_text("3"), attribute_text(" north ")
    ('3', '3', 'north')
    """
    if isinstance(value, bytes) or pd.api.types.is_list_like(value):
        raise DataError(f"{title} holds {shown(value)}: pass text or a number")
    text = str(value).strip()
    if not text.isascii() and not _is_whole(text):
        raise DataError(f"{title} {_HALF}")
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _in_order(frame: pd.DataFrame, names: Sequence[str], series: object) -> pd.DataFrame:
    """Find the columns of a frame by name; those that only count have none."""
    given = [str(name) for name in frame.columns]
    if given == [str(number) for number in range(len(given))]:
        return frame
    if sorted(given) != sorted(names):
        raise DataError(
            f"the covariates of {series_name(series)} have the columns {', '.join(given)}, and the "
            f"model reads {', '.join(names)}: pass these columns, in any order"
        )
    return frame.set_axis(given, axis=1)[list(names)]


def _holds_dates(column: pd.Series) -> bool:
    """Return whether a column holds dates, times or differences of times, also as objects."""
    if column.dtype == object and column.notna().any():
        return isinstance(column.dropna().iloc[0], date | timedelta | pd.Period)
    return column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype)


def _numbers(column: pd.Series, title: str, place: Callable[[int], str]) -> np.ndarray:
    """Return a column of numbers, none missing."""
    if pd.api.types.is_bool_dtype(column):
        column = column.astype(float)
    bad = bad_value(column)
    if bad is not None:
        raise DataError(f"{place(bad[0])}, {title} {bad[1]}")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    _check_missing(np.isnan(values), title, place)
    return values


def _texts(column: pd.Series, title: str, place: Callable[[int], str]) -> np.ndarray:
    """Return a column of texts; None where one is missing."""
    missing = column.isna().to_numpy()
    texts = column.to_numpy(dtype=object, copy=True)
    texts[missing] = None
    for row, text in enumerate(texts):
        if text is None:
            continue
        if not isinstance(text, str):
            raise DataError(
                f"{place(row)}, {title} holds {shown(text)}, and text_covariates names this "
                "column: pass text, or None for no text"
            )
        if not text.isascii() and not _is_whole(text):
            raise DataError(f"{place(row)}, {title} {_HALF}")
    return texts


def _is_whole(text: str) -> bool:
    """Return whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _categories(column: pd.Series, title: str, place: Callable[[int], str]) -> np.ndarray:
    """Return a column of categories as text, none missing."""
    remedy = ", or name the column in text_covariates, where a text may be missing"
    _check_missing(column.isna().to_numpy(), title, place, remedy)
    listed = column.map(pd.api.types.is_list_like).to_numpy(dtype=bool)
    if listed.any():
        row = int(listed.argmax())
        raise DataError(
            f"{place(row)}, {title} holds {shown(column.iloc[row])}: pass numbers or text"
        )
    return column.map(str).to_numpy(dtype=object)


def _as_float(column: np.ndarray) -> np.ndarray | None:
    """Convert a column to numbers; None where it holds something else."""
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        return None


def _places(column: np.ndarray, known: Sequence[str]) -> np.ndarray:
    """Return the positions of categories, NaN for unknown ones."""
    place = {name: float(i) for i, name in enumerate(known)}
    return np.array([place.get(str(value), np.nan) for value in column])


def _check_missing(
    missing: np.ndarray, title: str, place: Callable[[int], str], remedy: str = ""
) -> None:
    if missing.any():
        raise DataError(
            f"{place(int(missing.argmax()))}, {title} has no value: covariates must "
            f"be known in every row, so fill it, for example with ffill() or interpolate(){remedy}"
        )


def _check_categories(
    column: np.ndarray,
    known: tuple[str, ...] | None,
    title: str,
    place: Callable[[int], str],
) -> None:
    """Raise an error for unseen categories."""
    if known is None:
        return
    new = ~np.isin(column.astype(str), np.array(known, dtype=str))
    if new.any():
        row = int(new.argmax())
        shown = ", ".join(map(repr, known[:10])) + ", ..." * (len(known) > 10)
        raise DataError(
            f"{place(row)}, {title} holds {column[row]!r}, which was not seen in "
            f"fitting: put one of {shown} in its place, or fit anew"
        )


def _stacked(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """Join columns side by side: float64 where all are numbers, else objects."""
    if not columns:
        return np.empty((rows, 0))
    if all(column.dtype != object for column in columns):
        return np.column_stack(columns)
    return np.column_stack([column.astype(object) for column in columns])
