"""Griffe extension: the docstrings of forecasters as they are at run time, with all arguments."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe


class RuntimeDocstrings(griffe.Extension):
    """Replace the docstring of a forecaster, which lists the shared arguments at run time only."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Replace the docstring of a class of `tsllm.forecasters` or `tsllm.events`."""
        module, _, name = cls.path.rpartition(".")
        if cls.docstring and module.startswith(("tsllm.forecasters.", "tsllm.events.")):
            docstring = inspect.getdoc(getattr(importlib.import_module(module), name, None))
            cls.docstring.value = docstring or cls.docstring.value
