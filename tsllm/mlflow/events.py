"""Serving of event models: the request holds past events, the answer the next events.

A request is a table with the columns that the model was fitted with, by default

- ``sequence_id``, optional: without it all rows are one sequence;
- ``time``: timestamps or numbers, as in training;
- ``type``: one of the types that the model knows;
- ``window_start`` and ``window_end``, optional: the time during which each sequence was observed.
  No event happened between the last one and ``window_end``.

A row may also be a whole sequence as EasyTPP writes it, with the lists ``time_since_start`` and
``type_event`` and, optional, ``seq_idx``, ``dim_process`` and the window.

Each sequence is predicted from the events in the request; the model need not have seen it. Rows
with only a ``sequence_id`` ask for the next events of a sequence that the model keeps, and the
column ``sequence_id`` without rows asks for all that it keeps. Parameters: ``horizon``, the number
of events ahead (default 1), ``quantiles`` of their times, and ``on_error`` as for series.
"""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import pandas as pd

from tsllm.backbone import Backbone
from tsllm.datasets.events import EventTable
from tsllm.datasets.events.nested import TIME, TYPE, holds_lists
from tsllm.errors import DataError
from tsllm.events.base import EventForecaster
from tsllm.mlflow.kinds import ServedKind
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.requests import Asked, check_has_rows

_WINDOW = ("window_start", "window_end")
#: Fields of a row that is a whole sequence.
_RECORD = (TIME, TYPE, "seq_idx", "dim_process")
#: Columns of an answer beside the quantiles: step, two times, type, probability, no_event.
_COLUMNS = 6


class ServedEvents(ServedKind):
    """The event forecasters of `tsllm.events`."""

    name, models = "events", EventForecaster
    default_quantiles = (0.1, 0.9)

    def backbone(self, model: EventForecaster) -> Backbone | None:
        """Return the language model, None where there is none."""
        return model._load_backbone()

    def columns(self, model: EventForecaster) -> list[str]:
        """List the columns of a request."""
        names = model.history_.names
        return [names.id_col, names.time_col, names.type_col, *_WINDOW, *_RECORD]

    def cell_kinds(self, model: EventForecaster) -> dict[str, list[str]]:
        """List the columns of numbers, times and marks."""
        times = [model.history_.names.time_col, *_WINDOW]
        stamps = model.history_.clock.is_stamps
        return {"numbers": [] if stamps else times, "times": times, "marks": []}

    def default_horizon(self, model: EventForecaster) -> int:
        """Return the horizon of a request that names none: the next event."""
        return 1

    def input_example(self, model: EventForecaster) -> pd.DataFrame:
        """Build a short history of one sequence."""
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
        self, model: EventForecaster, request: pd.DataFrame, asked: Asked, limits: Limits
    ) -> pd.DataFrame:
        """Predict the next events of a request's sequences; see the head of this file."""
        horizon, quantiles, skipped = asked
        named = model.history_.names.id_col

        def predict(rows: pd.DataFrame) -> pd.DataFrame:
            history = _history(model, rows, limits)
            limits.check_answer(len(history), horizon, _COLUMNS + len(quantiles))
            return model.predict(history, n_steps=horizon, levels=quantiles)

        if skipped is None or named not in request or not request[named].notna().all():
            answer = predict(request)
        else:
            names = request[named].astype(str)
            limits.check_answer(names.nunique(), horizon, _COLUMNS + len(quantiles))
            parts = skipped.each(
                list(dict.fromkeys(names)), lambda some: predict(request[names.isin(some)])
            )
            if not parts:
                raise skipped.none_left()
            answer = pd.concat(parts, ignore_index=True)
        # JSON has no infinity: the time of an event that does not come is missing; see no_event.
        numbers = answer.select_dtypes("number").columns
        answer[numbers] = answer[numbers].replace([np.inf, -np.inf], np.nan)
        return answer


def _history(model: EventForecaster, request: pd.DataFrame, limits: Limits) -> EventTable:
    """Read the histories of a request, or return those that the model keeps."""
    kept, names = model.history_, model.history_.names
    if holds_lists(request):
        limits.check_rows(sum(len(cell) for cell in request[TIME] if isinstance(cell, Sized)))
        return model._read(request)
    of_events = (names.time_col, names.type_col, *_WINDOW)
    check_has_rows(request, of_events, names.id_col)
    told = [column for column in of_events if column in request]
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
    """List the sequences that are asked for by name."""
    if id_col not in request or request[id_col].isna().any():
        raise DataError(f"the rows hold neither events nor a {id_col}: send one of them in each")
    return list(dict.fromkeys(request[id_col]))
