"""The base of every kind of served model.

A new kind is a file with one subclass of `ServedKind`, and a line in `tsllm.mlflow.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from sklearn.utils.validation import check_is_fitted

from tsllm.backbone import Backbone
from tsllm.errors import DataError
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.requests import Asked, read_parameters, read_table, with_left_out
from tsllm.saving.api import load, save


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
        self, model: Any, request: pd.DataFrame, asked: Asked, limits: Limits
    ) -> pd.DataFrame:
        """Compute the answer to a request that `answer` has checked."""

    def check_fitted(self, model: Any) -> None:
        """Raise where a model is not fitted."""
        check_is_fitted(model)

    def save(self, model: Any, directory: Path, *, include_context: bool) -> None:
        """Save a model without its language model."""
        save(model, directory, include_context=include_context)

    def load(
        self, directory: Path, *, device: str | None, backbone: str | None, allow_download: bool
    ) -> Any:
        """Load a model of this kind.

        Raises
        ------
        DataError
            The directory holds a model of another kind.
        """
        model = load(directory, device=device, backbone=backbone, allow_download=allow_download)
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
                ParamSpec("on_error", DataType.string, "raise"),
            ]
        )
        return ModelSignature(inputs=Schema(columns), params=params)

    def answer(
        self, model: Any, request: object, params: Mapping[str, Any], limits: Limits
    ) -> pd.DataFrame:
        """Predict what a request asks for; safe to call from many threads.

        Raises
        ------
        DataError
            The request cannot be answered; the sentence is the client's answer.
        """
        asked = read_parameters(
            params,
            limits,
            default_horizon=self.default_horizon(model),
            default_quantiles=self.default_quantiles,
        )
        table = read_table(
            request, limits, columns=self.columns(model), cell_kinds=self.cell_kinds(model)
        )
        answer = self.predict(model, table, asked, limits)
        return with_left_out(answer, asked.skipped)
