"""The private attributes of sktime that a saved forecaster cannot do without, named here only.

sktime has no public way to say in which form ``y`` came and how far it reached; its own `save`
pickles the whole object. A test compares the names with those that sktime sets.
"""

from collections.abc import Mapping
from typing import Any

from sktime.datatypes._dtypekind import DtypeKind
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

#: Plain values, in a pretrained forecaster and, all of them, in a fitted one.
PLAIN = (
    "_state",
    "_cutoff",
    "_is_vectorized",
    "_pretrained_attrs",
    "_converter_store_y",
    "_y_mtype_last_seen",
)
#: Holds enumerations, and the horizon that `fit` was given.
METADATA, HORIZON = "_y_metadata", "_fh"


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
    kinds = [DtypeKind[kind] for kind in metadata["feature_kind"]]
    fields = {name: state[name] for name in PLAIN if name in state}
    fields[METADATA] = metadata | {"feature_kind": kinds}
    if horizon is not None:
        values = horizon.pop("values")
        fields[HORIZON] = ForecastingHorizon(values, **horizon)
    for name, value in fields.items():
        setattr(forecaster, name, value)
