"""The tables of a forecast as pictures and pages read them: checked, and cut by series once."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.errors import DataError
from tsllm.plotting.style import list_names


class ForecastTables:
    """A history, its forecast, and the covariates of the steps ahead, by series.

    Identifiers and times are in the columns that the forecast has them in, or in ``series_id`` and
    ``timestamp``. A table without identifiers is one series. Series are found by the text of their
    identifier.

    Parameters
    ----------
    history : DataFrame
        Long format: identifiers, times, value columns, and any covariates.
    forecast : DataFrame
        As `tsllm.forecast` returns it.
    future : DataFrame or None, default=None
        The covariates of the steps to forecast, in the form of ``history``.

    Raises
    ------
    DataError
        A table is no DataFrame, has no row, or not the columns that are read.
    """

    def __init__(
        self, history: pd.DataFrame, forecast: pd.DataFrame, future: pd.DataFrame | None = None
    ) -> None:
        for name, frame in (("history", history), ("forecast", forecast)):
            if not isinstance(frame, pd.DataFrame):
                raise DataError(f"{name} must be a DataFrame, found {type(frame).__name__}")
        if "forecast" not in forecast.columns or len(forecast.columns) < 3 or forecast.empty:
            raise DataError(
                "forecast must be a table of tsllm.forecast with a column 'forecast' and a row"
            )
        self.history, self.forecast = history, forecast
        #: The columns of identifiers and times of the forecast.
        self.id_col, self.time_col = str(forecast.columns[0]), str(forecast.columns[1])
        #: Whether the forecast names its variables.
        self.several = "variable" in forecast.columns
        #: The identifiers in the order of the forecast.
        self.series: list[Any] = forecast[self.id_col].unique().tolist()
        names = (self.id_col, "series_id")
        self._past, self._ahead = _Rows(history, names), _Rows(forecast, names)
        self._later = None if future is None else _Rows(future, names)

    def past(self, series_id: object) -> pd.DataFrame:
        """Return the history of a series."""
        return self._past.of(series_id)

    def first_past(self) -> pd.DataFrame:
        """Return the history of its first series."""
        return self._past.first()

    def ahead(self, series_id: object, variable: str) -> pd.DataFrame:
        """Return the forecast of a variable of a series."""
        own = self._ahead.of(series_id)
        return own[own["variable"] == variable] if self.several else own

    def later(self, series_id: object) -> pd.DataFrame | None:
        """Return the covariates of the steps ahead of a series; None without any."""
        return None if self._later is None else self._later.of(series_id)

    def times(self, rows: pd.DataFrame) -> pd.Series:
        """Return the times of rows of the history or the future; ISO texts become stamps."""
        name = next((one for one in (self.time_col, "timestamp") if one in rows.columns), None)
        if name is None:
            raise DataError(
                f"history has no column {self.time_col!r} with its times: pass the table that was "
                "forecast"
            )
        times: pd.Series = rows[name]
        if not pd.api.types.is_string_dtype(times.dtype):
            return times
        try:
            return pd.to_datetime(times, format="ISO8601")
        except ValueError as error:
            raise DataError(
                f"the column {name!r} of history holds texts that are no ISO times: read the table "
                "with tsllm.datasets.read_long"
            ) from error

    def variables(self, wanted: Sequence[str] | None, name: str) -> list[str]:
        """Return the value columns to show; ``name`` is that of the argument ``wanted``.

        None: all that are forecast. A forecast of one column does not name it: it is ``value``,
        ``y``, ``target`` or the first of numbers in the history.
        """
        if self.several:
            return chosen_names(wanted, self.forecast["variable"].unique().tolist(), name)
        numbers = [c for c in self._others if pd.api.types.is_numeric_dtype(self.history[c].dtype)]
        if not numbers:
            raise DataError("history has no column of numbers beside identifiers and times")
        if wanted is not None:
            return chosen_names(wanted, numbers, name)
        usual = [c for c in ("value", "y", "target") if c in numbers]
        return [*usual, *numbers][:1]

    def flags(self, variable: str, wanted: Sequence[str] | None, *, most: int) -> list[str]:
        """Return the columns of 0 and 1 to mark beside a variable; None: the first ``most``."""
        if wanted is None:
            return [c for c in self._flags if c != variable][:most]
        others = [c for c in self._others if c != variable]
        for name in wanted:
            if name not in others:
                raise DataError(
                    f"marks names {name!r}, which history has not: choose among "
                    f"{', '.join(map(str, others)) or 'no columns'}"
                )
        return list(wanted)

    @functools.cached_property
    def _others(self) -> list[str]:
        """The columns of the history besides identifiers and times."""
        keys = {self.id_col, self.time_col, "series_id", "timestamp"}
        return [c for c in self.history.columns if c not in keys]

    @functools.cached_property
    def _flags(self) -> list[str]:
        """The columns of the history that hold 0 and 1, both of them and nothing else."""
        return [c for c in self._others if _is_flag(self.history[c])]


class _Rows:
    """A long table whose rows are found by series."""

    def __init__(self, frame: pd.DataFrame, id_cols: Sequence[str]) -> None:
        self._frame = frame
        self._id_col = name = next((one for one in id_cols if one in frame.columns), None)
        self._places: dict[Any, Any] | None = None
        if name is not None:
            # Texts of the identifiers, not of the rows, which may be millions.
            codes, known = pd.factorize(frame[name], use_na_sentinel=False)
            texts = np.array([str(one) for one in known], dtype=object)
            self._places = pd.Series(texts[codes], dtype=object).groupby(texts[codes]).indices

    def first(self) -> pd.DataFrame:
        """Return the rows of the first series."""
        if self._id_col is None or self._frame.empty:
            return self._frame
        return self.of(self._frame[self._id_col].iloc[0])

    def of(self, series_id: object) -> pd.DataFrame:
        """Return the rows of one series; a table without identifiers is one series."""
        if self._places is None:
            return self._frame
        return self._frame.iloc[self._places.get(str(series_id), np.empty(0, dtype=int))]


def chosen_names(wanted: Sequence[Any] | None, known: Sequence[Any], name: str) -> list[Any]:
    """Return the wanted names, all of which are known; None: all."""
    if wanted is None:
        return list(known)
    if isinstance(wanted, str):
        wanted = [wanted]
    for one in wanted:
        if one not in known:
            raise DataError(
                f"{name}={one!r} is not among the forecasts: choose among {list_names(known, 8)}"
            )
    return list(wanted)


def _is_flag(column: pd.Series) -> bool:
    """Check that a column holds 0 and 1, both of them and nothing else."""
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return False
    return set(column.dropna().astype(float).unique().tolist()) == {0.0, 1.0}
