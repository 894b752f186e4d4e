"""What every saved estimator consists of, and the pieces that are written alike for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.backbone import Backbone
from tsllm.errors import BackboneMismatchError, DataError, ModelFormatError, TsllmError
from tsllm.saving.typed_json import from_json, to_json


class HasParameters(Protocol):
    """An estimator of sktime's or scikit-learn's manners."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the constructor's arguments."""
        ...


@dataclass
class Snapshot:
    """What an estimator consists of.

    Attributes
    ----------
    facts : dict
        What `json.dumps` takes.
    tensors : dict of str to Tensor
        Everything that is an array, on the CPU; never the frozen backbone's.
    contexts : DataFrame or None
        What predictions continue: the last context of each series, one row a step, or the history
        of each event sequence, one row an event.
    """

    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    contexts: pd.DataFrame | None


@contextmanager
def readable() -> Iterator[None]:
    """Say in one sentence that files are not what this version of tsllm writes.

    Raises
    ------
    ModelFormatError
        In place of the errors that reading what was never written by tsllm ends in.
    """
    try:
        yield
    except TsllmError:
        raise
    except Exception as error:  # whatever a file that somebody has changed ends in
        raise ModelFormatError(
            f"the saved model's files do not belong together ({type(error).__name__}: {error}): "
            "load the model with the version of tsllm that saved it, or save it again"
        ) from error


def write_parameters(estimator: HasParameters, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write the constructor's arguments; arrays go to the tensors, an embedding store nowhere."""
    written = {}
    for name, value in estimator.get_params(deep=False).items():
        if name == "embedding_store":
            continue
        if isinstance(value, pd.DataFrame | pd.Series):
            value = value.to_numpy()
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biuf":
                raise DataError(
                    f"{name} cannot be saved: it is an array of {value.dtype}; fit with an array "
                    "of numbers"
                )
            native = value.dtype.newbyteorder("=")
            tensors[f"parameter.{name}"] = torch.from_numpy(value.astype(native, order="C"))
            written[name] = {"$tensor": f"parameter.{name}"}
            continue
        if name == "random_state" and not isinstance(value, int | np.integer | None):
            raise DataError(
                f"random_state cannot be saved: it is a {type(value).__name__}, whose state is no "
                "parameter; fit with a whole number as random_state"
            )
        written[name] = to_json(value, f"the parameter {name}")
    return written


def parameters_anew(
    snapshot: Snapshot,
    cls: type,
    known: Collection[str],
    *,
    device: str | None,
    backbone: str | None,
) -> dict[str, Any]:
    """Read the constructor's arguments, with another device or backbone where one is given.

    Parameters
    ----------
    snapshot : Snapshot
    cls : type
        The estimator's class.
    known : collection of str
        The arguments that it has. One without ``device`` runs on the CPU only.
    device, backbone : str, optional
        To use instead of those saved.

    Raises
    ------
    ModelFormatError
        A parameter that the class does not have.
    DataError
        A backbone for a model that has none.
    """
    with readable():
        saved = snapshot.facts["backbone"]
        parameters = _read_parameters(snapshot.facts["parameters"], snapshot.tensors)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ModelFormatError(
            f"the saved model has the parameter {unknown[0]!r}, which {cls.__name__} does not "
            "know: load it with the version of tsllm that saved it"
        )
    if device is not None and "device" in known:
        parameters["device"] = device
    if backbone is not None:
        if saved is None:
            raise DataError(
                f"backbone={backbone!r} was given and the saved model uses none: leave it out"
            )
        parameters["backbone"] = backbone
    return parameters


def backbone_facts(backbone: Backbone | None) -> dict[str, Any] | None:
    """Say which backbone a model was trained with."""
    if backbone is None:
        return None
    return {"spec": backbone.spec, "layers": backbone.n_layers, "digest": backbone.digest}


def check_backbone(found: Backbone, saved: Mapping[str, Any]) -> Backbone:
    """Make sure that a backbone is the one that a model was trained with.

    Parameters
    ----------
    found : Backbone
    saved : mapping
        From `backbone_facts`.

    Raises
    ------
    BackboneMismatchError
        It has other weights.
    """
    if found.digest != saved["digest"]:
        raise BackboneMismatchError(
            f"the model was trained with the backbone {saved['spec']} of digest {saved['digest']}, "
            f"and {found.source} has digest {found.digest}: say with backbone=... where the same "
            "weights are, or fit anew"
        )
    return found


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Pick the tensors with a prefix, and take it off."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _read_parameters(written: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read what `write_parameters` wrote."""
    return {
        name: tensors[value["$tensor"]].numpy().copy()
        if isinstance(value, dict) and "$tensor" in value
        else from_json(value)
        for name, value in written.items()
    }
