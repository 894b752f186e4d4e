"""Forecasters taken apart into JSON facts, tensors and a table of contexts, and put together."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from sktime.datatypes._dtypekind import DtypeKind
from sktime.forecasting.base import ForecastingHorizon
from torch import Tensor, nn

from tsllm.backbone import Backbone
from tsllm.covariates.files import read_covariates, write_covariates
from tsllm.errors import ModelFormatError
from tsllm.forecasters.base import BaseLLMForecaster
from tsllm.forecasters.frames import Layout
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.forecasters.updating import PendingForecasts
from tsllm.intervals import Calibration, Scores
from tsllm.saving.contexts import context_facts, context_table, contexts_from
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

# What sktime keeps about the y that it has seen, and what JSON takes as it is.
_SKTIME_ATTRIBUTES = (
    "_state",
    "_is_vectorized",
    "_pretrained_attrs",
    "_y_mtype_last_seen",
    "_converter_store_y",
    "_cutoff",
)
# Where trained states hang.
_STATE_ATTRIBUTES = ("fitted_", "pretrained_")
# What a state holds beside tensors, sizes and calibration.
_STATE_FACTS = ("history", "best_epoch", "seconds", "stopped", "trained_on")


def take_snapshot(forecaster: BaseLLMForecaster, *, include_context: bool = True) -> Snapshot:
    """Take a forecaster apart.

    Parameters
    ----------
    forecaster : BaseLLMForecaster
        Pretrained or fitted.
    include_context : bool
        Whether the series' last contexts, what a method remembers beside them, and the forecasts
        of an adaptive calibration that wait for their observations, come along.

    Raises
    ------
    DataError
        A parameter, a series id or a column has no exact form in a file.
    """
    tensors: dict[str, Tensor] = {}
    states: list[FittedState] = []
    attributes: dict[str, int] = {}
    for attribute in _STATE_ATTRIBUTES:
        state = getattr(forecaster, attribute, None)
        if state is None:
            continue
        if not any(state is other for other in states):
            states.append(state)
        attributes[attribute] = next(i for i, other in enumerate(states) if other is state)
    facts = {
        "parameters": write_parameters(forecaster, tensors),
        "backbone": backbone_facts(states[0].backbone),
        "states": [_write_state(state, f"state.{i}.", tensors) for i, state in enumerate(states)],
        "attributes": attributes,
        "sktime": _write_sktime(forecaster),
        "layout": None,
        "contexts": None,
        "pending": [],
    }
    table = None
    layout = getattr(forecaster, "_layout", None)
    if layout is not None:
        facts["layout"] = {
            "columns": to_json(layout.columns, "the columns of y"),
            "index_names": to_json(layout.index_names, "the names of y's index"),
        }
        contexts = list(forecaster._contexts.values())
        if include_context and contexts:
            covariates = forecaster.fitted_.covariates
            names = () if covariates is None else covariates.columns.names
            facts["contexts"] = context_facts(contexts)
            table = context_table(contexts, layout.columns, names)
            facts["pending"] = _write_pending(forecaster, tensors)
            memory = forecaster._memory_tensors()
            tensors |= {f"memory.{name}": tensor for name, tensor in memory.items()}
    return Snapshot(facts, tensors, table)


def restore_snapshot(
    snapshot: Snapshot,
    cls: type[BaseLLMForecaster],
    *,
    device: str | None = None,
    backbone: str | None = None,
) -> BaseLLMForecaster:
    """Put a forecaster together again.

    Parameters
    ----------
    snapshot : Snapshot
    cls : type
        The forecaster's class.
    device, backbone : str, optional
        To use instead of those it was saved with. The backbone must have the same digest.

    Raises
    ------
    ModelFormatError
        Parameters that the class does not have, tensors that are not the model's, or facts that
        cannot be read.
    BackboneMismatchError
        The backbone found is not the one that the model was trained with.
    BackboneNotFoundError
        No place holds the backbone.
    """
    facts, tensors = snapshot.facts, snapshot.tensors
    parameters = parameters_anew(
        snapshot, cls, cls.get_param_names(), device=device, backbone=backbone
    )
    with readable():
        shapes = [ModelShape(**from_json(state["shape"])) for state in facts["states"]]
        forecaster = cls(**parameters)
        handle = _find_backbone(forecaster, facts["backbone"])
        states = []
        for i, shape in enumerate(shapes):
            model = forecaster._new_model(handle, shape)  # its first weights are overwritten
            _load_weights(model, part_of(tensors, f"state.{i}.model."))
            state = FittedState(model.eval(), handle, shape, forecaster.device)
            _read_state(state, facts["states"][i], part_of(tensors, f"state.{i}."))
            states.append(state)
        for attribute, number in facts["attributes"].items():
            setattr(forecaster, attribute, states[number])
        _read_sktime(forecaster, facts["sktime"])
        if facts["layout"] is not None:
            forecaster._layout = Layout(**from_json(facts["layout"]))
            contexts = []
            if facts["contexts"] is not None and snapshot.contexts is not None:
                covariates = forecaster.fitted_.covariates
                width = 0 if covariates is None else len(covariates.columns.names)
                contexts = contexts_from(facts["contexts"], snapshot.contexts, width)
            forecaster._contexts = {context.series_id: context for context in contexts}
            forecaster._pending = _read_pending(facts["pending"], tensors)
            forecaster._restore_memory(part_of(tensors, "memory."))
    return forecaster


# ---------------------------------------------------------------------- trained states


def _find_backbone(
    forecaster: BaseLLMForecaster, saved: Mapping[str, Any] | None
) -> Backbone | None:
    """Load the backbone and make sure that it is the one the model was trained with."""
    if saved is None:
        return None
    found = forecaster._load_backbone()
    assert found is not None  # a model without a backbone saves none
    return check_backbone(found, saved)


def _write_state(state: FittedState, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write a trained state."""
    for name, tensor in state.model.state_dict().items():
        tensors[f"{prefix}model.{name}"] = tensor
    calibration = state.calibration
    assert calibration is not None  # training ends with it
    ids = list(calibration.series)
    own = {str(k): scores for k, scores in enumerate(calibration.series.values())}
    for name, scores in {"pooled": calibration.pooled, **own}.items():
        tensors[f"{prefix}calibration.{name}.errors"] = torch.from_numpy(scores.errors)
        facts = torch.tensor([scores.spacing, scores.turns], dtype=torch.float64)
        tensors[f"{prefix}calibration.{name}.windows"] = facts
        if scores.shifts is not None:
            tensors[f"{prefix}calibration.{name}.shifts"] = torch.from_numpy(scores.shifts)
    if state.statistics:
        table = np.stack(list(state.statistics.values()))  # (series, 2, variables)
        tensors[f"{prefix}statistics"] = torch.from_numpy(table)
    covariates = None
    if state.covariates is not None:
        covariates = write_covariates(state.covariates, f"{prefix}covariates.", tensors)
    return {
        "shape": to_json(asdict(state.shape), "the model's shape"),
        **{fact: to_json(getattr(state, fact), fact) for fact in _STATE_FACTS},
        "calibration": {
            "series": to_json(ids, "a series id"),
            "levels": list(calibration.levels),
            "in_sample": calibration.in_sample,
        },
        "statistics": to_json(list(state.statistics), "a series id"),
        "covariates": covariates,
    }


