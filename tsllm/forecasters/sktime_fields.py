"""The private attributes of sktime that a saved forecaster cannot do without, named here only.

sktime has no public way to say in which form ``y`` came and how far it reached; its own `save`
pickles the whole object. A test compares the names with those that sktime sets.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sktime.datatypes import MTYPE_REGISTER
from sktime.datatypes._dtypekind import DtypeKind
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from tsllm.arguments import shown, wanted_instead
from tsllm.errors import ModelFormatError

#: Plain values with their types, in a pretrained and in a fitted forecaster.
PLAIN: Mapping[str, Any] = {
    "_state": str,
    "_cutoff": pd.Index | None,
    "_is_vectorized": bool,
    "_pretrained_attrs": list[str],
    "_converter_store_y": dict,
    "_y_mtype_last_seen": str,
}
# Those that every forecaster of a state has.
_NEEDED = {
    "pretrained": ("_state", "_y_mtype_last_seen", "_converter_store_y"),
    "fitted": ("_state", "_cutoff", "_is_vectorized", "_y_mtype_last_seen", "_converter_store_y"),
}
#: Holds enumerations, and the horizon that `fit` was given.
METADATA, HORIZON = "_y_metadata", "_fh"
# sktime's names of the forms of ``y``.
_MTYPES = frozenset(name for name, *_ in MTYPE_REGISTER)


def sktime_to_state(forecaster: BaseForecaster) -> dict[str, Any]:
    """Return what sktime remembers of ``y`` and of the horizon as plain values."""
    own = vars(forecaster)
    metadata, fh = own[METADATA], own[HORIZON]
    horizon = None
    if fh is not None:
        horizon = {"values": fh.to_pandas(), "is_relative": fh.is_relative, "freq": fh.freq}
    return {
        **{name: own[name] for name in PLAIN if name in own},
        METADATA: metadata | {"feature_kind": [kind.name for kind in metadata["feature_kind"]]},
        HORIZON: horizon,
    }


def sktime_from_state(forecaster: BaseForecaster, state: Mapping[str, Any]) -> None:
    """Set the output of `sktime_to_state` on a new forecaster."""
    metadata, horizon = state[METADATA], state[HORIZON]
    _check(state)
    kinds = [DtypeKind[kind] for kind in metadata["feature_kind"]]
    fields = {name: state[name] for name in PLAIN if name in state}
    fields[METADATA] = metadata | {"feature_kind": kinds}
    if horizon is not None:
        fields[HORIZON] = ForecastingHorizon(**horizon)
    for name, value in fields.items():
        setattr(forecaster, name, value)


def _check(state: Mapping[str, Any]) -> None:
    """Check what a file says of sktime's attributes."""
    needed = _NEEDED.get(str(state["_state"]), ("_state",))
    for name, hint in PLAIN.items():
        if name in state or name in needed:
            wanted = wanted_instead(state.get(name), hint)
            if wanted:
                raise ModelFormatError(
                    f"the saved model's {name!r} must be {wanted}, found {shown(state.get(name))}"
                )
    mtype, metadata = state["_y_mtype_last_seen"], state[METADATA]
    if state["_state"] not in _NEEDED or state.get("_is_vectorized", False):
        raise ModelFormatError(
            "the saved model has a state of sktime that is not one of a pretrained or fitted "
            "forecaster"
        )
    if metadata["mtype"] != mtype or mtype not in _MTYPES:
        raise ModelFormatError(
            f"the saved model names the types {mtype!r} and {metadata['mtype']!r} for y: they must "
            "be the same type of sktime"
        )
    if set(state.get("_pretrained_attrs", ())) - {"pretrained_"}:
        raise ModelFormatError("the saved model has attributes that pretraining does not set")
