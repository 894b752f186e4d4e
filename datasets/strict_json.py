"""JSON text, read without losing a value."""

import json
import reprlib
from collections import Counter
from typing import Any

from tsllm.errors import DataError


def parse_json(text: str, source: str) -> Any:
    """Read JSON as `json.loads` does, and refuse an object that gives a name twice.

    `json.loads` keeps the last of the two values. ``source`` begins the error message.

    Raises
    ------
    DataError
        An object gives a name twice.
    ValueError, RecursionError
        As `json.loads`: the text is no JSON, or is nested too deeply.

    Examples
    --------
    >>> parse_json('[{"value": 3}, {"value": null}]', "rows.json")
    [{'value': 3}, {'value': None}]
    """

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = reprlib.repr(next(name for name, count in counts.items() if count > 1))
            raise DataError(f"{source} gives {twice} twice in one object; keep one of the two")
        return found

    return json.loads(text, object_pairs_hook=fields)
