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

from tsllm.backbone import Backbone
from tsllm.errors import DataError
from tsllm.saving.api import load, save


@dataclass(frozen=True)
class Limits:
    """The limits of one request; larger ones are refused before anything is computed.

    Parameters
    ----------
    max_rows : int, default=1_000_000
        Rows of the request.
    max_horizon : int, default=10_000
        Steps to forecast, or events.
    max_values : int, default=10_000_000
        Numbers in the answer.
    max_concurrent : int or None, default=None
        Requests computed at the same time; others wait. None: the number of processors divided by
        torch's threads.
    """

    max_rows: int = 1_000_000
    max_horizon: int = 10_000
    max_values: int = 10_000_000
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

    def check_answer(self, series: int, horizon: int, numbers: int) -> None:
        """Check the size of an answer; ``numbers`` are those of one step."""
        if horizon > self.max_horizon:
            raise DataError(
                f"horizon={horizon:,} and this server forecasts up to {self.max_horizon:,} steps"
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
        if not len(request.columns):  # MLflow drops the columns that the signature does not know
            columns = self.columns(model)
            raise DataError(
                f"the request has none of the model's columns: send {', '.join(columns)}, or "
                f"{columns[0]} without rows for all that the model keeps"
            )
        limits.check_rows(len(request))
        horizon = params.get("horizon", self.default_horizon(model))
        quantiles = [float(q) for q in np.ravel(params.get("quantiles", self.default_quantiles))]
        return self.predict(model, request.reset_index(drop=True), horizon, quantiles, limits)
