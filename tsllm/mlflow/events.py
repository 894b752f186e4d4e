"""Event models served: the events so far in, the next events out.

A request is a table with the columns that the model was fitted with, by default

- ``sequence_id``, optional: without it all rows are one sequence;
- ``time``: timestamps or numbers, as in training;
- ``type``: one of the types that the model knows;
- ``window_start`` and ``window_end``, optional: from when to when each sequence was observed. The
  end says that nothing has happened since the last event until then.

Each sequence is predicted from the events that the request holds; the model need not have seen it.
Rows with a ``sequence_id`` only ask for the next events of a sequence that the model keeps, and the
column ``sequence_id`` without rows asks for all that it keeps. Parameters: ``horizon``, how many
events ahead (default 1), and ``quantiles`` of their times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from sklearn.utils.validation import check_is_fitted

from tsllm.backbone import Backbone
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.base import EventForecaster
from tsllm.mlflow.kinds import Limits, ServedKind
from tsllm.saving.api import load, save

DEFAULT_QUANTILES = (0.1, 0.9)
_WINDOW = ("window_start", "window_end")
#: Columns of an answer beside the quantiles: step, two times, type, probability, no_event.
_COLUMNS = 6


class ServedEvents(ServedKind):
    """The event forecasters of `tsllm.events`."""

    name = "events"

    def owns(self, model: object) -> bool:
        """Tell whether a model is one of tsllm's event forecasters."""
        return isinstance(model, EventForecaster)

    def save(self, model: EventForecaster, directory: Path, *, include_context: bool) -> None:
        """Save a fitted model, as `tsllm.save` does."""
        check_is_fitted(model)
        save(model, directory, include_context=include_context)

    def load(self, directory: Path, *, device: str | None, backbone: str | None) -> EventForecaster:
        """Load what `save` wrote."""
        model = load(directory, device=device, backbone=backbone)
        if not isinstance(model, EventForecaster):
            raise DataError(f"{directory} holds a {type(model).__name__}, which is no event model")
        return model

    def backbone(self, model: EventForecaster) -> Backbone | None:
        """Give the language model, None where there is none."""
        return model._load_backbone()

    def columns(self, model: EventForecaster) -> list[str]:
        """Name the columns of a request."""
        names = model.history_.names
        return [names.id_col, names.time_col, names.type_col, *_WINDOW]

    def signature(self, model: EventForecaster) -> ModelSignature:
        """Name the columns of a request and its parameters."""
        # Any type, and nothing required: what is wrong is said by tsllm, in one sentence.
        columns = [ColSpec(AnyType(), name, required=False) for name in self.columns(model)]
        params = ParamSchema(
            [
                ParamSpec("horizon", DataType.long, 1),
                ParamSpec("quantiles", DataType.double, list(DEFAULT_QUANTILES), shape=(-1,)),
            ]
        )
        return ModelSignature(inputs=Schema(columns), params=params)

    def input_example(self, model: EventForecaster) -> pd.DataFrame:
        """Give a short history of one sequence."""
        names, clock = model.history_.names, model.history_.clock
        times = np.arange(1, 5) * model.time_scale_
        stamps = pd.Series(clock.to_stamp(times))
        if not pd.api.types.is_numeric_dtype(stamps):
            stamps = stamps.astype(str)
        types = [str(model.classes_[i % len(model.classes_)]) for i in range(len(times))]
        return pd.DataFrame(
            {names.id_col: ["a"] * len(times), names.time_col: stamps, names.type_col: types}
        )

    def predict(
        self,
        model: EventForecaster,
        request: pd.DataFrame,
        params: Mapping[str, Any],
        limits: Limits,
    ) -> pd.DataFrame:
        """Predict the next events of a request's sequences; see the head of this file."""
        horizon = params.get("horizon", 1)
        levels = [float(q) for q in np.ravel(params.get("quantiles", DEFAULT_QUANTILES))]
        history = _history(model, request)
        limits.check_answer(len(history), int(horizon), _COLUMNS + len(levels))
        answer = model.predict(history, n_steps=int(horizon), levels=levels)
        # JSON knows no infinity: a time that never comes is missing, as no_event says.
        numbers = answer.select_dtypes("number").columns
        answer[numbers] = answer[numbers].replace([np.inf, -np.inf], np.nan)
        return answer


def _history(model: EventForecaster, request: pd.DataFrame) -> EventTable:
    """Read the histories of a request, or take those that the model keeps."""
    kept, names = model.history_, model.history_.names
    request = request.reset_index(drop=True)
    told = [column for column in (names.time_col, names.type_col, *_WINDOW) if column in request]
    if not len(request) or not request[told].notna().to_numpy().any():
        return kept if not len(request) else kept.select(_asked(request, names.id_col))
    for column in (names.time_col, names.type_col):
        if column not in request:
            raise DataError(
                f"the request has no column {column!r}: send {names.time_col} and "
                f"{names.type_col}, and {names.id_col} where there are several sequences"
            )
    named = names.id_col in request and bool(request[names.id_col].notna().any())
    windows = [column for column in _WINDOW if column in request and request[column].notna().any()]
    used = [*([names.id_col] if named else []), names.time_col, names.type_col, *windows]
    return model._read(request[used])


def _asked(request: pd.DataFrame, id_col: str) -> Sequence[Any]:
    """Give the sequences that are asked for by name."""
    if id_col not in request or request[id_col].isna().any():
        raise DataError(f"the rows hold neither events nor a {id_col}: send one of them in each")
    return list(dict.fromkeys(request[id_col]))
