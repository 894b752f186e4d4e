"""Methods of sktime for tables of polars and Arrow, which have no index.

y and X are indexed when they are read, and what is returned is a table of the kind of y again.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sktime.forecasting.base import BaseForecaster

from tsllm.datasets.foreign import TableKind, kind_of
from tsllm.datasets.indexed import index_table, index_tables

Given = ParamSpec("Given")
Own = TypeVar("Own", bound="TableCalls")
Result = TypeVar("Result")
# Whether a method of sktime calls another, which must return pandas' frames. Not an attribute:
# a forecast leaves the forecaster as it was.
_INSIDE: ContextVar[bool] = ContextVar("_INSIDE", default=False)


class TableCalls(BaseForecaster):
    """sktime's base class with what methods need to read and to return tables.

    A model that was loaded from a file has no kind: its results are of the kind of the X of the
    call, else pandas'.
    """

    _kind: TableKind | None = None  # of the y of the fit; None for pandas

    @abstractmethod
    def _index_names(self) -> list[str]:
        """Return the names of the levels of the index of the fit, the times last."""

    def _index_tables(self, y: Any, X: Any, *, trains: bool) -> tuple[Any, Any]:
        """Convert tables to sktime's form; after the fit, with the index of the fit."""
        if not trains:
            y = index_table(y, "y", self._index_names())
        return index_tables(y, X)


def in_kind_of_y(
    method: Callable[Concatenate[Own, Given], Result],
) -> Callable[Concatenate[Own, Given], Result]:
    """Convert what a method returns to the kind of the y of the fit, else of what it is given."""

    @wraps(method)
    def call(self: Own, *args: Given.args, **kwargs: Given.kwargs) -> Any:
        outermost = not _INSIDE.get()
        token = _INSIDE.set(True)
        try:
            result: Any = method(self, *args, **kwargs)
        finally:
            _INSIDE.reset(token)
        kinds = [kind_of(one) for one in (*args, *kwargs.values())]
        kind = self._kind or next((one for one in kinds if one is not None), None)
        if not outermost or kind is None or not hasattr(result, "rename_axis"):
            return result
        names = self._index_names()
        return kind.give(result.rename_axis(index=names if len(names) > 1 else names[0]), names)

    return call
