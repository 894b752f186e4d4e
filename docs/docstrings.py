"""Griffe extension: docstrings as they are at run time, with the defaults of the signatures."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

#: The choices of a parameter, as numpydoc writes them.
_CHOICES = re.compile(r"^(\s*\w+(?:, \w+)* : )(?=\{)", re.MULTILINE)


class RuntimeDocstrings(griffe.Extension):
    """Complete the docstrings that the reference shows."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replace the docstring of a forecaster; keep the defaults behind lists of choices."""
        if not obj.docstring:
            return
        if obj.is_class:
            obj.docstring.value = _at_run_time(obj.path) or obj.docstring.value
        # Griffe takes the first choice for the default, and drops what stands behind the choices.
        obj.docstring.value = _CHOICES.sub(r"\1one of ", obj.docstring.value)


def _at_run_time(path: str) -> str | None:
    """Return the docstring of a forecaster, which lists the shared arguments at run time only."""
    module, _, name = path.rpartition(".")
    if not module.startswith(("tsllm.forecasters.", "tsllm.events.")):
        return None
    return inspect.getdoc(getattr(importlib.import_module(module), name, None))
