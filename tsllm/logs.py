"""Structured logging: events with fields, in JSON or text.

tsllm logs with the standard library under the names ``tsllm.*`` and sets up no handler: an
application's handlers get each event with its fields (``record.fields``). The command line calls
`log_to_stderr`.
"""

import json
import logging
import sys
import time
from typing import Any, Literal, TextIO

logging.getLogger("tsllm").addHandler(logging.NullHandler())


def log_event(
    logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: Any
) -> None:
    """Log an event.

    Parameters
    ----------
    logger : Logger
    event : str
        A fixed name, such as "block written".
    level : int, default=logging.INFO
        A level of logging.
    **fields
        Text, numbers, bools or None.
    """
    logger.log(level, event, extra={"fields": fields})


def log_to_stderr(
    form: Literal["text", "json"], *, level: int = logging.INFO, stream: TextIO | None = None
) -> logging.Handler:
    """Write tsllm's events to stderr, one line each.

    Parameters
    ----------
    form : {"text", "json"}
        "json": objects with ``time`` (ISO, UTC), ``level``, ``logger``, ``event`` and the fields.
    level : int, default=logging.INFO
        The lowest level to write.
    stream : file or None, default=None
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
    """Format a record's time in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class _Json(logging.Formatter):
    """A formatter with one JSON object per line."""

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
    """A formatter with words, then ``field=value``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        told = "".join(f" {name}={value}" for name, value in fields.items())
        return f"{_stamp(record)} {record.levelname.lower()} {record.getMessage()}{told}"
