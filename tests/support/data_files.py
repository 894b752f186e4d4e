"""Small files of data, and what a reader says of bad ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsllm.errors import DataError


def write(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint_of(read: Callable[..., Any], source: Any, **arguments: Any) -> str:
    """Return the error sentence of a reader for a bad source; it is one line."""
    with pytest.raises(DataError) as error:
        read(source, **arguments)
    message = str(error.value)
    assert "\n" not in message
    return message
