"""Event forecasters taken apart into JSON facts, tensors and a table, and put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsllm.datasets.events import Clock, EventColumns, EventTable
from tsllm.errors import DataError, ModelFormatError
from tsllm.events.base import EventForecaster
from tsllm.saving.snapshot_parts import (
    Snapshot,
    backbone_facts,
    check_backbone,
    parameters_anew,
    part_of,
    readable,
    write_parameters,
)
from tsllm.saving.typed_json import from_json, to_json

#: Of the fitted attributes, the events that predictions continue and the torch module.
HISTORY, MODEL = "history_", "model_"


def take_event_snapshot(estimator: EventForecaster, *, include_context: bool = True) -> Snapshot:
    """Take an event forecaster apart.

    Parameters
    ----------
    estimator : EventForecaster
        Fitted.
    include_context : bool
        Whether the history and the running states come along.

    Raises
    ------
    DataError
        A parameter or a sequence's id has no exact form in a file.
    """
    tensors: dict[str, Tensor] = {}
    fitted = {}
    for name, value in vars(estimator).items():
        if not name.endswith("_") or name.startswith("_") or name == HISTORY:
            continue
        if isinstance(value, nn.Module):
            assert name == MODEL  # the one module of an event forecaster
            tensors |= {f"model.{key}": weight for key, weight in value.state_dict().items()}
        else:
            fitted[name] = _write_attribute(name, value, tensors)
    history, clock = estimator.history_, estimator.history_.clock
    facts: dict[str, Any] = {
        "parameters": write_parameters(estimator, tensors),
        "backbone": backbone_facts(estimator._load_backbone()),
        "fitted": fitted,
        "clock": {
            "origin": to_json(clock.origin, "the clock's origin"),
            "unit": clock.unit,
            "step": clock.step,
        },
        "columns": to_json(list(vars(history.names).values()), "a column's name"),
        "history": None,
    }
    table = None
    if include_context:
        facts["history"] = {"ids": to_json(list(history.ids), "a sequence's id")}
        tensors["history.starts"] = torch.from_numpy(history.starts.copy())
        tensors["history.ends"] = torch.from_numpy(history.ends.copy())
        running = estimator._running_tensors()
        tensors |= {f"running.{name}": tensor for name, tensor in running.items()}
        table = _write_events(history)
    return Snapshot(facts, tensors, table)


def restore_event_snapshot(
    snapshot: Snapshot,
    cls: type[EventForecaster],
    *,
    device: str | None = None,
    backbone: str | None = None,
) -> EventForecaster:
    """Put an event forecaster together again.

    Parameters
    ----------
    snapshot : Snapshot
    cls : type
        The forecaster's class.
    device, backbone : str, optional
        To use instead of those it was saved with; a method without torch's devices runs on the
        CPU whatever is given. The backbone must have the same digest.

    Raises
    ------
    ModelFormatError
        Parameters that the class does not have, tensors that are not the model's, or facts that
        cannot be read.
    BackboneMismatchError
        The backbone found is not the one that the model was trained with.
    BackboneNotFoundError
        No place holds the backbone.
    DataError
        A backbone for a model that has none.
    """
    facts, tensors = snapshot.facts, snapshot.tensors
    estimator = cls(
        **parameters_anew(snapshot, cls, cls._get_param_names(), device=device, backbone=backbone)
    )
    with _belonging_together():
        for name, written in facts["fitted"].items():
            if not name.endswith("_") or name.startswith("_") or hasattr(cls, name):
                raise ModelFormatError(f"the saved model has the attribute {name!r}, which is none")
            setattr(estimator, name, _read_attribute(written, tensors))
    found = estimator._load_backbone()
    if facts["backbone"] is not None and found is not None:
        check_backbone(found, facts["backbone"])
    with _belonging_together():
        weights = part_of(tensors, "model.")
        if weights:
            model: nn.Module = estimator._build_model()
            _load_weights(model, weights)
            setattr(estimator, MODEL, model.eval())
        estimator.history_ = _read_history(facts, tensors, snapshot.contexts)
        estimator._restore_running(part_of(tensors, "running."))
    return estimator


@contextmanager
def _belonging_together() -> Iterator[None]:
    """Say in one sentence that files are not what this version of tsllm writes.

    Raises
    ------
    ModelFormatError
        Also in place of the errors that users' data end in: here the data are the files'.
    """
    with readable():
        try:
            yield
        except DataError as error:
            raise ModelFormatError(
                f"the saved model's files do not belong together ({error}): load the model with "
                "the version of tsllm that saved it, or save it again"
            ) from error


# ---------------------------------------------------------------------- fitted attributes


def _write_attribute(name: str, value: object, tensors: dict[str, Tensor]) -> Any:
    """Write an attribute: arrays of numbers go to the tensors, texts and the rest to JSON."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensors[f"fitted.{name}"] = torch.from_numpy(np.array(value, order="C"))
        return {"$tensor": f"fitted.{name}"}
    if isinstance(value, np.ndarray):
        return {"$texts": to_json(value.tolist(), name)}
    return {"$value": to_json(value, name)}


