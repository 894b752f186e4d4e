"""JSON for values that JSON does not know: tuples, NaN, stamps, indexes, and where arrays lie.

Nothing is imported or called by a name that stands in a file.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsllm.datasets.frequency import parse_frequency, set_frequency
from tsllm.errors import DataError

# Marks an object that stands for a value of another kind.
_KIND = "$type"
# Levels of nesting. Documents of ours have about ten.
_DEEPEST = 64
# Steps of a range, which takes a few bytes in a file whatever its length is.
_LONGEST_RANGE = 10**8
_TIME_INDEXES = (pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex)


@dataclass
class Blobs:
    """The values of a document that lie in other files."""

    #: Arrays and tensors by their path in the document.
    tensors: dict[str, Tensor] = field(default_factory=dict)
    #: The one table.
    table: pd.DataFrame | None = None


def parse_json(content: bytes) -> Any:
    """Parse JSON that may come from a stranger.

    Raises
    ------
    ValueError
        It is no JSON, is nested deeper than 64 levels, or has a number that is not finite.

    Examples
    --------
    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        document = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("it has a number that is too large")
        level = inner
        if not level:
            return document
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


def to_json(value: object, name: str, blobs: Blobs | None = None) -> Any:
    """Write a value as JSON data.

    Parameters
    ----------
    value : object
        None, bool, int, float (also NaN and infinite), str, list, tuple, dict, numpy scalar,
        Timestamp, Timedelta, Period, or a plain pandas Index of any of them. With ``blobs`` also
        arrays of numbers or objects, dicts of tensors by name, and one DataFrame.
    name : str
        The value's name in error messages, and the start of the names of its tensors.
    blobs : Blobs or None, default=None
        Collects arrays and the table.

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
    return _write(value, (name,), blobs)


def from_json(written: Any, blobs: Blobs | None = None) -> Any:
    """Read the output of `to_json`.

    ``written`` is the output of `json.loads`. The result is equal to the value that was written,
    and of its type.

    Raises
    ------
    ValueError, KeyError, TypeError
        It was not written by `to_json`.
    """
    if isinstance(written, list):
        return [from_json(item, blobs) for item in written]
    if not isinstance(written, dict):
        return written
    if _KIND not in written:
        return {key: from_json(item, blobs) for key, item in written.items()}
    kind = written[_KIND]
    if kind == "float":
        return float(written["value"])
    if kind == "dict":
        return {from_json(key): from_json(item, blobs) for key, item in written["items"]}
    if kind == "tuple":
        return tuple(from_json(item, blobs) for item in written["items"])
    if kind == "numpy":
        return _number_type(written["dtype"])(from_json(written["value"]))
    if kind == "stamp":
        return _read_index(written["index"])[0]
    if kind == "texts":
        return np.array(from_json(written["values"]), dtype=object)
    if blobs is not None and kind == "array":
        return blobs.tensors[written["name"]].numpy().copy()
    if blobs is not None and kind == "state dict":
        named, prefix = blobs.tensors, written["name"] + "."
        return {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}
    if blobs is not None and kind == "table" and blobs.table is not None:
        return blobs.table
    return _read_index(written)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has the number {name}, which JSON does not know")


def _write(value: object, path: tuple[str | int, ...], blobs: Blobs | None) -> Any:
    """Write a value at a path of the document."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
    if isinstance(value, list) or type(value) is tuple:
        items = [_write(item, (*path, i), blobs) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {_KIND: "tuple", "items": items}
    written = _write_blob(value, path, blobs)
    if written is not None:
        return written
    if isinstance(value, dict):
        if all(type(key) is str and key != _KIND for key in value):
            return {key: _write(item, (*path, key), blobs) for key, item in value.items()}
        pairs = [
            [_write(key, path, None), _write(item, (*path, i), blobs)]
            for i, (key, item) in enumerate(value.items())
        ]
        return {_KIND: "dict", "items": pairs}
    if isinstance(value, np.bool_ | np.integer | np.floating):
        number = _write(value.item(), path, None)
        return {_KIND: "numpy", "dtype": value.dtype.name, "value": number}
    written = _write_stamps(value, path)
    if written is None:
        name = ".".join(part for part in path if isinstance(part, str))
        raise DataError(
            f"{name} cannot be saved: {value!r} is a {type(value).__name__} that has no exact form "
            "in a file; use numbers, text, or stamps with a named time zone and frequency"
        )
    return written


def _write_blob(
    value: object, path: tuple[str | int, ...], blobs: Blobs | None
) -> dict[str, Any] | None:
    """Put an array or a table beside the document; None for anything else."""
    if blobs is None:
        return None
    if isinstance(value, pd.DataFrame):
        assert blobs.table is None  # a model has one
        blobs.table = value
        return {_KIND: "table"}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return {_KIND: "texts", "values": _write(value.tolist(), path, None)}
    name = ".".join(map(str, path))
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        native = value.astype(value.dtype.newbyteorder("="), order="C")
        blobs.tensors[name] = torch.from_numpy(native)
        return {_KIND: "array", "name": name}
    if isinstance(value, dict) and value and all(isinstance(t, Tensor) for t in value.values()):
        # safetensors refuses tensors that share memory, such as tied weights.
        blobs.tensors |= {
            f"{name}.{key}": tensor.detach().cpu().contiguous().clone()
            for key, tensor in value.items()
        }
        return {_KIND: "state dict", "name": name}
    return None


def _write_stamps(value: object, path: tuple[str | int, ...]) -> dict[str, Any] | None:
    """Write an index, or a point or length of time; None for what has no exact form."""
    if isinstance(value, pd.Index):
        written = _write_index(value, path)
        return written if written is not None and _reads_as(written, value) else None
    if isinstance(value, pd.Timestamp):
        index: pd.Index = pd.DatetimeIndex([value]).as_unit(value.unit)
    elif isinstance(value, pd.Timedelta):
        index = pd.TimedeltaIndex([value]).as_unit(value.unit)
    elif isinstance(value, pd.Period):
        index = pd.PeriodIndex([value])
    else:
        return None
    written = _write_index(index, path)
    assert written is not None  # a plain index
    return {_KIND: "stamp", "index": written} if _reads_as(written, index) else None


def _write_index(index: pd.Index, path: tuple[str | int, ...]) -> dict[str, Any] | None:
    """Write an index with its name and, where it has one, its frequency."""
    if isinstance(index, pd.MultiIndex):
        return None
    written: dict[str, Any] = {"name": _write(index.name, path, None)}
    if isinstance(index, pd.RangeIndex):
        return {_KIND: "range", "bounds": [index.start, index.stop, index.step], **written}
    written["dtype"] = str(index.dtype)
    if isinstance(index, _TIME_INDEXES):
        freq = None if index.freq is None else index.freqstr
        return {_KIND: "times", "values": index.asi8.tolist(), "freq": freq, **written}
    return {_KIND: "index", "values": _write(index.tolist(), path, None), **written}


def _read_index(written: dict[str, Any]) -> pd.Index:
    """Read the output of `_write_index`."""
    kind, name = written[_KIND], from_json(written["name"])
    if kind == "range":
        start, stop, step = written["bounds"]
        index = pd.RangeIndex(start, stop, step, name=name)
        if len(index) > _LONGEST_RANGE:
            raise ValueError(f"a range of {len(index):,} steps")
        return index
    dtype = written["dtype"]
    if kind == "index":
        return pd.Index(from_json(written["values"]), dtype=dtype, name=name)
    if kind != "times":
        raise ValueError(f"unknown kind of value {kind!r}")
    values, freq = np.array(written["values"], dtype=np.int64), written["freq"]
    if dtype.startswith("period"):
        # The type stubs of pandas lack it.
        return pd.PeriodIndex.from_ordinals(values, freq=freq, name=name)  # type: ignore[attr-defined]
    if dtype.startswith("timedelta"):
        return pd.TimedeltaIndex(values, dtype=dtype, freq=freq, name=name)
    dates = pd.DatetimeIndex(values, dtype=dtype, name=name)
    return dates if freq is None else set_frequency(dates, parse_frequency(freq))


def _number_type(name: str) -> type[np.generic]:
    """Return NumPy's type of numbers with a name, such as "float32"."""
    dtype = np.dtype(name)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name!r} is no type of numbers")
    return dtype.type


def _reads_as(written: dict[str, Any], index: pd.Index) -> bool:
    """Return True where reading gives back the index: frequencies and zones may have no name."""
    try:
        read = _read_index(written)
    except (ValueError, KeyError, TypeError):
        return False
    same_frequency = getattr(read, "freq", None) == getattr(index, "freq", None)
    return bool(read.dtype == index.dtype and same_frequency and read.equals(index))
