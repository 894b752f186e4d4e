"""What a kind of model must be able to do to be served, and the kinds there are.

A new kind is a file with one subclass of `ServedKind`, and a line in `kinds`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from mlflow.models import ModelSignature

from tsllm.errors import DataError, ModelFormatError


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for; what is beyond is refused before anything is computed.

    Attributes
    ----------
    max_rows : int
        Rows of the request.
    max_horizon : int
        Steps (of events: events) asked for.
    max_values : int
        Numbers in the answer.
    max_concurrent : int or None
        Requests computed at the same time, others wait. None: as many as there are processors for
        torch's threads; more would only hinder each other.
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
        """Refuse a request with too many rows."""
        if rows > self.max_rows:
            raise DataError(
                f"the request has {rows:,} rows and this server takes {self.max_rows:,}: send "
                "fewer series at a time, or shorter histories"
            )

    def check_answer(self, series: int, horizon: int, numbers: int) -> None:
        """Refuse a request with too long an answer; ``numbers`` are those of one step."""
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

    #: Its name in a saved model's files.
    name: ClassVar[str]

    @abstractmethod
    def owns(self, model: object) -> bool:
        """Tell whether a model is of this kind."""

    @abstractmethod
    def save(self, model: Any, directory: Path, *, include_context: bool) -> None:
        """Save a model without its language model."""

    @abstractmethod
    def load(self, directory: Path, *, device: str | None, backbone: str | None) -> Any:
        """Load what `save` wrote; no class is made by a name that a file holds."""

    @abstractmethod
    def backbone(self, model: Any) -> Any:
        """Give the model's `tsllm.Backbone`, None where it has none."""

    @abstractmethod
    def signature(self, model: Any) -> ModelSignature:
        """Say what a request holds, and what an answer."""

    @abstractmethod
    def input_example(self, model: Any) -> pd.DataFrame:
        """Give a small request."""

    @abstractmethod
    def columns(self, model: Any) -> list[str]:
        """Name the columns of a request; the first names what is predicted."""

    @abstractmethod
    def predict(
        self, model: Any, request: pd.DataFrame, params: Mapping[str, Any], limits: Limits
    ) -> pd.DataFrame:
        """Answer a request that `answer` has let in."""

    def answer(
        self, model: Any, request: pd.DataFrame, params: Mapping[str, Any], limits: Limits
    ) -> pd.DataFrame:
        """Answer a request, from many threads at once.

        Raises
        ------
        DataError
            What is asked for cannot be done; the sentence is the client's answer.
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
        return self.predict(model, request, params, limits)


def kinds() -> dict[str, ServedKind]:
    """List the kinds of models by name."""
    from tsllm.mlflow.events import ServedEvents
    from tsllm.mlflow.series import ServedSeries

    return {kind.name: kind for kind in (ServedSeries(), ServedEvents())}


def kind_of(model: object) -> ServedKind:
    """Find the kind of a model.

    Raises
    ------
    DataError
        It is none of tsllm's.
    """
    for kind in kinds().values():
        if kind.owns(model):
            return kind
    raise DataError(
        f"a {type(model).__name__} is no model of tsllm: pass a fitted forecaster, not a pipeline "
        "around one"
    )


def kind_named(name: object) -> ServedKind:
    """Find a kind by the name in a saved model's files.

    Raises
    ------
    ModelFormatError
        This version does not know it.
    """
    known = kinds()
    if not isinstance(name, str) or name not in known:
        raise ModelFormatError(
            f"the model is of the kind {name!r} and this tsllm serves {', '.join(known)}: load it "
            "with the version that saved it"
        )
    return known[name]
