"""Structured logging: events with fields, as lines of JSON or of text.

tsllm logs with the standard library under the names ``tsllm.*`` and, as a library should, sets up
nothing itself: an application's own handlers see each event with its fields (``record.fields``).
`log_to_stderr` is what the command line uses.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal, TextIO

logging.getLogger("tsllm").addHandler(logging.NullHandler())


def log_event(
    logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: Any
) -> None:
    """Log that something happened.

    Parameters
    ----------
    logger : Logger
    event : str
        In words that do not vary, such as "block written".
    level : int
        One of logging's.
    **fields
        What can be counted or searched for: text, numbers, bools, None.
    """
    logger.log(level, event, extra={"fields": fields})


def log_to_stderr(
    form: Literal["text", "json"], *, level: int = logging.INFO, stream: TextIO | None = None
) -> logging.Handler:
    """Write tsllm's events to stderr, a line each.

    Parameters
    ----------
    form : {"text", "json"}
        "json": objects with ``time`` (ISO, UTC), ``level``, ``logger``, ``event`` and the fields.
    level : int
        The lowest level to write.
    stream : file, optional
        None: stderr.

    Returns
    -------
    Handler
        For `logging.getLogger("tsllm").removeHandler`.

    Examples
    --------
    >>> import io, json
    >>> lines = io.StringIO()
    >>> handler = log_to_stderr("json", stream=lines)
    >>> log_event(logging.getLogger("tsllm.batch"), "block written", block=3)
    >>> logging.getLogger("tsllm").removeHandler(handler)
    >>> entry = json.loads(lines.getvalue())
    >>> entry["event"], entry["block"]
    ('block written', 3)
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logger = logging.getLogger("tsllm")
    logger.addHandler(handler)
    logger.setLevel(level)
    return handler


def _stamp(record: logging.LogRecord) -> str:
    """Give a record's time in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _Text(logging.Formatter):
    """Words, then ``field=value``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        told = "".join(f" {name}={value}" for name, value in fields.items())
        return f"{_stamp(record)} {record.levelname.lower()} {record.getMessage()}{told}"
