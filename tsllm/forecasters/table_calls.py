"""Methods of sktime for tables of polars and Arrow, which have no index.

y and X are indexed when they are read, and what is returned is a table of the kind of y again.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sktime.forecasting.base import BaseForecaster

from tsllm.datasets.foreign import TableKind, kind_of
from tsllm.datasets.indexed import index_table, index_tables

Given = ParamSpec("Given")
Own = TypeVar("Own", bound="TableCalls")
Result = TypeVar("Result")


class TableCalls(BaseForecaster):
    """sktime's base class with what methods need to read and to return tables.

    A model that was loaded from a file has no kind: its results are of the kind of the X of the
    call, else pandas'.
    """

    _kind: TableKind | None = None  # of the y of the fit; None for pandas
    _in_a_call: bool = False  # whether a method of sktime calls another, which needs pandas

    @abstractmethod
    def _index_names(self) -> list[str]:
        """Return the names of the levels of the index of the fit, the times last."""

    def _index_tables(self, y: Any, X: Any, *, trains: bool) -> tuple[Any, Any]:
        """Convert tables to sktime's form; after the fit, with the index of the fit."""
        if not trains:
            y = index_table(y, "y", self._index_names())
        return index_tables(y, X)

    @contextmanager
    def _in_pandas(self) -> Iterator[None]:
        """Let the methods that a method calls return pandas' frames."""
        before, self._in_a_call = self._in_a_call, True
        try:
            yield
        finally:
            self._in_a_call = before


def in_kind_of_y(
    method: Callable[Concatenate[Own, Given], Result],
) -> Callable[Concatenate[Own, Given], Result]:
    """Convert what a method returns to the kind of the y of the fit, else of what it is given."""

    @wraps(method)
    def call(self: Own, *args: Given.args, **kwargs: Given.kwargs) -> Any:
        outermost = not self._in_a_call
        with self._in_pandas():
            result: Any = method(self, *args, **kwargs)
        kinds = [kind_of(one) for one in (*args, *kwargs.values())]
        kind = self._kind or next((one for one in kinds if one is not None), None)
        if not outermost or kind is None or not hasattr(result, "rename_axis"):
            return result
        names = self._index_names()
        return kind.give(result.rename_axis(index=names if len(names) > 1 else names[0]), names)

    return call