def _read_state(
    state: FittedState, written: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Read what `_write_state` wrote, but for model and shape."""
    for fact in _STATE_FACTS:
        setattr(state, fact, from_json(written[fact]))
    calibration = written["calibration"]
    ids = from_json(calibration["series"])
    state.calibration = Calibration(
        _read_scores(tensors, "pooled"),
        {series_id: _read_scores(tensors, str(k)) for k, series_id in enumerate(ids)},
        tuple(calibration["levels"]),
        calibration["in_sample"],
    )
    described = from_json(written.get("statistics", []))  # models saved before had none
    if described:
        state.statistics = dict(zip(described, tensors["statistics"].numpy().copy(), strict=True))
    if written.get("covariates") is not None:  # as above
        state.covariates = read_covariates(written["covariates"], part_of(tensors, "covariates."))


def _read_scores(tensors: Mapping[str, Tensor], name: str) -> Scores:
    shifts = tensors.get(f"calibration.{name}.shifts")
    facts = tensors.get(f"calibration.{name}.windows")  # models saved before had none
    spacing, turns = (math.inf, 0) if facts is None else facts.tolist()
    return Scores(
        tensors[f"calibration.{name}.errors"].numpy().copy(),
        spacing,
        None if shifts is None else shifts.numpy().copy(),
        int(turns),
    )


def _load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a model's weights, which must be exactly its own."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise ModelFormatError(
                f"the saved model does not fit its parameters: the tensor {name!r} should be "
                f"{own.get(name, 'absent')} and is {found.get(name, 'absent')} in model.safetensors"
            )
    model.load_state_dict(weights, strict=True)


# ---------------------------------------------------------------------- what sktime remembers


def _write_sktime(forecaster: BaseLLMForecaster) -> dict[str, Any]:
    """Write what sktime needs to give forecasts back in the form of y."""
    written = {
        name: to_json(getattr(forecaster, name), f"the y of type {forecaster._y_metadata['mtype']}")
        for name in _SKTIME_ATTRIBUTES
        if hasattr(forecaster, name)
    }
    kinds = [kind.name for kind in forecaster._y_metadata["feature_kind"]]
    written["_y_metadata"] = to_json(
        {**forecaster._y_metadata, "feature_kind": kinds}, "a column of y"
    )
    fh = forecaster._fh
    written["_fh"] = (
        None
        if fh is None
        else {
            "values": to_json(fh.to_pandas(), "fh"),
            "is_relative": fh.is_relative,
            "freq": fh.freq,
        }
    )
    return written


def _read_sktime(forecaster: BaseLLMForecaster, written: Mapping[str, Any]) -> None:
    """Read what `_write_sktime` wrote."""
    for name in _SKTIME_ATTRIBUTES:
        if name in written:
            setattr(forecaster, name, from_json(written[name]))
    metadata = from_json(written["_y_metadata"])
    metadata["feature_kind"] = [DtypeKind[kind] for kind in metadata["feature_kind"]]
    forecaster._y_metadata = metadata
    fh = written["_fh"]
    if fh is not None:
        forecaster._fh = ForecastingHorizon(
            from_json(fh["values"]), is_relative=fh["is_relative"], freq=fh["freq"]
        )


# ---------------------------------------------------------------------- adaptive calibration


def _write_pending(
    forecaster: BaseLLMForecaster, tensors: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """Write the forecasts that wait for their observations."""
    written = []
    for k, pending in enumerate(forecaster._pending.values()):
        origins, forecasts, scales, issued = zip(*pending.waiting)
        tensors[f"pending.{k}.origins"] = torch.tensor(origins)
        tensors[f"pending.{k}.forecasts"] = torch.from_numpy(np.stack(forecasts))
        tensors[f"pending.{k}.scales"] = torch.from_numpy(np.stack(scales))
        tensors[f"pending.{k}.issued"] = torch.from_numpy(np.stack(issued))
        series_id = to_json(pending.series_id, "a series id")
        written.append({"series_id": series_id, "horizon": pending.horizon, "seen": pending.seen})
    return written


def _read_pending(
    written: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> dict[Any, PendingForecasts]:
    """Read what `_write_pending` wrote."""
    read = {}
    for k, facts in enumerate(written):
        waiting = deque(
            zip(
                tensors[f"pending.{k}.origins"].tolist(),
                tensors[f"pending.{k}.forecasts"].numpy().copy(),
                tensors[f"pending.{k}.scales"].numpy().copy(),
                tensors[f"pending.{k}.issued"].numpy().copy(),
            )
        )
        series_id = from_json(facts["series_id"])
        read[series_id] = PendingForecasts(series_id, facts["horizon"], facts["seen"], waiting)
    return read
