"""Roles of the columns of a long table: series, time and values, and labels as text."""

import warnings
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsllm.datasets.checks import holds_numbers, nearest
from tsllm.datasets.stamps import looks_like_dates
from tsllm.datasets.tables import Table, check_everywhere, missing_text, text_to_numbers
from tsllm.errors import DataError

# Column names of the known layouts: ours, Nixtla's, AutoGluon's and that of the ETT files.
_ID_NAMES = ("series_id", "unique_id", "item_id")
_TIME_NAMES = ("timestamp", "ds", "date", "datetime", "time")
_TARGET_NAMES = ("value", "y", "target")


class Columns(NamedTuple):
    """The columns of a long table, by their names in the table."""

    id: str | None
    time: str
    targets: list[str]


def find_columns(
    table: Table,
    id_col: str | None = None,
    time_col: str | None = None,
    target_cols: str | Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    model: Columns | None = None,
) -> Columns:
    """Find the columns with the series, the time and the values; see `read_long`.

    ``id`` of the result is None if the table holds a single series. Where ``target_cols`` is None,
    the target is the column ``value``, ``y`` or ``target``, or the only column of numbers, and a
    warning names the columns that are left out. A table with several candidates is an error.
    ``model`` has the columns that a model was fitted on. Those that the table has are preferred; a
    table that has all of its variables has these targets, and its other columns are not read. A
    warning says if another column is read as the only variable of the model.
    """
    frame, source = table.frame, table.source
    names = list(frame.columns)
    targets = None if target_cols is None else column_names("target_cols", target_cols)
    id_col, time_col = _one_name("id_col", id_col), _one_name("time_col", time_col)
    given = [("id_col", id_col), ("time_col", time_col)]
    given += [("target_cols", name) for name in targets or []]
    given += [("covariates", name) for name in covariates]
    for argument, name in given:
        if name is not None and name not in names:
            remedy = _several(argument, name, names) or nearest(name, names)
            raise DataError(f"{argument}={name!r} is no column of {source}; {remedy}")
    chosen = [name for _, name in given if name is not None]
    for name in chosen:
        if chosen.count(name) > 1:
            raise DataError(f"column {name!r} of {source} is given twice; give it one role")

    free = [name for name in names if name not in chosen]
    model = model or Columns(None, "", [])
    if id_col is None and model.id in free:  # before the time, which may be the first dates
        id_col = model.id
        free.remove(id_col)
    if time_col is None:
        time_col = model.time if model.time in free else None
        time_col = time_col or _known(free, _TIME_NAMES, "time_col", source)
        time_col = time_col or _first_dates(table, free)
        free.remove(time_col)
    if id_col is None:
        id_col = _known(free, _ID_NAMES, "id_col", source)
        free = [name for name in free if name != id_col]
    if targets is None:
        targets = _find_targets(table, free, model.targets)
    if not targets and not (covariates and target_cols is not None):
        raise DataError(f"{source} has no value columns beside {chosen or names}; add one")
    clash = sorted({"series_id", "timestamp"} & {*targets, *covariates})
    if clash:
        raise DataError(f"{source} has values in a column named {clash[0]!r}; rename it")
    names = [name for name in (id_col, time_col, *targets, *covariates) if name is not None]
    only = targets if len(targets) == 1 else []
    check_everywhere(table, names, required=[id_col, time_col, *only])
    return Columns(id_col, time_col, list(targets))


def find_time(table: Table) -> str:
    """Find the column with the times, by a known name or by its dates."""
    names = list(table.frame.columns)
    return _known(names, _TIME_NAMES, "time_col", table.source) or _first_dates(table, names)


def find_id(table: Table, time: str) -> str | None:
    """Find the column that tells series apart: a known name, or the only column of text.

    None: the table holds a single series. ``time`` is the column of times.
    """
    names = [name for name in table.frame.columns if name != time]
    known = _known(names, _ID_NAMES, "id_col", table.source)
    if known is not None:
        return known
    texts = [name for name in names if _is_text(table.frame[name])]
    if len(texts) > 1:
        raise DataError(
            f"{table.source} has the columns of text {', '.join(map(repr, texts))}: call the one "
            f"that tells series apart {_ID_NAMES[0]!r}, and leave the others out or pass them in X"
        )
    return texts[0] if texts else None


