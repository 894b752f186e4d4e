"""JSON lines: one row, or one series of GluonTS, on each line."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tsllm.datasets.checks import check_values
from tsllm.datasets.delimited import open_text
from tsllm.datasets.frequency import future_times
from tsllm.datasets.strict_json import parse_json
from tsllm.errors import DataError

_GLUONTS_FIELDS = {"item_id", "start", "freq", "target"}


def read_json_lines(
    path: Path, source: str, freq: str | None, *, named: bool = False
) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """Read JSON lines. The second value returns the line of a row.

    ``source`` is the name of the file in error messages; ``freq`` is for GluonTS, whose series must
    have an ``item_id`` if ``named`` is True.
    """
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = parse_json(line, f"{source}, line {number}")
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{source}, line {number} is no JSON ({error.msg}); write one object a line"
                ) from None
            except RecursionError:
                raise DataError(
                    f"{source}, line {number} is nested too deeply; write one flat object a line"
                ) from None
            if not isinstance(record, dict):
                raise DataError(f"{source}, line {number} is no JSON object; write one a line")
            records.append(record)
            lines.append(number)
    if records and {"start", "target"} <= records[0].keys():
        for record, number in zip(records, lines, strict=True):
            if named and "item_id" not in record:
                raise DataError(
                    f"{source}, line {number} has no 'item_id'; give one to each series, since the "
                    "parts of a directory are one table"
                )
        return _expand_gluonts(records, lines, source, freq)
    for record, number in zip(records, lines, strict=True):
        different = sorted(record.keys() ^ records[0].keys())
        if different:
            raise DataError(
                f"{source}, lines {lines[0]} and {number} differ in {different[0]!r}; give every "
                "line the same fields, null where a value is missing"
            )
    return pd.DataFrame(records), lambda i: f"line {lines[i]}"


def _expand_gluonts(
    records: list[dict[str, Any]], lines: list[int], source: str, freq: str | None
) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """Convert GluonTS series to rows; warn once about unused fields."""
    frames, places = [], []
    for count, (record, number) in enumerate(zip(records, lines, strict=True)):
        where = f"{source}, line {number}"
        target = record.get("target")
        if not isinstance(target, list) or not target or isinstance(target[0], list):
            raise DataError(f"{where} has no 'target' with one list of numbers; give it one")
        item = record.get("item_id", str(count))
        # GluonTS writes missing values as the text NaN
        numbers = pd.Series([None if value == "NaN" else value for value in target], dtype=object)
        values = check_values(numbers, series=item, row=_step_of(number))
        step = freq or record.get("freq")
        if step is None:
            raise DataError(f"{where} has no 'freq'; pass freq=, for example freq='h' (--freq)")
        start = pd.to_datetime(str(record.get("start")), errors="coerce", format="ISO8601")
        if not isinstance(start, pd.Timestamp):
            raise DataError(
                f"{where} has the start {record.get('start')!r}; write it year first, for example "
                "2024-01-31 13:00"
            )
        try:
            times = pd.DatetimeIndex([start]).append(future_times(start, step, len(target)))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        frames.append(
            pd.DataFrame(
                {"item_id": item, "timestamp": times[: len(target)], "target": values[:, 0]}
            )
        )
        places += [(number, step_number) for step_number in range(len(target))]
    unused = sorted({key for record in records for key in record} - _GLUONTS_FIELDS)
    if unused:
        warnings.warn(f"{source} has fields that are not used: {', '.join(unused)}", stacklevel=6)
    return (
        pd.concat(frames, ignore_index=True),
        lambda i: f"line {places[i][0]}, step {places[i][1]}",
    )


def _step_of(line: int) -> Callable[[int], str]:
    """Name the steps of a GluonTS series."""
    return lambda step: f"line {line}, step {step}"
