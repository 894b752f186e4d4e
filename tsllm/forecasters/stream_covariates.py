"""The covariates of the series of a stream: what forecasts read of the past, and new rows."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import shown
from tsllm.context import Context
from tsllm.covariates import Covariates
from tsllm.datasets.indexed import index_table
from tsllm.errors import DataError, ModelFormatError
from tsllm.forecasters.frames import join_covariates
from tsllm.forecasters.kept_rows import KeptRows


class StreamCovariates:
    """The last covariates of the series of a stream, and what the effects know of each series.

    Parameters
    ----------
    covariates : Covariates
        The fitted effects.
    contexts : sequence of Context
        The series, with their covariates and the scales of the effects.
    keep : int
        Steps to keep.
    """

    def __init__(self, covariates: Covariates, contexts: Sequence[Context], keep: int) -> None:
        self._covariates, self._keep = covariates, keep
        self._facts: list[dict[str, Any]] = []
        self._rows: KeptRows | None = None  # None where the series have attributes only
        self.add(contexts)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the rows; of texts and categories those of their references."""
        return 0 if self._rows is None else self._rows.nbytes

    def add(self, contexts: Sequence[Context]) -> None:
        """Add further series."""
        self._facts += [_facts_of(context) for context in contexts]
        histories = [one.past_x for one in contexts if one.past_x is not None]
        if not histories:
            return
        if self._rows is None:
            self._rows = KeptRows(histories, self._keep)
        else:
            self._rows.add(histories)

    def read_step(self, steps: Sequence[Context], places: np.ndarray, X: Any) -> list[Context]:
        """Return the steps of series with their rows of X, and with the facts of the series."""
        names = self._covariates.columns
        known = [self._facts[place] for place in places.tolist()]
        steps = [replace(one, **facts) for one, facts in zip(steps, known)]
        if X is None and not names.names:
            return list(steps)  # the attributes stay as they are
        if isinstance(X, pd.DataFrame):
            missing = [name for name in names.static if name not in set(map(str, X.columns))]
            X = X.assign(**{name: self._attribute(name, X, steps) for name in missing})
        return join_covariates(steps, X, self._covariates)

    def append(self, places: np.ndarray, steps: Sequence[Context]) -> None:
        """Append steps that `read_step` returned."""
        for place, step in zip(places.tolist(), steps):
            self._facts[place]["static"] = step.static
        if self._rows is not None:
            rows = [step.past_x for step in steps if step.past_x is not None]
            self._rows.append(places, np.concatenate(rows))

    def of(self, place: int, *, copied: bool) -> dict[str, Any]:
        """Return the fields of a context that hold the covariates of a series."""
        if self._rows is None:
            return self._facts[place]
        rows = self._rows.of(place)
        return {**self._facts[place], "past_x": rows.copy() if copied else rows}

    def _attribute(self, name: str, X: pd.DataFrame, steps: Sequence[Context]) -> list[Any]:
        """Return the known attribute of the series of each row of X."""
        known = {step.series_id: (step.static or {}).get(name) for step in steps}
        if not isinstance(X.index, pd.MultiIndex):
            return [known.get(None)] * len(X)
        return [known.get(series_id) for series_id in X.index.droplevel(-1)]

    # ------------------------------------------------------------------ saving

    def to_state(self) -> dict[str, Any]:
        """Return the rows as a table, so that numbers, categories and texts keep their kinds."""
        rows = None
        if self._rows is not None:
            kept = self._rows.to_state()
            table = pd.DataFrame(kept["steps"]).infer_objects()
            names = [f"covariate_{number}" for number in range(table.shape[1])]
            rows = {"table": table.set_axis(names, axis=1), "counts": kept["counts"]}
        return {"facts": self._facts, "rows": rows}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], covariates: Covariates, keep: int, count: int
    ) -> "StreamCovariates":
        """Build the covariates of so many series from the output of `to_state`."""
        own = cls(covariates, [], keep)
        own._facts = [dict(facts) for facts in state["facts"]]
        rows, width = state["rows"], len(covariates.columns.names)
        if rows is not None:
            kept = {"steps": rows["table"].to_numpy(), "counts": rows["counts"], "keep": keep}
            own._rows = KeptRows.from_state(kept)
        found = 0 if rows is None else rows["table"].shape[1]
        series = {len(own._facts), count} | ({len(own._rows)} if own._rows is not None else set())
        if found != width or series != {count}:
            raise ModelFormatError(
                f"the saved stream has {count} series with {width} covariates, and rows of another "
                "size: save it again"
            )
        return own


def _facts_of(context: Context) -> dict[str, Any]:
    """Return what the effects know of a series."""
    return {name: getattr(context, name) for name in ("static", "x_scale", "x_level")}


def rows_of_x(
    X: Any, series_ids: Sequence[Hashable], stamps: Sequence[pd.Index], names: Sequence[str]
) -> Any:
    """Return X indexed by series and time, as `update` and `predict` take it.

    Parameters
    ----------
    X : DataFrame, other table, mapping or None
        Rows with an index, or with columns of the series and times (``names``); or a mapping of the
        columns to the values of the rows, in the order of the series and their stamps.
    series_ids : sequence of hashable
        The series that are read; ``[None]`` for a single one.
    stamps : sequence of Index
        The stamps of the rows of each series.
    names : sequence of str
        The names of the levels of the index.

    Returns
    -------
    DataFrame or None
    """
    if isinstance(X, pd.Series) and X.index.inferred_type == "string" and type(X.name) is not str:
        raise DataError(
            f"X is a Series with the columns {shown(X.index.tolist())} of one row: pass the row as "
            "a table, such as X.iloc[[0]], or as a mapping, X.iloc[0].to_dict()"
        )
    if not isinstance(X, Mapping):
        return X if X is None else index_table(X, "X", names)
    columns = {name: _values_of(values) for name, values in X.items()}
    times = stamps[0].append(list(stamps[1:]))
    for name, values in columns.items():
        if len(values) != len(times):
            raise DataError(
                f"X has {len(values)} values of {name!r}, and {len(times)} are read: pass one for "
                "each series and step, in their order"
            )
    index: pd.Index = times
    if list(series_ids) != [None]:
        owners = [own for own, some in zip(series_ids, stamps) for _ in some]
        levels = [own if isinstance(own, tuple) else (own,) for own in owners]
        index = pd.MultiIndex.from_arrays([*zip(*levels), times])
    return pd.DataFrame({name: _column(v).set_axis(index) for name, v in columns.items()})


def _values_of(values: Any) -> list[Any]:
    """Return the values of a column as a list; a number, a text or an array without axes is one."""
    if np.ndim(values) > 0:
        return list(values)
    return [values.item() if hasattr(values, "ndim") else values]


def _column(values: Sequence[Any]) -> pd.Series:
    """Return values as a column of their kind."""
    column = pd.Series(values, dtype=object)
    try:
        return column.infer_objects()
    except OverflowError:  # a whole number that no float reaches, which the checks name
        return column


def refuse_covariates(X: object) -> None:
    """Raise an error if X is given to a stream of a model without covariates."""
    if X is not None:
        raise DataError(
            f"X was given ({shown(type(X).__name__)}) and the model was fitted without covariates: "
            "leave X out, or fit anew with X"
        )