def find_id_column(table: Table, id_col: str | None = None, model_id: str | None = None) -> str:
    """Find the column with the identifiers of a table that has a row a series.

    ``model_id`` is the column in the data of the fit; it is preferred where the table has it.
    """
    names = list(table.frame.columns)
    if id_col is None and model_id in names:
        id_col = model_id
    if id_col is not None and id_col not in names:
        raise DataError(
            f"id_col={id_col!r} is no column of {table.source}; {nearest(id_col, names)}"
        )
    found = id_col or _known(names, _ID_NAMES, "id_col", table.source)
    if found is None:
        raise DataError(
            f"{table.source} has no column of identifiers among {', '.join(map(str, names))}; name "
            "it in id_col= (--id-col)"
        )
    return found


def column_names(argument: str, value: object) -> list[str]:
    """Return the names of columns in an argument: one name, a list of them, or None for none.

    A whole number is the name of a column whose name is a number.

    Examples
    --------
    >>> column_names("target_cols", "y"), column_names("target_cols", ["y", 2])
    (['y'], ['y', '2'])
    """
    if value is None:
        return []
    several = (
        value if isinstance(value, list | tuple | np.ndarray | pd.Index | pd.Series) else [value]
    )
    names = [_name(one) for one in several]
    if None in names:
        raise DataError(
            f"{argument}={value!r} is no name of a column, nor a list of names; pass for "
            f"example {argument}='y' or {argument}=['y1', 'y2']"
        )
    return [name for name in names if name is not None]


def read_labels(
    table: Table,
    column: str,
    noun: str,
    place: Callable[[int, str], str],
    *,
    words: bool = False,
) -> np.ndarray:
    """Read a column of names as text, (rows,), and check that two names do not become one.

    ``noun`` says in error messages what the names stand for: "series", "sequence" or "type".
    ``place`` names a row from its position and label. ``words`` treats ``NA``, ``null`` and the
    like in a text file as missing names.
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
    if pd.api.types.is_object_dtype(cells.dtype):
        odd = cells.map(lambda cell: isinstance(cell, list | dict | set | np.ndarray)).to_numpy()
        if odd.any():
            bad = int(odd.argmax())
            raise DataError(
                f"{table.row(bad)} of {table.source} has {cells.iloc[bad]!r} in column "
                f"{column!r}, which is no name of a {noun}; write it as text"
            )
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


def group_rows(
    codes: np.ndarray,
    numbers: np.ndarray,
    stamps: pd.Index | np.ndarray,
    place: Callable[[int], str],
    row: Callable[[int], str],
    *,
    noun: str,
    sort: bool,
) -> np.ndarray:
    """Return the order of rows by code and, if ``sort``, by time; unsorted rows are else an error.

    ``numbers`` (rows,) are the times as numbers and ``stamps`` the times in messages.
    """
    if sort:
        return np.lexsort((numbers, codes))
    order = np.argsort(codes, kind="stable")
    back = (np.diff(numbers[order]) < 0) & (np.diff(codes[order]) == 0)
    if back.any():
        before, after = (int(order[int(back.argmax()) + step]) for step in (0, 1))
        raise DataError(
            f"{place(after)} ({stamps[after]}) is earlier than {row(before)} ({stamps[before]}); "
            f"pass sort=True (--sort on the command line) to sort each {noun} by time"
        )
    return order


def rows_by_name(names: np.ndarray | pd.Series) -> dict[str, np.ndarray]:
    """Return the positions of the rows of each name, in the order of first appearance.

    Examples
    --------
    >>> rows_by_name(np.array(["b", "a", "b"], dtype=object))
    {'b': array([0, 2]), 'a': array([1])}
    """
    codes, unique = pd.factorize(names)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return dict(zip([str(name) for name in unique], parts, strict=True))


def _find_targets(table: Table, free: list[str], model_targets: Sequence[str]) -> list[str]:
    """Find the value columns among the ``free`` columns, which have no other role."""
    source = table.source
    free = [name for name in free if name != table.roles.row_index]
    labels = [name for name in free if name in table.roles.labels]
    if labels:
        raise DataError(
            f"{source} has {labels[0]!r} in the names of its folders or in an index; give it a "
            "role with id_col=, time_col= or covariates= (--id-col, --time-col, --covariates)"
            f"{_or_only(_without(free, labels), ' to leave it out')}"
        )
    if model_targets and set(model_targets) <= set(free):
        return list(model_targets)
    lacking = [name for name in free if name in table.roles.lacking]
    if lacking:
        raise DataError(
            f"{table.roles.lacking[lacking[0]]!r} in {source} has no column {lacking[0]!r}, "
            "which other parts have; give every part the same"
            f"{_or_only(_without(free, lacking), ' to leave it out')}"
        )
    if not free:
        return []
    nameless = [name for name in free if name == "" or name.startswith("Unnamed:")]
    if nameless:
        raise DataError(
            f"{source} has a column without a name, probably a row index; "
            f"write it with index=False{_or_only(_without(free, nameless))}"
        )
    target = _only_target(table, free)
    left_out = _without(free, [target])
    if left_out:
        warnings.warn(
            f"{source}: {target!r} is read as the target, and {', '.join(map(repr, left_out))} "
            f"{'is' if len(left_out) == 1 else 'are'} left out; name columns that the forecast "
            "needs in covariates= (--covariates) or target_cols= (--target-col)",
            UserWarning,
            stacklevel=4,
        )
    if len(model_targets) == 1:
        warnings.warn(
            f"{source} has no column {model_targets[0]!r}, the variable of the model: the values "
            f"of {target!r} are read in its place; if they are another quantity, give the data a "
            f"column {model_targets[0]!r}",
            UserWarning,
            stacklevel=4,
        )
    return [target]


def _only_target(table: Table, free: list[str]) -> str:
    """Return the column that has a target's name, else the only one of numbers."""
    if len(free) == 1:
        return free[0]
    named = [name for name in free if name.lower() in _TARGET_NAMES]
    numeric = named or [name for name in free if _holds_numbers(table, name)]
    if len(numeric) == 1:
        return numeric[0]
    if not numeric:
        raise DataError(
            f"{table.source} has no column of numbers among {', '.join(map(repr, free))}; "
            "name the column to forecast in target_cols= (--target-col)"
        )
    found = ", ".join(map(repr, numeric))
    raise DataError(
        f"{table.source} has the columns of numbers {found}, and target_cols does not say which to "
        f"forecast; pass for example target_cols={numeric[0]!r} (--target-col {numeric[0]}), or "
        "several, and name those that help to forecast in covariates= (--covariates), or the one "
        "that tells series apart in id_col= (--id-col)"
    )


