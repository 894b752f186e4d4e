"""Templates of HTML: every value that they show is escaped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Render a template of ``tsllm/pages/templates``."""
    return _environment().get_template(template).render(values)


def source(name: str) -> str:
    """Read a file of ``tsllm/pages/templates`` as it is."""
    loader = _environment().loader
    assert loader is not None  # it is set below
    return loader.get_source(_environment(), name)[0]


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tsllm.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
