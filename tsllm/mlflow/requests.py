"""The reading of a request: its table, its parameters, and the series that are left out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsllm.arguments import shown, wanted_instead
from tsllm.backbone.stopping import check_time
from tsllm.datasets.bad_series import Result, SkippedSeries, skipping
from tsllm.errors import DataError
from tsllm.mlflow.csv_requests import is_text, read_cells
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.sentences import for_client
from tsllm.tables.forecast import check_request

#: The parameters of a request.
PARAMETERS = ("horizon", "quantiles", "on_error")
#: The column of an answer with the reason why a series was left out.
ERROR = "error"


class Asked(NamedTuple):
    """The parameters of a request, checked."""

    horizon: int
    quantiles: list[float]
    skipped: SkippedSeries | None  # collects the series that are left out; None: they are errors


class _TimedSkips(SkippedSeries):
    """Bad series, found within the time of the request."""

    def each(self, names: Sequence[str], work: Callable[[list[str]], Result]) -> list[Result]:
        """Do ``work`` for all series that it accepts, until the deadline."""

        def timed(some: list[str]) -> Result:
            check_time()
            return work(some)

        return super().each(names, timed)


def read_parameters(
    params: Mapping[str, Any],
    limits: Limits,
    *,
    default_horizon: int,
    default_quantiles: Sequence[float],
) -> Asked:
    """Read and check the parameters of a request.

    Raises
    ------
    DataError
        A parameter is unknown, of the wrong kind, or beyond the limits.
    """
    if unknown := [name for name in params if name not in PARAMETERS]:
        raise DataError(
            f"the request has the parameter {shown(unknown[0])} and this server reads "
            f"{', '.join(PARAMETERS)}: leave it out"
        )
    horizon = params.get("horizon", default_horizon)
    if wanted_instead(horizon, int):
        raise DataError(
            f"horizon must be a whole number of steps, at least 1, found {shown(horizon)}"
        )
    quantiles = params.get("quantiles", list(default_quantiles))
    if isinstance(quantiles, np.ndarray):
        quantiles = quantiles.tolist()
    if not isinstance(quantiles, list | tuple):
        raise DataError(
            f"quantiles must be a list of numbers between 0 and 1, found {shown(quantiles)}"
        )
    limits.check_parameters(horizon, len(quantiles))
    check_request(horizon, quantiles)
    on_error = params.get("on_error", "raise")
    skipped = skipping(on_error if isinstance(on_error, str) else shown(on_error))
    return Asked(
        int(horizon), [float(q) for q in quantiles], None if skipped is None else _TimedSkips()
    )


def read_table(
    request: object,
    limits: Limits,
    *,
    columns: Sequence[str],
    cell_kinds: Mapping[str, Collection[str]],
) -> pd.DataFrame:
    """Check the table of a request and keep the columns that a model reads.

    Parameters
    ----------
    request : object
        A frame; from CSV with cells of text.
    limits : Limits
    columns : sequence of str
        The columns of the model; the first names the series.
    cell_kinds : mapping
        The columns of numbers, times and marks, for cells of text; see `read_cells`.

    Raises
    ------
    DataError
        It is no table, too large, or names no series; the message names row and column.
    """
    if not isinstance(request, pd.DataFrame):
        raise DataError(f"the request is a {type(request).__name__} and must be a table")
    limits.check_rows(len(request))
    text = is_text(request)
    if any(name is not None for name in request.index.names):
        request = request.reset_index()  # Parquet keeps an index of pandas
    request = request.set_axis(request.columns.map(str), axis=1).reset_index(drop=True)
    if twice := request.columns[request.columns.duplicated()].intersection(list(columns)).tolist():
        raise DataError(f"the request has two columns {twice[0]!r}: leave one out")
    request = request[[name for name in request if name in columns]]
    request = request.astype({n: object for n, kind in request.dtypes.items() if kind.kind == "S"})
    if not len(request.columns):
        raise DataError(
            f"the request has none of the model's columns: send {', '.join(columns)}, or "
            f"{columns[0]} without rows for all that the model keeps"
        )
    if text:
        request = read_cells(request, **cell_kinds)
    _check_names(request, columns[0])
    return request


def check_has_rows(request: pd.DataFrame, columns: Sequence[str], id_col: str) -> None:
    """Check that a request with any of the columns has rows; without rows it would ask for all.

    ``columns`` are those of histories, and ``id_col`` names the series.
    """
    there = [name for name in columns if name in request]
    if there and not len(request):
        raise DataError(
            f"the request has the column {there[0]!r} and no rows: send rows, or {id_col} alone "
            "without rows for all that the model keeps"
        )


def with_left_out(answer: pd.DataFrame, skipped: SkippedSeries | None) -> pd.DataFrame:
    """Add a row for each series that was left out, with the reason in the column ``error``.

    The column is there whenever the request asked for it.
    """
    if skipped is None:
        return answer
    answer = answer.assign(**{ERROR: pd.Series(None, index=answer.index, dtype=object)})
    if not skipped.reasons:
        return answer
    reasons = {name: for_client(reason) for name, reason in skipped.reasons.items()}
    rows = pd.DataFrame({answer.columns[0]: list(reasons), ERROR: list(reasons.values())})
    whole = answer.select_dtypes("integer").columns  # beside missing values they would be floats
    return pd.concat([answer.astype(dict.fromkeys(whole, object)), rows], ignore_index=True)


def _check_names(request: pd.DataFrame, column: str) -> None:
    """Check that the names of the series are text or whole numbers, or missing."""
    if column not in request:
        return
    cells = request[column]
    if pd.api.types.is_integer_dtype(cells.dtype) or isinstance(cells.dtype, pd.StringDtype):
        return
    for row, cell in enumerate(cells):
        missing = pd.api.types.is_scalar(cell) and pd.isna(cell)
        whole = isinstance(cell, int | np.integer) and not isinstance(cell, bool)
        if not (missing or whole or isinstance(cell, str)):
            raise DataError(
                f"row {row}, column {column!r} holds {shown(cell)}, which is no name: send text, "
                "or a whole number"
            )