def _holds_numbers(table: Table, name: str) -> bool:
    """Return whether every cell of a column is a number or missing."""
    column = table.frame[name]
    if table.text:
        return not isinstance(text_to_numbers(column, table.decimal), int)
    return holds_numbers(column)


def _is_text(column: pd.Series) -> bool:
    """Return whether a column holds text or categories."""
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return True
    return bool(pd.api.types.is_string_dtype(kind)) and any(
        isinstance(cell, str) for cell in column.head(5)
    )


def _name(value: object) -> str | None:
    """Return the name of a column as text; None for what is no name."""
    if isinstance(value, str):
        return str(value)
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return str(value) if whole else None


def _several(argument: str, name: str, names: Sequence[str]) -> str:
    """Say how to give several columns that stand in one text with commas; else nothing."""
    parts = [part.strip() for part in name.split(",")]
    if argument != "target_cols" or len(parts) == 1 or not set(parts) <= set(names):
        return ""
    options = " ".join(f"--target-col {part}" for part in parts)
    return f"give a list, target_cols={parts!r} ({options})"


def _one_name(argument: str, value: object) -> str | None:
    """Check an argument that is the name of one column, or None."""
    if value is None:
        return None
    name = _name(value)
    if name is None:
        raise DataError(
            f"{argument}={value!r} is no name of a column; pass for example {argument}='name'"
        )
    return name


def _without(names: list[str], left_out: list[str]) -> list[str]:
    """Return the names without some of them."""
    return [name for name in names if name not in left_out]


def _or_only(targets: list[str], purpose: str = "") -> str:
    """Return the end of a remedy that passes some columns as the targets; nothing without one."""
    return f", or pass target_cols={targets!r} (--target-col){purpose}" if targets else ""


def _known(names: list[str], known: Sequence[str], argument: str, source: str) -> str | None:
    """Find the only column that has a known name, in upper or lower case."""
    found = [name for name in names if name.lower() in known]
    if len(found) > 1:
        raise DataError(
            f"{source} has both {found[0]!r} and {found[1]!r}; say which one it is with "
            f"{argument}= (--{argument.replace('_', '-')})"
        )
    return found[0] if found else None


def _first_dates(table: Table, names: list[str]) -> str:
    """Choose the first column as the time if it holds dates, or the only column of dates."""
    dated = [name for name in names if looks_like_dates(table.frame[name])]
    if (dated and dated[0] == names[0]) or len(dated) == 1:
        return dated[0]
    index = table.frame.index
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex | pd.MultiIndex):
        raise DataError(
            f"{table.source} has its times in the index; pass it through panel_to_long or "
            "reset_index first"
        )
    raise DataError(
        f"{table.source} has no time column known by its name or its dates; "
        f"say which of {', '.join(map(str, names))} it is with time_col= (--time-col)"
    )