def _read_attribute(written: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Read what `_write_attribute` wrote."""
    if "$tensor" in written:
        return tensors[written["$tensor"]].numpy().copy()
    if "$texts" in written:
        return np.array(from_json(written["$texts"]), dtype=object)
    return from_json(written["$value"])


def _load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a model's weights, which must be exactly its own; a prompt pool makes its slots."""
    try:
        model.load_state_dict(weights, strict=True)
    except (RuntimeError, LookupError, ValueError) as error:
        problem = " ".join(str(error).split()).removeprefix("Error(s) in loading state_dict for ")
        raise ModelFormatError(
            f"the tensors in model.safetensors are not those of the saved model ({problem[:300]}): "
            "copy the whole directory again, or save the model again"
        ) from error


# ---------------------------------------------------------------------- the history


def _write_events(history: EventTable) -> pd.DataFrame:
    """Lay a history out in rows: exact numbers, and beside them what people read."""
    lengths = [len(times) for times in history.times]
    rows = np.repeat(np.arange(len(history)), lengths)
    times = np.concatenate([*history.times, np.empty(0)])
    types = np.concatenate([*history.types, np.empty(0, dtype=object)])
    frame = pd.DataFrame(
        {
            "sequence": rows,
            "sequence_id": pd.Series([str(history.ids[row]) for row in rows], dtype=str),
            "time": times,
            "type": pd.Series(types, dtype=str),
        }
    )
    if history.clock.is_stamps:
        stamps = history.clock.to_stamp(times)
        frame["timestamp"] = stamps if stamps.tz is None else stamps.tz_convert("UTC")
    return frame


def _read_history(
    facts: Mapping[str, Any], tensors: Mapping[str, Tensor], frame: pd.DataFrame | None
) -> EventTable:
    """Read what `_write_events` wrote; of a model saved without it, a table of nothing."""
    clock = Clock(
        from_json(facts["clock"]["origin"]), facts["clock"]["unit"], facts["clock"]["step"]
    )
    names = EventColumns(*from_json(facts["columns"]))
    if facts["history"] is None:
        return EventTable((), (), (), np.empty(0), np.empty(0), clock, names)
    if frame is None:
        raise ValueError("there is no context.parquet")
    ids = from_json(facts["history"]["ids"])
    cuts = np.searchsorted(frame["sequence"].to_numpy(), np.arange(1, len(ids)))
    return EventTable(
        tuple(ids),
        tuple(np.split(frame["time"].to_numpy(dtype=np.float64), cuts)),
        tuple(np.split(frame["type"].to_numpy(dtype=object), cuts)),
        tensors["history.starts"].numpy().copy(),
        tensors["history.ends"].numpy().copy(),
        clock,
        names,
    )
