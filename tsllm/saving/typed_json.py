"""JSON for values that JSON has no words for: tuples, NaN, stamps, indexes with their frequency.

Series ids, columns and parameters come back as what they were. Nothing is imported or called by a
name that stands in a file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsllm.errors import DataError

# Marks an object that stands for a value of another kind.
_KIND = "$type"


def to_json(value: object, name: str) -> Any:
    """Write a value as what `json.dumps` takes.

    Parameters
    ----------
    value : object
        None, bool, int, float (also NaN and infinite), str, list, tuple, dict, numpy scalar,
        Timestamp, Timedelta, Period, or a plain pandas Index of any of them.
    name : str
        How error messages call the value.

    Returns
    -------
    None, bool, int, float, str, list or dict

    Raises
    ------
    DataError
        A value of another kind, or one whose time zone or frequency has no name.

    Examples
    --------
    >>> to_json((1, float("inf")), "the pair")
    {'$type': 'tuple', 'items': [1, {'$type': 'float', 'value': 'inf'}]}
    >>> from_json(to_json((1, float("inf")), "the pair"))
    (1, inf)
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
    if isinstance(value, list):
        return [to_json(item, name) for item in value]
    if isinstance(value, dict):
        if all(type(key) is str and key != _KIND for key in value):
            return {key: to_json(item, name) for key, item in value.items()}
        pairs = [[to_json(key, name), to_json(item, name)] for key, item in value.items()]
        return {_KIND: "dict", "items": pairs}
    if type(value) is tuple:
        return {_KIND: "tuple", "items": [to_json(item, name) for item in value]}
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return {_KIND: "numpy", "dtype": value.dtype.name, "value": to_json(value.item(), name)}
    written = _write_index(value, name) if isinstance(value, pd.Index) else _write_stamp(value)
    if written is None or not _same(written, value):
        raise DataError(
            f"{name} cannot be saved: {value!r} is a {type(value).__name__} that has no exact form "
            "in a file; use numbers, text, or stamps with a named time zone and frequency"
        )
    return written


def from_json(written: Any) -> Any:
    """Read what `to_json` wrote.

    Parameters
    ----------
    written : object
        As `json.loads` gives it.

    Returns
    -------
    object
        Equal to the value that was written, and of its type.

    Raises
    ------
    ValueError, KeyError, TypeError
        It was not written by `to_json`.
    """
    if isinstance(written, list):
        return [from_json(item) for item in written]
    if not isinstance(written, dict):
        return written
    if _KIND not in written:
        return {key: from_json(item) for key, item in written.items()}
    kind = written[_KIND]
    if kind == "float":
        return float(written["value"])
    if kind == "dict":
        return {from_json(key): from_json(item) for key, item in written["items"]}
    if kind == "tuple":
        return tuple(from_json(item) for item in written["items"])
    if kind == "numpy":
        return np.dtype(written["dtype"]).type(from_json(written["value"]))
    return _read_stamps(kind, written)


def _write_stamp(value: object) -> dict[str, Any] | None:
    """Write a single point in time or length of time; None for anything else."""
    if isinstance(value, pd.Timestamp):
        zone = None if value.tz is None else str(value.tz)
        number = int(value.asm8.astype(np.int64))
        return {_KIND: "timestamp", "value": number, "unit": value.unit, "tz": zone}
    if isinstance(value, pd.Timedelta):
        number = int(value.asm8.astype(np.int64))
        return {_KIND: "timedelta", "value": number, "unit": value.unit}
    if isinstance(value, pd.Period):
        return {_KIND: "period", "value": value.ordinal, "freq": value.freqstr}
    return None


def _write_index(index: pd.Index, name: str) -> dict[str, Any] | None:
    """Write an index with its name and, where it has one, its frequency."""
    label = to_json(index.name, name)
    if isinstance(index, pd.RangeIndex):
        bounds = [index.start, index.stop, index.step]
        return {_KIND: "range", "bounds": bounds, "name": label}
    if isinstance(index, pd.PeriodIndex):
        values = index.asi8.tolist()
        return {_KIND: "periods", "values": values, "freq": index.freqstr, "name": label}
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        written = {
            _KIND: "timestamps" if isinstance(index, pd.DatetimeIndex) else "timedeltas",
            "values": index.asi8.tolist(),
            "unit": index.unit,
            "freq": None if index.freq is None else index.freq.freqstr,
            "name": label,
        }
        if isinstance(index, pd.DatetimeIndex):
            written["tz"] = None if index.tz is None else str(index.tz)
        return written
    if isinstance(index, pd.MultiIndex):
        return None
    values = [to_json(item, name) for item in index]
    return {_KIND: "index", "values": values, "dtype": str(index.dtype), "name": label}


def _read_stamps(kind: str, written: dict[str, Any]) -> Any:
    """Read what `_write_stamp` and `_write_index` wrote."""
    if kind == "timestamp":
        stamp = pd.Timestamp(np.datetime64(written["value"], written["unit"]))
        return (
            stamp if written["tz"] is None else stamp.tz_localize("UTC").tz_convert(written["tz"])
        )
    if kind == "timedelta":
        return pd.Timedelta(np.timedelta64(written["value"], written["unit"]))
    if kind == "period":
        return pd.Period(ordinal=written["value"], freq=written["freq"])
    label = from_json(written["name"])
    if kind == "range":
        start, stop, step = written["bounds"]
        return pd.RangeIndex(start, stop, step, name=label)
    if kind == "periods":
        dtype = pd.PeriodDtype(written["freq"])
        ordinals = np.array(written["values"], dtype=np.int64)
        return pd.PeriodIndex(pd.arrays.PeriodArray(ordinals, dtype=dtype), name=label)
    if kind == "index":
        return pd.Index(from_json(written["values"]), dtype=written["dtype"], name=label)
    values = np.array(written["values"], dtype=np.int64)
    freq = to_offset(written["freq"])
    if kind == "timedeltas":
        return pd.TimedeltaIndex(values.view(f"m8[{written['unit']}]"), freq=freq, name=label)
    if kind != "timestamps":
        raise ValueError(f"unknown kind of value {kind!r}")
    stamps = pd.DatetimeIndex(values.view(f"M8[{written['unit']}]"), name=label)
    if written["tz"] is not None:
        stamps = stamps.tz_localize("UTC").tz_convert(written["tz"])
    return pd.DatetimeIndex(stamps, freq=freq)


def _same(written: dict[str, Any], value: Any) -> bool:
    """Tell whether reading gives back the value: frequencies and zones may have no name."""
    try:
        read = _read_stamps(written[_KIND], written)
    except (ValueError, KeyError, TypeError):
        return False
    if not isinstance(value, pd.Index):
        return bool(read == value)
    same_frequency = getattr(read, "freq", None) == getattr(value, "freq", None)
    return bool(read.dtype == value.dtype and same_frequency and read.equals(value))
