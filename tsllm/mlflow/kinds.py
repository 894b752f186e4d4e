"""The base of every kind of served model, and the limits of one request.

A new kind is a file with one subclass of `ServedKind`, and a line in `tsllm.mlflow.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from sklearn.utils.validation import check_is_fitted

from tsllm.arguments import wanted_instead
from tsllm.backbone import Backbone
from tsllm.errors import DataError
from tsllm.mlflow.csv_requests import is_text, read_cells
from tsllm.saving.api import load, save
from tsllm.tables.forecast import check_request

#: The parameters of a request.
PARAMETERS = ("horizon", "quantiles")
_LONGEST = 100  # characters of a client's value in a sentence


@dataclass(frozen=True)
class Limits:
    """The limits of one request; larger ones are refused before anything is computed.

    Parameters
    ----------
    max_rows : int, default=1_000_000
        Rows of the request.
    max_series : int, default=10_000
        Series to forecast, or sequences of events.
    max_horizon : int, default=10_000
        Steps to forecast, or events.
    max_quantiles : int, default=100
        Quantiles of each step.
    max_values : int, default=1_000_000
        Numbers in the answer.
    max_seconds : int, default=50
        Seconds until a request is stopped, its wait for others included. MLflow's server answers
        after 60 seconds with 504 (``MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT``); behind it a request
        has 5/6 of that time at most.
    max_concurrent : int or None, default=None
        Requests computed at the same time; others wait. None: the number of processors divided by
        torch's threads.
    """

    max_rows: int = 1_000_000
    max_series: int = 10_000
    max_horizon: int = 10_000
    max_quantiles: int = 100
    max_values: int = 1_000_000
    max_seconds: int = 50
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "max_concurrent" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DataError(f"{field.name} must be a whole number, at least 1, found {value!r}")

    def check_rows(self, rows: int) -> None:
        """Check the number of rows of a request."""
        if rows > self.max_rows:
            raise DataError(
                f"the request has {rows:,} rows and this server takes {self.max_rows:,}: send "
                "fewer series at a time, or shorter histories"
            )

    def check_parameters(self, horizon: int, quantiles: int) -> None:
        """Check the horizon and the number of quantiles of a request."""
        if horizon > self.max_horizon:
            raise DataError(
                f"horizon={shown(horizon)} and this server forecasts up to {self.max_horizon:,} "
                "steps"
            )
        if quantiles > self.max_quantiles:
            raise DataError(
                f"the request asks for {quantiles:,} quantiles and this server computes up to "
                f"{self.max_quantiles:,}"
            )

    def check_answer(self, series: int, horizon: int, numbers: int) -> None:
        """Check the size of an answer; ``numbers`` are those of one step."""
        if series > self.max_series:
            raise DataError(
                f"the request asks for {series:,} series and this server forecasts up to "
                f"{self.max_series:,} at a time: send fewer"
            )
        if series * horizon * numbers > self.max_values:
            raise DataError(
                f"the answer would hold {series * horizon * numbers:,} numbers and this server "
                f"sends {self.max_values:,}: ask for fewer series, steps or quantiles at a time"
            )


class ServedKind(ABC):
    """One kind of model: how it is saved, described and asked."""

    #: The name in a saved model's files.
    name: ClassVar[str]
    #: The base class of its models.
    models: ClassVar[type]
    #: The quantiles of a request that names none.
    default_quantiles: ClassVar[tuple[float, ...]]

    @abstractmethod
    def backbone(self, model: Any) -> Backbone | None:
        """Return the model's language model, None where it has none."""

    @abstractmethod
    def input_example(self, model: Any) -> pd.DataFrame:
        """Build a small request."""

    @abstractmethod
    def columns(self, model: Any) -> list[str]:
        """List the columns of a request; the first names what is predicted."""

    @abstractmethod
    def cell_kinds(self, model: Any) -> dict[str, list[str]]:
        """List the columns of numbers, times and marks, as arguments of `read_cells`."""

    @abstractmethod
    def default_horizon(self, model: Any) -> int:
        """Return the horizon of a request that names none."""

    @abstractmethod
    def predict(
        self,
        model: Any,
        request: pd.DataFrame,
        horizon: int,
        quantiles: Sequence[float],
        limits: Limits,
    ) -> pd.DataFrame:
        """Compute the answer to a request that `answer` has checked."""

    def check_fitted(self, model: Any) -> None:
        """Raise where a model is not fitted."""
        check_is_fitted(model)

    def save(self, model: Any, directory: Path, *, include_context: bool) -> None:
        """Save a model without its language model."""
        save(model, directory, include_context=include_context)

    def load(self, directory: Path, *, device: str | None, backbone: str | None) -> Any:
        """Load a model of this kind.

        Raises
        ------
        DataError
            The directory holds a model of another kind.
        """
        model = load(directory, device=device, backbone=backbone)
        if not isinstance(model, self.models):
            raise DataError(
                f"{directory} holds a {type(model).__name__}, which is no model of {self.name}"
            )
        return model

    def signature(self, model: Any) -> ModelSignature:
        """Describe the columns of a request and its parameters."""
        # Any type, and nothing required: MLflow would refuse whole numbers, integer names and time
        # zones before tsllm could say in one sentence what is wrong.
        columns = [ColSpec(AnyType(), name, required=False) for name in self.columns(model)]
        params = ParamSchema(
            [
                ParamSpec("horizon", DataType.long, self.default_horizon(model)),
                ParamSpec("quantiles", DataType.double, list(self.default_quantiles), shape=(-1,)),
            ]
        )
        return ModelSignature(inputs=Schema(columns), params=params)

    def answer(
        self, model: Any, request: pd.DataFrame, params: Mapping[str, Any], limits: Limits
    ) -> pd.DataFrame:
        """Predict what a request asks for; safe to call from many threads.

        Raises
        ------
        DataError
            The request cannot be answered; the sentence is the client's answer.
        """
        if not isinstance(request, pd.DataFrame):
            raise DataError(f"the request is a {type(request).__name__} and must be a table")
        horizon, quantiles = self._parameters(model, params, limits)
        limits.check_rows(len(request))
        if any(name is not None for name in request.index.names):
            request = request.reset_index()  # Parquet keeps an index of pandas
        text = is_text(request)
        request = request.set_axis(request.columns.map(str), axis=1).reset_index(drop=True)
        known = self.columns(model)
        if twice := request.columns[request.columns.duplicated()].intersection(known).tolist():
            raise DataError(f"the request has two columns {twice[0]!r}: leave one out")
        request = request[[name for name in request if name in known]]
        if not len(request.columns):
            raise DataError(
                f"the request has none of the model's columns: send {', '.join(known)}, or "
                f"{known[0]} without rows for all that the model keeps"
            )
        if text:
            request = read_cells(request, **self.cell_kinds(model))
        check_names(request, known[0])
        answer = self.predict(model, request, horizon, quantiles, limits)
        _check_finite(answer)
        return answer

    def _parameters(
        self, model: Any, params: Mapping[str, Any], limits: Limits
    ) -> tuple[int, list[float]]:
        """Read the parameters of a request: horizon and quantiles."""
        if unknown := [name for name in params if name not in PARAMETERS]:
            raise DataError(
                f"the request has the parameter {shown(unknown[0])} and this server reads "
                f"{' and '.join(PARAMETERS)}: leave it out"
            )
        horizon = params.get("horizon", self.default_horizon(model))
        if wanted_instead(horizon, int):
            raise DataError(
                f"horizon must be a whole number of steps, at least 1, found {shown(horizon)}"
            )
        quantiles = params.get("quantiles", self.default_quantiles)
        if isinstance(quantiles, np.ndarray):
            quantiles = quantiles.tolist()
        if not isinstance(quantiles, list | tuple):
            raise DataError(
                f"quantiles must be a list of numbers between 0 and 1, found {shown(quantiles)}"
            )
        limits.check_parameters(horizon, len(quantiles))
        check_request(horizon, quantiles)
        return int(horizon), [float(q) for q in quantiles]


def shown(value: object) -> str:
    """Show a value of a request in a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_names(request: pd.DataFrame, column: str) -> None:
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


def _check_finite(answer: pd.DataFrame) -> None:
    """Check that an answer holds no infinite number, which JSON cannot write."""
    numbers = answer.select_dtypes("number")
    bad = np.isinf(numbers.to_numpy(dtype=float)).any(axis=1)
    if bad.any():
        name = answer.iloc[int(bad.argmax()), 0]
        raise DataError(
            f"the forecast of {shown(name)} is too large for a number: send values of less than "
            "1e150, for example in larger units"
        )
